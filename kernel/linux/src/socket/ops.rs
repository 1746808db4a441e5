//! What a socket of any family does, without waiting: the [`SocketOps`] trait and the messages that
//! go through it. Waiting, timeouts and signals are [`file`](super::file)'s.

use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::OpenFile;
use iobuf::{Sink, Source};
use net::nic::TxSegment;
use net::{MsgFlags, Shutdown};
use sched::poll::{Events, Pollee};

use super::addr::Address;
use crate::mm::pager::Pager;

/// `SOCK_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// `SOCK_STREAM`.
    Stream = 1,
    /// `SOCK_DGRAM`.
    Dgram = 2,
    /// `SOCK_RAW`.
    Raw = 3,
    /// `SOCK_SEQPACKET`.
    SeqPacket = 5,
}

impl Kind {
    /// Whether sends go on until all is sent, and a receive may wait for all.
    pub fn is_stream(self) -> bool {
        self == Kind::Stream
    }
}

/// Ids as `struct ucred` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Credentials {
    /// Those of a sender that is not known.
    pub const NOBODY: Credentials = Credentials {
        pid: 0,
        uid: 65534,
        gid: 65534,
    };

    /// `struct ucred`.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.uid.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.gid.to_ne_bytes());
        bytes
    }
}

/// A control message of any family.
#[derive(Clone)]
pub enum Control {
    /// One of IP's.
    Net(net::Control),
    /// `SCM_RIGHTS`.
    Rights(Vec<Arc<OpenFile>>),
    /// `SCM_CREDENTIALS`.
    Credentials(Credentials),
    /// Sends with `MSG_ZEROCOPY` ended, from the first's number to the last's; their data was copied.
    Sent {
        /// The first.
        first: u32,
        /// The last.
        last: u32,
    },
    /// When it arrived, in nanoseconds of the monotonic clock.
    Arrived(u64),
    /// Any other that is only handed on: level, type, data.
    Bytes(i32, i32, Vec<u8>),
}

/// What goes with a send.
#[derive(Default)]
pub struct SendMsg {
    /// The destination, when the call names one.
    pub to: Option<Address>,
    /// `MSG_*`.
    pub flags: MsgFlags,
    /// Control messages.
    pub control: Vec<Control>,
}

/// What a receive brought.
#[derive(Default)]
pub struct Received {
    /// Bytes put into the sink.
    pub len: usize,
    /// The message's whole length.
    pub full_len: usize,
    /// Who sent it.
    pub from: Option<Address>,
    /// `MSG_*` for the answer.
    pub flags: MsgFlags,
    /// Control messages.
    pub control: Vec<Control>,
    /// A further receive of the same call must not add to this one.
    pub stop: bool,
}

/// A socket of any family. Nothing here waits: `EAGAIN` says to try again when the pollee tells.
pub trait SocketOps: Send + Sync {
    /// `AF_*`.
    fn family(&self) -> u16;

    /// `SOCK_*`.
    fn kind(&self) -> Kind;

    /// The protocol's number.
    fn protocol(&self) -> i32;

    /// `bind(2)`.
    ///
    /// # Errors
    /// `EINVAL`, `EADDRINUSE`, ...
    fn bind(&self, addr: &Address) -> Result<()>;

    /// `listen(2)`.
    ///
    /// # Errors
    /// `EOPNOTSUPP` by default.
    fn listen(&self, backlog: i32) -> Result<()> {
        let _ = backlog;
        Err(Errno::EOPNOTSUPP)
    }

    /// Takes a connection off the queue.
    ///
    /// # Errors
    /// `EAGAIN`; `EOPNOTSUPP` by default.
    fn accept(&self) -> Result<Arc<dyn SocketOps>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Starts or makes a connection. `EINPROGRESS` asks to wait and call
    /// [`SocketOps::connect_result`]; `EAGAIN` to wait for [`SocketOps::pollee`] and try again.
    ///
    /// # Errors
    /// As `connect(2)`.
    fn connect(&self, addr: &Address) -> Result<()>;

