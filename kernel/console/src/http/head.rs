//! The head of a request: found in what has come so far, parsed by `httparse`, and checked.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;
use crate::http::Framing;

/// The largest head in bytes.
pub const MAX_HEAD: usize = 8 << 10;
/// The most header lines.
pub const MAX_HEADERS: usize = 64;

/// The methods that anything here answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`: as `GET`, without the body.
    Head,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// Anything else.
    Other,
}

impl Method {
    /// The name on the wire; `None` for [`Method::Other`].
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Other => return None,
        })
    }

    fn parse(name: &str) -> Method {
        let known = [
            Method::Get,
            Method::Head,
            Method::Post,
            Method::Put,
            Method::Patch,
        ];
        let found = known.into_iter().find(|known| known.name() == Some(name));
        found.unwrap_or(Method::Other)
    }
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is to be done.
    pub method: Method,
    /// The path of the target, still encoded; it begins with a slash.
    pub path: String,
    /// What stands behind the `?`, still encoded.
    pub query: String,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the connection may stay open afterwards.
    pub keep_alive: bool,
    /// Whether the client knows HTTP/1.1, and so chunked answers.
    pub modern: bool,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The value of the header of that name (in lower case), the first one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(known, _)| known == name);
        named.next().map(|(_, value)| value.as_str())
    }

    /// Whether one of the comma-separated words of all headers of that name is `word`, in any case.
    pub fn has_token(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }

    fn parse(bytes: &[u8]) -> Result<Head, Error> {
        let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut lines);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(bad("the head has no end")),
            Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
            Err(httparse::Error::Version) => {
                let message = "only HTTP/1.0 and HTTP/1.1 are spoken here";
                return Err(Error::new(505, "unsupported", message));
            }
            Err(_) => return Err(bad("the head is no HTTP")),
        }
        let (path, query) = target(request.path.unwrap_or_default())?;
        let text = |value: &[u8]| core::str::from_utf8(value).map(String::from);
        let headers = request
            .headers
            .iter()
            .map(|line| Ok((line.name.to_ascii_lowercase(), text(line.value)?)))
            .collect::<Result<Vec<_>, core::str::Utf8Error>>()
            .map_err(|_| bad("a header is no text"))?;
        let modern = request.version == Some(1);
        let mut head = Head {
            method: Method::parse(request.method.unwrap_or_default()),
            path,
            query,
            framing: Framing::Length(0),
            keep_alive: false,
            modern,
            headers,
        };
        head.keep_alive = match modern {
            true => !head.has_token("connection", "close"),
            false => head.has_token("connection", "keep-alive"),
        };
        head.framing = head.find_framing()?;
        // RFC 9112 §3.2: exactly one Host, but for old clients.
        let hosts = head.all("host").count();
        if hosts > 1 || (modern && hosts == 0) {
            return Err(bad("exactly one Host header is needed"));
        }
        Ok(head)
    }

    /// RFC 9112 §6.3. What two readers could take for different lengths is refused.
    fn find_framing(&self) -> Result<Framing, Error> {
        let mut lengths = self.all("content-length");
        let length = lengths.next();
        let coding = self.header("transfer-encoding");
        if lengths.next().is_some() || (length.is_some() && coding.is_some()) {
            return Err(bad("the body has more than one length"));
        }
        match (coding, length) {
            (Some(coding), _) if !self.modern => {
                let _ = coding;
                Err(bad("HTTP/1.0 has no transfer coding"))
            }
            (Some(coding), _) => {
                let only = self.all("transfer-encoding").count() == 1;
                match only && coding.trim().eq_ignore_ascii_case("chunked") {
                    true => Ok(Framing::Chunked),
                    false => Err(Error::new(
                        501,
                        "unsupported",
                        "the only transfer coding known is chunked",
                    )),
                }
            }
            (None, Some(length)) => {
                let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                match length.parse().ok().filter(|_| digits) {
                    Some(length) => Ok(Framing::Length(length)),
                    None if digits => Err(Error::too_large("the body is too long")),
                    None => Err(bad("Content-Length is no number")),
                }
            }
            (None, None) => Ok(Framing::Length(0)),
        }
    }
}

/// The path and query of a request's target in origin or absolute form (RFC 9112 §3.2).
fn target(target: &str) -> Result<(String, String), Error> {
    let origin = match target.split_once("://") {
        Some((scheme, rest)) if !target.starts_with('/') => {
            let http = ["http", "https"]
                .iter()
                .any(|s| scheme.eq_ignore_ascii_case(s));
            let place = rest.find(['/', '?']).unwrap_or(rest.len());
            Some(&rest[place..]).filter(|_| http)
        }
        _ => Some(target).filter(|target| target.starts_with('/')),
    };
    let origin = origin.ok_or_else(|| bad("the target is no path"))?;
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    let path = if path.is_empty() { "/" } else { path };
    Ok((path.into(), query.into()))
}

fn bad(message: &str) -> Error {
    Error::invalid(message)
}

