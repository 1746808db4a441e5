//! Changes of extent trees: insert, remove, mark written. All run inside an operation; the caller stores the inode.

use super::{Ext, Path, Step, node};
use crate::cache::Kind;
use crate::fs::STEP_BLOCKS;
use crate::inode::Node;
use crate::{BlockDevice, Error, Ext4, Result};

impl<D: BlockDevice> Ext4<D> {
    /// Entries that fit a node in a block.
    fn node_room(&self) -> usize {
        (self.sb.block_size as usize - 12 - if self.sb.has_csum() { 4 } else { 0 }) / 12
    }

    fn sectors_per_block(&self) -> u64 {
        u64::from(self.sb.block_size / 512)
    }

    /// Sets the first key of a node in its parents.
    fn fix_keys(&mut self, file: &mut Node, path: &Path, level: usize) {
        let key = node::key(self.tree(file, &path[level]), 0);
        for parent in (0..level).rev() {
            let step = path[parent];
            let at = step.at.unwrap_or(0);
            node::set_key(self.tree_mut(file, &step), at, key);
            if at > 0 {
                break;
            }
        }
    }

    /// Inserts a mapping where there was none, joining it with its neighbours.
    pub(crate) fn insert_extent(&mut self, file: &mut Node, new: Ext) -> Result<()> {
        let mut path = self.path(file, new.logical)?;
        loop {
            let Some(&leaf) = path.last() else {
                return Err(Error::corrupt("extent root"));
            };
            let count = node::count(self.tree(file, &leaf));
            let right = leaf.at.map_or(0, |at| at + 1);
            let mut joined = None;
            if let Some(at) = leaf.at {
                let before = self.extent_at(file, &leaf, at)?;
                if before.end() > new.logical {
                    return Err(Error::corrupt("overlapping extents"));
                }
                joined = before.joined(&new).map(|ext| (at, ext));
            }
            if right < count {
                let after = self.extent_at(file, &leaf, right)?;
                if new.end() > after.logical {
                    return Err(Error::corrupt("overlapping extents"));
                }
                match joined {
                    Some((at, ext)) => {
                        if let Some(all) = ext.joined(&after) {
                            let data = self.tree_mut(file, &leaf);
                            node::set_extent(data, at, &all);
                            node::remove(data, right);
                            return Ok(());
                        }
                    }
                    None => joined = new.joined(&after).map(|ext| (right, ext)),
                }
            }
            if let Some((at, ext)) = joined {
                node::set_extent(self.tree_mut(file, &leaf), at, &ext);
                if at == 0 {
                    self.fix_keys(file, &path, path.len() - 1);
                }
                return Ok(());
            }
            if !node::is_full(self.tree(file, &leaf)) {
                let data = self.tree_mut(file, &leaf);
                node::open_gap(data, right);
                node::set_extent(data, right, &new);
                if right == 0 {
                    self.fix_keys(file, &path, path.len() - 1);
                }
                return Ok(());
            }
            self.split(file, &path)?;
            path = self.path(file, new.logical)?;
        }
    }

    /// Makes one step towards room in the leaf of a path: splits a full node under one with room, or grows the tree.
    fn split(&mut self, file: &mut Node, path: &Path) -> Result<()> {
        let seed = file.seed(&self.sb);
        let goal = path.last().map_or(0, |leaf| leaf.nr + 1);
        let goal = if goal > 1 {
            goal
        } else {
            self.inode_goal(file.ino)
        };
        let Some(level) = (0..path.len() - 1)
            .rev()
            .find(|&level| !node::is_full(self.tree(file, &path[level])))
        else {
            if path.len() > super::MAX_DEPTH {
                return Err(Error::TooBig);
            }
            let nr = self.alloc_meta(goal)?;
            file.blocks += self.sectors_per_block();
            let id = self.cache.fresh(nr, Kind::Extent(seed))?;
            let room = self.node_room();
            let depth = node::depth(&file.block);
            let below = self.edit(id);
            node::init(below, room, depth);
            node::append(below, node::tail(&file.block, 0));
            let key = node::key(&file.block, 0);
            node::init(&mut file.block, 4, depth + 1);
            node::open_gap(&mut file.block, 0);
            node::set_index(&mut file.block, 0, key, nr);
            return Ok(());
        };
        let (parent, full) = (path[level], path[level + 1]);
        let data = self.tree(file, &full);
        let (count, depth, max) = (node::count(data), node::depth(data), node::max(data));
        if count < 2 {
            return Err(Error::corrupt("extent node"));
        }
        // A tree that grows at its end keeps its nodes full.
        let at_end = full.at == Some(count - 1);
        let keep = if at_end { count - 1 } else { count / 2 };
        let moved = node::tail(data, keep).to_vec();
        let key = node::key(data, keep);
        let nr = self.alloc_meta(goal)?;
        file.blocks += self.sectors_per_block();
        let id = self.cache.fresh(nr, Kind::Extent(seed))?;
        let fresh = self.edit(id);
        node::init(fresh, max, depth);
        node::append(fresh, &moved);
        node::shorten(self.tree_mut(file, &full), keep);
        let at = parent.at.unwrap_or(0) + 1;
        let data = self.tree_mut(file, &parent);
        node::open_gap(data, at);
        node::set_index(data, at, key, nr);
        Ok(())
    }

