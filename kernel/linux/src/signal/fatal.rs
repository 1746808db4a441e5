//! The end of the program by a signal: what happened, where, the registers, a backtrace with the
//! symbols of the mapped files; then the machine ends with 128 and the signal's number.
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::user;

use super::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SigFields, SigInfo, code, name};
use crate::ctx::Ctx;
use crate::exec::elf;
use crate::inspect::MappedFile;
use crate::mm::vma::VmProt;
use crate::process::{ExitStatus, Process};

/// Only the first thread that dies reports; others may die of the same cause.
static REPORTED: AtomicBool = AtomicBool::new(false);

/// The most frames that are shown.
const MAX_FRAMES: usize = 32;
/// How far up the stack return addresses are looked for where frame pointers end.
const SCAN_WORDS: usize = 512;

/// Ends the program for a signal whose default is to end it, in one line.
pub fn signal_ends(ctx: &mut Ctx<'_>, info: &SigInfo) -> ! {
    let mut text = String::new();
    let _ = write!(
        text,
        "{}: ended by {} ({})",
        ctx.process.name(),
        name(info.signo),
        info.signo
    );
    if let SigFields::Sender { pid, .. } = info.fields {
        let _ = write!(
            text,
            ", sent by {}",
            if pid == crate::process::PID {
                "itself"
            } else {
                "another"
            }
        );
    }
    text.push('\n');
    print(&text);
    end_by_signal(ctx.process, info.signo)
}

/// Ends the program without a report of its own.
pub fn end_by_signal(process: &Process, signal: i32) -> ! {
    process.exit(ExitStatus::Signal(signal))
}

/// Ends the program for a fault, with a full report.
pub fn fault_ends(ctx: &mut Ctx<'_>, info: &SigInfo) -> ! {
    if !REPORTED.swap(true, Ordering::SeqCst) {
        let text = report(ctx, info);
        print(&text);
        leave_core(ctx, info.signo);
    }
    end_by_signal(ctx.process, info.signo)
}

/// The largest core file that is written, in bytes; 0 for none.
static CORE_LIMIT: AtomicU64 = AtomicU64::new(0);

/// Sets the largest core file that is written when the program dies, in bytes; 0 writes none.
pub fn set_core_limit(bytes: u64) {
    CORE_LIMIT.store(bytes, Ordering::Relaxed);
}

fn leave_core(ctx: &mut Ctx<'_>, signal: i32) {
    let limit = CORE_LIMIT.load(Ordering::Relaxed);
    if limit == 0 {
        return;
    }
    let line = match crate::inspect::core_file::write_file(ctx, signal, limit) {
        Ok(len) => alloc::format!("core file: /coredumps/core, {len} bytes\n"),
        Err(error) => alloc::format!("the core file could not be written: {error}\n"),
    };
    print(&line);
}

fn print(text: &str) {
    machine::console::write(text.as_bytes());
}

/// What the code of a signal means.
fn cause(info: &SigInfo) -> &'static str {
    match (info.signo, info.code) {
        (_, code::SI_USER | code::SI_TKILL) => "sent by the program",
        (SIGSEGV, code::SEGV_MAPERR) => "address not mapped",
        (SIGSEGV, code::SEGV_ACCERR) => "access not allowed",
        (SIGSEGV, code::SI_KERNEL) => "general protection",
        (SIGBUS, code::BUS_ADRALN) => "misaligned address",
        (SIGBUS, code::BUS_ADRERR) => "past the end of the file, or it cannot be read",
        (SIGFPE, code::FPE_INTDIV) => "integer division by zero",
        (SIGFPE, code::FPE_INTOVF) => "integer overflow",
        (SIGFPE, code::FPE_FLTDIV) => "floating-point division by zero",
        (SIGFPE, code::FPE_FLTINV) => "invalid floating-point operation",
        (SIGILL, _) => "illegal instruction",
        _ => "",
    }
}

fn report(ctx: &mut Ctx<'_>, info: &SigInfo) -> String {
    let mut out = String::new();
    let thread = ctx.thread.comm_text();
    let _ = write!(
        out,
        "\n{}: {} ({})",
        ctx.process.name(),
        name(info.signo),
        info.signo
    );
    let why = cause(info);
    if !why.is_empty() {
        let _ = write!(out, ": {why}");
    }
    if let SigFields::Fault { addr } = info.fields {
        let _ = write!(out, " at {addr:#x}");
    }
    let (error, vector, _) = *ctx.thread.last_trap.lock();
    if vector == 14 && matches!(info.fields, SigFields::Fault { .. }) {
        let access = match error {
            e if e & 16 != 0 => "execute",
            e if e & 2 != 0 => "write",
            _ => "read",
        };
        let _ = write!(out, " ({access})");
    }
    let _ = writeln!(
        out,
        "\nthread {} \"{thread}\" on CPU {}",
        ctx.thread.tid,
        machine::cpu::id()
    );
    registers(ctx, &mut out);
    let _ = writeln!(out, "backtrace:");
    let frames = walk(ctx);
    for (n, (at, sure)) in frames.iter().enumerate() {
        // A return address lies behind its call: the call is what is of interest.
        let looked_up = if n == 0 { *at } else { at.saturating_sub(1) };
        let mark = if *sure { ' ' } else { '?' };
        let _ = write!(out, "  #{n:<2}{mark}{at:#018x}");
        describe(ctx.process, looked_up, &mut out);
        out.push('\n');
    }
    out
}

