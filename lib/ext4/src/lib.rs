//! The ext4 file system, read and write, over a block device that the caller supplies.
//!
//! One library for two users: the kernel (`kernel/fs`), which keeps file data in its own page cache and asks here for
//! mappings, and the tool `ops`, which writes images. Here live the on-disk format, the block and inode allocators,
//! extent trees, hashed directories, extended attributes, the orphan list and the jbd2 journal. Not here: path names,
//! permission checks, dentry and page caches, atime policy, clearing of setuid bits: those belong to the VFS above.
//!
//! # The model
//!
//! [`Ext4`] is one mounted file system. Its calls take `&mut self` and do their device I/O before they return; a
//! kernel puts it in one sleeping mutex. Inodes are named by number, file names are raw bytes.
//!
//! Each changing call is atomic in memory: when it fails, whatever it had changed is put back. Changes collect in one
//! running transaction and reach the disk with [`Ext4::sync`], [`Ext4::fsync`], [`Ext4::unmount`] or when the
//! transaction has grown to what the journal can take.
//!
//! # File data
//!
//! The caller moves file data itself, straight between its cache and the device:
//!
//! - to read, [`Ext4::map`] says where blocks lie; holes and unwritten extents read as zeros;
//! - to write blocks that have a written mapping, write them in place;
//! - to write others, [`Ext4::allocate`] gives a physical run as an *unwritten* extent, the caller writes the data, then
//!   [`Ext4::mark_written`] turns the extent into data and moves the file size in the same transaction.
//!
//! So the metadata that shows data can only reach the journal after the data was sent to the device, and every commit
//! flushes the device before its commit record: this is ordered mode without a callback, and no crash shows stale
//! disk contents. [`Ext4::read_at`] and [`Ext4::write_at`] do the same steps for callers without a cache.
//!
//! `fsync` of a file is then: write its dirty pages as above, then call [`Ext4::fsync`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod balloc;
mod bitmap;
mod cache;
mod crc;
mod device;
mod dir;
mod error;
mod extent;
mod file;
mod fs;
mod group;
#[cfg(feature = "std")]
mod host;
mod ialloc;
mod inode;
mod journal;
mod le;
mod mkfs;
mod mount;
mod namei;
mod sums;
mod superblock;
mod time;
mod types;
mod xattr;

pub use device::{BlockDevice, IoError};
pub use error::{Error, Result};
pub use fs::Ext4;
#[cfg(feature = "std")]
pub use host::{FileDevice, MemDevice};
pub use mkfs::{MkfsOptions, mkfs};
pub use time::Timestamp;
pub use types::{
    Attrs, Clock, DirEntry, Extent, FileKind, Ino, MountOptions, NewInode, ROOT_INO, RenameMode,
    StatFs, XattrMode,
};
