//! The key `console`: the page and interface that the kernel serves of itself. Read strictly, for it is about who may look.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::IpAddr;

use crate::error::Error;
use crate::reader::{Item, join};

/// The shortest token in characters.
const MIN_TOKEN: usize = 16;
/// The longest.
const MAX_TOKEN: usize = 256;

const KEYS: [&str; 8] = [
    "port",
    "token",
    "read_only",
    "interface",
    "address",
    "insecure",
    "certificate",
    "key",
];

/// `console`: where the console is served, and to whom.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsoleServer {
    /// `port`: the TCP port.
    pub port: u16,
    /// `token`: what every request must show, 16 to 256 printable characters of ASCII without spaces.
    pub token: String,
    /// `read_only`: nothing can be changed.
    pub read_only: bool,
    /// `interface`: only what comes in there is served.
    pub interface: Option<String>,
    /// `address`: the address it listens on.
    pub address: Option<IpAddr>,
    /// `insecure`: without TLS, serve more than what the host forwards.
    pub insecure: bool,
    /// `certificate` and `key`: TLS. Each is PEM, or the path of a file in the root file system.
    pub tls: Option<(String, String)>,
}

/// Without the secrets.
impl fmt::Debug for ConsoleServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleServer")
            .field("port", &self.port)
            .field("read_only", &self.read_only)
            .field("interface", &self.interface)
            .field("address", &self.address)
            .field("insecure", &self.insecure)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// Reads the key. A layer need not be `complete`: another may bring the port or the token.
pub(crate) fn read(root: &Item<'_>, complete: bool) -> Result<Option<ConsoleServer>, Error> {
    let Some(item) = root.get("console") else {
        return Ok(None);
    };
    let unknown = item
        .object()?
        .keys()
        .find(|key| !KEYS.contains(&key.as_str()));
    if let Some(key) = unknown {
        let path = join(&item.path, key);
        return Err(Error::at(path, "the console has no such key"));
    }
    let missing = |key: &str| Error::at(join(&item.path, key), "the key is missing");
    let port = item.get("port").map(|i| i.number(1, 65535)).transpose()?;
    let token = item.get("token").map(|i| token(&i)).transpose()?;
    if complete && port.is_none() {
        return Err(missing("port"));
    }
    if complete && token.is_none() {
        return Err(missing("token"));
    }
    let string = |key: &str| item.get(key).map(|i| i.string()).transpose();
    let flag = |key: &str| item.get(key).map_or(Ok(false), |i| i.flag());
    let tls = match (string("certificate")?, string("key")?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) if complete => return Err(missing("key")),
        (None, Some(_)) if complete => return Err(missing("certificate")),
        _ => None,
    };
    Ok(Some(ConsoleServer {
        port: port.unwrap_or_default() as u16,
        token: token.unwrap_or_default(),
        read_only: flag("read_only")?,
        interface: string("interface")?,
        address: item
            .get("address")
            .map(|i| i.parse("an IP address"))
            .transpose()?,
        insecure: flag("insecure")?,
        tls,
    }))
}

/// The error does not show it.
fn token(item: &Item<'_>) -> Result<String, Error> {
    let text = item.string()?;
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if printable && (MIN_TOKEN..=MAX_TOKEN).contains(&text.len()) {
        return Ok(text);
    }
    Err(Error::at(
        item.path.clone(),
        format!("expected {MIN_TOKEN} to {MAX_TOKEN} printable characters without spaces"),
    ))
}
