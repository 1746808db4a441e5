//! What takes more than one CPU. With one, these tests have nothing to do.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use machine::context::{Trap, UserContext};
use machine::cpu::{self, Ipi, MAX_CPUS, PerCpu};
use machine::sync::IrqLock;
use machine::task::{self, Task};
use machine::{mem, time};

use crate::program;

/// What each CPU is to run next.
static WORK: PerCpu<IrqLock<VecDeque<Arc<Task>>>> =
    PerCpu::new([const { IrqLock::new(VecDeque::new()) }; MAX_CPUS]);

fn idle() -> ! {
    *HOME.get().lock() = Some(task::current());
    cpu::enable_interrupts();
    loop {
        let work = cpu::without_interrupts(|| {
            let work = WORK.get().lock().pop_front();
            if work.is_none() {
                cpu::halt();
            }
            work
        });
        if let Some(task) = work {
            task::switch_to(&task);
        }
    }
}

fn give(cpu: usize, task: Arc<Task>) {
    WORK.on(cpu).lock().push_back(task);
    cpu::send_ipi(cpu, Ipi::Reschedule);
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let limit = time::now_ns() + 10_000_000_000;
    while !until() {
        assert!(time::now_ns() < limit, "{what}");
        cpu::relax();
    }
}

pub fn start() {
    let start = time::now_ns();
    machine::smp::start(idle);
    wait("a CPU did not start", || {
        (0..cpu::count()).all(cpu::is_online)
    });
    machine::println!(
        "  {} up after {} us",
        cpu::count(),
        (time::now_ns() - start) / 1000
    );
}

/// The task that each CPU idles in.
static HOME: PerCpu<IrqLock<Option<Arc<Task>>>> =
    PerCpu::new([const { IrqLock::new(None) }; MAX_CPUS]);

fn home() -> Arc<Task> {
    HOME.get()
        .lock()
        .clone()
        .unwrap_or_else(|| panic!("no way home"))
}

/// A task for another CPU: ends when `work` is done.
fn errand(work: impl FnOnce() + Send + 'static) -> Arc<Task> {
    super::tasks::spawn(move || {
        work();
        task::exit_to(home())
    })
}

pub fn migrate() {
    static HOPS: AtomicUsize = AtomicUsize::new(0);
    let count = cpu::count();
    if count < 2 {
        return;
    }
    const EACH: usize = 500;
    for _ in 0..2 * count {
        give(
            1,
            errand(move || {
                for _ in 0..EACH {
                    let next = 1 + cpu::id() % (count - 1);
                    HOPS.fetch_add(1, Ordering::Relaxed);
                    // The other CPU may take it before this one has left it.
                    give(next, task::current());
                    task::switch_to(&home());
                }
            }),
        );
    }
    wait("tasks stopped hopping", || {
        HOPS.load(Ordering::Relaxed) == EACH * 2 * count
    });
}

pub fn shootdown() {
    static TRAPPED: AtomicUsize = AtomicUsize::new(0);
    const PAGE: usize = 0x6000_0000;
    for cpu in 1..cpu::count() {
        let page = PAGE + cpu * 0x1000;
        let frame = mem::Frame::alloc_zeroed().unwrap_or_else(|_| panic!("no frame"));
        assert_eq!(
            program::space().map(page, frame, machine::vm::Prot::RW),
            Ok(())
        );
        give(
            cpu,
            errand(move || {
                program::space().activate();
                let mut context = UserContext::new();
                context.regs.rip = program::COUNT_FOREVER as u64;
                context.regs.rdi = page as u64;
                let trap = program::run(&mut context);
                assert!(
                    matches!(trap, Trap::Exception { vector: 14, error: 7, addr } if addr == page),
                    "{trap:?}"
                );
                TRAPPED.fetch_add(1, Ordering::Release);
            }),
        );
    }
    let read = |page| machine::user::read_u64(page).unwrap_or_else(|_| panic!("a page has gone"));
    for cpu in 1..cpu::count() {
        let page = PAGE + cpu * 0x1000;
        wait("a program does not count", || read(page) > 10);
        let start = time::now_ns();
        program::space().protect(page..page + 0x1000, machine::vm::Prot::R);
        let took = time::now_ns() - start;
        let stopped = read(page);
        wait("a program was not stopped", || {
            TRAPPED.load(Ordering::Acquire) == cpu
        });
        assert_eq!(
            read(page),
            stopped,
            "a program wrote after the page was protected"
        );
        machine::println!("  protect took {} us", took / 1000);
        let mut taken = 0;
        program::space().unmap(page..page + 0x1000, &mut |_, frame, dirty| {
            assert!(dirty && frame.ref_count() == 1);
            taken += 1;
        });
        assert_eq!(taken, 1);
    }
}

pub fn heap() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    static EXCHANGE: IrqLock<Vec<Vec<u8>>> = IrqLock::new(Vec::new());
    static FAILED: AtomicBool = AtomicBool::new(false);
    let work = move |cpu: usize| {
        for i in 0..3000usize {
            let size = (i * 7 + cpu * 131) % 3000;
            let object = alloc::vec![size as u8; size];
            EXCHANGE.lock().push(object);
            let other = if i % 3 == 0 {
                None
            } else {
                EXCHANGE.lock().pop()
            };
            if other.is_some_and(|o| o.iter().any(|&b| b != o.len() as u8)) {
                FAILED.store(true, Ordering::Relaxed);
            }
        }
        DONE.fetch_add(1, Ordering::Release);
    };
    for cpu in 1..cpu::count() {
        give(cpu, errand(move || work(cpu)));
    }
    work(0);
    wait("heap test hangs", || {
        DONE.load(Ordering::Acquire) == cpu::count()
    });
    EXCHANGE.lock().clear();
    assert!(!FAILED.load(Ordering::Relaxed), "heap objects overwritten");
}
