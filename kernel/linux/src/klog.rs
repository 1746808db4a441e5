//! The kernel's log: the last messages, numbered, and from which level on messages are taken, in all and by target.
//!
//! Whoever prints messages (the kernel's main) adds them here; whoever shows them reads by number and waits for more.
//! Messages come from anywhere, interrupt handlers too: nothing here blocks but [`wait`].
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use log::{Level, LevelFilter};
use machine::sync::IrqLock;
use sched::{WaitQueue, Woken};

/// The most messages that are kept.
pub const MAX_ENTRIES: usize = 2048;
/// The most bytes of messages that are kept.
pub const MAX_BYTES: usize = 256 * 1024;
/// The longest message; a longer one is cut.
pub const MAX_MESSAGE: usize = 4096;
/// The most targets with a level of their own.
pub const MAX_TARGETS: usize = 32;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number: the first is 1, and none is left out.
    pub seq: u64,
    /// When, in nanoseconds since boot.
    pub time_ns: u64,
    /// How grave it is.
    pub level: Level,
    /// The room or module it comes from.
    pub target: String,
    /// The text, one line or more.
    pub message: String,
}

/// The last messages.
struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// The number of the next message.
    next: u64,
}

impl Ring {
    const fn new() -> Ring {
        Ring {
            entries: VecDeque::new(),
            bytes: 0,
            next: 1,
        }
    }

    /// Adds a message and answers what had to go for it.
    fn add(
        &mut self,
        time_ns: u64,
        level: Level,
        target: String,
        message: String,
    ) -> Vec<Arc<Entry>> {
        let entry = Entry {
            seq: self.next,
            time_ns,
            level,
            target,
            message,
        };
        self.next += 1;
        self.bytes += size(&entry);
        self.entries.push_back(Arc::new(entry));
        let mut gone = Vec::new();
        while self.entries.len() > MAX_ENTRIES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= size(&oldest);
            gone.push(oldest);
        }
        gone
    }

    fn since(&self, seq: u64) -> Vec<Arc<Entry>> {
        let first = self.entries.partition_point(|entry| entry.seq < seq);
        self.entries.range(first..).cloned().collect()
    }
}

fn size(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.target.len() + entry.message.len()
}

static RING: IrqLock<Ring> = IrqLock::new(Ring::new());
static READERS: WaitQueue = WaitQueue::new();

/// Adds a message.
pub fn add(level: Level, target: &str, mut message: String) {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    }
    let target = String::from(target);
    let now = machine::time::now_ns();
    let gone = RING.lock().add(now, level, target, message);
    drop(gone);
    READERS.wake_all();
}

/// The messages kept from number `seq` on, oldest first. If the first has a higher number, those between are gone.
pub fn since(seq: u64) -> Vec<Arc<Entry>> {
    RING.lock().since(seq)
}

/// The number that the next message will have.
pub fn next_seq() -> u64 {
    RING.lock().next
}

/// Waits until there is a message of number `seq` or higher.
///
/// # Errors
/// Why there is none: `deadline_ns` on the monotonic clock passed, or the thread was interrupted.
pub fn wait(seq: u64, deadline_ns: Option<u64>) -> Result<(), Woken> {
    READERS.wait_interruptible(deadline_ns, || is_there(next_seq(), seq).then_some(()))
}

/// Whether there is a message of number `seq` or higher when the next will be `next`. The first is number 1, so a reader
/// that begins at 0 waits for that one.
fn is_there(next: u64, seq: u64) -> bool {
    next > seq.max(1)
}

/// How many messages there were, and how many of them are not kept any more.
pub fn counts() -> (u64, u64) {
    let ring = RING.lock();
    let lines = ring.next - 1;
    (lines, lines - ring.entries.len() as u64)
}

/// From which level on messages are taken.
struct Levels {
    all: LevelFilter,
    /// For targets that begin so; the longest beginning counts.
    targets: Vec<(String, LevelFilter)>,
}

