//! Threads on the machine's CPUs: a run queue and a set of deadlines for each CPU, switching, waking, stealing.
//!
//! The life of a wake-up: `unpark` turns `PARKED` into `RUNNABLE` (only one waker succeeds) and pushes the thread on
//! a run queue. The thread may still be on its way out on its old CPU; a queue does not hand it out until it has left.

mod sampling;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use machine::cpu::{self, Ipi, MAX_CPUS, PerCpu};
use machine::sync::{IrqLock, Once};
use machine::task::{self, STACK_SIZE, Task};
use machine::time::{now_ns, timer};

pub use sampling::{start_sampling, stop_sampling};

use crate::idle::Look;
use crate::run_queue::{RunQueue, SLICE_NS, virtual_ns};
use crate::stopwatch::Stopwatch;
use crate::thread::{
    CpuSet, CpuTimes, DEAD, PARKED, RUNNABLE, SpawnError, SpawnOptions, State, Stats, Thread,
    threads,
};

/// How long work in the kernel keeps others waiting before it lets them in, in nanoseconds.
const LONG_NS: u64 = 200_000;
/// How much less virtual time a woken thread must have used to take the CPU from the running one at once.
const WAKE_GRANULARITY_NS: u64 = 1_000_000;

/// The TLB is refreshed first so long after a CPU started, then after twice that, and so on up to the second.
const REFRESH_FIRST_NS: u64 = 2_000_000;
const REFRESH_LAST_NS: u64 = 200_000_000;

/// An idle CPU looks for work for at most so long before it halts, and a halt below that is a short one.
const POLL_MOST_NS: u64 = 200_000;
/// Looking begins after so many short halts in a row.
const SHORT_HALTS: u64 = 16;

/// Where a thread lives on the machine.
pub(crate) struct Place {
    task: Arc<Task>,
    cpu: AtomicUsize,
    /// When it was last given a CPU.
    since_ns: AtomicU64,
    on_cpu: AtomicBool,
}

/// What each CPU keeps.
struct Cpu {
    queue: IrqLock<RunQueue<Arc<Thread>>>,
    /// Threads that wait with a deadline that this CPU's timer watches.
    deadlines: IrqLock<BTreeMap<(u64, u64), Arc<Thread>>>,
    idle_task: Once<Arc<Task>>,
    is_idle: AtomicBool,
    /// The run queue or the timer has something to say: `preempt_point` is to look.
    attention: AtomicBool,
    /// What the timer is set to; `u64::MAX` when it is not.
    armed_ns: AtomicU64,
    slice_end_ns: AtomicU64,
    /// Virtual time of the running thread when it got the CPU; `u64::MAX` when idle.
    running_virtual_ns: AtomicU64,
    switches: AtomicU64,
    /// When it began to take threads.
    online_ns: AtomicU64,
    idle: Stopwatch,
    user: Stopwatch,
    /// When the next sample is due; 0 when this CPU does not sample.
    sample_ns: AtomicU64,
    /// When the TLB is to be refreshed next, and how long after that again; see `cpu::refresh_tlb`.
    refresh_ns: AtomicU64,
    refresh_every_ns: AtomicU64,
    /// How long an idle CPU looks for work before it halts, and how many halts in a row were short; see `idle`.
    poll_ns: AtomicU64,
    short_halts: AtomicU64,
}

impl Cpu {
    const fn new() -> Cpu {
        Cpu {
            queue: IrqLock::new(RunQueue::new()),
            deadlines: IrqLock::new(BTreeMap::new()),
            idle_task: Once::new(),
            is_idle: AtomicBool::new(false),
            attention: AtomicBool::new(false),
            armed_ns: AtomicU64::new(u64::MAX),
            slice_end_ns: AtomicU64::new(u64::MAX),
            running_virtual_ns: AtomicU64::new(u64::MAX),
            switches: AtomicU64::new(0),
            online_ns: AtomicU64::new(0),
            idle: Stopwatch::new(),
            user: Stopwatch::new(),
            sample_ns: AtomicU64::new(0),
            refresh_ns: AtomicU64::new(u64::MAX),
            refresh_every_ns: AtomicU64::new(REFRESH_FIRST_NS),
            poll_ns: AtomicU64::new(0),
            short_halts: AtomicU64::new(0),
        }
    }
}

