//! A segment that arrives: to its connection, and through RFC 9293 §3.10.7 with the safeguards of
//! RFC 5961 (challenge acknowledgements) and RFC 7323 (timestamps against old duplicates).

use core::net::{IpAddr, SocketAddr};

use errno::Errno;

use super::header::{ACK, Emit, FIN, RST, SYN, Segment, URG};
use super::listen;
use super::output::send_header;
use super::tcb::{Rtx, State, Tcb};
use super::timewait;
use crate::checksum::{Parts, Sum};
use crate::flow::{FlowKey, Found};
use crate::icmp::IcmpError;
use crate::ip::{DEFAULT_TTL, IpMeta, IpOut, proto};
use crate::nic::RxChecksum;
use crate::pkt::{InPacket, Payload};
use crate::poll::Events;
use crate::seq;
use crate::stack::Stack;

/// At most one challenge acknowledgement of a connection in this time (`tcp_invalid_ratelimit`).
const CHALLENGE_NS: u64 = 500_000_000;
/// After so long without a segment, an old timestamp is believed again (RFC 7323 §5.5).
const TS_STALE_NS: u64 = 24 * 24 * 3600 * 1_000_000_000;

/// A received TCP packet.
pub(crate) fn input(stack: &Stack, meta: &IpMeta, mut packet: InPacket, now: u64) {
    let counters = stack.counters();
    counters.tcp_in_segs.bump();
    packet.pull(meta.l4 + meta.len.min(60));
    let Some(segment) = packet
        .head()
        .get(meta.l4..)
        .and_then(|bytes| Segment::parse(bytes, meta.len))
    else {
        counters.tcp_in_errs.bump();
        return;
    };
    match stack.guarded.at(segment.lport) {
        None => take(stack, meta, packet, segment, now),
        Some(port) => {
            let remote = SocketAddr::new(meta.src, segment.rport);
            port.pass(stack, remote, now, || {
                take(stack, meta, packet, segment, now)
            });
        }
    }
}

fn take(stack: &Stack, meta: &IpMeta, packet: InPacket, mut segment: Segment, now: u64) {
    let counters = stack.counters();
    if packet.csum == RxChecksum::Unknown {
        let pseudo = Sum::pseudo(meta.src, meta.dst, proto::TCP, meta.len);
        if packet.sum(meta.l4, Parts::after(pseudo)).sum().folded() != 0xffff {
            counters.tcp_in_csum_errors.bump();
            counters.tcp_in_errs.bump();
            return;
        }
    }
    segment.ecn = meta.tos & super::ecn::ip::MASK;
    segment.ttl = meta.ttl;
    let merged = packet.gso.map(|gso| gso.segment_size);
    let payload = packet.into_payload(meta.l4 + segment.header_len);
    let key = FlowKey {
        local: meta.dst,
        remote: meta.src,
        lport: segment.lport,
        rport: segment.rport,
    };
    deliver(stack, meta, &key, &segment, payload, merged, now);
}

/// A checked segment, to whoever it belongs to.
pub(crate) fn deliver(
    stack: &Stack,
    meta: &IpMeta,
    key: &FlowKey,
    segment: &Segment,
    payload: Payload,
    merged: Option<u16>,
    now: u64,
) {
    match stack.flows.find(key) {
        Some(Found::Conn(conn)) => conn.segment(segment, payload, merged, now),
        Some(Found::Half(half)) => listen::half_input(stack, meta, &half, segment, payload, now),
        Some(Found::Wait) => {
            if let timewait::Outcome::Opens { after } = timewait::input(stack, key, segment, now) {
                listen::syn_input(stack, meta, key, segment, payload, after, now);
            }
        }
        None => listen::syn_input(stack, meta, key, segment, payload, None, now),
    }
}

/// Answers a segment that belongs to no connection (RFC 9293 §3.10.7.1).
pub(crate) fn refuse(stack: &Stack, meta: &IpMeta, segment: &Segment, now: u64) {
    if segment.has(RST) || meta.many || meta.src.is_unspecified() || !stack.is_local(meta.dst) {
        return;
    }
    let Ok(dst) = stack.route(meta.src, Some(meta.dst), 0) else {
        return;
    };
    let mut emit = Emit {
        lport: segment.lport,
        rport: segment.rport,
        flags: RST,
        ..Emit::default()
    };
    if segment.has(ACK) {
        emit.seq = segment.ack;
    } else {
        emit.flags |= ACK;
        emit.ack = segment.end();
    }
    let out = IpOut {
        src: meta.dst,
        dst: meta.src,
        proto: proto::TCP,
        ttl: DEFAULT_TTL,
        tos: 0,
        df: true,
        ident: 0,
    };
    stack.counters().tcp_out_rsts.bump();
    send_header(stack, &dst, &out, &emit, now);
}

