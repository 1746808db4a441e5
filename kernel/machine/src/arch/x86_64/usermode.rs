//! Running ring 3, and the part of a thread's user state that stays in the processor across system calls: vector
//! registers and segment bases.
//!
//! The kernel uses no vector registers, so that state is saved only when the task is switched away from, and loaded
//! only when user mode is entered and it is not there.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::boxed::Box;
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

use super::features::{has_fsgsbase, has_xsave, has_xsaveopt, xcr0, xsave_size};
use super::io::{irq_disable, irq_restore, msr, read_cr2, wrmsr};
use super::percpu::{USER_CODE, USER_DATA, block};
use super::task::Task;
use super::trap::{enter_user, interrupt_from_user};
use crate::context::{InvalidFpState, Registers, SYSCALL_VECTOR, Trap, UserContext};
use crate::user::USER_END;

/// No CPU: the state in memory is not in any processor's registers.
const NOWHERE: u32 = u32::MAX;

/// An aligned XSAVE area of [`xsave_size`] bytes.
#[repr(transparent)]
struct Area(NonNull<u8>);

impl Area {
    fn layout() -> Layout {
        match Layout::from_size_align(xsave_size(), 64) {
            Ok(layout) => layout,
            Err(_) => unreachable!("the processor reports a size of a few KiB"),
        }
    }

    fn new() -> Self {
        // SAFETY: the size is not zero.
        let at = unsafe { alloc_zeroed(Self::layout()) };
        Self(NonNull::new(at).unwrap_or_else(|| handle_alloc_error(Self::layout())))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this size, initialised.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr(), xsave_size()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated with this size, initialised, borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.0.as_ptr(), xsave_size()) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.0.as_ptr(), Self::layout()) }
    }
}

/// What of a thread's user state lives in the processor while it runs.
pub(crate) struct HwState {
    fs: usize,
    gs: usize,
    /// CPU whose registers held this state last, unchanged in memory since.
    cpu: u32,
    /// The task that runs it, from the first time on: its CPU may hold the state in registers at any time, so nobody
    /// else may touch it. Only compared.
    task: *const Task,
    area: Area,
}

// SAFETY: the area is owned plain memory.
unsafe impl Send for HwState {}
// SAFETY: `&HwState` gives no access to the area's content while it changes.
unsafe impl Sync for HwState {}

const MXCSR_DEFAULT: u32 = 0x1f80;
const FCW_DEFAULT: u16 = 0x37f;

impl HwState {
    pub(crate) fn new() -> Box<Self> {
        let mut state = Box::new(Self {
            fs: 0,
            gs: 0,
            cpu: NOWHERE,
            task: core::ptr::null(),
            area: Area::new(),
        });
        state.reset_fp();
        state
    }

    /// Panics unless the state is the current task's, or nobody's yet.
    fn check_task(&self) {
        let current = block().current.load(Relaxed).cast_const();
        assert!(
            self.task.is_null() || core::ptr::eq(self.task, current),
            "a user context was touched by a task that does not run it"
        );
    }

    /// Brings the state to memory, and makes memory the only place that has it.
    fn own(&mut self) {
        self.check_task();
        let on = irq_disable();
        let block = block();
        if core::ptr::eq(block.hw_live.load(Relaxed), self) {
            // SAFETY: the live state of this CPU is this one.
            unsafe { self.save() };
            block.hw_live.store(core::ptr::null_mut(), Relaxed);
        }
        self.cpu = NOWHERE;
        irq_restore(on);
    }

    /// Brings the state to memory; the registers keep it.
    fn sync(&mut self) {
        self.check_task();
        let on = irq_disable();
        if core::ptr::eq(block().hw_live.load(Relaxed), self) {
            // SAFETY: the live state of this CPU is this one.
            unsafe { self.save() };
        }
        irq_restore(on);
    }

