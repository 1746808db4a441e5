//! tmpfs: a file system that lives in the page cache and the heap. Used for /tmp, /dev, /dev/shm
//! and the files of `memfd_create(2)`.
//!
//! Here: the file system and its accounting. [`node`]: inodes; [`dir`]: the table of a directory;
//! [`mod@memfd`]: unnamed files and their seals.

mod dir;
mod memfd;
mod node;

use alloc::{format, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use errno::{Errno, Result};
use machine::{mem::PAGE_SIZE, sync::SpinLock};

use crate::{DeviceId, FileSystem, FileType, Inode, NAME_MAX, StatFs, types::anonymous_device};

pub use memfd::{Seals, add_seals, memfd, seals};
pub use node::TmpInode;
pub(crate) use node::dead_directory;

use node::Data;

/// `TMPFS_MAGIC` of statfs(2).
const MAGIC: u64 = 0x0102_1994;

/// Limits and place of a [`TmpFs`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The name shown in /proc/mounts: `tmpfs` or `devtmpfs`.
    pub name: &'static str,
    /// Most pages of file contents; `None`: half of memory.
    pub max_pages: Option<u64>,
    /// Most inodes; `None`: half the number of pages in memory.
    pub max_inodes: Option<u64>,
    /// Permissions of the root directory.
    pub permissions: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "tmpfs",
            max_pages: None,
            max_inodes: None,
            permissions: 0o1777,
        }
    }
}

/// A file system in memory.
pub struct TmpFs {
    name: &'static str,
    dev: DeviceId,
    max_pages: u64,
    max_inodes: u64,
    pages: AtomicU64,
    inodes: AtomicU64,
    next_ino: AtomicU64,
    /// Holds the tree, which holds the file system, until the unmount.
    root: SpinLock<Option<Arc<TmpInode>>>,
    me: alloc::sync::Weak<TmpFs>,
}

impl TmpFs {
    /// An empty file system.
    pub fn new(options: &Options) -> Arc<TmpFs> {
        let half = machine::mem::stats().total as u64 / 2;
        let fs = Arc::new_cyclic(|me| TmpFs {
            name: options.name,
            dev: anonymous_device(),
            max_pages: options.max_pages.unwrap_or(half),
            max_inodes: options.max_inodes.unwrap_or(half),
            pages: AtomicU64::new(0),
            inodes: AtomicU64::new(0),
            next_ino: AtomicU64::new(1),
            root: SpinLock::new(None),
            me: me.clone(),
        });
        let new = crate::NewInode {
            file_type: FileType::Directory,
            permissions: options.permissions,
            uid: 0,
            gid: 0,
            rdev: DeviceId::default(),
        };
        // The root is not counted against the limit, so this cannot fail.
        let root = TmpInode::make(Data::new(fs.clone(), &new, true));
        *fs.root.lock() = Some(root);
        fs
    }

    fn arc(&self) -> Result<Arc<TmpFs>> {
        self.me.upgrade().ok_or(Errno::EIO)
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts an inode.
    fn take_inode(&self) -> Result<()> {
        let before = self.inodes.fetch_add(1, Ordering::Relaxed);
        if before >= self.max_inodes {
            self.inodes.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn give_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a page of contents.
    fn take_page(&self) -> Result<()> {
        let before = self.pages.fetch_add(1, Ordering::Relaxed);
        if before >= self.max_pages {
            self.pages.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn give_pages(&self, pages: u64) {
        self.pages.fetch_sub(pages, Ordering::Relaxed);
    }

    /// Pages of file contents in use.
    pub fn used_pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn options(&self) -> Vec<u8> {
        format!("size={}k", self.max_pages * (PAGE_SIZE as u64 / 1024)).into_bytes()
    }

    fn root(&self) -> Arc<dyn Inode> {
        match self.root.lock().clone() {
            Some(root) => root,
            // Unmounted: an empty directory that nothing reaches.
            None => dead_directory(),
        }
    }

    fn statfs(&self) -> Result<StatFs> {
        let free = self.max_pages.saturating_sub(self.used_pages());
        let inodes = self.inodes.load(Ordering::Relaxed);
        Ok(StatFs {
            magic: MAGIC,
            block_size: PAGE_SIZE as u64,
            blocks: self.max_pages,
            free,
            available: free,
            files: self.max_inodes,
            free_files: self.max_inodes.saturating_sub(inodes),
            id: self.dev.to_u64(),
            name_max: NAME_MAX as u64,
        })
    }

    fn unmount(&self) -> Result<()> {
        let root = self.root.lock().take();
        if let Some(root) = root {
            root.tear_down();
        }
        Ok(())
    }
}
