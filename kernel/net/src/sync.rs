//! The locks of this room, named once. None of them is taken from an interrupt handler.

pub(crate) use machine::cpu::id as cpu_id;
pub(crate) use machine::sync::{RwSpinLock, SpinLock};
/// Held across copies to and from the program, which may sleep.
pub(crate) use sched::Mutex as SleepLock;
