//! Signals: dispositions, masks, sending, waiting. How they are delivered is `signal`'s.
use errno::{Errno, Result};
use sched::Woken;

use crate::ctx::Ctx;
use crate::process::PID;
use crate::signal::state::{AltStack, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, SaFlags, SigAction};
use crate::signal::{
    NSIG, SIGINFO_SIZE, SIGKILL, SIGSTOP, SigFields, SigInfo, SigSet, code, deliver, send,
};
use crate::thread::RestartBlock;
use crate::uaccess::UserPtr;

/// The only size of a `sigset_t` the kernel's calls take.
const SIGSET_SIZE: usize = 8;
/// `MINSIGSTKSZ` of x86, the least that `sigaltstack(2)` takes.
const MIN_STACK: usize = 2048;

fn check_size(size: usize) -> Result<()> {
    if size == SIGSET_SIZE {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

fn check_signal(signal: i32) -> Result<()> {
    if (1..=NSIG).contains(&signal) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// `struct sigaction` of the kernel: handler, flags, restorer, mask.
type RawAction = [u64; 4];

pub(super) fn sys_rt_sigaction(
    ctx: &mut Ctx<'_>,
    signal: i32,
    new: UserPtr<RawAction>,
    old: UserPtr<RawAction>,
    size: usize,
) -> Result<usize> {
    check_size(size)?;
    check_signal(signal)?;
    let wanted = new.read_opt()?;
    if wanted.is_some() && (signal == SIGKILL || signal == SIGSTOP) {
        return Err(Errno::EINVAL);
    }
    let signals = &ctx.process.signals;
    let before = match wanted {
        None => signals.action(signal),
        Some([handler, flags, restorer, mask]) => {
            let action = SigAction {
                handler,
                flags: SaFlags::from_bits_retain(flags),
                restorer,
                mask: SigSet(mask),
            };
            let before = signals.set_action(signal, action);
            if send::is_ignored(&action, signal) {
                send::discard_everywhere(ctx.process, SigSet::of(signal));
            }
            before
        }
    };
    old.write_opt(&[
        before.handler,
        before.flags.bits(),
        before.restorer,
        before.mask.0,
    ])?;
    Ok(0)
}

pub(super) fn sys_rt_sigprocmask(
    ctx: &mut Ctx<'_>,
    how: i32,
    new: UserPtr<u64>,
    old: UserPtr<u64>,
    size: usize,
) -> Result<usize> {
    check_size(size)?;
    let signals = &ctx.thread.signals;
    let before = signals.mask();
    if let Some(set) = new.read_opt()?.map(SigSet) {
        let mask = match how {
            0 => before.union(set),
            1 => before.difference(set),
            2 => set,
            _ => return Err(Errno::EINVAL),
        };
        signals.set_mask(mask);
        send::retarget(ctx.process, ctx.thread, mask.difference(before));
    }
    old.write_opt(&before.0)?;
    Ok(0)
}

pub(super) fn sys_rt_sigpending(
    ctx: &mut Ctx<'_>,
    set: UserPtr<u64>,
    size: usize,
) -> Result<usize> {
    if size > SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let signals = &ctx.thread.signals;
    let pending = signals
        .pending()
        .union(ctx.process.signals.pending())
        .intersection(signals.mask());
    set.cast::<u8>()
        .write_bytes(&pending.0.to_le_bytes()[..size])?;
    Ok(0)
}

pub(super) fn sys_rt_sigsuspend(
    ctx: &mut Ctx<'_>,
    mask: UserPtr<u64>,
    size: usize,
) -> Result<usize> {
    check_size(size)?;
    let mask = SigSet(mask.read()?);
    ctx.set_temporary_mask(mask);
    sleep_for_signal(ctx)
}

pub(super) fn sys_pause(ctx: &mut Ctx<'_>) -> Result<usize> {
    sleep_for_signal(ctx)
}

fn sleep_for_signal(ctx: &Ctx<'_>) -> Result<usize> {
    let nobody = sched::WaitQueue::new();
    loop {
        if ctx.signal_pending() {
            ctx.thread.signals.want_look();
            return Err(Errno::ERESTARTNOHAND);
        }
        if nobody.wait_interruptible(None, || None::<()>).is_err() {
            // Something asked the thread to look up: if it was no signal for it, go on sleeping.
            sched::with_current(sched::Thread::take_interrupt);
        }
    }
}

pub(super) fn sys_rt_sigtimedwait(
    ctx: &mut Ctx<'_>,
    set: UserPtr<u64>,
    info: UserPtr<u8>,
    timeout: UserPtr<[i64; 2]>,
    size: usize,
) -> Result<usize> {
    check_size(size)?;
    let wanted = SigSet(set.read()?).difference(SigSet::UNBLOCKABLE);
    let deadline_ns = crate::time::deadline_after(timeout)?;
    let signals = &ctx.thread.signals;
    signals.set_waiting_for(wanted);
    let pollee = &ctx.process.signals.pollee;
    let taken = pollee.wait(deadline_ns, || signals.take(&ctx.process.signals, wanted));
    signals.set_waiting_for(SigSet::EMPTY);
    let mut taken = match taken {
        Ok(taken) => taken,
        Err(Woken::TimedOut) => return Err(Errno::EAGAIN),
        // The wake may have been for the very signal that is waited for.
        Err(Woken::Interrupted) => match signals.take(&ctx.process.signals, wanted) {
            Some(taken) => taken,
            None => return Err(Errno::EINTR),
        },
    };
    if let SigFields::Timer { id, .. } = taken.fields {
        taken = ctx.process.timers.delivered(id, taken);
    }
    if !info.is_null() {
        info.write_bytes(&taken.to_bytes())?;
    }
    Ok(taken.signo as usize)
}

/// Whether `pid`, as `kill(2)` takes it, means the one process.
fn means_us(pid: i32) -> bool {
    // Its own id, its group, everyone (which leaves the caller out on Linux), or the group by number.
    pid == PID || pid == 0 || pid == -PID
}

pub(super) fn sys_kill(ctx: &mut Ctx<'_>, pid: i32, signal: i32) -> Result<usize> {
    send::check_number(signal)?;
    if !means_us(pid) {
        return Err(Errno::ESRCH);
    }
    if signal != 0 {
        let uid = ctx.process.credentials.lock().uid[0];
        let info = SigInfo::from_program(signal, code::SI_USER, PID, uid);
        send::to_process(ctx.process, info)?;
    }
    Ok(0)
}

fn send_to_thread(ctx: &Ctx<'_>, tid: i32, info: SigInfo) -> Result<usize> {
    let thread = ctx.process.thread(tid).ok_or(Errno::ESRCH)?;
    if info.signo != 0 {
        send::to_thread(ctx.process, &thread, info)?;
    }
    Ok(0)
}

pub(super) fn sys_tkill(ctx: &mut Ctx<'_>, tid: i32, signal: i32) -> Result<usize> {
    if tid <= 0 {
        return Err(Errno::EINVAL);
    }
    send::check_number(signal)?;
    let uid = ctx.process.credentials.lock().uid[0];
    send_to_thread(
        ctx,
        tid,
        SigInfo::from_program(signal, code::SI_TKILL, PID, uid),
    )
}

pub(super) fn sys_tgkill(ctx: &mut Ctx<'_>, pid: i32, tid: i32, signal: i32) -> Result<usize> {
    if pid <= 0 {
        return Err(Errno::EINVAL);
    }
    if pid != PID {
        return Err(Errno::ESRCH);
    }
    sys_tkill(ctx, tid, signal)
}

/// Reads the `siginfo_t` of a sender; only the kernel may claim codes of 0 and above towards others.
fn read_info(signal: i32, info: UserPtr<u8>) -> Result<SigInfo> {
    send::check_number(signal)?;
    let mut bytes = [0; SIGINFO_SIZE];
    info.read_bytes(&mut bytes)?;
    Ok(SigInfo::from_program_bytes(signal, &bytes))
}

pub(super) fn sys_rt_sigqueueinfo(
    ctx: &mut Ctx<'_>,
    pid: i32,
    signal: i32,
    info: UserPtr<u8>,
) -> Result<usize> {
    let info = read_info(signal, info)?;
    if pid != PID {
        return Err(Errno::ESRCH);
    }
    if signal != 0 {
        send::to_process(ctx.process, info)?;
    }
    Ok(0)
}

pub(super) fn sys_rt_tgsigqueueinfo(
    ctx: &mut Ctx<'_>,
    pid: i32,
    tid: i32,
    signal: i32,
    info: UserPtr<u8>,
) -> Result<usize> {
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = read_info(signal, info)?;
    if pid != PID {
        return Err(Errno::ESRCH);
    }
    send_to_thread(ctx, tid, info)
}

pub(super) fn sys_sigaltstack(
    ctx: &mut Ctx<'_>,
    new: UserPtr<[u64; 3]>,
    old: UserPtr<[u64; 3]>,
) -> Result<usize> {
    let signals = &ctx.thread.signals;
    let now = signals.altstack();
    let in_use = now.contains(ctx.user.regs.rsp as usize);
    if let Some([base, flags, size]) = new.read_opt()? {
        if in_use {
            return Err(Errno::EPERM);
        }
        let flags = flags as u32;
        let mode = flags & !SS_AUTODISARM;
        if !matches!(mode, 0 | SS_ONSTACK | SS_DISABLE) {
            return Err(Errno::EINVAL);
        }
        let stack = if mode == SS_DISABLE {
            AltStack::DISABLED
        } else {
            if (size as usize) < MIN_STACK {
                return Err(Errno::ENOMEM);
            }
            AltStack {
                base: base as usize,
                size: size as usize,
                flags: flags & SS_AUTODISARM,
            }
        };
        signals.set_altstack(stack);
    }
    let shown = now.flags | if in_use { SS_ONSTACK } else { 0 };
    old.write_opt(&[now.base as u64, u64::from(shown), now.size as u64])?;
    Ok(0)
}

pub(super) fn sys_rt_sigreturn(ctx: &mut Ctx<'_>) -> Result<usize> {
    deliver::sigreturn(ctx);
    Ok(0)
}

/// `restart_syscall(2)`: goes on with a call that a signal interrupted and nobody handled.
pub(super) fn sys_restart_syscall(ctx: &mut Ctx<'_>) -> Result<usize> {
    let block = ctx.thread.restart.lock().take();
    match block {
        None => Err(Errno::EINTR),
        Some(RestartBlock::Sleep {
            deadline_ns,
            remaining,
        }) => super::times::sleep(ctx, deadline_ns, remaining),
        Some(RestartBlock::FutexWait {
            addr,
            value,
            bitset,
            private,
            deadline_ns,
        }) => super::futex::restart(ctx, addr, value, bitset, private, deadline_ns),
        Some(RestartBlock::Poll {
            fds,
            count,
            deadline_ns,
        }) => {
            let deadline_ns = (deadline_ns != u64::MAX).then_some(deadline_ns);
            super::poll::poll_restartable(ctx, UserPtr::new(fds), count, deadline_ns)
        }
    }
}
