//! `open(2)`: from a path and flags to an open file description.

use alloc::sync::Arc;

use errno::{Errno, Result};
use machine::sync::Once;

use crate::{
    Access, DeviceId, File, FileType, Inode, LookupFlags, MountFlags, Namespace, OpenFile,
    OpenFlags, Path, Start,
    directory::Directory,
    namespace::{Last, Walker},
    notify::{self, Mask},
    ops::{check_name, may_change, name_event, new_inode, truncate_inode},
    regular::RegularFile,
    special,
};

/// Opens the named pipe `inode`; the `linux` room has the pipes. May wait for the other end.
pub type FifoOpener = fn(inode: &Arc<dyn Inode>, flags: OpenFlags) -> Result<Arc<dyn File>>;

static FIFO: Once<FifoOpener> = Once::new();

/// Says how named pipes are opened. The first one stays.
pub fn set_fifo_opener(opener: FifoOpener) {
    let _ = FIFO.set(opener);
}

impl Namespace {
    /// `openat2(2)`. `mode` are the permissions of a file that is made, umask applied; `how` may
    /// hold the `RESOLVE_*` part of the look-up flags.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(
        &self,
        start: &Start<'_>,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
        how: LookupFlags,
    ) -> Result<Arc<OpenFile>> {
        if flags.contains(OpenFlags::PATH) {
            return self.open_path(start, path, flags, how);
        }
        if flags.bits() & 0o3 == 0o3 {
            return Err(Errno::EINVAL);
        }
        if flags.is_tmpfile() {
            return self.open_unnamed(start, path, flags, mode, how);
        }
        if flags.contains(OpenFlags::TMPFILE_BIT) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(OpenFlags::CREAT) {
            if flags.contains(OpenFlags::DIRECTORY) {
                return Err(Errno::EINVAL);
            }
            let (found, made) = self.find_or_make(start, path, flags, mode, how)?;
            return self.open_found(start, &found, flags, made);
        }
        let found = self.resolve(start, path, how | lookup_flags(flags))?;
        self.open_found(start, &found, flags, false)
    }

    /// `O_PATH`: a descriptor that stands for a place only.
    fn open_path(
        &self,
        start: &Start<'_>,
        path: &[u8],
        flags: OpenFlags,
        how: LookupFlags,
    ) -> Result<Arc<OpenFile>> {
        let found = self.resolve(start, path, how | lookup_flags(flags))?;
        let kept = flags & (OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW);
        let file = Arc::new(special::PathOnly::new(found.inode().clone()));
        Ok(OpenFile::new(file, kept, Some(found)))
    }

    /// `O_TMPFILE` in the directory `path`.
    fn open_unnamed(
        &self,
        start: &Start<'_>,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
        how: LookupFlags,
    ) -> Result<Arc<OpenFile>> {
        if !flags.can_write() {
            return Err(Errno::EINVAL);
        }
        let how = how | LookupFlags::FOLLOW | LookupFlags::DIRECTORY;
        let dir = self.resolve(start, path, how)?;
        dir.mount().check_writable()?;
        may_change(start, &dir)?;
        let new = new_inode(
            start,
            dir.inode(),
            FileType::Regular,
            mode & 0o7777,
            DeviceId::default(),
        )?;
        let inode = dir.inode().create_unnamed(&new)?;
        let ino = inode.metadata()?.ino;
        let dentry = dir.dentry().unnamed(inode, ino);
        let place = Path::new(dir.mount().clone(), dentry).ok_or(Errno::ENOENT)?;
        let file = file_of(&place, flags)?;
        Ok(OpenFile::new(file, flags, Some(place)))
    }

    /// The file at `path`, made if it does not exist; says whether it was.
    fn find_or_make(
        &self,
        start: &Start<'_>,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
        how: LookupFlags,
    ) -> Result<(Path, bool)> {
        let mut walker = Walker::new(self, start, path, how)?;
        loop {
            let (last, trailing) = walker.walk_to_parent()?;
            let name = match last {
                Last::Name(name) => name,
                Last::Dot | Last::DotDot if flags.contains(OpenFlags::EXCL) => {
                    return Err(Errno::EEXIST);
                }
                Last::Dot | Last::DotDot => return Err(Errno::EISDIR),
            };
            if trailing {
                return Err(Errno::EISDIR);
            }
            check_name(walker.text(name.clone()))?;
            let found = match walker.step(name.clone())? {
                Some(found) => found,
                None => match self.make_file(start, &walker, walker.text(name), mode)? {
                    Made::New(path) => return Ok((path, true)),
                    Made::Raced(path) => path,
                },
            };
            if flags.contains(OpenFlags::EXCL) {
                return Err(Errno::EEXIST);
            }
            if found.file_type() == FileType::Symlink && !flags.contains(OpenFlags::NOFOLLOW) {
                walker.follow(&found, b"")?;
                // A link of /proc leads to an object, not to a name.
                if let Some(target) = walker.arrived() {
                    return Ok((target, false));
                }
                continue;
            }
            return Ok((found, false));
        }
    }

    fn make_file(
        &self,
        start: &Start<'_>,
        walker: &Walker<'_>,
        name: &[u8],
        mode: u32,
    ) -> Result<Made> {
        let dir = &walker.at;
        if walker.flags().contains(LookupFlags::CACHED) {
            return Err(Errno::EAGAIN);
        }
        let _tree = dir.mount().superblock().tree().lock();
        let existing = dir.dentry().child(name)?;
        if let Some(path) = Path::new(dir.mount().clone(), existing) {
            return Ok(Made::Raced(path));
        }
        dir.mount().check_writable()?;
        may_change(start, dir)?;
        let new = new_inode(
            start,
            dir.inode(),
            FileType::Regular,
            mode & 0o7777,
            DeviceId::default(),
        )?;
        let inode = dir.inode().create(name, &new)?;
        let dentry = dir.dentry().created(name, inode);
        name_event(dir, &dentry, Mask::CREATE, 0, name);
        Path::new(dir.mount().clone(), dentry)
            .map(Made::New)
            .ok_or(Errno::ENOENT)
    }

    /// Opens an inode that exists: `may_open` of Linux, then the file.
    fn open_found(
        &self,
        start: &Start<'_>,
        path: &Path,
        flags: OpenFlags,
        made: bool,
    ) -> Result<Arc<OpenFile>> {
        let inode = path.inode();
        match inode.file_type() {
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Socket => return Err(Errno::ENXIO),
            FileType::Directory => {
                let changes = OpenFlags::CREAT | OpenFlags::TRUNC;
                if flags.can_write() || flags.intersects(changes) {
                    return Err(Errno::EISDIR);
                }
            }
            FileType::CharDevice | FileType::BlockDevice => {
                if path.mount().flags().contains(MountFlags::NODEV) {
                    return Err(Errno::EACCES);
                }
            }
            FileType::Regular => {
                if flags.can_write() || flags.contains(OpenFlags::TRUNC) {
                    path.mount().check_writable()?;
                }
            }
            FileType::Fifo => {}
        }
        if !made {
            self.check_open(start, inode, flags)?;
        }
        let file = file_of(path, flags)?;
        if flags.contains(OpenFlags::TRUNC) && !made && inode.file_type() == FileType::Regular {
            truncate_inode(inode, 0)?;
            notify::path_event(path, Mask::MODIFY);
        }
        notify::path_event(path, Mask::OPEN);
        Ok(OpenFile::new(file, flags, Some(path.clone())))
    }

    fn check_open(
        &self,
        start: &Start<'_>,
        inode: &Arc<dyn Inode>,
        flags: OpenFlags,
    ) -> Result<()> {
        inode.permission(start.creds, flags)?;
        if start.creds.is_root() {
            return Ok(());
        }
        let meta = inode.metadata()?;
        let mut wanted = Access::empty();
        if flags.can_read() {
            wanted |= Access::READ;
        }
        if flags.can_write() || flags.contains(OpenFlags::TRUNC) {
            wanted |= Access::WRITE;
        }
        start.creds.check(&meta, wanted)?;
        if flags.contains(OpenFlags::NOATIME) && !start.creds.owns(meta.uid) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}

