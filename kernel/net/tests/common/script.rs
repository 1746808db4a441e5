//! Scripts: one stack on one card, and a test that injects frames and looks at what comes out.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use net::nic::RxChecksum;
use net::{Cidr, Config, Family, IfConfig, Ipv4Config, Kind, Socket, Stack};

use super::{MS, Rng, SECOND, SimNic, config, fold, host};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;
pub const ECE: u8 = 64;
pub const CWR: u8 = 128;

/// Codepoints of the IP header's ECN bits.
pub const ECT: u8 = 2;
pub const CE: u8 = 3;

/// A segment, read or to write.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Seg {
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// The IP header's ECN bits.
    pub ecn: u8,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
}

impl std::fmt::Debug for Seg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seq, ack, flags, len) = (self.seq, self.ack, self.flags, self.data.len());
        let (window, urgent, ecn) = (self.window, self.urgent, self.ecn);
        write!(
            f,
            "seq {seq} ack {ack} flags {flags:#x} window {window} urgent {urgent} ecn {ecn} data {len} {:?}",
            self.options
        )
    }
}

impl Seg {
    pub fn is(&self, flags: u8) -> bool {
        self.flags & !PSH == flags
    }
}

pub struct Script {
    pub clock: Arc<AtomicU64>,
    pub stack: Arc<Stack>,
    pub nic: Arc<SimNic>,
    pub out: VecDeque<Vec<u8>>,
    pub now: u64,
}

pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

pub fn peer() -> Ipv4Addr {
    host(9)
}

pub fn ip_frame(mac: [u8; 6], src: Ipv4Addr, dst: Ipv4Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = Vec::new();
    f.extend_from_slice(&mac);
    f.extend_from_slice(&PEER_MAC);
    f.extend_from_slice(&[8, 0, 0x45, 0]);
    f.extend_from_slice(&((payload.len() + 20) as u16).to_be_bytes());
    f.extend_from_slice(&[0, 1, 0x40, 0, 64, proto, 0, 0]);
    f.extend_from_slice(&src.octets());
    f.extend_from_slice(&dst.octets());
    let sum = !fold(&f[14..34], 0);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    f.extend_from_slice(payload);
    f
}

impl Script {
    pub fn new() -> Script {
        Script::with(|_| {}, None)
    }

    /// On a card that cuts and sums.
    pub fn with_offload() -> Script {
        Script::make(|_| {}, None, true)
    }

    pub fn with(change: impl Fn(&mut Config), ifconfig: Option<IfConfig>) -> Script {
        Script::make(change, ifconfig, false)
    }

    fn make(change: impl Fn(&mut Config), ifconfig: Option<IfConfig>, offload: bool) -> Script {
        let clock = Arc::new(AtomicU64::new(100 * SECOND));
        let mut config = config(&clock, &mut Rng(7));
        change(&mut config);
        let stack = Stack::new(config);
        let nic = SimNic::new(1, 1500, offload);
        let ifconfig = ifconfig.unwrap_or(IfConfig {
            ipv4: Ipv4Config::Static {
                addr: Cidr::new(IpAddr::V4(host(1)), 24).unwrap(),
                gateway: Some(peer()),
            },
            ..IfConfig::default()
        });
        stack.add_interface("en1", nic.clone(), ifconfig).unwrap();
        stack
            .set_neighbour(2, IpAddr::V4(peer()), PEER_MAC)
            .unwrap();
        nic.take_sent();
        Script {
            clock,
            stack,
            nic,
            out: VecDeque::new(),
            now: 100 * SECOND,
        }
    }

    /// Moves the clock by `ns`, stopping wherever the stack wants to run.
    pub fn advance(&mut self, ns: u64) {
        let end = self.now + ns;
        loop {
            let next = self.stack.poll().unwrap_or(u64::MAX);
            self.out.extend(self.nic.take_sent());
            if self.now >= end {
                return;
            }
            self.now = next.max(self.now + 1).min(end);
            self.clock.store(self.now, Ordering::Relaxed);
        }
    }

    pub fn inject(&mut self, frame: &[u8]) {
        self.nic.inject(frame, RxChecksum::Unknown);
        self.advance(0);
    }

    pub fn send(&mut self, seg: &Seg) {
        self.send_from(peer(), seg);
    }

    pub fn send_from(&mut self, src: Ipv4Addr, seg: &Seg) {
        let frame = tcp_frame(src, seg);
        self.inject(&frame);
    }

    /// The next TCP segment, if one was sent.
    pub fn next(&mut self) -> Option<Seg> {
        self.out.extend(self.nic.take_sent());
        while let Some(frame) = self.out.pop_front() {
            if frame[12..14] == [8, 0] && frame[23] == 6 {
                return Some(read(&frame));
            }
        }
        None
    }

    /// A segment that is sent `after_ms` from now, and not before; the wheel's tick of 1.05 ms may make it that much
    /// later. The clock stops there.
    pub fn expect_after(&mut self, after_ms: u64, what: &str) -> Seg {
        self.silence();
        let start = self.now;
        let limit = start + after_ms * MS + (2 << 20);
        while self.now < limit {
            let next = self.stack.poll().unwrap_or(u64::MAX);
            self.now = next.max(self.now + 1).min(limit);
            self.clock.store(self.now, Ordering::Relaxed);
            self.stack.poll();
            if let Some(seg) = self.next() {
                let took = self.now - start;
                assert!(
                    took >= after_ms * MS,
                    "{what} came after {took} ns: {seg:?}"
                );
                return seg;
            }
        }
        panic!("nothing sent, expected {what} after {after_ms} ms");
    }

