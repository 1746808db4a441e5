//! What watching costs, and that what nobody watches costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use store::watch::Snapshot;
use store::{Branch, Leaf, Path, Store, Value};

/// Ten threads with ten values each, made when they are listed as the kernel does, and a value that counts its readers.
fn store(clock: &Arc<AtomicU64>, read: &Arc<AtomicU64>) -> Store {
    let (clock, read) = (clock.clone(), read.clone());
    let thread = move |name: &str| {
        let number: u64 = name.parse().ok()?;
        let branch =
            Branch::new("A thread.").with("name", Leaf::text(|| "worker").help("Its name."));
        Some((1..10).fold(branch, |branch, n| {
            let value = number * n + clock.load(Relaxed);
            let leaf = Leaf::fixed(Value::Duration(value)).counter().help("Time.");
            branch.with(format!("value_{n}_ns"), leaf)
        }))
    };
    let names = || (1..=10).map(|n| n.to_string()).collect();
    let unwatched = Leaf::count(move || read.fetch_add(1, Relaxed));
    Store::unshared(
        Branch::new("All.")
            .with(
                "threads",
                Branch::new("Threads.").listed("thread", names, thread),
            )
            .with("unwatched", unwatched),
    )
}

#[test]
fn a_hundred_values_a_second_cost_less_than_a_hundredth_of_a_cpu() {
    let (clock, read) = (Arc::default(), Arc::default());
    let store = store(&clock, &read);
    let path = Path::parse("/threads").unwrap();
    let mut before = Snapshot::take(&store, &path, 2).unwrap();
    assert_eq!(before.values().len(), 100);
    let mut best = Duration::MAX;
    for _ in 0..50 {
        clock.fetch_add(1, Relaxed);
        let start = Instant::now();
        let now = Snapshot::take(&store, &path, 2).unwrap();
        let mut frame = String::new();
        now.since(&before).write_json(&mut frame).unwrap();
        best = best.min(start.elapsed());
        assert_eq!(frame.matches("_ns\"").count(), 90, "{frame}");
        before = now;
    }
    println!("a refresh of 100 values takes {best:?}");
    // A hundredth of the second. It takes some 100 µs, unoptimised.
    assert!(best < Duration::from_millis(10), "{best:?}");
    assert_eq!(read.load(Relaxed), 0, "what nobody watches is not read");
}
