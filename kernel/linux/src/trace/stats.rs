//! Counts, errors, time and a histogram of durations for each system call; a table of them as `strace -c` prints it.
//!
//! Each CPU has its own counters, written by that CPU only: kernel code is not preempted, so a plain load and store
//! lose nothing. They exist only once somebody asked for them.
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use machine::cpu::{MAX_CPUS, PerCpu};
use machine::sync::{Once, SpinLock};

use crate::syscalls::{SyscallInfo, table};

/// Buckets of the histogram: the first holds what takes at most 128 ns, each further one twice as much; the last
/// holds the rest.
pub const BUCKETS: usize = 32;
/// The upper bound of the first bucket is two to that power.
const FIRST_POWER: u32 = 7;
/// Numbers above the highest call.
const NUMBERS: usize = 512;
/// The most different unknown numbers that are told apart.
const MAX_REFUSED: usize = 64;

/// One CPU's counters for one call.
struct Cell {
    count: AtomicU64,
    errors: AtomicU64,
    time_ns: AtomicU64,
    histogram: [AtomicU32; BUCKETS],
}

impl Cell {
    const fn new() -> Cell {
        Cell {
            count: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            time_ns: AtomicU64::new(0),
            histogram: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }
}

static CELLS: PerCpu<Once<Box<[Cell]>>> = PerCpu::new([const { Once::new() }; MAX_CPUS]);

static REFUSED: SpinLock<BTreeMap<u64, u64>> = SpinLock::new(BTreeMap::new());

/// The sums over all CPUs for one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallStats {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// How often it was made.
    pub count: u64,
    /// Of these, how many failed.
    pub errors: u64,
    /// Nanoseconds from entry to end, waiting included.
    pub time_ns: u64,
    /// How many took at most `2^(7 + n)` ns and more than half of that; the last holds all longer ones.
    pub histogram: [u64; BUCKETS],
}

/// The upper bound in nanoseconds of bucket `n`, which is in it; the last has none.
pub fn bucket_bound_ns(n: usize) -> Option<u64> {
    (n + 1 < BUCKETS).then(|| 1 << (FIRST_POWER as usize + n))
}

fn bucket(duration_ns: u64) -> usize {
    let power = u64::BITS - duration_ns.saturating_sub(1).leading_zeros();
    (power.saturating_sub(FIRST_POWER) as usize).min(BUCKETS - 1)
}

fn add(to: &AtomicU64, by: u64) {
    to.store(to.load(Relaxed).wrapping_add(by), Relaxed);
}

