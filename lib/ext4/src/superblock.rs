//! The superblock: its fields, which of its features this library can live with, its checksum.

use crate::crc::crc32c;
use crate::le::{get_array16, get16, get32, put16, put32};
use crate::{Error, Result};

/// Length of the superblock in bytes; it starts at byte 1,024 of the device.
pub(crate) const SUPER_SIZE: usize = 1024;
/// Byte offset of the superblock.
pub(crate) const SUPER_OFFSET: u64 = 1024;

/// Compatible features: safe to ignore.
pub(crate) mod compat {
    pub(crate) const HAS_JOURNAL: u32 = 0x4;
    pub(crate) const EXT_ATTR: u32 = 0x8;
    pub(crate) const DIR_INDEX: u32 = 0x20;
    pub(crate) const SPARSE_SUPER2: u32 = 0x200;
}

/// Incompatible features: unknown ones forbid mounting.
pub(crate) mod incompat {
    pub(crate) const FILETYPE: u32 = 0x2;
    pub(crate) const RECOVER: u32 = 0x4;
    pub(crate) const META_BG: u32 = 0x10;
    pub(crate) const EXTENTS: u32 = 0x40;
    pub(crate) const SIXTY_FOUR_BIT: u32 = 0x80;
    pub(crate) const FLEX_BG: u32 = 0x200;
    pub(crate) const CSUM_SEED: u32 = 0x2000;
    pub(crate) const LARGEDIR: u32 = 0x4000;
    pub(crate) const KNOWN: u32 =
        FILETYPE | RECOVER | META_BG | EXTENTS | SIXTY_FOUR_BIT | FLEX_BG | CSUM_SEED | LARGEDIR;
}

/// Features that forbid writing when unknown.
pub(crate) mod ro_compat {
    pub(crate) const SPARSE_SUPER: u32 = 0x1;
    pub(crate) const LARGE_FILE: u32 = 0x2;
    pub(crate) const BTREE_DIR: u32 = 0x4;
    pub(crate) const HUGE_FILE: u32 = 0x8;
    pub(crate) const GDT_CSUM: u32 = 0x10;
    pub(crate) const DIR_NLINK: u32 = 0x20;
    pub(crate) const EXTRA_ISIZE: u32 = 0x40;
    pub(crate) const METADATA_CSUM: u32 = 0x400;
    pub(crate) const KNOWN: u32 = SPARSE_SUPER
        | LARGE_FILE
        | BTREE_DIR
        | HUGE_FILE
        | GDT_CSUM
        | DIR_NLINK
        | EXTRA_ISIZE
        | METADATA_CSUM;
}

/// `s_state`: cleanly unmounted.
pub(crate) const STATE_VALID: u16 = 1;
/// `s_state`: errors were found.
pub(crate) const STATE_ERROR: u16 = 2;
/// `s_flags`: directory hashes take characters as unsigned.
const FLAG_UNSIGNED_HASH: u32 = 2;

/// What the superblock says, checked. The counters that change live here while mounted.
#[derive(Clone, Debug)]
pub(crate) struct Super {
    pub block_size: u32,
    pub blocks: u64,
    pub inodes: u32,
    pub reserved_blocks: u64,
    pub first_data_block: u32,
    pub blocks_per_group: u32,
    pub inodes_per_group: u32,
    pub inode_size: usize,
    pub desc_size: usize,
    pub groups: u32,
    pub first_inode: u32,
    pub compat: u32,
    pub incompat: u32,
    pub ro_compat: u32,
    pub state: u16,
    pub uuid: [u8; 16],
    pub label: [u8; 16],
    pub journal_inode: u32,
    pub reserved_gdt_blocks: u32,
    pub first_meta_bg: u32,
    pub backup_groups: [u32; 2],
    pub hash_seed: [u32; 4],
    pub hash_version: u8,
    pub hash_unsigned: bool,
    pub want_extra_isize: u16,
    pub groups_per_flex: u32,
    pub csum_seed: u32,
    /// The counters and the list head that operations change.
    pub live: Live,
}

/// The changing part of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub free_blocks: u64,
    pub free_inodes: u32,
    /// First inode of the orphan list, 0 for none.
    pub orphan_head: u32,
    /// `LARGE_FILE` has been needed.
    pub large_file: bool,
    /// `EXT_ATTR` has been needed.
    pub ext_attr: bool,
}

