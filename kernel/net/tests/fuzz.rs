//! Fuzzing of the parsers and of the state machines: two engines talk over a link on which frames are
//! spoiled in ways that keep their structure, while strangers send right and wrong messages of every protocol.
//! Seeded, so that a failure repeats: `NET_SEED=n NET_SEEDS=1 cargo test -p net --test fuzz`.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::craft::{Ends, noise, spoil};
use common::{MS, Rng, SECOND, SimNic, Weather, World, host};
use iobuf::{SliceSource, VecSink};
use net::nic::RxChecksum;
use net::{
    Cidr, Config, Congestion, Control, Family, IfConfig, Ipv4Config, Ipv6Config, Kind, Limits,
    Membership, MsgFlags, MtuDiscover, Opt, SendMeta, Shutdown, Socket, Stack,
};

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(usual)
}

fn tight(limits: &mut Limits) {
    limits.memory = 2 << 20;
    limits.fragments = 128 << 10;
    limits.syn_backlog = 32;
    limits.neighbours = 64;
    limits.connections = 400;
    limits.time_wait = 64;
}

fn addr6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n))
}

/// A stranger's frames towards host `to`: mostly as if from the other host.
fn stranger(rng: &mut Rng, to: u8) -> Ends {
    let from = match rng.below(4) {
        0 => rng.next() as u8,
        _ => 3 - to,
    };
    Ends {
        to_mac: [2, 0, 0, 0, 0, to],
        from_mac: [2, 0, 0, 0, 0, from],
        src: host(from),
        dst: host(to),
        src6: if rng.chance(500_000) {
            "fe80::9".parse().unwrap()
        } else {
            addr6(from)
        },
        dst6: addr6(to),
    }
}

fn socket(stack: &Arc<Stack>, rng: &mut Rng, kind: Kind) -> (Arc<dyn Socket>, bool) {
    let v6 = rng.chance(500_000);
    let family = if v6 { Family::Inet6 } else { Family::Inet };
    let socket = stack.socket(family, kind, 0).unwrap();
    (socket, v6)
}

