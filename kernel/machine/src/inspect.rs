//! What a timer interrupt has interrupted: for a profiler that samples.
//!
//! For tasks that do not run, see [`crate::task::Task::backtrace`] and its neighbours.

use crate::arch;
use crate::backtrace::Backtrace;
use crate::context::Registers;
use crate::mem::PAGE_SIZE;
use crate::user;

/// What the last interrupt of this CPU interrupted. Call it from an interrupt handler: elsewhere the answer is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupted {
    /// It was the program.
    pub user: bool,
    /// The instruction pointer.
    pub ip: usize,
    /// The frame pointer.
    pub frame: usize,
}

/// What the last interrupt of this CPU interrupted.
pub fn interrupted() -> Interrupted {
    arch::interrupted()
}

/// The kernel's frames of what was interrupted, innermost first; `None` if it was the program.
pub fn kernel_frames() -> Option<Backtrace> {
    let what = interrupted();
    (!what.user).then(|| Backtrace::within(what.ip, what.frame, arch::current_stack()))
}

/// The program's registers of the current task at its last entry into the kernel, and how much of its stack was copied
/// into `into`, from the stack pointer up: what is present of it, without bringing pages in. Call it with interrupts off.
/// `None` for a task without a program.
pub fn user_stack(into: &mut [u8]) -> Option<(Registers, usize)> {
    let regs = arch::current_user()?;
    let mut len = 0;
    while len < into.len() && !crate::cpu::interrupts_enabled() {
        let from = (regs.rsp as usize).wrapping_add(len);
        // A page at a time: the next one may be missing.
        let most = (PAGE_SIZE - from % PAGE_SIZE).min(into.len() - len);
        if user::copy_from_user(from, &mut into[len..len + most]).is_err() {
            break;
        }
        len += most;
    }
    Some((regs, len))
}
