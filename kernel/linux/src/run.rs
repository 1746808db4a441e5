//! The loop that a thread of the program lives in, how it starts and how it ends.
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use errno::{Errno, Result};
use machine::context::{Trap, UserContext};
use machine::user;

use crate::ctx::Ctx;
use crate::futex::{BITSET_ANY, Key, robust};
use crate::inspect;
use crate::process::{ExitStatus, Process};
use crate::signal::{deliver, fault};
use crate::syscalls;
use crate::thread::LinuxThread;

/// Starts `thread` with those registers.
///
/// # Errors
/// `EAGAIN` when there is no memory for its stack, as `clone(2)` has it.
pub(crate) fn start(
    process: &'static Process,
    thread: Arc<LinuxThread>,
    user: UserContext,
    options: sched::SpawnOptions,
) -> Result<()> {
    start_with(process, thread, options, move || Some(user))
}

/// Starts `thread` with the registers that `prepare` answers, called on the new thread in the program's address space;
/// with none the thread ends at once.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_with(
    process: &'static Process,
    thread: Arc<LinuxThread>,
    options: sched::SpawnOptions,
    prepare: impl FnOnce() -> Option<UserContext> + Send + 'static,
) -> Result<()> {
    process.add_thread(thread.clone());
    let tid = thread.tid;
    let body = {
        let thread = thread.clone();
        move || {
            let me = sched::current();
            thread.attach(&me);
            // A fresh thread has nothing attached yet, so this cannot fail.
            let _ = me.set_ext(thread.clone());
            process.mm.activate();
            if let Some(user) = prepare() {
                user.lend(|user| live(process, &thread, user));
            }
            end(process, &thread);
        }
    };
    match sched::spawn(options, body) {
        Ok(started) => {
            thread.attach(&started);
            Ok(())
        }
        Err(_) => {
            process.remove_thread(tid);
            Err(Errno::EAGAIN)
        }
    }
}

/// Runs the program until the thread is to end.
fn live(process: &'static Process, thread: &Arc<LinuxThread>, user: &mut UserContext) {
    let mut ctx = Ctx {
        process,
        thread,
        user,
    };
    let me = sched::current();
    loop {
        // Signals are looked for only when someone sent one or the mask changed.
        if me.is_interrupted() || thread.signals.wants_look() {
            me.take_interrupt();
            thread.signals.take_look();
            inspect::pause::stop_if_asked(&mut ctx);
            if !deliver::signals(&mut ctx) {
                return;
            }
        }
        if thread.is_exiting() {
            return;
        }
        deliver::finish_syscall(&mut ctx);
        syscalls::update_rseq(&mut ctx);
        match sched::in_user(&me, || ctx.user.run()) {
            Trap::Syscall => syscalls::dispatch(&mut ctx),
            Trap::Exception {
                vector,
                error,
                addr,
            } => fault::exception(&mut ctx, vector, error, addr),
            Trap::Interrupt => {}
        }
        // Others run if they are due; a restartable sequence that was cut short starts over.
        let before = me.switches();
        sched::preempt_point();
        if me.switches() != before {
            syscalls::abort_rseq(&mut ctx);
        }
    }
}

/// What the kernel does when a thread ends (`exit(2)`, `kernel/exit.c` of Linux).
fn end(process: &'static Process, thread: &Arc<LinuxThread>) {
    if !process.is_exiting() {
        let (head, _) = thread.robust_list();
        if head != 0 {
            robust::release(&process.futexes, &process.mm, head, thread.tid);
        }
        let word = thread.clear_child_tid();
        if word != 0
            && user::write_u32(word, 0).is_ok()
            && let Ok(key) = Key::of(&process.mm, word, false)
        {
            process.futexes.wake(key, 1, BITSET_ANY);
        }
    }
    if let Some(ended) = thread.sched() {
        process.ended_ns[0].fetch_add(ended.user_ns(), Ordering::Relaxed);
        process.ended_ns[1].fetch_add(ended.system_ns(), Ordering::Relaxed);
    }
    if process.remove_thread(thread.tid) == 0 {
        process.exit(ExitStatus::Code(process.leader_code()));
    }
}
