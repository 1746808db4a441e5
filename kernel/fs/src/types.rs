//! The plain values that cross the border of this room: what a file is (`Metadata`), how it is to
//! be opened (`OpenFlags`), what is to be changed (`SetAttr`), who asks (`Credentials`).
//!
//! No behaviour beyond conversions lives here, and no layout of a user structure: `struct stat` and
//! its like belong to the `linux` room.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use bitflags::bitflags;
use errno::{Errno, Result};

/// Longest name of one directory entry in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest path a system call takes, with its ending zero byte (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;
/// Most symbolic links followed in one resolution (path_resolution(7)).
pub const SYMLINK_LIMIT: usize = 40;
/// Most names an inode of the in-memory file systems can have.
pub const LINK_MAX: u32 = 65_000;
/// Largest file offset (`MAX_LFS_FILESIZE` of a 64-bit Linux).
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64;
/// Most bytes one `read(2)` or `write(2)` moves (`MAX_RW_COUNT`).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// What an inode is: the `S_IFMT` part of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A byte sequence.
    Regular,
    /// A list of names.
    Directory,
    /// A name for another path.
    Symlink,
    /// A device read and written as a stream.
    CharDevice,
    /// A device of blocks.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// The name of a UNIX socket.
    Socket,
}

impl FileType {
    /// The `S_IFMT` bits (inode(7)).
    pub const fn mode_bits(self) -> u32 {
        match self {
            FileType::Fifo => 0o010_000,
            FileType::CharDevice => 0o020_000,
            FileType::Directory => 0o040_000,
            FileType::BlockDevice => 0o060_000,
            FileType::Regular => 0o100_000,
            FileType::Symlink => 0o120_000,
            FileType::Socket => 0o140_000,
        }
    }

    /// The type that the `S_IFMT` bits of `mode` say.
    pub const fn from_mode(mode: u32) -> Option<FileType> {
        Some(match mode & 0o170_000 {
            0o010_000 => FileType::Fifo,
            0o020_000 => FileType::CharDevice,
            0o040_000 => FileType::Directory,
            0o060_000 => FileType::BlockDevice,
            0o100_000 => FileType::Regular,
            0o120_000 => FileType::Symlink,
            0o140_000 => FileType::Socket,
            _ => return None,
        })
    }

    /// The `d_type` of a directory entry (getdents(2)).
    pub const fn d_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }
}

/// A device number, as `st_dev` and `st_rdev` hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// The driver.
    pub major: u32,
    /// The unit.
    pub minor: u32,
}

impl DeviceId {
    /// The device `major:minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        DeviceId { major, minor }
    }

    /// The 64-bit form of `struct stat` (makedev(3)).
    pub const fn to_u64(self) -> u64 {
        let (major, minor) = (self.major as u64, self.minor as u64);
        ((major & 0xffff_f000) << 32)
            | ((major & 0xfff) << 8)
            | ((minor & 0xffff_ff00) << 12)
            | (minor & 0xff)
    }

    /// The mirror of [`DeviceId::to_u64`].
    pub const fn from_u64(dev: u64) -> Self {
        DeviceId {
            major: (((dev >> 32) & 0xffff_f000) | ((dev >> 8) & 0xfff)) as u32,
            minor: (((dev >> 12) & 0xffff_ff00) | (dev & 0xff)) as u32,
        }
    }
}

/// A number for a file system without a device, as `st_dev` shows it: major 0, as on Linux.
pub(crate) fn anonymous_device() -> DeviceId {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    DeviceId::new(0, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A moment on the wall clock: seconds since 1970 (may be negative) and nanoseconds below 10⁹.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 ..= 999 999 999.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The moment `nanoseconds` after 1970.
    pub const fn from_ns(nanoseconds: u64) -> Self {
        Timestamp {
            seconds: (nanoseconds / 1_000_000_000) as i64,
            nanoseconds: (nanoseconds % 1_000_000_000) as u32,
        }
    }
}

/// What `statx(2)` tells of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The file system's device (`st_dev`).
    pub dev: DeviceId,
    /// Inode number (`st_ino`), unique within `dev`.
    pub ino: u64,
    /// What it is.
    pub file_type: FileType,
    /// The permission bits with setuid, setgid and sticky: the low twelve bits of `st_mode`.
    pub permissions: u32,
    /// Number of names (`st_nlink`).
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Which device a device node stands for (`st_rdev`).
    pub rdev: DeviceId,
    /// Bytes.
    pub size: u64,
    /// Preferred I/O size (`st_blksize`).
    pub block_size: u32,
    /// Allocated, in units of 512 bytes (`st_blocks`).
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation, where the file system knows it.
    pub btime: Option<Timestamp>,
}

