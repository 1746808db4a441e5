//! Single instructions: ports, registers in memory, control registers, model-specific registers, CPUID.

use core::arch::asm;

macro_rules! ports {
    ($($read:ident $write:ident $type:ty, $reg:tt),*) => {$(
        /// # Safety
        /// The port must not have effects that break memory safety.
        #[inline]
        pub(crate) unsafe fn $read(port: u16) -> $type {
            let value: $type;
            // SAFETY: as required of the caller.
            unsafe { asm!(concat!("in ", $reg, ", dx"), out($reg) value, in("dx") port, options(nostack, preserves_flags)) };
            value
        }

        /// # Safety
        /// The port must not have effects that break memory safety.
        #[inline]
        pub(crate) unsafe fn $write(port: u16, value: $type) {
            // SAFETY: as required of the caller.
            unsafe { asm!(concat!("out dx, ", $reg), in($reg) value, in("dx") port, options(nostack, preserves_flags)) };
        }
    )*};
}

ports!(in8 out8 u8, "al", in16 out16 u16, "ax", in32 out32 u32, "eax");

macro_rules! registers {
    ($($read:ident $write:ident $type:ty),*) => {$(
        /// # Safety
        /// `at` must be aligned, mapped device memory.
        #[inline]
        pub(crate) unsafe fn $read(at: *mut $type) -> $type {
            // SAFETY: as required of the caller.
            unsafe { at.read_volatile() }
        }

        /// # Safety
        /// `at` must be aligned, mapped device memory.
        #[inline]
        pub(crate) unsafe fn $write(at: *mut $type, value: $type) {
            // SAFETY: as required of the caller.
            unsafe { at.write_volatile(value) }
        }
    )*};
}

registers!(read8 write8 u8, read16 write16 u16, read32 write32 u32, read64 write64 u64);

