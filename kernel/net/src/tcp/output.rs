//! What a connection sends: retransmissions first, then new data as windows, Nagle and cork allow, then
//! a bare acknowledgement if one is due. Packets refer to the send queue's memory.

use smallvec::SmallVec;

use super::black_hole::Probing;
use super::header::{ACK, Emit, FIN, PSH, RST, SYN, URG};
use super::tcb::{Ca, FIRST_WINDOW, Rtx, Sent, State, Tcb};
use crate::checksum::{Parts, Sum};
use crate::iface::ETH;
use crate::ip::{IpOut, proto};
use crate::nic::{Gso, GsoKind, Header, TxOffload, TxPacket, TxSegment};
use crate::route::Dst;
use crate::seq;
use crate::stack::Stack;

/// How long cork and `MSG_MORE` hold back a part-filled segment.
const CORK_NS: u64 = 200_000_000;
/// Largest payload given to a card to cut: with its headers it stays below what an IP length can say.
const TSO_MAX: u32 = 65_000;
/// Pieces of a packet over the loopback.
const LOOP_PIECES: usize = 64;

impl Tcb {
    /// Sends what can be sent now.
    pub fn output(&mut self, stack: &Stack, now: u64) {
        if self.dst.generation != stack.routes.generation() {
            self.reroute(stack);
        }
        if self.synchronized() || self.is_early() {
            if self.lost > self.retrans || self.ca != Ca::Open {
                self.retransmit_lost(stack, now);
            }
            self.send_new(stack, now, false);
            self.keep_time(now);
        }
        if self.ack_now && !matches!(self.state, State::Closed | State::SynSent) {
            self.send_ack(stack, now);
        }
    }

    /// Asks for the route again.
    fn reroute(&mut self, stack: &Stack) {
        match stack.route(self.key.remote, Some(self.key.local), self.opts.device) {
            Ok(dst) => {
                let smaller = dst.mtu != self.dst.mtu;
                self.dst = dst;
                if smaller {
                    self.update_mss();
                }
            }
            Err(_) => self.dst.generation = stack.routes.generation(),
        }
    }

    /// Data of a segment sent now: SACK blocks take their share.
    fn current_mss(&self) -> u32 {
        match self.recvq.sack_blocks().len() {
            0 if self.dsack.is_none() => self.mss,
            _ => self
                .mss
                .saturating_sub(4 + 8 * u32::from(self.sack_list().1))
                .max(48),
        }
    }

    /// Retransmits what is held for lost, as far as the congestion window goes.
    fn retransmit_lost(&mut self, stack: &Stack, now: u64) {
        let mss = self.current_mss();
        let mut index = 0;
        while self.lost > self.retrans {
            let Some(sent) = self.sent.get(index).copied() else {
                break;
            };
            if !sent.is(Sent::LOST) || sent.is(Sent::RETRANS) {
                index += 1;
                continue;
            }
            // The window may be full, but the first lost segment always goes.
            let room = self.cc.cwnd.saturating_sub(self.pipe());
            if room < mss.min(sent.len()) && self.retrans > 0 {
                break;
            }
            let most = self.burst(mss).min(room.max(mss) / mss * mss);
            if sent.len() > most {
                self.split(index, most);
            }
            if !self.resend(stack, index, now, false) {
                break;
            }
            let again = self.segments_of(index);
            if self.ca == Ca::Recovery {
                stack.counters().fast_retrans.add(again);
            } else {
                stack.counters().slow_start_retrans.add(again);
            }
            index += 1;
        }
    }

    /// How many segments entry `index` is.
    pub(super) fn segments_of(&self, index: usize) -> u64 {
        let len = self.sent.get(index).map_or(0, Sent::len);
        u64::from(len.div_ceil(self.mss).max(1))
    }

    /// Cuts entry `index` after `len` bytes.
    pub fn split(&mut self, index: usize, len: u32) {
        if let Some(first) = self.sent.get_mut(index) {
            let mut second = *first;
            first.end = first.seq.wrapping_add(len);
            second.seq = first.end;
            self.sent.insert(index + 1, second);
        }
    }

