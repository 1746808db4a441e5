//! The vDSO: the shared object that gives the program the time without a system call (`vdso(7)`).
//!
//! The image is a complete ELF file, written out in assembly so that no linker and no file is needed to make it. It is
//! mapped right behind a page of data that the kernel keeps up to date: [`Clock`]. It exports `__vdso_clock_gettime`,
//! `__vdso_gettimeofday`, `__vdso_time`, `__vdso_clock_getres` and `__vdso_getcpu` with version `LINUX_2.6`, and makes
//! the system call itself for what it cannot answer.

use core::arch::global_asm;

/// What the data page says of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// How to turn the counter into time.
    pub tsc: crate::time::TscParams,
    /// Nanoseconds from the monotonic clock to the real-time clock.
    pub wall_offset_ns: u64,
    /// Whether `rdtscp` gives the number of the CPU.
    pub cpu_number: bool,
}

impl Clock {
    /// The bytes of the data page behind its sequence number, which is a `u32` at offset 0 and odd during a change.
    pub fn to_bytes(self) -> [u8; 36] {
        let mut bytes = [0; 36];
        let mut at = 0;
        let mut put = |value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        };
        put(&(u32::from(self.tsc.usable_by_user) | u32::from(self.cpu_number) << 1).to_le_bytes());
        put(&self.tsc.base_tsc.to_le_bytes());
        put(&self.tsc.base_ns.to_le_bytes());
        put(&self.tsc.mult.to_le_bytes());
        put(&self.tsc.shift.to_le_bytes());
        put(&self.wall_offset_ns.to_le_bytes());
        bytes
    }
}

/// Where the bytes of [`Clock::to_bytes`] lie in the data page.
pub const CLOCK_OFFSET: usize = 4;

// The file: header, two program headers (all of it readable and executable; the dynamic section), hash table, symbols,
// strings, versions, dynamic section, code. Addresses are offsets from its start. The data page lies 4096 bytes before.
global_asm!(
    r#"
    .pushsection .rodata.vdso, "a", @progbits
    .balign 4096
    .globl nanos_vdso_start
    .globl nanos_vdso_end
nanos_vdso_start:
    .set V, nanos_vdso_start
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0
    .quad 0
    .short 3, 62            /* ET_DYN, EM_X86_64 */
    .long 1
    .quad 0                 /* no entry */
    .quad 64                /* program headers */
    .quad 0                 /* no section headers */
    .long 0
    .short 64, 56, 2, 64, 0, 0
    .long 1, 5              /* PT_LOAD, R+X */
    .quad 0, 0, 0
    .quad nanos_vdso_end - V, nanos_vdso_end - V, 4096
    .long 2, 4              /* PT_DYNAMIC, R */
    .quad 50f - V, 50f - V, 50f - V
    .quad 60f - 50f, 60f - 50f, 8

10: /* DT_HASH (System V gABI): one bucket, every symbol in its chain */
    .long 1, 6
    .long 1
    .long 0, 2, 3, 4, 5, 0

    .balign 8
20: /* DT_SYMTAB */
    .quad 0, 0, 0
    .macro nanos_vdso_symbol name, first, last
    .long \name - 30f
    .byte 0x12, 0           /* STB_GLOBAL, STT_FUNC */
    .short 1                /* a section index other than SHN_UNDEF */
    .quad \first - V
    .quad \last - \first
    .endm
    nanos_vdso_symbol 31f, 71f, 72f
    nanos_vdso_symbol 32f, 72f, 73f
    nanos_vdso_symbol 33f, 73f, 74f
    nanos_vdso_symbol 34f, 74f, 75f
    nanos_vdso_symbol 35f, 75f, 76f

30: /* DT_STRTAB */
    .byte 0
31: .asciz "__vdso_clock_gettime"
32: .asciz "__vdso_gettimeofday"
33: .asciz "__vdso_time"
34: .asciz "__vdso_clock_getres"
35: .asciz "__vdso_getcpu"
36: .asciz "linux-vdso.so.1"
37: .asciz "LINUX_2.6"
38:
    .balign 8
40: /* DT_VERSYM: all symbols but the null one have version 2 */
    .short 0, 2, 2, 2, 2, 2
    .balign 8
41: /* DT_VERDEF: the file itself (base), then LINUX_2.6 */
    .short 1, 1, 1, 1
    .long 0x0deebfa1, 20, 28
    .long 36b - 30b, 0
    .short 1, 0, 2, 1
    .long 0x03ae75f6, 20, 0
    .long 37b - 30b, 0

    .balign 8
50: /* PT_DYNAMIC */
    .quad 14, 36b - 30b     /* DT_SONAME */
    .quad 4, 10b - V        /* DT_HASH */
    .quad 5, 30b - V        /* DT_STRTAB */
    .quad 6, 20b - V        /* DT_SYMTAB */
    .quad 10, 38b - 30b     /* DT_STRSZ */
    .quad 11, 24            /* DT_SYMENT */
    .quad 0x6ffffff0, 40b - V
    .quad 0x6ffffffc, 41b - V
    .quad 0x6ffffffd, 2     /* DT_VERDEFNUM */
    .quad 0, 0
60:

    .balign 16
    /* rax = nanoseconds of the monotonic clock, r9 = what to add for the real-time clock. Carry set: the counter
       cannot be used. Changes rcx, rdx, r8, r10, r11. */
70: lea r8, [rip + V - 4096]
2:  mov r10d, [r8]
    test r10d, 1
    jnz 4f
    test dword ptr [r8 + 4], 1
    jz 5f
    lfence
    rdtsc
    shl rdx, 32
    or rax, rdx
    xor edx, edx
    sub rax, [r8 + 8]
    cmovc rax, rdx          /* a reading from before the base counts as the base */
    mov r11d, [r8 + 24]
    mov ecx, [r8 + 28]
    mul r11
    shrd rax, rdx, cl
    add rax, [r8 + 16]
    mov r9, [r8 + 32]
    cmp r10d, [r8]
    jne 2b
    clc
    ret
4:  pause
    jmp 2b
5:  stc
    ret

    .balign 16
71: /* int clock_gettime(clockid_t clock, struct timespec *time) */
    cmp edi, 7
    ja 6f
    mov eax, 0xf3           /* REALTIME, MONOTONIC, MONOTONIC_RAW, the COARSE ones, BOOTTIME */
    bt eax, edi
    jnc 6f
    call 70b
    jc 6f
    mov edx, 0x21           /* REALTIME, REALTIME_COARSE */
    bt edx, edi
    jnc 7f
    add rax, r9
7:  xor edx, edx
    mov ecx, 1000000000
    div rcx
    mov [rsi], rax
    mov [rsi + 8], rdx
    xor eax, eax
    ret
6:  mov eax, 228
    syscall
    ret

    .balign 16
72: /* int gettimeofday(struct timeval *time, struct timezone *zone) */
    test rdi, rdi
    jz 8f
    call 70b
    jc 9f
    add rax, r9
    xor edx, edx
    mov ecx, 1000000000
    div rcx
    mov [rdi], rax
    mov eax, edx
    xor edx, edx
    mov ecx, 1000
    div ecx
    mov [rdi + 8], rax
8:  test rsi, rsi
    jz 2f
    mov qword ptr [rsi], 0
2:  xor eax, eax
    ret
9:  mov eax, 96
    syscall
    ret

    .balign 16
73: /* time_t time(time_t *time) */
    call 70b
    jc 2f
    add rax, r9
    xor edx, edx
    mov ecx, 1000000000
    div rcx
    test rdi, rdi
    jz 3f
    mov [rdi], rax
3:  ret
2:  mov eax, 201
    syscall
    ret

    .balign 16
74: /* int clock_getres(clockid_t clock, struct timespec *resolution) */
    cmp edi, 7
    ja 4f
    mov eax, 0x93           /* REALTIME, MONOTONIC, MONOTONIC_RAW, BOOTTIME */
    bt eax, edi
    jnc 4f
    xor eax, eax
    test rsi, rsi
    jz 3f
    mov qword ptr [rsi], 0
    mov qword ptr [rsi + 8], 1
3:  ret
4:  mov eax, 229
    syscall
    ret

    .balign 16
75: /* int getcpu(unsigned *cpu, unsigned *node, void *unused) */
    lea r8, [rip + V - 4096]
    test dword ptr [r8 + 4], 2
    jz 4f
    rdtscp
    and ecx, 0xfff
    test rdi, rdi
    jz 2f
    mov [rdi], ecx
2:  test rsi, rsi
    jz 3f
    mov dword ptr [rsi], 0
3:  xor eax, eax
    ret
4:  mov eax, 309
    syscall
    ret
76:
    .balign 16
nanos_vdso_end:
    .purgem nanos_vdso_symbol
    .popsection
    "#
);

