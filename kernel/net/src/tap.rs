//! Taps: copies of the frames that pass an interface, for packet sockets (`packet(7)`) and captures. An
//! interface that nobody taps pays one load of a flag for each packet.
//!
//! As on Linux, a frame is seen as the card gets it or gave it: what is sent may be larger than the MTU (the card cuts
//! it) and without its checksum (the card fills it in); over `lo` each packet is seen twice, out and in.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use errno::{Errno, Result};

use crate::config::Clock;
use crate::iface::{ETH, Interface};
use crate::nic::{RxChecksum, TxPacket, TxSegment};
use crate::pkt::InPacket;
use crate::poll::{Events, Pollee};
use crate::stack::Stack;
use crate::sync::{RwSpinLock, SpinLock};

/// Whom a frame is for (`PACKET_*` of `packet(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// This machine.
    Host = 0,
    /// Everybody.
    Broadcast = 1,
    /// A group.
    Multicast = 2,
    /// Somebody else; seen while the interface is promiscuous.
    OtherHost = 3,
    /// It left this machine.
    Outgoing = 4,
}

impl FrameKind {
    /// Whom a frame is for that arrived at an interface with that address.
    pub(crate) fn of(eth: &[u8], loopback: bool, mac: [u8; 6]) -> FrameKind {
        match eth.first_chunk::<6>() {
            _ if loopback => FrameKind::Host,
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => FrameKind::Broadcast,
            Some([first, ..]) if first & 1 != 0 => FrameKind::Multicast,
            Some(to) if *to == mac => FrameKind::Host,
            _ => FrameKind::OtherHost,
        }
    }
}

/// The kind of an interface: `ARPHRD_LOOPBACK` or `ARPHRD_ETHER`.
pub const fn hardware_type(loopback: bool) -> u16 {
    if loopback { 772 } else { 1 }
}

/// A frame that passed.
#[derive(Clone, Debug)]
pub struct TappedFrame {
    /// When, in nanoseconds of the engine's clock.
    pub at_ns: u64,
    /// The interface, and whether that is `lo`.
    pub index: u32,
    /// See there.
    pub loopback: bool,
    /// Whom it is for, and so its direction.
    pub kind: FrameKind,
    /// Bytes of the whole frame.
    pub len: usize,
    /// The first of them, from the Ethernet header on (`lo` has one too, with zero addresses).
    pub bytes: Vec<u8>,
    /// The transport checksum is left to the card (`TP_STATUS_CSUMNOTREADY`).
    pub checksum_pending: bool,
    /// The card has found the checksum right (`TP_STATUS_CSUM_VALID`).
    pub checksum_valid: bool,
}

/// A frame as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its beginning: `snaplen` bytes at most.
    pub bytes: &'a [u8],
    /// Bytes of the whole frame.
    pub len: usize,
    /// The interface, and whether that is `lo`.
    pub index: u32,
    /// See there.
    pub loopback: bool,
    /// Whom it is for.
    pub kind: FrameKind,
}

