//! What a descriptor stands for: the [`File`] trait with Linux's answers for what a kind of file
//! cannot do, and [`OpenFile`], the open file description with its flags and its offset.
//!
//! The files of this room are in `regular` and `directory`; pipes, sockets, terminals and the like
//! implement the trait in the `linux` room. The descriptor table is there, too.

use alloc::{boxed::Box, sync::Arc};
use core::{
    any::Any,
    sync::atomic::{AtomicU32, Ordering},
};

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use machine::{mem::Frame, sync::Once};
use sched::{
    Mutex,
    poll::{Events, Pollee},
};

use crate::{
    FallocateMode, Inode, MAX_FILE_SIZE, MAX_RW_COUNT, Metadata, OpenFlags, PageCache, Path,
    inode::Emit,
    notify::{self, Mask},
};

/// What a mapping of a file shows.
pub enum MmapSource {
    /// The pages of this cache.
    Cache(Arc<PageCache>),
    /// Zeros of one's own: /dev/zero. A shared mapping of it is shared anonymous memory.
    Zero,
}

/// How `lseek(2)` reads its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// From the start.
    Set,
    /// From the current offset.
    Current,
    /// From the end.
    End,
    /// The next data at or behind it.
    Data,
    /// The next hole at or behind it.
    Hole,
}

/// What a descriptor works on. All methods may sleep.
///
/// A file is either *seekable* (regular files, directories, generated text): then `read_at` and
/// `write_at` do the work and [`OpenFile`] keeps the offset; or a *stream*: then `read` and `write`.
/// Whether the descriptor was opened for reading or writing has been checked.
pub trait File: Send + Sync {
    /// Whether it has an offset.
    fn seekable(&self) -> bool {
        false
    }

