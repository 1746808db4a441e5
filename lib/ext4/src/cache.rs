//! The cache of metadata blocks, and the undo log of the operation in progress.
//!
//! File data never comes here. A block is held for one purpose at a time ([`Kind`]); a second purpose is proof of a
//! corrupt volume. Indices ([`Id`]) stay valid until [`Cache::trim`], which only runs between operations.

use crate::{Error, Result};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::{BuildHasherDefault, Hasher};
use hashbrown::HashMap;

/// Index of a cached block.
pub(crate) type Id = usize;

/// A map keyed by a block or inode number.
pub(crate) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Multiplicative hashing of one integer.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// What a block holds, which says how it is checked and summed. The number in some kinds is the checksum seed of the
/// owning inode, so it also tells owners apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The block with the primary superblock.
    Super,
    /// Group descriptors.
    GroupDesc,
    /// The block bitmap of a group.
    BlockBitmap(u32),
    /// The inode bitmap of a group.
    InodeBitmap(u32),
    /// Part of an inode table.
    InodeTable,
    /// A directory block with entries.
    DirLeaf(u32),
    /// A directory block with hash-tree entries: the root or an inner node.
    DirIndex(u32),
    /// A node of an extent tree.
    Extent(u32),
    /// Extended attributes.
    Xattr,
    /// The target of a long symbolic link.
    Symlink,
}

/// One cached block.
pub(crate) struct Buf {
    pub nr: u64,
    pub data: Box<[u8]>,
    pub kind: Kind,
    /// Changed in the running transaction.
    pub dirty: bool,
    /// In the journal, newer than on its home place.
    pub logged: bool,
    /// Bits for the owner of the kind: parts that were verified.
    pub verified: u128,
    live: bool,
    used: bool,
    /// The operation that last saved it.
    saved_by: u64,
}

struct Undo {
    id: Id,
    kind: Kind,
    /// The contents before; `None` if the operation brought the block in.
    before: Option<Box<[u8]>>,
}

/// The cache.
pub(crate) struct Cache {
    bufs: Vec<Buf>,
    map: NumberMap<u64, Id>,
    vacant: Vec<Id>,
    spare: Vec<Box<[u8]>>,
    block_size: usize,
    limit: usize,
    hand: usize,
    dirty: usize,
    logged: usize,
    op: u64,
    undo: Vec<Undo>,
}

impl Cache {
    pub(crate) fn new(block_size: usize, limit: usize) -> Cache {
        Cache {
            bufs: Vec::new(),
            map: NumberMap::default(),
            vacant: Vec::new(),
            spare: Vec::new(),
            block_size,
            limit,
            hand: 0,
            dirty: 0,
            logged: 0,
            op: 1,
            undo: Vec::new(),
        }
    }

    /// The block `nr` if it is here.
    pub(crate) fn find(&mut self, nr: u64) -> Option<Id> {
        let id = *self.map.get(&nr)?;
        self.bufs[id].used = true;
        Some(id)
    }

    /// A buffer of the block size with arbitrary contents.
    pub(crate) fn buffer(&mut self) -> Box<[u8]> {
        self.spare
            .pop()
            .unwrap_or_else(|| vec![0; self.block_size].into_boxed_slice())
    }

    fn keep_spare(&mut self, data: Box<[u8]>) {
        if self.spare.len() < 64 {
            self.spare.push(data);
        }
    }

    /// Brings a clean block in. It must not be here yet.
    pub(crate) fn insert(&mut self, nr: u64, kind: Kind, data: Box<[u8]>) -> Id {
        let buf = Buf {
            nr,
            data,
            kind,
            dirty: false,
            logged: false,
            verified: 0,
            live: true,
            used: true,
            saved_by: 0,
        };
        let id = match self.vacant.pop() {
            Some(id) => {
                self.bufs[id] = buf;
                id
            }
            None => {
                self.bufs.push(buf);
                self.bufs.len() - 1
            }
        };
        self.map.insert(nr, id);
        id
    }

    /// Brings a newly allocated block in as zeros, dirty.
    pub(crate) fn fresh(&mut self, nr: u64, kind: Kind) -> Result<Id> {
        if self.map.contains_key(&nr) {
            return Err(Error::corrupt("a metadata block is marked free"));
        }
        let mut data = self.buffer();
        data.fill(0);
        let id = self.insert(nr, kind, data);
        let buf = &mut self.bufs[id];
        buf.dirty = true;
        buf.verified = u128::MAX;
        buf.saved_by = self.op;
        self.dirty += 1;
        self.undo.push(Undo {
            id,
            kind,
            before: None,
        });
        Ok(id)
    }

