//! Clients of the console that are silent, slow, rude, mad or greedy, hundreds of them in one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What one of them does. Those from [`Kind::Greedy`] on hold the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Says nothing.
    Silent,
    /// Sends a head byte by byte.
    Slow,
    /// Sends a head without an end.
    Endless,
    /// Sends what is no HTTP.
    Noise,
    /// Asks again and again, with a wrong token.
    Wrong,
    /// Asks for much, again and again, and reads nothing.
    Greedy,
    /// Asks for much, again and again, and reads it.
    Eager,
    /// Sends a body without an end.
    Chunked,
    /// Watches everything at the shortest periods, and reads nothing.
    Watcher,
    /// Sends halves of messages.
    Halves,
    /// Sends messages that are too long, and not masked.
    TooLong,
}

/// Those who do not have the token.
pub const STRANGERS: &[Kind] = &[
    Kind::Silent,
    Kind::Slow,
    Kind::Endless,
    Kind::Noise,
    Kind::Wrong,
];

/// Those who have it.
pub const HOLDERS: &[Kind] = &[
    Kind::Greedy,
    Kind::Eager,
    Kind::Chunked,
    Kind::Watcher,
    Kind::Halves,
    Kind::TooLong,
];

impl Kind {
    /// What it says first.
    fn opening(self, token: &str, noise: &mut Noise) -> Vec<u8> {
        let authorized = format!("Host: h\r\nAuthorization: Bearer {token}\r\n");
        let schema = format!("GET /api/schema HTTP/1.1\r\n{authorized}\r\n");
        match self {
            Kind::Silent => Vec::new(),
            Kind::Slow => b"GET / HTTP/1.1\r\nX: ".to_vec(),
            Kind::Endless => b"GET / HTTP/1.1\r\n"
                .iter()
                .chain(&[b'a'; 9000])
                .copied()
                .collect(),
            Kind::Noise => (0..2000).map(|_| noise.byte()).collect(),
            Kind::Wrong => WRONG.to_vec(),
            Kind::Greedy => schema.repeat(20).into_bytes(),
            Kind::Eager => schema.into_bytes(),
            Kind::Chunked => format!(
                "PUT /api/store/log/level HTTP/1.1\r\n{authorized}Transfer-Encoding: chunked\r\n\r\n"
            )
            .into_bytes(),
            Kind::Watcher | Kind::Halves | Kind::TooLong => {
                let mut bytes = format!(
                    "GET /api/watch HTTP/1.1\r\n{authorized}Connection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                .into_bytes();
                self.frames(&mut bytes);
                bytes
            }
        }
    }

    fn frames(self, bytes: &mut Vec<u8>) {
        let mut frame = |first: u8, payload: &str| {
            let length = u8::try_from(payload.len()).unwrap_or(125).min(125);
            bytes.extend([first, 0x80 | length, 0, 0, 0, 0]);
            bytes.extend(payload.as_bytes());
        };
        match self {
            Kind::Watcher => (0..20).for_each(|id| {
                let all = format!(
                    r#"{{"op":"subscribe","id":{id},"path":"/","depth":9,"period_ms":100}}"#
                );
                frame(0x81, &all);
            }),
            Kind::Halves => (0..500).for_each(|_| frame(0x01, "half of it")),
            _ => bytes.extend([0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]),
        }
    }

    /// What it goes on with.
    fn more(self, token: &str, noise: &mut Noise) -> Vec<u8> {
        match self {
            Kind::Silent | Kind::Noise | Kind::Watcher | Kind::TooLong => Vec::new(),
            Kind::Slow => b"y".to_vec(),
            Kind::Endless => vec![b'a'; 512],
            Kind::Chunked => b"5\r\nabcde\r\n".to_vec(),
            Kind::Halves => {
                let mut bytes = Vec::new();
                self.frames(&mut bytes);
                bytes
            }
            Kind::Wrong | Kind::Greedy | Kind::Eager => self.opening(token, noise),
        }
    }

    fn reads(self) -> bool {
        !matches!(self, Kind::Greedy | Kind::Watcher)
    }
}

const WRONG: &[u8] =
    b"GET /api/schema HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";

/// Bytes that are the same in each run (xorshift).
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_le_bytes()[4]
    }
}

/// Many of them. Whoever is thrown out comes again.
pub struct Horde<'a> {
    console: SocketAddr,
    token: &'a str,
    members: Vec<(Kind, Option<TcpStream>)>,
    noise: Noise,
}

impl Horde<'_> {
    /// As many, of each of `kinds` in turn. None is connected yet.
    pub fn new<'a>(console: SocketAddr, token: &'a str, kinds: &[Kind], count: usize) -> Horde<'a> {
        Horde {
            console,
            token,
            members: kinds
                .iter()
                .cycle()
                .take(count)
                .map(|kind| (*kind, None))
                .collect(),
            noise: Noise(0x5eed_0001),
        }
    }

    /// Has each of them do a little, none wait for anything, and those connect who are not connected. Gives how many connected.
    pub fn round(&mut self) -> usize {
        let Horde {
            console,
            token,
            members,
            noise,
        } = self;
        let mut connected = 0;
        for (kind, stream) in members {
            let gone = stream.as_mut().is_none_or(|stream| {
                // What does not go out at once is not worth waiting for.
                let gone = is_gone(stream.write(&kind.more(token, noise)));
                gone || kind.reads() && is_gone(stream.read(&mut [0; 4096]).and_then(not_ended))
            });
            if gone {
                *stream = connect(*console, &kind.opening(token, noise));
                connected += usize::from(stream.is_some());
            }
        }
        connected
    }

    /// One round after another, with a pause between, until told to stop. Gives how many connected.
    pub fn rounds(&mut self, stop: &AtomicBool, pause: Duration) -> usize {
        let mut connected = 0;
        while !stop.load(Ordering::Relaxed) {
            connected += self.round();
            std::thread::sleep(pause);
        }
        connected
    }

    /// How many are connected.
    pub fn connected(&self) -> usize {
        self.members
            .iter()
            .filter(|(_, stream)| stream.is_some())
            .count()
    }
}

fn not_ended(count: usize) -> std::io::Result<usize> {
    match count {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

fn is_gone(result: std::io::Result<usize>) -> bool {
    result.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
}

/// A connection that does not wait for anything. QEMU takes one at a time: in a flood some find no place.
fn connect(address: SocketAddr, opening: &[u8]) -> Option<TcpStream> {
    std::thread::sleep(Duration::from_millis(2));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok()?;
    stream.set_nonblocking(true).ok()?;
    let _ = stream.write(opening);
    Some(stream)
}
