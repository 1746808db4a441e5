//! Futexes: who waits for which word of memory (`futex(2)`).
//!
//! [`pi`] has the operations with an owner, [`robust`] what happens to the words of a thread that ends.
//! The flags of the system call are `syscalls::futex`'s.
//!
//! A waiter joins its queue *before* it looks at the word, since the look may fault and sleep. One
//! that finds another value but was woken in between reports the wake, as if it had slept.
pub mod pi;
pub mod robust;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use errno::{Errno, Result};
use machine::sync::SpinLock;
use machine::user;

use crate::mm::AddressSpace;

/// What identifies a word: an address, or a place in a shared object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The object's id, 0 for private memory.
    object: usize,
    /// Address or offset.
    place: u64,
}

impl Key {
    /// The key of the word at `addr`. A private one is just the address; another looks whether the
    /// memory is shared, so that two mappings of one file meet.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address, `EFAULT` for one that is not the program's.
    pub fn of(mm: &AddressSpace, addr: usize, private: bool) -> Result<Key> {
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if !user::is_user_range(addr, 4) {
            return Err(Errno::EFAULT);
        }
        let (object, place) = match private {
            true => (0, addr as u64),
            false => mm.shared_place(addr).unwrap_or((0, addr as u64)),
        };
        Ok(Key { object, place })
    }

    fn bucket(&self) -> usize {
        let mixed =
            (self.place ^ (self.object as u64).rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize % BUCKETS
    }
}

const BUCKETS: usize = 64;

/// One waiting thread.
struct Waiter {
    thread: Arc<sched::Thread>,
    bitset: u32,
    /// The thread id, for the operations with an owner.
    tid: i32,
    woken: AtomicBool,
    /// The bucket it is in; a requeue moves it.
    bucket: AtomicUsize,
    /// Which of several words it belongs to (`futex_waitv`).
    index: usize,
}

impl Waiter {
    fn new(bitset: u32, tid: i32, bucket: usize, index: usize) -> Arc<Self> {
        Arc::new(Waiter {
            thread: sched::current(),
            bitset,
            tid,
            woken: AtomicBool::new(false),
            bucket: AtomicUsize::new(bucket),
            index,
        })
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

type Queue = VecDeque<(Key, Arc<Waiter>)>;

/// All waiters of the program.
pub struct FutexTable {
    buckets: [SpinLock<Queue>; BUCKETS],
}

impl Default for FutexTable {
    fn default() -> Self {
        Self::new()
    }
}

/// Matches every waker.
pub const BITSET_ANY: u32 = u32::MAX;

/// How a wait ended without a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The word had another value.
    Changed,
    /// The deadline passed.
    TimedOut,
    /// A signal came.
    Interrupted,
    /// The word could not be read.
    Fault,
}

impl FutexTable {
    /// Nobody waits.
    pub fn new() -> Self {
        FutexTable {
            buckets: [const { SpinLock::new(VecDeque::new()) }; BUCKETS],
        }
    }

    fn join(&self, key: Key, waiter: &Arc<Waiter>) {
        self.buckets[key.bucket()]
            .lock()
            .push_back((key, waiter.clone()));
    }

    /// Takes a waiter out; false when a waker already did.
    fn leave(&self, waiter: &Arc<Waiter>) -> bool {
        loop {
            let bucket = waiter.bucket.load(Ordering::SeqCst);
            let mut queue = self.buckets[bucket].lock();
            if waiter.bucket.load(Ordering::SeqCst) != bucket {
                // A requeue was quicker.
                continue;
            }
            let place = queue
                .iter()
                .position(|(_, other)| Arc::ptr_eq(other, waiter));
            let gone = place.and_then(|place| queue.remove(place));
            drop(queue);
            return gone.is_some();
        }
    }

    /// Blocks until `done`, a signal, or the deadline.
    fn block(
        &self,
        deadline_ns: Option<u64>,
        done: impl Fn() -> bool,
    ) -> core::result::Result<(), WaitError> {
        loop {
            if done() {
                return Ok(());
            }
            if sched::with_current(sched::Thread::is_interrupted) {
                return Err(WaitError::Interrupted);
            }
            if deadline_ns.is_some_and(|deadline| machine::time::now_ns() >= deadline) {
                return Err(WaitError::TimedOut);
            }
            sched::park(deadline_ns);
        }
    }

    /// Waits at `addr` while it holds `value`, for a waker with a common bit in `bitset`.
    ///
    /// # Errors
    /// Why it ended without a wake.
    pub fn wait(
        &self,
        key: Key,
        addr: usize,
        value: u32,
        bitset: u32,
        deadline_ns: Option<u64>,
    ) -> core::result::Result<(), WaitError> {
        let waiter = Waiter::new(bitset, 0, key.bucket(), 0);
        self.join(key, &waiter);
        let result = match user::load_u32(addr) {
            Ok(now) if now == value => self.block(deadline_ns, || waiter.is_woken()),
            Ok(_) => Err(WaitError::Changed),
            Err(_) => Err(WaitError::Fault),
        };
        // Who left by itself and finds itself woken took a wake: it must not be lost.
        if !self.leave(&waiter) { Ok(()) } else { result }
    }

