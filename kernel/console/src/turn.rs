//! One client's work at a time, and then a rest.
//!
//! Each client has a thread, and many threads of the lowest priority are together as strong as one of a high one; nor does
//! anything preempt the kernel. So what costs CPU time (answering, looking at what is watched, ciphers) is done in turns,
//! and all clients together have an allowance: a tenth of a CPU, of which some may be used ahead.

use sched::{Mutex, MutexGuard, Thread};

/// For each nanosecond of work nobody works for so many.
const REST: u64 = 9;
/// Work that takes longer counts as so long: few requests do, and who makes one is not to wait for seconds.
const MOST_NS: u64 = 20_000_000;
/// How much rest may be owed before work is put off.
const AHEAD_NS: u64 = 1_000_000_000;

/// Until when everyone would rest if nothing were used ahead.
static TURN: Mutex<u64> = Mutex::new(0);

/// Held by the one watcher that waits for the turn, or has it.
static WATCHERS: Mutex<()> = Mutex::new(());

/// A turn, which lasts until it is dropped.
pub struct Turn {
    // Dropped in this order.
    rest_until_ns: MutexGuard<'static, u64>,
    /// The thread's CPU time at the beginning; `None` if this is not counted.
    used_ns: Option<u64>,
    _watcher: Option<MutexGuard<'static, ()>>,
}

/// Waits for the turn. Nothing that waits for a client may be done in it.
pub fn take() -> Turn {
    take_for(None)
}

/// Waits for the turn of one who watches: however many do, a request waits for one of them only.
pub fn take_to_watch() -> Turn {
    take_for(Some(WATCHERS.lock()))
}

fn take_for(watcher: Option<MutexGuard<'static, ()>>) -> Turn {
    let rest_until_ns = TURN.lock();
    let due = rest_until_ns.saturating_sub(AHEAD_NS);
    if due > machine::time::now_ns() {
        // All the others have to wait as well.
        let _ = sched::sleep_until_ns(due);
    }
    Turn {
        rest_until_ns,
        used_ns: Some(sched::with_current(Thread::cpu_ns)),
        _watcher: watcher,
    }
}

/// Waits for a turn that needs no rest: for what a client waits for who was let in and is served already.
pub fn take_uncounted() -> Turn {
    Turn {
        rest_until_ns: TURN.lock(),
        used_ns: None,
        _watcher: None,
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(before) = self.used_ns else {
            return;
        };
        // Of the CPU: while it makes way for the program, work costs nothing.
        let used = sched::with_current(Thread::cpu_ns).saturating_sub(before);
        let now = machine::time::now_ns();
        *self.rest_until_ns = (*self.rest_until_ns).max(now) + used.min(MOST_NS) * REST;
    }
}
