//! The one process: its memory, threads, signals, limits, identity.
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use errno::{Errno, Result};
use machine::sync::{Once, SpinLock};

use crate::futex::FutexTable;
use crate::limits::Limits;
use crate::mm::AddressSpace;
use crate::signal::state::ProcessSignals;
use crate::thread::LinuxThread;
use crate::time::Timers;

/// The process id, as `getpid(2)` has it: above 1, since programs treat 1 as "I am init".
pub const PID: i32 = 2;

/// The id of the parent, the kernel: as for a program that the boot process started.
pub const PARENT_PID: i32 = 1;

/// The most threads that may live at once (`RLIMIT_NPROC`, `kernel.threads-max`).
pub const MAX_THREADS: usize = 32768;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// `exit_group(2)` with that code (0 to 255).
    Code(u8),
    /// A signal.
    Signal(i32),
}

impl ExitStatus {
    /// The code a shell would show: 128 and the number for a signal.
    pub const fn code(self) -> u8 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal as u8,
        }
    }
}

/// What the program was started as; `/proc/self` shows it.
#[derive(Debug, Default)]
pub struct Image {
    /// The path of the executable, resolved.
    pub exe: Vec<u8>,
    /// The arguments.
    pub arguments: Vec<Vec<u8>>,
    /// The environment, `NAME=value`.
    pub environment: Vec<Vec<u8>>,
    /// The auxiliary vector as written to the stack (`/proc/self/auxv`).
    pub auxv: Vec<u8>,
}

/// User and group ids; nothing here checks permissions by them but what Linux shows to a program.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Real, effective, saved, file-system user id.
    pub uid: [u32; 4],
    /// Real, effective, saved, file-system group id.
    pub gid: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective, permitted, inheritable capabilities.
    pub caps: [u64; 3],
}

/// All capabilities Linux 6.1 knows.
pub const ALL_CAPS: u64 = (1 << 41) - 1;

impl Default for Credentials {
    fn default() -> Self {
        Credentials {
            uid: [0; 4],
            gid: [0; 4],
            groups: Vec::new(),
            caps: [ALL_CAPS, ALL_CAPS, 0],
        }
    }
}

/// The one process.
pub struct Process {
    /// The address space.
    pub mm: AddressSpace,
    /// Dispositions and the shared queue.
    pub signals: ProcessSignals,
    /// Who waits for which word.
    pub futexes: FutexTable,
    /// `RLIMIT_*`.
    pub limits: Limits,
    /// Interval and POSIX timers.
    pub timers: Timers,
    /// What it runs; set once by `exec`.
    pub image: Once<Image>,
    /// User and group ids.
    pub credentials: SpinLock<Credentials>,
    /// All that is mounted.
    pub namespace: Arc<fs::Namespace>,
    /// Descriptors.
    pub files: crate::files::FileTable,
    /// Root, working directory, umask.
    pub fs: crate::files::FsContext,
    threads: SpinLock<BTreeMap<i32, Arc<LinuxThread>>>,
    next_tid: SpinLock<i32>,
    exiting: AtomicBool,
    /// What the main thread gave to `exit(2)`, for when it is not the last.
    leader_code: AtomicU64,
    /// Processor time of threads that have ended: user, system.
    pub(crate) ended_ns: [AtomicU64; 2],
    /// `membarrier(2)` registrations.
    pub(crate) membarrier: AtomicU64,
    /// When it started, of the monotonic clock.
    pub start_ns: u64,
    /// Does what ends the machine: syncs, unmounts, powers off. Never returns.
    exit: fn(ExitStatus) -> !,
}

static PROCESS: Once<Process> = Once::new();

/// The process, once there is one.
pub fn get() -> Option<&'static Process> {
    PROCESS.get()
}

/// Makes `process` the one process.
///
/// # Errors
/// `EEXIST` when there is one.
pub(crate) fn install(process: Process) -> Result<&'static Process> {
    PROCESS.set(process).map_err(|_| Errno::EEXIST)?;
    PROCESS.get().ok_or(Errno::EEXIST)
}

