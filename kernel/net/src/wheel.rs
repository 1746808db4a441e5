//! A hierarchical timer wheel: insert is a push, time moves in ticks of about a millisecond, and an
//! entry that turns out to be early is simply put back by its owner. There is no removal: a timer's
//! owner knows its own deadline, and an entry that fires too soon or for nothing costs a look.

use alloc::vec::Vec;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 5;
/// Entries that an empty slot keeps room for.
const MOST_KEPT: usize = 16;
/// 2^20 ns.
const TICK_SHIFT: u32 = 20;

pub(crate) struct Wheel<T> {
    /// The next tick to run.
    tick: u64,
    /// By level. On the heap: a kernel stack has no room for them.
    slots: Vec<[Vec<(u64, T)>; SLOTS]>,
    /// One bit for each slot that is not empty.
    used: [u64; LEVELS],
}

impl<T> Wheel<T> {
    pub fn new(now_ns: u64) -> Self {
        Wheel {
            tick: now_ns >> TICK_SHIFT,
            slots: (0..LEVELS)
                .map(|_| core::array::from_fn(|_| Vec::new()))
                .collect(),
            used: [0; LEVELS],
        }
    }

    /// Arms `item` for `deadline_ns`, rounded up to the next tick.
    pub fn insert(&mut self, deadline_ns: u64, item: T) {
        let due = ((deadline_ns >> TICK_SHIFT) + 1).max(self.tick);
        self.place(due, item);
    }

    fn place(&mut self, due: u64, item: T) {
        let delta = due - self.tick;
        let mut level = 0;
        while level + 1 < LEVELS && delta >> (BITS * (level as u32 + 1)) != 0 {
            level += 1;
        }
        // Beyond the last level's reach it waits there for another turn.
        let reach = 1u64 << (BITS * LEVELS as u32);
        let at = if delta >= reach {
            self.tick + reach - 1
        } else {
            due
        };
        let slot = (at >> (BITS * level as u32)) as usize % SLOTS;
        self.slots[level][slot].push((due, item));
        self.used[level] |= 1 << slot;
    }

    /// Runs time to `now_ns` and hands out all that is due.
    pub fn advance(&mut self, now_ns: u64, due: &mut Vec<T>) {
        let now = now_ns >> TICK_SHIFT;
        while self.tick <= now {
            if self.used == [0; LEVELS] {
                self.tick = now + 1;
                return;
            }
            // Skip empty stretches of the lowest level up to its next turn.
            let slot = self.tick as usize % SLOTS;
            if slot == 0 {
                self.cascade();
            }
            if self.used[0] >> slot == 0 {
                let turn = (self.tick | (SLOTS as u64 - 1)) + 1;
                self.tick = turn.min(now + 1);
                continue;
            }
            if self.used[0] & (1 << slot) != 0 {
                self.used[0] &= !(1 << slot);
                let mut entries = core::mem::take(&mut self.slots[0][slot]);
                due.extend(entries.drain(..).map(|(_, item)| item));
                // The next turn finds the slot's memory, unless it was one of many.
                if entries.capacity() <= MOST_KEPT {
                    self.slots[0][slot] = entries;
                }
            }
            self.tick += 1;
        }
    }

    /// At a turn of the lowest level, brings the entries of the next one down.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            let slot = (self.tick >> (BITS * level as u32)) as usize % SLOTS;
            if self.used[level] & (1 << slot) != 0 {
                self.used[level] &= !(1 << slot);
                for (due, item) in core::mem::take(&mut self.slots[level][slot]) {
                    self.place(due.max(self.tick), item);
                }
            }
            if slot != 0 {
                break;
            }
        }
    }

    /// When to run next: exact for what is near, a lower bound for what is far.
    pub fn next_ns(&self) -> Option<u64> {
        let mut best: Option<u64> = None;
        for level in 0..LEVELS {
            if self.used[level] == 0 {
                continue;
            }
            let shift = BITS * level as u32;
            let here = self.tick >> shift;
            let rotated = self.used[level].rotate_right((here % SLOTS as u64) as u32);
            // A slot of a higher level at our own position is a whole turn away, unless its cascade is still to come.
            let ahead = if level > 0 && rotated & 1 != 0 && self.tick & ((1 << shift) - 1) != 0 {
                match (rotated & !1).trailing_zeros() {
                    64 => SLOTS as u64,
                    n => u64::from(n),
                }
            } else {
                u64::from(rotated.trailing_zeros())
            };
            let tick = ((here + ahead) << shift).max(self.tick);
            best = Some(best.map_or(tick, |b| b.min(tick)));
        }
        best.map(|tick| tick << TICK_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn everything_fires_once_in_time_and_never_early() {
        let mut wheel = Wheel::new(0);
        let mut random = 12345u64;
        let mut deadlines = vec![];
        for i in 0..5000usize {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let span = 1u64 << (20 + (random >> 59));
            let deadline = (random >> 20) % (span * 4);
            deadlines.push(deadline);
            wheel.insert(deadline, i);
        }
        let mut now = 0;
        let mut fired = vec![false; deadlines.len()];
        while let Some(next) = wheel.next_ns() {
            assert!(next >= now, "time goes back");
            now = next.max(now + 1);
            let mut due = vec![];
            wheel.advance(now, &mut due);
            for i in due {
                assert!(!fired[i]);
                fired[i] = true;
                assert!(deadlines[i] <= now);
                assert!(
                    now - deadlines[i] <= 3 << TICK_SHIFT,
                    "late: {} {}",
                    now,
                    deadlines[i]
                );
            }
        }
        assert!(fired.iter().all(|f| *f));
    }

    #[test]
    fn slots_keep_little_room() {
        let mut wheel = Wheel::new(0);
        for n in 0..100_000_u64 {
            wheel.insert((n % 64) << TICK_SHIFT, n);
        }
        let mut due = vec![];
        wheel.advance(1 << 40, &mut due);
        assert_eq!(due.len(), 100_000);
        let slots = wheel.slots.iter().flatten();
        assert!(slots.map(Vec::capacity).all(|room| room <= MOST_KEPT));
    }

    #[test]
    fn a_long_sleep_loses_nothing() {
        let mut wheel = Wheel::new(0);
        for s in 0..1000u64 {
            wheel.insert(s * 1_000_000_000, s);
        }
        let mut due = vec![];
        wheel.advance(500_500_000_000, &mut due);
        assert_eq!(due.len(), 501);
        wheel.advance(2_000_000_000_000, &mut due);
        assert_eq!(due.len(), 1000);
        assert_eq!(wheel.next_ns(), None);
    }
}
