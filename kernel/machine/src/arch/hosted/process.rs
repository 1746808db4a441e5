//! CPUs, tasks and user mode as far as the host can show them: "CPU" numbers are dealt out to threads, tasks are the
//! host's threads (see `sched`'s hosted backend), and user mode cannot be entered.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use crate::context::{InvalidFpState, Trap, UserContext};
use crate::cpu::{Ipi, MAX_CPUS};
use crate::mem::OutOfMemory;
use crate::task::Data;

thread_local! {
    static CPU: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % MAX_CPUS
    };
    static TASK: Arc<Task> = Arc::new(Task { data: Data::new() });
    static IRQS: Cell<bool> = const { Cell::new(true) };
    static HELD: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
}

#[inline]
pub(crate) fn irq_disable() -> bool {
    IRQS.replace(false)
}

#[inline]
pub(crate) fn irq_restore(on: bool) {
    IRQS.set(on);
}

pub(crate) fn irqs_enabled() -> bool {
    IRQS.get()
}

/// Spinning locks that this thread holds.
#[cfg(debug_assertions)]
pub(crate) fn held_locks() -> &'static AtomicI32 {
    HELD.with(|held| *held)
}

/// Marks this thread as being inside the heap's cache; see `mem::slab`.
#[cfg(test)]
pub(crate) fn heap_flag() -> &'static std::sync::atomic::AtomicU8 {
    thread_local! {
        static FLAG: &'static std::sync::atomic::AtomicU8 = Box::leak(Box::default());
    }
    FLAG.with(|flag| *flag)
}

pub(crate) fn cpu_id() -> usize {
    CPU.with(|cpu| *cpu)
}

pub(crate) fn cpu_count() -> usize {
    MAX_CPUS
}

pub(crate) fn cpu_online(cpu: usize) -> bool {
    cpu < MAX_CPUS
}

pub(crate) fn start_others(_entry: fn() -> !) {}

pub(crate) fn halt() {
    irq_restore(true);
    std::thread::sleep(std::time::Duration::from_millis(1));
}

pub(crate) fn send_ipi(_cpu: usize, _ipi: Ipi) {}

pub(crate) fn kick_self() {}

/// A place where code runs. On the host: the thread.
pub struct Task {
    data: Data,
}

impl Task {
    /// Not on the host: threads are spawned by `sched`'s hosted backend.
    pub fn new(
        _stack_size: usize,
        _entry: Box<dyn FnOnce() + Send>,
    ) -> Result<Arc<Self>, OutOfMemory> {
        Err(OutOfMemory)
    }

    /// What a higher room attached.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Whether a CPU runs on its stack now.
    pub fn on_cpu(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

pub(crate) fn current_task() -> Arc<Task> {
    TASK.with(Arc::clone)
}

pub(crate) fn with_current_task<R>(look: impl FnOnce(&Arc<Task>) -> R) -> R {
    look(&current_task())
}

pub(crate) fn switch_to(_next: &Arc<Task>) {
    panic!("tasks cannot be switched on the host");
}

pub(crate) fn exit_to(_next: Arc<Task>) -> ! {
    panic!("tasks cannot be switched on the host");
}

pub(crate) fn backtrace_of(_task: &Task) -> Option<crate::backtrace::Backtrace> {
    None
}

pub(crate) fn user_registers_of(_task: &Task) -> Option<crate::context::Registers> {
    None
}

pub(crate) fn user_state_of(_task: &Task) -> Option<crate::task::UserState> {
    None
}

pub(crate) fn set_lent(_context: *mut UserContext) -> *mut UserContext {
    std::ptr::null_mut()
}

pub(crate) fn current_stack() -> std::ops::Range<usize> {
    0..0
}

pub(crate) fn current_user() -> Option<crate::context::Registers> {
    None
}

pub(crate) fn interrupted() -> crate::inspect::Interrupted {
    crate::inspect::Interrupted::default()
}

const FP_SIZE: usize = 576;

/// What of a thread's user state lives in the processor while it runs.
pub(crate) struct HwState {
    fs: usize,
    gs: usize,
    fp: [u8; FP_SIZE],
}

impl HwState {
    pub(crate) fn new() -> Box<Self> {
        let mut state = Box::new(Self {
            fs: 0,
            gs: 0,
            fp: [0; FP_SIZE],
        });
        state.reset_fp();
        state
    }

    pub(crate) fn may_drop(&self) -> bool {
        true
    }

    pub(crate) fn duplicate(&mut self) -> Box<Self> {
        Box::new(Self { ..*self })
    }

    pub(crate) fn bases(&mut self) -> (usize, usize) {
        (self.fs, self.gs)
    }

    pub(crate) fn set_bases(&mut self, fs: usize, gs: usize) {
        (self.fs, self.gs) = (fs, gs);
    }

    pub(crate) fn fp_bytes(&mut self) -> &[u8] {
        &self.fp
    }

    pub(crate) fn set_fp_bytes(&mut self, bytes: &[u8]) -> Result<(), InvalidFpState> {
        if bytes.len() < 512 || bytes.len() > FP_SIZE {
            return Err(InvalidFpState);
        }
        self.reset_fp();
        self.fp[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn reset_fp(&mut self) {
        self.fp = [0; FP_SIZE];
        self.fp[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        self.fp[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    }
}

pub(crate) fn fp_state_size() -> usize {
    FP_SIZE
}

pub(crate) fn fp_features() -> u64 {
    3
}

pub(crate) fn run_user(_context: &mut UserContext) -> Trap {
    std::thread::yield_now();
    Trap::Interrupt
}
