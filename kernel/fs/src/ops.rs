//! Changes of names and attributes: mkdir, unlink, rename, link, chmod and their kin, with Linux's
//! checks and order of errors. Opening is in [`crate::open`].

use alloc::{sync::Arc, vec::Vec};

use errno::{Errno, Result};

use crate::{
    Access, Dentry, DeviceId, FileType, Inode, LookupFlags, MAX_FILE_SIZE, Metadata, MountFlags,
    Namespace, NewInode, Parent, ParentKind, Path, RenameFlags, SetAttr, Start, StatFs, Timestamp,
    XattrFlags,
    inode::same_inode,
    mount::without_privileges,
    notify::{self, Mask},
    time::now,
};

/// A time that `utimensat(2)` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// This moment.
    At(Timestamp),
    /// `UTIME_NOW`.
    Now,
    /// `UTIME_OMIT`.
    Omit,
}

impl Namespace {
    /// `mkdir(2)`; `mode` has the umask applied.
    ///
    /// # Errors
    /// `EEXIST`, `ENOSPC`, `EROFS`, and those of resolution.
    pub fn mkdir(&self, start: &Start<'_>, path: &[u8], mode: u32) -> Result<Path> {
        let permissions = mode & 0o1777;
        self.make(
            start,
            path,
            FileType::Directory,
            permissions,
            DeviceId::default(),
        )
    }

    /// `mknod(2)` for all types but directories and links; `mode` has the umask applied.
    ///
    /// # Errors
    /// As [`Namespace::mkdir`]; `EPERM` for a device by someone else than root.
    pub fn mknod(
        &self,
        start: &Start<'_>,
        path: &[u8],
        file_type: FileType,
        mode: u32,
        rdev: DeviceId,
    ) -> Result<Path> {
        match file_type {
            FileType::Directory => return Err(Errno::EPERM),
            FileType::Symlink => return Err(Errno::EINVAL),
            FileType::CharDevice | FileType::BlockDevice if !start.creds.is_root() => {
                return Err(Errno::EPERM);
            }
            _ => {}
        }
        self.make(start, path, file_type, mode & 0o7777, rdev)
    }

    fn make(
        &self,
        start: &Start<'_>,
        path: &[u8],
        file_type: FileType,
        permissions: u32,
        rdev: DeviceId,
    ) -> Result<Path> {
        let parent = self.resolve_parent(start, path, LookupFlags::empty())?;
        self.add(
            start,
            &parent,
            file_type == FileType::Directory,
            |dir, name| {
                let new = new_inode(start, dir, file_type, permissions, rdev)?;
                dir.create(name, &new)
            },
        )
    }

    /// `symlink(2)`.
    ///
    /// # Errors
    /// As [`Namespace::mkdir`]; `ENOENT` for an empty target.
    pub fn symlink(&self, start: &Start<'_>, target: &[u8], path: &[u8]) -> Result<Path> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        let parent = self.resolve_parent(start, path, LookupFlags::empty())?;
        self.add(start, &parent, false, |dir, name| {
            let new = new_inode(start, dir, FileType::Symlink, 0o777, DeviceId::default())?;
            dir.symlink(name, target, new.uid, new.gid)
        })
    }

    /// `link(2)`: gives the inode at `target` the further name `path`.
    ///
    /// # Errors
    /// `EEXIST`, `EXDEV`, `EPERM` for a directory, `EMLINK`, and those of resolution.
    pub fn link(&self, start: &Start<'_>, target: &Path, path: &[u8]) -> Result<Path> {
        let parent = self.resolve_parent(start, path, LookupFlags::empty())?;
        let inode = target.inode();
        if !Arc::ptr_eq(parent.dir.mount(), target.mount()) {
            return Err(Errno::EXDEV);
        }
        let made = self.add(start, &parent, false, |dir, name| {
            if inode.file_type() == FileType::Directory {
                return Err(Errno::EPERM);
            }
            dir.link(name, inode)?;
            Ok(inode.clone())
        })?;
        notify::inode_event(inode, Mask::ATTRIB, 0, None);
        Ok(made)
    }

