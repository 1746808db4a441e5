//! The transmission control block: all a connection knows, and its small questions about itself. What
//! changes it lies beside: `input` (segments), `loss` (what was lost), `output` (what to send), `timer`.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use errno::Errno;

use super::black_hole::BlackHole;
use super::cc::Congest;
use super::ecn::Ecn;
use super::fastopen::Early;
use super::fastopen_client::Opening;
use super::header::LEN;
use super::measure::{Rate, Spent};
use super::opts::TcpOpts;
use super::recvq::RecvQueue;
use super::rtt::Rtt;
use super::sendq::SendQueue;
use super::urgent::Urgent;
use crate::flow::FlowKey;
use crate::poll::Events;
use crate::route::Dst;
use crate::stack::Stack;

/// States of RFC 9293 with Linux's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Closed = 7,
    CloseWait = 8,
    LastAck = 9,
    Closing = 11,
}

/// A range that was sent and is not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub seq: u32,
    pub end: u32,
    /// When it was (last) sent.
    pub at: u64,
    pub flags: u8,
}

impl Sent {
    /// The peer has it.
    pub const SACKED: u8 = 1;
    /// Held for lost.
    pub const LOST: u8 = 2;
    /// Its retransmission is on the way.
    pub const RETRANS: u8 = 4;
    /// It was sent more than once.
    pub const EVER_RETRANS: u8 = 8;

    pub fn len(&self) -> u32 {
        self.end.wrapping_sub(self.seq)
    }

    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What the timer that all retransmissions share is armed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rtx {
    None,
    /// The retransmission timeout.
    Rto,
    /// A tail loss probe.
    Probe,
    /// RACK's reordering window is over.
    Reorder,
    /// The peer's window is closed.
    Window,
}

/// States of congestion control, with Linux's numbers in `TCP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ca {
    Open = 0,
    /// Reduces the window because of an ECN mark.
    Cwr = 2,
    Recovery = 3,
    Loss = 4,
}

/// RACK's and TLP's memory (RFC 8985).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rack {
    pub sent_at: u64,
    pub end: u32,
    pub rtt: u64,
    pub valid: bool,
    pub reordering: bool,
    pub reo_mult: u64,
    pub dsack_round: u32,
    /// `snd_nxt` when a loss probe went out, and whether that was a retransmission.
    pub probe: Option<(u32, bool)>,
}

/// What has to be done for a connection after its lock is released.
#[derive(Default)]
pub(crate) struct Effects {
    pub events: Events,
    pub error: Option<Errno>,
    /// It is over; the flow goes.
    pub gone: bool,
    /// It goes to TIME-WAIT.
    pub time_wait: bool,
    /// An attempt to connect succeeded.
    pub established: bool,
}

pub(crate) struct Tcb {
    pub key: FlowKey,
    pub spread: u64,
    pub state: State,
    pub dst: Dst,
    pub opts: TcpOpts,
    pub ident: u16,

    // Sending.
    pub iss: u32,
    pub snd_una: u32,
    pub snd_nxt: u32,
    /// The highest sent, for segments that go back.
    pub snd_max: u32,
    pub snd_wnd: u32,
    pub snd_wl1: u32,
    pub max_wnd: u32,
    pub snd_wscale: u8,
    /// End of the last segment sent that was not full (Minshall).
    pub snd_small: u32,
    pub sendq: SendQueue,
    /// Sequence number of the queue's first byte.
    pub sendq_seq: u32,
    /// A FIN follows the data.
    pub fin_wanted: bool,
    pub peer_mss: u32,
    /// On the path, if one was found.
    pub black_hole: Option<Box<BlackHole>>,
    /// Data of a full segment with our usual options.
    pub mss: u32,
    pub sndbuf: usize,
    /// The program found no room and wants to hear of it.
    pub want_write: bool,
    /// The sequence number after our newest urgent byte, until it is acknowledged.
    pub snd_urgent: Option<u32>,
    /// What the program adds now ends in an urgent byte.
    pub sending_urgent: bool,
    pub corked_until: u64,
    pub last_sent: u64,