impl Super {
    /// Reads and checks a superblock of `SUPER_SIZE` bytes on a device of `device_size` bytes.
    pub(crate) fn parse(raw: &[u8], device_size: u64) -> Result<Super> {
        let bad = |what| Err(Error::Corrupt { what });
        if raw.len() < SUPER_SIZE || get16(raw, 56) != 0xef53 {
            return bad("superblock magic");
        }
        let log_block = get32(raw, 24);
        if log_block > 2 {
            return if log_block <= 6 {
                Err(Error::Unsupported {
                    what: "blocks larger than 4 KiB",
                })
            } else {
                bad("superblock block size")
            };
        }
        let block_size = 1024u32 << log_block;
        let (compat, incompat, ro_compat) = (get32(raw, 92), get32(raw, 96), get32(raw, 100));
        if get32(raw, 76) == 0 {
            return Err(Error::Unsupported {
                what: "revision 0 of the format",
            });
        }
        if incompat & !incompat::KNOWN != 0 {
            return Err(Error::Unsupported {
                what: "an unknown incompatible feature",
            });
        }
        if ro_compat & ro_compat::METADATA_CSUM != 0 {
            if raw[373] != 1 {
                return Err(Error::Unsupported {
                    what: "an unknown checksum type",
                });
            }
            if crc32c(!0, &raw[..1020]) != get32(raw, 1020) {
                return bad("superblock checksum");
            }
        }
        let wide = incompat & incompat::SIXTY_FOUR_BIT != 0;
        let high = |at| {
            if wide {
                u64::from(get32(raw, at)) << 32
            } else {
                0
            }
        };
        let blocks = u64::from(get32(raw, 4)) | high(336);
        let reserved_blocks = u64::from(get32(raw, 8)) | high(340);
        let free_blocks = u64::from(get32(raw, 12)) | high(344);
        let first_data_block = get32(raw, 20);
        let blocks_per_group = get32(raw, 32);
        let inodes_per_group = get32(raw, 40);
        let inodes = get32(raw, 0);
        let inode_size = usize::from(get16(raw, 88));
        let desc_size = if wide {
            usize::from(get16(raw, 254))
        } else {
            32
        };
        let bits = block_size * 8;
        if first_data_block != u32::from(block_size == 1024) {
            return bad("superblock first data block");
        }
        if blocks_per_group == 0
            || blocks_per_group > bits
            || !blocks_per_group.is_multiple_of(8)
            || get32(raw, 28) != log_block
        {
            return bad("superblock blocks per group");
        }
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size > block_size as usize {
            return bad("superblock inode size");
        }
        let per_block = block_size / inode_size as u32;
        if inodes_per_group < per_block
            || inodes_per_group > bits
            || !inodes_per_group.is_multiple_of(per_block)
        {
            return bad("superblock inodes per group");
        }
        if !(32..=64).contains(&desc_size)
            || !desc_size.is_power_of_two()
            || (wide && desc_size < 64)
        {
            return bad("superblock descriptor size");
        }
        if blocks <= u64::from(first_data_block) + 1 || blocks > device_size / u64::from(block_size)
        {
            return bad("superblock size against the device");
        }
        let groups = (blocks - u64::from(first_data_block)).div_ceil(u64::from(blocks_per_group));
        let Ok(groups) = u32::try_from(groups) else {
            return bad("superblock group count");
        };
        if u64::from(inodes) != u64::from(groups) * u64::from(inodes_per_group) {
            return bad("superblock inode count");
        }
        let first_inode = get32(raw, 84);
        if first_inode < 11 || first_inode > inodes_per_group {
            return bad("superblock first inode");
        }
        let reserved_gdt_blocks = u32::from(get16(raw, 206));
        if reserved_gdt_blocks > block_size / 4 {
            return bad("superblock reserved descriptor blocks");
        }
        let log_flex = if incompat & incompat::FLEX_BG != 0 {
            raw[372].min(31)
        } else {
            0
        };
        let uuid = get_array16(raw, 104);
        let csum_seed = if incompat & incompat::CSUM_SEED != 0 {
            get32(raw, 624)
        } else {
            crc32c(!0, &uuid)
        };
        let extra_room = inode_size.saturating_sub(128) as u16;
        Ok(Super {
            block_size,
            blocks,
            inodes,
            reserved_blocks: reserved_blocks.min(blocks),
            first_data_block,
            blocks_per_group,
            inodes_per_group,
            inode_size,
            desc_size,
            groups,
            first_inode,
            compat,
            incompat,
            ro_compat,
            state: get16(raw, 58),
            uuid,
            label: get_array16(raw, 120),
            journal_inode: get32(raw, 224),
            reserved_gdt_blocks,
            first_meta_bg: get32(raw, 260),
            backup_groups: [get32(raw, 0x24c), get32(raw, 0x250)],
            hash_seed: [
                get32(raw, 236),
                get32(raw, 240),
                get32(raw, 244),
                get32(raw, 248),
            ],
            hash_version: raw[252],
            hash_unsigned: get32(raw, 352) & FLAG_UNSIGNED_HASH != 0,
            want_extra_isize: get16(raw, 350).clamp(32.min(extra_room), extra_room) & !3,
            groups_per_flex: 1 << log_flex,
            csum_seed,
            live: Live {
                free_blocks: free_blocks.min(blocks),
                free_inodes: get32(raw, 16).min(inodes),
                orphan_head: get32(raw, 232),
                large_file: ro_compat & ro_compat::LARGE_FILE != 0,
                ext_attr: compat & compat::EXT_ATTR != 0,
            },
        })
    }

