//! Making signals: who gets one, who is woken for it.
//!
//! Everything here takes spin locks and wakes threads: not for interrupt handlers.
use alloc::sync::Arc;

use errno::{Errno, Result};
use sched::poll::Events;

use super::state::{SIG_DFL, SIG_IGN, SigAction};
use super::{
    DefaultAction, NSIG, SIGCONT, SIGKILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SigInfo, SigSet,
    default_action,
};
use crate::process::Process;
use crate::thread::LinuxThread;

const STOPS: SigSet = SigSet(
    SigSet::of(SIGSTOP).0 | SigSet::of(SIGTSTP).0 | SigSet::of(SIGTTIN).0 | SigSet::of(SIGTTOU).0,
);

/// Whether a signal with that disposition does nothing at all.
pub fn is_ignored(action: &SigAction, signal: i32) -> bool {
    action.handler == SIG_IGN
        || action.handler == SIG_DFL
            && matches!(
                default_action(signal),
                DefaultAction::Ignore | DefaultAction::Continue
            )
}

/// Forgets pending signals of `set`, the process's and every thread's.
pub fn discard_everywhere(process: &Process, set: SigSet) {
    process.signals.shared.lock().discard(set);
    for thread in process.threads() {
        thread.signals.queue.lock().discard(set);
    }
}

/// Checks a signal number that a program gave; 0 asks only whether the target exists.
///
/// # Errors
/// `EINVAL`.
pub fn check_number(signal: i32) -> Result<()> {
    if (0..=NSIG).contains(&signal) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// What pending signals a new one undoes: continuing undoes stops, and the other way round.
fn undo_opposites(process: &Process, signal: i32) {
    let opposite = if signal == SIGCONT {
        STOPS
    } else if STOPS.contains(signal) {
        SigSet::of(SIGCONT)
    } else {
        return;
    };
    process.signals.shared.lock().discard(opposite);
    for thread in process.threads() {
        thread.signals.queue.lock().discard(opposite);
    }
}

/// Sends a signal to the process as a whole: any thread that does not block it takes it.
///
/// # Errors
/// `EAGAIN` when a real-time signal finds the queue full.
pub fn to_process(process: &Process, info: SigInfo) -> Result<()> {
    let signal = info.signo;
    undo_opposites(process, signal);
    let threads = process.threads();
    let takes = |thread: &Arc<LinuxThread>| {
        !thread.signals.mask().contains(signal) || thread.signals.waiting_for().contains(signal)
    };
    let all_block = !threads.iter().any(takes);
    if is_ignored(&process.signals.action(signal), signal)
        && !all_block
        && !threads
            .iter()
            .any(|thread| thread.signals.waiting_for().contains(signal))
    {
        return Ok(());
    }
    process.signals.shared.lock().push(info)?;
    process.signals.pollee.notify(Events::IN);
    // The waiting thread first, then the main thread, then the others.
    let chosen = threads
        .iter()
        .find(|thread| thread.signals.waiting_for().contains(signal))
        .or_else(|| threads.iter().find(|thread| takes(thread)));
    if let Some(thread) = chosen {
        thread.kick();
    }
    Ok(())
}

/// Sends a signal to one thread.
///
/// # Errors
/// `EAGAIN` when a real-time signal finds the queue full.
pub fn to_thread(process: &Process, thread: &LinuxThread, info: SigInfo) -> Result<()> {
    let signal = info.signo;
    undo_opposites(process, signal);
    let waited = thread.signals.waiting_for().contains(signal);
    let blocked = thread.signals.mask().contains(signal);
    if is_ignored(&process.signals.action(signal), signal) && !blocked && !waited {
        return Ok(());
    }
    thread.signals.queue.lock().push(info)?;
    process.signals.pollee.notify(Events::IN);
    if !blocked || waited || signal == SIGKILL {
        thread.kick();
    }
    Ok(())
}

/// Sends a signal that the calling thread cannot escape, for a fault of its own: one that is
/// blocked or ignored gets its default action (`force_sig(9)` of Linux).
pub fn force(process: &Process, thread: &LinuxThread, info: SigInfo) {
    let signal = info.signo;
    let mut action = process.signals.action(signal);
    let blocked = thread.signals.mask().contains(signal);
    if blocked || action.handler == SIG_IGN {
        action.handler = SIG_DFL;
        process.signals.set_action(signal, action);
        thread
            .signals
            .set_mask(thread.signals.mask().difference(SigSet::of(signal)));
    }
    let mut queue = thread.signals.queue.lock();
    thread.signals.want_look();
    // A fault is delivered now or never: an older one of that number gives way.
    queue.discard(SigSet::of(signal));
    if queue.push(info).is_err() {
        drop(queue);
        super::fatal::end_by_signal(process, signal);
    }
}

/// The calling thread has just blocked `blocked`: of these, what is pending for the process goes to
/// threads that do not block it (`retarget_shared_pending` of Linux).
pub fn retarget(process: &Process, me: &LinuxThread, blocked: SigSet) {
    if blocked.is_empty() {
        return;
    }
    let pending = process.signals.pending().intersection(blocked);
    if pending.is_empty() {
        return;
    }
    for thread in process.threads() {
        if thread.tid != me.tid && !pending.difference(thread.signals.mask()).is_empty() {
            thread.kick();
        }
    }
}

/// Asks the program to end, as when the machine is told to power down. Answers whether it will
/// notice: a program that ignores `SIGTERM` will not.
pub fn terminate() -> bool {
    let Some(process) = crate::process::get() else {
        return false;
    };
    process.signals.action(super::SIGTERM).handler != SIG_IGN
        && to_process(process, SigInfo::kernel(super::SIGTERM)).is_ok()
}
