//! Each CPU's own block, found through GS: what the entry code needs at fixed offsets, descriptor tables, emergency
//! stacks.

use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed,
};

use super::io::{msr, wrmsr};
use super::task::Task;
use super::usermode::HwState;
use crate::context::Registers;
use crate::cpu::MAX_CPUS;

pub(super) const KERNEL_CODE: u16 = 0x10;
pub(super) const USER_DATA: u16 = 0x2b;
pub(super) const USER_CODE: u16 = 0x33;
const TSS_SELECTOR: u16 = 0x40;

/// Index in the TSS of the stack for double faults, NMIs and machine checks.
pub(super) const IST_DOUBLE_FAULT: u8 = 1;
pub(super) const IST_NMI: u8 = 2;
pub(super) const IST_MACHINE_CHECK: u8 = 3;

const EMERGENCY_STACK: usize = 8192;

/// The task state segment: only the stack pointers matter.
#[repr(C, packed(4))]
struct Tss {
    _reserved: u32,
    rsp: [u64; 3],
    _reserved2: u64,
    ist: [u64; 7],
    _reserved3: u64,
    _reserved4: u16,
    io_map: u16,
}

/// The block. The fields down to `cpu` are used by assembly through their offsets.
#[repr(C, align(64))]
pub(super) struct CpuBlock {
    this: AtomicPtr<CpuBlock>,
    /// Kernel stack pointer to go back to when user mode ends.
    pub kernel_rsp: AtomicU64,
    /// End of the `Registers` that user mode's state is pushed into.
    pub user_top: AtomicU64,
    /// Holds the user's stack pointer for a moment.
    pub scratch: AtomicU64,
    pub cpu: AtomicU32,
    pub lapic: AtomicU32,
    /// The next return to user mode must come straight back.
    pub kick: AtomicBool,
    pub online: AtomicBool,
    /// [`super::paging`]: a flush is asked of this CPU.
    pub flush_wanted: AtomicBool,
    /// It is halted in the kernel: flushes of user translations can wait until it wakes.
    pub lazy: AtomicBool,
    /// A flush was put off.
    pub stale: AtomicBool,
    pub in_heap: AtomicU8,
    pub held_locks: AtomicI32,
    /// The task that runs: owned as by `Arc::into_raw`.
    pub current: AtomicPtr<Task>,
    /// The task just switched away from, owned, until the next one has looked after it.
    pub previous: AtomicPtr<Task>,
    /// Whose user state is in this CPU's registers, live.
    pub hw_live: AtomicPtr<HwState>,
    /// Whose state was last in this CPU's registers, perhaps saved since.
    pub hw_loaded: AtomicPtr<HwState>,
    /// Physical address of the page table's root in CR3.
    pub root: AtomicU64,
    pub interrupts: AtomicU64,
    /// What the last interrupt came to: instruction pointer, frame pointer, code selector.
    pub interrupted: [AtomicU64; 3],
    /// See [`super::time`].
    pub timer_armed_tsc: AtomicU64,
    pub timer_armed_count: AtomicU32,
    tss: Tss,
    gdt: [u64; 10],
}

pub(super) const KERNEL_RSP: usize = offset_of!(CpuBlock, kernel_rsp);
pub(super) const USER_TOP: usize = offset_of!(CpuBlock, user_top);
pub(super) const SCRATCH: usize = offset_of!(CpuBlock, scratch);

impl CpuBlock {
    const fn new() -> Self {
        Self {
            this: AtomicPtr::new(core::ptr::null_mut()),
            kernel_rsp: AtomicU64::new(0),
            user_top: AtomicU64::new(0),
            scratch: AtomicU64::new(0),
            cpu: AtomicU32::new(0),
            lapic: AtomicU32::new(0),
            kick: AtomicBool::new(false),
            online: AtomicBool::new(false),
            flush_wanted: AtomicBool::new(false),
            lazy: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            in_heap: AtomicU8::new(0),
            held_locks: AtomicI32::new(0),
            current: AtomicPtr::new(core::ptr::null_mut()),
            previous: AtomicPtr::new(core::ptr::null_mut()),
            hw_live: AtomicPtr::new(core::ptr::null_mut()),
            hw_loaded: AtomicPtr::new(core::ptr::null_mut()),
            root: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            interrupted: [const { AtomicU64::new(0) }; 3],
            timer_armed_tsc: AtomicU64::new(0),
            timer_armed_count: AtomicU32::new(0),
            tss: Tss {
                _reserved: 0,
                rsp: [0; 3],
                _reserved2: 0,
                ist: [0; 7],
                _reserved3: 0,
                _reserved4: 0,
                io_map: size_of::<Tss>() as u16,
            },
            gdt: [
                0,
                0,
                0x00af_9b00_0000_ffff, // 0x10 kernel code
                0x00cf_9300_0000_ffff, // 0x18 kernel data
                0x00cf_fb00_0000_ffff, // 0x20 user code, 32-bit
                0x00cf_f300_0000_ffff, // 0x28 user data
                0x00af_fb00_0000_ffff, // 0x30 user code: selectors as on Linux
                0,
                0,
                0,
            ],
        }
    }

