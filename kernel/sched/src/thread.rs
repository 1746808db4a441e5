//! What a thread is: its name, where it may run, what it has used, and whether somebody interrupted it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use machine::backtrace::Backtrace;
use machine::context::Registers;
use machine::cpu::MAX_CPUS;
use machine::sync::{IrqLock, Once};
use machine::task::{Task, UserState};

use crate::backend::{self, Place};
use crate::stopwatch::Stopwatch;
use crate::wait::WaitQueue;

/// A set of CPUs, as `sched_setaffinity(2)` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuSet(pub u64);

impl CpuSet {
    /// Every CPU.
    pub const ALL: CpuSet = CpuSet(u64::MAX);

    /// Whether `cpu` is in it.
    pub const fn contains(self, cpu: usize) -> bool {
        cpu < 64 && self.0 >> cpu & 1 == 1
    }

    /// Whether it names a CPU that this machine has.
    pub fn is_usable(self) -> bool {
        (0..machine::cpu::count().min(MAX_CPUS)).any(|cpu| self.contains(cpu))
    }
}

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// On a CPU, or waiting for one.
    Runnable,
    /// Waiting for something.
    Parked,
    /// Over.
    Dead,
}

pub(crate) const RUNNABLE: u8 = 0;
pub(crate) const PARKED: u8 = 1;
pub(crate) const DEAD: u8 = 2;

/// How to start a thread.
#[derive(Clone, Debug)]
pub struct SpawnOptions {
    /// Shown in listings and backtraces.
    pub name: String,
    /// Where it may run.
    pub affinity: CpuSet,
    /// From -20 (most CPU time) to 19, as `nice(2)`.
    pub nice: i32,
}

impl SpawnOptions {
    /// A thread of that name that may run anywhere.
    pub fn named(name: &str) -> Self {
        SpawnOptions {
            name: name.into(),
            affinity: CpuSet::ALL,
            nice: 0,
        }
    }
}

/// A thread could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpawnError {
    /// There is no memory for its stack.
    OutOfMemory,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for a thread's stack")
    }
}

/// How busy the machine is; what `/proc/stat` and `/proc/loadavg` show.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Threads that run or wait for a CPU.
    pub runnable: usize,
    /// Switches from one thread to another since boot.
    pub context_switches: u64,
    /// What each CPU has done.
    pub cpus: Vec<CpuTimes>,
}

/// What a CPU has done since it started, in nanoseconds but for the last. The three parts are all there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In the program's code.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Halted, without work.
    pub idle_ns: u64,
    /// Switches to another thread.
    pub switches: u64,
}

/// One thread. It lives as long as it runs or somebody holds it.
pub struct Thread {
    id: u64,
    name: IrqLock<String>,
    affinity: AtomicU64,
    nice: AtomicI32,
    pub(crate) state: AtomicU8,
    /// A wake-up that came while the thread was not parked.
    pub(crate) token: AtomicBool,
    interrupted: AtomicBool,
    #[cfg_attr(
        not(target_os = "none"),
        expect(dead_code, reason = "on the host, the host's scheduler decides")
    )]
    pub(crate) virtual_ns: AtomicU64,
    /// Runs while the thread is on a CPU.
    pub(crate) cpu: Stopwatch,
    /// Runs while it is in the program's code.
    pub(crate) user: Stopwatch,
    pub(crate) switches: AtomicU64,
    ext: Once<Arc<dyn Any + Send + Sync>>,
    ended: WaitQueue,
    pub(crate) place: Place,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} ({})", self.id, self.name())
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static THREADS: IrqLock<BTreeMap<u64, Weak<Thread>>> = IrqLock::new(BTreeMap::new());

