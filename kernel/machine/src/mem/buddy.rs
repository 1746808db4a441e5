//! The buddy allocator of physical frames: pure index arithmetic over the frame table, so it is tested on the host.
//!
//! A *block* of order `n` is `2^n` frames, aligned to its size. Memory is taken over in chunks of 4 MiB, when the chunks before
//! are used up: the table entries of memory that is not needed are never written.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};

/// The largest block is `2^MAX_ORDER` frames (128 MiB): a list that a program makes long, as that of its memory's areas, is one.
pub(crate) const MAX_ORDER: usize = 15;
/// Memory is taken over in blocks of this order (4 MiB).
const CHUNK_ORDER: usize = 10;
const CHUNK: u32 = 1 << CHUNK_ORDER;
const NONE: u32 = u32::MAX;

/// What a frame is used for; the value of [`FrameInfo::kind`].
pub(crate) mod kind {
    /// Not the allocator's, or inside a block whose first frame says what it is.
    pub const RESERVED: u8 = 0;
    /// First frame of a free block of `order`.
    pub const FREE: u8 = 1;
    /// First frame of an allocated block of `order`.
    pub const USED: u8 = 2;
    /// A page of small heap objects.
    pub const SLAB: u8 = 3;
}

/// One entry of the frame table.
#[repr(C)]
pub(crate) struct FrameInfo {
    /// Owners of a frame handle, or the slab's count of live objects.
    pub refs: AtomicU32,
    pub kind: AtomicU8,
    /// Order of a block, or size class of a slab page.
    pub order: AtomicU8,
    /// First free object of a slab page.
    pub free_slot: AtomicU16,
    pub next: AtomicU32,
    pub prev: AtomicU32,
}

impl FrameInfo {
    #[cfg(not(target_os = "none"))]
    pub(crate) const fn reserved() -> Self {
        Self {
            refs: AtomicU32::new(0),
            kind: AtomicU8::new(kind::RESERVED),
            order: AtomicU8::new(0),
            free_slot: AtomicU16::new(0),
            next: AtomicU32::new(NONE),
            prev: AtomicU32::new(NONE),
        }
    }

    fn reset(&self) {
        self.refs.store(0, Relaxed);
        self.kind.store(kind::RESERVED, Relaxed);
        self.order.store(0, Relaxed);
        self.next.store(NONE, Relaxed);
        self.prev.store(NONE, Relaxed);
    }
}

/// A half-open range of frame numbers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameRange {
    pub start: u32,
    pub end: u32,
}

/// How many separate ranges of usable memory are kept; firmware reports a handful.
pub(crate) const MAX_RANGES: usize = 32;

pub(crate) struct Buddy {
    table: &'static [FrameInfo],
    heads: [u32; MAX_ORDER + 1],
    free: usize,
    /// All memory, ascending; what is not used of this is empty.
    ranges: [FrameRange; MAX_RANGES],
    /// What lies before this frame was taken over.
    taken_upto: u32,
    /// How many frames lie behind it.
    virgin_frames: usize,
    total: usize,
}

impl Buddy {
    pub(crate) const fn empty() -> Self {
        Self {
            table: &[],
            heads: [NONE; MAX_ORDER + 1],
            free: 0,
            ranges: [FrameRange { start: 0, end: 0 }; MAX_RANGES],
            taken_upto: 0,
            virgin_frames: 0,
            total: 0,
        }
    }

    /// Hands over the frame table and the usable memory: ascending ranges that do not overlap.
    pub(crate) fn init(
        &mut self,
        table: &'static [FrameInfo],
        ranges: impl Iterator<Item = FrameRange>,
    ) {
        self.table = table;
        let limit = table.len() as u32;
        for (slot, range) in self.ranges.iter_mut().zip(ranges) {
            let range = FrameRange {
                start: range.start,
                end: range.end.min(limit),
            };
            if range.start < range.end {
                *slot = range;
                let frames = (range.end - range.start) as usize;
                self.virgin_frames += frames;
                self.total += frames;
            }
        }
    }

    /// Whether the chunk that begins with this frame was taken over: only then do the entries of its frames mean something.
    fn is_taken(&self, chunk: u32) -> bool {
        let end = chunk.saturating_add(CHUNK);
        let mut ranges = self.ranges.iter();
        chunk < self.taken_upto && ranges.any(|r| r.start < end && chunk < r.end)
    }

    pub(crate) fn free_frames(&self) -> usize {
        self.free + self.virgin_frames
    }