static CPUS: PerCpu<Cpu> = PerCpu::new([const { Cpu::new() }; MAX_CPUS]);
static NEXT_DEADLINE: AtomicU64 = AtomicU64::new(0);

impl Place {
    pub(crate) fn affinity_changed(&self, set: CpuSet) {
        let cpu = self.cpu();
        if !set.contains(cpu) {
            CPUS.on(cpu).attention.store(true, Ordering::SeqCst);
            self.leave_user();
        }
    }

    pub(crate) fn cpu(&self) -> usize {
        self.cpu.load(Ordering::Relaxed)
    }

    pub(crate) fn task(&self) -> Option<&Task> {
        Some(&self.task)
    }

    /// Makes the thread leave the program's code if it is there.
    pub(crate) fn leave_user(&self) {
        let cpu = self.cpu();
        if cpu == cpu::id() {
            cpu::kick_self();
        } else if self.on_cpu.load(Ordering::SeqCst) {
            cpu::send_ipi(cpu, Ipi::Reschedule);
        }
    }

    pub(crate) fn unpark(thread: &Arc<Thread>, parked: bool) {
        if parked {
            enqueue(thread.clone(), true);
        }
    }
}

/// Makes this CPU's boot context its idle task and sets up its timer. The boot CPU calls it before the first spawn.
pub fn init() {
    timer::set_handler(timer_expired);
    task::set_return_hook(exit);
    CPUS.get().idle_task.call_once(task::current);
}

/// The idle loop: runs threads until there are none, then halts. Each CPU ends its start-up here.
pub fn start_cpu() -> ! {
    let me = cpu::id();
    let this = CPUS.on(me);
    this.idle_task.call_once(task::current);
    this.online_ns.store(now_ns(), Ordering::Relaxed);
    if cpu::is_emulated() {
        this.refresh_ns
            .store(now_ns() + REFRESH_FIRST_NS, Ordering::Relaxed);
    }
    loop {
        cpu::without_interrupts(|| {
            if let Some(next) = pick(me) {
                this.is_idle.store(false, Ordering::SeqCst);
                run(me, &next);
                switch(next);
            }
        });
        this.is_idle.store(true, Ordering::SeqCst);
        this.running_virtual_ns.store(u64::MAX, Ordering::Relaxed);
        let start = now_ns();
        this.idle.start(start);
        idle(me, this, start);
        this.idle.stop(now_ns());
    }
}

/// Halts until an interrupt. When halts have been short of late, looks for work first with interrupts on: to be woken
/// costs the host, and so the answer, tens of microseconds (as `haltpoll` of Linux).
fn idle(me: usize, this: &Cpu, start: u64) {
    let poll_ns = this.poll_ns.load(Ordering::Relaxed);
    if poll_ns > 0 && found_work(this, start.saturating_add(poll_ns)) {
        return;
    }
    let halted = now_ns();
    cpu::without_interrupts(|| {
        if this.queue.lock().len() == 0 && !work_to_steal(me) {
            cpu::halt();
        }
    });
    if now_ns().saturating_sub(halted) < POLL_MOST_NS {
        let short = this.short_halts.fetch_add(1, Ordering::Relaxed);
        if short >= SHORT_HALTS {
            let longer = (2 * poll_ns).clamp(POLL_MOST_NS / 4, POLL_MOST_NS);
            this.poll_ns.store(longer, Ordering::Relaxed);
        }
    } else {
        this.short_halts.store(0, Ordering::Relaxed);
        let shorter = poll_ns / 2;
        let shorter = if shorter < POLL_MOST_NS / 16 {
            0
        } else {
            shorter
        };
        this.poll_ns.store(shorter, Ordering::Relaxed);
    }
}