/// The image, to be mapped at a page behind the data page.
pub fn image() -> &'static [u8] {
    unsafe extern "C" {
        static nanos_vdso_start: u8;
        static nanos_vdso_end: u8;
    }
    let (start, end) = (&raw const nanos_vdso_start, &raw const nanos_vdso_end);
    // SAFETY: the assembly above puts both labels around one run of read-only bytes.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

#[cfg(test)]
mod tests {
    use super::{Clock, image};
    use crate::time::TscParams;

    /// The hash function of DT_HASH and of version names (System V gABI).
    fn elf_hash(name: &[u8]) -> u32 {
        name.iter().fold(0_u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add(u32::from(*byte));
            let high = hash & 0xf000_0000;
            (hash ^ (high >> 24)) & !high
        })
    }

    #[test]
    fn the_version_hashes_are_those_of_their_names() {
        let has = |hash: u32| image().windows(4).any(|bytes| bytes == hash.to_le_bytes());
        assert!(
            has(elf_hash(b"linux-vdso.so.1")),
            "{:#x}",
            elf_hash(b"linux-vdso.so.1")
        );
        assert!(has(elf_hash(b"LINUX_2.6")), "{:#x}", elf_hash(b"LINUX_2.6"));
    }

    #[test]
    fn the_data_page_has_the_layout_that_the_code_reads() {
        let tsc = TscParams {
            base_tsc: 1,
            base_ns: 2,
            mult: 3,
            shift: 4,
            usable_by_user: true,
        };
        let bytes = Clock {
            tsc,
            wall_offset_ns: 5,
            cpu_number: true,
        }
        .to_bytes();
        let numbers: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
        assert_eq!(numbers, [3, 1, 2, 3, 4, 5]);
        assert_eq!(
            (bytes[4], bytes[12], bytes[20], bytes[24], bytes[28]),
            (1, 2, 3, 4, 5)
        );
    }
}
