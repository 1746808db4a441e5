//! The CPU time that a class of clients may use.

/// How much CPU time can be saved up, in nanoseconds: for opening the page on a busy machine.
const SAVED_NS: i64 = 100_000_000;
/// For each nanosecond that a CPU idles, so many may be used: four fifths of what the program leaves.
const IDLE: u64 = 4;
/// How far it may be overdrawn by those that may, in nanoseconds; what is begun is done.
const OVERDRAWN_NS: i64 = 20_000_000;
/// How far it may be overdrawn by packets: less, so that threads never wait because of packets alone.
const PACKETS_NS: i64 = 10_000_000;
/// The longest sleep before a look whether the CPUs have idled, in nanoseconds.
const NAP_NS: u64 = 10_000_000;
/// The shortest.
const SHORTEST_NAP_NS: u64 = 1_000_000;

/// What the clocks show.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The time, in nanoseconds.
    pub now_ns: u64,
    /// How long the CPUs have idled, all together.
    pub idle_ns: u64,
}

impl Clocks {
    /// The machine's.
    pub fn read() -> Clocks {
        let idle = (0..machine::cpu::count()).map(|cpu| sched::cpu_times(cpu).idle_ns);
        Clocks {
            now_ns: machine::time::now_ns(),
            idle_ns: idle.sum(),
        }
    }
}

/// The CPU time that may be used: a part of what passes, and most of what the CPUs idle meanwhile.
#[derive(Debug)]
pub struct Allowance {
    /// Where the program wants the whole CPU, it is one part in so many.
    part: u64,
    /// What is left in nanoseconds; negative where more was used.
    left_ns: i64,
    /// Up to when it was added to.
    until: Clocks,
}

impl Allowance {
    /// All that can be saved up, and one part in `part` of the time from the start of the clocks on.
    pub const fn new(part: u64) -> Allowance {
        let until = Clocks {
            now_ns: 0,
            idle_ns: 0,
        };
        Allowance {
            part,
            left_ns: SAVED_NS,
            until,
        }
    }

    /// Adds what has come since the last time.
    pub fn add(&mut self, clocks: Clocks) {
        let parts = clocks.now_ns.saturating_sub(self.until.now_ns) / self.part;
        let idle = clocks.idle_ns.saturating_sub(self.until.idle_ns);
        // What is less than a nanosecond's worth is for the next time.
        self.until.now_ns += parts * self.part;
        self.until.idle_ns += idle;
        let more =
            i64::try_from(parts.saturating_add(idle.saturating_mul(IDLE))).unwrap_or(i64::MAX);
        self.left_ns = self.left_ns.saturating_add(more).min(SAVED_NS);
    }

    /// Takes what was used.
    pub fn use_up(&mut self, ns: u64) {
        let ns = i64::try_from(ns).unwrap_or(i64::MAX);
        self.left_ns = self.left_ns.saturating_sub(ns);
    }

    /// Takes what packets used, as far as they may.
    pub fn use_up_to_debt(&mut self, ns: u64) {
        let left_ns = self.left_ns;
        self.use_up(ns);
        self.left_ns = self.left_ns.max(left_ns.min(-PACKETS_NS));
    }

    /// How long to sleep before there may be some again; `None` if there is, or if it `may_be_overdrawn` and is not far.
    pub fn nap_ns(&self, may_be_overdrawn: bool) -> Option<u64> {
        let bound = if may_be_overdrawn { OVERDRAWN_NS } else { 0 };
        let missing = (self.left_ns.saturating_add(bound)).min(0).unsigned_abs();
        let enough = missing.saturating_mul(self.part);
        (missing > 0).then(|| enough.clamp(SHORTEST_NAP_NS, NAP_NS))
    }

    /// Whether no more was used than there was.
    pub fn has_left(&self) -> bool {
        self.left_ns >= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const PART: u64 = 50;

    fn empty() -> Allowance {
        let mut allowance = Allowance::new(PART);
        allowance.use_up(SAVED_NS.unsigned_abs());
        allowance
    }

    #[test]
    fn a_part_of_a_busy_cpu_is_used_and_no_more() {
        let (mut allowance, mut now_ns, mut used) = (empty(), 0, 0);
        while now_ns < 100_000 * MS {
            allowance.add(Clocks { now_ns, idle_ns: 0 });
            match allowance.nap_ns(false) {
                Some(nap_ns) => now_ns += nap_ns,
                None => {
                    let work = 3 * MS;
                    allowance.use_up(work);
                    used += work;
                    now_ns += work;
                }
            }
        }
        let part = 100_000 * MS / PART;
        assert!(used.abs_diff(part) <= 10 * MS, "{used} of {part}");
    }

    #[test]
    fn most_of_what_a_cpu_idles_is_used() {
        let mut allowance = empty();
        allowance.use_up(20 * MS);
        assert!(allowance.nap_ns(false).is_some());
        let clocks = Clocks {
            now_ns: 25 * MS,
            idle_ns: 5 * MS,
        };
        allowance.add(clocks);
        assert_eq!(allowance.nap_ns(false), None);
    }

    #[test]
    fn it_is_not_overdrawn_far_and_by_packets_less() {
        let mut allowance = empty();
        allowance.use_up_to_debt(50 * MS);
        assert!(!allowance.has_left());
        assert_eq!(allowance.nap_ns(true), None);
        allowance.use_up(10 * MS);
        assert_eq!(allowance.nap_ns(true), None);
        allowance.use_up(1);
        allowance.use_up_to_debt(50 * MS);
        assert_eq!(allowance.nap_ns(true), Some(SHORTEST_NAP_NS));
        assert_eq!(allowance.nap_ns(false), Some(NAP_NS));
    }

    #[test]
    fn little_is_saved_up_and_no_time_is_lost() {
        let mut allowance = empty();
        for now_ns in 0..=100 * PART {
            allowance.add(Clocks { now_ns, idle_ns: 0 });
        }
        assert_eq!(allowance.left_ns, 100);
        let long = Clocks {
            now_ns: u64::MAX,
            idle_ns: u64::MAX,
        };
        allowance.add(long);
        assert_eq!(allowance.left_ns, SAVED_NS);
    }
}
