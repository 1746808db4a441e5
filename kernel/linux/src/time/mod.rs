//! Clocks and timers of the program: which clock a number names, what it says now, and the timers that send signals
//! ([`interval`], [`posix`]). The system calls are in `syscalls::{times, timers}`; timerfd is with the descriptors.
pub mod interval;
pub mod posix;

use alloc::sync::Arc;

use errno::{Errno, Result};
use machine::time;

use crate::process::Process;
use crate::thread::LinuxThread;
use crate::uaccess::UserPtr;

pub use posix::Timers;

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A clock of `clock_gettime(2)`.
#[derive(Clone)]
pub enum Clock {
    /// `CLOCK_REALTIME` and its coarse and alarm kinds.
    Realtime,
    /// `CLOCK_TAI`: the real-time clock with the TAI offset, which is 0 until somebody sets it, as on Linux.
    Tai,
    /// `CLOCK_MONOTONIC`, its raw and coarse kinds, and `CLOCK_BOOTTIME`: this machine never sleeps, so all are one.
    Monotonic,
    /// CPU time of the process.
    Process,
    /// CPU time of one thread.
    Thread(Arc<LinuxThread>),
}

impl Clock {
    /// The clock with the number `id`; also those of `clock_getcpuclockid(3)` and `pthread_getcpuclockid(3)`, which
    /// hold the complement of the id of a process or thread above three bits.
    ///
    /// # Errors
    /// `EINVAL` when there is no such clock.
    pub fn from_id(id: i32, process: &Process, caller: &Arc<LinuxThread>) -> Result<Clock> {
        match id {
            0 | 5 | 8 => Ok(Clock::Realtime),
            1 | 4 | 6 | 7 | 9 => Ok(Clock::Monotonic),
            2 => Ok(Clock::Process),
            3 => Ok(Clock::Thread(caller.clone())),
            11 => Ok(Clock::Tai),
            0.. => Err(Errno::EINVAL),
            _ => {
                // Bits 0 and 1: what is counted (0 user and system time, 1 user time, 2 run time); bit 2: a thread.
                if id & 3 == 3 {
                    return Err(Errno::EINVAL);
                }
                let owner = !(id >> 3);
                match (id & 4 != 0, owner) {
                    (true, 0) => Ok(Clock::Thread(caller.clone())),
                    (true, tid) => process.thread(tid).map(Clock::Thread).ok_or(Errno::EINVAL),
                    (false, 0 | crate::process::PID) => Ok(Clock::Process),
                    (false, _) => Err(Errno::EINVAL),
                }
            }
        }
    }

    /// What it says, in nanoseconds.
    pub fn now_ns(&self, process: &Process) -> u64 {
        match self {
            Clock::Realtime | Clock::Tai => time::wall_ns(),
            Clock::Monotonic => time::now_ns(),
            Clock::Process => {
                let (user, system) = process.cpu_time_ns();
                user + system
            }
            Clock::Thread(thread) => thread.sched().map_or(0, |thread| thread.cpu_ns()),
        }
    }

    /// Whether it counts CPU time, so that it stands still while nobody runs.
    pub fn is_cpu_time(&self) -> bool {
        matches!(self, Clock::Process | Clock::Thread(_))
    }

    /// The time on the monotonic clock at which this one may reach `target_ns`, at the earliest: exact for clocks
    /// that run, and for CPU time the moment from which it is worth looking again.
    pub fn earliest_ns(&self, target_ns: u64, process: &Process) -> u64 {
        let now = time::now_ns();
        let left = target_ns.saturating_sub(self.now_ns(process));
        let left = match self {
            // All CPUs together can use this much at once.
            Clock::Process => left / machine::cpu::count().max(1) as u64,
            _ => left,
        };
        let least = if self.is_cpu_time() { 100_000 } else { 0 };
        now.saturating_add(left.max(least))
    }
}

/// A `struct timespec` as nanoseconds.
///
/// # Errors
/// `EINVAL` for a negative second or a nanosecond outside of 0 to 999,999,999.
pub fn from_timespec([seconds, nanos]: [i64; 2]) -> Result<u64> {
    let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    let nanos = u64::try_from(nanos).map_err(|_| Errno::EINVAL)?;
    if nanos >= SECOND_NS {
        return Err(Errno::EINVAL);
    }
    Ok(seconds.saturating_mul(SECOND_NS).saturating_add(nanos))
}

/// A `struct timeval` as nanoseconds.
///
/// # Errors
/// `EINVAL` for a negative second or a microsecond outside of 0 to 999,999.
pub fn from_timeval([seconds, micros]: [i64; 2]) -> Result<u64> {
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::EINVAL);
    }
    from_timespec([seconds, micros * 1000])
}

/// Nanoseconds as a `struct timespec`.
pub fn to_timespec(ns: u64) -> [i64; 2] {
    [(ns / SECOND_NS) as i64, (ns % SECOND_NS) as i64]
}

/// Nanoseconds as a `struct timeval`, cut to microseconds.
pub fn to_timeval(ns: u64) -> [i64; 2] {
    [(ns / SECOND_NS) as i64, (ns % SECOND_NS / 1000) as i64]
}

/// The deadline on the monotonic clock for a relative timeout at `timeout`, or none for the null pointer: what
/// `ppoll(2)`, `futex(2)` and their like take.
///
/// # Errors
/// `EFAULT`, and `EINVAL` as [`from_timespec`].
pub fn deadline_after(timeout: UserPtr<[i64; 2]>) -> Result<Option<u64>> {
    match timeout.read_opt()? {
        None => Ok(None),
        Some(timeout) => Ok(Some(time::now_ns().saturating_add(from_timespec(timeout)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_convert_both_ways_and_refuse_what_linux_refuses() {
        assert_eq!(from_timespec([1, 5]), Ok(SECOND_NS + 5));
        assert_eq!(to_timespec(SECOND_NS + 5), [1, 5]);
        assert_eq!(to_timeval(SECOND_NS + 5999), [1, 5]);
        assert_eq!(from_timespec([-1, 0]), Err(Errno::EINVAL));
        assert_eq!(from_timespec([0, 1_000_000_000]), Err(Errno::EINVAL));
        assert_eq!(from_timeval([0, 1_000_000]), Err(Errno::EINVAL));
        assert_eq!(from_timeval([2, 3]), Ok(2 * SECOND_NS + 3000));
        assert_eq!(from_timespec([i64::MAX, 0]), Ok(u64::MAX));
    }
}
