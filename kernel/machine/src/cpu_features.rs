//! What a processor can do, in the form in which `/proc/cpuinfo` and the aux vector want it.

use alloc::string::String;
use alloc::vec::Vec;

/// The processor's identity and features (of the first CPU; all are alike).
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// `GenuineIntel`, `AuthenticAMD`...
    pub vendor: String,
    /// The marketing name.
    pub brand: String,
    /// Display family.
    pub family: u32,
    /// Display model.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
    /// AT_HWCAP: CPUID leaf 1, EDX.
    pub hwcap: u64,
    /// AT_HWCAP2: bit 1 says that FSGSBASE instructions may be used.
    pub hwcap2: u64,
    /// Linux's names of the features, as in `flags` of `/proc/cpuinfo`.
    pub flags: Vec<&'static str>,
    /// Physical address bits.
    pub physical_bits: u32,
    /// Virtual address bits.
    pub virtual_bits: u32,
    /// Cache line that CLFLUSH works on, in bytes.
    pub clflush_size: u32,
    /// Size of the largest cache in KiB, 0 if unknown.
    pub cache_kib: u32,
}
