//! What the processor is and can do: read once by CPUID; control registers set accordingly on each CPU.

use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::io::{cpuid, msr, rdmsr, read_cr4, write_cr4, wrmsr};
use crate::boot::Hypervisor;
pub use crate::cpu_features::Features;
use crate::sync::Lazy;

/// Features that this crate itself looks at, as bits of [`BITS`].
mod bit {
    pub const SMAP: u32 = 1 << 0;
    pub const FSGSBASE: u32 = 1 << 1;
    pub const RDRAND: u32 = 1 << 2;
    pub const RDSEED: u32 = 1 << 3;
    pub const XSAVE: u32 = 1 << 4;
    pub const XSAVEOPT: u32 = 1 << 5;
    pub const GIB_PAGES: u32 = 1 << 6;
    pub const X2APIC: u32 = 1 << 7;
    pub const TSC_DEADLINE: u32 = 1 << 8;
    pub const INVARIANT_TSC: u32 = 1 << 9;
    pub const SMEP: u32 = 1 << 10;
    pub const UMIP: u32 = 1 << 11;
}

static BITS: AtomicU32 = AtomicU32::new(0);
/// State components saved, as in XCR0.
static XCR0: AtomicU64 = AtomicU64::new(3);
/// Bytes of the standard XSAVE format for them.
static XSAVE_SIZE: AtomicU32 = AtomicU32::new(512);

macro_rules! query {
    ($($name:ident $bit:ident),*) => {$(
        #[inline]
        pub(super) fn $name() -> bool {
            BITS.load(Relaxed) & bit::$bit != 0
        }
    )*};
}

query!(has_smap SMAP, has_fsgsbase FSGSBASE, has_rdrand RDRAND, has_rdseed RDSEED, has_xsave XSAVE, has_xsaveopt XSAVEOPT,
    has_gib_pages GIB_PAGES, has_x2apic X2APIC, has_tsc_deadline TSC_DEADLINE, has_invariant_tsc INVARIANT_TSC);

#[inline]
pub(super) fn xcr0() -> u64 {
    XCR0.load(Relaxed)
}

#[inline]
pub(super) fn xsave_size() -> usize {
    XSAVE_SIZE.load(Relaxed) as usize
}

/// Reads what the first CPU can do. Before [`init_cpu`].
pub(super) fn detect() {
    let top = cpuid(0, 0)[0];
    let [_, _, ecx1, _] = cpuid(1, 0);
    let [_, ebx7, ecx7, _] = if top >= 7 { cpuid(7, 0) } else { [0; 4] };
    let top_extended = cpuid(0x8000_0000, 0)[0];
    let edx81 = if top_extended >= 0x8000_0001 {
        cpuid(0x8000_0001, 0)[3]
    } else {
        0
    };
    let edx87 = if top_extended >= 0x8000_0007 {
        cpuid(0x8000_0007, 0)[3]
    } else {
        0
    };
    let xsaveopt = ecx1 >> 26 & 1 != 0 && top >= 13 && cpuid(13, 1)[0] & 1 != 0;
    let bits = [
        (ebx7 >> 20 & 1 != 0, bit::SMAP),
        (ebx7 >> 7 & 1 != 0, bit::SMEP),
        (ecx7 >> 2 & 1 != 0, bit::UMIP),
        (ebx7 & 1 != 0, bit::FSGSBASE),
        (ecx1 >> 30 & 1 != 0, bit::RDRAND),
        (ebx7 >> 18 & 1 != 0, bit::RDSEED),
        (ecx1 >> 26 & 1 != 0, bit::XSAVE),
        (xsaveopt, bit::XSAVEOPT),
        (edx81 >> 26 & 1 != 0, bit::GIB_PAGES),
        (ecx1 >> 21 & 1 != 0, bit::X2APIC),
        (ecx1 >> 24 & 1 != 0, bit::TSC_DEADLINE),
        (edx87 >> 8 & 1 != 0, bit::INVARIANT_TSC),
    ];
    BITS.store(
        bits.iter()
            .filter(|(has, _)| *has)
            .fold(0, |all, (_, bit)| all | bit),
        Relaxed,
    );
    if has_xsave() {
        let [low, _, _, high] = cpuid(13, 0);
        // x87, SSE, AVX, the three of AVX-512. Not AMX (needs arch_prctl) nor PKRU (protection keys are off), not the
        // supervisor states.
        let supported = u64::from(high) << 32 | u64::from(low);
        let mut mask = supported & 0xe7;
        if mask & 0xe0 != 0xe0 || mask & 4 == 0 {
            mask &= !0xe0;
        }
        XCR0.store(mask | 3, Relaxed);
    }
}

