//! Floods: more handshakes, connections or data than there is room for. Memory stays bounded, the counters
//! say what was dropped and why, the newest work is what suffers, and a real client is served.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use common::craft::{Ends, fix};
use common::{MS, Rng, SECOND, Weather, World, host};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::nic::RxChecksum;
use net::query::RouteInfo;
use net::{Cidr, Family, Ipv6Config, Kind, MsgFlags, SendMeta, Socket};

fn addr6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n))
}

/// Two hosts; from host 2 everybody can be reached, through a router that swallows all.
fn world(change: impl Fn(&mut net::Config)) -> World {
    let weather = Weather {
        delay_ns: MS,
        ..Weather::default()
    };
    let ipv6 = |n| Ipv6Config::Static {
        addr: Cidr::new(addr6(n).into(), 64).unwrap(),
        gateway: None,
    };
    let mut world = World::full(11, weather, [false, false], change, ipv6);
    world.run(2 * SECOND);
    let nowhere = [2, 0, 0, 0, 0, 99];
    for (router, any) in [
        (host(99).into(), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (addr6(99).into(), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ] {
        world.stacks[1].set_neighbour(2, router, nowhere).unwrap();
        let route = RouteInfo {
            dst: Cidr::new(any, 0).unwrap(),
            gateway: Some(router),
            index: 2,
            source: None,
            metric: 5,
            protocol: 4,
        };
        world.stacks[1].add_route(route).unwrap();
    }
    world
}

/// A SYN from nobody to port 80 or 81 of host 2, with the options that Linux sends.
fn syn(rng: &mut Rng, v6: bool) -> Vec<u8> {
    let mut t = (rng.next() as u16 | 1024).to_be_bytes().to_vec();
    t.extend_from_slice(&[0, 80 + u8::from(v6)]);
    t.extend_from_slice(&(rng.next() as u32).to_be_bytes());
    t.extend_from_slice(&[0, 0, 0, 0, 0xa0, 2, 0xfa, 0xf0, 0, 0, 0, 0]);
    t.extend_from_slice(&[2, 4, 5, 0xb4, 4, 2, 8, 10]);
    t.extend_from_slice(&(rng.next() as u32).to_be_bytes());
    t.extend_from_slice(&[0, 0, 0, 0, 1, 3, 3, 7]);
    // A third of them from this very link, where each makes a neighbour that never answers.
    let near = rng.chance(333_333);
    let ends = Ends {
        to_mac: [2, 0, 0, 0, 0, 2],
        from_mac: [2, 0, 0, 0, 0, 99],
        src: if near {
            host(3 + rng.below(90) as u8)
        } else {
            Ipv4Addr::from(0x0b00_0000 | rng.next() as u32 & 0xff_ffff)
        },
        dst: host(2),
        src6: if near {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, rng.next() as u16)
        } else {
            Ipv6Addr::from_bits(0x2001 << 112 | u128::from(rng.next()))
        },
        dst6: addr6(2),
    };
    let mut f = if v6 {
        ends.v6(6, 64, &t)
    } else {
        ends.v4(6, 64, &t)
    };
    fix(&mut f);
    f
}

fn listen(world: &World, v6: bool, backlog: u32) -> Arc<dyn Socket> {
    let family = if v6 { Family::Inet6 } else { Family::Inet };
    let any: IpAddr = if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let listener = world.stacks[1].socket(family, Kind::Stream, 0).unwrap();
    let at = SocketAddr::new(any, 80 + u16::from(v6));
    listener.bind(at).unwrap();
    listener.listen(backlog).unwrap();
    listener
}

fn connect(world: &World, v6: bool) -> Arc<dyn Socket> {
    let family = if v6 { Family::Inet6 } else { Family::Inet };
    let to: IpAddr = if v6 { addr6(2).into() } else { host(2).into() };
    let client = world.stacks[0].socket(family, Kind::Stream, 0).unwrap();
    let to = SocketAddr::new(to, 80 + u16::from(v6));
    assert_eq!(client.connect(Some(to)), Err(Errno::EINPROGRESS));
    client
}

#[test]
fn a_flood_of_syns_leaves_a_client_served() {
    const FLOOD: u64 = 100_000;
    for v6 in [false, true] {
        let mut w = world(|c| c.limits.syn_backlog = 256);
        let listener = listen(&w, v6, 256);
        let mut rng = Rng(4);
        let frames: Vec<_> = (0..FLOOD).map(|_| syn(&mut rng, v6)).collect();
        let start = Instant::now();
        let (mut served, mut client, mut waiting): (u32, Option<Arc<dyn Socket>>, u64) =
            (0, None, 0);
        let mut servers: Vec<Arc<dyn Socket>> = Vec::new();
        // A hundred each millisecond: as fast as this link of the test goes.
        for batch in frames.chunks(100) {
            for frame in batch {
                w.nics[1].inject(frame, RxChecksum::Unknown);
            }
            let one = client.get_or_insert_with(|| {
                waiting = w.now();
                connect(&w, v6)
            });
            if let Ok(server) = listener.accept() {
                server
                    .send(&mut SliceSource::new(b"served"), &SendMeta::default())
                    .unwrap();
                servers.push(server);
            }
            let mut sink = VecSink::new(10);
            if one.recv(&mut sink, MsgFlags::empty()).is_ok() {
                assert_eq!(sink.into_bytes(), b"served");
                assert!(
                    w.now() - waiting < 20 * MS,
                    "{} ms",
                    (w.now() - waiting) / MS
                );
                one.close();
                servers.drain(..).for_each(|server| server.close());
                (served, client) = (served + 1, None);
            }
            w.run(MS);
            let stack = &w.stacks[1];
            assert!(
                stack.flow_counts().0 < 256 + 300,
                "{:?}",
                stack.flow_counts()
            );
            assert!(stack.neighbours().len() <= stack.config().limits.neighbours);
            assert!(stack.memory() < 256 << 10, "{}", stack.memory());
        }
        let counters = w.stacks[1].counters();
        let sum = |f: fn(&net::stats::CounterSet) -> &net::stats::Counter| counters.sum(f);
        println!(
            "IPv{}: {:.0} frames/s, {served} clients served, {} by cookies",
            if v6 { 6 } else { 4 },
            FLOOD as f64 / start.elapsed().as_secs_f64(),
            sum(|c| &c.syncookies_recv),
        );
        assert!(served > 100, "{served}");
        let opened = sum(|c| &c.tcp_passive_opens);
        assert!(
            (u64::from(served)..=u64::from(served) + 1).contains(&opened),
            "{opened}"
        );
        assert!(sum(|c| &c.syncookies_sent) > FLOOD * 9 / 10);
        assert_eq!(
            sum(|c| &c.syncookies_sent),
            sum(|c| &c.req_q_full_docookies)
        );
        assert!(sum(|c| &c.syncookies_recv) > u64::from(served) / 2);
        assert_eq!(
            (sum(|c| &c.syncookies_failed), sum(|c| &c.listen_overflows)),
            (0, 0)
        );
        // The flood is over: nothing of it stays.
        if let Some(client) = client {
            client.close();
        }
        w.run(300 * SECOND);
        while let Ok(server) = listener.accept() {
            server.close();
        }
        servers.drain(..).for_each(|server| server.close());
        w.run(200 * SECOND);
        assert_eq!(w.stacks[1].flow_counts(), (0, 0));
        assert_eq!(w.stacks[1].memory(), 0);
    }
}

/// The accept queue's owner sleeps: what does not fit is dropped and counted, and comes in later.
#[test]
fn a_sleeping_server_loses_nobody() {
    let mut w = world(|_| {});
    let listener = listen(&w, false, 4);
    let clients: Vec<_> = (0..40).map(|_| connect(&w, false)).collect();
    w.run(SECOND / 2);
    // They have something to say, as clients have: by it the server learns again of those whose last
    // acknowledgement of the handshake it dropped. (One that waits in silence waits for ever, as on Linux.)
    for client in &clients {
        let _ = client.send(&mut SliceSource::new(b"hello"), &SendMeta::default());
    }
    assert!(w.stacks[1].counters().sum(|c| &c.listen_overflows) > 0);
    assert!(w.stacks[1].counters().sum(|c| &c.listen_drops) > 0);
    let mut accepted = Vec::new();
    for _ in 0..1000 {
        while let Ok(server) = listener.accept() {
            accepted.push(server);
        }
        w.run(100 * MS);
    }
    assert_eq!(accepted.len(), clients.len());
    for client in clients {
        assert_eq!(client.connect_result(), Some(Ok(())));
        client.close();
    }
}

/// More data than memory: who came first keeps what he has, the newest is made to wait, and a counter says so.
#[test]
fn memory_pressure_drops_the_newest_work_first() {
    let mut w = world(|c| c.limits.memory = 2 << 20);
    let listener = listen(&w, false, 300);
    let mut pairs = Vec::new();
    for _ in 0..200 {
        let client = connect(&w, false);
        w.run(10 * MS);
        let server = listener.accept().unwrap();
        pairs.push((client, server, 0usize));
    }
    let data = vec![7; 64 << 10];
    // Nobody reads: all fill their buffers, until the server's memory is gone.
    for _ in 0..20 {
        for (client, _, sent) in &mut pairs {
            if *sent < 128 << 10 {
                *sent += client
                    .send(&mut SliceSource::new(&data), &SendMeta::default())
                    .unwrap_or(0);
            }
        }
        w.run(50 * MS);
        assert!(
            w.stacks[1].memory() <= (2 << 20) + (512 << 10),
            "{}",
            w.stacks[1].memory()
        );
    }
    let counters = w.stacks[1].counters();
    assert!(
        counters.sum(|c| &c.memory_pressures) > 0,
        "TCPMemoryPressures"
    );
    assert!(counters.sum(|c| &c.rcv_q_drop) + counters.sum(|c| &c.ofo_pruned) > 0);
    // New connections still come in, and an idle one is served at once when it asks for little.
    let client = connect(&w, false);
    w.run(SECOND);
    let server = listener.accept().unwrap();
    client
        .send(&mut SliceSource::new(b"small"), &SendMeta::default())
        .unwrap();
    w.run(SECOND);
    let mut sink = VecSink::new(10);
    server.recv(&mut sink, MsgFlags::empty()).unwrap();
    assert_eq!(sink.into_bytes(), b"small");
    pairs.push((client, server, 5));
    // They read: everything that was sent arrives in the end.
    let mut got = vec![0; pairs.len()];
    let limit = w.now() + 600 * SECOND;
    while pairs
        .iter()
        .zip(&got)
        .any(|((_, _, sent), got)| got + 5 < *sent)
    {
        for ((_, server, _), got) in pairs.iter().zip(&mut got) {
            let mut sink = VecSink::new(1 << 20);
            if let Ok(meta) = server.recv(&mut sink, MsgFlags::empty()) {
                *got += meta.len;
            }
        }
        assert!(w.step(limit), "stuck");
    }
    for (client, server, _) in pairs {
        client.close();
        server.close();
    }
    w.run(300 * SECOND);
    assert_eq!(w.stacks[1].memory(), 0);
    assert_eq!(w.stacks[1].flow_counts(), (0, 0));
}

/// Clients that ask for much and read nothing use all memory: another one is served all the same, and a
/// socket that cannot be written does not say that it can.
#[test]
fn who_does_not_read_starves_nobody() {
    let mut w = world(|c| c.limits.memory = 1 << 20);
    let listener = listen(&w, false, 300);
    let data = vec![7; 64 << 10];
    let mut pairs = Vec::new();
    let fill = |server: &Arc<dyn Socket>, mut left: usize| {
        while left > 0 {
            let says = server.poll().contains(net::Events::OUT);
            let piece = &data[..left.min(data.len())];
            match server.send(&mut SliceSource::new(piece), &SendMeta::default()) {
                Ok(n) => left -= n,
                Err(error) => {
                    assert_eq!(error, Errno::EAGAIN);
                    assert!(!says, "poll and send do not agree");
                    break;
                }
            }
        }
        left
    };
    for _ in 0..60 {
        let client = connect(&w, false);
        client.set_option(net::Opt::RcvBuf(2048)).unwrap();
        w.run(5 * MS);
        let server = listener.accept().unwrap();
        fill(&server, 1 << 20);
        pairs.push((client, server));
    }
    for _ in 0..20 {
        for (_, server) in &pairs {
            fill(server, 1 << 20);
        }
        w.run(50 * MS);
    }
    let stack = &w.stacks[1];
    let most = (1 << 20) + 61 * (20 << 10);
    assert!(
        (1 << 20..most).contains(&stack.memory()),
        "{}",
        stack.memory()
    );
    let client = connect(&w, false);
    w.run(5 * MS);
    let server = listener.accept().unwrap();
    let (mut left, mut got) = (100_000, 0);
    let limit = w.now() + 60 * SECOND;
    while got < 100_000 {
        left = fill(&server, left);
        let mut sink = VecSink::new(1 << 20);
        if let Ok(meta) = client.recv(&mut sink, MsgFlags::empty()) {
            got += meta.len;
        }
        assert!(w.step(limit), "stuck at {got}, {left} to send");
    }
    pairs.push((client, server));
    for (client, server) in pairs {
        client.close();
        server.close();
    }
    w.run(300 * SECOND);
    assert_eq!(w.stacks[1].memory(), 0);
}
