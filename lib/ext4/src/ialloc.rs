//! The inode allocator and the orphan list.

use crate::bitmap::{self, Bits};
use crate::cache::{Id, Kind};
use crate::group::{self, BLOCK_UNINIT, Group, INODE_UNINIT};
use crate::inode::{BASE_SIZE, Node, flag};
use crate::le::put32;
use crate::{BlockDevice, Error, Ext4, FileKind, Ino, NewInode, Result};

impl<D: BlockDevice> Ext4<D> {
    fn inode_bitmap(&mut self, number: u32, desc: &Group) -> Result<Id> {
        let nr = desc.inode_bitmap;
        if desc.flags & INODE_UNINIT != 0
            && self.sb.has_group_csum()
            && self.cache.find(nr).is_none()
        {
            let mut bits = self.cache.buffer();
            group::fresh_inode_bitmap(&self.sb, &mut bits);
            let id = self.cache.insert(nr, Kind::InodeBitmap(number), bits);
            self.cache.get_mut(id).verified = 1;
            return Ok(id);
        }
        let id = self.block(nr, Kind::InodeBitmap(number))?;
        if self.cache.get(id).verified == 0 {
            let mut copy = *desc;
            copy.sum_inode_bitmap(&self.sb, self.data(id));
            if !self.cache.get(id).dirty && copy.inode_bitmap_csum != desc.inode_bitmap_csum {
                return Err(Error::corrupt("inode bitmap checksum"));
            }
            self.cache.get_mut(id).verified = 1;
        }
        Ok(id)
    }

    /// Allocates an inode in the group of `parent` or the next one that has any, with zero links.
    pub(crate) fn alloc_inode(&mut self, parent: Ino, new: &NewInode) -> Result<Node> {
        let first = (parent - 1) / self.sb.inodes_per_group;
        for step in 0..self.sb.groups {
            let number = ((u64::from(first) + u64::from(step)) % u64::from(self.sb.groups)) as u32;
            let desc = self.group(number)?;
            if desc.free_inodes == 0 {
                continue;
            }
            let id = self.inode_bitmap(number, &desc)?;
            let from = if number == 0 {
                self.sb.first_inode - 1
            } else {
                0
            };
            let bits = Bits {
                bits: self.data(id),
                busy: None,
            };
            let index = bits.next_zero(from, self.sb.inodes_per_group);
            if index < self.sb.inodes_per_group {
                return self.take_inode(number, desc, id, index, new);
            }
        }
        Err(Error::NoSpace)
    }

    fn take_inode(
        &mut self,
        number: u32,
        mut desc: Group,
        id: Id,
        index: u32,
        new: &NewInode,
    ) -> Result<Node> {
        let ino = number * self.sb.inodes_per_group + index + 1;
        // The table block is brought in while the descriptor still says which inodes were never used.
        let (slot, at) = self.inode_slot(ino)?;
        bitmap::set(self.edit(id), index, 1);
        if desc.flags & BLOCK_UNINIT != 0 && self.sb.has_group_csum() {
            // As Linux: a group with inodes has its block bitmap on disk.
            let blocks = self.block_bitmap(number, &desc)?;
            self.edit(blocks);
            desc.flags &= !BLOCK_UNINIT;
        }
        desc.flags &= !INODE_UNINIT;
        if self.sb.has_group_csum() {
            desc.itable_unused = desc.itable_unused.min(self.sb.inodes_per_group - index - 1);
        }
        desc.free_inodes -= 1;
        let is_dir = new.kind == FileKind::Directory;
        desc.used_dirs += u32::from(is_dir);
        self.store_group(number, &desc)?;
        self.sb.live.free_inodes = self
            .sb
            .live
            .free_inodes
            .checked_sub(1)
            .ok_or(Error::corrupt("free inode count"))?;

        let now = self.now();
        let mut node = Node {
            ino,
            mode: new.kind.mode_bits() | new.perm & 0o7777,
            uid: new.uid,
            gid: new.gid,
            size: 0,
            nlink: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            dtime: 0,
            flags: 0,
            generation: self.random(),
            acl_block: 0,
            block: [0; 60],
            extra_isize: self.sb.want_extra_isize,
        };
        match new.kind {
            FileKind::Regular | FileKind::Directory => {
                node.flags = flag::EXTENTS;
                crate::extent::init_root(&mut node.block);
            }
            FileKind::CharDevice(rdev) | FileKind::BlockDevice(rdev) => {
                // The old form if major and minor fit 8 bits, as Linux writes it.
                put32(
                    &mut node.block,
                    if rdev < 1 << 16 && rdev != 0 { 0 } else { 4 },
                    rdev,
                );
            }
            _ => {}
        }
        let size = self.sb.inode_size;
        let raw = &mut self.cache.edit(slot)[at..at + size];
        raw.fill(0);
        node.store(&self.sb, raw);
        self.cache.get_mut(slot).verified |= 1 << (at / size);
        self.changed.insert(ino, true);
        Ok(node)
    }