fn any_of(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

fn option(rng: &mut Rng) -> Opt {
    let on = rng.chance(500_000);
    let small = rng.below(100) as u32;
    match rng.below(25) {
        0 => Opt::NoDelay(on),
        1 => Opt::Cork(on),
        2 => Opt::KeepAlive(on),
        3 => Opt::KeepIdle(1 + small / 10),
        4 => Opt::OobInline(on),
        5 => Opt::RcvBuf(rng.below(100_000) as u32),
        6 => Opt::SndBuf(rng.below(100_000) as u32),
        7 => Opt::UserTimeout(rng.below(10_000) as u32),
        8 => Opt::Congestion(if on {
            Congestion::Reno
        } else {
            Congestion::Cubic
        }),
        9 => Opt::WindowClamp(rng.below(70_000) as u32),
        10 => Opt::QuickAck(on),
        11 => Opt::Linger(on.then_some(std::time::Duration::ZERO)),
        12 => Opt::Linger2(small as i32 - 50),
        13 => Opt::MaxSeg(small * 20),
        14 => Opt::RecvErr(on),
        15 => Opt::PktInfo(on),
        16 => Opt::Timestamp(on),
        17 => Opt::MtuDiscover(MtuDiscover::from_raw(small % 6).unwrap()),
        18 => Opt::RcvLowat(small * 100),
        19 => Opt::UdpGro(on),
        20 => Opt::Join(Membership {
            group: Ipv4Addr::new(239, 1, 2, small as u8).into(),
            interface: Ipv4Addr::UNSPECIFIED,
            index: 2,
        }),
        21 => Opt::MinTtl(small as u8),
        22 => Opt::FastOpen(small),
        23 => Opt::FastOpenConnect(on),
        _ => Opt::NotSentLowat(small * 1000),
    }
}

/// A program without sense: calls of every kind on its sockets.
fn program(rng: &mut Rng, world: &World, sockets: &mut Vec<Arc<dyn Socket>>) {
    let who = rng.below(2) as usize;
    match rng.below(12) {
        0 | 1 if sockets.len() < 60 => {
            let (client, v6) = socket(&world.stacks[who], rng, Kind::Stream);
            let peer = 2 - who as u8;
            let to = if v6 {
                SocketAddr::new(addr6(peer).into(), 81)
            } else {
                SocketAddr::new(host(peer).into(), 80)
            };
            if rng.chance(200_000) {
                let _ = client.set_option(Opt::FastOpenConnect(true));
            }
            if rng.chance(100_000) {
                let bytes = noise(rng, 3000);
                let meta = SendMeta {
                    to: Some(to),
                    flags: MsgFlags::FASTOPEN,
                    ..SendMeta::default()
                };
                let _ = client.send(&mut SliceSource::new(&bytes), &meta);
            } else {
                let _ = client.connect(Some(to));
            }
            sockets.push(client);
        }
        2 if sockets.len() < 60 => {
            let (client, v6) = socket(&world.stacks[who], rng, Kind::Dgram);
            let peer = 2 - who as u8;
            let to = if v6 {
                addr6(peer).into()
            } else {
                IpAddr::V4(host(peer))
            };
            let port = [53, 9][rng.below(2) as usize];
            let bytes = noise(rng, 5000);
            let meta = SendMeta {
                to: Some(SocketAddr::new(to, port)),
                ..SendMeta::default()
            };
            let _ = client.send(&mut SliceSource::new(&bytes), &meta);
            sockets.push(client);
        }
        3 if sockets.len() < 60 => {
            // As far as there are such sockets.
            let family = [Family::Inet, Family::Inet6][rng.below(2) as usize];
            let protocol = [1u8, 58, 6, 17, 255][rng.below(5) as usize];
            let kind = [Kind::Raw, Kind::Dgram][rng.below(2) as usize];
            if let Ok(raw) = world.stacks[who].socket(family, kind, protocol) {
                let to = if family == Family::Inet6 {
                    addr6(2 - who as u8).into()
                } else {
                    IpAddr::V4(host(2 - who as u8))
                };
                let bytes = noise(rng, 200);
                let meta = SendMeta {
                    to: Some(SocketAddr::new(to, 0)),
                    ..SendMeta::default()
                };
                let _ = raw.send(&mut SliceSource::new(&bytes), &meta);
                sockets.push(raw);
            }
        }
        4..=11 if !sockets.is_empty() => {
            let at = rng.below(sockets.len() as u64) as usize;
            let one = sockets[at].clone();
            match rng.below(9) {
                0..=2 => {
                    let bytes = noise(rng, 20_000);
                    let flags = [0, 0, 0x8000, 1, 0x400_0000][rng.below(5) as usize];
                    let control = [Control::UdpSegment(100), Control::Tos(2)];
                    let meta = SendMeta {
                        to: None,
                        flags: MsgFlags::from_bits_truncate(flags),
                        control: &control[..rng.below(3) as usize],
                    };
                    let _ = one.send(&mut SliceSource::new(&bytes), &meta);
                }
                3 | 4 => {
                    let flags = [0, 0, 0, 1, 2, 0x20, 0x2000][rng.below(7) as usize];
                    let mut sink = VecSink::new(rng.below(50_000) as usize);
                    let _ = one.recv(&mut sink, MsgFlags::from_bits_truncate(flags));
                    let off = rng.below(3000) as usize;
                    let _ = (
                        one.can_peek(off),
                        one.peek_from(off, &mut sink, MsgFlags::empty()),
                    );
                }
                5 => {
                    let _ = one.set_option(option(rng));
                }
                6 => {
                    let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both];
                    let _ = one.shutdown(how[rng.below(3) as usize]);
                }
                7 => {
                    let _ = (one.poll(), one.take_error(), one.connect_result());
                    let _ = (one.input_queued(), one.output_queued(), one.at_mark());
                    let _ = one.option(option(rng).name());
                }
                _ => {
                    one.close();
                    sockets.swap_remove(at);
                }
            }
        }
        _ => {}
    }
}

