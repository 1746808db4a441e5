//! Messages out of frames: put together, unmasked, bounded, and checked for UTF-8.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::frame::{FrameHead, Opcode};
use super::{CloseCode, write_frame};

/// The longest message in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;
/// The most frames that one message may be cut into: empty ones cost time, too.
const MAX_FRAMES: usize = 1024;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole message of text.
    Text(String),
    /// A ping, which wants a pong with the same bytes.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The peer closes, or broke the protocol: answer with [`Event::close_frame`] and end.
    Close(CloseCode),
}

impl Event {
    /// The close frame of that code.
    pub fn close_frame(out: &mut Vec<u8>, code: CloseCode) {
        write_frame(out, Opcode::Close, &code.0.to_be_bytes());
    }
}

/// Reads a client's frames.
#[derive(Debug, Default)]
pub struct Reader {
    /// What came of a message whose last frame is still to come.
    begun: Option<Vec<u8>>,
    frames: usize,
}

impl Reader {
    /// Takes the next event off the front of `input`; `None` when more bytes are needed. Never needs more than
    /// [`MAX_MESSAGE`] bytes and a frame's head.
    pub fn take(&mut self, input: &mut Vec<u8>) -> Option<Event> {
        loop {
            match self.frame(input) {
                Ok(Taken::Event(event)) => return Some(event),
                Ok(Taken::Part) => {}
                Ok(Taken::TooShort) => return None,
                Err(code) => return Some(Event::Close(code)),
            }
        }
    }

    fn frame(&mut self, input: &mut Vec<u8>) -> Result<Taken, CloseCode> {
        let Some(head) = FrameHead::parse(input)? else {
            return Ok(Taken::TooShort);
        };
        let begun = self.begun.as_ref().map(Vec::len);
        match (head.opcode, begun) {
            (Opcode::Continuation, None) | (Opcode::Text, Some(_)) => {
                return Err(CloseCode::PROTOCOL);
            }
            (Opcode::Binary, _) => return Err(CloseCode::UNSUPPORTED),
            _ => {}
        }
        let room = match head.opcode.is_control() {
            true => 125,
            false => MAX_MESSAGE - begun.unwrap_or(0),
        };
        let length = usize::try_from(head.length)
            .ok()
            .filter(|length| *length <= room);
        let length = length.ok_or(CloseCode::TOO_LARGE)?;
        let Some(masked) = input.get(head.size..head.size + length) else {
            return Ok(Taken::TooShort);
        };
        let payload = masked.iter().zip(head.mask.iter().cycle());
        let mut payload: Vec<u8> = payload.map(|(byte, mask)| byte ^ mask).collect();
        input.drain(..head.size + length);
        Ok(match head.opcode {
            Opcode::Ping => Taken::Event(Event::Ping(payload)),
            Opcode::Pong => Taken::Event(Event::Pong),
            Opcode::Close => Taken::Event(Event::Close(close_code(&payload))),
            Opcode::Text | Opcode::Continuation | Opcode::Binary => {
                let mut message = self.begun.take().unwrap_or_default();
                message.append(&mut payload);
                self.frames += 1;
                if head.last {
                    self.frames = 0;
                    let text = String::from_utf8(message).map_err(|_| CloseCode::NOT_TEXT)?;
                    return Ok(Taken::Event(Event::Text(text)));
                }
                if self.frames >= MAX_FRAMES {
                    return Err(CloseCode::TOO_LARGE);
                }
                self.begun = Some(mem::take(&mut message));
                Taken::Part
            }
        })
    }
}

enum Taken {
    Event(Event),
    /// A frame that is not the last of its message.
    Part,
    TooShort,
}