/// An ICMP error quotes one of our segments, the one with sequence number `seq`.
pub(crate) fn icmp_error(
    stack: &Stack,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    seq: u32,
    error: &IcmpError,
    now: u64,
) {
    let key = FlowKey {
        local: local.0,
        remote: remote.0,
        lport: local.1,
        rport: remote.1,
    };
    if let Some(Found::Conn(conn)) = stack.flows.find(&key) {
        conn.with_tcb(now, |tcb| tcb.on_icmp(stack, seq, error, now));
    }
}

impl Tcb {
    /// One segment.
    pub fn segment(
        &mut self,
        stack: &Stack,
        segment: &Segment,
        payload: Payload,
        merged: Option<u16>,
        now: u64,
    ) {
        if self.opts.too_far(self.key.remote.is_ipv4(), segment.ttl) {
            stack.counters().min_ttl_drop.bump();
            return;
        }
        // What the card merged counts as what it was.
        let segments = match merged.map(u32::from) {
            Some(unit) if unit > 0 && segment.len > unit => segment.len.div_ceil(unit),
            _ => 1,
        };
        self.segs_in = self.segs_in.wrapping_add(segments);
        match self.state {
            State::Closed | State::TimeWait => return,
            State::SynSent => self.in_syn_sent(stack, segment, now),
            _ => self.in_synchronized(stack, segment, payload, merged, now),
        }
        if self.state != State::Closed {
            self.output(stack, now);
        }
        self.settle(stack);
    }

    /// Takes the options of the peer's SYN.
    pub fn take_options(&mut self, segment: &Segment) {
        self.irs = segment.seq;
        self.rcv_nxt = segment.seq.wrapping_add(1);
        self.rcv_wup = self.rcv_nxt;
        self.last_ack_sent = self.rcv_nxt;
        self.snd_wl1 = segment.seq;
        // Without the option, what every host must take (RFC 9293 §3.7.1).
        let default = if self.key.remote.is_ipv4() { 536 } else { 1220 };
        self.peer_mss = u32::from(segment.mss.unwrap_or(default)).max(64);
        self.wscale_ok = segment.wscale.is_some();
        self.snd_wscale = segment.wscale.unwrap_or(0);
        self.sack_ok = segment.sack_permitted;
        self.ts_ok = segment.ts.is_some();
        if let Some((value, _)) = segment.ts {
            self.ts_recent = value;
        }
        self.start_congestion();
        self.rcv_mss = u32::from(self.advertised_mss()).min(self.mss.max(536));
    }

    fn in_syn_sent(&mut self, stack: &Stack, segment: &Segment, now: u64) {
        if segment.has(ACK)
            && !seq::within(
                segment.ack,
                self.iss.wrapping_add(1),
                self.snd_nxt.wrapping_add(1),
            )
        {
            if !segment.has(RST) {
                let emit = Emit {
                    lport: self.key.lport,
                    rport: self.key.rport,
                    seq: segment.ack,
                    flags: RST,
                    ..Emit::default()
                };
                let out = IpOut {
                    src: self.key.local,
                    dst: self.key.remote,
                    proto: proto::TCP,
                    ttl: DEFAULT_TTL,
                    tos: 0,
                    df: true,
                    ident: 0,
                };
                stack.counters().tcp_out_rsts.bump();
                send_header(stack, &self.dst, &out, &emit, now);
            }
            return;
        }
        if segment.has(RST) {
            if segment.has(ACK) {
                stack.counters().tcp_attempt_fails.bump();
                self.finish(stack, Some(Errno::ECONNREFUSED));
            }
            return;
        }
        if !segment.has(SYN) {
            return;
        }
        self.take_options(segment);
        self.ecn_answer(segment);
        self.last_rcv = now;
        self.ts_recent_at = now;
        self.snd_wnd = u32::from(segment.window);
        self.max_wnd = self.snd_wnd;
        if segment.has(ACK) {
            self.snd_una = segment.ack;
            // The SYN counts (RFC 4898, as Linux reads it).
            self.bytes_acked = 1;
            if self.retransmits == 0 {
                self.rtt.sample(now.saturating_sub(self.last_sent), now);
            } else {
                // The network loses already: a modest first window (RFC 6298 §5.7, RFC 5681 §3.1).
                self.cc.cwnd = self.mss;
            }
            self.enter_established(stack, now);
            self.opened(stack, segment, now);
            self.effects.established = true;
            self.ack_now = true;
        } else {
            // Both opened at once (RFC 9293 §3.5).
            if self.opening.take().is_some() {
                self.snd_una = self.iss;
                self.take_back_syn_data();
            }
            self.set_state(stack, State::SynReceived);
            self.send_syn(stack, now);
            self.retransmits = 0;
            self.rtt.backoff = 0;
            self.arm_rto(now);
        }
    }

