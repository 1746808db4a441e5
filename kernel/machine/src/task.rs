//! Tasks: a kernel stack with a saved place in it, and switching between them. Which task runs when is `sched`'s.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use crate::arch;
pub use crate::arch::Task;
use crate::backtrace::Backtrace;
use crate::context::Registers;
use crate::mem::OutOfMemory;
use crate::sync::Once;

/// Usual size of a kernel stack in bytes.
pub const STACK_SIZE: usize = if cfg!(debug_assertions) {
    128 << 10
} else {
    48 << 10
};

/// What a higher room attaches to a task.
pub type Data = Once<Arc<dyn Any + Send + Sync>>;

/// The task that runs this code.
pub fn current() -> Arc<Task> {
    arch::current_task()
}

/// Calls `look` with the task that runs this code, without counting a reference.
#[inline]
pub fn with_current<R>(look: impl FnOnce(&Arc<Task>) -> R) -> R {
    arch::with_current_task(look)
}

/// Stops running the current task and goes on with `next`; returns when somebody switches back to the current one,
/// perhaps on another CPU. If `next` is still being switched away from on another CPU, waits for that. Panics if
/// `next` has ended. Interrupts are off during the switch and afterwards as they were before.
pub fn switch_to(next: &Arc<Task>) {
    arch::switch_to(next)
}

/// Ends the current task for good and goes on with `next`. The current task's stack is freed with its last owner;
/// what the caller and its callers still own is leaked.
pub fn exit_to(next: Arc<Task>) -> ! {
    arch::exit_to(next)
}

static RETURN_HOOK: Once<fn() -> !> = Once::new();

/// Sets the function that a task goes on with when its `entry` returns, everything in it dropped: it is to end with
/// [`exit_to`]. The first caller wins.
pub fn set_return_hook(hook: fn() -> !) {
    let _ = RETURN_HOOK.set(hook);
}

#[cfg(target_os = "none")]
pub(crate) fn returned() -> ! {
    match RETURN_HOOK.get() {
        Some(hook) => hook(),
        None => panic!("a task's entry returned"),
    }
}

/// A task that will run `entry` on a stack of its own, with interrupts on, when first switched to. When `entry`
/// returns, the task goes on with the function of [`set_return_hook`]; `entry` may also end by [`exit_to`].
pub fn spawn(stack_size: usize, entry: Box<dyn FnOnce() + Send>) -> Result<Arc<Task>, OutOfMemory> {
    Task::new(stack_size, entry)
}

/// The program's state of a task that does not run; see [`Task::user_state`].
#[derive(Clone, Debug)]
pub struct UserState {
    /// The general registers, as of the last entry into the kernel.
    pub regs: Registers,
    /// The flags register.
    pub rflags: u64,
    /// The FS segment's base: the thread pointer.
    pub fs_base: usize,
    /// The GS segment's base.
    pub gs_base: usize,
    /// Floating-point and vector state, as [`UserContext::fp_state`](crate::context::UserContext::fp_state) has it.
    pub fp: Vec<u8>,
}

impl Task {
    /// Where its kernel code stopped, innermost first. `None` while it runs on a CPU, or once it has ended.
    pub fn backtrace(&self) -> Option<Backtrace> {
        arch::backtrace_of(self)
    }

    /// The program's registers of a task that lent them ([`UserContext::lend`](crate::context::UserContext::lend)), as
    /// of its last entry into the kernel. `None` while it runs on a CPU, and for a task without.
    pub fn user_registers(&self) -> Option<Registers> {
        arch::user_registers_of(self)
    }

    /// The program's whole state, under the same conditions as [`Task::user_registers`].
    pub fn user_state(&self) -> Option<UserState> {
        arch::user_state_of(self)
    }
}
