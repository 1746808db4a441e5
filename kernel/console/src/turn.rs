//! How much CPU time all clients together may use, and who of them goes next.
//!
//! Each client has a thread, and many threads of the lowest priority are together as strong as one of a high one; nor does
//! anything preempt the kernel. So all that is done for the console, from its packets to the answers, is charged to two
//! allowances: one of those who have shown the token and one of strangers, so that these never use what the owner needs. Where
//! one is used up, each thread waits before its next step, and who asks for little goes first (see [`crate::line`]): the owner,
//! whose page asks little, before those that ask for much without end.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::sync::SpinLock;
use sched::Thread;

use crate::allowance::{Allowance, Clocks};
use crate::line::{Cost, Line};

/// Of a CPU that the program wants, one part in so many is for strangers and their packets,
const STRANGERS_PART: u64 = 200;
/// and one for those who have shown the token.
const KNOWN_PART: u64 = 100;

/// Who shares an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Who has not shown the token yet. New connections are of these.
    Strangers,
    /// Who has.
    Known,
}

struct State {
    allowance: Allowance,
    line: Line<Arc<Thread>>,
    /// Somebody has the turn.
    taken: bool,
}

impl State {
    const fn new(part: u64) -> SpinLock<State> {
        SpinLock::new(State {
            allowance: Allowance::new(part),
            line: Line::new(),
            taken: false,
        })
    }
}

static STRANGERS: SpinLock<State> = State::new(STRANGERS_PART);
static KNOWN: SpinLock<State> = State::new(KNOWN_PART);

impl Class {
    fn state(self) -> &'static SpinLock<State> {
        match self {
            Class::Strangers => &STRANGERS,
            Class::Known => &KNOWN,
        }
    }

    /// Whether there is something left of its allowance.
    pub fn has_left(self) -> bool {
        let clocks = Clocks::read();
        let mut state = self.state().lock();
        state.allowance.add(clocks);
        state.allowance.has_left()
    }

    /// Charges what its packets took, in nanoseconds.
    pub fn use_up_by_packets(self, ns: u64) {
        self.state().lock().allowance.use_up_to_debt(ns);
    }
}

/// What a thread of the console has used.
struct Account {
    /// Of the thread's CPU time, what was charged.
    charged_ns: AtomicU64,
    /// What its turns take.
    cost: SpinLock<Cost>,
    known: AtomicBool,
}

impl Account {
    /// The account of the thread that calls this: all of the console's have one.
    fn own() -> Option<Arc<Account>> {
        sched::with_current(Thread::ext)
    }

    fn class(&self) -> Class {
        match self.known.load(Ordering::Relaxed) {
            true => Class::Known,
            false => Class::Strangers,
        }
    }

    /// Charges what the thread has used since it was charged last, and gives it in nanoseconds.
    fn charge(&self, state: &mut State) -> u64 {
        // The host does not know it.
        if cfg!(not(target_os = "none")) {
            return 0;
        }
        let cpu_ns = sched::with_current(Thread::cpu_ns);
        let charged_ns = self.charged_ns.swap(cpu_ns, Ordering::Relaxed);
        let used_ns = cpu_ns.saturating_sub(charged_ns);
        state.allowance.use_up(used_ns);
        used_ns
    }

    /// Charges to its class what the thread has used.
    fn settle(&self) {
        self.charge(&mut self.class().state().lock());
    }
}

/// The current thread's work is charged until this is dropped.
pub struct Charged(Option<Arc<Account>>);

/// Charges the work of the current thread, a stranger's until [`recognize`] says otherwise.
pub fn charge() -> Charged {
    let account = Arc::new(Account {
        charged_ns: AtomicU64::new(0),
        cost: SpinLock::new(Cost::NEW),
        known: AtomicBool::new(false),
    });
    // Nobody else attaches anything to these threads.
    let attached = sched::with_current(|thread| thread.set_ext(account.clone())).is_ok();
    Charged(attached.then_some(account))
}

impl Drop for Charged {
    fn drop(&mut self) {
        if let Some(account) = &self.0 {
            account.settle();
        }
    }
}

/// The client of the current thread has shown the token. Not in a turn.
pub fn recognize() {
    let Some(account) = Account::own() else {
        return;
    };
    account.settle();
    account.known.store(true, Ordering::Relaxed);
}

/// A turn, which lasts until it is dropped.
pub struct Turn {
    account: Option<Arc<Account>>,
    class: Class,
}

/// Waits for the turn: what takes long is done by one of a class at a time. Nothing that waits for a client may be done in it.
pub fn take() -> Turn {
    let account = Account::own();
    let class = account.as_ref().map_or(Class::Known, |own| own.class());
    wait(account.as_deref(), class);
    Turn { account, class }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.class.state().lock();
        if let Some(account) = &self.account {
            let used_ns = account.charge(&mut state);
            account.cost.lock().learn(used_ns);
        }
        drop(state);
        pass_on(self.class);
    }
}

/// Charges what the thread has done, and waits where the allowance is used up. Not in a turn.
pub fn pause() {
    let Some(account) = Account::own() else {
        return;
    };
    let class = account.class();
    let mut state = class.state().lock();
    account.charge(&mut state);
    if state.allowance.has_left() {
        return;
    }
    drop(state);
    wait(Some(&account), class);
    pass_on(class);
}

/// Waits until the turn is the current thread's.
fn wait(account: Option<&Account>, class: Class) {
    let cost = account.map_or(Cost::NEW, |own| *own.cost.lock());
    let may_overdraw = cost.is_little() || class == Class::Strangers;
    let thread = sched::current();
    let mut place = None;
    loop {
        let clocks = Clocks::read();
        let mut state = class.state().lock();
        state.allowance.add(clocks);
        let place = *place.get_or_insert_with(|| {
            if let Some(account) = account {
                account.charge(&mut state);
            }
            state.line.enter(clocks.now_ns, cost, thread.clone())
        });
        // Who is not the first, or waits for another's turn to end, is woken.
        let mut until = None;
        if !state.taken && state.line.is_first(place) {
            let Some(nap_ns) = state.allowance.nap_ns(may_overdraw) else {
                state.taken = true;
                state.line.leave(place);
                return;
            };
            until = Some(clocks.now_ns + nap_ns);
        }
        drop(state);
        sched::park(until);
    }
}

/// Ends a turn.
fn pass_on(class: Class) {
    let mut state = class.state().lock();
    state.taken = false;
    let next = state.line.first().cloned();
    drop(state);
    if let Some(next) = next {
        next.unpark();
    }
}
