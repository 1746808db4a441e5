//! Counters. Each is what Linux counts under the same name in `/proc/net/snmp` (group `Ip`, `Icmp`,
//! `Tcp`, `Udp`), `/proc/net/netstat` (`TcpExt`, `IpExt`) and `/proc/net/dev`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};

/// Counters of an interface (`/proc/net/dev`).
#[allow(missing_docs, reason = "the columns of /proc/net/dev")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IfCounters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub multicast: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// ICMP messages by type. They are few: one set for all CPUs.
#[derive(Debug)]
pub(crate) struct IcmpCounts([AtomicU64; 256]);

impl Default for IcmpCounts {
    fn default() -> Self {
        IcmpCounts(core::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl IcmpCounts {
    /// ICMP's types up to 63; of ICMPv6 errors up to 31 and messages from 128 to 159.
    fn slot(v6: bool, out: bool, kind: u8) -> Option<usize> {
        let kind = match (v6, kind) {
            (false, 0..64) | (true, 0..32) => kind,
            (true, 128..160) => kind - 96,
            _ => return None,
        };
        Some(usize::from(kind) | usize::from(v6) << 6 | usize::from(out) << 7)
    }

    /// Counts a message.
    pub fn bump(&self, v6: bool, out: bool, kind: u8) {
        if let Some(slot) = IcmpCounts::slot(v6, out, kind) {
            self.0[slot].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those that are not 0: whether it went out, the type, how many; in the order of types, what came in first.
    pub fn list(&self, v6: bool) -> Vec<(bool, u8, u64)> {
        let mut all = Vec::new();
        for out in [false, true] {
            for kind in 0..160 {
                let slot = IcmpCounts::slot(v6, out, kind);
                let count = slot.map_or(0, |slot| self.0[slot].load(Ordering::Relaxed));
                if count > 0 {
                    all.push((out, kind, count));
                }
            }
        }
        all
    }
}

macro_rules! counters {
    ($($group:literal { $($field:ident $name:literal,)* })*) => {
        /// The counters of one CPU.
        #[allow(missing_docs, reason = "each is the counter of that name in Linux")]
        #[derive(Debug, Default)]
        pub struct CounterSet { $($(pub $field: Counter,)*)* }

        /// All counters, groups together.
        const ALL: &[(&str, &str, fn(&CounterSet) -> &Counter)] =
            &[$($(($group, $name, |set| &set.$field),)*)*];
    };
}

/// All counters of an engine, a set for each CPU: nothing on the path of a packet is shared. Dereferences
/// to the set of the CPU it is used on. A reader of sums may see one a moment before another.
#[derive(Debug)]
pub struct Counters(Box<[CounterSet]>);

/// The most CPUs there are.
const SETS: usize = 16;

impl Default for Counters {
    fn default() -> Self {
        Counters((0..SETS).map(|_| CounterSet::default()).collect())
    }
}

impl core::ops::Deref for Counters {
    type Target = CounterSet;

    #[inline]
    fn deref(&self) -> &CounterSet {
        &self.0[crate::sync::cpu_id() % SETS]
    }
}

impl Counters {
    /// Calls `each(group, name, value)` for every counter, groups together, in a fixed order.
    pub fn for_each(&self, mut each: impl FnMut(&'static str, &'static str, u64)) {
        for (group, name, counter) in ALL {
            each(group, name, self.sum(counter));
        }
    }

    /// One counter over all CPUs.
    pub fn sum(&self, counter: impl Fn(&CounterSet) -> &Counter) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, set| sum.wrapping_add(counter(set).get()))
    }
}

impl CounterSet {
    /// The counter of IPv6 packets with that traffic class's ECN codepoint.
    #[inline]
    pub(crate) fn ip6_in_ecn(&self, class: u8) -> &Counter {
        match class & 3 {
            0 => &self.ip6_in_no_ect,
            1 => &self.ip6_in_ect1,
            2 => &self.ip6_in_ect0,
            _ => &self.ip6_in_ce,
        }
    }

    /// UDP's counters: Linux counts what goes by IPv6 apart.
    #[inline]
    pub(crate) fn udp(&self, addr: IpAddr) -> UdpCounters<'_> {
        match addr {
            IpAddr::V4(_) => UdpCounters {
                in_datagrams: &self.udp_in_datagrams,
                no_ports: &self.udp_no_ports,
                in_errors: &self.udp_in_errors,
                out_datagrams: &self.udp_out_datagrams,
                rcvbuf_errors: &self.udp_rcvbuf_errors,
                sndbuf_errors: &self.udp_sndbuf_errors,
                in_csum_errors: &self.udp_in_csum_errors,
                ignored_multi: &self.udp_ignored_multi,
                mem_errors: &self.udp_mem_errors,
            },
            IpAddr::V6(_) => UdpCounters {
                in_datagrams: &self.udp6_in_datagrams,
                no_ports: &self.udp6_no_ports,
                in_errors: &self.udp6_in_errors,
                out_datagrams: &self.udp6_out_datagrams,
                rcvbuf_errors: &self.udp6_rcvbuf_errors,
                sndbuf_errors: &self.udp6_sndbuf_errors,
                in_csum_errors: &self.udp6_in_csum_errors,
                ignored_multi: &self.udp6_ignored_multi,
                mem_errors: &self.udp6_mem_errors,
            },
        }
    }

    /// The counter of packets with that TOS's ECN codepoint.
    #[inline]
    pub(crate) fn in_ecn(&self, tos: u8) -> &Counter {
        match tos & 3 {
            0 => &self.in_no_ect,
            1 => &self.in_ect1,
            2 => &self.in_ect0,
            _ => &self.in_ce,
        }
    }
}

/// UDP's counters over one version of IP.
pub(crate) struct UdpCounters<'a> {
    pub in_datagrams: &'a Counter,
    pub no_ports: &'a Counter,
    pub in_errors: &'a Counter,
    pub out_datagrams: &'a Counter,
    pub rcvbuf_errors: &'a Counter,
    pub sndbuf_errors: &'a Counter,
    pub in_csum_errors: &'a Counter,
    pub ignored_multi: &'a Counter,
    pub mem_errors: &'a Counter,
}

/// One counter of one CPU.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        if cfg!(target_os = "none") {
            // The kernel is not preempted, and interrupt handlers count nothing here: the set is this CPU's.
            let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
            self.0.store(sum, Ordering::Relaxed);
        } else {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Takes one off: for gauges such as `CurrEstab`, whose sum over all CPUs is right.
    #[inline]
    pub fn drop_one(&self) {
        self.add(u64::MAX);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// `OutRequests` are datagrams handed to IP, `OutTransmits` the packets they became.
// Always 0, which is true, for here it does not happen: ForwDatagrams and InNoRoutes (a host does not forward), ICMP's OutErrors
// (no message of its own fails for memory), PAWSActive, TCPHPHits (one path for all), TCPRcvCollapsed, TCPBacklogCoalesce,
// TCPAutoCorking, TCPAbortOnMemory (no limit of orphans).
counters! {
    "Ip" {
        ip_in_receives "InReceives", ip_in_hdr_errors "InHdrErrors", ip_in_addr_errors "InAddrErrors",
        ip_forw_datagrams "ForwDatagrams", ip_in_unknown_protos "InUnknownProtos", ip_in_discards "InDiscards",
        ip_in_delivers "InDelivers", ip_out_requests "OutRequests", ip_out_discards "OutDiscards",
        ip_out_no_routes "OutNoRoutes", ip_reasm_timeout "ReasmTimeout", ip_reasm_reqds "ReasmReqds",
        ip_reasm_oks "ReasmOKs", ip_reasm_fails "ReasmFails", ip_frag_oks "FragOKs", ip_frag_fails "FragFails",
        ip_frag_creates "FragCreates", ip_out_transmits "OutTransmits",
    }
    "Icmp" {
        icmp_in_msgs "InMsgs", icmp_in_errors "InErrors", icmp_in_csum_errors "InCsumErrors",
        icmp_in_dest_unreachs "InDestUnreachs", icmp_in_time_excds "InTimeExcds", icmp_in_parm_probs "InParmProbs", icmp_in_echos "InEchos",
        icmp_in_echo_reps "InEchoReps", icmp_out_msgs "OutMsgs", icmp_out_errors "OutErrors",
        icmp_out_rate_limit "OutRateLimitGlobal", icmp_out_dest_unreachs "OutDestUnreachs",
        icmp_out_time_excds "OutTimeExcds", icmp_out_echos "OutEchos", icmp_out_echo_reps "OutEchoReps",
    }
    "Tcp" {
        tcp_active_opens "ActiveOpens", tcp_passive_opens "PassiveOpens", tcp_attempt_fails "AttemptFails",
        tcp_estab_resets "EstabResets", tcp_curr_estab "CurrEstab", tcp_in_segs "InSegs", tcp_out_segs "OutSegs",
        tcp_retrans_segs "RetransSegs", tcp_in_errs "InErrs", tcp_out_rsts "OutRsts", tcp_in_csum_errors "InCsumErrors",
    }
    "Udp" {
        udp_in_datagrams "InDatagrams", udp_no_ports "NoPorts", udp_in_errors "InErrors", udp_out_datagrams "OutDatagrams",
        udp_rcvbuf_errors "RcvbufErrors", udp_sndbuf_errors "SndbufErrors", udp_in_csum_errors "InCsumErrors",
        udp_ignored_multi "IgnoredMulti", udp_mem_errors "MemErrors",
    }
    "Udp6" {
        udp6_in_datagrams "InDatagrams", udp6_no_ports "NoPorts", udp6_in_errors "InErrors",
        udp6_out_datagrams "OutDatagrams", udp6_rcvbuf_errors "RcvbufErrors", udp6_sndbuf_errors "SndbufErrors",
        udp6_in_csum_errors "InCsumErrors", udp6_ignored_multi "IgnoredMulti", udp6_mem_errors "MemErrors",
    }
    "TcpExt" {
        syncookies_sent "SyncookiesSent", syncookies_recv "SyncookiesRecv", syncookies_failed "SyncookiesFailed",
        prune_called "PruneCalled", rcv_pruned "RcvPruned", ofo_pruned "OfoPruned", tw "TW", tw_recycled "TWRecycled",
        paws_active "PAWSActive", paws_estab "PAWSEstab", delayed_acks "DelayedACKs", delayed_ack_lost "DelayedACKLost",
        listen_overflows "ListenOverflows", listen_drops "ListenDrops", tcp_hp_hits "TCPHPHits", tcp_pure_acks "TCPPureAcks",
        sack_recovery "TCPSackRecovery", reno_recovery "TCPRenoRecovery", sack_reneging "TCPSACKReneging",
        sack_reorder "TCPSACKReorder", ts_reorder "TCPTSReorder", full_undo "TCPFullUndo", partial_undo "TCPPartialUndo", dsack_undo "TCPDSACKUndo",
        loss_undo "TCPLossUndo", lost_retransmit "TCPLostRetransmit", fast_retrans "TCPFastRetrans",
        slow_start_retrans "TCPSlowStartRetrans", timeouts "TCPTimeouts", loss_probes "TCPLossProbes",
        loss_probe_recovery "TCPLossProbeRecovery", rcv_collapsed "TCPRcvCollapsed", backlog_coalesce "TCPBacklogCoalesce",
        dsack_old_sent "TCPDSACKOldSent", dsack_ofo_sent "TCPDSACKOfoSent", dsack_recv "TCPDSACKRecv",
        dsack_ofo_recv "TCPDSACKOfoRecv", abort_on_data "TCPAbortOnData", abort_on_close "TCPAbortOnClose",
        abort_on_memory "TCPAbortOnMemory", abort_on_timeout "TCPAbortOnTimeout", abort_on_linger "TCPAbortOnLinger",
        abort_failed "TCPAbortFailed", memory_pressures "TCPMemoryPressures", sack_discard "TCPSACKDiscard",
        spurious_rtos "TCPSpuriousRTOs", min_ttl_drop "TCPMinTTLDrop", deferaccept_drop "TCPDeferAcceptDrop", time_wait_overflow "TCPTimeWaitOverflow",
        req_q_full_docookies "TCPReqQFullDoCookies", req_q_full_drop "TCPReqQFullDrop", retrans_fail "TCPRetransFail",
        rcv_coalesce "TCPRcvCoalesce", ofo_queue "TCPOFOQueue", ofo_drop "TCPOFODrop", ofo_merge "TCPOFOMerge",
        challenge_ack "TCPChallengeACK", syn_challenge "TCPSYNChallenge", fastopen_active "TCPFastOpenActive",
        fastopen_active_fail "TCPFastOpenActiveFail",
        fastopen_passive "TCPFastOpenPassive", fastopen_passive_fail "TCPFastOpenPassiveFail",
        fastopen_cookie_reqd "TCPFastOpenCookieReqd",
        fastopen_listen_overflow "TCPFastOpenListenOverflow", fastopen_passive_alt_key "TCPFastOpenPassiveAltKey", auto_corking "TCPAutoCorking", from_zero_window "TCPFromZeroWindowAdv",
        to_zero_window "TCPToZeroWindowAdv", want_zero_window "TCPWantZeroWindowAdv", syn_retrans "TCPSynRetrans",
        orig_data_sent "TCPOrigDataSent", keep_alive "TCPKeepAlive", mtup_fail "TCPMTUPFail",
        mtup_success "TCPMTUPSuccess", delivered "TCPDelivered",
        delivered_ce "TCPDeliveredCE", ack_skipped "TCPACKSkippedChallenge",
        ack_skipped_seq "TCPACKSkippedSeq", win_probe "TCPWinProbe",
        zero_window_drop "TCPZeroWindowDrop", rcv_q_drop "TCPRcvQDrop",
    }
    "IpExt" {
        in_no_routes "InNoRoutes", in_truncated "InTruncatedPkts", in_mcast "InMcastPkts", out_mcast "OutMcastPkts",
        in_bcast "InBcastPkts", out_bcast "OutBcastPkts", in_octets "InOctets", out_octets "OutOctets",
        in_mcast_octets "InMcastOctets", out_mcast_octets "OutMcastOctets", in_bcast_octets "InBcastOctets",
        out_bcast_octets "OutBcastOctets",
        in_csum_errors "InCsumErrors", in_no_ect "InNoECTPkts", in_ect1 "InECT1Pkts", in_ect0 "InECT0Pkts",
        in_ce "InCEPkts", ip_reasm_overlaps "ReasmOverlaps",
    }
    "Ip6" {
        ip6_in_receives "Ip6InReceives", ip6_in_hdr_errors "Ip6InHdrErrors", ip6_in_delivers "Ip6InDelivers",
        ip6_out_requests "Ip6OutRequests", ip6_out_discards "Ip6OutDiscards", ip6_out_no_routes "Ip6OutNoRoutes", ip6_reasm_reqds "Ip6ReasmReqds",
        ip6_reasm_oks "Ip6ReasmOKs", ip6_reasm_fails "Ip6ReasmFails", ip6_in_unknown_protos "Ip6InUnknownProtos",
        ip6_in_addr_errors "Ip6InAddrErrors", ip6_reasm_timeout "Ip6ReasmTimeout", ip6_frag_oks "Ip6FragOKs",
        ip6_frag_fails "Ip6FragFails", ip6_frag_creates "Ip6FragCreates", ip6_in_octets "Ip6InOctets",
        ip6_out_octets "Ip6OutOctets", ip6_in_mcast "Ip6InMcastPkts", ip6_out_mcast "Ip6OutMcastPkts",
        ip6_in_no_ect "Ip6InNoECTPkts", ip6_in_ect1 "Ip6InECT1Pkts", ip6_in_ect0 "Ip6InECT0Pkts", ip6_in_ce "Ip6InCEPkts",
        icmp6_in_csum_errors "Icmp6InCsumErrors", icmp6_in_msgs "Icmp6InMsgs", icmp6_in_errors "Icmp6InErrors",
        icmp6_out_msgs "Icmp6OutMsgs", icmp6_out_errors "Icmp6OutErrors",
        ip6_out_transmits "Ip6OutTransmits", ip6_reasm_overlaps "Ip6ReasmOverlaps",
    }
}
