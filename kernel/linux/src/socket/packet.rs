//! `AF_PACKET` (`packet(7)`): whole frames of an interface, over a tap of the network engine. The ring through which they are
//! read without a call is [`ring`]'s; there is none to send through.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use machine::sync::SpinLock;
use net::bpf::{self, Program};
use net::query::LinkInfo;
use net::tap::{Filter, Seen, Sink as TapSink, hardware_type};
use net::{FrameKind, MsgFlags, Shutdown, Stack, Tap, TapConfig, TappedFrame};
use sched::poll::{Events, Pollee};

use super::addr::{AF_PACKET, Address, LinkAddr};
use super::ops::{Control, Kind, Received, SendMsg, SocketOps};
use super::option::{self as so, SOL_SOCKET, int, parse_int};
use super::ring::{self, Ring};
use crate::mm::pager::Pager;

/// `ETH_P_ALL`.
const ALL: u16 = 3;
/// Bytes of an Ethernet header.
const ETH: usize = 14;

/// Level of the options of packet sockets.
pub const SOL_PACKET: i32 = 263;
const ADD_MEMBERSHIP: i32 = 1;
const DROP_MEMBERSHIP: i32 = 2;
const RX_RING: i32 = 5;
const STATISTICS: i32 = 6;
const AUXDATA: i32 = 8;
const VERSION: i32 = 10;
/// `PACKET_HDRLEN`: its value is a question, too, which [`ring::header_len`] answers.
pub const HDRLEN: i32 = 11;
const RESERVE: i32 = 12;
const IGNORE_OUTGOING: i32 = 23;
const MR_PROMISC: u16 = 1;

/// Bits of `tp_status`.
const STATUS_USER: u32 = 1;
const STATUS_CSUM_NOT_READY: u32 = 8;
const STATUS_CSUM_VALID: u32 = 128;

/// A membership: interface, kind, address.
type Membership = (u32, u16, [u8; 8]);

/// A packet socket.
pub struct PacketSocket {
    kind: Kind,
    tap: Tap,
    /// Interface (0 any) and protocol (0 none).
    bound: SpinLock<(u32, u16)>,
    memberships: SpinLock<Vec<Membership>>,
    filter: SpinLock<Option<Arc<Program>>>,
    ring: SpinLock<Option<Arc<Ring>>>,
    /// `PACKET_VERSION` and `PACKET_RESERVE`.
    version: AtomicU32,
    reserve: AtomicU32,
    auxdata: AtomicBool,
    ignore_outgoing: AtomicBool,
    timestamp: AtomicBool,
    /// What `PACKET_STATISTICS` told already: frames and drops.
    told: [AtomicU64; 2],
}

/// A row of `/proc/net/packet`.
pub struct Row {
    /// `SOCK_RAW` or `SOCK_DGRAM`.
    pub kind: i32,
    /// Protocol.
    pub protocol: u16,
    /// Interface, 0 for all.
    pub index: u32,
    /// Bytes that wait.
    pub queued: usize,
}

fn stack() -> Result<&'static Arc<Stack>> {
    super::stack()
}

fn link(index: u32) -> Option<LinkInfo> {
    stack()
        .ok()?
        .links()
        .into_iter()
        .find(|link| link.index == index)
}

