//! `epoll(7)`: a set of descriptors and the queue of those that may be ready.
//!
//! An [`Item`] observes its target and puts itself on the queue, from interrupt handlers too;
//! [`Epoll::harvest`] asks the targets on the queue what they are ready for. The target is held
//! weakly: its last close takes it out of the set.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use errno::{Errno, Result};
use machine::sync::IrqLock;
use sched::poll::{Events, Observer, Pollee, Registration};
use sched::{Mutex, WaitQueue};

use super::readiness::{ALWAYS, Watched, with_norms};

/// `EPOLLEXCLUSIVE`.
pub const EXCLUSIVE: u32 = 1 << 28;
/// `EPOLLWAKEUP`.
pub const WAKEUP: u32 = 1 << 29;
/// `EPOLLONESHOT`.
pub const ONESHOT: u32 = 1 << 30;
/// `EPOLLET`.
pub const EDGE: u32 = 1 << 31;

const MODES: u32 = EXCLUSIVE | WAKEUP | ONESHOT | EDGE;
/// What may stand beside `EPOLLEXCLUSIVE`.
const EXCLUSIVE_OK: u32 = 0x1 | 0x4 | 0x8 | 0x10 | WAKEUP | EDGE | EXCLUSIVE;
/// How deep epoll sets may watch each other (`EP_MAX_NESTS`).
const MAX_NESTING: usize = 4;

/// What one entry of the set asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// `EPOLL*` events and modes.
    pub events: u32,
    /// What the program gets back.
    pub data: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    fd: i32,
    /// Identity of the target: a descriptor number alone may have been reused.
    target: usize,
}

struct Item {
    me: Weak<Item>,
    target: Weak<dyn Watched>,
    interest: IrqLock<Interest>,
    queued: AtomicBool,
    ready: Weak<Ready>,
}

struct Entry {
    item: Arc<Item>,
    /// Kept apart from the item: dropping it takes the pollee's lock, under which items are called.
    _registration: Registration,
}

struct Ready {
    queue: IrqLock<VecDeque<Arc<Item>>>,
    waiters: WaitQueue,
    pollee: Pollee,
}

impl Ready {
    fn push(&self, item: &Arc<Item>) {
        if !item.queued.swap(true, Ordering::AcqRel) {
            self.queue.lock().push_back(item.clone());
        }
        self.waiters.wake_one();
        self.pollee.notify(Events::IN);
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }
}

impl Item {
    /// What the target is ready for of what is asked.
    fn ready_events(&self, interest: u32) -> u32 {
        match self.target.upgrade() {
            Some(target) => target.poll().bits() & (interest | ALWAYS),
            None => 0,
        }
    }
}

impl Observer for Item {
    fn notify(&self, events: Events) {
        let interest = self.interest.lock().events;
        if interest & !MODES == 0 {
            return;
        }
        if !events.is_empty() && with_norms(events).bits() & (interest | ALWAYS) == 0 {
            return;
        }
        if let (Some(item), Some(ready)) = (self.me.upgrade(), self.ready.upgrade()) {
            ready.push(&item);
        }
    }
}

/// An epoll set.
pub struct Epoll {
    entries: Mutex<BTreeMap<Key, Entry>>,
    ready: Arc<Ready>,
    /// One harvest at a time: another would miss the entries that the first has in hand.
    harvest: Mutex<()>,
}

impl Default for Epoll {
    fn default() -> Self {
        Self::new()
    }
}

impl Epoll {
    /// An empty set.
    pub fn new() -> Self {
        Epoll {
            entries: Mutex::new(BTreeMap::new()),
            ready: Arc::new(Ready {
                queue: IrqLock::new(VecDeque::new()),
                waiters: WaitQueue::new(),
                pollee: Pollee::new(),
            }),
            harvest: Mutex::new(()),
        }
    }

    /// What waiting for the set itself is done on.
    pub fn pollee(&self) -> &Pollee {
        &self.ready.pollee
    }

    /// Whether some entry is ready.
    pub fn poll(&self) -> Events {
        let queued: Vec<Arc<Item>> = self.ready.queue.lock().iter().cloned().collect();
        for item in queued {
            let interest = item.interest.lock().events;
            if item.ready_events(interest) != 0 {
                return Events::IN;
            }
        }
        Events::empty()
    }

    /// Adds a target (`EPOLL_CTL_ADD`).
    ///
    /// # Errors
    /// `EEXIST`, `EPERM` for a target that cannot be waited for, `EINVAL` for a combination of flags,
    /// `ELOOP` when sets would watch each other in a circle or too deep.
    pub fn add(&self, fd: i32, target: &Arc<dyn Watched>, interest: Interest) -> Result<()> {
        let pollee = target.pollee().ok_or(Errno::EPERM)?;
        if interest.events & EXCLUSIVE != 0
            && (interest.events & !EXCLUSIVE_OK != 0 || target.as_epoll().is_some())
        {
            return Err(Errno::EINVAL);
        }
        if let Some(inner) = target.as_epoll() {
            inner.check_nesting(self, 1)?;
        }
        let key = Key {
            fd,
            target: identity(target),
        };
        let item = Arc::new_cyclic(|me| Item {
            me: me.clone(),
            target: Arc::downgrade(target),
            interest: IrqLock::new(interest),
            queued: AtomicBool::new(false),
            ready: Arc::downgrade(&self.ready),
        });
        let mut dead = Vec::new();
        {
            let mut entries = self.entries.lock();
            if entries.contains_key(&key) {
                return Err(Errno::EEXIST);
            }
            // Descriptions that were closed without `EPOLL_CTL_DEL` and whose number came back.
            let gone: Vec<Key> = entries
                .range(
                    Key { fd, target: 0 }..=Key {
                        fd,
                        target: usize::MAX,
                    },
                )
                .filter(|(_, entry)| entry.item.target.strong_count() == 0)
                .map(|(key, _)| *key)
                .collect();
            dead.extend(gone.iter().filter_map(|key| entries.remove(key)));
            // Room for every item, so that the interrupt handler that queues one does not allocate.
            let mut queue = self.ready.queue.lock();
            let missing = (entries.len() + 1).saturating_sub(queue.len());
            queue.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
            drop(queue);
            let observer: Arc<dyn Observer> = item.clone();
            let registration = pollee.register(&Arc::downgrade(&observer));
            entries.insert(
                key,
                Entry {
                    item: item.clone(),
                    _registration: registration,
                },
            );
        }
        for entry in &dead {
            self.unqueue(&entry.item);
        }
        drop(dead);
        if item.ready_events(interest.events) != 0 {
            self.ready.push(&item);
        }
        Ok(())
    }

