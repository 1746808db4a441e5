//! The file-system room: path names, the dentry cache, the page cache, and the file systems that
//! are mounted.
//!
//! - [`Namespace`] resolves paths and does what system calls ask of names; [`OpenFile`] is what a
//!   descriptor points to; [`File`] what can stand behind one; [`Inode`] and [`FileSystem`] what a
//!   file system offers.
//! - [`cache`] keeps file contents; `read`, `write`, `mmap` and `sendfile` see the same pages.
//! - `ext4`, `tmpfs`, `devfs`, `procfs`, `sysfs`: the file systems.
//!
//! The descriptor table, the layout of `struct stat`, pipes, sockets and terminals are in the
//! `linux` room; the format of ext4 on disk is in `lib/ext4`.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
// The library below the adapter of the same name.
extern crate ext4 as libext4;

pub mod cache;
pub mod dentry;
pub mod devfs;
pub mod directory;
pub mod ext4;
mod file;
mod inode;
mod mount;
mod namespace;
pub mod notify;
mod open;
mod ops;
pub mod procfs;
pub mod pseudo;
pub mod regular;
pub mod special;
pub mod sysfs;
#[cfg(test)]
mod testing;
pub mod time;
pub mod tmpfs;
mod types;

pub use cache::PageCache;
pub use dentry::Dentry;
pub use file::{File, MmapSource, OpenFile, Whence, clamp_count};
pub use inode::{Emit, FileSystem, Inode, LinkTarget, NewInode, same_inode};
pub use mount::{Mount, Path, Superblock, without_privileges};
pub use namespace::{LookupFlags, Namespace, Parent, ParentKind, Start};
pub use open::{FifoOpener, set_fifo_opener};
pub use ops::SetTime;
pub use types::*;
