//! `AF_NETLINK`. With `NETLINK_ROUTE` (`rtnetlink(7)`): dumps of links, addresses, routes and
//! neighbours, which `getifaddrs(3)`, `if_nameindex(3)` and `getaddrinfo(3)` are made of, changes of them, and news of
//! changes for those who joined a group. With `NETLINK_SOCK_DIAG` (`sock_diag(7)`): the sockets there are, for `ss`.

mod change;
mod diag;
mod dump;
mod message;

pub use change::set_flags;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use machine::sync::SpinLock;
use net::query::Change;
use net::{MsgFlags, Shutdown};
use sched::poll::{Events, Pollee};

use super::addr::{AF_NETLINK, Address};
use super::ops::{Kind, Received, SendMsg, SocketOps};
use super::option::{self as so, SOL_SOCKET, int, parse_int};

/// `NETLINK_ROUTE`.
pub const NETLINK_ROUTE: i32 = 0;
/// `NETLINK_SOCK_DIAG`.
pub const NETLINK_SOCK_DIAG: i32 = 4;

const SOL_NETLINK: i32 = 270;
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_DROP_MEMBERSHIP: i32 = 2;
const NETLINK_PKTINFO: i32 = 3;
const NETLINK_EXT_ACK: i32 = 11;
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// How many bytes of answers and news wait at most.
const LIMIT: usize = 212_992;
/// The longest request.
const MAX_REQUEST: usize = 65536;

/// A netlink socket.
pub struct NetlinkSocket {
    me: Weak<NetlinkSocket>,
    kind: Kind,
    protocol: i32,
    port: AtomicU32,
    groups: AtomicU32,
    queue: SpinLock<Queue>,
    overrun: AtomicBool,
    pollee: Pollee,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<(Vec<u8>, u32)>,
    bytes: usize,
}

static NEXT_PORT: AtomicU32 = AtomicU32::new(0x8000_0000);
static LISTENERS: SpinLock<Vec<Weak<NetlinkSocket>>> = SpinLock::new(Vec::new());
static OBSERVING: AtomicBool = AtomicBool::new(false);

impl NetlinkSocket {
    /// A socket that nobody knows yet.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` for another protocol than `NETLINK_ROUTE` and `NETLINK_SOCK_DIAG`.
    pub fn new(kind: Kind, protocol: i32) -> Result<Arc<Self>> {
        if protocol != NETLINK_ROUTE && protocol != NETLINK_SOCK_DIAG {
            return Err(Errno::EPROTONOSUPPORT);
        }
        Ok(Arc::new_cyclic(|me| NetlinkSocket {
            me: me.clone(),
            kind,
            protocol,
            port: AtomicU32::new(0),
            groups: AtomicU32::new(0),
            queue: SpinLock::new(Queue::default()),
            overrun: AtomicBool::new(false),
            pollee: Pollee::new(),
        }))
    }

    fn autobind(&self) -> u32 {
        // The first socket of a process gets its id, later ones any other number.
        let wanted = if NEXT_PORT.load(Ordering::Relaxed) == 0x8000_0000 {
            crate::process::PID as u32
        } else {
            NEXT_PORT.load(Ordering::Relaxed)
        };
        match self
            .port
            .compare_exchange(0, wanted, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                NEXT_PORT.fetch_add(1, Ordering::Relaxed);
                wanted
            }
            Err(port) => port,
        }
    }

    /// Its port and groups.
    pub fn name(&self) -> (u32, u32) {
        (
            self.port.load(Ordering::Acquire),
            self.groups.load(Ordering::Acquire),
        )
    }

    fn push(&self, message: Vec<u8>, group: u32) {
        let mut queue = self.queue.lock();
        if queue.bytes + message.len() > LIMIT {
            drop(queue);
            self.overrun.store(true, Ordering::Release);
        } else {
            queue.bytes += message.len();
            queue.messages.push_back((message, group));
            drop(queue);
        }
        self.pollee.notify(Events::IN);
    }

    fn join(&self, groups: u32) {
        self.groups.store(groups, Ordering::Release);
        if groups == 0 {
            return;
        }
        let mut listeners = LISTENERS.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        if !listeners.iter().any(|l| Weak::ptr_eq(l, &self.me)) {
            listeners.push(self.me.clone());
        }
        drop(listeners);
        if !OBSERVING.swap(true, Ordering::AcqRel)
            && let Ok(stack) = super::stack()
        {
            stack.observe(Box::new(tell));
        }
    }
}

/// Tells the members of a change's group.
fn tell(change: &Change) {
    let Some((message, group)) = dump::news(change) else {
        return;
    };
    let members: Vec<Arc<NetlinkSocket>> =
        LISTENERS.lock().iter().filter_map(Weak::upgrade).collect();
    for member in members {
        let listens = member.groups.load(Ordering::Acquire) & group != 0;
        if listens && member.protocol == NETLINK_ROUTE {
            member.push(message.clone(), group.trailing_zeros() + 1);
        }
    }
}

impl SocketOps for NetlinkSocket {
    fn family(&self) -> u16 {
        AF_NETLINK
    }