/// Sets this CPU's control registers for what [`detect`] found.
///
/// # Safety
/// Once on each CPU, at its start.
pub(super) unsafe fn init_cpu() {
    let bits = BITS.load(Relaxed);
    let mut cr4 = read_cr4();
    cr4 |= 1 << 9 | 1 << 10; // OSFXSR, OSXMMEXCPT
    for (feature, at) in [
        (bit::SMEP, 20),
        (bit::SMAP, 21),
        (bit::UMIP, 11),
        (bit::FSGSBASE, 16),
        (bit::XSAVE, 18),
    ] {
        if bits & feature != 0 {
            cr4 |= 1 << at;
        }
    }
    // SAFETY: only existing features are turned on; the kernel executes no user page and opens user access only
    // around copies.
    unsafe { write_cr4(cr4) };
    if has_xsave() {
        let mask = xcr0();
        // SAFETY: the mask holds only states that CPUID reports, in allowed combinations.
        unsafe {
            asm!("xsetbv", in("ecx") 0, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack, preserves_flags));
        }
        // The size for what is in XCR0 now.
        XSAVE_SIZE.store(cpuid(13, 0)[1].max(576), Relaxed);
    }
    // SAFETY: the registers exist in long mode; entry points are set by `trap`.
    unsafe {
        wrmsr(msr::EFER, rdmsr(msr::EFER) | 0x801);
    }
}

/// Who runs this machine.
pub(super) fn hypervisor() -> Hypervisor {
    if cpuid(1, 0)[2] >> 31 == 0 {
        return Hypervisor::None;
    }
    let mut signature = [0u8; 12];
    let [_, b, c, d] = cpuid(0x4000_0000, 0);
    for (part, word) in signature.chunks_exact_mut(4).zip([b, c, d]) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    match &signature {
        b"KVMKVMKVM\0\0\0" => Hypervisor::Kvm,
        b"TCGTCGTCGTCG" => Hypervisor::Tcg,
        b"XenVMMXenVMM" => Hypervisor::Xen,
        b"Microsoft Hv" => Hypervisor::HyperV,
        b"VMwareVMware" => Hypervisor::Vmware,
        _ => Hypervisor::Other(signature),
    }
}