    /// Frees an inode whose blocks are gone.
    pub(crate) fn free_inode(&mut self, node: &mut Node) -> Result<()> {
        let number = (node.ino - 1) / self.sb.inodes_per_group;
        let index = (node.ino - 1) % self.sb.inodes_per_group;
        // The same field links orphans by their numbers: where the clock was never set, a time must not look like one.
        let inodes = self.sb.groups.saturating_mul(self.sb.inodes_per_group);
        node.dtime = (self.now().sec as u32).max(inodes.saturating_add(1));
        node.size = 0;
        self.store_node(node, false)?;
        self.changed.remove(&node.ino);
        let mut desc = self.group(number)?;
        let id = self.inode_bitmap(number, &desc)?;
        if !bitmap::get(self.data(id), index) || desc.free_inodes >= self.sb.inodes_per_group {
            return Err(Error::corrupt("an inode in use is marked free"));
        }
        bitmap::clear(self.edit(id), index, 1);
        desc.free_inodes += 1;
        if node.is_dir() {
            desc.used_dirs = desc.used_dirs.saturating_sub(1);
        }
        self.store_group(number, &desc)?;
        self.sb.live.free_inodes += 1;
        Ok(())
    }

    /// Puts an inode on the orphan list: after a crash it is freed, or cut to its size if it has links.
    pub(crate) fn orphan_add(&mut self, node: &mut Node) -> Result<()> {
        if self.orphans.contains(&node.ino) {
            return Ok(());
        }
        node.dtime = self.sb.live.orphan_head;
        self.orphans_mut().push(node.ino);
        self.sb.live.orphan_head = node.ino;
        self.store_node(node, false)
    }

    /// Takes an inode off the orphan list.
    pub(crate) fn orphan_remove(&mut self, node: &mut Node) -> Result<()> {
        let Some(at) = self.orphans.iter().rposition(|&ino| ino == node.ino) else {
            return Ok(());
        };
        let next = if at > 0 { self.orphans[at - 1] } else { 0 };
        match self.orphans.get(at + 1).copied() {
            None => self.sb.live.orphan_head = next,
            Some(before) => {
                let mut other = self.raw_node(before)?;
                other.dtime = next;
                self.store_node(&other, true)?;
            }
        }
        self.orphans_mut().remove(at);
        node.dtime = 0;
        self.store_node(node, false)
    }

    /// The first block of a group's data area, as a place to look for blocks near an inode.
    pub(crate) fn inode_goal(&self, ino: Ino) -> u64 {
        let number = (ino - 1) / self.sb.inodes_per_group;
        // With flexible groups the first group of each flex group holds the tables of all; data goes behind them.
        let flex = number - number % self.sb.groups_per_flex;
        self.sb.group_start(if self.sb.groups_per_flex > 1 {
            flex
        } else {
            number
        })
    }

    /// Bytes of an inode behind its fixed fields, where attributes can live: offset and length.
    pub(crate) fn inode_extra(&self, node: &Node) -> Option<(usize, usize)> {
        let start = BASE_SIZE + usize::from(node.extra_isize);
        (node.extra_isize > 0 && start + 4 <= self.sb.inode_size)
            .then(|| (start, self.sb.inode_size - start))
    }
}
