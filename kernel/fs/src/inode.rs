//! What a mounted file system offers: the [`FileSystem`] and [`Inode`] traits.
//!
//! Every method has a default that answers as Linux does for an inode type or a file system that
//! lacks the operation, so that an implementation spells out only what it can do. Path names,
//! permissions, caches and notifications are handled by the callers in this room.

use alloc::{sync::Arc, vec::Vec};
use core::any::Any;

use errno::{Errno, Result};

use crate::{
    Credentials, DirEntry, FallocateMode, File, FileType, Metadata, OpenFlags, PageCache, Path,
    RenameFlags, SetAttr, StatFs, XattrFlags,
};

/// A file system that can be mounted.
pub trait FileSystem: Send + Sync {
    /// The name of its kind, as in /proc/filesystems (`ext4`).
    fn name(&self) -> &'static str;

    /// What it is mounted from, as in the first column of /proc/mounts.
    fn source(&self) -> Vec<u8> {
        self.name().as_bytes().to_vec()
    }

    /// Options of its own, as in the fourth column of /proc/mounts, without those of the mount.
    fn options(&self) -> Vec<u8> {
        Vec::new()
    }

    /// The root directory.
    fn root(&self) -> Arc<dyn Inode>;

    /// Usage.
    ///
    /// # Errors
    /// `EIO`.
    fn statfs(&self) -> Result<StatFs>;

    /// Whether nothing can be written.
    fn read_only(&self) -> bool {
        false
    }

    /// Changes between read-only and read-write (`MS_REMOUNT`).
    ///
    /// # Errors
    /// `EINVAL` when it cannot; `EROFS` when the device cannot be written.
    fn set_read_only(&self, read_only: bool) -> Result<()> {
        if read_only == self.read_only() {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// Makes everything written so far durable (`syncfs(2)`).
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Writes everything and leaves the device clean. Called when the last mount goes, and at the
    /// machine's end.
    ///
    /// # Errors
    /// As [`FileSystem::sync`].
    fn unmount(&self) -> Result<()> {
        self.sync()
    }
}

/// What a symbolic link leads to.
pub enum LinkTarget {
    /// A path, resolved as if it stood in the link's place.
    Path(Vec<u8>),
    /// An object without the detour of a name: the links of /proc/*/fd, exe, cwd, root.
    Jump(Path),
}

/// What a new inode starts with.
#[derive(Clone, Copy, Debug)]
pub struct NewInode {
    /// What it is; symbolic links have a call of their own.
    pub file_type: FileType,
    /// The twelve permission bits, umask applied.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a device node.
    pub rdev: crate::DeviceId,
}

/// Where [`Inode::readdir`] puts entries: `false` means full, and the entry was not taken.
pub type Emit<'a> = &'a mut dyn FnMut(&DirEntry<'_>) -> bool;

/// A file, directory or other object of a file system.
///
/// Names are raw bytes of 1 to [`crate::NAME_MAX`] without `/`; `.` and `..` never arrive here.
/// Calls that change a directory are serialised for it by the caller.
pub trait Inode: Send + Sync + 'static {
    /// The file system it belongs to.
    fn file_system(&self) -> Arc<dyn FileSystem>;

    /// What it is; never changes.
    fn file_type(&self) -> FileType;

    /// All that `stat(2)` tells.
    ///
    /// # Errors
    /// `EIO`.
    fn metadata(&self) -> Result<Metadata>;

    /// Changes attributes. Permission has been checked; the size is never given for other types
    /// than regular files.
    ///
    /// # Errors
    /// `EPERM`, `EROFS`, `EFBIG`, `ENOSPC`, `EIO`.
    fn set_attr(&self, attr: &SetAttr) -> Result<()> {
        let _ = attr;
        Err(Errno::EPERM)
    }

    /// Notes a read access now, if the file system keeps access times.
    fn touch_atime(&self) {}

    /// The inode that `name` stands for in this directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EIO`.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let _ = name;
        Err(Errno::ENOTDIR)
    }

    /// Whether the dentry cache may keep that `name` stands for `found`. Directories whose contents
    /// change by themselves (/proc) say no.
    fn cacheable(&self, name: &[u8], found: Option<&Arc<dyn Inode>>) -> bool {
        let _ = (name, found);
        true
    }

    /// Tells the entries of this directory, without `.` and `..`, from `cookie` on (0 is the
    /// start), until they end or `emit` answers false. Returns the cookie to go on with.
    ///
    /// # Errors
    /// `ENOTDIR`, `EIO`.
    fn readdir(&self, cookie: u64, emit: Emit<'_>) -> Result<u64> {
        let _ = (cookie, emit);
        Err(Errno::ENOTDIR)
    }

    /// Makes a file, directory, device node, pipe or socket under `name`.
    ///
    /// # Errors
    /// `EEXIST`, `ENOSPC`, `EROFS`, `EMLINK`, `EPERM` where the file system makes none.
    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        let _ = (name, new);
        Err(Errno::EPERM)
    }