    /// The handshake is done.
    pub fn enter_established(&mut self, stack: &Stack, now: u64) {
        self.set_state(stack, State::Established);
        self.retransmits = 0;
        self.rtt.backoff = 0;
        self.rtx = (Rtx::None, u64::MAX);
        self.sendq_seq = self.iss.wrapping_add(1);
        self.recovery_point = self.snd_una;
        self.rack.dsack_round = self.snd_una;
        self.snd_small = self.snd_una;
        self.arm_keepalive(now);
        self.drs_at = now;
        self.effects.events |= Events::OUT;
    }

    fn in_synchronized(
        &mut self,
        stack: &Stack,
        segment: &Segment,
        mut payload: Payload,
        merged: Option<u16>,
        now: u64,
    ) {
        let counters = stack.counters();
        // Old duplicates by timestamp.
        if self.ts_ok
            && !segment.has(RST)
            && let Some((value, _)) = segment.ts
        {
            let stale = now.saturating_sub(self.ts_recent_at) > TS_STALE_NS;
            if seq::lt(value, self.ts_recent) && !stale {
                counters.paws_estab.bump();
                if segment.len > 0 || segment.flags & (FIN | SYN) != 0 {
                    self.note_duplicate(stack, segment);
                    self.ack_now = true;
                } else if !self.too_soon(stack, now) {
                    self.ack_now = true;
                }
                return;
            }
        }
        // Inside the window?
        if self.is_early() && segment.has(SYN) && segment.seq == self.irs {
            // Our SYN-ACK was lost, or is late.
            self.send_syn(stack, now);
            return;
        }
        let right = seq::max(self.receive_edge(), self.rcv_nxt);
        if seq::gt(segment.seq, right) || seq::lt(segment.end(), self.rcv_wup) {
            if segment.has(RST) {
                return;
            }
            if segment.has(SYN) {
                counters.syn_challenge.bump();
                self.challenge(stack, now);
                return;
            }
            self.note_duplicate(stack, segment);
            // A window probe is one of these; its acknowledgement tells the window.
            self.last_rcv = now;
            self.keep_probes = 0;
            if segment.has(ACK)
                && seq::le(self.snd_una, segment.ack)
                && seq::le(segment.ack, self.snd_nxt)
            {
                self.update_window(segment);
            }
            // Two ends that hold each other for wrong must not go on about it for ever.
            if segment.len > 0 || segment.has(FIN) || !self.too_soon(stack, now) {
                self.ack_now = true;
            }
            return;
        }
        if segment.has(RST) {
            if segment.seq == self.rcv_nxt {
                if let Some(early) = &self.early {
                    early.reset(now);
                }
                self.on_reset(stack);
            } else {
                self.challenge(stack, now);
            }
            return;
        }
        if segment.has(SYN) {
            if self.state == State::SynReceived && segment.seq == self.irs {
                // The other half of a simultaneous open, perhaps again.
                if segment.has(ACK) && segment.ack == self.snd_nxt {
                    self.snd_una = segment.ack;
                    self.snd_wnd = u32::from(segment.window);
                    self.enter_established(stack, now);
                    self.effects.established = true;
                }
                self.ack_now = true;
                return;
            }
            counters.syn_challenge.bump();
            self.challenge(stack, now);
            return;
        }
        if !segment.has(ACK) {
            return;
        }
        // RFC 5961 §5: acknowledgements far in the past or of what was never sent.
        if seq::gt(segment.ack, self.snd_nxt)
            || seq::lt(
                segment.ack,
                self.snd_una.wrapping_sub(self.max_wnd.max(65_535)),
            )
        {
            self.challenge(stack, now);
            return;
        }
        if self.is_early() {
            if seq::lt(segment.ack, self.snd_una) {
                self.challenge(stack, now);
                return;
            }
            self.snd_wnd = u32::from(segment.window) << self.snd_wscale;
            self.max_wnd = self.max_wnd.max(self.snd_wnd);
            self.early_done(stack, now);
        } else if self.state == State::SynReceived {
            if segment.ack != self.snd_nxt {
                self.challenge(stack, now);
                return;
            }
            self.snd_una = segment.ack;
            self.snd_wnd = u32::from(segment.window) << self.snd_wscale;
            self.max_wnd = self.snd_wnd;
            self.enter_established(stack, now);
            self.effects.established = true;
        }
        self.last_rcv = now;
        self.keep_probes = 0;
        if let Some((value, echo)) = segment.ts.filter(|_| self.ts_ok) {
            // RFC 7323 §4.3: only from a segment that spans what was last acknowledged.
            if seq::le(segment.seq, self.last_ack_sent) && seq::ge(value, self.ts_recent) {
                self.ts_recent = value;
                self.ts_recent_at = now;
            }
            if segment.len > 0 && echo != 0 {
                self.measure_receiver(echo, now);
            }
        }
        if seq::ge(segment.ack, self.snd_una) {
            let window_before = self.snd_wnd;
            self.update_window(segment);
            let duplicate = segment.len == 0
                && segment.ack == self.snd_una
                && self.snd_wnd == window_before
                && !segment.has(FIN);
            self.acknowledge(stack, segment, duplicate, now);
            if self.want_write && self.writable(stack) {
                self.want_write = false;
                self.effects.events |= Events::OUT;
            }
            self.grow_sndbuf(stack);
            if !self.after_ack(stack, now) {
                return;
            }
        }
        let data_wanted = matches!(
            self.state,
            State::Established | State::FinWait1 | State::FinWait2
        );
        if segment.len > 0 {
            if self.orphan
                && data_wanted
                && seq::gt(segment.seq.wrapping_add(segment.len), self.rcv_nxt)
                || self.orphan && self.state == State::CloseWait
            {
                // Nobody will ever read it: say so (RFC 2525 §2.17).
                counters.abort_on_data.bump();
                self.send_reset(stack, now);
                self.finish(stack, None);
                return;
            }
            let unit = u32::from(merged.unwrap_or(0));
            let segments = if unit > 0 && segment.len > unit {
                segment.len.div_ceil(unit)
            } else {
                1
            };
            self.data_segs_in = self.data_segs_in.wrapping_add(segments);
            self.last_data = now;
        }
        if (segment.has(URG) || self.has_mark()) && data_wanted {
            self.on_urgent(segment, &payload);
        }
        if segment.len > 0 || segment.has(FIN) {
            if data_wanted {
                self.ecn_data(segment);
                self.data(stack, segment, &mut payload, merged, now);
            } else {
                self.note_duplicate(stack, segment);
                self.ack_now = true;
            }
        }
    }

