//! A thread of the program: its id, name, signals, and what the kernel does when it ends.
//!
//! Making one is `syscalls::threads`' business, running one [`crate::run`]'s.
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use machine::sync::{Once, SpinLock};

use crate::process::Process;
use crate::signal::SigSet;
use crate::signal::state::ThreadSignals;

/// The longest name of a thread, the ending zero included (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// How an interrupted system call goes on with `restart_syscall(2)`.
#[derive(Clone, Copy, Debug)]
pub enum RestartBlock {
    /// `nanosleep` or relative `clock_nanosleep`: until `deadline_ns` of the monotonic clock, and
    /// the rest is stored at `remaining` when it is interrupted again.
    Sleep {
        /// When to wake.
        deadline_ns: u64,
        /// Where the rest goes, or 0.
        remaining: usize,
    },
    /// `futex(FUTEX_WAIT)` with a relative timeout.
    FutexWait {
        /// The word.
        addr: usize,
        /// Its expected value.
        value: u32,
        /// Which wakers count.
        bitset: u32,
        /// Whether the key is private to the process.
        private: bool,
        /// When to give up, of the monotonic clock.
        deadline_ns: u64,
    },
    /// `poll(2)` with a timeout, until `deadline_ns`.
    Poll {
        /// The `pollfd`s.
        fds: usize,
        /// How many.
        count: usize,
        /// When to give up, of the monotonic clock.
        deadline_ns: u64,
    },
}

/// A thread of the program.
pub struct LinuxThread {
    /// Its id, as `gettid(2)` has it.
    pub tid: i32,
    /// Its mask, queue and alternate stack.
    pub signals: ThreadSignals,
    /// The scheduler's thread under it, once started.
    sched: Once<Weak<sched::Thread>>,
    comm: SpinLock<[u8; COMM_LEN]>,
    /// Where to write 0 and wake a futex when the thread ends (`set_tid_address(2)`).
    clear_child_tid: AtomicUsize,
    /// Head and length of the robust futex list (`set_robust_list(2)`).
    robust_list: SpinLock<(usize, usize)>,
    /// The registered `struct rseq`: address, length, signature.
    pub(crate) rseq: SpinLock<Option<(usize, u32, u32)>>,
    /// The CPU the program was last told.
    pub(crate) rseq_cpu: core::sync::atomic::AtomicU32,
    pub(crate) restart: SpinLock<Option<RestartBlock>>,
    exiting: AtomicBool,
    keep_registers: AtomicBool,
    /// The number of the running or last system call, for `/proc/self/syscall` and restarts.
    syscall: AtomicU64,
    /// Its arguments.
    syscall_args: [AtomicU64; 6],
    /// `prctl(PR_SET_TIMERSLACK)`.
    pub(crate) timer_slack_ns: AtomicU64,
    /// `prctl(PR_SET_PDEATHSIG)`.
    pub(crate) parent_death_signal: AtomicU64,
    /// Error code, number and address of the last processor exception, for signal frames.
    pub(crate) last_trap: SpinLock<(u64, u64, u64)>,
    /// Page faults that needed no I/O, and those that did (`getrusage(2)`).
    pub(crate) faults: [AtomicU64; 2],
}

/// The number of "no system call", as Linux keeps it in `orig_rax`.
pub const NO_SYSCALL: u64 = u64::MAX;

impl LinuxThread {
    /// A thread that does not run yet.
    pub fn new(tid: i32, comm: &[u8], mask: SigSet) -> Arc<Self> {
        let thread = LinuxThread {
            tid,
            signals: ThreadSignals::new(mask),
            sched: Once::new(),
            comm: SpinLock::new([0; COMM_LEN]),
            clear_child_tid: AtomicUsize::new(0),
            robust_list: SpinLock::new((0, 0)),
            rseq: SpinLock::new(None),
            rseq_cpu: core::sync::atomic::AtomicU32::new(u32::MAX),
            restart: SpinLock::new(None),
            exiting: AtomicBool::new(false),
            keep_registers: AtomicBool::new(false),
            syscall: AtomicU64::new(NO_SYSCALL),
            syscall_args: [const { AtomicU64::new(0) }; 6],
            timer_slack_ns: AtomicU64::new(50_000),
            parent_death_signal: AtomicU64::new(0),
            last_trap: SpinLock::new((0, 0, 0)),
            faults: [const { AtomicU64::new(0) }; 2],
        };
        thread.set_comm(comm);
        Arc::new(thread)
    }

