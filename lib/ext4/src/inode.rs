//! Inodes: where they lie, their fields on disk, their checksum.

use crate::cache::{Id, Kind};
use crate::crc::crc32c;
use crate::le::{get16, get32, put16, put32};
use crate::superblock::{Super, ro_compat};
use crate::{Attrs, BlockDevice, Error, Ext4, FileKind, Ino, Result, Timestamp, group, sums};

/// `i_flags`.
pub(crate) mod flag {
    pub(crate) const SYNC: u32 = 0x8;
    pub(crate) const IMMUTABLE: u32 = 0x10;
    pub(crate) const APPEND: u32 = 0x20;
    pub(crate) const NODUMP: u32 = 0x40;
    pub(crate) const NOATIME: u32 = 0x80;
    pub(crate) const INDEX: u32 = 0x1000;
    pub(crate) const DIRSYNC: u32 = 0x1_0000;
    pub(crate) const HUGE_FILE: u32 = 0x4_0000;
    pub(crate) const EXTENTS: u32 = 0x8_0000;
    pub(crate) const INLINE_DATA: u32 = 0x1000_0000;
    /// What users may set.
    pub(crate) const SETTABLE: u32 = SYNC | IMMUTABLE | APPEND | NODUMP | NOATIME | DIRSYNC;
}

/// Length of the part that every inode has.
pub(crate) const BASE_SIZE: usize = 128;

/// An inode in memory.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub ino: Ino,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub nlink: u32,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub crtime: Timestamp,
    /// Time of deletion, or the next inode of the orphan list.
    pub dtime: u32,
    pub flags: u32,
    pub generation: u32,
    /// Block of extended attributes, 0 for none.
    pub acl_block: u64,
    /// The root of the extent tree, the target of a short link, or the device number.
    pub block: [u8; 60],
    /// Bytes used behind the first 128.
    pub extra_isize: u16,
}

impl Node {
    /// Checksum seed of its metadata.
    pub(crate) fn seed(&self, sb: &Super) -> u32 {
        sums::inode_seed(sb, self.ino, self.generation)
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.mode & 0o170000 == 0o040000
    }

    pub(crate) fn is_file(&self) -> bool {
        self.mode & 0o170000 == 0o100000
    }

    pub(crate) fn is_symlink(&self) -> bool {
        self.mode & 0o170000 == 0o120000
    }

    /// A symbolic link whose target lies in the inode.
    pub(crate) fn is_fast_symlink(&self, sb: &Super) -> bool {
        let acl = if self.acl_block != 0 {
            u64::from(sb.block_size / 512)
        } else {
            0
        };
        self.is_symlink() && self.flags & flag::EXTENTS == 0 && self.blocks <= acl
    }

    /// The device number of a device node: the old 16-bit form in the first word, or the new one in the second.
    pub(crate) fn rdev(&self) -> u32 {
        let old = get32(&self.block, 0);
        if old != 0 {
            (old & 0xff) | (old >> 8 & 0xff) << 8
        } else {
            get32(&self.block, 4)
        }
    }

    pub(crate) fn kind(&self) -> Result<FileKind> {
        FileKind::from_mode(self.mode, self.rdev()).ok_or(Error::corrupt("inode type"))
    }

    pub(crate) fn attrs(&self) -> Result<Attrs> {
        let kind = self.kind()?;
        let rdev = match kind {
            FileKind::CharDevice(rdev) | FileKind::BlockDevice(rdev) => rdev,
            _ => 0,
        };
        Ok(Attrs {
            ino: self.ino,
            mode: self.mode,
            kind,
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            nlink: self.nlink,
            blocks: self.blocks,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            crtime: self.crtime,
            flags: self.flags,
            generation: self.generation,
            rdev,
        })
    }

    /// Whether the fields behind the first 128 bytes reach `end` (an offset in the inode).
    fn has(&self, end: usize) -> bool {
        BASE_SIZE + usize::from(self.extra_isize) >= end
    }

