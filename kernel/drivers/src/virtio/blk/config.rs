//! The configuration of a block device (virtio 1.2, 5.2.4), checked.

use machine::mem::PAGE_SIZE;

use crate::virtio::{SetupError, setup::Negotiated};

/// Feature bits (virtio 1.2, 5.2.3).
pub mod feature {
    /// The longest segment is given.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// The most segments are given.
    pub const SEG_MAX: u64 = 1 << 2;
    /// Read-only.
    pub const RO: u64 = 1 << 5;
    /// The size of a block is given.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Has a cache that a command flushes.
    pub const FLUSH: u64 = 1 << 9;
    /// Several queues.
    pub const MQ: u64 = 1 << 12;
    /// Knows discard.
    pub const DISCARD: u64 = 1 << 13;
    /// Knows write-zeroes.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// What the device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// It refuses writes.
    pub read_only: bool,
    /// It has a cache to flush.
    pub flush: bool,
    /// Its own block in bytes.
    pub block_size: u32,
    /// The most segments of a request.
    pub max_segments: u32,
    /// The longest segment in bytes.
    pub max_segment_len: u32,
    /// The most sectors of a discard; 0: it cannot.
    pub max_discard_sectors: u32,
    /// The most sectors of a write-zeroes; 0: it cannot.
    pub max_zeroes_sectors: u32,
    /// Write-zeroes may deallocate.
    pub zeroes_may_unmap: bool,
    /// How many queues it has.
    pub queues: u16,
}

impl Config {
    /// Reads what the agreed features say is there.
    ///
    /// # Errors
    /// [`SetupError::BadConfig`].
    pub(super) fn read(device: &Negotiated) -> Result<Config, SetupError> {
        let word = |feature: u64, offset: usize, absent: u32| {
            if device.has(feature) {
                device.config(offset).map(u32::from_le_bytes)
            } else {
                Ok(absent)
            }
        };
        let block_size = word(feature::BLK_SIZE, 20, 512)?;
        let config = Config {
            sectors: u64::from_le_bytes(device.config(0)?),
            read_only: device.has(feature::RO),
            flush: device.has(feature::FLUSH),
            block_size,
            // Without the feature a device takes at least one; all take more, but none promises it.
            max_segments: word(feature::SEG_MAX, 12, 1)?.max(1),
            max_segment_len: word(feature::SIZE_MAX, 8, u32::MAX)?,
            max_discard_sectors: word(feature::DISCARD, 36, 0)?,
            max_zeroes_sectors: word(feature::WRITE_ZEROES, 48, 0)?,
            zeroes_may_unmap: device.has(feature::WRITE_ZEROES) && device.config::<1>(56)?[0] != 0,
            queues: if device.has(feature::MQ) {
                u16::from_le_bytes(device.config(34)?).max(1)
            } else {
                1
            },
        };
        let sane = config.sectors <= u64::MAX / 512
            && config.block_size.is_power_of_two()
            && (512..=1 << 20).contains(&config.block_size)
            && config.max_segment_len >= PAGE_SIZE as u32;
        sane.then_some(config).ok_or(SetupError::BadConfig)
    }
}
