//! Names: create, link, unlink, rename and their kin. Also the attributes that `stat` and its setters use.

use crate::dir::check_name;
use crate::inode::{Node, flag};
use crate::superblock::{Super, ro_compat};
use crate::{
    Attrs, BlockDevice, Error, Ext4, FileKind, Ino, NewInode, ROOT_INO, RenameMode, Result,
    Timestamp,
};
use alloc::vec::Vec;

impl<D: BlockDevice> Ext4<D> {
    /// The inode that `name` stands for in `dir`. `.` and `..` work.
    pub fn lookup(&mut self, dir: Ino, name: &[u8]) -> Result<Ino> {
        self.cache.trim();
        let node = self.live_dir(dir)?;
        let place = self.find_entry(&node, name)?.ok_or(Error::NotFound)?;
        self.check_target(place.ino)?;
        Ok(place.ino)
    }

    fn check_target(&self, ino: Ino) -> Result<()> {
        if ino > self.sb.inodes || (ino < self.sb.first_inode && ino != ROOT_INO) {
            return Err(Error::corrupt("directory entry's inode number"));
        }
        Ok(())
    }

    /// The attributes of an inode. `NotFound` if it is free.
    pub fn attrs(&mut self, ino: Ino) -> Result<Attrs> {
        self.cache.trim();
        self.node(ino)?.attrs()
    }

    /// Sets permission bits (the low 12 bits of the mode) and the change time.
    pub fn set_mode(&mut self, ino: Ino, perm: u16) -> Result<()> {
        self.update(ino, false, |node, now| {
            node.mode = node.mode & 0o170000 | perm & 0o7777;
            node.ctime = now;
        })
    }

    /// Sets owner and group and the change time.
    pub fn set_owner(&mut self, ino: Ino, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.update(ino, false, |node, now| {
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
            node.ctime = now;
        })
    }

    /// Sets the given times and, unless given, the change time to now.
    pub fn set_times(
        &mut self,
        ino: Ino,
        atime: Option<Timestamp>,
        mtime: Option<Timestamp>,
        ctime: Option<Timestamp>,
    ) -> Result<()> {
        self.update(ino, true, |node, now| {
            node.atime = atime.unwrap_or(node.atime);
            node.mtime = mtime.unwrap_or(node.mtime);
            node.ctime = ctime.unwrap_or(now);
        })
    }

    /// Sets the user-settable `FS_*_FL` flags (immutable, append-only, nodump, noatime, sync, dirsync).
    pub fn set_flags(&mut self, ino: Ino, flags: u32) -> Result<()> {
        if flags & !flag::SETTABLE != 0 {
            return Err(Error::NotSupported);
        }
        self.update(ino, false, |node, now| {
            node.flags = node.flags & !flag::SETTABLE | flags;
            node.ctime = now;
        })
    }

    fn update(
        &mut self,
        ino: Ino,
        times_only: bool,
        act: impl Fn(&mut Node, Timestamp),
    ) -> Result<()> {
        self.change(|fs| {
            let mut node = fs.node(ino)?;
            act(&mut node, fs.now());
            fs.store_node(&node, times_only)
        })
    }

    /// Makes a file of any kind but a symbolic link under `name` in `dir`.
    pub fn create(&mut self, dir: Ino, name: &[u8], new: &NewInode) -> Result<Attrs> {
        check_name(name)?;
        if new.kind == FileKind::Symlink {
            return Err(Error::Invalid);
        }
        self.change(|fs| {
            let mut parent = fs.parent_for(dir, name)?;
            if new.kind == FileKind::Directory {
                fs.check_dir_links(&parent)?;
            }
            let mut node = fs.alloc_inode(dir, new)?;
            node.nlink = 1;
            if new.kind == FileKind::Directory {
                node.nlink = 2;
                fs.init_dir(&mut node, dir)?;
                fs.count_subdir(&mut parent, true);
            }
            fs.enter(&mut parent, name, &mut node)
        })
    }

    /// Makes a regular file without a name (`O_TMPFILE`), on the orphan list until linked or released.
    pub fn create_unnamed(&mut self, dir: Ino, new: &NewInode) -> Result<Attrs> {
        if new.kind != FileKind::Regular {
            return Err(Error::Invalid);
        }
        self.change(|fs| {
            fs.live_dir(dir)?;
            let mut node = fs.alloc_inode(dir, new)?;
            fs.orphan_add(&mut node)?;
            node.attrs()
        })
    }

