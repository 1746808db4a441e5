//! What a connection does with data it receives: into the queue, in order or beyond a gap, within bounds of
//! memory; the FIN behind it; and the growth of the window as the program reads.

use super::header::{FIN, Segment};
use super::recvq::Twice;
use super::tcb::{State, Tcb};
use crate::pkt::{Payload, payload_advance, payload_len, payload_truncate};
use crate::poll::Events;
use crate::seq;
use crate::stack::Stack;
use crate::stats::Counter;

impl Tcb {
    /// Data and FIN of a segment that touches the window.
    pub(super) fn data(
        &mut self,
        stack: &Stack,
        segment: &Segment,
        payload: &mut Payload,
        merged: Option<u16>,
        now: u64,
    ) {
        let counters = stack.counters();
        let mut start = segment.seq;
        let mut len = segment.len;
        let mut fin = segment.has(FIN);
        debug_assert_eq!(payload_len(payload), len as usize);
        let unit = u32::from(merged.unwrap_or(0)).max(if merged.is_some() { 0 } else { len });
        if unit > self.rcv_mss {
            self.rcv_mss = unit.min(u32::from(self.advertised_mss()));
        }
        // What we have already.
        if seq::lt(start, self.rcv_nxt) {
            let old = self.rcv_nxt.wrapping_sub(start);
            self.note_duplicate(stack, segment);
            if old >= len {
                let fin_new = fin && old == len;
                len = 0;
                payload.clear();
                fin = fin_new;
                if !fin {
                    self.ack_now = true;
                    return;
                }
            } else {
                payload_advance(payload, old as usize);
                len -= old;
                self.ack_now = true;
            }
            start = self.rcv_nxt;
        }
        // What is beyond the window.
        let edge = seq::max(self.receive_edge(), self.rcv_nxt);
        let room = edge.wrapping_sub(start);
        if len > room {
            payload_truncate(payload, room as usize);
            len = room;
            fin = false;
            counters.zero_window_drop.add(u64::from(room == 0));
            self.ack_now = true;
            if len == 0 {
                return;
            }
        }
        let fin_at = start.wrapping_add(len);
        if fin {
            self.fin_seq = Some(fin_at);
        }
        if start == self.rcv_nxt {
            if len > 0 {
                if !self.admit(stack) {
                    counters.rcv_q_drop.bump();
                    self.fin_seq = None;
                    return;
                }
                let had_gap = self.recvq.beyond() > 0;
                self.bytes_received += u64::from(len);
                self.recvq
                    .push(core::mem::take(payload), now, &counters.rcv_coalesce);
                self.rcv_nxt = start.wrapping_add(len);
                if had_gap {
                    let before = self.rcv_nxt;
                    let (next, twice) = self.recvq.absorb(before, &counters.rcv_coalesce);
                    self.rcv_nxt = next;
                    self.tell_twice(twice, &counters.dsack_old_sent);
                    self.bytes_received += u64::from(self.rcv_nxt.wrapping_sub(before));
                    // Filling a gap is news the sender waits for (RFC 5681 §4.2).
                    self.ack_now = true;
                }
                self.effects.events |= Events::IN;
                let pending = self.rcv_nxt.wrapping_sub(self.rcv_wup);
                if pending > self.rcv_mss
                    || self.rcv_nxt.wrapping_sub(self.last_ack_sent) > 2 * self.rcv_mss
                {
                    self.ack_now = true;
                } else if !self.ack_now {
                    self.delay_ack(now);
                }
            }
        } else if len > 0 {
            if !self.admit(stack) {
                counters.ofo_drop.bump();
                self.ack_now = true;
                return;
            }
            counters.ofo_queue.bump();
            self.ooo_packets += 1;
            let (twice, merged) = self.recvq.insert(start, core::mem::take(payload), now);
            counters.ofo_merge.add(merged);
            self.tell_twice(twice, &counters.dsack_ofo_sent);
            self.ack_now = true;
        } else {
            self.ack_now = true;
        }
        if self.fin_seq == Some(self.rcv_nxt) {
            self.on_fin(stack, now);
        }
    }

