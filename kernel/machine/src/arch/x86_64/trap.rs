//! Everything that interrupts the flow: exceptions, interrupts, system calls. The assembly stores registers and
//! decides where to go; the rest is Rust.
//!
//! From ring 3, registers are stored right into the thread's [`Registers`] and `enter_user` returns to its caller: to
//! the kernel, user mode is a function call. From ring 0, they are stored on the kernel stack and [`kernel_trap`]
//! is called.

use core::arch::{asm, global_asm};

use super::io::{msr, read_cr2, wrmsr};
use super::percpu::{
    self, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_NMI, KERNEL_CODE, USER_CODE, USER_DATA, block,
};
use super::{features, irq, usercopy};
use crate::context::{Registers, SYSCALL_VECTOR};
use crate::user::{Access, USER_END, resolve_fault};

global_asm!(
    super::smap_macros!(),
    r#"
    .section .entry.text, "ax"
    .global trap_stubs, enter_user, syscall_entry

    /* One stub for each vector, 16 bytes apart: pushes an error code where the processor does not, and the vector. */
    .balign 16
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    .if (vector == 2) || (vector == 8) || (vector == 18)
    .byte 0x6a, vector
    jmp trap_paranoid
    .elseif vector < 128
    .byte 0x6a, vector
    jmp trap_common
    .else
    .byte 0x68
    .long vector
    jmp trap_common
    .endif
    .set vector, vector + 1
    .endr

    .macro PUSH_REGS
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    .endm
    .macro POP_REGS
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    .endm

    .balign 16
trap_common:
    test byte ptr [rsp + 24], 3
    jz 2f
    swapgs
    PUSH_REGS
leave_user:
    mov rsp, gs:[{kernel_rsp}]
    cld
    CLAC
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret                         /* from enter_user */
2:  PUSH_REGS
    cld
    CLAC
    mov rdi, rsp
    call {kernel_trap}
    POP_REGS
    add rsp, 16
    iretq

    /* May come between any two instructions, on a stack of its own: which GS is loaded is told by its sign. */
trap_paranoid:
    PUSH_REGS
    cld
    CLAC
    xor ebx, ebx
    test byte ptr [rsp + 144], 3    /* from ring 3 it is the program's, whatever it holds */
    jnz 3f
    mov ecx, 0xc0000101
    rdmsr
    test edx, edx
    js 2f
3:  swapgs
    inc ebx
2:  mov rdi, rsp
    call {kernel_trap}
    test ebx, ebx
    jz 2f
    swapgs
2:  POP_REGS
    add rsp, 16
    iretq

    .balign 16
syscall_entry:
    swapgs
    mov gs:[{scratch}], rsp
    mov rsp, gs:[{user_top}]
    push {user_data}
    push gs:[{scratch}]
    push r11
    push {user_code}
    push rcx
    push 0
    push {syscall_vector}
    PUSH_REGS
    jmp leave_user

    /* fn enter_user(registers: rdi, by_sysret: esi). Interrupts off. Returns when ring 3 has ended, interrupts off. */
    .balign 16
enter_user:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    mov gs:[{kernel_rsp}], rsp
    mov rsp, rdi
    test esi, esi
    jz 2f
    pop r15
    pop r14
    pop r13
    pop r12
    add rsp, 8
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    add rsp, 8
    pop rax
    mov rcx, [rsp + 16]         /* rip */
    mov r11, [rsp + 32]         /* rflags */
    mov rsp, [rsp + 40]
    swapgs
    sysretq
2:  POP_REGS
    add rsp, 16
    swapgs
    iretq
    .purgem STAC
    .purgem CLAC
    .text
"#,
    kernel_rsp = const percpu::KERNEL_RSP,
    user_top = const percpu::USER_TOP,
    scratch = const percpu::SCRATCH,
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    syscall_vector = const SYSCALL_VECTOR,
    kernel_trap = sym kernel_trap,
);

unsafe extern "C" {
    static trap_stubs: u8;
    fn syscall_entry();
    #[expect(improper_ctypes, reason = "a marker without size")]
    pub(super) fn enter_user(registers: *mut Registers, by_sysret: u32);
    static patch_start: [u64; 2];
    static patch_end: [u64; 2];
}

static mut IDT: [[u64; 2]; 256] = [[0; 2]; 256];

