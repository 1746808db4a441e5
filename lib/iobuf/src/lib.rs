//! The two ends of a transfer of bytes, so that the page cache, a socket or a pipe can move data
//! to and from the program (or a kernel buffer) without knowing which, and without a copy between.
//!
//! A transfer may stop short: what was moved before the error counts, as `read(2)` and `write(2)` have it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use errno::{Errno, Result};

/// Where bytes go: the buffer of a `read(2)`, one of several `iovec`s, or kernel memory.
pub trait Sink {
    /// How many more bytes it takes.
    fn remaining(&self) -> usize;

    /// Appends `bytes`, all of them or as many as fit, and returns how many.
    ///
    /// # Errors
    /// `EFAULT` when the program's memory could not be written and nothing was moved.
    fn put(&mut self, bytes: &[u8]) -> Result<usize>;

    /// Appends `len` zero bytes or as many as fit, and returns how many.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn put_zeros(&mut self, len: usize) -> Result<usize> {
        const ZEROS: [u8; 256] = [0; 256];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(ZEROS.len());
            match self.put(&ZEROS[..part]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Appends `len` bytes or as many as fit, and returns how many. `read(at, room)` fills `room` with those from `at` on:
    /// for memory that can be read but not borrowed, such as a page of the program's.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn put_from(&mut self, len: usize, read: &mut dyn FnMut(usize, &mut [u8])) -> Result<usize> {
        let mut room = [0; 512];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(room.len());
            read(done, &mut room[..part]);
            match self.put(&room[..part]) {
                Ok(moved) => {
                    done += moved;
                    if moved < part {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Appends up to `len` bytes that `copy(offset, destination)` can deliver straight to the
    /// program: `destination` is a user address range of the sink. A sink in kernel memory answers
    /// `None`, and the caller uses [`Sink::put`].
    ///
    /// `copy` gets the user address and the length, and returns how many bytes it wrote there.
    ///
    /// # Errors
    /// As [`Sink::put`].
    fn put_with(
        &mut self,
        len: usize,
        copy: &mut dyn FnMut(usize, usize) -> Result<usize>,
    ) -> Option<Result<usize>> {
        let _ = (len, copy);
        None
    }
}

/// Where bytes come from: the buffer of a `write(2)`, several `iovec`s, or kernel memory.
pub trait Source {
    /// How many bytes are left.
    fn remaining(&self) -> usize;

    /// Fills `bytes` from the front as far as there are any, and returns how many.
    ///
    /// # Errors
    /// `EFAULT` when the program's memory could not be read and nothing was moved.
    fn take(&mut self, bytes: &mut [u8]) -> Result<usize>;

    /// The mirror of [`Sink::put_with`]: `copy` reads from the user address range it is given.
    ///
    /// # Errors
    /// As [`Source::take`].
    fn take_with(
        &mut self,
        len: usize,
        copy: &mut dyn FnMut(usize, usize) -> Result<usize>,
    ) -> Option<Result<usize>> {
        let _ = (len, copy);
        None
    }
}

/// Kernel memory as a [`Sink`] of fixed size.
#[derive(Debug)]
pub struct SliceSink<'a> {
    rest: &'a mut [u8],
}

impl<'a> SliceSink<'a> {
    /// A sink that fills `slice` from the front.
    pub fn new(slice: &'a mut [u8]) -> Self {
        SliceSink { rest: slice }
    }
}

impl Sink for SliceSink<'_> {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let len = bytes.len().min(self.rest.len());
        let (front, rest) = core::mem::take(&mut self.rest).split_at_mut(len);
        front.copy_from_slice(&bytes[..len]);
        self.rest = rest;
        Ok(len)
    }
}

/// A [`Sink`] that grows a vector up to a limit.
#[derive(Debug)]
pub struct VecSink {
    bytes: Vec<u8>,
    limit: usize,
}

impl VecSink {
    /// An empty sink that takes up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        VecSink {
            bytes: Vec::new(),
            limit,
        }
    }

    /// What was put so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Sink for VecSink {
    fn remaining(&self) -> usize {
        self.limit - self.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let len = bytes.len().min(self.remaining());
        self.bytes.try_reserve(len).map_err(|_| Errno::ENOMEM)?;
        self.bytes.extend_from_slice(&bytes[..len]);
        Ok(len)
    }
}

/// Kernel memory as a [`Source`].
#[derive(Debug, Clone)]
pub struct SliceSource<'a> {
    rest: &'a [u8],
}

impl<'a> SliceSource<'a> {
    /// A source that delivers `slice` from the front.
    pub fn new(slice: &'a [u8]) -> Self {
        SliceSource { rest: slice }
    }
}

impl Source for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let len = bytes.len().min(self.rest.len());
        let (front, rest) = self.rest.split_at(len);
        bytes[..len].copy_from_slice(front);
        self.rest = rest;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::{Errno, Result, Sink, SliceSink, SliceSource, Source, Vec, VecSink};

    #[test]
    fn a_slice_takes_what_fits() {
        let mut room = [0xff; 4];
        let mut sink = SliceSink::new(&mut room);
        assert_eq!(sink.put(b"ab"), Ok(2));
        assert_eq!(sink.put_zeros(9), Ok(2));
        assert_eq!(sink.put(b"x"), Ok(0));
        assert_eq!(&room, b"ab\0\0");
    }

    #[test]
    fn a_vector_stops_at_its_limit() {
        let mut sink = VecSink::new(3);
        assert_eq!(sink.put(b"abcd"), Ok(3));
        assert_eq!(sink.remaining(), 0);
        assert_eq!(sink.into_bytes(), b"abc");
    }

    #[test]
    fn what_cannot_be_borrowed_goes_piece_by_piece() {
        let bytes: Vec<u8> = (0..1500).map(|n| n as u8).collect();
        let mut read =
            |at: usize, room: &mut [u8]| room.copy_from_slice(&bytes[at..at + room.len()]);
        let mut sink = VecSink::new(2000);
        assert_eq!(sink.put_from(1500, &mut read), Ok(1500));
        assert_eq!(sink.put_from(1500, &mut read), Ok(500));
        assert_eq!(sink.into_bytes(), [&bytes[..], &bytes[..500]].concat());
        /// Fails when it has taken so much.
        struct Faulty(usize);
        impl Sink for Faulty {
            fn remaining(&self) -> usize {
                1500
            }
            fn put(&mut self, bytes: &[u8]) -> Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(Errno::EFAULT)?;
                Ok(bytes.len())
            }
        }
        assert_eq!(Faulty(1100).put_from(1500, &mut read), Ok(1024));
        assert_eq!(Faulty(100).put_from(1500, &mut read), Err(Errno::EFAULT));
    }

    #[test]
    fn a_source_runs_dry() {
        let mut source = SliceSource::new(b"abc");
        let mut room = [0; 2];
        assert_eq!(source.take(&mut room), Ok(2));
        assert_eq!(source.take(&mut room), Ok(1));
        assert_eq!(source.take(&mut room), Ok(0));
    }
}
