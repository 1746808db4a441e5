//! A packet on its way in: one contiguous head that holds all headers, and the bytes that follow, each
//! in the memory it arrived in. From a card, from the loopback and from reassembly alike.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use errno::Result;
use iobuf::Sink;
use smallvec::SmallVec;

use crate::checksum::Parts;
use crate::nic::{Gso, Header, RxBuffer, RxChecksum, RxPacket, TxPacket, TxSegment};
use machine::mem::Frame;

/// A run of received bytes.
#[derive(Debug)]
pub(crate) enum RxData {
    /// A card's buffer.
    Buffer(RxBuffer),
    /// A sender's memory, over the loopback.
    Shared(Arc<[u8]>, Range<usize>),
    /// A page the sender shared, over the loopback.
    Frame { frame: Frame, offset: u32, len: u32 },
    /// A copy.
    Dense(Vec<u8>, usize),
}

/// The payload of one packet.
pub(crate) type Payload = SmallVec<[RxData; 1]>;

impl RxData {
    pub fn len(&self) -> usize {
        match self {
            RxData::Buffer(b) => b.len(),
            RxData::Shared(_, range) => range.len(),
            RxData::Frame { len, .. } => *len as usize,
            RxData::Dense(bytes, start) => bytes.len() - start,
        }
    }

    /// Memory it keeps alive.
    pub fn footprint(&self) -> usize {
        match self {
            RxData::Buffer(b) => b.capacity() + 64,
            // The sender is charged for the rest of the chunk.
            RxData::Shared(_, range) => range.len() + 64,
            RxData::Frame { .. } => 4096,
            RxData::Dense(bytes, _) => bytes.capacity() + 64,
        }
    }

    /// Drops `n` bytes from the front.
    pub fn advance(&mut self, n: usize) {
        let n = n.min(self.len());
        match self {
            RxData::Buffer(b) => b.advance(n),
            RxData::Shared(_, range) => range.start += n,
            RxData::Frame { offset, len, .. } => {
                *offset += n as u32;
                *len -= n as u32;
            }
            RxData::Dense(_, start) => *start += n,
        }
    }

    /// Keeps the first `n` bytes.
    pub fn truncate(&mut self, n: usize) {
        let n = n.min(self.len());
        match self {
            RxData::Buffer(b) => b.truncate(n),
            RxData::Shared(_, range) => range.end = range.start + n,
            RxData::Frame { len, .. } => *len = n as u32,
            RxData::Dense(bytes, start) => bytes.truncate(*start + n),
        }
    }

    /// Calls `each` with its bytes, in one or more runs.
    pub fn with(&self, mut each: impl FnMut(&[u8])) {
        match self {
            RxData::Buffer(b) => each(b),
            RxData::Shared(bytes, range) => each(bytes.get(range.clone()).unwrap_or(&[])),
            RxData::Dense(bytes, start) => each(&bytes[*start..]),
            RxData::Frame { frame, offset, len } => {
                let mut room = [0; 256];
                let mut done = 0;
                while done < *len as usize {
                    let n = (*len as usize - done).min(room.len());
                    frame.read(*offset as usize + done, &mut room[..n]);
                    each(&room[..n]);
                    done += n;
                }
            }
        }
    }

    /// Copies from `from` on into `sink`; returns how many bytes it took.
    pub fn copy_to(&self, from: usize, most: usize, sink: &mut dyn Sink) -> Result<usize> {
        let len = most.min(self.len().saturating_sub(from));
        match self {
            RxData::Buffer(b) => sink.put(&b[from..from + len]),
            RxData::Shared(bytes, range) => {
                let start = range.start + from;
                sink.put(bytes.get(start..start + len).unwrap_or(&[]))
            }
            RxData::Dense(bytes, start) => sink.put(&bytes[start + from..start + from + len]),
            RxData::Frame { frame, offset, .. } => {
                let start = *offset as usize + from;
                sink.put_from(len, &mut |at, room| frame.read(start + at, room))
            }
        }
    }
}

/// Bytes in a payload.
pub(crate) fn payload_len(payload: &Payload) -> usize {
    payload.iter().map(RxData::len).sum()
}

/// A payload in one vector.
pub(crate) fn payload_to_vec(payload: &Payload) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload_len(payload));
    for part in payload {
        part.with(|run| bytes.extend_from_slice(run));
    }
    bytes
}

/// Drops `n` bytes from the front of a payload.
pub(crate) fn payload_advance(payload: &mut Payload, mut n: usize) {
    while n > 0 {
        let Some(first) = payload.first_mut() else {
            return;
        };
        if first.len() > n {
            first.advance(n);
            return;
        }
        n -= first.len();
        payload.remove(0);
    }
}

/// Keeps the first `n` bytes of a payload.
pub(crate) fn payload_truncate(payload: &mut Payload, mut n: usize) {
    let mut keep = 0;
    for part in payload.iter_mut() {
        if n == 0 {
            break;
        }
        part.truncate(n);
        n -= part.len();
        keep += 1;
    }
    payload.truncate(keep);
}

/// Memory a payload keeps alive.
pub(crate) fn payload_footprint(payload: &Payload) -> usize {
    payload.iter().map(RxData::footprint).sum()
}

