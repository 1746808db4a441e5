//! A hundred thousand connections in one engine: a packet costs what it costs with ten, an idle connection
//! holds little, and TIME-WAIT by the tens of thousands ends in time.

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use common::script::*;
use common::{MS, Rng, SECOND};
use iobuf::{SliceSource, VecSink};
use net::nic::RxChecksum;
use net::{MsgFlags, SendMeta, Socket};

/// `NET_MANY` is another number, for runs that count instructions (`valgrind --tool=callgrind
/// --toggle-collect='scale::exchange'`).
fn many_connections() -> usize {
    let other = std::env::var("NET_MANY").ok();
    other.and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

/// A client of the server at port 80.
struct Peer {
    addr: Ipv4Addr,
    port: u16,
    seq: u32,
    ack: u32,
    socket: Arc<dyn Socket>,
}

/// Everybody comes through the router: their addresses are of other networks.
fn addr(i: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0000 + (i / 50_000) as u32)
}

fn segment(peer: (Ipv4Addr, u16), seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let seg = Seg {
        sport: peer.1,
        dport: 80,
        seq,
        ack,
        flags,
        window: 65_000,
        options: vec![],
        data: data.to_vec(),
        ..Seg::default()
    };
    tcp_frame(peer.0, &seg)
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn grow(s: &mut Script, listener: &Arc<dyn Socket>, peers: &mut Vec<Peer>, to: usize) {
    while peers.len() < to {
        let i = peers.len();
        let (addr, port) = (addr(i), 1024 + (i % 50_000) as u16);
        s.nic.inject(
            &segment((addr, port), 1000, 0, SYN, b""),
            RxChecksum::Verified,
        );
        s.stack.poll();
        let answer = s.nic.take_sent().pop().expect("SYN-ACK");
        let ack = read(&answer).seq.wrapping_add(1);
        s.nic.inject(
            &segment((addr, port), 1001, ack, ACK, b""),
            RxChecksum::Verified,
        );
        s.stack.poll();
        peers.push(Peer {
            addr,
            port,
            seq: 1001,
            ack,
            socket: listener.accept().unwrap(),
        });
    }
}

/// Nanoseconds this thread has had a CPU: other work on the machine does not count.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// A request and its answer on connections chosen at random; nanoseconds of each such exchange, the least
/// of several rounds.
#[inline(never)]
fn exchange(s: &mut Script, peers: &mut [Peer], rng: &mut Rng) -> f64 {
    const ROUND: usize = 2000;
    let mut best = f64::MAX;
    for _ in 0..12 {
        let start = cpu_ns();
        for _ in 0..ROUND {
            let peer = &mut peers[rng.below(64.min(peers.len() as u64)) as usize];
            let from = (peer.addr, peer.port);
            let request = segment(from, peer.seq, peer.ack, ACK | PSH, b"GET /");
            s.nic.inject(&request, RxChecksum::Verified);
            s.stack.poll();
            peer.seq += 5;
            let mut sink = VecSink::new(64);
            peer.socket.recv(&mut sink, MsgFlags::empty()).unwrap();
            let answer = peer
                .socket
                .send(&mut SliceSource::new(b"200 OK"), &SendMeta::default());
            assert_eq!(answer, Ok(6));
            peer.ack = peer.ack.wrapping_add(6);
            s.nic.take_sent();
            let ack = segment(from, peer.seq, peer.ack, ACK, b"");
            s.nic.inject(&ack, RxChecksum::Verified);
            s.stack.poll();
        }
        best = best.min((cpu_ns() - start) as f64 / ROUND as f64);
        s.advance(MS);
    }
    best
}

#[test]
fn a_packet_costs_the_same_with_a_hundred_thousand_connections() {
    let most = many_connections();
    let mut s = Script::with(|c| c.limits.time_wait = most, None);
    let listener = s.listen(80, 16);
    let mut peers = Vec::new();
    let mut rng = Rng(1);
    grow(&mut s, &listener, &mut peers, 10);
    let few = exchange(&mut s, &mut peers, &mut rng);
    let before = resident();
    let start = Instant::now();
    grow(&mut s, &listener, &mut peers, most);
    let each = (resident() - before) / (most - 10).max(1);
    let setup = start.elapsed().as_nanos() as f64 / most as f64;
    // All of them idle: timers of their handshakes go by.
    s.advance(10 * SECOND);
    s.out.clear();
    let many = exchange(&mut s, &mut peers, &mut rng);
    println!(
        "an exchange: {few:.0} ns with 10 connections, {many:.0} ns with {most}; set up in {setup:.0} ns, \
         {each} bytes of memory for each idle one, {} of them in buffers",
        s.stack.memory() / most
    );
    assert_eq!(s.stack.flow_counts(), (most, 0));
    assert!(s.stack.memory() < most * 16, "{}", s.stack.memory());
    assert!(each < 3000, "{each} bytes for an idle connection");
    // Caches hold less of a large table, and this machine may be busy: not a factor like 10,000.
    assert!(many < few * 3.0 + 2000.0, "{few} ns, {many} ns");
    // All end at once, and wait: the records are small, and go when their time is over.
    let with = resident();
    let start = Instant::now();
    for peer in peers.drain(..) {
        peer.socket.close();
        s.stack.poll();
        s.nic.take_sent();
        let from = (peer.addr, peer.port);
        let fin = segment(from, peer.seq, peer.ack.wrapping_add(1), ACK | FIN, b"");
        s.nic.inject(&fin, RxChecksum::Verified);
        s.stack.poll();
        s.nic.take_sent();
    }
    assert_eq!(s.stack.flow_counts(), (most, most));
    println!(
        "ended in {:.0} ns each; TIME-WAIT holds {} bytes each",
        start.elapsed().as_nanos() as f64 / most as f64,
        resident().saturating_sub(with) / most
    );
    s.advance(59 * SECOND);
    assert_eq!(s.stack.flow_counts(), (most, most));
    s.advance(2 * SECOND);
    assert_eq!(s.stack.flow_counts(), (0, 0));
    assert_eq!(s.stack.memory(), 0);
}

/// At the limit of TIME-WAIT records further connections end without one, and a counter says so.
#[test]
fn time_wait_has_its_limit() {
    let mut s = Script::with(|c| c.limits.time_wait = 100, None);
    let listener = s.listen(80, 16);
    let mut peers = Vec::new();
    grow(&mut s, &listener, &mut peers, 150);
    for peer in peers.drain(..) {
        peer.socket.close();
        let from = (peer.addr, peer.port);
        s.inject(&segment(
            from,
            peer.seq,
            peer.ack.wrapping_add(1),
            ACK | FIN,
            b"",
        ));
    }
    assert_eq!(s.stack.flow_counts(), (100, 100));
    let counters = s.stack.counters();
    assert_eq!(counters.sum(|c| &c.time_wait_overflow), 50);
    assert_eq!(counters.sum(|c| &c.tw), 100);
}
