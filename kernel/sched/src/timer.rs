//! Timers that call a function.
//!
//! The functions run one after the other on a thread of their own, so they may take locks and wake anyone, but should
//! not block for long: others wait behind them. A thread that only wants to sleep needs no timer: waits have deadlines.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use machine::sync::{IrqLock, Once};

use crate::backend;
use crate::thread::{SpawnOptions, Thread, current, spawn};

/// Deadline in nanoseconds, then a number that makes it unique.
type Key = (u64, u64);

static QUEUE: IrqLock<BTreeMap<Key, Weak<Inner>>> = IrqLock::new(BTreeMap::new());
static THREAD: Once<Option<Arc<Thread>>> = Once::new();
static NEXT: AtomicU64 = AtomicU64::new(0);

struct Inner {
    callback: Box<dyn Fn() + Send + Sync>,
    armed: IrqLock<Option<Key>>,
}

/// A timer; dropping it disarms it.
pub struct Timer {
    inner: Arc<Inner>,
}

impl Timer {
    /// A timer that will call `callback`, not armed yet.
    pub fn new(callback: Box<dyn Fn() + Send + Sync>) -> Timer {
        Timer {
            inner: Arc::new(Inner {
                callback,
                armed: IrqLock::new(None),
            }),
        }
    }

    /// Makes it call at `deadline_ns` on the monotonic clock, instead of any earlier request. A deadline in the past
    /// calls as soon as possible.
    pub fn arm(&self, deadline_ns: u64) {
        let key = (deadline_ns, NEXT.fetch_add(1, Ordering::Relaxed));
        let mut armed = self.inner.armed.lock();
        let mut queue = QUEUE.lock();
        if let Some(old) = armed.replace(key) {
            queue.remove(&old);
        }
        queue.insert(key, Arc::downgrade(&self.inner));
        let is_first = queue
            .first_key_value()
            .is_some_and(|(first, _)| *first == key);
        drop(queue);
        drop(armed);
        if is_first && let Some(thread) = THREAD.call_once(start) {
            thread.unpark();
        }
    }

    /// Disarms it, and answers whether it was armed. The function may be running right now.
    pub fn cancel(&self) -> bool {
        self.inner.disarm()
    }

    /// When it will call.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.inner.armed.lock().map(|(deadline, _)| deadline)
    }
}

impl Inner {
    fn disarm(&self) -> bool {
        let mut armed = self.armed.lock();
        armed
            .take()
            .is_some_and(|key| QUEUE.lock().remove(&key).is_some())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.inner.disarm();
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({:?})", self.deadline_ns())
    }
}

/// Starts the thread that calls. Without memory for its stack there is none, and timers stay silent: that can
/// only be so at boot, when nothing works yet.
fn start() -> Option<Arc<Thread>> {
    spawn(SpawnOptions::named("timers"), serve).ok()
}

fn serve() {
    let _me = current();
    loop {
        let now = machine::time::now_ns();
        let mut queue = QUEUE.lock();
        match queue.first_key_value() {
            Some((&key, _)) if key.0 <= now => {
                let due = queue.remove(&key);
                drop(queue);
                let Some(inner) = due.and_then(|weak| weak.upgrade()) else {
                    continue;
                };
                // Somebody may have armed it anew, or disarmed it, since it left the queue.
                let still = {
                    let mut armed = inner.armed.lock();
                    let still = *armed == Some(key);
                    if still {
                        *armed = None;
                    }
                    still
                };
                if still {
                    (inner.callback)();
                }
            }
            first => {
                let deadline = first.map(|(key, _)| key.0);
                drop(queue);
                backend::park(deadline);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timer;
    use crate::wait::WaitQueue;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MS: u64 = 1_000_000;

    #[test]
    fn a_timer_calls_once_and_not_before_its_time() {
        let (count, queue) = (Arc::new(AtomicUsize::new(0)), Arc::new(WaitQueue::new()));
        let (seen, wake) = (count.clone(), queue.clone());
        let timer = Timer::new(Box::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
            wake.wake_all();
        }));
        let start = machine::time::now_ns();
        timer.arm(start + 500_000 * MS);
        timer.arm(start + 20 * MS);
        let done = queue.wait_until(Some(start + 10_000 * MS), || {
            (count.load(Ordering::SeqCst) == 1).then_some(())
        });
        assert_eq!(done, Ok(()));
        assert!(machine::time::now_ns() >= start + 20 * MS);
        assert!(!timer.cancel());
    }

    #[test]
    fn a_cancelled_timer_is_silent() {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = count.clone();
        let timer = Timer::new(Box::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        }));
        timer.arm(machine::time::now_ns() + 30 * MS);
        assert!(timer.cancel());
        let later = machine::time::now_ns() + 60 * MS;
        let _ = WaitQueue::new().wait_until(Some(later), || None::<()>);
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }
}