    /// Retransmits entry `index`; false when it could not be. A `probe` is not held for lost.
    pub fn resend(&mut self, stack: &Stack, index: usize, now: u64, probe: bool) -> bool {
        let Some(sent) = self.sent.get(index).copied() else {
            return false;
        };
        self.probe_given_up(stack, sent.seq);
        let (_, len, flags) = self.parts(sent.seq, sent.end);
        let (done, went) = self.emit(stack, now, sent.seq, len, flags);
        if done == 0 && len > 0 || !went {
            stack.counters().retrans_fail.bump();
        }
        if done < len {
            // More pieces than the card takes: the rest is an entry of its own.
            if done == 0 {
                return false;
            }
            self.split(index, done);
        }
        let first = self.retrans_ts.is_none();
        let mut len = 0;
        if let Some(entry) = self.sent.get_mut(index) {
            len = entry.len();
            entry.flags |= Sent::EVER_RETRANS;
            if !probe {
                if !entry.is(Sent::RETRANS) {
                    self.retrans += len;
                }
                entry.flags |= Sent::RETRANS;
            }
            entry.at = now;
            self.prr_out = self.prr_out.saturating_add(len);
            self.bytes_retrans += u64::from(len);
        }
        if first {
            self.retrans_ts = Some(self.ts_value(now));
        }
        if let Some(undo) = &mut self.undo_retrans {
            *undo += 1;
        }
        let segments = len.div_ceil(self.mss).max(1);
        self.total_retrans = self.total_retrans.wrapping_add(segments);
        stack.counters().tcp_retrans_segs.add(u64::from(segments));
        if !probe && index == 0 {
            // The timeout is the first segment's.
            self.rto_from = now;
            if self.rtx.0 == Rtx::Rto {
                self.arm_rto(now);
            }
        }
        if self.rtx.0 == Rtx::None {
            self.arm_rto(now);
        }
        true
    }

    /// What `seq..end` consists of: whether a SYN leads it, bytes of data, flags.
    fn parts(&self, start: u32, end: u32) -> (bool, u32, u8) {
        let mut flags = ACK;
        let data_start = seq::max(start, self.sendq_seq);
        let data_end = seq::min(end, self.data_end());
        let len = if seq::lt(data_start, data_end) {
            data_end.wrapping_sub(data_start)
        } else {
            0
        };
        if seq::gt(end, self.data_end()) && self.fin_wanted {
            flags |= FIN;
        }
        (false, len, flags)
    }

    /// The most data a packet may carry: the card cuts large ones.
    fn burst(&self, mss: u32) -> u32 {
        let caps = &self.dst.iface.caps;
        let tso = if self.key.remote.is_ipv4() {
            caps.tso4
        } else {
            caps.tso6
        };
        if !tso {
            return mss;
        }
        let most = match caps.max_gso_size {
            0 => TSO_MAX,
            n => n.saturating_sub(120).min(TSO_MAX),
        };
        (most / mss).max(1) * mss
    }

    /// Sends data that was never sent. `push` overrides what holds small segments back.
    pub fn send_new(&mut self, stack: &Stack, now: u64, push: bool) {
        if !matches!(
            self.state,
            State::Established
                | State::CloseWait
                | State::FinWait1
                | State::Closing
                | State::LastAck
        ) && !self.is_early()
        {
            return;
        }
        if self.unsent() == 0 && !self.fin_due() {
            return;
        }
        if self.sent.is_empty() && self.unsent() > 0 {
            let idle = now.saturating_sub(self.last_sent);
            let rto = self.rtt.rto;
            if idle > rto && self.cc.cwnd > 10 * self.mss {
                self.cc.restart(idle / rto);
            }
            self.stalled_since = now;
        }
        let mss = self.current_mss();
        let burst = self.burst(mss);
        let mut progress = false;
        let first = self.sent.is_empty();
        if self.black_hole.is_some() && !push {
            match self.probe_path(stack, now) {
                Probing::No => {}
                Probing::Soon => return,
                Probing::Sent => progress = true,
            }
        }
        loop {
            let unsent = self.unsent();
            let fin = self.fin_due();
            if unsent == 0 && !fin {
                break;
            }
            let window = self.usable_window();
            let pipe = self.pipe();
            let room = self.cc.cwnd.saturating_sub(pipe);
            let mut len = unsent.min(window).min(burst);
            if unsent > 0 {
                if room < len {
                    self.cwnd_limited = true;
                    len = room;
                }
                if len > mss {
                    len -= len % mss;
                }
                if len < unsent.min(mss) && !push {
                    // Held back by a window: no silly small segments, unless the peer never opens more,
                    // and never wait when nothing is on the way to bring news.
                    let by_cwnd = room < window;
                    let enough = len >= self.max_wnd / 2 && !by_cwnd;
                    if len == 0 || !enough && self.in_flight() > 0 || by_cwnd && pipe > 0 {
                        break;
                    }
                }
                if len == 0 {
                    break;
                }
                let partial = len < mss && len == unsent;
                if partial && !push && !fin && self.hold_back(now) {
                    break;
                }
            } else if window == 0 && self.in_flight() > 0 && self.snd_wnd == 0 {
                // A bare FIN waits for a window as data does, unless nothing else moves the connection.
                break;
            }
            let with_fin = fin && len == unsent;
            let mut flags = ACK;
            if with_fin {
                flags |= FIN;
            }
            if len > 0 && len == unsent {
                flags |= PSH;
            }
            let before = self.segs_out;
            let (sent, _) = self.emit(stack, now, self.snd_nxt, len, flags);
            if sent == 0 && len > 0 {
                break;
            }
            let with_fin = with_fin && sent == len;
            self.note_new(stack, sent, with_fin, before, now);
            if sent < mss {
                self.snd_small = self.snd_nxt;
            }
            progress = true;
            if with_fin {
                break;
            }
        }
        if progress {
            self.corked_until = u64::MAX;
        }
        if self.is_early() {
            // The one timer is the SYN-ACK's; without its answer nothing counts as sent.
        } else if progress {
            self.arm_after_sending(first, now);
        } else if self.in_flight() == 0 && (self.unsent() > 0 || self.fin_due()) {
            self.arm_window_probe(now);
        }
    }

