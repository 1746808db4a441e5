//! The calls of a vsock socket but those that move data. None waits: `EAGAIN` says to try again when the pollee tells.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};

use errno::{Errno, Result};

use super::conn::{Inner, State};
use super::header::{Header, NO_RECEIVE, NO_SEND, op};
use super::{CID_ANY, PORT_ANY, Vsock, VsockAddr};
use crate::poll::{Events, Pollee};
use crate::socket::Shutdown;
use crate::sync::{SleepLock, SpinLock};

/// The most connections that wait to be accepted (`net.core.somaxconn`).
const SOMAXCONN: usize = 4096;
/// How long the other side has to answer a close (`VSOCK_CLOSE_TIMEOUT`).
const CLOSE_NS: u64 = 8_000_000_000;

/// `SO_VM_SOCKETS_*` that can be set and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VsockOption {
    /// Bytes that may wait to be read.
    Buffer(u64),
    /// The least that `Buffer` may be.
    BufferMin(u64),
    /// The most.
    BufferMax(u64),
    /// How long `connect(2)` tries, in nanoseconds.
    ConnectTimeout(u64),
}

/// A socket of `AF_VSOCK`.
pub struct VsockSocket {
    pub(super) vsock: Arc<Vsock>,
    me: Weak<VsockSocket>,
    pub(super) stream: bool,
    pub(super) inner: SpinLock<Inner>,
    /// Held over a copy to or from the program, so that bytes stay in order.
    pub(super) receiving: SleepLock<()>,
    pub(super) sending: SleepLock<()>,
    pollee: Pollee,
}

impl VsockSocket {
    /// A socket for streams or for sequenced packets.
    pub fn new(vsock: &Arc<Vsock>, stream: bool) -> Arc<VsockSocket> {
        Arc::new_cyclic(|me| VsockSocket {
            vsock: vsock.clone(),
            me: me.clone(),
            stream,
            inner: SpinLock::new(Inner::new(stream)),
            receiving: SleepLock::new(()),
            sending: SleepLock::new(()),
            pollee: Pollee::new(),
        })
    }

