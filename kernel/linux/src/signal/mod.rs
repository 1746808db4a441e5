//! Signals: what is pending, who handles it, how it is delivered (`signal(7)`).
//!
//! [`queue`] holds what is pending, [`state`] what a thread and the process keep, [`send`] makes
//! signals, [`deliver`] acts on them before the program goes on, [`frame`] is the stack frame of
//! Linux's ABI, [`fault`] turns processor exceptions into signals, [`fatal`] reports the end.
pub mod deliver;
pub mod fatal;
pub mod fault;
pub mod frame;
pub mod queue;
pub mod send;
pub mod state;

use core::fmt;

/// The number of signals; they count from 1.
pub const NSIG: i32 = 64;
/// The first real-time signal of the kernel's numbering.
pub const SIGRTMIN: i32 = 32;

macro_rules! signals {
    ($($number:literal $name:ident;)*) => {
        $(#[doc = concat!("Signal ", $number, " (`signal(7)`).")] pub const $name: i32 = $number;)*
        /// `SIGSEGV` for 11, and so on; `SIGRT` for a real-time signal.
        pub const fn name(signal: i32) -> &'static str {
            match signal { $($number => stringify!($name),)* 32..=64 => "SIGRT", _ => "SIG?" }
        }
    };
}

signals! {
    1 SIGHUP; 2 SIGINT; 3 SIGQUIT; 4 SIGILL; 5 SIGTRAP; 6 SIGABRT; 7 SIGBUS; 8 SIGFPE; 9 SIGKILL;
    10 SIGUSR1; 11 SIGSEGV; 12 SIGUSR2; 13 SIGPIPE; 14 SIGALRM; 15 SIGTERM; 16 SIGSTKFLT;
    17 SIGCHLD; 18 SIGCONT; 19 SIGSTOP; 20 SIGTSTP; 21 SIGTTIN; 22 SIGTTOU; 23 SIGURG; 24 SIGXCPU;
    25 SIGXFSZ; 26 SIGVTALRM; 27 SIGPROF; 28 SIGWINCH; 29 SIGIO; 30 SIGPWR; 31 SIGSYS;
}

