//! The kernel that is booted: the one given, or the one embedded in this program, unpacked into `~/.ops/<version>/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::home::{Home, write_atomically};

/// The kernel's ELF file, put here when the tool was built with `NANOS_KERNEL`; empty without.
static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernel.img"));

/// The kernel's file. `given` comes from `--kernel` or the configuration.
pub fn file(home: &Home, given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        let elf = fs::read(path).map(|bytes| bytes.starts_with(b"\x7fELF"));
        return match elf {
            Ok(true) => Ok(std::path::absolute(path)?),
            Ok(false) => bail!("the kernel {} is not an ELF file", path.display()),
            Err(e) => bail!("cannot read the kernel {}: {e}", path.display()),
        };
    }
    if EMBEDDED.is_empty() {
        bail!(
            "this ops was built without a kernel; build it with `cargo xtask build`, or name a kernel with --kernel"
        );
    }
    let path = home.kernel();
    if fs::read(&path).ok().as_deref() != Some(EMBEDDED) {
        write_atomically(&path, EMBEDDED)?;
    }
    Ok(path)
}