    // What is on its way.
    pub sent: VecDeque<Sent>,
    pub sacked: u32,
    pub lost: u32,
    pub retrans: u32,
    pub dup_acks: u32,
    pub rack: Rack,
    pub ca: Ca,
    pub cc: Congest,
    pub cwnd_limited: bool,
    pub recovery_point: u32,
    pub prr_delivered: u32,
    pub prr_out: u32,
    pub recover_fs: u32,
    pub prior_cwnd: u32,
    pub prior_ssthresh: u32,
    /// Retransmissions of this episode not yet told to have been for nothing; `None` when undo is off.
    pub undo_retrans: Option<u32>,
    /// TSval of the first retransmission of this episode.
    pub retrans_ts: Option<u32>,
    pub rtt: Rtt,
    pub retransmits: u32,
    /// When the oldest unanswered transmission began.
    pub stalled_since: u64,

    // Receiving.
    pub irs: u32,
    pub rcv_nxt: u32,
    /// `rcv_nxt` when a window was last told, and that window.
    pub rcv_wup: u32,
    pub rcv_wnd: u32,
    /// By how much more what we accept ends behind the window told last: windows are told in units of the scale.
    pub rcv_slack: u32,
    pub rcv_wscale: u8,
    pub recvq: RecvQueue,
    /// Payload bytes we are willing to hold.
    pub rcv_limit: u32,
    pub rcv_mss: u32,
    pub dsack: Option<(u32, u32)>,
    pub fin_seq: Option<u32>,
    pub rcv_urgent: Urgent,
    pub copied: u64,
    pub drs_mark: u64,
    pub drs_at: u64,
    pub drs_space: u64,
    pub rcv_rtt: u64,
    pub rcv_rtt_ecr: u32,

    // Acknowledging.
    pub ack_now: bool,
    pub delack_at: u64,
    /// How long an acknowledgement is held back for the program's answer to carry it.
    pub ato: u64,
    /// The last data was acknowledged without an answer, for want of one in time.
    pub ack_alone: bool,
    /// Acknowledgements sent quickly at the start, so that the peer's slow start and its Nagle do not wait.
    pub quick: u8,
    pub challenge_at: u64,
    /// When a segment without data that did not fit was last answered.
    pub misfit_at: u64,
    pub last_ack_sent: u32,

    /// Open by Fast Open, and its handshake not done.
    pub early: Option<Early>,
    /// An attempt to connect with Fast Open.
    pub opening: Option<Box<Opening>>,
    /// The SYN brought data, or took it along.
    pub syn_data: bool,
    /// Why Fast Open did not work (`tcpi_fastopen_client_fail`).
    pub open_fail: u8,

    // Options agreed on.
    pub ecn: Ecn,
    pub ts_ok: bool,
    pub sack_ok: bool,
    pub wscale_ok: bool,
    pub ts_recent: u32,
    pub ts_recent_at: u64,
    pub ts_offset: u32,

    // Timers: deadlines, `u64::MAX` for none.
    pub rtx: (Rtx, u64),
    /// Since when the retransmission timeout runs (RFC 6298 §5): the first transmission, news, the first segment again.
    pub rto_from: u64,
    pub keep_at: u64,
    pub keep_probes: u32,
    pub life_at: u64,
    pub last_rcv: u64,
    /// Deadlines that lie in the wheel for us, the nearest last.
    pub wheel: [u64; 4],
    pub wheel_len: usize,

    pub charged: usize,
    pub shutdown_rcv: bool,
    /// The program has closed it.
    pub orphan: bool,
    pub effects: Effects,

