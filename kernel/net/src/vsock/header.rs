//! The header of a virtio-vsock packet (virtio 1.2, 5.10.6): 44 bytes, little-endian.

use alloc::boxed::Box;

use drivers::vsock::HEADER_LEN;

/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(super) const STREAM: u16 = 1;
/// `VIRTIO_VSOCK_TYPE_SEQPACKET`.
pub(super) const SEQPACKET: u16 = 2;

/// `VIRTIO_VSOCK_OP_*`.
pub(super) mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Of `SHUTDOWN`: the sender receives no more, and sends no more.
pub(super) const NO_RECEIVE: u32 = 1;
/// See [`NO_RECEIVE`].
pub(super) const NO_SEND: u32 = 2;
/// Of `RW` of sequenced packets: the message ends here, and its sender gave `MSG_EOR`.
pub(super) const EOM: u32 = 1;
/// See [`EOM`].
pub(super) const EOR: u32 = 2;

/// Where a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VsockAddr {
    /// Which machine: `VMADDR_CID_*`.
    pub cid: u32,
    /// The port.
    pub port: u32,
}

/// A header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub src: VsockAddr,
    pub dst: VsockAddr,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads a header; `None` where it is too short, or an address has bits that are reserved.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.first_chunk::<HEADER_LEN>()?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if word(4) != 0 || word(12) != 0 {
            return None;
        }
        Some(Header {
            src: VsockAddr {
                cid: word(0),
                port: word(16),
            },
            dst: VsockAddr {
                cid: word(8),
                port: word(20),
            },
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        })
    }

    /// Writes it to the front of a packet, which has room for it.
    pub fn write(&self, packet: &mut [u8]) {
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = packet.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &u64::from(self.src.cid).to_le_bytes());
        put(8, &u64::from(self.dst.cid).to_le_bytes());
        put(16, &self.src.port.to_le_bytes());
        put(20, &self.dst.port.to_le_bytes());
        put(24, &self.len.to_le_bytes());
        put(28, &self.kind.to_le_bytes());
        put(30, &self.op.to_le_bytes());
        put(32, &self.flags.to_le_bytes());
        put(36, &self.buf_alloc.to_le_bytes());
        put(40, &self.fwd_cnt.to_le_bytes());
    }

    /// The packet that says no to this one.
    pub fn refusal(&self) -> Box<[u8]> {
        let mut packet = alloc::vec![0; HEADER_LEN];
        Header {
            src: self.dst,
            dst: self.src,
            len: 0,
            kind: self.kind,
            op: op::RST,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
        .write(&mut packet);
        packet.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_a_round_trip() {
        let header = Header {
            src: VsockAddr { cid: 3, port: 4 },
            dst: VsockAddr { cid: 5, port: 6 },
            len: 7,
            kind: SEQPACKET,
            op: op::RW,
            flags: EOM | EOR,
            buf_alloc: 8,
            fwd_cnt: 9,
        };
        let mut bytes = [0; HEADER_LEN];
        header.write(&mut bytes);
        assert_eq!(Header::parse(&bytes), Some(header));
        assert_eq!(Header::parse(&bytes[1..]), None);
        bytes[5] = 1;
        assert_eq!(Header::parse(&bytes), None);
    }
}
