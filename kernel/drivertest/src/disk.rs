//! A disk: its end is overwritten and read back, synchronously and by callbacks.

use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use drivers::{
    IoError,
    block::{BlockDevice, Operation, Request, SECTOR_SIZE, SECTORS_PER_PAGE, Segment},
};
use machine::{mem::Frame, println, time::now_ns};
use sched::WaitQueue;

pub fn test(disk: &Arc<dyn BlockDevice>, load: bool) {
    let sectors = disk.sector_count();
    println!(
        "disk: {sectors} sectors, read-only {}, serial {:?}, {:?}",
        disk.read_only(),
        disk.serial(),
        disk.limits()
    );
    match drivers::block::gpt(disk) {
        Ok(list) => list
            .iter()
            .for_each(|partition| println!("  {partition:?}")),
        Err(error) => println!("  {error}"),
    }
    let mut first = vec![0; 3 * SECTOR_SIZE];
    assert_eq!(disk.read(0, &mut first), Ok(()));
    assert_eq!(disk.read(sectors, &mut first), Err(IoError::OutOfRange));
    if disk.read_only() {
        assert_eq!(disk.write(0, &first), Err(IoError::ReadOnly));
        return;
    }
    let at = sectors - 1024;
    let data: Vec<u8> = (0..200 * SECTOR_SIZE)
        .map(|i| ((i * 7) >> 3) as u8)
        .collect();
    assert_eq!(disk.write(at, &data), Ok(()));
    assert_eq!(disk.flush(), Ok(()));
    let mut back = vec![0; data.len()];
    assert_eq!(disk.read(at, &mut back), Ok(()));
    assert!(back == data);
    match disk.write_zeroes(at + 1, 8, false) {
        Ok(()) => {
            assert_eq!(disk.read(at, &mut back), Ok(()));
            assert!(back[..512] == data[..512] && back[512..9 * 512].iter().all(|&b| b == 0));
            assert_eq!(disk.discard(at, 64), Ok(()));
        }
        Err(error) => println!("  write-zeroes: {error}"),
    }
    callbacks(disk, at, 300, 16);
    threads(disk, at);
    println!("  ok");
    if load {
        measure(disk, at);
    }
}

struct Counter {
    left: AtomicU64,
    done: WaitQueue,
}

/// `count` reads of a page each, at most all at once, with callbacks.
fn callbacks(disk: &Arc<dyn BlockDevice>, at: u64, count: u64, pages: u64) {
    let counter = Arc::new(Counter {
        left: AtomicU64::new(count),
        done: WaitQueue::new(),
    });
    let requests = (0..count).map(|i| {
        let counter = counter.clone();
        Request {
            op: Operation::Read,
            sector: at + i % pages * SECTORS_PER_PAGE,
            segments: Frame::alloc().map(Segment::page).into_iter().collect(),
            done: Box::new(move |outcome| {
                assert_eq!(outcome, Ok(()));
                if counter.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    counter.done.wake_all();
                }
            }),
        }
    });
    disk.submit_all(&mut requests.into_iter());
    counter
        .done
        .wait(|| (counter.left.load(Ordering::Acquire) == 0).then_some(()));
}

/// Threads on all CPUs write and read back, each in sectors of its own, while callbacks come in between.
fn threads(disk: &Arc<dyn BlockDevice>, at: u64) {
    const THREADS: u64 = 8;
    const SECTORS: u64 = 96;
    let workers: Vec<_> = (0..THREADS)
        .filter_map(|number| {
            let disk = disk.clone();
            let work = move || {
                let first = at + number * SECTORS;
                for round in 0..30u64 {
                    let len = ((round * 7 + number) % 20 + 1) as usize * SECTOR_SIZE;
                    let sector = first + (round * 11 + number) % 70;
                    let data: Vec<u8> = (0..len as u64)
                        .map(|i| (i * 3 + round * 5 + number * 17) as u8)
                        .collect();
                    assert_eq!(disk.write(sector, &data), Ok(()));
                    let mut back = vec![0; len];
                    assert_eq!(disk.read(sector, &mut back), Ok(()));
                    assert!(back == data, "thread {number}, round {round}");
                    if round % 10 == 9 {
                        callbacks(&disk, first, 20, 4);
                    }
                }
            };
            sched::spawn(sched::SpawnOptions::named("disk"), work).ok()
        })
        .collect();
    assert_eq!(workers.len() as u64, THREADS);
    workers.iter().for_each(|worker| worker.join());
}

fn measure(disk: &Arc<dyn BlockDevice>, at: u64) {
    let frames: Vec<Frame> = (0..32).filter_map(|_| Frame::alloc().ok()).collect();
    for (name, pages) in [("4 KiB", 1usize), ("128 KiB", 32)] {
        let start = now_ns();
        let rounds = 300;
        for _ in 0..rounds {
            assert_eq!(disk.read_frames(at, &frames[..pages]), Ok(()));
        }
        println!("  read {name}: {} ns each", (now_ns() - start) / rounds);
    }
    let start = now_ns();
    callbacks(disk, at, 2000, 16);
    println!(
        "  2000 reads of 4 KiB at once: {} ns each",
        (now_ns() - start) / 2000
    );
}