    /// Tells the peer about data it sent for nothing (RFC 2883).
    pub(super) fn note_duplicate(&mut self, stack: &Stack, segment: &Segment) {
        let counters = stack.counters();
        let end = segment.seq.wrapping_add(segment.len);
        if seq::lt(segment.seq, segment.end()) && seq::le(segment.end(), self.rcv_nxt) {
            // Our acknowledgement of it came too late, or not at all.
            counters.delayed_ack_lost.bump();
        }
        if self.sack_ok && segment.len > 0 && seq::lt(segment.seq, self.rcv_nxt) {
            counters.dsack_old_sent.bump();
            self.dsack = Some((segment.seq, seq::min(end, self.rcv_nxt)));
        }
    }

    /// An acknowledgement that tells the true peer where we are, and a forger nothing (RFC 5961 §3–5).
    fn challenge(&mut self, stack: &Stack, now: u64) {
        if now.saturating_sub(self.challenge_at) < CHALLENGE_NS && self.challenge_at != 0 {
            stack.counters().ack_skipped.bump();
            return;
        }
        self.challenge_at = now.max(1);
        stack.counters().challenge_ack.bump();
        self.ack_now = true;
    }

    /// Whether an answer to a segment without data that does not fit was given a moment ago (`tcp_invalid_ratelimit`).
    fn too_soon(&mut self, stack: &Stack, now: u64) -> bool {
        let soon = now.saturating_sub(self.misfit_at) < CHALLENGE_NS && self.misfit_at != 0;
        if soon {
            stack.counters().ack_skipped_seq.bump();
        } else {
            self.misfit_at = now.max(1);
        }
        soon
    }

    fn on_reset(&mut self, stack: &Stack) {
        let error = match self.state {
            State::SynReceived if self.early.is_none() => Some(Errno::ECONNREFUSED),
            State::CloseWait => Some(Errno::EPIPE),
            State::LastAck | State::Closing => None,
            _ => Some(Errno::ECONNRESET),
        };
        stack.counters().tcp_estab_resets.bump();
        self.finish(stack, error);
    }

