//! The host's name, and the name servers that the program's resolver asks, which stand in `/etc/resolv.conf`.
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use errno::{Errno, Result};
use fs::{Credentials, LookupFlags, OpenFlags, Start};
use iobuf::{SliceSource, VecSink};
use store::{Leaf, Value};

use super::with_process;
use crate::process::{self, Process};
use crate::uts;

/// The most bytes of the resolver's file that are looked at.
const MAX_FILE: usize = 64 * 1024;
/// The most name servers; the resolver of glibc asks the first three (`MAXNS`).
const MAX_SERVERS: usize = 16;
const RESOLVER: &[u8] = b"/etc/resolv.conf";

/// The host's name, as `sethostname(2)` sets it.
pub fn host_name() -> Leaf {
    Leaf::text(|| uts::get().nodename)
        .help("The host's name.")
        .writable(
            |value| {
                let name = value.as_str().unwrap_or_default();
                let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                if name.is_empty() || name.len() > uts::UTS_LEN || !name.chars().all(fine) {
                    return Err(format!(
                        "a host name has 1 to {} letters, digits, dots and dashes",
                        uts::UTS_LEN
                    ));
                }
                Ok(())
            },
            |value| {
                let name = value.as_str().ok_or("no name")?;
                uts::change(|names| names.nodename = name.into());
                Ok(())
            },
        )
}

/// The name servers.
pub fn name_servers() -> Leaf {
    Leaf::list(|| {
        let text = with_process(|process| read(process).unwrap_or_default());
        servers(&text).into_iter().map(Value::text).collect()
    })
    .help("The name servers in /etc/resolv.conf.")
    .writable(
        |value| addresses(value).map(|_| ()),
        |value| {
            let wanted = addresses(value)?;
            let process = process::get().ok_or("there is no program yet")?;
            let old = match read(process) {
                Err(Errno::ENOENT) => Ok(String::new()),
                read => read,
            };
            old.and_then(|old| write(process, &with_servers(&old, &wanted)))
                .map_err(|errno| format!("/etc/resolv.conf: {errno}"))
        },
    )
}

fn addresses(value: &Value) -> core::result::Result<Vec<IpAddr>, String> {
    let Value::List(values) = value else {
        return Err("it is to be an array of addresses".into());
    };
    if values.len() > MAX_SERVERS {
        return Err(format!("there are more than {MAX_SERVERS} name servers"));
    }
    let address = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        text.parse().map_err(|_| format!("{value} is no address"))
    };
    values.iter().map(address).collect()
}

/// The servers that a resolver's file names (`resolv.conf(5)`).
fn servers(text: &str) -> Vec<IpAddr> {
    let words = text.lines().map(str::split_whitespace);
    words
        .filter_map(|mut words| {
            (words.next() == Some("nameserver"))
                .then(|| words.next()?.parse().ok())
                .flatten()
        })
        .collect()
}

/// The file with these servers in place of those it named; other lines stay.
fn with_servers(old: &str, servers: &[IpAddr]) -> String {
    let is_server = |line: &str| line.split_whitespace().next() == Some("nameserver");
    let mut text: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    for line in old.lines().filter(|line| !is_server(line)) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn open(process: &Process, flags: OpenFlags) -> Result<alloc::sync::Arc<fs::OpenFile>> {
    let root = process.namespace.root();
    let start = Start {
        root,
        dir: root,
        creds: &Credentials::ROOT,
    };
    process
        .namespace
        .open(&start, RESOLVER, flags, 0o644, LookupFlags::FOLLOW)
}

fn read(process: &Process) -> Result<String> {
    let file = open(process, OpenFlags::empty())?;
    let mut sink = VecSink::new(MAX_FILE);
    file.read_at(0, &mut sink)?;
    Ok(String::from_utf8_lossy(&sink.into_bytes()).into_owned())
}

fn write(process: &Process, text: &str) -> Result<()> {
    let file = open(process, OpenFlags::WRONLY | OpenFlags::CREAT)?;
    let mut source = SliceSource::new(text.as_bytes());
    let written = file.write_at(0, &mut source)?;
    if written < text.len() {
        return Err(Errno::EIO);
    }
    file.truncate(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_of_the_file_change() {
        let old = "# made by ops\nnameserver 10.0.2.3\nsearch example.org\n nameserver fe80::1%en1\nnameserver ::1 x\nnameserverx 1.1.1.1";
        assert_eq!(
            servers(old),
            [
                "10.0.2.3".parse::<IpAddr>().unwrap(),
                "::1".parse().unwrap()
            ]
        );
        let new = with_servers(old, &["9.9.9.9".parse().unwrap()]);
        assert_eq!(
            new,
            "nameserver 9.9.9.9\n# made by ops\nsearch example.org\nnameserverx 1.1.1.1\n"
        );
        assert_eq!(with_servers("", &[]), "");
    }

    #[test]
    fn only_addresses_are_servers() {
        let list = |texts: &[&str]| Value::List(texts.iter().map(Value::text).collect());
        assert!(addresses(&list(&["1.2.3.4", "::1"])).is_ok());
        for bad in [
            list(&["example.org"]),
            list(&["1.2.3.4\nnameserver 6.6.6.6"]),
            list(&["1.1.1.1"; 17]),
            Value::List([Value::Integer(1)].into()),
        ] {
            assert!(addresses(&bad).is_err(), "{bad}");
        }
    }
}
