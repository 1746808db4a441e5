//! `AF_UNIX` sockets (`unix(7)`): stream, datagram and sequenced-packet, by path, abstract or
//! without a name.
//!
//! Data lies in the receiver; a sender holds its peer weakly. Sockets that are on their way in each
//! other's queues and nowhere else are found by [`garbage`].

mod connect;
mod garbage;
pub mod names;
mod options;
mod queue;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use machine::sync::SpinLock;
use net::{MsgFlags, Shutdown};
use sched::Mutex;
use sched::poll::{Events, Observer, Pollee, Registration};

use self::garbage::InFlight;
use self::names::Binding;
use self::queue::{Extras, Queue, Taken};
use super::addr::{AF_UNIX, Address, UnixAddr};
use super::ops::{Control, Credentials, Kind, Received, SendMsg, SocketOps};

/// The usual size of the buffers (`net.core.wmem_default`).
const BUFFER: usize = 212_992;
/// How many datagrams wait at most (`net.unix.max_dgram_qlen`).
const MAX_DATAGRAMS: usize = 512;
/// How many descriptors go with one message (`SCM_MAX_FD`).
pub const MAX_RIGHTS: usize = 253;

/// Where a socket stands.
enum State {
    /// Neither listening nor connected.
    Idle,
    Listening {
        backlog: usize,
        waiting: VecDeque<Arc<UnixSocket>>,
    },
    Connected {
        peer: Weak<UnixSocket>,
        /// Tells a datagram sender that its peer has room again. The registration holds the
        /// observer weakly, so it is kept here.
        _room: Option<(Registration, Arc<dyn Observer>)>,
    },
}

/// A UNIX socket.
pub struct UnixSocket {
    me: Weak<UnixSocket>,
    kind: Kind,
    state: SpinLock<State>,
    binding: SpinLock<Option<Arc<Binding>>>,
    /// The name shown by a socket that `accept(2)` made: its listener's.
    inherited: SpinLock<Option<Arc<Binding>>>,
    /// The name of a peer that is gone.
    left: SpinLock<Option<UnixAddr>>,
    queue: Mutex<Queue>,
    /// Mirrors of the queue for `poll`, which must not sleep.
    queued_bytes: AtomicUsize,
    queued_messages: AtomicUsize,
    receive_closed: AtomicBool,
    send_closed: AtomicBool,
    error: SpinLock<Option<Errno>>,
    peer_credentials: SpinLock<Option<Credentials>>,
    pass_credentials: AtomicBool,
    /// Datagrams are told with the time they were received at, as on Linux.
    time_stamps: AtomicBool,
    send_buffer: AtomicUsize,
    pollee: Pollee,
    /// For those who wait to send a datagram here, or to connect.
    room: Pollee,
}

/// Hands a wake-up on to a sender's own pollee.
struct Forward(Weak<UnixSocket>);

impl Observer for Forward {
    fn notify(&self, _events: Events) {
        if let Some(socket) = self.0.upgrade() {
            socket.pollee.notify(Events::OUT);
        }
    }
}

/// The ids the process has now.
pub fn own_credentials() -> Credentials {
    match crate::process::get() {
        Some(process) => {
            let ids = process.credentials.lock();
            Credentials {
                pid: crate::process::PID,
                uid: ids.uid[1],
                gid: ids.gid[1],
            }
        }
        None => Credentials {
            pid: crate::process::PID,
            uid: 0,
            gid: 0,
        },
    }
}

impl UnixSocket {
    /// An unbound socket.
    pub fn new(kind: Kind) -> Arc<UnixSocket> {
        Arc::new_cyclic(|me| UnixSocket {
            me: me.clone(),
            kind,
            state: SpinLock::new(State::Idle),
            binding: SpinLock::new(None),
            inherited: SpinLock::new(None),
            left: SpinLock::new(None),
            queue: Mutex::new(Queue::default()),
            queued_bytes: AtomicUsize::new(0),
            queued_messages: AtomicUsize::new(0),
            receive_closed: AtomicBool::new(false),
            send_closed: AtomicBool::new(false),
            error: SpinLock::new(None),
            peer_credentials: SpinLock::new(None),
            pass_credentials: AtomicBool::new(false),
            time_stamps: AtomicBool::new(false),
            send_buffer: AtomicUsize::new(BUFFER),
            pollee: Pollee::new(),
            room: Pollee::new(),
        })
    }

