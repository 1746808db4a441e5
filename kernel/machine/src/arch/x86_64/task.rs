//! Tasks: kernel stacks and switching between them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering, Ordering::Relaxed};

use super::io::{irq_disable, irq_restore};
use super::kernel_map::map_stack;
use super::paging::PageTable;
use super::percpu::block;
use super::usermode::{HwState, save_live};
use crate::backtrace::Backtrace;
use crate::context::{Registers, UserContext};
use crate::inspect::Interrupted;
use crate::mem::{OutOfMemory, PAGE_SIZE};
use crate::sync::IrqLock;
use crate::task::{Data, UserState};

/// A kernel stack from [`map_stack`].
struct Stack {
    bottom: usize,
    size: usize,
}

/// Stacks of ended tasks: unmapping one would cost a flush on all CPUs, so they are used again.
static SPARE: IrqLock<Vec<Stack>> = IrqLock::new(Vec::new());

/// A place where kernel code runs, or waits to go on.
pub struct Task {
    /// Stack pointer while it is not running.
    rsp: UnsafeCell<u64>,
    /// 1 while a CPU runs on its stack. Taken and released by [`switch`].
    on_cpu: AtomicU8,
    started: AtomicBool,
    ended: AtomicBool,
    entry: IrqLock<Option<Box<dyn FnOnce() + Send>>>,
    stack: Option<Stack>,
    data: Data,
    /// The address space to load when it runs; written by the task itself.
    page_table: UnsafeCell<Option<PageTable>>,
    /// The program's registers while they are lent; written by the task itself, valid as long as it is not null.
    lent: AtomicPtr<UserContext>,
}

// SAFETY: `rsp` and `page_table` are touched only by the CPU that has `on_cpu`, or by the task itself.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl Task {
    /// A task that will run `entry` when first switched to. See [`crate::task::spawn`].
    pub fn new(
        stack_size: usize,
        entry: Box<dyn FnOnce() + Send>,
    ) -> Result<Arc<Self>, OutOfMemory> {
        let size = stack_size.next_multiple_of(PAGE_SIZE).max(4 * PAGE_SIZE);
        let spare = {
            let mut spare = SPARE.lock();
            let found = spare.iter().position(|stack| stack.size == size);
            found.map(|at| spare.swap_remove(at))
        };
        let stack = match spare {
            Some(stack) => stack,
            None => Stack {
                bottom: map_stack(size).ok_or(OutOfMemory)?,
                size,
            },
        };
        let top = stack.bottom + size;
        // What `switch` pops: r15, r14, r13, r12, rbx, rbp, the return address; above it a zero to end
        // backtraces, at which the stack is aligned as after a call.
        let rsp = top - 8 * 8;
        // SAFETY: the top of a stack that is ours alone.
        unsafe {
            (rsp as *mut [u64; 8]).write([0, 0, 0, 0, 0, 0, first_steps as *const () as u64, 0]);
        }
        Ok(Arc::new(Self {
            rsp: UnsafeCell::new(rsp as u64),
            on_cpu: AtomicU8::new(0),
            started: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            entry: IrqLock::new(Some(entry)),
            stack: Some(stack),
            data: Data::new(),
            page_table: UnsafeCell::new(None),
            lent: AtomicPtr::new(core::ptr::null_mut()),
        }))
    }

    /// What a higher room attached.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Whether a CPU runs on its stack now.
    pub fn on_cpu(&self) -> bool {
        self.on_cpu.load(Ordering::Acquire) != 0
    }

    /// Keeps the task off every CPU while `look` runs, which must be short. `None` if it runs now, or has ended.
    fn held<R>(&self, look: impl FnOnce() -> R) -> Option<R> {
        let on = irq_disable();
        // A CPU that wants to switch to it meanwhile waits, as it does for one that is still switching away.
        let taken = self
            .on_cpu
            .compare_exchange(0, 1, Ordering::Acquire, Relaxed)
            .is_ok();
        let result = (taken && !self.ended.load(Relaxed)).then(look);
        if taken {
            self.on_cpu.store(0, Ordering::Release);
        }
        irq_restore(on);
        result
    }

    fn stack_range(&self) -> Range<usize> {
        self.stack.as_ref().map_or(0..usize::MAX, |stack| {
            stack.bottom..stack.bottom + stack.size
        })
    }
}