/// Makes the interrupt descriptor table, and the SMAP instructions where they exist.
///
/// # Safety
/// Once, on the first CPU, while the kernel's code is still writable.
pub(super) unsafe fn init() {
    let stubs = (&raw const trap_stubs) as u64;
    for vector in 0..256u64 {
        let stub = stubs + vector * 16;
        let ist = match vector {
            2 => IST_NMI,
            8 => IST_DOUBLE_FAULT,
            18 => IST_MACHINE_CHECK,
            _ => 0,
        };
        // The program may use INT3 and INTO itself.
        let ring = if vector == 3 || vector == 4 { 3u64 } else { 0 };
        let low = stub & 0xffff
            | u64::from(KERNEL_CODE) << 16
            | u64::from(ist) << 32
            | (0x8e | ring << 5) << 40
            | (stub >> 16 & 0xffff) << 48;
        // SAFETY: nobody else uses the table yet.
        unsafe { IDT[vector as usize] = [low, stub >> 32] };
    }
    if features::has_smap() {
        let (mut at, end) = (&raw const patch_start, &raw const patch_end);
        while at < end {
            // SAFETY: the section lists three-byte no-operations in code that is still writable, through the boot
            // tables, and not executed by another CPU.
            unsafe {
                let [place, kind] = *at;
                let code = if kind == 1 {
                    [0x0fu8, 0x01, 0xcb]
                } else {
                    [0x0f, 0x01, 0xca]
                };
                for (i, byte) in code.into_iter().enumerate() {
                    (place as *mut u8).add(i).write_volatile(byte);
                }
                at = at.add(1);
            }
        }
    }
}

/// Makes this CPU use the table and the system call entry.
///
/// # Safety
/// Once on each CPU, after [`init`] and [`percpu::init`].
pub(super) unsafe fn init_cpu() {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let pointer = Pointer {
        limit: 256 * 16 - 1,
        base: (&raw const IDT) as u64,
    };
    // SAFETY: the table is complete and never changes again. SYSRET takes CS = 0x23 + 16 and SS = 0x23 + 8. SFMASK
    // clears IF, TF, DF, AC, NT and IOPL at entry.
    unsafe {
        asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags));
        wrmsr(msr::STAR, 0x23 << 48 | u64::from(KERNEL_CODE) << 32);
        wrmsr(msr::LSTAR, syscall_entry as *const () as u64);
        wrmsr(msr::SFMASK, 0x4_7700);
    }
}

/// Name of an exception.
pub(super) fn exception_name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault (kernel stack overflow?)",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection",
        14 => "page fault",
        16 => "x87 error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD error",
        21 => "control protection",
        _ => "exception",
    }
}

/// What a page fault's error code says the access was.
pub(super) fn access_of(error: u64) -> Access {
    if error & 0x10 != 0 {
        Access::Exec
    } else if error & 2 != 0 {
        Access::Write
    } else {
        Access::Read
    }
}

/// A trap from ring 0. Runs with interrupts off on the interrupted stack.
extern "C" fn kernel_trap(frame: &mut Registers) {
    match frame.vector {
        14 => kernel_page_fault(frame),
        2 => irq::on_nmi(),
        vector if vector >= 32 => {
            block().set_interrupted(frame);
            irq::dispatch(vector as u8);
        }
        vector => crate::panic::fatal_trap(exception_name(vector), frame, 0),
    }
}

fn kernel_page_fault(frame: &mut Registers) {
    let addr = read_cr2();
    let Some(fixup) = usercopy::fixup(frame.rip) else {
        crate::panic::fatal_trap("page fault", frame, addr)
    };
    // The fault handler may sleep: not from code that had interrupts off or holds a spinning lock.
    if addr < USER_END && frame.rflags & 0x200 != 0 {
        super::io::irq_restore(true);
        let resolved = resolve_fault(addr, access_of(frame.error));
        super::io::irq_disable();
        if resolved.is_ok() {
            return;
        }
    }
    frame.rip = fixup;
}

/// Handles what ended user mode by an interrupt; interrupts are off.
#[inline]
pub(super) fn interrupt_from_user(frame: &Registers) {
    block().set_interrupted(frame);
    irq::dispatch(frame.vector as u8);
    block()
        .kick
        .store(false, core::sync::atomic::Ordering::Relaxed);
}
