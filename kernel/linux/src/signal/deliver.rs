//! Acting on pending signals before the program goes on: restarting the interrupted call, running
//! the default action, or setting the registers up for a handler; and the way back from one.
use alloc::vec::Vec;

use errno::Errno;
use machine::context::{Registers, UserContext};
use machine::user;

use super::frame::{self, FP_END, FRAME_SIZE, FXSAVE_SIZE, Gregs, Saved};
use super::send;
use super::state::{AltStack, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, SaFlags, SigAction};
use super::{DefaultAction, SIGSEGV, SigFields, SigInfo, SigSet, default_action};
use crate::ctx::Ctx;
use crate::thread::NO_SYSCALL;
use crate::uaccess::USER_END;

/// The number of `restart_syscall(2)`.
const RESTART_SYSCALL: u64 = 219;
/// The length of the `syscall` instruction.
const SYSCALL_LENGTH: u64 = 2;
/// Flags cleared for a handler: direction, resume, trap.
const DF_RF_TF: u64 = 0x400 | 0x1_0000 | 0x100;
/// Bytes below the stack pointer that belong to the running function.
const RED_ZONE: usize = 128;

/// What the interrupted call left in `rax`, if it asks for a restart.
fn wanted_restart(ctx: &Ctx<'_>) -> Option<Errno> {
    if ctx.thread.syscall().0 == NO_SYSCALL {
        return None;
    }
    let raw = u16::try_from((ctx.user.regs.rax as i64).checked_neg()?).ok()?;
    Errno::from_raw(raw).filter(|errno| errno.is_restart())
}

fn restart_as(ctx: &mut Ctx<'_>, number: u64) {
    ctx.user.regs.rax = number;
    ctx.user.regs.rip = ctx.user.regs.rip.wrapping_sub(SYSCALL_LENGTH);
}

/// Delivers what is pending. Answers whether the thread goes on: not when it is to end.
pub fn signals(ctx: &mut Ctx<'_>) -> bool {
    loop {
        if ctx.thread.is_exiting() || ctx.process.is_exiting() {
            return false;
        }
        let wanted = ctx.thread.signals.mask().complement();
        let Some(mut info) = ctx.thread.signals.take(&ctx.process.signals, wanted) else {
            return true;
        };
        if let SigFields::Timer { id, .. } = info.fields {
            info = ctx.process.timers.delivered(id, info);
        }
        let action = ctx.process.signals.action(info.signo);
        if action.handler == super::state::SIG_IGN {
            continue;
        }
        if action.is_caught() {
            resolve_restart_for_handler(ctx, &action);
            if !run_handler(ctx, &info, &action) {
                // No room for the frame: the program cannot go on (`force_sigsegv` of Linux).
                if info.signo == SIGSEGV {
                    super::fatal::fault_ends(ctx, &info);
                }
                send::force(ctx.process, ctx.thread, SigInfo::kernel(SIGSEGV));
            }
            continue;
        }
        match default_action(info.signo) {
            DefaultAction::Ignore | DefaultAction::Continue => {}
            DefaultAction::Core => super::fatal::fault_ends(ctx, &info),
            DefaultAction::Terminate | DefaultAction::Stop => super::fatal::signal_ends(ctx, &info),
        }
    }
}

/// Decides what an interrupted call without a handler does, and takes back the mask that was for its time.
pub fn finish_syscall(ctx: &mut Ctx<'_>) {
    if let Some(errno) = wanted_restart(ctx) {
        let number = match errno {
            Errno::ERESTART_RESTARTBLOCK => RESTART_SYSCALL,
            _ => ctx.thread.syscall().0,
        };
        restart_as(ctx, number);
    }
    ctx.thread.leave_syscall();
    if ctx.thread.signals.restore_saved_mask() && ctx.signal_pending() {
        // One that was blocked meanwhile comes at the next look, which is right away.
        ctx.thread.kick();
    }
}

/// Decides what the interrupted call returns once the handler is done.
fn resolve_restart_for_handler(ctx: &mut Ctx<'_>, action: &SigAction) {
    let Some(errno) = wanted_restart(ctx) else {
        ctx.thread.leave_syscall();
        return;
    };
    let restart = match errno {
        Errno::ERESTARTNOINTR => true,
        Errno::ERESTARTSYS => action.flags.contains(SaFlags::RESTART),
        _ => false,
    };
    if restart {
        restart_as(ctx, ctx.thread.syscall().0);
    } else {
        ctx.user.set_return(-(Errno::EINTR.raw() as isize));
    }
    ctx.thread.leave_syscall();
}

fn gregs_of(regs: &Registers, flags: u64) -> Gregs {
    [
        regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15, regs.rdi,
        regs.rsi, regs.rbp, regs.rbx, regs.rdx, regs.rax, regs.rcx, regs.rsp, regs.rip, flags,
    ]
}

fn set_gregs(user: &mut UserContext, gregs: &Gregs) {
    let regs = &mut user.regs;
    [
        regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15, regs.rdi,
        regs.rsi, regs.rbp, regs.rbx, regs.rdx, regs.rax, regs.rcx, regs.rsp, regs.rip,
    ] = [
        gregs[0], gregs[1], gregs[2], gregs[3], gregs[4], gregs[5], gregs[6], gregs[7], gregs[8],
        gregs[9], gregs[10], gregs[11], gregs[12], gregs[13], gregs[14], gregs[15], gregs[16],
    ];
    user.set_rflags(gregs[17]);
}

