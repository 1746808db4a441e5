//! IPv6: neighbour discovery, automatic addresses, TCP and UDP over it.

mod common;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use common::{MS, SECOND, SimNic, Weather, World, fold};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::nic::RxChecksum;
use net::query::Change;
use net::{Cidr, Family, IfConfig, Ipv6Config, Kind, MsgFlags, SendMeta, Socket, Stack};

fn addr(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n))
}

fn world(offload: bool, loss: u64) -> World {
    let weather = Weather {
        delay_ns: MS,
        loss,
        ..Weather::default()
    };
    let ipv6 = |n| Ipv6Config::Static {
        addr: Cidr::new(addr(n).into(), 64).unwrap(),
        gateway: None,
    };
    let mut world = World::full(3, weather, [offload, offload], |_| {}, ipv6);
    world.run(2 * SECOND);
    world
}

fn socket(stack: &Arc<Stack>, kind: Kind) -> Arc<dyn Socket> {
    stack.socket(Family::Inet6, kind, 0).unwrap()
}

#[test]
fn a_transfer() {
    for (offload, loss) in [(false, 0), (true, 0), (false, 20_000)] {
        let mut w = world(offload, loss);
        let listener = socket(&w.stacks[1], Kind::Stream);
        listener
            .bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80))
            .unwrap();
        listener.listen(5).unwrap();
        let client = socket(&w.stacks[0], Kind::Stream);
        let to = Some(SocketAddr::new(addr(2).into(), 80));
        assert_eq!(client.connect(to), Err(Errno::EINPROGRESS));
        let data: Vec<u8> = (0..400_000u32).map(|i| (i >> 3) as u8).collect();
        let (mut sent, mut got, mut server) = (0, Vec::new(), None);
        let limit = w.now() + 100 * SECOND;
        while got.len() < data.len() {
            server = server.or_else(|| listener.accept().ok());
            if client.connect_result() == Some(Ok(())) && sent < data.len() {
                let source = &mut SliceSource::new(&data[sent..]);
                sent += client.send(source, &SendMeta::default()).unwrap_or(0);
            }
            if let Some(server) = &server {
                let mut sink = VecSink::new(100_000);
                let _ = server.recv(&mut sink, MsgFlags::empty());
                got.extend(sink.into_bytes());
            }
            assert!(w.step(limit), "stuck at {}", got.len());
        }
        assert_eq!(got, data);
        let server = server.unwrap();
        assert_eq!(server.peer_addr().unwrap().ip(), IpAddr::V6(addr(1)));
        client.close();
        server.close();
    }
}

#[test]
fn a_datagram_large_and_small_and_nobody_at_home() {
    let mut w = world(false, 0);
    let server = socket(&w.stacks[1], Kind::Dgram);
    server
        .bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 53))
        .unwrap();
    let client = socket(&w.stacks[0], Kind::Dgram);
    client
        .connect(Some(SocketAddr::new(addr(2).into(), 53)))
        .unwrap();
    for len in [1, 1000, 9000, 65_507] {
        client
            .send(&mut SliceSource::new(&vec![7; len]), &SendMeta::default())
            .unwrap();
        w.run(SECOND);
        let mut sink = VecSink::new(70_000);
        server.recv(&mut sink, MsgFlags::empty()).unwrap();
        assert_eq!(sink.into_bytes(), vec![7; len]);
    }
    server.close();
    client
        .send(&mut SliceSource::new(b"x"), &SendMeta::default())
        .unwrap();
    w.run(SECOND);
    assert_eq!(client.take_error(), Some(Errno::ECONNREFUSED));
    let tcp = socket(&w.stacks[0], Kind::Stream);
    assert_eq!(
        tcp.connect(Some(SocketAddr::new(addr(9).into(), 1))),
        Err(Errno::EINPROGRESS)
    );
    w.run(5 * SECOND);
    assert_eq!(tcp.connect_result(), Some(Err(Errno::EHOSTUNREACH)));
}

