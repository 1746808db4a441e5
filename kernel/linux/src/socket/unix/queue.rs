//! What waits to be read in a UNIX socket: bytes in stretches, each a message or a piece of a
//! stream, with the descriptors and ids that came along. Pure.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::OpenFile;
use iobuf::{Sink, Source};

use super::garbage::InFlight;
use crate::files::ring::Ring;
use crate::socket::addr::UnixAddr;
use crate::socket::ops::Credentials;

/// What comes along with bytes.
pub struct Extras {
    /// Descriptors on their way (`SCM_RIGHTS`).
    pub rights: InFlight,
    /// The sender's ids.
    pub credentials: Credentials,
    /// The sender's name.
    pub from: UnixAddr,
}

struct Stretch {
    len: usize,
    /// It was looked at: a message without bytes is passed over the next time (`SO_PEEK_OFF`).
    peeked: bool,
    extras: Extras,
}

/// What was taken.
pub struct Taken {
    /// Bytes moved.
    pub len: usize,
    /// The length of the whole message.
    pub full_len: usize,
    /// Descriptors that came along.
    pub rights: Vec<Arc<OpenFile>>,
    /// The sender's ids.
    pub credentials: Credentials,
    /// The sender's name.
    pub from: UnixAddr,
    /// Descriptors came along: a stream's receive ends here.
    pub stop: bool,
}

/// Messages or a stream, in order.
#[derive(Default)]
pub struct Queue {
    ring: Ring,
    stretches: VecDeque<Stretch>,
}

impl Queue {
    /// Bytes inside.
    pub fn bytes(&self) -> usize {
        self.ring.len()
    }

    /// Messages inside.
    pub fn messages(&self) -> usize {
        self.stretches.len()
    }

    /// Looks at each descriptor inside.
    pub fn each_right(&self, look: &mut dyn FnMut(&Arc<OpenFile>)) {
        for stretch in &self.stretches {
            stretch.extras.rights.peek().iter().for_each(&mut *look);
        }
    }

    /// Takes all descriptors out; the bytes stay.
    pub fn take_rights(&mut self) -> Vec<InFlight> {
        self.stretches
            .iter_mut()
            .map(|stretch| core::mem::take(&mut stretch.extras.rights))
            .collect()
    }

    /// The length of the first message.
    pub fn first_len(&self) -> usize {
        self.stretches.front().map_or(0, |first| first.len)
    }

    /// Appends bytes of a stream as long as there are less than `limit`; what comes along stays with
    /// the first of them.
    ///
    /// # Errors
    /// `EAGAIN` when it is full, `EFAULT`, `ENOMEM`.
    pub fn push_stream(
        &mut self,
        source: &mut dyn Source,
        limit: usize,
        extras: Extras,
    ) -> Result<usize> {
        if self.ring.len() >= limit {
            return Err(Errno::EAGAIN);
        }
        let done = self.ring.write(source, limit)?;
        if done == 0 {
            return Ok(0);
        }
        match self.stretches.back_mut() {
            Some(last)
                if last.extras.rights.is_empty()
                    && extras.rights.is_empty()
                    && last.extras.credentials == extras.credentials =>
            {
                last.len += done;
            }
            _ => self.stretches.push_back(Stretch {
                len: done,
                peeked: false,
                extras,
            }),
        }
        Ok(done)
    }

    /// Appends one message.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`.
    pub fn push_message(&mut self, source: &mut dyn Source, extras: Extras) -> Result<usize> {
        let want = source.remaining();
        let before = self.ring.len();
        let done = if want == 0 {
            0
        } else {
            self.ring.write(source, before + want)?
        };
        self.stretches.push_back(Stretch {
            len: done,
            peeked: false,
            extras,
        });
        Ok(done)
    }

    /// Looks at the message in which byte `off` of all lies, from there on.
    ///
    /// # Errors
    /// `EAGAIN` when nothing reaches that far, `EFAULT`.
    pub fn peek_message(&mut self, off: usize, sink: &mut dyn Sink) -> Result<Taken> {
        let (index, before) = self.message_at(off).ok_or(Errno::EAGAIN)?;
        let message = self.stretches.get_mut(index).ok_or(Errno::EAGAIN)?;
        message.peeked = true;
        let skip = off - before;
        Ok(Taken {
            len: self.ring.copy_out(sink, off, message.len - skip)?,
            full_len: message.len - skip,
            rights: message.extras.rights.peek(),
            credentials: message.extras.credentials,
            from: message.extras.from.clone(),
            stop: true,
        })
    }

    /// Which message byte `off` of all lies in, and how much is before that message.
    pub fn message_at(&self, off: usize) -> Option<(usize, usize)> {
        let mut before = 0;
        for (index, message) in self.stretches.iter().enumerate() {
            if off < before + message.len || off == before && !message.peeked {
                return Some((index, before));
            }
            before += message.len;
        }
        None
    }

