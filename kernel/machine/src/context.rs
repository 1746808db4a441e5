//! The program's registers, and entering ring 3 with them.

use alloc::boxed::Box;
use core::marker::PhantomPinned;
use core::mem::ManuallyDrop;

use crate::arch;

/// The program's general registers, in the order in which the trap entry code stores them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
#[expect(missing_docs, reason = "these are the processor's own names")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    /// Vector of the last trap; [`SYSCALL_VECTOR`] for a system call.
    pub(crate) vector: u64,
    /// Error code of the last exception.
    pub(crate) error: u64,
    pub rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub rsp: u64,
    pub(crate) ss: u64,
    /// Others read the registers of a lent context ([`UserContext::lend`]): a reference to them is not exclusive.
    _shared: PhantomPinned,
}

/// What the `syscall` entry stores as the vector.
pub(crate) const SYSCALL_VECTOR: u64 = 0x100;

/// Flags that the program may set: CF, PF, AF, ZF, SF, TF, DF, OF, AC, ID.
const USER_FLAGS: u64 = 0x0024_0DD5;
/// Interrupts on, and the bit that is always one.
const FORCED_FLAGS: u64 = 0x202;

/// Why the program stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It made a system call.
    Syscall,
    /// It caused a processor exception.
    Exception {
        /// The exception's number: 0 divide error, 6 invalid opcode, 13 protection, 14 page fault...
        vector: u8,
        /// The processor's error code, 0 where there is none.
        error: u32,
        /// The faulting address of a page fault, else 0.
        addr: usize,
    },
    /// A device or another CPU interrupted it; the interrupt has been handled.
    Interrupt,
}

/// Bytes that are not a valid floating-point state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFpState;

/// One thread's state in user mode. Make it anywhere; from its first [`UserContext::run`] on it belongs to the task
/// that ran it, and use by another one panics.
pub struct UserContext {
    /// The general registers.
    pub regs: Registers,
    pub(crate) hw: ManuallyDrop<Box<arch::HwState>>,
}

impl Drop for UserContext {
    fn drop(&mut self) {
        if self.hw.may_drop() {
            // SAFETY: dropped here only, once.
            unsafe { ManuallyDrop::drop(&mut self.hw) }
        }
        // Else another task's CPU may still write to it: it is leaked.
    }
}

impl UserContext {
    /// All registers zero, floating point in its initial state.
    pub fn new() -> Self {
        let mut context = Self {
            regs: Registers::default(),
            hw: ManuallyDrop::new(arch::HwState::new()),
        };
        context.set_rflags(0);
        context
    }

    /// A copy for a new thread: same registers, floating-point state and segment bases.
    pub fn duplicate(&mut self) -> Self {
        Self {
            regs: self.regs,
            hw: ManuallyDrop::new(self.hw.duplicate()),
        }
    }

    /// Calls `body` with this context, and lets others look at its registers meanwhile: see
    /// [`Task::user_registers`](crate::task::Task::user_registers) of the current task.
    pub fn lend<R>(self, body: impl FnOnce(&mut UserContext) -> R) -> R {
        let lent = Box::into_raw(Box::new(self));
        let before = arch::set_lent(lent);
        // SAFETY: just made, and freed only below. Others read it with volatile reads through the pointer, when this
        // task does not run; `Registers` is not `Unpin`, so that the compiler takes no `&mut` to it as exclusive.
        let result = body(unsafe { &mut *lent });
        arch::set_lent(before);
        // SAFETY: from `into_raw` above; nobody has the pointer any more.
        drop(unsafe { Box::from_raw(lent) });
        result
    }

    /// Runs the program from these registers until its next event. With interrupts on, at entry and at return.
    pub fn run(&mut self) -> Trap {
        arch::run_user(self)
    }

    /// Number of the system call just made.
    #[inline]
    pub fn syscall_number(&self) -> usize {
        self.regs.rax as usize
    }

    /// Arguments of the system call just made.
    #[inline]
    pub fn syscall_args(&self) -> [usize; 6] {
        let r = &self.regs;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9].map(|v| v as usize)
    }

    /// Sets what the system call returns.
    #[inline]
    pub fn set_return(&mut self, value: isize) {
        self.regs.rax = value as u64;
    }

    /// The flags register.
    pub fn rflags(&self) -> u64 {
        self.regs.rflags
    }

    /// Sets the flags that a program may set; the others keep their only legal value.
    pub fn set_rflags(&mut self, flags: u64) {
        self.regs.rflags = flags & USER_FLAGS | FORCED_FLAGS;
    }

    /// The FS segment's base: the thread pointer.
    pub fn fs_base(&mut self) -> usize {
        self.hw.bases().0
    }

    /// The GS segment's base.
    pub fn gs_base(&mut self) -> usize {
        self.hw.bases().1
    }

    /// Sets the FS base. False if `base` is not a user address.
    pub fn set_fs_base(&mut self, base: usize) -> bool {
        let (_, gs) = self.hw.bases();
        crate::user::is_user_address(base) && {
            self.hw.set_bases(base, gs);
            true
        }
    }

    /// Sets the GS base. False if `base` is not a user address.
    pub fn set_gs_base(&mut self, base: usize) -> bool {
        let (fs, _) = self.hw.bases();
        crate::user::is_user_address(base) && {
            self.hw.set_bases(fs, base);
            true
        }
    }

    /// Bytes that [`UserContext::fp_state`] returns on this machine: the standard (not compacted) XSAVE format.
    pub fn fp_state_size() -> usize {
        arch::fp_state_size()
    }

    /// The XCR0 mask of the states saved, as in the `xfeatures` field of a signal frame.
    pub fn fp_features() -> u64 {
        arch::fp_features()
    }

    /// The floating-point and vector state in the standard XSAVE format.
    pub fn fp_state(&mut self) -> &[u8] {
        self.hw.fp_bytes()
    }

    /// Replaces the floating-point state: 512 bytes (FXSAVE) or more (XSAVE). What the bytes do not hold is reset.
    pub fn set_fp_state(&mut self, bytes: &[u8]) -> Result<(), InvalidFpState> {
        self.hw.set_fp_bytes(bytes)
    }

    /// Puts the floating-point state back to what a new program starts with.
    pub fn reset_fp_state(&mut self) {
        self.hw.reset_fp();
    }
}

impl Default for UserContext {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for UserContext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.regs.fmt(f)
    }
}
