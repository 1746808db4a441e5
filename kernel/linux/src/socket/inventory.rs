//! The program's own sockets, found through its descriptors: for `/proc/net` and `sock_diag(7)`, which tell of inodes
//! and of what only a socket knows.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::addr::{AF_INET, AF_INET6};
use super::file::SocketFile;
use super::inet::InetSocket;
use super::ops::SocketOps;

/// A socket that the program has a descriptor of.
pub struct Own {
    /// Its inode number.
    pub ino: u64,
    /// The socket.
    pub ops: Arc<dyn SocketOps>,
}

/// All sockets that the program has descriptors of, by inode.
pub fn all() -> Vec<Own> {
    let Some(process) = crate::process::get() else {
        return Vec::new();
    };
    let mut found: Vec<Own> = Vec::new();
    for (_, file) in process.files.all() {
        if let Some(socket) = file.file().as_any().downcast_ref::<SocketFile>() {
            found.push(Own {
                ino: socket.ino(),
                ops: socket.ops().clone(),
            });
        }
    }
    found.sort_by_key(|own| own.ino);
    found.dedup_by_key(|own| own.ino);
    found
}

/// Kind and protocol, local end, and the remote one if it is connected.
pub type Key = (i32, i32, SocketAddr, Option<SocketAddr>);

/// Those of the Internet families, by their ends.
pub fn inet() -> BTreeMap<Key, Own> {
    let mut found = BTreeMap::new();
    for own in all() {
        if !matches!(own.ops.family(), AF_INET | AF_INET6) {
            continue;
        }
        let Some(inet) = own.ops.as_any().downcast_ref::<InetSocket>() else {
            continue;
        };
        if let Ok(local) = inet.socket().local_addr() {
            let remote = inet.socket().peer_addr().ok();
            let plain = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port());
            let (kind, protocol) = (own.ops.kind() as i32, own.ops.protocol());
            found.insert((kind, protocol, plain(local), remote.map(plain)), own);
        }
    }
    found
}
