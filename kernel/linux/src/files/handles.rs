//! The [`File`]s over pipes, event counters and epoll sets: what a descriptor of each does.

use alloc::sync::Arc;
use core::any::Any;

use errno::{Errno, Result};
use fs::{File, Metadata, OpenFile, OpenFlags};
use iobuf::{Sink, Source};
use sched::poll::{Events, Pollee};

use super::anon::{AnonInode, Home};
use super::blocking::{any, retry, retry_all};
use super::epoll::Epoll;
use super::eventfd::EventFd;
use super::pipe::Pipe;
use super::readiness::{Watched, with_norms};
use crate::signal::SIGPIPE;

/// `FIONREAD`.
pub const FIONREAD: u32 = 0x541b;

impl Watched for OpenFile {
    fn poll(&self) -> Events {
        self.file().poll()
    }

    fn pollee(&self) -> Option<&Pollee> {
        self.file().pollee()
    }

    fn as_epoll(&self) -> Option<&Epoll> {
        self.file()
            .as_any()
            .downcast_ref::<EpollFile>()
            .map(|file| &file.epoll)
    }
}

/// Whose metadata an end of a pipe shows: its own, or those of the name it was opened by.
pub enum PipeIdentity {
    /// Made by `pipe(2)`; both ends share it.
    Anonymous(Arc<AnonInode>),
    /// A named pipe.
    Named(Arc<dyn fs::Inode>),
}

/// One end of a pipe, or both ends at once for a named pipe opened with `O_RDWR`.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    identity: PipeIdentity,
    reads: bool,
    writes: bool,
}

impl PipeEnd {
    /// Opens an end.
    pub fn new(pipe: Arc<Pipe>, identity: PipeIdentity, reads: bool, writes: bool) -> Self {
        pipe.open(reads, writes);
        PipeEnd {
            pipe,
            identity,
            reads,
            writes,
        }
    }

    /// A pipe's two ends: reading, writing.
    pub fn pair() -> (Arc<PipeEnd>, Arc<PipeEnd>) {
        let pipe = Pipe::new();
        let inode = Arc::new(AnonInode::new(Home::Pipes));
        let end = |reads| {
            let identity = PipeIdentity::Anonymous(inode.clone());
            Arc::new(PipeEnd::new(pipe.clone(), identity, reads, !reads))
        };
        (end(true), end(false))
    }

    /// Another end of the same pipe, for an open through `/proc/self/fd`.
    pub fn reopen(&self, reads: bool, writes: bool) -> PipeEnd {
        let identity = match &self.identity {
            PipeIdentity::Anonymous(inode) => PipeIdentity::Anonymous(inode.clone()),
            PipeIdentity::Named(inode) => PipeIdentity::Named(inode.clone()),
        };
        PipeEnd::new(self.pipe.clone(), identity, reads, writes)
    }

    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }

    /// Whether it is the reading end.
    pub fn reads(&self) -> bool {
        self.reads
    }

    /// Whether it is the writing end.
    pub fn writes(&self) -> bool {
        self.writes
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.pipe.close(self.reads, self.writes);
    }
}

impl File for PipeEnd {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        retry(
            self.pipe.read_side(),
            flags.contains(OpenFlags::NONBLOCK),
            None,
            || any(self.pipe.poll_read(), Events::IN),
            || self.pipe.read(sink),
        )
    }

    fn write(&self, source: &mut dyn Source, flags: OpenFlags) -> Result<usize> {
        let packets = flags.contains(OpenFlags::DIRECT);
        let nonblock = flags.contains(OpenFlags::NONBLOCK);
        let result = retry_all(
            self.pipe.write_side(),
            nonblock,
            None,
            || any(self.pipe.poll_write(), Events::OUT),
            || {
                let n = self.pipe.write(source, packets)?;
                Ok((n, n == 0 || source.remaining() == 0))
            },
        );
        if result == Err(Errno::EPIPE) {
            super::raise::on_thread(SIGPIPE);
        }
        result
    }

    fn poll(&self) -> Events {
        let mut events = Events::empty();
        if self.reads {
            events |= self.pipe.poll_read();
        }
        if self.writes {
            events |= self.pipe.poll_write();
        }
        with_norms(events)
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(if self.reads {
            self.pipe.read_side()
        } else {
            self.pipe.write_side()
        })
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        match request {
            FIONREAD => super::put_int(arg, self.pipe.used() as i32),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn metadata(&self) -> Result<Metadata> {
        match &self.identity {
            PipeIdentity::Anonymous(inode) => Ok(inode.metadata()),
            PipeIdentity::Named(inode) => inode.metadata(),
        }
    }

    fn inode(&self) -> Option<&Arc<dyn fs::Inode>> {
        match &self.identity {
            PipeIdentity::Anonymous(_) => None,
            PipeIdentity::Named(inode) => Some(inode),
        }
    }

    fn fallocate(&self, _: fs::FallocateMode, _: u64, _: u64) -> Result<()> {
        Err(Errno::ESPIPE)
    }

    fn flags_changed(&self, _flags: OpenFlags) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A descriptor of `eventfd(2)`.
pub struct EventFile {
    /// The counter.
    pub event: EventFd,
    inode: AnonInode,
}

impl EventFile {
    /// A descriptor's file for `event`.
    pub fn new(event: EventFd) -> Self {
        EventFile {
            event,
            inode: AnonInode::new(Home::Anonymous),
        }
    }
}

impl File for EventFile {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let value = retry(
            self.event.pollee(),
            flags.contains(OpenFlags::NONBLOCK),
            None,
            || self.event.poll().contains(Events::IN),
            || self.event.take(),
        )?;
        sink.put(&value.to_ne_bytes())
    }

    fn write(&self, source: &mut dyn Source, flags: OpenFlags) -> Result<usize> {
        if source.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if source.take(&mut bytes)? < bytes.len() {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(bytes);
        // Not `poll`: room for one is not room for any value.
        loop {
            match self.event.add(value) {
                Ok(()) => return Ok(8),
                Err(Errno::EAGAIN) if !flags.contains(OpenFlags::NONBLOCK) => {}
                Err(error) => return Err(error),
            }
            super::blocking::wait(self.event.pollee(), None, || {
                value <= u64::MAX - 1 - self.event.count().min(u64::MAX - 1)
            })?;
        }
    }

    fn poll(&self) -> Events {
        self.event.poll()
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(self.event.pollee())
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(self.inode.metadata())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A descriptor of `epoll_create(2)`.
pub struct EpollFile {
    /// The set.
    pub epoll: Epoll,
    inode: AnonInode,
}

impl EpollFile {
    /// A descriptor's file for an empty set.
    pub fn new() -> Self {
        EpollFile {
            epoll: Epoll::new(),
            inode: AnonInode::new(Home::Anonymous),
        }
    }
}

impl Default for EpollFile {
    fn default() -> Self {
        Self::new()
    }
}

impl File for EpollFile {
    fn poll(&self) -> Events {
        with_norms(self.epoll.poll())
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(self.epoll.pollee())
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(self.inode.metadata())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