    /// Makes a symbolic link to `target` (1 to block size - 1 bytes).
    pub fn symlink(
        &mut self,
        dir: Ino,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Attrs> {
        check_name(name)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Error::Invalid);
        }
        if target.len() >= self.sb.block_size as usize {
            return Err(Error::NameTooLong);
        }
        self.change(|fs| {
            let mut parent = fs.parent_for(dir, name)?;
            let mut node = fs.alloc_inode(
                dir,
                &NewInode {
                    kind: FileKind::Symlink,
                    perm: 0o777,
                    uid,
                    gid,
                },
            )?;
            node.nlink = 1;
            node.size = target.len() as u64;
            if target.len() < node.block.len() {
                node.block[..target.len()].copy_from_slice(target);
            } else {
                fs.put_long_target(&mut node, target)?;
            }
            fs.enter(&mut parent, name, &mut node)
        })
    }

    fn put_long_target(&mut self, node: &mut Node, target: &[u8]) -> Result<()> {
        node.flags |= flag::EXTENTS;
        crate::extent::init_root(&mut node.block);
        let goal = self.inode_goal(node.ino);
        let nr = self.alloc_meta(goal)?;
        let ext = crate::extent::Ext {
            logical: 0,
            len: 1,
            physical: nr,
            unwritten: false,
        };
        self.insert_extent(node, ext)?;
        node.blocks += u64::from(self.sb.block_size / 512);
        let id = self.cache.fresh(nr, crate::cache::Kind::Symlink)?;
        self.edit(id)[..target.len()].copy_from_slice(target);
        Ok(())
    }

    /// The target of a symbolic link.
    pub fn readlink(&mut self, ino: Ino) -> Result<Vec<u8>> {
        self.cache.trim();
        let node = self.node(ino)?;
        if !node.is_symlink() {
            return Err(Error::Invalid);
        }
        let len = node.size as usize;
        if node.is_fast_symlink(&self.sb) {
            let target = node
                .block
                .get(..len)
                .filter(|_| len > 0 && len < node.block.len());
            return target
                .map(<[u8]>::to_vec)
                .ok_or(Error::corrupt("symbolic link"));
        }
        if node.size == 0 || node.size >= u64::from(self.sb.block_size) {
            return Err(Error::corrupt("symbolic link"));
        }
        let nr = self.map_one(&node, 0)?;
        let id = self.block(nr, crate::cache::Kind::Symlink)?;
        Ok(self.data(id)[..len].to_vec())
    }

    /// Gives `ino` (not a directory) another name.
    pub fn link(&mut self, dir: Ino, name: &[u8], ino: Ino) -> Result<()> {
        check_name(name)?;
        self.change(|fs| {
            let mut node = fs.node(ino)?;
            if node.is_dir() {
                return Err(Error::NotPermitted);
            }
            if node.nlink >= Super::LINK_MAX {
                return Err(Error::TooManyLinks);
            }
            let mut parent = fs.parent_for(dir, name)?;
            if node.nlink == 0 {
                fs.orphan_remove(&mut node)?;
            }
            node.nlink += 1;
            node.ctime = fs.now();
            fs.enter(&mut parent, name, &mut node).map(|_| ())
        })
    }

    /// Removes a name that is not a directory. Returns the inode and the links left. With none left it stays, on the
    /// orphan list, until [`Ext4::release`].
    pub fn unlink(&mut self, dir: Ino, name: &[u8]) -> Result<(Ino, u32)> {
        self.change(|fs| {
            let mut parent = fs.dir_node(dir)?;
            let place = fs.find_entry(&parent, name)?.ok_or(Error::NotFound)?;
            let mut node = fs.target(place.ino)?;
            if node.is_dir() {
                return Err(Error::IsDir);
            }
            fs.remove_entry_at(place)?;
            fs.touch(&mut parent)?;
            fs.drop_link(&mut node)?;
            Ok((node.ino, node.nlink))
        })
    }

    /// Removes an empty directory. Its inode stays until [`Ext4::release`].
    pub fn rmdir(&mut self, dir: Ino, name: &[u8]) -> Result<Ino> {
        if name == b"." {
            return Err(Error::Invalid);
        }
        if name == b".." {
            return Err(Error::NotEmpty);
        }
        self.change(|fs| {
            let mut parent = fs.dir_node(dir)?;
            let place = fs.find_entry(&parent, name)?.ok_or(Error::NotFound)?;
            let mut node = fs.target(place.ino)?;
            if !node.is_dir() {
                return Err(Error::NotDir);
            }
            if node.ino == parent.ino || node.ino == ROOT_INO {
                return Err(Error::corrupt("directory loop"));
            }
            if !fs.dir_is_empty(&node)? {
                return Err(Error::NotEmpty);
            }
            fs.remove_entry_at(place)?;
            fs.count_subdir(&mut parent, false);
            fs.touch(&mut parent)?;
            fs.drop_dir(&mut node)?;
            Ok(node.ino)
        })
    }

    /// Renames. Returns the inode that lost its last link by being replaced; the caller releases it when unused.
    pub fn rename(
        &mut self,
        from_dir: Ino,
        from: &[u8],
        to_dir: Ino,
        to: &[u8],
        mode: RenameMode,
    ) -> Result<Option<Ino>> {
        for name in [from, to] {
            check_name(name)?;
        }
        self.change(|fs| {
            let source_dir = fs.dir_node(from_dir)?;
            let target_dir = fs.live_dir(to_dir)?;
            let source = fs.find_entry(&source_dir, from)?.ok_or(Error::NotFound)?;
            let target = fs.find_entry(&target_dir, to)?;
            let node = fs.target(source.ino)?;
            if node.is_dir() {
                fs.check_not_below(source.ino, to_dir)?;
            }
            match (target, mode) {
                (None, RenameMode::Exchange) => Err(Error::NotFound),
                (Some(_), RenameMode::NoReplace) => Err(Error::Exists),
                (Some(target), RenameMode::Exchange) => {
                    let other = fs.target(target.ino)?;
                    if other.is_dir() {
                        fs.check_not_below(target.ino, from_dir)?;
                    }
                    fs.exchange((from_dir, from), node, (to_dir, to), other)
                        .map(|()| None)
                }
                (target, _) => {
                    let old = target.map(|target| fs.target(target.ino)).transpose()?;
                    fs.move_entry((from_dir, from), node, (to_dir, to), old)
                }
            }
        })
    }

    /// Moves a name over what is there, if anything.
    fn move_entry(
        &mut self,
        (from_dir, from): (Ino, &[u8]),
        mut node: Node,
        (to_dir, to): (Ino, &[u8]),
        old: Option<Node>,
    ) -> Result<Option<Ino>> {
        let kind = node.kind()?;
        let crosses = from_dir != to_dir;
        if let Some(old) = &old {
            if old.ino == node.ino {
                return Ok(None);
            }
            match (node.is_dir(), old.is_dir()) {
                (true, false) => return Err(Error::NotDir),
                (false, true) => return Err(Error::IsDir),
                (true, true) if !self.dir_is_empty(old)? => return Err(Error::NotEmpty),
                _ => {}
            }
        }
        let mut parent = self.dir_node(to_dir)?;
        match &old {
            Some(_) => {
                let place = self.find_entry(&parent, to)?.ok_or(Error::NotFound)?;
                self.redirect_entry(place, node.ino, kind);
            }
            None => {
                if node.is_dir() && crosses {
                    self.check_dir_links(&parent)?;
                }
                self.add_entry(&mut parent, to, node.ino, kind)?;
            }
        }
        if node.is_dir() && crosses && old.is_none() {
            self.count_subdir(&mut parent, true);
        }
        self.touch(&mut parent)?;
        // The insertion may have moved the old entry: look it up again.
        let mut parent = self.dir_node(from_dir)?;
        let place = self.find_entry(&parent, from)?.ok_or(Error::NotFound)?;
        self.remove_entry_at(place)?;
        if node.is_dir() && (crosses || old.is_some()) {
            self.count_subdir(&mut parent, false);
        }
        self.touch(&mut parent)?;
        if node.is_dir() && crosses {
            self.set_parent(&node, to_dir)?;
        }
        node.ctime = self.now();
        self.store_node(&node, false)?;
        let Some(mut old) = old else { return Ok(None) };
        if old.is_dir() {
            self.drop_dir(&mut old)?;
        } else {
            self.drop_link(&mut old)?;
        }
        Ok((old.nlink == 0).then_some(old.ino))
    }

    fn exchange(
        &mut self,
        (from_dir, from): (Ino, &[u8]),
        mut node: Node,
        (to_dir, to): (Ino, &[u8]),
        mut other: Node,
    ) -> Result<()> {
        if node.ino == other.ino {
            return Ok(());
        }
        let crosses = from_dir != to_dir;
        for (dir, name, now, before, parent) in [
            (from_dir, from, &other, &node, to_dir),
            (to_dir, to, &node, &other, from_dir),
        ] {
            let mut holder = self.dir_node(dir)?;
            let place = self.find_entry(&holder, name)?.ok_or(Error::NotFound)?;
            self.redirect_entry(place, now.ino, now.kind()?);
            if crosses && now.is_dir() != before.is_dir() {
                if now.is_dir() {
                    self.check_dir_links(&holder)?;
                }
                self.count_subdir(&mut holder, now.is_dir());
            }
            self.touch(&mut holder)?;
            if crosses && before.is_dir() {
                self.set_parent(before, parent)?;
            }
        }
        let now = self.now();
        (node.ctime, other.ctime) = (now, now);
        self.store_node(&node, false)?;
        self.store_node(&other, false)
    }

    /// The directory that gets a new entry `name`: it must have links and not have the name.
    fn parent_for(&mut self, dir: Ino, name: &[u8]) -> Result<Node> {
        let parent = self.live_dir(dir)?;
        match self.find_entry(&parent, name)? {
            Some(_) => Err(Error::Exists),
            None => Ok(parent),
        }
    }

    /// A directory that has not been removed.
    pub(crate) fn live_dir(&mut self, dir: Ino) -> Result<Node> {
        let node = self.dir_node(dir)?;
        if node.nlink == 0 {
            Err(Error::NotFound)
        } else {
            Ok(node)
        }
    }

    /// The inode an entry names; that it is free is corruption.
    fn target(&mut self, ino: Ino) -> Result<Node> {
        self.check_target(ino)?;
        self.node(ino).map_err(|error| match error {
            Error::NotFound => Error::corrupt("directory entry of a free inode"),
            error => error,
        })
    }

    /// Enters a node under a name in a directory and stores both.
    fn enter(&mut self, parent: &mut Node, name: &[u8], node: &mut Node) -> Result<Attrs> {
        self.store_node(node, false)?;
        self.add_entry(parent, name, node.ino, node.kind()?)?;
        self.touch(parent)?;
        node.attrs()
    }

    /// Stores a directory whose entries changed.
    fn touch(&mut self, dir: &mut Node) -> Result<()> {
        dir.mtime = self.now();
        dir.ctime = dir.mtime;
        self.store_node(dir, false)
    }

    fn drop_link(&mut self, node: &mut Node) -> Result<()> {
        node.nlink = node.nlink.saturating_sub(1);
        node.ctime = self.now();
        if node.nlink == 0 {
            self.orphan_add(node)?;
        }
        self.store_node(node, false)
    }

    fn drop_dir(&mut self, node: &mut Node) -> Result<()> {
        node.nlink = 0;
        node.size = 0;
        node.ctime = self.now();
        self.orphan_add(node)
    }

    fn check_dir_links(&self, dir: &Node) -> Result<()> {
        let uncounted = self.sb.ro_compat & ro_compat::DIR_NLINK != 0 && self.is_indexed(dir);
        if dir.nlink >= Super::LINK_MAX && !uncounted {
            Err(Error::TooManyLinks)
        } else {
            Ok(())
        }
    }

    /// Counts a subdirectory that came or went. A count of 1 means too many to count.
    fn count_subdir(&mut self, dir: &mut Node, came: bool) {
        if came {
            if dir.nlink != 1 {
                dir.nlink += 1;
            }
            if dir.nlink >= Super::LINK_MAX && self.is_indexed(dir) {
                dir.nlink = 1;
            }
        } else if dir.nlink > 2 {
            dir.nlink -= 1;
        }
    }

    /// Sets `..` of a directory.
    fn set_parent(&mut self, dir: &Node, parent: Ino) -> Result<()> {
        let place = self
            .find_entry(dir, b"..")?
            .ok_or(Error::corrupt("directory without parent"))?;
        self.redirect_entry(place, parent, FileKind::Directory);
        Ok(())
    }

    /// Fails if `dir` is `top` or lies below it.
    fn check_not_below(&mut self, top: Ino, dir: Ino) -> Result<()> {
        let mut at = dir;
        // A real tree cannot be deeper than it has directories; this stops loops in broken ones.
        for _ in 0..self.sb.inodes {
            if at == top {
                return Err(Error::Invalid);
            }
            if at == ROOT_INO {
                return Ok(());
            }
            let node = self.dir_node(at)?;
            let place = self
                .find_entry(&node, b"..")?
                .ok_or(Error::corrupt("directory without parent"))?;
            at = place.ino;
        }
        Err(Error::corrupt("directory loop"))
    }
}