    pub fn expect(&mut self, what: &str) -> Seg {
        self.next()
            .unwrap_or_else(|| panic!("nothing sent, expected {what}"))
    }

    pub fn silence(&mut self) {
        if let Some(seg) = self.next() {
            panic!("unexpected {seg:?}");
        }
    }

    pub fn socket(&self, kind: Kind) -> Arc<dyn Socket> {
        self.stack.socket(Family::Inet, kind, 0).unwrap()
    }

    pub fn listen(&self, port: u16, backlog: u32) -> Arc<dyn Socket> {
        let socket = self.socket(Kind::Stream);
        socket.set_option(net::Opt::ReuseAddr(true)).unwrap();
        socket
            .bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
            .unwrap();
        socket.listen(backlog).unwrap();
        socket
    }

    /// A connection from `sport` to the listener on port 80; returns the server's socket, and the
    /// peer's next sequence number and the server's.
    pub fn establish(
        &mut self,
        listener: &Arc<dyn Socket>,
        sport: u16,
        options: &[u8],
    ) -> (Arc<dyn Socket>, u32, u32) {
        self.send(&Seg {
            sport,
            dport: 80,
            seq: 1000,
            flags: SYN,
            window: 65_535,
            options: options.to_vec(),
            ..Seg::default()
        });
        let answer = self.expect("SYN-ACK");
        assert!(answer.is(SYN | ACK), "{answer:?}");
        assert_eq!(answer.ack, 1001);
        let iss = answer.seq.wrapping_add(1);
        let options = if options.is_empty() {
            vec![]
        } else {
            ts(2, tsval(&answer.options))
        };
        self.send(&Seg {
            sport,
            dport: 80,
            seq: 1001,
            ack: iss,
            flags: ACK,
            window: 65_535,
            options,
            ..Seg::default()
        });
        let server = listener.accept().expect("accepted");
        (server, 1001, iss)
    }
}

/// A timestamp option.
pub fn ts(value: u32, echo: u32) -> Vec<u8> {
    let mut o = vec![1, 1, 8, 10];
    o.extend_from_slice(&value.to_be_bytes());
    o.extend_from_slice(&echo.to_be_bytes());
    o
}

pub fn tsval(options: &[u8]) -> u32 {
    find(options, 8).map_or(0, |o| u32::from_be_bytes(o[2..6].try_into().unwrap()))
}

/// The option of that kind, with its two first bytes.
pub fn find(options: &[u8], kind: u8) -> Option<Vec<u8>> {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => return None,
            1 => at += 1,
            k => {
                let len = usize::from(options[at + 1]);
                if k == kind {
                    return Some(options[at..at + len].to_vec());
                }
                at += len;
            }
        }
    }
    None
}

pub fn tcp_frame(src: Ipv4Addr, seg: &Seg) -> Vec<u8> {
    let mut t = Vec::new();
    t.extend_from_slice(&seg.sport.to_be_bytes());
    t.extend_from_slice(&seg.dport.to_be_bytes());
    t.extend_from_slice(&seg.seq.to_be_bytes());
    t.extend_from_slice(&seg.ack.to_be_bytes());
    let options = seg.options.len().div_ceil(4) * 4;
    t.extend_from_slice(&[(((20 + options) / 4) << 4) as u8, seg.flags]);
    t.extend_from_slice(&seg.window.to_be_bytes());
    t.extend_from_slice(&[0; 2]);
    t.extend_from_slice(&seg.urgent.to_be_bytes());
    t.extend_from_slice(&seg.options);
    t.resize(20 + options, 0);
    t.extend_from_slice(&seg.data);
    let mut pseudo = Vec::new();
    pseudo.extend_from_slice(&src.octets());
    pseudo.extend_from_slice(&host(1).octets());
    let start = u32::from(fold(&pseudo, 6 + t.len() as u32));
    let sum = !fold(&t, start);
    t[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ip_frame([2, 0, 0, 0, 0, 1], src, host(1), 6, &t);
    frame[15] = seg.ecn;
    frame[24..26].fill(0);
    let sum = !fold(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

pub fn read(frame: &[u8]) -> Seg {
    assert_eq!(fold(&frame[14..34], 0), 0xffff, "IP checksum");
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let t = &frame[34..14 + total];
    let pseudo = u32::from(fold(&frame[26..34], 6 + t.len() as u32));
    assert_eq!(fold(t, pseudo), 0xffff, "TCP checksum");
    let header = usize::from(t[12] >> 4) * 4;
    Seg {
        sport: u16::from_be_bytes([t[0], t[1]]),
        dport: u16::from_be_bytes([t[2], t[3]]),
        seq: u32::from_be_bytes(t[4..8].try_into().unwrap()),
        ack: u32::from_be_bytes(t[8..12].try_into().unwrap()),
        flags: t[13],
        window: u16::from_be_bytes([t[14], t[15]]),
        urgent: u16::from_be_bytes([t[18], t[19]]),
        ecn: frame[15] & 3,
        options: t[20..header].to_vec(),
        data: t[header..].to_vec(),
    }
}