fn registers(ctx: &mut Ctx<'_>, out: &mut String) {
    let flags = ctx.user.rflags();
    let (fs, gs) = (ctx.user.fs_base(), ctx.user.gs_base());
    let r = &ctx.user.regs;
    let all = [
        ("rip", r.rip),
        ("rsp", r.rsp),
        ("rbp", r.rbp),
        ("rfl", flags),
        ("rax", r.rax),
        ("rbx", r.rbx),
        ("rcx", r.rcx),
        ("rdx", r.rdx),
        ("rsi", r.rsi),
        ("rdi", r.rdi),
        ("r8 ", r.r8),
        ("r9 ", r.r9),
        ("r10", r.r10),
        ("r11", r.r11),
        ("r12", r.r12),
        ("r13", r.r13),
        ("r14", r.r14),
        ("r15", r.r15),
        ("fs ", fs as u64),
        ("gs ", gs as u64),
    ];
    for row in all.chunks(4) {
        for (name, value) in row {
            let _ = write!(out, "  {name} {value:016x}");
        }
        out.push('\n');
    }
}

fn is_code(ctx: &Ctx<'_>, addr: usize) -> bool {
    ctx.process
        .mm
        .prot_at(addr)
        .is_some_and(|prot| prot.contains(VmProt::EXEC))
}

/// The addresses of the calls that led here: by frame pointers, then, where those end early, by
/// what looks like a return address on the stack. The second of each pair says which it was.
fn walk(ctx: &Ctx<'_>) -> Vec<(usize, bool)> {
    let mut frames = Vec::new();
    frames.push((ctx.user.regs.rip as usize, true));
    let sp = ctx.user.regs.rsp as usize;
    if !is_code(ctx, ctx.user.regs.rip as usize)
        && let Ok(back) = user::read_u64(sp)
        && is_code(ctx, back as usize)
    {
        // A call through a bad pointer: the caller is on top of the stack.
        frames.push((back as usize, true));
    }
    let mut frame = ctx.user.regs.rbp as usize;
    let mut low = sp;
    while frames.len() < MAX_FRAMES && frame >= low && frame.is_multiple_of(8) {
        let (Ok(next), Ok(back)) = (user::read_u64(frame), user::read_u64(frame.wrapping_add(8)))
        else {
            break;
        };
        if !is_code(ctx, back as usize) {
            break;
        }
        frames.push((back as usize, true));
        low = frame + 16;
        frame = next as usize;
    }
    if frames.len() < 4 {
        scan(ctx, sp, &mut frames);
    }
    frames
}

fn scan(ctx: &Ctx<'_>, sp: usize, frames: &mut Vec<(usize, bool)>) {
    for n in 0..SCAN_WORDS {
        let Ok(word) = user::read_u64(sp.wrapping_add(8 * n)) else {
            return;
        };
        let at = word as usize;
        if frames.len() < MAX_FRAMES
            && is_code(ctx, at)
            && follows_call(at)
            && !frames.iter().any(|(seen, _)| *seen == at)
        {
            frames.push((at, false));
        }
    }
}

/// Whether the instruction before `at` may be a call: `E8` with a 32-bit distance, or `FF /2`.
fn follows_call(at: usize) -> bool {
    let mut bytes = [0; 7];
    if user::copy_from_user(at.wrapping_sub(7), &mut bytes).is_err() {
        return false;
    }
    let indirect = |n: usize| bytes[7 - n] == 0xff && bytes[8 - n] >> 3 & 7 == 2;
    bytes[2] == 0xe8 || indirect(2) || indirect(3) || indirect(6) || indirect(7)
}

/// Adds the symbol, file and offset of `addr`.
fn describe(process: &Process, addr: usize, out: &mut String) {
    let Some((pager, offset)) = process.mm.object_at(addr) else {
        return;
    };
    let path = String::from_utf8_lossy(&pager.describe().path).into_owned();
    match elf::symbol_at(&MappedFile(pager), offset) {
        Some(symbol) => {
            let raw = String::from_utf8_lossy(&symbol.name).into_owned();
            let _ = write!(
                out,
                "  {:#}+{:#x}",
                rustc_demangle::demangle(&raw),
                symbol.offset
            );
            let _ = write!(out, "  {path}");
        }
        None => {
            let _ = write!(out, "  {path}+{offset:#x}");
        }
    }
}