    /// Waits on several words at once; answers the index of the one that was woken (`futex_waitv(2)`).
    ///
    /// # Errors
    /// As [`FutexTable::wait`].
    pub fn wait_many(
        &self,
        words: &[(Key, usize, u32)],
        deadline_ns: Option<u64>,
    ) -> core::result::Result<usize, WaitError> {
        let waiters: Vec<Arc<Waiter>> = words
            .iter()
            .enumerate()
            .map(|(n, (key, ..))| Waiter::new(BITSET_ANY, 0, key.bucket(), n))
            .collect();
        let mut result = Ok(());
        let mut joined = 0;
        for (waiter, (key, addr, value)) in waiters.iter().zip(words) {
            self.join(*key, waiter);
            joined += 1;
            result = match user::load_u32(*addr) {
                Ok(now) if now == *value => Ok(()),
                Ok(_) => Err(WaitError::Changed),
                Err(_) => Err(WaitError::Fault),
            };
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            result = self.block(deadline_ns, || {
                waiters.iter().any(|waiter| waiter.is_woken())
            });
        }
        let mut woken = None;
        for waiter in &waiters[..joined] {
            if !self.leave(waiter) {
                woken = woken.or(Some(waiter.index));
            }
        }
        match (woken, result) {
            (Some(index), _) => Ok(index),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(WaitError::Changed),
        }
    }

    /// Wakes up to `count` waiters of `key` with a common bit in `bitset`; answers how many.
    pub fn wake(&self, key: Key, count: usize, bitset: u32) -> usize {
        let mut queue = self.buckets[key.bucket()].lock();
        if queue.is_empty() {
            return 0;
        }
        let mut woken = 0;
        queue.retain(|(at, waiter)| {
            let take = woken < count && *at == key && waiter.bitset & bitset != 0;
            if take {
                woken += 1;
                waiter.wake();
            }
            !take
        });
        woken
    }

    /// Locks two buckets in order of their number and gives them in the order asked.
    fn with_both<R>(
        &self,
        a: Key,
        b: Key,
        act: impl FnOnce(&mut Queue, Option<&mut Queue>) -> R,
    ) -> R {
        let (x, y) = (a.bucket(), b.bucket());
        if x == y {
            return act(&mut self.buckets[x].lock(), None);
        }
        let mut low = self.buckets[x.min(y)].lock();
        let mut high = self.buckets[x.max(y)].lock();
        if x < y {
            act(&mut low, Some(&mut high))
        } else {
            act(&mut high, Some(&mut low))
        }
    }

    /// Wakes up to `wake` waiters of `from` and makes up to `requeue` others wait for `to`; answers
    /// how many were woken and how many moved.
    pub fn requeue(&self, from: Key, to: Key, wake: usize, requeue: usize) -> (usize, usize) {
        self.with_both(from, to, |source, mut target| {
            let (mut woken, mut moved) = (0, 0);
            let mut kept = VecDeque::new();
            while let Some((key, waiter)) = source.pop_front() {
                if key != from {
                    kept.push_back((key, waiter));
                } else if woken < wake {
                    woken += 1;
                    waiter.wake();
                } else if moved < requeue {
                    moved += 1;
                    waiter.bucket.store(to.bucket(), Ordering::SeqCst);
                    match &mut target {
                        Some(queue) => queue.push_back((to, waiter)),
                        None => kept.push_back((to, waiter)),
                    }
                } else {
                    kept.push_back((key, waiter));
                }
            }
            *source = kept;
            (woken, moved)
        })
    }

    /// How many wait for `key`.
    pub fn waiting(&self, key: Key) -> usize {
        self.buckets[key.bucket()]
            .lock()
            .iter()
            .filter(|(at, _)| *at == key)
            .count()
    }
}

/// The operation and comparison of `FUTEX_WAKE_OP` (`futex(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeOp {
    op: u32,
    cmp: u32,
    oparg: u32,
    cmparg: i32,
}

impl WakeOp {
    /// Decodes `val3`.
    ///
    /// # Errors
    /// `ENOSYS` for operations that do not exist, as Linux.
    pub fn decode(encoded: u32) -> Result<WakeOp> {
        let extend = |field: u32| ((field << 20) as i32) >> 20;
        let op = encoded >> 28 & 7;
        let mut oparg = extend(encoded >> 12 & 0xfff) as u32;
        if encoded >> 31 != 0 {
            oparg = 1u32.wrapping_shl(oparg & 31);
        }
        let cmp = encoded >> 24 & 15;
        if op > 4 || cmp > 5 {
            return Err(Errno::ENOSYS);
        }
        Ok(WakeOp {
            op,
            cmp,
            oparg,
            cmparg: extend(encoded & 0xfff),
        })
    }

    /// The word's new value.
    pub fn apply(&self, old: u32) -> u32 {
        match self.op {
            0 => self.oparg,
            1 => old.wrapping_add(self.oparg),
            2 => old | self.oparg,
            3 => old & !self.oparg,
            _ => old ^ self.oparg,
        }
    }

    /// Whether the old value asks to wake the second word's waiters too.
    pub fn holds(&self, old: u32) -> bool {
        let old = old as i32;
        match self.cmp {
            0 => old == self.cmparg,
            1 => old != self.cmparg,
            2 => old < self.cmparg,
            3 => old <= self.cmparg,
            4 => old > self.cmparg,
            _ => old >= self.cmparg,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
