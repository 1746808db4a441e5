//! The body of a request, of a length told before or in chunks (RFC 9112 §6, §7.1).

use alloc::vec::Vec;

use crate::error::Error;

/// The longest line with a chunk's size, and the longest trailer, in bytes.
const MAX_LINE: usize = 256;
/// The most trailer lines.
const MAX_TRAILERS: usize = 16;

/// How a body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// It has that many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

#[derive(Debug, PartialEq)]
enum State {
    /// That many bytes of the body or of a chunk are still to come.
    Data(usize),
    /// A chunk's size comes next.
    Size,
    /// The line end behind a chunk.
    ChunkEnd,
    /// That many trailer lines may still come.
    Trailer(usize),
    Done,
}

/// A body as it comes.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    state: State,
    chunked: bool,
    limit: usize,
}

impl Body {
    /// A body of at most `limit` bytes.
    ///
    /// # Errors
    /// 413 when it says that it is longer.
    pub fn new(framing: Framing, limit: usize) -> Result<Body, Error> {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => {
                let length = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= limit);
                State::Data(length.ok_or_else(too_large)?)
            }
            Framing::Chunked => State::Size,
        };
        Ok(Body {
            bytes: Vec::new(),
            state,
            chunked: framing == Framing::Chunked,
            limit,
        })
    }

    /// Takes what belongs to the body off the front of `input`, and answers whether the body is whole.
    ///
    /// # Errors
    /// 400 and 413; the connection cannot go on then.
    pub fn take(&mut self, input: &mut Vec<u8>) -> Result<bool, Error> {
        let mut used = 0;
        let result = self.advance(input, &mut used);
        input.drain(..used);
        result
    }

    fn advance(&mut self, input: &[u8], used: &mut usize) -> Result<bool, Error> {
        loop {
            let rest = &input[*used..];
            match self.state {
                State::Done => return Ok(true),
                State::Data(left) => {
                    let part = left.min(rest.len());
                    self.bytes.extend_from_slice(&rest[..part]);
                    *used += part;
                    if part < left {
                        self.state = State::Data(left - part);
                        return Ok(false);
                    }
                    self.state = match self.chunked {
                        true => State::ChunkEnd,
                        false => State::Done,
                    };
                }
                State::Size => {
                    let Some(line) = line(rest, used)? else {
                        return Ok(false);
                    };
                    let size = chunk_size(line)?;
                    if size > self.limit - self.bytes.len() {
                        return Err(too_large());
                    }
                    self.state = match size {
                        0 => State::Trailer(MAX_TRAILERS),
                        size => State::Data(size),
                    };
                }
                State::ChunkEnd => match line(rest, used)? {
                    None => return Ok(false),
                    Some(b"") => self.state = State::Size,
                    Some(_) => return Err(bad()),
                },
                State::Trailer(left) => match line(rest, used)? {
                    None => return Ok(false),
                    Some(b"") => self.state = State::Done,
                    Some(_) => self.state = State::Trailer(left.checked_sub(1).ok_or_else(bad)?),
                },
            }
        }
    }

    /// What has come.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The next line without its end, `None` while it is not whole.
fn line<'a>(rest: &'a [u8], used: &mut usize) -> Result<Option<&'a [u8]>, Error> {
    let seen = &rest[..rest.len().min(MAX_LINE)];
    match seen.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            *used += end + 1;
            // A bare line feed is refused: others may not take it for an end (RFC 9112 §7.1).
            seen[..end].strip_suffix(b"\r").map(Some).ok_or_else(bad)
        }
        None if seen.len() == MAX_LINE => Err(bad()),
        None => Ok(None),
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, Error> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let extension = line[digits..].trim_ascii_start();
    let text = core::str::from_utf8(&line[..digits]).map_err(|_| bad())?;
    let size = usize::from_str_radix(text, 16);
    match extension.first() {
        None | Some(b';') if (1..=8).contains(&digits) => size.map_err(|_| bad()),
        None | Some(b';') if digits > 8 => Err(too_large()),
        _ => Err(bad()),
    }
}

fn bad() -> Error {
    Error::invalid("the body's chunks are wrong")
}

fn too_large() -> Error {
    Error::too_large("the body is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(framing: Framing, text: &[u8]) -> Result<(Vec<u8>, Vec<u8>), u16> {
        // At once and byte by byte must give the same.
        let whole = {
            let mut body = Body::new(framing, 10).map_err(|error| error.status)?;
            let mut input = text.to_vec();
            let done = body.take(&mut input).map_err(|error| error.status)?;
            done.then(|| (body.into_bytes(), input)).ok_or(0)
        };
        let mut body = Body::new(framing, 10).map_err(|error| error.status)?;
        let mut input = Vec::new();
        let mut result = Err(0);
        for (at, byte) in text.iter().enumerate() {
            input.push(*byte);
            match body.take(&mut input) {
                Ok(true) => {
                    input.extend_from_slice(&text[at + 1..]);
                    result = Ok((body.into_bytes(), input));
                    break;
                }
                Ok(false) => {}
                Err(error) => return Err(error.status),
            }
        }
        assert_eq!(whole, result);
        result
    }

    #[test]
    fn reads_bodies() {
        let ok = |body: &str, rest: &str| Ok((Vec::from(body), Vec::from(rest)));
        assert_eq!(read(Framing::Length(3), b"abcd"), ok("abc", "d"));
        assert_eq!(read(Framing::Length(11), b""), Err(413));
        let chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\nGET";
        assert_eq!(read(Framing::Chunked, chunks), ok("abcde", "GET"));
        assert_eq!(read(Framing::Chunked, b"0\r\n\r\n"), ok("", ""));
    }

    #[test]
    fn refuses_wrong_chunks() {
        for (text, status) in [
            (&b"x\r\n"[..], 400),
            (b"\r\n", 400),
            (b"-1\r\n", 400),
            (b"1 2\r\n", 400),
            (b"1\n", 400),
            (b"1\r\nab\r\n", 400),
            (b"b\r\n", 413),
            (b"fffffffff\r\n", 413),
            (b"6\r\n123456\r\n5\r\n", 413),
        ] {
            assert_eq!(read(Framing::Chunked, text), Err(status), "{text:?}");
        }
        let mut body = Body::new(Framing::Chunked, 10).unwrap();
        assert_eq!(
            body.take(&mut alloc::vec![b'1'; 300]).unwrap_err().status,
            400
        );
        let mut many = Vec::from("0\r\n");
        (0..20).for_each(|_| many.extend_from_slice(b"a: b\r\n"));
        let mut body = Body::new(Framing::Chunked, 10).unwrap();
        assert_eq!(body.take(&mut many).unwrap_err().status, 400);
    }
}
