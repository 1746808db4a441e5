//! Pipes (`pipe(7)`): a bounded byte ring with a reading and a writing side, byte-stream or packet
//! mode, writes of up to `PIPE_BUF` bytes whole.
//!
//! The calls here never wait for the other side: they answer `EAGAIN`, and the system call waits.
//! Named pipes share the object through [`fifo`](super::fifo).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use sched::Mutex;
use sched::poll::{Events, Pollee};

use super::ring::Ring;

/// Writes up to this length are not mixed with others'.
pub const PIPE_BUF: usize = 4096;
/// The usual capacity.
pub const DEFAULT_CAPACITY: usize = 65536;
/// The largest capacity an unprivileged program gets (`/proc/sys/fs/pipe-max-size`).
pub const MAX_CAPACITY: usize = 1 << 20;
/// The largest capacity at all: what Linux's root may ask for.
const HARD_LIMIT: usize = 1 << 31;

/// One pipe.
pub struct Pipe {
    content: Mutex<Content>,
    /// Bytes inside; changed under `content`, read without it by `poll`.
    used: AtomicUsize,
    capacity: AtomicUsize,
    readers: AtomicUsize,
    writers: AtomicUsize,
    /// How many writers there ever were: `fifo(7)` opens wait for a new one.
    opened_writers: AtomicUsize,
    opened_readers: AtomicUsize,
    read_side: Pollee,
    write_side: Pollee,
}

#[derive(Default)]
struct Content {
    ring: Ring,
    /// Lengths of the stretches in `ring`: a packet each, or bytes in between that are none.
    stretches: VecDeque<Stretch>,
}

struct Stretch {
    len: usize,
    is_packet: bool,
}

impl Pipe {
    /// An empty pipe with nobody at its ends.
    pub fn new() -> Arc<Pipe> {
        Arc::new(Pipe {
            content: Mutex::new(Content::default()),
            used: AtomicUsize::new(0),
            capacity: AtomicUsize::new(DEFAULT_CAPACITY),
            readers: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            opened_writers: AtomicUsize::new(0),
            opened_readers: AtomicUsize::new(0),
            read_side: Pollee::new(),
            write_side: Pollee::new(),
        })
    }

    /// Someone opened an end.
    pub fn open(&self, reads: bool, writes: bool) {
        if reads {
            self.readers.fetch_add(1, Ordering::AcqRel);
            self.opened_readers.fetch_add(1, Ordering::AcqRel);
            self.write_side.notify(Events::OUT);
        }
        if writes {
            self.writers.fetch_add(1, Ordering::AcqRel);
            self.opened_writers.fetch_add(1, Ordering::AcqRel);
            self.read_side.notify(Events::IN);
        }
    }