pub(crate) fn backtrace_of(task: &Task) -> Option<Backtrace> {
    task.held(|| {
        // SAFETY: nobody runs the task, so nobody writes its saved stack pointer.
        let rsp = unsafe { *task.rsp.get() } as usize;
        // As `switch` left it: six registers, rbp last, and the return address.
        let (frame, ip) = super::read_frame(rsp + 5 * 8)?;
        Some(Backtrace::within(ip, frame, task.stack_range()))
    })
    .flatten()
}

/// Reads the lent registers.
///
/// # Safety
/// The task must be held off every CPU, or be the current one.
unsafe fn lent_registers(task: &Task) -> Option<Registers> {
    let lent = task.lent.load(Ordering::Acquire);
    // SAFETY: `lend` keeps it valid while the slot has it; the task itself, its only writer, is not writing now.
    (!lent.is_null()).then(|| unsafe { (&raw const (*lent).regs).read_volatile() })
}

pub(crate) fn user_registers_of(task: &Task) -> Option<Registers> {
    // SAFETY: it is held.
    task.held(|| unsafe { lent_registers(task) }).flatten()
}

pub(crate) fn user_state_of(task: &Task) -> Option<UserState> {
    // The memory for it is taken before interrupts go off.
    let mut fp = alloc::vec![0; super::fp_state_size()];
    let found = task.held(|| {
        // SAFETY: it is held.
        let regs = unsafe { lent_registers(task) }?;
        let lent = task.lent.load(Ordering::Acquire);
        // SAFETY: valid, as above. A box is a pointer; what the processor had of the state was saved when the task
        // was switched away from.
        let bases = unsafe {
            let hw = (&raw const (*lent).hw)
                .cast::<*const HwState>()
                .read_volatile();
            HwState::peek(hw, &mut fp)
        };
        Some((regs, bases))
    });
    let (regs, (fs_base, gs_base)) = found.flatten()?;
    Some(UserState {
        regs,
        rflags: regs.rflags,
        fs_base,
        gs_base,
        fp,
    })
}

/// Makes `context` the one that the current task has lent; answers the one before.
pub(crate) fn set_lent(context: *mut UserContext) -> *mut UserContext {
    with_current_task(|task| task.lent.swap(context, Ordering::SeqCst))
}

/// The stack that this code runs on; everything for a CPU's first one.
pub(crate) fn current_stack() -> Range<usize> {
    with_current_task(|task| task.stack_range())
}

/// The registers of the current task's program.
pub(crate) fn current_user() -> Option<Registers> {
    // SAFETY: the current task, which is not writing while it reads here.
    with_current_task(|task| unsafe { lent_registers(task) })
}

pub(crate) fn interrupted() -> Interrupted {
    let [ip, frame, cs] = [0, 1, 2].map(|n| block().interrupted[n].load(Relaxed));
    Interrupted {
        user: cs & 3 != 0,
        ip: ip as usize,
        frame: frame as usize,
    }
}

impl core::fmt::Debug for Task {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Task({:p})", self)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // A task that waits forever with nobody to wake it: others may hold references to its stack.
        let reusable = *self.ended.get_mut() || !*self.started.get_mut();
        if let Some(stack) = self.stack.take()
            && reusable
        {
            SPARE.lock().push(stack);
        }
    }
}

/// Saves the caller's place in `*save_rsp`, releases `*old_on_cpu`, waits for `*new_on_cpu` to be free, takes it, and
/// goes on at `*new_rsp`. Between release and the new stack it uses no stack: another CPU may be on the old one.
#[unsafe(naked)]
unsafe extern "C" fn switch(
    save_rsp: *mut u64,
    old_on_cpu: *const AtomicU8,
    new_rsp: *const u64,
    new_on_cpu: *const AtomicU8,
) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov byte ptr [rsi], 0",
        "2: mov eax, 1",
        "xchg byte ptr [rcx], al",
        "test al, al",
        "jz 4f",
        "3: pause",
        "cmp byte ptr [rcx], 0",
        "jne 3b",
        "jmp 2b",
        "4: mov rsp, [rdx]",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Makes the code that runs on this CPU's boot stack a task. Once on each CPU.
pub(super) fn adopt() {
    let task = Arc::new(Task {
        rsp: UnsafeCell::new(0),
        on_cpu: AtomicU8::new(1),
        started: AtomicBool::new(true),
        ended: AtomicBool::new(false),
        entry: IrqLock::new(None),
        stack: None,
        data: Data::new(),
        page_table: UnsafeCell::new(None),
        lent: AtomicPtr::new(core::ptr::null_mut()),
    });
    block()
        .current
        .store(Arc::into_raw(task).cast_mut(), Relaxed);
}

