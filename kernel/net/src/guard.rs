//! A TCP port whose packets may cost only so much: whoever looks after it is asked before a connection is opened, and told how
//! long each segment took.

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use errno::{Errno, Result};
use machine::sync::Once;

use crate::flow::FlowKey;
use crate::stack::Stack;

/// Decides who may connect to a port. Both are called on the path of packets: they neither block nor call the engine.
pub trait Guard: Send + Sync {
    /// Whether a segment from `remote` that belongs to no connection may be taken now; it is dropped otherwise, as if it had been
    /// lost on the way. Those of connections are always taken: some peers, QEMU's user network for one, send them again only
    /// after many seconds.
    fn may_open(&self, remote: SocketAddr) -> bool;

    /// What was done because of a segment from `remote`, from its card on, took so long, in nanoseconds.
    fn took(&self, remote: SocketAddr, ns: u64);
}

/// The port that is guarded, if one is.
#[derive(Default)]
pub(crate) struct Guarded {
    port: Once<Port>,
}

/// See [`Guarded`].
pub(crate) struct Port {
    port: u16,
    guard: Arc<dyn Guard>,
    dropped: AtomicU64,
    /// When the last segment was done with.
    done_at: AtomicU64,
}

impl Guarded {
    /// Whoever guards `port`.
    pub fn at(&self, port: u16) -> Option<&Port> {
        self.port.get().filter(|guarded| guarded.port == port)
    }

    /// Whether a segment that belongs to no connection is to be dropped.
    pub fn refuses(&self, key: &FlowKey) -> bool {
        let Some(port) = self.at(key.lport) else {
            return false;
        };
        let refused = !port.guard.may_open(SocketAddr::new(key.remote, key.rport));
        if refused {
            port.dropped.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }

    /// How many segments were dropped.
    pub fn dropped(&self) -> u64 {
        self.port
            .get()
            .map_or(0, |port| port.dropped.load(Ordering::Relaxed))
    }
}

impl Port {
    /// Takes a segment from `remote` by `take`. It is of a batch that was begun with at `begun`: what was done with it up to here
    /// counts as well.
    pub fn pass(&self, stack: &Stack, remote: SocketAddr, begun: u64, take: impl FnOnce()) {
        let begun = self.done_at.load(Ordering::Relaxed).max(begun);
        let dropped = self.dropped.load(Ordering::Relaxed);
        take();
        let now = stack.now();
        self.done_at.store(now, Ordering::Relaxed);
        // A flood of what is dropped does not keep all others out.
        if self.dropped.load(Ordering::Relaxed) == dropped {
            self.guard.took(remote, now.saturating_sub(begun));
        }
    }
}

impl Stack {
    /// Has `guard` asked for each TCP connection to `port`, from now on for good.
    ///
    /// # Errors
    /// `EBUSY` when a port is guarded already.
    pub fn guard_port(&self, port: u16, guard: Arc<dyn Guard>) -> Result<()> {
        let port = Port {
            port,
            guard,
            dropped: AtomicU64::new(0),
            done_at: AtomicU64::new(0),
        };
        self.guarded.port.set(port).map_err(|_| Errno::EBUSY)
    }
}