impl Process {
    /// A process without threads.
    pub(crate) fn new(
        mm: AddressSpace,
        namespace: Arc<fs::Namespace>,
        exit: fn(ExitStatus) -> !,
    ) -> Self {
        Process {
            mm,
            signals: ProcessSignals::new(),
            futexes: FutexTable::new(),
            limits: Limits::new(),
            timers: Timers::new(),
            image: Once::new(),
            credentials: SpinLock::new(Credentials::default()),
            files: crate::files::FileTable::new(),
            fs: crate::files::FsContext::new(namespace.clone()),
            namespace,
            threads: SpinLock::new(BTreeMap::new()),
            next_tid: SpinLock::new(PID),
            exiting: AtomicBool::new(false),
            leader_code: AtomicU64::new(0),
            ended_ns: [const { AtomicU64::new(0) }; 2],
            membarrier: AtomicU64::new(0),
            start_ns: machine::time::now_ns(),
            exit,
        }
    }

    /// The next free thread id; the first is [`PID`].
    pub(crate) fn allocate_tid(&self) -> Result<i32> {
        const PID_MAX: i32 = 4_194_304;
        if self.threads.lock().len() >= MAX_THREADS {
            return Err(Errno::EAGAIN);
        }
        let mut next = self.next_tid.lock();
        loop {
            let tid = *next;
            *next = if tid + 1 >= PID_MAX { PID + 1 } else { tid + 1 };
            if !self.threads.lock().contains_key(&tid) {
                return Ok(tid);
            }
        }
    }

    /// Lists `thread` under its id.
    pub(crate) fn add_thread(&self, thread: Arc<LinuxThread>) {
        self.threads.lock().insert(thread.tid, thread);
    }

    /// Forgets the thread `tid`; answers how many are left.
    pub(crate) fn remove_thread(&self, tid: i32) -> usize {
        let mut threads = self.threads.lock();
        let gone = threads.remove(&tid);
        let left = threads.len();
        drop(threads);
        drop(gone);
        left
    }

    /// The living thread `tid`.
    pub fn thread(&self, tid: i32) -> Option<Arc<LinuxThread>> {
        self.threads.lock().get(&tid).cloned()
    }

    /// All living threads, by id.
    pub fn threads(&self) -> Vec<Arc<LinuxThread>> {
        self.threads.lock().values().cloned().collect()
    }

    /// How many threads live.
    pub fn thread_count(&self) -> usize {
        self.threads.lock().len()
    }

    /// The status with which the main thread called `exit(2)`.
    pub(crate) fn leader_code(&self) -> u8 {
        self.leader_code.load(Ordering::Relaxed) as u8
    }

    pub(crate) fn set_leader_code(&self, code: u8) {
        self.leader_code.store(u64::from(code), Ordering::Relaxed);
    }

    /// Whether the program is ending.
    pub fn is_exiting(&self) -> bool {
        self.exiting.load(Ordering::SeqCst)
    }

    /// Ends the program and the machine (`exit_group(2)`, a fatal signal, the last thread's end).
    ///
    /// The first caller decides the status; whoever comes later just stops.
    pub fn exit(&self, status: ExitStatus) -> ! {
        if self.exiting.swap(true, Ordering::SeqCst) {
            let nobody = sched::WaitQueue::new();
            loop {
                nobody.wait(|| None::<()>);
            }
        }
        for thread in self.threads() {
            thread.set_exiting();
            thread.kick();
        }
        (self.exit)(status)
    }

    /// User and system time of all threads, ended ones included, in nanoseconds.
    pub fn cpu_time_ns(&self) -> (u64, u64) {
        let mut sum = (
            self.ended_ns[0].load(Ordering::Relaxed),
            self.ended_ns[1].load(Ordering::Relaxed),
        );
        for thread in self.threads() {
            if let Some(thread) = thread.sched() {
                sum.0 += thread.user_ns();
                sum.1 += thread.system_ns();
            }
        }
        sum
    }

    /// The name of the program's main thread, for reports.
    pub fn name(&self) -> String {
        match self.thread(PID) {
            Some(thread) => thread.comm_text(),
            None => String::from("program"),
        }
    }
}
