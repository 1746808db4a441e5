//! The three interval timers of `setitimer(2)`: real time, CPU time of the program's code, CPU time in all.
use alloc::boxed::Box;

use machine::sync::{Once, SpinLock};
use sched::Timer;

use crate::process::{self, Process};
use crate::signal::{SIGALRM, SIGPROF, SIGVTALRM, SigInfo, send};

/// The least time between two signals of one timer: shorter intervals would only merge into one pending signal.
const LEAST_INTERVAL_NS: u64 = 50_000;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ITIMER_REAL`: `SIGALRM`.
    Real = 0,
    /// `ITIMER_VIRTUAL`: `SIGVTALRM`.
    Virtual = 1,
    /// `ITIMER_PROF`: `SIGPROF`.
    Prof = 2,
}

impl Kind {
    /// The kind with Linux's number.
    pub const fn from_number(number: i32) -> Option<Kind> {
        match number {
            0 => Some(Kind::Real),
            1 => Some(Kind::Virtual),
            2 => Some(Kind::Prof),
            _ => None,
        }
    }

    const fn signal(self) -> i32 {
        match self {
            Kind::Real => SIGALRM,
            Kind::Virtual => SIGVTALRM,
            Kind::Prof => SIGPROF,
        }
    }

    /// What its clock says.
    fn now_ns(self, process: &Process) -> u64 {
        match self {
            Kind::Real => machine::time::now_ns(),
            Kind::Virtual => process.cpu_time_ns().0,
            Kind::Prof => {
                let (user, system) = process.cpu_time_ns();
                user + system
            }
        }
    }
}

/// When it expires on its own clock (0: never), and how often after that (0: once).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Setting {
    next_ns: u64,
    interval_ns: u64,
}

/// One interval timer.
pub struct IntervalTimer {
    kind: Kind,
    setting: SpinLock<Setting>,
    timer: Once<Timer>,
}

impl IntervalTimer {
    /// A timer that is off.
    pub const fn new(kind: Kind) -> Self {
        IntervalTimer {
            kind,
            setting: SpinLock::new(Setting {
                next_ns: 0,
                interval_ns: 0,
            }),
            timer: Once::new(),
        }
    }

    /// Nanoseconds until it expires (0: off), and its interval.
    pub fn get(&self, process: &Process) -> (u64, u64) {
        let setting = *self.setting.lock();
        if setting.next_ns == 0 {
            return (0, setting.interval_ns);
        }
        // A timer that is due and has not been served yet is still on.
        (
            setting
                .next_ns
                .saturating_sub(self.kind.now_ns(process))
                .max(1000),
            setting.interval_ns,
        )
    }

    /// Makes it expire `value_ns` from now (0: turns it off) and then each `interval_ns`; returns what was.
    pub fn set(&self, process: &Process, value_ns: u64, interval_ns: u64) -> (u64, u64) {
        let before = self.get(process);
        let next_ns = if value_ns == 0 {
            0
        } else {
            self.kind.now_ns(process).saturating_add(value_ns)
        };
        *self.setting.lock() = Setting {
            next_ns,
            interval_ns,
        };
        self.arm(process);
        before
    }

    fn arm(&self, process: &Process) {
        let next_ns = self.setting.lock().next_ns;
        if next_ns == 0 {
            if let Some(timer) = self.timer.get() {
                timer.cancel();
            }
            return;
        }
        let left = next_ns.saturating_sub(self.kind.now_ns(process));
        // CPU time runs at most as fast as all CPUs together; then it is worth looking again.
        let left = if self.kind == Kind::Real {
            left
        } else {
            left / machine::cpu::count().max(1) as u64
        };
        let kind = self.kind;
        let timer = self
            .timer
            .call_once(|| Timer::new(Box::new(move || expired(kind))));
        let least = if self.kind == Kind::Real { 0 } else { 100_000 };
        timer.arm(machine::time::now_ns().saturating_add(left.max(least)));
    }

    /// The clock may have come as far as the setting says.
    fn look(&self, process: &Process) {
        let now = self.kind.now_ns(process);
        let mut setting = self.setting.lock();
        let due = setting.next_ns != 0 && setting.next_ns <= now;
        if due {
            setting.next_ns = match setting.interval_ns {
                0 => 0,
                interval => setting
                    .next_ns
                    .saturating_add(interval)
                    .max(now.saturating_add(LEAST_INTERVAL_NS)),
            };
        }
        drop(setting);
        if due {
            // Only a real-time signal can find the queue full; these three are kept once.
            let _ = send::to_process(process, SigInfo::kernel(self.kind.signal()));
        }
        self.arm(process);
    }
}

fn expired(kind: Kind) {
    if let Some(process) = process::get() {
        process.timers.interval(kind).look(process);
    }
}
