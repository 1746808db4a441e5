//! Threads and waiting: run queues, wait queues, timers, readiness, and the locks that sleep.
//!
//! Kernel code is not preempted: it gives up the CPU only where it blocks, and everything that blocks does so
//! through [`WaitQueue`] (or [`park`] below it). Code of the program is preempted when the timer says so and another
//! thread waits for the CPU: the loop around `UserContext::run` calls [`preempt_point`] after each trap.
//!
//! What a thread does is not known here; neither are processes, signals or descriptors. On the host, threads are
//! those of `std`, so that the rooms above can be tested as ordinary programs: see `backend/hosted.rs`.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod backend;
pub mod idle;
mod lock;
pub mod poll;
#[cfg(any(target_os = "none", test))]
mod run_queue;
mod stopwatch;
mod thread;
pub mod timer;
mod wait;

pub use backend::{
    cond_resched, cpu_times, in_user, park, preempt_point, start_sampling, stats, stop_sampling,
    yield_now,
};
#[cfg(target_os = "none")]
pub use backend::{init, start_cpu};
pub use lock::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use poll::{Events, Observer, Pollee, Registration};
pub use thread::{
    CpuSet, CpuTimes, SpawnError, SpawnOptions, State, Stats, Thread, current, exit, find, spawn,
    threads, with_current,
};
pub use timer::Timer;
pub use wait::{WaitQueue, Woken};

/// Sleeps until `deadline_ns` on the monotonic clock, or until the thread is interrupted.
///
/// # Errors
/// [`Woken::Interrupted`] when that came first.
pub fn sleep_until_ns(deadline_ns: u64) -> Result<(), Woken> {
    let nobody = WaitQueue::new();
    match nobody.wait_interruptible(Some(deadline_ns), || None::<()>) {
        Err(Woken::Interrupted) => Err(Woken::Interrupted),
        _ => Ok(()),
    }
}
