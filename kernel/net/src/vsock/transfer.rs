//! Data through a vsock connection: sending within the peer's credit, receiving what waits.

use alloc::sync::Arc;
use alloc::vec::Vec;

use drivers::vsock::HEADER_LEN;
use errno::{Errno, Result};
use iobuf::{Sink, Source};

use super::VsockSocket;
use super::conn::{Chunk, Inner, State};
use super::header::{EOM, EOR, NO_RECEIVE, NO_SEND, op};
use crate::socket::{MsgFlags, RecvMeta};

impl VsockSocket {
    /// Sends: a stream as much as there is credit for, a message whole.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOTCONN`, `EPIPE`, `EMSGSIZE`, `EFAULT`.
    pub fn send(&self, source: &mut dyn Source, flags: MsgFlags) -> Result<usize> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let _sender = self.sending.lock();
        let me = self.strong()?;
        let total = source.remaining();
        let mut done = 0;
        let result = loop {
            let left = total - done;
            let reserved = self.reserve(&me, left, done);
            let len = match reserved {
                Ok(len) => len,
                Err(error) => break Err(error),
            };
            if len == 0 && self.stream {
                break Ok(());
            }
            let mut packet = alloc::vec![0; HEADER_LEN + len];
            let taken = source.take(&mut packet[HEADER_LEN..]);
            let mut inner = self.inner.lock();
            if taken.as_ref().is_ok_and(|taken| *taken == len) {
                let end = !self.stream && done + len == total;
                let mut bits = if end { EOM } else { 0 };
                if end && flags.contains(MsgFlags::EOR) {
                    bits |= EOR;
                }
                let packet = inner.packet(op::RW, bits, packet.into());
                self.vsock.push(packet);
                done += len;
            } else {
                inner.unreserve(len);
                break Err(taken.err().unwrap_or(Errno::EFAULT));
            }
            if done == total {
                break Ok(());
            }
        };
        self.vsock.flush();
        match result {
            Err(error) if done == 0 || !self.stream => Err(error),
            _ => Ok(done),
        }
    }

    /// Sets credit aside for the next packet of `left` bytes.
    fn reserve(&self, me: &Arc<VsockSocket>, left: usize, done: usize) -> Result<usize> {
        let mut inner = self.inner.lock();
        match inner.state {
            State::Connected => {}
            State::Over | State::Closing => return Err(Errno::EPIPE),
            _ => return Err(Errno::ENOTCONN),
        }
        if inner.shut & NO_SEND != 0 || inner.peer_shut & NO_RECEIVE != 0 {
            return Err(Errno::EPIPE);
        }
        let first = done == 0;
        if !self.stream && first && left > inner.peer_room() as usize {
            return Err(Errno::EMSGSIZE);
        }
        let len = inner.next_len(left);
        let short = if self.stream {
            len == 0 && left > 0
        } else {
            first && left > inner.credit() as usize
        };
        let crowded = (self.stream || first)
            && inner
                .peer
                .is_some_and(|peer| self.vsock.is_crowded(peer.cid, me));
        if short && let Some(request) = inner.credit_request() {
            self.vsock.push(request);
        }
        if short || crowded {
            return Err(Errno::EAGAIN);
        }
        inner.reserve(len);
        Ok(len)
    }

    /// Receives: a stream what is there, or one message.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOTCONN`, `ECONNRESET`, `EFAULT`.
    pub fn recv(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        let _receiver = self.receiving.lock();
        let want = sink.remaining();
        let mut chunks = {
            let mut inner = self.inner.lock();
            match inner.state {
                State::Connected | State::Over => {}
                _ => return Err(Errno::ENOTCONN),
            }
            if inner.shut & NO_RECEIVE != 0 {
                return Ok(RecvMeta::default());
            }
            if let Some(error) = inner.error.take() {
                return Err(error);
            }
            let chunks = take_chunks(&mut inner, want);
            if chunks.is_empty() {
                return if want == 0 && self.stream || inner.peer_shut & NO_SEND != 0 {
                    Ok(RecvMeta::default())
                } else {
                    Err(Errno::EAGAIN)
                };
            }
            chunks
        };
        let peek = flags.contains(MsgFlags::PEEK);
        let full_len: usize = chunks.iter().map(Chunk::len).sum();
        let eor = chunks.last().is_some_and(|chunk| chunk.eor);
        let mut len = 0;
        let mut fault = None;
        for chunk in &mut chunks {
            let copied = match sink.put(&chunk.bytes[chunk.from..]) {
                Ok(copied) => copied,
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            };
            len += copied;
            let whole = copied == chunk.len();
            if self.stream && !peek {
                chunk.from += copied;
            }
            if !whole {
                break;
            }
        }
        let keep = peek || fault.is_some() && len == 0;
        {
            let mut inner = self.inner.lock();
            let mut used = 0;
            if keep || self.stream {
                used = if keep { 0 } else { len };
                for chunk in chunks.into_iter().rev().filter(|c| keep || c.len() > 0) {
                    inner.messages += usize::from(chunk.end);
                    inner.rx.push_front(chunk);
                }
            } else {
                used += full_len;
            }
            if used > 0
                && let Some(update) = inner.taken(used)
            {
                self.vsock.push(update);
            }
        }
        self.vsock.flush();
        if let Some(error) = fault.filter(|_| len == 0) {
            return Err(error);
        }
        let mut answer = MsgFlags::empty();
        answer.set(MsgFlags::TRUNC, !self.stream && len < full_len);
        answer.set(MsgFlags::EOR, eor);
        Ok(RecvMeta {
            len,
            full_len: if self.stream { len } else { full_len },
            flags: answer,
            ..RecvMeta::default()
        })
    }
}

/// Takes off the queue what a receive of `want` bytes may use: of a stream enough chunks, or one whole message.
fn take_chunks(inner: &mut Inner, want: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut len = 0;
    if !inner.stream && inner.messages == 0 {
        return chunks;
    }
    while !inner.stream || len < want {
        let Some(chunk) = inner.rx.pop_front() else {
            break;
        };
        len += chunk.len();
        let end = chunk.end;
        chunks.push(chunk);
        if end {
            inner.messages -= 1;
            break;
        }
    }
    chunks
}