    /// Someone closed an end.
    pub fn close(&self, reads: bool, writes: bool) {
        if reads && self.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.write_side.notify(Events::OUT | Events::ERR);
        }
        if writes && self.writers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.read_side.notify(Events::IN | Events::HUP);
        }
    }

    /// How many readers and writers have ever opened it.
    pub fn opened(&self) -> (usize, usize) {
        (
            self.opened_readers.load(Ordering::Acquire),
            self.opened_writers.load(Ordering::Acquire),
        )
    }

    /// How many readers and writers there are.
    pub fn ends(&self) -> (usize, usize) {
        (
            self.readers.load(Ordering::Acquire),
            self.writers.load(Ordering::Acquire),
        )
    }

    /// What the reading side waits on.
    pub fn read_side(&self) -> &Pollee {
        &self.read_side
    }

    /// What the writing side waits on.
    pub fn write_side(&self) -> &Pollee {
        &self.write_side
    }

    /// Bytes to read (`FIONREAD`).
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// The capacity (`F_GETPIPE_SZ`).
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Acquire)
    }

    /// Changes the capacity and returns what it became: the next power of two pages
    /// (`F_SETPIPE_SZ`).
    ///
    /// # Errors
    /// `EINVAL` beyond 2³¹, `EPERM` beyond `pipe-max-size` without privilege, `EBUSY` when more than
    /// that is inside.
    pub fn set_capacity(&self, size: usize, privileged: bool) -> Result<usize> {
        if size > HARD_LIMIT {
            return Err(Errno::EINVAL);
        }
        let size = size.max(PIPE_BUF).next_power_of_two();
        if size > MAX_CAPACITY && !privileged && size > self.capacity() {
            return Err(Errno::EPERM);
        }
        let content = self.content.lock();
        if content.ring.len() > size {
            return Err(Errno::EBUSY);
        }
        self.capacity.store(size, Ordering::Release);
        drop(content);
        self.write_side.notify(Events::OUT);
        Ok(size)
    }

    /// Reads what is there, of one packet at most.
    ///
    /// # Errors
    /// `EAGAIN` when it is empty and has a writer, `EFAULT`.
    pub fn read(&self, sink: &mut dyn Sink) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let mut content = self.content.lock();
        if content.ring.is_empty() {
            drop(content);
            return match self.writers.load(Ordering::Acquire) {
                0 => Ok(0),
                _ => Err(Errno::EAGAIN),
            };
        }
        let done = content.read(sink)?;
        self.used.store(content.ring.len(), Ordering::Release);
        drop(content);
        if done > 0 {
            self.write_side.notify(Events::OUT);
        }
        Ok(done)
    }

    /// Copies up to `limit` bytes out without taking them (`tee(2)`).
    ///
    /// # Errors
    /// As [`Pipe::read`].
    pub fn peek(&self, sink: &mut dyn Sink, limit: usize) -> Result<usize> {
        let content = self.content.lock();
        if content.ring.is_empty() {
            return match self.writers.load(Ordering::Acquire) {
                0 => Ok(0),
                _ => Err(Errno::EAGAIN),
            };
        }
        content.ring.copy_out(sink, 0, limit)
    }

    /// Writes as much as fits; up to `PIPE_BUF` bytes go whole or not at all. In packet mode each
    /// `PIPE_BUF` bytes are a packet.
    ///
    /// # Errors
    /// `EPIPE` without a reader (the system call raises `SIGPIPE`), `EAGAIN` when there is no room,
    /// `EFAULT`.
    pub fn write(&self, source: &mut dyn Source, packets: bool) -> Result<usize> {
        let want = source.remaining();
        if self.readers.load(Ordering::Acquire) == 0 {
            return Err(Errno::EPIPE);
        }
        if want == 0 {
            return Ok(0);
        }
        let mut content = self.content.lock();
        let capacity = self.capacity();
        let room = capacity.saturating_sub(content.ring.len());
        if room == 0 || (want <= PIPE_BUF && room < want) {
            return Err(Errno::EAGAIN);
        }
        let limit = capacity.min(content.ring.len() + room);
        let result = content.write(source, limit, packets);
        self.used.store(content.ring.len(), Ordering::Release);
        drop(content);
        if matches!(result, Ok(n) if n > 0) {
            self.read_side.notify(Events::IN);
        }
        result
    }

    /// What the reading side is ready for.
    pub fn poll_read(&self) -> Events {
        let mut events = Events::empty();
        if self.used() > 0 {
            events |= Events::IN;
        }
        if self.writers.load(Ordering::Acquire) == 0
            && self.opened_writers.load(Ordering::Acquire) > 0
        {
            events |= Events::HUP;
        }
        events
    }

    /// What the writing side is ready for.
    pub fn poll_write(&self) -> Events {
        let mut events = Events::empty();
        if self.capacity().saturating_sub(self.used()) >= PIPE_BUF {
            events |= Events::OUT;
        }
        if self.readers.load(Ordering::Acquire) == 0 {
            events |= Events::ERR;
        }
        events
    }
}

impl Content {
    fn read(&mut self, sink: &mut dyn Sink) -> Result<usize> {
        let mut total = 0;
        while let Some(first) = self.stretches.front_mut() {
            let (len, is_packet) = (first.len, first.is_packet);
            if is_packet && total > 0 {
                break;
            }
            let done = match self.ring.read(sink, len, false) {
                Ok(done) => done,
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            };
            total += done;
            if is_packet {
                // What the reader had no room for is gone.
                self.ring.discard(len - done);
                self.stretches.pop_front();
                break;
            }
            first.len -= done;
            if first.len > 0 {
                break;
            }
            self.stretches.pop_front();
        }
        self.ring.release_if_empty();
        Ok(total)
    }