/// How many of a frame's bytes to keep; 0 is none: the frame is not for this tap. It runs where packets are handled, under a
/// lock: it must be short and not sleep.
pub type Filter = Arc<dyn Fn(&Seen<'_>) -> usize + Send + Sync>;

/// Where frames go instead of the queue; false: there was no room. As a [`Filter`], it must be short and not sleep.
pub type Sink = Arc<dyn Fn(&TappedFrame) -> bool + Send + Sync>;

/// What a tap takes.
#[derive(Clone)]
pub struct TapConfig {
    /// Interface index, 0 for all.
    pub index: u32,
    /// Bytes to keep of each frame.
    pub snaplen: usize,
    /// An EtherType, or `None` for all.
    pub protocol: Option<u16>,
    /// Frames that arrive.
    pub incoming: bool,
    /// Frames that leave.
    pub outgoing: bool,
    /// Bytes that wait at most, with [`FRAME_COST`] for each frame; what comes while they wait is dropped and counted.
    pub capacity: usize,
    /// A further choice.
    pub filter: Option<Filter>,
    /// Another place than the queue.
    pub sink: Option<Sink>,
}

impl Default for TapConfig {
    fn default() -> Self {
        TapConfig {
            index: 0,
            snaplen: 262_144,
            protocol: None,
            incoming: true,
            outgoing: true,
            capacity: 1 << 20,
            filter: None,
            sink: None,
        }
    }
}

impl fmt::Debug for TapConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapConfig")
            .field("index", &self.index)
            .field("snaplen", &self.snaplen)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// What a waiting frame counts for, besides its bytes.
pub const FRAME_COST: usize = 128;

struct Queue {
    config: TapConfig,
    frames: VecDeque<TappedFrame>,
    bytes: usize,
}

/// The part of a tap that interfaces know.
pub(crate) struct TapPoint {
    queue: SpinLock<Queue>,
    seen: AtomicU64,
    dropped: AtomicU64,
    pollee: Pollee,
    clock: Clock,
}

impl TapPoint {
    fn take(&self, frame: &Passing<'_>) {
        {
            let mut queue = self.queue.lock();
            let config = &queue.config;
            let outgoing = frame.kind == FrameKind::Outgoing;
            if config.index != 0 && config.index != frame.index
                || config.protocol.is_some_and(|p| p != frame.protocol)
                || !(if outgoing {
                    config.outgoing
                } else {
                    config.incoming
                })
            {
                return;
            }
            let mut bytes = frame.front(config.snaplen);
            if let Some(filter) = &config.filter {
                let keep = filter(&Seen {
                    bytes: &bytes,
                    len: frame.len,
                    index: frame.index,
                    loopback: frame.loopback,
                    kind: frame.kind,
                });
                if keep == 0 {
                    return;
                }
                bytes.truncate(keep);
            }
            self.seen.fetch_add(1, Ordering::Relaxed);
            let cost = bytes.len() + FRAME_COST;
            let frame = TappedFrame {
                at_ns: (self.clock)(),
                index: frame.index,
                loopback: frame.loopback,
                kind: frame.kind,
                len: frame.len,
                bytes,
                checksum_pending: frame.checksum_pending,
                checksum_valid: frame.checksum_valid,
            };
            let room = match &queue.config.sink {
                Some(sink) => sink(&frame),
                None => queue.bytes + cost <= queue.config.capacity,
            };
            if !room {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if queue.config.sink.is_none() {
                queue.bytes += cost;
                queue.frames.push_back(frame);
            }
        }
        self.pollee.notify(Events::IN | Events::RDNORM);
    }
}

/// A frame on its way past the taps.
struct Passing<'a> {
    index: u32,
    loopback: bool,
    kind: FrameKind,
    protocol: u16,
    len: usize,
    checksum_pending: bool,
    checksum_valid: bool,
    copy: &'a dyn Fn(usize) -> Vec<u8>,
}

impl Passing<'_> {
    fn front(&self, most: usize) -> Vec<u8> {
        (self.copy)(most.min(self.len))
    }
}

/// The taps of one interface.
#[derive(Default)]
pub(crate) struct TapList {
    any: AtomicBool,
    points: RwSpinLock<Vec<Arc<TapPoint>>>,
}

impl TapList {
    /// Whether somebody listens.
    #[inline]
    pub fn active(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn add(&self, point: &Arc<TapPoint>) {
        let mut points = self.points.write();
        points.push(point.clone());
        self.any.store(true, Ordering::Release);
    }

    fn remove(&self, point: &Arc<TapPoint>) {
        let mut points = self.points.write();
        points.retain(|p| !Arc::ptr_eq(p, point));
        self.any.store(!points.is_empty(), Ordering::Release);
    }

    /// Shows all a frame, but who sent it.
    fn show(&self, frame: &Passing<'_>, sender: Option<&Arc<TapPoint>>) {
        let points: Vec<Arc<TapPoint>> = self.points.read().clone();
        for point in points {
            if sender.is_none_or(|sender| !Arc::ptr_eq(sender, &point)) {
                point.take(frame);
            }
        }
    }
}

fn protocol(eth: &[u8]) -> u16 {
    match eth.get(12..14) {
        Some(p) => u16::from_be_bytes([p[0], p[1]]),
        None => 0,
    }
}

impl Interface {
    /// Shows the taps a frame that arrived. Called only if there are any.
    #[cold]
    pub(crate) fn tap_in(&self, packet: &InPacket) {
        let head = packet.head();
        let Some(eth) = head.get(..ETH) else { return };
        let kind = FrameKind::of(eth, self.is_loopback(), self.mac);
        if kind == FrameKind::OtherHost && self.promiscuous.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.taps.show(
            &Passing {
                index: self.index,
                loopback: self.is_loopback(),
                kind,
                protocol: protocol(eth),
                len: packet.len(),
                checksum_pending: matches!(packet.csum, RxChecksum::Partial { .. }),
                checksum_valid: packet.csum == RxChecksum::Verified,
                copy: &|most| packet.front(most),
            },
            None,
        );
    }