    /// # Safety
    /// This CPU's registers must hold this state; interrupts off.
    unsafe fn save(&mut self) {
        let (low, high) = (xcr0() as u32, (xcr0() >> 32) as u32);
        let at = self.area.0.as_ptr();
        // SAFETY: the area is aligned and as large as CPUID says the states in XCR0 need.
        unsafe {
            if has_xsaveopt() {
                asm!("xsaveopt64 [{}]", in(reg) at, in("eax") low, in("edx") high, options(nostack, preserves_flags));
            } else if has_xsave() {
                asm!("xsave64 [{}]", in(reg) at, in("eax") low, in("edx") high, options(nostack, preserves_flags));
            } else {
                asm!("fxsave64 [{}]", in(reg) at, options(nostack, preserves_flags));
            }
            if has_fsgsbase() {
                let (fs, gs): (usize, usize);
                // The kernel's GS is loaded: swap it out for a moment. Interrupts are off; an NMI can tell.
                asm!("rdfsbase {fs}", "swapgs", "rdgsbase {gs}", "swapgs", fs = out(reg) fs, gs = out(reg) gs,
                    options(nostack, preserves_flags));
                (self.fs, self.gs) = (fs, gs);
            }
            // Without FSGSBASE the program cannot change the bases itself: memory is right already.
        }
    }

    /// # Safety
    /// Interrupts off; nobody else's state is live in this CPU's registers.
    unsafe fn load(&self) {
        let (low, high) = (xcr0() as u32, (xcr0() >> 32) as u32);
        let at = self.area.0.as_ptr();
        // SAFETY: the area holds a state saved by the processor or validated by `set_fp_bytes`. The bases are user
        // addresses.
        unsafe {
            if has_xsave() {
                asm!("xrstor64 [{}]", in(reg) at, in("eax") low, in("edx") high, options(nostack, preserves_flags));
            } else {
                asm!("fxrstor64 [{}]", in(reg) at, options(nostack, preserves_flags));
            }
            if has_fsgsbase() {
                asm!("wrfsbase {fs}", "swapgs", "wrgsbase {gs}", "swapgs", fs = in(reg) self.fs, gs = in(reg) self.gs,
                    options(nostack, preserves_flags));
            } else {
                wrmsr(msr::FS_BASE, self.fs as u64);
                wrmsr(msr::KERNEL_GS_BASE, self.gs as u64);
            }
        }
    }

    /// Segment bases and the bytes of the area, of a state that is in memory: its task is not on a CPU.
    ///
    /// # Safety
    /// `this` must be valid, and its task held off every CPU while this runs.
    pub(super) unsafe fn peek(this: *const Self, fp: &mut [u8]) -> (usize, usize) {
        // SAFETY: by the caller's word nobody writes; the area is as long as `xsave_size`, which `fp` is cut to.
        unsafe {
            let area = (&raw const (*this).area)
                .cast::<*const u8>()
                .read_volatile();
            super::io::copy(area, fp.as_mut_ptr(), fp.len().min(xsave_size()));
            (
                (&raw const (*this).fs).read_volatile(),
                (&raw const (*this).gs).read_volatile(),
            )
        }
    }

    /// Whether no other task's CPU can have this state in its registers.
    pub(crate) fn may_drop(&self) -> bool {
        self.task.is_null() || core::ptr::eq(self.task, block().current.load(Relaxed))
    }

    pub(crate) fn duplicate(&mut self) -> Box<Self> {
        self.sync();
        let mut copy = Box::new(Self {
            fs: self.fs,
            gs: self.gs,
            cpu: NOWHERE,
            task: core::ptr::null(),
            area: Area::new(),
        });
        copy.area.bytes_mut().copy_from_slice(self.area.bytes());
        copy
    }

    pub(crate) fn bases(&mut self) -> (usize, usize) {
        self.sync();
        (self.fs, self.gs)
    }

    pub(crate) fn set_bases(&mut self, fs: usize, gs: usize) {
        self.own();
        (self.fs, self.gs) = (fs, gs);
    }

    pub(crate) fn fp_bytes(&mut self) -> &[u8] {
        self.sync();
        // XSAVEOPT leaves out what is in its initial state; the standard format wants it readable all the same, and
        // it is: such components are marked absent in XSTATE_BV.
        self.area.bytes()
    }

    pub(crate) fn set_fp_bytes(&mut self, bytes: &[u8]) -> Result<(), InvalidFpState> {
        if bytes.len() < 512 {
            return Err(InvalidFpState);
        }
        self.own();
        self.reset_fp();
        let len = bytes.len().min(xsave_size());
        let has_header = has_xsave() && len >= 576;
        let area = self.area.bytes_mut();
        area[..if has_header { len } else { 512 }]
            .copy_from_slice(&bytes[..if has_header { len } else { 512 }]);
        // What XRSTOR would fault on: MXCSR bits that do not exist (the upper half), unknown components, a compacted format.
        let mxcsr = u32::from_le_bytes([area[24], area[25], area[26], area[27]]);
        area[24..28].copy_from_slice(&(mxcsr & 0xffff).to_le_bytes());
        if has_xsave() && area.len() >= 576 {
            let present = if has_header {
                u64::from_le_bytes([
                    area[512], area[513], area[514], area[515], area[516], area[517], area[518],
                    area[519],
                ])
            } else {
                3
            };
            area[512..576].fill(0);
            area[512..520].copy_from_slice(&(present & xcr0()).to_le_bytes());
        }
        Ok(())
    }

