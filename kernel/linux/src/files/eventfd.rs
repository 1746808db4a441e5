//! `eventfd(2)`: a counter that one side adds to and the other takes from.

use core::sync::atomic::{AtomicU64, Ordering};

use errno::{Errno, Result};
use sched::poll::{Events, Pollee};

/// The largest value the counter takes.
const MAX: u64 = u64::MAX - 1;

/// One counter.
pub struct EventFd {
    count: AtomicU64,
    semaphore: bool,
    pollee: Pollee,
}

impl EventFd {
    /// A counter that starts at `initial`; a `semaphore` gives out one at a time.
    pub fn new(initial: u64, semaphore: bool) -> Self {
        EventFd {
            count: AtomicU64::new(initial),
            semaphore,
            pollee: Pollee::new(),
        }
    }

    /// What waiting is done on.
    pub fn pollee(&self) -> &Pollee {
        &self.pollee
    }

    /// The counter, for `/proc/self/fdinfo`.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Whether it is a semaphore.
    pub fn is_semaphore(&self) -> bool {
        self.semaphore
    }

    /// Takes the value, or one of it.
    ///
    /// # Errors
    /// `EAGAIN` when it is zero.
    pub fn take(&self) -> Result<u64> {
        let taken = self
            .count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| match count {
                0 => None,
                _ if self.semaphore => Some(count - 1),
                _ => Some(0),
            })
            .map_err(|_| Errno::EAGAIN)?;
        self.pollee.notify(Events::OUT);
        Ok(if self.semaphore { 1 } else { taken })
    }

    /// Adds to the value.
    ///
    /// # Errors
    /// `EINVAL` for 2⁶⁴ − 1, `EAGAIN` when the sum would be too large.
    pub fn add(&self, value: u64) -> Result<()> {
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        self.count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                count.checked_add(value).filter(|sum| *sum <= MAX)
            })
            .map_err(|_| Errno::EAGAIN)?;
        self.pollee.notify(Events::IN);
        Ok(())
    }

    /// Adds one from within the kernel, saturating: completions are never lost.
    pub fn signal(&self) {
        let _ = self
            .count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                Some(count.saturating_add(1))
            });
        self.pollee.notify(Events::IN);
    }

    /// What it is ready for.
    pub fn poll(&self) -> Events {
        let mut events = Events::empty();
        let count = self.count();
        if count > 0 {
            events |= Events::IN;
        }
        if count == u64::MAX {
            events |= Events::ERR;
        }
        if count < MAX {
            events |= Events::OUT;
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_taken_whole() {
        let event = EventFd::new(0, false);
        assert_eq!(event.take(), Err(Errno::EAGAIN));
        assert_eq!(event.poll(), Events::OUT);
        event.add(3).unwrap();
        event.add(4).unwrap();
        assert_eq!(event.poll(), Events::IN | Events::OUT);
        assert_eq!(event.take(), Ok(7));
        assert_eq!(event.take(), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_semaphore_gives_out_ones() {
        let event = EventFd::new(2, true);
        assert_eq!(event.take(), Ok(1));
        assert_eq!(event.take(), Ok(1));
        assert_eq!(event.take(), Err(Errno::EAGAIN));
    }

    #[test]
    fn the_sum_has_a_limit() {
        let event = EventFd::new(1, false);
        assert_eq!(event.add(u64::MAX), Err(Errno::EINVAL));
        assert_eq!(event.add(MAX), Err(Errno::EAGAIN));
        event.add(MAX - 1).unwrap();
        assert_eq!(event.poll(), Events::IN);
        assert_eq!(event.take(), Ok(MAX));
    }
}
