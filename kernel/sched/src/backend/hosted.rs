//! Threads of `std`, for tests on the host: the same waiting and waking, with the host's scheduler.

use std::boxed::Box;
use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::thread::{CpuSet, CpuTimes, SpawnError, SpawnOptions, State, Stats, Thread, threads};

/// Where a thread stops and what starts it again.
#[derive(Default)]
pub(crate) struct Place {
    woken: Mutex<bool>,
    changed: Condvar,
    host: OnceLock<std::thread::ThreadId>,
}

impl Place {
    pub(crate) fn affinity_changed(&self, _set: CpuSet) {}

    pub(crate) fn cpu(&self) -> usize {
        0
    }

    pub(crate) fn task(&self) -> Option<&machine::task::Task> {
        None
    }

    pub(crate) fn leave_user(&self) {}

    pub(crate) fn unpark(thread: &Arc<Thread>, _parked: bool) {
        let place = &thread.place;
        *place.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        place.changed.notify_one();
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Thread>>> = const { RefCell::new(None) };
}

pub(crate) fn current() -> Arc<Thread> {
    CURRENT.with_borrow_mut(|current| {
        current
            .get_or_insert_with(|| {
                // A thread of the test harness.
                let thread = Thread::new(SpawnOptions::named("host"), Place::default());
                let _ = thread.place.host.set(std::thread::current().id());
                thread
            })
            .clone()
    })
}

pub(crate) fn spawn(
    options: SpawnOptions,
    work: Box<dyn FnOnce() + Send + 'static>,
) -> Result<Arc<Thread>, SpawnError> {
    let thread = Thread::new(options, Place::default());
    let inner = thread.clone();
    let started = std::thread::Builder::new()
        .name(thread.name())
        .spawn(move || {
            /// Marks the thread as over even when its work panics, so that a test fails and does not hang.
            struct End(Arc<Thread>);
            impl Drop for End {
                fn drop(&mut self) {
                    self.0.end();
                }
            }
            // How much of the time it runs, the host knows.
            inner.cpu.start(machine::time::now_ns());
            let _ = inner.place.host.set(std::thread::current().id());
            CURRENT.set(Some(inner.clone()));
            let _end = End(inner);
            work();
        });
    started.map(|_| thread).map_err(|_| SpawnError::OutOfMemory)
}

pub(crate) fn exit() -> ! {
    current().end();
    loop {
        std::thread::park();
    }
}

/// Stops the current thread until [`Thread::unpark`] or `deadline_ns`; may also return for no reason.
pub fn park(deadline_ns: Option<u64>) {
    let thread = current();
    thread
        .token
        .store(false, std::sync::atomic::Ordering::SeqCst);
    let mut woken = thread
        .place
        .woken
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    while !*woken {
        match deadline_ns {
            None => {
                woken = thread
                    .place
                    .changed
                    .wait(woken)
                    .unwrap_or_else(PoisonError::into_inner)
            }
            Some(deadline) => {
                let left = deadline.saturating_sub(machine::time::now_ns());
                if left == 0 {
                    break;
                }
                let wait = thread
                    .place
                    .changed
                    .wait_timeout(woken, Duration::from_nanos(left));
                woken = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
    *woken = false;
}

/// Lets others run first.
pub fn yield_now() {
    std::thread::yield_now();
}

/// Lets others run first: a thread of the host is preempted anyway.
pub fn cond_resched() {}

/// Gives up the CPU when another thread is due.
pub fn preempt_point() {}

/// Runs `work` and counts its time as the program's.
pub fn in_user<R>(me: &Thread, work: impl FnOnce() -> R) -> R {
    me.user.start(machine::time::now_ns());
    let result = work();
    me.user.stop(machine::time::now_ns());
    result
}

/// Nothing is known of the host's CPUs.
pub fn cpu_times(_cpu: usize) -> CpuTimes {
    CpuTimes::default()
}

/// How busy the machine is.
pub fn stats() -> Stats {
    let runnable = threads()
        .iter()
        .filter(|thread| thread.state() == State::Runnable)
        .count();
    Stats {
        runnable,
        ..Stats::default()
    }
}

/// On the host nothing can be sampled: answers false.
pub fn start_sampling(_period_ns: u64, _take: fn(Option<u64>)) -> bool {
    false
}

/// Ends nothing.
pub fn stop_sampling() {}