    /// Two sockets connected to each other (`socketpair(2)`).
    pub fn pair(kind: Kind) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
        let (a, b) = (Self::new(kind), Self::new(kind));
        a.set_peer(&b);
        b.set_peer(&a);
        (a, b)
    }

    fn is_message(&self) -> bool {
        self.kind != Kind::Stream
    }

    fn set_peer(&self, peer: &Arc<UnixSocket>) {
        let room = (self.kind == Kind::Dgram).then(|| {
            let forward: Arc<dyn Observer> = Arc::new(Forward(self.me.clone()));
            (peer.room.register(&Arc::downgrade(&forward)), forward)
        });
        *self.peer_credentials.lock() = Some(own_credentials());
        let connected = State::Connected {
            peer: Arc::downgrade(peer),
            _room: room,
        };
        let old = core::mem::replace(&mut *self.state.lock(), connected);
        drop(old);
    }

    fn peer(&self) -> Result<Arc<UnixSocket>> {
        match &*self.state.lock() {
            State::Connected { peer, .. } => peer.upgrade().ok_or(Errno::EPIPE),
            _ => Err(Errno::ENOTCONN),
        }
    }

    fn is_connected(&self) -> bool {
        matches!(&*self.state.lock(), State::Connected { .. })
    }

    fn name(&self) -> UnixAddr {
        let own = self.binding.lock().clone();
        let own = own.or_else(|| self.inherited.lock().clone());
        own.map_or(UnixAddr::Unnamed, |binding| binding.addr.clone())
    }

    /// What `/proc/net/unix` shows of it.
    fn row(&self) -> names::Row {
        use alloc::string::String;
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        names::Row {
            name: match self.name() {
                UnixAddr::Unnamed => String::new(),
                UnixAddr::Path(path) => lossy(&path),
                UnixAddr::Abstract(name) => alloc::format!("@{}", lossy(&name)),
            },
            kind: self.kind as i32,
            listening: self.is_listening(),
        }
    }

    fn take_pending_error(&self) -> Result<()> {
        match self.error.lock().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn note_queue(&self, queue: &Queue) {
        self.queued_bytes.store(queue.bytes(), Ordering::Release);
        self.queued_messages
            .store(queue.messages(), Ordering::Release);
    }

    /// Whether a further message or byte may be queued here.
    fn has_room(&self) -> bool {
        if self.is_message() && self.queued_messages.load(Ordering::Acquire) >= MAX_DATAGRAMS {
            return false;
        }
        self.queued_bytes.load(Ordering::Acquire) < BUFFER
    }

    /// Puts data into this socket's queue on behalf of a sender.
    fn deliver(&self, source: &mut dyn Source, limit: usize, extras: Extras) -> Result<usize> {
        let mut queue = self.queue.lock();
        if self.receive_closed.load(Ordering::Acquire) {
            return Err(Errno::EPIPE);
        }
        let result = if self.is_message() {
            if !self.has_room() {
                return Err(Errno::EAGAIN);
            }
            queue.push_message(source, extras)
        } else {
            queue.push_stream(source, limit, extras)
        };
        self.note_queue(&queue);
        drop(queue);
        if result.is_ok() {
            self.pollee.notify(Events::IN);
        }
        result
    }

    /// Tells senders that there is room.
    fn freed(&self) {
        self.room.notify(Events::OUT);
        if self.kind != Kind::Dgram
            && let Ok(peer) = self.peer()
        {
            peer.pollee.notify(Events::OUT);
        }
    }

    /// The peer will send no more, or is gone.
    fn peer_closed(&self, error: Option<Errno>) {
        if error.is_some() {
            *self.error.lock() = error;
        }
        self.pollee
            .notify(Events::IN | Events::OUT | Events::HUP | Events::RDHUP);
    }

    /// Sorts out the control messages of a send.
    fn extras(&self, msg: &SendMsg) -> Result<Extras> {
        let mut rights: Vec<Arc<fs::OpenFile>> = Vec::new();
        let mut extras = Extras {
            rights: InFlight::default(),
            credentials: own_credentials(),
            from: self.name(),
        };
        for control in &msg.control {
            match control {
                Control::Rights(files) => {
                    if rights.len() + files.len() > MAX_RIGHTS {
                        return Err(Errno::EINVAL);
                    }
                    rights.extend(files.iter().cloned());
                }
                Control::Credentials(given) => {
                    let own = own_credentials();
                    if *given != own && own.uid != 0 {
                        return Err(Errno::EPERM);
                    }
                    if given.pid != own.pid {
                        return Err(Errno::ESRCH);
                    }
                    extras.credentials = *given;
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        extras.rights = InFlight::new(rights);
        Ok(extras)
    }

    fn received(&self, taken: Taken) -> Received {
        let mut control = Vec::new();
        if self.time_stamps.load(Ordering::Relaxed) {
            control.push(Control::Arrived(machine::time::now_ns()));
        }
        if self.pass_credentials.load(Ordering::Relaxed) {
            control.push(Control::Credentials(taken.credentials));
        }
        if !taken.rights.is_empty() {
            control.push(Control::Rights(taken.rights));
        }
        let mut answer = MsgFlags::empty();
        if taken.len < taken.full_len {
            answer |= MsgFlags::TRUNC;
        }
        let from = match taken.from {
            UnixAddr::Unnamed => None,
            addr => Some(Address::Unix(addr)),
        };
        Received {
            len: taken.len,
            full_len: taken.full_len,
            from: if self.kind == Kind::Dgram { from } else { None },
            flags: answer,
            control,
            stop: taken.stop,
        }
    }
}

impl SocketOps for UnixSocket {
    fn family(&self) -> u16 {
        AF_UNIX
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn protocol(&self) -> i32 {
        0
    }

    fn bind(&self, addr: &Address) -> Result<()> {
        self.bind_name(addr)
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        self.start_listening(backlog)
    }

    fn accept(&self) -> Result<Arc<dyn SocketOps>> {
        self.take_connection()
            .map(|socket| socket as Arc<dyn SocketOps>)
    }

    fn connect(&self, addr: &Address) -> Result<()> {
        self.connect_name(addr)
    }

    fn send(&self, source: &mut dyn Source, msg: &SendMsg) -> Result<usize> {
        if msg.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.kind != Kind::Dgram {
            self.take_pending_error()?;
            // Linux does not look at the address of a sequenced packet.
            if msg.to.is_some() && self.kind == Kind::Stream {
                return Err(if self.is_connected() {
                    Errno::EISCONN
                } else {
                    Errno::EOPNOTSUPP
                });
            }
        }
        let to = msg.to.as_ref().filter(|_| self.kind == Kind::Dgram);
        let target = match to {
            Some(Address::Unix(name)) => self.find_datagram_target(name)?,
            Some(_) => return Err(Errno::EINVAL),
            None => match self.peer() {
                Ok(peer) => peer,
                Err(Errno::EPIPE) if self.kind == Kind::Dgram => {
                    return Err(Errno::ECONNREFUSED);
                }
                Err(error) => return Err(error),
            },
        };
        if self.send_closed.load(Ordering::Acquire) {
            return Err(Errno::EPIPE);
        }
        if self.is_message() && source.remaining() > self.send_buffer.load(Ordering::Relaxed) {
            return Err(Errno::EMSGSIZE);
        }
        let extras = self.extras(msg)?;
        if self.pass_credentials.load(Ordering::Relaxed) && self.kind == Kind::Dgram {
            self.autobind_if_unnamed()?;
        }
        if source.remaining() == 0 && !self.is_message() {
            return Ok(0);
        }
        target.deliver(source, self.send_buffer.load(Ordering::Relaxed), extras)
    }

    fn wait_to_send(&self, msg: &SendMsg, deadline_ns: Option<u64>) -> Result<bool> {
        if self.kind != Kind::Dgram {
            return Ok(false);
        }
        let target = match &msg.to {
            Some(Address::Unix(name)) => self.find_datagram_target(name)?,
            _ => self.peer()?,
        };
        crate::files::blocking::wait(&target.room, deadline_ns, || {
            target.has_room() || target.receive_closed.load(Ordering::Acquire)
        })?;
        Ok(true)
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        match &*self.state.lock() {
            State::Idle if self.kind == Kind::SeqPacket => return Err(Errno::ENOTCONN),
            State::Idle | State::Listening { .. } if self.kind == Kind::Stream => {
                return Err(Errno::EINVAL);
            }
            _ => {}
        }
        let peek = flags.contains(MsgFlags::PEEK);
        let mut queue = self.queue.lock();
        let taken = if self.is_message() {
            queue.take_message(sink, peek)
        } else {
            queue.take_stream(sink, peek)
        };
        self.note_queue(&queue);
        drop(queue);
        match taken {
            Ok(taken) => {
                if !peek {
                    self.freed();
                }
                Ok(self.received(taken))
            }
            Err(Errno::EAGAIN) => {
                self.take_pending_error()?;
                let peer_gone = self.kind != Kind::Dgram && self.peer().is_err();
                if self.receive_closed.load(Ordering::Acquire) || peer_gone {
                    return Ok(Received::default());
                }
                Err(Errno::EAGAIN)
            }
            Err(error) => Err(error),
        }
    }

    fn peek_message(&self, off: usize, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let taken = self.queue.lock().peek_message(off, sink);
        match taken {
            Ok(taken) => Ok(self.received(taken)),
            // No message that far: an error, the end, or not yet.
            Err(Errno::EAGAIN) if self.queued_messages.load(Ordering::Acquire) == 0 => {
                self.recv(sink, flags)
            }
            Err(Errno::EAGAIN) if self.receive_closed.load(Ordering::Acquire) => {
                Ok(Received::default())
            }
            Err(error) => Err(error),
        }
    }

    fn can_peek(&self, off: usize) -> bool {
        self.queue.lock().message_at(off).is_some()
            || self
                .poll()
                .intersects(Events::ERR | Events::RDHUP | Events::HUP)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let peer = self.peer();
        if how.read() {
            self.receive_closed.store(true, Ordering::Release);
        }
        if how.write() {
            self.send_closed.store(true, Ordering::Release);
        }
        if let Ok(peer) = peer
            && self.kind != Kind::Dgram
        {
            if how.write() {
                peer.receive_closed.store(true, Ordering::Release);
            }
            if how.read() {
                peer.send_closed.store(true, Ordering::Release);
            }
            peer.peer_closed(None);
        }
        self.peer_closed(None);
        Ok(())
    }

    fn close(&self) {
        let unread = self.queued_messages.load(Ordering::Acquire) > 0;
        let state = core::mem::replace(&mut *self.state.lock(), State::Idle);
        self.receive_closed.store(true, Ordering::Release);
        self.send_closed.store(true, Ordering::Release);
        let name = self.name();
        let binding = self.binding.lock().take();
        drop(binding);
        match state {
            State::Connected { peer, .. } => {
                if let Some(peer) = peer.upgrade()
                    && self.kind != Kind::Dgram
                {
                    peer.receive_closed.store(true, Ordering::Release);
                    peer.send_closed.store(true, Ordering::Release);
                    *peer.left.lock() = Some(name);
                    peer.peer_closed(unread.then_some(Errno::ECONNRESET));
                }
            }
            State::Listening { waiting, .. } => {
                for embryo in waiting {
                    // The client has nobody to talk to.
                    if let Ok(client) = embryo.peer() {
                        client.receive_closed.store(true, Ordering::Release);
                        client.send_closed.store(true, Ordering::Release);
                        client.peer_closed(Some(Errno::ECONNRESET));
                    }
                }
            }
            State::Idle => {}
        }
        let rest = core::mem::take(&mut *self.queue.lock());
        drop(rest);
        self.room.notify(Events::OUT | Events::HUP);
        self.pollee.notify(Events::IN | Events::OUT | Events::HUP);
        garbage::collect();
    }

    fn local_addr(&self) -> Result<Address> {
        Ok(Address::Unix(self.name()))
    }

    fn peer_addr(&self) -> Result<Address> {
        if let Some(name) = self.left.lock().clone() {
            return Ok(Address::Unix(name));
        }
        match self.peer() {
            Ok(peer) => Ok(Address::Unix(peer.name())),
            Err(Errno::EPIPE) => Ok(Address::Unix(UnixAddr::Unnamed)),
            Err(error) => Err(error),
        }
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.set(level, name, value)
    }

    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        self.get(level, name, len)
    }

    fn take_error(&self) -> Option<Errno> {
        self.error.lock().take()
    }

    fn poll(&self) -> Events {
        let mut events = Events::empty();
        let (listening, connected, peer) = match &*self.state.lock() {
            State::Listening { waiting, .. } => {
                if !waiting.is_empty() {
                    events |= Events::IN;
                }
                (true, false, None)
            }
            State::Connected { peer, .. } => (false, true, peer.upgrade()),
            State::Idle => (false, false, None),
        };
        if listening {
            return events;
        }
        let is_dgram = self.kind == Kind::Dgram;
        let peer_gone = connected && !is_dgram && peer.is_none();
        let receive_closed = self.receive_closed.load(Ordering::Acquire) || peer_gone;
        let send_closed = self.send_closed.load(Ordering::Acquire) || peer_gone;
        if self.queued_messages.load(Ordering::Acquire) > 0 || receive_closed {
            events |= Events::IN;
        }
        if receive_closed {
            events |= Events::RDHUP;
        }
        if (receive_closed && send_closed) || (!connected && !is_dgram) {
            events |= Events::HUP;
        }
        if self.error.lock().is_some() {
            events |= Events::ERR;
        }
        if peer.is_none_or(|peer| send_closed || peer.has_room()) {
            events |= Events::OUT;
        }
        events
    }

    fn pollee(&self) -> &Pollee {
        &self.pollee
    }

    fn input_queued(&self) -> Result<usize> {
        if matches!(&*self.state.lock(), State::Listening { .. }) {
            return Err(Errno::EINVAL);
        }
        let queue = self.queue.lock();
        Ok(if self.kind == Kind::Dgram {
            queue.first_len()
        } else {
            queue.bytes()
        })
    }

    fn output_queued(&self) -> Result<usize> {
        Ok(match self.peer() {
            Ok(peer) if self.kind != Kind::Dgram => peer.queued_bytes.load(Ordering::Acquire),
            _ => 0,
        })
    }

    fn is_listening(&self) -> bool {
        matches!(&*self.state.lock(), State::Listening { .. })
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
