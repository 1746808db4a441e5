//! Hash trees: the index over the blocks of a directory.
//!
//! Block 0 is the root: it looks like a block with only `.` and `..` and has its entries behind them. Below it are up
//! to two levels of inner nodes, then the leaves. An entry's hash is the lowest of its block; its lowest bit says that
//! the block before ends with names of the same hash.

use super::{Place, leaf};
use crate::cache::{Id, Kind};
use crate::dir::hash::HashKind;
use crate::inode::{Node, flag};
use crate::le::{get16, get32, put16, put32};
use crate::{BlockDevice, Error, Ext4, Result, superblock};
use alloc::vec::Vec;

/// Offset of the entries in the root and in other nodes.
const ROOT_BASE: usize = 32;
const NODE_BASE: usize = 8;

/// The root of a directory's index.
pub(crate) struct Root {
    pub(crate) id: Id,
    levels: u8,
    pub(crate) hash: HashKind,
}

/// A node on the way to a leaf, and the entry followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    id: Id,
    base: usize,
    at: usize,
}

fn limit(node: &[u8], base: usize) -> usize {
    usize::from(get16(node, base))
}

fn count(node: &[u8], base: usize) -> usize {
    usize::from(get16(node, base + 2))
}

fn set_count(node: &mut [u8], base: usize, count: usize) {
    put16(node, base + 2, count as u16);
}

fn hash_at(node: &[u8], base: usize, at: usize) -> u32 {
    // The first entry's hash is taken by limit and count: it covers everything from zero.
    if at == 0 {
        0
    } else {
        get32(node, base + at * 8)
    }
}

fn block_at(node: &[u8], base: usize, at: usize) -> u32 {
    get32(node, base + at * 8 + 4) & 0x0fff_ffff
}

/// Inserts an entry behind `at`; there must be room.
fn insert(node: &mut [u8], base: usize, at: usize, hash: u32, block: u32) {
    let n = count(node, base);
    let place = base + (at + 1) * 8;
    node.copy_within(place..base + n * 8, place + 8);
    put32(node, place, hash);
    put32(node, place + 4, block);
    set_count(node, base, n + 1);
}

impl<D: BlockDevice> Ext4<D> {
    fn index_tail(&self) -> usize {
        if self.sb.has_csum() { 8 } else { 0 }
    }

    /// Entries that fit a node whose entries start at `base`.
    fn index_limit(&self, base: usize) -> usize {
        (self.sb.block_size as usize - base - self.index_tail()) / 8
    }

    /// Brings in an index block and checks its numbers.
    fn index_block(&mut self, dir: &Node, logical: u32, base: usize) -> Result<Id> {
        let nr = self.map_one(dir, logical)?;
        let id = self.block(nr, Kind::DirIndex(dir.seed(&self.sb)))?;
        let (expected, data) = (self.index_limit(base), self.data(id));
        if limit(data, base) != expected || count(data, base) == 0 || count(data, base) > expected {
            return Err(Error::corrupt("hash tree block"));
        }
        Ok(id)
    }

    /// The root of the index.
    pub(crate) fn index_root(&mut self, dir: &Node) -> Result<Root> {
        let id = self.index_block(dir, 0, ROOT_BASE)?;
        let data = self.data(id);
        let (version, info_len, levels) = (data[28], data[29], data[30]);
        let most = if self.sb.incompat & superblock::incompat::LARGEDIR != 0 {
            2
        } else {
            1
        };
        if info_len != 8 || levels > most || get16(data, 4) != 12 {
            return Err(Error::corrupt("hash tree root"));
        }
        let hash = HashKind::new(version, self.sb.hash_unsigned, self.sb.hash_seed)?;
        Ok(Root { id, levels, hash })
    }

    /// Walks to the leaf for a hash. Returns the frames from the root down and the leaf's logical block.
    pub(crate) fn probe(
        &mut self,
        dir: &Node,
        root: &Root,
        hash: u32,
    ) -> Result<(Vec<Frame>, u32)> {
        let blocks = self.dir_blocks(dir)?;
        let mut frames = Vec::with_capacity(3);
        let (mut id, mut base) = (root.id, ROOT_BASE);
        for level in 0..=root.levels {
            let data = self.data(id);
            let (mut low, mut high) = (1, count(data, base));
            while low < high {
                let mid = (low + high) / 2;
                if hash_at(data, base, mid) <= hash {
                    low = mid + 1
                } else {
                    high = mid
                }
            }
            let at = low - 1;
            frames.push(Frame { id, base, at });
            let child = block_at(data, base, at);
            if child == 0 || child >= blocks {
                return Err(Error::corrupt("hash tree block number"));
            }
            if level == root.levels {
                return Ok((frames, child));
            }
            id = self.index_block(dir, child, NODE_BASE)?;
            base = NODE_BASE;
        }
        Err(Error::corrupt("hash tree root"))
    }