    // For TCP_INFO.
    pub spent: Spent,
    pub rate: Rate,
    /// When data last came.
    pub last_data: u64,
    /// How far segments overtook others, in segments (`tcp_reordering` at first).
    pub reach: u32,
    pub total_retrans: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub segs_in: u32,
    pub segs_out: u32,
    pub data_segs_in: u32,
    pub data_segs_out: u32,
    pub delivered: u32,
    pub delivered_ce: u32,
    pub dsack_dups: u32,
    pub reord_seen: u32,
    pub ooo_packets: u32,
}

/// `tcp_reordering`, and the most it grows to (`tcp_max_reordering`).
const REORDERING: u32 = 3;
pub(crate) const MAX_REORDERING: u32 = 300;
/// What a connection may queue however little memory there is (`tcp_wmem[0]`).
const LEAST_SNDBUF: usize = 4096;
/// The largest window without scaling, and our first.
pub(crate) const FIRST_WINDOW: u32 = 65_535;

impl Tcb {
    /// A connection that has sent and received nothing.
    pub fn new(stack: &Stack, key: FlowKey, dst: Dst, opts: TcpOpts, iss: u32, now: u64) -> Tcb {
        let spread = key.secret(stack.secret, 3);
        let limits = &stack.config().limits;
        let rcv_limit = match opts.rcvbuf {
            0 => (limits.tcp_rmem / 2).min(FIRST_WINDOW as usize) as u32,
            n => (n / 2).min(limits.rmem_max) as u32,
        };
        let sndbuf = match opts.sndbuf {
            0 => limits
                .tcp_wmem
                .max(87_040)
                .min(stack.tcp_defaults.wmem_max()),
            n => n,
        };
        let rcv_wscale = wscale_for(match opts.rcvbuf {
            0 => stack.tcp_defaults.rmem_max(),
            n => n.max(limits.tcp_rmem),
        });
        let mut tcb = Tcb {
            key,
            spread,
            state: State::Closed,
            ident: spread as u16,
            iss,
            snd_una: iss,
            snd_nxt: iss,
            snd_max: iss,
            snd_wnd: 0,
            snd_wl1: 0,
            max_wnd: 0,
            snd_wscale: 0,
            snd_small: iss,
            sendq: SendQueue::default(),
            sendq_seq: iss.wrapping_add(1),
            fin_wanted: false,
            peer_mss: 536,
            black_hole: None,
            mss: 536,
            sndbuf,
            want_write: false,
            snd_urgent: None,
            sending_urgent: false,
            corked_until: u64::MAX,
            last_sent: now,
            sent: VecDeque::new(),
            sacked: 0,
            lost: 0,
            retrans: 0,
            dup_acks: 0,
            rack: Rack {
                reo_mult: 1,
                ..Rack::default()
            },
            ca: Ca::Open,
            cc: Congest::new(opts.congestion, 536),
            cwnd_limited: false,
            recovery_point: iss,
            prr_delivered: 0,
            prr_out: 0,
            recover_fs: 0,
            prior_cwnd: 0,
            prior_ssthresh: 0,
            undo_retrans: None,
            retrans_ts: None,
            rtt: Rtt::default(),
            retransmits: 0,
            stalled_since: now,
            irs: 0,
            rcv_nxt: 0,
            rcv_wup: 0,
            rcv_wnd: 0,
            rcv_slack: 0,
            rcv_wscale,
            recvq: RecvQueue::default(),
            rcv_limit,
            rcv_mss: 536,
            dsack: None,
            fin_seq: None,
            rcv_urgent: Urgent::default(),
            copied: 0,
            drs_mark: 0,
            drs_at: now,
            drs_space: u64::from(rcv_limit),
            rcv_rtt: 0,
            rcv_rtt_ecr: 0,
            ack_now: false,
            delack_at: u64::MAX,
            ato: super::timer::DELACK_NS,
            ack_alone: false,
            quick: 16,
            challenge_at: 0,
            misfit_at: 0,
            last_ack_sent: 0,
            early: None,
            opening: None,
            syn_data: false,
            open_fail: 0,
            ecn: Ecn::default(),
            ts_ok: false,
            sack_ok: false,
            wscale_ok: false,
            ts_recent: 0,
            ts_recent_at: now,
            ts_offset: (spread >> 32) as u32,
            rtx: (Rtx::None, u64::MAX),
            rto_from: now,
            keep_at: u64::MAX,
            keep_probes: 0,
            life_at: u64::MAX,
            last_rcv: now,
            wheel: [0; 4],
            wheel_len: 0,
            charged: 0,
            shutdown_rcv: false,
            orphan: false,
            effects: Effects::default(),
            spent: Spent::default(),
            rate: Rate::default(),
            last_data: now,
            reach: REORDERING,
            total_retrans: 0,
            bytes_acked: 0,
            bytes_received: 0,
            bytes_sent: 0,
            bytes_retrans: 0,
            segs_in: 0,
            segs_out: 0,
            data_segs_in: 0,
            data_segs_out: 0,
            delivered: 0,
            delivered_ce: 0,
            dsack_dups: 0,
            reord_seen: 0,
            ooo_packets: 0,
            dst,
            opts,
        };
        tcb.update_mss();
        tcb.recvq.keep_times(tcb.opts.timestamp);
        tcb
    }

