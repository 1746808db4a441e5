//! A socket as a descriptor: waiting, timeouts, `SIGPIPE`, and what `read(2)` and `write(2)` mean.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use errno::{Errno, Result};
use fs::{File, Metadata, OpenFile, OpenFlags};
use iobuf::{Sink, Source};
use net::nic::TxSegment;
use net::{MsgFlags, Shutdown};
use sched::poll::{Events, Pollee};

use super::addr::{AF_INET, AF_INET6, AF_UNIX, Address};
use super::common::{Common, Stamps};
use super::completion::{Completions, Skip};
use super::ops::{Control, Received, SendMsg, SocketOps};
use super::option::{self as so, SOL_SOCKET};
use crate::files::anon::{AnonInode, Home};
use crate::files::blocking::{any, wait};
use crate::files::readiness::with_norms;
use crate::files::{put_int, raise};
use crate::signal::SIGPIPE;

const FIONREAD: u32 = 0x541b;
const SIOCOUTQ: u32 = 0x5411;
const SIOCATMARK: u32 = 0x8905;

/// What a socket's descriptor works on.
pub struct SocketFile {
    ops: Arc<dyn SocketOps>,
    common: Common,
    /// Sends with `MSG_ZEROCOPY` whose end was not told yet.
    completions: Completions,
    inode: AnonInode,
}

/// The socket behind an open file.
///
/// # Errors
/// `ENOTSOCK`.
pub fn of(file: &OpenFile) -> Result<&SocketFile> {
    file.file()
        .as_any()
        .downcast_ref::<SocketFile>()
        .ok_or(Errno::ENOTSOCK)
}

impl SocketFile {
    /// A descriptor's file for a socket.
    pub fn new(ops: Arc<dyn SocketOps>) -> Arc<Self> {
        Arc::new(SocketFile {
            ops,
            common: Common::new(),
            completions: Completions::default(),
            inode: AnonInode::new(Home::Sockets),
        })
    }

    /// The socket.
    pub fn ops(&self) -> &Arc<dyn SocketOps> {
        &self.ops
    }

    /// Its inode number, for `/proc/net`.
    pub fn ino(&self) -> u64 {
        self.inode.ino()
    }

    /// Which control messages tell when something arrived.
    pub fn stamps(&self) -> Stamps {
        self.common.stamps()
    }

    /// Whether the mark of what arrived is told (`SO_RCVMARK`).
    pub fn tells_mark(&self) -> bool {
        self.common.has(so::SO_RCVMARK)
            && !self.ops.kind().is_stream()
            && self.ops.family() != AF_UNIX
    }

    fn wait_for(&self, wanted: Events, deadline_ns: Option<u64>) -> Result<()> {
        wait(self.ops.pollee(), deadline_ns, || {
            any(self.ops.poll(), wanted)
        })
    }

    /// `accept(2)`.
    ///
    /// # Errors
    /// `EAGAIN`, `ERESTARTSYS`, and the family's.
    pub fn accept(&self, nonblock: bool) -> Result<Arc<SocketFile>> {
        let deadline = self.common.receive_deadline();
        loop {
            match self.ops.accept() {
                Err(Errno::EAGAIN) if !nonblock => {}
                Ok(ops) => {
                    let file = SocketFile::new(ops);
                    if matches!(self.ops.family(), AF_INET | AF_INET6) {
                        file.common.inherit(&self.common);
                    }
                    return Ok(file);
                }
                Err(error) => return Err(error),
            }
            self.wait_for(Events::IN, deadline)
                .map_err(|error| interrupted(error, deadline))?;
        }
    }

    /// `connect(2)`.
    ///
    /// # Errors
    /// `EINPROGRESS` when it may not wait, `ERESTARTSYS`, and the family's.
    pub fn connect(&self, addr: &Address, nonblock: bool) -> Result<()> {
        let deadline = self.common.send_deadline();
        loop {
            match self.ops.connect(addr) {
                Err(Errno::EAGAIN) if !nonblock => {
                    let unix = self.ops.as_any().downcast_ref::<super::unix::UnixSocket>();
                    match unix {
                        Some(unix) => unix.wait_to_connect(addr, deadline)?,
                        None => return Err(Errno::EAGAIN),
                    }
                }
                Err(Errno::EINPROGRESS | Errno::EALREADY) if !nonblock => break,
                answer => return answer,
            }
        }
        loop {
            if let Some(result) = self.ops.connect_result() {
                return result;
            }
            let waited = wait(self.ops.pollee(), deadline, || {
                self.ops
                    .poll()
                    .intersects(Events::OUT | Events::ERR | Events::HUP)
            });
            match waited {
                Ok(()) => {}
                Err(Errno::EAGAIN) => return Err(Errno::EINPROGRESS),
                Err(error) => return Err(interrupted(error, deadline)),
            }
        }
    }