    /// Reads from a stream. Waits if there is nothing, unless `flags` has `NONBLOCK`.
    ///
    /// # Errors
    /// `EINVAL` by default: not a thing to read; `EAGAIN`, `ERESTARTSYS`, ...
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        let _ = (sink, flags);
        Err(Errno::EINVAL)
    }

    /// Writes to a stream.
    ///
    /// # Errors
    /// `EINVAL` by default; `EAGAIN`, `EPIPE`, ...
    fn write(&self, source: &mut dyn Source, flags: OpenFlags) -> Result<usize> {
        let _ = (source, flags);
        Err(Errno::EINVAL)
    }

    /// Reads at an offset.
    ///
    /// # Errors
    /// `EINVAL` by default.
    fn read_at(&self, offset: u64, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        let _ = (offset, sink, flags);
        Err(Errno::EINVAL)
    }

    /// Reads without a copy: hands out the pages that `len` bytes from `offset` on lie in, as far as the file reaches:
    /// a frame, where in it they begin, how many they are. `take` answers how many it took.
    ///
    /// # Errors
    /// `ENODEV` by default: there are no pages to hand out. `EIO`, `ENOMEM`, and what `take` says.
    fn read_frames(
        &self,
        offset: u64,
        len: usize,
        flags: OpenFlags,
        take: &mut dyn FnMut(Frame, usize, usize) -> Result<usize>,
    ) -> Result<usize> {
        let _ = (offset, len, flags, take);
        Err(Errno::ENODEV)
    }

    /// Writes at an offset. With `APPEND` in `flags` the offset is ignored and the data goes to the
    /// end. Returns the bytes written and the offset behind the last of them.
    ///
    /// # Errors
    /// `EINVAL` by default; `ENOSPC`, `EFBIG`, `EROFS`, `EIO`.
    fn write_at(
        &self,
        offset: u64,
        source: &mut dyn Source,
        flags: OpenFlags,
    ) -> Result<(usize, u64)> {
        let _ = (offset, source, flags);
        Err(Errno::EINVAL)
    }

    /// Computes a new offset from the current one. The default knows the size by
    /// [`File::metadata`] and takes the file for one piece of data.
    ///
    /// # Errors
    /// `EINVAL` for an offset outside 0 ..= 2⁶³-1; `ENXIO` for data behind the end.
    fn seek(&self, current: u64, whence: Whence, offset: i64) -> Result<u64> {
        let size = |file: &Self| file.metadata().map(|meta| meta.size);
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => current,
            Whence::End => size(self)?,
            Whence::Data | Whence::Hole => {
                let size = size(self)?;
                let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                if at >= size {
                    return Err(Errno::ENXIO);
                }
                return Ok(if whence == Whence::Data { at } else { size });
            }
        };
        base.checked_add_signed(offset)
            .filter(|&at| at <= MAX_FILE_SIZE)
            .ok_or(Errno::EINVAL)
    }

    /// What is possible now without waiting.
    fn poll(&self) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }

    /// Where to wait for [`File::poll`] to change. `None`: it never does, and `epoll_ctl(2)`
    /// refuses the descriptor with `EPERM`.
    fn pollee(&self) -> Option<&Pollee> {
        None
    }

    /// A device's own request. `arg` is the program's third argument as it came.
    ///
    /// # Errors
    /// `ENOTTY` by default.
    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        let _ = (request, arg);
        Err(Errno::ENOTTY)
    }

    /// What `mmap(2)` maps.
    ///
    /// # Errors
    /// `ENODEV` by default.
    fn mmap_source(&self) -> Result<MmapSource> {
        Err(Errno::ENODEV)
    }

    /// What `fstat(2)` tells.
    ///
    /// # Errors
    /// `EIO`.
    fn metadata(&self) -> Result<Metadata>;

    /// The inode, for files that have one in a file system.
    fn inode(&self) -> Option<&Arc<dyn Inode>> {
        None
    }

    /// Tells directory entries from the position `cookie` on, `.` and `..` included, until `emit`
    /// answers false or they end. Returns the new position.
    ///
    /// # Errors
    /// `ENOTDIR` by default.
    fn readdir(&self, cookie: u64, emit: Emit<'_>) -> Result<u64> {
        let _ = (cookie, emit);
        Err(Errno::ENOTDIR)
    }

    /// Called for each `close(2)` of a descriptor, when others may still be open.
    ///
    /// # Errors
    /// What `close(2)` is to report.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// `fsync(2)`, or with `data_only` `fdatasync(2)`.
    ///
    /// # Errors
    /// `EINVAL` by default: not a thing to sync.
    fn sync(&self, data_only: bool) -> Result<()> {
        let _ = data_only;
        Err(Errno::EINVAL)
    }

    /// `ftruncate(2)`.
    ///
    /// # Errors
    /// `EINVAL` by default.
    fn truncate(&self, size: u64) -> Result<()> {
        let _ = size;
        Err(Errno::EINVAL)
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// `ENODEV` by default; pipes say `ESPIPE`.
    fn fallocate(&self, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        let _ = (mode, offset, len);
        Err(Errno::ENODEV)
    }

    /// Says that a byte range will be read soon (`readahead(2)`, `POSIX_FADV_WILLNEED`).
    fn will_need(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Called when the file's status flags have been changed by `fcntl(F_SETFL)`.
    ///
    /// # Errors
    /// `EINVAL` when the file refuses, such as `O_DIRECT` without support.
    fn flags_changed(&self, flags: OpenFlags) -> Result<()> {
        let _ = flags;
        Ok(())
    }

    /// The implementation, for the room that made it to recognise.
    fn as_any(&self) -> &dyn Any;
}

/// An open file description (open(2)): shared by descriptors that `dup(2)` made.
pub struct OpenFile {
    file: Arc<dyn File>,
    flags: AtomicU32,
    offset: Mutex<u64>,
    path: Option<Path>,
    attached: Once<Box<dyn Any + Send + Sync>>,
}

impl OpenFile {
    /// A description of `file`, which was reached by `path` if it has a name.
    pub fn new(file: Arc<dyn File>, flags: OpenFlags, path: Option<Path>) -> Arc<Self> {
        // What only matters during open(2) is not kept, as F_GETFL shows.
        let kept = flags
            - (OpenFlags::CREAT
                | OpenFlags::EXCL
                | OpenFlags::NOCTTY
                | OpenFlags::TRUNC
                | OpenFlags::CLOEXEC);
        Arc::new(OpenFile {
            file,
            flags: AtomicU32::new(kept.bits()),
            offset: Mutex::new(0),
            path,
            attached: Once::new(),
        })
    }

    /// What it works on.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// The name by which it was opened.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    /// What `fstat(2)` tells: for a device, of the node by which it was opened.
    ///
    /// # Errors
    /// `EIO`.
    pub fn metadata(&self) -> Result<Metadata> {
        match &self.path {
            Some(path) if path.file_type() == crate::FileType::CharDevice => {
                path.inode().metadata()
            }
            _ => self.file.metadata(),
        }
    }

    /// Keeps what `make` gives until the description ends, for a higher room that wants to act
    /// then; only the first one is kept.
    pub fn attach(&self, make: impl FnOnce() -> Box<dyn Any + Send + Sync>) {
        self.attached.call_once(make);
    }

    /// Access mode and status flags, as `F_GETFL` shows them.
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Changes the status flags that can be changed (`F_SETFL`); others in `flags` are ignored.
    ///
    /// # Errors
    /// As [`File::flags_changed`]; `EBADF` for an `O_PATH` descriptor.
    pub fn set_flags(&self, flags: OpenFlags) -> Result<()> {
        let old = self.flags();
        if old.contains(OpenFlags::PATH) {
            return Err(Errno::EBADF);
        }
        let new = (old - OpenFlags::SETTABLE) | (flags & OpenFlags::SETTABLE);
        self.file.flags_changed(new)?;
        self.flags.store(new.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// The offset now.
    pub fn offset(&self) -> u64 {
        *self.offset.lock()
    }

    /// `read(2)`: at the offset, moving it, or from the stream.
    ///
    /// # Errors
    /// `EBADF` when not open for reading; as the file says.
    pub fn read(&self, sink: &mut dyn Sink) -> Result<usize> {
        let flags = self.readable()?;
        let done = if self.file.seekable() {
            let mut offset = self.offset.lock();
            let done = self.file.read_at(*offset, sink, flags)?;
            *offset += done as u64;
            done
        } else {
            self.file.read(sink, flags)?
        };
        self.tell(Mask::ACCESS, done);
        Ok(done)
    }

    /// `write(2)`.
    ///
    /// # Errors
    /// `EBADF` when not open for writing; as the file says.
    pub fn write(&self, source: &mut dyn Source) -> Result<usize> {
        let flags = self.writable()?;
        let done = if self.file.seekable() {
            let mut offset = self.offset.lock();
            let (done, end) = self.file.write_at(*offset, source, flags)?;
            if done > 0 {
                *offset = end;
            }
            done
        } else {
            self.file.write(source, flags)?
        };
        self.tell(Mask::MODIFY, done);
        Ok(done)
    }

    /// `pread(2)`.
    ///
    /// # Errors
    /// `ESPIPE` for a stream, and as [`OpenFile::read`].
    pub fn read_at(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        let flags = self.readable()?;
        if !self.file.seekable() {
            return Err(Errno::ESPIPE);
        }
        if offset > MAX_FILE_SIZE {
            return Err(Errno::EINVAL);
        }
        let done = self.file.read_at(offset, sink, flags)?;
        self.tell(Mask::ACCESS, done);
        Ok(done)
    }

    /// `pwrite(2)`. As on Linux a file opened with `O_APPEND` is appended to, whatever the offset.
    ///
    /// # Errors
    /// `ESPIPE` for a stream, and as [`OpenFile::write`].
    pub fn write_at(&self, offset: u64, source: &mut dyn Source) -> Result<usize> {
        let flags = self.writable()?;
        if !self.file.seekable() {
            return Err(Errno::ESPIPE);
        }
        if offset > MAX_FILE_SIZE {
            return Err(Errno::EINVAL);
        }
        let (done, _) = self.file.write_at(offset, source, flags)?;
        self.tell(Mask::MODIFY, done);
        Ok(done)
    }

    /// `lseek(2)`.
    ///
    /// # Errors
    /// `ESPIPE` for a stream; `EBADF` for an `O_PATH` descriptor; as [`File::seek`].
    pub fn seek(&self, whence: Whence, by: i64) -> Result<u64> {
        if self.flags().contains(OpenFlags::PATH) {
            return Err(Errno::EBADF);
        }
        if !self.file.seekable() {
            return Err(Errno::ESPIPE);
        }
        let mut offset = self.offset.lock();
        *offset = self.file.seek(*offset, whence, by)?;
        Ok(*offset)
    }

    /// `getdents64(2)`: entries from the offset on, which moves behind the last one taken.
    ///
    /// # Errors
    /// `ENOTDIR`, `EBADF`, and as the directory says.
    pub fn readdir(&self, emit: Emit<'_>) -> Result<()> {
        self.readable()?;
        let mut offset = self.offset.lock();
        *offset = self.file.readdir(*offset, emit)?;
        self.tell(Mask::ACCESS, 1);
        Ok(())
    }

    /// `ftruncate(2)`.
    ///
    /// # Errors
    /// `EINVAL` when not open for writing; as the file says.
    pub fn truncate(&self, size: u64) -> Result<()> {
        let flags = self.flags();
        if flags.contains(OpenFlags::PATH) {
            return Err(Errno::EBADF);
        }
        if !flags.can_write() || size > MAX_FILE_SIZE {
            return Err(Errno::EINVAL);
        }
        self.check_mount()?;
        self.file.truncate(size)?;
        self.tell(Mask::MODIFY, 1);
        Ok(())
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// `EBADF` when not open for writing, `EINVAL` for a bad range, `EFBIG`; as the file says.
    pub fn fallocate(&self, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        if end > MAX_FILE_SIZE {
            return Err(Errno::EFBIG);
        }
        self.file.fallocate(mode, offset, len)?;
        self.tell(Mask::MODIFY, 1);
        Ok(())
    }

    fn readable(&self) -> Result<OpenFlags> {
        let flags = self.flags();
        if flags.can_read() {
            Ok(flags)
        } else {
            Err(Errno::EBADF)
        }
    }

    fn writable(&self) -> Result<OpenFlags> {
        let flags = self.flags();
        if flags.can_write() {
            Ok(flags)
        } else {
            Err(Errno::EBADF)
        }
    }

    fn check_mount(&self) -> Result<()> {
        match &self.path {
            Some(path) => path.mount().check_writable(),
            None => Ok(()),
        }
    }

    fn tell(&self, mask: Mask, done: usize) {
        if done > 0
            && notify::active()
            && let Some(path) = &self.path
        {
            notify::path_event(path, mask);
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mask = if self.flags().can_write() {
            Mask::CLOSE_WRITE
        } else {
            Mask::CLOSE_NOWRITE
        };
        if !self.flags().contains(OpenFlags::PATH) {
            self.tell(mask, 1);
        }
    }
}

/// What one call may move of `wanted` bytes (`MAX_RW_COUNT`).
pub fn clamp_count(wanted: usize) -> usize {
    wanted.min(MAX_RW_COUNT)
}
