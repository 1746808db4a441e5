//! What a network interface card is to the rooms above: packets with their offloads, queues, the trait. No device
//! lives here (see [`crate::virtio::net`]) and no protocol (see the `net` room).

pub mod buffer;
pub mod packet;

use alloc::{collections::VecDeque, sync::Arc};

pub use buffer::{BufferPool, RxBuffer};
pub use packet::{Gso, GsoKind, Header, RxChecksum, RxPacket, TxOffload, TxPacket, TxSegment};

/// What a card can take over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicCaps {
    /// It fills in the checksum that [`TxOffload`] points at. Without it, no packet may carry an offload.
    pub tx_csum: bool,
    /// Received packets may come with [`RxChecksum::Verified`] or [`RxChecksum::Partial`].
    pub rx_csum: bool,
    /// It cuts TCP over IPv4 into segments.
    pub tso4: bool,
    /// It cuts TCP over IPv6 into segments.
    pub tso6: bool,
    /// It does so for segments with the CWR bit too ([`Gso::ecn`]).
    pub tso_ecn: bool,
    /// It cuts UDP datagrams (`UDP_SEGMENT`).
    pub uso: bool,
    /// Received TCP segments may come merged ([`RxPacket::gso`]): no need to merge them in software.
    pub rx_gro: bool,
    /// The largest packet with segmentation offload, in bytes with its headers.
    pub max_gso_size: u32,
    /// The most pieces of a packet ([`TxPacket::segments`]).
    pub max_segments: usize,
    /// How many packets a transmit queue holds.
    pub tx_depth: usize,
}

/// What is called from interrupt handlers: it must be short, not sleep, not allocate.
pub type Handler = Arc<dyn Fn() + Send + Sync>;

/// A network card of one or more queue pairs.
///
/// Each queue pair has its own locks, interrupt and handler, and is best served by one thread on one CPU, but every
/// method may be called from any thread. No method sleeps.
///
/// Receiving: [`Nic::set_receive_handler`], then [`Nic::enable_interrupts`]. When the handler runs, interrupts of
/// that queue are off: call [`Nic::receive`] until it returns less than its budget, then `enable_interrupts` again and,
/// if that returns `true`, go on receiving.
///
/// Sending: the memory of a packet comes back some time after it was sent, when the next is sent, the queue is polled,
/// or [`Nic::reclaim`] is called.
pub trait Nic: Send + Sync {
    /// The hardware address.
    fn mac(&self) -> [u8; 6];

    /// The largest packet without its Ethernet header, in bytes.
    fn mtu(&self) -> u16;

    /// What the card takes over.
    fn caps(&self) -> NicCaps;

    /// Whether there is a carrier.
    fn link_up(&self) -> bool {
        true
    }

    /// Who is told, in an interrupt, that [`Nic::link_up`] changed.
    fn set_link_handler(&self, handler: Handler) {
        let _ = handler;
    }

    /// How many queue pairs are in use.
    fn queue_count(&self) -> usize;

    /// Queues a packet and tells the device.
    ///
    /// # Errors
    /// The packet, when the queue is full; the transmit handler runs when there is room again. A packet that the card
    /// cannot ever send (too many pieces, an offload it does not have) is dropped and counted in [`NicStats::tx_dropped`].
    #[expect(clippy::result_large_err, reason = "the packet goes back to its owner")]
    fn transmit(&self, queue: usize, packet: TxPacket) -> Result<(), TxPacket>;

    /// Queues packets from the front as long as they fit, tells the device once, and returns how many it took.
    fn transmit_all(&self, queue: usize, packets: &mut VecDeque<TxPacket>) -> usize {
        let mut taken = 0;
        while let Some(packet) = packets.pop_front() {
            match self.transmit(queue, packet) {
                Ok(()) => taken += 1,
                Err(packet) => {
                    packets.push_front(packet);
                    break;
                }
            }
        }
        taken
    }

    /// Gives back the memory of packets that have been sent; returns how many.
    fn reclaim(&self, queue: usize) -> usize;

    /// Who is told, in an interrupt, that a full transmit queue has room again.
    fn set_transmit_handler(&self, queue: usize, handler: Handler);

    /// Takes up to `budget` received packets and returns how many there were. Sent packets are reclaimed as well.
    fn receive(&self, queue: usize, budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize;

    /// Who is told, in an interrupt, that packets have arrived.
    fn set_receive_handler(&self, queue: usize, handler: Handler);

    /// Asks for an interrupt at the next received packet, and returns whether there are packets already: then no
    /// interrupt may come, and the caller has to receive.
    fn enable_interrupts(&self, queue: usize) -> bool;

    /// Somebody looks at the queue with [`Nic::look`] from now on: while it waits for packets, it need not interrupt.
    fn begin_looking(&self, queue: usize) {
        let _ = queue;
    }

    /// Whether packets have arrived on a queue that waits for them; then its handler has been called.
    fn look(&self, queue: usize) -> bool {
        let _ = queue;
        false
    }

    /// Ends what [`Nic::begin_looking`] began. What came until now is told.
    fn end_looking(&self, queue: usize) {
        let _ = queue;
    }

    /// What was counted so far.
    fn stats(&self) -> NicStats;
}

/// Counters of a card, over all its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets that the device delivered and the driver could not take: malformed, or no memory.
    pub rx_dropped: u64,
    /// Packets handed to the device.
    pub tx_packets: u64,
    /// Bytes handed to the device.
    pub tx_bytes: u64,
    /// Packets refused because the card cannot send them.
    pub tx_dropped: u64,
    /// How often the device was told of new buffers: each costs an exit from the virtual machine.
    pub kicks: u64,
    /// Interrupts taken.
    pub interrupts: u64,
}
