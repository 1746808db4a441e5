//! A deterministic network for tests: stacks, a virtual clock, links that lose, repeat, reorder, corrupt
//! and delay by a seeded generator, and cards that may offload checksums and segmentation as virtio-net does.
#![allow(dead_code, reason = "each test uses a part")]

pub mod craft;
pub mod script;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use net::nic::{
    Gso, GsoKind, Handler, Nic, NicCaps, NicStats, RxBuffer, RxChecksum, RxPacket, TxPacket,
};
use net::{Cidr, Config, Family, IfConfig, Ipv4Config, Ipv6Config, Kind, Socket, Stack};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

/// A small generator: the same seed, the same test.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn chance(&mut self, per_million: u64) -> bool {
        self.below(1_000_000) < per_million
    }
}

/// A card whose other side is the test.
pub struct SimNic {
    pub mac: [u8; 6],
    pub mtu: u16,
    pub caps: NicCaps,
    pub sent: Mutex<VecDeque<Vec<u8>>>,
    pub received: Mutex<VecDeque<RxPacket>>,
    pub offloads: AtomicU64,
    /// Takes nothing more to send.
    pub full: AtomicBool,
}

impl SimNic {
    pub fn new(last: u8, mtu: u16, offload: bool) -> Arc<SimNic> {
        let caps = NicCaps {
            tx_csum: offload,
            rx_csum: offload,
            tso4: offload,
            tso6: offload,
            max_gso_size: 65_536,
            max_segments: 17,
            tx_depth: 256,
            ..NicCaps::default()
        };
        Arc::new(SimNic {
            mac: [2, 0, 0, 0, 0, last],
            mtu,
            caps,
            sent: Mutex::default(),
            received: Mutex::default(),
            offloads: AtomicU64::new(0),
            full: AtomicBool::new(false),
        })
    }

    pub fn inject(&self, frame: &[u8], checksum: RxChecksum) {
        let mut packet = RxPacket::plain(RxBuffer::copy_of(frame));
        packet.checksum = checksum;
        self.received.lock().unwrap().push_back(packet);
    }

    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        self.sent.lock().unwrap().drain(..).collect()
    }
}