    /// Shows the taps a frame that leaves. Called only if there are any.
    #[cold]
    pub(crate) fn tap_out(&self, packet: &TxPacket, sender: Option<&Arc<TapPoint>>) {
        self.taps.show(
            &Passing {
                index: self.index,
                loopback: self.is_loopback(),
                kind: FrameKind::Outgoing,
                protocol: protocol(&packet.header),
                len: packet.len(),
                checksum_pending: packet.offload.is_some(),
                checksum_valid: false,
                copy: &|most| front_of(packet, most),
            },
            sender,
        );
    }
}

/// The first `most` bytes of a packet to send.
fn front_of(packet: &TxPacket, most: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(most);
    bytes.extend_from_slice(&packet.header[..packet.header.len().min(most)]);
    for segment in &packet.segments {
        let want = most - bytes.len();
        if want == 0 {
            break;
        }
        match segment {
            TxSegment::Bytes(data, range) => {
                let data = data.get(range.clone()).unwrap_or(&[]);
                bytes.extend_from_slice(&data[..data.len().min(want)]);
            }
            TxSegment::Frame { frame, offset, len } => {
                let at = bytes.len();
                bytes.resize(at + want.min(*len as usize), 0);
                frame.read(*offset as usize, &mut bytes[at..]);
            }
        }
    }
    bytes
}

/// A listener on one or all interfaces, made by [`Stack::tap`]. It ends when it is dropped.
pub struct Tap {
    stack: Weak<Stack>,
    point: Arc<TapPoint>,
}

impl Tap {
    /// The oldest frame that waits.
    pub fn next(&self) -> Option<TappedFrame> {
        let mut queue = self.point.queue.lock();
        let frame = queue.frames.pop_front()?;
        queue.bytes -= frame.bytes.len() + FRAME_COST;
        Some(frame)
    }

    /// A copy of the oldest frame, which stays.
    pub fn peek(&self) -> Option<TappedFrame> {
        self.point.queue.lock().frames.front().cloned()
    }

    /// The length of the oldest frame that waits, as kept; `None` when there is none.
    pub fn next_len(&self) -> Option<usize> {
        self.point
            .queue
            .lock()
            .frames
            .front()
            .map(|f| f.bytes.len())
    }

    /// Bytes that wait, with [`FRAME_COST`] for each frame.
    pub fn queued(&self) -> usize {
        self.point.queue.lock().bytes
    }

    /// Frames that were for this tap so far, the dropped ones included.
    pub fn seen(&self) -> u64 {
        self.point.seen.load(Ordering::Relaxed)
    }

    /// Frames dropped so far because too many waited.
    pub fn dropped(&self) -> u64 {
        self.point.dropped.load(Ordering::Relaxed)
    }

    /// As [`Stack::send_frame`]; this tap does not see the frame leave.
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, index: u32, frame: &[u8]) -> Result<usize> {
        let stack = self.stack.upgrade().ok_or(Errno::ENODEV)?;
        stack.send_from(index, frame, Some(&self.point))
    }

    /// Where to wait for frames: `IN`.
    pub fn pollee(&self) -> &Pollee {
        &self.point.pollee
    }

    /// What it takes now.
    pub fn config(&self) -> TapConfig {
        self.point.queue.lock().config.clone()
    }

    /// Changes what it takes from now on. What waits already stays.
    ///
    /// # Errors
    /// `ENODEV` for an interface that does not exist.
    pub fn set_config(&self, config: TapConfig) -> Result<()> {
        let stack = self.stack.upgrade().ok_or(Errno::ENODEV)?;
        if config.index != 0 && stack.interface(config.index).is_none() {
            return Err(Errno::ENODEV);
        }
        let before = {
            let mut queue = self.point.queue.lock();
            core::mem::replace(&mut queue.config, config.clone()).index
        };
        if before != config.index {
            stack.detach(&self.point);
            stack.attach(&self.point, config.index);
        }
        Ok(())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(stack) = self.stack.upgrade() {
            stack.detach(&self.point);
        }
    }
}

