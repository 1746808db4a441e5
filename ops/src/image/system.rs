//! The files that a program expects of any Linux system: resolver, host names, users, folders to mount on. They are added
//! where nothing else put them there.

use std::path::Path;

use anyhow::{Result, bail};

use super::tree::{Attributes, Kind, Tree};
use crate::config::Config;
use crate::elf::cache;

/// The name that the machine bears.
pub const HOSTNAME: &str = "uniboot";

const DEFAULT_NAMESERVER: &str = "8.8.8.8";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/nobody\n";
const GROUP: &str = "root:x:0:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n";

/// Folders that are always there; the kernel mounts on some of them.
const FOLDERS: [(&str, u16); 8] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
];

/// In place of name servers: those that the machine learns when it runs.
const LEARNED: &str = "dhcp";

/// Adds the system's files and folders.
pub fn add(tree: &mut Tree, config: &Config) -> Result<()> {
    for (path, mode) in FOLDERS {
        tree.put_dir(Path::new(path), Attributes::made(mode))?;
    }
    let learned = config.name_servers.as_deref() == Some(&[String::from(LEARNED)]);
    if !learned {
        tree.put_default("/etc/resolv.conf", resolver(config)?)?;
    } else if tree.find(Path::new("/etc/resolv.conf"), false).is_none() {
        let link = Kind::Symlink("/proc/net/pnp".into());
        tree.put(Path::new("/etc/resolv.conf"), link, Attributes::made(0o777))?;
    }
    tree.put_default("/etc/hosts", HOSTS)?;
    tree.put_default("/etc/hostname", format!("{HOSTNAME}\n"))?;
    tree.put_default("/etc/passwd", PASSWD)?;
    tree.put_default("/etc/group", GROUP)?;
    tree.put_default("/etc/nsswitch.conf", NSSWITCH)?;
    Ok(())
}

fn resolver(config: &Config) -> Result<String> {
    let default = [DEFAULT_NAMESERVER.to_string()];
    let servers = match config.name_servers.as_deref() {
        Some(servers) if !servers.is_empty() => servers,
        _ => &default,
    };
    let mut text = String::new();
    for server in servers {
        if server.parse::<std::net::IpAddr>().is_err() {
            bail!(
                "NameServers: `{server}` is not an IP address; [\"{LEARNED}\"] takes what DHCP tells"
            );
        }
        text.push_str(&format!("nameserver {server}\n"));
    }
    Ok(text)
}

/// Adds a loader's cache of the given libraries, name and path, so that the loader finds in one step what else it would
/// search for in many folders, or, outside the default folders, not at all.
pub fn add_loader_cache(tree: &mut Tree, libraries: &[(String, String)]) -> Result<()> {
    if !libraries.is_empty() {
        tree.put_default("/etc/ld.so.cache", cache::encode(libraries))?;
    }
    Ok(())
}

/// The libraries in the default folders of a tree, for [`add_loader_cache`].
pub fn libraries_in(tree: &Tree) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for folder in [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib",
    ] {
        let Some(id) = tree.find(Path::new(folder), true) else {
            continue;
        };
        for (name, child) in tree.entries(id) {
            let name = name.to_string_lossy();
            let library = name.contains(".so.") || name.ends_with(".so");
            if library && !matches!(tree.node(child).kind, Kind::Dir(_)) {
                out.push((name.to_string(), format!("{folder}/{name}")));
            }
        }
    }
    out
}
