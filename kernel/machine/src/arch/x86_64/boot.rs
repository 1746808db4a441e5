//! The first instructions: the PVH entry in 32-bit mode, and where the other CPUs start in 16-bit mode. Both end in
//! 64-bit code at the kernel's own addresses, on tables that map the first GiB twice: at 0 and at -2 GiB.
//!
//! PVH (Xen's boot ABI, also QEMU's, Firecracker's and Cloud Hypervisor's): the ELF note names a physical address that
//! is entered with paging off, flat segments, interrupts off and EBX = `hvm_start_info`.

use core::arch::global_asm;
use core::sync::atomic::AtomicU64;

/// Difference between the kernel's virtual and physical addresses.
pub(super) const KERNEL_BASE: usize = 0xffff_ffff_8000_0000;
/// Where the start code of the other CPUs is copied: a page below 1 MiB that firmware leaves to the system.
pub(super) const AP_PAGE: u64 = 0x8000;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18              /* name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_start - {base}

    .section .boot.text, "ax"
    .code32
    .global pvh_start
pvh_start:
    cld
    mov esi, ebx
    mov edi, offset boot_pd - {base}
    mov eax, 0x83               /* present, writable, 2 MiB */
    mov ecx, 512
2:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, offset boot_pd - {base} + 3
    mov dword ptr [boot_pdpt_low - {base}], eax
    mov dword ptr [boot_pdpt_high - {base} + 510 * 8], eax
    mov eax, offset boot_pdpt_low - {base} + 3
    mov dword ptr [boot_pml4 - {base}], eax
    mov eax, offset boot_pdpt_high - {base} + 3
    mov dword ptr [boot_pml4 - {base} + 511 * 8], eax
    mov ebp, offset pvh_long - {base}
    jmp enable_long_mode
pvh_long:
    .byte 0xea                  /* far jump to 64-bit code */
    .long pvh_start64 - {base}
    .word 0x10

    /* From protected mode without paging: turns on long mode on the boot tables, then jumps to EBP (there may be no
       stack yet). Clobbers EAX, ECX, EDX. */
enable_long_mode:
    mov eax, 0xa0               /* CR4: PAE, PGE */
    mov cr4, eax
    mov eax, offset boot_pml4 - {base}
    mov cr3, eax
    mov ecx, 0xc0000080         /* EFER: SCE, LME, NXE */
    mov eax, 0x901
    xor edx, edx
    wrmsr
    mov eax, 0x80010033         /* CR0: PG, WP, NE, ET, MP, PE */
    mov cr0, eax
    lgdt [boot_gdt_pointer - {base}]
    jmp ebp

    .code64
pvh_start64:
    mov eax, 0x18
    mov ss, eax
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset boot_stack_top
    xor ebp, ebp
    mov edi, esi
    push 0
    movabs rax, offset start_rust
    jmp rax

    .balign 8
boot_gdt:
    .quad 0, 0
    .quad 0x00af9b000000ffff    /* 0x10: kernel code */
    .quad 0x00cf93000000ffff    /* 0x18: kernel data */
    .quad 0x00cf9b000000ffff    /* 0x20: 32-bit code, for the other CPUs' way up */
boot_gdt_pointer:
    .word 5 * 8 - 1
    .long boot_gdt - {base}
    .long 0

    /* Copied to AP_PAGE; each CPU enters it in real mode with CS = AP_PAGE >> 4. */
    .balign 16
    .global ap_page_start, ap_page_end
ap_page_start:
    .code16
    jmp 2f
    .balign 8
    .word 5 * 8 - 1             /* at offset 8: where the descriptor table is */
    .long boot_gdt - {base}
2:  cli
    mov ax, cs
    mov ds, ax
    lgdt [8]
    mov eax, 0x11
    mov cr0, eax
    .byte 0x66, 0xea            /* far jump to 32-bit code */
    .long ap_start32 - {base}
    .word 0x20
ap_page_end:

    .code32
ap_start32:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    /* Number: 1 for the first to come. */
    mov eax, 1
    lock xadd dword ptr [ap_next - {base}], eax
    cmp eax, {max_cpus}
    jae 3f
    mov esi, eax
    mov ebp, offset ap_long - {base}
    jmp enable_long_mode
ap_long:
    .byte 0xea
    .long ap_start64 - {base}
    .word 0x10
3:  hlt
    jmp 3b

    .code64
ap_start64:
    mov eax, 0x18
    mov ss, eax
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov edi, esi
    /* The stacks are mapped only by the full tables, and those map the code only at the kernel's addresses. */
    movabs rcx, offset ap_high
    jmp rcx
ap_high:
    movabs rcx, offset ap_root
    mov rcx, [rcx]
    mov cr3, rcx
    movabs rcx, offset ap_stacks
    mov rsp, [rcx + rdi * 8]
    xor ebp, ebp
    push 0
    movabs rax, offset start_ap_rust
    jmp rax

    .section .data
    .global ap_next
    .balign 4
ap_next:
    .long 1
    .global ap_root
    .balign 8
ap_root:
    .quad 0

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_pml4, boot_stack, boot_stack_top
boot_pml4:      .skip 4096
boot_pdpt_low:  .skip 4096
boot_pdpt_high: .skip 4096
boot_pd:        .skip 4096
    .global boot_guard
boot_guard:     .skip 4096      /* the full tables leave it unmapped */
boot_stack:     .skip 65536
boot_stack_top:
    .text
"#,
    base = const KERNEL_BASE,
    max_cpus = const crate::cpu::MAX_CPUS,
);

unsafe extern "C" {
    static ap_page_start: u8;
    static ap_page_end: u8;
    /// Root of the page table that the other CPUs load.
    pub(super) static ap_root: AtomicU64;
}

/// The code that [`AP_PAGE`] must hold.
pub(super) fn ap_code() -> &'static [u8] {
    let (start, end) = (&raw const ap_page_start, &raw const ap_page_end);
    // SAFETY: the two labels enclose read-only code of this image.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}