    pub(crate) fn total_frames(&self) -> usize {
        self.total
    }

    fn info(&self, frame: u32) -> &'static FrameInfo {
        &self.table[frame as usize]
    }

    fn push(&mut self, frame: u32, order: usize) {
        let info = self.info(frame);
        info.kind.store(kind::FREE, Relaxed);
        info.order.store(order as u8, Relaxed);
        info.prev.store(NONE, Relaxed);
        info.next.store(self.heads[order], Relaxed);
        if self.heads[order] != NONE {
            self.info(self.heads[order]).prev.store(frame, Relaxed);
        }
        self.heads[order] = frame;
    }

    fn remove(&mut self, frame: u32, order: usize) {
        let info = self.info(frame);
        let (prev, next) = (info.prev.load(Relaxed), info.next.load(Relaxed));
        if prev == NONE {
            self.heads[order] = next;
        } else {
            self.info(prev).next.store(next, Relaxed);
        }
        if next != NONE {
            self.info(next).prev.store(prev, Relaxed);
        }
        info.kind.store(kind::RESERVED, Relaxed);
    }

    /// Takes over the next chunk of memory. False when there is none left.
    fn grow(&mut self) -> bool {
        let mut left = self.ranges.iter().filter(|r| self.taken_upto < r.end);
        let Some(next) = left.next() else {
            return false;
        };
        let base = next.start.max(self.taken_upto) & !(CHUNK - 1);
        let end = base.saturating_add(CHUNK).min(self.table.len() as u32);
        for info in &self.table[base as usize..end as usize] {
            info.reset();
        }
        self.taken_upto = end;
        // Several ranges may reach into this chunk: its entries are reset once only.
        for range in self.ranges {
            let (start, upto) = (range.start.max(base), range.end.min(end));
            if start < upto {
                self.virgin_frames -= (upto - start) as usize;
                self.free_range(start, upto);
            }
        }
        true
    }

    /// Frees a range of frames of a chunk, as the largest aligned blocks that fit.
    fn free_range(&mut self, mut start: u32, end: u32) {
        while start < end {
            let align = (start.trailing_zeros() as usize).min(CHUNK_ORDER);
            let fit = (end - start).ilog2() as usize;
            let order = align.min(fit);
            self.release(start, order);
            start += 1 << order;
        }
    }

    /// A block of `2^order` frames, or `None` when no memory is left. Marks it [`kind::USED`] with one owner.
    pub(crate) fn alloc(&mut self, order: usize) -> Option<u32> {
        if order > MAX_ORDER {
            return None;
        }
        loop {
            if let Some(found) = (order..=MAX_ORDER).find(|&o| self.heads[o] != NONE) {
                let frame = self.heads[found];
                self.remove(frame, found);
                for smaller in (order..found).rev() {
                    self.push(frame + (1 << smaller), smaller);
                }
                self.free -= 1 << order;
                let info = self.info(frame);
                info.order.store(order as u8, Relaxed);
                info.refs.store(1, Relaxed);
                info.kind.store(kind::USED, Relaxed);
                return Some(frame);
            }
            if !self.grow() {
                return None;
            }
        }
    }

    /// Gives a block back. It must come from [`Buddy::alloc`] with this order (or be an aligned part of one).
    pub(crate) fn release(&mut self, mut frame: u32, mut order: usize) {
        self.free += 1 << order;
        self.info(frame).kind.store(kind::RESERVED, Relaxed);
        while order < MAX_ORDER {
            let buddy = frame ^ (1 << order);
            if order >= CHUNK_ORDER && !self.is_taken(buddy) {
                break;
            }
            let Some(info) = self.table.get(buddy as usize) else {
                break;
            };
            if info.kind.load(Relaxed) != kind::FREE || info.order.load(Relaxed) as usize != order {
                break;
            }
            self.remove(buddy, order);
            frame &= !(1 << order);
            order += 1;
        }
        self.push(frame, order);
    }

    /// Free blocks by order, for statistics.
    pub(crate) fn free_blocks(&self) -> Vec<usize> {
        self.heads
            .iter()
            .map(|&head| {
                let mut n = 0;
                let mut at = head;
                while at != NONE {
                    n += 1;
                    at = self.info(at).next.load(Relaxed);
                }
                n
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buddy(frames: usize, ranges: &[(u32, u32)]) -> Buddy {
        let table: Vec<FrameInfo> = (0..frames).map(|_| FrameInfo::reserved()).collect();
        let mut buddy = Buddy::empty();
        buddy.init(
            Vec::leak(table),
            ranges.iter().map(|&(start, end)| FrameRange { start, end }),
        );
        buddy
    }

    #[test]
    fn all_memory_can_be_taken_and_merges_again() {
        let mut b = buddy(5000, &[(3, 700), (900, 5000)]);
        let total = b.free_frames();
        assert_eq!(total, 697 + 4100);
        let mut seen = vec![false; 5000];
        let mut taken = Vec::new();
        while let Some(frame) = b.alloc(0) {
            assert!(!seen[frame as usize]);
            assert!((3..700).contains(&frame) || (900..5000).contains(&frame));
            seen[frame as usize] = true;
            taken.push(frame);
        }
        assert_eq!(taken.len(), total);
        assert_eq!(b.free_frames(), 0);
        for frame in taken {
            b.release(frame, 0);
        }
        assert_eq!(b.free_frames(), total);
        // Whole chunks have merged: 1024..2048, 2048..4096, 4096..5000.
        assert_eq!(b.free_blocks()[CHUNK_ORDER], 1);
        assert_eq!(b.free_blocks()[CHUNK_ORDER + 1], 1);
        assert_eq!(b.free_blocks()[CHUNK_ORDER + 2..], [0; 4]);
    }

    #[test]
    fn blocks_of_several_chunks_are_made_and_come_apart_again() {
        const FRAMES: u32 = 3 << MAX_ORDER;
        // With a hole, whose entries nobody writes.
        let hole = 70_000..80_000;
        let mut b = buddy(FRAMES as usize, &[(0, hole.start), (hole.end, FRAMES)]);
        for entry in &b.table[71 * 1024..78 * 1024] {
            entry.kind.store(kind::FREE, Relaxed);
            entry.order.store(CHUNK_ORDER as u8, Relaxed);
        }
        let total = b.free_frames();
        let mut taken = Vec::new();
        for order in (CHUNK_ORDER..=MAX_ORDER).rev() {
            while let Some(frame) = b.alloc(order) {
                assert_eq!(frame % (1 << order), 0);
                assert!(frame + (1 << order) <= hole.start || hole.end <= frame);
                taken.push((frame, order));
            }
        }
        // 0..65536 are two of the largest, and the third is cut by the hole.
        assert_eq!(
            taken
                .iter()
                .filter(|(_, order)| *order == MAX_ORDER)
                .count(),
            2
        );
        for (frame, order) in taken {
            // As parts of them.
            b.release(frame, order - 1);
            b.release(frame + (1 << (order - 1)), order - 1);
        }
        assert_eq!(b.free_frames(), total);
        assert_eq!(b.free_blocks()[MAX_ORDER], 2);
    }

    #[test]
    fn mixed_orders_never_overlap() {
        let mut b = buddy(4096, &[(1, 4096)]);
        let total = b.free_frames();
        let mut owner = vec![0u32; 4096];
        let mut live: Vec<(u32, usize)> = Vec::new();
        let mut seed = 12345u64;
        for step in 1..20_000u32 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let r = (seed >> 33) as usize;
            if !r.is_multiple_of(3) || live.is_empty() {
                let order = r / 3 % 6;
                if let Some(frame) = b.alloc(order) {
                    assert_eq!(frame % (1 << order), 0);
                    for f in frame..frame + (1 << order) {
                        assert_eq!(owner[f as usize], 0);
                        owner[f as usize] = step;
                    }
                    live.push((frame, order));
                }
            } else {
                let (frame, order) = live.swap_remove(r / 3 % live.len());
                owner[frame as usize..][..1 << order].fill(0);
                b.release(frame, order);
            }
            let used: usize = live.iter().map(|(_, o)| 1usize << o).sum();
            assert_eq!(b.free_frames(), total - used);
        }
    }

    #[test]
    fn memory_is_taken_over_lazily() {
        let mut b = buddy(100_000, &[(0, 100_000)]);
        b.table[50_000].kind.store(99, Relaxed);
        b.alloc(0).unwrap();
        assert_eq!(b.table[50_000].kind.load(Relaxed), 99);
        // Of a block of two chunks, only these are.
        b.alloc(CHUNK_ORDER + 1).unwrap();
        assert_eq!(b.table[50_000].kind.load(Relaxed), 99);
        assert!(b.alloc(MAX_ORDER + 1).is_none());
    }
}