pub(crate) fn current_task() -> Arc<Task> {
    with_current_task(Arc::clone)
}

#[inline]
pub(crate) fn with_current_task<R>(look: impl FnOnce(&Arc<Task>) -> R) -> R {
    // SAFETY: a running task is owned by its CPU's block (or by `previous` while being switched away from), and this
    // code runs on it, so it stays for as long as this call can go on. The borrowed owner is not dropped.
    let task =
        ManuallyDrop::new(unsafe { Arc::from_raw(block().current.load(Relaxed).cast_const()) });
    look(&task)
}

pub(crate) fn switch_to(next: &Arc<Task>) {
    crate::sync::assert_may_block();
    let on = irq_disable();
    let current = block().current.load(Relaxed);
    if !core::ptr::eq(current, Arc::as_ptr(next)) {
        go(current, next.clone());
    }
    irq_restore(on);
}

/// Leaves `current` for `next`; returns when `current` is switched to again. Interrupts are off.
fn go(current: *mut Task, next: Arc<Task>) {
    assert!(
        !next.ended.load(Relaxed),
        "switching to a task that has ended"
    );
    save_live();
    let block = block();
    next.started.store(true, Relaxed);
    block.previous.store(current, Relaxed);
    let new = Arc::into_raw(next).cast_mut();
    block.current.store(new, Relaxed);
    // SAFETY: both tasks are owned: the new one by `current`, the old one by `previous`. `switch` makes sure that
    // no other CPU is on the new one's stack, and its saved place is valid: it was made by `new` or by `switch`.
    unsafe {
        switch(
            (*current).rsp.get(),
            &raw const (*current).on_cpu,
            (*new).rsp.get(),
            &raw const (*new).on_cpu,
        );
    }
    after_switch();
}

pub(crate) fn exit_to(next: Arc<Task>) -> ! {
    with_current_task(|task| {
        assert!(!Arc::ptr_eq(task, &next), "a task cannot exit to itself");
        task.ended.store(true, Relaxed);
        // SAFETY: the task's own slot; dropping the table here, not when the task's last owner goes.
        drop(unsafe { (*task.page_table.get()).take() });
    });
    irq_disable();
    let current = block().current.load(Relaxed);
    // Nothing on this stack is dropped any more: `next` becomes its CPU's owner of it.
    go(current, next);
    unreachable!("an ended task was switched to")
}

/// The new task looks after the old one: its owner by this CPU goes, and the address space is loaded.
fn after_switch() {
    let block = block();
    let previous = block.previous.swap(core::ptr::null_mut(), Relaxed);
    let current = block.current.load(Relaxed);
    // SAFETY: the current task's slot is written only by itself.
    if let Some(table) = unsafe { &*(*current).page_table.get() }
        && table.root() != block.root.load(Relaxed)
    {
        load_table(table);
    }
    if !previous.is_null() {
        // SAFETY: the ownership that `current` had when the old task ran.
        drop(unsafe { Arc::from_raw(previous.cast_const()) });
    }
}

/// The table loaded on each CPU: owned, so that it outlives its use. Touched by its CPU only, interrupts off.
static LOADED: crate::cpu::PerCpu<IrqLock<Option<PageTable>>> =
    crate::cpu::PerCpu::new([const { IrqLock::new(None) }; crate::cpu::MAX_CPUS]);

fn load_table(table: &PageTable) {
    let mut loaded = LOADED.get().lock();
    table.load(loaded.as_ref());
    let old = loaded.replace(table.clone());
    drop(loaded);
    drop(old);
}

/// The current task's address space, from now on.
pub(super) fn set_page_table(table: &PageTable) {
    let on = irq_disable();
    let old = with_current_task(|task| {
        // SAFETY: the task's own slot.
        unsafe { (*task.page_table.get()).replace(table.clone()) }
    });
    if table.root() != block().root.load(Relaxed) {
        load_table(table);
    }
    irq_restore(on);
    drop(old);
}

/// Where a new task starts: on its own stack, interrupts off, just switched to.
extern "C" fn first_steps() -> ! {
    after_switch();
    let entry = with_current_task(|task| task.entry.lock().take());
    irq_restore(true);
    if let Some(entry) = entry {
        entry();
    }
    crate::task::returned()
}