    /// The next `sent` bytes are on their way, the FIN perhaps with them; before them `before` segments had gone out.
    pub(super) fn note_new(&mut self, stack: &Stack, sent: u32, fin: bool, before: u32, now: u64) {
        let seq = self.snd_nxt;
        let end = seq.wrapping_add(sent).wrapping_add(u32::from(fin));
        self.snd_nxt = end;
        self.snd_max = seq::max(self.snd_max, end);
        self.rate.on_send(end, self.sent.is_empty(), now);
        self.sent.push_back(Sent {
            seq,
            end,
            at: now,
            flags: 0,
        });
        self.bytes_sent += u64::from(sent);
        self.prr_out = self.prr_out.saturating_add(sent);
        let segments = self.segs_out.wrapping_sub(before);
        stack.counters().orig_data_sent.add(u64::from(segments));
    }

    /// Whether the FIN is the next thing to send once the data is out.
    pub fn fin_due(&self) -> bool {
        self.fin_wanted
            && self.state != State::SynReceived
            && seq::le(self.snd_nxt, self.data_end())
    }

    /// Nagle (in Minshall's form) and cork.
    fn hold_back(&mut self, now: u64) -> bool {
        if self.opts.cork {
            if self.corked_until == u64::MAX {
                self.corked_until = now + CORK_NS;
            }
            return now < self.corked_until;
        }
        !self.opts.nodelay && self.in_flight() > 0 && seq::gt(self.snd_small, self.snd_una)
    }

    /// A bare acknowledgement.
    pub fn send_ack(&mut self, stack: &Stack, now: u64) {
        self.emit(stack, now, self.snd_nxt, 0, ACK);
    }

    /// An old sequence number, to make the peer answer: keepalive and window probes.
    pub fn send_probe(&mut self, stack: &Stack, now: u64) {
        self.emit(stack, now, self.snd_una.wrapping_sub(1), 0, ACK);
    }

    /// SYN or SYN-ACK, first or again.
    pub fn send_syn(&mut self, stack: &Stack, now: u64) {
        let mut flags = SYN;
        if self.state == State::SynReceived {
            flags |= ACK;
        }
        let answering = flags & ACK != 0;
        flags |= self.ecn_syn_flags(stack, answering);
        let window = self.rcv_limit.min(FIRST_WINDOW);
        self.rcv_wup = self.rcv_nxt;
        self.rcv_wnd = window;
        let emit = Emit {
            lport: self.key.lport,
            rport: self.key.rport,
            seq: self.iss,
            ack: if answering { self.rcv_nxt } else { 0 },
            flags,
            window: window as u16,
            mss: Some(self.advertised_mss()),
            wscale: (!answering || self.wscale_ok).then_some(self.rcv_wscale),
            sack_permitted: !answering || self.sack_ok,
            ts: (!answering || self.ts_ok).then(|| (self.ts_value(now), self.ts_recent)),
            fast_open: match &self.early {
                Some(early) => early.cookie.map(super::fastopen::shown),
                None => self.shown(),
            },
            ..Emit::default()
        };
        let out = self.ip_out();
        let data = match emit.fast_open {
            Some((1.., _)) if !answering => self.sendq.len().min(self.syn_room()),
            _ => 0,
        };
        if data > 0 {
            self.send_syn_data(stack, &out, &emit, data, now);
        } else {
            send_header(stack, &self.dst, &out, &emit, now);
        }
        self.segs_out += 1;
        self.snd_nxt = seq::max(self.snd_nxt, self.iss.wrapping_add(1));
        self.snd_max = seq::max(self.snd_max, self.snd_nxt);
        self.last_ack_sent = self.rcv_nxt;
        self.last_sent = now;
    }

