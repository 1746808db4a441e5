//! `AF_INET` and `AF_INET6`: sockets of the `net` room as descriptors see them.

pub mod ioctl;
mod options;
mod tcp_info;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use net::{Family, MsgFlags, SendMeta, Shutdown, Socket};
use sched::poll::{Events, Pollee};

use super::addr::{AF_INET, AF_INET6, Address};
use super::ops::{Control, Kind, Received, SendMsg, SocketOps};

/// A socket of the network engine.
pub struct InetSocket(Arc<dyn Socket>);

impl InetSocket {
    /// Wraps a socket.
    pub fn new(socket: Arc<dyn Socket>) -> Arc<Self> {
        Arc::new(InetSocket(socket))
    }

    /// The engine's socket.
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.0
    }

    /// The address as the engine takes it. An IPv4 socket takes `AF_UNSPEC` with the "any" address in
    /// `bind`, nothing else of another family.
    fn addr(&self, addr: &Address) -> Result<SocketAddr> {
        match (addr, self.0.family()) {
            (Address::Inet(addr @ SocketAddr::V4(_)), Family::Inet)
            | (Address::Inet(addr @ SocketAddr::V6(_)), Family::Inet6) => Ok(*addr),
            // A dual-stack socket talks to IPv4 by mapped addresses; a bare one is of the wrong family.
            (Address::Inet(_), _) => Err(Errno::EAFNOSUPPORT),
            (Address::Unspecified, _) => Err(Errno::EAFNOSUPPORT),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }
}

impl SocketOps for InetSocket {
    fn family(&self) -> u16 {
        match self.0.family() {
            Family::Inet => AF_INET,
            Family::Inet6 => AF_INET6,
        }
    }

    fn kind(&self) -> Kind {
        match self.0.kind() {
            net::Kind::Stream => Kind::Stream,
            net::Kind::Dgram => Kind::Dgram,
            net::Kind::Raw => Kind::Raw,
        }
    }

    fn protocol(&self) -> i32 {
        i32::from(self.0.protocol())
    }

    fn bind(&self, addr: &Address) -> Result<()> {
        self.0.bind(self.addr(addr)?)
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        // A negative backlog is a very large unsigned one, which `somaxconn` cuts.
        self.0.listen(backlog as u32)
    }

    fn accept(&self) -> Result<Arc<dyn SocketOps>> {
        let socket = self.0.accept()?;
        Ok(InetSocket::new(socket))
    }

    fn connect(&self, addr: &Address) -> Result<()> {
        let target = match addr {
            Address::Unspecified => None,
            addr => Some(self.addr(addr)?),
        };
        self.0.connect(target)
    }

    fn connect_result(&self) -> Option<Result<()>> {
        self.0.connect_result()
    }

    fn send(&self, source: &mut dyn Source, msg: &SendMsg) -> Result<usize> {
        let to = match &msg.to {
            None => None,
            // Linux takes AF_UNSPEC for AF_INET when sending a datagram over IPv6: treat as none.
            Some(Address::Unspecified) if self.0.kind() != net::Kind::Stream => None,
            // A stream ignores the address.
            Some(_) if self.0.kind() == net::Kind::Stream => None,
            Some(addr) => Some(self.addr(addr)?),
        };
        let mut control = Vec::new();
        for message in &msg.control {
            match message {
                Control::Net(message) => control.push(*message),
                // SOL_SOCKET messages of other families are ignored, as Linux does.
                Control::Rights(_) | Control::Credentials(_) => {}
                Control::Bytes(..) => return Err(Errno::EINVAL),
            }
        }
        self.0.send(
            source,
            &SendMeta {
                to,
                flags: msg.flags,
                control: &control,
            },
        )
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        let meta = self.0.recv(sink, flags)?;
        Ok(Received {
            len: meta.len,
            full_len: meta.full_len,
            from: meta.from.map(Address::Inet),
            flags: meta.flags,
            control: meta.control.into_iter().map(Control::Net).collect(),
            stop: false,
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.0.shutdown(how)
    }

    fn close(&self) {
        self.0.close();
    }

    fn linger_pending(&self) -> bool {
        self.0.linger_pending()
    }

    fn local_addr(&self) -> Result<Address> {
        self.0.local_addr().map(Address::Inet)
    }

    fn peer_addr(&self) -> Result<Address> {
        self.0.peer_addr().map(Address::Inet)
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match options::decode(self.0.family(), level, name, value)? {
            Some(option) => self.0.set_option(option),
            None => Ok(()),
        }
    }

    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        options::get(self.0.as_ref(), level, name, len)
    }

    fn take_error(&self) -> Option<Errno> {
        self.0.take_error()
    }

    fn poll(&self) -> Events {
        self.0.poll()
    }

    fn pollee(&self) -> &Pollee {
        self.0.pollee()
    }

    fn input_queued(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self.0.input_queued())
    }

    fn output_queued(&self) -> Result<usize> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        Ok(self.0.output_queued())
    }

    fn at_mark(&self) -> Result<bool> {
        self.0.at_mark()
    }

    fn is_listening(&self) -> bool {
        matches!(
            self.0.option(net::OptName::AcceptConn),
            Ok(net::Opt::AcceptConn(true))
        )
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