impl Levels {
    fn of(&self, target: &str) -> LevelFilter {
        let begins = |prefix: &str| {
            target
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        self.targets
            .iter()
            .filter(|(prefix, _)| begins(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(self.all, |(_, level)| *level)
    }

    /// The `log` crate asks only about messages up to this level.
    fn most(&self) -> LevelFilter {
        let own = self.targets.iter().map(|(_, level)| *level).max();
        own.map_or(self.all, |own| own.max(self.all))
    }
}

static LEVELS: IrqLock<Levels> = IrqLock::new(Levels {
    all: LevelFilter::Warn,
    targets: Vec::new(),
});
/// Some targets have a level of their own.
static BY_TARGET: AtomicBool = AtomicBool::new(false);

/// Whether a message is wanted.
pub fn is_wanted(level: Level, target: &str) -> bool {
    if BY_TARGET.load(Relaxed) {
        level <= LEVELS.lock().of(target)
    } else {
        level <= log::max_level()
    }
}

/// The level from which on messages are taken whose target has no level of its own.
pub fn level() -> LevelFilter {
    LEVELS.lock().all
}

/// Sets it.
pub fn set_level(level: LevelFilter) {
    let mut levels = LEVELS.lock();
    levels.all = level;
    log::set_max_level(levels.most());
}

/// The targets that have a level of their own.
pub fn targets() -> Vec<(String, LevelFilter)> {
    LEVELS.lock().targets.clone()
}

/// Gives targets (`net`, `linux::mm`) levels of their own, in place of those set before; [`MAX_TARGETS`] at most.
pub fn set_targets(mut targets: Vec<(String, LevelFilter)>) {
    targets.truncate(MAX_TARGETS);
    let mut levels = LEVELS.lock();
    BY_TARGET.store(!targets.is_empty(), Relaxed);
    let old = core::mem::replace(&mut levels.targets, targets);
    log::set_max_level(levels.most());
    drop(levels);
    drop(old);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn fill(ring: &mut Ring, count: u64, len: usize) {
        for n in 0..count {
            ring.add(n, Level::Info, "net".into(), "x".repeat(len));
        }
    }

    #[test]
    fn a_reader_that_begins_at_nought_waits_for_the_first() {
        assert!(!is_there(1, 0));
        assert!(is_there(2, 0) && is_there(2, 1));
        assert!(!is_there(2, 2));
    }

    #[test]
    fn the_last_messages_are_kept_and_numbered() {
        let mut ring = Ring::new();
        fill(&mut ring, MAX_ENTRIES as u64 + 10, 1);
        assert_eq!(ring.entries.len(), MAX_ENTRIES);
        assert_eq!(ring.entries[0].seq, 11);
        let last = ring.next - 1;
        let seqs = |from| {
            ring.since(from)
                .iter()
                .map(|entry| entry.seq)
                .collect::<Vec<_>>()
        };
        assert_eq!(seqs(last - 1), [last - 1, last]);
        assert_eq!(seqs(0).len(), MAX_ENTRIES);
        assert!(seqs(last + 1).is_empty() && seqs(u64::MAX).is_empty());
    }

    #[test]
    fn long_messages_push_out_more() {
        let mut ring = Ring::new();
        fill(&mut ring, 10_000, MAX_MESSAGE);
        assert!(ring.bytes <= MAX_BYTES);
        assert!(
            (MAX_BYTES / (2 * MAX_MESSAGE)..=MAX_BYTES / MAX_MESSAGE).contains(&ring.entries.len())
        );
        fill(&mut ring, 20_000, 0);
        assert_eq!(
            ring.bytes,
            ring.entries.iter().map(|entry| size(entry)).sum::<usize>()
        );
    }

    #[test]
    fn whoever_waits_is_woken() {
        let next = next_seq();
        let waiter = std::thread::spawn(move || {
            wait(next, Some(machine::time::now_ns() + 10_000_000_000)).unwrap();
            since(next)[0].clone()
        });
        let long = "é".repeat(MAX_MESSAGE);
        while !waiter.is_finished() {
            add(Level::Error, "tests", format!("{long}!"));
            std::thread::yield_now();
        }
        let entry = waiter.join().unwrap();
        assert_eq!(
            (entry.level, &*entry.target, entry.message.len()),
            (Level::Error, "tests", MAX_MESSAGE)
        );
        let (lines, dropped) = counts();
        assert!(lines >= entry.seq && dropped < lines);
        let past = machine::time::now_ns();
        assert_eq!(wait(u64::MAX - 1, Some(past)), Err(Woken::TimedOut));
    }

    #[test]
    fn targets_have_levels_of_their_own() {
        let levels = Levels {
            all: LevelFilter::Warn,
            targets: alloc::vec![
                ("net".into(), LevelFilter::Debug),
                ("net::tcp".into(), LevelFilter::Off),
            ],
        };
        for (target, level) in [
            ("linux", LevelFilter::Warn),
            ("net", LevelFilter::Debug),
            ("net::udp", LevelFilter::Debug),
            ("network", LevelFilter::Warn),
            ("net::tcp::input", LevelFilter::Off),
        ] {
            assert_eq!(levels.of(target), level, "{target}");
        }
        assert_eq!(levels.most(), LevelFilter::Debug);
    }
}