/// What the engine may hold in the middle of an attack.
fn bounded(stack: &Stack) {
    let limits = &stack.config().limits;
    assert!(
        stack.memory() < limits.memory + (1 << 20),
        "{}",
        stack.memory()
    );
    assert!(stack.neighbours().len() <= limits.neighbours);
    let (flows, waits) = stack.flow_counts();
    assert!(flows <= limits.connections && waits <= limits.time_wait);
    assert!(stack.fragment_memory() <= limits.fragments);
    assert!(
        stack.routes().len() < 300,
        "{} routes",
        stack.routes().len()
    );
    assert!(stack.addresses().len() < 40);
}

/// What the counters came to, over all seeds: an attack that reaches nothing proves nothing.
type Seen = BTreeMap<&'static str, u64>;

fn count(seen: &mut Seen, stack: &Stack) {
    stack
        .counters()
        .for_each(|_, name, value| *seen.entry(name).or_default() += value);
}

fn attack(seed: u64, steps: u64, seen: &mut Seen) -> u64 {
    let mut rng = Rng(seed ^ 0xf022);
    let weather = Weather {
        loss: [0, 10_000][rng.below(2) as usize],
        delay_ns: [1, MS, 20 * MS][rng.below(3) as usize],
        jitter_ns: MS,
        reorder: [0, 100_000][rng.below(2) as usize],
        duplicate: [0, 50_000][rng.below(2) as usize],
        ..Weather::default()
    };
    let offload = [rng.chance(500_000), rng.chance(500_000)];
    let ipv6 = |n| Ipv6Config::Static {
        addr: Cidr::new(addr6(n).into(), 64).unwrap(),
        gateway: None,
    };
    let change = |c: &mut Config| tight(&mut c.limits);
    let mut world = World::full(seed, weather, offload, change, ipv6);
    world.run(2 * SECOND);
    let mut listeners = Vec::new();
    let mut sockets: Vec<Arc<dyn Socket>> = Vec::new();
    for stack in world.stacks.clone() {
        for (family, v6, port) in [(Family::Inet, false, 80), (Family::Inet6, true, 81)] {
            let listener = stack.socket(family, Kind::Stream, 0).unwrap();
            listener.bind(SocketAddr::new(any_of(v6), port)).unwrap();
            let backlog = [0, 1, 2, 20][rng.below(4) as usize];
            listener.set_option(Opt::FastOpen(4)).unwrap();
            listener.listen(backlog).unwrap();
            if rng.chance(200_000) {
                listener.set_option(Opt::DeferAccept(2)).unwrap();
            }
            listeners.push(listener);
            let udp = stack.socket(family, Kind::Dgram, 0).unwrap();
            udp.set_option(Opt::ReuseAddr(true)).unwrap();
            if udp.bind(SocketAddr::new(any_of(v6), 53)).is_ok() {
                sockets.push(udp);
            }
        }
    }
    let rate = [0, 20_000, 100_000, 400_000][rng.below(4) as usize];
    let mut dice = Rng(rng.next());
    let mut past: VecDeque<Vec<u8>> = VecDeque::new();
    world.tamper = Some(Box::new(move |_, frame| {
        past.push_back(frame.clone());
        if past.len() > 100 {
            past.pop_front();
        }
        let mut out = Vec::new();
        if dice.chance(rate / 4) {
            out.push(past[dice.below(past.len() as u64) as usize].clone());
        }
        if dice.chance(rate) {
            let other = past[dice.below(past.len() as u64) as usize].clone();
            out.extend(spoil(&mut dice, frame.clone(), &other));
            // Often the right one arrives too, and the conversation goes on.
            if dice.chance(500_000) {
                out.push(frame);
            }
        } else {
            out.push(frame);
        }
        out
    }));
    for step in 0..steps {
        program(&mut rng, &world, &mut sockets);
        let who = rng.below(2) as usize;
        let ends = stranger(&mut rng, who as u8 + 1);
        let mut frames = vec![ends.any(&mut rng)];
        if rng.chance(700_000) {
            let other = ends.any(&mut rng);
            frames = spoil(&mut rng, frames.remove(0), &other);
        }
        for frame in frames {
            let checksum = if rng.chance(200_000) {
                RxChecksum::Verified
            } else {
                RxChecksum::Unknown
            };
            world.nics[who].inject(&frame, checksum);
            world.carried += 1;
        }
        let limit = world.now() + 1 + rng.below(20) * rng.below(20) * MS;
        for _ in 0..20 {
            if !world.step(limit) {
                break;
            }
        }
        for listener in &listeners {
            while sockets.len() < 80
                && let Ok(one) = listener.accept()
            {
                sockets.push(one);
            }
        }
        if step % 32 == 0 {
            world.stacks.iter().for_each(|stack| bounded(stack));
        }
    }
    // Peace. Everything goes, in bounded time, and then a program is served as on the first day.
    world.tamper = None;
    world.weather = Weather {
        delay_ns: MS,
        ..Weather::default()
    };
    for socket in sockets.drain(..) {
        socket.close();
    }
    for listener in listeners.drain(..) {
        while let Ok(socket) = listener.accept() {
            socket.close();
        }
        listener.close();
    }
    world.run(1200 * SECOND);
    nothing_left(&world.stacks);
    let (client, server) = world.connect(80);
    client
        .send(&mut SliceSource::new(b"hello"), &SendMeta::default())
        .unwrap();
    world.run(SECOND);
    let mut sink = VecSink::new(10);
    server.recv(&mut sink, MsgFlags::empty()).unwrap();
    assert_eq!(sink.into_bytes(), b"hello");
    client.close();
    server.close();
    drop((client, server));
    world.run(200 * SECOND);
    nothing_left(&world.stacks);
    let carried = world.carried;
    world.stacks.iter().for_each(|stack| count(seen, stack));
    let gone: Vec<_> = world.stacks.iter().map(Arc::downgrade).collect();
    drop(world);
    // A socket that is still referred to anywhere would keep its engine.
    assert!(gone.iter().all(|stack| stack.upgrade().is_none()), "kept");
    carried
}

