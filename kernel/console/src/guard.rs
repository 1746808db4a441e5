//! What the packets of the console's port may cost: they are charged as all that is done for its clients, and strangers' are
//! dropped while their allowance is used up. TCP sends them again later, ever more slowly.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::net::SocketAddr;

use machine::sync::SpinLock;

use crate::turn::Class;

/// The clients whose packets are let through always: of those who have shown the token, no more come than are answered.
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
    fn admits(&self, remote: SocketAddr) -> bool {
        self.class(&remote) == Class::Known || Class::Strangers.has_left()
    }

    fn took(&self, remote: SocketAddr, ns: u64) {
        self.class(&remote).use_up(ns);
    }
}

/// A client that the guard knows, until this is dropped.
pub struct Pass {
    guard: Arc<Guard>,
    remote: SocketAddr,
}

impl Pass {
    /// Lets the packets of `remote` through.
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
