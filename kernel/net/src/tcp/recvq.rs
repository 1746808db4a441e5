//! The bytes a connection has received: those in order, which the program may read, and those beyond a
//! gap. Payload stays in the memory it arrived in until it is read, unless that wastes too much.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::pkt::{
    Payload, RxData, payload_advance, payload_footprint, payload_len, payload_truncate,
};
use crate::seq;
use crate::stats::Counter;

/// Memory kept beyond the payload before small payloads are copied together.
const SLACK: usize = 16 * 1024;
/// Size of chunks small payloads are gathered in.
const DENSE: usize = 4096;
/// More runs than this are kept only if they are not slivers: a hostile peer gets no more of our time.
const RUNS: usize = 1024;
/// Bytes a run has to have on average then.
const SLIVER: usize = 256;

/// A run beyond a gap.
struct Run {
    seq: u32,
    end: u32,
    data: Payload,
    /// When the last of it arrived.
    at: u64,
}

/// More arrival times than this are not kept apart: neighbours share the later one.
const STAMPS: usize = 1024;

/// When the bytes that wait to be read arrived (`SO_TIMESTAMP`).
#[derive(Default)]
struct Stamps {
    /// Bytes ever queued.
    queued: u64,
    /// Ends in that count, and when what lies before them arrived.
    ends: VecDeque<(u64, u64)>,
}

#[derive(Default)]
pub(crate) struct RecvQueue {
    ready: VecDeque<RxData>,
    ready_len: usize,
    /// Sorted, without overlap.
    runs: VecDeque<Run>,
    runs_len: usize,
    /// Memory of all of it.
    footprint: usize,
    /// Ranges told to the peer, newest first (RFC 2018 §4).
    recent: [(u32, u32); 4],
    recent_count: usize,
    /// Kept only for a socket that asked for it.
    stamps: Option<Box<Stamps>>,
}

/// Bytes that came a second time: the first contiguous range of them in what a segment brought, which is the one that a
/// receiver reports (RFC 2883 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Twice(pub Option<(u32, u32)>);

impl Twice {
    /// `start..end` was there already; ranges are told of in order.
    fn note(&mut self, start: u32, end: u32) {
        match &mut self.0 {
            None => self.0 = Some((start, end)),
            Some(range) if range.1 == start => range.1 = end,
            Some(_) => {}
        }
    }
}

impl RecvQueue {
    /// Bytes to read.
    pub fn len(&self) -> usize {
        self.ready_len
    }

    /// Bytes beyond gaps.
    pub fn beyond(&self) -> usize {
        self.runs_len
    }

    pub fn footprint(&self) -> usize {
        self.footprint
    }

    /// Appends the next bytes in order, which arrived `at`; counts when small ones were put into what was there.
    pub fn push(&mut self, payload: Payload, at: u64, coalesced: &Counter) {
        let before = self.ready_len;
        for part in payload {
            self.push_part(part, coalesced);
        }
        if let Some(stamps) = &mut self.stamps {
            stamps.queued += (self.ready_len - before) as u64;
            let full = stamps.ends.len() >= STAMPS;
            match stamps.ends.back_mut() {
                Some(last) if full || last.1 == at => *last = (stamps.queued, at.max(last.1)),
                _ => stamps.ends.push_back((stamps.queued, at)),
            }
        }
    }

    /// From now on the times of arrival are kept, or no more.
    pub fn keep_times(&mut self, on: bool) {
        if !on {
            self.stamps = None;
        } else if self.stamps.is_none() {
            self.stamps = Some(Box::new(Stamps {
                queued: self.ready_len as u64,
                ends: VecDeque::new(),
            }));
        }
    }

    /// When the byte `offset` behind the first that waits arrived; negative for those just read. `None` when times are
    /// not kept, or were not when it came.
    pub fn arrived(&self, offset: isize) -> Option<u64> {
        let stamps = self.stamps.as_ref()?;
        let front = stamps.queued.checked_sub(self.ready_len as u64)?;
        let byte = front.checked_add_signed(offset as i64)?;
        let at = stamps.ends.partition_point(|(end, _)| *end <= byte);
        stamps.ends.get(at).map(|(_, at)| *at)
    }

    /// Forgets when what was read arrived.
    pub fn forget_times(&mut self) {
        if let Some(stamps) = &mut self.stamps {
            let front = stamps.queued.saturating_sub(self.ready_len as u64);
            while stamps.ends.front().is_some_and(|(end, _)| *end <= front) {
                stamps.ends.pop_front();
            }
        }
    }

