//! The frame on the program's stack that a signal handler returns through: `struct rt_sigframe` of
//! x86-64 (`arch/x86/include/uapi/asm/sigcontext.h`, `ucontext.h`), byte for byte.
use super::state::AltStack;
use super::{SIGINFO_SIZE, SigInfo, SigSet};

/// Offset of the `ucontext` in the frame, behind the return address.
pub const UCONTEXT: usize = 8;
const STACK: usize = UCONTEXT + 16;
const MCONTEXT: usize = UCONTEXT + 40;
const SIGMASK: usize = UCONTEXT + 296;
/// Offset of the `siginfo` in the frame.
pub const SIGINFO: usize = UCONTEXT + 304;
/// Size of the frame without the floating-point state.
pub const FRAME_SIZE: usize = SIGINFO + SIGINFO_SIZE;

/// `uc_flags`: the floating-point state is in XSAVE format, `ss` is saved and strictly restored.
const UC_FLAGS: u64 = 1 | 2 | 4;

/// Where the kernel describes the floating-point state, within its legacy part.
const SW_RESERVED: usize = 464;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// The size of the legacy floating-point state.
pub const FXSAVE_SIZE: usize = 512;

/// The general registers in the order of `struct sigcontext`: r8 to r15, rdi, rsi, rbp, rbx, rdx,
/// rax, rcx, rsp, rip, rflags.
pub type Gregs = [u64; 18];

/// What goes into a frame, and what comes out of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The registers.
    pub gregs: Gregs,
    /// Error code, number and address of the last processor exception.
    pub trap: (u64, u64, u64),
    /// Address of the floating-point state, 0 for none.
    pub fpstate: u64,
    /// The mask to go back to.
    pub mask: SigSet,
    /// The alternate stack to go back to.
    pub altstack: AltStack,
}

/// Where the parts of a frame go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The frame, which is the handler's stack pointer.
    pub frame: usize,
    /// The floating-point state.
    pub fpstate: usize,
}

/// Places a frame with `fp_size` bytes of floating-point state (its end mark not counted) below `sp`.
pub fn place(sp: usize, fp_size: usize) -> Option<Placement> {
    let fpstate = sp.checked_sub(fp_size + 4)? / 64 * 64;
    let frame = (fpstate.checked_sub(FRAME_SIZE)? / 16 * 16).checked_sub(8)?;
    Some(Placement { frame, fpstate })
}

/// The bytes of a frame.
pub fn build(saved: &Saved, info: &SigInfo, restorer: u64) -> [u8; FRAME_SIZE] {
    let mut bytes = [0; FRAME_SIZE];
    let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, restorer);
    put(UCONTEXT, UC_FLAGS);
    put(STACK, saved.altstack.base as u64);
    put(STACK + 8, u64::from(saved.altstack.flags));
    put(STACK + 16, saved.altstack.size as u64);
    for (n, value) in saved.gregs.iter().enumerate() {
        put(MCONTEXT + 8 * n, *value);
    }
    // cs, gs, fs, ss: the selectors a 64-bit program of Linux sees.
    put(MCONTEXT + 144, 0x33 | 0x2b << 48);
    let (error, number, address) = saved.trap;
    put(MCONTEXT + 152, error);
    put(MCONTEXT + 160, number);
    put(MCONTEXT + 168, saved.mask.0);
    put(MCONTEXT + 176, address);
    put(MCONTEXT + 184, saved.fpstate);
    put(SIGMASK, saved.mask.0);
    bytes[SIGINFO..].copy_from_slice(&info.to_bytes());
    bytes
}

/// Reads a frame back at `rt_sigreturn(2)`. Every value is the program's; the caller checks them.
pub fn parse(bytes: &[u8; FRAME_SIZE]) -> Saved {
    let get = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    Saved {
        gregs: core::array::from_fn(|n| get(MCONTEXT + 8 * n)),
        trap: (
            get(MCONTEXT + 152),
            get(MCONTEXT + 160),
            get(MCONTEXT + 176),
        ),
        fpstate: get(MCONTEXT + 184),
        mask: SigSet(get(SIGMASK)),
        altstack: AltStack {
            base: get(STACK) as usize,
            size: get(STACK + 16) as usize,
            flags: get(STACK + 8) as u32,
        },
    }
}

/// Writes into the legacy part of a floating-point state what tells a reader its real size.
pub fn describe_fp(state: &mut [u8], features: u64) {
    let size = state.len() as u32;
    if state.len() <= FXSAVE_SIZE {
        return;
    }
    let mut put = |at: usize, value: &[u8]| {
        state[SW_RESERVED + at..SW_RESERVED + at + value.len()].copy_from_slice(value);
    };
    put(0, &FP_XSTATE_MAGIC1.to_le_bytes());
    put(4, &(size + 4).to_le_bytes());
    put(8, &features.to_le_bytes());
    put(16, &size.to_le_bytes());
    put(20, &[0; 28]);
}

/// The mark behind the floating-point state.
pub const FP_END: [u8; 4] = FP_XSTATE_MAGIC2.to_le_bytes();

/// How many bytes of floating-point state the legacy part says there are, if it says so; the
/// caller looks for [`FP_END`] behind them.
pub fn fp_size(legacy: &[u8; FXSAVE_SIZE]) -> Option<usize> {
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&legacy[SW_RESERVED + at..SW_RESERVED + at + 4]);
        u32::from_le_bytes(word)
    };
    let (magic, extended, size) = (word(0), word(4), word(16));
    (magic == FP_XSTATE_MAGIC1 && size as usize > FXSAVE_SIZE && extended == size.wrapping_add(4))
        .then_some(size as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{SIGSEGV, code};

    #[test]
    fn the_layout_is_the_abis() {
        // Offsets that glibc, Go and libgcc's unwinder have compiled in.
        assert_eq!(MCONTEXT, 48);
        assert_eq!(SIGINFO, 312);
        assert_eq!(FRAME_SIZE, 440);
        let saved = Saved {
            gregs: core::array::from_fn(|n| n as u64 + 100),
            trap: (6, 14, 0xdead),
            fpstate: 0x1000,
            mask: SigSet(5),
            altstack: AltStack {
                base: 0x7000,
                size: 0x2000,
                flags: 1,
            },
        };
        let bytes = build(
            &saved,
            &SigInfo::fault(SIGSEGV, code::SEGV_MAPERR, 0xdead),
            0x4242,
        );
        assert_eq!(parse(&bytes), saved);
        // rip is the seventeenth register of the machine context.
        assert_eq!(bytes[MCONTEXT + 128], 116);
        assert_eq!(bytes[SIGINFO], 11);
        assert_eq!(&bytes[..2], &[0x42, 0x42]);
    }

    #[test]
    fn frames_are_aligned_as_a_call_leaves_the_stack() {
        for sp in (0x10000..0x10100).step_by(3) {
            let placed = place(sp, 2696).unwrap();
            assert_eq!(placed.frame % 16, 8);
            assert_eq!(placed.fpstate % 64, 0);
            assert!(placed.fpstate + 2696 + 4 <= sp && placed.frame + FRAME_SIZE <= placed.fpstate);
        }
        assert_eq!(place(100, 512), None);
    }

    #[test]
    fn the_size_of_the_floating_point_state_survives() {
        let mut state = [0u8; 832];
        describe_fp(&mut state, 7);
        let legacy: [u8; FXSAVE_SIZE] = state[..FXSAVE_SIZE].try_into().unwrap();
        assert_eq!(fp_size(&legacy), Some(832));
        assert_eq!(fp_size(&[0; FXSAVE_SIZE]), None);
    }
}
