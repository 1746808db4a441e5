//! Tasks on one CPU, and its timer.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use machine::task::{self, STACK_SIZE, Task};
use machine::{cpu, irq, time};

pub fn spawn(entry: impl FnOnce() + Send + 'static) -> Arc<Task> {
    Task::new(STACK_SIZE, Box::new(entry)).unwrap_or_else(|_| panic!("no memory for a task"))
}

pub fn ping_pong() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    const ROUNDS: usize = 10_000;
    let dropped = Arc::new(());
    let home = task::current();
    let other = spawn({
        let (home, dropped) = (home.clone(), dropped.clone());
        move || {
            for _ in 0..ROUNDS {
                COUNT.fetch_add(1, Ordering::Relaxed);
                task::switch_to(&home);
            }
            drop(dropped);
            task::exit_to(home)
        }
    });
    let start = time::now_ns();
    for _ in 0..=ROUNDS {
        task::switch_to(&other);
    }
    let each = (time::now_ns() - start) / (2 * ROUNDS as u64);
    assert_eq!(COUNT.load(Ordering::Relaxed), ROUNDS);
    assert_eq!(Arc::strong_count(&dropped), 1);
    assert_eq!(Arc::strong_count(&other), 1, "an ended task is still owned");
    machine::println!("  {each} ns a switch");
    // A hundred tasks, never started or ended, leave no frames behind.
    drop(other);
    let before = machine::mem::stats();
    for _ in 0..100 {
        drop(spawn(|| ()));
    }
    assert!(machine::mem::stats().free + 16 >= before.free);
}

pub static EXPIRED_AT: AtomicU64 = AtomicU64::new(0);

pub fn timer() {
    time::timer::set_handler(|| {
        EXPIRED_AT.store(time::now_ns(), Ordering::Release);
        cpu::kick_self();
    });
    for ms in [1, 5, 20] {
        EXPIRED_AT.store(0, Ordering::Release);
        let start = time::now_ns();
        time::timer::arm(start + ms * 1_000_000);
        loop {
            let done = irq::disabled(|| EXPIRED_AT.load(Ordering::Acquire) != 0);
            if done {
                break;
            }
            cpu::without_interrupts(cpu::halt);
        }
        let took = EXPIRED_AT.load(Ordering::Acquire) - start;
        machine::println!(
            "  asked for {ms} ms, took {} us; TSC {} kHz",
            took / 1000,
            time::tsc_khz()
        );
        // The first calibration, taken on a host that is busy, may be wrong by a percent or two, and a better one in between
        // shows it. What `sched` wakes looks at the clock again.
        let early = 200_000 + ms * 1_000_000 / 50;
        assert!(took + early >= ms * 1_000_000, "a timer expired early");
        assert!(took < ms * 1_000_000 + 500_000_000, "a timer expired late");
    }
}

/// Runs over the end of its stack: the guard page turns that into a report.
pub fn overflow(depth: u64) -> u64 {
    let other = spawn(|| {
        fn deeper(depth: u64) -> u64 {
            let room = core::hint::black_box([depth; 64]);
            if depth == 0 {
                0
            } else {
                deeper(depth + 1) + room[(depth % 64) as usize]
            }
        }
        machine::println!("{}", deeper(1));
    });
    task::switch_to(&other);
    depth
}
