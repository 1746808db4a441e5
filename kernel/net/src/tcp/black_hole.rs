//! Black holes: paths on which large packets vanish without a word from a router. A connection that finds itself in one sends
//! small segments from then on, and after a while looks for the size that passes (packetization-layer path-MTU discovery,
//! RFC 4821): one segment larger than the others, followed by enough of the usual ones to tell soon what became of it, and whose
//! loss is not held for congestion.

use alloc::boxed::Box;
use core::ops::Range;

use super::header::{ACK, LEN};
use super::tcb::{Ca, Sent, Tcb};
use crate::seq;
use crate::stack::Stack;

/// How long a size is kept before a larger one is tried (`tcp_probe_interval`).
const INTERVAL_NS: u64 = 600_000_000_000;
/// A search is over when no more than so many bytes are in doubt (`tcp_probe_threshold`).
const THRESHOLD: u32 = 8;
/// Usual segments that have to follow a probe: their acknowledgements tell that it is lost.
const FOLLOWERS: u32 = 4;

/// What a connection knows of the packets that pass. Sizes are bytes of IP packets.
#[derive(Debug)]
pub(crate) struct BlackHole {
    /// This much passes.
    low: u32,
    /// This much did not pass; `u32::MAX` before a search began.
    high: u32,
    /// Before this time nothing larger is tried.
    at: u64,
    probe: Option<Probe>,
}

/// The segment that tries.
#[derive(Clone, Copy, Debug)]
struct Probe {
    seq: u32,
    end: u32,
    size: u32,
}

/// What [`Tcb::probe_path`] did.
pub(super) enum Probing {
    /// There is nothing to try now.
    No,
    /// There will be when the window has opened a little: what would go out now is needed for it.
    Soon,
    Sent,
}

impl Tcb {
    /// The largest packet that is sent now but for probes, in bytes.
    pub fn path_mtu(&self) -> u32 {
        match &self.black_hole {
            Some(hole) => self.dst.mtu.min(hole.low),
            None => self.dst.mtu,
        }
    }

    /// Packets of more than `passes` bytes seem to vanish.
    pub(super) fn fell_into_black_hole(&mut self, stack: &Stack, passes: u32, now: u64) {
        stack.counters().mtup_fail.bump();
        self.black_hole = Some(Box::new(BlackHole {
            low: passes,
            high: u32::MAX,
            at: now + INTERVAL_NS,
            probe: None,
        }));
        self.update_mss();
        // Others to the same place need not find it out themselves for a while.
        stack.learn_pmtu(self.key.remote, passes, now);
    }

    /// Headers of a segment with our usual options, in bytes.
    pub(super) fn headers(&self) -> u32 {
        (self.ip_len() + LEN) as u32 + if self.ts_ok { 12 } else { 0 }
    }

    /// The largest packet there is use for, were there no hole.
    fn largest(&self) -> u32 {
        self.dst
            .mtu
            .min(self.agreed_mss() + (self.ip_len() + LEN) as u32)
    }

    /// The size to try next, if a search is on or due.
    fn next_size(&mut self, now: u64) -> Option<u32> {
        let most = self.largest();
        let hole = self.black_hole.as_mut()?;
        if hole.probe.is_some() || now < hole.at || most <= hole.low {
            return None;
        }
        if hole.high > most {
            // Perhaps the hole is gone.
            hole.high = u32::MAX;
            return Some(most);
        }
        if hole.high - hole.low <= THRESHOLD {
            hole.high = u32::MAX;
            hole.at = now + INTERVAL_NS;
            return None;
        }
        Some(hole.low + (hole.high - hole.low) / 2)
    }

    /// Sends a probe, if it is time for one and there is data for it (RFC 4821 §7.4).
    pub(super) fn probe_path(&mut self, stack: &Stack, now: u64) -> Probing {
        let calm = self.ca == Ca::Open
            && self.sacked == 0
            && self.lost == 0
            && self.retrans == 0
            && self.dup_acks == 0
            && self.retransmits == 0
            && self.snd_urgent.is_none()
            && self.dsack.is_none()
            && self.recvq.sack_blocks().is_empty()
            && self.opts.df();
        if !calm {
            return Probing::No;
        }
        let Some(size) = self.next_size(now) else {
            return Probing::No;
        };
        let len = size - self.headers().min(size);
        let need = len + FOLLOWERS * self.mss;
        let window = self.usable_window();
        if len <= self.mss || self.unsent() < need || window < need || self.cc.cwnd < need {
            return Probing::No;
        }
        let pipe = self.pipe();
        if self.cc.cwnd.saturating_sub(pipe) < len {
            return if pipe > 0 { Probing::Soon } else { Probing::No };
        }
        // For this one segment the size is another.
        let usual = core::mem::replace(&mut self.mss, len);
        let before = self.segs_out;
        let (sent, _) = self.emit(stack, now, self.snd_nxt, len, ACK);
        self.mss = usual;
        if sent == 0 {
            return Probing::No;
        }
        let seq = self.snd_nxt;
        self.note_new(stack, sent, false, before, now);
        // Where the card takes few pieces it became shorter.
        if sent > usual
            && let Some(hole) = &mut self.black_hole
        {
            hole.probe = Some(Probe {
                seq,
                end: self.snd_nxt,
                size: size - (len - sent),
            });
        }
        Probing::Sent
    }

