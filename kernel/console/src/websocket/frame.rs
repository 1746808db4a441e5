//! Frames (RFC 6455 §5.2).

use alloc::vec::Vec;

use super::CloseCode;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that the last data frame began.
    Continuation,
    /// Text.
    Text,
    /// Bytes.
    Binary,
    /// The connection ends.
    Close,
    /// Are you there?
    Ping,
    /// I am.
    Pong,
}

impl Opcode {
    fn parse(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    /// Whether it may come between the frames of a message.
    pub(super) fn is_control(self) -> bool {
        self.bits() >= 8
    }
}

/// The head of a client's frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) last: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    pub(super) length: u64,
    /// Bytes that the head itself takes.
    pub(super) size: usize,
}

impl FrameHead {
    /// Reads a head off the front of `input`; `None` while it is not whole.
    pub(super) fn parse(input: &[u8]) -> Result<Option<FrameHead>, CloseCode> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        let opcode = Opcode::parse(first & 0x0f).ok_or(CloseCode::PROTOCOL)?;
        let last = first & 0x80 != 0;
        // No extension was agreed on, clients mask (§5.1), and control frames are short and whole (§5.5).
        let short = second & 0x7f;
        let wrong = first & 0x70 != 0
            || second & 0x80 == 0
            || (opcode.is_control() && (!last || short > 125));
        if wrong {
            return Err(CloseCode::PROTOCOL);
        }
        let width = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, rest)) = rest.split_at_checked(width) else {
            return Ok(None);
        };
        let Some((mask, _)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let long = length
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        // The shortest form only (§5.2).
        let length = match (short, long) {
            (126, 126..) => long,
            (127, 0x1_0000..=0x7fff_ffff_ffff_ffff) => long,
            (126 | 127, _) => return Err(CloseCode::PROTOCOL),
            _ => u64::from(short),
        };
        Ok(Some(FrameHead {
            last,
            opcode,
            mask: *mask,
            length,
            size: 2 + width + 4,
        }))
    }
}

/// Appends a server's frame, whole and not masked.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.push(0x80 | opcode.bits());
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