    /// Whether metadata carries CRC-32C checksums.
    pub(crate) fn has_csum(&self) -> bool {
        self.ro_compat & ro_compat::METADATA_CSUM != 0
    }

    /// Whether group descriptors carry a checksum and so may mark bitmaps uninitialised.
    pub(crate) fn has_group_csum(&self) -> bool {
        self.ro_compat & (ro_compat::METADATA_CSUM | ro_compat::GDT_CSUM) != 0
    }

    pub(crate) fn has_dir_index(&self) -> bool {
        self.compat & compat::DIR_INDEX != 0
    }

    pub(crate) fn has_filetype(&self) -> bool {
        self.incompat & incompat::FILETYPE != 0
    }

    pub(crate) fn has_journal(&self) -> bool {
        self.compat & compat::HAS_JOURNAL != 0
    }

    /// Length of the backup structures' bytes in a directory leaf.
    pub(crate) fn leaf_tail(&self) -> usize {
        if self.has_csum() { 12 } else { 0 }
    }

    /// Blocks in group `group`; the last one may be short.
    pub(crate) fn blocks_in_group(&self, group: u32) -> u32 {
        let start = self.group_start(group);
        (self.blocks.saturating_sub(start)).min(u64::from(self.blocks_per_group)) as u32
    }

    /// First block of a group.
    pub(crate) fn group_start(&self, group: u32) -> u64 {
        u64::from(group) * u64::from(self.blocks_per_group) + u64::from(self.first_data_block)
    }

    /// The group of a block and its index there.
    pub(crate) fn group_of(&self, block: u64) -> (u32, u32) {
        let rel = block.saturating_sub(u64::from(self.first_data_block));
        (
            (rel / u64::from(self.blocks_per_group)) as u32,
            (rel % u64::from(self.blocks_per_group)) as u32,
        )
    }

    /// Whether a group starts with a copy of the superblock and the descriptors.
    pub(crate) fn has_super(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat & compat::SPARSE_SUPER2 != 0 {
            return self.backup_groups.contains(&group);
        }
        if self.ro_compat & ro_compat::SPARSE_SUPER == 0 || group == 1 {
            return true;
        }
        [3u64, 5, 7].iter().any(|&base| {
            let mut power = base;
            while power < u64::from(group) {
                power *= base;
            }
            power == u64::from(group)
        })
    }

    /// Group descriptors in one block.
    pub(crate) fn descs_per_block(&self) -> u32 {
        self.block_size / self.desc_size as u32
    }

    /// Blocks of descriptors (without the reserved ones).
    pub(crate) fn gdt_blocks(&self) -> u32 {
        self.groups.div_ceil(self.descs_per_block())
    }

    /// The block that holds the descriptor of `group`, and the byte offset in it.
    pub(crate) fn desc_location(&self, group: u32) -> (u64, usize) {
        let per_block = self.descs_per_block();
        let index = group / per_block;
        let offset = (group % per_block) as usize * self.desc_size;
        let block = if self.incompat & incompat::META_BG == 0 || index < self.first_meta_bg {
            u64::from(self.first_data_block) + 1 + u64::from(index)
        } else {
            let first = index * per_block;
            self.group_start(first) + u64::from(self.has_super(first))
        };
        (block, offset)
    }

    /// Blocks that the superblock copy and descriptors take at the start of a group.
    pub(crate) fn super_overhead(&self, group: u32) -> u32 {
        let per_block = self.descs_per_block();
        let has = self.has_super(group);
        if self.incompat & incompat::META_BG != 0 && group / per_block >= self.first_meta_bg {
            let within = group % per_block;
            return u32::from(has)
                + u32::from(within == 0 || within == 1 || within == per_block - 1);
        }
        if !has {
            return 0;
        }
        let gdt = if self.incompat & incompat::META_BG != 0 {
            self.first_meta_bg.min(self.gdt_blocks())
        } else {
            self.gdt_blocks()
        };
        1 + gdt + self.reserved_gdt_blocks
    }