fn nothing_left(stacks: &[Arc<Stack>]) {
    for stack in stacks {
        assert_eq!(stack.memory(), 0, "socket buffers");
        assert_eq!(stack.flow_counts(), (0, 0), "{:#?}", stack.tcp_sockets());
        assert_eq!(stack.fragment_memory(), 0);
        assert!(stack.udp_sockets().is_empty());
        assert_eq!(stack.counters().sum(|c| &c.tcp_curr_estab), 0, "CurrEstab");
    }
}

fn seeds(what: fn(u64, u64, &mut Seen) -> u64, part: u64, steps: u64, reached: &[&str]) {
    let count = number("NET_SEEDS", 12);
    let first = number("NET_SEED", 0) + part * count;
    let steps = number("NET_STEPS", steps);
    let (mut carried, mut seen) = (0, Seen::new());
    for seed in first..first + count {
        let once = std::panic::AssertUnwindSafe(|| what(seed, steps, &mut seen));
        match std::panic::catch_unwind(once) {
            Ok(frames) => carried += frames,
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{carried} frames");
    if std::env::var("NET_TRACE").is_ok() {
        println!("{seen:?}");
    }
    for name in reached {
        assert!(count < 10 || seen[name] > 0, "{name} was never counted");
    }
}

/// Counters that an attack must have moved.
const REACHED: &[&str] = &[
    "InHdrErrors",
    "ReasmOKs",
    "ReasmFails",
    "Ip6ReasmOKs",
    "InCsumErrors",
    "InDestUnreachs",
    "PassiveOpens",
    "EstabResets",
    "TW",
    "PAWSEstab",
    "TCPSackRecovery",
    "TCPTimeouts",
    "TCPLossProbes",
    "TCPDSACKRecv",
    "TCPOFOQueue",
    "TCPChallengeACK",
    "TCPSYNChallenge",
    "InDatagrams",
    "NoPorts",
    "TCPMTUPFail",
];

#[test]
fn spoiled_conversations_do_no_harm_1() {
    seeds(attack, 0, 1500, REACHED);
}

#[test]
fn spoiled_conversations_do_no_harm_2() {
    seeds(attack, 1, 1500, REACHED);
}

/// A machine that configures itself by servers and routers of which some are broken or hostile.
fn configure(seed: u64, steps: u64, seen: &mut Seen) -> u64 {
    let mut rng = Rng(seed ^ 0xdc);
    let clock = Arc::new(std::sync::atomic::AtomicU64::new(10 * SECOND));
    let mut config = common::config(&clock, &mut rng);
    tight(&mut config.limits);
    config.host_name = Some("machine".into());
    let stack = Stack::new(config);
    let nic = SimNic::new(1, 1500, false);
    let ifconfig = IfConfig {
        ipv4: Ipv4Config::Dhcp,
        ipv6: Ipv6Config::Auto,
        mtu: None,
    };
    stack.add_interface("en1", nic.clone(), ifconfig).unwrap();
    let rate = [0, 100_000, 300_000, 700_000][rng.below(4) as usize];
    let mut server = Ends {
        to_mac: [2, 0, 0, 0, 0, 1],
        from_mac: [2, 0, 0, 0, 0, 9],
        src: Ipv4Addr::new(10, 7, 0, 1),
        dst: Ipv4Addr::new(10, 7, 0, 2),
        src6: "fe80::9".parse().unwrap(),
        dst6: "fe80::ff:fe00:1".parse().unwrap(),
    };
    let (mut carried, mut leased) = (0, false);
    for _ in 0..steps {
        let now = clock.load(Ordering::Relaxed);
        let next = stack.poll().unwrap_or(u64::MAX);
        let sent = nic.take_sent();
        let wait = 1 + rng.below(3) * rng.below(4000) * MS;
        clock.store(next.max(now + 1).min(now + wait), Ordering::Relaxed);
        let mut answers = Vec::new();
        for frame in &sent {
            answers.extend(answer(&server, frame, &mut rng));
        }
        if rng.chance(100_000) {
            server.from_mac[5] = rng.below(40) as u8;
            server.src6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, rng.below(20) as u16);
        }
        if rng.chance(200_000) {
            answers.push(server.router_advert(&mut rng));
        }
        if rng.chance(200_000) {
            answers.push(server.any(&mut rng));
        }
        for frame in answers {
            let frames = if rng.chance(rate) {
                let other = server.any(&mut rng);
                spoil(&mut rng, frame, &other)
            } else {
                vec![frame]
            };
            for frame in frames {
                carried += 1;
                nic.inject(&frame, RxChecksum::Unknown);
            }
        }
        leased |= stack.leases().iter().any(|lease| lease.addr.is_some());
        bounded(&stack);
        assert!(stack.leases().len() <= 1);
    }
    assert!(leased, "never configured");
    // Nobody answers any more: leases and routers end.
    let end = clock.load(Ordering::Relaxed) + 40 * SECOND;
    while clock.load(Ordering::Relaxed) < end {
        let next = stack.poll().unwrap_or(u64::MAX);
        nic.take_sent();
        let now = clock.load(Ordering::Relaxed);
        clock.store(next.max(now + 1).min(end), Ordering::Relaxed);
    }
    bounded(&stack);
    count(seen, &stack);
    nothing_left(&[stack]);
    carried
}

/// What the servers of a network say to a frame.
fn answer(server: &Ends, frame: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    match frame.get(12..14)? {
        [8, 6] if frame.get(21) == Some(&1) && rng.chance(300_000) => Some(server.arp(2)),
        [8, 0] if frame.get(23) == Some(&17) && frame.get(36..38) == Some(&[0, 67]) => {
            server.dhcp_answer(frame, rng)
        }
        [0x86, 0xdd] => match (frame.get(20)?, frame.get(54)?) {
            (58, 133) => Some(server.router_advert(rng)),
            // Sometimes the address is taken.
            (58, 135) if rng.chance(100_000) => {
                let target: [u8; 16] = frame.get(62..78)?.try_into().ok()?;
                Some(server.neighbour(136, 0x20, target.into()))
            }
            (17, _) if frame.get(56..58) == Some(&[2, 35]) => server.dhcp6_answer(frame, rng),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn hostile_servers_configure_nothing_without_bound() {
    seeds(configure, 0, 1500, &["InDelivers", "Icmp6InMsgs"]);
}