    /// Reads the inode from its `inode_size` bytes.
    pub(crate) fn parse(sb: &Super, ino: Ino, raw: &[u8]) -> Result<Node> {
        let mut block = [0; 60];
        block.copy_from_slice(&raw[40..100]);
        let extra_isize = if raw.len() > BASE_SIZE {
            get16(raw, 128)
        } else {
            0
        };
        if BASE_SIZE + usize::from(extra_isize) > raw.len() || extra_isize % 4 != 0 {
            return Err(Error::corrupt("inode extra size"));
        }
        let mut node = Node {
            ino,
            mode: get16(raw, 0),
            uid: u32::from(get16(raw, 2)) | u32::from(get16(raw, 120)) << 16,
            gid: u32::from(get16(raw, 24)) | u32::from(get16(raw, 122)) << 16,
            size: u64::from(get32(raw, 4)) | u64::from(get32(raw, 108)) << 32,
            nlink: u32::from(get16(raw, 26)),
            blocks: u64::from(get32(raw, 28)),
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            crtime: Timestamp::default(),
            dtime: get32(raw, 20),
            flags: get32(raw, 32),
            generation: get32(raw, 100),
            acl_block: u64::from(get32(raw, 104)) | u64::from(get16(raw, 118)) << 32,
            block,
            extra_isize,
        };
        if sb.ro_compat & ro_compat::HUGE_FILE != 0 {
            node.blocks |= u64::from(get16(raw, 116)) << 32;
            if node.flags & flag::HUGE_FILE != 0 {
                node.blocks *= u64::from(sb.block_size / 512);
            }
        }
        let extra = |node: &Node, at: usize| if node.has(at + 4) { get32(raw, at) } else { 0 };
        node.ctime = Timestamp::decode(get32(raw, 12), extra(&node, 132));
        node.mtime = Timestamp::decode(get32(raw, 16), extra(&node, 136));
        node.atime = Timestamp::decode(get32(raw, 8), extra(&node, 140));
        if node.has(148) {
            node.crtime = Timestamp::decode(get32(raw, 144), extra(&node, 148));
        }
        if node.size > i64::MAX as u64 {
            return Err(Error::corrupt("inode size"));
        }
        Ok(node)
    }

    /// Writes the fields and the checksum into the inode's bytes; other bytes stay.
    pub(crate) fn store(&self, sb: &Super, raw: &mut [u8]) {
        put16(raw, 0, self.mode);
        put16(raw, 2, self.uid as u16);
        put16(raw, 24, self.gid as u16);
        put16(raw, 120, (self.uid >> 16) as u16);
        put16(raw, 122, (self.gid >> 16) as u16);
        put32(raw, 4, self.size as u32);
        put32(raw, 108, (self.size >> 32) as u32);
        put16(raw, 26, self.nlink as u16);
        put32(raw, 20, self.dtime);
        let (mut flags, mut blocks) = (self.flags & !flag::HUGE_FILE, self.blocks);
        if blocks >= 1 << 48 {
            flags |= flag::HUGE_FILE;
            blocks /= u64::from(sb.block_size / 512);
        }
        put32(raw, 28, blocks as u32);
        put16(raw, 116, (blocks >> 32) as u16);
        put32(raw, 32, flags);
        put32(raw, 100, self.generation);
        put32(raw, 104, self.acl_block as u32);
        put16(raw, 118, (self.acl_block >> 32) as u16);
        raw[40..100].copy_from_slice(&self.block);
        if raw.len() > BASE_SIZE {
            put16(raw, 128, self.extra_isize);
        }
        for (time, base, extra) in [
            (self.ctime, 12, 132),
            (self.mtime, 16, 136),
            (self.atime, 8, 140),
            (self.crtime, 144, 148),
        ] {
            if base < BASE_SIZE || self.has(base + 4) {
                let (low, high) = time.encode();
                put32(raw, base, low);
                if self.has(extra + 4) {
                    put32(raw, extra, high);
                }
            }
        }
        self.stamp(sb, raw);
    }

