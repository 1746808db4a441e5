//! What an acknowledgement says of what was sent: removing it from the list, the SACK scoreboard
//! (RFC 2018, 2883), RACK (RFC 8985), and the states of recovery: fast recovery with proportional rate
//! reduction (RFC 6937), the timeout, and undoing both when they were for nothing (RFC 3522).

use super::header::Segment;
use super::tcb::{Ca, MAX_REORDERING, Rtx, Sent, Tcb};
use crate::seq;
use crate::stack::Stack;

/// Duplicate acknowledgements that mean loss when the peer has no SACK.
const DUP_THRESHOLD: u32 = 3;
/// Timeouts closer than this to now are due: the wheel is no finer.
const GRAIN_NS: u64 = 1_000_000;

/// What an acknowledgement brought.
#[derive(Default)]
struct Brought {
    /// Bytes the peer told for the first time that it has.
    delivered: u32,
    /// Round trip of the newest of them that was sent once.
    rtt: Option<u64>,
    /// New SACK information.
    sacked: bool,
    /// A hole was found to be one of order, not of loss.
    reordered: bool,
    /// End of a range that the peer got twice.
    dsack: Option<u32>,
}

impl Tcb {
    /// Works through the acknowledgement in `segment`, which is within what was sent.
    /// `duplicate`: it changed nothing else (no data, no window).
    pub fn acknowledge(&mut self, stack: &Stack, segment: &Segment, duplicate: bool, now: u64) {
        let ack = segment.ack;
        let advanced = seq::gt(ack, self.snd_una);
        let acked = ack.wrapping_sub(self.snd_una);
        let limited = self.was_limited();
        let mut brought = Brought::default();
        if self.sack_ok && segment.sack_count > 0 {
            self.score(segment, &mut brought, now, stack);
            brought.reordered = false;
        }
        if advanced {
            self.clean(ack, &mut brought, now, stack);
            self.sendq_advance(ack, stack);
            self.snd_una = ack;
            self.snd_urgent = self.snd_urgent.filter(|end| seq::gt(*end, ack));
            self.bytes_acked += u64::from(acked);
            self.rtt.backoff = 0;
            self.retransmits = 0;
            self.dup_acks = 0;
            self.stalled_since = now;
            if let crate::route::Hop::Neighbour(n) = &self.dst.hop {
                n.confirm(now);
            }
        } else if duplicate && !self.sent.is_empty() && !self.sack_ok {
            self.dup_acks += 1;
        }
        let delivered = brought.delivered.div_ceil(self.mss);
        self.delivered = self.delivered.wrapping_add(delivered);
        stack.counters().delivered.add(u64::from(delivered));
        self.rate.on_ack(ack, brought.delivered, self.rtt.min, now);
        let congested = self.ecn_echoed(segment);
        if congested {
            self.delivered_ce = self.delivered_ce.wrapping_add(delivered);
            stack.counters().delivered_ce.add(u64::from(delivered));
        }
        stack
            .counters()
            .tcp_pure_acks
            .add(u64::from(segment.len == 0));
        if let Some(rtt) = brought.rtt {
            self.take_rtt(rtt, now);
        } else if advanced && self.ts_ok {
            // Everything acknowledged was sent twice; the echoed timestamp tells which copy it was (RFC 7323 §4).
            if let Some((_, echo)) = segment.ts.filter(|(_, echo)| *echo != 0) {
                let ms = self.ts_value(now).wrapping_sub(echo);
                if ms < 100_000 {
                    self.take_rtt(u64::from(ms.max(1)) * 1_000_000, now);
                }
            }
        }
        if brought.dsack.is_some() {
            self.on_dsack(stack);
        }
        let newly_lost = self.detect_congestion(stack, now);
        if self.rack.probe.is_some() {
            self.check_probe(ack, acked, &brought, duplicate, stack);
        }
        if congested {
            self.ecn_reduce();
        }
        self.recover(stack, segment, advanced, newly_lost, &brought, now);
        let growing = match self.ca {
            Ca::Open => limited,
            Ca::Loss => true,
            Ca::Recovery | Ca::Cwr => false,
        };
        if growing && brought.delivered > 0 {
            let srtt = self.rtt.srtt_or(100_000_000);
            self.cc.on_ack(brought.delivered, srtt, now);
        }
        if advanced {
            self.rto_from = now;
        }
        if advanced || brought.sacked || newly_lost {
            self.rearm(now);
        }
    }

