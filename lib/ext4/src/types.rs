//! The types that callers exchange with the file system. No behaviour lives here.

use crate::Timestamp;
use alloc::boxed::Box;

/// An inode number. 0 is never valid.
pub type Ino = u32;

/// The inode of the root directory.
pub const ROOT_INO: Ino = 2;

/// What a file is, with the device number where it is a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device with its number, as [`Attrs::rdev`].
    CharDevice(u32),
    /// A block device with its number, as [`Attrs::rdev`].
    BlockDevice(u32),
}

impl FileKind {
    /// The type bits of `st_mode`.
    pub const fn mode_bits(self) -> u16 {
        match self {
            FileKind::Fifo => 0o010000,
            FileKind::CharDevice(_) => 0o020000,
            FileKind::Directory => 0o040000,
            FileKind::BlockDevice(_) => 0o060000,
            FileKind::Regular => 0o100000,
            FileKind::Symlink => 0o120000,
            FileKind::Socket => 0o140000,
        }
    }

    /// The `d_type` of `getdents64`.
    pub const fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }

    /// The file-type byte of a directory entry on disk.
    pub(crate) const fn entry_type(self) -> u8 {
        match self {
            FileKind::Regular => 1,
            FileKind::Directory => 2,
            FileKind::CharDevice(_) => 3,
            FileKind::BlockDevice(_) => 4,
            FileKind::Fifo => 5,
            FileKind::Socket => 6,
            FileKind::Symlink => 7,
        }
    }

    /// The kind that the type bits of a mode mean; device numbers are `rdev`.
    pub(crate) const fn from_mode(mode: u16, rdev: u32) -> Option<FileKind> {
        Some(match mode & 0o170000 {
            0o010000 => FileKind::Fifo,
            0o020000 => FileKind::CharDevice(rdev),
            0o040000 => FileKind::Directory,
            0o060000 => FileKind::BlockDevice(rdev),
            0o100000 => FileKind::Regular,
            0o120000 => FileKind::Symlink,
            0o140000 => FileKind::Socket,
            _ => return None,
        })
    }
}

/// The attributes of an inode, as `stat` wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attrs {
    /// The inode number.
    pub ino: Ino,
    /// Type and permission bits, as `st_mode`.
    pub mode: u16,
    /// What the file is.
    pub kind: FileKind,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Hard links. A directory with too many subdirectories to count says 1.
    pub nlink: u32,
    /// Space used, in units of 512 bytes, as `st_blocks`.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the data.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub crtime: Timestamp,
    /// The `FS_*_FL` flags on disk (immutable, append, extents, ...).
    pub flags: u32,
    /// Generation number, different for each reuse of the inode number.
    pub generation: u32,
    /// Device number, in the kernel's 32-bit form: minor bits 0 to 7, major bits 8 to 19, minor bits 8 to 19 from bit
    /// 20 (the low 32 bits of glibc's `dev_t` for majors below 4,096).
    pub rdev: u32,
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The inode it names.
    pub ino: Ino,
    /// The `d_type` of `getdents64` (0 when the volume does not record it).
    pub dirent_type: u8,
    /// The name.
    pub name: &'a [u8],
    /// The cookie (`d_off`) with which to go on after this entry. Always below 2^63.
    pub next: u64,
}

/// A run of blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block of the file.
    pub logical: u32,
    /// Where it lies on the device, in blocks; `None` is a hole.
    pub physical: Option<u64>,
    /// Number of blocks, at least 1.
    pub len: u32,
    /// Space is allocated but reads as zeros until [`crate::Ext4::mark_written`].
    pub unwritten: bool,
}

/// What a new inode starts with. Times are the clock's; [`crate::Ext4::set_times`] changes them.
#[derive(Clone, Copy, Debug)]
pub struct NewInode {
    /// What it is; for symbolic links use [`crate::Ext4::symlink`].
    pub kind: FileKind,
    /// Permission bits (the low 12 bits of the mode).
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// How [`crate::Ext4::rename`] treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it, as `rename(2)`.
    Replace,
    /// Fail with `Exists`, as `RENAME_NOREPLACE`.
    NoReplace,
    /// Exchange the two, as `RENAME_EXCHANGE`.
    Exchange,
}

/// How [`crate::Ext4::set_xattr`] treats an existing attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Create or replace.
    Any,
    /// Fail with `Exists` if it is there, as `XATTR_CREATE`.
    Create,
    /// Fail with `NoData` if it is not there, as `XATTR_REPLACE`.
    Replace,
}

/// Usage of the file system, as `statfs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Block size in bytes.
    pub block_size: u32,
    /// Blocks that files can use in all (without the file system's own).
    pub blocks: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Free blocks without those reserved for the superuser.
    pub available_blocks: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// The UUID of the volume.
    pub uuid: [u8; 16],
    /// The volume's label, padded with zeros.
    pub label: [u8; 16],
}

/// Where the file system gets the time from.
pub type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// How to mount.
pub struct MountOptions {
    /// Never write to the device. A journal that needs recovery is replayed in memory.
    pub read_only: bool,
    /// The time for changed inodes.
    pub clock: Clock,
    /// Seed for inode generation numbers.
    pub seed: u64,
    /// How many metadata blocks to keep in memory (changed ones that wait for the journal come on top).
    pub cache_blocks: usize,
    /// For building images: do not journal, and lay out directories apart from file data. A crash before
    /// [`crate::Ext4::unmount`] leaves a broken volume.
    pub bulk: bool,
}

impl MountOptions {
    /// Read-write, journalled, with a cache of 1,024 blocks.
    pub fn read_write(clock: Clock, seed: u64) -> MountOptions {
        MountOptions {
            read_only: false,
            clock,
            seed,
            cache_blocks: 1024,
            bulk: false,
        }
    }

    /// Read-only; the clock is never asked.
    pub fn read_only() -> MountOptions {
        MountOptions {
            read_only: true,
            clock: Box::new(Timestamp::default),
            seed: 0,
            cache_blocks: 1024,
            bulk: false,
        }
    }

    /// For building an image: every inode gets the time `now` until [`crate::Ext4::set_times`] says otherwise.
    pub fn bulk(now: Timestamp) -> MountOptions {
        MountOptions {
            read_only: false,
            clock: Box::new(move || now),
            seed: 0x9e37_79b9_7f4a_7c15,
            cache_blocks: 65_536,
            bulk: true,
        }
    }
}
