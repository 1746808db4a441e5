//! The timers of `timer_create(2)`, and the table that holds all timers of the process.
//!
//! As in Linux, a periodic timer is armed again when its signal is taken, and what it missed until then is its overrun.
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use errno::{Errno, Result};
use machine::sync::{Once, SpinLock};

use super::Clock;
use super::interval::{IntervalTimer, Kind};
use crate::process::{self, Process};
use crate::signal::{SigFields, SigInfo, code, send};
use crate::thread::LinuxThread;

/// The most POSIX timers that a process may have (`RLIMIT_SIGPENDING` bounds them on Linux).
const MAX_TIMERS: usize = 4096;

/// Whom an expired timer tells (`struct sigevent`).
#[derive(Clone)]
pub enum Notify {
    /// `SIGEV_NONE`: nobody; the program asks.
    Nobody,
    /// `SIGEV_SIGNAL`: a signal for the process.
    Process(i32),
    /// `SIGEV_THREAD_ID`: a signal for one thread.
    Thread(i32, Weak<LinuxThread>),
}

#[derive(Clone, Copy, Default)]
struct State {
    /// When it expires on its own clock; 0 is off.
    next_ns: u64,
    interval_ns: u64,
    /// Its signal was sent and not taken yet.
    signalled: bool,
    /// What the last signal taken had missed.
    overrun: i32,
}

/// One timer.
pub struct PosixTimer {
    id: i32,
    clock: Clock,
    notify: Notify,
    value: u64,
    state: SpinLock<State>,
    timer: Once<Timer>,
}

type Timer = sched::Timer;

impl PosixTimer {
    /// Nanoseconds until it expires (0: off), and its interval.
    pub fn get(&self, process: &Process) -> (u64, u64) {
        let state = *self.state.lock();
        let now = self.clock.now_ns(process);
        let mut next = state.next_ns;
        if next != 0 && next <= now {
            next = match state.interval_ns {
                0 => 0,
                interval => next + (now - next) / interval * interval + interval,
            };
        }
        let left = match next {
            0 => 0,
            // On but due this instant: 1, since 0 means off.
            next => next.saturating_sub(now).max(1),
        };
        (left, state.interval_ns)
    }

    /// Sets it to expire at `value_ns` of its clock, or that long from now unless `absolute` (0: off), and then each
    /// `interval_ns`. Returns what was.
    pub fn set(
        self: &Arc<Self>,
        process: &Process,
        absolute: bool,
        value_ns: u64,
        interval_ns: u64,
    ) -> (u64, u64) {
        let before = self.get(process);
        let next_ns = match (value_ns, absolute) {
            (0, _) => 0,
            (value, true) => value,
            (value, false) => self.clock.now_ns(process).saturating_add(value),
        };
        *self.state.lock() = State {
            next_ns,
            interval_ns,
            signalled: false,
            overrun: 0,
        };
        self.arm(process);
        before
    }

    /// How many expirations the last signal taken had missed (`timer_getoverrun(2)`).
    pub fn overrun(&self) -> i32 {
        self.state.lock().overrun
    }

    fn arm(self: &Arc<Self>, process: &Process) {
        let state = *self.state.lock();
        let waits =
            state.next_ns != 0 && !state.signalled && !matches!(self.notify, Notify::Nobody);
        if !waits {
            if let Some(timer) = self.timer.get() {
                timer.cancel();
            }
            return;
        }
        let timer = self.timer.call_once(|| {
            let weak = Arc::downgrade(self);
            Timer::new(Box::new(move || {
                if let (Some(timer), Some(process)) = (weak.upgrade(), process::get()) {
                    timer.look(process);
                }
            }))
        });
        timer.arm(self.clock.earliest_ns(state.next_ns, process));
    }

