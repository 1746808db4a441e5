//! What the packets of the console's port may cost: they are charged as all that is done for its clients, and while the
//! strangers' allowance is used up, no connection is opened. Who is refused asks again later, ever more slowly.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::net::SocketAddr;

use machine::sync::SpinLock;

use crate::turn::Class;

/// The clients who have shown the token.
#[derive(Default)]
pub struct Guard {
    known: SpinLock<BTreeSet<SocketAddr>>,
}

impl Guard {
    fn class(&self, remote: &SocketAddr) -> Class {
        match self.known.lock().contains(remote) {
            true => Class::Known,
            false => Class::Strangers,
        }
    }
}

impl net::Guard for Guard {
    fn may_open(&self, _remote: SocketAddr) -> bool {
        Class::Strangers.has_left()
    }

    fn took(&self, remote: SocketAddr, ns: u64) {
        self.class(&remote).use_up_by_packets(ns);
    }
}

/// A client that the guard knows, until this is dropped.
pub struct Pass {
    guard: Arc<Guard>,
    remote: SocketAddr,
}

impl Pass {
    /// Has the guard know `remote`.
    pub fn new(guard: &Arc<Guard>, remote: SocketAddr) -> Pass {
        guard.known.lock().insert(remote);
        Pass {
            guard: guard.clone(),
            remote,
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.guard.known.lock().remove(&self.remote);
    }
}
