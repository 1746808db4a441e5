//! Extent trees: which blocks of a file lie where.
//!
//! The root lies in the inode ([`crate::inode::Node::block`]) and is stored with it by the caller; other nodes are
//! cached blocks. `node` has the entries, `edit` the changes.

mod edit;
pub(crate) mod node;

use crate::cache::{Id, Kind};
use crate::inode::{Node, flag};
use crate::{BlockDevice, Error, Ext4, Extent, Result};
use alloc::vec::Vec;
pub(crate) use node::{Ext, init_root};

/// Deepest tree that Linux accepts.
const MAX_DEPTH: usize = 5;
/// The last block a file can have is one less: its end must fit 32 bits.
pub(crate) const MAX_BLOCKS: u64 = u32::MAX as u64;

/// One node on the way from the root to a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The cached block; `None` is the root in the inode.
    id: Option<Id>,
    /// Its block number.
    nr: u64,
    /// The entry followed, or in the leaf the last extent that starts at or before the wanted block. `None`: all
    /// start behind it.
    at: Option<usize>,
}

/// The way from the root (first) to a leaf (last).
pub(crate) type Path = Vec<Step>;

impl<D: BlockDevice> Ext4<D> {
    /// The bytes of a node on a path.
    pub(crate) fn tree<'a>(&'a self, file: &'a Node, step: &Step) -> &'a [u8] {
        match step.id {
            Some(id) => self.data(id),
            None => &file.block,
        }
    }

    /// The same, to be changed.
    fn tree_mut<'a>(&'a mut self, file: &'a mut Node, step: &Step) -> &'a mut [u8] {
        match step.id {
            Some(id) => self.edit(id),
            None => &mut file.block,
        }
    }

    /// Walks from the root to the leaf for block `target`.
    pub(crate) fn path(&mut self, file: &Node, target: u32) -> Result<Path> {
        if file.flags & flag::EXTENTS == 0 {
            return Err(Error::Unsupported {
                what: "files without extents",
            });
        }
        let seed = file.seed(&self.sb);
        let root = &file.block[..];
        let mut depth = node::depth(root);
        if node::magic(root) != node::MAGIC
            || depth > MAX_DEPTH
            || node::max(root) != 4
            || node::count(root) > 4
        {
            return Err(Error::corrupt("extent root"));
        }
        let mut path = Path::with_capacity(depth + 1);
        path.push(Step {
            id: None,
            nr: 0,
            at: node::search(root, target),
        });
        while depth > 0 {
            depth -= 1;
            let Some(step) = path.last_mut() else { break };
            let at = *step.at.get_or_insert(0);
            let step = *step;
            let data = self.tree(file, &step);
            if at >= node::count(data) {
                return Err(Error::corrupt("extent index without entries"));
            }
            let nr = node::child(data, at);
            let id = self.block(nr, Kind::Extent(seed))?;
            let data = self.data(id);
            if node::depth(data) != depth {
                return Err(Error::corrupt("extent node depth"));
            }
            path.push(Step {
                id: Some(id),
                nr,
                at: node::search(data, target),
            });
        }
        Ok(path)
    }

    /// The extent that the leaf step of a path stands on, checked.
    pub(crate) fn extent_at(&self, file: &Node, leaf: &Step, at: usize) -> Result<Ext> {
        let ext = node::extent(self.tree(file, leaf), at);
        ext.check(&self.sb)?;
        Ok(ext)
    }

    /// First block of the next extent behind the path's position, or the end of all files.
    fn next_start(&self, file: &Node, path: &Path) -> u32 {
        for (level, step) in path.iter().enumerate().rev() {
            let leaf = level + 1 == path.len();
            let next = step.at.map_or(usize::from(!leaf), |at| at + 1);
            let data = self.tree(file, step);
            if next < node::count(data) {
                return node::key(data, next);
            }
        }
        MAX_BLOCKS as u32
    }

    /// What lies at block `first`, cut to `count` blocks.
    pub(crate) fn map_node(&mut self, file: &Node, first: u32, count: u32) -> Result<Extent> {
        if count == 0 || u64::from(first) + 1 > MAX_BLOCKS {
            return Err(Error::Invalid);
        }
        let path = self.path(file, first)?;
        let Some(leaf) = path.last() else {
            return Err(Error::corrupt("extent root"));
        };
        if let Some(at) = leaf.at {
            let ext = self.extent_at(file, leaf, at)?;
            if first < ext.end() {
                let skip = first - ext.logical;
                return Ok(Extent {
                    logical: first,
                    physical: Some(ext.physical + u64::from(skip)),
                    len: (ext.len - skip).min(count),
                    unwritten: ext.unwritten,
                });
            }
        }
        let next = self.next_start(file, &path);
        if next <= first {
            return Err(Error::corrupt("extent order"));
        }
        Ok(Extent {
            logical: first,
            physical: None,
            len: (next - first).min(count),
            unwritten: false,
        })
    }

    /// The device block behind block `logical` of a directory; a hole is corruption there.
    pub(crate) fn map_one(&mut self, file: &Node, logical: u32) -> Result<u64> {
        let run = self.map_node(file, logical, 1)?;
        match run.physical {
            Some(nr) if !run.unwritten => Ok(nr),
            _ => Err(Error::corrupt("directory with a hole")),
        }
    }

    /// Where the blocks of a file that follow `logical` would best lie: behind those before it.
    pub(crate) fn data_goal(&mut self, file: &Node, logical: u32) -> Result<Option<u64>> {
        let path = self.path(file, logical)?;
        let Some(leaf) = path.last() else {
            return Ok(None);
        };
        Ok(match leaf.at {
            Some(at) => {
                let ext = self.extent_at(file, leaf, at)?;
                Some(
                    ext.physical
                        .saturating_add(u64::from(logical - ext.logical)),
                )
            }
            None => None,
        })
    }
}
