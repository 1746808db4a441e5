//! Packets on their way to and from a card: their pieces, and what the card does or has done to them.

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, ops::Range};

use machine::mem::Frame;
use smallvec::SmallVec;

use super::RxBuffer;

/// The headers of a packet to send, held in the packet itself so that most packets need no further memory. Small
/// packets fit in here whole.
#[derive(Clone)]
pub struct Header {
    len: u8,
    bytes: [u8; Header::CAPACITY],
}

impl Header {
    /// The most bytes it holds: more than Ethernet, IPv6 and TCP headers with all their options, so many that they
    /// fill a cache-line pair together with the device's own header of 12 bytes.
    pub const CAPACITY: usize = 116;

    /// No bytes.
    pub const fn new() -> Header {
        Header {
            len: 0,
            bytes: [0; Header::CAPACITY],
        }
    }

    /// A copy of `bytes`, or `None` when they are more than [`Header::CAPACITY`].
    pub fn from_slice(bytes: &[u8]) -> Option<Header> {
        let mut header = Header::new();
        header.extend_from_slice(bytes).then_some(header)
    }

    /// Appends `bytes`; returns `false`, changing nothing, when they do not fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> bool {
        let at = usize::from(self.len);
        match self.bytes.get_mut(at..at + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len() as u8;
                true
            }
            None => false,
        }
    }

    /// Appends `len` zero bytes and returns them to be filled, or `None` when they do not fit.
    pub fn extend_zeroed(&mut self, len: usize) -> Option<&mut [u8]> {
        let at = usize::from(self.len);
        let room = self.bytes.get_mut(at..at.checked_add(len)?)?;
        room.fill(0);
        self.len += len as u8;
        Some(room)
    }

    /// How many more bytes fit.
    pub fn room(&self) -> usize {
        Header::CAPACITY - usize::from(self.len)
    }
}

impl Default for Header {
    fn default() -> Self {
        Header::new()
    }
}

