//! Vsock against a host without sense and a program without sense: packets of every kind, right and wrong, in any order, and
//! calls on sockets meanwhile. Nothing panics, no queue outgrows what its owner allowed, and in the end nothing is left.
//! `NET_SEED=n NET_SEEDS=1 cargo test -p net vsock::fuzz` repeats one.

use std::sync::Mutex;

use iobuf::{SliceSource, VecSink};

use super::*;
use crate::socket::{MsgFlags, Shutdown};

const GUEST: u32 = 7;

#[derive(Default)]
struct Wire {
    sent: Mutex<Vec<Box<[u8]>>>,
    arriving: Mutex<VecDeque<Arrival>>,
    full: AtomicBool,
}

impl VsockLink for Wire {
    fn guest_cid(&self) -> u64 {
        GUEST.into()
    }

    fn has_seqpacket(&self) -> bool {
        true
    }

    fn send(&self, packet: Box<[u8]>) -> core::result::Result<(), Box<[u8]>> {
        if self.full.load(Ordering::SeqCst) {
            return Err(packet);
        }
        self.sent.lock().unwrap().push(packet);
        Ok(())
    }

    fn receive(&self) -> Option<Arrival> {
        self.arriving.lock().unwrap().pop_front()
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A number of any size.
fn word(rng: &mut Rng) -> u32 {
    let bits = rng.below(33);
    rng.below(1 << bits) as u32
}

fn port(rng: &mut Rng, known: &[u32]) -> u32 {
    match known {
        [] => rng.below(4) as u32 + 80,
        known if !rng.one_in(8) => known[rng.below(known.len() as u64) as usize],
        _ => rng.below(1 << 32) as u32,
    }
}

/// A packet from the host, mostly of a connection that there is.
fn packet(rng: &mut Rng, ports: &[u32]) -> Arrival {
    let data = match rng.below(4) {
        0 => 0,
        1 => rng.below(5000) as usize,
        _ => rng.below(64) as usize,
    };
    let header = Header {
        src: VsockAddr {
            cid: if rng.one_in(30) {
                rng.below(5) as u32
            } else {
                CID_HOST
            },
            port: 90 + rng.below(3) as u32,
        },
        dst: VsockAddr {
            cid: if rng.one_in(30) {
                rng.below(9) as u32
            } else {
                GUEST
            },
            port: port(rng, ports),
        },
        len: match rng.below(20) {
            0 => rng.below(1 << 32) as u32,
            1 => data as u32 / 2,
            _ => data as u32,
        },
        kind: 1 + rng.below(2) as u16 + u16::from(rng.one_in(50)),
        op: match rng.below(20) {
            0 => rng.below(9) as u16,
            1 => op::RST,
            2 => op::SHUTDOWN,
            3..6 => op::REQUEST,
            6..9 => op::RESPONSE,
            9 | 10 => op::CREDIT_UPDATE,
            11 => op::CREDIT_REQUEST,
            _ => op::RW,
        },
        flags: rng.below(4) as u32,
        buf_alloc: word(rng),
        fwd_cnt: word(rng),
    };
    let mut bytes = alloc::vec![0x55; HEADER_LEN + data];
    header.write(&mut bytes);
    let mut len = bytes.len();
    match rng.below(40) {
        0 => len = HEADER_LEN + rng.below(1 + data as u64) as usize,
        1 => {
            let at = rng.below(HEADER_LEN as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        2 if rng.one_in(10) => return Arrival::Reset,
        _ => {}
    }
    Arrival::Packet(bytes.into(), len)
}

/// A call of the program.
fn call(rng: &mut Rng, vsock: &Arc<Vsock>, sockets: &mut Vec<Arc<VsockSocket>>) {
    if sockets.len() < 20 && rng.one_in(3) {
        sockets.push(VsockSocket::new(vsock, rng.one_in(2)));
        return;
    }
    if sockets.is_empty() {
        return;
    }
    let at = rng.below(sockets.len() as u64) as usize;
    let socket = sockets[at].clone();
    let cid = [CID_HOST, CID_HOST, CID_LOCAL, GUEST, CID_ANY, 3][rng.below(6) as usize];
    let some = |rng: &mut Rng| VsockAddr {
        cid,
        port: [80, 81, 82, 90, 91, PORT_ANY][rng.below(6) as usize],
    };
    // What a call answers is not looked at: most of them are out of place.
    match rng.below(12) {
        0 => drop(socket.bind(some(rng))),
        1 => drop(socket.listen(rng.below(4) as i32)),
        2 => {
            if let Ok(child) = socket.accept() {
                sockets.push(child);
            }
        }
        3 => drop(socket.connect(some(rng))),
        4 => drop(socket.connect_result()),
        5 | 6 => {
            let bytes = alloc::vec![7; rng.below(5000) as usize];
            let _ = socket.send(&mut SliceSource::new(&bytes), MsgFlags::empty());
        }
        7 | 8 => {
            let flags = [MsgFlags::empty(), MsgFlags::PEEK, MsgFlags::TRUNC][rng.below(3) as usize];
            drop(socket.recv(&mut VecSink::new(rng.below(3000) as usize), flags));
        }
        9 => {
            let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][rng.below(3) as usize];
            let _ = socket.shutdown(how);
        }
        10 => socket.set_option(VsockOption::Buffer(rng.below(20_000))),
        _ => {
            socket.close();
            sockets.swap_remove(at);
        }
    }
}

fn run(seed: u64) {
    let mut rng = Rng(seed);
    let wire = Arc::new(Wire::default());
    let vsock = Vsock::new(Some(wire.clone()), 5000);
    let mut sockets: Vec<Arc<VsockSocket>> = Vec::new();
    for _ in 0..400 {
        if rng.one_in(40) {
            wire.full.fetch_xor(true, Ordering::SeqCst);
        }
        if rng.one_in(2) {
            let ports: Vec<u32> = sockets.iter().map(|s| s.local_addr().port).collect();
            let arrival = packet(&mut rng, &ports);
            wire.arriving.lock().unwrap().push_back(arrival);
            vsock.serve();
        } else {
            call(&mut rng, &vsock, &mut sockets);
        }
        for socket in &sockets {
            let inner = socket.inner.lock();
            let queued: usize = inner.rx.iter().map(conn::Chunk::len).sum();
            assert_eq!(queued, inner.rx_bytes as usize, "seed {seed}");
            assert!(inner.rx_bytes <= 1 << 20 && inner.rx.len() <= (1 << 20) + 65);
            drop(inner);
            let _ = (socket.poll(), socket.input_queued(), socket.take_error());
        }
        let out = vsock.out.lock();
        assert!(out.link.len() <= QUEUED_MOST + QUEUED && out.local.is_empty());
        drop(out);
        for packet in wire.sent.lock().unwrap().drain(..) {
            let header = Header::parse(&packet).expect("a header");
            assert_eq!(
                header.len as usize,
                packet.len() - HEADER_LEN,
                "seed {seed}"
            );
            // A refusal comes from where the packet wanted to go.
            let own = header.src.cid == GUEST || header.op == op::RST;
            assert!(own, "seed {seed}: {header:?}");
        }
    }
    // The end: nobody is left, and nothing of them.
    wire.full.store(false, Ordering::SeqCst);
    for socket in sockets.drain(..) {
        socket.close();
    }
    vsock.serve();
    vsock.expire(u64::MAX);
    let table = vsock.table.lock();
    assert!(
        table.bound.values().all(Vec::is_empty) && table.connections.is_empty(),
        "seed {seed}: {} bound, {} connections",
        table.bound.len(),
        table.connections.len()
    );
}

#[test]
fn neither_host_nor_program_breaks_it() {
    let number = |name: &str, usual: u64| {
        let told = std::env::var(name).ok();
        told.and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let first = number("NET_SEED", 1);
    for seed in first..first + number("NET_SEEDS", 1500) {
        run(seed);
    }
}
