//! Hostile packets: seeded noise and nearly right packets against every parser and against the state
//! machine. Nothing may panic, nothing may grow without bound, and a real peer is still served.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::script::*;
use common::{MS, Rng, SECOND, fold, host};
use iobuf::{SliceSource, VecSink};
use net::nic::RxChecksum;
use net::{IfConfig, Ipv4Config, Kind, MsgFlags, Opt, SendMeta, Socket};

fn rounds(normal: u64) -> u64 {
    std::env::var("NET_ROUNDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(normal)
}

fn noise(rng: &mut Rng, most: u64) -> Vec<u8> {
    (0..rng.below(most)).map(|_| rng.next() as u8).collect()
}

/// A frame that is right in its outer layers and noise from some depth on.
fn frame(rng: &mut Rng) -> Vec<u8> {
    let mac = if rng.chance(100_000) {
        [0xff; 6]
    } else {
        [2, 0, 0, 0, 0, 1]
    };
    let src = match rng.below(4) {
        0 => peer(),
        1 => Ipv4Addr::from(rng.next() as u32),
        2 => host(rng.below(255) as u8),
        _ => host(1),
    };
    let dst = match rng.below(8) {
        0 => Ipv4Addr::new(10, 0, 0, 255),
        1 => Ipv4Addr::new(224, 0, 0, 1),
        2 => Ipv4Addr::LOCALHOST,
        _ => host(1),
    };
    match rng.below(10) {
        0 => {
            let mut f = mac.to_vec();
            f.extend_from_slice(&PEER_MAC);
            f.extend_from_slice(&[[8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]][rng.below(4) as usize]);
            f.extend(noise(rng, 200));
            f
        }
        1 => {
            // ARP with one byte wrong.
            let mut f = mac.to_vec();
            f.extend_from_slice(&PEER_MAC);
            f.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + rng.below(2) as u8]);
            f.extend_from_slice(&PEER_MAC);
            f.extend_from_slice(&src.octets());
            f.extend_from_slice(&[0; 6]);
            f.extend_from_slice(&dst.octets());
            let at = 14 + rng.below(28) as usize;
            f[at] ^= rng.next() as u8;
            f
        }
        2 => {
            // Fragments of every kind.
            let mut f = ip_frame(
                mac,
                src,
                dst,
                [6, 17, 1][rng.below(3) as usize],
                &noise(rng, 1480),
            );
            let word = (rng.next() as u16 & 0x3fff).to_be_bytes();
            f[20..22].copy_from_slice(&word);
            f[18..20].copy_from_slice(&(rng.below(20) as u16).to_be_bytes());
            f[24..26].fill(0);
            let sum = !fold(&f[14..34], 0);
            f[24..26].copy_from_slice(&sum.to_be_bytes());
            f
        }
        3 => {
            // IPv4 options and lengths that lie.
            let mut f = ip_frame(mac, src, dst, rng.next() as u8, &noise(rng, 300));
            for _ in 0..1 + rng.below(3) {
                let at = 14 + rng.below(20) as usize;
                f[at] = rng.next() as u8;
            }
            let header = (usize::from(f[14] & 0xf) * 4).min(f.len() - 14);
            if header >= 20 {
                f[24..26].fill(0);
                let sum = !fold(&f[14..14 + header], 0);
                f[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            f
        }
        4 => {
            let mut icmp = vec![
                [0, 3, 8, 11, 12, 5][rng.below(6) as usize],
                rng.below(18) as u8,
                0,
                0,
            ];
            icmp.extend(noise(rng, 8));
            icmp.extend_from_slice(
                &ip_frame(
                    [0; 6],
                    host(1),
                    peer(),
                    [6, 17, 1][rng.below(3) as usize],
                    &noise(rng, 60),
                )[14..],
            );
            let sum = !fold(&icmp, 0);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            ip_frame(mac, src, dst, 1, &icmp)
        }
        5 => {
            let ports = [53u16, 67, 68, 9, 80];
            let mut u = Vec::new();
            u.extend_from_slice(&ports[rng.below(5) as usize].to_be_bytes());
            u.extend_from_slice(&ports[rng.below(5) as usize].to_be_bytes());
            let data = noise(rng, 600);
            let len = if rng.chance(900_000) {
                data.len() as u16 + 8
            } else {
                rng.next() as u16
            };
            u.extend_from_slice(&len.to_be_bytes());
            u.extend_from_slice(&[0, 0]);
            u.extend(data);
            ip_frame(mac, src, dst, 17, &u)
        }
        _ => {
            // TCP to something that is there.
            let seg = Seg {
                sport: 5000 + rng.below(4) as u16,
                dport: [80, 80, 80, 81][rng.below(4) as usize],
                seq: near(rng, 1001),
                ack: rng.next() as u32,
                flags: if rng.chance(500_000) {
                    [2, 16, 17, 24, 4][rng.below(5) as usize]
                } else {
                    rng.next() as u8
                },
                window: rng.next() as u16,
                options: {
                    let mut o = noise(rng, 41);
                    o.truncate(o.len() / 4 * 4);
                    o
                },
                data: noise(rng, 1000),
                urgent: rng.next() as u16,
                ecn: rng.next() as u8,
            };
            tcp_frame(if rng.chance(700_000) { peer() } else { src }, &seg)
        }
    }
}

fn near(rng: &mut Rng, n: u32) -> u32 {
    match rng.below(4) {
        0 => n,
        1 => n.wrapping_add(rng.below(3000) as u32),
        2 => n.wrapping_sub(rng.below(3000) as u32),
        _ => rng.next() as u32,
    }
}

#[test]
fn noise_does_no_harm() {
    for seed in 0..rounds(40) {
        let mut rng = Rng(seed);
        let mut s = Script::with(
            |c| {
                c.limits.memory = 2 << 20;
                c.limits.fragments = 256 << 10;
                c.limits.syn_backlog = 64;
                c.limits.neighbours = 64;
            },
            None,
        );
        let nic = common::SimNic::new(7, 1500, false);
        s.stack
            .add_interface(
                "en2",
                nic.clone(),
                IfConfig {
                    ipv4: Ipv4Config::Dhcp,
                    ..IfConfig::default()
                },
            )
            .unwrap();
        let listener = s.listen(80, 8);
        let udp = s.socket(Kind::Dgram);
        udp.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 53))
            .unwrap();
        let mut accepted: Vec<Arc<dyn Socket>> = Vec::new();
        for step in 0..2000 {
            let mut f = frame(&mut rng);
            if rng.chance(50_000) {
                let keep = rng.below(f.len() as u64 + 1) as usize;
                f.truncate(keep);
            }
            let checksum = if rng.chance(500_000) {
                RxChecksum::Verified
            } else {
                RxChecksum::Unknown
            };
            if rng.chance(100_000) {
                nic.inject(&f, checksum);
            } else {
                s.nic.inject(&f, checksum);
            }
            let wait = rng.below(3) * rng.below(50) * MS;
            s.advance(wait);
            s.out.clear();
            nic.take_sent();
            while let Ok(socket) = listener.accept() {
                accepted.push(socket);
            }
            if step % 50 == 0 {
                let mut sink = VecSink::new(1000);
                let _ = udp.recv(&mut sink, MsgFlags::empty());
                for socket in &accepted {
                    let _ = socket.send(&mut SliceSource::new(b"hello"), &SendMeta::default());
                    let _ = socket.poll();
                }
                if accepted.len() > 20 {
                    accepted.drain(..10).for_each(|socket| socket.close());
                }
            }
            assert!(s.stack.memory() < 3 << 20, "memory {}", s.stack.memory());
            assert!(s.stack.neighbours().len() <= 64);
            assert!(s.stack.flow_counts().0 < 500);
        }
        accepted.drain(..).for_each(|socket| socket.close());
        s.advance(2 * SECOND);
        // A real client.
        while s.next().is_some() {}
        while let Ok(socket) = listener.accept() {
            socket.close();
        }
        s.advance(400 * SECOND);
        while s.next().is_some() {}
        s.stack
            .set_neighbour(2, IpAddr::V4(peer()), PEER_MAC)
            .unwrap();
        let (server, seq, iss) = s.establish(&listener, 6000, &[]);
        s.send(&Seg {
            sport: 6000,
            dport: 80,
            seq,
            ack: iss,
            flags: ACK,
            window: 1000,
            data: b"hi".to_vec(),
            ..Seg::default()
        });
        let mut sink = VecSink::new(10);
        server.recv(&mut sink, MsgFlags::empty()).unwrap();
        assert_eq!(sink.into_bytes(), b"hi");
        server.close();
        udp.close();
        s.advance(400 * SECOND);
        assert_eq!(s.stack.memory(), 0, "seed {seed}");
    }
}

