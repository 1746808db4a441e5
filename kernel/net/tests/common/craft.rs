//! Frames made by hand: right ones of every protocol the engine reads, ways to spoil them that keep their
//! structure, and checksums made right again so that the damage gets past the outermost check.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Rng, fold};

/// Where the transport header starts, its protocol and where the packet ends; `None` for a fragment or not IP.
pub fn transport(f: &[u8]) -> Option<(usize, u8, usize)> {
    if f.len() < 34 {
        return None;
    }
    if f[12..14] == [8, 0] && f[14] >> 4 == 4 {
        let l4 = 14 + usize::from(f[14] & 0xf) * 4;
        let end = (14 + usize::from(u16::from_be_bytes([f[16], f[17]]))).min(f.len());
        let whole = f[20] & 0x3f == 0 && f[21] == 0;
        return (whole && l4 >= 34 && l4 <= end).then_some((l4, f[23], end));
    }
    if f[12..14] != [0x86, 0xdd] || f.len() < 54 {
        return None;
    }
    let end = (54 + usize::from(u16::from_be_bytes([f[18], f[19]]))).min(f.len());
    let (mut at, mut next) = (54, f[20]);
    while matches!(next, 0 | 43 | 60) && at + 8 <= end {
        (next, at) = (f[at], at + 8 + usize::from(f[at + 1]) * 8);
    }
    (next != 44 && at <= end).then_some((at, next, end))
}