    /// Makes a regular file without a name (`O_TMPFILE`).
    ///
    /// # Errors
    /// As [`Inode::create`]; `EOPNOTSUPP` where the file system has none.
    fn create_unnamed(&self, new: &NewInode) -> Result<Arc<dyn Inode>> {
        let _ = new;
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a symbolic link to `target` under `name`.
    ///
    /// # Errors
    /// As [`Inode::create`]; `ENAMETOOLONG`.
    fn symlink(&self, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Arc<dyn Inode>> {
        let _ = (name, target, uid, gid);
        Err(Errno::EPERM)
    }

    /// Gives `target`, an inode of the same file system and no directory, another name.
    ///
    /// # Errors
    /// As [`Inode::create`].
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let _ = (name, target);
        Err(Errno::EPERM)
    }

    /// Removes `name`, which stands for `target`, no directory. The inode lives on while in use.
    ///
    /// # Errors
    /// `ENOENT`, `EPERM`, `EROFS`, `EIO`.
    fn unlink(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let _ = (name, target);
        Err(Errno::EPERM)
    }

    /// Removes `name`, which stands for the empty directory `target`.
    ///
    /// # Errors
    /// `ENOTEMPTY`, and as [`Inode::unlink`].
    fn rmdir(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let _ = (name, target);
        Err(Errno::EPERM)
    }

    /// Moves `name` to `new_name` in `new_dir`, a directory of the same file system. `replaced` is
    /// what `new_name` stood for. Types, loops and flags have been checked.
    ///
    /// # Errors
    /// `ENOTEMPTY`, `ENOSPC`, and as [`Inode::unlink`]; `EINVAL` for flags it has not.
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
    ) -> Result<()> {
        let _ = (name, new_dir, new_name, replaced, flags);
        Err(Errno::EPERM)
    }

    /// The text of a symbolic link (`readlink(2)`).
    ///
    /// # Errors
    /// `EINVAL` for other types.
    fn readlink(&self) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Where following this symbolic link leads.
    ///
    /// # Errors
    /// As [`Inode::readlink`].
    fn follow(&self) -> Result<LinkTarget> {
        self.readlink().map(LinkTarget::Path)
    }

    /// What a descriptor of this inode works on. Regular files and directories need not implement
    /// it: `None` stands for the generic file over [`Inode::page_cache`] or [`Inode::readdir`].
    /// Pipes and sockets by name, and device nodes of a disk file system, are found elsewhere.
    ///
    /// # Errors
    /// `ENXIO`, `EACCES`, or as the device says.
    fn open(&self, flags: OpenFlags) -> Result<Option<Arc<dyn File>>> {
        let _ = flags;
        Ok(None)
    }

    /// The cached contents of a regular file.
    ///
    /// # Errors
    /// `EIO`; `EINVAL` for inodes without contents.
    fn page_cache(&self) -> Result<Arc<PageCache>> {
        Err(Errno::EINVAL)
    }

    /// Allocates, punches or zeroes a byte range (`fallocate(2)`).
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENOSPC`, `EFBIG`.
    fn fallocate(&self, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        let _ = (mode, offset, len);
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes the inode durable: contents, then metadata; with `data_only` not the times.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`.
    fn sync(&self, data_only: bool) -> Result<()> {
        let _ = data_only;
        Ok(())
    }

    /// The value of an extended attribute by its full name.
    ///
    /// # Errors
    /// `ENODATA`; `EOPNOTSUPP` where the file system has none.
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let _ = name;
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `ENOSPC`, `ERANGE`, `EOPNOTSUPP`.
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let _ = (name, value, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`.
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let _ = name;
        Err(Errno::EOPNOTSUPP)
    }

    /// The full names of the extended attributes, each ended by a zero byte.
    ///
    /// # Errors
    /// `EOPNOTSUPP`.
    fn list_xattrs(&self) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Further permission checks of a file system's own (`O_RDWR` of a write-protected /proc node
    /// is not a matter of mode bits).
    ///
    /// # Errors
    /// `EACCES`, `EPERM`.
    fn permission(&self, creds: &Credentials, flags: OpenFlags) -> Result<()> {
        let _ = (creds, flags);
        Ok(())
    }

    /// The implementation, for its own file system to recognise.
    fn as_any(&self) -> &dyn Any;
}

/// Whether two handles stand for the same inode object.
pub fn same_inode(a: &Arc<dyn Inode>, b: &Arc<dyn Inode>) -> bool {
    core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}
