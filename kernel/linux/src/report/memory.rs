//! What `/memory` says of the program's address space.
use core::sync::atomic::Ordering;

use store::{Branch, Leaf};

use super::with_process;
use crate::mm::report::Totals;

fn totals() -> Totals {
    with_process(|process| process.mm.totals())
}

fn faults(n: usize) -> u64 {
    with_process(|process| {
        let threads = process.threads();
        threads
            .iter()
            .map(|thread| thread.faults[n].load(Ordering::Relaxed))
            .sum()
    })
}

/// Adds the program's part to `/memory`.
pub fn add(memory: Branch) -> Branch {
    memory
        .with(
            "resident",
            Leaf::size(|| totals().resident)
                .help("Pages that the program's address space maps, those of files included."),
        )
        .with(
            "peak_resident",
            Leaf::size(|| {
                with_process(|process| process.mm.peak_resident_bytes()).max(totals().resident)
            })
            .help("The most that was ever resident."),
        )
        .with(
            "virtual",
            Leaf::size(|| totals().size).help("Addresses that the program has mapped."),
        )
        .with(
            "vma_count",
            Leaf::gauge(|| with_process(|process| process.mm.area_count() as u64))
                .metric("areas")
                .unit("areas")
                .help("Areas of the program's address space."),
        )
        .with(
            "minor_faults",
            Leaf::gauge(|| faults(0))
                .unit("faults")
                .help("Page faults of living threads that needed no disk."),
        )
        .with(
            "major_faults",
            Leaf::gauge(|| faults(1))
                .unit("faults")
                .help("Page faults of living threads that waited for the disk."),
        )
}