impl core::ops::Deref for Header {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl core::ops::DerefMut for Header {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A piece of a packet to send. The device reads it in place.
#[derive(Clone, Debug)]
pub enum TxSegment {
    /// A range of shared kernel bytes, such as a socket's send queue.
    Bytes(Arc<[u8]>, Range<usize>),
    /// Bytes of a page, such as one of the page cache.
    Frame {
        /// The page.
        frame: Frame,
        /// First byte.
        offset: u32,
        /// How many bytes.
        len: u32,
    },
}

impl TxSegment {
    /// How many bytes; 0 for a range that is empty or reversed.
    pub fn len(&self) -> usize {
        match self {
            TxSegment::Bytes(_, range) => range.len(),
            TxSegment::Frame { len, .. } => *len as usize,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves out the first `by` bytes, of as many as there are.
    pub fn advance(&mut self, by: usize) {
        let by = by.min(self.len());
        match self {
            TxSegment::Bytes(_, range) => range.start += by,
            TxSegment::Frame { offset, len, .. } => {
                *offset += by as u32;
                *len -= by as u32;
            }
        }
    }

    /// The `len` bytes from `from` on, of as many as there are, by reference.
    #[must_use]
    pub fn part(&self, from: usize, len: usize) -> TxSegment {
        let mut part = self.clone();
        part.advance(from);
        let len = len.min(part.len());
        match &mut part {
            TxSegment::Bytes(_, range) => range.end = range.start + len,
            TxSegment::Frame { len: of, .. } => *of = len as u32,
        }
        part
    }
}

/// What kind of packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, each datagram of the given size (`UDP_SEGMENT`).
    Udp,
}

/// A large packet that stands for several: to be cut by the device, or merged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Its protocol.
    pub kind: GsoKind,
    /// Payload bytes of each segment but the last.
    pub segment_size: u16,
    /// Bytes of Ethernet, IP and transport headers.
    pub header_len: u16,
    /// The segment has CWR set, which only the first of the cut ones is to keep.
    pub ecn: bool,
}

/// What the card is to do with a packet. The transport checksum field holds the (not inverted) sum of the pseudo
/// header; the card adds the bytes from `csum_start` on and writes the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxOffload {
    /// Where the checksummed bytes start, from the start of the Ethernet header.
    pub csum_start: u16,
    /// Where the checksum goes, from `csum_start` (16 for TCP, 6 for UDP).
    pub csum_offset: u16,
    /// Cut it in segments.
    pub gso: Option<Gso>,
}

/// A packet to send: `header`, then `segments`.
#[derive(Clone, Debug, Default)]
pub struct TxPacket {
    /// The first bytes, from the Ethernet header on. May be empty if the segments begin with it.
    pub header: Header,
    /// The rest.
    pub segments: SmallVec<[TxSegment; 2]>,
    /// What the card is to do; `None`: the packet is complete.
    pub offload: Option<TxOffload>,
}

impl TxPacket {
    /// A packet that is complete in its header.
    pub fn from_header(header: Header) -> TxPacket {
        TxPacket {
            header,
            ..TxPacket::default()
        }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> TxPacket {
        match Header::from_slice(bytes) {
            Some(header) => TxPacket::from_header(header),
            None => TxPacket {
                segments: smallvec::smallvec![TxSegment::Bytes(Arc::from(bytes), 0..bytes.len())],
                ..TxPacket::default()
            },
        }
    }

    /// How many bytes in all.
    pub fn len(&self) -> usize {
        self.header.len() + self.segments.iter().map(TxSegment::len).sum::<usize>()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All its bytes in one piece, for loopback and for tests.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend_from_slice(&self.header);
        for segment in &self.segments {
            match segment {
                TxSegment::Bytes(data, range) => {
                    bytes.extend_from_slice(data.get(range.clone()).unwrap_or(&[]));
                }
                TxSegment::Frame { frame, offset, len } => {
                    let at = bytes.len();
                    bytes.resize(at + *len as usize, 0);
                    frame.read(*offset as usize, &mut bytes[at..]);
                }
            }
        }
        bytes
    }
}

/// What the card says of the transport checksum of a received packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxChecksum {
    /// Nothing: check it.
    #[default]
    Unknown,
    /// It is right.
    Verified,
    /// The packet comes from a neighbour on the same host that left the checksum to its card: the field holds the sum
    /// of the pseudo header only. The data is trustworthy; whoever passes the packet on has to fill in the checksum.
    Partial {
        /// Where the checksummed bytes start.
        start: u16,
        /// Where the checksum belongs, from `start`.
        offset: u16,
    },
}

/// A received packet: one buffer, or several that follow each other.
#[derive(Debug)]
pub struct RxPacket {
    /// The first bytes: at least the headers, from the Ethernet header on.
    pub first: RxBuffer,
    /// The rest, empty for packets up to the MTU.
    pub rest: Vec<RxBuffer>,
    /// What is known of the checksum.
    pub checksum: RxChecksum,
    /// Set if the packet stands for several received segments.
    pub gso: Option<Gso>,
}

impl RxPacket {
    /// A packet of one buffer about which the card says nothing.
    pub fn plain(first: RxBuffer) -> RxPacket {
        RxPacket {
            first,
            rest: Vec::new(),
            checksum: RxChecksum::Unknown,
            gso: None,
        }
    }

    /// How many bytes in all.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(|buffer| buffer.len()).sum::<usize>()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffers in order.
    pub fn buffers(&self) -> impl Iterator<Item = &RxBuffer> {
        core::iter::once(&self.first).chain(&self.rest)
    }

    /// All its bytes in one piece: a copy.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        for buffer in self.buffers() {
            bytes.extend_from_slice(buffer);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_segment_lies_where_the_segment_does() {
        let bytes: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        let whole = TxSegment::Bytes(bytes, 2..9);
        let TxSegment::Bytes(_, range) = whole.part(3, 2) else {
            panic!("{whole:?}");
        };
        assert_eq!(range, 5..7);
        assert_eq!(whole.part(3, 99).len(), 4);
        assert!(whole.part(99, 1).is_empty());
        let frame = Frame::alloc_zeroed().unwrap();
        let mut page = TxSegment::Frame {
            frame,
            offset: 100,
            len: 50,
        };
        page.advance(20);
        assert!(
            matches!(
                page.part(5, 10),
                TxSegment::Frame {
                    offset: 125,
                    len: 10,
                    ..
                }
            ),
            "{page:?}"
        );
        page.advance(99);
        assert!(page.is_empty());
    }
}
