//! The mounted file system: its state, access to metadata blocks, and the frame of a changing operation.
//!
//! The public calls live beside what they work on: `mount`, `namei` (names), `file` (data), `attrs`, `xattr`, `readdir`.

use crate::cache::{Cache, Id, Kind, NumberMap};
use crate::group::Group;
use crate::journal::Journal;
use crate::superblock::{Live, STATE_ERROR, Super};
use crate::{BlockDevice, Clock, Error, Ino, Result, Timestamp, group, sums};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Blocks that one operation may change at most; a journal must have room for that before it starts.
pub(crate) const OP_BLOCKS: usize = 96;
/// An operation that can be cut into steps ends a step when it has changed that many blocks.
pub(crate) const STEP_BLOCKS: usize = 40;

/// Blocks in one read of directory blocks, and how many such runs are kept.
const AHEAD_BLOCKS: u64 = 8;
const AHEAD_RUNS: usize = 4;

/// A mounted file system.
pub struct Ext4<D> {
    pub(crate) device: D,
    pub(crate) sb: Super,
    /// Blocks that are the file system's own.
    pub(crate) overhead: u64,
    pub(crate) cache: Cache,
    pub(crate) clock: Clock,
    pub(crate) random: u64,
    pub(crate) read_only: bool,
    /// Committed changes could not be written.
    pub(crate) failed: bool,
    pub(crate) bulk: bool,
    /// Something has been written since mount or the last clean unmount.
    pub(crate) in_use: bool,
    pub(crate) journal: Option<Journal>,
    /// Blocks that a read-only mount replayed in memory.
    pub(crate) overlay: NumberMap<u64, Box<[u8]>>,
    /// For each group, blocks that are free on disk but must not be reused before the next commit.
    pub(crate) busy: NumberMap<u32, Box<[u8]>>,
    /// Freed metadata blocks of which the journal holds copies: to be revoked by the running transaction.
    pub(crate) revoked: Vec<u64>,
    /// Inodes changed in the running transaction; true if more than their times changed.
    pub(crate) changed: NumberMap<Ino, bool>,
    /// The orphan list, its head last.
    pub(crate) orphans: Vec<Ino>,
    /// The superblock has to be written with the next commit.
    pub(crate) super_dirty: bool,
    /// Where the next file without a neighbour starts looking for blocks.
    pub(crate) data_cursor: u64,
    /// The same for metadata.
    pub(crate) meta_cursor: u64,
    /// Blocks read along with others, not yet asked for: the first block's number and the bytes.
    ahead: Vec<(u64, Box<[u8]>)>,
    op: Op,
}

/// What an operation needs to be undone, besides the blocks.
struct Op {
    active: bool,
    frees: Vec<(u64, u32)>,
    forget: Vec<u64>,
    live: Live,
    orphans: Option<Vec<Ino>>,
}