/// Numbers of model-specific registers.
pub(super) mod msr {
    pub const APIC_BASE: u32 = 0x1b;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// # Safety
/// The register must exist.
#[inline]
pub(super) unsafe fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: as required of the caller.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
/// The register must exist, and the value must keep the kernel running as Rust expects.
#[inline]
pub(super) unsafe fn wrmsr(register: u32, value: u64) {
    // SAFETY: as required of the caller.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}

/// CPUID: EAX, EBX, ECX, EDX.
#[inline]
pub(super) fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid_count(leaf, sub);
    [r.eax, r.ebx, r.ecx, r.edx]
}

#[inline]
pub(super) fn rdtsc() -> u64 {
    // SAFETY: every x86-64 processor has the counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[inline]
pub(super) fn read_cr2() -> usize {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// # Safety
/// `root` must be a page table that maps the kernel as the current one does.
#[inline]
pub(super) unsafe fn write_cr3(root: u64) {
    // SAFETY: as required of the caller.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

#[inline]
pub(super) fn read_cr4() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// # Safety
/// The features turned on must exist.
#[inline]
pub(super) unsafe fn write_cr4(value: u64) {
    // SAFETY: as required of the caller.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Forgets this CPU's translation of `addr`.
#[inline]
pub(super) fn invlpg(addr: usize) {
    // SAFETY: dropping a cached translation changes no memory.
    unsafe { asm!("invlpg [{}]", in(reg) addr, options(nostack, preserves_flags)) };
}

#[inline]
pub(crate) fn irqs_enabled() -> bool {
    let flags: u64;
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(nomem, preserves_flags)) };
    flags & 0x200 != 0
}

/// Turns interrupts off; true if they were on.
#[inline]
pub(crate) fn irq_disable() -> bool {
    let flags: u64;
    // SAFETY: turning interrupts off is always sound. Not `nomem`: memory accesses stay behind it.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags, options(preserves_flags)) };
    flags & 0x200 != 0
}

#[inline]
pub(crate) fn irq_restore(on: bool) {
    if on {
        // SAFETY: interrupt handlers are sound at any point; whoever turned interrupts off is done. Not `nomem`:
        // memory accesses stay before it.
        unsafe { asm!("sti", options(nostack, preserves_flags)) };
    }
}

#[inline]
pub(crate) fn relax() {
    core::hint::spin_loop();
}

/// Halts with interrupts on until the next one; `sti` holds them off for one instruction, so none is missed.
#[inline]
pub(super) fn sti_hlt() {
    // SAFETY: halting is sound.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

/// Halts this CPU for good.
pub(super) fn halt_forever() -> ! {
    loop {
        // SAFETY: halting with interrupts off is sound.
        unsafe { asm!("cli", "hlt", options(nostack)) };
    }
}

pub(crate) fn rdrand() -> Option<u64> {
    super::features::has_rdrand().then(|| {
        retry(|value, ok| {
            // SAFETY: the instruction exists.
            unsafe {
                asm!(
                    "rdrand {}",
                    "setc {}",
                    out(reg) * value,
                    out(reg_byte) * ok,
                    options(nomem, nostack)
                )
            }
        })
    })?
}

pub(crate) fn rdseed() -> Option<u64> {
    super::features::has_rdseed().then(|| {
        retry(|value, ok| {
            // SAFETY: the instruction exists.
            unsafe {
                asm!(
                    "rdseed {}",
                    "setc {}",
                    out(reg) * value,
                    out(reg_byte) * ok,
                    options(nomem, nostack)
                )
            }
        })
    })?
}

fn retry(mut draw: impl FnMut(&mut u64, &mut u8)) -> Option<u64> {
    for _ in 0..10 {
        let (mut value, mut ok) = (0, 0);
        draw(&mut value, &mut ok);
        if ok != 0 {
            return Some(value);
        }
        relax();
    }
    None
}

const COM1: u16 = 0x3f8;

pub(crate) fn early_console_write(bytes: &[u8]) {
    for &byte in bytes {
        // SAFETY: the first serial port; where there is none, the bus reads ones and ignores writes.
        unsafe {
            let mut tries = 0;
            while in8(COM1 + 5) & 0x20 == 0 && tries < 10_000 {
                tries += 1;
                relax();
            }
            out8(COM1, byte);
        }
    }
}

pub(crate) fn debugcon_write(byte: u8) {
    // SAFETY: QEMU's debug console, or nothing.
    unsafe { out8(0xe9, byte) };
}

/// Tells QEMU's `isa-debug-exit` to end the machine, if it is there.
pub(crate) fn debug_exit(code: u8) {
    // SAFETY: the device's port, or nothing. An absent device reads as ones.
    unsafe {
        if in8(0x501) != 0xff {
            out8(0x501, code);
        }
    }
}

/// Restarts the machine: keyboard controller, reset register, then a triple fault.
pub(crate) fn reset() -> ! {
    irq_disable();
    // SAFETY: ends everything; nothing runs after it. The empty IDT makes the breakpoint a triple fault.
    unsafe {
        let empty = [0u16; 5];
        asm!("lidt [{}]", "int3", in(reg) &raw const empty, options(nostack));
    }
    halt_forever()
}

/// The program's memory is copied by [`super::usercopy`]; this is for frames and device buffers: plain memory that
/// someone else may be writing at the same time, so the copy is in assembly, not in Rust's memory model.
///
/// # Safety
/// Both ranges must be mapped for `len` bytes and not overlap.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, into: *mut u8, len: usize) {
    // SAFETY: as required of the caller.
    unsafe {
        asm!(
            "rep movsq", "mov ecx, {tail:e}", "rep movsb",
            tail = in(reg) len & 7, inout("rcx") len >> 3 => _, inout("rsi") from => _, inout("rdi") into => _,
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
/// The range must be mapped for `len` bytes.
#[inline]
pub(crate) unsafe fn fill(into: *mut u8, byte: u8, len: usize) {
    // SAFETY: as required of the caller.
    unsafe {
        asm!(
            "rep stosq", "mov ecx, {tail:e}", "rep stosb",
            tail = in(reg) len & 7, inout("rcx") len >> 3 => _, inout("rdi") into => _,
            in("rax") u64::from(byte) * 0x0101_0101_0101_0101,
            options(nostack, preserves_flags)
        );
    }
}

#[inline(always)]
pub(crate) fn frame_pointer() -> usize {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
