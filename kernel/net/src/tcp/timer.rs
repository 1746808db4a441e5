//! A connection's timers: retransmission, tail loss probe, reordering, window probe, delayed
//! acknowledgement, keepalive, cork, and the end of FIN-WAIT-2. All deadlines are the connection's own;
//! the wheel only wakes it near the first of them.

use errno::Errno;

use super::rtt::RTO_MAX;
use super::tcb::{Ca, Rtx, State, Tcb};
use crate::stack::Stack;

/// Between data and its acknowledgement when nothing else carries it (`TCP_DELACK_MIN`).
pub(crate) const DELACK_NS: u64 = 40_000_000;
/// The most that it grows to where answers come late (`TCP_DELACK_MAX`; RFC 9293 §3.8.6.3 wants less than 500 ms).
const DELACK_MOST_NS: u64 = 200_000_000;
/// As [`DELACK_NS`], at the start of a connection.
pub(crate) const QUICK_NS: u64 = 2_000_000;
/// `tcp_retries2`: timeouts in a row before the connection is given up.
const RETRIES: u32 = 15;
/// `tcp_orphan_retries` of a connection no program holds.
const ORPHAN_RETRIES: u32 = 8;
const SECOND: u64 = 1_000_000_000;
/// The least time of a retransmission timer (`TCP_TIMEOUT_MIN`).
const LEAST_NS: u64 = 2_000_000;

impl Tcb {
    /// Arms the retransmission timer from now.
    pub fn arm_rto(&mut self, now: u64) {
        if self.sent.is_empty() && self.state != State::SynSent && self.state != State::SynReceived
        {
            self.rtx = (Rtx::None, u64::MAX);
            return;
        }
        self.rto_from = now;
        self.rtx = (Rtx::Rto, now + self.rtt.timeout());
    }

    /// New data went out, the `first` after none was on the way: that alone starts the retransmission timeout
    /// (RFC 6298 §5.1). What follows must not push it on, else a program that goes on writing to a dead peer is never
    /// told.
    pub fn arm_after_sending(&mut self, first: bool, now: u64) {
        if first {
            self.rto_from = now;
        } else if self.rtx.0 == Rtx::Reorder {
            return;
        }
        self.arm_probe_or_rto(now);
    }

    /// Arms a tail loss probe if one is allowed, else the retransmission timer (RFC 8985 §7.2).
    pub fn arm_probe_or_rto(&mut self, now: u64) {
        if self.sent.is_empty() {
            self.rtx = (Rtx::None, u64::MAX);
            return;
        }
        let allowed = self.sack_ok
            && self.orderly()
            && self.sacked == 0
            && self.lost == 0
            && self.rtt.srtt != 0
            && self.rack.probe.is_none()
            && self.rtt.backoff == 0;
        let rto = (self.rto_from + self.rtt.timeout()).max(now + LEAST_NS);
        self.rtx = (Rtx::Rto, rto);
        if allowed {
            let mut pto = 2 * self.rtt.srtt + LEAST_NS;
            if self.in_flight() <= self.mss {
                // One segment: its acknowledgement may be delayed.
                pto += super::rtt::RTO_MIN;
            }
            // In the timeout's place, never later.
            self.rtx = (Rtx::Probe, (now + pto).min(rto));
        }
    }

    /// The window is closed and nothing is on the way: ask now and then.
    pub fn arm_window_probe(&mut self, now: u64) {
        if self.rtx.0 != Rtx::Window {
            self.stalled_since = now;
            self.rtx = (Rtx::Window, now + self.rtt.timeout());
        }
    }

    /// Arms the keepalive timer from now.
    pub fn arm_keepalive(&mut self, now: u64) {
        self.keep_at = if self.opts.keepalive && self.synchronized() {
            now + u64::from(self.opts.keep_idle_s) * SECOND
        } else {
            u64::MAX
        };
    }

