//! Pending signals of one thread or of the process: standard signals are kept once, real-time
//! signals in order and as often as they were sent (`signal(7)`, "Queueing and delivery").
use alloc::collections::VecDeque;

use errno::{Errno, Result};

use super::{NSIG, SIGRTMIN, SigInfo, SigSet};

/// How many real-time signals may wait in one queue (`RLIMIT_SIGPENDING` bounds it on Linux).
pub const MAX_QUEUED: usize = 4096;

/// What is pending.
#[derive(Debug, Default)]
pub struct SigQueue {
    pending: SigSet,
    /// In order of arrival; at most one entry for each standard signal.
    entries: VecDeque<SigInfo>,
}

impl SigQueue {
    /// Nothing pending.
    pub const fn new() -> Self {
        SigQueue {
            pending: SigSet::EMPTY,
            entries: VecDeque::new(),
        }
    }

    /// Which signals are pending.
    pub fn pending(&self) -> SigSet {
        self.pending
    }

    /// How many entries wait (`SigQ` of `/proc/self/status`).
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a signal. A standard signal that is pending already is dropped, as in Linux.
    ///
    /// # Errors
    /// `EAGAIN` when a real-time signal finds the queue full.
    pub fn push(&mut self, info: SigInfo) -> Result<()> {
        debug_assert!((1..=NSIG).contains(&info.signo), "callers check the number");
        if info.signo < SIGRTMIN {
            if self.pending.contains(info.signo) {
                return Ok(());
            }
        } else if self.entries.len() >= MAX_QUEUED {
            return Err(Errno::EAGAIN);
        }
        if self.entries.try_reserve(1).is_err() {
            return Err(Errno::EAGAIN);
        }
        self.entries.push_back(info);
        self.pending = self.pending.union(SigSet::of(info.signo));
        Ok(())
    }

    /// Takes the next signal out of `wanted`: faults first, then the lowest number, oldest first.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let ready = self.pending.intersection(wanted);
        let signal = ready
            .intersection(SigSet::SYNCHRONOUS)
            .first()
            .or_else(|| ready.first())?;
        let at = self.entries.iter().position(|info| info.signo == signal)?;
        let info = self.entries.remove(at)?;
        if !self.entries.iter().any(|info| info.signo == signal) {
            self.pending = self.pending.difference(SigSet::of(signal));
        }
        Some(info)
    }

    /// Forgets every pending signal of `set`.
    pub fn discard(&mut self, set: SigSet) {
        if self.pending.intersection(set).is_empty() {
            return;
        }
        self.entries.retain(|info| !set.contains(info.signo));
        self.pending = self.pending.difference(set);
    }

    /// Changes entries in place (a timer that ran out again counts an overrun instead of queueing).
    pub fn find_mut(&mut self, wanted: impl Fn(&SigInfo) -> bool) -> Option<&mut SigInfo> {
        self.entries.iter_mut().find(|info| wanted(info))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{SIGINT, SIGSEGV, SIGTERM, code};

    fn info(signo: i32, value: u64) -> SigInfo {
        SigInfo {
            signo,
            errno: 0,
            code: code::SI_USER,
            fields: crate::signal::SigFields::Sender {
                pid: 2,
                uid: 0,
                value,
            },
        }
    }

    #[test]
    fn standard_signals_are_kept_once_and_real_time_ones_all() {
        let mut queue = SigQueue::new();
        queue.push(info(SIGTERM, 1)).unwrap();
        queue.push(info(SIGTERM, 2)).unwrap();
        queue.push(info(40, 1)).unwrap();
        queue.push(info(40, 2)).unwrap();
        let all = SigSet::EMPTY.complement();
        assert_eq!(queue.take(all), Some(info(SIGTERM, 1)));
        assert_eq!(queue.take(all), Some(info(40, 1)));
        assert!(queue.pending().contains(40));
        assert_eq!(queue.take(all), Some(info(40, 2)));
        assert_eq!(queue.take(all), None);
        assert!(queue.pending().is_empty());
    }

    #[test]
    fn faults_come_first_then_the_lowest_and_only_what_is_wanted() {
        let mut queue = SigQueue::new();
        for signo in [50, SIGTERM, SIGINT, SIGSEGV] {
            queue.push(info(signo, 0)).unwrap();
        }
        let all = SigSet::EMPTY.complement();
        assert_eq!(queue.take(SigSet::of(SIGTERM)).unwrap().signo, SIGTERM);
        assert_eq!(queue.take(all).unwrap().signo, SIGSEGV);
        assert_eq!(queue.take(all).unwrap().signo, SIGINT);
        assert_eq!(queue.take(SigSet::of(SIGTERM)), None);
        queue.discard(SigSet::of(50));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_refuses_real_time_signals_but_not_standard_ones() {
        let mut queue = SigQueue::new();
        for n in 0..MAX_QUEUED {
            queue.push(info(40, n as u64)).unwrap();
        }
        assert_eq!(queue.push(info(40, 0)), Err(Errno::EAGAIN));
        queue.push(info(SIGTERM, 0)).unwrap();
    }
}
