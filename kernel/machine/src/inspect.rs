//! What a timer interrupt has interrupted: for a profiler that samples.
//!
//! For tasks that do not run, see [`crate::task::Task::backtrace`] and its neighbours.

use crate::arch;
use crate::backtrace::Backtrace;
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

/// Walks the program's stack of the current task by frame pointers, from its last entry into the kernel, without
/// bringing pages in: call it with interrupts off. Fills `into` from the front and answers how many addresses there
/// are, 0 for a task without a program.
///
/// The first is the instruction pointer. The second is the word on top of the stack, whatever it is: in a function that
/// has not made its frame yet it is the return address. From the third on, the return addresses of the frames.
pub fn user_frames(into: &mut [usize]) -> usize {
    let Some((ip, sp, mut frame)) = arch::current_user() else {
        return 0;
    };
    if into.len() < 2 || crate::cpu::interrupts_enabled() {
        return 0;
    }
    into[0] = ip;
    into[1] = user::read_u64(sp).map_or(0, |word| word as usize);
    let mut len = 2;
    let mut low = sp;
    while len < into.len() && frame >= low && frame.is_multiple_of(8) {
        let (Ok(next), Ok(back)) = (user::read_u64(frame), user::read_u64(frame + 8)) else {
            break;
        };
        if back == 0 {
            break;
        }
        into[len] = back as usize;
        len += 1;
        low = frame + 16;
        frame = next as usize;
    }
    len
}