    /// Tells the peer that the connection is broken off.
    pub fn send_reset(&mut self, stack: &Stack, now: u64) {
        let emit = Emit {
            lport: self.key.lport,
            rport: self.key.rport,
            seq: self.snd_nxt,
            ack: self.rcv_nxt,
            flags: RST | ACK,
            ..Emit::default()
        };
        let out = self.ip_out();
        if !send_header(stack, &self.dst, &out, &emit, now) {
            stack.counters().abort_failed.bump();
        }
        stack.counters().tcp_out_rsts.bump();
    }

    fn ip_out(&mut self) -> IpOut {
        self.ident = self.ident.wrapping_add(1);
        let v4 = self.key.remote.is_ipv4();
        IpOut {
            src: self.key.local,
            dst: self.key.remote,
            proto: proto::TCP,
            ttl: if v4 {
                self.opts.ttl
            } else {
                self.opts.hops.unwrap_or(crate::ip::DEFAULT_TTL)
            },
            tos: if v4 { self.opts.tos } else { self.opts.tclass },
            df: self.opts.df(),
            ident: self.ident,
        }
    }

    /// The SACK blocks to send, a duplicate's first (RFC 2883).
    fn sack_list(&self) -> ([(u32, u32); 4], u8) {
        let mut list = [(0, 0); 4];
        if !self.sack_ok {
            return (list, 0);
        }
        let most = if self.ts_ok { 3 } else { 4 };
        let mut count = 0;
        for block in self.dsack.iter().chain(self.recvq.sack_blocks()) {
            if count == most {
                break;
            }
            list[count] = *block;
            count += 1;
        }
        (list, count as u8)
    }

