//! Values that are watched, over the console's WebSocket (RFC 6455).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use super::client::Client;

/// What the machine sends when something changed.
#[derive(Debug, Deserialize)]
pub struct Update {
    /// Milliseconds since the machine's boot.
    #[serde(default)]
    pub time_ms: u64,
    /// Values by path.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// Paths that are no more.
    #[serde(default)]
    pub gone: Vec<String>,
    error: Option<Refused>,
}

#[derive(Debug, Deserialize)]
struct Refused {
    message: String,
}

/// A subscription.
#[derive(Debug)]
pub struct Watch {
    socket: WebSocket<TcpStream>,
}

impl Watch {
    /// Watches what is below `path`: all values at first, then every `period` those that changed.
    pub fn start(client: &Client, path: &str, depth: u32, period: Duration) -> Result<Watch> {
        let (port, token) = client.address();
        let context = || format!("`{}` does not answer on 127.0.0.1:{port}", client.name());
        // An ordinary question first: it waits for a machine that only starts, and says what is wrong with the path.
        client.node(path, 0)?;
        let mut request = format!("ws://127.0.0.1:{port}/api/watch").into_client_request()?;
        request
            .headers_mut()
            .insert("Authorization", format!("Bearer {token}").parse()?);
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).with_context(context)?;
        let (mut socket, _) = match tungstenite::client(request, stream) {
            Ok(done) => done,
            Err(error) => bail!("{}: {error}", context()),
        };
        let ask = json!({
            "op": "subscribe",
            "id": 1,
            "path": path,
            "depth": depth,
            "period_ms": period.as_millis() as u64,
        });
        socket.send(Message::text(ask.to_string()))?;
        Ok(Watch { socket })
    }

    /// The next update; `None` when the machine has ended the connection.
    pub fn next(&mut self) -> Result<Option<Update>> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let update: Update = serde_json::from_str(&text)
                        .context("the machine sent something else than an update")?;
                    if let Some(refused) = update.error {
                        bail!("{}", refused.message);
                    }
                    return Ok(Some(update));
                }
                Ok(Message::Close(_)) => return Ok(None),
                Ok(_) => {}
                Err(
                    tungstenite::Error::ConnectionClosed
                    | tungstenite::Error::AlreadyClosed
                    | tungstenite::Error::Io(_)
                    | tungstenite::Error::Protocol(_),
                ) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
