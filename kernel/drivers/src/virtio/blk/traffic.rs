//! What a disk was asked to do so far.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::block::{Operation, SECTOR_SIZE, Segment, Traffic};

/// What it was asked to do. Shared by the CPUs: beside a request to a disk, this is nothing.
#[derive(Default)]
pub(super) struct Done {
    reads: AtomicU64,
    read_sectors: AtomicU64,
    writes: AtomicU64,
    written_sectors: AtomicU64,
    flushes: AtomicU64,
}

impl Done {
    pub(super) fn count(&self, op: Operation, segments: &[Segment]) {
        let bytes: u64 = segments.iter().map(|segment| u64::from(segment.len)).sum();
        let (requests, sectors) = match op {
            Operation::Read => (&self.reads, Some(&self.read_sectors)),
            Operation::Write => (&self.writes, Some(&self.written_sectors)),
            Operation::Flush => (&self.flushes, None),
            Operation::Discard { .. } | Operation::WriteZeroes { .. } => return,
        };
        requests.fetch_add(1, Relaxed);
        if let Some(sectors) = sectors {
            sectors.fetch_add(bytes / SECTOR_SIZE as u64, Relaxed);
        }
    }

    pub(super) fn sum(&self) -> Traffic {
        let bytes = |sectors: &AtomicU64| sectors.load(Relaxed) * SECTOR_SIZE as u64;
        Traffic {
            reads: self.reads.load(Relaxed),
            read_bytes: bytes(&self.read_sectors),
            writes: self.writes.load(Relaxed),
            written_bytes: bytes(&self.written_sectors),
            flushes: self.flushes.load(Relaxed),
        }
    }
}
