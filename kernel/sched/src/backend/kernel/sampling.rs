//! Samples of what runs on each CPU, taken in its timer's interrupt.

use alloc::sync::Weak;
use core::sync::atomic::{AtomicU64, Ordering};

use machine::cpu::{self, Ipi};
use machine::sync::IrqLock;
use machine::task;
use machine::time::now_ns;

use super::{CPUS, Cpu, arm};
use crate::thread::Thread;

/// Called for each sample with the id of the thread that runs, or `None` for an idle CPU.
type TakeSample = fn(Option<u64>);

/// What samples all CPUs, while something does.
struct Sampling {
    /// Nanoseconds between two samples of a CPU; 0 when there are none.
    period_ns: AtomicU64,
    take: IrqLock<Option<TakeSample>>,
}

static SAMPLING: Sampling = Sampling {
    period_ns: AtomicU64::new(0),
    take: IrqLock::new(None),
};

/// Calls `take` every `period_ns` on each CPU, in its timer's interrupt, with the id of the thread that runs there or
/// `None` for an idle CPU, until [`stop_sampling`]. Answers whether that can be: not when something samples already.
pub fn start_sampling(period_ns: u64, take: TakeSample) -> bool {
    let mut slot = SAMPLING.take.lock();
    if slot.is_some() {
        return false;
    }
    *slot = Some(take);
    drop(slot);
    cpu::set_ipi_handler(begin_samples);
    for cpu in CPUS.iter() {
        cpu.sample_ns.store(0, Ordering::SeqCst);
    }
    SAMPLING
        .period_ns
        .store(period_ns.max(10_000), Ordering::SeqCst);
    cpu::without_interrupts(|| {
        let me = cpu::id();
        begin_samples();
        for other in (0..cpu::count()).filter(|cpu| *cpu != me) {
            cpu::send_ipi(other, Ipi::Reschedule);
        }
    });
    true
}

/// Ends what [`start_sampling`] began.
pub fn stop_sampling() {
    SAMPLING.period_ns.store(0, Ordering::SeqCst);
    *SAMPLING.take.lock() = None;
}

/// Sets this CPU's first sample, if it has none yet. Interrupts are off.
fn begin_samples() {
    let period = SAMPLING.period_ns.load(Ordering::SeqCst);
    let this = CPUS.get();
    if period != 0 && this.sample_ns.load(Ordering::Relaxed) == 0 {
        let first = now_ns() + period;
        this.sample_ns.store(first, Ordering::Relaxed);
        arm(this, first);
    }
}

/// What the timer's interrupt has to do for samples.
#[inline]
pub(super) fn timer_expired(this: &Cpu, now: u64) {
    if SAMPLING.period_ns.load(Ordering::Relaxed) != 0 {
        take_sample(this, now);
    }
}

/// Takes a sample if one is due, and sets the timer for the next.
#[cold]
fn take_sample(this: &Cpu, now: u64) {
    let period = SAMPLING.period_ns.load(Ordering::Relaxed);
    let due = this.sample_ns.load(Ordering::Relaxed);
    if period == 0 {
        return;
    }
    if due > now {
        return arm(this, due);
    }
    let take = *SAMPLING.take.lock();
    if let Some(take) = take {
        let id = if this.is_idle.load(Ordering::Relaxed) {
            None
        } else {
            task::with_current(|task| {
                let thread = task.data().get()?.downcast_ref::<Weak<Thread>>()?;
                Some(thread.upgrade()?.id())
            })
        };
        take(id);
    }
    // A CPU that was late does not make up for it.
    let next = (due + period).max(now + period / 2);
    this.sample_ns.store(next, Ordering::Relaxed);
    arm(this, next);
}
