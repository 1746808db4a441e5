//! Copies to and from the program's memory. A page fault inside one of these routines is recognised by its address
//! (see [`fixup`]): the trap code lets the fault handler bring the page in and resumes, or makes the routine return
//! failure.

use core::arch::global_asm;

use crate::user::{Fault, is_user_range};

global_asm!(
    super::smap_macros!(),
    r#"
    .section .entry.text, "ax"
    .global user_copy, user_copy_end, user_copy_fault
    .global user_load, user_load_end, user_cmpxchg, user_cmpxchg_end, user_word_fault

    /* fn user_copy(into: rdi, from: rsi, len: rdx) -> 0 or 1. Uses no stack, so that a fault can just jump out. */
    .balign 16
user_copy:
    STAC
    cmp rdx, 512
    ja 5f
2:  cmp rdx, 8
    jb 3f
    mov rax, [rsi]
    mov [rdi], rax
    add rsi, 8
    add rdi, 8
    sub rdx, 8
    jmp 2b
3:  test rdx, rdx
    jz 4f
    mov al, [rsi]
    mov [rdi], al
    inc rsi
    inc rdi
    dec rdx
    jmp 3b
4:  xor eax, eax
    CLAC
    ret
5:  mov rcx, rdx
    shr rcx, 3
    rep movsq
    and edx, 7
    jmp 3b
user_copy_end:
user_copy_fault:
    mov eax, 1
    CLAC
    ret

    /* fn user_load(addr: rdi) -> the word, or bit 32 set. */
    .balign 16
user_load:
    STAC
    mov eax, [rdi]
    CLAC
    ret
user_load_end:

    /* fn user_cmpxchg(addr: rdi, old: esi, new: edx) -> the word found, or bit 32 set. */
    .balign 16
user_cmpxchg:
    mov eax, esi
    STAC
    lock cmpxchg dword ptr [rdi], edx
    CLAC
    mov eax, eax
    ret
user_cmpxchg_end:
user_word_fault:
    movabs rax, 0x100000000
    CLAC
    ret
    .purgem STAC
    .purgem CLAC
    .text
"#
);

unsafe extern "C" {
    fn user_copy(into: *mut u8, from: *const u8, len: usize) -> usize;
    fn user_load(addr: usize) -> u64;
    fn user_cmpxchg(addr: usize, old: u32, new: u32) -> u64;
    static user_copy_end: u8;
    static user_copy_fault: u8;
    static user_load_end: u8;
    static user_cmpxchg_end: u8;
    static user_word_fault: u8;
}

/// Where to go on after a fault at `rip` that cannot be resolved, if `rip` is in one of the routines.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let rip = rip as usize;
    let within = |start: usize, end: *const u8| (start..end as usize).contains(&rip);
    if within(user_copy as *const () as usize, &raw const user_copy_end) {
        Some((&raw const user_copy_fault) as u64)
    } else if within(user_load as *const () as usize, &raw const user_load_end)
        || within(
            user_cmpxchg as *const () as usize,
            &raw const user_cmpxchg_end,
        )
    {
        Some((&raw const user_word_fault) as u64)
    } else {
        None
    }
}

/// # Safety
/// `into` must be valid for writes of `len` bytes.
#[inline]
pub(crate) unsafe fn copy_from_user(from: usize, into: *mut u8, len: usize) -> Result<(), Fault> {
    if !is_user_range(from, len) {
        return Err(Fault);
    }
    // SAFETY: the source is in the user half; faults there are caught.
    if unsafe { user_copy(into, from as *const u8, len) } == 0 {
        Ok(())
    } else {
        Err(Fault)
    }
}

/// # Safety
/// `from` must be valid for reads of `len` bytes.
#[inline]
pub(crate) unsafe fn copy_to_user(into: usize, from: *const u8, len: usize) -> Result<(), Fault> {
    if !is_user_range(into, len) {
        return Err(Fault);
    }
    // SAFETY: the destination is in the user half, where no Rust object lives; faults there are caught.
    if unsafe { user_copy(into as *mut u8, from, len) } == 0 {
        Ok(())
    } else {
        Err(Fault)
    }
}

/// `addr` has been checked to be aligned and in the user half.
pub(crate) fn user_load_u32(addr: usize) -> Result<u32, Fault> {
    // SAFETY: an address in the user half; faults are caught.
    let word = unsafe { user_load(addr) };
    u32::try_from(word).map_err(|_| Fault)
}

/// `addr` has been checked to be aligned and in the user half.
pub(crate) fn user_cmpxchg_u32(addr: usize, old: u32, new: u32) -> Result<u32, Fault> {
    // SAFETY: an address in the user half, where no Rust object lives; faults are caught.
    let word = unsafe { user_cmpxchg(addr, old, new) };
    u32::try_from(word).map_err(|_| Fault)
}
