//! Who is bound to which UNIX name: the abstract names, and the sockets behind path names, by the
//! inode that `bind(2)` made.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use errno::{Errno, Result};
use machine::sync::SpinLock;

use super::UnixSocket;
use crate::socket::addr::UnixAddr;
use crate::socket::ops::Kind;

/// Identity of an inode: device and number.
pub type InodeKey = (u64, u64);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Each kind of socket (`SOCK_*`) has abstract names of its own.
    Abstract(i32, Vec<u8>),
    Inode(InodeKey),
}

static BOUND: SpinLock<BTreeMap<Key, Weak<UnixSocket>>> = SpinLock::new(BTreeMap::new());
static NEXT_AUTOBIND: AtomicU32 = AtomicU32::new(0);

/// What a socket holds while it is bound; the name is free again when it is dropped.
pub struct Binding {
    key: Key,
    /// The name as the program gave it.
    pub addr: UnixAddr,
    /// Keeps the inode of a path name, and with it the key, from being used again.
    _path: Option<fs::Path>,
}

impl Drop for Binding {
    fn drop(&mut self) {
        let gone = BOUND.lock().remove(&self.key);
        drop(gone);
    }
}

fn bind(
    key: Key,
    addr: UnixAddr,
    path: Option<fs::Path>,
    socket: &Weak<UnixSocket>,
) -> Result<Binding> {
    let mut bound = BOUND.lock();
    if bound.contains_key(&key) {
        return Err(Errno::EADDRINUSE);
    }
    bound.insert(key.clone(), socket.clone());
    drop(bound);
    Ok(Binding {
        key,
        addr,
        _path: path,
    })
}

/// Binds an abstract name.
///
/// # Errors
/// `EADDRINUSE`.
pub fn bind_abstract(name: Vec<u8>, kind: Kind, socket: &Weak<UnixSocket>) -> Result<Binding> {
    bind(
        Key::Abstract(kind as i32, name.clone()),
        UnixAddr::Abstract(name),
        None,
        socket,
    )
}

/// Binds the path name whose inode has just been made.
///
/// # Errors
/// `EADDRINUSE`.
pub fn bind_inode(
    key: InodeKey,
    name: Vec<u8>,
    path: fs::Path,
    socket: &Weak<UnixSocket>,
) -> Result<Binding> {
    bind(Key::Inode(key), UnixAddr::Path(name), Some(path), socket)
}

/// Binds an abstract name of five hexadecimal digits that nobody has (`unix(7)`, "Autobind").
///
/// # Errors
/// `ENOSPC` when all are taken.
pub fn autobind(kind: Kind, socket: &Weak<UnixSocket>) -> Result<Binding> {
    for _ in 0..=0xf_ffffu32 {
        let n = NEXT_AUTOBIND.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
        let name = alloc::format!("{n:05x}").into_bytes();
        if let Ok(binding) = bind_abstract(name, kind, socket) {
            return Ok(binding);
        }
    }
    Err(Errno::ENOSPC)
}

/// Who is bound to an abstract name.
pub fn find_abstract(name: &[u8], kind: Kind) -> Option<Arc<UnixSocket>> {
    let key = Key::Abstract(kind as i32, name.to_vec());
    BOUND.lock().get(&key)?.upgrade()
}

/// Who is bound to the path name of that inode.
pub fn find_inode(key: InodeKey) -> Option<Arc<UnixSocket>> {
    BOUND.lock().get(&Key::Inode(key))?.upgrade()
}

/// A bound socket, for `/proc/net/unix`.
pub struct Row {
    /// The name; an abstract one begins with `@`.
    pub name: String,
    /// `SOCK_*`.
    pub kind: i32,
    /// Whether it accepts connections.
    pub listening: bool,
}

/// All bound sockets.
pub fn all() -> Vec<Row> {
    let sockets: Vec<Arc<UnixSocket>> = BOUND.lock().values().filter_map(Weak::upgrade).collect();
    sockets.iter().map(|socket| socket.row()).collect()
}