/// Waits for a thread to be put on this CPU's queue, until the clock reaches `until`. What can be looked at need not
/// interrupt meanwhile.
fn found_work(this: &Cpu, until: u64) -> bool {
    // What it was set for while a thread ran is over; whoever comes after the look at the queue sets it again.
    this.attention.store(false, Ordering::SeqCst);
    if this.queue.lock().len() > 0 {
        return true;
    }
    let look = Look::begin();
    loop {
        for _ in 0..16 {
            if this.attention.load(Ordering::Relaxed) || look.found() {
                return true;
            }
            // The hint makes the emulator leave its translated code and wait for its lock.
            if !cpu::is_emulated() {
                cpu::relax();
            }
        }
        if now_ns() >= until {
            return false;
        }
    }
}

pub(crate) fn current() -> Arc<Thread> {
    task::with_current(|task| {
        task.data()
            .get()
            .and_then(|data| data.downcast_ref::<Weak<Thread>>())
            .and_then(Weak::upgrade)
    })
    // Only threads call this: the idle tasks never wait, and a thread's wrapper holds it until its end.
    .expect("called outside a thread")
}

pub(crate) fn spawn(
    options: SpawnOptions,
    work: Box<dyn FnOnce() + Send>,
) -> Result<Arc<Thread>, SpawnError> {
    let entry = Box::new(move || {
        let me = current();
        work();
        me.end();
    });
    let task = task::spawn(STACK_SIZE, entry).map_err(|_| SpawnError::OutOfMemory)?;
    let affinity = options.affinity;
    let place = Place {
        task,
        cpu: AtomicUsize::new(cpu::id()),
        since_ns: AtomicU64::new(0),
        on_cpu: AtomicBool::new(false),
    };
    if !affinity.contains(place.cpu()) {
        place.cpu.store(
            (0..MAX_CPUS)
                .find(|cpu| affinity.contains(*cpu))
                .unwrap_or(0),
            Ordering::Relaxed,
        );
    }
    let thread = Thread::new(options, place);
    let _ = thread
        .place
        .task
        .data()
        .set(Arc::new(Arc::downgrade(&thread)));
    // A thread lives while it runs even if nobody holds it: the list of the living does.
    LIVING.lock().insert(thread.id(), thread.clone());
    enqueue(thread.clone(), false);
    Ok(thread)
}

/// Every thread that has not ended.
static LIVING: IrqLock<BTreeMap<u64, Arc<Thread>>> = IrqLock::new(BTreeMap::new());

pub(crate) fn exit() -> ! {
    let me = current();
    if me.state.load(Ordering::SeqCst) != DEAD {
        me.end();
    }
    let id = me.id();
    // The task must outlive its own last steps; `exit_to` keeps it until the stack is left.
    let last = LIVING.lock().remove(&id);
    cpu::without_interrupts(|| {
        account(&me);
        me.place.on_cpu.store(false, Ordering::SeqCst);
        drop(last);
        drop(me);
        let cpu = cpu::id();
        match pick(cpu) {
            Some(next) => {
                run(cpu, &next);
                let task = next.place.task.clone();
                drop(next);
                task::exit_to(task)
            }
            None => task::exit_to(idle_task(cpu).clone()),
        }
    })
}

fn idle_task(cpu: usize) -> &'static Arc<Task> {
    CPUS.on(cpu)
        .idle_task
        .call_once(|| unreachable!("a CPU that runs threads has been through start_cpu"))
}

