//! What an idle CPU looks at while it looks for work before it halts: devices whose interrupt costs more than the look
//! (as Linux's `haltpoll` and NAPI's busy polling taken together).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use machine::sync::Once;

/// Something that interrupts, and can be looked at instead. Called by the idle loop: nothing may block.
pub trait Watch: Send + Sync {
    /// A CPU looks from now on: no interrupts, please.
    fn begin(&self);

    /// Whether something came; then whoever waits for it has been told, as an interrupt would have.
    fn look(&self) -> bool;

    /// Nobody looks any more: interrupts again. What came until then is told now.
    fn end(&self);
}

struct Watched {
    watch: Arc<dyn Watch>,
    /// A CPU looks at it.
    taken: AtomicBool,
}

/// As many queues as a card may have, twice.
const MOST: usize = 32;
static WATCHED: [Once<Watched>; MOST] = [const { Once::new() }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Has idle CPUs look at `watch` from now on, one at a time. What comes after the first 32 is not looked at: it
/// interrupts as ever.
pub fn watch_when_idle(watch: Arc<dyn Watch>) {
    let at = COUNT.fetch_add(1, Ordering::Relaxed);
    match WATCHED.get(at) {
        Some(slot) => {
            slot.call_once(|| Watched {
                watch,
                taken: AtomicBool::new(false),
            });
        }
        None => COUNT.store(MOST, Ordering::Relaxed),
    }
}

/// What the idle loop of a CPU looks at, until it is dropped.
pub struct Look {
    /// A bit for each watch.
    mine: u32,
}

impl Look {
    /// Takes whatever no other CPU looks at.
    #[must_use]
    pub fn begin() -> Look {
        let mut mine = 0;
        let count = COUNT.load(Ordering::Relaxed).min(MOST);
        for (at, slot) in WATCHED[..count].iter().enumerate() {
            if let Some(watched) = slot.get()
                && !watched.taken.swap(true, Ordering::AcqRel)
            {
                watched.watch.begin();
                mine |= 1 << at;
            }
        }
        Look { mine }
    }

    fn each(&self) -> impl Iterator<Item = &'static Watched> {
        let mut left = self.mine;
        core::iter::from_fn(move || {
            let at = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            WATCHED.get(at)?.get()
        })
    }

    /// Whether something came.
    pub fn found(&self) -> bool {
        self.each().any(|watched| watched.watch.look())
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        for watched in self.each() {
            watched.watch.end();
            watched.taken.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, AtomicBool, AtomicUsize, Look, Ordering, Watch, watch_when_idle};

    /// Counts begins less ends, and what was told.
    #[derive(Default)]
    struct Device {
        looked_at: AtomicUsize,
        came: AtomicBool,
        told: AtomicUsize,
    }

    impl Watch for Device {
        fn begin(&self) {
            assert_eq!(
                self.looked_at.fetch_add(1, Ordering::SeqCst),
                0,
                "one at a time"
            );
        }

        fn look(&self) -> bool {
            let came = self.came.swap(false, Ordering::SeqCst);
            self.told.fetch_add(came.into(), Ordering::SeqCst);
            came
        }

        fn end(&self) {
            self.look();
            self.looked_at.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn one_cpu_looks_at_a_time_and_nothing_is_lost_at_the_end() {
        let device = Arc::new(Device::default());
        watch_when_idle(device.clone());
        let first = Look::begin();
        let second = Look::begin();
        assert!(!first.found());
        device.came.store(true, Ordering::SeqCst);
        assert!(!second.found(), "the first looks at it");
        assert!(first.found() && !first.found());
        device.came.store(true, Ordering::SeqCst);
        drop(first);
        drop(second);
        assert_eq!(device.told.load(Ordering::SeqCst), 2);
        assert_eq!(device.looked_at.load(Ordering::SeqCst), 0);
        assert!(!Look::begin().found());
    }
}