    /// Adds a name: checks, makes the inode by `make`, records it in the dentry cache.
    fn add(
        &self,
        start: &Start<'_>,
        parent: &Parent,
        is_dir: bool,
        make: impl FnOnce(&Arc<dyn Inode>, &[u8]) -> Result<Arc<dyn Inode>>,
    ) -> Result<Path> {
        if parent.kind != ParentKind::Name {
            return Err(Errno::EEXIST);
        }
        let dir = &parent.dir;
        check_name(&parent.name)?;
        let _tree = dir.mount().superblock().tree().lock();
        let existing = dir.dentry().child(&parent.name)?;
        if existing.inode().is_some() {
            return Err(Errno::EEXIST);
        }
        if parent.trailing_slash && !is_dir {
            return Err(Errno::ENOENT);
        }
        dir.mount().check_writable()?;
        may_change(start, dir)?;
        let inode = make(dir.inode(), &parent.name)?;
        let dentry = dir.dentry().created(&parent.name, inode);
        name_event(dir, &dentry, Mask::CREATE, 0, &parent.name);
        Path::new(dir.mount().clone(), dentry).ok_or(Errno::ENOENT)
    }

    /// `unlink(2)`.
    ///
    /// # Errors
    /// `EISDIR` for a directory, `EBUSY` for a mount point, and those of resolution.
    pub fn unlink(&self, start: &Start<'_>, path: &[u8]) -> Result<()> {
        let parent = self.resolve_parent(start, path, LookupFlags::empty())?;
        if parent.kind != ParentKind::Name {
            return Err(Errno::EISDIR);
        }
        let dir = &parent.dir;
        dir.mount().check_writable()?;
        let _tree = dir.mount().superblock().tree().lock();
        let dentry = dir.dentry().child(&parent.name)?;
        let inode = dentry.inode().ok_or(Errno::ENOENT)?;
        let is_dir = inode.file_type() == FileType::Directory;
        if parent.trailing_slash {
            return Err(if is_dir {
                Errno::EISDIR
            } else {
                Errno::ENOTDIR
            });
        }
        may_remove(start, dir, inode)?;
        if is_dir {
            return Err(Errno::EISDIR);
        }
        if dentry.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        dir.inode().unlink(&parent.name, inode)?;
        dir.dentry().removed(&dentry);
        removal_events(dir, &dentry, &parent.name);
        Ok(())
    }

    /// `rmdir(2)`.
    ///
    /// # Errors
    /// `ENOTDIR`, `ENOTEMPTY`, `EBUSY`, `EINVAL` for `.`, and those of resolution.
    pub fn rmdir(&self, start: &Start<'_>, path: &[u8]) -> Result<()> {
        let parent = self.resolve_parent(start, path, LookupFlags::empty())?;
        match parent.kind {
            ParentKind::Name => {}
            ParentKind::DotDot => return Err(Errno::ENOTEMPTY),
            // A path of slashes is the root, which is busy.
            ParentKind::Dot if path.iter().all(|&b| b == b'/') => return Err(Errno::EBUSY),
            ParentKind::Dot => return Err(Errno::EINVAL),
        }
        let dir = &parent.dir;
        dir.mount().check_writable()?;
        let _tree = dir.mount().superblock().tree().lock();
        let dentry = dir.dentry().child(&parent.name)?;
        let inode = dentry.inode().ok_or(Errno::ENOENT)?;
        may_remove(start, dir, inode)?;
        if inode.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if dentry.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        dir.inode().rmdir(&parent.name, inode)?;
        dir.dentry().removed(&dentry);
        removal_events(dir, &dentry, &parent.name);
        Ok(())
    }