/// A frame to the card of [`a_router_advertises`], from a link-local router.
fn from_router(nic: &SimNic, icmp: &[u8], hops: u8) -> Vec<u8> {
    let router: Ipv6Addr = "fe80::1".parse().unwrap();
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let mut f = vec![0x33, 0x33, 0, 0, 0, 1];
    f.extend_from_slice(&[2, 0, 0, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0]);
    f.extend_from_slice(&(icmp.len() as u16).to_be_bytes());
    f.extend_from_slice(&[58, hops]);
    f.extend_from_slice(&router.octets());
    f.extend_from_slice(&all.octets());
    f.extend_from_slice(icmp);
    let start = u32::from(fold(&f[22..54], 58 + icmp.len() as u32));
    let sum = !fold(&f[54..], start);
    f[56..58].copy_from_slice(&sum.to_be_bytes());
    let _ = nic;
    f
}

#[test]
fn a_router_advertises() {
    let mut w = World::new(1, Weather::default(), [false, false]);
    let stack = w.stacks[0].clone();
    let nic = SimNic::new(0x55, 1500, false);
    let config = IfConfig {
        ipv6: Ipv6Config::Auto,
        ..IfConfig::default()
    };
    let index = stack.add_interface("en2", nic.clone(), config).unwrap();
    let leases = Arc::new(Mutex::new(Vec::new()));
    let seen = leases.clone();
    stack.observe(Box::new(move |change| {
        if let Change::Lease(lease) = change {
            seen.lock().unwrap().push(lease.clone());
        }
    }));
    w.run(3 * SECOND);
    let sent = nic.take_sent();
    // A check of the own address, a report, a solicitation.
    for kind in [135, 143, 133] {
        assert!(
            sent.iter().any(
                |f| f[12..14] == [0x86, 0xdd] && (f[54] == kind || f[20] == 0 && f[62] == kind)
            ),
            "{kind}"
        );
    }
    let own = stack
        .addresses()
        .into_iter()
        .find(|a| a.index == index)
        .unwrap();
    assert_eq!(own.addr.addr, "fe80::ff:fe00:55".parse::<IpAddr>().unwrap());
    assert!(!own.tentative);
    let mut advert = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    advert.extend_from_slice(&[
        3, 4, 64, 0xc0, 0, 0, 0x1c, 0x20, 0, 0, 0x0e, 0x10, 0, 0, 0, 0,
    ]);
    advert.extend_from_slice(&"2001:db8::".parse::<Ipv6Addr>().unwrap().octets());
    advert.extend_from_slice(&[25, 3, 0, 0, 0, 0, 0x0e, 0x10]);
    advert.extend_from_slice(&"2001:db8::53".parse::<Ipv6Addr>().unwrap().octets());
    advert.extend_from_slice(&[1, 1, 2, 0, 0, 0, 0, 9]);
    // From beyond the link: not believed.
    nic.inject(&from_router(&nic, &advert, 64), RxChecksum::Unknown);
    w.run(2 * SECOND);
    assert_eq!(
        stack
            .addresses()
            .iter()
            .filter(|a| a.index == index)
            .count(),
        1
    );
    nic.inject(&from_router(&nic, &advert, 255), RxChecksum::Unknown);
    w.run(2 * SECOND);
    let global: IpAddr = "2001:db8::ff:fe00:55".parse().unwrap();
    let found = stack
        .addresses()
        .into_iter()
        .find(|a| a.addr.addr == global)
        .unwrap();
    assert!(!found.tentative && found.valid_s > 7000);
    assert!(
        stack
            .routes()
            .iter()
            .any(|r| r.dst.prefix == 0 && r.protocol == 9)
    );
    assert_eq!(
        leases.lock().unwrap()[0].dns,
        ["2001:db8::53".parse::<IpAddr>().unwrap()]
    );
    // The router's life ends, then the address's.
    w.run(1801 * SECOND);
    assert!(!stack.routes().iter().any(|r| r.dst.prefix == 0));
    w.run(7200 * SECOND);
    assert!(!stack.addresses().iter().any(|a| a.addr.addr == global));
}

#[test]
fn somebody_has_the_address_already() {
    let ipv6 = |_| Ipv6Config::Static {
        addr: Cidr::new(addr(7).into(), 64).unwrap(),
        gateway: None,
    };
    let mut w = World::full(
        5,
        Weather {
            delay_ns: MS,
            ..Weather::default()
        },
        [false, false],
        |_| {},
        ipv6,
    );
    w.run(3 * SECOND);
    // Both checked at once: neither has it.
    for stack in &w.stacks {
        assert!(
            !stack
                .addresses()
                .iter()
                .any(|a| a.addr.addr == IpAddr::V6(addr(7)))
        );
    }
}
