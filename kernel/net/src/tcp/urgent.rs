//! Urgent data (RFC 9293 §3.8.5, RFC 6093) as Linux has it: the pointer names the byte after the urgent one;
//! of several only the newest counts; unless `SO_OOBINLINE`, that byte is read apart, with `MSG_OOB`, and
//! the stream skips it. A read never goes past the mark.

use errno::{Errno, Result};
use iobuf::{Sink, Source};

use super::header::{Segment, URG};
use super::socket::{Phase, TcpSocket};
use super::tcb::{State, Tcb};
use crate::pkt::Payload;
use crate::poll::Events;
use crate::seq;
use crate::socket::{MsgFlags, RecvMeta};

/// What became of the peer's newest urgent byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Byte {
    /// There is none, or it has been passed.
    #[default]
    None,
    /// Announced, not here.
    Awaited,
    /// Here.
    Here(u8),
    /// Read with `MSG_OOB`; the mark stays in the stream.
    Taken,
}

/// The peer's urgent mark.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Urgent {
    byte: Byte,
    /// Its sequence number.
    at: u32,
}

/// How the mark bounds a read.
pub(super) struct Gate {
    /// Bytes to leave out first: the urgent one.
    pub skip: usize,
    /// Bytes to read at most, without what is left out.
    pub most: usize,
}

impl Tcb {
    /// The next byte the program reads.
    fn copied_seq(&self) -> u32 {
        self.irs.wrapping_add(1).wrapping_add(self.copied as u32)
    }

    /// A segment that may announce an urgent byte, or bring it.
    pub(super) fn on_urgent(&mut self, segment: &Segment, payload: &Payload) {
        if segment.has(URG) {
            // The pointer names the byte after, but 0 can only name the first.
            let offset = u32::from(segment.urgent).saturating_sub(1);
            self.announce(segment.seq.wrapping_add(offset));
        }
        if self.rcv_urgent.byte == Byte::Awaited {
            let offset = self.rcv_urgent.at.wrapping_sub(segment.seq);
            if offset < segment.len
                && let Some(byte) = byte_at(payload, offset as usize)
            {
                self.rcv_urgent.byte = Byte::Here(byte);
                self.effects.events |= Events::IN | Events::PRI;
            }
        }
    }

    fn announce(&mut self, at: u32) {
        let old = self.rcv_urgent;
        if seq::gt(self.copied_seq(), at)
            || seq::lt(at, self.rcv_nxt)
            || old.byte != Byte::None && !seq::gt(at, old.at)
        {
            return;
        }
        // The last one, if it is what comes next in the stream, must not turn up there now that another is
        // the mark. A reader at work on it leaves it out itself.
        let unread = self.rcv_nxt.wrapping_sub(self.copied_seq());
        if old.byte != Byte::None
            && old.at == self.copied_seq()
            && !self.opts.oob_inline
            && unread > 0
            && self.recvq.len() == unread as usize
        {
            let mut front = self.recvq.take(1);
            if let Some(first) = front.first_mut() {
                first.advance(1);
            }
            self.recvq.untake(front);
            self.copied += 1;
        }
        self.rcv_urgent = Urgent {
            byte: Byte::Awaited,
            at,
        };
        // A notice of RDBAND is of a new mark: the room above raises SIGURG.
        self.effects.events |= Events::PRI | Events::RDBAND;
    }

    /// Whether an urgent mark is anywhere ahead: then [`Tcb::urgent_gate`] has to be asked.
    #[inline]
    pub(super) fn has_mark(&self) -> bool {
        self.rcv_urgent.byte != Byte::None
    }

    /// How far a read that has got `done` bytes may go; `None`: not at all.
    pub(super) fn urgent_gate(&self, done: usize, most: usize) -> Option<Gate> {
        let ahead = self.rcv_urgent.at.wrapping_sub(self.copied_seq()) as usize;
        if !self.has_mark() || ahead >= self.recvq.len() {
            let waits = self.has_mark() && ahead == 0 && done > 0;
            return (!waits).then_some(Gate { skip: 0, most });
        }
        match ahead {
            0 if done > 0 => None,
            0 => Some(Gate {
                skip: usize::from(!self.opts.oob_inline),
                most,
            }),
            n => Some(Gate {
                skip: 0,
                most: most.min(n),
            }),
        }
    }

