//! The engine against itself over bad networks, under a virtual clock: every seed must deliver byte for
//! byte, end, and leave nothing behind.

#[path = "../common/mod.rs"]
mod common;
mod flow;
mod talk;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use common::{MS, Rng, SECOND, Weather, World};
use errno::Errno;
use flow::{APART, FAST, Flow};
use net::{Cidr, Config, Family, Ipv6Config, Kind, Opt, OptName, Socket};
use talk::{Talk, address};

/// Both directions at once; returns the virtual time it took.
fn transfer(world: &mut World, there: u64, back: u64, limit_s: u64) -> u64 {
    let (client, server) = world.connect(7);
    let mut rng = Rng(world.rng.next());
    let mut a = Flow::new(1, there);
    let mut b = Flow::new(2, back);
    let start = world.now();
    let limit = start + limit_s * SECOND;
    loop {
        a.send(&client, &mut rng);
        b.send(&server, &mut rng);
        b.receive(&client, &mut rng);
        a.receive(&server, &mut rng);
        if a.ended && b.ended {
            break;
        }
        if !world.step(limit) {
            let info = |s: &Arc<dyn Socket>| s.option(OptName::Info);
            panic!(
                "stuck: {}/{} and {}/{} received\n{:#?}\n{:#?}",
                a.received,
                there,
                b.received,
                back,
                info(&client),
                info(&server)
            );
        }
    }
    let took = world.now() - start;
    client.close();
    server.close();
    drop((client, server));
    // Through TIME-WAIT, retransmitted FINs and all.
    world.run(200 * SECOND);
    for stack in &world.stacks {
        assert_eq!(stack.memory(), 0, "leaked buffers");
        assert_eq!(stack.flow_counts(), (0, 0), "leaked flows");
    }
    took
}

#[test]
fn a_clean_network_is_fast() {
    for offload in [[false, false], [true, true]] {
        let weather = Weather {
            delay_ns: MS,
            ..Weather::default()
        };
        let mut world = World::new(1, weather, offload);
        let took = transfer(&mut world, 10_000_000, 1_000_000, 60);
        assert!(took < SECOND, "took {} ms", took / MS);
        assert_eq!(world.nics[0].offloads.load(Relaxed) > 0, offload[0]);
    }
}

#[test]
fn a_long_fat_pipe_is_filled() {
    // 100 Mbit/s and 50 ms: half a megabyte on the way.
    let weather = Weather {
        delay_ns: 25 * MS,
        ns_per_byte: 80,
        queue: 1_000_000,
        ..Weather::default()
    };
    let mut world = World::new(2, weather, [true, true]);
    let took = transfer(&mut world, 40_000_000, 0, 60);
    assert!(took < 5 * SECOND, "took {} ms of an ideal 3200", took / MS);
}

#[test]
fn loss_costs_little() {
    // 1 % and 5 % at 20 ms: not the rate of a network without loss, but far from a stall for each packet.
    for (loss, limit) in [(10_000, 20), (50_000, 60)] {
        let weather = Weather {
            loss,
            delay_ns: 10 * MS,
            ..Weather::default()
        };
        let mut world = World::new(3, weather, [false, false]);
        let took = transfer(&mut world, 4_000_000, 100_000, 300);
        assert!(took < limit * SECOND, "loss {loss}: took {} ms", took / MS);
    }
}

#[test]
fn marks_do_what_losses_do_without_the_losses() {
    // A router that marks every hundredth packet, and no loss at all.
    let weather = Weather {
        mark: 10_000,
        delay_ns: 10 * MS,
        ..Weather::default()
    };
    let mut world = World::with(4, weather, [true, true], |config| {
        config.limits.tcp_ecn = 1;
    });
    let took = transfer(&mut world, 4_000_000, 100_000, 300);
    assert!(world.marked > 5, "{} marks", world.marked);
    assert!(took > SECOND, "not slowed down: {} ms", took / MS);
    assert!(took < 20 * SECOND, "took {} ms", took / MS);
    for stack in &world.stacks {
        let counters = stack.counters();
        assert_eq!(counters.sum(|c| &c.tcp_retrans_segs), 0);
    }
    assert!(world.stacks[0].counters().sum(|c| &c.delivered_ce) > 5);
}