    fn kind(&self) -> Kind {
        // Messages keep their borders in either kind.
        match self.kind {
            Kind::Raw => Kind::Raw,
            _ => Kind::Dgram,
        }
    }

    fn protocol(&self) -> i32 {
        self.protocol
    }

    fn bind(&self, addr: &Address) -> Result<()> {
        let Address::Netlink { port, groups } = addr else {
            return Err(Errno::EINVAL);
        };
        let own = self.port.load(Ordering::Acquire);
        if own != 0 && *port != 0 && own != *port {
            return Err(Errno::EINVAL);
        }
        if *port != 0 {
            self.port.store(*port, Ordering::Release);
        } else {
            self.autobind();
        }
        self.join(*groups);
        Ok(())
    }

    fn connect(&self, addr: &Address) -> Result<()> {
        match addr {
            Address::Netlink { port: 0, .. } | Address::Unspecified => {
                self.autobind();
                Ok(())
            }
            Address::Netlink { .. } => Err(Errno::ECONNREFUSED),
            _ => Err(Errno::EINVAL),
        }
    }

    fn send(&self, source: &mut dyn Source, msg: &SendMsg) -> Result<usize> {
        if let Some(Address::Netlink { port, .. }) = &msg.to
            && *port != 0
        {
            return Err(Errno::ECONNREFUSED);
        }
        let port = self.autobind();
        let len = source.remaining();
        if len > MAX_REQUEST {
            return Err(Errno::EMSGSIZE);
        }
        let mut request = alloc::vec![0; len];
        if source.take(&mut request)? < len {
            return Err(Errno::EFAULT);
        }
        let answers = match self.protocol {
            NETLINK_ROUTE => dump::answer(&request, port),
            _ => diag::answer(&request, port),
        };
        for answer in answers {
            self.push(answer, 0);
        }
        Ok(len)
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        if self.overrun.swap(false, Ordering::AcqRel) {
            return Err(Errno::ENOBUFS);
        }
        let peek = flags.contains(MsgFlags::PEEK);
        let (message, group) = {
            let mut queue = self.queue.lock();
            if peek {
                queue.messages.front().cloned().ok_or(Errno::EAGAIN)?
            } else {
                let first = queue.messages.pop_front().ok_or(Errno::EAGAIN)?;
                queue.bytes -= first.0.len();
                first
            }
        };
        let len = sink.put(&message)?;
        Ok(Received {
            len,
            full_len: message.len(),
            from: Some(Address::Netlink {
                port: 0,
                groups: group.checked_sub(1).map_or(0, |bit| 1 << bit),
            }),
            flags: if len < message.len() {
                MsgFlags::TRUNC
            } else {
                MsgFlags::empty()
            },
            control: Vec::new(),
            stop: true,
        })
    }

    fn shutdown(&self, _how: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn close(&self) {
        self.groups.store(0, Ordering::Release);
    }

    fn local_addr(&self) -> Result<Address> {
        Ok(Address::Netlink {
            port: self.port.load(Ordering::Acquire),
            groups: self.groups.load(Ordering::Acquire),
        })
    }

    fn peer_addr(&self) -> Result<Address> {
        Ok(Address::Netlink { port: 0, groups: 0 })
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (SOL_NETLINK, NETLINK_ADD_MEMBERSHIP | NETLINK_DROP_MEMBERSHIP) => {
                let group = parse_int(value)?;
                let bit = match group {
                    1..=32 => 1u32 << (group - 1),
                    // Groups that this kernel never tells of are joined in vain, as on Linux.
                    33..=64 => return Ok(()),
                    _ => return Err(Errno::EINVAL),
                };
                let groups = self.groups.load(Ordering::Acquire);
                self.join(if name == NETLINK_ADD_MEMBERSHIP {
                    groups | bit
                } else {
                    groups & !bit
                });
                Ok(())
            }
            // Answers carry no extended errors, and every request is checked strictly.
            (SOL_NETLINK, NETLINK_PKTINFO | NETLINK_EXT_ACK | NETLINK_GET_STRICT_CHK) => {
                parse_int(value).map(drop)
            }
            (
                SOL_SOCKET,
                so::SO_RCVBUF | so::SO_SNDBUF | so::SO_RCVBUFFORCE | so::SO_SNDBUFFORCE,
            ) => parse_int(value).map(drop),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: i32, name: i32, _len: usize) -> Result<Vec<u8>> {
        match (level, name) {
            (SOL_SOCKET, so::SO_RCVBUF | so::SO_SNDBUF) => Ok(int(LIMIT as i32)),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn take_error(&self) -> Option<Errno> {
        self.overrun
            .swap(false, Ordering::AcqRel)
            .then_some(Errno::ENOBUFS)
    }

    fn poll(&self) -> Events {
        let mut events = Events::OUT;
        if !self.queue.lock().messages.is_empty() {
            events |= Events::IN;
        }
        if self.overrun.load(Ordering::Acquire) {
            events |= Events::ERR;
        }
        events
    }

    fn pollee(&self) -> &Pollee {
        &self.pollee
    }

    fn input_queued(&self) -> Result<usize> {
        Ok(self.queue.lock().messages.front().map_or(0, |m| m.0.len()))
    }

    fn output_queued(&self) -> Result<usize> {
        Ok(0)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
