//! virtio-net (virtio 1.2, 5.1): the card as a [`Nic`]. Negotiation and configuration are here; packets go through
//! `tx` and `rx`, commands through `control`.

mod control;
pub mod header;
mod rx;
#[cfg(test)]
mod tests;
mod tx;

use alloc::{boxed::Box, collections::VecDeque, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering};

use machine::{cpu, random, sync::Once};

use control::ControlQueue;
use rx::RxQueue;
use tx::TxQueue;

use super::{
    SetupError, feature as ring,
    setup::{Found, Running, read_config},
    transport::{Handlers, InterruptHandler, Transport},
};
use crate::nic::{Handler, Nic, NicCaps, NicStats, RxPacket, TxPacket};

/// Feature bits (virtio 1.2, 5.1.3).
pub mod feature {
    /// The device completes checksums of sent packets.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes packets with partial checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The MTU is given.
    pub const MTU: u64 = 1 << 3;
    /// The address is given.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes merged TCP over IPv4.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver takes merged TCP over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver takes merged TCP with ECN.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The device cuts TCP over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The device cuts TCP over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device cuts TCP with ECN.
    pub const HOST_ECN: u64 = 1 << 13;
    /// A packet may lie in several receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The state of the link is given.
    pub const STATUS: u64 = 1 << 16;
    /// There is a queue for commands.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// Several queue pairs.
    pub const MQ: u64 = 1 << 22;
    /// The device cuts UDP.
    pub const HOST_USO: u64 = 1 << 56;
}

/// Descriptors of a receive queue: some packets of 64 KiB in buffers of 2 KiB.
const RX_QUEUE_SIZE: u16 = 256;
/// Descriptors of a transmit queue.
const TX_QUEUE_SIZE: u16 = 128;
/// The most queue pairs.
const MAX_PAIRS: u16 = 16;

const STATUS_LINK_UP: u16 = 1;

/// A virtio network card in service.
pub struct VirtioNet {
    // First, so that it is reset before the queues' memory goes.
    running: Running,
    pairs: Vec<(Arc<RxQueue>, Arc<TxQueue>)>,
    /// The device knows its memory, so it has to stay.
    _control: Option<ControlQueue>,
    mac: [u8; 6],
    mtu: u16,
    caps: NicCaps,
    link: Arc<Link>,
}

/// The carrier, kept up to date by configuration interrupts.
struct Link {
    up: AtomicBool,
    handler: Once<Handler>,
}

/// Which of the offered features to use: each needs some others.
fn choose(offered: u64) -> u64 {
    use feature::{
        CSUM, CTRL_VQ, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, HOST_ECN, HOST_TSO4,
        HOST_TSO6, HOST_USO, MAC, MQ, MRG_RXBUF, MTU, STATUS,
    };
    let has = |bits: u64| offered & bits == bits;
    let mut wanted = ring::INDIRECT_DESC | ring::EVENT_IDX | MAC | MTU | STATUS | MRG_RXBUF;
    if has(CSUM) {
        wanted |= CSUM | HOST_TSO4 | HOST_TSO6 | HOST_USO;
        if offered & (HOST_TSO4 | HOST_TSO6) != 0 {
            wanted |= HOST_ECN;
        }
    }
    if has(GUEST_CSUM) {
        wanted |= GUEST_CSUM;
        // Without merging, each buffer would have to hold 64 KiB.
        if has(MRG_RXBUF) {
            wanted |= GUEST_TSO4 | GUEST_TSO6;
            if offered & (GUEST_TSO4 | GUEST_TSO6) != 0 {
                wanted |= GUEST_ECN;
            }
        }
    }
    if has(MQ | CTRL_VQ) && cpu::count() > 1 {
        wanted |= MQ | CTRL_VQ;
    }
    offered & wanted
}

