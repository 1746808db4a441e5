//! The boot disk: the manifest from its partition with what the hypervisor lays over it, and the root partition.

use alloc::sync::Arc;
use alloc::vec::Vec;
use drivers::IoError;
use drivers::block::{BlockDevice, Operation, SECTOR_SIZE};
use drivers::partition::{Partition, gpt};
use machine::boot::BootInfo;
use manifest::partition::{self, Error};
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
    let found = partition::load(&Place(disk)).map_err(|error| match error {
        Error::Disk(error) => StartError::Disk(error),
        Error::Partition(error) => StartError::ManifestPartition(error),
    })?;
    if found.fell_back {
        log::warn!("the newest manifest on the disk is damaged: the one before it holds");
    }
    Ok(found.text)
}

/// Whether a text of that length can replace the manifest's lowest layer.
pub fn check_room(disk: &Partition, length: usize) -> Result<(), partition::PartitionError> {
    partition::check_room(partition::Disk::size(&Place(disk)), length)
}

/// Replaces the text of the manifest's lowest layer: a power cut leaves the old one or the new one.
pub fn replace_manifest(disk: &Partition, text: &[u8]) -> Result<(), Error<IoError>> {
    partition::replace(&Place(disk), text)
}

/// The manifest's partition.
struct Place<'a>(&'a Partition);

impl partition::Disk for Place<'_> {
    type Error = IoError;

    fn size(&self) -> u64 {
        self.0.sector_count().saturating_mul(SECTOR_SIZE as u64)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.0.read(offset / SECTOR_SIZE as u64, into)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.0.write(offset / SECTOR_SIZE as u64, bytes)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.0.execute(Operation::Flush, 0, &[])
    }
}