/// Puts a runnable thread on a queue and makes a CPU look at it.
fn enqueue(thread: Arc<Thread>, woken: bool) {
    let here = cpu::id();
    let target = choose(&thread, here, woken);
    let place = CPUS.on(target);
    let mut queue = place.queue.lock();
    let virtual_ns = queue.placed(thread.virtual_ns.load(Ordering::Relaxed));
    thread.virtual_ns.store(virtual_ns, Ordering::Relaxed);
    queue.push(thread, virtual_ns);
    drop(queue);
    if place.is_idle.load(Ordering::SeqCst) {
        place.attention.store(true, Ordering::SeqCst);
        if target != here {
            cpu::send_ipi(target, Ipi::Reschedule);
        }
        return;
    }
    let running = place.running_virtual_ns.load(Ordering::Relaxed);
    if running != u64::MAX && virtual_ns.saturating_add(WAKE_GRANULARITY_NS) < running {
        place.slice_end_ns.store(0, Ordering::Relaxed);
    }
    if !place.attention.swap(true, Ordering::SeqCst) {
        if target == here {
            cpu::kick_self()
        } else {
            cpu::send_ipi(target, Ipi::Reschedule)
        }
    }
}

/// The CPU for a runnable thread: where it was if that is idle, else another idle one, else where it was.
fn choose(thread: &Thread, here: usize, woken: bool) -> usize {
    let allowed = thread.affinity();
    let last = thread.place.cpu();
    let fits = |cpu: usize| allowed.contains(cpu) && cpu::is_online(cpu);
    let idle = |cpu: usize| fits(cpu) && CPUS.on(cpu).is_idle.load(Ordering::Relaxed);
    let first = if woken { last } else { here };
    if idle(first) {
        return first;
    }
    if let Some(cpu) = (0..cpu::count()).find(|cpu| idle(*cpu)) {
        return cpu;
    }
    if fits(first) {
        first
    } else {
        (0..cpu::count()).find(|cpu| fits(*cpu)).unwrap_or(here)
    }
}

/// The next thread for CPU `me`: its own first, then the longest queue's. Interrupts are off.
fn pick(me: usize) -> Option<Arc<Thread>> {
    let mine = CPUS.on(me).queue.lock().pop(|thread| may_run(thread, me));
    mine.or_else(|| steal(me))
}

/// Whether a thread may be switched to on CPU `me`: it is not still on its way out elsewhere.
fn may_run(thread: &Thread, me: usize) -> bool {
    let place = &thread.place;
    (!place.on_cpu.load(Ordering::Acquire) && !place.task.on_cpu() || place.cpu() == me)
        && thread.affinity().contains(me)
}

fn steal(me: usize) -> Option<Arc<Thread>> {
    (1..cpu::count())
        .map(|step| (me + step) % cpu::count())
        .find_map(|other| {
            let mut queue = CPUS.on(other).queue.try_lock()?;
            queue.pop(|thread| may_run(thread, me))
        })
}

fn work_to_steal(me: usize) -> bool {
    (0..cpu::count()).any(|other| {
        other != me && {
            // An idle CPU takes its own work: it has been told.
            !CPUS.on(other).is_idle.load(Ordering::Relaxed) && CPUS.on(other).queue.lock().len() > 0
        }
    })
}

/// Marks `next` as the one that runs on CPU `me` from now on.
fn run(me: usize, next: &Arc<Thread>) {
    let this = CPUS.on(me);
    let now = now_ns();
    next.place.cpu.store(me, Ordering::Relaxed);
    next.place.since_ns.store(now, Ordering::Relaxed);
    next.cpu.start(now);
    next.place.on_cpu.store(true, Ordering::SeqCst);
    this.running_virtual_ns
        .store(next.virtual_ns.load(Ordering::Relaxed), Ordering::Relaxed);
    this.slice_end_ns.store(now + SLICE_NS, Ordering::Relaxed);
    this.switches.fetch_add(1, Ordering::Relaxed);
    // Others wait: the timer is to end the slice.
    if this.queue.lock().len() > 0 {
        arm(this, now + SLICE_NS);
    }
}

fn switch(next: Arc<Thread>) {
    let task = next.place.task.clone();
    drop(next);
    task::switch_to(&task);
}

