//! What a small request costs: one stack, a made-up peer, requests of 100 bytes answered with 200.
//! Run it under `valgrind --tool=callgrind` for instruction counts. Arguments: connections, requests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use iobuf::{SliceSink, SliceSource};
use net::nic::{
    BufferPool, Handler, Nic, NicCaps, NicStats, RxBuffer, RxChecksum, RxPacket, TxPacket,
};
use net::{Cidr, Config, Family, IfConfig, Ipv4Config, Kind, MsgFlags, SendMeta, Stack};

/// A card that holds one packet each way and fills checksums, as virtio-net does.
struct Card {
    arriving: Mutex<Option<RxPacket>>,
    /// Sequence number of the last segment that left, and its data's length.
    left: Mutex<Option<(u32, u32)>>,
}

impl Nic for Card {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn mtu(&self) -> u16 {
        1500
    }
    fn caps(&self) -> NicCaps {
        NicCaps {
            tx_csum: true,
            rx_csum: true,
            tso4: true,
            max_segments: 17,
            max_gso_size: 65_535,
            ..NicCaps::default()
        }
    }
    fn queue_count(&self) -> usize {
        1
    }
    fn transmit(&self, _queue: usize, packet: TxPacket) -> Result<(), TxPacket> {
        let h = &packet.header;
        if h[12..14] != [8, 0] {
            return Ok(());
        }
        let header = 34 + usize::from(h[46] >> 4) * 4;
        let seq = u32::from_be_bytes([h[38], h[39], h[40], h[41]]);
        *self.left.lock().unwrap() = Some((seq, (packet.len() - header) as u32));
        Ok(())
    }
    fn reclaim(&self, _queue: usize) -> usize {
        0
    }
    fn set_transmit_handler(&self, _queue: usize, _handler: Handler) {}
    fn receive(&self, _queue: usize, _budget: usize, deliver: &mut dyn FnMut(RxPacket)) -> usize {
        match self.arriving.lock().unwrap().take() {
            Some(packet) => {
                deliver(packet);
                1
            }
            None => 0,
        }
    }
    fn set_receive_handler(&self, _queue: usize, _handler: Handler) {}
    fn enable_interrupts(&self, _queue: usize) -> bool {
        false
    }
    fn stats(&self) -> NicStats {
        NicStats::default()
    }
}

struct Peer {
    pool: Arc<BufferPool>,
    card: Arc<Card>,
    stack: Arc<Stack>,
}

impl Peer {
    /// Sends a segment and lets the stack take it.
    #[inline(never)]
    fn segment(&self, port: u16, seq: u32, ack: u32, flags: u8, data: &[u8], options: &[u8]) {
        let mut buffer = self.pool.take().expect("memory");
        let tcp = 20 + options.len();
        let total = (20 + tcp + data.len()) as u16;
        let f = &mut buffer[..];
        f[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        f[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        f[16..18].copy_from_slice(&total.to_be_bytes());
        f[18..26].copy_from_slice(&[0, 1, 0x40, 0, 64, 6, 0, 0]);
        f[26..30].copy_from_slice(&[10, 0, 0, 9]);
        f[30..34].copy_from_slice(&[10, 0, 0, 1]);
        let sum: u32 = f[14..34]
            .chunks(2)
            .map(|p| u32::from(p[0]) << 8 | u32::from(p[1]))
            .sum();
        let sum = (sum >> 16) + (sum & 0xffff);
        f[24..26].copy_from_slice(&(!(sum as u16 + (sum >> 16) as u16)).to_be_bytes());
        f[34..36].copy_from_slice(&port.to_be_bytes());
        f[36..38].copy_from_slice(&80u16.to_be_bytes());
        f[38..42].copy_from_slice(&seq.to_be_bytes());
        f[42..46].copy_from_slice(&ack.to_be_bytes());
        f[46..54].copy_from_slice(&[(tcp as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        f[54..54 + options.len()].copy_from_slice(options);
        f[34 + tcp..34 + tcp + data.len()].copy_from_slice(data);
        let mut packet = RxPacket::plain(RxBuffer::pooled(
            buffer,
            0..14 + usize::from(total),
            self.pool.clone(),
        ));
        packet.checksum = RxChecksum::Verified;
        *self.card.arriving.lock().unwrap() = Some(packet);
        work(&self.stack);
    }

    fn left(&self) -> (u32, u32) {
        self.card.left.lock().unwrap().take().expect("a segment")
    }
}

/// What the engine does for a packet: the function to count.
#[inline(never)]
fn work(stack: &Stack) {
    stack.poll();
}

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse::<u32>().ok());
    let connections = numbers.next().unwrap_or(1);
    let requests = numbers.next().unwrap_or(10_000);
    let time = Arc::new(AtomicU64::new(1_000_000_000));
    let clock = time.clone();
    let mut config = Config::new(
        Arc::new(move || clock.load(Ordering::Relaxed)),
        [1, 2, 3, 4],
    );
    config.limits.somaxconn = 1 << 20;
    let stack = Stack::new(config);
    let card = Arc::new(Card {
        arriving: Mutex::new(None),
        left: Mutex::new(None),
    });
    let addr = Cidr {
        addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        prefix: 24,
    };
    let ipv4 = Ipv4Config::Static {
        addr,
        gateway: None,
    };
    stack
        .add_interface(
            "en1",
            card.clone(),
            IfConfig {
                ipv4,
                ..IfConfig::default()
            },
        )
        .expect("new");
    stack
        .set_neighbour(
            2,
            IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
            [2, 0, 0, 0, 0, 9],
        )
        .expect("set");
    let listener = stack.socket(Family::Inet, Kind::Stream, 0).expect("socket");
    listener.bind(SocketAddr::new(addr.addr, 80)).expect("bind");
    listener.listen(1 << 20).expect("listen");
    let peer = Peer {
        pool: BufferPool::new(2048, 16),
        card,
        stack: stack.clone(),
    };
    let options = [
        2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    let stamp = [1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 0];
    let mut open = Vec::new();
    for n in 0..connections {
        let port = 1024 + n as u16;
        peer.segment(port, 0, 0, 2, b"", &options);
        let (iss, _) = peer.left();
        peer.segment(port, 1, iss.wrapping_add(1), 16, b"", &stamp);
        let server = listener.accept().expect("accepted");
        open.push((server, port, 1u32, iss.wrapping_add(1)));
    }
    let start = std::time::Instant::now();
    let mut buffer = [0; 4096];
    for n in 0..requests {
        time.fetch_add(50_000, Ordering::Relaxed);
        let (server, port, seq, ack) = &mut open[(n % connections) as usize];
        peer.segment(*port, *seq, *ack, 24, &[b'q'; 100], &stamp);
        *seq = seq.wrapping_add(100);
        let got = server
            .recv(&mut SliceSink::new(&mut buffer), MsgFlags::empty())
            .expect("request");
        assert_eq!(got.len, 100);
        server
            .send(&mut SliceSource::new(&[b'a'; 200]), &SendMeta::default())
            .expect("room");
        let (at, len) = peer.left();
        assert_eq!((at, len), (*ack, 200));
        *ack = ack.wrapping_add(200);
    }
    println!(
        "{connections} connections: {} ns a request",
        start.elapsed().as_nanos() / u128::from(requests)
    );
}