    /// The program has read on: past the mark there is none.
    #[inline]
    pub(super) fn pass_mark(&mut self) {
        if self.has_mark() && seq::gt(self.copied_seq(), self.rcv_urgent.at) {
            self.rcv_urgent.byte = Byte::None;
        }
    }

    /// `SIOCATMARK`.
    pub(super) fn at_mark(&self) -> bool {
        self.has_mark() && self.rcv_urgent.at == self.copied_seq()
    }

    /// Whether `poll` has something urgent to tell.
    pub(super) fn urgent_here(&self) -> bool {
        matches!(self.rcv_urgent.byte, Byte::Here(_))
    }

    /// Bytes to read for `poll`, which does not count an urgent one that comes next.
    pub(super) fn readable(&self) -> usize {
        let apart = self.at_mark() && !self.opts.oob_inline;
        self.recvq.len().saturating_sub(usize::from(apart))
    }

    /// `FIONREAD`: up to the mark.
    pub(super) fn to_mark(&self) -> usize {
        let len = self.recvq.len();
        let ahead = self.rcv_urgent.at.wrapping_sub(self.copied_seq()) as usize;
        if self.opts.oob_inline || !self.has_mark() || ahead >= len {
            len
        } else {
            ahead
        }
    }

    /// The URG flag and pointer of a segment that starts at `start`.
    pub(super) fn urgent_pointer(&self, start: u32) -> Option<u16> {
        let end = self.snd_urgent?;
        if !seq::gt(end, start) {
            return None;
        }
        let ahead = end.wrapping_sub(start);
        match u16::try_from(ahead) {
            Ok(pointer) => Some(pointer),
            // Too far to say where, but all that has been sent is before it.
            Err(_) if seq::gt(start.wrapping_add(0xffff), self.snd_nxt) => Some(u16::MAX),
            Err(_) => None,
        }
    }
}

fn byte_at(payload: &Payload, mut offset: usize) -> Option<u8> {
    for part in payload {
        let len = part.len();
        if offset >= len {
            offset -= len;
            continue;
        }
        let (mut found, mut before) = (None, 0);
        part.with(|run| {
            if found.is_none() {
                found = offset.checked_sub(before).and_then(|i| run.get(i).copied());
            }
            before += run.len();
        });
        return found;
    }
    None
}

impl TcpSocket {
    /// `send` with `MSG_OOB`: the last byte of what is taken is urgent.
    pub(super) fn send_urgent(
        &self,
        source: &mut dyn Source,
        more: bool,
        now: u64,
    ) -> Result<usize> {
        let mark = |on| self.with_tcb(now, |tcb| tcb.sending_urgent = on);
        let mut done = 0;
        mark(true);
        let result = loop {
            match self.send_some(source, more, now) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break Ok(done),
                Err(error) => break Err(error),
            }
            if source.remaining() == 0 {
                break Ok(done);
            }
        };
        mark(false);
        result
    }

    /// `recv` with `MSG_OOB`: never waits.
    ///
    /// # Errors
    /// `EINVAL` when there is no urgent byte apart from the stream, `EAGAIN` when it is on its way.
    pub(super) fn recv_urgent(&self, sink: &mut dyn Sink, flags: MsgFlags) -> Result<RecvMeta> {
        let mut inner = self.inner.lock();
        let Phase::Conn(tcb) = &mut inner.phase else {
            return Err(Errno::EINVAL);
        };
        let over = matches!(tcb.state, State::Closed | State::TimeWait);
        let byte = match tcb.rcv_urgent.byte {
            _ if tcb.opts.oob_inline => return Err(Errno::EINVAL),
            Byte::None | Byte::Taken => return Err(Errno::EINVAL),
            Byte::Awaited if over || tcb.shutdown_rcv => return Ok(RecvMeta::default()),
            Byte::Awaited => return Err(Errno::EAGAIN),
            Byte::Here(byte) => byte,
        };
        if !flags.contains(MsgFlags::PEEK) {
            tcb.rcv_urgent.byte = Byte::Taken;
        }
        drop(inner);
        let mut meta = RecvMeta {
            flags: MsgFlags::OOB,
            ..RecvMeta::default()
        };
        if sink.remaining() == 0 {
            meta.flags |= MsgFlags::TRUNC;
            return Ok(meta);
        }
        if !flags.contains(MsgFlags::TRUNC) {
            sink.put(&[byte])?;
        }
        (meta.len, meta.full_len) = (1, 1);
        Ok(meta)
    }
}