    fn write(&mut self, source: &mut dyn Source, limit: usize, packets: bool) -> Result<usize> {
        if !packets {
            let done = self.ring.write(source, limit)?;
            match self.stretches.back_mut() {
                Some(last) if !last.is_packet => last.len += done,
                _ if done > 0 => self.stretches.push_back(Stretch {
                    len: done,
                    is_packet: false,
                }),
                _ => {}
            }
            return Ok(done);
        }
        let mut total = 0;
        loop {
            let want = source.remaining().min(PIPE_BUF);
            if want == 0 || self.ring.len() + want > limit {
                return Ok(total);
            }
            match self.ring.write(source, self.ring.len() + want) {
                Ok(done) => {
                    total += done;
                    self.stretches.push_back(Stretch {
                        len: done,
                        is_packet: true,
                    });
                    if done < want {
                        return Ok(total);
                    }
                }
                Err(error) if total == 0 => return Err(error),
                Err(_) => return Ok(total),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use iobuf::{SliceSource, VecSink};

    fn pipe() -> Arc<Pipe> {
        let pipe = Pipe::new();
        pipe.open(true, true);
        pipe
    }

    fn read(pipe: &Pipe, room: usize) -> Result<Vec<u8>> {
        let mut sink = VecSink::new(room);
        pipe.read(&mut sink).map(|_| sink.into_bytes())
    }

    #[test]
    fn bytes_come_out_in_order_and_the_end_is_told() {
        let pipe = pipe();
        assert_eq!(read(&pipe, 9), Err(Errno::EAGAIN));
        assert_eq!(pipe.write(&mut SliceSource::new(b"ab"), false), Ok(2));
        assert_eq!(pipe.write(&mut SliceSource::new(b"cd"), false), Ok(2));
        assert_eq!(read(&pipe, 3), Ok(b"abc".to_vec()));
        pipe.close(false, true);
        assert_eq!(pipe.poll_read(), Events::IN | Events::HUP);
        assert_eq!(read(&pipe, 3), Ok(b"d".to_vec()));
        assert_eq!(read(&pipe, 3), Ok(Vec::new()));
    }

    #[test]
    fn small_writes_are_whole_and_large_ones_partial() {
        let pipe = pipe();
        let big = vec![7; DEFAULT_CAPACITY + 10];
        let mut source = SliceSource::new(&big);
        assert_eq!(pipe.write(&mut source, false), Ok(DEFAULT_CAPACITY));
        assert_eq!(pipe.write(&mut source, false), Err(Errno::EAGAIN));
        assert_eq!(pipe.poll_write(), Events::empty());
        assert_eq!(read(&pipe, 100).map(|b| b.len()), Ok(100));
        let small = [1; PIPE_BUF];
        assert_eq!(
            pipe.write(&mut SliceSource::new(&small), false),
            Err(Errno::EAGAIN)
        );
        assert_eq!(
            pipe.write(&mut SliceSource::new(&small[..100]), false),
            Ok(100)
        );
    }

    #[test]
    fn packets_stay_apart_and_are_cut() {
        let pipe = pipe();
        pipe.write(&mut SliceSource::new(b"one"), true).unwrap();
        pipe.write(&mut SliceSource::new(b"second"), true).unwrap();
        pipe.write(&mut SliceSource::new(b"bytes"), false).unwrap();
        pipe.write(&mut SliceSource::new(b"more"), false).unwrap();
        assert_eq!(read(&pipe, 99), Ok(b"one".to_vec()));
        assert_eq!(read(&pipe, 2), Ok(b"se".to_vec()));
        assert_eq!(read(&pipe, 99), Ok(b"bytesmore".to_vec()));
        assert_eq!(read(&pipe, 9), Err(Errno::EAGAIN));
    }

    #[test]
    fn without_a_reader_writing_fails() {
        let pipe = pipe();
        pipe.close(true, false);
        assert_eq!(pipe.poll_write() & Events::ERR, Events::ERR);
        assert_eq!(
            pipe.write(&mut SliceSource::new(b"x"), false),
            Err(Errno::EPIPE)
        );
    }

    #[test]
    fn capacity_is_a_power_of_two_pages() {
        let pipe = pipe();
        assert_eq!(pipe.set_capacity(1, false), Ok(4096));
        assert_eq!(pipe.set_capacity(5000, false), Ok(8192));
        pipe.write(&mut SliceSource::new(&[0; 8000]), false)
            .unwrap();
        assert_eq!(pipe.set_capacity(4096, false), Err(Errno::EBUSY));
        assert_eq!(
            pipe.set_capacity(MAX_CAPACITY + 1, false),
            Err(Errno::EPERM)
        );
        assert_eq!(
            pipe.set_capacity(MAX_CAPACITY + 1, true),
            Ok(MAX_CAPACITY * 2)
        );
    }
}
