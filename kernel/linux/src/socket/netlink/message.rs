//! The encoding of netlink messages and attributes (`netlink(7)`). Pure.

use alloc::vec::Vec;

use errno::{Errno, Result};

/// `NLMSG_ERROR`.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub const DONE: u16 = 3;
/// `NLM_F_MULTI`.
pub const MULTI: u16 = 2;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const DUMP: u16 = 0x300;

const HEADER: usize = 16;

/// `struct nlmsghdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// `nlmsg_pid`.
    pub port: u32,
}

/// Takes the first message off `bytes`: header, payload, and the header's own bytes.
pub fn split<'a>(bytes: &mut &'a [u8]) -> Option<(Header, &'a [u8], &'a [u8])> {
    let header = bytes.get(..HEADER)?;
    let u16_at = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let u32_at = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let len = u32_at(0) as usize;
    if len < HEADER {
        return None;
    }
    let message = bytes.get(..len)?;
    *bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((
        Header {
            kind: u16_at(4),
            flags: u16_at(6),
            seq: u32_at(8),
            port: u32_at(12),
        },
        &message[HEADER..],
        header,
    ))
}

/// A message being written.
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message with a fixed part.
    pub fn new(header: Header, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]);
        bytes.extend(header.kind.to_ne_bytes());
        bytes.extend(header.flags.to_ne_bytes());
        bytes.extend(header.seq.to_ne_bytes());
        bytes.extend(header.port.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        let mut message = Message { bytes };
        message.pad();
        message
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Appends an attribute that is a string with its zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat());
    }

    /// The bytes, with the length filled in.
    pub fn finish(mut self) -> Vec<u8> {
        let len = (self.bytes.len() as u32).to_ne_bytes();
        self.bytes[..4].copy_from_slice(&len);
        self.bytes
    }
}

/// The answer that says how a request went: the error, or none, and the request's header.
pub fn acknowledgement(request: Header, raw: &[u8], result: Result<()>) -> Vec<u8> {
    let code = match result {
        Ok(()) => 0,
        Err(error) => -i32::from(error.raw()),
    };
    let mut fixed = code.to_ne_bytes().to_vec();
    fixed.extend_from_slice(raw);
    Message::new(
        Header {
            kind: ERROR,
            flags: 0,
            ..request
        },
        &fixed,
    )
    .finish()
}

/// The attribute `kind` in a list, if it is there.
///
/// # Errors
/// `EINVAL` for a list that is malformed.
pub fn find(mut attributes: &[u8], kind: u16) -> Result<Option<&[u8]>> {
    while attributes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let found = u16::from_ne_bytes([attributes[2], attributes[3]]) & 0x3fff;
        let value = attributes.get(4..len).ok_or(Errno::EINVAL)?;
        if found == kind {
            return Ok(Some(value));
        }
        attributes = attributes
            .get(len.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_a_round_trip() {
        let header = Header {
            kind: 18,
            flags: DUMP,
            seq: 7,
            port: 2,
        };
        let mut message = Message::new(header, &[9; 6]);
        message.attribute(3, b"abc");
        message.text(4, "lo");
        let bytes = message.finish();
        assert_eq!(bytes.len() % 4, 0);
        let mut rest = &bytes[..];
        let (back, payload, _) = split(&mut rest).unwrap();
        assert_eq!(back, header);
        assert_eq!(find(&payload[8..], 3), Ok(Some(&b"abc"[..])));
        assert_eq!(find(&payload[8..], 4), Ok(Some(&b"lo\0"[..])));
        assert_eq!(find(&payload[8..], 5), Ok(None));
        assert!(split(&mut rest).is_none());
    }

    #[test]
    fn hostile_lengths_end_the_walk() {
        for len in [0u32, 1, 15, 17, u32::MAX] {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend([0; 12]);
            assert!(split(&mut &bytes[..]).is_none());
        }
        assert_eq!(find(&[3, 0, 1, 0], 1), Err(Errno::EINVAL));
        assert_eq!(find(&[0, 0, 1, 0], 2), Err(Errno::EINVAL));
        assert_eq!(find(&[9, 0, 1, 0], 1), Err(Errno::EINVAL));
    }
}
