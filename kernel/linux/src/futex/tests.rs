//! Waiting and waking on the hosted backend, with a page that the threads share.
use std::sync::atomic::{AtomicUsize, Ordering as O};
use std::time::{Duration, Instant};

use machine::mem::Frame;
use machine::vm::{PageTable, Prot};

use super::pi::WAITERS;
use super::*;

const WORD: usize = 0x40_0000;

fn memory() -> PageTable {
    let table = PageTable::new().unwrap();
    table
        .map(WORD, Frame::alloc_zeroed().unwrap(), Prot::RW)
        .unwrap();
    table.activate();
    table
}

fn key(addr: usize) -> Key {
    Key {
        object: 0,
        place: addr as u64,
    }
}

fn wait_until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < end, "timed out");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn start(memory: &PageTable, work: impl FnOnce() + Send + 'static) -> Arc<sched::Thread> {
    let memory = memory.clone();
    sched::spawn(sched::SpawnOptions::named("waiter"), move || {
        memory.activate();
        work();
    })
    .unwrap()
}

#[test]
fn a_changed_word_and_a_deadline_end_the_wait() {
    let _memory = memory();
    let table = FutexTable::new();
    assert_eq!(
        table.wait(key(WORD), WORD, 1, BITSET_ANY, None),
        Err(WaitError::Changed)
    );
    let soon = machine::time::now_ns() + 5_000_000;
    assert_eq!(
        table.wait(key(WORD), WORD, 0, BITSET_ANY, Some(soon)),
        Err(WaitError::TimedOut)
    );
    assert_eq!(
        table.wait(key(8), 8, 0, BITSET_ANY, None),
        Err(WaitError::Fault)
    );
    assert_eq!(table.waiting(key(WORD)), 0);
}

#[test]
fn wakes_count_and_choose_by_bits() {
    let memory = memory();
    let table = Arc::new(FutexTable::new());
    let done = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    for bit in [1, 2, 2] {
        let (table, done) = (table.clone(), done.clone());
        threads.push(start(&memory, move || {
            assert_eq!(table.wait(key(WORD), WORD, 0, bit, None), Ok(()));
            done.fetch_add(1, O::SeqCst);
        }));
    }
    wait_until(|| table.waiting(key(WORD)) == 3);
    assert_eq!(table.wake(key(WORD), 10, 4), 0);
    assert_eq!(table.wake(key(WORD), 1, 2), 1);
    assert_eq!(table.wake(key(WORD), 10, 1), 1);
    wait_until(|| done.load(O::SeqCst) == 2);
    assert_eq!(table.wake(key(WORD), usize::MAX, BITSET_ANY), 1);
    for thread in threads {
        thread.join();
    }
    assert_eq!(done.load(O::SeqCst), 3);
}

#[test]
fn requeued_waiters_wait_for_the_other_word() {
    let memory = memory();
    let table = Arc::new(FutexTable::new());
    let mut threads = Vec::new();
    for _ in 0..4 {
        let table = table.clone();
        threads.push(start(&memory, move || {
            assert_eq!(table.wait(key(WORD), WORD, 0, BITSET_ANY, None), Ok(()));
        }));
    }
    wait_until(|| table.waiting(key(WORD)) == 4);
    assert_eq!(table.requeue(key(WORD), key(WORD + 4), 1, 2), (1, 2));
    assert_eq!(table.waiting(key(WORD)), 1);
    assert_eq!(table.wake(key(WORD + 4), 10, BITSET_ANY), 2);
    assert_eq!(table.wake(key(WORD), 10, BITSET_ANY), 1);
    for thread in threads {
        thread.join();
    }
}

#[test]
fn no_wake_is_lost_between_many_threads() {
    let memory = memory();
    let table = Arc::new(FutexTable::new());
    let rounds = 300;
    // Two threads hand a token to each other through the word.
    let players: Vec<_> = (0..2u32)
        .map(|me| {
            let table = table.clone();
            start(&memory, move || {
                for _ in 0..rounds {
                    loop {
                        let now = user::load_u32(WORD).unwrap();
                        if now == me {
                            break;
                        }
                        let _ = table.wait(key(WORD), WORD, now, BITSET_ANY, None);
                    }
                    user::cmpxchg_u32(WORD, me, 1 - me).unwrap().unwrap();
                    table.wake(key(WORD), 1, BITSET_ANY);
                }
            })
        })
        .collect();
    for player in players {
        player.join();
    }
    assert_eq!(user::load_u32(WORD), Ok(0));
}

#[test]
fn an_owned_lock_is_handed_over() {
    let memory = memory();
    let table = Arc::new(FutexTable::new());
    let alive = |_| true;
    table
        .lock_pi(key(WORD), WORD, 7, false, None, alive)
        .unwrap();
    assert_eq!(
        table.lock_pi(key(WORD), WORD, 7, false, None, alive),
        Err(Errno::EDEADLK)
    );
    assert_eq!(
        table.lock_pi(key(WORD), WORD, 8, true, None, alive),
        Err(Errno::EAGAIN)
    );
    assert_eq!(
        table.lock_pi(key(WORD), WORD, 8, false, None, |_| false),
        Err(Errno::ESRCH)
    );
    let other = {
        let table = table.clone();
        start(&memory, move || {
            table
                .lock_pi(key(WORD), WORD, 8, false, None, |_| true)
                .unwrap()
        })
    };
    wait_until(|| table.waiting(key(WORD)) == 1);
    assert_eq!(user::load_u32(WORD).unwrap(), 7 | WAITERS);
    assert_eq!(table.unlock_pi(key(WORD), WORD, 9), Err(Errno::EPERM));
    table.unlock_pi(key(WORD), WORD, 7).unwrap();
    other.join();
    assert_eq!(user::load_u32(WORD).unwrap() & pi::TID_MASK, 8);
    table.unlock_pi(key(WORD), WORD, 8).unwrap();
    assert_eq!(user::load_u32(WORD), Ok(0));
}

#[test]
fn wake_op_does_what_the_manual_says() {
    // FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_GT, 1)
    let op = WakeOp::decode(1 << 28 | 4 << 24 | 1 << 12 | 1).unwrap();
    assert_eq!(op.apply(5), 6);
    assert!(op.holds(2) && !op.holds(1));
    // FUTEX_OP_OR with a shifted argument, compared with -1.
    let op = WakeOp::decode((8 | 2) << 28 | 4 << 12 | 0xfff).unwrap();
    assert_eq!(op.apply(1), 17);
    assert!(op.holds(u32::MAX));
    assert_eq!(WakeOp::decode(7 << 28), Err(Errno::ENOSYS));
}
