//! The bytes a connection has yet to get acknowledged, in shared chunks that packets refer to: nothing
//! is copied between the program's buffer and the card but once, into a chunk.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use crate::nic::TxSegment;
use crate::sync::SpinLock;

/// Size of pooled chunks.
pub(crate) const CHUNK: usize = 16 * 1024;
/// Writes up to this many bytes go through the stack and into the last chunk if it has room.
pub(crate) const SMALL: usize = 512;
/// Chunks the pool keeps.
const POOL: usize = 128;

/// Chunks that were acknowledged and wait to be filled again: saves clearing and allocating.
#[derive(Default)]
pub(crate) struct ChunkPool {
    free: SpinLock<Vec<Arc<[u8]>>>,
}

impl ChunkPool {
    /// A chunk nobody else holds.
    pub fn take(&self) -> Arc<[u8]> {
        let pooled = self.free.lock().pop();
        pooled.unwrap_or_else(|| core::iter::repeat_n(0, CHUNK).collect())
    }

    fn give(&self, mut chunk: Arc<[u8]>) {
        if chunk.len() == CHUNK && Arc::get_mut(&mut chunk).is_some() {
            let mut free = self.free.lock();
            if free.len() < POOL {
                free.push(chunk);
            }
        }
    }
}

struct Chunk {
    /// Stream offset of the first byte.
    at: u64,
    data: TxSegment,
    /// Bytes that can still be appended to a `Bytes` chunk.
    room: usize,
    cost: usize,
}

impl Chunk {
    fn len(&self) -> usize {
        self.data.len()
    }
}

/// A queue of bytes by stream offset.
#[derive(Default)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Offset of the first byte not acknowledged.
    head: u64,
    /// Offset after the last byte.
    tail: u64,
    cost: usize,
}

impl SendQueue {
    /// Bytes not acknowledged.
    pub fn len(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Memory charged for it.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Appends a few bytes: into the last chunk if nobody reads it and it has room.
    pub fn append_small(&mut self, bytes: &[u8], pool: &ChunkPool) {
        if let Some(last) = self.chunks.back_mut() {
            if last.room >= bytes.len()
                && let TxSegment::Bytes(data, range) = &mut last.data
                && let Some(memory) = Arc::get_mut(data)
            {
                memory[range.end..range.end + bytes.len()].copy_from_slice(bytes);
                range.end += bytes.len();
                last.room -= bytes.len();
                self.tail += bytes.len() as u64;
                return;
            }
            // Several small writes in a row: gather them.
            let mut chunk = pool.take();
            if let Some(memory) = Arc::get_mut(&mut chunk) {
                memory[..bytes.len()].copy_from_slice(bytes);
                self.append_chunk(chunk, bytes.len());
                return;
            }
        }
        self.append_chunk(Arc::from(bytes), bytes.len());
    }

    /// Appends a chunk of which the first `len` bytes are filled.
    pub fn append_chunk(&mut self, chunk: Arc<[u8]>, len: usize) {
        let cost = chunk.len() + 64;
        let room = chunk.len() - len;
        self.push(TxSegment::Bytes(chunk, 0..len), room, cost);
    }

    /// Appends a page by reference.
    pub fn append_segment(&mut self, segment: TxSegment) {
        let cost = segment.len() + 64;
        self.push(segment, 0, cost);
    }

    fn push(&mut self, data: TxSegment, room: usize, cost: usize) {
        let len = data.len() as u64;
        self.chunks.push_back(Chunk {
            at: self.tail,
            data,
            room,
            cost,
        });
        self.cost += cost;
        self.tail += len;
    }

    /// The first `n` bytes are acknowledged.
    pub fn advance(&mut self, n: usize, pool: &ChunkPool) {
        self.head = (self.head + n as u64).min(self.tail);
        while let Some(first) = self.chunks.front() {
            if first.at + first.len() as u64 > self.head {
                break;
            }
            if let Some(chunk) = self.chunks.pop_front() {
                self.cost -= chunk.cost;
                if let TxSegment::Bytes(data, _) = chunk.data {
                    pool.give(data);
                }
            }
        }
    }

    /// Refers to up to `len` bytes from `offset` (relative to the first not acknowledged), in at most `most` pieces;
    /// returns how many bytes that are.
    pub fn gather(
        &self,
        offset: usize,
        len: usize,
        most: usize,
        into: &mut SmallVec<[TxSegment; 2]>,
    ) -> usize {
        let mut at = self.head + offset as u64;
        let end = (at + len as u64).min(self.tail);
        let start = at;
        let mut index = self.chunks.partition_point(|c| c.at + c.len() as u64 <= at);
        while at < end && into.len() < most {
            let Some(chunk) = self.chunks.get(index) else {
                break;
            };
            let skip = (at - chunk.at) as usize;
            let n = (chunk.len() - skip).min((end - at) as usize);
            into.push(chunk.data.part(skip, n));
            at += n as u64;
            index += 1;
        }
        (at - start) as usize
    }

    /// Copies up to `bytes.len()` bytes from `offset` on when they lie in one chunk; for small packets that fit in their header.
    pub fn read_small(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let at = self.head + offset as u64;
        let index = self.chunks.partition_point(|c| c.at + c.len() as u64 <= at);
        let Some(chunk) = self.chunks.get(index) else {
            return false;
        };
        let skip = (at - chunk.at) as usize;
        match &chunk.data {
            TxSegment::Bytes(data, range) if chunk.len() - skip >= bytes.len() => {
                let from = range.start + skip;
                bytes.copy_from_slice(&data[from..from + bytes.len()]);
                true
            }
            _ => false,
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.chunks.shrink_to_fit();
        self.head = self.tail;
        self.cost = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(queue: &SendQueue, offset: usize, len: usize) -> Vec<u8> {
        let mut pieces = SmallVec::new();
        queue.gather(offset, len, 99, &mut pieces);
        let mut all = Vec::new();
        for piece in pieces {
            if let TxSegment::Bytes(data, range) = piece {
                all.extend_from_slice(&data[range]);
            }
        }
        all
    }

    #[test]
    fn any_part_can_be_gathered_and_acknowledged() {
        let pool = ChunkPool::default();
        let mut queue = SendQueue::default();
        let mut model = Vec::new();
        let mut acked = 0;
        for i in 0..600usize {
            let piece: Vec<u8> = (0..i % 97 + 1).map(|j| (i * 31 + j) as u8).collect();
            if i % 5 == 0 {
                let mut chunk = pool.take();
                let n = piece.len();
                Arc::get_mut(&mut chunk).unwrap()[..n].copy_from_slice(&piece);
                queue.append_chunk(chunk, n);
            } else {
                queue.append_small(&piece, &pool);
            }
            model.extend_from_slice(&piece);
            if i % 7 == 0 {
                let n = (i * 3).min(queue.len());
                queue.advance(n, &pool);
                acked += n;
            }
            let offset = i % (queue.len() + 1);
            let len = (i * 13) % 500;
            let want = &model[acked + offset..(acked + offset + len).min(model.len())];
            assert_eq!(bytes(&queue, offset, len), want);
        }
        queue.advance(queue.len(), &pool);
        assert_eq!((queue.len(), queue.cost()), (0, 0));
    }
}