enum Made {
    New(Path),
    Raced(Path),
}

fn lookup_flags(flags: OpenFlags) -> LookupFlags {
    let mut lookup = LookupFlags::empty();
    if !flags.contains(OpenFlags::NOFOLLOW) {
        lookup |= LookupFlags::FOLLOW;
    }
    if flags.contains(OpenFlags::DIRECTORY) {
        lookup |= LookupFlags::DIRECTORY;
    }
    lookup
}

/// The file that a descriptor of the inode at `path` works on.
fn file_of(path: &Path, flags: OpenFlags) -> Result<Arc<dyn File>> {
    let inode = path.inode();
    if let Some(file) = inode.open(flags)? {
        return Ok(file);
    }
    match inode.file_type() {
        FileType::Regular => Ok(RegularFile::open(path.clone(), flags)?),
        FileType::Directory => Ok(Directory::open(path.clone())),
        FileType::CharDevice => special::open_char_device(inode.metadata()?.rdev, flags),
        FileType::BlockDevice => Err(Errno::ENXIO),
        FileType::Fifo => match FIFO.get() {
            Some(open) => open(inode, flags),
            None => Err(Errno::ENXIO),
        },
        FileType::Symlink => Err(Errno::ELOOP),
        FileType::Socket => Err(Errno::ENXIO),
    }
}