fn too_large() -> Error {
    Error::new(431, "too_large", "the head of the request is too large")
}

/// Finds the end of a head in bytes that come piece by piece, looking at none of them twice.
#[derive(Debug, Default)]
pub struct HeadReader {
    seen: usize,
}

impl HeadReader {
    /// Takes the next head off the front of `input`; `None` while it is not whole. Empty lines before it are dropped
    /// (RFC 9112 §2.2).
    ///
    /// # Errors
    /// 400, 413, 431, 501 or 505; the connection cannot go on then.
    pub fn take(&mut self, input: &mut Vec<u8>) -> Result<Option<Head>, Error> {
        if self.seen == 0 {
            let empty = input
                .iter()
                .take_while(|b| matches!(b, b'\r' | b'\n'))
                .count();
            if empty > 16 {
                return Err(bad("too many empty lines"));
            }
            input.drain(..empty);
        }
        // Another protocol altogether (a TLS handshake, say) gets its answer without waiting for an end of line.
        if input
            .first()
            .is_some_and(|byte| !byte.is_ascii_alphabetic())
        {
            return Err(bad("the head is no HTTP"));
        }
        let Some(end) = self.find_end(input) else {
            if input.len() >= MAX_HEAD {
                return Err(too_large());
            }
            return Ok(None);
        };
        self.seen = 0;
        if end > MAX_HEAD {
            return Err(too_large());
        }
        let head = Head::parse(&input[..end]);
        input.drain(..end);
        head.map(Some)
    }

    /// Just behind the empty line that ends the head.
    fn find_end(&mut self, input: &[u8]) -> Option<usize> {
        let limit = input.len().min(MAX_HEAD + 1);
        for at in self.seen..limit {
            if input[at] == b'\n' {
                let before = input[..at].strip_suffix(b"\r").unwrap_or(&input[..at]);
                if before.ends_with(b"\n") {
                    return Some(at + 1);
                }
            }
        }
        self.seen = limit;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Head, Error> {
        let mut input = Vec::from(text);
        HeadReader::default()
            .take(&mut input)
            .map(|head| head.expect("it is whole"))
    }

    #[test]
    fn reads_heads_one_after_the_other_and_in_pieces() {
        let text = "\r\nGET /a/b?c=d HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\nPUT / HTTP/1.0\nContent-Length: 3\n\nabc";
        let mut input = Vec::new();
        let mut reader = HeadReader::default();
        let mut heads = Vec::new();
        for byte in text.bytes() {
            input.push(byte);
            heads.extend(reader.take(&mut input).unwrap());
            if heads.len() == 2 {
                break;
            }
        }
        assert!(input.is_empty());
        assert_eq!((&*heads[0].path, &*heads[0].query), ("/a/b", "c=d"));
        assert_eq!(heads[0].header("x"), Some("y"));
        assert!(heads[0].keep_alive && heads[0].modern);
        assert_eq!(heads[1].framing, Framing::Length(3));
        assert!(!heads[1].keep_alive && heads[1].method == Method::Put);
    }

    #[test]
    fn knows_the_forms_of_a_target() {
        let path = |target: &str| {
            read(&alloc::format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
                .map(|head| (head.path, head.query))
        };
        assert_eq!(path("http://h:9/x?y").unwrap(), ("/x".into(), "y".into()));
        assert_eq!(path("HTTPS://h").unwrap(), ("/".into(), "".into()));
        assert_eq!(path("/x://y").unwrap().0, "/x://y");
        for bad in ["*", "h:80", "ftp://h/x", "x"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        for (lines, status) in [
            ("Content-Length: 1\r\nContent-Length: 1", 400),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked", 400),
            ("Content-Length: +1", 400),
            ("Content-Length: ", 400),
            ("Content-Length: 1, 1", 400),
            ("Content-Length: 99999999999999999999999", 413),
            ("Transfer-Encoding: gzip, chunked", 501),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                501,
            ),
            ("Host: b", 400),
            ("A b: c", 400),
            (" folded: c", 400),
            ("X: \u{1}", 400),
        ] {
            let head = read(&alloc::format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"
            ));
            assert_eq!(head.map_err(|error| error.status), Err(status), "{lines:?}");
        }
        assert_eq!(read("GET / HTTP/1.1\r\n\r\n").unwrap_err().status, 400);
        assert_eq!(read("GET / HTTP/2.0\r\n\r\n").unwrap_err().status, 505);
        assert_eq!(read("\u{16}\u{3}").unwrap_err().status, 400);
    }

    #[test]
    fn bounds_the_head() {
        let long = alloc::format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD));
        assert_eq!(read(&long).unwrap_err().status, 431);
        let many = "A: b\r\n".repeat(MAX_HEADERS);
        let many = alloc::format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n");
        assert_eq!(read(&many).unwrap_err().status, 431);
        assert_eq!(read(&"\r\n".repeat(20)).unwrap_err().status, 400);
    }
}