impl PacketSocket {
    /// A socket for frames of `protocol` (in network byte order, as the program gives it), 0 for none yet.
    ///
    /// # Errors
    /// `ESOCKTNOSUPPORT`, `EAFNOSUPPORT` without a network.
    pub fn new(kind: i32, protocol: i32) -> Result<Arc<Self>> {
        let kind = match kind {
            2 => Kind::Dgram,
            3 => Kind::Raw,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        let protocol = u16::from_be(protocol as u16);
        let stack = stack()?;
        let capacity = stack.config().limits.rmem_default;
        let tap = stack.tap(config(0, protocol, false, capacity))?;
        Ok(Arc::new(PacketSocket {
            kind,
            tap,
            bound: SpinLock::new((0, protocol)),
            memberships: SpinLock::new(Vec::new()),
            filter: SpinLock::new(None),
            ring: SpinLock::new(None),
            version: AtomicU32::new(0),
            reserve: AtomicU32::new(0),
            auxdata: AtomicBool::new(false),
            ignore_outgoing: AtomicBool::new(false),
            timestamp: AtomicBool::new(false),
            told: [AtomicU64::new(0), AtomicU64::new(0)],
        }))
    }

    /// What `/proc/net/packet` shows.
    pub fn row(&self) -> Row {
        let (index, protocol) = *self.bound.lock();
        Row {
            kind: self.kind as i32,
            protocol,
            index,
            queued: self.tap.queued(),
        }
    }

    fn refresh(&self) -> Result<()> {
        let (index, protocol) = *self.bound.lock();
        let ignore = self.ignore_outgoing.load(Ordering::Relaxed);
        let capacity = self.tap.config().capacity;
        let filter = self.filter.lock().clone();
        let ring = self.ring.lock().clone();
        self.tap.set_config(TapConfig {
            filter: filter.map(|program| self.choice(program)),
            sink: ring.map(|ring| self.slots(ring)),
            ..config(index, protocol, ignore, capacity)
        })
    }

    /// Bytes of each frame that the program does not see.
    fn skip(&self) -> usize {
        if self.kind == Kind::Dgram { ETH } else { 0 }
    }

    fn slots(&self, ring: Arc<Ring>) -> TapSink {
        let skip = self.skip();
        Arc::new(move |frame: &TappedFrame| {
            let address = Address::Packet(describe(frame)).to_bytes();
            ring.put(frame, skip, &address, status(frame))
        })
    }

    /// `PACKET_RX_RING`: makes the ring, or ends it.
    fn set_ring(&self, wanted: &[u8]) -> Result<()> {
        {
            let mut own = self.ring.lock();
            if Ring::ends(wanted)? {
                // The tap has it as well; whoever else does maps it.
                if own.as_ref().is_some_and(|ring| Arc::strong_count(ring) > 2) {
                    return Err(Errno::EBUSY);
                }
                *own = None;
            } else if own.is_some() {
                return Err(Errno::EBUSY);
            } else if self.version.load(Ordering::Relaxed) as i32 != ring::VERSION {
                return Err(Errno::EINVAL);
            } else {
                *own = Some(Ring::new(wanted, self.reserve.load(Ordering::Relaxed))?);
            }
        }
        self.refresh()
    }

    /// Sets what the layout of a ring depends on, before there is one.
    fn set_layout(&self, to: &AtomicU32, value: u32) -> Result<()> {
        let own = self.ring.lock();
        if own.is_some() {
            return Err(Errno::EBUSY);
        }
        to.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// What the tap asks of each frame while a program is attached. For `SOCK_DGRAM` data begins behind the link's header.
    fn choice(&self, program: Arc<Program>) -> Filter {
        let data = self.skip();
        Arc::new(move |seen: &Seen<'_>| {
            let keep = program.run(&bpf::Packet {
                frame: seen.bytes,
                data,
                network: ETH,
                protocol: protocol_of(seen.bytes),
                kind: seen.kind as u8,
                index: seen.index,
                hardware: hardware_type(seen.loopback),
                random: &|| drivers::random::word() as u32,
            });
            match keep {
                0 => 0,
                keep => data.saturating_add(keep as usize),
            }
        })
    }

    fn join(&self, value: &[u8], on: bool) -> Result<()> {
        let bytes = value.first_chunk::<16>().ok_or(Errno::EINVAL)?;
        let mut address = [0; 8];
        address.copy_from_slice(&bytes[8..]);
        let index = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let wanted = (index, u16::from_ne_bytes([bytes[4], bytes[5]]), address);
        if wanted.1 > 3 {
            return Err(Errno::EINVAL);
        }
        let stack = stack()?;
        if on {
            link(index).ok_or(Errno::ENODEV)?;
            if wanted.1 == MR_PROMISC {
                stack.promiscuous(index, true)?;
            }
            self.memberships.lock().push(wanted);
            return Ok(());
        }
        {
            let mut all = self.memberships.lock();
            // What was not joined is left without complaint, as on Linux.
            let Some(at) = all.iter().position(|m| *m == wanted) else {
                return Ok(());
            };
            all.swap_remove(at);
        }
        if wanted.1 == MR_PROMISC {
            stack.promiscuous(index, false)?;
        }
        Ok(())
    }

    fn auxdata(&self, frame: &TappedFrame, skip: usize) -> Control {
        let mut bytes = status(frame).to_ne_bytes().to_vec();
        bytes.extend(((frame.len - skip) as u32).to_ne_bytes());
        bytes.extend(((frame.bytes.len() - skip) as u32).to_ne_bytes());
        // tp_mac, tp_net, and no VLAN.
        bytes.extend(0u16.to_ne_bytes());
        bytes.extend(((ETH - skip) as u16).to_ne_bytes());
        bytes.extend([0; 4]);
        Control::Bytes(SOL_PACKET, AUXDATA, bytes)
    }
}

/// Where a frame came from.
fn describe(frame: &TappedFrame) -> LinkAddr {
    let mut addr = [0; 8];
    if let Some(mac) = frame.bytes.get(6..12) {
        addr[..6].copy_from_slice(mac);
    }
    LinkAddr {
        protocol: protocol_of(&frame.bytes),
        index: frame.index,
        hardware: hardware_type(frame.loopback),
        kind: frame.kind as u8,
        len: 6,
        addr,
        padded: true,
    }
}

/// Its `TP_STATUS_*`.
fn status(frame: &TappedFrame) -> u32 {
    STATUS_USER
        | match (frame.checksum_pending, frame.checksum_valid) {
            (true, _) => STATUS_CSUM_NOT_READY,
            (false, true) => STATUS_CSUM_VALID,
            (false, false) => 0,
        }
}

/// The EtherType.
fn protocol_of(frame: &[u8]) -> u16 {
    match frame.get(12..14) {
        Some(p) => u16::from_be_bytes([p[0], p[1]]),
        None => 0,
    }
}

fn config(index: u32, protocol: u16, ignore_outgoing: bool, capacity: usize) -> TapConfig {
    TapConfig {
        index,
        protocol: (protocol != ALL).then_some(protocol),
        incoming: protocol != 0,
        // Only who wants all protocols sees what leaves.
        outgoing: protocol == ALL && !ignore_outgoing,
        capacity,
        ..TapConfig::default()
    }
}

impl SocketOps for PacketSocket {
    fn family(&self) -> u16 {
        AF_PACKET
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn protocol(&self) -> i32 {
        // As it was given: in network byte order.
        i32::from(self.bound.lock().1.to_be())
    }

    fn bind(&self, addr: &Address) -> Result<()> {
        let Address::Packet(addr) = addr else {
            return Err(Errno::EINVAL);
        };
        if addr.index != 0 && link(addr.index).is_none() {
            return Err(Errno::ENODEV);
        }
        {
            let mut bound = self.bound.lock();
            bound.0 = addr.index;
            if addr.protocol != 0 {
                bound.1 = addr.protocol;
            }
        }
        self.refresh()
    }

    fn connect(&self, _: &Address) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn send(&self, source: &mut dyn Source, msg: &SendMsg) -> Result<usize> {
        let (own_index, own_protocol) = *self.bound.lock();
        let (index, protocol, to) = match &msg.to {
            None => (own_index, own_protocol, None),
            Some(Address::Packet(to)) => (to.index, to.protocol, Some(to)),
            Some(_) => return Err(Errno::EINVAL),
        };
        let link = link(index).ok_or(Errno::ENXIO)?;
        let len = source.remaining();
        let mut frame = Vec::new();
        if self.kind == Kind::Dgram {
            let to = match to {
                Some(to) if to.len >= 6 || link.loopback => to.addr,
                None if link.loopback => [0; 8],
                _ => return Err(Errno::EINVAL),
            };
            frame.extend_from_slice(if link.loopback { &[0; 6] } else { &to[..6] });
            frame.extend_from_slice(&link.mac);
            frame.extend_from_slice(&protocol.to_be_bytes());
        }
        if len > link.mtu as usize + ETH + 4 {
            return Err(Errno::EMSGSIZE);
        }
        let at = frame.len();
        frame.resize(at + len, 0);
        if source.take(&mut frame[at..])? < len {
            return Err(Errno::EFAULT);
        }
        self.tap.send(index, &frame)?;
        Ok(len)
    }

    fn mapping(&self, offset: u64, bytes: usize) -> Result<Arc<dyn Pager>> {
        // The ring, whole.
        let ring = self.ring.lock().clone().ok_or(Errno::EINVAL)?;
        if offset != 0 || bytes != ring.bytes() {
            return Err(Errno::EINVAL);
        }
        Ok(ring)
    }

    fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<Received> {
        let next = if flags.contains(MsgFlags::PEEK) {
            self.tap.peek()
        } else {
            self.tap.next()
        };
        let frame = next.ok_or(Errno::EAGAIN)?;
        let skip = self.skip();
        let bytes = frame.bytes.get(skip..).unwrap_or(&[]);
        let len = sink.put(bytes)?;
        let mut control = Vec::new();
        if self.timestamp.load(Ordering::Relaxed) {
            control.push(Control::Net(net::Control::Timestamp(frame.at_ns)));
        }
        if self.auxdata.load(Ordering::Relaxed) {
            control.push(self.auxdata(&frame, skip));
        }
        Ok(Received {
            len,
            full_len: bytes.len(),
            from: Some(Address::Packet(describe(&frame))),
            flags: if len < bytes.len() {
                MsgFlags::TRUNC
            } else {
                MsgFlags::empty()
            },
            control,
            stop: true,
        })
    }

    fn shutdown(&self, _how: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn close(&self) {
        let left = core::mem::take(&mut *self.memberships.lock());
        if let Ok(stack) = stack() {
            for (index, kind, _) in left {
                if kind == MR_PROMISC {
                    // The interface is there: interfaces do not go.
                    let _ = stack.promiscuous(index, false);
                }
            }
        }
        *self.bound.lock() = (0, 0);
        *self.ring.lock() = None;
        // What no longer listens costs nothing: as it was before `bind`.
        let _ = self.refresh();
    }

    fn local_addr(&self) -> Result<Address> {
        let (index, protocol) = *self.bound.lock();
        let link = link(index);
        let mut addr = [0; 8];
        if let Some(link) = &link {
            addr[..6].copy_from_slice(&link.mac);
        }
        Ok(Address::Packet(LinkAddr {
            protocol,
            index,
            hardware: link.as_ref().map_or(0, |link| hardware_type(link.loopback)),
            kind: FrameKind::Host as u8,
            len: if link.is_some() { 6 } else { 0 },
            addr,
            padded: false,
        }))
    }

    fn peer_addr(&self) -> Result<Address> {
        Err(Errno::EOPNOTSUPP)
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let flag = || parse_int(value).map(|v| v != 0);
        match (level, name) {
            (SOL_PACKET, ADD_MEMBERSHIP) => self.join(value, true),
            (SOL_PACKET, DROP_MEMBERSHIP) => self.join(value, false),
            (SOL_PACKET, AUXDATA) => {
                self.auxdata.store(flag()?, Ordering::Relaxed);
                Ok(())
            }
            (SOL_PACKET, IGNORE_OUTGOING) => {
                if !(0..=1).contains(&parse_int(value)?) {
                    return Err(Errno::EINVAL);
                }
                self.ignore_outgoing.store(flag()?, Ordering::Relaxed);
                self.refresh()
            }
            (SOL_SOCKET, so::SO_ATTACH_FILTER) => {
                let program = Arc::new(Program::new(value)?);
                *self.filter.lock() = Some(program);
                self.refresh()
            }
            (SOL_SOCKET, so::SO_DETACH_FILTER) => {
                self.filter.lock().take().ok_or(Errno::ENOENT)?;
                self.refresh()
            }
            (SOL_PACKET, RX_RING) => self.set_ring(value),
            // The third version of the ring's format is not provided; the first has no ring here.
            (SOL_PACKET, VERSION) => match parse_int(value)? {
                version @ (0 | ring::VERSION) => self.set_layout(&self.version, version as u32),
                _ => Err(Errno::EINVAL),
            },
            (SOL_PACKET, RESERVE) => {
                let bytes = u32::try_from(parse_int(value)?).map_err(|_| Errno::EINVAL)?;
                self.set_layout(&self.reserve, bytes)
            }
            (SOL_SOCKET, so::SO_RCVBUF | so::SO_RCVBUFFORCE) => {
                let limits = &stack()?.config().limits;
                let asked = usize::try_from(parse_int(value)?).unwrap_or(0);
                let mut config = self.tap.config();
                config.capacity = (asked.min(limits.rmem_max) * 2).max(2304);
                self.tap.set_config(config)
            }
            (SOL_SOCKET, so::SO_SNDBUF | so::SO_SNDBUFFORCE | so::SO_PRIORITY | so::SO_MARK) => {
                parse_int(value).map(drop)
            }
            (
                SOL_SOCKET,
                so::SO_TIMESTAMP
                | so::SO_TIMESTAMPNS
                | so::SO_TIMESTAMP_NEW
                | so::SO_TIMESTAMPNS_NEW,
            ) => {
                self.timestamp.store(flag()?, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, level: i32, name: i32, _len: usize) -> Result<Vec<u8>> {
        let flag = |flag: &AtomicBool| int(i32::from(flag.load(Ordering::Relaxed)));
        Ok(match (level, name) {
            (SOL_PACKET, STATISTICS) => {
                let seen = [self.tap.seen(), self.tap.dropped()];
                if let Some(ring) = &*self.ring.lock() {
                    ring.told();
                }
                let mut bytes = Vec::new();
                for (now, told) in seen.into_iter().zip(&self.told) {
                    let before = told.swap(now, Ordering::AcqRel);
                    bytes.extend((now.wrapping_sub(before) as u32).to_ne_bytes());
                }
                bytes
            }
            (SOL_PACKET, AUXDATA) => flag(&self.auxdata),
            (SOL_PACKET, IGNORE_OUTGOING) => flag(&self.ignore_outgoing),
            (SOL_SOCKET, so::SO_ATTACH_FILTER) => {
                (self.filter.lock().as_ref()).map_or(Vec::new(), |filter| filter.to_bytes())
            }
            (SOL_PACKET, VERSION) => int(self.version.load(Ordering::Relaxed) as i32),
            (SOL_PACKET, RESERVE) => int(self.reserve.load(Ordering::Relaxed) as i32),
            (SOL_SOCKET, so::SO_RCVBUF) => int(self.tap.config().capacity as i32),
            (SOL_SOCKET, so::SO_SNDBUF) => int(stack()?.config().limits.rmem_default as i32),
            (SOL_SOCKET, so::SO_TIMESTAMP | so::SO_TIMESTAMPNS) => flag(&self.timestamp),
            _ => return Err(Errno::ENOPROTOOPT),
        })
    }

    fn take_error(&self) -> Option<Errno> {
        None
    }

    fn poll(&self) -> Events {
        let mut events = Events::OUT;
        let ring = self.ring.lock().clone();
        if self.tap.next_len().is_some() || ring.is_some_and(|ring| ring.ready()) {
            events |= Events::IN;
        }
        events
    }

    fn pollee(&self) -> &Pollee {
        self.tap.pollee()
    }

    fn input_queued(&self) -> Result<usize> {
        let skip = self.skip();
        Ok(self
            .tap
            .next_len()
            .map_or(0, |len| len.saturating_sub(skip)))
    }

    fn output_queued(&self) -> Result<usize> {
        Ok(0)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
