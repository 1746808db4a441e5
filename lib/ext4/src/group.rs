//! Block-group descriptors, and the bitmaps of groups that were never used.

use crate::crc::{crc16, crc32c};
use crate::le::{get16, get32, put16, put32};
use crate::superblock::{Super, incompat};
use crate::{Error, Result, bitmap};

/// The inode bitmap and table were never used.
pub(crate) const INODE_UNINIT: u16 = 1;
/// The block bitmap was never used.
pub(crate) const BLOCK_UNINIT: u16 = 2;
/// The inode table is zeroed on the device.
pub(crate) const INODE_ZEROED: u16 = 4;

/// One group descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    pub free_blocks: u32,
    pub free_inodes: u32,
    pub used_dirs: u32,
    pub flags: u16,
    /// Inodes at the end of the table that were never used.
    pub itable_unused: u32,
    pub block_bitmap_csum: u32,
    pub inode_bitmap_csum: u32,
}

impl Group {
    /// Reads a descriptor of `sb.desc_size` bytes.
    pub(crate) fn parse(sb: &Super, raw: &[u8]) -> Group {
        let wide = sb.desc_size >= 64;
        let high = |at: usize| {
            if wide {
                u64::from(get32(raw, at)) << 32
            } else {
                0
            }
        };
        let pair = |low: usize, top: usize| {
            u32::from(get16(raw, low))
                | if wide {
                    u32::from(get16(raw, top)) << 16
                } else {
                    0
                }
        };
        Group {
            block_bitmap: u64::from(get32(raw, 0)) | high(32),
            inode_bitmap: u64::from(get32(raw, 4)) | high(36),
            inode_table: u64::from(get32(raw, 8)) | high(40),
            free_blocks: pair(12, 44),
            free_inodes: pair(14, 46),
            used_dirs: pair(16, 48),
            flags: get16(raw, 18),
            itable_unused: pair(28, 50),
            block_bitmap_csum: pair(24, 56),
            inode_bitmap_csum: pair(26, 58),
        }
    }

    /// Writes the descriptor with its checksum; other bytes stay.
    pub(crate) fn store(&self, sb: &Super, number: u32, raw: &mut [u8]) {
        let wide = sb.desc_size >= 64;
        let mut block = |low: usize, top: usize, value: u64| {
            put32(raw, low, value as u32);
            if wide {
                put32(raw, top, (value >> 32) as u32);
            }
        };
        block(0, 32, self.block_bitmap);
        block(4, 36, self.inode_bitmap);
        block(8, 40, self.inode_table);
        let mut pair = |low: usize, top: usize, value: u32| {
            put16(raw, low, value as u16);
            if wide {
                put16(raw, top, (value >> 16) as u16);
            }
        };
        pair(12, 44, self.free_blocks);
        pair(14, 46, self.free_inodes);
        pair(16, 48, self.used_dirs);
        pair(28, 50, self.itable_unused);
        pair(24, 56, self.block_bitmap_csum);
        pair(26, 58, self.inode_bitmap_csum);
        put16(raw, 18, self.flags);
        let csum = checksum(sb, number, raw);
        put16(raw, 30, csum);
    }

    /// Whether everything it points to lies inside the volume and its counters are possible.
    pub(crate) fn check(&self, sb: &Super) -> Result<()> {
        let low = u64::from(sb.first_data_block) + 1;
        let inside = |start: u64, len: u32| {
            start >= low && start.saturating_add(u64::from(len)) <= sb.blocks
        };
        if !inside(self.block_bitmap, 1)
            || !inside(self.inode_bitmap, 1)
            || !inside(self.inode_table, sb.itable_blocks())
            || self.free_blocks > sb.blocks_per_group
            || self.free_inodes > sb.inodes_per_group
            || self.itable_unused > sb.inodes_per_group
        {
            return Err(Error::corrupt("group descriptor"));
        }
        Ok(())
    }

    /// Sets the checksum of the block bitmap. (Kept when the volume has none.)
    pub(crate) fn sum_block_bitmap(&mut self, sb: &Super, bits: &[u8]) {
        if sb.has_csum() {
            self.block_bitmap_csum = bitmap_sum(sb, &bits[..(sb.blocks_per_group / 8) as usize]);
        }
    }

    /// Sets the checksum of the inode bitmap.
    pub(crate) fn sum_inode_bitmap(&mut self, sb: &Super, bits: &[u8]) {
        if sb.has_csum() {
            self.inode_bitmap_csum = bitmap_sum(sb, &bits[..(sb.inodes_per_group / 8) as usize]);
        }
    }
}

fn bitmap_sum(sb: &Super, bits: &[u8]) -> u32 {
    let sum = crc32c(sb.csum_seed, bits);
    if sb.desc_size >= 64 {
        sum
    } else {
        sum & 0xffff
    }
}

/// The checksum of a raw descriptor; 0 when the volume has none.
pub(crate) fn checksum(sb: &Super, number: u32, raw: &[u8]) -> u16 {
    let number = number.to_le_bytes();
    let tail = &raw[32..sb.desc_size];
    if sb.has_csum() {
        let sum = crc32c(crc32c(sb.csum_seed, &number), &raw[..30]);
        crc32c(crc32c(sum, &[0, 0]), tail) as u16
    } else if sb.has_group_csum() {
        let sum = crc16(crc16(crc16(!0, &sb.uuid), &number), &raw[..30]);
        if sb.incompat & incompat::SIXTY_FOUR_BIT != 0 {
            crc16(sum, tail)
        } else {
            sum
        }
    } else {
        0
    }
}

/// Builds the block bitmap that a group marked `BLOCK_UNINIT` stands for, end padding included.
pub(crate) fn fresh_block_bitmap(sb: &Super, number: u32, group: &Group, bits: &mut [u8]) {
    bits.fill(0);
    let start = sb.group_start(number);
    let len = sb.blocks_in_group(number);
    bitmap::set(bits, 0, sb.super_overhead(number).min(len));
    let mut own = |first: u64, count: u32| {
        for block in first..first + u64::from(count) {
            if block >= start && block < start + u64::from(len) {
                bitmap::set(bits, (block - start) as u32, 1);
            }
        }
    };
    own(group.block_bitmap, 1);
    own(group.inode_bitmap, 1);
    own(group.inode_table, sb.itable_blocks());
    bitmap::set(bits, len, bits.len() as u32 * 8 - len);
}

/// Builds the inode bitmap that a group marked `INODE_UNINIT` stands for: all free, end padding set.
pub(crate) fn fresh_inode_bitmap(sb: &Super, bits: &mut [u8]) {
    bits.fill(0);
    let len = sb.inodes_per_group;
    bitmap::set(bits, len, bits.len() as u32 * 8 - len);
}
