//! Processor exceptions of the program: page faults that are resolved, and everything else as a signal.
use machine::user::Access;

use super::send;
use super::{SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGTRAP, SigInfo, code};
use crate::ctx::Ctx;
use crate::mm::fault::FaultError;

const PF_WRITE: u32 = 2;
const PF_RESERVED: u32 = 8;
const PF_FETCH: u32 = 16;

/// Handles exception `vector` with its error code and, for a page fault, its address.
pub fn exception(ctx: &mut Ctx<'_>, vector: u8, error: u32, addr: usize) {
    if vector == 14 {
        return page_fault(ctx, error, addr);
    }
    let rip = ctx.user.regs.rip as usize;
    let info = match vector {
        0 => SigInfo::fault(SIGFPE, code::FPE_INTDIV, rip),
        1 => SigInfo::fault(SIGTRAP, code::TRAP_TRACE, rip),
        3 => SigInfo::kernel(SIGTRAP),
        6 => SigInfo::fault(SIGILL, code::ILL_ILLOPN, rip),
        11 | 12 => SigInfo::kernel(SIGBUS),
        16 => SigInfo::fault(SIGFPE, x87_code(ctx), rip),
        17 => SigInfo::fault(SIGBUS, code::BUS_ADRALN, 0),
        19 => SigInfo::fault(SIGFPE, simd_code(ctx), rip),
        _ => SigInfo::kernel(SIGSEGV),
    };
    *ctx.thread.last_trap.lock() = (u64::from(error), u64::from(vector), 0);
    send::force(ctx.process, ctx.thread, info);
}

fn page_fault(ctx: &mut Ctx<'_>, error: u32, addr: usize) {
    let access = if error & PF_FETCH != 0 {
        Access::Exec
    } else if error & PF_WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    };
    let result = if error & PF_RESERVED != 0 {
        Err(FaultError::Denied)
    } else {
        ctx.process.mm.fault(addr, access)
    };
    let ip = ctx.user.regs.rip as usize;
    crate::trace::page_fault(ctx.thread.tid, addr, access, ip, result.is_ok());
    let Err(failure) = result else {
        ctx.thread.faults[0].fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        return;
    };
    *ctx.thread.last_trap.lock() = (u64::from(error), 14, addr as u64);
    let info = match failure {
        FaultError::NoMapping => SigInfo::fault(SIGSEGV, code::SEGV_MAPERR, addr),
        FaultError::Denied => SigInfo::fault(SIGSEGV, code::SEGV_ACCERR, addr),
        FaultError::Bus => SigInfo::fault(SIGBUS, code::BUS_ADRERR, addr),
        FaultError::OutOfMemory => {
            let stats = machine::mem::stats();
            log::error!(
                "out of memory: {} of {} MiB are free, the program asked for a page at {addr:#x}",
                stats.free / 256,
                stats.total / 256
            );
            SigInfo::kernel(SIGKILL)
        }
    };
    send::force(ctx.process, ctx.thread, info);
}

/// Which x87 exception is pending and not masked.
fn x87_code(ctx: &mut Ctx<'_>) -> i32 {
    let state = ctx.user.fp_state();
    let word = |at: usize| {
        state
            .get(at..at + 2)
            .map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
    };
    fp_code(u32::from(word(2) & !word(0)))
}

/// Which SSE exception is pending and not masked.
fn simd_code(ctx: &mut Ctx<'_>) -> i32 {
    let state = ctx.user.fp_state();
    let mxcsr = state
        .get(24..28)
        .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    fp_code(mxcsr & !(mxcsr >> 7))
}

/// The bits have the same places in both: invalid, denormal, zero, overflow, underflow, precision.
fn fp_code(pending: u32) -> i32 {
    match pending {
        p if p & 1 != 0 => code::FPE_FLTINV,
        p if p & 4 != 0 => code::FPE_FLTDIV,
        p if p & 8 != 0 => code::FPE_FLTOVF,
        p if p & (2 | 16) != 0 => code::FPE_FLTUND,
        p if p & 32 != 0 => code::FPE_FLTRES,
        _ => 0,
    }
}
