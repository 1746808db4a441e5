//! A client that says exactly what it is told to. The end-to-end tests use it as well.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
pub const WAIT: Duration = Duration::from_secs(20);

/// An answer, or what came of it.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

pub struct Client {
    pub stream: TcpStream,
    token: String,
    rest: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr, token: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_write_timeout(Some(WAIT)).unwrap();
        let rest = Vec::new();
        let token = token.into();
        Client {
            stream,
            token,
            rest,
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // What the server does not want to hear any more may fail.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Reads more; false at the end. A wait that is too long fails the test.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16384];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.rest.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server says nothing")
            }
            Err(_) => false,
        }
    }

    /// A number of bytes; `None` when the connection ends before.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.rest.len() < count {
            if !self.fill() {
                return None;
            }
        }
        Some(self.rest.drain(..count).collect())
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.rest.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The head of the next answer; `None` when the connection ends first.
    pub fn head(&mut self) -> Option<Reply> {
        let mut head = self.line()?;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            head += "\n";
            head += &line;
        }
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap();
        Some(Reply {
            status,
            head,
            body: Vec::new(),
        })
    }

    /// The next answer, whole.
    pub fn reply(&mut self) -> Option<Reply> {
        let mut reply = self.head()?;
        if let Some(length) = reply.header("content-length") {
            reply.body = self.take(length.parse().unwrap())?;
        } else if reply.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).unwrap();
                reply.body.extend(self.take(size)?);
                assert_eq!(self.line()?, "");
                if size == 0 {
                    break;
                }
            }
        }
        Some(reply)
    }

    /// Asks with the token.
    pub fn ask(&mut self, method: &str, target: &str, lines: &str, body: &str) -> Reply {
        let token = &self.token;
        let length = match body {
            "" => String::new(),
            body => format!("Content-Length: {}\r\n", body.len()),
        };
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n{lines}{length}\r\n{body}"
        ));
        self.reply().unwrap_or_default()
    }

    pub fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, "", "")
    }

    /// Reads until the server ends the connection.
    pub fn read_all(&mut self) -> Vec<u8> {
        while self.fill() {
            assert!(self.rest.len() < 256 << 20);
        }
        std::mem::take(&mut self.rest)
    }

    /// Makes it a WebSocket.
    pub fn watch(address: SocketAddr, token: &str) -> Client {
        let mut client = Client::new(address, token);
        client.send(format!(
            "GET /api/watch HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        let reply = client.head().unwrap();
        assert_eq!(reply.status, 101, "{reply:?}");
        assert_eq!(
            reply.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        client
    }

    /// Sends a frame, masked.
    pub fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut out = vec![first];
        match payload.len() {
            length @ 0..=125 => out.push(0x80 | length as u8),
            length => {
                out.push(0xfe);
                out.extend((length as u16).to_be_bytes());
            }
        }
        out.extend([5, 6, 7, 8]);
        out.extend(
            payload
                .iter()
                .zip([5, 6, 7, 8].iter().cycle())
                .map(|(a, b)| a ^ b),
        );
        self.send(out);
    }

    pub fn say(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes());
    }

    /// The next frame: its first byte and its payload.
    pub fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.take(2)?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.take(2)?.try_into().unwrap()).into(),
            127 => u64::from_be_bytes(self.take(8)?.try_into().unwrap()),
            length => length.into(),
        };
        Some((head[0], self.take(length as usize)?))
    }

    pub fn hear_json(&mut self) -> serde_json::Value {
        let (first, payload) = self.hear().expect("a message");
        assert_eq!(first, 0x81);
        serde_json::from_slice(&payload).unwrap()
    }
}