    /// What we tell the peer it may send in a segment: by the interface, not the path.
    pub fn advertised_mss(&self) -> u16 {
        let most = self.dst.iface.mtu() as usize - self.ip_len() - LEN;
        let most = match self.opts.maxseg as usize {
            0 => most,
            n => most.min(n),
        };
        most.min(65_535) as u16
    }

    pub fn ip_len(&self) -> usize {
        if self.key.remote.is_ipv4() { 20 } else { 40 }
    }

    /// The peer's MSS, or `TCP_MAXSEG` where that is less.
    pub(super) fn agreed_mss(&self) -> u32 {
        match self.opts.maxseg {
            0 => self.peer_mss,
            n => self.peer_mss.min(n),
        }
    }

    /// Sizes segments by the peer's MSS, the path's MTU, `TCP_MAXSEG` and our options.
    pub fn update_mss(&mut self) {
        let path = (self.path_mtu() as usize).saturating_sub(self.ip_len() + LEN) as u32;
        let mut mss = self.agreed_mss().min(path);
        if self.ts_ok {
            mss = mss.saturating_sub(12);
        }
        self.mss = mss.max(48);
        self.cc.set_mss(self.mss);
    }

    /// Congestion control starts over with the segment size that was agreed on.
    pub fn start_congestion(&mut self) {
        self.update_mss();
        self.cc = Congest::new(self.opts.congestion, self.mss);
    }

