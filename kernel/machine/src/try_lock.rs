//! Locks that can be tried but not waited for: what `sched` builds its sleeping locks from.
//!
//! They say nothing of interrupts or preemption, and a holder may block.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A value that one holder at a time may use.
pub struct TryLock<T: ?Sized> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through the guard only, of which there is at most one; it moves between threads.
unsafe impl<T: ?Sized + Send> Sync for TryLock<T> {}
// SAFETY: owning the lock is owning the value.
unsafe impl<T: ?Sized + Send> Send for TryLock<T> {}

impl<T> TryLock<T> {
    /// An unlocked value.
    pub const fn new(value: T) -> Self {
        TryLock {
            locked: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, since nobody else can have it.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> TryLock<T> {
    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<TryGuard<'_, T>> {
        let taken = self
            .locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| TryGuard { lock: self })
    }

    /// The value, without locking, since the borrow shows that nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// The lock, held; let go when dropped.
pub struct TryGuard<'a, T: ?Sized> {
    lock: &'a TryLock<T>,
}

// SAFETY: sharing a guard shares `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for TryGuard<'_, T> {}

impl<T: ?Sized> Deref for TryGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard is the only way to the value while it lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for TryGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only way to the value while it lives, and it is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for TryGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
    }
}

/// All bits of the count: one writer.
const WRITER: usize = usize::MAX;

/// A value that many may read or one may write.
pub struct TryRwLock<T: ?Sized> {
    /// How many read, or [`WRITER`].
    count: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: readers share `&T`, a writer is alone; the value moves between threads.
unsafe impl<T: ?Sized + Send + Sync> Sync for TryRwLock<T> {}
// SAFETY: owning the lock is owning the value.
unsafe impl<T: ?Sized + Send> Send for TryRwLock<T> {}

impl<T> TryRwLock<T> {
    /// An unlocked value.
    pub const fn new(value: T) -> Self {
        TryRwLock {
            count: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized> TryRwLock<T> {
    /// Reads if nobody writes.
    #[inline]
    pub fn try_read(&self) -> Option<TryReadGuard<'_, T>> {
        let more = |count: usize| {
            if count >= WRITER - 1 {
                None
            } else {
                Some(count + 1)
            }
        };
        self.count
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more)
            .ok()
            .map(|_| TryReadGuard { lock: self })
    }

    /// Writes if nobody reads or writes.
    #[inline]
    pub fn try_write(&self) -> Option<TryWriteGuard<'_, T>> {
        let taken = self
            .count
            .compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| TryWriteGuard { lock: self })
    }

    /// The value, without locking, since the borrow shows that nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// The lock, held for reading.
pub struct TryReadGuard<'a, T: ?Sized> {
    lock: &'a TryRwLock<T>,
}

impl<T: ?Sized> Deref for TryReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the count keeps writers out while the guard lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for TryReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.count.fetch_sub(1, Ordering::Release);
    }
}

/// The lock, held for writing.
pub struct TryWriteGuard<'a, T: ?Sized> {
    lock: &'a TryRwLock<T>,
}

// SAFETY: sharing a guard shares `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for TryWriteGuard<'_, T> {}

impl<T: ?Sized> Deref for TryWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the count keeps everybody else out while the guard lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for TryWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the count keeps everybody else out, and the guard is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for TryWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.count.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::{TryLock, TryRwLock};

    #[test]
    fn one_holder_at_a_time() {
        let lock = TryLock::new(1);
        let guard = lock.try_lock();
        assert!(guard.is_some() && lock.try_lock().is_none());
        drop(guard);
        *lock.try_lock().unwrap() += 1;
        assert_eq!(lock.into_inner(), 2);
    }

    #[test]
    fn many_readers_or_one_writer() {
        let lock = TryRwLock::new(1);
        let (first, second) = (lock.try_read(), lock.try_read());
        assert!(first.is_some() && second.is_some() && lock.try_write().is_none());
        drop((first, second));
        let writer = lock.try_write();
        assert!(writer.is_some() && lock.try_read().is_none() && lock.try_write().is_none());
        drop(writer);
        assert!(lock.try_read().is_some());
    }
}