    pub(crate) fn reset_fp(&mut self) {
        self.own();
        let area = self.area.bytes_mut();
        area.fill(0);
        area[..2].copy_from_slice(&FCW_DEFAULT.to_le_bytes());
        area[24..28].copy_from_slice(&MXCSR_DEFAULT.to_le_bytes());
    }
}

impl Drop for HwState {
    fn drop(&mut self) {
        // Live only on the CPU whose task owns it; another CPU may remember the address, but `cpu` tells it apart.
        let on = irq_disable();
        let block = block();
        let this: *mut Self = self;
        let _ = block
            .hw_live
            .compare_exchange(this, core::ptr::null_mut(), Relaxed, Relaxed);
        let _ = block
            .hw_loaded
            .compare_exchange(this, core::ptr::null_mut(), Relaxed, Relaxed);
        irq_restore(on);
    }
}

/// Saves the live user state before this CPU switches to another task. Interrupts off.
#[inline]
pub(super) fn save_live() {
    let block = block();
    let live = block.hw_live.load(Relaxed);
    if !live.is_null() {
        // SAFETY: `hw_live` points to the state of the current task's context: it is cleared before that is freed,
        // and its owner is this task, which is not using it now.
        unsafe {
            (*live).save();
            (*live).cpu = block.cpu.load(Relaxed);
        }
        block.hw_live.store(core::ptr::null_mut(), Relaxed);
    }
}

pub(crate) fn fp_state_size() -> usize {
    xsave_size()
}

pub(crate) fn fp_features() -> u64 {
    xcr0()
}

pub(crate) fn run_user(context: &mut UserContext) -> Trap {
    let regs = &mut context.regs;
    if regs.rip as usize >= USER_END {
        // What the fetch would give; IRET would fault in the kernel instead.
        return Trap::Exception {
            vector: 14,
            error: 0x15,
            addr: regs.rip as usize,
        };
    }
    regs.cs = USER_CODE.into();
    regs.ss = USER_DATA.into();
    irq_disable();
    let block = block();
    if block.kick.swap(false, Relaxed) {
        irq_restore(true);
        return Trap::Interrupt;
    }
    let hw: *mut HwState = &mut **context.hw;
    context.hw.check_task();
    context.hw.task = block.current.load(Relaxed);
    if block.hw_live.load(Relaxed) != hw {
        save_live();
        // SAFETY: interrupts are off, and what was live has been saved.
        unsafe {
            if block.hw_loaded.load(Relaxed) != hw || (*hw).cpu != block.cpu.load(Relaxed) {
                (*hw).load();
            }
            (*hw).cpu = NOWHERE;
        }
        block.hw_loaded.store(hw, Relaxed);
        block.hw_live.store(hw, Relaxed);
    }
    let registers: *mut Registers = regs;
    // SAFETY: one past the registers; aligned to 16 as the processor wants.
    let top = unsafe { registers.add(1) } as u64;
    block.user_top.store(top, Relaxed);
    let by_sysret = regs.rcx == regs.rip && regs.r11 == regs.rflags && regs.rflags & 0x1_0100 == 0;
    // SAFETY: this CPU's block; the registers are borrowed until `enter_user` returns. Selectors are the user's, rip
    // is canonical, and the flags keep interrupts on and I/O privilege off: `Registers` lets nobody else set them.
    unsafe {
        block.set_trap_stack(top);
        enter_user(registers, by_sysret.into());
    }
    match regs.vector {
        SYSCALL_VECTOR => {
            irq_restore(true);
            Trap::Syscall
        }
        vector @ 0..32 => {
            let addr = if vector == 14 { read_cr2() } else { 0 };
            irq_restore(true);
            Trap::Exception {
                vector: vector as u8,
                error: regs.error as u32,
                addr,
            }
        }
        _ => {
            interrupt_from_user(regs);
            irq_restore(true);
            Trap::Interrupt
        }
    }
}