impl Metadata {
    /// `st_mode`.
    pub const fn mode(&self) -> u32 {
        self.file_type.mode_bits() | (self.permissions & 0o7777)
    }
}

/// Which attributes to change; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// New permission bits (twelve).
    pub permissions: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size: truncate or extend with zeros.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<Timestamp>,
    /// New modification time.
    pub mtime: Option<Timestamp>,
    /// New change time; set by the callers in this room, not by the program.
    pub ctime: Option<Timestamp>,
}

/// One entry that [`crate::Inode::readdir`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name, without `/` and zero bytes.
    pub name: &'a [u8],
    /// Inode number.
    pub ino: u64,
    /// What it is.
    pub file_type: FileType,
    /// Where the next call goes on after this entry (`d_off`).
    pub next: u64,
}

/// What `statfs(2)` tells of a file system. Sizes in units of `block_size`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// The magic number (`f_type`).
    pub magic: u64,
    /// Unit of the sizes.
    pub block_size: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks for an ordinary user.
    pub available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub free_files: u64,
    /// Identity of the file system (`f_fsid`).
    pub id: u64,
    /// Longest name.
    pub name_max: u64,
}

bitflags! {
    /// The flags of `open(2)`, with x86-64's values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// Open for writing only.
        const WRONLY = 0o1;
        /// Open for both.
        const RDWR = 0o2;
        /// Create if missing.
        const CREAT = 0o100;
        /// With `CREAT`: fail if it exists.
        const EXCL = 0o200;
        /// Do not become the controlling terminal.
        const NOCTTY = 0o400;
        /// Cut to length zero.
        const TRUNC = 0o1000;
        /// Every write goes to the end.
        const APPEND = 0o2000;
        /// Do not wait.
        const NONBLOCK = 0o4000;
        /// Data reaches the disk before a write returns.
        const DSYNC = 0o10000;
        /// Signal-driven I/O.
        const ASYNC = 0o20000;
        /// Bypass the page cache.
        const DIRECT = 0o40000;
        /// Accepted and meaningless on a 64-bit kernel.
        const LARGEFILE = 0o100000;
        /// Must be a directory.
        const DIRECTORY = 0o200000;
        /// Do not follow a symbolic link in the last component.
        const NOFOLLOW = 0o400000;
        /// Do not update the access time.
        const NOATIME = 0o1000000;
        /// Close on exec; kept by the descriptor table, not by the open file.
        const CLOEXEC = 0o2000000;
        /// With `DSYNC`: metadata too.
        const SYNC_BIT = 0o4000000;
        /// `O_SYNC`.
        const SYNC = 0o4010000;
        /// Only a place in the tree.
        const PATH = 0o10000000;
        /// The bit that tells `O_TMPFILE` from `O_DIRECTORY`.
        const TMPFILE_BIT = 0o20000000;
        /// `O_TMPFILE`: a file without a name in the given directory.
        const TMPFILE = 0o20200000;
    }
}

impl OpenFlags {
    /// The bits `fcntl(F_SETFL)` can change.
    pub const SETTABLE: OpenFlags = OpenFlags::APPEND
        .union(OpenFlags::NONBLOCK)
        .union(OpenFlags::ASYNC)
        .union(OpenFlags::DIRECT)
        .union(OpenFlags::NOATIME);

    /// Whether the access mode lets one read.
    pub const fn can_read(self) -> bool {
        self.bits() & 0o3 != 0o1 && !self.contains(OpenFlags::PATH) && self.bits() & 0o3 != 0o3
    }

    /// Whether the access mode lets one write.
    pub const fn can_write(self) -> bool {
        matches!(self.bits() & 0o3, 0o1 | 0o2) && !self.contains(OpenFlags::PATH)
    }

    /// Whether `O_TMPFILE` is asked for.
    pub const fn is_tmpfile(self) -> bool {
        self.contains(OpenFlags::TMPFILE)
    }
}

bitflags! {
    /// The permissions that `access(2)` asks for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u32 {
        /// Execute a file or search a directory.
        const EXEC = 1;
        /// Write.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }
}

