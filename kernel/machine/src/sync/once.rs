//! Things that are made once.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::arch;

const EMPTY: u8 = 0;
const RUNNING: u8 = 1;
const READY: u8 = 2;

/// A cell that is written once, by whoever comes first; others spin while it is being written.
pub struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by one caller and only shared afterwards.
unsafe impl<T: Send> Send for Once<T> {}
// SAFETY: as above; readers on several CPUs share `&T`.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Self {
            state: AtomicU8::new(EMPTY),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// The value, if it has been set.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) == READY {
            // SAFETY: READY is stored after the value was written, and the value is never written again.
            Some(unsafe { (*self.value.get()).assume_init_ref() })
        } else {
            None
        }
    }

    /// The value, set from `make` if the cell is empty. If another CPU is making it, waits for that.
    pub fn call_once(&self, make: impl FnOnce() -> T) -> &T {
        let mut make = Some(make);
        loop {
            if let Some(value) = self.get() {
                return value;
            }
            if self
                .state
                .compare_exchange(EMPTY, RUNNING, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
            {
                if let Some(make) = make.take() {
                    let value = make();
                    // SAFETY: RUNNING makes this caller the only one to touch the cell until READY.
                    unsafe { (*self.value.get()).write(value) };
                    self.state.store(READY, Ordering::Release);
                }
            } else {
                arch::relax();
            }
        }
    }

    /// Sets the value; gives it back if the cell was set already.
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.call_once(|| value.take().expect("the closure runs at most once"));
        match value {
            None => Ok(()),
            Some(value) => Err(value),
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if *self.state.get_mut() == READY {
            // SAFETY: READY means initialised; `&mut self` means nobody else looks.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

/// A value made at first use.
pub struct Lazy<T, F = fn() -> T> {
    once: Once<T>,
    make: F,
}

impl<T, F: Fn() -> T> Lazy<T, F> {
    /// A value to be made by `make` when first looked at.
    pub const fn new(make: F) -> Self {
        Self {
            once: Once::new(),
            make,
        }
    }
}

impl<T, F: Fn() -> T> Deref for Lazy<T, F> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.once.call_once(&self.make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_is_made_once() {
        static ONCE: Once<u32> = Once::new();
        assert!(ONCE.get().is_none());
        assert_eq!(*ONCE.call_once(|| 7), 7);
        assert_eq!(*ONCE.call_once(|| 8), 7);
        assert_eq!(ONCE.set(9), Err(9));
    }
}