    fn take_rtt(&mut self, rtt: u64, now: u64) {
        self.rtt.sample(rtt, now);
        self.cc.delay(rtt, self.snd_una, self.snd_nxt);
    }

    /// Whether the congestion window was what held us back (RFC 7661's question).
    fn was_limited(&mut self) -> bool {
        let limited =
            self.cwnd_limited || self.cc.in_slow_start() && self.cc.cwnd < 2 * self.in_flight();
        if self.in_flight() * 2 < self.cc.cwnd {
            self.cwnd_limited = false;
        }
        limited
    }

    pub(super) fn sendq_advance(&mut self, ack: u32, stack: &Stack) {
        if seq::gt(ack, self.sendq_seq) {
            let n = ack
                .wrapping_sub(self.sendq_seq)
                .min(self.sendq.len() as u32);
            self.sendq.advance(n as usize, &stack.chunks);
            self.sendq_seq = self.sendq_seq.wrapping_add(n);
        }
    }

    /// Removes what `ack` covers.
    fn clean(&mut self, ack: u32, brought: &mut Brought, now: u64, stack: &Stack) {
        while let Some(first) = self.sent.front_mut() {
            if seq::ge(first.seq, ack) {
                break;
            }
            let whole = seq::le(first.end, ack);
            let covered = seq::min(first.end, ack).wrapping_sub(first.seq);
            let sent = *first;
            if whole {
                self.sent.pop_front();
            } else {
                first.seq = ack;
            }
            if sent.is(Sent::SACKED) {
                self.sacked -= covered;
            } else {
                brought.delivered += covered;
                if sent.is(Sent::LOST) {
                    self.lost -= covered;
                }
                if sent.is(Sent::RETRANS) {
                    self.retrans -= covered;
                }
                if !sent.is(Sent::EVER_RETRANS) {
                    brought.rtt = Some(now.saturating_sub(sent.at));
                    if self.rack.valid && seq::lt(sent.end, self.rack.end) && self.sacked > 0 {
                        self.note_reordering(sent.seq, brought, stack);
                    }
                }
                self.rack_update(sent, now);
            }
        }
        if self.sent.is_empty() && self.sent.capacity() > 64 {
            self.sent.shrink_to(8);
        }
    }

    /// What starts at `late` came after later ones: the path reorders. Seen once for all that one list of an
    /// acknowledgement tells of it.
    fn note_reordering(&mut self, late: u32, brought: &mut Brought, stack: &Stack) {
        let ahead = self.rack.end.wrapping_sub(late).div_ceil(self.mss);
        self.reach = self.reach.max(ahead.min(MAX_REORDERING));
        self.rack.reordering = true;
        if !brought.reordered {
            brought.reordered = true;
            self.reord_seen = self.reord_seen.wrapping_add(1);
            stack.counters().sack_reorder.bump();
        }
    }

    /// Reads the SACK blocks.
    fn score(&mut self, segment: &Segment, brought: &mut Brought, now: u64, stack: &Stack) {
        let blocks = &segment.sacks[..usize::from(segment.sack_count)];
        for (i, &(left, right)) in blocks.iter().enumerate() {
            if !seq::lt(left, right) {
                continue;
            }
            // A duplicate: below what is acknowledged, or inside the next block (RFC 2883).
            if i == 0 {
                let inside = blocks
                    .get(1)
                    .is_some_and(|&(l, r)| seq::ge(left, l) && seq::le(right, r));
                if seq::le(right, segment.ack) || inside {
                    brought.dsack = Some(right);
                    if seq::le(right, segment.ack) {
                        stack.counters().dsack_recv.bump();
                    } else {
                        stack.counters().dsack_ofo_recv.bump();
                    }
                    continue;
                }
            }
            if seq::lt(left, self.snd_una) || seq::gt(right, self.snd_nxt) {
                stack.counters().sack_discard.bump();
                continue;
            }
            if seq::le(right, segment.ack) {
                continue;
            }
            self.score_block(left, right, brought, now, stack);
        }
    }

