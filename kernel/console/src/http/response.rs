//! Answers, and how they look on the wire.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::error::Error;
use crate::services::Stream;

/// What an answer brings.
pub enum Content {
    /// All of it.
    Whole(Cow<'static, [u8]>),
    /// It comes piece by piece.
    Stream(Box<dyn Stream>),
    /// None: the connection becomes a WebSocket.
    WebSocket,
}

/// An answer.
pub struct Answer {
    /// Its status (RFC 9110 §15).
    pub status: u16,
    /// Headers beyond those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// What it brings.
    pub content: Content,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answer {}", self.status)
    }
}

impl Answer {
    /// An answer of that status without content.
    pub fn empty(status: u16) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            content: Content::Whole(Cow::Borrowed(&[])),
        }
    }

    /// 200 with content of that media type.
    pub fn ok(kind: &'static str, content: impl Into<Cow<'static, [u8]>>) -> Answer {
        Answer {
            content: Content::Whole(content.into()),
            ..Answer::empty(200)
        }
        .with("Content-Type", kind)
    }

    /// 200 with JSON.
    pub fn json(mut text: String) -> Answer {
        // It may wait long for a slow client.
        text.shrink_to_fit();
        Answer::ok("application/json", text.into_bytes())
    }

    /// 200 with content that comes piece by piece.
    pub fn stream(kind: &'static str, stream: Box<dyn Stream>) -> Answer {
        Answer {
            content: Content::Stream(stream),
            ..Answer::empty(200)
        }
        .with("Content-Type", kind)
    }

    /// The answer with one more header. The value must hold no line end.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Answer {
        let answer = Answer {
            status: error.status,
            ..Answer::json(error.body())
        };
        match error.status {
            401 => answer.with("WWW-Authenticate", "Bearer"),
            429 | 503 => answer.with("Retry-After", "1"),
            _ => answer,
        }
    }
}

/// What every answer says: nothing of it is kept elsewhere, guessed at, framed, or loads anything from elsewhere.
const ALWAYS: &str = "X-Content-Type-Options: nosniff\r\n\
    X-Frame-Options: DENY\r\n\
    Referrer-Policy: no-referrer\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n\
    Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'\r\n";

/// The head of `answer`. `date` is the time in the form of HTTP, if it is known, `modern` whether the client knows chunks, `close` whether the
/// connection ends with the answer.
pub fn write_head(answer: &Answer, date: Option<&str>, modern: bool, close: bool) -> String {
    let mut out = String::with_capacity(768);
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "HTTP/1.1 {} {}\r\n",
        answer.status,
        reason(answer.status)
    );
    if let Some(date) = date {
        let _ = write!(out, "Date: {date}\r\n");
    }
    let cached = answer
        .headers
        .iter()
        .any(|(name, _)| *name == "Cache-Control");
    for (name, value) in &answer.headers {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    if answer.status != 101 {
        out.push_str(ALWAYS);
        if !cached {
            out.push_str("Cache-Control: no-store\r\n");
        }
    }
    match &answer.content {
        Content::WebSocket => {}
        // RFC 9110 §8.6: neither has content.
        Content::Whole(_) if matches!(answer.status, 204 | 304) => {}
        Content::Whole(bytes) => _ = write!(out, "Content-Length: {}\r\n", bytes.len()),
        Content::Stream(_) if modern => out.push_str("Transfer-Encoding: chunked\r\n"),
        Content::Stream(_) => {}
    }
    if answer.status != 101 {
        out.push_str(match close {
            true => "Connection: close\r\n",
            false if !modern => "Connection: keep-alive\r\n",
            false => "",
        });
    }
    out.push_str("\r\n");
    out
}

/// Appends `bytes` as a chunk; none at all are the last one (RFC 9112 §7.1).
pub fn write_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut size = String::new();
    let _ = write!(size, "{:x}\r\n", bytes.len());
    out.extend_from_slice(size.as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        303 => "See Other",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let text = write_head(&Answer::json("{}".into()), Some("D"), true, false);
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: application/json\r\n")
        );
        assert!(text.contains("\r\nContent-Length: 2\r\n") && text.contains("no-store"));
        assert!(text.ends_with("\r\n\r\n") && !text.contains("Connection"));
        let text = write_head(&Answer::empty(204), None, true, true);
        assert!(text.contains("Connection: close") && !text.contains("Content-Length"));
        let error: Answer = Error::unauthorized().into();
        let text = write_head(&error, Some("D"), false, false);
        assert!(text.contains("WWW-Authenticate: Bearer") && text.contains("keep-alive"));
        assert_eq!(text.matches("Content-Security-Policy").count(), 1);
        // No line may be broken or continued.
        assert!(text.lines().all(|line| !line.starts_with(' ')));
    }

    #[test]
    fn chunks() {
        let mut out = Vec::new();
        write_chunk(&mut out, &[b'x'; 17]);
        write_chunk(&mut out, &[]);
        assert_eq!(out, b"11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n");
    }
}