pub fn fold(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Does what a congested router does with an IPv4 packet that is ECT; false for others.
fn mark(frame: &mut [u8]) -> bool {
    if frame.len() < 34 || frame[12..14] != [8, 0] || !matches!(frame[15] & 3, 1 | 2) {
        return false;
    }
    frame[15] |= 3;
    frame[24..26].fill(0);
    let sum = !fold(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Does what a card does with an offloaded packet: cut, and fill checksums.
pub fn complete(packet: &TxPacket) -> Vec<Vec<u8>> {
    let bytes = packet.to_vec();
    let Some(offload) = packet.offload else {
        return vec![bytes];
    };
    let (start, offset) = (offload.csum_start as usize, offload.csum_offset as usize);
    let Some(Gso {
        segment_size,
        header_len,
        kind,
        ..
    }) = offload.gso
    else {
        let mut bytes = bytes;
        let sum = !fold(&bytes[start..], 0);
        bytes[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
        return vec![bytes];
    };
    let v6 = kind == GsoKind::Tcp6;
    let header = &bytes[..header_len as usize];
    let payload = &bytes[header_len as usize..];
    assert!(!payload.is_empty());
    let count = payload.len().div_ceil(segment_size as usize);
    let mut frames = Vec::new();
    let seq = u32::from_be_bytes(header[start + 4..start + 8].try_into().unwrap());
    for (i, piece) in payload.chunks(segment_size as usize).enumerate() {
        let mut frame = header.to_vec();
        frame.extend_from_slice(piece);
        if v6 {
            let total = (frame.len() - 54) as u16;
            frame[18..20].copy_from_slice(&total.to_be_bytes());
        } else {
            let total = (frame.len() - 14) as u16;
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            frame[24..26].fill(0);
            let sum = !fold(&frame[14..34], 0);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let here = seq.wrapping_add((i * segment_size as usize) as u32);
        frame[start + 4..start + 8].copy_from_slice(&here.to_be_bytes());
        if i + 1 < count {
            frame[start + 13] &= !(0x01 | 0x08);
        }
        let len = (frame.len() - start) as u32;
        frame[start + 16..start + 18].fill(0);
        let addresses = if v6 { 22..54 } else { 26..34 };
        let pseudo = u32::from(fold(&frame[addresses], 6 + len));
        let sum = !fold(&frame[start..], pseudo);
        frame[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        frames.push(frame);
    }
    frames
}

impl Nic for SimNic {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn caps(&self) -> NicCaps {
        self.caps
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn transmit(&self, _queue: usize, packet: TxPacket) -> Result<(), TxPacket> {
        if self.full.load(Ordering::Relaxed) {
            return Err(packet);
        }
        if packet.offload.is_some_and(|o| o.gso.is_some()) {
            self.offloads.fetch_add(1, Ordering::Relaxed);
        }
        assert!(packet.segments.len() < 17, "too many pieces");
        let frames = complete(&packet);
        let mut sent = self.sent.lock().unwrap();
        for frame in frames {
            assert!(
                frame.len() <= usize::from(self.mtu) + 14,
                "frame of {}",
                frame.len()
            );
            sent.push_back(frame);
        }
        Ok(())
    }

    fn reclaim(&self, _queue: usize) -> usize {
        0
    }

    fn set_transmit_handler(&self, _queue: usize, _handler: Handler) {}

    fn receive(&self, _queue: usize, budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize {
        let mut count = 0;
        while count < budget {
            let Some(packet) = self.received.lock().unwrap().pop_front() else {
                break;
            };
            deliver(packet);
            count += 1;
        }
        count
    }

    fn set_receive_handler(&self, _queue: usize, _handler: Handler) {}

    fn enable_interrupts(&self, _queue: usize) -> bool {
        !self.received.lock().unwrap().is_empty()
    }

    fn stats(&self) -> NicStats {
        NicStats::default()
    }
}

/// How bad a link is; chances in a million.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub corrupt: u64,
    /// Packets that say they can be marked get CE.
    pub mark: u64,
    pub delay_ns: u64,
    pub jitter_ns: u64,
    /// Nanoseconds a byte takes, 0 for no limit.
    pub ns_per_byte: u64,
    /// Bytes that may wait for the link.
    pub queue: u64,
}

/// What may happen to a frame on the link: from whom it is, and the frames that go on in its place.
pub type Tamper = Box<dyn FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>>;

/// Two stacks and a link.
pub struct World {
    pub tamper: Option<Tamper>,
    /// The largest IP packet that a router on the way lets through, and whether it says so.
    pub path_mtu: Option<(usize, bool)>,
    pub clock: Arc<AtomicU64>,
    pub rng: Rng,
    pub stacks: Vec<Arc<Stack>>,
    pub nics: Vec<Arc<SimNic>>,
    pub weather: Weather,
    flying: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    number: u64,
    free_at: [u64; 2],
    pub carried: u64,
    pub lost: u64,
    pub marked: u64,
    pub trace: bool,
}

pub fn host(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

pub fn config(clock: &Arc<AtomicU64>, rng: &mut Rng) -> Config {
    let clock = clock.clone();
    Config::new(
        Arc::new(move || clock.load(Ordering::Relaxed)),
        [rng.next(), rng.next(), rng.next(), rng.next()],
    )
}

impl World {
    pub fn new(seed: u64, weather: Weather, offload: [bool; 2]) -> World {
        World::with(seed, weather, offload, |_| {})
    }

    pub fn with(
        seed: u64,
        weather: Weather,
        offload: [bool; 2],
        change: impl Fn(&mut Config),
    ) -> World {
        World::full(seed, weather, offload, change, |_| Ipv6Config::None)
    }

    pub fn full(
        seed: u64,
        weather: Weather,
        offload: [bool; 2],
        change: impl Fn(&mut Config),
        ipv6: impl Fn(u8) -> Ipv6Config,
    ) -> World {
        let mut rng = Rng(seed);
        let clock = Arc::new(AtomicU64::new(10 * SECOND + rng.below(SECOND)));
        let mut stacks = Vec::new();
        let mut nics = Vec::new();
        for i in 0..2u8 {
            let mut config = config(&clock, &mut rng);
            change(&mut config);
            let stack = Stack::new(config);
            let nic = SimNic::new(i + 1, 1500, offload[i as usize]);
            let addr = Cidr::new(IpAddr::V4(host(i + 1)), 24).unwrap();
            stack
                .add_interface(
                    "en1",
                    nic.clone(),
                    IfConfig {
                        ipv4: Ipv4Config::Static {
                            addr,
                            gateway: None,
                        },
                        ipv6: ipv6(i + 1),
                        ..IfConfig::default()
                    },
                )
                .unwrap();
            stacks.push(stack);
            nics.push(nic);
        }
        World {
            tamper: None,
            path_mtu: None,
            clock,
            rng,
            stacks,
            nics,
            weather,
            flying: BTreeMap::new(),
            number: 0,
            free_at: [0; 2],
            carried: 0,
            lost: 0,
            marked: 0,
            trace: std::env::var("NET_TRACE").is_ok(),
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn launch(&mut self, from: usize, mut frame: Vec<u8>) {
        let now = self.now();
        if self.trace {
            eprintln!("{:>12.3} {} {}", now as f64 / 1e6, from, describe(&frame));
        }
        let w = self.weather;
        self.carried += 1;
        // A router may cut what has no don't-fragment bit; here it lets it pass.
        let whole = frame.get(12..14) == Some(&[0x86, 0xdd])
            || frame.get(20).is_some_and(|f| f & 0x40 != 0);
        if let Some((mtu, tells)) = self.path_mtu
            && frame.len() > mtu + 14
            && whole
        {
            if tells && !self.rng.chance(w.loss) {
                self.number += 1;
                let key = (now + w.delay_ns, self.number);
                let told = craft::too_big(&frame, mtu);
                self.flying.insert(key, (from, told));
            }
            return;
        }
        if w.loss > 0 && self.rng.chance(w.loss) {
            self.lost += 1;
            if self.trace {
                eprintln!("             lost");
            }
            return;
        }
        if w.mark > 0 && self.rng.chance(w.mark) && mark(&mut frame) {
            self.marked += 1;
        }
        if w.corrupt > 0 && self.rng.chance(w.corrupt) && frame.len() > 14 {
            let at = 14 + self.rng.below(frame.len() as u64 - 14) as usize;
            frame[at] ^= 1 << self.rng.below(8);
        }
        let mut at = now + w.delay_ns;
        if w.ns_per_byte > 0 {
            let start = self.free_at[from].max(now);
            if start - now > w.ns_per_byte * w.queue.max(1) {
                self.lost += 1;
                return;
            }
            self.free_at[from] = start + frame.len() as u64 * w.ns_per_byte;
            at = self.free_at[from] + w.delay_ns;
        }
        if w.jitter_ns > 0 && self.rng.chance(w.reorder) {
            at += self.rng.below(w.jitter_ns);
        }
        let copies = 1 + u64::from(w.duplicate > 0 && self.rng.chance(w.duplicate));
        for _ in 0..copies {
            self.number += 1;
            self.flying
                .insert((at, self.number), (1 - from, frame.clone()));
            at += self.rng.below(w.jitter_ns.max(1));
        }
    }

    /// Lets everybody act at this moment.
    pub fn settle(&mut self) -> u64 {
        let mut next;
        loop {
            let mut busy = false;
            next = u64::MAX;
            for i in 0..self.stacks.len() {
                if let Some(at) = self.stacks[i].poll() {
                    next = next.min(at);
                }
                for frame in self.nics[i].take_sent() {
                    busy = true;
                    match &mut self.tamper {
                        None => self.launch(i, frame),
                        Some(tamper) => {
                            for frame in tamper(i, frame) {
                                self.launch(i, frame);
                            }
                        }
                    }
                }
            }
            let now = self.now();
            while let Some((&(at, n), _)) = self.flying.first_key_value() {
                if at > now {
                    break;
                }
                let (to, frame) = self.flying.remove(&(at, n)).unwrap();
                self.nics[to].inject(&frame, RxChecksum::Unknown);
                busy = true;
            }
            if !busy {
                break;
            }
        }
        if let Some((&(at, _), _)) = self.flying.first_key_value() {
            next = next.min(at);
        }
        next
    }

    /// Acts, then moves the clock to where something happens next, at most to `limit`. False at the limit.
    pub fn step(&mut self, limit: u64) -> bool {
        let next = self.settle();
        if self.now() >= limit {
            return false;
        }
        let next = next.max(self.now() + 1).min(limit);
        self.clock.store(next, Ordering::Relaxed);
        true
    }

    /// Runs for `ns`.
    pub fn run(&mut self, ns: u64) {
        let limit = self.now() + ns;
        while self.step(limit) {}
    }

    pub fn socket(&self, who: usize, kind: Kind) -> Arc<dyn Socket> {
        self.stacks[who].socket(Family::Inet, kind, 0).unwrap()
    }

    /// A listener on host 1 and a connection to it from host 0.
    pub fn connect(&mut self, port: u16) -> (Arc<dyn Socket>, Arc<dyn Socket>) {
        let listener = self.listen(1, port);
        let limit = self.now() + 5000 * SECOND;
        let to = Some(SocketAddr::new(host(2).into(), port));
        let mut client = self.socket(0, Kind::Stream);
        assert_eq!(client.connect(to), Err(errno::Errno::EINPROGRESS));
        let mut patience = self.now() + 200 * SECOND;
        loop {
            let result = client.connect_result();
            // The last acknowledgement of the handshake may be lost until the server gives up: a client
            // that has nothing to say does not find out.
            let forgotten = self.now() > patience;
            match result {
                Some(Ok(())) if !forgotten => {
                    if let Ok(server) = listener.accept() {
                        // From an attempt that was given up, perhaps.
                        if server.peer_addr() == client.local_addr() {
                            listener.close();
                            return (client, server);
                        }
                        server.close();
                    }
                }
                Some(_) => {
                    client.close();
                    patience = self.now() + 200 * SECOND;
                    client = self.socket(0, Kind::Stream);
                    assert_eq!(client.connect(to), Err(errno::Errno::EINPROGRESS));
                }
                None => {}
            }
            self.step(limit.min(patience + 1));
            assert!(self.now() < limit, "no connection");
        }
    }

    pub fn listen(&self, who: usize, port: u16) -> Arc<dyn Socket> {
        let listener = self.socket(who, Kind::Stream);
        listener.set_option(net::Opt::ReuseAddr(true)).unwrap();
        listener
            .bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
            .unwrap();
        listener.listen(128).unwrap();
        listener
    }
}

/// A frame in a line, for traces.
pub fn describe(frame: &[u8]) -> String {
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return format!("ethertype {:02x?} {} bytes", &frame[12..14], frame.len());
    }
    let l4 = 14 + usize::from(frame[14] & 0xf) * 4;
    if frame[23] != 6 || frame.len() < l4 + 20 {
        return format!("ip proto {} {} bytes", frame[23], frame.len());
    }
    let t = &frame[l4..];
    let word = |at: usize| u32::from_be_bytes(t[at..at + 4].try_into().unwrap());
    let port = |at: usize| u16::from_be_bytes([t[at], t[at + 1]]);
    let names = ["F", "S", "R", "P", ".", "U", "E", "W"];
    let flags: String = (0..8)
        .filter(|i| t[13] & 1 << i != 0)
        .map(|i| names[i])
        .collect();
    let header = usize::from(t[12] >> 4) * 4;
    let mut sacks = String::new();
    let mut at = 20;
    while at < header {
        match t[at] {
            0 => break,
            1 => at += 1,
            5 => {
                let len = usize::from(t[at + 1]);
                for block in t[at + 2..at + len].chunks(8) {
                    let word =
                        |at: usize| u32::from_be_bytes(block[at..at + 4].try_into().unwrap());
                    sacks.push_str(&format!(" [{}-{}]", word(0), word(4)));
                }
                at += len;
            }
            _ => at += usize::from(t[at + 1]).max(2),
        }
    }
    format!(
        "{} > {} {} seq {} ack {} win {} len {}{}",
        port(0),
        port(2),
        flags,
        word(4),
        word(8),
        port(14),
        t.len() - header,
        sacks
    )
}