    fn score_block(
        &mut self,
        left: u32,
        right: u32,
        brought: &mut Brought,
        now: u64,
        stack: &Stack,
    ) {
        let mut index = self.sent.partition_point(|s| seq::le(s.end, left));
        while let Some(sent) = self.sent.get(index).copied() {
            if seq::ge(sent.seq, right) {
                break;
            }
            if sent.is(Sent::SACKED) {
                index += 1;
                continue;
            }
            if seq::lt(sent.seq, left) {
                self.split(index, left.wrapping_sub(sent.seq));
                index += 1;
                continue;
            }
            if seq::gt(sent.end, right) {
                self.split(index, right.wrapping_sub(sent.seq));
            }
            let Some(entry) = self.sent.get_mut(index) else {
                break;
            };
            let sent = *entry;
            let len = sent.len();
            entry.flags = entry.flags & !(Sent::LOST | Sent::RETRANS) | Sent::SACKED;
            if sent.is(Sent::LOST) {
                self.lost -= len;
            }
            if sent.is(Sent::RETRANS) {
                self.retrans -= len;
            }
            self.sacked += len;
            brought.delivered += len;
            brought.sacked = true;
            if !sent.is(Sent::EVER_RETRANS) {
                brought.rtt = Some(now.saturating_sub(sent.at));
                if self.rack.valid && seq::lt(sent.end, self.rack.end) {
                    self.note_reordering(sent.seq, brought, stack);
                }
            }
            self.rack_update(sent, now);
            index += 1;
        }
    }

    /// RFC 8985 §6.2 step 2: the most recently sent segment known to be delivered.
    fn rack_update(&mut self, sent: Sent, now: u64) {
        let rtt = now.saturating_sub(sent.at);
        // The acknowledgement of a retransmission that comes sooner than any round trip is of the original.
        if sent.is(Sent::EVER_RETRANS) && rtt < self.rtt.min {
            return;
        }
        if !self.rack.valid || later(sent.at, sent.end, self.rack.sent_at, self.rack.end) {
            self.rack.valid = true;
            self.rack.sent_at = sent.at;
            self.rack.end = sent.end;
            self.rack.rtt = rtt;
        }
    }

    /// Marks what is lost; true when something was.
    pub fn detect(&mut self, stack: &Stack, now: u64) -> bool {
        if self.sack_ok {
            self.rack_detect(stack, now)
        } else {
            self.reno_detect(stack)
        }
    }

    fn rack_detect(&mut self, stack: &Stack, now: u64) -> bool {
        if !self.rack.valid || self.sacked == 0 && self.retrans == 0 && self.lost == 0 {
            return false;
        }
        let window = self.reorder_window();
        let mut wait = 0;
        let mut found = false;
        for sent in &mut self.sent {
            if sent.is(Sent::SACKED) || sent.is(Sent::LOST) && !sent.is(Sent::RETRANS) {
                continue;
            }
            if !later(self.rack.sent_at, self.rack.end, sent.at, sent.end) {
                if !sent.is(Sent::EVER_RETRANS) {
                    // What follows was sent later still.
                    break;
                }
                continue;
            }
            let due = sent.at + self.rack.rtt + window;
            if due <= now + GRAIN_NS / 4 {
                let len = sent.end.wrapping_sub(sent.seq);
                if sent.is(Sent::RETRANS) {
                    let segments = len.div_ceil(self.mss);
                    stack.counters().lost_retransmit.add(segments.into());
                    sent.flags &= !Sent::RETRANS;
                    self.retrans -= len;
                }
                if !sent.is(Sent::LOST) {
                    sent.flags |= Sent::LOST;
                    self.lost += len;
                }
                found = true;
            } else {
                wait = wait.max(due - now);
            }
        }
        if wait > 0 {
            self.rtx = (Rtx::Reorder, now + wait.min(self.rtt.timeout()));
        } else if self.rtx.0 == Rtx::Reorder {
            self.arm_probe_or_rto(now);
        }
        found
    }

