//! `/syscalls`: how often each call was made, failed, and how long it took.
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use store::{Branch, Histogram, Leaf, Value};

use crate::syscalls::UNKNOWN_CALLS;
use crate::syscalls::table::TABLE;
use crate::trace::stats::{self, CallStats};

/// The upper bound shown for the last bucket, which has none: longer calls are in it as well.
const LAST_BOUND: u64 = 1 << 38;

fn total(part: fn(&CallStats) -> u64) -> u64 {
    stats::all().iter().map(part).sum()
}

/// System calls, from when counting was turned on ([`crate::trace::enable_stats`]).
pub fn branch() -> Branch {
    Branch::new("System calls, counted since the console was turned on.")
        .with(
            "total",
            Leaf::count(|| total(|call| call.count))
                .unit("calls")
                .help("Calls made."),
        )
        .with(
            "errors",
            Leaf::count(|| total(|call| call.errors))
                .unit("calls")
                .help("Calls that failed."),
        )
        .with(
            "unknown",
            Leaf::count(|| UNKNOWN_CALLS.load(Ordering::Relaxed))
                .unit("calls")
                .help("Calls of numbers that this kernel does not have."),
        )
        .with(
            "refused",
            Leaf::map(refused)
                .counter()
                .label("number")
                .help("How often each number that this kernel does not have was called."),
        )
        .listed("syscall", names, call)
}

fn refused() -> Vec<(String, Value)> {
    let refused = stats::refused().into_iter();
    refused
        .map(|(number, count)| (format!("{number}"), Value::integer(count)))
        .collect()
}

/// Those that were made: most of the table never is.
fn names() -> Vec<String> {
    stats::all().iter().map(|call| call.name.into()).collect()
}

fn call(name: &str) -> Option<Branch> {
    let number = TABLE.iter().find(|info| info.name == name)?.number;
    let now = stats::of(number)?;
    let (count, errors, time_ns) = (now.count, now.errors, now.time_ns);
    Some(
        Branch::new("One system call.")
            .with(
                "count",
                Leaf::count(move || count)
                    .metric("calls")
                    .unit("calls")
                    .help("How often it was made, by call."),
            )
            .with(
                "errors",
                Leaf::count(move || errors)
                    .metric("failed")
                    .unit("calls")
                    .help("How often it failed, by call."),
            )
            .with(
                "time_ns",
                Leaf::duration(move || time_ns)
                    .counter()
                    .help("Time from entry to end, waiting included, by call."),
            )
            .with(
                "histogram",
                Leaf::histogram(move || histogram(&now))
                    .metric("duration")
                    .help("How long it took, waiting included, by call."),
            ),
    )
}

fn histogram(call: &CallStats) -> Histogram {
    let bound = |n| stats::bucket_bound_ns(n).unwrap_or(LAST_BOUND);
    let buckets = call.histogram.iter().enumerate();
    Histogram {
        buckets: buckets.map(|(n, count)| (bound(n), *count)).collect(),
        sum: call.time_ns,
    }
}