impl VirtioNet {
    /// Takes the card into service: buffers are out, interrupts are off until the first `enable_interrupts`.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(transport: Arc<dyn Transport>) -> Result<VirtioNet, SetupError> {
        let mut device =
            Found::new(transport.clone()).negotiate_with(|offered| Ok(choose(offered)))?;
        let mac = if device.has(feature::MAC) {
            device.config(0)?
        } else {
            random_mac()
        };
        let mtu = if device.has(feature::MTU) {
            u16::from_le_bytes(device.config(10)?)
        } else {
            1500
        };
        if mtu < 68 {
            return Err(SetupError::BadConfig);
        }
        let merge = device.has(feature::MRG_RXBUF);
        let largest = usize::from(mtu) + 18 + header::HEADER_LEN;
        let mtu = if !merge && largest > rx::BUFFER_LEN {
            (rx::BUFFER_LEN - 18 - header::HEADER_LEN) as u16
        } else {
            mtu
        };
        let max_pairs = if device.has(feature::MQ) {
            u16::from_le_bytes(device.config(8)?).max(1)
        } else {
            1
        };
        let count = max_pairs.min(cpu::count().max(1) as u16).min(MAX_PAIRS);
        let indirect = device.has(ring::INDIRECT_DESC);
        let large = device.has(feature::GUEST_TSO4) || device.has(feature::GUEST_TSO6);
        let mut pairs = Vec::new();
        for pair in 0..count {
            let (queue, notifier) = device.queue(2 * pair, RX_QUEUE_SIZE)?;
            let rx = Arc::new(RxQueue::new(queue, notifier, merge, large));
            let (queue, notifier) = device.queue(2 * pair + 1, TX_QUEUE_SIZE)?;
            let tx = Arc::new(TxQueue::new(queue, notifier, indirect));
            pairs.push((rx, tx));
        }
        let mut control = if count > 1 {
            let (queue, notifier) = device.queue(2 * max_pairs, 4)?;
            Some(ControlQueue::new(queue, notifier)?)
        } else {
            None
        };
        let caps = caps(&device, pairs[0].1.depth());
        let link = Arc::new(Link {
            up: AtomicBool::new(true),
            handler: Once::new(),
        });
        let mut handlers = Handlers::default();
        for (index, (rx, tx)) in pairs.iter().enumerate() {
            let (rx, tx) = (rx.clone(), tx.clone());
            let on_rx: InterruptHandler = Box::new(move || rx.interrupt());
            let on_tx: InterruptHandler = Box::new(move || tx.interrupt());
            handlers.queues.push((2 * index as u16, on_rx));
            handlers.queues.push((2 * index as u16 + 1, on_tx));
        }
        if device.has(feature::STATUS) {
            link.up.store(link_status(&*transport), Ordering::Relaxed);
            let (link, registers) = (link.clone(), Arc::downgrade(&transport));
            handlers.config = Some(Box::new(move || {
                if let Some(registers) = registers.upgrade() {
                    link.changed(link_status(&*registers));
                }
            }));
        }
        let running = device.start(handlers)?;
        if let Some(control) = &mut control {
            control.set_queue_pairs(count)?;
        }
        for (rx, _) in &pairs {
            rx.fill();
        }
        Ok(VirtioNet {
            running,
            pairs,
            _control: control,
            mac,
            mtu,
            caps,
            link,
        })
    }

    /// Where the card is, for messages.
    pub fn location(&self) -> String {
        self.running.transport().location()
    }
}

impl Link {
    fn changed(&self, up: bool) {
        if self.up.swap(up, Ordering::AcqRel) != up
            && let Some(handler) = self.handler.get()
        {
            handler();
        }
    }
}

fn link_status(transport: &dyn Transport) -> bool {
    match read_config::<2>(transport, 6) {
        Ok(status) => u16::from_le_bytes(status) & STATUS_LINK_UP != 0,
        Err(_) => true,
    }
}

