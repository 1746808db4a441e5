//! Futexes with an owner: the word holds the owner's thread id, and the kernel hands it over
//! (`FUTEX_LOCK_PI` and its kin).
//!
//! Threads here have no real-time priorities, so nothing is inherited; the hand-over is in order of
//! arrival. Requeueing to such a futex (`FUTEX_CMP_REQUEUE_PI`) is not provided.
use alloc::sync::Arc;

use errno::{Errno, Result};
use machine::user;

use super::{BITSET_ANY, FutexTable, Key, WaitError, Waiter};

/// Somebody waits: the owner must ask the kernel to unlock.
pub const WAITERS: u32 = 0x8000_0000;
/// The owner ended without unlocking.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// The owner's thread id.
pub const TID_MASK: u32 = 0x3fff_ffff;

fn load(addr: usize) -> Result<u32> {
    user::load_u32(addr).map_err(|_| Errno::EFAULT)
}

fn exchange(addr: usize, old: u32, new: u32) -> Result<bool> {
    user::cmpxchg_u32(addr, old, new)
        .map(|swap| swap.is_ok())
        .map_err(|_| Errno::EFAULT)
}

impl FutexTable {
    /// Takes the lock at `addr` for thread `tid`, waiting for it unless `try_only`.
    ///
    /// # Errors
    /// `EDEADLK` for one's own lock, `ESRCH` for an owner that does not exist, `EAGAIN` from a try,
    /// `ETIMEDOUT`, `ERESTARTNOINTR`, `EFAULT`.
    pub fn lock_pi(
        &self,
        key: Key,
        addr: usize,
        tid: i32,
        try_only: bool,
        deadline_ns: Option<u64>,
        is_alive: impl Fn(i32) -> bool,
    ) -> Result<()> {
        let me = tid as u32;
        loop {
            let word = load(addr)?;
            let owner = word & TID_MASK;
            if owner == me {
                return Err(Errno::EDEADLK);
            }
            if owner == 0 {
                // Free, or left by a thread that ended: that mark stays for the program to see.
                let waiters = if self.waiting(key) > 0 { WAITERS } else { 0 };
                if exchange(addr, word, me | word & OWNER_DIED | waiters)? {
                    return Ok(());
                }
                continue;
            }
            if try_only {
                return Err(Errno::EAGAIN);
            }
            if !is_alive(owner as i32) {
                return Err(Errno::ESRCH);
            }
            let waiter = Waiter::new(BITSET_ANY, tid, key.bucket(), 0);
            self.join(key, &waiter);
            if word & WAITERS == 0 && !exchange(addr, word, word | WAITERS)?
                || load(addr)? != word | WAITERS
            {
                // The word changed before the mark was in it: nobody will hand it over.
                if self.leave(&waiter) {
                    continue;
                }
            }
            let waited = self.block(deadline_ns, || waiter.is_woken());
            if !self.leave(&waiter) {
                // The one who unlocked wrote this thread's id into the word.
                if load(addr)? & TID_MASK == me {
                    return Ok(());
                }
                continue;
            }
            match waited {
                Err(WaitError::TimedOut) => return Err(Errno::ETIMEDOUT),
                Err(WaitError::Interrupted) => return Err(Errno::ERESTARTNOINTR),
                _ => {}
            }
        }
    }

    /// Hands the lock at `addr`, which thread `tid` owns, to the next waiter.
    ///
    /// # Errors
    /// `EPERM` for someone else's lock, `EFAULT`.
    pub fn unlock_pi(&self, key: Key, addr: usize, tid: i32) -> Result<()> {
        if load(addr)? & TID_MASK != tid as u32 {
            return Err(Errno::EPERM);
        }
        self.hand_over(key, addr, 0)
    }

    /// Gives the word to the first waiter, with `marks` set in it, or frees it.
    pub(super) fn hand_over(&self, key: Key, addr: usize, marks: u32) -> Result<()> {
        loop {
            let old = load(addr)?;
            let next: Option<(Arc<Waiter>, bool)> = {
                let queue = self.buckets[key.bucket()].lock();
                let mut all = queue.iter().filter(|(at, _)| *at == key);
                let first = all.next().map(|(_, waiter)| waiter.clone());
                first.map(|first| (first, all.next().is_some()))
            };
            let Some((waiter, more)) = next else {
                if exchange(addr, old, marks)? {
                    return Ok(());
                }
                continue;
            };
            let new = waiter.tid as u32 | marks | if more { WAITERS } else { 0 };
            if !exchange(addr, old, new)? {
                continue;
            }
            // If it gave up meanwhile, the word names a thread that does not know: take it back.
            if self.leave(&waiter) {
                waiter.wake();
                return Ok(());
            }
            let _ = exchange(addr, new, old)?;
        }
    }
}