    /// Runs what is due.
    pub fn on_timers(&mut self, stack: &Stack, now: u64) {
        if self.life_at <= now {
            self.life_at = u64::MAX;
            self.on_life_end(stack, now);
        }
        if self.state == State::Closed || self.state == State::TimeWait {
            return;
        }
        if self.rtx.1 <= now {
            let kind = core::mem::replace(&mut self.rtx, (Rtx::None, u64::MAX)).0;
            match kind {
                Rtx::None => {}
                Rtx::Rto => self.on_rto(stack, now),
                Rtx::Probe => self.on_probe(stack, now),
                Rtx::Reorder => self.on_reorder(stack, now),
                Rtx::Window => self.on_window_probe(stack, now),
            }
        }
        if self.state == State::Closed {
            return;
        }
        if self.keep_at <= now {
            self.on_keepalive(stack, now);
        }
        if self.corked_until <= now {
            self.send_new(stack, now, true);
            self.corked_until = u64::MAX;
        }
        if self.delack_at <= now {
            self.delack_at = u64::MAX;
            self.ack_now = true;
            self.ack_alone = true;
            stack.counters().delayed_acks.bump();
        }
        if self.state != State::Closed {
            self.output(stack, now);
        }
    }

    fn on_life_end(&mut self, stack: &Stack, _now: u64) {
        match self.state {
            // FIN-WAIT-2 of a closed socket: the peer never closed its side.
            State::FinWait2 => self.finish(stack, None),
            _ => self.finish(stack, Some(Errno::ETIMEDOUT)),
        }
    }

    /// Whether to give up, after `retransmits` in a row.
    fn give_up(&mut self, stack: &Stack, now: u64) -> bool {
        let stalled = now.saturating_sub(self.stalled_since);
        let out_of_time = self.opts.user_timeout_ms != 0
            && stalled >= u64::from(self.opts.user_timeout_ms) * 1_000_000;
        let most = match self.state {
            // `tcp_synack_retries`.
            State::SynReceived if self.early.is_some() => super::listen::RETRIES,
            State::SynSent | State::SynReceived => self.opts.syn_cnt,
            _ if self.orphan => ORPHAN_RETRIES,
            _ => RETRIES,
        };
        let by_count = self.retransmits >= most
            && (self.opts.user_timeout_ms == 0
                || matches!(self.state, State::SynSent | State::SynReceived));
        if !by_count && !out_of_time {
            return false;
        }
        stack.counters().abort_on_timeout.bump();
        if self.state == State::SynSent {
            stack.counters().tcp_attempt_fails.bump();
        }
        if self.orphan {
            self.send_reset(stack, now);
        }
        self.finish(stack, Some(Errno::ETIMEDOUT));
        true
    }

    fn on_rto(&mut self, stack: &Stack, now: u64) {
        if self.give_up(stack, now) {
            return;
        }
        self.retransmits += 1;
        self.rtt.backoff += 1;
        match self.state {
            State::SynSent | State::SynReceived => {
                stack.counters().syn_retrans.bump();
                stack.counters().tcp_retrans_segs.bump();
                self.total_retrans += 1;
                self.opening_lost(stack);
                self.send_syn(stack, now);
            }
            _ if self.sent.is_empty() => return,
            _ => {
                if self.snd_wnd == 0 && self.ca == Ca::Open {
                    // The peer shrank its window to nothing over what was sent.
                    self.send_probe(stack, now);
                } else {
                    // A black hole for large packets looks like this: try smaller ones (RFC 4821's idea).
                    let modest = if self.key.remote.is_ipv4() {
                        1200
                    } else {
                        1280
                    };
                    // As a packet: a segment that is small as such may be too large with its headers.
                    let headers = self.headers();
                    let large = self
                        .sent
                        .front()
                        .is_some_and(|s| s.len() + headers > modest);
                    if self.retransmits >= 3 && large && !self.dst.iface.is_loopback() {
                        self.fell_into_black_hole(stack, modest, now);
                    }
                    self.enter_loss(stack);
                    if let Some(first) = self.sent.front().copied()
                        && first.len() > self.mss
                    {
                        self.split(0, self.mss);
                    }
                    self.resend(stack, 0, now, false);
                }
            }
        }
        self.rto_from = now;
        self.rtx = (Rtx::Rto, now + self.rtt.timeout());
    }

    fn on_probe(&mut self, stack: &Stack, now: u64) {
        // New data is the better probe; else the last segment again.
        let before = self.snd_nxt;
        if self.unsent() > 0 && self.usable_window() > 0 {
            let cwnd = self.cc.cwnd;
            self.cc.cwnd = self.pipe() + self.mss;
            self.send_new(stack, now, true);
            self.cc.cwnd = cwnd;
        }
        if self.snd_nxt != before {
            stack.counters().loss_probes.bump();
            self.rack.probe = Some((self.snd_nxt, false));
        } else if let Some(last) = self.sent.back().copied() {
            let index = self.sent.len() - 1;
            let fin = u32::from(crate::seq::gt(last.end, self.data_end()));
            let index = if last.len() > self.mss + fin {
                self.split(index, last.len() - self.mss - fin);
                index + 1
            } else {
                index
            };
            if self.resend(stack, index, now, true) {
                stack.counters().loss_probes.bump();
            }
            self.rack.probe = Some((self.snd_nxt, true));
        }
        self.arm_rto(now);
    }