/// Makes the checksums of the IP header and of the transport right, as far as there are any.
pub fn fix(f: &mut [u8]) {
    if f.len() >= 34 && f[12..14] == [8, 0] {
        let header = (usize::from(f[14] & 0xf) * 4).clamp(20, f.len() - 14);
        f[24..26].fill(0);
        let sum = !fold(&f[14..14 + header], 0);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let Some((l4, proto, end)) = transport(f) else {
        return;
    };
    let at = match proto {
        6 => 16,
        17 => 6,
        1 | 2 | 58 => 2,
        _ => return,
    };
    if l4 + at + 2 > end {
        return;
    }
    f[l4 + at..l4 + at + 2].fill(0);
    let addresses = if f[12] == 8 { 26..34 } else { 22..54 };
    let start = match proto {
        1 | 2 => 0,
        _ => u32::from(fold(&f[addresses], u32::from(proto) + (end - l4) as u32)),
    };
    let sum = match !fold(&f[l4..end], start) {
        0 if proto == 17 => 0xffff,
        sum => sum,
    };
    f[l4 + at..l4 + at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Both ends of a frame.
#[derive(Clone, Copy)]
pub struct Ends {
    pub to_mac: [u8; 6],
    pub from_mac: [u8; 6],
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub src6: Ipv6Addr,
    pub dst6: Ipv6Addr,
}

impl Ends {
    pub fn eth(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut f = self.to_mac.to_vec();
        f.extend_from_slice(&self.from_mac);
        f.extend_from_slice(&kind.to_be_bytes());
        f.extend_from_slice(payload);
        f
    }

    pub fn v4(&self, proto: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45, 0];
        ip.extend_from_slice(&((payload.len() + 20) as u16).to_be_bytes());
        ip.extend_from_slice(&[0, 7, 0, 0, ttl, proto, 0, 0]);
        ip.extend_from_slice(&self.src.octets());
        ip.extend_from_slice(&self.dst.octets());
        ip.extend_from_slice(payload);
        let mut f = self.eth(0x0800, &ip);
        fix(&mut f);
        f
    }

    pub fn v6(&self, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        ip.extend_from_slice(&[next, hops]);
        ip.extend_from_slice(&self.src6.octets());
        ip.extend_from_slice(&self.dst6.octets());
        ip.extend_from_slice(payload);
        let mut f = self.eth(0x86dd, &ip);
        fix(&mut f);
        f
    }

    pub fn udp(&self, v6: bool, sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
        let mut u = sport.to_be_bytes().to_vec();
        u.extend_from_slice(&dport.to_be_bytes());
        u.extend_from_slice(&((data.len() + 8) as u16).to_be_bytes());
        u.extend_from_slice(&[0, 0]);
        u.extend_from_slice(data);
        if v6 {
            self.v6(17, 64, &u)
        } else {
            self.v4(17, 64, &u)
        }
    }

    pub fn arp(&self, operation: u8) -> Vec<u8> {
        let mut a = vec![0, 1, 8, 0, 6, 4, 0, operation];
        a.extend_from_slice(&self.from_mac);
        a.extend_from_slice(&self.src.octets());
        a.extend_from_slice(&self.to_mac);
        a.extend_from_slice(&self.dst.octets());
        self.eth(0x0806, &a)
    }

    /// A router's advertisement with every option there is: link address, MTU, prefixes, servers, search list.
    pub fn router_advert(&self, rng: &mut Rng) -> Vec<u8> {
        let mut m = vec![
            134,
            0,
            0,
            0,
            64,
            [0, 0x40, 0x80, 0xc0][rng.below(4) as usize],
        ];
        m.extend_from_slice(&(rng.below(3) as u16 * 900).to_be_bytes());
        m.extend_from_slice(&[0; 8]);
        m.extend_from_slice(&[1, 1]);
        m.extend_from_slice(&self.from_mac);
        m.extend_from_slice(&[5, 1, 0, 0]);
        m.extend_from_slice(&[1500u32, 1280, 1400, 68][rng.below(4) as usize].to_be_bytes());
        for _ in 0..rng.below(3) {
            m.extend_from_slice(&[3, 4, 64, 0xc0]);
            m.extend_from_slice(&[0u32, 100, 7200, u32::MAX][rng.below(4) as usize].to_be_bytes());
            m.extend_from_slice(&[0u32, 50, u32::MAX][rng.below(3) as usize].to_be_bytes());
            m.extend_from_slice(&[0; 4]);
            m.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, rng.below(40) as u8]);
            m.extend_from_slice(&[0; 8]);
        }
        m.extend_from_slice(&[25, 3, 0, 0, 0, 0, 1, 0]);
        m.extend_from_slice(&self.src6.octets());
        m.extend_from_slice(&[31, 3, 0, 0, 0, 0, 1, 0, 3, b'l', b'a', b'n', 0, 0, 0, 0]);
        m.extend_from_slice(&[0; 8]);
        self.v6(58, 255, &m)
    }

    /// Neighbour solicitation (135), advertisement (136) or redirect (137) about `target`.
    pub fn neighbour(&self, kind: u8, flags: u8, target: Ipv6Addr) -> Vec<u8> {
        let mut m = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        m.extend_from_slice(&target.octets());
        if kind == 137 {
            m.extend_from_slice(&self.dst6.octets());
        }
        m.extend_from_slice(&[if kind == 135 { 1 } else { 2 }, 1]);
        m.extend_from_slice(&self.from_mac);
        self.v6(58, 255, &m)
    }

    /// An answer of a DHCP server to `request` (a whole frame of the client's).
    pub fn dhcp_answer(&self, request: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
        let bootp = request.get(42..)?;
        let options = bootp.get(240..)?;
        let asked = options.windows(3).find(|w| w[0] == 53 && w[1] == 1)?[2];
        let kind = match asked {
            1 => 2,
            3 if rng.chance(100_000) => 6,
            3 => 5,
            _ => return None,
        };
        let mut b = vec![2, 1, 6, 0];
        b.extend_from_slice(&bootp[4..8]);
        b.extend_from_slice(&[0; 8]);
        b.extend_from_slice(&[10, 7, 0, 2 + rng.below(3) as u8]);
        b.extend_from_slice(&self.src.octets());
        b.extend_from_slice(&[0; 4]);
        b.extend_from_slice(&bootp[28..44]);
        b.resize(236, 0);
        b.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, kind, 54, 4]);
        b.extend_from_slice(&self.src.octets());
        let lease = [20u32, 60, 3600, u32::MAX][rng.below(4) as usize];
        b.extend_from_slice(&[1, 4, 255, 255, 255, 0, 51, 4]);
        b.extend_from_slice(&lease.to_be_bytes());
        b.extend_from_slice(&[3, 4, 10, 7, 0, 1, 6, 8, 1, 1, 1, 1, 8, 8, 8, 8]);
        b.extend_from_slice(&[
            15, 3, b'l', b'a', b'n', 12, 2, b'm', b'e', 42, 4, 9, 9, 9, 9,
        ]);
        b.extend_from_slice(&[26, 2, 5, 0]);
        if rng.chance(500_000) {
            b.extend_from_slice(&[121, 14, 0, 10, 7, 0, 1, 24, 192, 168, rng.next() as u8]);
            b.extend_from_slice(&[10, 7, 0, 9, 0, 0]);
        }
        b.extend_from_slice(&[119, 9, 3, b'e', b'n', b'g', 2, b'x', b'y', 0xc0, 0, 255]);
        let everybody = Ends {
            to_mac: [0xff; 6],
            dst: Ipv4Addr::BROADCAST,
            ..*self
        };
        Some(everybody.udp(false, 67, 68, &b))
    }

    /// An answer of a DHCPv6 server (RFC 8415) to `request`: its identifiers come back, an address with them.
    pub fn dhcp6_answer(&self, request: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
        let message = request.get(62..)?;
        let kind = match message.first()? {
            1 => 2,
            3..=6 | 8 | 9 | 11 => 7,
            _ => return None,
        };
        let mut m = vec![kind];
        m.extend_from_slice(message.get(1..4)?);
        let mut rest = message.get(4..)?;
        while let [a, b, c, d, tail @ ..] = rest {
            let (code, len) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            let body = tail.get(..usize::from(len))?;
            if code == 1 {
                m.extend_from_slice(&rest[..4 + usize::from(len)]);
            }
            if code == 3 && body.len() >= 4 {
                m.extend_from_slice(&[0, 3, 0, 40]);
                m.extend_from_slice(&body[..4]);
                m.extend_from_slice(&[0, 0, 0, 10, 0, 0, 0, 16, 0, 5, 0, 24]);
                m.extend_from_slice(&[0xfd, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                m.push(rng.below(5) as u8);
                m.extend_from_slice(&[0, 0, 0, 20, 0, 0, 0, 30]);
            }
            rest = &tail[usize::from(len)..];
        }
        m.extend_from_slice(&[0, 2, 0, 10, 0, 3, 0, 1]);
        m.extend_from_slice(&self.from_mac);
        m.extend_from_slice(&[0, 7, 0, 1, 255, 0, 23, 0, 16]);
        m.extend_from_slice(&self.src6.octets());
        m.extend_from_slice(&[0, 24, 0, 5, 3, b'l', b'a', b'n', 0]);
        Some(self.udp(true, 547, 546, &m))
    }

    /// A right message of a random kind, of those that need no conversation.
    pub fn any(&self, rng: &mut Rng) -> Vec<u8> {
        let group = Ipv4Addr::new(239, 1, 2, 3);
        let group6: Ipv6Addr = "ff02::1:3".parse().unwrap();
        match rng.below(16) {
            0 => self.arp(1),
            1 => self.arp(2),
            2 => {
                // Somebody claims our address.
                let mut a = *self;
                a.src = a.dst;
                a.arp(1 + rng.below(2) as u8)
            }
            3 => self.router_advert(rng),
            4 => self.neighbour(135, 0, self.dst6),
            5 => self.neighbour(136, rng.next() as u8, self.src6),
            6 => self.neighbour(137, 0, self.src6),
            // Echoes and what else ICMP has: source quench, redirect, timestamp, address mask.
            7 => {
                let kind = [8, 0, 4, 5, 13, 17][rng.below(6) as usize];
                let mut m = vec![kind, rng.below(4) as u8, 0, 0, 0, 1, 0, 2];
                m.extend(noise(rng, 1400));
                self.v4(1, 64, &m)
            }
            8 => {
                let mut m = vec![128 + rng.below(2) as u8, 0, 0, 0, 0, 1, 0, 2];
                m.extend(noise(rng, 1400));
                self.v6(58, 64, &m)
            }
            // IGMP: queries of three versions, reports.
            9 => {
                let kind = [0x11, 0x11, 0x12, 0x16, 0x17, 0x22][rng.below(6) as usize];
                let mut m = vec![kind, rng.next() as u8, 0, 0];
                let asked = if rng.chance(500_000) {
                    [0; 4]
                } else {
                    group.octets()
                };
                m.extend_from_slice(&asked);
                if rng.chance(500_000) {
                    let sources = rng.below(4) as u8;
                    m.extend_from_slice(&[2, 125, 0, sources]);
                    m.extend(noise(rng, 1 + 4 * u64::from(sources)));
                }
                let all = Ends {
                    to_mac: [1, 0, 0x5e, 0, 0, 1],
                    dst: Ipv4Addr::new(224, 0, 0, 1),
                    ..*self
                };
                all.v4(2, 1, &m)
            }
            // MLD: queries of two versions, reports.
            10 => {
                let kind = [130, 130, 131, 132, 143][rng.below(5) as usize];
                let mut m = vec![kind, 0, 0, 0, 0, rng.next() as u8, 0, 0];
                let asked = if rng.chance(500_000) {
                    Ipv6Addr::UNSPECIFIED
                } else {
                    group6
                };
                m.extend_from_slice(&asked.octets());
                if rng.chance(500_000) {
                    m.extend_from_slice(&[2, 125, 0, rng.below(4) as u8]);
                    m.extend(noise(rng, 64));
                }
                let alert = [58, 0, 5, 2, 0, 0, 1, 0];
                let mut body = alert.to_vec();
                body.extend_from_slice(&m);
                let all = Ends {
                    to_mac: [0x33, 0x33, 0, 0, 0, 1],
                    dst6: "ff02::1".parse().unwrap(),
                    ..*self
                };
                all.v6(0, 1, &body)
            }
            11 | 12 => {
                let v6 = rng.chance(500_000);
                let ports = [53, 68, 546, 9, 67, 5353];
                let dport = ports[rng.below(6) as usize];
                self.udp(v6, rng.next() as u16, dport, &noise(rng, 1400))
            }
            13 => {
                let all = Ends {
                    to_mac: [1, 0, 0x5e, 1, 2, 3],
                    dst: group,
                    ..*self
                };
                all.udp(false, 1, 53, b"to the group")
            }
            14 => self.v4(rng.next() as u8, 64, &noise(rng, 200)),
            _ => self.v6(rng.next() as u8, 64, &noise(rng, 200)),
        }
    }
}

pub fn noise(rng: &mut Rng, most: u64) -> Vec<u8> {
    (0..rng.below(most)).map(|_| rng.next() as u8).collect()
}

/// Spoils a frame in one of many ways; what comes out may be several frames.
pub fn spoil(rng: &mut Rng, mut f: Vec<u8>, other: &[u8]) -> Vec<Vec<u8>> {
    const BYTES: [u8; 7] = [0, 1, 0x7f, 0x80, 0xff, 4, 40];
    const WORDS: [u16; 8] = [0, 1, 7, 0x7fff, 0x8000, 0xffff, 20, 1500];
    if f.len() < 15 {
        return vec![f];
    }
    // Mostly in the headers: that is where the decisions are.
    let reach = if rng.chance(800_000) {
        f.len().min(100)
    } else {
        f.len()
    };
    let at = 12 + rng.below(reach as u64 - 12) as usize;
    let mut right = rng.chance(900_000);
    match rng.below(15) {
        0 => f[at] ^= 1 << rng.below(8),
        1 => f[at] = BYTES[rng.below(7) as usize],
        2 => f[at] = rng.next() as u8,
        3 if at + 2 <= f.len() => {
            let word = WORDS[rng.below(8) as usize];
            f[at..at + 2].copy_from_slice(&word.to_be_bytes());
        }
        4 if at + 4 <= f.len() => {
            let word = u32::from_be_bytes(f[at..at + 4].try_into().unwrap());
            let near = word
                .wrapping_add(rng.below(200_000) as u32)
                .wrapping_sub(100_000);
            f[at..at + 4].copy_from_slice(&near.to_be_bytes());
        }
        5 => f.truncate(at),
        6 => f.extend(noise(rng, 100)),
        7 => drop(f.drain(at..f.len().min(at + 1 + rng.below(20) as usize))),
        8 => {
            let piece = f[at..f.len().min(at + 1 + rng.below(20) as usize)].to_vec();
            f.splice(at..at, piece);
        }
        9 if other.len() > at => {
            f.truncate(at);
            f.extend_from_slice(&other[at..]);
        }
        10 => spoil_tcp(rng, &mut f),
        11 => extend(rng, &mut f),
        12 => return pieces(rng, &f),
        13 => return vec![error_about(rng, &f), f],
        _ => {
            // Addresses.
            let v4 = f[12] == 8 && f.len() >= 34;
            let (start, len) = if v4 { (26, 4) } else { (22, 16) };
            if f.len() >= start + 2 * len {
                match rng.below(4) {
                    0 => f.copy_within(start + len..start + 2 * len, start),
                    1 => f[start..start + len].fill(0),
                    2 => f[start + len..start + 2 * len].fill(0xff),
                    _ => f[start] = [127, 224, 0xff, 0][rng.below(4) as usize],
                }
            }
            right |= rng.chance(500_000);
        }
    }
    if right {
        fix(&mut f);
    }
    vec![f]
}

/// TCP's own fields and options.
fn spoil_tcp(rng: &mut Rng, f: &mut Vec<u8>) {
    let Some((l4, 6, end)) = transport(f) else {
        return;
    };
    if l4 + 20 > end {
        return;
    }
    let header = usize::from(f[l4 + 12] >> 4) * 4;
    let word = |f: &[u8], at: usize| u32::from_be_bytes(f[at..at + 4].try_into().unwrap());
    match rng.below(6) {
        0 => f[l4 + 13] = rng.next() as u8,
        1 => {
            let at = l4 + 4 + 4 * rng.below(2) as usize;
            let shift = [1u32, 1460, 65_535, 1 << 31][rng.below(4) as usize];
            let value = if rng.chance(500_000) {
                word(f, at).wrapping_add(shift)
            } else {
                word(f, at).wrapping_sub(shift)
            };
            f[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        2 => {
            let window = [0u16, 1, 100, 0xffff][rng.below(4) as usize];
            f[l4 + 14..l4 + 16].copy_from_slice(&window.to_be_bytes());
        }
        3 => {
            f[l4 + 13] |= 0x20;
            let urgent = rng.next() as u16 >> rng.below(16);
            f[l4 + 18..l4 + 20].copy_from_slice(&urgent.to_be_bytes());
        }
        _ => {
            // Other options in the place of its own: forged SACKs, timestamps, sizes of nothing, cookies.
            let ack = word(f, l4 + 8);
            let mut options = Vec::new();
            while options.len() < 36 && rng.chance(700_000) {
                match rng.below(8) {
                    0 => options.extend_from_slice(&[2, 4, 0, rng.next() as u8]),
                    1 => options.extend_from_slice(&[3, 3, rng.next() as u8]),
                    2 => options.extend_from_slice(&[4, 2]),
                    3 | 4 => {
                        let blocks = 1 + rng.below(3) as usize;
                        options.extend_from_slice(&[5, (2 + blocks * 8) as u8]);
                        for _ in 0..blocks * 2 {
                            let edge = ack.wrapping_add(rng.below(8000) as u32).wrapping_sub(2000);
                            options.extend_from_slice(&edge.to_be_bytes());
                        }
                    }
                    5 => {
                        options.extend_from_slice(&[8, 10]);
                        options.extend_from_slice(&rng.next().to_be_bytes());
                    }
                    6 => {
                        let len = rng.below(20) as u8;
                        options.extend_from_slice(&[34, len]);
                        options.extend((2..len).map(|i| i.wrapping_mul(37)));
                    }
                    _ => options.extend(noise(rng, 6)),
                }
            }
            options.truncate(40);
            options.resize(options.len().div_ceil(4) * 4, 1);
            if l4 + header <= end && header >= 20 {
                f[l4 + 12] = f[l4 + 12] & 0xf | (((20 + options.len()) / 4) as u8) << 4;
                let grown = options.len() as i32 - (header as i32 - 20);
                f.splice(l4 + 20..l4 + header, options);
                grow(f, grown);
            }
        }
    }
}

/// Makes the length of the IP header fit a packet that has grown.
fn grow(f: &mut [u8], by: i32) {
    let at = if f[12] == 8 { 16 } else { 18 };
    let len = i32::from(u16::from_be_bytes([f[at], f[at + 1]])) + by;
    f[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
}

/// IPv4 options, or IPv6 extension headers, between the IP header and what follows.
fn extend(rng: &mut Rng, f: &mut Vec<u8>) {
    if f.len() >= 34 && f[12..14] == [8, 0] && f[14] == 0x45 {
        let units = 1 + rng.below(10) as usize;
        let mut options: Vec<u8> = match rng.below(4) {
            // Record route, source routes, timestamps, router alert.
            0 => [7, 131, 137, 68, 148]
                .iter()
                .flat_map(|k| [*k, 3 + (*k & 4), 4])
                .collect(),
            1 => vec![1; 40],
            2 => vec![148, 4, 0, 0],
            _ => noise(rng, 40),
        };
        options.resize(units * 4, 0);
        f[14] = 0x45 + units as u8;
        f.splice(34..34, options);
        grow(f, units as i32 * 4);
    } else if f.len() >= 54 && f[12..14] == [0x86, 0xdd] {
        for _ in 0..1 + rng.below(3) * rng.below(5) {
            let kind = [0, 43, 60, 44, 135, 51][rng.below(6) as usize];
            let units = if kind == 44 { 0 } else { rng.below(3) as u8 };
            let mut header = vec![f[20], units];
            header.resize(8 + usize::from(units) * 8, 0);
            if rng.chance(500_000) {
                let end = header.len();
                for byte in &mut header[2..end] {
                    *byte = rng.next() as u8;
                }
            }
            f[20] = kind;
            let grown = header.len() as i32;
            f.splice(54..54, header);
            grow(f, grown);
        }
    }
}

/// Fragments, perhaps overlapping, incomplete, doubled, out of order.
fn pieces(rng: &mut Rng, f: &[u8]) -> Vec<Vec<u8>> {
    let v4 = f[12..14] == [8, 0] && f.len() > 42 && f[14] == 0x45;
    let v6 = f[12..14] == [0x86, 0xdd] && f.len() > 62;
    if !v4 && !v6 {
        return vec![f.to_vec()];
    }
    let header = if v4 { 34 } else { 54 };
    let body = &f[header..];
    let size = (8 + rng.below(100) as usize * 8).min(body.len().next_multiple_of(8));
    let ident = rng.below(4) as u32;
    let mut all = Vec::new();
    for (i, piece) in body.chunks(size).enumerate() {
        if rng.chance(100_000) {
            continue;
        }
        let more = (i + 1) * size < body.len();
        let mut offset = i * size;
        if rng.chance(100_000) {
            offset = (offset + rng.below(8192) as usize * 8) & 0xfff8;
        }
        let mut g = f[..header].to_vec();
        if v4 {
            g[18..20].copy_from_slice(&(ident as u16).to_be_bytes());
            let word = (offset / 8) as u16 & 0x1fff | if more { 0x2000 } else { 0 };
            g[20..22].copy_from_slice(&word.to_be_bytes());
            g[16..18].copy_from_slice(&((20 + piece.len()) as u16).to_be_bytes());
        } else {
            g.extend_from_slice(&[g[20], 0]);
            g[20] = 44;
            g.extend_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
            g.extend_from_slice(&ident.to_be_bytes());
            g[18..20].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
        }
        g.extend_from_slice(piece);
        fix(&mut g);
        let at = rng.below(all.len() as u64 + 1) as usize;
        if rng.chance(100_000) {
            all.push(g.clone());
        }
        all.insert(if rng.chance(300_000) { at } else { all.len() }, g);
    }
    all
}

/// An ICMP error about `f`, as if to the one who sent it (it goes where `f` was going: seen from there the
/// quoted packet is a stranger's) or about the opposite direction (seen from there it is its own).
fn error_about(rng: &mut Rng, f: &[u8]) -> Vec<u8> {
    let v4 = f[12..14] == [8, 0] && f.len() >= 42;
    if !v4 && (f[12..14] != [0x86, 0xdd] || f.len() < 62) {
        return f.to_vec();
    }
    let (start, len, header) = if v4 { (26, 4, 34) } else { (22, 16, 54) };
    let mut quote = f[14..].to_vec();
    if rng.chance(800_000) {
        // Its own packet: addresses and ports the other way round, the acknowledgement as sequence number.
        let (a, b) = (start - 14, start - 14 + len);
        let (src, dst) = (quote[a..b].to_vec(), quote[b..b + len].to_vec());
        quote[a..b].copy_from_slice(&dst);
        quote[b..b + len].copy_from_slice(&src);
        let l4 = header - 14;
        let ports = [quote[l4 + 2], quote[l4 + 3], quote[l4], quote[l4 + 1]];
        quote[l4..l4 + 4].copy_from_slice(&ports);
        if quote.len() >= l4 + 12 && quote[if v4 { 9 } else { 6 }] == 6 {
            quote.copy_within(l4 + 8..l4 + 12, l4 + 4);
        }
    }
    quote.truncate(8 + rng.below(500) as usize);
    let mut m = if v4 {
        let mtu = [0u16, 68, 576, 1000, 1499, 9000][rng.below(6) as usize].to_be_bytes();
        let kind = [3, 3, 3, 11, 12][rng.below(5) as usize];
        let code = if kind == 3 && rng.chance(500_000) {
            4
        } else {
            rng.below(16) as u8
        };
        vec![kind, code, 0, 0, 0, 0, mtu[0], mtu[1]]
    } else {
        let mtu = [0u32, 1280, 1400, 9000, u32::MAX][rng.below(5) as usize].to_be_bytes();
        let kind = 1 + rng.below(5) as u8;
        let mut m = vec![kind, rng.below(8) as u8, 0, 0];
        m.extend_from_slice(&mtu);
        m
    };
    m.extend_from_slice(&quote);
    let mut g = f[..header].to_vec();
    if v4 {
        g[14] = 0x45;
        g[16..18].copy_from_slice(&((20 + m.len()) as u16).to_be_bytes());
        g[20..22].fill(0);
        g[23] = 1;
    } else {
        g[18..20].copy_from_slice(&(m.len() as u16).to_be_bytes());
        g[20] = 58;
    }
    g.extend_from_slice(&m);
    fix(&mut g);
    g
}

/// What a router says to the sender of a frame that is larger than the next link's `mtu`.
pub fn too_big(f: &[u8], mtu: usize) -> Vec<u8> {
    let mut mac = [0; 6];
    mac.copy_from_slice(&f[6..12]);
    let mut ends = Ends {
        to_mac: mac,
        from_mac: [2, 0, 0, 0, 0, 77],
        src: Ipv4Addr::new(10, 0, 0, 77),
        dst: Ipv4Addr::UNSPECIFIED,
        src6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 77),
        dst6: Ipv6Addr::UNSPECIFIED,
    };
    let mut m = vec![0; 4];
    m.extend_from_slice(&(mtu as u32).to_be_bytes());
    m.extend_from_slice(&f[14..f.len().min(14 + 548)]);
    if f[12] == 8 {
        (m[0], m[1]) = (3, 4);
        ends.dst = <[u8; 4]>::try_from(&f[26..30]).unwrap().into();
        ends.v4(1, 64, &m)
    } else {
        m[0] = 2;
        ends.dst6 = <[u8; 16]>::try_from(&f[22..38]).unwrap().into();
        ends.v6(58, 64, &m)
    }
}