impl Stack {
    /// Listens to the frames of an interface, or of all.
    ///
    /// # Errors
    /// `ENODEV` for an interface that does not exist.
    pub fn tap(self: &Arc<Self>, config: TapConfig) -> Result<Tap> {
        let index = config.index;
        if index != 0 && self.interface(index).is_none() {
            return Err(Errno::ENODEV);
        }
        let point = Arc::new(TapPoint {
            queue: SpinLock::new(Queue {
                config,
                frames: VecDeque::new(),
                bytes: 0,
            }),
            seen: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            pollee: Pollee::new(),
            clock: self.config().clock.clone(),
        });
        self.attach(&point, index);
        Ok(Tap {
            stack: Arc::downgrade(self),
            point,
        })
    }

    fn attach(&self, point: &Arc<TapPoint>, index: u32) {
        let ifaces = self.ifaces.read();
        for iface in ifaces.iter() {
            if index == 0 || iface.index == index {
                iface.taps.add(point);
            }
        }
        if index == 0 {
            self.taps.add(point);
        }
    }

    fn detach(&self, point: &Arc<TapPoint>) {
        for iface in self.ifaces.read().iter() {
            iface.taps.remove(point);
        }
        self.taps.remove(point);
    }

    /// A new interface is seen by those who listen to all.
    pub(crate) fn tap_new(&self, iface: &Interface) {
        for point in self.taps.points.read().iter() {
            iface.taps.add(point);
        }
    }

    /// Makes an interface receive the frames of all stations, once more (`on`) or once less.
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn promiscuous(&self, index: u32, on: bool) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        let before = if on {
            iface.promiscuous.fetch_add(1, Ordering::AcqRel)
        } else {
            let less = |n: usize| Some(n.saturating_sub(1));
            match iface
                .promiscuous
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            {
                Ok(n) | Err(n) => n,
            }
        };
        if on && before == 0 || !on && before == 1 {
            self.tell(&crate::query::Change::Link(iface.info()));
        }
        Ok(())
    }

    /// Sets `IFF_PROMISC` as a program does: counted once, besides those who ask with [`Stack::promiscuous`].
    ///
    /// # Errors
    /// `ENODEV`.
    pub fn set_promiscuous_flag(&self, index: u32, on: bool) -> Result<()> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        if iface.promiscuous_flag.swap(on, Ordering::AcqRel) != on {
            self.promiscuous(index, on)?;
        }
        Ok(())
    }

    /// Sends a whole frame out of an interface as it is, and returns its length.
    ///
    /// # Errors
    /// `ENODEV`, `ENETDOWN`, `EMSGSIZE` for one longer than the interface takes, `EINVAL` for one without a header.
    pub fn send_frame(&self, index: u32, frame: &[u8]) -> Result<usize> {
        self.send_from(index, frame, None)
    }

    fn send_from(&self, index: u32, frame: &[u8], sender: Option<&Arc<TapPoint>>) -> Result<usize> {
        let iface = self.interface(index).ok_or(Errno::ENODEV)?;
        if !iface.is_up() {
            return Err(Errno::ENETDOWN);
        }
        if frame.len() < ETH {
            return Err(Errno::EINVAL);
        }
        // A VLAN tag is not counted.
        if frame.len() > iface.mtu() as usize + ETH + 4 {
            return Err(Errno::EMSGSIZE);
        }
        // The header's room holds the addresses that are looked at on the way.
        let (head, rest) = frame.split_at(frame.len().min(crate::nic::Header::CAPACITY));
        let mut packet = TxPacket::copy_of(head);
        if !rest.is_empty() {
            packet
                .segments
                .push(TxSegment::Bytes(Arc::from(rest), 0..rest.len()));
        }
        if iface.taps.active() {
            iface.tap_out(&packet, sender);
        }
        if iface.is_loopback() {
            self.loop_unseen(&iface, packet);
            self.drain_loopback();
        } else {
            iface.transmit_unseen(packet);
        }
        Ok(frame.len())
    }
}