fn caps(device: &super::setup::Negotiated, depth: usize) -> NicCaps {
    use feature::{CSUM, GUEST_CSUM, GUEST_TSO4, HOST_ECN, HOST_TSO4, HOST_TSO6, HOST_USO};
    NicCaps {
        tx_csum: device.has(CSUM),
        rx_csum: device.has(GUEST_CSUM),
        tso4: device.has(HOST_TSO4),
        tso6: device.has(HOST_TSO6),
        tso_ecn: device.has(HOST_ECN),
        uso: device.has(HOST_USO),
        rx_gro: device.has(GUEST_TSO4),
        max_gso_size: 65535,
        max_segments: if device.has(ring::INDIRECT_DESC) {
            tx::MAX_SEGMENTS
        } else {
            tx::MAX_SEGMENTS.min(depth / 2)
        },
        tx_depth: depth,
    }
}

/// An address of our own for a card that has none: locally administered, unicast.
fn random_mac() -> [u8; 6] {
    let word = random::rdrand()
        .unwrap_or_else(random::jitter)
        .to_le_bytes();
    let mut mac = [0; 6];
    mac.copy_from_slice(&word[..6]);
    mac[0] = mac[0] & 0xfc | 2;
    mac
}

impl Nic for VirtioNet {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn caps(&self) -> NicCaps {
        self.caps
    }

    fn link_up(&self) -> bool {
        self.link.up.load(Ordering::Acquire)
    }

    fn set_link_handler(&self, handler: Handler) {
        if self.link.handler.set(handler).is_err() {
            log::warn!("the link has a handler already; the first stays");
        }
    }

    fn queue_count(&self) -> usize {
        self.pairs.len()
    }

    fn transmit(&self, queue: usize, mut packet: TxPacket) -> Result<(), TxPacket> {
        match self.pairs.get(queue) {
            Some((_, tx)) if tx.transmit(&self.caps, &mut packet) => Ok(()),
            _ => Err(packet),
        }
    }

    fn transmit_all(&self, queue: usize, packets: &mut VecDeque<TxPacket>) -> usize {
        self.pairs
            .get(queue)
            .map_or(0, |(_, tx)| tx.transmit_all(&self.caps, packets))
    }

    fn reclaim(&self, queue: usize) -> usize {
        self.pairs.get(queue).map_or(0, |(_, tx)| tx.reclaim())
    }

    fn set_transmit_handler(&self, queue: usize, handler: Handler) {
        if let Some((_, tx)) = self.pairs.get(queue) {
            tx.set_handler(handler);
        }
    }

    fn receive(&self, queue: usize, budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize {
        let Some((rx, tx)) = self.pairs.get(queue) else {
            return 0;
        };
        tx.reclaim();
        rx.receive(budget, deliver)
    }

    fn set_receive_handler(&self, queue: usize, handler: Handler) {
        if let Some((rx, _)) = self.pairs.get(queue) {
            rx.set_handler(handler);
        }
    }

    fn enable_interrupts(&self, queue: usize) -> bool {
        self.pairs
            .get(queue)
            .is_some_and(|(rx, _)| rx.enable_interrupts())
    }

    fn begin_looking(&self, queue: usize) {
        if let Some((rx, _)) = self.pairs.get(queue) {
            rx.begin_looking();
        }
    }

    fn look(&self, queue: usize) -> bool {
        self.pairs.get(queue).is_some_and(|(rx, _)| rx.look())
    }

    fn end_looking(&self, queue: usize) {
        if let Some((rx, _)) = self.pairs.get(queue) {
            rx.end_looking();
        }
    }

    fn stats(&self) -> NicStats {
        let mut sum = NicStats {
            interrupts: self.running.transport().interrupts(),
            ..NicStats::default()
        };
        for (rx, tx) in &self.pairs {
            sum.rx_packets += rx.packets.load(Ordering::Relaxed);
            sum.rx_bytes += rx.bytes.load(Ordering::Relaxed);
            sum.rx_dropped += rx.dropped.load(Ordering::Relaxed);
            sum.tx_packets += tx.packets.load(Ordering::Relaxed);
            sum.tx_bytes += tx.bytes.load(Ordering::Relaxed);
            sum.tx_dropped += tx.dropped.load(Ordering::Relaxed);
            sum.kicks += rx.kicks.load(Ordering::Relaxed) + tx.kicks.load(Ordering::Relaxed);
        }
        sum
    }
}