    /// `renameat2(2)`; the two paths may start at different directories.
    ///
    /// # Errors
    /// `EXDEV`, `EEXIST`, `ENOTEMPTY`, `EISDIR`, `ENOTDIR`, `EINVAL` for a directory into itself,
    /// `EBUSY`, and those of resolution.
    pub fn rename(
        &self,
        old_start: &Start<'_>,
        old_path: &[u8],
        new_start: &Start<'_>,
        new_path: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.contains(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        let old = self.resolve_parent(old_start, old_path, LookupFlags::empty())?;
        let new = self.resolve_parent(new_start, new_path, LookupFlags::empty())?;
        if !Arc::ptr_eq(old.dir.mount(), new.dir.mount()) {
            return Err(Errno::EXDEV);
        }
        if old.kind != ParentKind::Name {
            return Err(Errno::EBUSY);
        }
        if new.kind != ParentKind::Name {
            return Err(if flags.contains(RenameFlags::NOREPLACE) {
                Errno::EEXIST
            } else {
                Errno::EBUSY
            });
        }
        check_name(&new.name)?;
        old.dir.mount().check_writable()?;
        let _tree = old.dir.mount().superblock().tree().lock();
        let source = old.dir.dentry().child(&old.name)?;
        let target = new.dir.dentry().child(&new.name)?;
        rename_locked(old_start, &old, &source, &new, &target, flags)
    }

    /// `readlink(2)`.
    ///
    /// # Errors
    /// `EINVAL` when it is no link.
    pub fn readlink(&self, path: &Path) -> Result<Vec<u8>> {
        if path.file_type() != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        path.touch_atime();
        path.inode().readlink()
    }

    /// `access(2)`.
    ///
    /// # Errors
    /// `EACCES`, `EROFS`.
    pub fn access(&self, start: &Start<'_>, path: &Path, wanted: Access) -> Result<()> {
        let meta = path.inode().metadata()?;
        if wanted.contains(Access::WRITE)
            && matches!(
                meta.file_type,
                FileType::Regular | FileType::Directory | FileType::Symlink
            )
        {
            path.mount().check_writable()?;
        }
        if wanted.contains(Access::EXEC)
            && meta.file_type == FileType::Regular
            && path.mount().flags().contains(MountFlags::NOEXEC)
        {
            return Err(Errno::EACCES);
        }
        start.creds.check(&meta, wanted)
    }

    /// `chmod(2)`.
    ///
    /// # Errors
    /// `EPERM`, `EROFS`; `EOPNOTSUPP` for a symbolic link.
    pub fn chmod(&self, start: &Start<'_>, path: &Path, mode: u32) -> Result<()> {
        path.mount().check_writable()?;
        if path.file_type() == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        let meta = path.inode().metadata()?;
        if !start.creds.owns(meta.uid) {
            return Err(Errno::EPERM);
        }
        let mut permissions = mode & 0o7777;
        if !start.creds.is_root() && !start.creds.in_group(meta.gid) {
            permissions &= !0o2000;
        }
        change(
            path,
            &SetAttr {
                permissions: Some(permissions),
                ..SetAttr::default()
            },
        )
    }

    /// `chown(2)`: drops setuid and setgid of a regular file, as Linux does for root, too.
    ///
    /// # Errors
    /// `EPERM`, `EROFS`.
    pub fn chown(
        &self,
        start: &Start<'_>,
        path: &Path,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        path.mount().check_writable()?;
        let meta = path.inode().metadata()?;
        if !start.creds.is_root() {
            let owner = start.creds.uid == meta.uid;
            let gives_away = uid.is_some_and(|uid| uid != meta.uid);
            let other_group = gid.is_some_and(|gid| !start.creds.in_group(gid));
            if !owner || gives_away || other_group {
                return Err(Errno::EPERM);
            }
        }
        change(
            path,
            &SetAttr {
                uid,
                gid,
                permissions: without_privileges(&meta),
                ..SetAttr::default()
            },
        )
    }

    /// `utimensat(2)`.
    ///
    /// # Errors
    /// `EPERM`, `EACCES`, `EROFS`.
    pub fn set_times(
        &self,
        start: &Start<'_>,
        path: &Path,
        atime: SetTime,
        mtime: SetTime,
    ) -> Result<()> {
        if (atime, mtime) == (SetTime::Omit, SetTime::Omit) {
            return Ok(());
        }
        path.mount().check_writable()?;
        let meta = path.inode().metadata()?;
        if !start.creds.owns(meta.uid) {
            if (atime, mtime) != (SetTime::Now, SetTime::Now) {
                return Err(Errno::EPERM);
            }
            start.creds.check(&meta, Access::WRITE)?;
        }
        let now = now();
        let value = |time| match time {
            SetTime::At(at) => Some(at),
            SetTime::Now => Some(now),
            SetTime::Omit => None,
        };
        change(
            path,
            &SetAttr {
                atime: value(atime),
                mtime: value(mtime),
                ..SetAttr::default()
            },
        )
    }

    /// `truncate(2)`.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL`, `EACCES`, `EROFS`, `EFBIG`.
    pub fn truncate(&self, start: &Start<'_>, path: &Path, size: u64) -> Result<()> {
        match path.file_type() {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        if size > MAX_FILE_SIZE {
            return Err(Errno::EINVAL);
        }
        path.mount().check_writable()?;
        let meta = path.inode().metadata()?;
        start.creds.check(&meta, Access::WRITE)?;
        truncate_inode(path.inode(), size)?;
        notify::path_event(path, Mask::MODIFY);
        Ok(())
    }

    /// `statfs(2)`.
    ///
    /// # Errors
    /// `EIO`.
    pub fn statfs(&self, path: &Path) -> Result<StatFs> {
        path.mount().fs().statfs()
    }

    /// `getxattr(2)`.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`, `EACCES`.
    pub fn get_xattr(&self, start: &Start<'_>, path: &Path, name: &[u8]) -> Result<Vec<u8>> {
        xattr_access(start, path, name, Access::READ)?;
        path.inode().get_xattr(name)
    }

    /// `setxattr(2)`.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `EOPNOTSUPP`, `EPERM`, `ERANGE`, `ENOSPC`.
    pub fn set_xattr(
        &self,
        start: &Start<'_>,
        path: &Path,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        path.mount().check_writable()?;
        xattr_access(start, path, name, Access::WRITE)?;
        path.inode().set_xattr(name, value, flags)?;
        notify::path_event(path, Mask::ATTRIB);
        Ok(())
    }

    /// `removexattr(2)`.
    ///
    /// # Errors
    /// As [`Namespace::set_xattr`].
    pub fn remove_xattr(&self, start: &Start<'_>, path: &Path, name: &[u8]) -> Result<()> {
        path.mount().check_writable()?;
        xattr_access(start, path, name, Access::WRITE)?;
        path.inode().remove_xattr(name)?;
        notify::path_event(path, Mask::ATTRIB);
        Ok(())
    }
}

/// Sets a regular file's size, dropping setuid bits (do_truncate).
pub(crate) fn truncate_inode(inode: &Arc<dyn Inode>, size: u64) -> Result<()> {
    let meta = inode.metadata()?;
    let now = now();
    inode.set_attr(&SetAttr {
        size: Some(size),
        permissions: without_privileges(&meta),
        mtime: Some(now),
        ctime: Some(now),
        ..SetAttr::default()
    })
}

fn change(path: &Path, attr: &SetAttr) -> Result<()> {
    path.inode().set_attr(&SetAttr {
        ctime: Some(now()),
        ..*attr
    })?;
    notify::path_event(path, Mask::ATTRIB);
    Ok(())
}

/// What a new inode in `dir` starts with: a setgid directory hands on its group (inode(7)).
pub(crate) fn new_inode(
    start: &Start<'_>,
    dir: &Arc<dyn Inode>,
    file_type: FileType,
    permissions: u32,
    rdev: DeviceId,
) -> Result<NewInode> {
    let meta = dir.metadata()?;
    let mut new = NewInode {
        file_type,
        permissions,
        uid: start.creds.uid,
        gid: start.creds.gid,
        rdev,
    };
    if meta.permissions & 0o2000 != 0 {
        new.gid = meta.gid;
        if file_type == FileType::Directory {
            new.permissions |= 0o2000;
        }
    }
    Ok(new)
}

/// A name must fit a directory entry.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > crate::NAME_MAX {
        Err(Errno::ENAMETOOLONG)
    } else {
        Ok(())
    }
}

