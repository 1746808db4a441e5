//! The mounted file system and its public calls.

use crate::{
    Attrs, BlockDevice, DirEntry, Error, Extent, Ino, MountOptions, NewInode, RenameMode, Result,
    StatFs, Timestamp, XattrMode,
};
use alloc::vec::Vec;

/// A mounted file system.
pub struct Ext4<D> {
    device: D,
}

const LATER: Error = Error::Unsupported {
    what: "not in this build yet",
};

#[allow(unused_variables)]
impl<D: BlockDevice> Ext4<D> {
    /// Mounts the volume on `device`. Replays the journal and cleans up orphans where needed.
    pub fn mount(device: D, options: MountOptions) -> Result<Self> {
        Err(LATER)
    }

    /// Writes everything out and marks the volume clean. Further calls are allowed and make it dirty again.
    pub fn unmount(&mut self) -> Result<()> {
        Err(LATER)
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Block size in bytes.
    pub fn block_size(&self) -> u32 {
        4096
    }

    /// Usage of the volume.
    pub fn statfs(&self) -> StatFs {
        unreachable!()
    }

    /// Commits the running transaction: all changes so far are durable when this returns.
    pub fn sync(&mut self) -> Result<()> {
        Err(LATER)
    }

    /// Makes one inode durable: commits only if it changed in the running transaction, otherwise flushes the device.
    /// With `data_only`, changes of times alone do not count (`fdatasync`).
    pub fn fsync(&mut self, ino: Ino, data_only: bool) -> Result<()> {
        Err(LATER)
    }

    /// The inode that `name` stands for in `dir`. `.` and `..` work.
    pub fn lookup(&mut self, dir: Ino, name: &[u8]) -> Result<Ino> {
        Err(LATER)
    }

    /// The attributes of an inode. `NotFound` if it is free.
    pub fn attrs(&mut self, ino: Ino) -> Result<Attrs> {
        Err(LATER)
    }

    /// Sets permission bits (the low 12 bits of the mode) and the change time.
    pub fn set_mode(&mut self, ino: Ino, perm: u16) -> Result<()> {
        Err(LATER)
    }

    /// Sets owner and group and the change time.
    pub fn set_owner(&mut self, ino: Ino, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        Err(LATER)
    }

    /// Sets the given times and, unless given, the change time to now.
    pub fn set_times(
        &mut self,
        ino: Ino,
        atime: Option<Timestamp>,
        mtime: Option<Timestamp>,
        ctime: Option<Timestamp>,
    ) -> Result<()> {
        Err(LATER)
    }

    /// Sets the user-settable `FS_*_FL` flags (immutable, append-only, nodump, noatime, sync, dirsync).
    pub fn set_flags(&mut self, ino: Ino, flags: u32) -> Result<()> {
        Err(LATER)
    }

    /// Makes a file of any kind but a symbolic link under `name` in `dir`.
    pub fn create(&mut self, dir: Ino, name: &[u8], new: &NewInode) -> Result<Attrs> {
        Err(LATER)
    }

    /// Makes a regular file without a name (`O_TMPFILE`), on the orphan list until linked or released.
    pub fn create_unnamed(&mut self, dir: Ino, new: &NewInode) -> Result<Attrs> {
        Err(LATER)
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
        Err(LATER)
    }

    /// The target of a symbolic link.
    pub fn readlink(&mut self, ino: Ino) -> Result<Vec<u8>> {
        Err(LATER)
    }

    /// Gives `ino` (not a directory) another name.
    pub fn link(&mut self, dir: Ino, name: &[u8], ino: Ino) -> Result<()> {
        Err(LATER)
    }

    /// Removes a name that is not a directory. Returns the inode and the links left. With none left it stays, on the
    /// orphan list, until [`Ext4::release`].
    pub fn unlink(&mut self, dir: Ino, name: &[u8]) -> Result<(Ino, u32)> {
        Err(LATER)
    }

    /// Removes an empty directory. Its inode stays until [`Ext4::release`].
    pub fn rmdir(&mut self, dir: Ino, name: &[u8]) -> Result<Ino> {
        Err(LATER)
    }

    /// Frees an inode without links that nobody uses any more. Does nothing if it has links.
    pub fn release(&mut self, ino: Ino) -> Result<()> {
        Err(LATER)
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
        Err(LATER)
    }

    /// Hands the entries of `dir` from `cookie` (0 is the start) to `each` until that returns false. Cookies are
    /// positions in hash order, so other entries may come and go in between.
    pub fn readdir(
        &mut self,
        dir: Ino,
        cookie: u64,
        each: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        Err(LATER)
    }

    /// What lies at block `first` of a file: one run, cut to `count` blocks. Holes are runs too.
    pub fn map(&mut self, ino: Ino, first: u32, count: u32) -> Result<Extent> {
        Err(LATER)
    }

    /// Makes sure that block `first` has space: returns the run there, cut to `count` blocks, allocating an unwritten
    /// one if it was a hole. May return fewer blocks than asked; call again for the rest. The file size stays.
    pub fn allocate(&mut self, ino: Ino, first: u32, count: u32) -> Result<Extent> {
        Err(LATER)
    }

    /// The data of these blocks is on its way to the device (the write call has returned): unwritten extents become
    /// data, and the file size grows to `size` if that is larger.
    pub fn mark_written(
        &mut self,
        ino: Ino,
        first: u32,
        count: u32,
        size: Option<u64>,
    ) -> Result<()> {
        Err(LATER)
    }

    /// Sets the size without touching blocks (growing, or after the caller's own clean-up).
    pub fn set_size(&mut self, ino: Ino, size: u64) -> Result<()> {
        Err(LATER)
    }

    /// Sets the size; when shrinking frees the blocks behind it and zeroes the rest of the last block on the device.
    pub fn truncate(&mut self, ino: Ino, size: u64) -> Result<()> {
        Err(LATER)
    }

    /// Frees the whole blocks in the byte range and zeroes the partial ones. The size stays.
    pub fn punch_hole(&mut self, ino: Ino, offset: u64, len: u64) -> Result<()> {
        Err(LATER)
    }

    /// Allocates unwritten blocks for the holes in the byte range; the size grows unless `keep_size`.
    pub fn fallocate(&mut self, ino: Ino, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        Err(LATER)
    }

    /// Reads file data. Returns the number of bytes, short at the end of the file.
    pub fn read_at(&mut self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize> {
        Err(LATER)
    }

    /// Writes file data, growing the file as needed. Sets modification and change time.
    pub fn write_at(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        Err(LATER)
    }

    /// The value of an extended attribute, by its full name (`user.x`).
    pub fn get_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        Err(LATER)
    }

    /// Sets an extended attribute.
    pub fn set_xattr(
        &mut self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<()> {
        Err(LATER)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<()> {
        Err(LATER)
    }

    /// The full names of all extended attributes, each ended by a zero byte, as `listxattr`.
    pub fn list_xattrs(&mut self, ino: Ino) -> Result<Vec<u8>> {
        Err(LATER)
    }
}