    fn push_part(&mut self, part: RxData, coalesced: &Counter) {
        let len = part.len();
        if len == 0 {
            return;
        }
        let cost = part.footprint();
        let waste = (self.footprint + cost).saturating_sub(self.ready_len + self.runs_len + len);
        self.ready_len += len;
        if waste <= SLACK || cost < 2 * len {
            self.footprint += cost;
            self.ready.push_back(part);
            return;
        }
        part.with(|mut run| {
            while !run.is_empty() {
                match self.ready.back_mut() {
                    Some(RxData::Dense(bytes, _)) if bytes.capacity() > bytes.len() => {
                        let n = run.len().min(bytes.capacity() - bytes.len());
                        if run.len() == len {
                            coalesced.bump();
                        }
                        bytes.extend_from_slice(&run[..n]);
                        run = &run[n..];
                    }
                    _ => {
                        let fresh = RxData::Dense(Vec::with_capacity(DENSE), 0);
                        self.footprint += fresh.footprint();
                        self.ready.push_back(fresh);
                    }
                }
            }
        });
    }

    /// Keeps what is new of a payload that starts at `start`, beyond a gap. Returns what of it was there, and how many
    /// segments became superfluous: those here that it covers whole, or itself.
    pub fn insert(&mut self, mut start: u32, mut payload: Payload, now: u64) -> (Twice, u64) {
        if self.runs.len() >= RUNS && self.runs_len / self.runs.len() < SLIVER {
            // The peer still has all of it.
            self.prune();
        }
        let len = payload_len(&payload) as u32;
        let mut end = start.wrapping_add(len);
        let (first_start, first_end) = (start, end);
        // The first run that ends after our start.
        let mut at = self.runs.partition_point(|run| seq::le(run.end, start));
        let mut kept = false;
        let mut covered = 0;
        let mut twice = Twice::default();
        while seq::lt(start, end) {
            match self.runs.get(at) {
                Some(run) if seq::le(run.seq, start) => {
                    // Covered from the front.
                    covered += u64::from(seq::le(first_start, run.seq) && seq::le(run.end, end));
                    let skip = seq::min(run.end, end).wrapping_sub(start);
                    payload_advance(&mut payload, skip as usize);
                    let from = start;
                    start = start.wrapping_add(skip);
                    twice.note(from, start);
                    at += 1;
                }
                Some(run) if seq::lt(run.seq, end) => {
                    // A hole before the next run: fill it, and go on behind it.
                    let hole = run.seq.wrapping_sub(start) as usize;
                    let rest_len = end.wrapping_sub(run.seq) as usize;
                    let mut front = Payload::new();
                    for part in &payload {
                        // Only a payload that straddles a run is copied: rare, and never a large one.
                        let mut copy = Vec::new();
                        part.with(|bytes| copy.extend_from_slice(bytes));
                        front.push(RxData::Dense(copy, 0));
                    }
                    payload_truncate(&mut front, hole);
                    payload_advance(&mut payload, hole);
                    let next = run.seq;
                    self.put_run(at, start, front, now);
                    kept = true;
                    at += 1;
                    start = next;
                    debug_assert_eq!(payload_len(&payload), rest_len);
                }
                _ => {
                    let len = payload_len(&payload) as u32;
                    end = start.wrapping_add(len);
                    self.put_run(at, start, core::mem::take(&mut payload), now);
                    kept = true;
                    start = end;
                }
            }
        }
        self.note(first_start, first_end);
        (twice, covered.max(u64::from(!kept)))
    }

    fn put_run(&mut self, at: usize, start: u32, mut data: Payload, now: u64) {
        let len = payload_len(&data);
        let cost = payload_footprint(&data);
        let waste = (self.footprint + cost).saturating_sub(self.ready_len + self.runs_len + len);
        if waste > SLACK && cost > 2 * len {
            let mut copy = Vec::with_capacity(len);
            for part in &data {
                part.with(|bytes| copy.extend_from_slice(bytes));
            }
            data = Payload::new();
            data.push(RxData::Dense(copy, 0));
        }
        self.footprint += payload_footprint(&data);
        self.runs_len += len;
        self.runs.insert(
            at,
            Run {
                seq: start,
                end: start.wrapping_add(len as u32),
                data,
                at: now,
            },
        );
    }