    /// Whether it is a stream.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    pub(super) fn strong(&self) -> Result<Arc<VsockSocket>> {
        self.me.upgrade().ok_or(Errno::EINVAL)
    }

    pub(super) fn bound(&self) -> Option<VsockAddr> {
        self.inner.lock().bound
    }

    pub(super) fn set_bound(&self, addr: VsockAddr) {
        self.inner.lock().bound = Some(addr);
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.inner.lock().deadline
    }

    pub(super) fn listens_at(&self, cid: u32) -> bool {
        let inner = self.inner.lock();
        matches!(inner.state, State::Listening { .. })
            && inner
                .bound
                .is_some_and(|addr| addr.cid == CID_ANY || addr.cid == cid)
    }

    /// `bind(2)`.
    ///
    /// # Errors
    /// `EINVAL` when it is bound, `EADDRNOTAVAIL`, `EADDRINUSE`.
    pub fn bind(&self, addr: VsockAddr) -> Result<()> {
        if self.bound().is_some() {
            return Err(Errno::EINVAL);
        }
        self.vsock
            .bind(&self.strong()?, addr.cid, addr.port)
            .map(drop)
    }

    /// `listen(2)`.
    ///
    /// # Errors
    /// `EINVAL` when it is not bound or does something else.
    pub fn listen(&self, backlog: i32) -> Result<()> {
        let limit = usize::try_from(backlog).unwrap_or(SOMAXCONN).min(SOMAXCONN);
        let mut inner = self.inner.lock();
        if inner.bound.is_none() {
            return Err(Errno::EINVAL);
        }
        match &mut inner.state {
            State::Listening { backlog, .. } => *backlog = limit,
            State::Idle => {
                inner.state = State::Listening {
                    backlog: limit,
                    queue: VecDeque::new(),
                };
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// Takes a connection off the queue.
    ///
    /// # Errors
    /// `EAGAIN`; `EINVAL` when it does not listen.
    pub fn accept(&self) -> Result<Arc<VsockSocket>> {
        match &mut self.inner.lock().state {
            State::Listening { queue, .. } => queue.pop_front().ok_or(Errno::EAGAIN),
            _ => Err(Errno::EINVAL),
        }
    }

    /// A listener is asked for a connection; `false` refuses.
    pub(super) fn take_request(&self, vsock: &Vsock, header: &Header) -> bool {
        let (buffer, min, max) = {
            let listener = self.inner.lock();
            match &listener.state {
                State::Listening { backlog, queue }
                    if header.kind == listener.kind() && queue.len() <= *backlog => {}
                _ => return false,
            }
            (listener.buffer, listener.buffer_min, listener.buffer_max)
        };
        let child = VsockSocket::new(&self.vsock, self.stream);
        let answer = {
            let mut inner = child.inner.lock();
            (inner.buffer, inner.buffer_min, inner.buffer_max) = (buffer, min, max);
            inner.connected_to(header);
            inner.bare(op::RESPONSE, 0)
        };
        let key = (header.dst.port, header.src);
        if vsock.insert(key, &child).is_err() {
            return false;
        }
        let queued = match &mut self.inner.lock().state {
            State::Listening { queue, .. } => {
                queue.push_back(child.clone());
                true
            }
            _ => false,
        };
        if !queued {
            vsock.remove_connection(key, &child);
            return false;
        }
        vsock.push(answer);
        self.pollee.notify(Events::IN);
        true
    }

    /// A packet of its connection; whether the connection is no more.
    pub(super) fn input(
        &self,
        vsock: &Vsock,
        header: &Header,
        bytes: Box<[u8]>,
        end: usize,
    ) -> bool {
        let outcome = {
            let mut inner = self.inner.lock();
            if header.kind != inner.kind() {
                return false;
            }
            let outcome = inner.input(header, bytes, end);
            if let Some(answer) = outcome.answer {
                vsock.push(answer);
            }
            (outcome.notify, outcome.gone)
        };
        if outcome.0 {
            self.pollee.notify(Events::IN | Events::OUT | Events::RDHUP);
        }
        outcome.1
    }

    /// The connection ends without a packet.
    pub(super) fn end(&self, error: Option<Errno>) {
        self.inner.lock().over(error);
        self.pollee
            .notify(Events::IN | Events::OUT | Events::ERR | Events::HUP);
    }

    /// What was waited for did not come: the packet that ends it.
    pub(super) fn give_up(&self) -> Option<Box<[u8]>> {
        let mut inner = self.inner.lock();
        let error = match inner.state {
            State::Connecting => Some(Errno::ETIMEDOUT),
            _ => None,
        };
        let packet = inner.bare(op::RST, 0);
        inner.over(error);
        drop(inner);
        self.pollee.notify(Events::OUT | Events::ERR | Events::HUP);
        Some(packet)
    }

    /// Starts to connect.
    ///
    /// # Errors
    /// `EINPROGRESS` as long as it goes on, `EISCONN`, `EALREADY`, `EINVAL`, `ENODEV`, ...
    pub fn connect(&self, to: VsockAddr) -> Result<()> {
        let me = self.strong()?;
        match self.inner.lock().state {
            State::Connected | State::Over => return Err(Errno::EISCONN),
            State::Connecting => return Err(Errno::EALREADY),
            State::Listening { .. } | State::Closing => return Err(Errno::EINVAL),
            State::Idle => {}
        }
        if to.cid == CID_ANY || to.port == PORT_ANY {
            return Err(Errno::EINVAL);
        }
        let source = self.vsock.source_for(to.cid, self.stream)?;
        let bound = match self.bound() {
            Some(addr) => addr,
            None => self.vsock.bind(&me, CID_ANY, PORT_ANY)?,
        };
        self.vsock.insert((bound.port, to), &me)?;
        let deadline = {
            let mut inner = self.inner.lock();
            inner.forget();
            inner.state = State::Connecting;
            inner.local = VsockAddr {
                cid: source,
                port: bound.port,
            };
            inner.peer = Some(to);
            let deadline = machine::time::now_ns().saturating_add(inner.connect_timeout_ns);
            inner.deadline = Some(deadline);
            let request = inner.bare(op::REQUEST, 0);
            self.vsock.push(request);
            deadline
        };
        self.vsock.arm(deadline);
        self.vsock.flush();
        self.connect_result().unwrap_or(Err(Errno::EINPROGRESS))
    }

    /// How the attempt to connect ended; `None` while it goes on.
    pub fn connect_result(&self) -> Option<Result<()>> {
        let mut inner = self.inner.lock();
        match inner.state {
            State::Connecting => None,
            State::Idle => Some(Err(inner.error.take().unwrap_or(Errno::ENOTCONN))),
            _ => Some(Ok(())),
        }
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        {
            let mut inner = self.inner.lock();
            match inner.state {
                State::Connected => {}
                State::Over => return Ok(()),
                _ => return Err(Errno::ENOTCONN),
            }
            let flags =
                if how.read() { NO_RECEIVE } else { 0 } | if how.write() { NO_SEND } else { 0 };
            inner.shut |= flags;
            let told = inner.shut;
            let packet = inner.bare(op::SHUTDOWN, told);
            self.vsock.push(packet);
        }
        self.vsock.flush();
        self.pollee
            .notify(Events::IN | Events::OUT | Events::HUP | Events::RDHUP);
        Ok(())
    }

    /// The last descriptor is gone.
    pub fn close(&self) {
        let (bound, waiting, deadline, key) = {
            let mut inner = self.inner.lock();
            let key = inner.peer.map(|peer| (inner.local.port, peer));
            let bound = inner.bound.take();
            let mut waiting = VecDeque::new();
            let mut deadline = None;
            match &mut inner.state {
                State::Listening { queue, .. } => waiting = core::mem::take(queue),
                State::Connecting => {
                    let packet = inner.bare(op::RST, 0);
                    self.vsock.push(packet);
                    inner.over(None);
                }
                State::Connected => {
                    let packet = inner.bare(op::SHUTDOWN, NO_RECEIVE | NO_SEND);
                    self.vsock.push(packet);
                    inner.state = State::Closing;
                    deadline = Some(machine::time::now_ns().saturating_add(CLOSE_NS));
                    inner.deadline = deadline;
                }
                _ => {}
            }
            if !matches!(inner.state, State::Closing) {
                inner.state = State::Over;
            }
            inner.rx.clear();
            (bound, waiting, deadline, key)
        };
        for child in waiting {
            child.close();
        }
        if let Some(addr) = bound {
            self.vsock.remove_bound(addr.port, self);
        }
        match (deadline, key) {
            (Some(at), _) => self.vsock.arm(at),
            (None, Some(key)) => self.vsock.remove_connection(key, self),
            _ => {}
        }
        self.vsock.flush();
    }

    /// `getsockname(2)`.
    pub fn local_addr(&self) -> VsockAddr {
        let inner = self.inner.lock();
        match (inner.peer, inner.bound) {
            (None, Some(addr)) => addr,
            _ => inner.local,
        }
    }

    /// `getpeername(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_addr(&self) -> Result<VsockAddr> {
        let inner = self.inner.lock();
        match inner.state {
            State::Connected | State::Over => inner.peer.ok_or(Errno::ENOTCONN),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Sets an option; the buffer's size stays within its bounds, as Linux has it.
    pub fn set_option(&self, option: VsockOption) {
        let packet = {
            let mut inner = self.inner.lock();
            match option {
                VsockOption::Buffer(size) => inner.buffer = size,
                VsockOption::BufferMin(size) => inner.buffer_min = size,
                VsockOption::BufferMax(size) => inner.buffer_max = size,
                VsockOption::ConnectTimeout(ns) => inner.connect_timeout_ns = ns,
            }
            let (min, max) = (inner.buffer_min, inner.buffer_max);
            inner.buffer = inner.buffer.max(min).min(max).min(u64::from(u32::MAX));
            (matches!(option, VsockOption::Buffer(_)) && inner.is_connected())
                .then(|| inner.bare(op::CREDIT_UPDATE, 0))
        };
        if let Some(packet) = packet {
            self.vsock.push(packet);
            self.vsock.flush();
        }
    }

    /// All options: buffer, least, most, connect timeout.
    pub fn options(&self) -> [VsockOption; 4] {
        let inner = self.inner.lock();
        [
            VsockOption::Buffer(inner.buffer),
            VsockOption::BufferMin(inner.buffer_min),
            VsockOption::BufferMax(inner.buffer_max),
            VsockOption::ConnectTimeout(inner.connect_timeout_ns),
        ]
    }

    /// The pending error, which is cleared.
    pub fn take_error(&self) -> Option<Errno> {
        self.inner.lock().error.take()
    }

    /// Whether it accepts connections.
    pub fn is_listening(&self) -> bool {
        matches!(self.inner.lock().state, State::Listening { .. })
    }

    /// What it is ready for (`vsock_poll`).
    pub fn poll(&self) -> Events {
        let inner = self.inner.lock();
        let mut events = Events::empty();
        if inner.error.is_some() {
            events |= Events::ERR;
        }
        let over = matches!(inner.state, State::Over | State::Closing);
        let ended = inner.peer_shut & NO_SEND != 0 || inner.shut & NO_RECEIVE != 0;
        let both = NO_RECEIVE | NO_SEND;
        if over || inner.shut == both || inner.peer_shut & inner.shut == both {
            events |= Events::HUP;
        }
        match &inner.state {
            State::Listening { queue, .. } => {
                if !queue.is_empty() {
                    events |= Events::IN;
                }
            }
            State::Idle => events |= Events::OUT,
            State::Connecting => {}
            _ => {
                let ready = if self.stream {
                    inner.rx_bytes > 0
                } else {
                    inner.messages > 0
                };
                if ready || ended {
                    events |= Events::IN;
                }
                if ended {
                    events |= Events::RDHUP;
                }
                if inner.shut & NO_SEND == 0 && (over || inner.credit() > 0) {
                    events |= Events::OUT;
                }
            }
        }
        events
    }

    /// Where its changes are told.
    pub fn pollee(&self) -> &Pollee {
        &self.pollee
    }

    /// Bytes to read.
    pub fn input_queued(&self) -> usize {
        self.inner.lock().rx_bytes as usize
    }
}