/// A different network for every seed.
fn bad_weather(rng: &mut Rng) -> Weather {
    let mut pick = |list: &[u64]| list[rng.below(list.len() as u64) as usize];
    Weather {
        loss: pick(&[0, 1000, 10_000, 50_000, 150_000]),
        duplicate: pick(&[0, 0, 10_000, 100_000]),
        reorder: pick(&[0, 10_000, 100_000, 500_000]),
        corrupt: pick(&[0, 0, 1000, 20_000]),
        mark: pick(&[0, 10_000, 200_000]),
        delay_ns: pick(&[50_000, MS, 10 * MS, 100 * MS]),
        jitter_ns: pick(&[1, MS, 20 * MS, 80 * MS]),
        ns_per_byte: pick(&[0, 0, 80, 8000]),
        queue: pick(&[15_000, 60_000, 1_000_000]),
    }
}

/// Connections that bring the client the server's cookies, if the network lets them.
fn visit(world: &mut World) {
    for v6 in [false, true] {
        let family = if v6 { Family::Inet6 } else { Family::Inet };
        let socket = |i: usize| world.stacks[i].socket(family, Kind::Stream, 0).unwrap();
        let (listener, client) = (socket(1), socket(0));
        let there = SocketAddr::new(address(v6, 2), 99);
        listener.bind(there).unwrap();
        listener.listen(8).unwrap();
        listener.set_option(Opt::FastOpen(4)).unwrap();
        client.set_option(Opt::FastOpenConnect(true)).unwrap();
        assert_eq!(client.connect(Some(there)), Err(Errno::EINPROGRESS));
        world.run(SECOND);
        client.close();
        listener.close();
    }
}

/// A seed's network: how bad it is, what its machines can do, who talks about how much, and what goes wrong
/// on the way. Everything arrives, everybody ends, nothing stays.
fn run_seed(seed: u64) {
    let mut rng = Rng(seed ^ 0x5eed);
    let weather = bad_weather(&mut rng);
    let offload = [rng.chance(500_000), rng.chance(500_000)];
    let small = rng.chance(200_000);
    let ecn = [0, 1, 1, 2][rng.below(4) as usize];
    let poor = rng.chance(100_000);
    let ipv6 = |n| Ipv6Config::Static {
        addr: Cidr::new(address(true, n), 64).unwrap(),
        gateway: None,
    };
    let change = |config: &mut Config| {
        config.limits.tcp_ecn = ecn;
        if small {
            config.limits.tcp_rmem = 16_384;
            config.limits.tcp_rmem_max = 16_384;
        }
        if poor {
            config.limits.memory = 96 << 10;
        }
    };
    let mut world = World::full(seed, weather, offload, change, ipv6);
    world.run(2 * SECOND);
    let count = if rng.chance(700_000) {
        1
    } else {
        2 + rng.below(12)
    };
    if rng.chance(300_000) {
        visit(&mut world);
    }
    let mut talks: Vec<(Talk, bool)> = (0..count)
        .map(|i| {
            let bytes = [rng.below(120_000 / count), rng.below(40_000 / count)];
            (Talk::new(&world, &mut rng, 1000 + i as u16, bytes), false)
        })
        .collect();
    // Somewhere on the way a link becomes narrower, and the router there tells, or does not.
    let mut narrow = rng.chance(200_000).then(|| {
        let mtu = [1280, 1400, 1492][rng.below(3) as usize];
        (
            world.now() + rng.below(2 * SECOND),
            (mtu, rng.chance(700_000)),
        )
    });
    // And perhaps wide again.
    let mut wide = rng
        .chance(100_000)
        .then(|| world.now() + rng.below(700 * SECOND));
    let limit = world.now() + 20_000 * SECOND;
    while !talks.is_empty() {
        for (talk, connected) in &mut talks {
            talk.act(&world, &mut rng, connected);
        }
        talks.retain(|(talk, _)| !talk.over);
        if let Some((_, mtu)) = narrow.take_if(|(at, _)| *at <= world.now()) {
            world.path_mtu = Some(mtu);
        }
        if wide.take_if(|at| *at <= world.now()).is_some() {
            world.path_mtu = None;
        }
        // A program changes its mind about the size of its segments.
        if rng.chance(2000)
            && let Some((talk, true)) = talks.first()
        {
            let to = Opt::MaxSeg(88 + rng.below(1400) as u32);
            talk.client.set_option(to).unwrap();
        }
        let mut until = narrow
            .map_or(limit, |(at, _)| at)
            .min(wide.unwrap_or(limit));
        for (talk, _) in &talks {
            for at in [talk.wake, talk.patience + 1] {
                if at > world.now() {
                    until = until.min(at);
                }
            }
        }
        if !world.step(until.min(limit)) && world.now() >= limit {
            for (talk, connected) in &talks {
                let info = |s: &Arc<dyn Socket>| s.option(OptName::Info);
                eprintln!(
                    "{:?} {connected} v6 {} both {} abrupt {} nap {}\n{:#?}\n{:#?}",
                    talk.flows.each_ref().map(|f| (f.sent, f.received, f.total)),
                    talk.v6,
                    talk.both_open,
                    talk.abrupt,
                    talk.nap_ns,
                    info(&talk.client),
                    talk.server.as_ref().map(info),
                );
            }
            panic!("stuck");
        }
    }
    // Through TIME-WAIT, retransmitted FINs and all: where a dead peer's resets are lost one after the
    // other, until the retransmissions give up.
    for _ in 0..10 {
        world.run(300 * SECOND);
        if world.stacks.iter().all(|s| s.flow_counts() == (0, 0)) {
            break;
        }
    }
    for stack in &world.stacks {
        assert_eq!(stack.memory(), 0, "leaked buffers");
        assert_eq!(stack.flow_counts(), (0, 0), "{:#?}", stack.tcp_sockets());
        assert_eq!(stack.counters().sum(|c| &c.tcp_curr_estab), 0, "CurrEstab");
    }
    let fast = |stack: &Arc<net::Stack>| stack.counters().sum(|c| &c.fastopen_active);
    FAST.fetch_add(world.stacks.iter().map(fast).sum(), Relaxed);
    let gone: Vec<_> = world.stacks.iter().map(Arc::downgrade).collect();
    drop(world);
    assert!(gone.iter().all(|stack| stack.upgrade().is_none()), "kept");
}

