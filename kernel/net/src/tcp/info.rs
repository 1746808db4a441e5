//! `TCP_INFO`: the connection's state as `struct tcp_info` of `linux/tcp.h` tells it. The room above
//! lays the fields out in the program's memory in the order they have here.

use super::tcb::{Ca, Rtx, State, Tcb};

/// The fields of `struct tcp_info` up to `tcpi_rehash`; times in the unit Linux uses for each.
#[allow(
    missing_docs,
    reason = "each field is tcpi_<name> of linux/tcp.h and nothing more"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    pub state: u8,
    pub ca_state: u8,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    /// Bits: 1 timestamps, 2 SACK, 4 window scaling, 8 ECN, 16 ECN seen, 32 SYN data.
    pub options: u8,
    pub snd_wscale: u8,
    pub rcv_wscale: u8,
    pub delivery_rate_app_limited: bool,
    pub fastopen_client_fail: u8,
    /// Microseconds.
    pub rto: u32,
    pub ato: u32,
    pub snd_mss: u32,
    pub rcv_mss: u32,
    pub unacked: u32,
    pub sacked: u32,
    pub lost: u32,
    pub retrans: u32,
    pub fackets: u32,
    /// Milliseconds since.
    pub last_data_sent: u32,
    pub last_ack_sent: u32,
    pub last_data_recv: u32,
    pub last_ack_recv: u32,
    pub pmtu: u32,
    pub rcv_ssthresh: u32,
    /// Microseconds.
    pub rtt: u32,
    pub rttvar: u32,
    pub snd_ssthresh: u32,
    pub snd_cwnd: u32,
    pub advmss: u32,
    pub reordering: u32,
    pub rcv_rtt: u32,
    pub rcv_space: u32,
    pub total_retrans: u32,
    pub pacing_rate: u64,
    pub max_pacing_rate: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub segs_out: u32,
    pub segs_in: u32,
    pub notsent_bytes: u32,
    pub min_rtt: u32,
    pub data_segs_in: u32,
    pub data_segs_out: u32,
    pub delivery_rate: u64,
    /// Microseconds.
    pub busy_time: u64,
    pub rwnd_limited: u64,
    pub sndbuf_limited: u64,
    pub delivered: u32,
    pub delivered_ce: u32,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub dsack_dups: u32,
    pub reord_seen: u32,
    pub rcv_ooopack: u32,
    pub snd_wnd: u32,
    pub rcv_wnd: u32,
    pub rehash: u32,
}

impl Tcb {
    /// `TCP_INFO`.
    pub fn info(&self, now: u64) -> TcpInfo {
        let us = |ns: u64| (ns / 1000).min(u64::from(u32::MAX)) as u32;
        let ms_since = |at: u64| (now.saturating_sub(at) / 1_000_000) as u32;
        let mss = self.mss.max(1);
        let [network, window, buffer] = self.spent.until(now).map(|ns| ns / 1000);
        let (delivery_rate, delivery_rate_app_limited) = self.rate.told();
        // Probes of a closed window count apart from what is sent again for want of an answer.
        let (retransmits, probes) = match self.rtx.0 {
            Rtx::Window => (0, self.retransmits),
            _ => (self.retransmits, self.keep_probes),
        };
        let options = u8::from(self.ts_ok)
            | u8::from(self.sack_ok) << 1
            | u8::from(self.wscale_ok) << 2
            | u8::from(self.ecn.ok) << 3
            | u8::from(self.ecn.seen) << 4
            | u8::from(self.syn_data) << 5;
        TcpInfo {
            // As on Linux: what is left in TIME-WAIT is not the socket.
            state: match self.state {
                State::TimeWait => State::Closed,
                state => state,
            } as u8,
            ca_state: match self.ca {
                // Linux's `TCP_CA_Disorder`.
                Ca::Open if self.sacked > 0 || self.dup_acks > 0 => 1,
                ca => ca as u8,
            },
            retransmits: retransmits.min(255) as u8,
            probes: probes.min(255) as u8,
            backoff: self.rtt.backoff.min(255) as u8,
            options,
            fastopen_client_fail: self.open_fail,
            snd_wscale: self.snd_wscale,
            rcv_wscale: if self.wscale_ok { self.rcv_wscale } else { 0 },
            rto: us(self.rtt.timeout()),
            ato: us(self.ato),
            snd_mss: self.mss,
            rcv_mss: self.rcv_mss,
            unacked: self.in_flight().div_ceil(mss),
            sacked: self.sacked.div_ceil(mss),
            lost: self.lost.div_ceil(mss),
            retrans: self.retrans.div_ceil(mss),
            last_data_sent: ms_since(self.last_sent),
            last_data_recv: ms_since(self.last_data),
            last_ack_recv: ms_since(self.last_rcv),
            pmtu: self.path_mtu(),
            rcv_ssthresh: self.rcv_limit,
            rtt: us(self.rtt.srtt),
            rttvar: us(self.rtt.var),
            snd_ssthresh: match self.cc.ssthresh {
                u32::MAX => 0x7fff_ffff,
                n => n / mss,
            },
            snd_cwnd: self.cc.cwnd / mss,
            advmss: u32::from(self.advertised_mss()),
            reordering: self.reach,
            rcv_rtt: us(self.rcv_rtt),
            rcv_space: self.drs_space.min(u64::from(u32::MAX)) as u32,
            total_retrans: self.total_retrans,
            pacing_rate: self.pacing_rate(),
            max_pacing_rate: self.opts.pacing,
            bytes_acked: self.bytes_acked,
            bytes_received: self.bytes_received,
            segs_out: self.segs_out,
            segs_in: self.segs_in,
            notsent_bytes: self.unsent(),
            min_rtt: match self.rtt.min {
                u64::MAX => u32::MAX,
                n => us(n),
            },
            data_segs_in: self.data_segs_in,
            data_segs_out: self.data_segs_out,
            delivered: self.delivered,
            delivered_ce: self.delivered_ce,
            bytes_sent: self.bytes_sent + self.bytes_retrans,
            bytes_retrans: self.bytes_retrans,
            dsack_dups: self.dsack_dups,
            reord_seen: self.reord_seen,
            rcv_ooopack: self.ooo_packets,
            snd_wnd: self.snd_wnd,
            // As last told, whatever came since.
            rcv_wnd: self.rcv_wnd,
            delivery_rate,
            delivery_rate_app_limited,
            busy_time: network + window + buffer,
            rwnd_limited: window,
            sndbuf_limited: buffer,
            ..TcpInfo::default()
        }
    }
    /// What the congestion window comes to in bytes a second, as Linux reckons it: twice the window for each round trip
    /// in slow start, a fifth more than it behind. All ones before there is a round trip.
    fn pacing_rate(&self) -> u64 {
        if self.rtt.srtt == 0 {
            return u64::MAX;
        }
        let share = if self.cc.cwnd < self.cc.ssthresh / 2 {
            200
        } else {
            120
        };
        let window = u128::from(self.cc.cwnd.max(self.in_flight()));
        let rate = window * share * 10_000_000 / u128::from(self.rtt.srtt);
        rate.min(u128::from(self.opts.pacing)) as u64
    }
}
