//! `AF_VSOCK` (`vsock(7)`): sockets of the `net` room's [`net::vsock`] as descriptors see them, and `/dev/vsock`.
//!
//! Nothing is done before the first socket: then the card, if there is one, is taken into service.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use errno::{Errno, Result};
use fs::{DeviceId, File, Metadata, OpenFlags};
use iobuf::{Sink, Source};
use machine::sync::Once;
use net::vsock::{self, Vsock, VsockAddr, VsockOption};
use net::{MsgFlags, Shutdown};
use sched::Mutex;
use sched::poll::{Events, Pollee};

use super::addr::{AF_VSOCK, Address};
use super::ops::{Kind, Received, SendMsg, SocketOps};
use super::option::{
    SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF, SO_SNDBUFFORCE, SOL_SOCKET, int, parse_int, parse_pair,
};
use crate::uaccess::UserPtr;

/// The numbers of `/dev/vsock`: a miscellaneous device, whose minor number Linux chooses as it likes.
pub const DEVICE: (u32, u32) = (10, 121);
/// `IOCTL_VM_SOCKETS_GET_LOCAL_CID`.
const GET_LOCAL_CID: u32 = 0x7b9;

const SO_VM_SOCKETS_BUFFER_SIZE: i32 = 0;
const SO_VM_SOCKETS_BUFFER_MIN_SIZE: i32 = 1;
const SO_VM_SOCKETS_BUFFER_MAX_SIZE: i32 = 2;
const SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD: i32 = 6;
const SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW: i32 = 8;
/// `net.core.rmem_default`. Vsock has buffers of its own; this one is only read.
const USUAL_BUFFER: i32 = 212_992;
const NS_PER_S: u64 = 1_000_000_000;

static CARD: Once<Arc<dyn drivers::vsock::VsockCard>> = Once::new();
static VSOCK: Once<Arc<Vsock>> = Once::new();
static STARTING: Mutex<()> = Mutex::new(());

/// Says which card there is, and gives `/dev/vsock` its driver. The first one stays.
pub fn set_card(card: Arc<dyn drivers::vsock::VsockCard>) {
    let _ = CARD.set(card);
    let id = DeviceId::new(DEVICE.0, DEVICE.1);
    fs::special::register_char_device(id, Box::new(|_: OpenFlags| Ok(Arc::new(VsockDevice))));
}

/// All vsock sockets, made with the first of them.
fn all() -> Result<&'static Arc<Vsock>> {
    if VSOCK.get().is_none() {
        let _only = STARTING.lock();
        if VSOCK.get().is_none() {
            let seed = drivers::random::word() as u32;
            let _ = VSOCK.set(Vsock::start(CARD.get(), seed)?);
        }
    }
    VSOCK.get().ok_or(Errno::ENOMEM)
}

/// A socket of `AF_VSOCK`.
pub struct VsockSocket(Arc<vsock::VsockSocket>);

impl VsockSocket {
    /// A new socket.
    ///
    /// # Errors
    /// `ENODEV` for datagrams, which virtio has none of; `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `ENOMEM`.
    pub fn new(kind: i32, protocol: i32) -> Result<Arc<Self>> {
        if protocol != 0 && protocol != i32::from(AF_VSOCK) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let stream = match kind {
            1 => true,
            5 => false,
            2 => return Err(Errno::ENODEV),
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        Ok(Arc::new(VsockSocket(vsock::VsockSocket::new(
            all()?,
            stream,
        ))))
    }
}

fn address(addr: VsockAddr) -> Address {
    Address::Vsock {
        cid: addr.cid,
        port: addr.port,
    }
}

fn parse(addr: &Address) -> Result<VsockAddr> {
    match *addr {
        Address::Vsock { cid, port } => Ok(VsockAddr { cid, port }),
        _ => Err(Errno::EINVAL),
    }
}

impl SocketOps for VsockSocket {
    fn family(&self) -> u16 {
        AF_VSOCK
    }

    fn kind(&self) -> Kind {
        if self.0.is_stream() {
            Kind::Stream
        } else {
            Kind::SeqPacket
        }
    }

    fn protocol(&self) -> i32 {
        0
    }

    fn bind(&self, addr: &Address) -> Result<()> {
        self.0.bind(parse(addr)?)
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        self.0.listen(backlog)
    }

    fn accept(&self) -> Result<Arc<dyn SocketOps>> {
        Ok(Arc::new(VsockSocket(self.0.accept()?)))
    }

    fn connect(&self, addr: &Address) -> Result<()> {
        self.0.connect(parse(addr)?)
    }

    fn connect_result(&self) -> Option<Result<()>> {
        self.0.connect_result()
    }

