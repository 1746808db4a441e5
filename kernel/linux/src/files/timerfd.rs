//! `timerfd_create(2)`: a timer that is read.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;

use errno::{Errno, Result};
use fs::{File, Metadata, OpenFlags};
use iobuf::Sink;
use machine::sync::{IrqLock, SpinLock};
use machine::time;
use sched::poll::{Events, Pollee};
use sched::timer::Timer;

use super::anon::{AnonInode, Home};
use super::blocking::retry;

/// Which clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`, `CLOCK_BOOTTIME`: this machine never sleeps, so they are one.
    Monotonic,
    /// `CLOCK_REALTIME`.
    Realtime,
}

/// A setting: when next, and how often; zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting {
    /// Nanoseconds until the next expiration; when setting with `TFD_TIMER_ABSTIME`, its time.
    pub value_ns: u64,
    /// Nanoseconds between further ones.
    pub interval_ns: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The next expiration that was not read, of the timer's own clock; 0 is disarmed.
    next_ns: u64,
    interval_ns: u64,
    /// An absolute setting follows when the real-time clock is set.
    absolute: bool,
    cancel_on_set: bool,
    cancelled: bool,
}

/// One timer.
pub struct TimerFile {
    /// The clock's number as the program gave it.
    pub clock_id: i32,
    clock: Clock,
    state: IrqLock<State>,
    timer: Timer,
    pollee: Pollee,
    inode: AnonInode,
}

/// Timers that a change of the real-time clock concerns.
static REALTIME: SpinLock<Vec<Weak<TimerFile>>> = SpinLock::new(Vec::new());

/// To be called after the real-time clock was set: absolute timers are re-armed, those with
/// `TFD_TIMER_CANCEL_ON_SET` are cancelled.
pub fn clock_was_set() {
    let timers: Vec<Arc<TimerFile>> = REALTIME.lock().iter().filter_map(Weak::upgrade).collect();
    for timer in timers {
        let mut state = timer.state.lock();
        if state.cancel_on_set {
            state.cancelled = true;
        }
        let next = state.next_ns;
        drop(state);
        timer.arm(next);
        timer.pollee.notify(Events::IN);
    }
}

impl TimerFile {
    /// A disarmed timer.
    pub fn new(clock_id: i32, clock: Clock) -> Arc<Self> {
        let file = Arc::new_cyclic(|me: &Weak<TimerFile>| {
            let me = me.clone();
            TimerFile {
                clock_id,
                clock,
                state: IrqLock::new(State::default()),
                timer: Timer::new(Box::new(move || {
                    if let Some(file) = me.upgrade() {
                        file.pollee.notify(Events::IN);
                    }
                })),
                pollee: Pollee::new(),
                inode: AnonInode::new(Home::Anonymous),
            }
        });
        if clock == Clock::Realtime {
            let mut all = REALTIME.lock();
            all.retain(|timer| timer.strong_count() > 0);
            all.push(Arc::downgrade(&file));
        }
        file
    }

    fn now(&self) -> u64 {
        match self.clock {
            Clock::Monotonic => time::now_ns(),
            Clock::Realtime => time::wall_ns(),
        }
    }

    fn arm(&self, next_ns: u64) {
        if next_ns == 0 {
            self.timer.cancel();
            return;
        }
        let deadline = match self.clock {
            Clock::Monotonic => next_ns,
            Clock::Realtime => next_ns.saturating_sub(time::wall_offset_ns()),
        };
        self.timer.arm(deadline);
    }

    /// What is left now, and the interval (`timerfd_gettime(2)`).
    pub fn get(&self) -> Setting {
        let now = self.now();
        let state = self.state.lock();
        Setting {
            value_ns: match state.next_ns {
                0 => 0,
                next if next > now => next - now,
                next if state.interval_ns > 0 => {
                    state.interval_ns - (now - next) % state.interval_ns
                }
                _ => 0,
            },
            interval_ns: state.interval_ns,
        }
    }

    /// Arms or disarms; returns the setting before.
    pub fn set(&self, new: Setting, absolute: bool, cancel_on_set: bool) -> Setting {
        let old = self.get();
        let now = self.now();
        let next_ns = match new.value_ns {
            0 => 0,
            at if absolute => at,
            after => now.saturating_add(after),
        };
        *self.state.lock() = State {
            next_ns,
            interval_ns: new.interval_ns,
            absolute,
            cancel_on_set: cancel_on_set && absolute && self.clock == Clock::Realtime,
            cancelled: false,
        };
        self.arm(next_ns);
        old
    }

    /// Takes the number of expirations since the last time.
    ///
    /// # Errors
    /// `EAGAIN` when there was none, `ECANCELED` when the clock was set.
    pub fn take(&self) -> Result<u64> {
        let now = self.now();
        let mut state = self.state.lock();
        if core::mem::take(&mut state.cancelled) {
            return Err(Errno::ECANCELED);
        }
        if state.next_ns == 0 || now < state.next_ns {
            return Err(Errno::EAGAIN);
        }
        let count = match state.interval_ns {
            0 => {
                state.next_ns = 0;
                1
            }
            interval => {
                let count = 1 + (now - state.next_ns) / interval;
                state.next_ns = state.next_ns.saturating_add(count.saturating_mul(interval));
                count
            }
        };
        let next = state.next_ns;
        drop(state);
        self.arm(next);
        Ok(count)
    }

    /// Expirations not yet read, and the flags of `timerfd_settime(2)`, for `/proc/self/fdinfo`.
    pub fn ticks_and_flags(&self) -> (u64, u32) {
        let now = self.now();
        let state = self.state.lock();
        let ticks = match (state.next_ns, state.interval_ns) {
            (0, _) => 0,
            (next, _) if next > now => 0,
            (_, 0) => 1,
            (next, interval) => 1 + (now - next) / interval,
        };
        let flags = u32::from(state.absolute) | u32::from(state.cancel_on_set) << 1;
        (ticks, flags)
    }
}

impl File for TimerFile {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let count = retry(
            &self.pollee,
            flags.contains(OpenFlags::NONBLOCK),
            None,
            || self.poll().contains(Events::IN),
            || self.take(),
        )?;
        sink.put(&count.to_ne_bytes())
    }

    fn poll(&self) -> Events {
        let now = self.now();
        let state = self.state.lock();
        if state.cancelled || (state.next_ns != 0 && now >= state.next_ns) {
            Events::IN
        } else {
            Events::empty()
        }
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(&self.pollee)
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(self.inode.metadata())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
