//! One client's work at a time.
//!
//! Each client has a thread, and many threads of the lowest priority are together as strong as one of a high one: so what
//! costs CPU time (answering, looking at what is watched, ciphers) is done in turns, and all clients together get from
//! a busy program what one thread gets.

use sched::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::new(());

/// Waits for the turn, which lasts until the guard is dropped. Nothing that waits for a client may be done in it.
pub fn take() -> MutexGuard<'static, ()> {
    TURN.lock()
}
