//! The protocols' counters in `/proc/net`: `snmp`, `snmp6` and `netstat`, with Linux's columns in its order. A column
//! of what this engine cannot do (forwarding, UDP-Lite) is 0, which is true.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::socket;

const IP: &str = "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits";
const ICMP: &str = "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps";
const TCP: &str = "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors";
const UDP: &str = "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors";
const IP_EXT: &str = "InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets OutOctets InMcastOctets OutMcastOctets InBcastOctets OutBcastOctets InCsumErrors InNoECTPkts InECT1Pkts InECT0Pkts InCEPkts ReasmOverlaps";
const IP6: &str = "Ip6InReceives Ip6InHdrErrors Ip6InTooBigErrors Ip6InNoRoutes Ip6InAddrErrors Ip6InUnknownProtos Ip6InTruncatedPkts Ip6InDiscards Ip6InDelivers Ip6OutForwDatagrams Ip6OutRequests Ip6OutDiscards Ip6OutNoRoutes Ip6ReasmTimeout Ip6ReasmReqds Ip6ReasmOKs Ip6ReasmFails Ip6FragOKs Ip6FragFails Ip6FragCreates Ip6InMcastPkts Ip6OutMcastPkts Ip6InOctets Ip6OutOctets Ip6InNoECTPkts Ip6InECT1Pkts Ip6InECT0Pkts Ip6InCEPkts Ip6OutTransmits";
const ICMP6: &str = "Icmp6InMsgs Icmp6InErrors Icmp6OutMsgs Icmp6OutErrors Icmp6InCsumErrors";

type Values = BTreeMap<(&'static str, &'static str), u64>;

fn values() -> Values {
    let mut values = Values::new();
    if let Ok(stack) = socket::stack() {
        stack.counters().for_each(|group, name, value| {
            values.insert((group, name), value);
        });
    }
    values
}

/// What is no counter but a constant of this engine.
fn constant(group: &str, name: &str) -> Option<&'static str> {
    Some(match (group, name) {
        // 2: not forwarding.
        ("Ip", "Forwarding") => "2",
        ("Ip", "DefaultTTL") => "64",
        // 1: other than the standard's; milliseconds; no limit.
        ("Tcp", "RtoAlgorithm") => "1",
        ("Tcp", "RtoMin") => "200",
        ("Tcp", "RtoMax") => "120000",
        ("Tcp", "MaxConn") => "-1",
        _ => return None,
    })
}

/// Two lines: names and values.
fn group(values: &Values, group: &'static str, columns: &'static str) -> String {
    let mut line = String::new();
    for name in columns.split(' ') {
        line += &match constant(group, name) {
            Some(value) => format!(" {value}"),
            None => format!(" {}", values.get(&(group, name)).copied().unwrap_or(0)),
        };
    }
    format!("{group}: {columns}\n{group}:{line}\n")
}

/// The types of ICMP messages that were seen.
fn types(v6: bool) -> Vec<(String, u64)> {
    let Ok(stack) = socket::stack() else {
        return Vec::new();
    };
    stack
        .icmp_types(v6)
        .into_iter()
        .map(|(out, kind, count)| {
            let way = if out { "Out" } else { "In" };
            (format!("{way}Type{kind}"), count)
        })
        .collect()
}

/// `snmp`.
pub fn snmp() -> String {
    let values = values();
    let mut text = group(&values, "Ip", IP) + &group(&values, "Icmp", ICMP);
    let types = types(false);
    if !types.is_empty() {
        let (mut names, mut counts) = (String::from("IcmpMsg:"), String::from("IcmpMsg:"));
        for (name, count) in types {
            names += &format!(" {name}");
            counts += &format!(" {count}");
        }
        text += &format!("{names}\n{counts}\n");
    }
    text += &group(&values, "Tcp", TCP);
    text += &group(&values, "Udp", UDP);
    text + &group(&values, "UdpLite", UDP)
}

/// `netstat`: of TCP's many columns those that this engine counts.
pub fn netstat() -> String {
    let values = values();
    let (mut names, mut counts) = (String::from("TcpExt:"), String::from("TcpExt:"));
    if let Ok(stack) = socket::stack() {
        stack.counters().for_each(|group, name, value| {
            if group == "TcpExt" {
                names += &format!(" {name}");
                counts += &format!(" {value}");
            }
        });
    }
    format!("{names}\n{counts}\n") + &group(&values, "IpExt", IP_EXT)
}

/// `snmp6`: a counter on each line.
pub fn snmp6() -> String {
    let values = values();
    let mut text = String::new();
    let mut line = |name: &str, value: u64| text += &format!("{name:<32}\t{value}\n");
    for name in IP6.split(' ').chain(ICMP6.split(' ')) {
        line(name, values.get(&("Ip6", name)).copied().unwrap_or(0));
    }
    for (name, count) in types(true) {
        line(&format!("Icmp6{name}"), count);
    }
    for name in UDP.split(' ') {
        line(
            &format!("Udp6{name}"),
            values.get(&("Udp6", name)).copied().unwrap_or(0),
        );
    }
    for name in UDP.split(' ').filter(|name| *name != "IgnoredMulti") {
        line(&format!("UdpLite6{name}"), 0);
    }
    text
}