    fn reorder_window(&self) -> u64 {
        if !self.rack.reordering && (!self.orderly() || self.sacked >= DUP_THRESHOLD * self.mss) {
            return 0;
        }
        let least = if self.rtt.min == u64::MAX {
            0
        } else {
            self.rtt.min
        };
        (least / 4 * self.rack.reo_mult).min(self.rtt.srtt)
    }

    /// Without SACK: three duplicates mean that the first is lost (RFC 6582).
    fn reno_detect(&mut self, stack: &Stack) -> bool {
        if self.dup_acks < DUP_THRESHOLD || !self.orderly() {
            return false;
        }
        // Not again for a window already recovered (RFC 6582 §3.2 step 1).
        if seq::lt(self.snd_una, self.recovery_point) {
            return false;
        }
        stack.counters().reno_recovery.bump();
        self.mark_first_lost(stack)
    }

    fn mark_first_lost(&mut self, stack: &Stack) -> bool {
        let mss = self.mss;
        let Some(first) = self.sent.front().copied() else {
            return false;
        };
        if first.is(Sent::LOST) && !first.is(Sent::RETRANS) {
            return false;
        }
        if first.len() > mss && !first.is(Sent::LOST) {
            self.split(0, mss);
        }
        if let Some(first) = self.sent.front_mut() {
            let len = first.len();
            if first.is(Sent::RETRANS) {
                stack.counters().lost_retransmit.bump();
                first.flags &= !Sent::RETRANS;
                self.retrans -= len;
            }
            if !first.is(Sent::LOST) {
                first.flags |= Sent::LOST;
                self.lost += len;
            }
        }
        true
    }

    /// The peer got something twice: a retransmission was for nothing.
    fn on_dsack(&mut self, stack: &Stack) {
        self.dsack_dups += 1;
        // RFC 8985 §7.2: be more patient, for 16 recoveries.
        if seq::ge(self.snd_una, self.rack.dsack_round) {
            self.rack.dsack_round = self.snd_nxt;
            self.rack.reo_mult = (self.rack.reo_mult + 1).min(16);
        }
        if let Some(undo) = &mut self.undo_retrans {
            *undo = undo.saturating_sub(1);
            if *undo == 0 && self.ca != Ca::Open {
                stack.counters().dsack_undo.bump();
                self.undo();
            }
        }
    }

    /// Whether an acknowledgement says what became of a tail loss probe (RFC 8985 §7.4.2).
    fn check_probe(
        &mut self,
        ack: u32,
        acked: u32,
        brought: &Brought,
        duplicate: bool,
        stack: &Stack,
    ) {
        let Some((end, retransmitted)) = self.rack.probe else {
            return;
        };
        if seq::lt(ack, end) {
            return;
        }
        if !retransmitted || brought.dsack == Some(end) {
            // New data, or the peer has what was sent again twice: nothing was lost.
            self.rack.probe = None;
        } else if seq::gt(ack, end) {
            // News of later data, and none of a second copy: the probe repaired a loss nobody noticed. The window has
            // to hear of it.
            self.rack.probe = None;
            if self.ca == Ca::Open {
                stack.counters().loss_probe_recovery.bump();
                let flight = self.in_flight() + acked;
                let reduced = self.cc.reduce(flight);
                self.cc.ssthresh = reduced;
                self.cc.cwnd = self.cc.cwnd.min(reduced);
                self.ecn_reduced();
            }
        } else if acked == 0 && duplicate && !brought.sacked {
            // Both copies were acknowledged.
            self.rack.probe = None;
        }
    }