    fn look(self: &Arc<Self>, process: &Process) {
        let now = self.clock.now_ns(process);
        let mut state = self.state.lock();
        let due = state.next_ns != 0 && state.next_ns <= now && !state.signalled;
        if due {
            state.signalled = true;
        }
        drop(state);
        if due && self.is_ignored(process) {
            self.taken(process);
            return;
        }
        if due {
            let info = |signo| SigInfo {
                signo,
                errno: 0,
                code: code::SI_TIMER,
                fields: SigFields::Timer {
                    id: self.id,
                    overrun: 0,
                    value: self.value,
                },
            };
            let sent = match &self.notify {
                Notify::Nobody => Ok(()),
                Notify::Process(signo) => send::to_process(process, info(*signo)),
                Notify::Thread(signo, thread) => match thread.upgrade() {
                    Some(thread) => send::to_thread(process, &thread, info(*signo)),
                    None => Ok(()),
                },
            };
            if sent.is_err() {
                // The queue is full: the expiration is lost, the next one is not.
                self.taken(process);
                return;
            }
        }
        self.arm(process);
    }

    /// Whether the signal would be thrown away, so that nobody will ever take it.
    fn is_ignored(&self, process: &Process) -> bool {
        match self.notify {
            Notify::Nobody => false,
            Notify::Process(signo) | Notify::Thread(signo, _) => {
                send::is_ignored(&process.signals.action(signo), signo)
            }
        }
    }

    /// The signal was taken: what was missed, and on to the next expiration.
    fn taken(self: &Arc<Self>, process: &Process) -> i32 {
        let now = self.clock.now_ns(process);
        let mut state = self.state.lock();
        state.signalled = false;
        state.overrun = 0;
        match now
            .saturating_sub(state.next_ns)
            .checked_div(state.interval_ns)
        {
            None => state.next_ns = 0,
            Some(missed) => {
                state.overrun = i32::try_from(missed).unwrap_or(i32::MAX);
                let periods = (missed + 1).saturating_mul(state.interval_ns);
                state.next_ns = state.next_ns.saturating_add(periods);
            }
        }
        let overrun = state.overrun;
        drop(state);
        self.arm(process);
        overrun
    }
}

/// All timers of the process.
pub struct Timers {
    interval: [IntervalTimer; 3],
    posix: SpinLock<BTreeMap<i32, Arc<PosixTimer>>>,
}

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}

impl Timers {
    /// None set.
    pub const fn new() -> Self {
        Timers {
            interval: [
                IntervalTimer::new(Kind::Real),
                IntervalTimer::new(Kind::Virtual),
                IntervalTimer::new(Kind::Prof),
            ],
            posix: SpinLock::new(BTreeMap::new()),
        }
    }

    /// The interval timer of that kind.
    pub fn interval(&self, kind: Kind) -> &IntervalTimer {
        &self.interval[kind as usize]
    }

    /// Makes a POSIX timer and returns its id. `value` goes with the signal; none given means the id itself.
    ///
    /// # Errors
    /// `EAGAIN` when there are too many.
    pub fn create(&self, clock: Clock, notify: Notify, value: Option<u64>) -> Result<i32> {
        let mut timers = self.posix.lock();
        if timers.len() >= MAX_TIMERS {
            return Err(Errno::EAGAIN);
        }
        let id = (0..)
            .find(|id| !timers.contains_key(id))
            .ok_or(Errno::EAGAIN)?;
        // `si_value` without a sigevent is the id, as timer_create(2) says.
        let value = value.unwrap_or(id as u64);
        let timer = PosixTimer {
            id,
            clock,
            notify,
            value,
            state: SpinLock::default(),
            timer: Once::new(),
        };
        timers.insert(id, Arc::new(timer));
        Ok(id)
    }

    /// The POSIX timer `id`.
    ///
    /// # Errors
    /// `EINVAL` when there is none.
    pub fn get(&self, id: i32) -> Result<Arc<PosixTimer>> {
        self.posix.lock().get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// Removes the POSIX timer `id`.
    ///
    /// # Errors
    /// `EINVAL` when there is none.
    pub fn delete(&self, id: i32) -> Result<()> {
        let gone = self.posix.lock().remove(&id).ok_or(Errno::EINVAL)?;
        if let Some(timer) = gone.timer.get() {
            timer.cancel();
        }
        Ok(())
    }

    /// Fills in what a timer's signal says now that it is taken, and lets the timer go on.
    pub fn delivered(&self, id: i32, mut info: SigInfo) -> SigInfo {
        if let (Ok(timer), Some(process)) = (self.get(id), process::get())
            && let SigFields::Timer { overrun, .. } = &mut info.fields
        {
            *overrun = timer.taken(process);
        }
        info
    }
}