/// Whether names in `dir` may be changed.
pub(crate) fn may_change(start: &Start<'_>, dir: &Path) -> Result<()> {
    if dir.dentry().is_unlinked() {
        return Err(Errno::ENOENT);
    }
    if start.creds.is_root() {
        return Ok(());
    }
    let meta = dir.inode().metadata()?;
    start.creds.check(&meta, Access::WRITE | Access::EXEC)
}

/// Whether the name of `inode` may be taken out of `dir`: in a sticky directory only by an owner.
fn may_remove(start: &Start<'_>, dir: &Path, inode: &Arc<dyn Inode>) -> Result<()> {
    may_change(start, dir)?;
    if start.creds.is_root() {
        return Ok(());
    }
    let meta = dir.inode().metadata()?;
    let victim = inode.metadata()?;
    if meta.permissions & 0o1000 != 0
        && start.creds.uid != victim.uid
        && start.creds.uid != meta.uid
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

fn rename_locked(
    start: &Start<'_>,
    old: &Parent,
    source: &Arc<Dentry>,
    new: &Parent,
    target: &Arc<Dentry>,
    flags: RenameFlags,
) -> Result<()> {
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let inode = source.inode().ok_or(Errno::ENOENT)?;
    if target.inode().is_some() && flags.contains(RenameFlags::NOREPLACE) {
        return Err(Errno::EEXIST);
    }
    if exchange && target.inode().is_none() {
        return Err(Errno::ENOENT);
    }
    let is_dir = |inode: &Arc<dyn Inode>| inode.file_type() == FileType::Directory;
    if !is_dir(inode) {
        let other_is_dir = exchange && target.is_dir();
        if old.trailing_slash || (new.trailing_slash && !other_is_dir) {
            return Err(Errno::ENOTDIR);
        }
    }
    if source.is_ancestor_of(new.dir.dentry()) {
        return Err(Errno::EINVAL);
    }
    if target.inode().is_some() && target.is_ancestor_of(old.dir.dentry()) {
        return Err(if exchange {
            Errno::EINVAL
        } else {
            Errno::ENOTEMPTY
        });
    }
    may_remove(start, &old.dir, inode)?;
    match target.inode() {
        Some(replaced) => {
            // Two names of one inode: nothing to do, says POSIX.
            if same_inode(inode, replaced) {
                return Ok(());
            }
            may_remove(start, &new.dir, replaced)?;
            if !exchange {
                match (is_dir(inode), is_dir(replaced)) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
            }
        }
        None => may_change(start, &new.dir)?,
    }
    if source.is_mount_point() || target.is_mount_point() {
        return Err(Errno::EBUSY);
    }
    old.dir
        .inode()
        .rename(&old.name, new.dir.inode(), &new.name, target.inode(), flags)?;
    let cookie = notify::new_cookie();
    if exchange {
        old.dir.dentry().exchanged(source, new.dir.dentry(), target);
        name_event(&new.dir, target, Mask::MOVED_FROM, cookie, &new.name);
        name_event(&old.dir, target, Mask::MOVED_TO, cookie, &old.name);
    } else {
        if target.inode().is_some() {
            target.set_unlinked(true);
        }
        old.dir.dentry().moved(source, new.dir.dentry(), &new.name);
    }
    name_event(&old.dir, source, Mask::MOVED_FROM, cookie, &old.name);
    name_event(&new.dir, source, Mask::MOVED_TO, cookie, &new.name);
    notify::inode_event(inode, Mask::MOVE_SELF, 0, None);
    if let Some(replaced) = target.inode().filter(|_| !exchange) {
        last_name_event(replaced);
    }
    Ok(())
}

/// Tells the watchers of a directory about one of its names.
pub(crate) fn name_event(dir: &Path, dentry: &Dentry, mask: Mask, cookie: u32, name: &[u8]) {
    if !notify::active() {
        return;
    }
    let mask = if dentry.is_dir() {
        mask | Mask::ISDIR
    } else {
        mask
    };
    notify::inode_event(dir.inode(), mask, cookie, Some(name));
}

fn removal_events(dir: &Path, dentry: &Dentry, name: &[u8]) {
    if !notify::active() {
        return;
    }
    if let Some(inode) = dentry.inode() {
        last_name_event(inode);
    }
    name_event(dir, dentry, Mask::DELETE, 0, name);
}

fn last_name_event(inode: &Arc<dyn Inode>) {
    if !notify::active() {
        return;
    }
    let gone = |meta: Metadata| meta.nlink == 0 || meta.file_type == FileType::Directory;
    // A directory has no link count to watch fall: only its end is told.
    if inode.file_type() != FileType::Directory {
        notify::inode_event(inode, Mask::ATTRIB, 0, None);
    }
    if inode.metadata().is_ok_and(gone) {
        notify::inode_event(inode, Mask::DELETE_SELF, 0, None);
    }
}

/// The name-space rules of xattr(7).
fn xattr_access(start: &Start<'_>, path: &Path, name: &[u8], wanted: Access) -> Result<()> {
    if name.starts_with(b"trusted.") && !start.creds.is_root() {
        return Err(if wanted == Access::READ {
            Errno::ENODATA
        } else {
            Errno::EPERM
        });
    }
    if name.starts_with(b"user.") {
        if !matches!(path.file_type(), FileType::Regular | FileType::Directory) {
            return Err(if wanted == Access::READ {
                Errno::ENODATA
            } else {
                Errno::EPERM
            });
        }
        start.creds.check(&path.inode().metadata()?, wanted)?;
    }
    Ok(())
}