    fn recover(
        &mut self,
        stack: &Stack,
        segment: &Segment,
        advanced: bool,
        newly_lost: bool,
        brought: &Brought,
        now: u64,
    ) {
        // An acknowledgement of the original while the first retransmission is under way (RFC 3522).
        if advanced
            && self.ca != Ca::Open
            && let (Some(first), Some((_, echo))) = (self.retrans_ts, segment.ts)
            && echo != 0
            && seq::lt(echo, first)
            && self.undo_retrans.is_some()
        {
            if self.ca == Ca::Loss {
                stack.counters().spurious_rtos.bump();
                stack.counters().loss_undo.bump();
            } else if seq::lt(self.snd_una, self.recovery_point) {
                // The hole was filled by what was late, not by what was sent again.
                stack.counters().partial_undo.bump();
                stack.counters().ts_reorder.bump();
            } else {
                stack.counters().full_undo.bump();
            }
            self.undo();
            return;
        }
        match self.ca {
            Ca::Open => {
                if newly_lost {
                    self.enter_recovery(stack);
                    self.reduce_proportionally(brought.delivered, advanced, newly_lost);
                }
            }
            Ca::Cwr => {
                if newly_lost {
                    self.enter_recovery(stack);
                } else if seq::gt(self.snd_una, self.recovery_point) {
                    // Something sent after the reduction is there, and CWR with it.
                    self.cc.cwnd = self.cc.ssthresh.max(self.cc.mss);
                    self.leave_recovery();
                    return;
                }
                self.reduce_proportionally(brought.delivered, advanced, newly_lost);
            }
            Ca::Recovery => {
                if seq::ge(self.snd_una, self.recovery_point) {
                    self.cc.cwnd = self.cc.ssthresh.max(self.cc.mss);
                    self.leave_recovery();
                    return;
                }
                if !self.sack_ok && advanced {
                    // A partial acknowledgement: the next one is lost as well (RFC 6582).
                    self.mark_first_lost(stack);
                }
                let delivered = if self.sack_ok {
                    brought.delivered
                } else {
                    brought.delivered.max(if advanced { 0 } else { self.mss })
                };
                self.reduce_proportionally(delivered, advanced, newly_lost);
            }
            Ca::Loss => {
                if seq::ge(self.snd_una, self.recovery_point) {
                    self.leave_recovery();
                } else if !self.sack_ok && advanced {
                    self.mark_first_lost(stack);
                }
            }
        }
        let _ = now;
    }

    fn enter_recovery(&mut self, stack: &Stack) {
        stack.counters().sack_recovery.add(u64::from(self.sack_ok));
        let reduced = self.ca == Ca::Cwr;
        if !reduced {
            self.remember();
        }
        self.ca = Ca::Recovery;
        let flight = self.in_flight();
        if reduced {
            // For this window already.
            self.recovery_point = self.snd_nxt;
        } else {
            self.begin_reduction(flight);
        }
    }

    /// The window shrinks to what the algorithm says, in step with what is delivered.
    pub(super) fn begin_reduction(&mut self, flight: u32) {
        self.cc.ssthresh = self.cc.reduce(flight);
        self.recovery_point = self.snd_nxt;
        self.prr_delivered = 0;
        self.prr_out = 0;
        self.recover_fs = flight.max(1);
        self.ecn_reduced();
    }

    /// Whether nothing is held for lost: no recovery of either kind.
    pub(super) fn orderly(&self) -> bool {
        matches!(self.ca, Ca::Open | Ca::Cwr)
    }

    /// Recovery begins without an acknowledgement: a reordering timer found the loss.
    pub fn start_recovery(&mut self, stack: &Stack) {
        self.enter_recovery(stack);
        self.reduce_proportionally(0, false, true);
    }

    /// What to go back to if it was for nothing.
    fn remember(&mut self) {
        self.prior_cwnd = self.cc.cwnd;
        self.prior_ssthresh = self.cc.ssthresh;
        self.undo_retrans = Some(0);
        self.retrans_ts = None;
    }

