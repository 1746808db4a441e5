//! `AF_INET` and `AF_INET6`: sockets of the `net` room as descriptors see them.

mod ethtool;
pub mod ioctl;
mod ioctl_set;
mod kept;
mod multicast;
mod options;
mod tcp_info;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use net::nic::TxSegment;
use net::{Family, MsgFlags, SendMeta, Shutdown, Socket};
use sched::poll::{Events, Pollee};

use super::addr::{AF_INET, AF_INET6, Address};
use super::ops::{Control, Kind, Received, SendMsg, SocketOps};

/// A socket of the network engine.
pub struct InetSocket {
    socket: Arc<dyn Socket>,
    /// A connection attempt was left to go on; the call that finds it made is told of success once.
    connecting: AtomicBool,
    kept: kept::Kept,
}

impl InetSocket {
    /// Wraps a socket.
    pub fn new(socket: Arc<dyn Socket>) -> Arc<Self> {
        let kept = kept::Kept::new(socket.kind(), socket.protocol());
        Arc::new(InetSocket {
            socket,
            kept,
            connecting: AtomicBool::new(false),
        })
    }

    /// The engine's socket.
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }

    /// The address as the engine takes it. An IPv4 socket takes `AF_UNSPEC` with the "any" address in
    /// `bind`, nothing else of another family.
    fn addr(&self, addr: &Address) -> Result<SocketAddr> {
        match (addr, self.socket.family()) {
            (Address::Inet(addr @ SocketAddr::V4(_)), Family::Inet)
            | (Address::Inet(addr @ SocketAddr::V6(_)), Family::Inet6) => Ok(*addr),
            // A dual-stack socket talks to IPv4 by mapped addresses; a bare one is of the wrong family.
            (Address::Inet(_), _) => Err(Errno::EAFNOSUPPORT),
            (Address::Unspecified, _) => Err(Errno::EAFNOSUPPORT),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }
}

fn received(meta: net::RecvMeta) -> Received {
    Received {
        len: meta.len,
        full_len: meta.full_len,
        from: meta.from.map(Address::Inet),
        flags: meta.flags,
        control: meta.control.into_iter().map(Control::Net).collect(),
        stop: false,
    }
}

impl SocketOps for InetSocket {
    fn family(&self) -> u16 {
        match self.socket.family() {
            Family::Inet => AF_INET,
            Family::Inet6 => AF_INET6,
        }
    }

    fn kind(&self) -> Kind {
        match self.socket.kind() {
            net::Kind::Stream => Kind::Stream,
            net::Kind::Dgram => Kind::Dgram,
            net::Kind::Raw => Kind::Raw,
        }
    }

    fn protocol(&self) -> i32 {
        i32::from(self.socket.protocol())
    }

    fn bind(&self, addr: &Address) -> Result<()> {
        self.socket.bind(self.addr(addr)?)
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        // A negative backlog is a very large unsigned one, which `somaxconn` cuts.
        self.socket.listen(backlog as u32)
    }

    fn accept(&self) -> Result<Arc<dyn SocketOps>> {
        let socket = self.socket.accept()?;
        Ok(InetSocket::new(socket))
    }

    fn connect(&self, addr: &Address) -> Result<()> {
        let target = match addr {
            Address::Unspecified => None,
            addr => Some(self.addr(addr)?),
        };
        match self.socket.connect(target) {
            Err(Errno::EINPROGRESS) => {
                self.connecting.store(true, Ordering::Release);
                Err(Errno::EINPROGRESS)
            }
            Err(Errno::EISCONN) if self.connecting.swap(false, Ordering::AcqRel) => Ok(()),
            other => other,
        }
    }

    fn connect_result(&self) -> Option<Result<()>> {
        let result = self.socket.connect_result();
        if result.is_some() {
            self.connecting.store(false, Ordering::Release);
        }
        result
    }

    fn send_pages(&self, pages: &mut Vec<TxSegment>, more: bool) -> Result<usize> {
        match self.socket.as_any().downcast_ref::<net::TcpSocket>() {
            Some(tcp) => tcp.send_segments(pages, more),
            None => Err(Errno::EOPNOTSUPP),
        }
    }

    fn takes_pages(&self) -> bool {
        self.socket.kind() == net::Kind::Stream
    }

    fn send(&self, source: &mut dyn Source, msg: &SendMsg) -> Result<usize> {
        let opens = msg.flags.contains(MsgFlags::FASTOPEN);
        let to = match &msg.to {
            None => None,
            Some(Address::Unspecified) if opens => return Err(Errno::EOPNOTSUPP),
            // Linux takes AF_UNSPEC for AF_INET when sending a datagram over IPv6: treat as none.
            Some(Address::Unspecified) if self.socket.kind() != net::Kind::Stream => None,
            // A stream ignores the address, unless it is to connect there.
            Some(_) if self.socket.kind() == net::Kind::Stream && !opens => None,
            Some(addr) => Some(self.addr(addr)?),
        };
        let mut control = Vec::new();
        for message in &msg.control {
            match message {
                Control::Net(message) => control.push(*message),
                // SOL_SOCKET messages of other families are ignored, as Linux does.
                Control::Rights(_) | Control::Credentials(_) => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        self.socket.send(
            source,
            &SendMeta {
                to,
                flags: msg.flags,
                control: &control,
            },
        )
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        let meta = self.socket.recv(sink, flags)?;
        // Not even a read that waits for all goes past an urgent mark.
        let stop = flags.contains(MsgFlags::WAITALL) && self.socket.at_mark() == Ok(true);
        Ok(Received {
            stop,
            ..received(meta)
        })
    }

    fn peek_message(&self, off: usize, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        self.socket.peek_from(off, sink, flags).map(received)
    }

    fn can_peek(&self, off: usize) -> bool {
        self.socket.can_peek(off)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.socket.shutdown(how)
    }

    fn close(&self) {
        self.socket.close();
    }

    fn linger_pending(&self) -> bool {
        self.socket.linger_pending()
    }

    fn local_addr(&self) -> Result<Address> {
        self.socket.local_addr().map(Address::Inet)
    }

    fn peer_addr(&self) -> Result<Address> {
        self.socket.peer_addr().map(Address::Inet)
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if let Some(result) = self.kept.set(level, name, value)
            && (level != options::SOL_IPV6 || self.socket.family() == Family::Inet6)
        {
            return result;
        }
        match options::decode(self.socket.as_ref(), level, name, value)? {
            Some(option) => self.socket.set_option(option),
            None => Ok(()),
        }
    }

    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        match self.kept.get(level, name) {
            Some(value) if level != options::SOL_IPV6 || self.socket.family() == Family::Inet6 => {
                Ok(options::fit(value, level, len))
            }
            _ => options::get(self.socket.as_ref(), level, name, len),
        }
    }

    fn take_error(&self) -> Option<Errno> {
        self.socket.take_error()
    }

    fn poll(&self) -> Events {
        self.socket.poll()
    }

    fn pollee(&self) -> &Pollee {
        self.socket.pollee()
    }

    fn input_queued(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self.socket.input_queued())
    }

    fn output_queued(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self.socket.output_queued())
    }

    fn at_mark(&self) -> Result<bool> {
        self.socket.at_mark()
    }

    fn is_listening(&self) -> bool {
        matches!(
            self.socket.option(net::OptName::AcceptConn),
            Ok(net::Opt::AcceptConn(true))
        )
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