    fn send(&self, source: &mut dyn Source, msg: &SendMsg) -> Result<usize> {
        if msg.to.is_some() {
            let connected = self.0.peer_addr().is_ok();
            return Err(if connected {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            });
        }
        self.0.send(source, msg.flags)
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        let meta = self.0.recv(sink, flags)?;
        Ok(Received {
            len: meta.len,
            full_len: meta.full_len,
            flags: meta.flags,
            ..Received::default()
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.0.shutdown(how)
    }

    fn close(&self) {
        self.0.close();
    }

    fn local_addr(&self) -> Result<Address> {
        Ok(address(self.0.local_addr()))
    }

    fn peer_addr(&self) -> Result<Address> {
        self.0.peer_addr().map(address)
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if level == SOL_SOCKET {
            return match name {
                SO_RCVBUF | SO_SNDBUF | SO_RCVBUFFORCE | SO_SNDBUFFORCE => {
                    parse_int(value).map(drop)
                }
                _ => Err(Errno::ENOPROTOOPT),
            };
        }
        if level != i32::from(AF_VSOCK) {
            return Err(Errno::ENOPROTOOPT);
        }
        let size = || match value.first_chunk::<8>() {
            Some(bytes) => Ok(u64::from_ne_bytes(*bytes)),
            None => Err(Errno::EINVAL),
        };
        self.0.set_option(match name {
            SO_VM_SOCKETS_BUFFER_SIZE => VsockOption::Buffer(size()?),
            SO_VM_SOCKETS_BUFFER_MIN_SIZE => VsockOption::BufferMin(size()?),
            SO_VM_SOCKETS_BUFFER_MAX_SIZE => VsockOption::BufferMax(size()?),
            SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD | SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW => {
                VsockOption::ConnectTimeout(timeout(value)?)
            }
            _ => return Err(Errno::ENOPROTOOPT),
        });
        Ok(())
    }

    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        if level == SOL_SOCKET {
            return match name {
                SO_RCVBUF | SO_SNDBUF => Ok(int(USUAL_BUFFER)),
                _ => Err(Errno::ENOPROTOOPT),
            };
        }
        if level != i32::from(AF_VSOCK) {
            return Err(Errno::ENOPROTOOPT);
        }
        let wanted = match name {
            SO_VM_SOCKETS_BUFFER_SIZE..=SO_VM_SOCKETS_BUFFER_MAX_SIZE => name as usize,
            SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD | SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW => 3,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        let bytes = match self.0.options()[wanted] {
            VsockOption::Buffer(size)
            | VsockOption::BufferMin(size)
            | VsockOption::BufferMax(size) => size.to_ne_bytes().to_vec(),
            VsockOption::ConnectTimeout(ns) => {
                let [seconds, micros] = crate::time::to_timeval(ns);
                [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat()
            }
        };
        // The program must have room for all of it.
        if len < bytes.len() {
            return Err(Errno::EINVAL);
        }
        Ok(bytes)
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
        Ok(self.0.input_queued())
    }

    fn output_queued(&self) -> Result<usize> {
        Err(Errno::EOPNOTSUPP)
    }

    fn is_listening(&self) -> bool {
        self.0.is_listening()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A `struct timeval` that is a time (`vsock_set_connect_timeout`).
fn timeout(value: &[u8]) -> Result<u64> {
    let (seconds, micros) = parse_pair(value)?;
    if seconds < 0 || !(0..1_000_000).contains(&micros) {
        return Err(Errno::ERANGE);
    }
    let ns = (seconds as u64)
        .saturating_mul(NS_PER_S)
        .saturating_add(micros as u64 * 1000);
    // None at all is the usual one.
    Ok(if ns == 0 { 2 * NS_PER_S } else { ns })
}

/// `/dev/vsock`: tells the machine's address.
struct VsockDevice;

impl File for VsockDevice {
    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        if request != GET_LOCAL_CID {
            return Err(Errno::ENOTTY);
        }
        UserPtr::<u32>::new(arg).write(&all()?.local_cid())?;
        Ok(0)
    }

    fn metadata(&self) -> Result<Metadata> {
        let id = DeviceId::new(DEVICE.0, DEVICE.1);
        Ok(fs::devfs::device_metadata(id, 0o666))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_times() {
        let pair =
            |seconds: i64, micros: i64| [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat();
        assert_eq!(timeout(&pair(1, 500_000)), Ok(1_500_000_000));
        assert_eq!(timeout(&pair(0, 0)), Ok(2_000_000_000));
        assert_eq!(timeout(&pair(-1, 0)), Err(Errno::ERANGE));
        assert_eq!(timeout(&pair(1, 1_000_000)), Err(Errno::ERANGE));
        assert_eq!(timeout(&[0; 8]), Err(Errno::EINVAL));
    }
}
