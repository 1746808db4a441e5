//! The byte ring behind pipes and stream sockets: it grows with what is in it, up to a limit, and
//! moves bytes straight between its own memory and a `Sink` or `Source`.
//!
//! Pure: waiting and locking are its owners'.

use alloc::boxed::Box;
use alloc::vec::Vec;

use errno::{Errno, Result};
use iobuf::{Sink, Source};

/// Smallest allocation, so that a stream of small writes does not grow it step by step.
const FIRST_SIZE: usize = 4096;

/// Bytes in order of arrival.
#[derive(Debug, Default)]
pub struct Ring {
    /// Its length is zero or a power of two.
    memory: Box<[u8]>,
    head: usize,
    len: usize,
}

impl Ring {
    /// An empty ring that owns no memory yet.
    pub fn new() -> Self {
        Ring::default()
    }

    /// How many bytes are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes in order, as the two pieces they lie in, `skip` bytes from the front.
    fn pieces(&self, skip: usize, len: usize) -> (&[u8], &[u8]) {
        let skip = skip.min(self.len);
        let len = len.min(self.len - skip);
        if len == 0 {
            return (&[], &[]);
        }
        let size = self.memory.len();
        let start = (self.head + skip) & (size - 1);
        let first = len.min(size - start);
        (
            &self.memory[start..start + first],
            &self.memory[..len - first],
        )
    }

    /// Moves up to `limit` bytes to `sink` and returns how many. With `peek` they stay.
    ///
    /// # Errors
    /// `EFAULT` when nothing could be moved.
    pub fn read(&mut self, sink: &mut dyn Sink, limit: usize, peek: bool) -> Result<usize> {
        let done = self.copy_out(sink, 0, limit)?;
        if !peek {
            self.discard(done);
        }
        Ok(done)
    }

    /// Copies up to `limit` bytes from `skip` on to `sink` without taking them.
    ///
    /// # Errors
    /// `EFAULT` when nothing could be moved.
    pub fn copy_out(&self, sink: &mut dyn Sink, skip: usize, limit: usize) -> Result<usize> {
        let (first, second) = self.pieces(skip, limit.min(sink.remaining()));
        let mut done = 0;
        if !first.is_empty() {
            done = sink.put(first)?;
        }
        if done == first.len() && !second.is_empty() {
            done += sink.put(second).unwrap_or(0);
        }
        Ok(done)
    }

    /// Drops up to `count` bytes from the front.
    pub fn discard(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.head = if self.len == 0 {
            0
        } else {
            (self.head + count) & (self.memory.len() - 1)
        };
    }

    /// Moves bytes from `source` as long as the ring holds less than `limit`; returns how many.
    ///
    /// # Errors
    /// `EFAULT` when nothing could be moved, `ENOMEM` when the ring cannot grow.
    pub fn write(&mut self, source: &mut dyn Source, limit: usize) -> Result<usize> {
        let want = source.remaining().min(limit.saturating_sub(self.len));
        if want == 0 {
            return Ok(0);
        }
        self.reserve(self.len + want)?;
        let mut done = 0;
        while done < want {
            let size = self.memory.len();
            let start = (self.head + self.len) & (size - 1);
            let part = (want - done).min(size - start);
            match source.take(&mut self.memory[start..start + part]) {
                Ok(n) => {
                    self.len += n;
                    done += n;
                    if n < part {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn reserve(&mut self, size: usize) -> Result<()> {
        if size <= self.memory.len() {
            return Ok(());
        }
        let size = size
            .max(FIRST_SIZE)
            .checked_next_power_of_two()
            .ok_or(Errno::ENOMEM)?;
        let mut grown = Vec::new();
        grown.try_reserve_exact(size).map_err(|_| Errno::ENOMEM)?;
        let (first, second) = self.pieces(0, self.len);
        grown.extend_from_slice(first);
        grown.extend_from_slice(second);
        grown.resize(size, 0);
        self.memory = grown.into_boxed_slice();
        self.head = 0;
        Ok(())
    }

    /// Gives its memory back when nothing is in it: an idle connection costs none.
    pub fn release_if_empty(&mut self) {
        if self.len == 0 && self.memory.len() > FIRST_SIZE {
            self.memory = Box::default();
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iobuf::{SliceSource, VecSink};

    fn take(ring: &mut Ring, limit: usize) -> Vec<u8> {
        let mut sink = VecSink::new(limit);
        ring.read(&mut sink, usize::MAX, false).unwrap();
        sink.into_bytes()
    }

    #[test]
    fn order_survives_wrapping_and_growing() {
        let mut ring = Ring::new();
        let mut next_in = 0u32;
        let mut next_out = 0u32;
        let mut seed = 1u32;
        for _ in 0..500 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bytes: Vec<u8> = (0..seed >> 20)
                .map(|_| {
                    next_in += 1;
                    next_in as u8
                })
                .collect();
            let n = ring.write(&mut SliceSource::new(&bytes), 9000).unwrap();
            next_in -= (bytes.len() - n) as u32;
            for byte in take(&mut ring, (seed >> 19) as usize & 0x1fff) {
                next_out += 1;
                assert_eq!(byte, next_out as u8);
            }
            assert_eq!(ring.len() as u32, next_in - next_out);
        }
        assert!(next_out > 10_000);
    }

    #[test]
    fn it_stops_at_the_limit_and_peeking_leaves_all() {
        let mut ring = Ring::new();
        assert_eq!(ring.write(&mut SliceSource::new(b"abcdef"), 4), Ok(4));
        let mut sink = VecSink::new(9);
        assert_eq!(ring.read(&mut sink, 3, true), Ok(3));
        assert_eq!(sink.into_bytes(), b"abc");
        assert_eq!(take(&mut ring, 9), b"abcd");
        assert!(ring.is_empty());
    }
}
