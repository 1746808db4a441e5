//! The lock that spins until it is free, with two policies about interrupts.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use super::note_held;
use crate::arch;

/// What a lock does with this CPU's interrupts while it is held. There are two: [`IrqsAsTheyAre`] and [`IrqsOff`].
pub trait Interrupts: sealed::Sealed {
    /// What has to be put back when the lock is let go.
    type Saved;
    /// Called before the lock is tried.
    fn enter() -> Self::Saved;
    /// Called after it was let go, or could not be taken.
    fn leave(saved: &Self::Saved);
}

mod sealed {
    pub trait Sealed {}
}

/// Interrupts stay as they are: for data that no interrupt handler touches.
#[derive(Debug)]
pub enum IrqsAsTheyAre {}

impl sealed::Sealed for IrqsAsTheyAre {}

impl Interrupts for IrqsAsTheyAre {
    type Saved = ();
    #[inline]
    fn enter() {}
    #[inline]
    fn leave((): &()) {}
}

/// Interrupts are off on this CPU while the lock is held: for data shared with interrupt handlers.
#[derive(Debug)]
pub enum IrqsOff {}

impl sealed::Sealed for IrqsOff {}

/// Whether interrupts were on. The flag belongs to this CPU, so it stays here.
#[derive(Debug)]
pub struct WereOn(bool, PhantomData<*const ()>);

impl Interrupts for IrqsOff {
    type Saved = WereOn;
    #[inline]
    fn enter() -> WereOn {
        WereOn(arch::irq_disable(), PhantomData)
    }
    #[inline]
    fn leave(saved: &WereOn) {
        arch::irq_restore(saved.0);
    }
}

/// Mutual exclusion by spinning, for data that no interrupt handler touches.
pub type SpinLock<T> = Lock<T, IrqsAsTheyAre>;
/// Mutual exclusion by spinning with this CPU's interrupts off: for data shared with interrupt handlers.
pub type IrqLock<T> = Lock<T, IrqsOff>;
/// Holds a [`SpinLock`]; releases it when dropped.
pub type SpinGuard<'a, T> = Guard<'a, T, IrqsAsTheyAre>;
/// Holds an [`IrqLock`]; releases it and restores the interrupt flag when dropped.
pub type IrqGuard<'a, T> = Guard<'a, T, IrqsOff>;

/// Mutual exclusion by spinning; `I` says what happens to interrupts meanwhile.
pub struct Lock<T: ?Sized, I: Interrupts> {
    interrupts: PhantomData<fn() -> I>,
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out access to `value` to one holder at a time.
unsafe impl<T: ?Sized + Send, I: Interrupts> Send for Lock<T, I> {}
// SAFETY: as above; sharing the lock shares only the right to ask for exclusive access.
unsafe impl<T: ?Sized + Send, I: Interrupts> Sync for Lock<T, I> {}

impl<T, I: Interrupts> Lock<T, I> {
    /// A new, unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            interrupts: PhantomData,
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized, I: Interrupts> Lock<T, I> {
    /// Spins until the lock is free and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T, I> {
        let saved = I::enter();
        while self
            .taken
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            while self.taken.load(Ordering::Relaxed) {
                arch::relax();
            }
        }
        note_held(1);
        Guard { lock: self, saved }
    }

    /// Takes the lock if it is free now; interrupts stay as they were if it is not.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T, I>> {
        let saved = I::enter();
        let free = self
            .taken
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        if free.is_err() {
            I::leave(&saved);
            return None;
        }
        note_held(1);
        Some(Guard { lock: self, saved })
    }

    /// Access without locking, proven exclusive by the borrow.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default, I: Interrupts> Default for Lock<T, I> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized, I: Interrupts> fmt::Debug for Lock<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// Holds a [`Lock`]; lets it go when dropped.
pub struct Guard<'a, T: ?Sized, I: Interrupts> {
    lock: &'a Lock<T, I>,
    saved: I::Saved,
}

// SAFETY: sharing a guard shares `&T` only.
unsafe impl<T: ?Sized + Sync, I: Interrupts> Sync for Guard<'_, T, I> where I::Saved: Sync {}

impl<T: ?Sized, I: Interrupts> Deref for Guard<'_, T, I> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, I: Interrupts> DerefMut for Guard<'_, T, I> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists only while the lock is held, and is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized, I: Interrupts> Drop for Guard<'_, T, I> {
    #[inline]
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Release);
        note_held(-1);
        I::leave(&self.saved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn spin_lock_excludes() {
        let lock = Arc::new(SpinLock::new(0u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let lock = lock.clone();
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        *lock.lock() += 1;
                    }
                })
            })
            .collect();
        for t in threads {
            t.join().unwrap();
        }
        assert_eq!(*lock.lock(), 40_000);
    }
}