    /// Remembers what an interrupt has come to.
    #[inline]
    pub(super) fn set_interrupted(&self, frame: &Registers) {
        for (to, from) in self
            .interrupted
            .iter()
            .zip([frame.rip, frame.rbp, frame.cs])
        {
            to.store(from, Relaxed);
        }
    }

    /// Sets the stack that the processor takes when it leaves ring 3.
    ///
    /// # Safety
    /// `this` must be this CPU's block, and `rsp` the end of memory that stays valid while ring 3 runs.
    #[inline]
    pub(super) unsafe fn set_trap_stack(&self, rsp: u64) {
        // SAFETY: only this CPU writes its TSS, with interrupts off; the processor reads it. The field is only
        // 4-aligned.
        unsafe { (&raw const self.tss.rsp[0]).cast_mut().write_unaligned(rsp) };
    }
}

static mut BLOCKS: [CpuBlock; MAX_CPUS] = [const { CpuBlock::new() }; MAX_CPUS];
/// Emergency stacks of the first CPU; the others' come from the heap.
static mut FIRST_STACKS: [[u8; EMERGENCY_STACK]; 3] = [[0; EMERGENCY_STACK]; 3];

/// The block of CPU `cpu`. Panics if there can be no such CPU.
#[inline]
pub(super) fn block_of(cpu: usize) -> &'static CpuBlock {
    assert!(cpu < MAX_CPUS);
    // SAFETY: in bounds; shared access is to atomics only, and to the TSS and GDT through raw pointers by their CPU.
    unsafe { &*(&raw const BLOCKS).cast::<CpuBlock>().add(cpu) }
}

/// This CPU's block.
#[inline]
pub(super) fn block() -> &'static CpuBlock {
    let this: *const CpuBlock;
    // SAFETY: GS points to the block of this CPU from `init` on, and blocks are never freed.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(readonly, nostack, preserves_flags));
        &*this
    }
}

#[inline]
pub(crate) fn cpu_id() -> usize {
    let id: u32;
    // SAFETY: as in `block`.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) id, const offset_of!(CpuBlock, cpu), options(readonly, nostack, preserves_flags));
    }
    // The assertion lets the compiler drop bounds checks on arrays of MAX_CPUS.
    debug_assert!((id as usize) < MAX_CPUS);
    id as usize & (MAX_CPUS - 1)
}

#[cfg(debug_assertions)]
#[inline]
pub(crate) fn held_locks() -> &'static AtomicI32 {
    &block().held_locks
}

/// Loads the descriptor tables of CPU `cpu` and makes GS point to its block.
///
/// # Safety
/// Once on each CPU, as that CPU, before anything uses `block`. `stacks` are the tops of three emergency stacks.
pub(super) unsafe fn init(cpu: usize, stacks: [u64; 3]) {
    // SAFETY: this CPU's block is not used by anyone else before this.
    let block = unsafe { &mut *(&raw mut BLOCKS).cast::<CpuBlock>().add(cpu) };
    block.this = AtomicPtr::new(core::ptr::from_mut(block));
    block.cpu.store(cpu as u32, Relaxed);
    for (slot, top) in [IST_DOUBLE_FAULT, IST_NMI, IST_MACHINE_CHECK]
        .into_iter()
        .zip(stacks)
    {
        block.tss.ist[slot as usize - 1] = top;
    }
    let base = (&raw const block.tss) as u64;
    let limit = size_of::<Tss>() as u64 - 1;
    block.gdt[8] = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    block.gdt[9] = base >> 32;

    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let pointer = Pointer {
        limit: size_of_val(&block.gdt) as u16 - 1,
        base: (&raw const block.gdt) as u64,
    };
    // SAFETY: the table has the selectors in use (code 0x10, stack 0x18) with the same meaning as before.
    unsafe {
        asm!("lgdt [{}]", "ltr {:x}", in(reg) &raw const pointer, in(reg) TSS_SELECTOR, options(nostack, preserves_flags));
        wrmsr(msr::GS_BASE, (&raw const *block) as u64);
        wrmsr(msr::KERNEL_GS_BASE, 0);
    }
}

/// Tops of the first CPU's emergency stacks.
pub(super) fn first_stacks() -> [u64; 3] {
    let base = (&raw const FIRST_STACKS) as u64;
    core::array::from_fn(|i| (base + (i as u64 + 1) * EMERGENCY_STACK as u64) & !15)
}

/// Tops of three new emergency stacks, never freed.
pub(super) fn new_stacks() -> [u64; 3] {
    core::array::from_fn(|_| {
        let stack = alloc::vec![0u8; EMERGENCY_STACK].leak();
        (stack.as_ptr() as u64 + EMERGENCY_STACK as u64) & !15
    })
}

/// Marks this CPU as being inside the heap's cache; see `mem::slab`.
#[inline]
pub(crate) fn heap_flag() -> &'static AtomicU8 {
    &block().in_heap
}
