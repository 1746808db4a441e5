//! Histograms of durations with bounds that are powers of two.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Value;

/// How many durations lay between two bounds each, and what they sum up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// For each bound in nanoseconds, rising: how many were at most that and more than the bound before.
    pub buckets: Vec<(u64, u64)>,
    /// The sum of all durations in nanoseconds.
    pub sum: u64,
}

impl Histogram {
    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// As a map, without the empty buckets.
    pub(crate) fn to_map(&self) -> Vec<(String, Value)> {
        let filled = self.buckets.iter().filter(|(_, count)| *count > 0);
        filled
            .map(|(bound, count)| (format!("{bound}"), Value::integer(*count)))
            .collect()
    }
}