    /// Remembers the block that holds `start..end` as the newest to tell.
    fn note(&mut self, start: u32, end: u32) {
        let (mut left, mut right) = (start, end);
        // Grow to the whole contiguous block, from the run our start lies in.
        let at = self.runs.partition_point(|run| seq::lt(run.end, start));
        let mut i = at;
        while let Some(run) = self.runs.get(i) {
            if seq::gt(run.seq, right) {
                break;
            }
            left = seq::min(left, run.seq);
            right = seq::max(right, run.end);
            i += 1;
        }
        let mut i = at;
        while i > 0 && self.runs[i - 1].end == left {
            left = self.runs[i - 1].seq;
            i -= 1;
        }
        let mut merged = [(left, right); 4];
        let mut count = 1;
        for block in &self.recent[..self.recent_count] {
            let apart = seq::gt(block.0, right) || seq::lt(block.1, left);
            if apart && count < merged.len() {
                merged[count] = *block;
                count += 1;
            }
        }
        self.recent = merged;
        self.recent_count = count;
    }

    /// The blocks to tell the peer, newest first.
    pub fn sack_blocks(&self) -> &[(u32, u32)] {
        &self.recent[..self.recent_count]
    }

    /// After the bytes up to `next` arrived: moves what has become contiguous, and returns the new next
    /// sequence number, and which of those bytes were here already.
    pub fn absorb(&mut self, mut next: u32, coalesced: &Counter) -> (u32, Twice) {
        let arrived = next;
        let mut twice = Twice::default();
        while let Some(run) = self.runs.front() {
            if seq::gt(run.seq, next) {
                break;
            }
            let Some(mut run) = self.runs.pop_front() else {
                break;
            };
            if seq::lt(run.seq, arrived) {
                twice.note(run.seq, seq::min(run.end, arrived));
            }
            self.runs_len -= run.end.wrapping_sub(run.seq) as usize;
            self.footprint -= payload_footprint(&run.data);
            if seq::gt(run.end, next) {
                payload_advance(&mut run.data, next.wrapping_sub(run.seq) as usize);
                next = run.end;
                self.push(run.data, run.at, coalesced);
            }
        }
        let mut count = 0;
        for i in 0..self.recent_count {
            if seq::gt(self.recent[i].1, next) {
                self.recent[count] = self.recent[i];
                count += 1;
            }
        }
        self.recent_count = count;
        (next, twice)
    }

    /// Drops what lies beyond gaps (the peer still has it); returns how many bytes.
    pub fn prune(&mut self) -> usize {
        let dropped = self.runs_len;
        for run in self.runs.drain(..) {
            self.footprint -= payload_footprint(&run.data);
        }
        self.runs_len = 0;
        self.recent_count = 0;
        dropped
    }

    /// Takes up to `most` bytes' worth of whole parts from the front, at least one if there is any.
    /// Give back what is left over with [`RecvQueue::untake`].
    pub fn take(&mut self, most: usize) -> Payload {
        let mut taken = Payload::new();
        let mut len = 0;
        while let Some(part) = self.ready.front() {
            if !taken.is_empty() && len + part.len() > most {
                break;
            }
            let Some(part) = self.ready.pop_front() else {
                break;
            };
            len += part.len();
            self.footprint -= part.footprint();
            taken.push(part);
            if len >= most || taken.len() >= 32 {
                break;
            }
        }
        self.ready_len -= len;
        taken
    }

