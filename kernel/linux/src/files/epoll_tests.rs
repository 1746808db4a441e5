//! What `epoll(7)` promises, on the hosted scheduler.

use super::*;
use crate::files::eventfd::EventFd;
use std::thread;
use std::time::Duration;

const IN: u32 = 1;
const OUT: u32 = 4;

struct Event(EventFd);

impl Watched for Event {
    fn poll(&self) -> Events {
        self.0.poll()
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(self.0.pollee())
    }
}

struct Set(Epoll);

impl Watched for Set {
    fn poll(&self) -> Events {
        self.0.poll()
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(self.0.pollee())
    }

    fn as_epoll(&self) -> Option<&Epoll> {
        Some(&self.0)
    }
}

fn event() -> (Arc<Event>, Arc<dyn Watched>) {
    let event = Arc::new(Event(EventFd::new(0, false)));
    (event.clone(), event)
}

fn harvest(epoll: &Epoll) -> Vec<(u32, u64)> {
    let mut out = Vec::new();
    epoll
        .harvest(16, |events, data| {
            out.push((events & (IN | OUT), data));
            Ok(())
        })
        .unwrap();
    out
}

fn ask(events: u32) -> Interest {
    Interest { events, data: 5 }
}

#[test]
fn level_triggered_is_told_until_it_is_consumed() {
    let epoll = Epoll::new();
    let (event, target) = event();
    epoll.add(3, &target, ask(IN)).unwrap();
    assert_eq!(harvest(&epoll), []);
    event.0.add(1).unwrap();
    assert_eq!(harvest(&epoll), [(IN, 5)]);
    assert_eq!(harvest(&epoll), [(IN, 5)]);
    event.0.take().unwrap();
    assert_eq!(harvest(&epoll), []);
    assert_eq!(epoll.poll(), Events::empty());
}

#[test]
fn edge_triggered_is_told_once_for_each_event() {
    let epoll = Epoll::new();
    let (event, target) = event();
    event.0.add(1).unwrap();
    epoll.add(3, &target, ask(IN | EDGE)).unwrap();
    assert_eq!(harvest(&epoll), [(IN, 5)]);
    assert_eq!(harvest(&epoll), []);
    event.0.add(1).unwrap();
    assert_eq!(harvest(&epoll), [(IN, 5)]);
    epoll.modify(3, &target, ask(IN | EDGE)).unwrap();
    assert_eq!(harvest(&epoll), [(IN, 5)], "a change tells again");
}

#[test]
fn one_shot_is_spent_until_it_is_rearmed() {
    let epoll = Epoll::new();
    let (event, target) = event();
    epoll.add(3, &target, ask(IN | ONESHOT)).unwrap();
    event.0.add(1).unwrap();
    assert_eq!(harvest(&epoll), [(IN, 5)]);
    event.0.add(1).unwrap();
    assert_eq!(harvest(&epoll), []);
    epoll.modify(3, &target, ask(IN | ONESHOT)).unwrap();
    assert_eq!(harvest(&epoll), [(IN, 5)]);
}

#[test]
fn closing_and_deleting_take_entries_out() {
    let epoll = Epoll::new();
    let (event1, target1) = event();
    epoll.add(3, &target1, ask(IN)).unwrap();
    assert_eq!(epoll.add(3, &target1, ask(IN)), Err(Errno::EEXIST));
    event1.0.add(1).unwrap();
    drop((event1, target1));
    assert_eq!(harvest(&epoll), []);
    assert!(epoll.all().is_empty());
    let (event2, target2) = event();
    assert_eq!(epoll.modify(3, &target2, ask(IN)), Err(Errno::ENOENT));
    epoll.add(3, &target2, ask(IN)).unwrap();
    event2.0.add(1).unwrap();
    epoll.remove(3, &target2).unwrap();
    assert_eq!(harvest(&epoll), []);
    event2.0.add(1).unwrap();
    assert_eq!(harvest(&epoll), []);
    assert_eq!(epoll.remove(3, &target2), Err(Errno::ENOENT));
}

#[test]
fn sets_nest_but_not_in_a_circle() {
    let sets: Vec<Arc<Set>> = (0..7).map(|_| Arc::new(Set(Epoll::new()))).collect();
    let watched = |n: usize| -> Arc<dyn Watched> { sets[n].clone() };
    let (event, target) = event();
    sets[0].0.add(9, &target, ask(IN)).unwrap();
    for (n, set) in sets.iter().enumerate().take(5).skip(1) {
        set.0.add(9, &watched(n - 1), ask(IN)).unwrap();
    }
    assert_eq!(
        sets[5].0.add(9, &watched(4), ask(IN)),
        Err(Errno::ELOOP),
        "too deep"
    );
    assert_eq!(sets[0].0.add(8, &watched(0), ask(IN)), Err(Errno::ELOOP));
    assert_eq!(sets[0].0.add(8, &watched(2), ask(IN)), Err(Errno::ELOOP));
    assert_eq!(harvest(&sets[4].0), []);
    event.0.add(1).unwrap();
    assert_eq!(harvest(&sets[4].0), [(IN, 5)]);
}

#[test]
fn exclusive_has_its_rules() {
    let epoll = Epoll::new();
    let (_event, target) = event();
    assert_eq!(
        epoll.add(3, &target, ask(IN | EXCLUSIVE | ONESHOT)),
        Err(Errno::EINVAL)
    );
    epoll.add(3, &target, ask(IN | EXCLUSIVE)).unwrap();
    assert_eq!(epoll.modify(3, &target, ask(IN)), Err(Errno::EINVAL));
}

#[test]
fn a_sleeping_waiter_is_woken_and_no_event_is_lost() {
    let epoll = Arc::new(Epoll::new());
    let (event, target) = event();
    epoll.add(3, &target, ask(IN | EDGE)).unwrap();
    let rounds = 2000;
    let producer = thread::spawn({
        let event = event.clone();
        move || {
            for _ in 0..rounds {
                event.0.add(1).unwrap();
            }
        }
    });
    let mut taken = 0;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while taken < rounds {
        assert!(std::time::Instant::now() < deadline, "an event was lost");
        let soon = machine::time::now_ns() + 5_000_000_000;
        assert!(epoll.wait(Some(soon)).is_ok(), "no wake-up at {taken}");
        if !harvest(&epoll).is_empty() {
            taken += event.0.take().unwrap_or(0);
        }
    }
    producer.join().unwrap();
}

#[test]
fn a_failed_delivery_keeps_the_event() {
    let epoll = Epoll::new();
    let (event, target) = event();
    epoll.add(3, &target, ask(IN | EDGE)).unwrap();
    event.0.add(1).unwrap();
    assert_eq!(
        epoll.harvest(4, |_, _| Err(Errno::EFAULT)),
        Err(Errno::EFAULT)
    );
    assert_eq!(harvest(&epoll), [(IN, 5)]);
}
