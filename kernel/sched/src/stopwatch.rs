//! Time spent in a state, in nanoseconds, that others can read at any moment, also while it runs.

use core::sync::atomic::{AtomicU64, Ordering};

/// Set while it runs. The rest is then the moment from which the time counts; else the time itself.
const RUNS: u64 = 1 << 63;

/// Started and stopped by one CPU or thread at a time; read by anyone. One word holds all of it, so that a reader never
/// sees time go backwards.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch(AtomicU64);

impl Stopwatch {
    pub(crate) const fn new() -> Stopwatch {
        Stopwatch(AtomicU64::new(0))
    }

    /// Goes on from where it was stopped. Does nothing if it runs.
    #[inline]
    pub(crate) fn start(&self, now_ns: u64) {
        let time = self.0.load(Ordering::Relaxed);
        if time & RUNS == 0 {
            self.0
                .store(RUNS | now_ns.saturating_sub(time), Ordering::Relaxed);
        }
    }

    /// Stops. Does nothing if it does not run.
    #[inline]
    pub(crate) fn stop(&self, now_ns: u64) {
        let state = self.0.load(Ordering::Relaxed);
        if state & RUNS != 0 {
            self.0
                .store(now_ns.saturating_sub(state & !RUNS), Ordering::Relaxed);
        }
    }

    /// The time so far.
    pub(crate) fn read(&self, now_ns: u64) -> u64 {
        match self.0.load(Ordering::Relaxed) {
            state if state & RUNS != 0 => now_ns.saturating_sub(state & !RUNS),
            time => time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_while_it_runs() {
        let watch = Stopwatch::new();
        assert_eq!(watch.read(50), 0);
        watch.start(100);
        watch.start(105);
        assert_eq!((watch.read(100), watch.read(130)), (0, 30));
        watch.stop(150);
        watch.stop(160);
        assert_eq!(watch.read(1000), 50);
        watch.start(1000);
        assert_eq!(watch.read(1001), 51);
        watch.stop(1010);
        assert_eq!(watch.read(2000), 60);
    }
}