    /// Sends, going on until a stream has taken all.
    ///
    /// # Errors
    /// `EAGAIN`, `ERESTARTSYS`, `EPIPE`, and the family's.
    pub fn send(&self, source: &mut dyn Source, msg: &SendMsg, nonblock: bool) -> Result<usize> {
        let nonblock = nonblock || msg.flags.contains(MsgFlags::DONTWAIT);
        let deadline = self.common.send_deadline();
        let mut total = 0;
        // Descriptors and the like go with the first bytes only.
        let plain = SendMsg {
            to: None,
            flags: msg.flags - MsgFlags::FASTOPEN,
            control: Vec::new(),
        };
        let opens = msg.flags.contains(MsgFlags::FASTOPEN);
        let mut opened = false;
        let result = loop {
            let current = if total == 0 && !opened { msg } else { &plain };
            match self.ops.send(source, current) {
                Ok(n) => {
                    total += n;
                    if opens && !opened && !nonblock {
                        // As `connect` does, it waits for the connection; data that went with its SYN is lost with it.
                        if let Err(error) = self.wait_for(Events::OUT, deadline) {
                            break Err(interrupted(error, deadline));
                        }
                        if let Some(Err(error)) = self.ops.connect_result() {
                            return Err(error);
                        }
                    }
                    opened = true;
                    if n == 0 || source.remaining() == 0 || !self.ops.kind().is_stream() {
                        break Ok(total);
                    }
                    // A part went: there may be room for more at once, the next turn tells.
                    continue;
                }
                Err(Errno::EAGAIN) if !nonblock => {}
                // The connection takes nothing along: the data goes when it is there.
                Err(Errno::EINPROGRESS) if opens && !opened && !nonblock => opened = true,
                Err(error) => break Err(error),
            }
            let waited = match self.ops.wait_to_send(current, deadline) {
                Ok(true) => Ok(()),
                Ok(false) => self.wait_for(Events::OUT, deadline),
                Err(error) => Err(error),
            };
            if let Err(error) = waited {
                break Err(interrupted(error, deadline));
            }
        };
        if total > 0 && msg.flags.contains(MsgFlags::ZEROCOPY) && self.common.has(so::SO_ZEROCOPY) {
            self.completions.add();
            self.ops.pollee().notify(Events::ERR);
        }
        match result {
            Err(_) if total > 0 => Ok(total),
            Err(Errno::EPIPE) => {
                if !msg.flags.contains(MsgFlags::NOSIGNAL)
                    && matches!(
                        self.ops.kind(),
                        super::ops::Kind::Stream | super::ops::Kind::SeqPacket
                    )
                {
                    raise::on_thread(SIGPIPE);
                }
                Err(Errno::EPIPE)
            }
            other => other,
        }
    }

    /// Sends all of `pages` without copying, waiting for room if it may: how many bytes went, and what stopped it.
    pub fn send_pages(
        &self,
        pages: &mut Vec<TxSegment>,
        more: bool,
        nonblock: bool,
    ) -> (usize, Option<Errno>) {
        let deadline = self.common.send_deadline();
        let mut total = 0;
        while !pages.is_empty() {
            let stopped = match self.ops.send_pages(pages, more) {
                Ok(n) => {
                    total += n;
                    continue;
                }
                Err(Errno::EAGAIN) if !nonblock => self.wait_for(Events::OUT, deadline).err(),
                Err(error) => Some(error),
            };
            if let Some(error) = stopped {
                if error == Errno::EPIPE && total == 0 {
                    raise::on_thread(SIGPIPE);
                }
                return (total, Some(interrupted(error, deadline)));
            }
        }
        (total, None)
    }

