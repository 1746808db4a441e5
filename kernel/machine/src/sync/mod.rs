//! Locks that spin, and things initialised once. Locks that sleep live in `sched`.
//!
//! Which lock: [`SpinLock`] for data that interrupt handlers never touch; [`IrqLock`] for data they do (it keeps
//! interrupts off while held). Never block and never touch user memory while holding either.

mod once;
mod rw;
mod seq;
mod spin;

pub use once::{Lazy, Once};
pub use rw::{RwReadGuard, RwSpinLock, RwWriteGuard};
pub use seq::SeqLock;
pub use spin::{
    Guard, Interrupts, IrqGuard, IrqLock, IrqsAsTheyAre, IrqsOff, Lock, SpinGuard, SpinLock,
};

#[cfg(debug_assertions)]
use core::sync::atomic::Ordering;

/// Panics in debug builds when the caller holds a spinning lock: call before blocking.
#[inline]
#[track_caller]
pub fn assert_may_block() {
    #[cfg(debug_assertions)]
    {
        let held = crate::arch::held_locks().load(Ordering::Relaxed);
        assert!(held == 0, "blocking with {held} spin lock(s) held");
    }
}

#[inline]
fn note_held(_delta: i32) {
    #[cfg(debug_assertions)]
    crate::arch::held_locks().fetch_add(_delta, Ordering::Relaxed);
}
