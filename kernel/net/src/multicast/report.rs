//! The messages about groups: IGMP versions 1 to 3 (RFC 1112, 2236, 3376) and MLD versions 1 and 2 (RFC 2710, 3810).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Filter, Group, Pending, REPEAT_NS, REPEAT_OLD_NS, ROBUSTNESS, SECOND, minus, reported,
};
use crate::checksum::{Parts, Sum};
use crate::iface::{ETH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Interface};
use crate::ip::{IpMeta, proto};
use crate::nic::Header;
use crate::pkt::InPacket;
use crate::route::group_mac;
use crate::stack::{Chore, Stack};

const QUERY: u8 = 0x11;
const REPORT_1: u8 = 0x12;
const REPORT_2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_3: u8 = 0x22;
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD_REPORT_2: u8 = 143;
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const IGMP_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_ROUTERS_6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// How long a router of an older version is remembered: robustness times its query interval and the response time.
const OLDER_NS: u64 = 260 * SECOND;
/// "Version 1 Router Present Timeout".
const OLDEST_NS: u64 = 400 * SECOND;
/// Bytes of records in one report.
const ROOM: usize = 1300;
/// Sources of one query that are looked at.
const MOST_SOURCES: usize = 256;

/// Kinds of a record (RFC 3376 §4.2.12).
const IS_INCLUDE: u8 = 1;
const IS_EXCLUDE: u8 = 2;
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;
const ALLOW: u8 = 5;
const BLOCK: u8 = 6;

/// Something to tell the routers.
pub(super) enum Record {
    /// A record of a report of the newest version.
    State {
        kind: u8,
        group: IpAddr,
        sources: Vec<IpAddr>,
    },
    /// An older version's report.
    Member { group: IpAddr, version: u8 },
    /// An older version's farewell.
    Left { group: IpAddr },
}

impl Group {
    fn state(&self, group: IpAddr, change: bool) -> Record {
        Record::State {
            kind: match (change, self.filter.exclude) {
                (false, false) => IS_INCLUDE,
                (false, true) => IS_EXCLUDE,
                (true, false) => TO_INCLUDE,
                (true, true) => TO_EXCLUDE,
            },
            group,
            sources: self.filter.sources.clone(),
        }
    }

    fn sources_changed(&self, group: IpAddr) -> Vec<Record> {
        [(ALLOW, &self.pending.allow), (BLOCK, &self.pending.block)]
            .into_iter()
            .filter(|(_, sources)| !sources.is_empty())
            .map(|(kind, sources)| Record::State {
                kind,
                group,
                sources: sources.clone(),
            })
            .collect()
    }

    /// What is told at once when the filter is no longer `old`.
    pub(super) fn change(
        &mut self,
        group: IpAddr,
        old: &Filter,
        version: u8,
        now: u64,
        random: u64,
    ) -> Vec<Record> {
        if version < 3 {
            return match (old.is_none(), self.filter.is_none()) {
                (true, false) => {
                    self.last_reporter = true;
                    self.pending = Pending {
                        left: ROBUSTNESS - 1,
                        at: now + random % REPEAT_OLD_NS,
                        ..Pending::default()
                    };
                    alloc::vec![Record::Member { group, version }]
                }
                (false, true) => {
                    self.pending = Pending::default();
                    self.answer_at = u64::MAX;
                    // Version 1 has no farewell, and another member may still be there.
                    let tell = version == 2 && self.last_reporter;
                    tell.then_some(Record::Left { group }).into_iter().collect()
                }
                _ => Vec::new(),
            };
        }
        let new = &self.filter;
        let still_mode = self.pending.left > 0 && self.pending.mode;
        let mode = still_mode || old.exclude != new.exclude;
        let (more, less) = (
            minus(&new.sources, &old.sources),
            minus(&old.sources, &new.sources),
        );
        let (allow, block) = if new.exclude {
            (less, more)
        } else {
            (more, less)
        };
        let before = core::mem::take(&mut self.pending);
        self.pending = Pending {
            left: ROBUSTNESS - 1,
            at: now + random % REPEAT_NS,
            mode,
            ..Pending::default()
        };
        if mode {
            return alloc::vec![self.state(group, true)];
        }
        self.pending.allow = allow;
        self.pending.block = block;
        let told = self.sources_changed(group);
        if before.left > 0 {
            // What was to be told again still is, unless it has changed back.
            let allow = minus(&before.allow, &self.pending.block);
            let block = minus(&before.block, &self.pending.allow);
            self.pending
                .allow
                .extend(minus(&allow, &self.pending.allow.clone()));
            self.pending
                .block
                .extend(minus(&block, &self.pending.block.clone()));
        }
        told
    }

