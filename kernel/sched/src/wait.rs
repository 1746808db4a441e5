//! Wait queues: the one way to block.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use machine::sync::IrqLock;

use crate::backend;
use crate::thread::{Thread, current};

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// [`Thread::interrupt`](crate::Thread::interrupt) was called.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

/// Threads that wait for a condition, first come first woken.
///
/// The condition is looked at after the thread has joined the queue, so a change followed by a wake is never missed.
pub struct WaitQueue {
    /// How many are in `waiters`, so that waking nobody costs no lock.
    len: AtomicUsize,
    waiters: IrqLock<VecDeque<Arc<Thread>>>,
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        WaitQueue {
            len: AtomicUsize::new(0),
            waiters: IrqLock::new(VecDeque::new()),
        }
    }

    /// Blocks until `condition` gives something, whatever else happens.
    pub fn wait<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        loop {
            // Without a deadline and deaf to interrupts there is no other way out.
            if let Ok(value) = self.block(None, false, &mut condition) {
                return value;
            }
        }
    }

    /// Blocks until `condition` gives something, the thread is interrupted, or the monotonic clock reaches
    /// `deadline_ns`.
    ///
    /// # Errors
    /// Which of the other two it was. A condition that holds wins over both.
    pub fn wait_interruptible<T>(
        &self,
        deadline_ns: Option<u64>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, Woken> {
        self.block(deadline_ns, true, &mut condition)
    }

    /// As [`WaitQueue::wait_interruptible`], but deaf to interrupts.
    ///
    /// # Errors
    /// [`Woken::TimedOut`] when the deadline passed.
    pub fn wait_until<T>(
        &self,
        deadline_ns: Option<u64>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, Woken> {
        self.block(deadline_ns, false, &mut condition)
    }

    fn block<T>(
        &self,
        deadline_ns: Option<u64>,
        interruptible: bool,
        condition: &mut dyn FnMut() -> Option<T>,
    ) -> Result<T, Woken> {
        if let Some(value) = condition() {
            return Ok(value);
        }
        machine::sync::assert_may_block();
        let me = current();
        loop {
            self.join(&me);
            if let Some(value) = condition() {
                self.leave_to_the_next(&me);
                return Ok(value);
            }
            let reason = if interruptible && me.is_interrupted() {
                Some(Woken::Interrupted)
            } else if deadline_ns.is_some_and(|deadline| machine::time::now_ns() >= deadline) {
                Some(Woken::TimedOut)
            } else {
                None
            };
            if let Some(reason) = reason {
                self.leave_to_the_next(&me);
                return Err(reason);
            }
            backend::park(deadline_ns);
            self.leave(&me);
        }
    }

    fn join(&self, me: &Arc<Thread>) {
        let mut waiters = self.waiters.lock();
        waiters.push_back(me.clone());
        self.len.store(waiters.len(), Ordering::SeqCst);
        drop(waiters);
        // Pairs with the fence in `is_empty`: either the waker sees this thread, or this thread the change.
        fence(Ordering::SeqCst);
    }

    /// Whether the thread was still in the queue, that is, nobody woke it.
    fn leave(&self, me: &Arc<Thread>) -> bool {
        let mut waiters = self.waiters.lock();
        let place = waiters.iter().position(|waiter| Arc::ptr_eq(waiter, me));
        let gone = place.and_then(|place| waiters.remove(place));
        self.len.store(waiters.len(), Ordering::SeqCst);
        drop(waiters);
        gone.is_some()
    }

    /// Leaves without having slept. A wake that found this thread meanwhile goes on to the next: it may be of a change that
    /// came after the condition held, or of one that this thread does not wait for any more.
    fn leave_to_the_next(&self, me: &Arc<Thread>) {
        if !self.leave(me) {
            self.wake_one();
        }
    }

    /// Whether nobody waits. A condition changed before this call is seen by whoever joins after it.
    pub fn is_empty(&self) -> bool {
        fence(Ordering::SeqCst);
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Wakes the thread that has waited longest, and answers whether there was one. Legal in interrupt handlers.
    pub fn wake_one(&self) -> bool {
        self.wake(1) == 1
    }

    /// Wakes up to `count` threads and answers how many there were. Legal in interrupt handlers.
    pub fn wake(&self, count: usize) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut woken = 0;
        while woken < count {
            let mut waiters = self.waiters.lock();
            let Some(thread) = waiters.pop_front() else {
                break;
            };
            self.len.store(waiters.len(), Ordering::SeqCst);
            drop(waiters);
            thread.unpark();
            woken += 1;
        }
        woken
    }

    /// Wakes every thread that waits now, and answers how many. Legal in interrupt handlers.
    pub fn wake_all(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        // A woken thread whose condition does not hold yet joins again at the end: count first, or never finish.
        let count = self.waiters.lock().len();
        self.wake(count)
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitQueue({} waiting)", self.len.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::{WaitQueue, Woken};
    use crate::thread::{SpawnOptions, spawn};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MS: u64 = 1_000_000;

    #[test]
    fn a_deadline_ends_a_wait() {
        let queue = WaitQueue::new();
        let start = machine::time::now_ns();
        let result = queue.wait_interruptible(Some(start + 20 * MS), || None::<()>);
        assert_eq!(result, Err(Woken::TimedOut));
        assert!(machine::time::now_ns() >= start + 20 * MS);
        assert!(queue.is_empty());
    }

    #[test]
    fn an_interrupt_ends_a_wait_and_sticks() {
        let queue = Arc::new(WaitQueue::new());
        let inner = queue.clone();
        let thread = spawn(SpawnOptions::named("waiter"), move || {
            let result = inner.wait_interruptible(None, || None::<()>);
            assert_eq!(result, Err(Woken::Interrupted));
            assert!(crate::current().take_interrupt());
            assert!(!crate::current().is_interrupted());
        })
        .unwrap();
        thread.interrupt();
        thread.join();
    }

    /// Each thread waits for a flag of its own at the same queue. The first finds its flag set, and before it has left the
    /// queue the second's is set too: that wake takes the first, whom it no longer concerns.
    #[test]
    fn a_wake_of_one_who_has_what_it_waits_for_goes_on_to_the_next() {
        let queue = Arc::new(WaitQueue::new());
        let flag = Arc::new(AtomicUsize::new(0));
        let (mut looks, mut second) = (0, None);
        queue.wait(|| {
            looks += 1;
            if looks < 2 {
                return None;
            }
            let (queue_of_second, flag_of_second) = (queue.clone(), flag.clone());
            let work = move || {
                let late = Some(machine::time::now_ns() + 5000 * MS);
                let set = || (flag_of_second.load(Ordering::SeqCst) == 1).then_some(());
                let _ = queue_of_second.wait_until(late, set);
                flag_of_second.store(2, Ordering::SeqCst);
            };
            second = Some(spawn(SpawnOptions::named("second"), work).unwrap());
            while queue.waiters.lock().len() < 2 {
                std::thread::yield_now();
            }
            // By now it has looked at its flag once more and sleeps.
            std::thread::sleep(std::time::Duration::from_millis(50));
            flag.store(1, Ordering::SeqCst);
            assert!(queue.wake_one());
            Some(())
        });
        let until = machine::time::now_ns() + 2500 * MS;
        while flag.load(Ordering::SeqCst) != 2 {
            assert!(machine::time::now_ns() < until, "the wake was lost");
            std::thread::yield_now();
        }
        second.unwrap().join();
        assert!(queue.is_empty());
    }

    #[test]
    fn every_token_finds_a_taker() {
        const EACH: usize = 2000;
        let (queue, tokens, taken) = (
            Arc::new(WaitQueue::new()),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let (queue, tokens, taken) = (queue.clone(), tokens.clone(), taken.clone());
                spawn(SpawnOptions::named("taker"), move || {
                    for _ in 0..EACH {
                        queue.wait(|| {
                            tokens
                                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                                    n.checked_sub(1)
                                })
                                .ok()
                        });
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                })
                .unwrap()
            })
            .collect();
        for _ in 0..4 * EACH {
            tokens.fetch_add(1, Ordering::SeqCst);
            queue.wake_one();
        }
        takers.iter().for_each(|taker| taker.join());
        assert_eq!(
            (taken.load(Ordering::SeqCst), tokens.load(Ordering::SeqCst)),
            (4 * EACH, 0)
        );
    }
}
