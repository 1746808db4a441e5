//! Pipes (`pipe(7)`): bounded, with a reading and a writing side, byte-stream or packet mode, writes of up to `PIPE_BUF` bytes
//! whole. What is inside, and where it lies, is [`pipe_content`](super::pipe_content)'s.
//!
//! The calls here never wait for the other side: they answer `EAGAIN`, and the system call waits.
//! Named pipes share the object through [`fifo`](super::fifo).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use sched::Mutex;
use sched::poll::{Events, Pollee};

use super::pipe_content::Content;
use net::nic::TxSegment;

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
    /// Stretches inside that lie elsewhere, likewise.
    held: AtomicUsize,
    capacity: AtomicUsize,
    readers: AtomicUsize,
    writers: AtomicUsize,
    /// How many writers there ever were: `fifo(7)` opens wait for a new one.
    opened_writers: AtomicUsize,
    opened_readers: AtomicUsize,
    read_side: Pollee,
    write_side: Pollee,
}

impl Pipe {
    /// An empty pipe with nobody at its ends.
    pub fn new() -> Arc<Pipe> {
        Arc::new(Pipe {
            content: Mutex::new(Content::default()),
            used: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
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
        if content.len() > size {
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
        if content.is_empty() {
            drop(content);
            return match self.writers.load(Ordering::Acquire) {
                0 => Ok(0),
                _ => Err(Errno::EAGAIN),
            };
        }
        let done = content.read(sink)?;
        self.note(&content);
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
        if content.is_empty() {
            return match self.writers.load(Ordering::Acquire) {
                0 => Ok(0),
                _ => Err(Errno::EAGAIN),
            };
        }
        content.peek(sink, limit)
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
        let room = self.room_in(&content);
        if room == 0 || (want <= PIPE_BUF && room < want) {
            return Err(Errno::EAGAIN);
        }
        let result = content.write(source, room, packets);
        self.note(&content);
        drop(content);
        if matches!(result, Ok(n) if n > 0) {
            self.read_side.notify(Events::IN);
        }
        result
    }

    /// How many bytes may be added. As on Linux none where there are as many stretches that lie elsewhere as pages fit in:
    /// each of them may hold a page for a byte.
    pub fn room(&self) -> usize {
        let held = self.held.load(Ordering::Acquire);
        room(self.capacity(), self.used(), held)
    }

    fn room_in(&self, content: &Content) -> usize {
        room(self.capacity(), content.len(), content.held())
    }

    fn note(&self, content: &Content) {
        self.used.store(content.len(), Ordering::Release);
        self.held.store(content.held(), Ordering::Release);
    }

    /// Takes up to `most` bytes from the front, where they lie: without a copy what [`Pipe::push`] put there.
    /// What is not used goes back with [`Pipe::untake`].
    ///
    /// # Errors
    /// `EAGAIN` when it is empty and has a writer.
    pub fn take(&self, most: usize) -> Result<Vec<TxSegment>> {
        let mut content = self.content.lock();
        if content.is_empty() && self.writers.load(Ordering::Acquire) > 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = content.take(most)?;
        self.note(&content);
        drop(content);
        if !taken.is_empty() {
            self.write_side.notify(Events::OUT);
        }
        Ok(taken)
    }

    /// Puts what was taken last and not used back to the front.
    pub fn untake(&self, rest: Vec<TxSegment>) {
        if rest.iter().all(TxSegment::is_empty) {
            return;
        }
        let mut content = self.content.lock();
        content.untake(rest);
        self.note(&content);
        drop(content);
        self.read_side.notify(Events::IN);
    }

    /// Adds from the front of `segments` what there is room for, without a copy; returns how many bytes.
    ///
    /// # Errors
    /// `EPIPE` without a reader (the system call raises `SIGPIPE`), `EAGAIN` when there is no room for the first.
    pub fn push(&self, segments: &mut Vec<TxSegment>) -> Result<usize> {
        if self.readers.load(Ordering::Acquire) == 0 {
            return Err(Errno::EPIPE);
        }
        let mut content = self.content.lock();
        let mut total = 0;
        let mut count = 0;
        for segment in segments.iter() {
            let len = segment.len();
            if self.room_in(&content) < len {
                break;
            }
            content.push(segment.clone());
            total += len;
            count += 1;
        }
        self.note(&content);
        drop(content);
        if count == 0 && !segments.is_empty() {
            return Err(Errno::EAGAIN);
        }
        segments.drain(..count);
        if total > 0 {
            self.read_side.notify(Events::IN);
        }
        Ok(total)
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
        if self.room() >= PIPE_BUF {
            events |= Events::OUT;
        }
        if self.readers.load(Ordering::Acquire) == 0 {
            events |= Events::ERR;
        }
        events
    }
}

fn room(capacity: usize, used: usize, held: usize) -> usize {
    if held >= capacity / PIPE_BUF {
        0
    } else {
        capacity.saturating_sub(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use iobuf::{SliceSource, VecSink};
    use machine::mem::Frame;

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

    fn page(byte: u8) -> Frame {
        let frame = Frame::alloc_zeroed().unwrap();
        frame.write(0, &[byte; 4096]);
        frame
    }

    fn part(frame: &Frame, offset: u32, len: u32) -> TxSegment {
        let frame = frame.clone();
        TxSegment::Frame { frame, offset, len }
    }

    #[test]
    fn pages_go_through_where_they_lie() {
        let pipe = pipe();
        let (a, b) = (page(1), page(2));
        pipe.write(&mut SliceSource::new(b"head"), false).unwrap();
        let mut segments = vec![part(&a, 0, 4096), part(&b, 96, 4000)];
        assert_eq!(pipe.push(&mut segments), Ok(8096));
        assert!(segments.is_empty());
        pipe.write(&mut SliceSource::new(b"tail"), false).unwrap();
        assert_eq!(pipe.used(), 8104);
        let taken = pipe.take(6000).unwrap();
        let lies = |segment: &TxSegment, frame: &Frame| match segment {
            TxSegment::Frame {
                frame: f,
                offset,
                len,
            } => (f.phys() == frame.phys()).then_some((*offset, *len)),
            TxSegment::Bytes(..) => None,
        };
        assert!(
            matches!(&taken[0], TxSegment::Bytes(bytes, range) if bytes[range.clone()] == *b"head")
        );
        assert_eq!(lies(&taken[1], &a), Some((0, 4096)));
        assert_eq!(lies(&taken[2], &b), Some((96, 1900)));
        assert_eq!((taken.len(), pipe.used()), (3, 2104));
        // What was not used is where it was; bytes and pages come out in order, whoever reads.
        pipe.untake(taken[1..].to_vec());
        let mut sink = VecSink::new(9000);
        assert_eq!(pipe.peek(&mut sink, 9000), Ok(8100));
        let whole = [&[1; 4096][..], &[2; 4000], b"tail"].concat();
        assert_eq!(sink.into_bytes(), whole);
        let mut all = read(&pipe, 5).unwrap();
        all.extend(read(&pipe, 4095).unwrap());
        all.extend(read(&pipe, 9000).unwrap());
        assert_eq!(all, whole);
        assert_eq!(read(&pipe, 1), Err(Errno::EAGAIN));
        assert_eq!(
            (a.ref_count(), b.ref_count()),
            (2, 2),
            "of those still taken"
        );
        drop(taken);
        assert_eq!((a.ref_count(), b.ref_count()), (1, 1));
    }

    #[test]
    fn a_byte_of_a_page_takes_the_room_of_a_page() {
        let pipe = pipe();
        let frame = page(1);
        for _ in 0..16 {
            assert_eq!(pipe.push(&mut vec![part(&frame, 0, 1)]), Ok(1));
        }
        assert_eq!(pipe.poll_write(), Events::empty());
        assert_eq!(pipe.push(&mut vec![part(&frame, 0, 1)]), Err(Errno::EAGAIN));
        let mut source = SliceSource::new(b"x");
        assert_eq!(pipe.write(&mut source, false), Err(Errno::EAGAIN));
        assert_eq!(read(&pipe, 1), Ok(vec![1]));
        assert_eq!(pipe.poll_write(), Events::OUT);
        assert_eq!(pipe.write(&mut source, false), Ok(1));
        // As much as there is room for, of whole stretches.
        let pipe = self::pipe();
        let mut pages = vec![part(&frame, 0, 4096); 20];
        assert_eq!(pipe.push(&mut pages), Ok(65_536));
        assert_eq!(pages.len(), 4);
        pipe.close(true, false);
        assert_eq!(pipe.push(&mut pages), Err(Errno::EPIPE));
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