    /// Changes what is asked of a target (`EPOLL_CTL_MOD`); re-arms a spent `EPOLLONESHOT`.
    ///
    /// # Errors
    /// `ENOENT`, `EINVAL` where `EPOLLEXCLUSIVE` is involved.
    pub fn modify(&self, fd: i32, target: &Arc<dyn Watched>, interest: Interest) -> Result<()> {
        let key = Key {
            fd,
            target: identity(target),
        };
        let item = {
            let entries = self.entries.lock();
            entries.get(&key).ok_or(Errno::ENOENT)?.item.clone()
        };
        {
            let mut held = item.interest.lock();
            if (held.events | interest.events) & EXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            *held = interest;
        }
        if item.ready_events(interest.events) != 0 {
            self.ready.push(&item);
        }
        Ok(())
    }

    /// Takes a target out (`EPOLL_CTL_DEL`).
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove(&self, fd: i32, target: &Arc<dyn Watched>) -> Result<()> {
        let key = Key {
            fd,
            target: identity(target),
        };
        let entry = self.entries.lock().remove(&key).ok_or(Errno::ENOENT)?;
        self.unqueue(&entry.item);
        Ok(())
    }

    fn unqueue(&self, item: &Arc<Item>) {
        // Spent: a notification that is under way finds nothing to do.
        item.interest.lock().events = 0;
        let mut dropped = None;
        if item.queued.load(Ordering::Acquire) {
            let mut queue = self.ready.queue.lock();
            if let Some(at) = queue.iter().position(|queued| Arc::ptr_eq(queued, item)) {
                dropped = queue.remove(at);
            }
        }
        drop(dropped);
    }

    /// Refuses circles and towers of sets.
    fn check_nesting(&self, outer: &Epoll, depth: usize) -> Result<()> {
        if core::ptr::eq(self, outer) || depth > MAX_NESTING {
            return Err(Errno::ELOOP);
        }
        let inner: Vec<Arc<dyn Watched>> = self
            .entries
            .lock()
            .values()
            .filter_map(|entry| entry.item.target.upgrade())
            .filter(|target| target.as_epoll().is_some())
            .collect();
        for target in inner {
            if let Some(epoll) = target.as_epoll() {
                epoll.check_nesting(outer, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Waits until the queue is not empty. That an entry on it is really ready only a harvest tells.
    ///
    /// # Errors
    /// As `WaitQueue::wait_interruptible`.
    pub fn wait(&self, deadline_ns: Option<u64>) -> core::result::Result<(), sched::Woken> {
        self.ready
            .waiters
            .wait_interruptible(deadline_ns, || (!self.ready.is_empty()).then_some(()))
    }

    /// Hands up to `max` ready events to `deliver` and returns how many it took.
    ///
    /// # Errors
    /// What `deliver` answered, when it took none.
    pub fn harvest(
        &self,
        max: usize,
        mut deliver: impl FnMut(u32, u64) -> Result<()>,
    ) -> Result<usize> {
        if self.ready.is_empty() {
            return Ok(0);
        }
        let one_at_a_time = self.harvest.lock();
        let mut left = self.ready.queue.lock().len();
        let mut done = 0;
        let mut failure = None;
        while left > 0 && done < max {
            left -= 1;
            let Some(item) = self.ready.queue.lock().pop_front() else {
                break;
            };
            // Before asking: what happens from here on queues it again.
            item.queued.store(false, Ordering::Release);
            let interest = *item.interest.lock();
            if interest.events & !MODES == 0 {
                continue;
            }
            let events = item.ready_events(interest.events);
            if events == 0 {
                continue;
            }
            if let Err(error) = deliver(events, interest.data) {
                failure = Some(error);
                self.requeue(&item);
                break;
            }
            done += 1;
            if interest.events & ONESHOT != 0 {
                item.interest.lock().events &= MODES;
            } else if interest.events & EDGE == 0 {
                self.requeue(&item);
            }
        }
        drop(one_at_a_time);
        if !self.ready.is_empty() {
            self.ready.waiters.wake_one();
        }
        match failure {
            Some(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    fn requeue(&self, item: &Arc<Item>) {
        if !item.queued.swap(true, Ordering::AcqRel) {
            self.ready.queue.lock().push_back(item.clone());
        }
    }

    /// The entries, for `/proc/self/fdinfo`: descriptor, events, data.
    pub fn all(&self) -> Vec<(i32, Interest)> {
        self.entries
            .lock()
            .iter()
            .filter(|(_, entry)| entry.item.target.strong_count() > 0)
            .map(|(key, entry)| (key.fd, *entry.item.interest.lock()))
            .collect()
    }
}

fn identity(target: &Arc<dyn Watched>) -> usize {
    Arc::as_ptr(target).cast::<()>() as usize
}

#[cfg(test)]
#[path = "epoll_tests.rs"]
mod tests;
