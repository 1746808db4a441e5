//! Connections over the kernel's own sockets.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use errno::Errno;
use iobuf::{SliceSink, SliceSource};
use net::{Events, Family, MsgFlags, Opt, SendMeta, Shutdown, Socket, Stack, TcpSocket};

use crate::guard::{Guard, Pass};
use crate::transport::{Gone, Incoming, Listener, Received, Remote, Transport};
use crate::turn;

/// Bytes that wait to be sent or read, for each client.
const BUFFER: u32 = 64 << 10;
/// Connections that wait to be taken.
const BACKLOG: u32 = 16;

/// Who is listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// TCP port.
    pub port: u16,
    /// The interface, or all of them.
    pub interface: Option<String>,
    /// The address, or all of them.
    pub address: Option<IpAddr>,
    /// Only connections that the interface's gateway makes. QEMU forwards a port of the host by connecting from
    /// there; nobody else on a network with others is heard then.
    pub gateway_only: bool,
}

/// A listening socket.
pub struct SocketListener {
    stack: Arc<Stack>,
    socket: Arc<dyn Socket>,
    guard: Arc<Guard>,
    place: Place,
    index: u32,
    told: bool,
}

impl SocketListener {
    /// Listens at `place`.
    ///
    /// # Errors
    /// What is wrong with the place, as a sentence: no such interface, or the port is taken.
    pub fn open(stack: &Arc<Stack>, place: Place) -> Result<SocketListener, String> {
        let index = match &place.interface {
            None => 0,
            Some(name) => {
                let links = stack.links();
                let link = links.iter().find(|link| link.name == *name);
                link.ok_or_else(|| format!("there is no interface {name:?}"))?
                    .index
            }
        };
        // What only a gateway of IPv4 may reach needs no IPv6.
        let (family, any) = match place.gateway_only {
            true => (Family::Inet, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            false => (Family::Inet6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let family = match place.address {
            Some(IpAddr::V4(_)) => Family::Inet,
            Some(IpAddr::V6(_)) => Family::Inet6,
            None => family,
        };
        let address = SocketAddr::new(place.address.unwrap_or(any), place.port);
        let socket: Arc<dyn Socket> = TcpSocket::new(stack, family);
        let opened = (|| {
            if index != 0 {
                socket.set_option(Opt::BindToDevice(index))?;
            }
            // The address may only come later, by DHCP.
            socket.set_option(Opt::FreeBind(true))?;
            socket.set_option(Opt::SndBuf(BUFFER / 2))?;
            socket.set_option(Opt::RcvBuf(BUFFER / 2))?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        })();
        opened.map_err(|error: Errno| format!("{address} cannot be listened on: {error}"))?;
        let guard = Arc::new(Guard::default());
        stack
            .guard_port(place.port, guard.clone())
            .map_err(|_| "another port is guarded already")?;
        Ok(SocketListener {
            stack: stack.clone(),
            socket,
            guard,
            place,
            index,
            told: false,
        })
    }

    /// Whether the peer may connect at all.
    fn may_come(&mut self, peer: SocketAddr) -> bool {
        if !self.place.gateway_only {
            return true;
        }
        let ip = peer.ip().to_canonical();
        let mut routes = self.stack.routes().into_iter();
        let known = routes.any(|route| {
            route.gateway == Some(ip) && (self.index == 0 || route.index == self.index)
        });
        if !known && !self.told {
            self.told = true;
            log::warn!(
                "the console refused {ip}: without a certificate or \"insecure\" it serves only what the host forwards"
            );
        }
        known
    }
}

impl Listener for SocketListener {
    fn accept(&mut self) -> Option<Incoming> {
        loop {
            let socket = self.socket.clone();
            let accepted = socket.pollee().wait(None, || match socket.accept() {
                Err(Errno::EAGAIN) => None,
                other => Some(other),
            });
            let client = match accepted {
                Ok(Ok(client)) => client,
                // The client is gone already, or there is no memory for it now.
                Ok(Err(Errno::ECONNABORTED | Errno::EINTR)) => continue,
                Ok(Err(Errno::ENOMEM | Errno::ENOBUFS)) => {
                    let _ = sched::sleep_until_ns(machine::time::now_ns() + 1_000_000_000);
                    continue;
                }
                Ok(Err(_)) | Err(_) => return None,
            };
            let Ok(peer) = client.peer_addr() else {
                client.close();
                continue;
            };
            if !self.may_come(peer) {
                // Reset, as a closed port would.
                let _ = client.set_option(Opt::Linger(Some(Duration::ZERO)));
                client.close();
                continue;
            }
            // A peer that vanishes is noticed after two minutes. None of these can fail on a connection.
            let _ = client.set_option(Opt::KeepAlive(true));
            let _ = client.set_option(Opt::KeepIdle(60));
            let _ = client.set_option(Opt::NoDelay(true));
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let shared = Arc::new(Shared {
                socket: client,
                woken: AtomicBool::new(false),
            });
            return Some(Incoming {
                transport: Box::new(SocketTransport {
                    shared,
                    guard: self.guard.clone(),
                    peer,
                    pass: None,
                }),
                peer: format!("{peer}"),
            });
        }
    }
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        self.socket.close();
    }
}

struct Shared {
    socket: Arc<dyn Socket>,
    woken: AtomicBool,
}

impl Remote for Shared {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.socket.pollee().waiters().wake_all();
    }

    fn cut(&self) {
        self.forget();
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Shared {
    /// Has the socket drop what was not sent when it is closed: a peer that reads nothing would leave it behind for minutes.
    fn forget(&self) {
        let _ = self.socket.set_option(Opt::Linger(Some(Duration::ZERO)));
    }
}

/// A client's connection over a socket.
struct SocketTransport {
    shared: Arc<Shared>,
    guard: Arc<Guard>,
    peer: SocketAddr,
    /// Once the token was shown.
    pass: Option<Pass>,
}

impl Transport for SocketTransport {
    fn receive(&mut self, into: &mut [u8], deadline_ns: u64) -> Received {
        let Shared { socket, woken } = &*self.shared;
        let result = socket.pollee().wait(Some(deadline_ns), || {
            if woken.swap(false, Ordering::SeqCst) {
                return Some(Received::Woken);
            }
            match socket.recv(&mut SliceSink::new(into), MsgFlags::DONTWAIT) {
                Ok(meta) if meta.len == 0 => Some(Received::Closed),
                Ok(meta) => Some(Received::Bytes(meta.len)),
                Err(Errno::EAGAIN | Errno::EINTR) => None,
                Err(_) => Some(Received::Closed),
            }
        });
        if let Ok(Received::Bytes(_)) = result {
            turn::pause();
        }
        result.unwrap_or(Received::TimedOut)
    }

    fn send(&mut self, bytes: &[u8], deadline_ns: u64) -> Result<(), Gone> {
        let socket = &self.shared.socket;
        let meta = SendMeta {
            flags: MsgFlags::DONTWAIT | MsgFlags::NOSIGNAL,
            ..SendMeta::default()
        };
        let mut sent = 0;
        while sent < bytes.len() {
            let part = socket.pollee().wait(Some(deadline_ns), || {
                match socket.send(&mut SliceSource::new(&bytes[sent..]), &meta) {
                    Err(Errno::EAGAIN | Errno::EINTR) => None,
                    other => Some(other),
                }
            });
            match part {
                Ok(Ok(count)) => {
                    sent += count;
                    turn::pause();
                }
                Ok(Err(_)) | Err(_) => {
                    self.shared.forget();
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    fn recognize(&mut self) {
        let guard = &self.guard;
        self.pass.get_or_insert_with(|| Pass::new(guard, self.peer));
    }

    fn is_closed(&mut self) -> bool {
        let gone = Events::HUP | Events::ERR | Events::RDHUP;
        self.shared.socket.poll().intersects(gone)
    }

    fn finish(&mut self) {
        let _ = self.shared.socket.shutdown(Shutdown::Write);
    }

    fn remote(&self) -> Arc<dyn Remote> {
        self.shared.clone()
    }
}

impl Drop for SocketTransport {
    fn drop(&mut self) {
        self.shared.socket.close();
    }
}
