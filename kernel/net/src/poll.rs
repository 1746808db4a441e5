//! Readiness as the rooms above see it.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use bitflags::bitflags;

use crate::sync::SpinLock;

bitflags! {
    /// `POLL*` of `poll(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Events: u32 {
        /// Readable.
        const IN = 0x1;
        /// Urgent data.
        const PRI = 0x2;
        /// Writable.
        const OUT = 0x4;
        /// Error.
        const ERR = 0x8;
        /// Hung up.
        const HUP = 0x10;
        /// Peer will send no more.
        const RDHUP = 0x2000;
    }
}

/// Someone who wants to know.
pub trait Observer: Send + Sync {
    /// Something may be ready.
    fn notify(&self, events: Events);
}

/// A thing that can be waited for.
#[derive(Default)]
pub struct Pollee {
    observers: SpinLock<Vec<Weak<dyn Observer>>>,
}

impl Pollee {
    /// Nobody waits yet.
    pub const fn new() -> Self {
        Pollee {
            observers: SpinLock::new(Vec::new()),
        }
    }

    /// Tells all who wait.
    pub fn notify(&self, events: Events) {
        let observers: Vec<Arc<dyn Observer>> = self
            .observers
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for observer in observers {
            observer.notify(events);
        }
    }
}
