//! How much CPU time all clients together may use, and who of them goes next.
//!
//! Each client has a thread, and many threads of the lowest priority are together as strong as one of a high one; nor does
//! anything preempt the kernel. So all that the console's threads do, from taking a connection to sending an answer, is
//! charged to one allowance: a twenty-fifth of the time that passes, and what the CPUs idle meanwhile. Where it is used up,
//! each thread waits before its next step, and who has used least goes first: the owner, whose page asks little, before
//! those that ask without end. Who has used less than the one that went last need not even wait for the allowance: all is
//! charged, so that those who used more wait the longer, and none of them gets ahead of others meanwhile.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use machine::sync::SpinLock;
use sched::Thread;

/// A part of one in so many of a CPU is for the console where the program wants all of it.
const PART: u64 = 25;
/// How much CPU time can be saved up, in nanoseconds: for opening the page on a busy machine.
const SAVED_NS: i64 = 100_000_000;
/// The longest sleep before a look whether the CPUs have idled, in nanoseconds.
const NAP_NS: u64 = 10_000_000;
/// The shortest.
const SHORTEST_NAP_NS: u64 = 1_000_000;
/// Who has used little of late may be ahead of the others by so much CPU time. Who is new is not.
const AHEAD_NS: u64 = 50_000_000;

/// What the clocks show.
#[derive(Clone, Copy)]
struct Clocks {
    now_ns: u64,
    /// How long the CPUs have idled, all together.
    idle_ns: u64,
}

impl Clocks {
    fn read() -> Clocks {
        let idle = (0..machine::cpu::count()).map(|cpu| sched::cpu_times(cpu).idle_ns);
        Clocks {
            now_ns: machine::time::now_ns(),
            idle_ns: idle.sum(),
        }
    }
}

/// The CPU time that may be used.
struct Allowance {
    /// What is left in nanoseconds; negative where more was used.
    left_ns: i64,
    /// Up to when it was added to.
    until: Clocks,
}

impl Allowance {
    const fn new() -> Allowance {
        let until = Clocks {
            now_ns: 0,
            idle_ns: 0,
        };
        Allowance { left_ns: 0, until }
    }

    fn add(&mut self, clocks: Clocks) {
        let parts = clocks.now_ns.saturating_sub(self.until.now_ns) / PART;
        let idle = clocks.idle_ns.saturating_sub(self.until.idle_ns);
        // What is less than a nanosecond's worth is for the next time.
        self.until.now_ns += parts * PART;
        self.until.idle_ns += idle;
        let more = i64::try_from(parts.saturating_add(idle)).unwrap_or(i64::MAX);
        self.left_ns = self.left_ns.saturating_add(more).min(SAVED_NS);
    }

    fn use_up(&mut self, ns: u64) {
        let ns = i64::try_from(ns).unwrap_or(i64::MAX);
        self.left_ns = self.left_ns.saturating_sub(ns);
    }

    /// How long to sleep before there may be some again; `None` if there is.
    fn nap_ns(&self) -> Option<u64> {
        let missing = self.left_ns.min(0).unsigned_abs();
        let enough = missing.saturating_mul(PART);
        (missing > 0).then(|| enough.clamp(SHORTEST_NAP_NS, NAP_NS))
    }
}

/// Those that wait, by how much they have used.
struct Line<T> {
    waiting: BTreeMap<(u64, u64), T>,
    /// What the last one had used who was let go on. It never goes back.
    floor_ns: u64,
    next_order: u64,
}

impl<T> Line<T> {
    const fn new() -> Line<T> {
        Line {
            waiting: BTreeMap::new(),
            floor_ns: 0,
            next_order: 0,
        }
    }

    /// Adds one who has used so much, and gives the place: what counts as used, since being idle for long saves little, and
    /// a number.
    fn enter(&mut self, used_ns: u64, item: T) -> (u64, u64) {
        let least = self.floor_ns.saturating_sub(AHEAD_NS);
        let place = (used_ns.max(least), self.next_order);
        self.next_order += 1;
        self.waiting.insert(place, item);
        place
    }

