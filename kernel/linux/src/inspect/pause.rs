//! Stopping the program's threads for a moment, so that their registers and stacks fit together.
//!
//! Nobody's system call is interrupted: a thread that waits in the kernel stays there, and its registers are those with
//! which it came. One that runs leaves the program's code, and waits before it goes back. A thread that does neither in
//! time (a long way through the kernel) is left out.
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use machine::sync::SpinLock;
use machine::task::UserState;
use machine::time::now_ns;
use sched::{Mutex, WaitQueue};

use crate::ctx::Ctx;
use crate::process::Process;
use crate::thread::{LinuxThread, NO_SYSCALL};

/// How long threads are given to stop.
const PATIENCE_NS: u64 = 200_000_000;
/// How long a stopped thread waits at most, whatever the one who stopped it does.
const MAX_PAUSE_NS: u64 = 3_000_000_000;

static WANTED: AtomicBool = AtomicBool::new(false);
static STOPPED: SpinLock<BTreeMap<i32, UserState>> = SpinLock::new(BTreeMap::new());
static RESUME: WaitQueue = WaitQueue::new();
/// One at a time.
static PAUSING: Mutex<()> = Mutex::new(());

/// A thread with its registers.
pub struct ThreadState {
    /// The thread.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// Its registers.
    pub state: UserState,
    /// The number of the system call it is in, if it is in one.
    pub syscall: Option<u64>,
}

/// What `ctx`'s thread, which calls this, has.
pub(crate) fn own_state(ctx: &mut Ctx<'_>) -> UserState {
    UserState {
        regs: ctx.user.regs,
        rflags: ctx.user.rflags(),
        fs_base: ctx.user.fs_base(),
        gs_base: ctx.user.gs_base(),
        fp: ctx.user.fp_state().to_vec(),
    }
}

/// Where a thread stops on its way back to the program, while somebody wants it to.
pub(crate) fn stop_if_asked(ctx: &mut Ctx<'_>) {
    if !WANTED.load(Ordering::SeqCst) {
        return;
    }
    let state = own_state(ctx);
    STOPPED.lock().insert(ctx.thread.tid, state);
    let deadline = now_ns() + MAX_PAUSE_NS;
    // A deadline that passes lets the program go on: it must not depend on the one who looks.
    let _ = RESUME.wait_until(Some(deadline), || {
        (!WANTED.load(Ordering::SeqCst)).then_some(())
    });
}

fn state_of(thread: &LinuxThread, deadline: u64) -> Option<ThreadState> {
    loop {
        let stopped = STOPPED.lock().get(&thread.tid).cloned();
        let in_call = stopped.is_none();
        let state = match stopped {
            Some(state) => Some(state),
            None => thread.sched()?.user_state(),
        };
        if let Some(state) = state {
            let number = thread.syscall().0;
            return Some(ThreadState {
                tid: thread.tid,
                name: thread.comm_text(),
                state,
                syscall: (in_call && number != NO_SYSCALL).then_some(number),
            });
        }
        // It has woken since it was last looked at, and is on its way to stop.
        if now_ns() >= deadline {
            return None;
        }
        let _ = sched::sleep_until_ns(now_ns() + 200_000);
    }
}

/// Stops the program's threads, calls `look` with the state of each that stopped or waits, the main thread first, and
/// lets them go on. `look` must be quick. `caller` is the thread of the program that calls this, if one does.
pub fn with_paused<R>(
    process: &Process,
    caller: Option<ThreadState>,
    look: impl FnOnce(&[ThreadState]) -> R,
) -> R {
    let _one = PAUSING.lock();
    let own = caller.as_ref().map(|thread| thread.tid);
    let threads: Vec<Arc<LinuxThread>> = process
        .threads()
        .into_iter()
        .filter(|thread| Some(thread.tid) != own)
        .collect();
    WANTED.store(true, Ordering::SeqCst);
    for thread in &threads {
        thread.signals.want_look();
        if let Some(thread) = thread.sched() {
            thread.leave_user();
        }
    }
    let deadline = now_ns() + PATIENCE_NS;
    // One that is not on a CPU is as good as stopped: before it runs the program's code again it comes by here.
    let all_stopped = || {
        threads.iter().all(|thread| {
            STOPPED.lock().contains_key(&thread.tid)
                || thread
                    .sched()
                    .is_none_or(|thread| thread.user_registers().is_some())
        })
    };
    while !all_stopped() && now_ns() < deadline {
        let _ = sched::sleep_until_ns(now_ns() + 200_000);
    }
    let mut states: Vec<ThreadState> = caller.into_iter().collect();
    states.extend(
        threads
            .iter()
            .filter_map(|thread| state_of(thread, deadline)),
    );
    let result = look(&states);
    WANTED.store(false, Ordering::SeqCst);
    STOPPED.lock().clear();
    RESUME.wake_all();
    result
}
