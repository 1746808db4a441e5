//! Many readers or one writer, by spinning.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use super::note_held;
use crate::arch;

const WRITER: u32 = 1 << 31;

/// Many readers or one writer, by spinning. Not for interrupt handlers. A waiting writer holds back new readers.
pub struct RwSpinLock<T: ?Sized> {
    /// Number of readers, or [`WRITER`].
    state: AtomicU32,
    waiting_writers: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: readers share `&T`, a writer has it alone.
unsafe impl<T: ?Sized + Send> Send for RwSpinLock<T> {}
// SAFETY: as above; `T: Sync` because readers on several CPUs share `&T`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwSpinLock<T> {}

impl<T> RwSpinLock<T> {
    /// A new, unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            state: AtomicU32::new(0),
            waiting_writers: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized> RwSpinLock<T> {
    /// Spins until no writer holds or awaits the lock, and takes it shared. Not reentrant.
    #[inline]
    pub fn read(&self) -> RwReadGuard<'_, T> {
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if state & WRITER == 0
                && self.waiting_writers.load(Ordering::Relaxed) == 0
                && self
                    .state
                    .compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                note_held(1);
                return RwReadGuard { lock: self };
            }
            arch::relax();
        }
    }

    /// Spins until nobody holds the lock, and takes it alone.
    #[inline]
    pub fn write(&self) -> RwWriteGuard<'_, T> {
        self.waiting_writers.fetch_add(1, Ordering::Relaxed);
        while self
            .state
            .compare_exchange_weak(0, WRITER, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            arch::relax();
        }
        self.waiting_writers.fetch_sub(1, Ordering::Relaxed);
        note_held(1);
        RwWriteGuard { lock: self }
    }
}

impl<T: Default> Default for RwSpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// Holds a [`RwSpinLock`] shared.
pub struct RwReadGuard<'a, T: ?Sized> {
    lock: &'a RwSpinLock<T>,
}

impl<T: ?Sized> Deref for RwReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: no writer exists while a read guard does.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.state.fetch_sub(1, Ordering::Release);
        note_held(-1);
    }
}

/// Holds a [`RwSpinLock`] alone.
pub struct RwWriteGuard<'a, T: ?Sized> {
    lock: &'a RwSpinLock<T>,
}

impl<T: ?Sized> Deref for RwWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the writer has the value alone.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the writer has the value alone.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.state.store(0, Ordering::Release);
        note_held(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_and_writers() {
        let lock = RwSpinLock::new(1);
        {
            let a = lock.read();
            let b = lock.read();
            assert_eq!(*a + *b, 2);
        }
        *lock.write() = 5;
        assert_eq!(*lock.read(), 5);
    }
}
