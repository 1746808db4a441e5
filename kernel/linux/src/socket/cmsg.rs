//! Control messages (`cmsg(3)`): splitting what the program sends, and packing what it receives.
//!
//! Pure parsing of hostile bytes. What a message means is its family's to say.

use alloc::vec::Vec;

use errno::{Errno, Result};

/// `sizeof(struct cmsghdr)`.
pub const HEADER: usize = 16;

const ALIGN: usize = 8;

/// One control message as it lies in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cmsg<'a> {
    /// `cmsg_level`.
    pub level: i32,
    /// `cmsg_type`.
    pub kind: i32,
    /// What follows the header.
    pub data: &'a [u8],
}

/// Walks the control messages in a buffer.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages in `buffer`.
    pub fn new(buffer: &'a [u8]) -> Self {
        Messages { rest: buffer }
    }
}

impl<'a> Iterator for Messages<'a> {
    /// `EINVAL` for a message whose length does not fit, after which the walk is over.
    type Item = Result<Cmsg<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.first_chunk::<HEADER>()?;
        let [
            l0,
            l1,
            l2,
            l3,
            l4,
            l5,
            l6,
            l7,
            v0,
            v1,
            v2,
            v3,
            t0,
            t1,
            t2,
            t3,
        ] = *header;
        let len = u64::from_ne_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len < HEADER || len > self.rest.len() {
            self.rest = &[];
            return Some(Err(Errno::EINVAL));
        }
        let message = Cmsg {
            level: i32::from_ne_bytes([v0, v1, v2, v3]),
            kind: i32::from_ne_bytes([t0, t1, t2, t3]),
            data: &self.rest[HEADER..len],
        };
        self.rest = self
            .rest
            .get(len.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
        Some(Ok(message))
    }
}

/// Packs control messages into as much room as the program gave.
#[derive(Debug)]
pub struct Packer {
    bytes: Vec<u8>,
    room: usize,
    /// Whether something did not fit (`MSG_CTRUNC`).
    pub truncated: bool,
}

impl Packer {
    /// A packer for `room` bytes.
    pub fn new(room: usize) -> Self {
        Packer {
            bytes: Vec::new(),
            room,
            truncated: false,
        }
    }

    /// How many bytes of data the next message could carry.
    pub fn data_room(&self) -> usize {
        self.room.saturating_sub(self.bytes.len() + HEADER)
    }

    /// Appends a message, cut to the room there is (as Linux's `put_cmsg`).
    pub fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        if self.room < self.bytes.len() + HEADER {
            self.truncated = true;
            return;
        }
        let fits = data.len().min(self.data_room());
        if fits < data.len() {
            self.truncated = true;
        }
        self.bytes.extend(((HEADER + fits) as u64).to_ne_bytes());
        self.bytes.extend(level.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend_from_slice(&data[..fits]);
        let padded = self.bytes.len().next_multiple_of(ALIGN).min(self.room);
        self.bytes.resize(padded, 0);
    }

    /// What was packed; its length is the `msg_controllen` to answer.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back() {
        let mut packer = Packer::new(200);
        packer.push(1, 2, b"abcde");
        packer.push(0, 8, &7u32.to_ne_bytes());
        assert!(!packer.truncated);
        let bytes = packer.into_bytes();
        assert_eq!(bytes.len(), 24 + 24);
        let messages: Vec<_> = Messages::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].level, messages[0].kind), (1, 2));
        assert_eq!(messages[0].data, b"abcde");
        assert_eq!(messages[1].data, 7u32.to_ne_bytes());
    }

    #[test]
    fn room_is_never_exceeded() {
        for room in 0..60 {
            let mut packer = Packer::new(room);
            packer.push(1, 1, &[9; 12]);
            packer.push(1, 2, &[9; 4]);
            assert_eq!(packer.truncated, room < 32 + 20);
            assert!(packer.into_bytes().len() <= room);
        }
    }

    #[test]
    fn hostile_lengths_are_errors() {
        for len in [0u64, 1, 15, 17, 1 << 40, u64::MAX, u64::MAX - 7] {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend([0; 8]);
            let all: Vec<_> = Messages::new(&bytes).collect();
            assert_eq!(all, [Err(Errno::EINVAL)]);
        }
        assert_eq!(Messages::new(&[1; 15]).count(), 0);
    }
}