#[test]
fn tiny_segments_do_not_hold_much_memory() {
    let mut s = Script::new();
    let listener = s.listen(80, 8);
    let (server, mut seq, iss) = s.establish(&listener, 5000, &[]);
    for _ in 0..20_000 {
        s.send(&Seg {
            sport: 5000,
            dport: 80,
            seq,
            ack: iss,
            flags: ACK,
            window: 1000,
            data: vec![1],
            ..Seg::default()
        });
        seq += 1;
    }
    assert!(server.input_queued() == 20_000);
    assert!(s.stack.memory() < 256 << 10, "{}", s.stack.memory());
    // And every second byte beyond a gap.
    for i in 0..5000 {
        s.send(&Seg {
            sport: 5000,
            dport: 80,
            seq: seq + 1 + i * 2,
            ack: iss,
            flags: ACK,
            window: 1000,
            data: vec![1],
            ..Seg::default()
        });
    }
    assert!(s.stack.memory() < 4 << 20, "{}", s.stack.memory());
    s.send(&Seg {
        sport: 5000,
        dport: 80,
        seq,
        ack: iss,
        flags: RST,
        ..Seg::default()
    });
    assert!(listener.set_option(Opt::NoDelay(true)).is_ok());
}

#[test]
fn optimistic_acknowledgements_are_not_believed() {
    let mut s = Script::new();
    let listener = s.listen(80, 8);
    let (server, seq, iss) = s.establish(&listener, 5000, &[]);
    server
        .send(&mut SliceSource::new(&[1; 5000]), &SendMeta::default())
        .unwrap();
    while s.next().is_some() {}
    s.send(&Seg {
        sport: 5000,
        dport: 80,
        seq,
        ack: iss.wrapping_add(6000),
        flags: ACK,
        window: 1000,
        ..Seg::default()
    });
    let challenge = s.expect("challenge");
    assert!(challenge.is(ACK));
    assert_eq!(server.output_queued(), 5000);
    // SACK blocks of what was never sent, backwards, and huge.
    let mut rng = Rng(3);
    for _ in 0..5000 {
        let mut options = vec![1, 1, 5, 2 + 8 * 3];
        for _ in 0..6 {
            options.extend_from_slice(&near(&mut rng, iss).to_be_bytes());
        }
        s.send(&Seg {
            sport: 5000,
            dport: 80,
            seq,
            ack: iss,
            flags: ACK,
            window: 65_000,
            options,
            ..Seg::default()
        });
    }
    while s.next().is_some() {}
}
