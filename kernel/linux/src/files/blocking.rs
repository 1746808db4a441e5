//! Waiting for a file: the loop around a step that answers `EAGAIN`, and what interrupts it.

use errno::{Errno, Result};
use sched::Woken;
use sched::poll::{Events, Pollee};

/// The deadline of a timeout in nanoseconds from now.
pub fn deadline_after(timeout_ns: u64) -> u64 {
    machine::time::now_ns().saturating_add(timeout_ns)
}

/// Runs `step` until it answers something else than `EAGAIN`, waiting in between until `ready` says
/// that `events` came. Does not wait when `nonblock` is set.
///
/// # Errors
/// `EAGAIN` when it may not wait or the deadline passed, `ERESTARTSYS` when a signal came, and what
/// `step` answers.
pub fn retry<T>(
    pollee: &Pollee,
    nonblock: bool,
    deadline_ns: Option<u64>,
    ready: impl Fn() -> bool,
    mut step: impl FnMut() -> Result<T>,
) -> Result<T> {
    loop {
        match step() {
            Err(Errno::EAGAIN) if !nonblock => {}
            answer => return answer,
        }
        wait(pollee, deadline_ns, &ready)?;
    }
}

/// Waits until `ready`.
///
/// # Errors
/// `EAGAIN` when the deadline passed, `ERESTARTSYS` when a signal came.
pub fn wait(pollee: &Pollee, deadline_ns: Option<u64>, ready: impl Fn() -> bool) -> Result<()> {
    match pollee.wait(deadline_ns, || ready().then_some(())) {
        Ok(()) => Ok(()),
        Err(Woken::TimedOut) => Err(Errno::EAGAIN),
        Err(Woken::Interrupted) => Err(Errno::ERESTARTSYS),
    }
}

/// As [`retry`], for a step that moves a part at a time: goes on until `done` says that all is moved.
/// What was moved before an error counts.
///
/// # Errors
/// As [`retry`], when nothing was moved.
pub fn retry_all(
    pollee: &Pollee,
    nonblock: bool,
    deadline_ns: Option<u64>,
    ready: impl Fn() -> bool,
    mut step: impl FnMut() -> Result<(usize, bool)>,
) -> Result<usize> {
    let mut total = 0;
    loop {
        match retry(pollee, nonblock, deadline_ns, &ready, &mut step) {
            Ok((n, all_done)) => {
                total += n;
                if all_done {
                    return Ok(total);
                }
            }
            Err(_) if total > 0 => return Ok(total),
            Err(error) => return Err(error),
        }
    }
}

/// Whether `now` has any of `wanted`, or an error or hang-up, which end every wait.
pub fn any(now: Events, wanted: Events) -> bool {
    now.intersects(wanted | Events::ERR | Events::HUP)
}