/// What to answer a close frame with: its own code, if it may be sent at all (RFC 6455 §5.5.1).
fn close_code(payload: &[u8]) -> CloseCode {
    match payload {
        [] => CloseCode::NORMAL,
        [high, low, reason @ ..] => {
            let code = CloseCode(u16::from_be_bytes([*high, *low]));
            match (code.is_valid(), core::str::from_utf8(reason)) {
                (true, Ok(_)) => code,
                (true, Err(_)) => CloseCode::NOT_TEXT,
                (false, _) => CloseCode::PROTOCOL,
            }
        }
        _ => CloseCode::PROTOCOL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = alloc::vec![first];
        match payload.len() {
            n @ 0..=125 => out.push(0x80 | n as u8),
            n @ 126..=0xffff => {
                out.push(0xfe);
                out.extend((n as u16).to_be_bytes());
            }
            n => {
                out.push(0xff);
                out.extend((n as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
        out
    }

    /// All events, with the bytes given one by one.
    fn events(mut bytes: Vec<u8>) -> Vec<Event> {
        let mut all = Reader::default();
        let mut at_once = Vec::new();
        let mut copy = bytes.clone();
        while let Some(event) = all.take(&mut copy) {
            let end = matches!(event, Event::Close(_));
            at_once.push(event);
            if end {
                break;
            }
        }
        let (mut reader, mut input, mut found) = (Reader::default(), Vec::new(), Vec::new());
        for byte in bytes.drain(..) {
            input.push(byte);
            found.extend(reader.take(&mut input));
            if matches!(found.last(), Some(Event::Close(_))) {
                break;
            }
        }
        assert_eq!(found, at_once);
        found
    }

    #[test]
    fn reads_messages_of_all_lengths_and_in_fragments() {
        for length in [0, 1, 125, 126, 127, 65_535, MAX_MESSAGE] {
            let text = "x".repeat(length);
            assert_eq!(
                events(frame(0x81, text.as_bytes())),
                [Event::Text(text)],
                "{length}"
            );
        }
        let mut bytes = frame(0x01, "a\u{e9}".as_bytes().split_at(2).0);
        bytes.extend(frame(0x89, b"p"));
        bytes.extend(frame(0x80, "\u{e9}".as_bytes().split_at(1).1));
        bytes.extend(frame(0x8a, b""));
        let wanted = [
            Event::Ping(b"p".to_vec()),
            Event::Text("a\u{e9}".into()),
            Event::Pong,
        ];
        assert_eq!(events(bytes), wanted);
    }

    #[test]
    fn closes_on_what_is_wrong() {
        let unmasked = alloc::vec![0x81, 1, b'a'];
        let long_form = alloc::vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0];
        let mut twice = frame(0x01, b"a");
        twice.extend(frame(0x81, b"b"));
        let mut endless = Vec::new();
        endless.extend(frame(0x01, b""));
        (0..MAX_FRAMES).for_each(|_| endless.extend(frame(0x00, b"")));
        let huge = alloc::vec![0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        for (bytes, code) in [
            (unmasked, 1002),
            (long_form, 1002),
            (twice, 1002),
            (frame(0xc1, b""), 1002),
            (frame(0x83, b""), 1002),
            (frame(0x80, b""), 1002),
            (frame(0x09, b""), 1002),
            (frame(0x89, &[0; 126]), 1002),
            (frame(0x82, b""), 1003),
            (frame(0x81, &[0xff]), 1007),
            (huge, 1009),
            (frame(0x81, &[b'x'; MAX_MESSAGE + 1]), 1009),
            (endless, 1009),
            (frame(0x88, b""), 1000),
            (frame(0x88, &1001_u16.to_be_bytes()), 1001),
            (frame(0x88, &1005_u16.to_be_bytes()), 1002),
            (frame(0x88, &[3]), 1002),
            (frame(0x88, &[3, 0xe8, 0xff]), 1007),
        ] {
            let close = Event::Close(CloseCode(code));
            assert_eq!(
                events(bytes.clone()).last(),
                Some(&close),
                "{code}: {:?}",
                &bytes[..2]
            );
        }
    }

    #[test]
    fn writes_frames() {
        for (length, head) in [
            (5, &[0x81, 5][..]),
            (126, &[0x81, 126, 0, 126]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            write_frame(&mut out, Opcode::Text, &alloc::vec![b'x'; length]);
            assert!(out.starts_with(head) && out.len() == head.len() + length);
        }
    }

    #[test]
    fn any_bytes_give_an_event_or_none() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..16 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((seed >> 56) as u8);
            }
            let mut reader = Reader::default();
            while let Some(event) = reader.take(&mut bytes) {
                if matches!(event, Event::Close(_)) {
                    break;
                }
            }
        }
    }
}