/// Who asks: the ids that permission checks use (credentials(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// File-system user id.
    pub uid: u32,
    /// File-system group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Credentials {
    /// The superuser, as which the program starts.
    pub const ROOT: Credentials = Credentials {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };

    /// Whether permission bits do not bind (`CAP_DAC_OVERRIDE`, `CAP_FOWNER`).
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether `gid` is one of the groups.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Whether the owner's rights over an inode of `uid` are held.
    pub fn owns(&self, uid: u32) -> bool {
        self.is_root() || self.uid == uid
    }

    /// Checks `wanted` against the permission bits (path_resolution(7)): root may do all, but
    /// executes a file only if someone may.
    ///
    /// # Errors
    /// `EACCES`.
    pub fn check(&self, meta: &Metadata, wanted: Access) -> Result<()> {
        if self.is_root() {
            let someone_executes = meta.permissions & 0o111 != 0;
            return if !wanted.contains(Access::EXEC)
                || meta.file_type == FileType::Directory
                || someone_executes
            {
                Ok(())
            } else {
                Err(Errno::EACCES)
            };
        }
        let bits = if self.uid == meta.uid {
            meta.permissions >> 6
        } else if self.in_group(meta.gid) {
            meta.permissions >> 3
        } else {
            meta.permissions
        };
        if wanted.bits() & !bits == 0 {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }
}

bitflags! {
    /// How `rename` is to treat its target (renameat2(2)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// Fail with `EEXIST` instead of replacing.
        const NOREPLACE = 1;
        /// Swap the two names.
        const EXCHANGE = 2;
    }
}

bitflags! {
    /// What `fallocate(2)` is to do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FallocateMode: u32 {
        /// Do not change the size.
        const KEEP_SIZE = 1;
        /// Make a hole.
        const PUNCH_HOLE = 2;
        /// Take a range out and close up.
        const COLLAPSE_RANGE = 8;
        /// Make a range read as zeros.
        const ZERO_RANGE = 16;
        /// Open a gap.
        const INSERT_RANGE = 32;
    }
}

bitflags! {
    /// How `setxattr(2)` treats an existing value.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct XattrFlags: u32 {
        /// It must not exist.
        const CREATE = 1;
        /// It must exist.
        const REPLACE = 2;
    }
}

bitflags! {
    /// Options of a mount (mount(2)).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MountFlags: u64 {
        /// No writing through this mount.
        const RDONLY = 1;
        /// setuid bits do not count.
        const NOSUID = 2;
        /// Device nodes do not open.
        const NODEV = 4;
        /// Nothing executes.
        const NOEXEC = 8;
        /// Writes are synchronous.
        const SYNCHRONOUS = 16;
        /// Access times stay.
        const NOATIME = 1024;
        /// Access times of directories stay.
        const NODIRATIME = 2048;
        /// Access times change when they lie before the modification or a day back.
        const RELATIME = 1 << 21;
        /// Access times always change.
        const STRICTATIME = 1 << 24;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_those_of_makedev() {
        assert_eq!(DeviceId::new(1, 3).to_u64(), 0x103);
        let big = DeviceId::new(0x12345, 0xabcde);
        assert_eq!(DeviceId::from_u64(big.to_u64()), big);
    }

    #[test]
    fn open_modes() {
        assert!(OpenFlags::empty().can_read() && !OpenFlags::empty().can_write());
        assert!(!OpenFlags::WRONLY.can_read() && OpenFlags::WRONLY.can_write());
        assert!(OpenFlags::RDWR.can_read() && OpenFlags::RDWR.can_write());
        assert!(!OpenFlags::PATH.can_read());
        assert!(!OpenFlags::DIRECTORY.is_tmpfile());
    }

    #[test]
    fn root_executes_only_what_someone_executes() {
        let mut meta = crate::testing::metadata(FileType::Regular, 0o644);
        assert!(Credentials::ROOT.check(&meta, Access::WRITE).is_ok());
        assert_eq!(
            Credentials::ROOT.check(&meta, Access::EXEC),
            Err(Errno::EACCES)
        );
        meta.permissions = 0o645;
        assert!(Credentials::ROOT.check(&meta, Access::EXEC).is_ok());
        let user = Credentials {
            uid: 7,
            gid: 7,
            groups: Vec::new(),
        };
        assert!(user.check(&meta, Access::READ | Access::EXEC).is_ok());
        assert_eq!(user.check(&meta, Access::WRITE), Err(Errno::EACCES));
    }
}