impl<D: BlockDevice> Ext4<D> {
    /// Puts the parts together; `mount` does the rest.
    pub(crate) fn assemble(
        device: D,
        sb: Super,
        cache_blocks: usize,
        clock: Clock,
        seed: u64,
    ) -> Self {
        let live = sb.live;
        Ext4 {
            cache: Cache::new(sb.block_size as usize, cache_blocks.max(64)),
            device,
            overhead: sb.overhead(),
            sb,
            clock,
            random: seed | 1,
            read_only: true,
            failed: false,
            bulk: false,
            in_use: false,
            journal: None,
            overlay: NumberMap::default(),
            busy: NumberMap::default(),
            revoked: Vec::new(),
            changed: NumberMap::default(),
            orphans: Vec::new(),
            super_dirty: false,
            data_cursor: 0,
            meta_cursor: 0,
            ahead: Vec::new(),
            op: Op {
                active: false,
                frees: Vec::new(),
                forget: Vec::new(),
                live,
                orphans: None,
            },
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Block size in bytes.
    pub fn block_size(&self) -> u32 {
        self.sb.block_size
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// A number for inode generations (xorshift64*).
    pub(crate) fn random(&mut self) -> u32 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// The metadata block `nr`, read and checked if it is not cached.
    pub(crate) fn block(&mut self, nr: u64, kind: Kind) -> Result<Id> {
        if let Some(id) = self.cache.find(nr) {
            if self.cache.get(id).kind != kind {
                return Err(Error::corrupt("a block is used for two purposes"));
            }
            return Ok(id);
        }
        if nr >= self.sb.blocks || (nr == 0 && kind != Kind::Super) {
            return Err(Error::corrupt("block number out of range"));
        }
        let mut data = self.cache.buffer();
        if !self.read_ahead(nr, kind, &mut data)? {
            self.read_block(nr, &mut data)?;
        }
        sums::verify(&self.sb, nr, kind, &data)?;
        Ok(self.cache.insert(nr, kind, data))
    }

    /// Reads a directory block or its like together with its neighbours: an image builder puts them side by side, and
    /// a request costs more than the bytes. Only between changes, as what is kept must equal the device.
    fn read_ahead(&mut self, nr: u64, kind: Kind, data: &mut [u8]) -> Result<bool> {
        let wanted = matches!(
            kind,
            Kind::DirLeaf(_) | Kind::DirIndex(_) | Kind::Extent(_) | Kind::Symlink | Kind::Xattr
        );
        if !wanted || self.op.active || !self.overlay.is_empty() {
            return Ok(false);
        }
        let size = self.sb.block_size as usize;
        let held = self.ahead.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(nr.checked_sub(*start)?)
                .ok()?
                .checked_mul(size)?;
            bytes.get(at..at + size)
        });
        if let Some(held) = held {
            data.copy_from_slice(held);
            return Ok(true);
        }
        // Aligned, so that a device that reads clusters of its own is asked for one.
        let start = nr - nr % AHEAD_BLOCKS;
        let count = (self.sb.blocks - start).min(AHEAD_BLOCKS);
        let mut bytes = alloc::vec![0; count as usize * size].into_boxed_slice();
        self.device.read(start * size as u64, &mut bytes)?;
        let at = (nr - start) as usize * size;
        data.copy_from_slice(&bytes[at..at + size]);
        if self.ahead.len() >= AHEAD_RUNS {
            self.ahead.remove(0);
        }
        self.ahead.push((start, bytes));
        Ok(true)
    }

    /// Forgets what was read ahead: the device is about to change.
    pub(crate) fn drop_ahead(&mut self) {
        self.ahead.clear();
    }

    /// Reads a block past the cache.
    pub(crate) fn read_block(&self, nr: u64, data: &mut [u8]) -> Result<()> {
        match self.overlay.get(&nr) {
            Some(replayed) => data.copy_from_slice(replayed),
            None => self.device.read(nr * u64::from(self.sb.block_size), data)?,
        }
        Ok(())
    }

    /// The contents of a cached block.
    pub(crate) fn data(&self, id: Id) -> &[u8] {
        &self.cache.get(id).data
    }

    /// The contents of a cached block, to be changed.
    pub(crate) fn edit(&mut self, id: Id) -> &mut [u8] {
        debug_assert!(self.op.active);
        self.cache.edit(id)
    }

    /// The descriptor of a group.
    pub(crate) fn group(&mut self, number: u32) -> Result<Group> {
        if number >= self.sb.groups {
            return Err(Error::corrupt("group number"));
        }
        let (nr, at) = self.sb.desc_location(number);
        let id = self.block(nr, Kind::GroupDesc)?;
        let raw = &self.data(id)[at..at + self.sb.desc_size];
        let group = Group::parse(&self.sb, raw);
        let bit = 1u128 << (number % self.sb.descs_per_block());
        if self.cache.get(id).verified & bit == 0 {
            if self.sb.has_group_csum()
                && crate::le::get16(raw, 30) != group::checksum(&self.sb, number, raw)
            {
                return Err(Error::corrupt("group descriptor checksum"));
            }
            group.check(&self.sb)?;
            self.cache.get_mut(id).verified |= bit;
        }
        Ok(group)
    }

    /// Writes a descriptor back.
    pub(crate) fn store_group(&mut self, number: u32, group: &Group) -> Result<()> {
        let (nr, at) = self.sb.desc_location(number);
        let id = self.block(nr, Kind::GroupDesc)?;
        let raw = &mut self.cache.edit(id)[at..at + self.sb.desc_size];
        group.store(&self.sb, number, raw);
        Ok(())
    }

    /// Runs a changing operation: all of it happens or, when it fails, nothing. It may run twice: when it finds no space
    /// while freed blocks wait for the running transaction, that is committed first.
    pub(crate) fn change<T>(&mut self, mut act: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        self.drop_ahead();
        self.make_room()?;
        match self.attempt(&mut act) {
            Err(Error::NoSpace) if !self.busy.is_empty() => {
                self.commit()?;
                self.attempt(&mut act)
            }
            result => result,
        }
    }

    fn attempt<T>(&mut self, act: &mut impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        self.op.active = true;
        self.op.live = self.sb.live;
        let result = act(self);
        self.op.active = false;
        match result {
            Ok(value) => {
                self.finish_op();
                Ok(value)
            }
            Err(error) => {
                self.undo_op();
                if let Error::Corrupt { .. } = error {
                    // So that e2fsck looks at all of it next time, as Linux marks it.
                    self.sb.state |= STATE_ERROR;
                    self.super_dirty = true;
                }
                Err(error)
            }
        }
    }

    /// Whether a changing operation is in progress.
    pub(crate) fn in_operation(&self) -> bool {
        self.op.active
    }

    fn finish_op(&mut self) {
        self.cache.finish_op();
        self.super_dirty |= self.sb.live != self.op.live;
        self.op.orphans = None;
        while let Some(nr) = self.op.forget.pop() {
            if self.cache.forget(nr) {
                self.revoked.push(nr);
            }
        }
        self.op.frees.clear();
        if self.journal.is_none() {
            // Without a journal nothing waits for a commit; only the operation itself had to keep off.
            self.busy.clear();
        }
    }

    fn undo_op(&mut self) {
        self.cache.undo_op();
        self.sb.live = self.op.live;
        if let Some(orphans) = self.op.orphans.take() {
            self.orphans = orphans;
        }
        self.op.forget.clear();
        while let Some((start, len)) = self.op.frees.pop() {
            let (number, index) = self.sb.group_of(start);
            if let Some(bits) = self.busy.get_mut(&number) {
                crate::bitmap::clear(bits, index, len);
            }
        }
    }

    /// Notes that a run inside one group was freed by the operation.
    pub(crate) fn note_free(&mut self, start: u64, len: u32) {
        let (number, index) = self.sb.group_of(start);
        let size = self.sb.block_size as usize;
        let bits = self
            .busy
            .entry(number)
            .or_insert_with(|| alloc::vec![0; size].into_boxed_slice());
        crate::bitmap::set(bits, index, len);
        self.op.frees.push((start, len));
    }

    /// Notes that a metadata block was freed by the operation.
    pub(crate) fn note_forget(&mut self, nr: u64) {
        self.op.forget.push(nr);
    }

    /// The orphan list, to be changed by the operation.
    pub(crate) fn orphans_mut(&mut self) -> &mut Vec<Ino> {
        if self.op.orphans.is_none() {
            self.op.orphans = Some(self.orphans.clone());
        }
        &mut self.orphans
    }
}