    /// Ties it to the scheduler's thread that runs it.
    pub(crate) fn attach(&self, thread: &Arc<sched::Thread>) {
        self.sched.call_once(|| Arc::downgrade(thread));
    }

    /// The scheduler's thread under it, while that lives.
    pub fn sched(&self) -> Option<Arc<sched::Thread>> {
        self.sched.get().and_then(Weak::upgrade)
    }

    /// Its name, up to 15 bytes, without the ending zero.
    pub fn comm(&self) -> Vec<u8> {
        let comm = *self.comm.lock();
        comm.iter().copied().take_while(|byte| *byte != 0).collect()
    }

    /// Its name as text, for reports.
    pub fn comm_text(&self) -> String {
        String::from_utf8_lossy(&self.comm()).into_owned()
    }

    /// Names it; what is longer than 15 bytes is cut.
    pub fn set_comm(&self, name: &[u8]) {
        let mut comm = [0; COMM_LEN];
        for (to, from) in comm[..COMM_LEN - 1]
            .iter_mut()
            .zip(name.iter().take_while(|byte| **byte != 0))
        {
            *to = *from;
        }
        *self.comm.lock() = comm;
        if let Some(thread) = self.sched() {
            thread.set_name(&self.comm_text());
        }
    }

    /// Where to write 0 at the end, or 0.
    pub fn clear_child_tid(&self) -> usize {
        self.clear_child_tid.load(Ordering::Relaxed)
    }

    /// `set_tid_address(2)`.
    pub fn set_clear_child_tid(&self, addr: usize) {
        self.clear_child_tid.store(addr, Ordering::Relaxed);
    }

    /// Head and length of the robust futex list.
    pub fn robust_list(&self) -> (usize, usize) {
        *self.robust_list.lock()
    }

    /// `set_robust_list(2)`.
    pub fn set_robust_list(&self, head: usize, len: usize) {
        *self.robust_list.lock() = (head, len);
    }

    /// Whether a signal is pending that the thread does not block.
    pub fn has_deliverable_signal(&self, process: &Process) -> bool {
        let pending = self.signals.pending().union(process.signals.pending());
        !pending.difference(self.signals.mask()).is_empty() || self.is_exiting()
    }

    /// Asks it to end before it returns to the program.
    pub fn set_exiting(&self) {
        self.exiting.store(true, Ordering::SeqCst);
    }

    /// Whether it is to end.
    pub fn is_exiting(&self) -> bool {
        self.exiting.load(Ordering::SeqCst)
    }

    /// Wakes it from an interruptible wait, or makes it enter the kernel soon if it runs user code.
    pub fn kick(&self) {
        if let Some(thread) = self.sched() {
            thread.interrupt();
        }
    }

    pub(crate) fn enter_syscall(&self, number: u64, args: &[u64; 6]) {
        self.syscall.store(number, Ordering::Relaxed);
        for (to, from) in self.syscall_args.iter().zip(args) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    pub(crate) fn leave_syscall(&self) {
        self.syscall.store(NO_SYSCALL, Ordering::Relaxed);
    }

    /// The number of the system call it is in, or [`NO_SYSCALL`], and the arguments.
    pub fn syscall(&self) -> (u64, [u64; 6]) {
        let args = core::array::from_fn(|n| self.syscall_args[n].load(Ordering::Relaxed));
        (self.syscall.load(Ordering::Relaxed), args)
    }

    /// Says that the call's handler set all registers itself (`rt_sigreturn(2)`).
    pub(crate) fn set_keep_registers(&self) {
        self.keep_registers.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_keep_registers(&self) -> bool {
        self.keep_registers.swap(false, Ordering::Relaxed)
    }
}

/// The calling thread, if it is one of the program's.
pub fn current() -> Option<Arc<LinuxThread>> {
    sched::current().ext::<LinuxThread>()
}