    /// Receives; with `MSG_WAITALL` a stream waits for all.
    ///
    /// # Errors
    /// `EAGAIN`, `ERESTARTSYS`, and the family's.
    pub fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags, nonblock: bool) -> Result<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return match self.completions.take() {
                Some(done) => Ok(done),
                None => self.ops.recv(sink, flags),
            };
        }
        let is_stream = self.ops.kind().is_stream();
        if flags.contains(MsgFlags::PEEK)
            && let Some(off) = self.common.peek_off()
        {
            return if is_stream {
                self.peek_from(off, sink, flags, nonblock)
            } else {
                self.peek_message(off, sink, flags, nonblock)
            };
        }
        let enough = match (is_stream, flags.contains(MsgFlags::WAITALL)) {
            (true, _) if flags.contains(MsgFlags::PEEK) => 1,
            (true, true) => usize::MAX,
            (true, false) => self.common.receive_low(),
            (false, _) => 1,
        };
        let received = self.receive(sink, flags, nonblock, enough)?;
        if is_stream || !flags.contains(MsgFlags::PEEK) {
            // Of a UNIX message all of it is gone, of a datagram of UDP counts what the call tells.
            let whole =
                !is_stream && (self.ops.family() == AF_UNIX || flags.contains(MsgFlags::TRUNC));
            let len = if whole {
                received.full_len
            } else {
                received.len
            };
            self.common.taken(len);
        }
        Ok(received)
    }

    /// Peeks at the message in which byte `off` of what is queued lies, from there on (`SO_PEEK_OFF`).
    fn peek_message(
        &self,
        off: usize,
        sink: &mut dyn Sink,
        flags: MsgFlags,
        nonblock: bool,
    ) -> Result<Received> {
        let nonblock = nonblock || flags.contains(MsgFlags::DONTWAIT);
        let deadline = self.common.receive_deadline();
        loop {
            match self.ops.peek_message(off, sink, flags) {
                Ok(received) => {
                    let whole = flags.contains(MsgFlags::TRUNC) && self.ops.family() != AF_UNIX;
                    let len = if whole {
                        received.full_len
                    } else {
                        received.len
                    };
                    self.common.peeked(len);
                    return Ok(received);
                }
                Err(Errno::EAGAIN) if !nonblock => {}
                Err(error) => return Err(error),
            }
            wait(self.ops.pollee(), deadline, || self.ops.can_peek(off))
                .map_err(|error| interrupted(error, deadline))?;
        }
    }

    /// Peeks from byte `off` of what is queued (`SO_PEEK_OFF`).
    fn peek_from(
        &self,
        off: usize,
        sink: &mut dyn Sink,
        flags: MsgFlags,
        nonblock: bool,
    ) -> Result<Received> {
        let nonblock = nonblock || flags.contains(MsgFlags::DONTWAIT);
        let deadline = self.common.receive_deadline();
        loop {
            let received = self.receive(&mut Skip::new(sink, off), flags, nonblock, 1)?;
            let ended = || {
                self.ops
                    .poll()
                    .intersects(Events::RDHUP | Events::HUP | Events::ERR)
            };
            if received.len > off || received.len == 0 || ended() {
                let len = received.len.saturating_sub(off);
                self.common.peeked(len);
                return Ok(Received {
                    len,
                    full_len: len,
                    ..received
                });
            }
            if nonblock {
                return Err(Errno::EAGAIN);
            }
            wait(self.ops.pollee(), deadline, || {
                ended() || self.ops.input_queued().is_ok_and(|queued| queued > off)
            })
            .map_err(|error| interrupted(error, deadline))?;
        }
    }

    /// Receives at least `enough` bytes, or as many as there is room for, or what came until the end.
    fn receive(
        &self,
        sink: &mut dyn Sink,
        flags: MsgFlags,
        nonblock: bool,
        enough: usize,
    ) -> Result<Received> {
        // Urgent data is never waited for.
        let nonblock = nonblock || flags.intersects(MsgFlags::DONTWAIT | MsgFlags::OOB);
        let deadline = self.common.receive_deadline();
        let mut total: Option<Received> = None;
        loop {
            match self.ops.recv(sink, flags) {
                Ok(part) => {
                    let ended = part.len == 0 || part.stop || sink.remaining() == 0;
                    let sum = match total.take() {
                        None => part,
                        Some(mut sum) => {
                            sum.len += part.len;
                            sum.full_len += part.full_len;
                            // When the last of the data arrived, not each part of it.
                            let told =
                                |c: &Control| matches!(c, Control::Net(net::Control::Timestamp(_)));
                            if part.control.iter().any(told) {
                                sum.control.retain(|c| !told(c));
                            }
                            sum.control.extend(part.control);
                            sum
                        }
                    };
                    if ended || sum.len >= enough {
                        return Ok(sum);
                    }
                    total = Some(sum);
                    continue;
                }
                Err(Errno::EAGAIN) if !nonblock => {}
                Err(error) => return total.ok_or(error),
            }
            if let Err(error) = self.wait_for(Events::IN, deadline) {
                return total.ok_or(interrupted(error, deadline));
            }
        }
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.ops.shutdown(how)
    }

    /// The instructions of a filter that `value` points to.
    ///
    /// # Errors
    /// `EPERM` after `SO_LOCK_FILTER`, `EINVAL`, `EFAULT`.
    pub fn read_filter(&self, value: &[u8]) -> Result<Vec<u8>> {
        if value.len() == 16 && self.common.has(so::SO_LOCK_FILTER) {
            return Err(Errno::EPERM);
        }
        super::filter::read(value)
    }

    /// `setsockopt(2)`.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL`, ...
    pub fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if level == SOL_SOCKET {
            return self.common.set(&*self.ops, name, value);
        }
        self.ops.set_option(level, name, value)
    }

    /// `getsockopt(2)`; `len` is how much room the program has.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, ...
    pub fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        if level == SOL_SOCKET {
            if name == so::SO_COOKIE {
                return Ok(self.inode.ino().to_ne_bytes().to_vec());
            }
            return self.common.get(&*self.ops, name, len);
        }
        self.ops.option(level, name, len)
    }
}

