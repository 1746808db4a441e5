//! Locks whose holder may sleep: [`Mutex`] and [`RwLock`].

use core::fmt;
use core::ops::{Deref, DerefMut};
use machine::try_lock::{TryGuard, TryLock, TryReadGuard, TryRwLock, TryWriteGuard};

use crate::wait::WaitQueue;

/// Mutual exclusion for longer sections: a thread that finds it taken sleeps. Its holder may block and may touch the
/// program's memory. Not for interrupt handlers.
pub struct Mutex<T: ?Sized> {
    waiters: WaitQueue,
    value: TryLock<T>,
}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    pub const fn new(value: T) -> Self {
        Mutex {
            waiters: WaitQueue::new(),
            value: TryLock::new(value),
        }
    }

    /// The value, since nobody else can have it.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = match self.value.try_lock() {
            Some(guard) => guard,
            None => self.waiters.wait(|| self.value.try_lock()),
        };
        MutexGuard {
            guard: Some(guard),
            waiters: &self.waiters,
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = self.value.try_lock()?;
        Some(MutexGuard {
            guard: Some(guard),
            waiters: &self.waiters,
        })
    }

    /// The value, without locking, since the borrow shows that nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(guard) => write!(f, "Mutex({:?})", &*guard),
            None => f.write_str("Mutex(locked)"),
        }
    }
}

/// The lock, held; let go when dropped.
pub struct MutexGuard<'a, T: ?Sized> {
    /// Empty only while it is being dropped.
    guard: Option<TryGuard<'a, T>>,
    waiters: &'a WaitQueue,
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        self.waiters.wake_one();
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // The guard is there until the drop.
        self.guard.as_ref().expect("held")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // The guard is there until the drop.
        self.guard.as_mut().expect("held")
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Many readers or one writer; whoever finds it taken sleeps. A waiting writer keeps new readers out, so it is not
/// starved; a reader must therefore not take it twice.
pub struct RwLock<T: ?Sized> {
    waiters: WaitQueue,
    writers: core::sync::atomic::AtomicUsize,
    value: TryRwLock<T>,
}

impl<T> RwLock<T> {
    /// An unlocked lock.
    pub const fn new(value: T) -> Self {
        RwLock {
            waiters: WaitQueue::new(),
            writers: core::sync::atomic::AtomicUsize::new(0),
            value: TryRwLock::new(value),
        }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes, and reads.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let guard = match self.try_read_guard() {
            Some(guard) => guard,
            None => self.waiters.wait(|| self.try_read_guard()),
        };
        RwLockReadGuard {
            guard: Some(guard),
            waiters: &self.waiters,
        }
    }

    /// Reads if nobody writes or waits to.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let guard = self.try_read_guard()?;
        Some(RwLockReadGuard {
            guard: Some(guard),
            waiters: &self.waiters,
        })
    }

    fn try_read_guard(&self) -> Option<TryReadGuard<'_, T>> {
        if self.writers.load(core::sync::atomic::Ordering::SeqCst) > 0 {
            return None;
        }
        self.value.try_read()
    }

    /// Waits until it is alone, and writes.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let guard = match self.value.try_write() {
            Some(guard) => guard,
            None => {
                self.writers
                    .fetch_add(1, core::sync::atomic::Ordering::SeqCst);
                let guard = self.waiters.wait(|| self.value.try_write());
                self.writers
                    .fetch_sub(1, core::sync::atomic::Ordering::SeqCst);
                guard
            }
        };
        RwLockWriteGuard {
            guard: Some(guard),
            waiters: &self.waiters,
        }
    }

    /// Writes if it is alone.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let guard = self.value.try_write()?;
        Some(RwLockWriteGuard {
            guard: Some(guard),
            waiters: &self.waiters,
        })
    }

    /// The value, without locking, since the borrow shows that nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        RwLock::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(guard) => write!(f, "RwLock({:?})", &*guard),
            None => f.write_str("RwLock(locked)"),
        }
    }
}

/// The lock, held for reading.
pub struct RwLockReadGuard<'a, T: ?Sized> {
    guard: Option<TryReadGuard<'a, T>>,
    waiters: &'a WaitQueue,
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // The guard is there until the drop.
        self.guard.as_ref().expect("held")
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        self.waiters.wake_all();
    }
}

/// The lock, held for writing.
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    guard: Option<TryWriteGuard<'a, T>>,
    waiters: &'a WaitQueue,
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // The guard is there until the drop.
        self.guard.as_ref().expect("held")
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // The guard is there until the drop.
        self.guard.as_mut().expect("held")
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        self.waiters.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{Mutex, RwLock};
    use crate::thread::{SpawnOptions, spawn};
    use std::sync::Arc;

    #[test]
    fn a_mutex_excludes() {
        let total = Arc::new(Mutex::new(0_u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let total = total.clone();
                spawn(SpawnOptions::named("adder"), move || {
                    for _ in 0..5000 {
                        let mut total = total.lock();
                        let seen = *total;
                        if seen.is_multiple_of(64) {
                            crate::yield_now();
                        }
                        *total = seen + 1;
                    }
                })
                .unwrap()
            })
            .collect();
        threads.iter().for_each(|thread| thread.join());
        assert_eq!(*total.lock(), 20_000);
        assert!(total.try_lock().is_some());
    }

    #[test]
    fn readers_share_and_a_writer_does_not() {
        let pair = Arc::new(RwLock::new((0_u64, 0_u64)));
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let pair = pair.clone();
                spawn(SpawnOptions::named("either"), move || {
                    for _ in 0..2000 {
                        if n == 0 {
                            let mut pair = pair.write();
                            pair.0 += 1;
                            crate::yield_now();
                            pair.1 += 1;
                        } else {
                            let pair = pair.read();
                            assert_eq!(pair.0, pair.1);
                        }
                    }
                })
                .unwrap()
            })
            .collect();
        threads.iter().for_each(|thread| thread.join());
        let first = pair.read();
        assert!(pair.try_read().is_some() && pair.try_write().is_none());
        assert_eq!(*first, (2000, 2000));
    }
}
