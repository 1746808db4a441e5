//! Who of those that wait goes next.
//!
//! What takes long may wait long: each is due after a time in proportion to what it is likely to take, and who is due first goes
//! first. So who asks for little does not wait for all those that ask for much, and none waits for ever.

use alloc::collections::BTreeMap;

/// How many times as long as it takes something may wait: for that, dozens of clients can share a hundredth of a CPU.
const STRETCH: u64 = 5000;
/// What the next of somebody who is new is taken to take, in nanoseconds: nobody gets ahead by coming again.
const NEW_NS: u64 = 20_000_000;
/// What is little, in nanoseconds.
const LITTLE_NS: u64 = 2_000_000;

/// What somebody's next turn is likely to take: as long as the last ones.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    ns: u64,
}

impl Cost {
    /// Of somebody who is new.
    pub const NEW: Cost = Cost { ns: NEW_NS };

    /// Learns what a turn took. It is forgotten slowly, so that one which takes little now and then does not help.
    pub fn learn(&mut self, ns: u64) {
        self.ns = ns.max(self.ns / 4 * 3);
    }

    /// Whether it is little.
    pub fn is_little(self) -> bool {
        self.ns <= LITTLE_NS
    }
}

/// Those that wait, by when they are due.
#[derive(Debug)]
pub struct Line<T> {
    waiting: BTreeMap<(u64, u64), T>,
    next_order: u64,
}

impl<T> Line<T> {
    /// With nobody in it.
    pub const fn new() -> Line<T> {
        Line {
            waiting: BTreeMap::new(),
            next_order: 0,
        }
    }

    /// Adds one whose turn is likely to take so much, and gives the place: when it is due, and a number.
    pub fn enter(&mut self, now_ns: u64, cost: Cost, item: T) -> (u64, u64) {
        let due_ns = now_ns.saturating_add(cost.ns.saturating_mul(STRETCH));
        let place = (due_ns, self.next_order);
        self.next_order += 1;
        self.waiting.insert(place, item);
        place
    }

    /// Who goes next.
    pub fn first(&self) -> Option<&T> {
        self.waiting.first_key_value().map(|(_, item)| item)
    }

    /// Whether that is the one at `place`.
    pub fn is_first(&self, place: (u64, u64)) -> bool {
        self.waiting
            .first_key_value()
            .is_some_and(|(first, _)| *first == place)
    }

    /// Lets the one at `place` go on.
    pub fn leave(&mut self, place: (u64, u64)) {
        self.waiting.remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MS;
    /// What passes while a part of a CPU does a turn.
    const PART: u64 = 80;

    /// Clients that want a turn all the time, one second after another of them: what each turn takes. Gives how long each of them
    /// waited at most, the first turns, in which they are new, aside.
    fn waits(costs: &[u64]) -> Vec<u64> {
        let mut line = Line::new();
        let mut known = vec![Cost::NEW; costs.len()];
        let mut since = vec![0; costs.len()];
        let mut turns = vec![0; costs.len()];
        let mut longest = vec![0; costs.len()];
        for (n, cost) in known.iter().enumerate() {
            line.enter(0, *cost, n);
        }
        let mut now = 0;
        while now < 20_000 * SECOND {
            for n in 0..costs.len() {
                // A second after it was served, it wants more.
                if since[n] <= now && !line.waiting.values().any(|waiting| *waiting == n) {
                    line.enter(now, known[n], n);
                }
            }
            let Some((&place, &n)) = line.waiting.first_key_value() else {
                now += MS;
                continue;
            };
            line.leave(place);
            let waited = now - since[n];
            turns[n] += 1;
            if turns[n] > 20 {
                longest[n] = waited.max(longest[n]);
            }
            now += costs[n] * PART;
            known[n].learn(costs[n]);
            since[n] = now + SECOND;
        }
        assert!(turns.iter().all(|count| *count > 20), "{turns:?}");
        longest
    }

    #[test]
    fn who_asks_little_goes_before_those_that_ask_for_much() {
        let mut costs = [40 * MS; 32];
        costs[0] = MS / 2;
        let waits = waits(&costs);
        // One that has begun is waited for.
        assert!(waits[0] <= 40 * MS * PART, "{waits:?}");
    }

    #[test]
    fn who_asks_for_much_gets_it_among_those_that_ask_little() {
        let mut costs = [MS; 32];
        costs[0] = 40 * MS;
        let waits = waits(&costs);
        assert!(waits[0] <= 40 * MS * STRETCH + 10 * SECOND, "{waits:?}");
    }

    #[test]
    fn the_last_ones_count_and_not_only_the_last_one() {
        let mut cost = Cost::NEW;
        for _ in 0..20 {
            cost.learn(MS);
        }
        assert!(cost.is_little());
        cost.learn(40 * MS);
        cost.learn(MS);
        assert!(!cost.is_little());
        assert!(!Cost::NEW.is_little());
    }
}