/// The contiguous front of a packet.
#[derive(Debug)]
enum Head {
    Buffer(RxBuffer),
    /// In a box: packets from cards are not to carry its room about.
    Inline(Box<Header>),
    Dense(Vec<u8>),
}

/// A received packet, from its Ethernet header on.
#[derive(Debug)]
pub(crate) struct InPacket {
    head: Head,
    rest: Payload,
    /// What is known of the transport checksum.
    pub csum: RxChecksum,
    /// Set if it stands for several segments.
    pub gso: Option<Gso>,
}

impl From<RxPacket> for InPacket {
    fn from(packet: RxPacket) -> InPacket {
        InPacket {
            head: Head::Buffer(packet.first),
            rest: packet.rest.into_iter().map(RxData::Buffer).collect(),
            csum: packet.checksum,
            gso: packet.gso,
        }
    }
}

impl InPacket {
    /// A packet sent over the loopback: it never left this memory, so its checksum is not looked at.
    pub fn looped(packet: TxPacket) -> InPacket {
        InPacket {
            head: Head::Inline(Box::new(packet.header)),
            rest: packet
                .segments
                .into_iter()
                .map(|segment| match segment {
                    TxSegment::Bytes(bytes, range) => RxData::Shared(bytes, range),
                    TxSegment::Frame { frame, offset, len } => RxData::Frame { frame, offset, len },
                })
                .collect(),
            csum: RxChecksum::Verified,
            gso: None,
        }
    }

    /// A packet put together from fragments.
    pub fn assembled(bytes: Vec<u8>) -> InPacket {
        InPacket {
            head: Head::Dense(bytes),
            rest: Payload::new(),
            csum: RxChecksum::Unknown,
            gso: None,
        }
    }

    /// The contiguous front.
    #[inline]
    pub fn head(&self) -> &[u8] {
        match &self.head {
            Head::Buffer(b) => b,
            Head::Inline(h) => h,
            Head::Dense(v) => v,
        }
    }

    /// The contiguous front, to be changed; `None` where others share it.
    pub fn head_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.head {
            Head::Buffer(b) => Some(b),
            Head::Dense(v) => Some(v),
            Head::Inline(_) => None,
        }
    }

    /// Whether all of it lies in one buffer of a card.
    pub fn is_one_buffer(&self) -> bool {
        matches!(self.head, Head::Buffer(_)) && self.rest.is_empty()
    }

    /// Appends another packet's bytes from `from` on, which lies in its head.
    pub fn append(&mut self, other: InPacket, from: usize) {
        self.rest.extend(other.into_payload(from));
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.head().len() + payload_len(&self.rest)
    }

    /// Cuts what the link padded: keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        let head = self.head().len();
        if len >= head {
            if !self.rest.is_empty() {
                payload_truncate(&mut self.rest, len - head);
            }
            return;
        }
        self.rest.clear();
        match &mut self.head {
            Head::Buffer(b) => b.truncate(len),
            Head::Inline(h) => {
                if let Some(cut) = Header::from_slice(&h[..len]) {
                    **h = cut;
                }
            }
            Head::Dense(v) => v.truncate(len),
        }
    }

    /// Makes the first `len` bytes contiguous, if there are so many.
    pub fn pull(&mut self, len: usize) {
        if self.head().len() >= len || self.len() < len {
            return;
        }
        let mut bytes = self.head().to_vec();
        let want = len - bytes.len();
        for part in &self.rest {
            part.with(|run| {
                let n = run.len().min(len - bytes.len());
                bytes.extend_from_slice(&run[..n]);
            });
        }
        payload_advance(&mut self.rest, want);
        self.head = Head::Dense(bytes);
    }

    /// Sums the bytes from `from` on.
    pub fn sum(&self, from: usize, mut parts: Parts) -> Parts {
        parts.add(self.head().get(from..).unwrap_or(&[]));
        for part in &self.rest {
            part.with(|run| parts.add(run));
        }
        parts
    }

    /// What follows the first `from` bytes, which lie in the head.
    pub fn into_payload(self, from: usize) -> Payload {
        let mut payload = self.rest;
        let front = match self.head {
            Head::Buffer(mut b) => {
                b.advance(from);
                RxData::Buffer(b)
            }
            Head::Inline(h) => {
                if h.len() <= from {
                    return payload;
                }
                RxData::Dense(h[from..].to_vec(), 0)
            }
            Head::Dense(v) => {
                let from = from.min(v.len());
                RxData::Dense(v, from)
            }
        };
        if front.len() > 0 {
            payload.insert(0, front);
        }
        payload
    }

    /// The first `most` bytes, copied.
    pub fn front(&self, most: usize) -> Vec<u8> {
        let head = self.head();
        let mut bytes = head[..head.len().min(most)].to_vec();
        for part in &self.rest {
            if bytes.len() >= most {
                break;
            }
            part.with(|run| {
                let n = run.len().min(most - bytes.len());
                bytes.extend_from_slice(&run[..n]);
            });
        }
        bytes
    }

    /// All its bytes, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = self.head().to_vec();
        for part in &self.rest {
            part.with(|run| bytes.extend_from_slice(run));
        }
        bytes
    }
}
