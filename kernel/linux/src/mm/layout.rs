//! Where the parts of the program lie, and how random that is (`arch/x86/mm/mmap.c`, `fs/binfmt_elf.c`).
use super::vma::PAGE;
use crate::uaccess::USER_END;

/// Addresses of the program's parts. What is not set yet is 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// Where unplaced mappings grow down from.
    pub mmap_top: usize,
    /// The lowest address a program may map (`vm.mmap_min_addr`).
    pub min_addr: usize,
    /// Start of the heap.
    pub brk_start: usize,
    /// Its end now, as `brk(2)` has it.
    pub brk: usize,
    /// Whether addresses are random.
    pub random: bool,
    /// First and last byte of the program's text, for `/proc/self/stat`.
    pub code: (usize, usize),
    /// Of its data.
    pub data: (usize, usize),
    /// Stack pointer at the start.
    pub stack_start: usize,
    /// The strings of the arguments.
    pub args: (usize, usize),
    /// The strings of the environment.
    pub env: (usize, usize),
    /// Where the vDSO lies, or 0.
    pub vdso: usize,
}

/// Default of `vm.mmap_min_addr`.
pub const MMAP_MIN_ADDR: usize = 65536;

/// Where a static-PIE or dynamic program goes: two thirds up, as Linux's `ELF_ET_DYN_BASE`.
pub const ET_DYN_BASE: usize = USER_END / 3 * 2 / PAGE * PAGE;

/// Random bits of mappings, program and interpreter (`vm.mmap_rnd_bits`, Linux's default 28 on x86-64).
pub const MMAP_BITS: u32 = 28;
/// Random bits of the stack's top, in pages of 16 bytes granularity beneath (`STACK_RND_MASK` 0x3fffff pages).
pub const STACK_BITS: u32 = 22;
/// The heap starts up to 32 MiB behind the program, or, for a program at a random place, 1 GiB.
pub const BRK_SPAN: usize = 0x4000_0000;
/// The largest gap for the stack that the mapping area leaves.
const GAP_MAX: usize = USER_END / 6 * 5;
const GAP_MIN: usize = 128 << 20;

/// A source of random words, for the placement.
pub trait Entropy {
    /// Sixty-four random bits.
    fn word(&mut self) -> u64;
}

impl Layout {
    /// A layout for a program whose stack may grow to `stack_limit` bytes.
    pub fn new(random: Option<&mut dyn Entropy>, stack_limit: u64, min_addr: usize) -> Layout {
        let rounds = |bits: u32, word: u64| (word & ((1 << bits) - 1)) as usize * PAGE;
        let stack = usize::try_from(stack_limit).unwrap_or(GAP_MAX);
        let mut layout = Layout {
            min_addr: min_addr.max(PAGE),
            random: random.is_some(),
            ..Layout::default()
        };
        let mut shift = 0;
        let mut stack_shift = 0;
        if let Some(entropy) = random {
            shift = rounds(MMAP_BITS, entropy.word());
            // 30 bits in all: 22 of pages here, 8 of 16 bytes within the page by the caller.
            stack_shift = rounds(STACK_BITS, entropy.word());
        }
        layout.stack_start = USER_END - stack_shift;
        let pad = (rounds(STACK_BITS, u64::MAX) + super::STACK_GUARD) * usize::from(layout.random);
        let gap = stack.saturating_add(pad).clamp(GAP_MIN, GAP_MAX);
        layout.mmap_top = (USER_END - gap - shift) / PAGE * PAGE;
        layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64);

    impl Entropy for Fixed {
        fn word(&mut self) -> u64 {
            self.0
        }
    }

    #[test]
    fn the_stack_never_reaches_the_mappings() {
        for word in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            let layout = Layout::new(Some(&mut Fixed(word)), 8 << 20, MMAP_MIN_ADDR);
            assert!(layout.mmap_top + (8 << 20) <= layout.stack_start);
            assert_eq!(layout.mmap_top % PAGE, 0);
        }
        let spread = Layout::new(Some(&mut Fixed(0)), 8 << 20, 0).mmap_top
            - Layout::new(Some(&mut Fixed(u64::MAX)), 8 << 20, 0).mmap_top;
        assert_eq!(spread, ((1 << 28) - 1) * PAGE);
        assert_eq!(Layout::new(None, 8 << 20, 0).stack_start, USER_END);
    }

    #[test]
    fn an_endless_stack_leaves_room_for_mappings() {
        let layout = Layout::new(None, u64::MAX, 0);
        assert!(layout.mmap_top > 1 << 40);
    }
}