    fn reduce_proportionally(&mut self, delivered: u32, advanced: bool, newly_lost: bool) {
        if delivered == 0 && !newly_lost {
            return;
        }
        self.prr_delivered = self.prr_delivered.saturating_add(delivered);
        let pipe = self.pipe();
        let ssthresh = self.cc.ssthresh;
        let sndcnt = if pipe > ssthresh {
            let want = u64::from(self.prr_delivered) * u64::from(ssthresh);
            let want = want
                .div_ceil(u64::from(self.recover_fs))
                .min(u64::from(u32::MAX)) as u32;
            want.saturating_sub(self.prr_out)
        } else {
            let mut limit = self
                .prr_delivered
                .saturating_sub(self.prr_out)
                .max(delivered);
            if advanced && !newly_lost {
                limit += self.mss;
            }
            (ssthresh - pipe).min(limit)
        };
        // The first retransmission always goes.
        let sndcnt = if self.prr_out == 0 {
            sndcnt.max(self.mss)
        } else {
            sndcnt
        };
        self.cc.cwnd = pipe.saturating_add(sndcnt).max(self.mss);
    }

    fn leave_recovery(&mut self) {
        self.ca = Ca::Open;
        self.undo_retrans = None;
        self.retrans_ts = None;
        self.dup_acks = 0;
        self.cwnd_limited = false;
    }

    /// The reduction was for nothing: nothing is lost, and the window is what it was.
    fn undo(&mut self) {
        for sent in &mut self.sent {
            sent.flags &= !(Sent::LOST | Sent::RETRANS);
        }
        self.lost = 0;
        self.retrans = 0;
        self.cc.undo(self.prior_cwnd, self.prior_ssthresh);
        self.leave_recovery();
    }

    /// The retransmission timer expired: all that is not SACKed counts as lost (RFC 6298 §5, RFC 8985 §6.3).
    pub fn enter_loss(&mut self, stack: &Stack) {
        stack.counters().timeouts.bump();
        // The peer took back what it had SACKed, or lost it.
        let reneged = self.sent.front().is_some_and(|s| s.is(Sent::SACKED));
        if reneged {
            stack.counters().sack_reneging.bump();
        }
        if self.ca != Ca::Loss || seq::ge(self.snd_una, self.recovery_point) {
            if self.ca == Ca::Open {
                self.remember();
            }
            let flight = self.in_flight();
            self.cc.ssthresh = match self.ca {
                // The window was reduced for this loss already.
                Ca::Recovery | Ca::Cwr => self.cc.ssthresh,
                _ => self.cc.reduce(flight),
            };
            self.ecn_reduced();
        }
        self.ca = Ca::Loss;
        self.recovery_point = self.snd_nxt;
        self.rack.probe = None;
        self.cc.cwnd = self.cc.mss;
        (self.lost, self.retrans, self.sacked) = (0, 0, 0);
        for sent in &mut self.sent {
            if sent.is(Sent::SACKED) && !reneged {
                self.sacked += sent.len();
                continue;
            }
            if sent.is(Sent::RETRANS) {
                let segments = sent.len().div_ceil(self.mss);
                stack.counters().lost_retransmit.add(segments.into());
            }
            sent.flags = sent.flags & !(Sent::SACKED | Sent::RETRANS) | Sent::LOST;
            self.lost += sent.len();
        }
    }

    /// Sets the timer for what is on its way now.
    fn rearm(&mut self, now: u64) {
        if self.sent.is_empty() {
            if matches!(self.rtx.0, Rtx::Rto | Rtx::Probe | Rtx::Reorder) {
                self.rtx = (Rtx::None, u64::MAX);
            }
        } else if self.rtx.0 != Rtx::Reorder {
            self.arm_probe_or_rto(now);
        }
    }
}

/// RFC 8985's order of transmissions: by time, then by sequence number.
fn later(at: u64, end: u32, than_at: u64, than_end: u32) -> bool {
    at > than_at || at == than_at && seq::gt(end, than_end)
}