impl Thread {
    pub(crate) fn new(options: SpawnOptions, place: Place) -> Arc<Thread> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let thread = Arc::new(Thread {
            id,
            name: IrqLock::new(options.name),
            affinity: AtomicU64::new(options.affinity.0),
            nice: AtomicI32::new(options.nice.clamp(-20, 19)),
            state: AtomicU8::new(RUNNABLE),
            token: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            virtual_ns: AtomicU64::new(0),
            cpu: Stopwatch::new(),
            user: Stopwatch::new(),
            switches: AtomicU64::new(0),
            ext: Once::new(),
            ended: WaitQueue::new(),
            place,
        });
        THREADS.lock().insert(id, Arc::downgrade(&thread));
        thread
    }

    /// A number of its own, never used again. Not the program's thread id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.name.lock().clone()
    }

    /// Gives it another name.
    pub fn set_name(&self, name: &str) {
        *self.name.lock() = name.into();
    }

    /// Where it may run.
    pub fn affinity(&self) -> CpuSet {
        CpuSet(self.affinity.load(Ordering::Relaxed))
    }

    /// Says where it may run, and answers whether the set names any CPU of this machine; one that names none
    /// changes nothing. A running thread moves when it next blocks or is preempted.
    pub fn set_affinity(&self, set: CpuSet) -> bool {
        if !set.is_usable() {
            return false;
        }
        self.affinity.store(set.0, Ordering::Relaxed);
        self.place.affinity_changed(set);
        true
    }

    /// From -20 to 19, as `getpriority(2)`.
    pub fn nice(&self) -> i32 {
        self.nice.load(Ordering::Relaxed)
    }

    /// Changes its share of CPU time; values out of range are clamped, as `setpriority(2)` does.
    pub fn set_nice(&self, nice: i32) {
        self.nice.store(nice.clamp(-20, 19), Ordering::Relaxed);
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            RUNNABLE => State::Runnable,
            PARKED => State::Parked,
            _ => State::Dead,
        }
    }

    /// The CPU that it runs on or ran on last.
    pub fn cpu(&self) -> usize {
        self.place.cpu()
    }

    /// Nanoseconds of CPU time in all.
    pub fn cpu_ns(&self) -> u64 {
        self.cpu.read(machine::time::now_ns())
    }

    /// Nanoseconds of CPU time in the program's code.
    pub fn user_ns(&self) -> u64 {
        self.user.read(machine::time::now_ns())
    }

    /// Nanoseconds of CPU time in the kernel.
    pub fn system_ns(&self) -> u64 {
        self.cpu_ns().saturating_sub(self.user_ns())
    }

    /// How often it gave up a CPU.
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }

    /// Asks it to look up: an interruptible wait ends with `Interrupted`, and the program's code is left. The
    /// request stays until [`Thread::take_interrupt`].
    pub fn interrupt(self: &Arc<Self>) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.unpark();
        self.place.leave_user();
    }

    /// Makes it enter the kernel soon if it runs the program's code; nothing else.
    pub fn leave_user(&self) {
        self.place.leave_user();
    }

    /// Where its kernel code waits, innermost first; of the calling thread, where this is called. `None` while it runs
    /// on another CPU.
    pub fn backtrace(self: &Arc<Self>) -> Option<Backtrace> {
        if Arc::ptr_eq(self, &current()) {
            return Some(Backtrace::capture());
        }
        self.place.task().and_then(Task::backtrace)
    }

    /// The program's registers as of its last entry into the kernel. `None` while it runs, and for a thread of the
    /// kernel.
    pub fn user_registers(&self) -> Option<Registers> {
        self.place.task().and_then(Task::user_registers)
    }

    /// The program's whole state, under the same conditions.
    pub fn user_state(&self) -> Option<UserState> {
        self.place.task().and_then(Task::user_state)
    }

    /// Whether somebody interrupted it.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Takes the request back and answers whether there was one.
    pub fn take_interrupt(&self) -> bool {
        self.interrupted.swap(false, Ordering::SeqCst)
    }

    /// Lets a parked thread go on; one that is not parked will not stop at its next [`park`](crate::park). Legal in
    /// interrupt handlers.
    pub fn unpark(self: &Arc<Self>) {
        self.token.store(true, Ordering::SeqCst);
        let parked = self
            .state
            .compare_exchange(PARKED, RUNNABLE, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok();
        Place::unpark(self, parked);
    }

    /// Attaches what a higher room keeps for each thread, once.
    ///
    /// # Errors
    /// The value itself, when there is one already.
    pub fn set_ext(
        &self,
        value: Arc<dyn Any + Send + Sync>,
    ) -> Result<(), Arc<dyn Any + Send + Sync>> {
        self.ext.set(value)
    }

    /// What a higher room attached, if it is a `T`.
    pub fn ext<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.ext
            .get()
            .cloned()
            .and_then(|value| value.downcast().ok())
    }

    /// Waits until it is over.
    pub fn join(&self) {
        self.ended
            .wait(|| (self.state() == State::Dead).then_some(()));
    }

    pub(crate) fn end(&self) {
        self.state.store(DEAD, Ordering::SeqCst);
        self.ended.wake_all();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        THREADS.lock().remove(&self.id);
    }
}

/// Starts a thread.
///
/// # Errors
/// [`SpawnError::OutOfMemory`] when there is none for its stack.
pub fn spawn(
    options: SpawnOptions,
    work: impl FnOnce() + Send + 'static,
) -> Result<Arc<Thread>, SpawnError> {
    backend::spawn(options, Box::new(work))
}

/// The thread that runs this code.
pub fn current() -> Arc<Thread> {
    backend::current()
}

/// Calls `look` with the thread that runs this code.
pub fn with_current<R>(look: impl FnOnce(&Thread) -> R) -> R {
    look(&backend::current())
}

/// Ends the current thread. What its stack owns is not dropped: return from the thread's closure where that matters.
pub fn exit() -> ! {
    backend::exit()
}

/// The thread of that number, if it is still there.
pub fn find(id: u64) -> Option<Arc<Thread>> {
    THREADS.lock().get(&id).and_then(Weak::upgrade)
}

/// All threads there are, oldest first.
pub fn threads() -> Vec<Arc<Thread>> {
    let weak: Vec<Weak<Thread>> = THREADS.lock().values().cloned().collect();
    weak.iter().filter_map(Weak::upgrade).collect()
}