    /// Builds and sends one packet of `len` bytes of data from `seq`. Returns how many bytes went: fewer
    /// when the data lies in more pieces than the card takes, or in more than one segment without its help. And whether
    /// the card's queue took it.
    pub(super) fn emit(
        &mut self,
        stack: &Stack,
        now: u64,
        seq: u32,
        mut len: u32,
        mut flags: u8,
    ) -> (u32, bool) {
        let mss = self.current_mss();
        let most = self.burst(mss);
        if len > most {
            // SACK blocks or a smaller path leave less room than when this was first sent.
            len = most;
            flags &= !FIN & !PSH;
        }
        // Only data that was never sent is ECT (RFC 3168 §6.1.5).
        let fresh = len > 0 && seq == self.snd_nxt;
        let urgent = self.urgent_pointer(seq);
        if (fresh && self.ecn_cwr_due() || urgent.is_some()) && len > mss {
            // One segment: a card that cuts would repeat either in each.
            len = mss;
            flags &= !FIN & !PSH;
        }
        let (ecn_flags, ect) = self.ecn_marks(fresh);
        flags |= ecn_flags;
        let window = self.select_window(stack);
        let (sacks, sack_count) = self.sack_list();
        let mut emit = Emit {
            lport: self.key.lport,
            rport: self.key.rport,
            seq,
            ack: self.rcv_nxt,
            flags,
            window,
            ts: self.ts_ok.then(|| (self.ts_value(now), self.ts_recent)),
            sacks,
            sack_count,
            ..Emit::default()
        };
        let mut out = self.ip_out();
        out.tos |= ect;
        let header_len = ETH + out.header_len() + emit.len();
        let mut header = Header::new();
        let mut segments: SmallVec<[TxSegment; 2]> = SmallVec::new();
        let mut small = [0; Header::CAPACITY];
        let mut inline = 0;
        let mut sent = len;
        if len > 0 {
            let offset = seq.wrapping_sub(self.sendq_seq) as usize;
            if len as usize + header_len <= Header::CAPACITY
                && self.sendq.read_small(offset, &mut small[..len as usize])
            {
                inline = len as usize;
            } else {
                let most = match self.dst.iface.caps.max_segments {
                    0 => LOOP_PIECES,
                    n => n.saturating_sub(1).max(1),
                };
                sent = self.sendq.gather(offset, len as usize, most, &mut segments) as u32;
                if sent == 0 {
                    return (0, true);
                }
                if sent < len {
                    flags &= !FIN & !PSH;
                    emit.flags = flags;
                }
            }
        }
        if let Some(pointer) = urgent {
            emit.flags |= URG;
            emit.urgent = pointer;
        }
        let tcp_len = emit.len() + sent as usize;
        out.emit(&mut header, tcp_len);
        emit.emit(&mut header);
        header.extend_from_slice(&small[..inline]);
        let mut packet = TxPacket {
            header,
            segments,
            offload: None,
        };
        let gso = (sent > mss && !self.dst.iface.is_loopback()).then(|| Gso {
            kind: if out.dst.is_ipv4() {
                GsoKind::Tcp4
            } else {
                GsoKind::Tcp6
            },
            segment_size: mss as u16,
            header_len: header_len as u16,
            ecn: false,
        });
        fill_checksum(&self.dst, &out, &mut packet, tcp_len, gso);
        // What every segment tells is told.
        if sent > 0 && seq == self.snd_nxt {
            self.answered(now);
        }
        self.ack_now = false;
        self.delack_at = u64::MAX;
        self.dsack = None;
        self.last_ack_sent = self.rcv_nxt;
        // What the card cuts counts as what it becomes.
        let segments = if sent > mss { sent.div_ceil(mss) } else { 1 };
        self.segs_out = self.segs_out.wrapping_add(segments);
        if sent > 0 {
            self.data_segs_out = self.data_segs_out.wrapping_add(segments);
        }
        if sent > 0 || flags & FIN != 0 {
            self.last_sent = now;
        }
        stack.counters().tcp_out_segs.add(u64::from(segments));
        let went = stack.output(&self.dst, packet, now);
        (sent, went)
    }
}

/// Fills the transport checksum of a TCP packet, or has the card do it.
pub(super) fn fill_checksum(
    dst: &Dst,
    out: &IpOut,
    packet: &mut TxPacket,
    tcp_len: usize,
    gso: Option<Gso>,
) {
    let pseudo = Sum::pseudo(out.src, out.dst, proto::TCP, tcp_len);
    let at = ETH + out.header_len();
    let caps = &dst.iface.caps;
    if dst.iface.is_loopback() {
        return;
    }
    let value = if caps.tx_csum {
        packet.offload = Some(TxOffload {
            csum_start: at as u16,
            csum_offset: 16,
            gso,
        });
        pseudo.folded()
    } else {
        sum_packet(packet, at, pseudo)
    };
    if let Some(field) = packet.header.get_mut(at + 16..at + 18) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The finished checksum over what follows `at`, on top of `start`.
pub(crate) fn sum_packet(packet: &TxPacket, at: usize, start: Sum) -> u16 {
    let mut parts = Parts::after(start);
    parts.add(packet.header.get(at..).unwrap_or(&[]));
    for segment in &packet.segments {
        match segment {
            TxSegment::Bytes(bytes, range) => parts.add(bytes.get(range.clone()).unwrap_or(&[])),
            TxSegment::Frame { frame, offset, len } => {
                let mut room = [0; 256];
                let mut done = 0;
                while done < *len as usize {
                    let n = (*len as usize - done).min(room.len());
                    frame.read(*offset as usize + done, &mut room[..n]);
                    parts.add(&room[..n]);
                    done += n;
                }
            }
        }
    }
    parts.sum().finish()
}

/// Sends a segment without data that belongs to no full connection; false when the card's queue had no room.
pub(crate) fn send_header(stack: &Stack, dst: &Dst, out: &IpOut, emit: &Emit, now: u64) -> bool {
    let mut header = Header::new();
    out.emit(&mut header, emit.len());
    emit.emit(&mut header);
    let mut packet = TxPacket::from_header(header);
    fill_checksum(dst, out, &mut packet, emit.len(), None);
    stack.counters().tcp_out_segs.bump();
    stack.output(dst, packet, now)
}