/// A wait with a timeout set by the program does not go on after a signal (`signal(7)`).
fn interrupted(error: Errno, deadline_ns: Option<u64>) -> Errno {
    if error == Errno::ERESTARTSYS && deadline_ns.is_some() {
        Errno::EINTR
    } else {
        error
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.ops.close();
        // The descriptor is gone; whoever asked for SO_LINGER waits here, as in close(2).
        if let Some(seconds) = self.common.linger_s()
            && seconds > 0
        {
            let deadline = crate::files::blocking::deadline_after(seconds * 1_000_000_000);
            let _ = wait(self.ops.pollee(), Some(deadline), || {
                !self.ops.linger_pending()
            });
        }
    }
}

impl File for SocketFile {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        let nonblock = flags.contains(OpenFlags::NONBLOCK);
        self.recv(sink, MsgFlags::empty(), nonblock)
            .map(|received| received.len)
    }

    fn write(&self, source: &mut dyn Source, flags: OpenFlags) -> Result<usize> {
        let nonblock = flags.contains(OpenFlags::NONBLOCK);
        self.send(source, &SendMsg::default(), nonblock)
    }

    fn poll(&self) -> Events {
        let mut events = with_norms(self.ops.poll());
        if self.completions.any() {
            events |= Events::ERR;
        }
        if events.contains(Events::ERR) && self.common.has(so::SO_SELECT_ERR_QUEUE) {
            events |= Events::PRI;
        }
        // TCP has no band data to write; the others say so nevertheless.
        let is_tcp = self.ops.kind().is_stream() && self.ops.family() != AF_UNIX;
        if events.contains(Events::OUT) && !is_tcp {
            events |= Events::WRBAND;
        }
        events
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(self.ops.pollee())
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        match request {
            FIONREAD => put_int(arg, clamp(self.ops.input_queued()?)),
            SIOCOUTQ => put_int(arg, clamp(self.ops.output_queued()?)),
            SIOCATMARK => put_int(arg, i32::from(self.ops.at_mark()?)),
            _ => super::inet::ioctl::interface(request, arg),
        }
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(self.inode.metadata())
    }

    fn fallocate(&self, _: fs::FallocateMode, _: u64, _: u64) -> Result<()> {
        Err(Errno::ENODEV)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn clamp(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}