    /// Removes the mappings in `from..to` and frees their blocks, from the end backwards. Returns false when it stopped
    /// early because the operation has changed many blocks; then call it again in a new one.
    pub(crate) fn remove_extents(
        &mut self,
        file: &mut Node,
        from: u32,
        to: u32,
        metadata: bool,
    ) -> Result<bool> {
        let mut done = true;
        if from >= to {
            return Ok(done);
        }
        loop {
            if self.cache.op_blocks() >= STEP_BLOCKS {
                done = false;
                break;
            }
            let path = self.path(file, to - 1)?;
            let Some(&leaf) = path.last() else { break };
            let Some(at) = leaf.at else { break };
            let ext = self.extent_at(file, &leaf, at)?;
            if ext.end() <= from {
                break;
            }
            let end = ext.end().min(to);
            // Not more than some groups in one go: each has a bitmap to change.
            let most = self.sb.blocks_per_group.saturating_mul(16);
            let start = ext.logical.max(from).max(end.saturating_sub(most));
            self.free_run(
                ext.physical + u64::from(start - ext.logical),
                end - start,
                metadata,
            )?;
            file.blocks = file
                .blocks
                .saturating_sub(u64::from(end - start) * self.sectors_per_block());
            let before = Ext {
                len: start - ext.logical,
                ..ext
            };
            let after = Ext {
                logical: end,
                len: ext.end() - end,
                physical: ext.physical + u64::from(end - ext.logical),
                unwritten: ext.unwritten,
            };
            match (before.len > 0, after.len > 0) {
                (false, false) => self.remove_entry(file, &path, at)?,
                (true, false) => node::set_extent(self.tree_mut(file, &leaf), at, &before),
                (false, true) => {
                    node::set_extent(self.tree_mut(file, &leaf), at, &after);
                    if at == 0 {
                        self.fix_keys(file, &path, path.len() - 1);
                    }
                }
                (true, true) => {
                    node::set_extent(self.tree_mut(file, &leaf), at, &before);
                    self.insert_extent(file, after)?;
                }
            }
        }
        self.collapse(file)?;
        Ok(done)
    }

    /// Removes entry `at` of the path's leaf, and nodes that become empty or fit their neighbour.
    fn remove_entry(&mut self, file: &mut Node, path: &Path, at: usize) -> Result<()> {
        let mut at = at;
        for level in (0..path.len()).rev() {
            let step = path[level];
            let data = self.tree_mut(file, &step);
            node::remove(data, at);
            let count = node::count(data);
            if level == 0 {
                if count == 0 {
                    node::init_root(&mut file.block);
                }
                return Ok(());
            }
            if count > 0 {
                if at == 0 {
                    self.fix_keys(file, path, level);
                }
                return self.merge(file, path, level);
            }
            self.free_node(file, &step)?;
            at = path[level - 1].at.unwrap_or(0);
        }
        Ok(())
    }

    fn free_node(&mut self, file: &mut Node, step: &Step) -> Result<()> {
        file.blocks = file.blocks.saturating_sub(self.sectors_per_block());
        self.free_run(step.nr, 1, true)
    }