    /// The same once more.
    pub(super) fn repeat(
        &mut self,
        group: IpAddr,
        version: u8,
        now: u64,
        random: u64,
    ) -> Vec<Record> {
        self.pending.left -= 1;
        self.pending.at = now
            + random
                % if version < 3 {
                    REPEAT_OLD_NS
                } else {
                    REPEAT_NS
                };
        if version < 3 {
            let here = !self.filter.is_none();
            return here
                .then_some(Record::Member { group, version })
                .into_iter()
                .collect();
        }
        if self.pending.mode {
            alloc::vec![self.state(group, true)]
        } else {
            self.sources_changed(group)
        }
    }

    /// The answer to a query: of all groups, or of this one.
    pub(super) fn answer(&mut self, group: IpAddr, version: u8, general: bool) -> Vec<Record> {
        self.answer_at = u64::MAX;
        let asked = core::mem::take(&mut self.asked);
        if self.filter.is_none() || !reported(group) {
            return Vec::new();
        }
        if version < 3 {
            self.last_reporter = true;
            return alloc::vec![Record::Member { group, version }];
        }
        if asked.is_empty() || general {
            return alloc::vec![self.state(group, false)];
        }
        let wanted = |s: &IpAddr| self.filter.exclude != self.filter.sources.contains(s);
        let sources: Vec<IpAddr> = asked.into_iter().filter(wanted).collect();
        if sources.is_empty() {
            return Vec::new();
        }
        alloc::vec![Record::State {
            kind: IS_INCLUDE,
            group,
            sources,
        }]
    }
}

fn put(bytes: &mut Vec<u8>, addr: IpAddr) {
    match addr {
        IpAddr::V4(a) => bytes.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => bytes.extend_from_slice(&a.octets()),
    }
}