    pub(crate) fn get(&self, id: Id) -> &Buf {
        &self.bufs[id]
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> &mut Buf {
        &mut self.bufs[id]
    }

    /// The contents, to be changed in the running operation.
    pub(crate) fn edit(&mut self, id: Id) -> &mut [u8] {
        if self.bufs[id].saved_by != self.op {
            let mut before = self.buffer();
            before.copy_from_slice(&self.bufs[id].data);
            self.bufs[id].saved_by = self.op;
            self.undo.push(Undo {
                id,
                kind: self.bufs[id].kind,
                before: Some(before),
            });
        }
        let buf = &mut self.bufs[id];
        if !buf.dirty {
            buf.dirty = true;
            self.dirty += 1;
        }
        &mut buf.data
    }

    /// Gives a block that the operation has edited another purpose.
    pub(crate) fn set_kind(&mut self, id: Id, kind: Kind) {
        debug_assert_eq!(self.bufs[id].saved_by, self.op);
        self.bufs[id].kind = kind;
    }

    /// Number of blocks that the operation has changed so far.
    pub(crate) fn op_blocks(&self) -> usize {
        self.undo.len()
    }

    /// Ends the operation; its changes stay.
    pub(crate) fn finish_op(&mut self) {
        self.op += 1;
        while let Some(undo) = self.undo.pop() {
            if let Some(before) = undo.before {
                self.keep_spare(before);
            }
        }
    }

    /// Ends the operation and puts back all it changed. (Blocks stay dirty: writing them again does no harm.)
    pub(crate) fn undo_op(&mut self) {
        self.op += 1;
        while let Some(undo) = self.undo.pop() {
            match undo.before {
                Some(before) => {
                    let buf = &mut self.bufs[undo.id];
                    buf.kind = undo.kind;
                    buf.verified = 0;
                    let after = core::mem::replace(&mut buf.data, before);
                    self.keep_spare(after);
                }
                None => self.drop_id(undo.id),
            }
        }
    }

    /// Drops a block that was freed. Returns whether the journal holds a copy that must not be replayed.
    pub(crate) fn forget(&mut self, nr: u64) -> bool {
        let Some(&id) = self.map.get(&nr) else {
            return false;
        };
        let logged = self.bufs[id].logged;
        self.drop_id(id);
        logged
    }

    fn drop_id(&mut self, id: Id) {
        let buf = &mut self.bufs[id];
        if !buf.live {
            return;
        }
        buf.live = false;
        self.dirty -= usize::from(core::mem::take(&mut buf.dirty));
        self.logged -= usize::from(core::mem::take(&mut buf.logged));
        let data = core::mem::take(&mut buf.data);
        self.map.remove(&buf.nr);
        self.keep_spare(data);
        self.vacant.push(id);
    }

    /// Number of dirty blocks.
    pub(crate) fn dirty_count(&self) -> usize {
        self.dirty
    }

    /// Number of blocks whose newest committed contents are only in the journal.
    pub(crate) fn logged_count(&self) -> usize {
        self.logged
    }

    /// All blocks that satisfy `want`, by block number.
    pub(crate) fn sorted(&self, want: impl Fn(&Buf) -> bool) -> Vec<Id> {
        let mut ids: Vec<Id> = (0..self.bufs.len())
            .filter(|&id| self.bufs[id].live && want(&self.bufs[id]))
            .collect();
        ids.sort_unstable_by_key(|&id| self.bufs[id].nr);
        ids
    }

    /// The block was written: to the journal, or (`home`) to its own place.
    pub(crate) fn set_written(&mut self, id: Id, home: bool) {
        let buf = &mut self.bufs[id];
        self.dirty -= usize::from(core::mem::take(&mut buf.dirty));
        self.logged -= usize::from(buf.logged);
        buf.logged = !home;
        self.logged += usize::from(buf.logged);
    }

    /// Number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Number of blocks that it should not exceed.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether there is something to trim.
    pub(crate) fn is_over_limit(&self) -> bool {
        self.map.len() > self.limit
    }

    /// Evicts clean blocks that were not used lately while there are more than the limit. Between operations only.
    pub(crate) fn trim(&mut self) {
        let mut excess = self.map.len().saturating_sub(self.limit);
        if excess == 0 || self.map.len() <= self.dirty + self.logged {
            return;
        }
        let mut steps = 2 * self.bufs.len().min(4 * excess + 64);
        while excess > 0 && steps > 0 {
            steps -= 1;
            self.hand = if self.hand + 1 >= self.bufs.len() {
                0
            } else {
                self.hand + 1
            };
            let buf = &mut self.bufs[self.hand];
            if !buf.live || buf.dirty || buf.logged {
                continue;
            }
            if core::mem::take(&mut buf.used) {
                continue;
            }
            self.drop_id(self.hand);
            excess -= 1;
        }
    }
}