    /// Puts back what was taken and not read.
    pub fn untake(&mut self, rest: Payload) {
        for part in rest.into_iter().rev() {
            if part.len() > 0 {
                self.ready_len += part.len();
                self.footprint += part.footprint();
                self.ready.push_front(part);
            }
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        let times = self.stamps.is_some();
        *self = RecvQueue::default();
        self.keep_times(times);
    }

    /// An idle connection keeps no memory for its queue.
    pub fn relax(&mut self) {
        if self.ready.is_empty() && self.ready.capacity() > 16 {
            self.ready.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::RxBuffer;

    fn payload(bytes: &[u8]) -> Payload {
        let mut p = Payload::new();
        p.push(RxData::Buffer(RxBuffer::copy_of(bytes)));
        p
    }

    #[test]
    fn the_time_of_each_byte_is_known() {
        let mut queue = RecvQueue::default();
        queue.push(payload(b"old"), 5, &Counter::default());
        assert_eq!(queue.arrived(0), None, "nobody asked");
        queue.keep_times(true);
        assert_eq!(queue.arrived(2), None, "it came before");
        queue.push(payload(b"abc"), 10, &Counter::default());
        queue.insert(20, payload(b"ef"), 15);
        queue.push(payload(b"d"), 20, &Counter::default());
        queue.absorb(20, &Counter::default());
        let times: Vec<_> = (3..9).map(|i| queue.arrived(i)).collect();
        assert_eq!(times, [10, 10, 10, 20, 15, 15].map(Some));
        assert_eq!(queue.arrived(9), None);
        let mut taken = queue.take(4);
        assert_eq!(payload_len(&taken), 3);
        taken.clear();
        queue.untake(taken);
        assert_eq!((queue.arrived(-1), queue.arrived(0)), (Some(10), Some(10)));
        queue.take(3);
        queue.forget_times();
        assert_eq!(queue.arrived(0), Some(20));
        // However many there are, memory for them has a bound, and the last is true.
        for i in 0..5000 {
            queue.push(payload(b"x"), 100 + i, &Counter::default());
        }
        assert!(queue.stamps.as_ref().unwrap().ends.len() <= STAMPS);
        assert_eq!(queue.arrived(queue.len() as isize - 1), Some(5099));
        queue.keep_times(false);
        assert_eq!(queue.arrived(0), None);
    }

    #[test]
    fn what_came_twice_is_told_as_far_as_it_is_contiguous() {
        let mut queue = RecvQueue::default();
        let mut insert = |start: u32, len: u32| {
            let bytes = alloc::vec![1; len as usize];
            queue.insert(start, payload(&bytes), 0)
        };
        let twice = |start, end| Twice(Some((start, end)));
        assert_eq!(insert(100, 50), (Twice(None), 0));
        assert_eq!(insert(100, 50), (twice(100, 150), 1));
        assert_eq!(insert(140, 30), (twice(140, 150), 0));
        assert_eq!(insert(80, 40), (twice(100, 120), 0));
        // Two runs that touch are one range; a further one beyond a hole is another.
        assert_eq!(insert(200, 50), (Twice(None), 0));
        assert_eq!(insert(90, 120), (twice(90, 170), 2));
        // In order up to 110, of which 80..110 was here.
        let (next, told) = queue.absorb(110, &Counter::default());
        assert_eq!((next, told), (250, twice(80, 110)));
        assert_eq!(queue.absorb(300, &Counter::default()).1, Twice(None));
    }

    #[test]
    fn any_order_with_any_overlap_gives_the_stream() {
        let stream: Vec<u8> = (0..5000u32).map(|i| ((i * 37) >> 2) as u8).collect();
        let mut random = 99u64;
        let mut rand = move |n: usize| {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (random >> 33) as usize % n
        };
        for round in 0..300u32 {
            let base = u32::MAX - round * 20;
            let mut queue = RecvQueue::default();
            let mut next = 0usize;
            let mut out = Vec::new();
            while next < stream.len() {
                let start = (next + rand(400)).min(stream.len() - 1);
                let start = if rand(3) == 0 { next } else { start };
                let end = (start + 1 + rand(300)).min(stream.len());
                let seq = base.wrapping_add(start as u32);
                if start == next {
                    queue.push(
                        payload(&stream[start..end]),
                        next as u64,
                        &Counter::default(),
                    );
                    let end = base.wrapping_add(end as u32);
                    let (absorbed, _) = queue.absorb(end, &Counter::default());
                    next = absorbed.wrapping_sub(base) as usize;
                } else {
                    queue.insert(seq, payload(&stream[start..end]), next as u64);
                }
                for pair in queue.runs.iter().collect::<Vec<_>>().windows(2) {
                    assert!(seq::le(pair[0].end, pair[1].seq));
                }
                for (l, r) in queue.sack_blocks() {
                    assert!(seq::lt(*l, *r) && seq::gt(*r, base.wrapping_add(next as u32)));
                }
                if rand(2) == 0 {
                    let taken = queue.take(rand(1000) + 1);
                    for part in &taken {
                        part.with(|b| out.extend_from_slice(b));
                    }
                }
            }
            while queue.len() > 0 {
                for part in &queue.take(1 << 20) {
                    part.with(|b| out.extend_from_slice(b));
                }
            }
            assert_eq!(out, stream);
            assert_eq!(queue.beyond(), 0);
            assert_eq!(queue.footprint(), 0, "round {round}");
        }
    }
}
