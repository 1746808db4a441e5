//! The block allocator: runs of blocks out of the groups' bitmaps.
//!
//! Freed blocks are clear in the bitmap on disk but stay busy in memory until the freeing transaction has committed:
//! until then a crash would bring their old owner back.

use crate::bitmap::{self, Bits};
use crate::cache::{Id, Kind};
use crate::group::{self, BLOCK_UNINIT, Group};
use crate::{BlockDevice, Error, Ext4, Result};

/// Groups with some free blocks that are searched before a shorter run than wanted is good enough.
const SEARCH_GROUPS: u32 = 32;

impl<D: BlockDevice> Ext4<D> {
    /// The block bitmap of a group, built if the group was never used.
    pub(crate) fn block_bitmap(&mut self, number: u32, desc: &Group) -> Result<Id> {
        let nr = desc.block_bitmap;
        if desc.flags & BLOCK_UNINIT != 0
            && self.sb.has_group_csum()
            && self.cache.find(nr).is_none()
        {
            let mut bits = self.cache.buffer();
            group::fresh_block_bitmap(&self.sb, number, desc, &mut bits);
            let id = self.cache.insert(nr, Kind::BlockBitmap(number), bits);
            self.cache.get_mut(id).verified = 1;
            return Ok(id);
        }
        let id = self.block(nr, Kind::BlockBitmap(number))?;
        if self.cache.get(id).verified == 0 {
            let mut copy = *desc;
            copy.sum_block_bitmap(&self.sb, self.data(id));
            if !self.cache.get(id).dirty && copy.block_bitmap_csum != desc.block_bitmap_csum {
                return Err(Error::corrupt("block bitmap checksum"));
            }
            self.cache.get_mut(id).verified = 1;
        }
        Ok(id)
    }

    /// Allocates up to `want` contiguous blocks, at `goal` if that is free, else near it. At least one.
    pub(crate) fn alloc_run(&mut self, goal: u64, want: u32) -> Result<(u64, u32)> {
        if self.sb.live.free_blocks == 0 || want == 0 {
            return Err(Error::NoSpace);
        }
        let goal = if goal < self.sb.blocks { goal } else { 0 };
        let (first, offset) = self.sb.group_of(goal);
        let want = want.min(self.sb.blocks_per_group);
        let mut best: Option<(u32, u32, u32)> = None;
        let mut searched = 0;
        // One round more than there are groups: the goal's group is searched from the goal, and at last from its start.
        for step in 0..=self.sb.groups {
            let number = ((u64::from(first) + u64::from(step)) % u64::from(self.sb.groups)) as u32;
            let from = if step == 0 { offset } else { 0 };
            let desc = self.group(number)?;
            if desc.free_blocks == 0 || best.is_some_and(|(_, _, len)| len >= desc.free_blocks) {
                continue;
            }
            let end = self.sb.blocks_in_group(number);
            let id = self.block_bitmap(number, &desc)?;
            let bits = Bits {
                bits: self.data(id),
                busy: self.busy.get(&number).map(|bits| &**bits),
            };
            if step == 0 && from < end && bits.next_zero(from, from + 1) == from {
                // The goal itself: staying contiguous is worth more than the full length.
                let stop = bits.next_one(from, end.min(from + want));
                best = Some((number, from, stop - from));
                break;
            }
            if let Some((at, len)) = bits.find_run(from, end, want)
                && best.is_none_or(|(_, _, most)| len > most)
            {
                best = Some((number, at, len));
                if len >= want {
                    break;
                }
            }
            searched += 1;
            if searched >= SEARCH_GROUPS && best.is_some() {
                break;
            }
        }
        let (number, at, len) = best.ok_or(Error::NoSpace)?;
        self.take(number, at, len)?;
        Ok((self.sb.group_start(number) + u64::from(at), len))
    }

    /// Allocates one metadata block near `goal`.
    pub(crate) fn alloc_meta(&mut self, goal: u64) -> Result<u64> {
        let goal = if self.bulk { self.meta_cursor } else { goal };
        let (nr, _) = self.alloc_run(goal, 1)?;
        if self.bulk {
            self.meta_cursor = nr + 1;
        }
        Ok(nr)
    }

    fn take(&mut self, number: u32, at: u32, len: u32) -> Result<()> {
        let mut desc = self.group(number)?;
        let id = self.block_bitmap(number, &desc)?;
        bitmap::set(self.edit(id), at, len);
        desc.flags &= !BLOCK_UNINIT;
        desc.free_blocks = desc
            .free_blocks
            .checked_sub(len)
            .ok_or(Error::corrupt("free block count of a group"))?;
        self.sb.live.free_blocks = self
            .sb
            .live
            .free_blocks
            .checked_sub(u64::from(len))
            .ok_or(Error::corrupt("free block count"))?;
        self.store_group(number, &desc)
    }

    /// Frees a run of blocks; `metadata` says that their contents were in the cache and the journal.
    pub(crate) fn free_run(&mut self, start: u64, len: u32, metadata: bool) -> Result<()> {
        let end = start
            .checked_add(u64::from(len))
            .ok_or(Error::corrupt("block number out of range"))?;
        if start <= u64::from(self.sb.first_data_block) || end > self.sb.blocks {
            return Err(Error::corrupt("block number out of range"));
        }
        let mut at = start;
        while at < end {
            let (number, index) = self.sb.group_of(at);
            let count = (end - at).min(u64::from(self.sb.blocks_in_group(number) - index)) as u32;
            let mut desc = self.group(number)?;
            let id = self.block_bitmap(number, &desc)?;
            if !bitmap::all_set(self.data(id), index, count) {
                return Err(Error::corrupt("a block in use is marked free"));
            }
            bitmap::clear(self.edit(id), index, count);
            desc.flags &= !BLOCK_UNINIT;
            desc.free_blocks += count;
            if desc.free_blocks > self.sb.blocks_per_group {
                return Err(Error::corrupt("free block count of a group"));
            }
            self.store_group(number, &desc)?;
            self.sb.live.free_blocks =
                (self.sb.live.free_blocks + u64::from(count)).min(self.sb.blocks);
            self.note_free(at, count);
            at += u64::from(count);
        }
        if metadata {
            for nr in start..end {
                self.note_forget(nr);
            }
        }
        Ok(())
    }
}
