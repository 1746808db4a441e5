//! The boot manifest: what the tool tells the kernel about the program it is to run.
//!
//! Here live the manifest's keys, their types and defaults, the merging of its layers, and the two small on-disk formats
//! that carry it: the manifest partition and the GPT around it. Nothing here reads a device or a file; callers
//! hand in bytes. What the keys *do* is the business of the kernel's rooms.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod cmdline;
mod console;
mod crc;
mod environment;
mod error;
mod exit;
mod extract;
pub mod gpt;
pub mod json;
mod model;
pub mod partition;
mod reader;

pub use cmdline::{Override, apply_overrides, parse_overrides};
pub use console::ConsoleServer;
pub use crc::{crc32, crc32c};
pub use environment::with_environment;
pub use error::{Error, Layer};
pub use exit::{ExitMatch, ExitSet};
pub use model::{
    Console, Interface, LogLevel, Manifest, Mount, MountSource, NetConsole, Tracing, Uname,
};
pub use reader::parse_size;
pub use serde_json::{Map, Value};

/// The GPT type GUID of the partition that holds the manifest (see [`partition`]).
pub const MANIFEST_PARTITION_TYPE: gpt::Guid =
    gpt::Guid::from_fields(0x6e61_6e6f, 0x7300, 0x4d61, *b"nifest\0\x01");

/// The GPT type GUID of the root file system: "Linux root (x86-64)" of the Discoverable Partitions Specification.
pub const ROOT_PARTITION_TYPE: gpt::Guid = gpt::Guid::from_fields(
    0x4f68_bce3,
    0xe8cd,
    0x4db1,
    [0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09],
);

/// The name under which QEMU's `fw_cfg` hands a merge patch over the disk's manifest to the kernel.
pub const FW_CFG_NAME: &str = "opt/nanos/manifest";

/// Merges the three layers of a boot manifest and reads the result.
///
/// `disk` is the JSON text of the manifest partition, `fw_cfg` an RFC 7396 merge patch handed over by the hypervisor,
/// `cmdline` the kernel command line, whose `a.b=value` words are applied last.
///
/// # Errors
/// A layer that is not JSON, or a key whose value has the wrong type: the error names the layer, the place and the key.
pub fn parse_layers(disk: &[u8], fw_cfg: Option<&[u8]>, cmdline: &str) -> Result<Manifest, Error> {
    let mut merged = parse_one(disk, Layer::Disk)?;
    if let Some(patch) = fw_cfg {
        let patch = parse_one(patch, Layer::FwCfg)?;
        json::merge_patch(&mut merged, patch);
    }
    let mut words = parse_overrides(cmdline);
    apply_overrides(&mut merged, &mut words).map_err(|e| e.in_layer(Layer::CommandLine))?;
    let layer = if words.is_empty() {
        Layer::Merged
    } else {
        Layer::CommandLine
    };
    Manifest::from_value(merged).map_err(|e| e.in_layer(layer))
}

/// Parses one layer and checks the types of the keys it has, so that an error can point into that layer's text.
fn parse_one(text: &[u8], layer: Layer) -> Result<Value, Error> {
    let value = json::parse(text).map_err(|e| e.in_layer(layer))?;
    extract::check(&value).map_err(|e| e.locate(text).in_layer(layer))?;
    Ok(value)
}

#[cfg(test)]
mod tests;