/// Sets the program up to run its handler. False when the frame does not fit.
fn run_handler(ctx: &mut Ctx<'_>, info: &SigInfo, action: &SigAction) -> bool {
    let signals = &ctx.thread.signals;
    let altstack = signals.altstack();
    let sp = ctx.user.regs.rsp as usize;
    let on_alt = altstack.contains(sp);
    let switch =
        action.flags.contains(SaFlags::ONSTACK) && altstack.flags & SS_DISABLE == 0 && !on_alt;
    let top = if switch {
        altstack.base + altstack.size
    } else {
        sp.wrapping_sub(RED_ZONE)
    };

    let mut fp: Vec<u8> = ctx.user.fp_state().to_vec();
    frame::describe_fp(&mut fp, UserContext::fp_features());
    let Some(place) = frame::place(top, fp.len()) else {
        return false;
    };
    let must_stay = switch || on_alt;
    if must_stay
        && altstack.flags & SS_AUTODISARM == 0
        && !(altstack.base..top.max(sp)).contains(&place.frame)
    {
        return false;
    }
    if action.flags.bits() & SaFlags::RESTORER.bits() == 0 {
        // x86-64 has no other way back; Linux refuses too.
        return false;
    }
    let mut shown = altstack;
    if altstack.contains(sp) {
        shown.flags |= SS_ONSTACK;
    }
    let saved = Saved {
        gregs: gregs_of(&ctx.user.regs, ctx.user.rflags()),
        trap: *ctx.thread.last_trap.lock(),
        fpstate: place.fpstate as u64,
        mask: signals.take_mask_for_frame(),
        altstack: shown,
    };
    let bytes = frame::build(&saved, info, action.restorer);
    let written = user::copy_to_user(place.fpstate, &fp)
        .and_then(|()| user::copy_to_user(place.fpstate + fp.len(), &FP_END))
        .and_then(|()| user::copy_to_user(place.frame, &bytes));
    if written.is_err() {
        return false;
    }
    if altstack.flags & SS_AUTODISARM != 0 {
        signals.set_altstack(AltStack::DISABLED);
    }

    let mut mask = signals.mask().union(action.mask);
    if !action.flags.contains(SaFlags::NODEFER) {
        mask = mask.union(SigSet::of(info.signo));
    }
    signals.set_mask(mask);
    if action.flags.contains(SaFlags::RESETHAND) {
        let reset = SigAction {
            handler: super::state::SIG_DFL,
            ..*action
        };
        ctx.process.signals.set_action(info.signo, reset);
    }
    crate::syscalls::abort_rseq(ctx);

    let flags = ctx.user.rflags() & !DF_RF_TF;
    ctx.user.set_rflags(flags);
    let regs = &mut ctx.user.regs;
    regs.rdi = info.signo as u64;
    regs.rsi = (place.frame + frame::SIGINFO) as u64;
    regs.rdx = (place.frame + frame::UCONTEXT) as u64;
    regs.rax = 0;
    regs.rsp = place.frame as u64;
    regs.rip = action.handler;
    ctx.user.reset_fp_state();
    true
}

/// `rt_sigreturn(2)`: back to where the handler interrupted the program.
pub fn sigreturn(ctx: &mut Ctx<'_>) {
    // A restored `rax` must not look like a restart, nor be overwritten.
    ctx.thread.leave_syscall();
    ctx.thread.set_keep_registers();
    if restore(ctx).is_none() {
        send::force(ctx.process, ctx.thread, SigInfo::kernel(SIGSEGV));
    }
}

fn restore(ctx: &mut Ctx<'_>) -> Option<()> {
    // The handler's `ret` took the return address off.
    let at = (ctx.user.regs.rsp as usize).checked_sub(8)?;
    let mut bytes = [0; FRAME_SIZE];
    user::copy_from_user(at, &mut bytes).ok()?;
    let saved = frame::parse(&bytes);
    if saved.gregs[16] as usize >= USER_END {
        return None;
    }
    ctx.thread.signals.set_mask(saved.mask);
    set_gregs(ctx.user, &saved.gregs);
    restore_fp(ctx, saved.fpstate as usize)?;
    let stack = AltStack {
        flags: saved.altstack.flags & !SS_ONSTACK,
        ..saved.altstack
    };
    if stack.flags & SS_DISABLE != 0 {
        ctx.thread.signals.set_altstack(AltStack::DISABLED);
    } else if !ctx
        .thread
        .signals
        .altstack()
        .contains(saved.gregs[15] as usize)
    {
        ctx.thread.signals.set_altstack(stack);
    }
    Some(())
}

fn restore_fp(ctx: &mut Ctx<'_>, at: usize) -> Option<()> {
    if at == 0 {
        ctx.user.reset_fp_state();
        return Some(());
    }
    let mut legacy = [0; FXSAVE_SIZE];
    user::copy_from_user(at, &mut legacy).ok()?;
    let size = frame::fp_size(&legacy).filter(|size| {
        let mut end = [0; 4];
        *size <= UserContext::fp_state_size()
            && user::copy_from_user(at.wrapping_add(*size), &mut end).is_ok()
            && end == FP_END
    });
    let mut state = legacy.to_vec();
    if let Some(size) = size {
        state.resize(size, 0);
        user::copy_from_user(at, &mut state).ok()?;
    }
    // The words that describe the state are not part of it.
    state[464..FXSAVE_SIZE].fill(0);
    ctx.user.set_fp_state(&state).ok()
}