    /// Blocks that the file system itself takes, without the journal: superblock copies, descriptors, bitmaps, tables.
    pub(crate) fn overhead(&self) -> u64 {
        let own = u64::from(self.itable_blocks()) + 2;
        let sparse =
            self.ro_compat & ro_compat::SPARSE_SUPER != 0 && self.incompat & incompat::META_BG == 0;
        let copies: u64 = if sparse {
            // Group 0 and 1 and the powers of 3, 5 and 7 are the only ones to ask.
            let powers = [3u64, 5, 7].into_iter().flat_map(|base| {
                core::iter::successors(Some(base), move |power| power.checked_mul(base))
                    .take_while(|&power| power < u64::from(self.groups))
            });
            let others = self
                .backup_groups
                .into_iter()
                .map(u64::from)
                .filter(|&group| group > 1);
            let listed = if self.compat & compat::SPARSE_SUPER2 != 0 {
                others
                    .map(|group| group as u32)
                    .filter(|&group| group < self.groups)
                    .map(|group| u64::from(self.super_overhead(group)))
                    .sum()
            } else {
                powers
                    .map(|group| u64::from(self.super_overhead(group as u32)))
                    .sum::<u64>()
            };
            let first: u64 = (0..self.groups.min(2))
                .map(|group| u64::from(self.super_overhead(group)))
                .sum();
            first + listed
        } else {
            // An old layout, and so a small one, or one whose copies are a block or two each: near enough beyond.
            (0..self.groups.min(4096))
                .map(|group| u64::from(self.super_overhead(group)))
                .sum()
        };
        u64::from(self.groups) * own + copies + u64::from(self.first_data_block)
    }

    /// Blocks of one group's inode table.
    pub(crate) fn itable_blocks(&self) -> u32 {
        self.inodes_per_group / (self.block_size / self.inode_size as u32)
    }

    /// The block of the primary superblock and its offset there.
    pub(crate) fn super_location(&self) -> (u64, usize) {
        if self.block_size == 1024 {
            (1, 0)
        } else {
            (0, 1024)
        }
    }

    /// Most links an inode may have.
    pub(crate) const LINK_MAX: u32 = 65_000;

    /// Writes the changing fields and the checksum into a raw superblock.
    pub(crate) fn store(&self, raw: &mut [u8], wtime: i64) {
        put32(raw, 12, self.live.free_blocks as u32);
        if self.incompat & incompat::SIXTY_FOUR_BIT != 0 {
            put32(raw, 344, (self.live.free_blocks >> 32) as u32);
        }
        put32(raw, 16, self.live.free_inodes);
        put32(raw, 48, wtime as u32);
        raw[0x274] = (wtime >> 32) as u8;
        put16(raw, 58, self.state);
        let ext_attr = if self.live.ext_attr {
            compat::EXT_ATTR
        } else {
            0
        };
        let large_file = if self.live.large_file {
            ro_compat::LARGE_FILE
        } else {
            0
        };
        put32(raw, 92, self.compat | ext_attr);
        put32(raw, 96, self.incompat);
        put32(raw, 100, self.ro_compat | large_file);
        put32(raw, 232, self.live.orphan_head);
        if self.has_csum() {
            let csum = crc32c(!0, &raw[..1020]);
            put32(raw, 1020, csum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemDevice, MkfsOptions, Timestamp, mkfs};
    use alloc::vec::Vec;

    fn sample() -> [u8; SUPER_SIZE] {
        let device = MemDevice::new(32 << 20);
        let options = MkfsOptions::new(32 << 20, [1; 16], [2; 16], Timestamp::from_secs(1));
        mkfs(&device, &options).unwrap();
        let mut raw = [0; SUPER_SIZE];
        raw.copy_from_slice(&device.into_vec()[1024..2048]);
        raw
    }

    #[test]
    fn copies_lie_where_the_format_says() {
        let mut sb = Super::parse(&sample(), 32 << 20).unwrap();
        sb.groups = 400;
        let has: Vec<u32> = (0..400).filter(|&group| sb.has_super(group)).collect();
        assert_eq!(has, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343]);
        let slow: u64 = (0..sb.groups)
            .map(|group| u64::from(sb.super_overhead(group)))
            .sum();
        assert_eq!(
            sb.overhead(),
            slow + 400 * (u64::from(sb.itable_blocks()) + 2)
        );
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let raw = sample();
        for at in 0..SUPER_SIZE {
            let mut broken = raw;
            broken[at] ^= 0x10;
            assert!(Super::parse(&broken, 32 << 20).is_err(), "byte {at}");
        }
        assert!(Super::parse(&raw, (32 << 20) - 1).is_err());
        assert!(Super::parse(&raw[..100], 32 << 20).is_err());
    }
}
