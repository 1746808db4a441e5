//! Making an empty file system.

use crate::{BlockDevice, Error, Result, Timestamp};

/// What [`mkfs`] writes. The same options give the same bytes.
#[derive(Clone, Debug)]
pub struct MkfsOptions {
    /// UUID of the volume (and of its journal).
    pub uuid: [u8; 16],
    /// Label, at most 16 bytes.
    pub label: [u8; 16],
    /// Size in bytes; what does not fill a block is left unused. At most the device's size.
    pub size: u64,
    /// Block size: 1024, 2048 or 4096.
    pub block_size: u32,
    /// Length of the journal in blocks: 0 for none, otherwise at least 1,024.
    pub journal_blocks: u32,
    /// Number of inodes, rounded up to whole table blocks; `None` is one for each 16 KiB.
    pub inodes: Option<u32>,
    /// Time of creation.
    pub now: Timestamp,
    /// Seed of the directory hash.
    pub hash_seed: [u8; 16],
    /// Share of the blocks kept for the superuser, in percent.
    pub reserved_percent: u8,
    /// The device is known to read as zeros: do not write zeros, so that an image stays sparse.
    pub zeroed: bool,
}

impl MkfsOptions {
    /// 4 KiB blocks, a journal of 1,024 blocks, one inode per 16 KiB, nothing reserved, no label, no assumption about
    /// the device.
    pub fn new(size: u64, uuid: [u8; 16], hash_seed: [u8; 16], now: Timestamp) -> MkfsOptions {
        MkfsOptions {
            uuid,
            label: [0; 16],
            size,
            block_size: 4096,
            journal_blocks: 1024,
            inodes: None,
            now,
            hash_seed,
            reserved_percent: 0,
            zeroed: false,
        }
    }
}

/// Writes an empty file system with a root directory and `lost+found`.
pub fn mkfs<D: BlockDevice>(device: &D, options: &MkfsOptions) -> Result<()> {
    let _ = (device, options);
    Err(Error::Unsupported { what: "mkfs" })
}