/// One segment that is small enough as such, but with its headers is just too large for a router that does not say so.
#[test]
fn a_black_hole_just_above_the_least_mtu_is_found() {
    for (v6, n) in (1100..1450)
        .step_by(25)
        .flat_map(|n| [(false, n), (true, n)])
    {
        let weather = Weather {
            delay_ns: MS,
            ..Weather::default()
        };
        let ipv6 = |n| Ipv6Config::Static {
            addr: Cidr::new(address(true, n), 64).unwrap(),
            gateway: None,
        };
        let mut world = World::full(n, weather, [false, false], |_| {}, ipv6);
        world.run(2 * SECOND);
        world.path_mtu = Some((1280, false));
        let mut rng = Rng(n);
        let mut talk = Talk::new(&world, &mut rng, 1000, [n, 10]);
        (talk.v6, talk.both_open, talk.abrupt, talk.nap_ns) = (v6, false, false, 0);
        let family = if v6 { Family::Inet6 } else { Family::Inet };
        let listener = world.stacks[1].socket(family, Kind::Stream, 0).unwrap();
        listener.bind(SocketAddr::new(address(v6, 2), 999)).unwrap();
        listener.listen(8).unwrap();
        (talk.port, talk.listener) = (999, Some(listener));
        let limit = world.now() + 60 * SECOND;
        let mut connected = false;
        while !talk.over {
            talk.act(&world, &mut rng, &mut connected);
            assert!(world.step(limit) || talk.over, "{n} bytes, v6 {v6}");
        }
    }
}

/// 10,000 seeds in four parts that run side by side; `NET_SEEDS` is the size of a part.
fn seeds(part: u64) {
    let number = |name: &str, usual| {
        std::env::var(name)
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(usual)
    };
    let count: u64 = number("NET_SEEDS", 2500);
    let first: u64 = number("NET_SEED", 0) + part * count;
    for seed in first..first + count {
        if let Err(panic) = std::panic::catch_unwind(|| run_seed(seed)) {
            eprintln!("seed {seed}: NET_SEED={seed} NET_SEEDS=1 every_seed_delivers_1");
            std::panic::resume_unwind(panic);
        }
    }
    if count > 500 {
        assert!(FAST.load(Relaxed) > 10, "no data went with a SYN");
        assert!(APART.load(Relaxed) > 10, "no urgent byte was read apart");
    }
}

#[test]
fn every_seed_delivers_1() {
    seeds(0);
}

#[test]
fn every_seed_delivers_2() {
    seeds(1);
}

#[test]
fn every_seed_delivers_3() {
    seeds(2);
}

#[test]
fn every_seed_delivers_4() {
    seeds(3);
}

#[test]
fn options_can_be_set_on_the_way() {
    let mut world = World::new(
        9,
        Weather {
            delay_ns: MS,
            ..Weather::default()
        },
        [false, false],
    );
    let (client, server) = world.connect(9);
    client.set_option(Opt::NoDelay(true)).unwrap();
    client.set_option(Opt::KeepAlive(true)).unwrap();
    assert_eq!(client.option(OptName::NoDelay), Ok(Opt::NoDelay(true)));
    assert_eq!(
        server.option(OptName::AcceptConn),
        Ok(Opt::AcceptConn(false))
    );
    client.close();
    server.close();
}
