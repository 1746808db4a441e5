//! What `poll(2)`, `select(2)` and `epoll(7)` have in common: things that can be watched, and waiting
//! for one of several.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use sched::poll::{Events, Observer, Pollee, Registration};
use sched::{WaitQueue, Woken};

use super::epoll::Epoll;

/// `POLLRDNORM`.
pub const RDNORM: u32 = 0x40;
/// `POLLRDBAND`.
pub const RDBAND: u32 = 0x80;
/// `POLLWRNORM`.
pub const WRNORM: u32 = 0x100;
/// `POLLWRBAND`.
pub const WRBAND: u32 = 0x200;
/// `POLLNVAL`.
pub const NVAL: u32 = 0x20;
/// `POLLERR` and `POLLHUP`, told without being asked for.
pub const ALWAYS: u32 = 0x8 | 0x10;

/// Adds the names System V has for the same things: `POLLRDNORM` for `POLLIN`, `POLLWRNORM` for
/// `POLLOUT`. Which files tell both differs on Linux: event counters and timers do not.
pub fn with_norms(mut events: Events) -> Events {
    if events.contains(Events::IN) {
        events |= Events::RDNORM;
    }
    if events.contains(Events::OUT) {
        events |= Events::WRNORM;
    }
    events
}

/// Something with a readiness.
pub trait Watched: Send + Sync {
    /// What it is ready for now. Never waits for the outside.
    fn poll(&self) -> Events;

    /// Where its changes are told; `None` for what is always ready, such as regular files.
    fn pollee(&self) -> Option<&Pollee>;

    /// The epoll set it is, if it is one.
    fn as_epoll(&self) -> Option<&Epoll> {
        None
    }
}

struct Waiter {
    queue: WaitQueue,
    fired: AtomicBool,
}

impl Observer for Waiter {
    fn notify(&self, _events: Events) {
        self.fired.store(true, Ordering::Release);
        self.queue.wake_all();
    }
}

/// Waits until `check` finds what it wants, asking again whenever one of `pollees` changes.
///
/// # Errors
/// `Woken`: interrupted, or the deadline passed.
pub fn wait_any<'a, T>(
    pollees: impl Iterator<Item = &'a Pollee>,
    deadline_ns: Option<u64>,
    mut check: impl FnMut() -> Option<T>,
) -> Result<T, Woken> {
    let waiter = Arc::new(Waiter {
        queue: WaitQueue::new(),
        fired: AtomicBool::new(false),
    });
    let observer: Arc<dyn Observer> = waiter.clone();
    let weak: Weak<dyn Observer> = Arc::downgrade(&observer);
    let _registrations: Vec<Registration> = pollees.map(|p| p.register(&weak)).collect();
    loop {
        waiter.fired.store(false, Ordering::Release);
        if let Some(found) = check() {
            return Ok(found);
        }
        let woken = waiter.queue.wait_interruptible(deadline_ns, || {
            waiter.fired.load(Ordering::Acquire).then_some(())
        });
        if let Err(woken) = woken {
            // What became ready in the last moment counts.
            return check().ok_or(woken);
        }
    }
}
