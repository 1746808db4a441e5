//! Restartable sequences (`rseq(2)`): the program learns its CPU without a system call, and a short
//! piece of code that was interrupted starts over.
use core::sync::atomic::Ordering;

use errno::{Errno, Result};
use machine::user;

use crate::ctx::Ctx;
use crate::signal::{SIGSEGV, SigInfo, send};
use crate::uaccess::USER_END;

/// How much of `struct rseq` is provided (`AT_RSEQ_FEATURE_SIZE`): up to `mm_cid`.
pub const RSEQ_FEATURE_SIZE: usize = 28;
/// The size every `struct rseq` has at least.
const MIN_SIZE: u32 = 32;
const FLAG_UNREGISTER: u32 = 1;

const CPU_ID_START: usize = 0;
const CPU_ID: usize = 4;
const RSEQ_CS: usize = 8;
const NODE_ID: usize = 20;
const MM_CID: usize = 24;
/// "Not registered" in `cpu_id`.
const UNINITIALIZED: u32 = u32::MAX;

pub(super) fn sys_rseq(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: u32,
    flags: u32,
    signature: u32,
) -> Result<usize> {
    let mut slot = ctx.thread.rseq.lock();
    if flags & FLAG_UNREGISTER != 0 {
        if flags != FLAG_UNREGISTER {
            return Err(Errno::EINVAL);
        }
        match *slot {
            Some((at, size, _)) if at != addr || size != len => return Err(Errno::EINVAL),
            Some((.., mark)) if mark != signature => return Err(Errno::EPERM),
            None => return Err(Errno::EINVAL),
            Some(_) => *slot = None,
        }
        drop(slot);
        for (field, value) in [
            (CPU_ID_START, 0),
            (CPU_ID, UNINITIALIZED),
            (NODE_ID, 0),
            (MM_CID, 0),
        ] {
            user::write_u32(addr + field, value).map_err(|_| Errno::EFAULT)?;
        }
        return Ok(0);
    }
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    if let Some((at, size, mark)) = *slot {
        return Err(match () {
            () if at != addr || size != len => Errno::EINVAL,
            () if mark != signature => Errno::EPERM,
            () => Errno::EBUSY,
        });
    }
    if len < MIN_SIZE || !addr.is_multiple_of(32) {
        return Err(Errno::EINVAL);
    }
    if addr
        .checked_add(len as usize)
        .is_none_or(|end| end > USER_END)
    {
        return Err(Errno::EFAULT);
    }
    drop(slot);
    user::write_u64(addr + RSEQ_CS, 0).map_err(|_| Errno::EFAULT)?;
    *ctx.thread.rseq.lock() = Some((addr, len, signature));
    ctx.thread.rseq_cpu.store(u32::MAX, Ordering::Relaxed);
    Ok(0)
}

/// Tells the program its CPU if that changed. Called right before it goes on.
pub(crate) fn update_rseq(ctx: &mut Ctx<'_>) {
    loop {
        let cpu = machine::cpu::id() as u32;
        if ctx.thread.rseq_cpu.load(Ordering::Relaxed) == cpu {
            return;
        }
        ctx.thread.rseq_cpu.store(cpu, Ordering::Relaxed);
        let Some((addr, ..)) = *ctx.thread.rseq.lock() else {
            return;
        };
        let written = [
            (CPU_ID_START, cpu),
            (CPU_ID, cpu),
            (NODE_ID, 0),
            (MM_CID, cpu),
        ]
        .into_iter()
        .all(|(field, value)| user::write_u32(addr + field, value).is_ok());
        if !written {
            *ctx.thread.rseq.lock() = None;
            return send::force(ctx.process, ctx.thread, SigInfo::kernel(SIGSEGV));
        }
        // Writing may have slept, and the thread may be elsewhere now: look again.
    }
}

/// Sends a sequence that was interrupted back to its abort handler: after a preemption or for a signal.
pub(crate) fn abort_rseq(ctx: &mut Ctx<'_>) {
    let Some((addr, _, signature)) = *ctx.thread.rseq.lock() else {
        return;
    };
    if abort(ctx, addr, signature).is_none() {
        *ctx.thread.rseq.lock() = None;
        send::force(ctx.process, ctx.thread, SigInfo::kernel(SIGSEGV));
    }
}

/// `None` for a descriptor that is not valid.
fn abort(ctx: &mut Ctx<'_>, addr: usize, signature: u32) -> Option<()> {
    let descriptor = user::read_u64(addr + RSEQ_CS).ok()? as usize;
    if descriptor == 0 {
        return Some(());
    }
    let word = |at: usize| user::read_u64(descriptor.checked_add(at)?).ok();
    let version_and_flags = word(0)?;
    let (start, length, handler) = (word(8)?, word(16)?, word(24)?);
    if version_and_flags & 0xffff_ffff != 0
        || start.checked_add(length)? > USER_END as u64
        || handler >= USER_END as u64
    {
        return None;
    }
    let rip = ctx.user.regs.rip;
    let inside = rip.wrapping_sub(start) < length;
    // Leaving the section forgets it either way.
    if handler.wrapping_sub(start) < length {
        return None;
    }
    user::write_u64(addr + RSEQ_CS, 0).ok()?;
    if inside {
        if user::read_u32((handler as usize).checked_sub(4)?).ok()? != signature {
            return None;
        }
        ctx.user.regs.rip = handler;
    }
    Some(())
}
