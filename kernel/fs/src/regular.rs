//! A regular file as an open file: reads and writes through the page cache, with the rules of
//! `read(2)` and `write(2)` that no file system should have to repeat.

use alloc::sync::Arc;
use core::any::Any;

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use machine::mem::Frame;

use crate::{
    FallocateMode, File, Inode, MAX_FILE_SIZE, Metadata, MmapSource, OpenFlags, PageCache, Path,
    Whence, cache::Readahead, mount::drop_privileges, ops::truncate_inode,
};

/// An open regular file.
pub struct RegularFile {
    path: Path,
    cache: Arc<PageCache>,
    readahead: Readahead,
}

impl RegularFile {
    pub(crate) fn open(path: Path, flags: OpenFlags) -> Result<Arc<dyn File>> {
        // O_DIRECT asks to bypass the cache, which this file system does not offer.
        if flags.contains(OpenFlags::DIRECT) {
            return Err(Errno::EINVAL);
        }
        let cache = path.inode().page_cache()?;
        Ok(Arc::new(RegularFile {
            path,
            cache,
            readahead: Readahead::new(),
        }))
    }

    /// The cached contents.
    pub fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }
}

impl File for RegularFile {
    fn seekable(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let done = self.cache.read(offset, sink, &self.readahead)?;
        if !flags.contains(OpenFlags::NOATIME) {
            self.path.touch_atime();
        }
        Ok(done)
    }

    fn read_frames(
        &self,
        offset: u64,
        len: usize,
        flags: OpenFlags,
        take: &mut dyn FnMut(Frame, usize, usize) -> Result<usize>,
    ) -> Result<usize> {
        let done = self.cache.read_frames(offset, len, &self.readahead, take)?;
        if done > 0 && !flags.contains(OpenFlags::NOATIME) {
            self.path.touch_atime();
        }
        Ok(done)
    }

    fn write_at(
        &self,
        offset: u64,
        source: &mut dyn Source,
        flags: OpenFlags,
    ) -> Result<(usize, u64)> {
        if source.remaining() == 0 {
            return Ok((0, offset));
        }
        let (done, end) = {
            let writer = self.cache.writer();
            let offset = if flags.contains(OpenFlags::APPEND) {
                self.cache.size()
            } else {
                offset
            };
            if offset >= MAX_FILE_SIZE {
                return Err(Errno::EFBIG);
            }
            drop_privileges(self.path.inode())?;
            let done = writer.write(offset, source)?;
            (done, offset + done as u64)
        };
        if flags.intersects(OpenFlags::DSYNC | OpenFlags::SYNC_BIT) {
            self.path
                .inode()
                .sync(!flags.contains(OpenFlags::SYNC_BIT))?;
        }
        crate::cache::throttle();
        Ok((done, end))
    }

    fn seek(&self, current: u64, whence: Whence, offset: i64) -> Result<u64> {
        let size = self.cache.size();
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => current,
            Whence::End => size,
            Whence::Data | Whence::Hole => {
                let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                if at >= size {
                    return Err(Errno::ENXIO);
                }
                return self.cache.seek_data(at, whence == Whence::Data);
            }
        };
        base.checked_add_signed(offset)
            .filter(|&at| at <= MAX_FILE_SIZE)
            .ok_or(Errno::EINVAL)
    }

    fn mmap_source(&self) -> Result<MmapSource> {
        Ok(MmapSource::Cache(self.cache.clone()))
    }

    fn metadata(&self) -> Result<Metadata> {
        self.path.inode().metadata()
    }

    fn inode(&self) -> Option<&Arc<dyn Inode>> {
        Some(self.path.inode())
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.path.inode().sync(data_only)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        truncate_inode(self.path.inode(), size)
    }

    fn fallocate(&self, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        self.path.mount().check_writable()?;
        drop_privileges(self.path.inode())?;
        self.path.inode().fallocate(mode, offset, len)
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.cache.prefetch(offset, len);
    }

    fn flags_changed(&self, flags: OpenFlags) -> Result<()> {
        if flags.contains(OpenFlags::DIRECT) {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