    /// Moves the frames to the next leaf. Returns its lowest hash and its logical block.
    pub(crate) fn next_leaf(
        &mut self,
        dir: &Node,
        frames: &mut [Frame],
    ) -> Result<Option<(u32, u32)>> {
        let blocks = self.dir_blocks(dir)?;
        let Some(level) = (0..frames.len()).rev().find(|&level| {
            let frame = &frames[level];
            frame.at + 1 < count(self.data(frame.id), frame.base)
        }) else {
            return Ok(None);
        };
        frames[level].at += 1;
        let frame = frames[level];
        let data = self.data(frame.id);
        let hash = hash_at(data, frame.base, frame.at);
        let mut child = block_at(data, frame.base, frame.at);
        for below in &mut frames[level + 1..] {
            if child == 0 || child >= blocks {
                return Err(Error::corrupt("hash tree block number"));
            }
            let id = self.index_block(dir, child, NODE_BASE)?;
            *below = Frame {
                id,
                base: NODE_BASE,
                at: 0,
            };
            child = block_at(self.data(id), NODE_BASE, 0);
        }
        if child == 0 || child >= blocks {
            return Err(Error::corrupt("hash tree block number"));
        }
        Ok(Some((hash, child)))
    }

    /// Finds a name through the index.
    pub(crate) fn find_hashed(&mut self, dir: &Node, name: &[u8]) -> Result<Option<Place>> {
        let root = self.index_root(dir)?;
        let (hash, _) = root.hash.hash(name);
        let (mut frames, mut logical) = self.probe(dir, &root, hash)?;
        let end = self.leaf_end();
        loop {
            let id = self.dir_leaf(dir, logical)?;
            if let Some((at, ino)) = leaf::find(&self.data(id)[..end], name)? {
                return Ok(Some(Place { id, at, ino }));
            }
            match self.next_leaf(dir, &mut frames)? {
                Some((start, next)) if start == hash | 1 => logical = next,
                _ => return Ok(None),
            }
        }
    }

    /// Turns a directory of one full block into an indexed one with one leaf. False if its block does not start with
    /// `.` and `..` as it must.
    pub(crate) fn make_indexed(&mut self, dir: &mut Node) -> Result<bool> {
        let seed = dir.seed(&self.sb);
        let end = self.leaf_end();
        let id = self.dir_leaf(dir, 0)?;
        let mut walk = leaf::entries(&self.data(id)[..end]);
        let (Some(dot), Some(dotdot)) = (walk.next().transpose()?, walk.next().transpose()?) else {
            return Ok(false);
        };
        if dot.name != b"." || dotdot.name != b".." || dot.rec_len != 12 {
            return Ok(false);
        }
        let mut offsets = Vec::new();
        for entry in walk {
            let entry = entry?;
            if entry.ino != 0 {
                offsets.push(entry.at);
            }
        }
        let old = self.data(id).to_vec();
        // The hash version of the volume; one that is not known here has no business in a new directory.
        let version = self.sb.hash_version;
        HashKind::new(version, self.sb.hash_unsigned, self.sb.hash_seed)?;
        let (logical, leaf_id) = self.append_dir_block(dir)?;
        leaf::pack(&mut self.edit(leaf_id)[..end], &old, offsets.into_iter());
        let size = self.sb.block_size as usize;
        let root_limit = self.index_limit(ROOT_BASE);
        let data = self.edit(id);
        put16(data, 16, (size - 12) as u16);
        data[ROOT_BASE - 8..].fill(0);
        data[28] = version;
        data[29] = 8;
        put16(data, ROOT_BASE, root_limit as u16);
        set_count(data, ROOT_BASE, 1);
        put32(data, ROOT_BASE + 4, logical);
        self.cache.set_kind(id, Kind::DirIndex(seed));
        dir.flags |= flag::INDEX;
        Ok(true)
    }

    /// Adds an entry to an indexed directory.
    pub(crate) fn add_hashed(&mut self, dir: &mut Node, entry: &leaf::New<'_>) -> Result<()> {
        let root = self.index_root(dir)?;
        let (hash, _) = root.hash.hash(entry.name);
        let end = self.leaf_end();
        let (mut frames, logical) = self.probe(dir, &root, hash)?;
        let mut id = self.dir_leaf(dir, logical)?;
        if let Some(slot) = leaf::room(&self.data(id)[..end], entry.name.len())? {
            leaf::put(&mut self.edit(id)[..end], slot, entry);
            return Ok(());
        }
        self.make_index_room(dir, &mut frames)?;
        let (start, other) = self.split_leaf(dir, &root.hash, id, &frames)?;
        if hash >= start & !1 {
            id = other;
        }
        let slot = leaf::room(&self.data(id)[..end], entry.name.len())?;
        let slot = slot.ok_or(Error::corrupt("directory block"))?;
        leaf::put(&mut self.edit(id)[..end], slot, entry);
        Ok(())
    }

