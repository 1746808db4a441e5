//! What is in a pipe, in order: stretches of bytes and packets, which lie in its ring, and stretches that lie elsewhere, such as
//! pages of a file, to which the pipe only refers (`splice(2)`).
//!
//! Locking, waiting and limits are the pipe's.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use iobuf::{Sink, SliceSink, Source};
use net::nic::TxSegment;

use super::pipe::PIPE_BUF;
use super::ring::Ring;

#[derive(Default)]
pub(super) struct Content {
    ring: Ring,
    stretches: VecDeque<Stretch>,
    len: usize,
    held: usize,
}

struct Stretch {
    len: usize,
    kind: Kind,
}

enum Kind {
    Bytes,
    Packet,
    Held(TxSegment),
}

impl Content {
    /// Bytes inside.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stretches that lie elsewhere.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what `sink` takes to it, of one packet at most.
    pub fn read(&mut self, sink: &mut dyn Sink) -> Result<usize> {
        let mut total = 0;
        while let Some(first) = self.stretches.front_mut() {
            let is_packet = matches!(first.kind, Kind::Packet);
            if is_packet && total > 0 {
                break;
            }
            let result = match &first.kind {
                Kind::Held(segment) => copy(segment, first.len, sink),
                _ => self.ring.read(sink, first.len, false),
            };
            let done = match result {
                Ok(done) => done,
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            };
            total += done;
            let rest = first.len - done;
            if is_packet {
                // What the reader had no room for is gone.
                self.ring.discard(rest);
                self.len -= done + rest;
                self.stretches.pop_front();
                break;
            }
            self.len -= done;
            first.len = rest;
            if let Kind::Held(segment) = &mut first.kind {
                segment.advance(done);
                self.held -= usize::from(rest == 0);
            }
            if rest > 0 {
                break;
            }
            self.stretches.pop_front();
        }
        self.ring.release_if_empty();
        Ok(total)
    }

    /// Copies up to `limit` bytes to `sink` without taking them.
    pub fn peek(&self, sink: &mut dyn Sink, limit: usize) -> Result<usize> {
        let (mut total, mut in_ring) = (0, 0);
        for stretch in &self.stretches {
            let want = stretch.len.min(limit - total).min(sink.remaining());
            if want == 0 {
                break;
            }
            let result = match &stretch.kind {
                Kind::Held(segment) => copy(segment, want, sink),
                _ => self.ring.copy_out(sink, in_ring, want),
            };
            if !matches!(stretch.kind, Kind::Held(_)) {
                in_ring += stretch.len;
            }
            match result {
                Ok(done) => total += done,
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    /// Takes bytes from `source`, no more than `room`.
    pub fn write(&mut self, source: &mut dyn Source, room: usize, packets: bool) -> Result<usize> {
        if !packets {
            let done = self.ring.write(source, self.ring.len() + room)?;
            self.len += done;
            match self.stretches.back_mut() {
                Some(last) if matches!(last.kind, Kind::Bytes) => last.len += done,
                _ if done > 0 => self.append(done, Kind::Bytes),
                _ => {}
            }
            return Ok(done);
        }
        let mut total = 0;
        loop {
            let want = source.remaining().min(PIPE_BUF);
            if want == 0 || total + want > room {
                return Ok(total);
            }
            match self.ring.write(source, self.ring.len() + want) {
                Ok(done) => {
                    total += done;
                    self.len += done;
                    self.append(done, Kind::Packet);
                    if done < want {
                        return Ok(total);
                    }
                }
                Err(error) if total == 0 => return Err(error),
                Err(_) => return Ok(total),
            }
        }
    }

    fn append(&mut self, len: usize, kind: Kind) {
        self.stretches.push_back(Stretch { len, kind });
    }

    /// Refers to a stretch that lies elsewhere.
    pub fn push(&mut self, segment: TxSegment) {
        let len = segment.len();
        if len > 0 {
            self.len += len;
            self.held += 1;
            self.append(len, Kind::Held(segment));
        }
    }

    /// Takes up to `most` bytes from the front, where they lie; those of the ring are copied once. Packets are bytes then.
    ///
    /// # Errors
    /// `ENOMEM` when there is nothing to copy to and nothing was taken.
    pub fn take(&mut self, most: usize) -> Result<Vec<TxSegment>> {
        let mut taken = Vec::new();
        let mut left = most;
        while let Some(first) = self.stretches.front_mut()
            && left > 0
        {
            let want = first.len.min(left);
            let segment = match &mut first.kind {
                Kind::Held(segment) => {
                    let front = segment.part(0, want);
                    segment.advance(want);
                    front
                }
                _ => {
                    let read = |sink: &mut dyn Sink| self.ring.read(sink, want, false);
                    let (bytes, done) = shared(want, read)?;
                    TxSegment::Bytes(bytes, 0..done)
                }
            };
            taken.push(segment);
            left -= want;
            self.len -= want;
            first.len -= want;
            if first.len == 0 {
                self.held -= usize::from(matches!(first.kind, Kind::Held(_)));
                self.stretches.pop_front();
            }
        }
        self.ring.release_if_empty();
        Ok(taken)
    }

    /// Puts what was taken back to the front.
    pub fn untake(&mut self, segments: Vec<TxSegment>) {
        for segment in segments.into_iter().rev() {
            let len = segment.len();
            if len > 0 {
                self.len += len;
                self.held += 1;
                let kind = Kind::Held(segment);
                self.stretches.push_front(Stretch { len, kind });
            }
        }
    }
}

/// Memory of `len` bytes that can be shared, into which `fill` puts something; how much.
///
/// # Errors
/// Those of `fill`.
pub fn shared(
    len: usize,
    fill: impl FnOnce(&mut dyn Sink) -> Result<usize>,
) -> Result<(Arc<[u8]>, usize)> {
    let mut bytes: Arc<[u8]> = core::iter::repeat_n(0, len).collect();
    let memory = Arc::get_mut(&mut bytes).ok_or(Errno::ENOMEM)?;
    let done = fill(&mut SliceSink::new(memory))?;
    Ok((bytes, done))
}

/// Copies up to `limit` bytes of a segment.
fn copy(segment: &TxSegment, limit: usize, sink: &mut dyn Sink) -> Result<usize> {
    let want = segment.len().min(limit).min(sink.remaining());
    match segment {
        TxSegment::Bytes(bytes, range) => {
            let end = range.start + want;
            sink.put(bytes.get(range.start..end).unwrap_or(&[]))
        }
        TxSegment::Frame { frame, offset, .. } => {
            let start = *offset as usize;
            sink.put_from(want, &mut |at, room| frame.read(start + at, room))
        }
    }
}