    /// Takes a message; what does not fit is lost. With `peek` it stays.
    ///
    /// # Errors
    /// `EAGAIN` when there is none, `EFAULT`.
    pub fn take_message(&mut self, sink: &mut dyn Sink, peek: bool) -> Result<Taken> {
        let first = self.stretches.front().ok_or(Errno::EAGAIN)?;
        let full_len = first.len;
        let len = self.ring.copy_out(sink, 0, full_len)?;
        let (credentials, from) = (first.extras.credentials, first.extras.from.clone());
        let rights = if peek {
            first.extras.rights.peek()
        } else {
            self.ring.discard(full_len);
            self.ring.release_if_empty();
            match self.stretches.pop_front() {
                Some(mut first) => first.extras.rights.take(),
                None => return Err(Errno::EAGAIN),
            }
        };
        Ok(Taken {
            len,
            full_len,
            rights,
            credentials,
            from,
            stop: true,
        })
    }

    /// Takes bytes of a stream, up to the end of the first stretch that has descriptors.
    ///
    /// # Errors
    /// `EAGAIN` when there is nothing, `EFAULT`.
    pub fn take_stream(&mut self, sink: &mut dyn Sink, peek: bool) -> Result<Taken> {
        let first = &self.stretches.front().ok_or(Errno::EAGAIN)?.extras;
        let (credentials, from) = (first.credentials, first.from.clone());
        let mut rights = Vec::new();
        let mut len = 0;
        let mut stop = false;
        let mut at = 0;
        while let Some(stretch) = self.stretches.get_mut(at) {
            if stretch.extras.credentials != credentials {
                break;
            }
            let skip = if peek { len } else { 0 };
            let done = match self.ring.copy_out(sink, skip, stretch.len) {
                Ok(0) => break,
                Ok(done) => done,
                Err(error) if len == 0 => return Err(error),
                Err(_) => break,
            };
            len += done;
            if !stretch.extras.rights.is_empty() {
                stop = true;
                rights = if peek {
                    stretch.extras.rights.peek()
                } else {
                    stretch.extras.rights.take()
                };
            }
            let whole = done == stretch.len;
            if peek {
                at += 1;
            } else {
                stretch.len -= done;
                self.ring.discard(done);
                if whole {
                    self.stretches.pop_front();
                }
            }
            if stop || !whole {
                break;
            }
        }
        self.ring.release_if_empty();
        Ok(Taken {
            len,
            full_len: len,
            rights,
            credentials,
            from,
            stop,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iobuf::{SliceSource, VecSink};

    fn extras() -> Extras {
        Extras {
            rights: InFlight::default(),
            credentials: Credentials::NOBODY,
            from: UnixAddr::Unnamed,
        }
    }

    #[test]
    fn a_stream_is_glued_and_bounded() {
        let mut queue = Queue::default();
        let mut push = |bytes: &[u8]| queue.push_stream(&mut SliceSource::new(bytes), 6, extras());
        assert_eq!(push(b"ab"), Ok(2));
        assert_eq!(push(b"cdefgh"), Ok(4));
        assert_eq!(push(b"x"), Err(Errno::EAGAIN));
        let mut sink = VecSink::new(4);
        assert_eq!(queue.take_stream(&mut sink, true).unwrap().len, 4);
        let mut sink = VecSink::new(9);
        assert_eq!(queue.take_stream(&mut sink, false).unwrap().len, 6);
        assert_eq!(sink.into_bytes(), b"abcdef");
        assert_eq!(queue.messages(), 0);
    }

    #[test]
    fn messages_stay_apart_and_empty_ones_count() {
        let mut queue = Queue::default();
        for message in [&b"one"[..], b"", b"three"] {
            queue
                .push_message(&mut SliceSource::new(message), extras())
                .unwrap();
        }
        let mut sink = VecSink::new(2);
        let taken = queue.take_message(&mut sink, false).unwrap();
        assert_eq!((taken.len, taken.full_len), (2, 3));
        let taken = queue.take_message(&mut VecSink::new(9), false).unwrap();
        assert_eq!((taken.len, taken.full_len), (0, 0));
        assert_eq!(queue.first_len(), 5);
        assert_eq!(queue.messages(), 1);
    }
    #[test]
    fn peeking_from_an_offset_passes_messages_over() {
        let mut queue = Queue::default();
        for message in [&b"one"[..], b"three", b"", b"x"] {
            queue
                .push_message(&mut SliceSource::new(message), extras())
                .unwrap();
        }
        let mut look = |off, most| {
            let mut sink = VecSink::new(most);
            queue
                .peek_message(off, &mut sink)
                .map(|taken| (sink.into_bytes(), taken.full_len))
        };
        assert_eq!(look(0, 9), Ok((b"one".to_vec(), 3)));
        assert_eq!(look(2, 9), Ok((b"e".to_vec(), 1)));
        assert_eq!(look(3, 2), Ok((b"th".to_vec(), 5)));
        assert_eq!(look(7, 9), Ok((b"e".to_vec(), 1)));
        assert_eq!(look(8, 9), Ok((vec![], 0)));
        assert_eq!(look(8, 9), Ok((b"x".to_vec(), 1)));
        assert_eq!(look(9, 9), Err(Errno::EAGAIN));
        assert_eq!(queue.messages(), 4);
    }
}