    /// Makes sure that the lowest node of the frames has room for one more entry.
    fn make_index_room(&mut self, dir: &mut Node, frames: &mut Vec<Frame>) -> Result<()> {
        let seed = dir.seed(&self.sb);
        loop {
            let full = |fs: &Self, frame: &Frame| {
                let data = fs.data(frame.id);
                count(data, frame.base) >= limit(data, frame.base)
            };
            let Some(lowest) = frames.last() else {
                return Err(Error::corrupt("hash tree root"));
            };
            if !full(self, lowest) {
                return Ok(());
            }
            let parent = (0..frames.len() - 1)
                .rev()
                .find(|&level| !full(self, &frames[level]));
            let (logical, id) = self.append_dir_block(dir)?;
            self.cache.set_kind(id, Kind::DirIndex(seed));
            let size = self.sb.block_size as usize;
            let node_limit = self.index_limit(NODE_BASE);
            let data = self.edit(id);
            data.fill(0);
            put16(data, 4, size as u16);
            put16(data, NODE_BASE, node_limit as u16);
            match parent {
                None => {
                    // All are full: the root's entries move into a node of their own.
                    let root = frames[0];
                    let levels = self.data(root.id)[30];
                    let most = if self.sb.incompat & superblock::incompat::LARGEDIR != 0 {
                        2
                    } else {
                        1
                    };
                    if levels >= most {
                        return Err(Error::NoSpace);
                    }
                    let n = count(self.data(root.id), ROOT_BASE);
                    let entries = self.data(root.id)[ROOT_BASE + 4..ROOT_BASE + n * 8].to_vec();
                    let data = self.edit(id);
                    data[NODE_BASE + 4..NODE_BASE + n * 8].copy_from_slice(&entries);
                    set_count(data, NODE_BASE, n);
                    let data = self.edit(root.id);
                    set_count(data, ROOT_BASE, 1);
                    put32(data, ROOT_BASE + 4, logical);
                    data[30] = levels + 1;
                    frames[0].at = 0;
                    frames.insert(
                        1,
                        Frame {
                            id,
                            base: NODE_BASE,
                            at: root.at,
                        },
                    );
                }
                Some(level) => {
                    let child = frames[level + 1];
                    let data = self.data(child.id);
                    let n = count(data, child.base);
                    let keep = n / 2;
                    let hash = hash_at(data, child.base, keep);
                    let moved = data[child.base + keep * 8..child.base + n * 8].to_vec();
                    set_count(self.edit(child.id), child.base, keep);
                    let data = self.edit(id);
                    // The first entry's hash gives way to limit and count.
                    data[NODE_BASE + 4..NODE_BASE + moved.len()].copy_from_slice(&moved[4..]);
                    set_count(data, NODE_BASE, n - keep);
                    let above = frames[level];
                    insert(self.edit(above.id), above.base, above.at, hash, logical);
                    if child.at >= keep {
                        frames[level].at += 1;
                        frames[level + 1] = Frame {
                            id,
                            base: NODE_BASE,
                            at: child.at - keep,
                        };
                    }
                }
            }
        }
    }

    /// Moves the upper half of a full leaf, by hash, to a new block and enters that in the index. Returns the new
    /// block's lowest hash (with the continuation bit) and the block.
    fn split_leaf(
        &mut self,
        dir: &mut Node,
        kind: &HashKind,
        id: Id,
        frames: &[Frame],
    ) -> Result<(u32, Id)> {
        let end = self.leaf_end();
        let mut map: Vec<(u32, usize, usize)> = Vec::new();
        for entry in leaf::entries(&self.data(id)[..end]) {
            let entry = entry?;
            if entry.ino != 0 && !entry.name.is_empty() {
                map.push((
                    kind.hash(entry.name).0,
                    entry.at,
                    leaf::need(entry.name.len()),
                ));
            }
        }
        if map.len() < 2 {
            return Err(Error::corrupt("directory block"));
        }
        map.sort_unstable();
        // Half of the bytes move, at least one entry, and not all.
        let total: usize = map.iter().map(|&(_, _, len)| len).sum();
        let (mut keep, mut bytes) = (0, 0);
        for &(_, _, len) in &map {
            if bytes + len / 2 > total / 2 {
                break;
            }
            bytes += len;
            keep += 1;
        }
        let keep = keep.clamp(1, map.len() - 1);
        let start = map[keep].0 | u32::from(map[keep].0 == map[keep - 1].0);
        let old = self.data(id).to_vec();
        let (logical, other) = self.append_dir_block(dir)?;
        leaf::pack(
            &mut self.edit(other)[..end],
            &old,
            map[keep..].iter().map(|entry| entry.1),
        );
        leaf::pack(
            &mut self.edit(id)[..end],
            &old,
            map[..keep].iter().map(|entry| entry.1),
        );
        let Some(&Frame { id: node, base, at }) = frames.last() else {
            return Err(Error::corrupt("hash tree root"));
        };
        insert(self.edit(node), base, at, start, logical);
        Ok((start, other))
    }
}
