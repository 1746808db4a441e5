//! The bytes of `struct tcp_info` (`linux/tcp.h`).

use alloc::vec::Vec;

use net::tcp::info::TcpInfo;
use zerocopy::IntoBytes;

/// Lays the fields out in the order of the structure.
pub fn to_bytes(info: &TcpInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(240);
    out.extend([
        info.state,
        info.ca_state,
        info.retransmits,
        info.probes,
        info.backoff,
        info.options,
        info.snd_wscale & 0xf | info.rcv_wscale << 4,
        u8::from(info.delivery_rate_app_limited) | (info.fastopen_client_fail & 3) << 1,
    ]);
    out.extend_from_slice(
        [
            info.rto,
            info.ato,
            info.snd_mss,
            info.rcv_mss,
            info.unacked,
            info.sacked,
            info.lost,
            info.retrans,
            info.fackets,
            info.last_data_sent,
            info.last_ack_sent,
            info.last_data_recv,
            info.last_ack_recv,
            info.pmtu,
            info.rcv_ssthresh,
            info.rtt,
            info.rttvar,
            info.snd_ssthresh,
            info.snd_cwnd,
            info.advmss,
            info.reordering,
            info.rcv_rtt,
            info.rcv_space,
            info.total_retrans,
        ]
        .as_bytes(),
    );
    out.extend_from_slice(
        [
            info.pacing_rate,
            info.max_pacing_rate,
            info.bytes_acked,
            info.bytes_received,
        ]
        .as_bytes(),
    );
    out.extend_from_slice(
        [
            info.segs_out,
            info.segs_in,
            info.notsent_bytes,
            info.min_rtt,
            info.data_segs_in,
            info.data_segs_out,
        ]
        .as_bytes(),
    );
    out.extend_from_slice(
        [
            info.delivery_rate,
            info.busy_time,
            info.rwnd_limited,
            info.sndbuf_limited,
        ]
        .as_bytes(),
    );
    out.extend_from_slice([info.delivered, info.delivered_ce].as_bytes());
    out.extend_from_slice([info.bytes_sent, info.bytes_retrans].as_bytes());
    out.extend_from_slice(
        [
            info.dsack_dups,
            info.reord_seen,
            info.rcv_ooopack,
            info.snd_wnd,
            info.rcv_wnd,
            info.rehash,
        ]
        .as_bytes(),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_linux_has_them() {
        let info = TcpInfo {
            state: 1,
            rto: 200_000,
            snd_cwnd: 10,
            bytes_acked: 7,
            min_rtt: 9,
            rehash: 3,
            ..TcpInfo::default()
        };
        let bytes = to_bytes(&info);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(bytes[0], 1);
        assert_eq!(word(8), 200_000);
        assert_eq!(word(80), 10, "tcpi_snd_cwnd");
        assert_eq!(word(120), 7, "tcpi_bytes_acked");
        assert_eq!(word(148), 9, "tcpi_min_rtt");
        assert_eq!(bytes.len(), 240);
        assert_eq!(word(236), 3);
    }
}
