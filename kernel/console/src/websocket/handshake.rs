//! The opening handshake (RFC 6455 §4.2).

use alloc::string::String;

use crate::error::Error;
use crate::http::{Answer, Content, Head, Method};

/// What the key is hashed with (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer that makes the connection a WebSocket.
///
/// # Errors
/// 426 when the request asks for none or for another version, 400 when it is wrong.
pub fn accept(head: &Head) -> Result<Answer, Error> {
    let asked = head.method == Method::Get
        && head.modern
        && head.has_token("connection", "upgrade")
        && head.has_token("upgrade", "websocket")
        && head.header("sec-websocket-version") == Some("13");
    if !asked {
        let message = "this is a WebSocket of version 13";
        return Err(Error::new(426, "invalid", message));
    }
    let key = head.header("sec-websocket-key").unwrap_or_default();
    if store::base64::decode(key).is_none_or(|bytes| bytes.len() != 16) {
        return Err(Error::invalid(
            "Sec-WebSocket-Key is to be 16 bytes in base64",
        ));
    }
    let answer = Answer {
        content: Content::WebSocket,
        ..Answer::empty(101)
    };
    Ok(answer
        .with("Upgrade", "websocket")
        .with("Connection", "Upgrade")
        .with("Sec-WebSocket-Accept", hashed(key)))
}

fn hashed(key: &str) -> String {
    let mut hash = sha1_smol::Sha1::from(key);
    hash.update(GUID.as_bytes());
    let mut out = String::new();
    store::base64::encode(&mut out, &hash.digest().bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;

    fn answer(lines: &str) -> Result<Answer, u16> {
        let text = alloc::format!("GET /api/watch HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let head = HeadReader::default()
            .take(&mut text.into_bytes())
            .unwrap()
            .unwrap();
        accept(&head).map_err(|error| error.status)
    }

    #[test]
    fn as_in_the_rfc() {
        assert_eq!(
            hashed("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        let good = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert_eq!(answer(good).unwrap().status, 101);
        for (from, to, status) in [
            (": 13", ": 8", 426),
            ("WebSocket\r", "h2c\r", 426),
            (", Upgrade", "", 426),
            ("dGhl", "", 400),
            ("Sec-WebSocket-Key", "X-Key", 400),
        ] {
            assert_eq!(
                answer(&good.replace(from, to)).unwrap_err(),
                status,
                "{from}"
            );
        }
    }
}