    /// Looks for what is lost; true when that means congestion. A probe that alone was lost was too large
    /// (RFC 4821 §7.6.2).
    pub(super) fn detect_congestion(&mut self, stack: &Stack, now: u64) -> bool {
        let lost = self.detect(stack, now);
        let Some(probe) = self.black_hole.as_ref().and_then(|hole| hole.probe) else {
            return lost;
        };
        if seq::ge(self.snd_una, probe.end) {
            self.probe_passed(stack, probe.size);
            return lost;
        }
        let (mut there, mut missing) = (true, false);
        for sent in self.sent.range(self.pieces_of(probe)) {
            there &= sent.is(Sent::SACKED);
            missing |= sent.is(Sent::LOST);
        }
        if there {
            self.probe_passed(stack, probe.size);
        } else if missing {
            let alone = self.probe_lost(stack, probe) && self.ca == Ca::Open;
            return lost && !alone;
        }
        lost
    }

    /// Where it is in the list of what is on its way.
    fn pieces_of(&self, probe: Probe) -> Range<usize> {
        let first = self.sent.partition_point(|s| seq::le(s.end, probe.seq));
        let end = self.sent.partition_point(|s| seq::lt(s.seq, probe.end));
        first..end.max(first)
    }

    fn probe_passed(&mut self, stack: &Stack, size: u32) {
        stack.counters().mtup_success.bump();
        if size >= self.largest() {
            self.black_hole = None;
        } else if let Some(hole) = &mut self.black_hole {
            hole.probe = None;
            hole.low = size;
        }
        self.update_mss();
    }

    /// The probe goes again in usual segments. Returns whether nothing else is lost.
    fn probe_lost(&mut self, stack: &Stack, probe: Probe) -> bool {
        stack.counters().mtup_fail.bump();
        if let Some(hole) = &mut self.black_hole {
            hole.probe = None;
            hole.high = probe.size;
        }
        let mut of_probe = 0;
        let pieces = self.pieces_of(probe);
        for sent in self.sent.range_mut(pieces) {
            if sent.is(Sent::SACKED) {
                continue;
            }
            if !sent.is(Sent::LOST) {
                sent.flags |= Sent::LOST;
                self.lost += sent.len();
            }
            of_probe += sent.len();
        }
        // Duplicates that are still to come tell of the same.
        self.dup_acks = 0;
        self.recovery_point = self.snd_nxt;
        self.lost == of_probe
    }

    /// What begins at `seq` is sent again by a timer: whatever becomes of the probe tells nothing any more, and was too slow.
    pub(super) fn probe_given_up(&mut self, stack: &Stack, seq: u32) {
        if let Some(hole) = &mut self.black_hole
            && let Some(probe) = hole.probe
            && seq::le(probe.seq, seq)
            && seq::lt(seq, probe.end)
        {
            stack.counters().mtup_fail.bump();
            hole.probe = None;
            hole.high = probe.size;
        }
    }

    /// A router tells that the segment at `about` was larger than `mtu`; true when that was a probe, and what
    /// passes is still more than what is sent otherwise.
    pub(super) fn probe_too_big(&mut self, stack: &Stack, about: u32, mtu: u32, now: u64) -> bool {
        let Some(hole) = &self.black_hole else {
            return false;
        };
        let Some(probe) = hole.probe else {
            return false;
        };
        let about_it = seq::le(probe.seq, about) && seq::lt(about, probe.end);
        if !about_it || mtu < hole.low || mtu >= probe.size {
            return false;
        }
        self.probe_lost(stack, probe);
        stack.learn_pmtu(self.key.remote, mtu, now);
        self.dst.mtu = mtu;
        if let Some(hole) = &mut self.black_hole {
            // The router knows: that is the size to try.
            hole.high = u32::MAX;
        }
        true
    }
}
