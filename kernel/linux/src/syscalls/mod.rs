//! System calls: the dispatcher, and one module for each family of handlers.
//!
//! Which number means which call stands in [`table`]; what a call does stands in its family.
pub mod table;

mod attributes;
mod control;
mod control_message;
mod epoll;
mod events;
mod futex;
mod ids;
mod memory;
mod misc;
pub(crate) mod names;
mod open;
pub(crate) mod poll;
mod rseq;
mod rw;
mod schedule;
mod signals;
mod socket;
mod socket_message;
mod splice;
mod stat;
mod sync;
mod threads;
mod timers;
mod times;

pub(crate) use misc::huge_pages_disabled;
pub use rseq::RSEQ_FEATURE_SIZE;
pub(crate) use rseq::{abort_rseq, update_rseq};

use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use errno::{Errno, Result};

use crate::ctx::Ctx;
use crate::uaccess::FromArg;

/// How an argument is shown in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A signed number.
    Int,
    /// An unsigned number.
    Uint,
    /// A count of bytes or items.
    Size,
    /// Flags or other bits, in hexadecimal.
    Hex,
    /// A file descriptor.
    Fd,
    /// An address.
    Ptr,
    /// The address of a path name or another zero-ended string.
    Path,
    /// A signal number.
    Signal,
    /// File permission bits, in octal.
    Mode,
}

/// One line of the table.
#[derive(Debug)]
pub struct SyscallInfo {
    /// The number in `rax`.
    pub number: u32,
    /// The name as in the manual.
    pub name: &'static str,
    /// Names and kinds of its arguments.
    pub args: &'static [(&'static str, ArgKind)],
}

/// Calls of numbers that the table lacks.
pub static UNKNOWN_CALLS: AtomicU64 = AtomicU64::new(0);

/// Whether each call is written to the log (manifest key `trace`, or the information store).
pub static TRACE: AtomicBool = AtomicBool::new(false);

/// Takes the next register as an argument.
fn next<T: FromArg>(registers: &mut impl Iterator<Item = u64>) -> T {
    T::from_arg(registers.next().unwrap_or(0))
}

/// Runs the system call that the program's registers ask for and sets its result.
///
/// A restart code stays in `rax`, negative, until signal delivery resolves it (`signal::deliver`).
pub fn dispatch(ctx: &mut Ctx<'_>) {
    let number = ctx.user.syscall_number() as u64;
    let args = ctx.user.syscall_args().map(|arg| arg as u64);
    ctx.thread.enter_syscall(number, &args);
    let result = table::call(ctx, number, args);
    if TRACE.load(Ordering::Relaxed) {
        trace(ctx, number, &args, &result);
    }
    let value = match result {
        Ok(value) => value as isize,
        Err(errno) => -(errno.raw() as isize),
    };
    // `rt_sigreturn` restores every register, `rax` too; it asks not to be overwritten.
    if ctx.thread.take_keep_registers() {
        return;
    }
    ctx.user.set_return(value);
}

/// Answers a number that the table lacks.
fn unknown(number: u64) -> Result<usize> {
    UNKNOWN_CALLS.fetch_add(1, Ordering::Relaxed);
    log::debug!("system call {number} is not known");
    Err(Errno::ENOSYS)
}

fn trace(ctx: &Ctx<'_>, number: u64, args: &[u64; 6], result: &Result<usize>) {
    use core::fmt::Write;
    let mut line = String::new();
    match u32::try_from(number).ok().and_then(table::info) {
        Some(info) => {
            let _ = write!(line, "{}(", info.name);
            for (n, ((name, kind), value)) in info.args.iter().zip(args).enumerate() {
                let comma = if n == 0 { "" } else { ", " };
                let _ = write!(line, "{comma}{name}: ");
                let _ = show(&mut line, *kind, *value);
            }
            line.push(')');
        }
        None => {
            let _ = write!(line, "syscall_{number}({args:x?})");
        }
    }
    match result {
        Ok(value) if *value > 0xffff_ffff => log::info!("[{}] {line} = {value:#x}", ctx.thread.tid),
        Ok(value) => log::info!("[{}] {line} = {value}", ctx.thread.tid),
        Err(errno) => log::info!("[{}] {line} = {}", ctx.thread.tid, errno.name()),
    }
}

fn show(line: &mut String, kind: ArgKind, value: u64) -> core::fmt::Result {
    use core::fmt::Write;
    match kind {
        ArgKind::Int | ArgKind::Fd | ArgKind::Signal => write!(line, "{}", value as i32),
        ArgKind::Uint | ArgKind::Size => write!(line, "{value}"),
        ArgKind::Hex | ArgKind::Ptr => write!(line, "{value:#x}"),
        ArgKind::Mode => write!(line, "{:#o}", value as u32),
        ArgKind::Path => {
            match crate::uaccess::UserPtr::new(value as usize).read_cstr(200, Errno::E2BIG) {
                Ok(text) => write!(line, "\"{}\"", text.escape_ascii()),
                Err(_) => write!(line, "{value:#x}"),
            }
        }
    }
}