    /// How the connection attempt ended; `None` while it goes on.
    fn connect_result(&self) -> Option<Result<()>> {
        Some(Ok(()))
    }

    /// Sends.
    ///
    /// # Errors
    /// As `send(2)`; `EPIPE` has the caller raise `SIGPIPE`.
    fn send(&self, source: &mut dyn Source, msg: &SendMsg) -> Result<usize>;

    /// Sends from the front of `pages` without copying, as much as there is room for; `more`: the last one is followed by
    /// others at once.
    ///
    /// # Errors
    /// As [`SocketOps::send`]; `EOPNOTSUPP` by default.
    fn send_pages(&self, pages: &mut Vec<TxSegment>, more: bool) -> Result<usize> {
        let _ = (pages, more);
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether [`SocketOps::send_pages`] works.
    fn takes_pages(&self) -> bool {
        false
    }

    /// Waits, if a send of `msg` that was told `EAGAIN` needs more than [`SocketOps::poll`]; answers
    /// whether it did.
    ///
    /// # Errors
    /// As `blocking::wait`.
    fn wait_to_send(&self, msg: &SendMsg, deadline_ns: Option<u64>) -> Result<bool> {
        let _ = (msg, deadline_ns);
        Ok(false)
    }

    /// Receives.
    ///
    /// # Errors
    /// As `recv(2)`.
    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received>;

    /// Peeks at a message from byte `off` of all that is queued: those that end before it are passed over
    /// (`SO_PEEK_OFF`).
    ///
    /// # Errors
    /// As [`SocketOps::recv`], and `EAGAIN` when nothing reaches that far; `EOPNOTSUPP` by default.
    fn peek_message(&self, off: usize, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        let _ = (off, sink, flags);
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether [`SocketOps::peek_message`] has an answer other than `EAGAIN`.
    fn can_peek(&self, off: usize) -> bool {
        let _ = off;
        true
    }

    /// What `mmap(2)` of `bytes` bytes at `offset` shows, from its start.
    ///
    /// # Errors
    /// `ENODEV` by default; `EINVAL` for another part than can be mapped.
    fn mapping(&self, offset: u64, bytes: usize) -> Result<Arc<dyn Pager>> {
        let _ = (offset, bytes);
        Err(Errno::ENODEV)
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn shutdown(&self, how: Shutdown) -> Result<()>;

    /// The last descriptor is gone.
    fn close(&self);

    /// Whether a closed stream still has something to deliver (`SO_LINGER`).
    fn linger_pending(&self) -> bool {
        false
    }

    /// `getsockname(2)`.
    ///
    /// # Errors
    /// None usually.
    fn local_addr(&self) -> Result<Address>;

    /// `getpeername(2)`.
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn peer_addr(&self) -> Result<Address>;

    /// `setsockopt(2)` of what [`file`](super::file) does not do for all families.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL`, ...
    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()>;

    /// `getsockopt(2)`, likewise. `len` is how much room the program has.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, ...
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>>;

    /// The pending error, which is cleared (`SO_ERROR`).
    fn take_error(&self) -> Option<Errno>;

    /// What it is ready for.
    fn poll(&self) -> Events;

    /// Where its changes are told.
    fn pollee(&self) -> &Pollee;

    /// Bytes to read (`SIOCINQ`).
    ///
    /// # Errors
    /// `EINVAL` for a listener.
    fn input_queued(&self) -> Result<usize>;

    /// Bytes not yet sent or read by the peer (`SIOCOUTQ`).
    ///
    /// # Errors
    /// `EINVAL` for a listener.
    fn output_queued(&self) -> Result<usize>;

    /// Whether urgent data is next (`SIOCATMARK`).
    ///
    /// # Errors
    /// `EOPNOTSUPP` by default.
    fn at_mark(&self) -> Result<bool> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether the kind accepts connections now (`SO_ACCEPTCONN`).
    fn is_listening(&self) -> bool {
        false
    }

    /// The implementation, for its own family to recognise.
    fn as_any(&self) -> &dyn core::any::Any;
}