/// Counts a call that has ended.
pub(crate) fn count(number: u64, failed: bool, duration_ns: u64) {
    let cells = CELLS
        .get()
        .call_once(|| (0..NUMBERS).map(|_| Cell::new()).collect());
    let Some(cell) = cells.get(number as usize) else {
        return;
    };
    add(&cell.count, 1);
    add(&cell.errors, failed.into());
    add(&cell.time_ns, duration_ns);
    let bucket = &cell.histogram[bucket(duration_ns)];
    bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Counts a call of a number that the table lacks.
pub(crate) fn count_refused(number: u64) {
    let mut refused = REFUSED.lock();
    if refused.len() < MAX_REFUSED || refused.contains_key(&number) {
        *refused.entry(number).or_insert(0) += 1;
    }
}

/// How often each number that the table lacks was called.
pub fn refused() -> Vec<(u64, u64)> {
    REFUSED
        .lock()
        .iter()
        .map(|(n, count)| (*n, *count))
        .collect()
}

/// The calls made at least once, in the order of the table.
pub fn all() -> Vec<CallStats> {
    table::TABLE
        .iter()
        .map(sum)
        .filter(|stats| stats.count > 0)
        .collect()
}

/// The sums for the call `number`, if the table has it.
pub fn of(number: u32) -> Option<CallStats> {
    table::info(number).map(sum)
}

fn sum(info: &SyscallInfo) -> CallStats {
    let mut sum = CallStats {
        number: info.number,
        name: info.name,
        count: 0,
        errors: 0,
        time_ns: 0,
        histogram: [0; BUCKETS],
    };
    for cells in CELLS.iter().filter_map(Once::get) {
        let Some(cell) = cells.get(info.number as usize) else {
            continue;
        };
        sum.count += cell.count.load(Relaxed);
        sum.errors += cell.errors.load(Relaxed);
        sum.time_ns += cell.time_ns.load(Relaxed);
        for (to, from) in sum.histogram.iter_mut().zip(&cell.histogram) {
            *to += u64::from(from.load(Relaxed));
        }
    }
    sum
}

/// The table that `strace -c` prints: share of time, seconds, microseconds a call, calls, errors, name.
pub fn summary() -> String {
    table_of(all())
}

fn table_of(mut all: Vec<CallStats>) -> String {
    all.sort_by_key(|stats| core::cmp::Reverse(stats.time_ns));
    let rule = "------ ----------- ----------- --------- --------- ----------------";
    let total_ns: u64 = all.iter().map(|stats| stats.time_ns).sum();
    let mut out = String::from("% time     seconds  usecs/call     calls    errors syscall\n");
    let _ = writeln!(out, "{rule}");
    let mut line = |share: u64, time_ns: u64, count: u64, errors: u64, name: &str| {
        let us = time_ns / 1000;
        let errors = match errors {
            0 => String::new(),
            errors => alloc::format!("{errors}"),
        };
        let _ = writeln!(
            out,
            "{:>3}.{:02} {:>4}.{:06} {:>11} {count:>9} {errors:>9} {name}",
            share / 100,
            share % 100,
            us / 1_000_000,
            us % 1_000_000,
            us / count.max(1),
        );
    };
    for stats in &all {
        let share = u128::from(stats.time_ns) * 10_000 / u128::from(total_ns.max(1));
        line(
            share as u64,
            stats.time_ns,
            stats.count,
            stats.errors,
            stats.name,
        );
    }
    let calls: u64 = all.iter().map(|stats| stats.count).sum();
    let errors: u64 = all.iter().map(|stats| stats.errors).sum();
    let _ = writeln!(out, "{rule}");
    let us = total_ns / 1000;
    let _ = writeln!(
        out,
        "100.00 {:>4}.{:06} {:>11} {calls:>9} {errors:>9} total",
        us / 1_000_000,
        us % 1_000_000,
        us / calls.max(1),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_between_two_bounds() {
        for ns in [
            0,
            127,
            128,
            129,
            256,
            1 << 20,
            (1 << 37) - 1,
            1 << 37,
            u64::MAX,
        ] {
            let n = bucket(ns);
            assert!(bucket_bound_ns(n).is_none_or(|bound| ns <= bound), "{ns}");
            assert!(n == 0 || ns > bucket_bound_ns(n - 1).unwrap(), "{ns}");
        }
    }

    #[test]
    fn what_is_counted_is_summed_over_threads() {
        // `adjtimex`: nobody else in the tests counts it.
        const NUMBER: u64 = 159;
        let threads: Vec<_> = (0..3)
            .map(|n| std::thread::spawn(move || count(NUMBER, n == 0, 1000)))
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        let stats = of(NUMBER as u32).unwrap();
        assert_eq!((stats.count, stats.errors, stats.time_ns), (3, 1, 3000));
        assert_eq!(stats.histogram.iter().sum::<u64>(), 3);
        assert!(all().contains(&stats));
        count(u64::MAX, true, 1);
    }

    #[test]
    fn the_table_is_straces() {
        let call = |name, count, errors, time_ns| CallStats {
            number: 0,
            name,
            count,
            errors,
            time_ns,
            histogram: [0; BUCKETS],
        };
        let text = table_of(vec![
            call("read", 2, 0, 1_000_000),
            call("openat", 10, 3, 3_000_000),
        ]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[2],
            " 75.00    0.003000         300        10         3 openat"
        );
        assert_eq!(
            lines[3],
            " 25.00    0.001000         500         2           read"
        );
        assert!(lines[5].ends_with("12         3 total"));
    }

    #[test]
    fn refused_numbers_are_told_apart_up_to_a_bound() {
        for number in 1000..1200 {
            count_refused(number);
            count_refused(number);
        }
        let refused = refused();
        assert_eq!(refused.len(), MAX_REFUSED);
        assert!(refused.iter().all(|(_, count)| *count >= 1));
    }
}