    /// Bytes (SYN and FIN count one) sent and not acknowledged.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.snd_nxt.wrapping_sub(self.snd_una)
    }

    /// Bytes believed to be on the way.
    #[inline]
    pub fn pipe(&self) -> u32 {
        (self.in_flight() + self.retrans).saturating_sub(self.sacked + self.lost)
    }

    /// The sequence number after the last byte the program wrote.
    #[inline]
    pub fn data_end(&self) -> u32 {
        self.sendq_seq.wrapping_add(self.sendq.len() as u32)
    }

    /// Bytes written and never sent.
    pub fn unsent(&self) -> u32 {
        let next = crate::seq::max(self.snd_nxt, self.sendq_seq);
        let left = self.data_end().wrapping_sub(next);
        if (left as i32) < 0 { 0 } else { left }
    }

    /// Room in the send queue. When all memory is used, the little that every connection may have: it
    /// would else wait for others' acknowledgements, of which nobody tells it.
    pub fn send_room(&self, stack: &Stack) -> usize {
        let room = self
            .sndbuf
            .saturating_sub(self.sendq.len().max(self.sendq.cost() / 2));
        if stack.exhausted() {
            return room
                .min(LEAST_SNDBUF.saturating_sub(self.sendq.len()))
                .min(super::sendq::SMALL);
        }
        room
    }

    /// Whether `poll` is to say that it is writable: a third of the buffer is free.
    pub fn writable(&self, stack: &Stack) -> bool {
        let room = self.send_room(stack);
        let low = self.opts.notsent_lowat;
        room >= self.sendq.len() / 2 && room > 0 && (low == 0 || self.unsent() < low)
    }

    /// The clock of timestamps, in milliseconds.
    #[inline]
    pub fn ts_now(&self, now: u64) -> u32 {
        // Nanoseconds to milliseconds by multiplication: 2^64/10^6 rounded, in the high half.
        ((u128::from(now) * 18_446_744_073_710) >> 64) as u32
    }

    /// What goes into TSval.
    #[inline]
    pub fn ts_value(&self, now: u64) -> u32 {
        self.ts_now(now).wrapping_add(self.ts_offset)
    }

    /// Whether data and FIN can still be sent.
    pub fn can_send(&self) -> bool {
        matches!(self.state, State::Established | State::CloseWait) || self.is_early()
    }

    /// Whether the connection is established or was, and not over.
    pub fn synchronized(&self) -> bool {
        !matches!(
            self.state,
            State::Closed | State::SynSent | State::SynReceived | State::TimeWait
        )
    }

    /// Whether all that was sent, FIN included, is acknowledged.
    pub fn all_acked(&self) -> bool {
        self.snd_una == self.snd_nxt && self.unsent() == 0
    }

    /// The state changes; counters follow.
    pub fn set_state(&mut self, stack: &Stack, state: State) {
        let counts = |s: State| matches!(s, State::Established | State::CloseWait);
        match (counts(self.state), counts(state)) {
            (false, true) => stack.counters().tcp_curr_estab.bump(),
            (true, false) => stack.counters().tcp_curr_estab.drop_one(),
            _ => {}
        }
        self.state = state;
    }

    /// The connection is over with `error`: no more packets, no more timers. What was received can still be read.
    pub fn finish(&mut self, stack: &Stack, error: Option<Errno>) {
        self.early = None;
        self.stop_time(stack);
        self.set_state(stack, State::Closed);
        self.sendq.clear();
        self.sent.clear();
        self.snd_una = self.snd_nxt;
        self.sendq_seq = self.snd_nxt;
        (self.sacked, self.lost, self.retrans) = (0, 0, 0);
        self.recvq.prune();
        self.rtx = (Rtx::None, u64::MAX);
        self.delack_at = u64::MAX;
        self.keep_at = u64::MAX;
        self.life_at = u64::MAX;
        self.ack_now = false;
        self.corked_until = u64::MAX;
        if self.orphan {
            self.recvq.clear();
        }
        self.effects.gone = true;
        if error.is_some() {
            self.effects.error = error;
        }
        self.effects.events |= Events::IN | Events::OUT | Events::ERR | Events::HUP | Events::RDHUP;
        self.settle(stack);
    }

    /// Matches what is charged to the global limit with what is held, in quanta.
    pub fn settle(&mut self, stack: &Stack) {
        let used = self.sendq.cost() + self.recvq.footprint();
        // Fine steps for the many that hold little, coarse ones for the few that hold much.
        let step = if used < 4096 { 512 } else { 8192 };
        let want = used.next_multiple_of(step);
        if want > self.charged {
            stack.charge_anyway(want - self.charged);
            self.charged = want;
        } else if want + step < self.charged || want == 0 && self.charged > 0 {
            stack.discharge(self.charged - want);
            self.charged = want;
        }
    }

    /// The nearest deadline.
    pub fn next_deadline(&self) -> u64 {
        self.rtx
            .1
            .min(self.delack_at)
            .min(self.keep_at)
            .min(self.life_at)
            .min(self.corked_until)
    }
}

pub(crate) fn wscale_for(buffer: usize) -> u8 {
    let mut shift = 0;
    while shift < 14 && (65_535usize << shift) < buffer {
        shift += 1;
    }
    shift
}