    fn update_window(&mut self, segment: &Segment) {
        let window = u32::from(segment.window) << self.snd_wscale;
        if seq::gt(segment.ack, self.snd_una)
            || seq::gt(segment.seq, self.snd_wl1)
            || segment.seq == self.snd_wl1 && (window > self.snd_wnd || window == 0)
        {
            self.snd_wl1 = segment.seq;
            self.snd_wnd = window;
            self.max_wnd = self.max_wnd.max(window);
        }
        if self.rtx.0 == Rtx::Window {
            self.retransmits = 0;
            if self.snd_wnd > 0 {
                self.rtx = (Rtx::None, u64::MAX);
                self.rtt.backoff = 0;
            }
        }
    }

    /// The send buffer follows the congestion window.
    fn grow_sndbuf(&mut self, stack: &Stack) {
        if self.opts.sndbuf != 0 || stack.under_pressure() {
            return;
        }
        let want = (3 * self.cc.cwnd as usize).min(stack.tcp_defaults.wmem_max());
        self.sndbuf = self.sndbuf.max(want);
    }

    /// What the acknowledgement of our FIN changes; false when the connection is over.
    fn after_ack(&mut self, stack: &Stack, now: u64) -> bool {
        let fin_acked = self.fin_wanted && self.snd_una == self.data_end().wrapping_add(1);
        if !fin_acked {
            return true;
        }
        match self.state {
            State::FinWait1 => {
                self.set_state(stack, State::FinWait2);
                if self.orphan {
                    self.arm_fin_wait(stack, now);
                    return self.state != State::Closed;
                }
            }
            State::Closing => {
                self.enter_time_wait(stack);
                return false;
            }
            State::LastAck => {
                self.finish(stack, None);
                return false;
            }
            _ => {}
        }
        true
    }

    /// A closed socket does not wait for ever for the peer's FIN.
    pub fn arm_fin_wait(&mut self, stack: &Stack, now: u64) {
        let wait = match self.opts.linger2 {
            0 => stack.config().limits.fin_timeout_ns,
            n if n < 0 => {
                // Not a moment.
                stack.counters().abort_on_linger.bump();
                self.send_reset(stack, now);
                self.finish(stack, None);
                return;
            }
            n => n as u64 * 1_000_000_000,
        };
        self.life_at = now + wait;
    }

    pub(super) fn enter_time_wait(&mut self, stack: &Stack) {
        self.set_state(stack, State::TimeWait);
        self.rtx = (Rtx::None, u64::MAX);
        self.keep_at = u64::MAX;
        self.life_at = u64::MAX;
        self.delack_at = u64::MAX;
        self.effects.time_wait = true;
        self.effects.events |= Events::IN | Events::OUT | Events::HUP | Events::RDHUP;
    }

    /// An ICMP error about one of our segments.
    pub fn on_icmp(&mut self, stack: &Stack, about: u32, error: &IcmpError, now: u64) {
        if self.state == State::Closed || self.state == State::TimeWait {
            return;
        }
        // A forger would have to know the window (RFC 5927 §4.1).
        if !(seq::le(self.snd_una, about) && seq::lt(about, self.snd_nxt)) {
            return;
        }
        if let Some(mtu) = error.mtu {
            if self.probe_too_big(stack, about, mtu, now) {
                self.output(stack, now);
            } else if mtu < self.path_mtu() && self.opts.df() {
                stack.learn_pmtu(self.key.remote, mtu, now);
                self.dst.mtu = mtu;
                self.update_mss();
                self.resend_smaller(stack, now);
            }
            return;
        }
        match self.state {
            State::SynSent | State::SynReceived => {
                stack.counters().tcp_attempt_fails.bump();
                self.finish(stack, Some(error.errno));
            }
            // Soft: the retransmissions decide (RFC 1122 §4.2.3.9).
            _ => {}
        }
    }

    /// What was too large for the path goes again in smaller segments.
    fn resend_smaller(&mut self, stack: &Stack, now: u64) {
        let mss = self.mss;
        let mut index = 0;
        while let Some(sent) = self.sent.get(index).copied() {
            use super::tcb::Sent;
            if sent.len() > mss && !sent.is(Sent::SACKED) {
                if sent.is(Sent::RETRANS) {
                    stack.counters().lost_retransmit.bump();
                    self.retrans -= sent.len();
                }
                if !sent.is(Sent::LOST) {
                    self.lost += sent.len();
                }
                if let Some(entry) = self.sent.get_mut(index) {
                    entry.flags = entry.flags & !Sent::RETRANS | Sent::LOST;
                }
            }
            index += 1;
        }
        self.output(stack, now);
    }
}