    /// Sets the checksum over the inode's bytes.
    pub(crate) fn stamp(&self, sb: &Super, raw: &mut [u8]) {
        if sb.has_csum() {
            let wide = self.has(132);
            put16(raw, 124, 0);
            if wide {
                put16(raw, 130, 0);
            }
            let sum = crc32c(self.seed(sb), raw);
            put16(raw, 124, sum as u16);
            if wide {
                put16(raw, 130, (sum >> 16) as u16);
            }
        }
    }

    fn verify(&self, sb: &Super, raw: &[u8]) -> Result<()> {
        if !sb.has_csum() {
            return Ok(());
        }
        let sum = crc32c(crc32c(self.seed(sb), &raw[..124]), &[0, 0]);
        let (sum, stored) = if self.has(132) {
            let sum = crc32c(crc32c(crc32c(sum, &raw[126..130]), &[0, 0]), &raw[132..]);
            (
                sum,
                u32::from(get16(raw, 124)) | u32::from(get16(raw, 130)) << 16,
            )
        } else {
            (
                crc32c(sum, &raw[126..]) & 0xffff,
                u32::from(get16(raw, 124)),
            )
        };
        if sum == stored {
            Ok(())
        } else {
            Err(Error::corrupt("inode checksum"))
        }
    }
}

/// Blocks of the inode table that are read in one go.
const READ_AHEAD: u64 = 8;

impl<D: BlockDevice> Ext4<D> {
    /// The cached table block of an inode and the inode's offset there.
    pub(crate) fn inode_slot(&mut self, ino: Ino) -> Result<(Id, usize)> {
        if ino == 0 || ino > self.sb.inodes {
            return Err(Error::corrupt("inode number"));
        }
        let index = (ino - 1) % self.sb.inodes_per_group;
        let number = (ino - 1) / self.sb.inodes_per_group;
        let group = self.group(number)?;
        let per_block = self.sb.block_size / self.sb.inode_size as u32;
        let nr = group.inode_table + u64::from(index / per_block);
        let at = (index % per_block) as usize * self.sb.inode_size;
        if self.cache.find(nr).is_none() {
            let used = match self.sb.has_group_csum() {
                true if group.flags & group::INODE_UNINIT != 0 => 0,
                true => self.sb.inodes_per_group - group.itable_unused,
                false => self.sb.inodes_per_group,
            };
            self.read_table(
                group.inode_table,
                index / per_block,
                used.div_ceil(per_block),
            )?;
        }
        Ok((self.block(nr, Kind::InodeTable)?, at))
    }

    /// Reads a table block and the ones after it that are in use, in one request.
    fn read_table(&mut self, table: u64, index: u32, used: u32) -> Result<()> {
        let size = self.sb.block_size as usize;
        if index >= used {
            // Never written: what the device holds there means nothing.
            let mut data = self.cache.buffer();
            data.fill(0);
            self.cache
                .insert(table + u64::from(index), Kind::InodeTable, data);
            return Ok(());
        }
        let first = table + u64::from(index);
        let most = (READ_AHEAD - first % READ_AHEAD).min(u64::from(used - index));
        let mut count = 1;
        while count < most && self.cache.find(first + count).is_none() && self.overlay.is_empty() {
            count += 1;
        }
        if count == 1 {
            return Ok(());
        }
        let mut chunk = alloc::vec![0; size * count as usize];
        self.device.read(first * size as u64, &mut chunk)?;
        for (nr, part) in (first..).zip(chunk.chunks_exact(size)) {
            let mut data = self.cache.buffer();
            data.copy_from_slice(part);
            self.cache.insert(nr, Kind::InodeTable, data);
        }
        Ok(())
    }