    /// The next acknowledgement tells of what came again, unless there is an earlier range of the same segment.
    fn tell_twice(&mut self, twice: Twice, counter: &Counter) {
        if self.sack_ok && self.dsack.is_none() && twice.0.is_some() {
            self.dsack = twice.0;
            counter.bump();
        }
    }

    /// Whether memory allows to keep a payload. In need, what lies beyond gaps goes first.
    fn admit(&mut self, stack: &Stack) -> bool {
        let bound = 2 * self.rcv_limit as usize + (128 << 10);
        if self.recvq.footprint() > bound || stack.exhausted() {
            stack.counters().prune_called.bump();
            let dropped = self.recvq.prune();
            stack.counters().ofo_pruned.add(u64::from(dropped > 0));
            self.settle(stack);
            // One segment at a time always gets through, so that nobody starves.
            if self.recvq.len() > 0 && (self.recvq.footprint() > bound || stack.exhausted()) {
                stack.counters().rcv_pruned.bump();
                return false;
            }
        }
        true
    }

    fn on_fin(&mut self, stack: &Stack, _now: u64) {
        self.fin_seq = None;
        self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        self.recvq.prune();
        self.ack_now = true;
        self.effects.events |= Events::IN | Events::RDHUP;
        match self.state {
            State::Established => self.set_state(stack, State::CloseWait),
            State::FinWait1 => self.set_state(stack, State::Closing),
            State::FinWait2 => self.enter_time_wait(stack),
            _ => {}
        }
    }

    /// The receiver's own view of the round trip, by the timestamps that come back.
    pub(super) fn measure_receiver(&mut self, echo: u32, now: u64) {
        if echo == self.rcv_rtt_ecr {
            return;
        }
        self.rcv_rtt_ecr = echo;
        let ms = self.ts_value(now).wrapping_sub(echo);
        if ms < 60_000 {
            let sample = u64::from(ms.max(1)) * 1_000_000;
            self.rcv_rtt = if self.rcv_rtt == 0 {
                sample
            } else {
                (self.rcv_rtt * 7 + sample) / 8
            };
        }
    }

    /// The program read `n` bytes: the window may open, and the buffer may grow so that the sender never
    /// waits for it (dynamic right-sizing).
    pub fn on_read(&mut self, stack: &Stack, n: usize, now: u64) {
        self.copied += n as u64;
        self.pass_mark();
        if self.opts.rcvbuf == 0 {
            let rtt = match (self.rcv_rtt, self.rtt.srtt) {
                (0, s) => s.max(1_000_000),
                (r, _) => r,
            };
            if now.saturating_sub(self.drs_at) >= rtt {
                let read = self.copied - self.drs_mark;
                if read > self.drs_space {
                    if !stack.under_pressure() {
                        let want = 2 * read + 16 * u64::from(self.rcv_mss);
                        let most = stack.tcp_defaults.rmem_max() as u64;
                        self.rcv_limit = self.rcv_limit.max(want.min(most) as u32);
                    }
                    self.drs_space = read;
                }
                self.drs_mark = self.copied;
                self.drs_at = now;
            }
        }
        if matches!(
            self.state,
            State::Established | State::FinWait1 | State::FinWait2
        ) {
            // Tell the peer when the window has opened by a good part (RFC 9293 §3.8.6.2.2).
            let told = self
                .rcv_wup
                .wrapping_add(self.rcv_wnd)
                .wrapping_sub(self.rcv_nxt);
            let told = if (told as i32) < 0 { 0 } else { told };
            let free = self.free_window(stack);
            if free >= 2 * told && free > 0 || free >= told + self.rcv_limit / 2 {
                self.ack_now = true;
            }
        }
    }
}
