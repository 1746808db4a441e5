//! Randomness from the processor. Mixing it into a generator is the kernel's business elsewhere.

use crate::arch;

/// A word from RDRAND; `None` if there is no such instruction or it fails ten times.
pub fn rdrand() -> Option<u64> {
    arch::rdrand()
}

/// A word from RDSEED; `None` if there is no such instruction or it fails ten times.
pub fn rdseed() -> Option<u64> {
    arch::rdseed()
}

/// A word with a little uncertainty: the time-stamp counter around memory accesses, mixed. Never the only source.
pub fn jitter() -> u64 {
    let mut mixed = 0u64;
    for i in 0..16u64 {
        mixed = (mixed ^ arch::time::counter().wrapping_add(i)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
        core::hint::black_box(&mixed);
    }
    mixed
}
