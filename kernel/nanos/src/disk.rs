//! The boot disk: the manifest from its partition with what the hypervisor lays over it, and the root partition.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use drivers::block::BlockDevice;
use drivers::partition::{Partition, gpt};
use machine::boot::BootInfo;
use manifest::partition::{self, HEADER_LEN};
use manifest::{FW_CFG_NAME, MANIFEST_PARTITION_TYPE, Manifest, ROOT_PARTITION_TYPE};

use crate::StartError;

/// What was found on the boot disk.
pub struct BootDisk {
    /// The manifest as it holds for this run.
    pub manifest: Manifest,
    /// Where the manifest's lowest layer lies.
    pub source: Partition,
    /// The root file system's partition.
    pub root: Arc<dyn BlockDevice>,
}

/// Looks through `disks` for the first with a manifest and a root partition.
pub fn find(boot: &BootInfo, disks: &[Arc<dyn BlockDevice>]) -> Result<BootDisk, StartError> {
    if disks.is_empty() {
        return Err(StartError::NoDisk);
    }
    for disk in disks {
        let partitions = match gpt(disk) {
            Ok(partitions) => partitions,
            Err(error) => {
                log::warn!("a disk without a partition table: {error}");
                continue;
            }
        };
        let of_type = |kind| partitions.iter().find(|partition| partition.kind() == kind);
        if let (Some(manifest), Some(root)) = (
            of_type(MANIFEST_PARTITION_TYPE),
            of_type(ROOT_PARTITION_TYPE),
        ) {
            return Ok(BootDisk {
                manifest: read_manifest(boot, manifest)?,
                source: manifest.clone(),
                root: Arc::new(root.clone()),
            });
        }
    }
    Err(StartError::NoManifest)
}

fn read_manifest(boot: &BootInfo, disk: &Partition) -> Result<Manifest, StartError> {
    let text = manifest_text(disk)?;
    let over: Option<Vec<u8>> = boot
        .fw_cfg
        .as_ref()
        .and_then(|fw_cfg| fw_cfg.file(FW_CFG_NAME));
    manifest::parse_layers(&text, over.as_deref(), &boot.command_line).map_err(StartError::Manifest)
}

/// The text of the manifest's lowest layer.
pub fn manifest_text(disk: &Partition) -> Result<Vec<u8>, StartError> {
    let mut bytes = vec![0; partition::BLOCK];
    disk.read(0, &mut bytes).map_err(StartError::Disk)?;
    let total =
        partition::encoded_len(&bytes[..HEADER_LEN]).map_err(StartError::ManifestPartition)?;
    if total > bytes.len() {
        let size = total.next_multiple_of(partition::BLOCK);
        bytes.resize(size, 0);
        disk.read(0, &mut bytes).map_err(StartError::Disk)?;
    }
    let text = partition::decode(&bytes).map_err(StartError::ManifestPartition)?;
    Ok(text.to_vec())
}
