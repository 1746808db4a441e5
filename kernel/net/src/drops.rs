//! Dropped packets by reason, as the information store shows them: out of the counters, of which Linux has some count a
//! packet twice.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use store::{Leaf, Value};

use crate::stack::Stack;

/// Counters that count dropped packets: their group and name in Linux, and the reason in words. What [`CONTAINS`] says is
/// in another reason already is taken off.
const DROPS: &[(&str, &str, &str)] = &[
    ("Ip", "InHdrErrors", "ip_bad_header"),
    ("Ip", "InAddrErrors", "ip_not_for_this_machine"),
    ("Ip", "InUnknownProtos", "ip_unknown_protocol"),
    ("Ip", "InDiscards", "ip_in_no_room"),
    ("Ip", "OutNoRoutes", "ip_no_route"),
    ("Ip", "ReasmFails", "ip_fragments_incomplete"),
    ("Ip", "FragFails", "ip_too_large"),
    ("IpExt", "InTruncatedPkts", "ip_truncated"),
    ("IpExt", "InCsumErrors", "ip_checksum"),
    ("IpExt", "InNoRoutes", "ip_in_no_route"),
    ("Ip6", "Ip6InHdrErrors", "ip6_bad_header"),
    ("Ip6", "Ip6InAddrErrors", "ip6_not_for_this_machine"),
    ("Ip6", "Ip6InUnknownProtos", "ip6_unknown_protocol"),
    ("Ip6", "Ip6OutNoRoutes", "ip6_no_route"),
    ("Ip6", "Ip6ReasmFails", "ip6_fragments_incomplete"),
    ("Icmp", "InErrors", "icmp_malformed"),
    ("Icmp", "InCsumErrors", "icmp_checksum"),
    ("Icmp", "OutRateLimitGlobal", "icmp_rate_limit"),
    ("Tcp", "InErrs", "tcp_malformed"),
    ("Tcp", "InCsumErrors", "tcp_checksum"),
    ("Udp", "NoPorts", "udp_no_listener"),
    ("Udp", "InErrors", "udp_malformed"),
    ("Udp", "InCsumErrors", "udp_checksum"),
    ("Udp", "RcvbufErrors", "udp_receive_buffer_full"),
    ("Udp", "MemErrors", "udp_no_memory"),
    ("Udp6", "NoPorts", "udp6_no_listener"),
    ("Udp6", "InErrors", "udp6_malformed"),
    ("Udp6", "InCsumErrors", "udp6_checksum"),
    ("Udp6", "RcvbufErrors", "udp6_receive_buffer_full"),
    ("Udp6", "MemErrors", "udp6_no_memory"),
    ("TcpExt", "ListenOverflows", "tcp_accept_queue_full"),
    ("TcpExt", "ListenDrops", "tcp_handshake_dropped"),
    ("TcpExt", "TCPReqQFullDrop", "tcp_syn_queue_full"),
    ("TcpExt", "SyncookiesFailed", "tcp_wrong_cookie"),
    ("TcpExt", "PAWSEstab", "tcp_old_timestamp"),
    ("TcpExt", "TCPMinTTLDrop", "tcp_came_too_far"),
    ("TcpExt", "RcvPruned", "tcp_pruned"),
    ("TcpExt", "TCPOFODrop", "tcp_out_of_order_full"),
    ("TcpExt", "TCPRcvQDrop", "tcp_receive_queue_full"),
    ("TcpExt", "TCPZeroWindowDrop", "tcp_zero_window"),
    ("TcpExt", "TCPTimeWaitOverflow", "tcp_time_wait_full"),
];

/// Linux counts some drops twice (those of a full card's queue, `OutDiscards`, are the link's below): under the first name and under one of the others.
const CONTAINS: &[(&str, &[&str])] = &[
    ("ip_bad_header", &["ip_checksum"]),
    ("icmp_malformed", &["icmp_checksum"]),
    ("tcp_malformed", &["tcp_checksum"]),
    (
        "tcp_pruned",
        &["tcp_out_of_order_full", "tcp_receive_queue_full"],
    ),
    (
        "udp_malformed",
        &["udp_checksum", "udp_receive_buffer_full", "udp_no_memory"],
    ),
    (
        "udp6_malformed",
        &[
            "udp6_checksum",
            "udp6_receive_buffer_full",
            "udp6_no_memory",
        ],
    ),
    (
        "tcp_handshake_dropped",
        &["tcp_accept_queue_full", "tcp_syn_queue_full"],
    ),
];

/// Each reason with its count.
pub(crate) fn by_reason(stack: &Stack) -> Vec<(String, Leaf)> {
    let mut all: Vec<(String, u64)> = Vec::new();
    stack.counters().for_each(|group, name, count| {
        let mut known = DROPS.iter();
        if let Some((.., reason)) = known.find(|(of, known, _)| (*of, *known) == (group, name)) {
            all.push(((*reason).into(), count));
        }
    });
    let count = |of: &str| {
        all.iter()
            .find(|(reason, _)| reason == of)
            .map_or(0, |(_, count)| *count)
    };
    let sum = |reasons: &[&str]| reasons.iter().map(|reason| count(reason)).sum::<u64>();
    let twice: Vec<(&str, u64)> = CONTAINS
        .iter()
        .map(|(reason, parts)| (*reason, sum(parts)))
        .collect();
    for (reason, sum) in twice {
        if let Some((_, count)) = all.iter_mut().find(|(known, _)| known == reason) {
            *count = count.saturating_sub(sum);
        }
    }
    for link in stack.links() {
        all.push((format!("{}_receive", link.name), link.counters.rx_dropped));
        all.push((format!("{}_transmit", link.name), link.counters.tx_dropped));
    }
    all.push(("tcp_guarded_port".into(), stack.guarded.dropped()));
    let leaf = |count| Leaf::fixed(Value::integer(count)).counter().unit("packets");
    let shown = all.into_iter();
    shown
        .map(|(reason, count)| (reason, leaf(count).help("Packets dropped.")))
        .collect()
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::config::Config;

    #[test]
    fn each_reason_is_a_counter() {
        let stack = Stack::new(Config::new(Arc::new(|| 1), [1, 2, 3, 4]));
        let mut known = Vec::new();
        stack
            .counters()
            .for_each(|group, name, _| known.push((group, name)));
        for (group, name, _) in DROPS {
            assert!(known.contains(&(*group, *name)), "{group} {name}");
        }
    }
}
