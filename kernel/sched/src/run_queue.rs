//! Who runs next: the policy, apart from threads and CPUs.
//!
//! Each entry has used some *virtual time*: CPU time divided by its weight. The one that used least runs next, so
//! that CPU time is shared in proportion to the weights, as in Linux's fair classes.

use alloc::collections::BinaryHeap;
use core::cmp::{Ordering, Reverse};

/// How long one entry runs while others wait, in nanoseconds.
pub const SLICE_NS: u64 = 4_000_000;

/// How far back a woken entry may start behind the others: what it gets for having slept.
const WAKE_BONUS_NS: u64 = 3_000_000;

/// The weights of the nice values from -20 to 19: each step is a factor of about 1.25, nice 0 is 1024, as in
/// Linux (`sched_prio_to_weight`).
const WEIGHTS: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904,
    3906, 3121, 2501, 1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87,
    70, 56, 45, 36, 29, 23, 18, 15,
];

/// The virtual time that `ns` of CPU time cost at nice value `nice`.
pub fn virtual_ns(ns: u64, nice: i32) -> u64 {
    let index = usize::try_from(nice.clamp(-20, 19) + 20).unwrap_or(20);
    ns.saturating_mul(1024) / u64::from(WEIGHTS[index])
}

struct Entry<T> {
    virtual_ns: u64,
    /// Entries with equal virtual time run in the order in which they came.
    order: u64,
    item: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.virtual_ns, self.order).cmp(&(other.virtual_ns, other.order))
    }
}

/// The entries that wait for one CPU.
pub struct RunQueue<T> {
    waiting: BinaryHeap<Reverse<Entry<T>>>,
    /// The virtual time that this CPU has reached; it never goes back.
    floor_ns: u64,
    next_order: u64,
}

impl<T> RunQueue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        RunQueue {
            waiting: BinaryHeap::new(),
            floor_ns: 0,
            next_order: 0,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The virtual time from which an entry that has used `virtual_ns` competes here: sleeping long earns a bonus,
    /// but not a monopoly.
    pub fn placed(&self, virtual_ns: u64) -> u64 {
        virtual_ns.max(self.floor_ns.saturating_sub(WAKE_BONUS_NS))
    }

    /// Adds an entry that competes from `virtual_ns`.
    pub fn push(&mut self, item: T, virtual_ns: u64) {
        let order = self.next_order;
        self.next_order += 1;
        self.waiting.push(Reverse(Entry {
            virtual_ns,
            order,
            item,
        }));
    }

    /// Takes the entry that is to run next among those that `may_run`.
    pub fn pop(&mut self, mut may_run: impl FnMut(&T) -> bool) -> Option<T> {
        let first = self.waiting.pop()?.0;
        if may_run(&first.item) {
            self.floor_ns = self.floor_ns.max(first.virtual_ns);
            return Some(first.item);
        }
        // Rare: the first is still being switched away from, or may not run here.
        let mut passed = alloc::vec![first];
        let mut found = None;
        while let Some(Reverse(entry)) = self.waiting.pop() {
            if may_run(&entry.item) {
                found = Some(entry.item);
                break;
            }
            passed.push(entry);
        }
        self.waiting.extend(passed.into_iter().map(Reverse));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{RunQueue, SLICE_NS, virtual_ns};

    #[test]
    fn time_is_shared_by_weight() {
        let nice = [0, 0, 5];
        let mut queue = RunQueue::new();
        let mut used = [0_u64; 3];
        let mut spent = [0_u64; 3];
        (0..3).for_each(|n| queue.push(n, 0));
        for _ in 0..10_000 {
            let n = queue.pop(|_| true).unwrap();
            spent[n] += SLICE_NS;
            used[n] += virtual_ns(SLICE_NS, nice[n]);
            queue.push(n, queue.placed(used[n]));
        }
        let ratio = spent[0] as f64 / spent[2] as f64;
        assert!((ratio - 1024.0 / 335.0).abs() < 0.1, "{ratio}");
        assert!(spent[0].abs_diff(spent[1]) <= 2 * SLICE_NS);
    }

    #[test]
    fn a_long_sleep_is_no_monopoly() {
        let mut queue = RunQueue::new();
        queue.push('b', 1_000_000_000);
        assert_eq!(queue.pop(|_| true), Some('b'));
        let placed = queue.placed(0);
        assert!(placed >= 1_000_000_000 - 3_000_000);
    }

    #[test]
    fn what_may_not_run_stays() {
        let mut queue = RunQueue::new();
        (0..5).for_each(|n| queue.push(n, n));
        assert_eq!(queue.pop(|n| *n >= 3), Some(3));
        assert_eq!(queue.pop(|n| *n > 9), None);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.pop(|_| true), Some(0));
    }

    #[test]
    fn equals_run_in_turn() {
        let mut queue = RunQueue::new();
        (0..3).for_each(|n| queue.push(n, 7));
        assert_eq!(
            (0..3)
                .filter_map(|_| queue.pop(|_| true))
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }
}
