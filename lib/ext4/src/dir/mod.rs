//! Directories: finding, adding and removing entries, in linear and in hashed form.

pub(crate) mod hash;
mod index;
pub(crate) mod leaf;
mod read;

use crate::cache::{Id, Kind};
use crate::extent::Ext;
use crate::inode::{Node, flag};
use crate::{BlockDevice, Error, Ext4, FileKind, Ino, Result, superblock};

/// Longest name in bytes.
pub(crate) const NAME_MAX: usize = 255;

/// Where an entry lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The cached block.
    id: Id,
    /// Offset of the entry in it.
    at: usize,
    /// The inode it names.
    pub(crate) ino: Ino,
}

/// Checks a name that is to be created.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong);
    }
    if name.is_empty()
        || name == b"."
        || name == b".."
        || name.iter().any(|&byte| byte == b'/' || byte == 0)
    {
        return Err(Error::Invalid);
    }
    Ok(())
}

impl<D: BlockDevice> Ext4<D> {
    /// Number of blocks of a directory.
    pub(crate) fn dir_blocks(&self, dir: &Node) -> Result<u32> {
        let size = u64::from(self.sb.block_size);
        let blocks = dir.size / size;
        if !dir.size.is_multiple_of(size) || blocks == 0 || blocks > self.sb.blocks {
            return Err(Error::corrupt("directory size"));
        }
        u32::try_from(blocks).map_err(|_| Error::corrupt("directory size"))
    }

    pub(crate) fn is_indexed(&self, dir: &Node) -> bool {
        dir.flags & flag::INDEX != 0
    }

    /// The cached block `logical` of a directory that holds entries.
    pub(crate) fn dir_leaf(&mut self, dir: &Node, logical: u32) -> Result<Id> {
        let nr = self.map_one(dir, logical)?;
        self.block(nr, Kind::DirLeaf(dir.seed(&self.sb)))
    }

    /// End of the entries in a directory block.
    pub(crate) fn leaf_end(&self) -> usize {
        self.sb.block_size as usize - self.sb.leaf_tail()
    }

    /// Finds a name. `.` and `..` are found where the format has them: at the start of the first block.
    pub(crate) fn find_entry(&mut self, dir: &Node, name: &[u8]) -> Result<Option<Place>> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if self.is_indexed(dir) {
            if name == b".." || name == b"." {
                let id = self.index_root(dir)?.id;
                let at = if name == b".." { 12 } else { 0 };
                let ino = crate::le::get32(self.data(id), at);
                return Ok(Some(Place { id, at, ino }));
            }
            return self.find_hashed(dir, name);
        }
        let end = self.leaf_end();
        for logical in 0..self.dir_blocks(dir)? {
            let id = self.dir_leaf(dir, logical)?;
            if let Some((at, ino)) = leaf::find(&self.data(id)[..end], name)? {
                return Ok(Some(Place { id, at, ino }));
            }
            if logical % 64 == 63 {
                self.trim_in_read();
            }
        }
        Ok(None)
    }

    /// Evicts blocks inside a long read-only walk; not while an operation holds indices.
    pub(crate) fn trim_in_read(&mut self) {
        if !self.in_operation() {
            self.cache.trim();
        }
    }

    /// Adds an entry. The name must not be there.
    pub(crate) fn add_entry(
        &mut self,
        dir: &mut Node,
        name: &[u8],
        ino: Ino,
        kind: FileKind,
    ) -> Result<()> {
        let entry = leaf::New {
            name,
            ino,
            file_type: if self.sb.has_filetype() {
                kind.entry_type()
            } else {
                0
            },
        };
        if self.is_indexed(dir) {
            return self.add_hashed(dir, &entry);
        }
        let end = self.leaf_end();
        let blocks = self.dir_blocks(dir)?;
        // The last blocks are where room is likely; a long linear directory is only searched in full when it must be.
        for logical in (0..blocks).rev() {
            let id = self.dir_leaf(dir, logical)?;
            if let Some(slot) = leaf::room(&self.data(id)[..end], name.len())? {
                leaf::put(&mut self.edit(id)[..end], slot, &entry);
                return Ok(());
            }
        }
        if blocks == 1 && self.sb.has_dir_index() && self.make_indexed(dir)? {
            return self.add_hashed(dir, &entry);
        }
        let (_, id) = self.append_dir_block(dir)?;
        leaf::put(&mut self.edit(id)[..end], 0, &entry);
        Ok(())
    }

    /// Removes an entry that was found in this operation.
    pub(crate) fn remove_entry_at(&mut self, place: Place) -> Result<()> {
        let end = self.leaf_end();
        leaf::remove(&mut self.edit(place.id)[..end], place.at)
    }

    /// Points an entry that was found in this operation to another inode.
    pub(crate) fn redirect_entry(&mut self, place: Place, ino: Ino, kind: FileKind) {
        let file_type = if self.sb.has_filetype() {
            kind.entry_type()
        } else {
            0
        };
        let data = self.edit(place.id);
        crate::le::put32(data, place.at, ino);
        data[place.at + 7] = file_type;
    }

    /// Appends an empty block of entries to a directory. The caller stores the inode.
    pub(crate) fn append_dir_block(&mut self, dir: &mut Node) -> Result<(u32, Id)> {
        let size = self.sb.block_size;
        let blocks = dir.size / u64::from(size);
        if self.sb.incompat & superblock::incompat::LARGEDIR == 0
            && (blocks + 1) * u64::from(size) > 1 << 31
        {
            return Err(Error::NoSpace);
        }
        let logical = u32::try_from(blocks).map_err(|_| Error::NoSpace)?;
        let goal = match self.data_goal(dir, logical)? {
            Some(goal) => goal,
            None => self.inode_goal(dir.ino),
        };
        let nr = self.alloc_meta(goal)?;
        self.insert_extent(
            dir,
            Ext {
                logical,
                len: 1,
                physical: nr,
                unwritten: false,
            },
        )?;
        let id = self.cache.fresh(nr, Kind::DirLeaf(dir.seed(&self.sb)))?;
        let tail = self.sb.leaf_tail();
        leaf::init(self.edit(id), tail);
        dir.size += u64::from(size);
        dir.blocks += u64::from(size / 512);
        Ok((logical, id))
    }

    /// Gives a new directory its first block.
    pub(crate) fn init_dir(&mut self, dir: &mut Node, parent: Ino) -> Result<()> {
        let (_, id) = self.append_dir_block(dir)?;
        let end = self.leaf_end();
        let file_type = if self.sb.has_filetype() {
            FileKind::Directory.entry_type()
        } else {
            0
        };
        let ino = dir.ino;
        let data = &mut self.edit(id)[..end];
        leaf::put(
            data,
            0,
            &leaf::New {
                name: b".",
                ino,
                file_type,
            },
        );
        leaf::put(
            data,
            0,
            &leaf::New {
                name: b"..",
                ino: parent,
                file_type,
            },
        );
        Ok(())
    }

    /// Whether a directory has no entries besides `.` and `..`.
    pub(crate) fn dir_is_empty(&mut self, dir: &Node) -> Result<bool> {
        let mut empty = true;
        self.each_entry(dir, 2, &mut |_| {
            empty = false;
            false
        })?;
        Ok(empty)
    }
}