    fn on_reorder(&mut self, stack: &Stack, now: u64) {
        self.arm_probe_or_rto(now);
        if self.detect_congestion(stack, now) && self.orderly() {
            self.start_recovery(stack);
        }
    }

    fn on_window_probe(&mut self, stack: &Stack, now: u64) {
        if self.in_flight() > 0 || self.unsent() == 0 && !self.fin_due() {
            self.arm_rto(now);
            return;
        }
        // The peer answers probes: only its silence counts towards giving up.
        if now.saturating_sub(self.last_rcv) > RTO_MAX && self.give_up(stack, now) {
            return;
        }
        let out_of_time = self.opts.user_timeout_ms != 0
            && now.saturating_sub(self.stalled_since)
                >= u64::from(self.opts.user_timeout_ms) * 1_000_000;
        if out_of_time && self.give_up(stack, now) {
            return;
        }
        self.retransmits += 1;
        self.rtt.backoff = (self.rtt.backoff + 1).min(10);
        stack.counters().win_probe.bump();
        if self.usable_window() > 0 {
            // A sliver of a window: fill it.
            self.send_new(stack, now, true);
        }
        if self.in_flight() == 0 {
            self.send_probe(stack, now);
            self.rtx = (Rtx::Window, now + self.rtt.timeout());
        }
    }

    fn on_keepalive(&mut self, stack: &Stack, now: u64) {
        if !self.opts.keepalive || !self.synchronized() {
            self.keep_at = u64::MAX;
            return;
        }
        let idle_ns = u64::from(self.opts.keep_idle_s) * SECOND;
        let interval = u64::from(self.opts.keep_intvl_s) * SECOND;
        let quiet = now.saturating_sub(self.last_rcv);
        // Data on the way has its own timer.
        if self.in_flight() > 0 || self.unsent() > 0 {
            self.keep_at = now + idle_ns;
            return;
        }
        if quiet + 1_000_000 < idle_ns {
            self.keep_probes = 0;
            self.keep_at = self.last_rcv + idle_ns;
            return;
        }
        let user = u64::from(self.opts.user_timeout_ms) * 1_000_000;
        let over = if user != 0 {
            quiet >= user && self.keep_probes > 0
        } else {
            self.keep_probes >= self.opts.keep_cnt
        };
        if over {
            stack.counters().abort_on_timeout.bump();
            self.send_reset(stack, now);
            self.finish(stack, Some(Errno::ETIMEDOUT));
            return;
        }
        stack.counters().keep_alive.bump();
        self.keep_probes += 1;
        self.send_probe(stack, now);
        self.keep_at = now + interval;
    }

    /// Arms the timer of a delayed acknowledgement.
    pub fn delay_ack(&mut self, now: u64) {
        let wait = if self.quick > 0 && self.opts.quickack {
            self.quick -= 1;
            QUICK_NS
        } else {
            self.ato
        };
        if self.ack_alone {
            // The peer went on without an answer: it waits for acknowledgements only.
            self.ack_alone = false;
            self.ato = DELACK_NS;
        }
        self.delack_at = self.delack_at.min(now + wait.min(self.ato));
    }

    /// New data goes out, and with it what was to be acknowledged. Where a program answers every request, but late
    /// because ten thousand others wait as well, a bare acknowledgement for each would double the packets: it is held
    /// back longer. (Linux grows the same time, up to `TCP_DELACK_MAX`.)
    pub fn answered(&mut self, now: u64) {
        // No need to hurry acknowledgements for the sake of the peer's start.
        if self.ack_alone || self.delack_at != u64::MAX {
            self.quick = 0;
        }
        if self.ack_alone {
            self.ack_alone = false;
            self.ato = (2 * self.ato).min(DELACK_MOST_NS);
        } else if self.delack_at != u64::MAX && now + self.ato < self.delack_at + DELACK_NS {
            self.ato = DELACK_NS;
        }
    }
}