/// Linux's names, in its order of words: leaf 1 EDX, 8000_0001 EDX, leaf 1 ECX, 8000_0001 ECX, leaf 7 EBX, ECX.
type Names = &'static [(u32, &'static str)];
const LEAF1_EDX: Names = &[
    (0, "fpu"),
    (1, "vme"),
    (2, "de"),
    (3, "pse"),
    (4, "tsc"),
    (5, "msr"),
    (6, "pae"),
    (7, "mce"),
    (8, "cx8"),
    (9, "apic"),
    (11, "sep"),
    (12, "mtrr"),
    (13, "pge"),
    (14, "mca"),
    (15, "cmov"),
    (16, "pat"),
    (17, "pse36"),
    (19, "clflush"),
    (23, "mmx"),
    (24, "fxsr"),
    (25, "sse"),
    (26, "sse2"),
    (27, "ss"),
    (28, "ht"),
];
const EXT1_EDX: Names = &[
    (11, "syscall"),
    (20, "nx"),
    (22, "mmxext"),
    (25, "fxsr_opt"),
    (26, "pdpe1gb"),
    (27, "rdtscp"),
    (29, "lm"),
    (30, "3dnowext"),
    (31, "3dnow"),
];
const LEAF1_ECX: Names = &[
    (0, "pni"),
    (1, "pclmulqdq"),
    (3, "monitor"),
    (9, "ssse3"),
    (12, "fma"),
    (13, "cx16"),
    (17, "pcid"),
    (19, "sse4_1"),
    (20, "sse4_2"),
    (21, "x2apic"),
    (22, "movbe"),
    (23, "popcnt"),
    (24, "tsc_deadline_timer"),
    (25, "aes"),
    (26, "xsave"),
    (28, "avx"),
    (29, "f16c"),
    (30, "rdrand"),
    (31, "hypervisor"),
];
const EXT1_ECX: Names = &[
    (0, "lahf_lm"),
    (1, "cmp_legacy"),
    (2, "svm"),
    (4, "cr8_legacy"),
    (5, "abm"),
    (6, "sse4a"),
    (7, "misalignsse"),
    (8, "3dnowprefetch"),
];
const LEAF7_EBX: Names = &[
    (0, "fsgsbase"),
    (3, "bmi1"),
    (5, "avx2"),
    (7, "smep"),
    (8, "bmi2"),
    (9, "erms"),
    (10, "invpcid"),
    (16, "avx512f"),
    (17, "avx512dq"),
    (18, "rdseed"),
    (19, "adx"),
    (20, "smap"),
    (21, "avx512ifma"),
    (23, "clflushopt"),
    (24, "clwb"),
    (28, "avx512cd"),
    (29, "sha_ni"),
    (30, "avx512bw"),
    (31, "avx512vl"),
];
const LEAF7_ECX: Names = &[
    (1, "avx512vbmi"),
    (2, "umip"),
    (3, "pku"),
    (6, "avx512_vbmi2"),
    (8, "gfni"),
    (9, "vaes"),
    (10, "vpclmulqdq"),
    (11, "avx512_vnni"),
    (12, "avx512_bitalg"),
    (14, "avx512_vpopcntdq"),
    (16, "la57"),
    (22, "rdpid"),
];

/// What the processor can do, for people and programs.
pub fn features() -> &'static Features {
    static FEATURES: Lazy<Features> = Lazy::new(read);
    &FEATURES
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .take_while(|&b| b != 0)
        .collect();
    String::from(String::from_utf8_lossy(&bytes).trim())
}

fn read() -> Features {
    let [top, b, c, d] = cpuid(0, 0);
    let [eax1, ebx1, ecx1, edx1] = cpuid(1, 0);
    let [_, ebx7, ecx7, _] = if top >= 7 { cpuid(7, 0) } else { [0; 4] };
    let extended = cpuid(0x8000_0000, 0)[0];
    let ext = |leaf: u32| {
        if extended >= leaf {
            cpuid(leaf, 0)
        } else {
            [0; 4]
        }
    };
    let [_, _, ecx81, edx81] = ext(0x8000_0001);
    let sizes = ext(0x8000_0008)[0];
    let brand: Vec<u32> = if extended >= 0x8000_0004 {
        (2..5).flat_map(|i| cpuid(0x8000_0000 + i, 0)).collect()
    } else {
        Vec::new()
    };
    let mut flags = Vec::new();
    for (word, names) in [
        (edx1, LEAF1_EDX),
        (edx81, EXT1_EDX),
        (ecx1, LEAF1_ECX),
        (ecx81, EXT1_ECX),
        (ebx7, LEAF7_EBX),
        (ecx7, LEAF7_ECX),
    ] {
        flags.extend(
            names
                .iter()
                .filter(|(bit, _)| word >> bit & 1 != 0)
                .map(|(_, name)| *name),
        );
    }
    let base_family = eax1 >> 8 & 15;
    let family = if base_family == 15 {
        15 + (eax1 >> 20 & 255)
    } else {
        base_family
    };
    let model = (eax1 >> 4 & 15)
        | if base_family == 6 || base_family == 15 {
            (eax1 >> 16 & 15) << 4
        } else {
            0
        };
    Features {
        vendor: text(&[b, d, c]),
        brand: text(&brand),
        family,
        model,
        stepping: eax1 & 15,
        hwcap: edx1.into(),
        hwcap2: if has_fsgsbase() { 2 } else { 0 },
        flags,
        physical_bits: if sizes == 0 { 36 } else { sizes & 255 },
        virtual_bits: if sizes == 0 { 48 } else { sizes >> 8 & 255 },
        clflush_size: (ebx1 >> 8 & 255) * 8,
        cache_kib: ext(0x8000_0006)[2] >> 16,
    }
}
