//! Readiness: what a descriptor is ready for, who waits for it in a call, and who watches it from an epoll set.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use bitflags::bitflags;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use machine::sync::IrqLock;

use crate::wait::{WaitQueue, Woken};

bitflags! {
    /// What a descriptor is ready for, with the values of `poll(2)` and `epoll(7)`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Events: u32 {
        /// There is something to read (`POLLIN`).
        const IN = 0x001;
        /// There is something urgent (`POLLPRI`).
        const PRI = 0x002;
        /// There is room to write (`POLLOUT`).
        const OUT = 0x004;
        /// An error is pending (`POLLERR`); always watched.
        const ERR = 0x008;
        /// The other side hung up both ways (`POLLHUP`); always watched.
        const HUP = 0x010;
        /// The descriptor is not open (`POLLNVAL`).
        const NVAL = 0x020;
        /// Equal to `IN` (`POLLRDNORM`).
        const RDNORM = 0x040;
        /// Priority band data can be read (`POLLRDBAND`).
        const RDBAND = 0x080;
        /// Equal to `OUT` (`POLLWRNORM`).
        const WRNORM = 0x100;
        /// Priority data may be written (`POLLWRBAND`).
        const WRBAND = 0x200;
        /// The other side will not write any more (`POLLRDHUP`).
        const RDHUP = 0x2000;
    }
}

impl Events {
    /// What is reported whether asked for or not.
    pub const ALWAYS: Events = Events::ERR.union(Events::HUP);
}

/// Somebody who wants to hear of readiness, such as an entry of an epoll set.
pub trait Observer: Send + Sync {
    /// Called when `events` may have become true; also in interrupt context, so it must be short, must not block, and
    /// must not call back into the source.
    fn notify(&self, events: Events);
}

#[derive(Default)]
struct Observers {
    /// How many are in `list`, so that notifying nobody costs no lock.
    len: AtomicUsize,
    next: AtomicUsize,
    list: IrqLock<Vec<(usize, Weak<dyn Observer>)>>,
}

impl Observers {
    fn remove(&self, id: usize) {
        let mut list = self.list.lock();
        let gone = list
            .iter()
            .position(|(other, _)| *other == id)
            .map(|place| list.remove(place));
        self.len.store(list.len(), Ordering::SeqCst);
        drop(list);
        drop(gone);
    }
}

/// The source of readiness that is part of each pollable object.
pub struct Pollee {
    waiters: WaitQueue,
    observers: Arc<Observers>,
}

impl Pollee {
    /// A source without waiters or observers.
    pub fn new() -> Self {
        Pollee {
            waiters: WaitQueue::new(),
            observers: Arc::default(),
        }
    }

    /// Says that `events` may have become true: wakes every waiter and tells every observer. Legal in interrupt
    /// handlers; call it after the change, without the object's lock.
    pub fn notify(&self, events: Events) {
        self.waiters.wake_all();
        fence(Ordering::SeqCst);
        if self.observers.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        // Observers are called without the lock: they may unregister, and the last owner may be here. The list is in
        // the order of the numbers, so going on behind the last one skips nobody, whoever has left meanwhile.
        let mut next = 0;
        loop {
            let found = {
                let list = self.observers.list.lock();
                let place = list.partition_point(|(id, _)| *id < next);
                list.get(place)
                    .map(|(id, observer)| (*id, observer.upgrade()))
            };
            let Some((id, observer)) = found else {
                break;
            };
            if let Some(observer) = observer {
                observer.notify(events);
            }
            next = id + 1;
        }
    }

    /// Adds an observer until the registration is dropped. Look at the object's state after this call: what changed
    /// before it is not announced again.
    pub fn register(&self, observer: &Weak<dyn Observer>) -> Registration {
        let mut list = self.observers.list.lock();
        let id = self.observers.next.fetch_add(1, Ordering::Relaxed);
        list.push((id, observer.clone()));
        self.observers.len.store(list.len(), Ordering::SeqCst);
        drop(list);
        fence(Ordering::SeqCst);
        Registration {
            id,
            observers: Arc::downgrade(&self.observers),
        }
    }

    /// Blocks until `condition` gives something, as [`WaitQueue::wait_interruptible`].
    ///
    /// # Errors
    /// As there.
    pub fn wait<T>(
        &self,
        deadline_ns: Option<u64>,
        condition: impl FnMut() -> Option<T>,
    ) -> Result<T, Woken> {
        self.waiters.wait_interruptible(deadline_ns, condition)
    }

    /// The queue of those who block.
    pub fn waiters(&self) -> &WaitQueue {
        &self.waiters
    }
}

impl Default for Pollee {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Pollee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Pollee({:?}, {} observers)",
            self.waiters,
            self.observers.len.load(Ordering::Relaxed)
        )
    }
}

/// An observer's place at a source; dropping it ends the observation.
pub struct Registration {
    id: usize,
    observers: Weak<Observers>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(observers) = self.observers.upgrade() {
            observers.remove(self.id);
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::{Events, Observer, Pollee};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Weak};

    struct Last(AtomicU32);

    impl Observer for Last {
        fn notify(&self, events: Events) {
            self.0.fetch_or(events.bits(), Ordering::SeqCst);
        }
    }

    #[test]
    fn an_observer_hears_until_it_is_dropped() {
        let pollee = Pollee::new();
        let (first, second) = (
            Arc::new(Last(AtomicU32::new(0))),
            Arc::new(Last(AtomicU32::new(0))),
        );
        let weak: Weak<dyn Observer> = Arc::<Last>::downgrade(&first);
        let registration = pollee.register(&weak);
        let weak: Weak<dyn Observer> = Arc::<Last>::downgrade(&second);
        let _kept = pollee.register(&weak);
        pollee.notify(Events::IN);
        drop(registration);
        pollee.notify(Events::OUT);
        assert_eq!(first.0.load(Ordering::SeqCst), Events::IN.bits());
        assert_eq!(
            second.0.load(Ordering::SeqCst),
            (Events::IN | Events::OUT).bits()
        );
    }
}
