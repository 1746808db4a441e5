//! The whole disk image: partition table, manifest partition, root partition, in a sparse file.
//!
//! | from | what |
//! |---|---|
//! | 0 | protective MBR, GPT |
//! | 1 MiB | manifest partition |
//! | 2 MiB (later when the manifest is large) | root file system, ext4 |
//! | the last 33 sectors | backup GPT |

use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ext4::FileDevice;
use manifest::gpt::{self, Guid, Partition, SECTOR, TAIL_SECTORS};
use manifest::{MANIFEST_PARTITION_TYPE, ROOT_PARTITION_TYPE, partition};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::root;
use super::tree::{Id, Kind, ROOT, Tree};
use crate::home::{make_dir, sweep};
use crate::progress;

const MIB: u64 = 1 << 20;

/// Writes the image file `path`; `least` is the smallest size of the whole disk in bytes. The file appears under its name
/// only when it is complete, and replaces one that a machine is still running from without disturbing that.
pub fn write(path: &Path, tree: &Tree, boot: &Value, least: u64) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_dir(folder)?;
    sweep(folder, ".building-", Duration::from_secs(3600));
    let context = || format!("cannot write the image {}", path.display());
    let temporary = tempfile::Builder::new()
        .prefix(".building-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(context)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(temporary.path())
        .with_context(context)?;
    fill(&file, tree, boot, least).with_context(context)?;
    temporary
        .persist(path)
        .map_err(|e| e.error)
        .with_context(context)?;
    Ok(())
}

fn fill(file: &File, tree: &Tree, boot: &Value, least: u64) -> Result<()> {
    let text = serde_json::to_vec_pretty(boot)?;
    let manifest = partition::encode(&text)?;
    let id = identity(tree, &text);

    let manifest_at = MIB;
    let manifest_len = partition::partition_len(text.len()).max(64 << 10);
    let root_at = (manifest_at + manifest_len).next_multiple_of(MIB);
    let tail = MIB;
    let root_len = root::size_for(tree, least.saturating_sub(root_at + tail));
    let disk_len = root_at + root_len + tail;
    file.set_len(disk_len)?;

    let sector = |bytes: u64| bytes / SECTOR as u64;
    let part = |kind, name: &str, start: u64, length: u64| Partition {
        kind,
        id: Guid(derived(&id, name)),
        first: sector(start),
        last: sector(start + length) - 1,
        name: name.into(),
    };
    let partitions = [
        part(
            MANIFEST_PARTITION_TYPE,
            "manifest",
            manifest_at,
            manifest_len,
        ),
        part(ROOT_PARTITION_TYPE, "root", root_at, root_len),
    ];
    let table = gpt::encode(Guid(derived(&id, "disk")), sector(disk_len), &partitions)?;
    file.write_all_at(&table.head, 0)?;
    file.write_all_at(&table.tail, disk_len - TAIL_SECTORS * SECTOR as u64)?;
    file.write_all_at(&manifest, manifest_at)?;

    let bar = progress::bytes(tree.content_bytes(), "writing the image");
    let device = FileDevice::new(file.try_clone()?, root_at, root_len);
    root::write(device, tree, derived(&id, "root file system"), &bar)?;
    bar.finish_and_clear();
    Ok(())
}

/// A hash of all that says what the image is: names, attributes, sizes, contents made by the tool, the manifest.
fn identity(tree: &Tree, manifest: &[u8]) -> [u8; 32] {
    fn add(hash: &mut Sha256, tree: &Tree, id: Id) {
        let node = tree.node(id);
        let a = node.attributes;
        hash.update(format!("{:o} {} {} {:?} ", a.mode, a.uid, a.gid, a.mtime));
        match &node.kind {
            Kind::Dir(_) => {
                for (name, child) in tree.entries(id) {
                    hash.update(name.as_bytes());
                    hash.update([0]);
                    add(hash, tree, child);
                }
                hash.update([0]);
            }
            Kind::HostFile(_, size) => hash.update(size.to_le_bytes()),
            Kind::Bytes(bytes) => hash.update(bytes),
            Kind::Symlink(target) => hash.update(target.as_os_str().as_bytes()),
        }
    }
    let mut hash = Sha256::new();
    hash.update(manifest);
    add(&mut hash, tree, ROOT);
    hash.finalize().into()
}

/// A UUID (of version 8, RFC 9562) for one use of an identity.
fn derived(id: &[u8; 32], purpose: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(id);
    hash.update(purpose);
    let hash: [u8; 32] = hash.finalize().into();
    let mut out = [0; 16];
    out.copy_from_slice(&hash[..16]);
    out[6] = out[6] & 0x0f | 0x80;
    out[8] = out[8] & 0x3f | 0x80;
    out
}