    /// Joins a node with a sibling if both fit one.
    fn merge(&mut self, file: &mut Node, path: &Path, level: usize) -> Result<()> {
        let (parent, step) = (path[level - 1], path[level]);
        let data = self.tree(file, &step);
        let (count, max) = (node::count(data), node::max(data));
        // Only when clearly underfull, so that alternating changes do not split and join again.
        if count > max / 3 {
            return Ok(());
        }
        let seed = file.seed(&self.sb);
        let at = parent.at.unwrap_or(0);
        for sibling in [at.checked_sub(1), Some(at + 1)].into_iter().flatten() {
            let above = self.tree(file, &parent);
            if sibling >= node::count(above) {
                continue;
            }
            let nr = node::child(above, sibling);
            let id = self.block(nr, Kind::Extent(seed))?;
            let other = Step {
                id: Some(id),
                nr,
                at: None,
            };
            let data = self.tree(file, &other);
            if node::depth(data) != node::depth(self.tree(file, &step)) {
                return Err(Error::corrupt("extent node depth"));
            }
            if node::count(data) + count > max * 2 / 3 || node::max(data) != max {
                continue;
            }
            let (left, right, gone) = if sibling < at {
                (other, step, at)
            } else {
                (step, other, sibling)
            };
            let moved = node::tail(self.tree(file, &right), 0).to_vec();
            node::append(self.tree_mut(file, &left), &moved);
            self.free_node(file, &right)?;
            node::remove(self.tree_mut(file, &parent), gone);
            // The parent has one entry less and may now fit its own neighbour.
            return if level > 1 {
                self.merge(file, path, level - 1)
            } else {
                Ok(())
            };
        }
        Ok(())
    }

    /// Pulls a single child that fits the root into it.
    fn collapse(&mut self, file: &mut Node) -> Result<()> {
        let seed = file.seed(&self.sb);
        while node::depth(&file.block) > 0 && node::count(&file.block) == 1 {
            let nr = node::child(&file.block, 0);
            let id = self.block(nr, Kind::Extent(seed))?;
            let data = self.data(id);
            if node::count(data) > 4 || node::depth(data) + 1 != node::depth(&file.block) {
                break;
            }
            let entries = node::tail(data, 0).to_vec();
            let depth = node::depth(data);
            node::init_root(&mut file.block);
            node::init(&mut file.block, 4, depth);
            node::append(&mut file.block, &entries);
            self.free_node(
                file,
                &Step {
                    id: Some(id),
                    nr,
                    at: None,
                },
            )?;
        }
        Ok(())
    }

    /// Turns the unwritten extents in `from..to` into written ones. Returns false when it stopped early, as
    /// [`Ext4::remove_extents`].
    pub(crate) fn write_extents(&mut self, file: &mut Node, from: u32, to: u32) -> Result<bool> {
        let mut pos = from;
        while pos < to {
            if self.cache.op_blocks() >= STEP_BLOCKS {
                return Ok(false);
            }
            let run = self.map_node(file, pos, to - pos)?;
            let end = pos + run.len;
            if run.physical.is_none() || !run.unwritten {
                pos = end;
                continue;
            }
            let path = self.path(file, pos)?;
            let Some(&leaf) = path.last() else { break };
            let Some(at) = leaf.at else { break };
            let ext = self.extent_at(file, &leaf, at)?;
            let piece = |start: u32, end: u32, unwritten: bool| Ext {
                logical: start,
                len: end - start,
                physical: ext.physical + u64::from(start - ext.logical),
                unwritten,
            };
            let written = piece(pos, end, false);
            match (pos > ext.logical, end < ext.end()) {
                (false, false) => self.flip(file, &path, at, written)?,
                (false, true) => {
                    node::set_extent(self.tree_mut(file, &leaf), at, &piece(end, ext.end(), true));
                    if at == 0 {
                        self.fix_keys(file, &path, path.len() - 1);
                    }
                    self.insert_extent(file, written)?;
                }
                (true, tail) => {
                    node::set_extent(
                        self.tree_mut(file, &leaf),
                        at,
                        &piece(ext.logical, pos, true),
                    );
                    self.insert_extent(file, written)?;
                    if tail {
                        self.insert_extent(file, piece(end, ext.end(), true))?;
                    }
                }
            }
            pos = end;
        }
        Ok(true)
    }

    /// Replaces entry `at` by the same run in written state and joins it with its neighbours in the leaf.
    fn flip(&mut self, file: &mut Node, path: &Path, at: usize, written: Ext) -> Result<()> {
        let Some(leaf) = path.last() else {
            return Ok(());
        };
        let data = self.tree_mut(file, leaf);
        let (mut at, mut ext) = (at, written);
        node::set_extent(data, at, &ext);
        if at > 0
            && let Some(all) = node::extent(data, at - 1).joined(&ext)
        {
            node::remove(data, at);
            at -= 1;
            ext = all;
            node::set_extent(data, at, &ext);
        }
        if at + 1 < node::count(data)
            && let Some(all) = ext.joined(&node::extent(data, at + 1))
        {
            node::remove(data, at + 1);
            node::set_extent(data, at, &all);
        }
        self.collapse(file)
    }
}