    fn first(&self) -> Option<&T> {
        self.waiting.first_key_value().map(|(_, item)| item)
    }

    fn is_first(&self, place: (u64, u64)) -> bool {
        self.waiting
            .first_key_value()
            .is_some_and(|(first, _)| *first == place)
    }

    /// Whether the one at `place` has used less than who was let go last.
    fn is_owed(&self, place: (u64, u64)) -> bool {
        place.0 < self.floor_ns
    }

    fn leave(&mut self, place: (u64, u64)) {
        self.waiting.remove(&place);
        self.floor_ns = self.floor_ns.max(place.0);
    }
}

struct State {
    allowance: Allowance,
    line: Line<Arc<Thread>>,
    /// Somebody has the turn.
    taken: bool,
}

static STATE: SpinLock<State> = SpinLock::new(State {
    allowance: Allowance::new(),
    line: Line::new(),
    taken: false,
});

/// What a thread of the console has used.
struct Account {
    /// Of the thread's CPU time, what was charged.
    charged_ns: AtomicU64,
    /// What decides who goes first.
    used_ns: AtomicU64,
}

impl Account {
    /// The account of the thread that calls this: all of the console's have one.
    fn own() -> Option<Arc<Account>> {
        sched::with_current(Thread::ext)
    }

    /// Charges what the thread has used since it was charged last.
    fn charge(&self, state: &mut State) {
        // The host does not know it.
        if cfg!(not(target_os = "none")) {
            return;
        }
        let cpu_ns = sched::with_current(Thread::cpu_ns);
        let charged_ns = self.charged_ns.swap(cpu_ns, Ordering::Relaxed);
        let used = cpu_ns.saturating_sub(charged_ns);
        state.allowance.use_up(used);
        self.used_ns.fetch_add(used, Ordering::Relaxed);
    }
}

/// The current thread's work is charged until this is dropped.
pub struct Charged(Option<Arc<Account>>);

/// Charges the work of the current thread.
pub fn charge() -> Charged {
    // Nobody gets ahead by coming again.
    let floor_ns = STATE.lock().line.floor_ns;
    let account = Arc::new(Account {
        charged_ns: AtomicU64::new(0),
        used_ns: AtomicU64::new(floor_ns),
    });
    // Nobody else attaches anything to these threads.
    let attached = sched::with_current(|thread| thread.set_ext(account.clone())).is_ok();
    Charged(attached.then_some(account))
}

impl Drop for Charged {
    fn drop(&mut self) {
        if let Some(account) = &self.0 {
            account.charge(&mut STATE.lock());
        }
    }
}

/// A turn, which lasts until it is dropped.
pub struct Turn(Option<Arc<Account>>);

/// Waits for the turn: what takes long is done by one at a time. Nothing that waits for a client may be done in it.
pub fn take() -> Turn {
    let account = Account::own();
    let thread = sched::current();
    let mut place = None;
    loop {
        let clocks = Clocks::read();
        let mut state = STATE.lock();
        state.allowance.add(clocks);
        let place = *place.get_or_insert_with(|| {
            let mut used_ns = 0;
            if let Some(account) = &account {
                account.charge(&mut state);
                used_ns = account.used_ns.load(Ordering::Relaxed);
            }
            state.line.enter(used_ns, thread.clone())
        });
        // Who is not the first, or waits for another's turn to end, is woken.
        let mut until = None;
        if !state.taken && state.line.is_first(place) {
            let nap_ns = state.allowance.nap_ns();
            let nap_ns = nap_ns.filter(|_| !state.line.is_owed(place));
            let Some(nap_ns) = nap_ns else {
                state.taken = true;
                state.line.leave(place);
                if let Some(account) = &account {
                    account.used_ns.fetch_max(place.0, Ordering::Relaxed);
                }
                return Turn(account);
            };
            until = Some(clocks.now_ns + nap_ns);
        }
        drop(state);
        sched::park(until);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = STATE.lock();
        if let Some(account) = &self.0 {
            account.charge(&mut state);
        }
        state.taken = false;
        let next = state.line.first().cloned();
        drop(state);
        if let Some(next) = next {
            next.unpark();
        }
    }
}