    /// Reads an inode, whether in use or not.
    pub(crate) fn raw_node(&mut self, ino: Ino) -> Result<Node> {
        let (id, at) = self.inode_slot(ino)?;
        let raw = &self.data(id)[at..at + self.sb.inode_size];
        let node = Node::parse(&self.sb, ino, raw)?;
        let bit = 1u128 << (at / self.sb.inode_size);
        // A free inode may never have been written, and then has no checksum.
        if node.mode != 0 && self.cache.get(id).verified & bit == 0 {
            node.verify(&self.sb, raw)?;
            self.cache.get_mut(id).verified |= bit;
        }
        Ok(node)
    }

    /// Reads an inode that is in use: it has a type, and links or a place on the orphan list.
    pub(crate) fn node(&mut self, ino: Ino) -> Result<Node> {
        if ino == 0 || ino > self.sb.inodes || (ino < self.sb.first_inode && ino != crate::ROOT_INO)
        {
            return Err(Error::NotFound);
        }
        let node = self.raw_node(ino)?;
        if node.mode & 0o170000 == 0 || (node.nlink == 0 && !self.orphans.contains(&ino)) {
            return Err(Error::NotFound);
        }
        if node.flags & flag::INLINE_DATA != 0 {
            return Err(Error::Unsupported {
                what: "inline data",
            });
        }
        Ok(node)
    }

    /// Reads an inode that must be a directory.
    pub(crate) fn dir_node(&mut self, ino: Ino) -> Result<Node> {
        let node = self.node(ino)?;
        if node.is_dir() {
            Ok(node)
        } else {
            Err(Error::NotDir)
        }
    }

    /// Writes an inode back. `times_only` says that an `fdatasync` need not wait for it.
    pub(crate) fn store_node(&mut self, node: &Node, times_only: bool) -> Result<()> {
        let (id, at) = self.inode_slot(node.ino)?;
        let raw = &mut self.cache.edit(id)[at..at + self.sb.inode_size];
        node.store(&self.sb, raw);
        *self.changed.entry(node.ino).or_insert(false) |= !times_only;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemDevice, MkfsOptions, MountOptions, mkfs};

    #[test]
    fn fields_survive_the_disk() {
        let device = MemDevice::new(32 << 20);
        mkfs(
            &device,
            &MkfsOptions::new(32 << 20, [1; 16], [2; 16], Timestamp::from_secs(1)),
        )
        .unwrap();
        let fs = Ext4::mount(device, MountOptions::read_only()).unwrap();
        let mut node = Node {
            ino: 12,
            mode: 0o104755,
            uid: 0x1234_5678,
            gid: 0x9abc_def0,
            size: 0x7fff_ffff_ffff_ffff,
            nlink: 65_000,
            blocks: (1 << 48) - 1,
            atime: Timestamp { sec: -1, nsec: 1 },
            mtime: Timestamp {
                sec: 1 << 33,
                nsec: 999_999_999,
            },
            ctime: Timestamp { sec: 5, nsec: 6 },
            crtime: Timestamp { sec: 7, nsec: 8 },
            dtime: 9,
            flags: flag::EXTENTS,
            generation: 0xdead_beef,
            acl_block: 0xffff_1234_5678,
            block: core::array::from_fn(|at| at as u8),
            extra_isize: 32,
        };
        let mut raw = [0x55; 256];
        node.store(&fs.sb, &mut raw);
        let back = Node::parse(&fs.sb, 12, &raw).unwrap();
        back.verify(&fs.sb, &raw).unwrap();
        assert_eq!(alloc::format!("{node:?}"), alloc::format!("{back:?}"));
        // Every byte counts, those behind the fields too.
        for at in 0..256 {
            let mut broken = raw;
            broken[at] ^= 1;
            let sound =
                Node::parse(&fs.sb, 12, &broken).and_then(|node| node.verify(&fs.sb, &broken));
            assert!(sound.is_err(), "byte {at}");
        }
        // Device numbers: the old form where it suffices, the new one else.
        node.block = [0; 60];
        put32(&mut node.block, 0, 0x0801);
        assert_eq!(node.rdev(), 0x801);
        node.block = [0; 60];
        put32(&mut node.block, 4, 0x1234_5678);
        assert_eq!(node.rdev(), 0x1234_5678);
    }
}
