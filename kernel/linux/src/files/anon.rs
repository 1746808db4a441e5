//! What files without a name in a file system answer to `fstat(2)` and `/proc/self/fd`: pipes,
//! sockets and the anonymous inodes of eventfd, epoll and their like.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use fs::{DeviceId, File, FileType, Metadata, OpenFile, Timestamp};

use super::{handles, timerfd};

/// Which pseudo file system Linux keeps such an inode in; the numbers are its `st_dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// `sockfs`.
    Sockets,
    /// `pipefs`.
    Pipes,
    /// `anon_inodefs`: one inode for all, without a file type in `st_mode`.
    Anonymous,
}

/// Identity of such a file.
#[derive(Debug)]
pub struct AnonInode {
    home: Home,
    ino: u64,
    permissions: u32,
    created: Timestamp,
}

static NEXT_INO: AtomicU64 = AtomicU64::new(1025);
/// The inode that all anonymous inodes share.
const SHARED_INO: u64 = 1024;

impl AnonInode {
    /// A new identity; anonymous inodes share one.
    pub fn new(home: Home) -> Self {
        AnonInode {
            home,
            ino: match home {
                Home::Anonymous => SHARED_INO,
                _ => NEXT_INO.fetch_add(1, Ordering::Relaxed),
            },
            permissions: match home {
                Home::Sockets => 0o777,
                _ => 0o600,
            },
            created: Timestamp::from_ns(machine::time::wall_ns()),
        }
    }

    /// The inode number.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// What `fstat(2)` tells. Anonymous inodes have no type on Linux; see [`is_typeless`].
    pub fn metadata(&self) -> Metadata {
        Metadata {
            dev: DeviceId::new(
                0,
                match self.home {
                    Home::Sockets => 8,
                    Home::Pipes => 14,
                    Home::Anonymous => 15,
                },
            ),
            ino: self.ino,
            file_type: match self.home {
                Home::Sockets => FileType::Socket,
                Home::Pipes => FileType::Fifo,
                Home::Anonymous => FileType::Regular,
            },
            permissions: self.permissions,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: DeviceId::new(0, 0),
            size: 0,
            block_size: 4096,
            blocks: 0,
            atime: self.created,
            mtime: self.created,
            ctime: self.created,
            btime: None,
        }
    }
}

/// The name of an anonymous inode's kind, for those that have one: `[eventfd]`.
fn anonymous_kind(file: &dyn File) -> Option<&'static str> {
    let any = file.as_any();
    if any.is::<handles::EventFile>() {
        Some("[eventfd]")
    } else if any.is::<handles::EpollFile>() {
        Some("[eventpoll]")
    } else if any.is::<timerfd::TimerFile>() {
        Some("[timerfd]")
    } else if any.is::<super::signalfd::SignalFile>() {
        Some("[signalfd]")
    } else if any.is::<super::inotify::InotifyFile>() {
        Some("inotify")
    } else {
        None
    }
}

/// Whether `st_mode` has no file type, as Linux's anonymous inodes have none.
pub fn is_typeless(file: &dyn File) -> bool {
    anonymous_kind(file).is_some()
}

/// What the link in `/proc/self/fd` says for a file without a path.
pub fn link_text(file: &OpenFile) -> Vec<u8> {
    if let Some(kind) = anonymous_kind(file.file().as_ref()) {
        return alloc::format!("anon_inode:{kind}").into_bytes();
    }
    match file.metadata() {
        Ok(meta) => match meta.file_type {
            FileType::Fifo => alloc::format!("pipe:[{}]", meta.ino).into_bytes(),
            FileType::Socket => alloc::format!("socket:[{}]", meta.ino).into_bytes(),
            _ => alloc::format!("anon_inode:[{}]", meta.ino).into_bytes(),
        },
        Err(_) => b"anon_inode:[unknown]".to_vec(),
    }
}