/// Charges what the thread has done, and waits where the allowance is used up. Not in a turn.
pub fn pause() {
    let Some(account) = Account::own() else {
        return;
    };
    let mut state = STATE.lock();
    account.charge(&mut state);
    if state.allowance.left_ns >= 0 {
        return;
    }
    drop(state);
    drop(take());
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_part_of_a_busy_cpu_is_used_and_no_more() {
        let (mut allowance, mut now_ns, mut used) = (Allowance::new(), 0, 0);
        while now_ns < 100_000 * MS {
            allowance.add(Clocks { now_ns, idle_ns: 0 });
            match allowance.nap_ns() {
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
    fn what_is_owed_is_no_more_than_the_part() {
        // One works whenever there is an allowance; ten others whenever they are owed something.
        let (mut allowance, mut line, mut now_ns) = (Allowance::new(), Line::new(), 0);
        let mut used = [0_u64; 11];
        let mut all = 0;
        while now_ns < 1_000_000 * MS {
            allowance.add(Clocks { now_ns, idle_ns: 0 });
            let mut went = false;
            for (n, used) in used.iter_mut().enumerate() {
                let place = line.enter(*used, n);
                if line.is_owed(place) || n == 0 && allowance.nap_ns().is_none() {
                    line.leave(place);
                    *used = place.0.max(*used) + 5 * MS;
                    allowance.use_up(5 * MS);
                    now_ns += 5 * MS;
                    all += 5 * MS;
                    went = true;
                } else {
                    line.waiting.remove(&place);
                }
            }
            if !went {
                now_ns += NAP_NS;
            }
        }
        let part = now_ns / PART;
        assert!(all.abs_diff(part) <= part / 20, "{all} of {part}");
    }

    #[test]
    fn an_idle_cpu_is_used_for_as_long_as_it_idles() {
        let mut allowance = Allowance::new();
        allowance.use_up(10 * MS);
        assert!(allowance.nap_ns().is_some());
        let clocks = Clocks {
            now_ns: 5 * MS,
            idle_ns: 10 * MS,
        };
        allowance.add(clocks);
        assert_eq!(allowance.nap_ns(), None);
    }

    #[test]
    fn little_is_saved_up_and_no_time_is_lost() {
        let mut allowance = Allowance::new();
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

    #[test]
    fn who_asks_little_goes_before_those_that_ask_without_end() {
        let mut line = Line::new();
        // Thirty-one want a turn all the time; the owner wants one now and then.
        let mut used = [0_u64; 32];
        for n in 1..32 {
            line.enter(0, n);
        }
        let mut behind = Vec::new();
        for turn in 0..3100_u64 {
            let owner = (turn % 100 == 50).then(|| line.enter(used[0], 0));
            if let Some(owner) = owner {
                behind.push(line.waiting.range(..owner).count());
            }
            let (&place, &n) = line.waiting.first_key_value().unwrap();
            line.leave(place);
            used[n] = used[n].max(place.0) + 5 * MS;
            if n != 0 {
                line.enter(used[n], n);
            }
        }
        assert!(behind[1..].iter().all(|count| *count == 0), "{behind:?}");
        assert!(
            used[2..]
                .iter()
                .all(|other| other.abs_diff(used[1]) <= 10 * MS)
        );
        // Who comes anew begins behind, and is owed nothing.
        let place = line.enter(line.floor_ns, 32);
        let owner = line.enter(used[0], 0);
        assert!(owner < place);
        assert!(line.is_owed(owner) && !line.is_owed(place));
    }
}
