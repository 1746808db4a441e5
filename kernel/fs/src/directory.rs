//! A directory as an open file: `getdents64(2)` with `.` and `..` added to what the file system
//! tells.

use alloc::sync::Arc;
use core::any::Any;

use errno::{Errno, Result};
use iobuf::Sink;
use machine::sync::SpinLock;

use crate::{
    DirEntry, FallocateMode, File, FileType, Inode, Metadata, OpenFlags, Path, Whence, inode::Emit,
};

/// File-system cookies are shown to the program with this added, behind `.` (0) and `..` (1).
const SHIFT: u64 = 2;

/// An open directory.
pub struct Directory {
    path: Path,
    /// The cookie behind the last entry, and the count of changes at which it was that: every
    /// listing ends with a call that finds nothing more, which then costs nothing.
    end: SpinLock<Option<(u64, u64)>>,
}

impl Directory {
    pub(crate) fn open(path: Path) -> Arc<dyn File> {
        Arc::new(Directory {
            path,
            end: SpinLock::new(None),
        })
    }
}

impl File for Directory {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, _: u64, _: &mut dyn Sink, _: OpenFlags) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn seek(&self, current: u64, whence: Whence, offset: i64) -> Result<u64> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => current,
            _ => return Err(Errno::EINVAL),
        };
        base.checked_add_signed(offset)
            .filter(|&at| i64::try_from(at).is_ok())
            .ok_or(Errno::EINVAL)
    }

    fn metadata(&self) -> Result<Metadata> {
        self.path.inode().metadata()
    }

    fn inode(&self) -> Option<&Arc<dyn Inode>> {
        Some(self.path.inode())
    }

    fn readdir(&self, cookie: u64, emit: Emit<'_>) -> Result<u64> {
        let dentry = self.path.dentry();
        if dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        let mut cookie = cookie;
        if cookie < SHIFT {
            self.path.touch_atime();
            let here = self.path.inode().metadata()?.ino;
            while cookie < SHIFT {
                let (name, ino) = if cookie == 0 {
                    (&b"."[..], here)
                } else {
                    (&b".."[..], self.parent_ino(here))
                };
                let entry = DirEntry {
                    name,
                    ino,
                    file_type: FileType::Directory,
                    next: cookie + 1,
                };
                if !emit(&entry) {
                    return Ok(cookie);
                }
                cookie += 1;
            }
        }
        let changes = dentry.changes();
        if *self.end.lock() == Some((cookie, changes)) {
            return Ok(cookie);
        }
        let mut full = false;
        let mut shifted = |entry: &DirEntry<'_>| {
            full = !emit(&DirEntry {
                next: entry.next.saturating_add(SHIFT),
                ..*entry
            });
            !full
        };
        let inode = self.path.inode();
        let next = inode.readdir(cookie - SHIFT, &mut shifted)?;
        let next = next.saturating_add(SHIFT);
        // Directories that change by themselves are asked each time.
        if !full && inode.cacheable(b"", None) {
            *self.end.lock() = Some((next, changes));
        }
        Ok(next)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.path.inode().sync(data_only)
    }

    fn fallocate(&self, _: FallocateMode, _: u64, _: u64) -> Result<()> {
        Err(Errno::EISDIR)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Directory {
    /// The inode number that `..` shows: that of the parent over mounts, or the root's own.
    fn parent_ino(&self, here: u64) -> u64 {
        let mut at = self.path.clone();
        while Arc::ptr_eq(at.dentry(), at.mount().root()) {
            match at.mount().point() {
                Some(point) => at = point,
                None => return here,
            }
        }
        at.dentry()
            .parent()
            .and_then(|parent| parent.inode()?.metadata().ok())
            .map_or(here, |meta| meta.ino)
    }
}