/// A set of signals as one word, bit `n - 1` for signal `n` (`sigset_t`).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// Signals that cannot be caught, blocked or ignored.
    pub const UNBLOCKABLE: SigSet = SigSet(1 << (SIGKILL - 1) | 1 << (SIGSTOP - 1));
    /// Signals a faulting instruction causes; they are delivered before others.
    pub const SYNCHRONOUS: SigSet = SigSet(
        1 << (SIGSEGV - 1)
            | 1 << (SIGBUS - 1)
            | 1 << (SIGILL - 1)
            | 1 << (SIGTRAP - 1)
            | 1 << (SIGFPE - 1)
            | 1 << (SIGSYS - 1),
    );

    /// The set of one signal, or of none for a number out of range.
    pub const fn of(signal: i32) -> SigSet {
        if signal < 1 || signal > NSIG {
            SigSet(0)
        } else {
            SigSet(1 << (signal - 1))
        }
    }

    /// Whether `signal` is in it.
    pub const fn contains(self, signal: i32) -> bool {
        self.0 & SigSet::of(signal).0 != 0
    }

    /// Whether it is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Everything in either.
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// Everything in both.
    pub const fn intersection(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// Everything in this and not in `other`.
    pub const fn difference(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// Every signal that is not in it.
    pub const fn complement(self) -> SigSet {
        SigSet(!self.0)
    }

    /// The lowest signal in it.
    pub const fn first(self) -> Option<i32> {
        if self.0 == 0 {
            None
        } else {
            Some(self.0.trailing_zeros() as i32 + 1)
        }
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// Where a signal came from (`si_code`), as far as the kernel makes them.
pub mod code {
    /// `kill(2)`.
    pub const SI_USER: i32 = 0;
    /// The kernel.
    pub const SI_KERNEL: i32 = 0x80;
    /// A POSIX timer.
    pub const SI_TIMER: i32 = -2;
    /// `tkill(2)` and `tgkill(2)`.
    pub const SI_TKILL: i32 = -6;
    /// `SIGSEGV`: no mapping there.
    pub const SEGV_MAPERR: i32 = 1;
    /// `SIGSEGV`: the mapping does not allow it.
    pub const SEGV_ACCERR: i32 = 2;
    /// `SIGBUS`: misaligned access.
    pub const BUS_ADRALN: i32 = 1;
    /// `SIGBUS`: past the end of the mapped file, or it could not be read.
    pub const BUS_ADRERR: i32 = 2;
    /// `SIGFPE`: integer division by zero.
    pub const FPE_INTDIV: i32 = 1;
    /// `SIGFPE`: integer overflow.
    pub const FPE_INTOVF: i32 = 2;
    /// `SIGFPE`: floating-point division by zero.
    pub const FPE_FLTDIV: i32 = 3;
    /// `SIGFPE`: floating-point overflow.
    pub const FPE_FLTOVF: i32 = 4;
    /// `SIGFPE`: floating-point underflow.
    pub const FPE_FLTUND: i32 = 5;
    /// `SIGFPE`: floating-point inexact result.
    pub const FPE_FLTRES: i32 = 6;
    /// `SIGFPE`: invalid floating-point operation.
    pub const FPE_FLTINV: i32 = 7;
    /// `SIGILL`: illegal opcode operand.
    pub const ILL_ILLOPN: i32 = 2;
    /// `SIGTRAP`: breakpoint (`int3` reports `SI_KERNEL` instead).
    pub const TRAP_BRKPT: i32 = 1;
    /// `SIGTRAP`: single step.
    pub const TRAP_TRACE: i32 = 2;
}

/// What comes with a signal: a `siginfo_t` in the kernel's own shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    /// `si_signo`.
    pub signo: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// The rest.
    pub fields: SigFields,
}

/// The part of a `siginfo_t` that differs from kind to kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigFields {
    /// Nothing more.
    None,
    /// Sent by a process: `si_pid`, `si_uid`, and `si_value` with `sigqueue(3)`.
    Sender {
        /// `si_pid`.
        pid: i32,
        /// `si_uid`.
        uid: u32,
        /// `si_value`.
        value: u64,
    },
    /// A POSIX timer ran out.
    Timer {
        /// `si_timerid`.
        id: i32,
        /// `si_overrun`, filled in when the signal is taken.
        overrun: i32,
        /// `si_value`.
        value: u64,
    },
    /// A faulting instruction.
    Fault {
        /// `si_addr`.
        addr: usize,
    },
    /// What a program gave to `rt_sigqueueinfo(2)`, unread: the bytes after `si_code`'s padding.
    Raw([u8; 112]),
}

/// The size of a `siginfo_t`.
pub const SIGINFO_SIZE: usize = 128;

impl SigInfo {
    /// A signal that the kernel itself sends.
    pub const fn kernel(signo: i32) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code: code::SI_KERNEL,
            fields: SigFields::None,
        }
    }

    /// A signal that a thread of the program sends, by `kill(2)` (`SI_USER`) or `tgkill(2)` (`SI_TKILL`).
    pub const fn from_program(signo: i32, code: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code,
            fields: SigFields::Sender { pid, uid, value: 0 },
        }
    }

    /// A signal for a faulting instruction.
    pub const fn fault(signo: i32, code: i32, addr: usize) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code,
            fields: SigFields::Fault { addr },
        }
    }

    /// The `siginfo_t` of the ABI.
    pub fn to_bytes(&self) -> [u8; SIGINFO_SIZE] {
        let mut bytes = [0; SIGINFO_SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.signo.to_le_bytes());
        put(4, &self.errno.to_le_bytes());
        put(8, &self.code.to_le_bytes());
        match self.fields {
            SigFields::None => {}
            SigFields::Sender { pid, uid, value } => {
                put(16, &pid.to_le_bytes());
                put(20, &uid.to_le_bytes());
                put(24, &value.to_le_bytes());
            }
            SigFields::Timer { id, overrun, value } => {
                put(16, &id.to_le_bytes());
                put(20, &overrun.to_le_bytes());
                put(24, &value.to_le_bytes());
            }
            SigFields::Fault { addr } => put(16, &(addr as u64).to_le_bytes()),
            SigFields::Raw(rest) => put(16, &rest),
        }
        bytes
    }

    /// The signal that a program describes in a `siginfo_t`, with `signo` as the number.
    pub fn from_program_bytes(signo: i32, bytes: &[u8; SIGINFO_SIZE]) -> SigInfo {
        let word = |at: usize| {
            i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let mut rest = [0; 112];
        rest.copy_from_slice(&bytes[16..]);
        SigInfo {
            signo,
            errno: word(4),
            code: word(8),
            fields: SigFields::Raw(rest),
        }
    }
}

/// What happens to a signal that has no handler (`signal(7)`, "Standard signals").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// The program ends.
    Terminate,
    /// The program ends and a fault is reported (where Linux would also write a core).
    Core,
    /// Nothing.
    Ignore,
    /// The program stops. One program alone on a machine has nobody to continue it.
    Stop,
    /// It continues.
    Continue,
}

/// The default action of `signal`.
pub const fn default_action(signal: i32) -> DefaultAction {
    match signal {
        SIGCHLD | SIGURG | SIGWINCH => DefaultAction::Ignore,
        SIGCONT => DefaultAction::Continue,
        SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU => DefaultAction::Stop,
        SIGQUIT | SIGILL | SIGTRAP | SIGABRT | SIGBUS | SIGFPE | SIGSEGV | SIGXCPU | SIGXFSZ
        | SIGSYS => DefaultAction::Core,
        _ => DefaultAction::Terminate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_count_signals_from_one() {
        assert_eq!(SigSet::of(1).0, 1);
        assert_eq!(SigSet::of(64).0, 1 << 63);
        assert_eq!(SigSet::of(65), SigSet::EMPTY);
        assert_eq!(SigSet::of(0), SigSet::EMPTY);
        assert_eq!(SigSet(0b1010).first(), Some(2));
        assert!(SigSet::UNBLOCKABLE.contains(SIGKILL) && SigSet::UNBLOCKABLE.contains(SIGSTOP));
    }

    #[test]
    fn a_siginfo_has_linuxs_layout() {
        let bytes = SigInfo::fault(SIGSEGV, code::SEGV_MAPERR, 0x1234_5678_9abc).to_bytes();
        assert_eq!(&bytes[..12], &[11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(&bytes[16..24], &0x1234_5678_9abc_u64.to_le_bytes());
        let sent = SigInfo::from_program(SIGUSR1, code::SI_USER, 2, 7).to_bytes();
        assert_eq!((sent[16], sent[20]), (2, 7));
        assert_eq!(SigInfo::from_program_bytes(SIGUSR1, &sent).to_bytes(), sent);
    }
}
