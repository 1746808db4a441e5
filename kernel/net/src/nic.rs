//! What the engine needs of a network card.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// What a card can do.
#[derive(Clone, Copy, Debug, Default)]
pub struct NicCaps {
    /// Fills transport checksums.
    pub tx_csum: bool,
    /// Says which checksums it verified.
    pub rx_csum: bool,
    /// Cuts large IPv4 TCP segments.
    pub tso4: bool,
    /// Cuts large IPv6 TCP segments.
    pub tso6: bool,
}

/// A checksum to fill, and a segment to cut.
#[derive(Clone, Copy, Debug)]
pub struct TxOffload {
    /// Where summing starts.
    pub csum_start: u16,
    /// Where the sum goes, from `csum_start`.
    pub csum_offset: u16,
    /// Segmentation.
    pub gso: Option<Gso>,
}

/// How to cut.
#[derive(Clone, Copy, Debug)]
pub struct Gso {
    /// Which protocol.
    pub kind: GsoKind,
    /// Payload of each piece.
    pub size: u16,
    /// Bytes of all headers.
    pub header_len: u16,
}

/// Which protocol a large segment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
}

/// A piece of a packet to send.
#[derive(Clone, Debug)]
pub enum TxSegment {
    /// Shared bytes.
    Bytes(Arc<[u8]>, Range<usize>),
}

/// A packet to send.
#[derive(Clone, Debug)]
pub struct TxPacket {
    /// What the card is to do.
    pub offload: Option<TxOffload>,
    /// The bytes.
    pub segments: Vec<TxSegment>,
}

/// What is known of a received transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxCsum {
    /// Right.
    Verified,
    /// Never on a wire: not filled.
    Partial,
    /// Not checked.
    Unknown,
}

/// A received packet.
#[derive(Debug)]
pub struct RxPacket {
    /// The frame.
    pub data: Box<[u8]>,
    /// Its checksum.
    pub csum: RxCsum,
}

/// A network card.
pub trait Nic: Send + Sync {
    /// Hardware address.
    fn mac(&self) -> [u8; 6];
    /// Largest payload of a frame.
    fn mtu(&self) -> u16;
    /// What it can do.
    fn caps(&self) -> NicCaps;
    /// Queue pairs.
    fn queue_count(&self) -> usize;
    /// Sends, or hands the packet back when the queue is full.
    fn transmit(&self, queue: usize, packet: TxPacket) -> Result<(), TxPacket>;
    /// Takes up to `budget` received packets.
    fn receive(&self, queue: usize, budget: usize, each: &mut dyn FnMut(RxPacket)) -> usize;
}