/// One message out, with the router alert that makes routers look at it.
fn send(stack: &Stack, iface: &Interface, dst: IpAddr, mut bytes: Vec<u8>) {
    let mut header = Header::new();
    header.extend_from_slice(&group_mac(dst));
    header.extend_from_slice(&iface.mac);
    match dst {
        IpAddr::V4(dst) => {
            let src = match iface.first_addr(true) {
                Some(IpAddr::V4(a)) => a,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            let sum = Sum::default().bytes(&bytes).finish();
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut ip = [0; 24];
            ip[..2].copy_from_slice(&[0x46, 0xc0]);
            ip[2..4].copy_from_slice(&(24 + bytes.len() as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&stack.next_ident().to_be_bytes());
            ip[6..10].copy_from_slice(&[0x40, 0, 1, proto::IGMP]);
            ip[12..16].copy_from_slice(&src.octets());
            ip[16..20].copy_from_slice(&dst.octets());
            ip[20..22].copy_from_slice(&[0x94, 4]);
            let sum = Sum::default().bytes(&ip).finish();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            header.extend_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
            header.extend_from_slice(&ip);
        }
        IpAddr::V6(to) => {
            let src = match iface.link_local() {
                Some(a) => a,
                None => Ipv6Addr::UNSPECIFIED,
            };
            let sum = Sum::pseudo(src.into(), dst, proto::ICMP6, bytes.len())
                .bytes(&bytes)
                .finish();
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            header.extend_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
            header.extend_from_slice(&[0x60, 0, 0, 0]);
            header.extend_from_slice(&(8 + bytes.len() as u16).to_be_bytes());
            header.extend_from_slice(&[proto::HOPOPTS, 1]);
            header.extend_from_slice(&src.octets());
            header.extend_from_slice(&to.octets());
            header.extend_from_slice(&[proto::ICMP6, 0, 5, 2, 0, 0, 1, 0]);
            stack.counters().icmp6_out_msgs.bump();
            stack.icmp_counts.bump(true, true, bytes[0]);
        }
    }
    let packet = crate::icmp::with_payload(header, &bytes);
    let octets = (packet.len() - ETH) as u64;
    let counters = stack.counters();
    if dst.is_ipv4() {
        counters.ip_out_requests.bump();
        counters.ip_out_transmits.bump();
        counters.out_octets.add(octets);
        counters.out_mcast.bump();
        counters.out_mcast_octets.add(octets);
    } else {
        counters.ip6_out_requests.bump();
        counters.ip6_out_transmits.bump();
        counters.ip6_out_octets.add(octets);
        counters.ip6_out_mcast.bump();
    }
    iface.transmit(packet);
}

impl Stack {
    /// Tells the routers of an interface's link.
    pub(super) fn send_reports(&self, index: u32, v6: bool, records: Vec<Record>, _now: u64) {
        let Some(iface) = self.interface(index) else {
            return;
        };
        if iface.is_loopback() || !iface.is_up() {
            return;
        }
        let head: &[u8] = &[
            if v6 { MLD_REPORT_2 } else { REPORT_3 },
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        let routers: IpAddr = if v6 {
            MLD_ROUTERS.into()
        } else {
            IGMP_ROUTERS.into()
        };
        let mut report = head.to_vec();
        let mut count = 0u16;
        let flush = |report: &mut Vec<u8>, count: &mut u16| {
            if *count > 0 {
                report[6..8].copy_from_slice(&count.to_be_bytes());
                send(
                    self,
                    &iface,
                    routers,
                    core::mem::replace(report, head.to_vec()),
                );
                *count = 0;
            }
        };
        for record in records {
            let old = |kind: u8, group: IpAddr| {
                let mut bytes = alloc::vec![kind, 0, 0, 0];
                if group.is_ipv6() {
                    bytes.extend_from_slice(&[0; 4]);
                }
                put(&mut bytes, group);
                bytes
            };
            match record {
                Record::State {
                    kind,
                    group,
                    sources,
                } => {
                    let size = 4 + (sources.len() + 1) * if v6 { 16 } else { 4 };
                    if report.len() + size > ROOM {
                        flush(&mut report, &mut count);
                    }
                    // What does not fit one report is cut: a router hears of fewer sources.
                    let fits = sources.len().min((ROOM - 32) / if v6 { 16 } else { 4 });
                    report.extend_from_slice(&[kind, 0]);
                    report.extend_from_slice(&(fits as u16).to_be_bytes());
                    put(&mut report, group);
                    for source in &sources[..fits] {
                        put(&mut report, *source);
                    }
                    count += 1;
                }
                Record::Member { group, version } => {
                    let kind = match (v6, version) {
                        (true, _) => MLD_REPORT,
                        (false, 1) => REPORT_1,
                        (false, _) => REPORT_2,
                    };
                    send(self, &iface, group, old(kind, group));
                }
                Record::Left { group } => {
                    let (kind, to) = if v6 {
                        (MLD_DONE, ALL_ROUTERS_6.into())
                    } else {
                        (LEAVE, ALL_ROUTERS.into())
                    };
                    send(self, &iface, to, old(kind, group));
                }
            }
        }
        flush(&mut report, &mut count);
    }

    /// A router asks: about all groups, or one, or sources of one. `older` is the version it speaks, if not the newest.
    fn take_query(
        &self,
        index: u32,
        group: IpAddr,
        older: Option<u8>,
        most_ns: u64,
        sources: Vec<IpAddr>,
        now: u64,
    ) {
        let v6 = group.is_ipv6();
        let most = most_ns.max(1);
        let mut next = u64::MAX;
        {
            let mut table = self.groups.table.lock();
            let querier = table.querier(index, v6);
            match older {
                Some(1) if !v6 => querier.v1_until = now + OLDEST_NS,
                Some(_) if v6 => querier.v1_until = now + OLDER_NS,
                Some(_) => querier.v2_until = now + OLDER_NS,
                None => {}
            }
            let version = table.version(index, v6, now);
            let general = group.is_unspecified();
            if general && version == 3 {
                let querier = table.querier(index, v6);
                querier.answer_at = querier.answer_at.min(now + self.random() % most);
                next = querier.answer_at;
            }
            for ((on, of), entry) in &mut table.groups {
                let concerned = if general { version < 3 } else { *of == group };
                if *on != index || of.is_ipv6() != v6 || !concerned || !reported(*of) {
                    continue;
                }
                // A question about the whole group outdoes one about sources.
                if sources.is_empty() || entry.answer_at != u64::MAX && entry.asked.is_empty() {
                    entry.asked.clear();
                } else {
                    entry.asked.extend(minus(&sources, &entry.asked.clone()));
                    entry.asked.truncate(MOST_SOURCES);
                }
                entry.answer_at = entry.answer_at.min(now + self.random() % most);
                next = next.min(entry.answer_at);
            }
        }
        if next != u64::MAX {
            self.arm_chore(Chore::Multicast, next);
        }
    }

    /// Another member reported the group: we need not (only in the older versions).
    fn heard_report(&self, index: u32, group: IpAddr, now: u64) {
        let mut table = self.groups.table.lock();
        if table.version(index, group.is_ipv6(), now) < 3
            && let Some(entry) = table.groups.get_mut(&(index, group))
        {
            entry.answer_at = u64::MAX;
            entry.last_reporter = false;
        }
    }
}

/// A maximum response code with its exponent (RFC 3376 §4.1.1).
fn code8(code: u8) -> u64 {
    match code {
        0..=127 => u64::from(code),
        _ => u64::from(code & 0xf | 0x10) << ((code >> 4 & 7) + 3),
    }
}

/// The same for MLD (RFC 3810 §5.1.3).
fn code16(code: u16) -> u64 {
    match code {
        0..=0x7fff => u64::from(code),
        _ => u64::from(code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3),
    }
}

/// A received IGMP message.
pub(crate) fn igmp_input(stack: &Stack, meta: &IpMeta, packet: &InPacket, now: u64) {
    if meta.iface.is_loopback() || packet.sum(meta.l4, Parts::default()).sum().folded() != 0xffff {
        return;
    }
    let whole = packet.front(meta.l4 + meta.len);
    let Some(m) = whole.get(meta.l4..).filter(|m| m.len() >= 8) else {
        return;
    };
    let address = |at: usize| IpAddr::from([m[at], m[at + 1], m[at + 2], m[at + 3]]);
    let (index, group) = (meta.iface.index, address(4));
    match m[0] {
        QUERY if m.len() >= 12 => {
            let n = usize::from(u16::from_be_bytes([m[10], m[11]]));
            if m.len() < 12 + n * 4 {
                return;
            }
            let sources = (0..n.min(MOST_SOURCES))
                .map(|i| address(12 + i * 4))
                .collect();
            stack.take_query(index, group, None, code8(m[1]) * SECOND / 10, sources, now);
        }
        QUERY if m[1] == 0 => {
            stack.take_query(index, group, Some(1), 10 * SECOND, Vec::new(), now);
        }
        QUERY => {
            let most = u64::from(m[1]) * SECOND / 10;
            stack.take_query(index, group, Some(2), most, Vec::new(), now);
        }
        REPORT_1 | REPORT_2 => stack.heard_report(index, group, now),
        _ => {}
    }
}

/// A received MLD message, whose checksum is right; `m` begins with its type.
pub(crate) fn mld_input(stack: &Stack, meta: &IpMeta, src: Ipv6Addr, m: &[u8], now: u64) {
    if meta.iface.is_loopback() || meta.ttl != 1 || !src.is_unicast_link_local() || m.len() < 24 {
        return;
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&m[at..at + 16]);
        IpAddr::from(octets)
    };
    let (index, group) = (meta.iface.index, address(8));
    let code = u16::from_be_bytes([m[4], m[5]]);
    match m[0] {
        MLD_QUERY if m.len() >= 28 => {
            let n = usize::from(u16::from_be_bytes([m[26], m[27]]));
            if m.len() < 28 + n * 16 {
                return;
            }
            let sources = (0..n.min(MOST_SOURCES))
                .map(|i| address(28 + i * 16))
                .collect();
            stack.take_query(index, group, None, code16(code) * 1_000_000, sources, now);
        }
        MLD_QUERY => {
            let most = u64::from(code) * 1_000_000;
            stack.take_query(index, group, Some(1), most, Vec::new(), now);
        }
        MLD_REPORT => stack.heard_report(index, group, now),
        _ => {}
    }
}