/// Adds the time since it got the CPU to what a thread has used.
fn account(me: &Thread) {
    let now = now_ns();
    let spent = now.saturating_sub(me.place.since_ns.swap(now, Ordering::Relaxed));
    me.cpu.stop(now);
    me.virtual_ns
        .fetch_add(virtual_ns(spent, me.nice()), Ordering::Relaxed);
    me.switches.fetch_add(1, Ordering::Relaxed);
}

/// Gives the CPU to the next thread. Interrupts are off; the caller has put `me` where it belongs.
fn reschedule(me: &Arc<Thread>) {
    account(me);
    let cpu = cpu::id();
    me.place.on_cpu.store(false, Ordering::SeqCst);
    match pick(cpu) {
        Some(next) if Arc::ptr_eq(&next, me) => run(cpu, &next),
        Some(next) => {
            run(cpu, &next);
            switch(next);
        }
        None => task::switch_to(idle_task(cpu)),
    }
}

/// Stops the current thread until [`Thread::unpark`] or `deadline_ns` on the monotonic clock; may also return for no
/// reason. [`WaitQueue`](crate::WaitQueue) is the usual way to wait.
pub fn park(deadline_ns: Option<u64>) {
    machine::sync::assert_may_block();
    let me = current();
    if me.token.swap(false, Ordering::SeqCst) {
        return;
    }
    cpu::without_interrupts(|| {
        let watched = deadline_ns.map(|deadline| watch(deadline, &me));
        me.state.store(PARKED, Ordering::SeqCst);
        let woken_already = me.token.swap(false, Ordering::SeqCst)
            && me
                .state
                .compare_exchange(PARKED, RUNNABLE, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok();
        if !woken_already {
            reschedule(&me);
            me.token.store(false, Ordering::SeqCst);
        }
        if let Some((cpu, key)) = watched {
            let gone = CPUS.on(cpu).deadlines.lock().remove(&key);
            drop(gone);
        }
    });
}

/// Has this CPU's timer wake the thread at `deadline_ns`.
fn watch(deadline_ns: u64, me: &Arc<Thread>) -> (usize, (u64, u64)) {
    let cpu = cpu::id();
    let this = CPUS.on(cpu);
    let key = (deadline_ns, NEXT_DEADLINE.fetch_add(1, Ordering::Relaxed));
    this.deadlines.lock().insert(key, me.clone());
    arm(this, deadline_ns);
    (cpu, key)
}

/// Sets this CPU's timer unless it is due earlier anyway. Interrupts are off.
fn arm(this: &Cpu, deadline_ns: u64) {
    if deadline_ns < this.armed_ns.load(Ordering::Relaxed) {
        this.armed_ns.store(deadline_ns, Ordering::Relaxed);
        timer::arm(deadline_ns);
    }
}

/// The timer's interrupt: wakes who is due, and has a used-up slice looked at.
fn timer_expired() {
    let this = CPUS.get();
    this.armed_ns.store(u64::MAX, Ordering::Relaxed);
    let now = now_ns();
    loop {
        let mut deadlines = this.deadlines.lock();
        match deadlines.first_entry() {
            Some(entry) if entry.key().0 <= now => {
                let thread = entry.remove();
                drop(deadlines);
                thread.unpark();
            }
            Some(entry) => {
                let next = entry.key().0;
                drop(deadlines);
                arm(this, next);
                break;
            }
            None => break,
        }
    }
    if this.queue.lock().len() > 0 {
        let slice_end = this.slice_end_ns.load(Ordering::Relaxed);
        if slice_end <= now {
            this.attention.store(true, Ordering::SeqCst);
            cpu::kick_self();
        } else {
            arm(this, slice_end);
        }
    }
    sampling::timer_expired(this, now);
}

/// Gives up the CPU when another thread is due. The loop around the program's code calls it after each trap.
#[inline]
pub fn preempt_point() {
    let this = CPUS.get();
    if this.attention.load(Ordering::Relaxed) {
        look_up();
    }
}

#[cold]
fn look_up() {
    cpu::without_interrupts(|| {
        let me = current();
        let this = CPUS.get();
        this.attention.store(false, Ordering::SeqCst);
        if !me.affinity().contains(cpu::id()) {
            requeue(&me);
            return;
        }
        if this.queue.lock().len() == 0 {
            return;
        }
        let slice_end = this.slice_end_ns.load(Ordering::Relaxed);
        if slice_end <= now_ns() {
            requeue(&me)
        } else {
            arm(this, slice_end)
        }
    });
}

/// Lets others run first, if there are any.
pub fn yield_now() {
    cpu::without_interrupts(|| {
        if CPUS.get().queue.lock().len() > 0 {
            let me = current();
            // It goes behind those who wait now, whatever it has used.
            me.virtual_ns.fetch_add(SLICE_NS / 4, Ordering::Relaxed);
            requeue(&me);
        }
    });
}

/// Lets others run first if this thread has had the CPU for 0.2 ms at least: for long work in the kernel, where nothing
/// preempts it (as `cond_resched` of Linux).
pub fn cond_resched() {
    let slice_end = CPUS.get().slice_end_ns.load(Ordering::Relaxed);
    if now_ns().saturating_sub(slice_end.saturating_sub(SLICE_NS)) >= LONG_NS {
        yield_now();
    }
}

/// Puts the running thread back on a queue and runs the next. Interrupts are off.
fn requeue(me: &Arc<Thread>) {
    let here = cpu::id();
    let target = if me.affinity().contains(here) {
        here
    } else {
        choose(me, here, false)
    };
    account(me);
    let place = CPUS.on(target);
    let mut queue = place.queue.lock();
    queue.push(me.clone(), me.virtual_ns.load(Ordering::Relaxed));
    drop(queue);
    if target != here {
        cpu::send_ipi(target, Ipi::Reschedule);
    }
    reschedule(me);
}

/// Runs `work`, which is to be the code of the program's thread `me`, and counts its time as such.
#[inline]
pub fn in_user<R>(me: &Thread, work: impl FnOnce() -> R) -> R {
    // The program's code is left before its thread can go to another CPU.
    let this = CPUS.get();
    let start = now_ns();
    this.user.start(start);
    me.user.start(start);
    if start >= this.refresh_ns.load(Ordering::Relaxed) {
        refresh_tlb(this, start);
    }
    let result = work();
    let end = now_ns();
    this.user.stop(end);
    me.user.stop(end);
    result
}

/// What CPU `cpu` has done since it started; all zero if it has not.
pub fn cpu_times(cpu: usize) -> CpuTimes {
    if cpu >= cpu::count() {
        return CpuTimes::default();
    }
    let this = CPUS.on(cpu);
    let online_ns = this.online_ns.load(Ordering::Relaxed);
    if online_ns == 0 {
        return CpuTimes::default();
    }
    let now = now_ns();
    let (user_ns, idle_ns) = (this.user.read(now), this.idle.read(now));
    CpuTimes {
        user_ns,
        system_ns: now
            .saturating_sub(online_ns)
            .saturating_sub(user_ns)
            .saturating_sub(idle_ns),
        idle_ns,
        switches: this.switches.load(Ordering::Relaxed),
    }
}

#[cold]
fn refresh_tlb(this: &Cpu, now: u64) {
    cpu::refresh_tlb();
    let wait = this.refresh_every_ns.load(Ordering::Relaxed);
    this.refresh_ns.store(now + wait, Ordering::Relaxed);
    this.refresh_every_ns
        .store((2 * wait).min(REFRESH_LAST_NS), Ordering::Relaxed);
}

/// How busy the machine is.
pub fn stats() -> Stats {
    let runnable = threads()
        .iter()
        .filter(|thread| thread.state() == State::Runnable)
        .count();
    let cpus: Vec<CpuTimes> = (0..cpu::count()).map(cpu_times).collect();
    Stats {
        runnable,
        context_switches: cpus.iter().map(|cpu| cpu.switches).sum(),
        cpus,
    }
}
