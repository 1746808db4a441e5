//! Port forwards: how they are written, and whether the host's ports are free.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use anyhow::{Context, Result, bail};

/// The protocol of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// One forward: connections to `address:host` on this machine reach port `guest` of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    pub protocol: Protocol,
    pub address: Ipv4Addr,
    pub host: u16,
    pub guest: u16,
}

/// Reads forwards as `-p` takes them: `80`, `80,81`, `8080-80` (host to guest), `8080:80`, `0.0.0.0:8080:80`.
pub fn parse(text: &str, protocol: Protocol) -> Result<Vec<Forward>> {
    text.split(',')
        .map(|one| single(one.trim(), protocol))
        .collect()
}

fn single(text: &str, protocol: Protocol) -> Result<Forward> {
    let context = || {
        format!(
            "`{text}` is not a port: write 80, 80,81, 8080-80 (host to guest) or 0.0.0.0:8080:80"
        )
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (address, host, guest) = match &parts[..] {
        [one] => {
            let (host, guest) = one.split_once('-').unwrap_or((one, one));
            (Ipv4Addr::LOCALHOST, host, guest)
        }
        [host, guest] => (Ipv4Addr::LOCALHOST, *host, *guest),
        [address, host, guest] => (address.parse().with_context(context)?, *host, *guest),
        _ => bail!(context()),
    };
    Ok(Forward {
        protocol,
        address,
        host: port(host).with_context(context)?,
        guest: port(guest).with_context(context)?,
    })
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&p| p > 0 && digits)
}

/// Fails when a port of the host is taken, by another program or by another forward of ours.
pub fn check_free(forwards: &[Forward]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for f in forwards {
        if !seen.insert((f.protocol, f.host)) {
            bail!("{} port {} is forwarded twice", f.protocol, f.host);
        }
        let address = SocketAddrV4::new(f.address, f.host);
        let result = match f.protocol {
            Protocol::Tcp => TcpListener::bind(address).map(drop),
            Protocol::Udp => UdpSocket::bind(address).map(drop),
        };
        if let Err(e) = result {
            match e.kind() {
                std::io::ErrorKind::AddrInUse => bail!(
                    "{} port {} is in use on this machine; choose another with -p {}-{}",
                    f.protocol,
                    f.host,
                    suggestion(f.host),
                    f.guest
                ),
                std::io::ErrorKind::PermissionDenied => bail!(
                    "{} port {} needs root on this machine; choose one above 1023 with -p {}-{}",
                    f.protocol,
                    f.host,
                    suggestion(f.host),
                    f.guest
                ),
                _ => bail!("cannot listen on {} {address}: {e}", f.protocol),
            }
        }
    }
    Ok(())
}

fn suggestion(port: u16) -> u16 {
    if port < 1024 {
        port + 8000
    } else {
        port.checked_add(1).unwrap_or(8080)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, u16, u16)> {
        parse(text, Protocol::Tcp)
            .unwrap()
            .iter()
            .map(|f| (f.address.to_string(), f.host, f.guest))
            .collect()
    }

    #[test]
    fn every_form() {
        let local = |h, g| ("127.0.0.1".to_string(), h, g);
        assert_eq!(read("80"), [local(80, 80)]);
        assert_eq!(read("80,81"), [local(80, 80), local(81, 81)]);
        assert_eq!(read("8080-80"), [local(8080, 80)]);
        assert_eq!(read("8080:80,9"), [local(8080, 80), local(9, 9)]);
        assert_eq!(read("0.0.0.0:8000:80"), [("0.0.0.0".to_string(), 8000, 80)]);
        for bad in [
            "", "x", "0", "65536", "1-2-3", "-1", "80,", "+80", "a:1:2", "1:2:3:4", "80-",
        ] {
            let error = parse(bad, Protocol::Tcp).unwrap_err().to_string();
            assert!(error.contains("is not a port"), "{bad}: {error}");
        }
    }

    #[test]
    fn taken_ports_are_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let forwards = parse(&port.to_string(), Protocol::Tcp).unwrap();
        let error = check_free(&forwards).unwrap_err().to_string();
        assert!(
            error.contains(&format!("tcp port {port} is in use")),
            "{error}"
        );
        drop(taken);
        check_free(&forwards).unwrap();
        let twice = parse(&format!("{port},{port}-80"), Protocol::Tcp).unwrap();
        assert!(
            check_free(&twice)
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }
}
