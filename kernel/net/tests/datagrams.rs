//! UDP, ICMP, fragments, DHCP, ARP and the loopback, by script.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use common::script::*;
use common::{MS, SECOND, Weather, World, fold, host};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::query::Change;
use net::{
    Cidr, Control, Events, Family, IfConfig, Ipv4Config, Kind, MsgFlags, MtuDiscover, Opt,
    RecvMeta, SendMeta, Shutdown, Socket,
};

fn to(addr: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(addr.into(), port)
}

fn send_to(socket: &Arc<dyn Socket>, addr: SocketAddr, bytes: &[u8]) -> Result<usize, Errno> {
    let meta = SendMeta {
        to: Some(addr),
        ..SendMeta::default()
    };
    socket.send(&mut SliceSource::new(bytes), &meta)
}

fn recv(socket: &Arc<dyn Socket>) -> Result<(Vec<u8>, RecvMeta), Errno> {
    let mut sink = VecSink::new(70_000);
    let meta = socket.recv(&mut sink, MsgFlags::empty())?;
    Ok((sink.into_bytes(), meta))
}

fn udp(src: Ipv4Addr, dst: Ipv4Addr, sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
    let mut u = Vec::new();
    u.extend_from_slice(&sport.to_be_bytes());
    u.extend_from_slice(&dport.to_be_bytes());
    u.extend_from_slice(&((data.len() + 8) as u16).to_be_bytes());
    u.extend_from_slice(&[0, 0]);
    u.extend_from_slice(data);
    let pseudo = [src.octets(), dst.octets()].concat();
    let sum = !fold(&u, u32::from(fold(&pseudo, 17 + u.len() as u32)));
    u[6..8].copy_from_slice(&sum.to_be_bytes());
    u
}

fn sent_udp(s: &mut Script) -> Vec<Vec<u8>> {
    s.out.extend(s.nic.take_sent());
    s.out
        .drain(..)
        .filter(|f| f[12..14] == [8, 0] && f[23] == 17)
        .collect()
}

#[test]
fn a_datagram_each_way() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    socket.bind(to(Ipv4Addr::UNSPECIFIED, 53)).unwrap();
    socket.set_option(Opt::PktInfo(true)).unwrap();
    socket.set_option(Opt::RecvTtl(true)).unwrap();
    assert_eq!(recv(&socket).err(), Some(Errno::EAGAIN));
    s.inject(&ip_frame(
        [2, 0, 0, 0, 0, 1],
        peer(),
        host(1),
        17,
        &udp(peer(), host(1), 99, 53, b"query"),
    ));
    assert!(socket.poll().contains(Events::IN));
    let (data, meta) = recv(&socket).unwrap();
    assert_eq!(data, b"query");
    assert_eq!(meta.from, Some(to(peer(), 99)));
    assert_eq!(
        meta.control,
        [
            Control::PktInfo {
                index: 2,
                local: host(1),
                dst: host(1)
            },
            Control::Ttl(64)
        ]
    );
    assert_eq!(send_to(&socket, to(peer(), 99), b"answer"), Ok(6));
    let frames = sent_udp(&mut s);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][34..], udp(host(1), peer(), 53, 99, b"answer"));
    // Too long for the buffer: cut, and said so.
    s.inject(&ip_frame(
        [2, 0, 0, 0, 0, 1],
        peer(),
        host(1),
        17,
        &udp(peer(), host(1), 99, 53, b"query"),
    ));
    let mut sink = VecSink::new(2);
    let meta = socket.recv(&mut sink, MsgFlags::empty()).unwrap();
    assert_eq!(
        (meta.len, meta.full_len, meta.flags),
        (2, 5, MsgFlags::TRUNC)
    );
    socket.close();
    assert_eq!(s.stack.memory(), 0);
}

#[test]
fn errors_reach_the_socket() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    socket.connect(Some(to(peer(), 99))).unwrap();
    assert_eq!(
        socket.send(&mut SliceSource::new(b"x"), &SendMeta::default()),
        Ok(1)
    );
    let frame = sent_udp(&mut s).remove(0);
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    icmp.extend_from_slice(&frame[14..42]);
    let sum = !fold(&icmp, 0);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    s.inject(&ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 1, &icmp));
    assert!(socket.poll().contains(Events::ERR));
    assert_eq!(recv(&socket).err(), Some(Errno::ECONNREFUSED));
    assert_eq!(recv(&socket).err(), Some(Errno::EAGAIN));
    // The other way round: nobody is there.
    s.inject(&ip_frame(
        [2, 0, 0, 0, 0, 1],
        peer(),
        host(1),
        17,
        &udp(peer(), host(1), 9, 7777, b"?"),
    ));
    let out: Vec<_> = s.out.drain(..).filter(|f| f[23] == 1).collect();
    assert_eq!(out[0][34..36], [3, 3]);
}

#[test]
fn broadcast_needs_leave() {
    let s = Script::new();
    let socket = s.socket(Kind::Dgram);
    let all = Ipv4Addr::new(10, 0, 0, 255);
    assert_eq!(send_to(&socket, to(all, 9), b"x"), Err(Errno::EACCES));
    socket.set_option(Opt::Broadcast(true)).unwrap();
    assert_eq!(send_to(&socket, to(all, 9), b"x"), Ok(1));
    assert_eq!(s.nic.take_sent()[0][..6], [0xff; 6]);
    assert_eq!(
        send_to(&socket, to(Ipv4Addr::new(1, 2, 3, 4), 0), b"x"),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        send_to(&socket, to(peer(), 9), &[0; 65_508]),
        Err(Errno::EMSGSIZE)
    );
}

#[test]
fn an_echo_is_answered() {
    let mut s = Script::new();
    let mut echo = vec![8, 0, 0, 0, 1, 2, 3, 4, b'p', b'i', b'n', b'g'];
    let sum = !fold(&echo, 0);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    s.inject(&ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 1, &echo));
    let reply = s.out.pop_front().unwrap();
    assert_eq!((reply[34], &reply[38..]), (0, &echo[4..]));
    assert_eq!(fold(&reply[34..], 0), 0xffff);
    // Never to a broadcast.
    s.inject(&ip_frame(
        [0xff; 6],
        peer(),
        Ipv4Addr::new(10, 0, 0, 255),
        1,
        &echo,
    ));
    assert!(s.out.is_empty());
}

#[test]
fn fragments_both_ways() {
    let mut world = World::new(
        4,
        Weather {
            delay_ns: MS,
            ..Weather::default()
        },
        [false, false],
    );
    let server = world.socket(1, Kind::Dgram);
    server.bind(to(Ipv4Addr::UNSPECIFIED, 9)).unwrap();
    let client = world.socket(0, Kind::Dgram);
    let data: Vec<u8> = (0..20_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    send_to(&client, to(host(2), 9), &data).unwrap();
    world.run(SECOND);
    assert_eq!(recv(&server).unwrap().0, data);
    // The largest there is.
    let largest = vec![3; 65_507];
    send_to(&client, to(host(2), 9), &largest).unwrap();
    world.run(SECOND);
    assert_eq!(server.input_queued(), largest.len());
    recv(&server).unwrap();
    // Not if the program forbids it.
    client
        .set_option(Opt::MtuDiscover(MtuDiscover::Do))
        .unwrap();
    assert_eq!(
        send_to(&client, to(host(2), 9), &data),
        Err(Errno::EMSGSIZE)
    );
    client
        .set_option(Opt::MtuDiscover(MtuDiscover::Want))
        .unwrap();
    // One lost fragment: nothing arrives, and nothing stays.
    world.weather.loss = 100_000;
    for _ in 0..50 {
        send_to(&client, to(host(2), 9), &data).unwrap();
        world.run(MS);
    }
    world.run(40 * SECOND);
    while let Ok((got, _)) = recv(&server) {
        assert_eq!(got, data);
    }
    assert!(world.stacks[1].counters().sum(|c| &c.ip_reasm_fails) > 10);
    assert_eq!(world.stacks[1].memory(), 0);
}

#[test]
fn overlapping_fragments_are_refused() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    socket.bind(to(Ipv4Addr::UNSPECIFIED, 53)).unwrap();
    let mut whole = udp(peer(), host(1), 9, 53, &[1; 40]);
    whole.extend([0; 8]);
    let mut piece = |offset: usize, end: usize, more: bool| {
        let mut frame = ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 17, &whole[offset..end]);
        let word = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        frame[20..22].copy_from_slice(&word.to_be_bytes());
        frame[24..26].fill(0);
        let sum = !fold(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        s.inject(&frame);
    };
    piece(0, 24, true);
    piece(16, 48, false);
    piece(24, 48, false);
    // Bytes behind the end are no overlap, though wrong as well.
    piece(48, 56, true);
    let counters = s.stack.counters();
    assert_eq!(counters.sum(|c| &c.ip_reasm_overlaps), 1);
    assert_eq!(counters.sum(|c| &c.ip_reasm_fails), 2);
    assert_eq!(recv(&socket).err(), Some(Errno::EAGAIN));
    let mut piece = |offset: usize, end: usize, more: bool| {
        let mut frame = ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 17, &whole[offset..end]);
        frame[18..20].copy_from_slice(&9u16.to_be_bytes());
        let word = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        frame[20..22].copy_from_slice(&word.to_be_bytes());
        frame[24..26].fill(0);
        let sum = !fold(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        s.inject(&frame);
    };
    piece(24, 48, false);
    piece(0, 24, true);
    assert_eq!(recv(&socket).unwrap().0, [1; 40]);
}

/// A DHCP server's answer to what the client sent.
fn dhcp_answer(request: &[u8], kind: u8, extra: &[u8]) -> Vec<u8> {
    let mut m = request[..240].to_vec();
    m[0] = 2;
    m[16..20].copy_from_slice(&[10, 0, 2, 15]);
    m.extend_from_slice(&[53, 1, kind, 54, 4, 10, 0, 2, 2]);
    m.extend_from_slice(extra);
    m.push(255);
    let server = Ipv4Addr::new(10, 0, 2, 2);
    let all = Ipv4Addr::BROADCAST;
    ip_frame([0xff; 6], server, all, 17, &udp(server, all, 67, 68, &m))
}

fn dhcp_kind(frame: &[u8]) -> u8 {
    let mut at = 42 + 240;
    while frame[at] != 53 {
        at += 2 + usize::from(frame[at + 1]);
    }
    frame[at + 2]
}

#[test]
fn dhcp_from_discovery_to_the_end_of_the_lease() {
    let ifconfig = IfConfig {
        ipv4: Ipv4Config::Dhcp,
        ..IfConfig::default()
    };
    let mut s = Script::with(|c| c.host_name = Some("nanos".into()), None);
    // Another card, with DHCP.
    let nic = common::SimNic::new(7, 1500, false);
    s.nic = nic.clone();
    let leases = Arc::new(Mutex::new(Vec::new()));
    let seen = leases.clone();
    s.stack.observe(Box::new(move |change| {
        if let Change::Lease(lease) = change {
            seen.lock().unwrap().push(lease.clone());
        }
    }));
    s.stack.add_interface("en2", nic, ifconfig).unwrap();
    assert_eq!(
        s.stack
            .add_interface("en2", s.nic.clone(), IfConfig::default()),
        Err(Errno::EEXIST)
    );
    let frames = sent_udp(&mut s);
    assert_eq!(frames.len(), 1, "at once");
    assert_eq!(dhcp_kind(&frames[0]), 1);
    assert_eq!(frames[0][26..34], [0, 0, 0, 0, 255, 255, 255, 255]);
    // Nobody answers: again.
    s.advance(700 * MS);
    let discover = sent_udp(&mut s).remove(0);
    let options = [
        1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6, 4, 10, 0, 2, 3, 51, 4, 0, 0, 14, 16, 15, 3,
        b'l', b'a', b'n',
    ];
    s.inject(&dhcp_answer(&discover[42..], 2, &options));
    let request = sent_udp(&mut s).remove(0);
    assert_eq!(dhcp_kind(&request), 3);
    s.inject(&dhcp_answer(&request[42..], 5, &options));
    let lease = leases.lock().unwrap()[0].clone();
    let addr = Cidr::new(IpAddr::from([10, 0, 2, 15]), 24).unwrap();
    assert_eq!(lease.addr, Some(addr));
    assert_eq!(lease.dns, [IpAddr::from([10, 0, 2, 3])]);
    assert_eq!(lease.domain.as_deref(), Some("lan"));
    assert!(
        s.stack
            .addresses()
            .iter()
            .any(|a| a.addr == addr && a.valid_s == 3600)
    );
    assert!(
        s.stack
            .routes()
            .iter()
            .any(|r| r.dst.prefix == 0 && r.gateway == Some(IpAddr::from([10, 0, 2, 2])))
    );
    // Renewed at half its time, by unicast, once the server's hardware address is known.
    s.stack
        .set_neighbour(3, IpAddr::from([10, 0, 2, 2]), PEER_MAC)
        .unwrap();
    s.out.clear();
    s.advance(1801 * SECOND);
    let renew = sent_udp(&mut s).remove(0);
    assert_eq!((dhcp_kind(&renew), &renew[30..34]), (3, &[10, 0, 2, 2][..]));
    s.inject(&dhcp_answer(&renew[42..], 5, &options));
    assert!(
        s.stack
            .addresses()
            .iter()
            .any(|a| a.addr == addr && a.valid_s == 3600)
    );
    // Then the server is gone: renewing, rebinding by broadcast, the end.
    s.advance(3300 * SECOND);
    let frames = sent_udp(&mut s);
    assert!(frames.iter().any(|f| f[30..34] == [10, 0, 2, 2]));
    assert!(
        frames
            .iter()
            .any(|f| f[30..34] == [255; 4] && f[26..30] == [10, 0, 2, 15])
    );
    s.advance(400 * SECOND);
    assert!(!s.stack.addresses().iter().any(|a| a.addr == addr));
    assert_eq!(leases.lock().unwrap().last().unwrap().addr, None);
    assert_eq!(dhcp_kind(sent_udp(&mut s).last().unwrap()), 1);
}

#[test]
fn arp_asks_and_answers() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    let other = host(77);
    send_to(&socket, to(other, 9), b"waits").unwrap();
    let ask = s.nic.take_sent().remove(0);
    assert_eq!(
        (&ask[..6], &ask[12..14], &ask[38..42]),
        (&[0xff; 6][..], &[8, 6][..], &other.octets()[..])
    );
    let mut answer = ask.clone();
    answer[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    answer[21] = 2;
    answer[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 77]);
    answer[28..32].copy_from_slice(&other.octets());
    answer[32..38].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    answer[38..42].copy_from_slice(&host(1).octets());
    s.inject(&answer);
    let frame = sent_udp(&mut s).remove(0);
    assert_eq!(frame[..6], [2, 0, 0, 0, 0, 77]);
    // Who asks for us is told, and known from then on.
    let mut ask = answer.clone();
    ask[21] = 1;
    ask[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 78]);
    ask[28..32].copy_from_slice(&host(78).octets());
    s.inject(&ask);
    let reply = s.out.pop_back().unwrap();
    assert_eq!((&reply[..6], reply[21]), (&[2, 0, 0, 0, 0, 78][..], 2));
    assert!(
        s.stack
            .neighbours()
            .iter()
            .any(|n| n.addr == IpAddr::V4(host(78)))
    );
    // Nobody at home: the connection attempt ends with that.
    let tcp = s.socket(Kind::Stream);
    assert_eq!(tcp.connect(Some(to(host(99), 1))), Err(Errno::EINPROGRESS));
    s.advance(4 * SECOND);
    assert_eq!(tcp.connect_result(), Some(Err(Errno::EHOSTUNREACH)));
}

#[test]
fn the_loopback_needs_no_other_thread() {
    let s = Script::new();
    let listener = s.listen(80, 5);
    let client = s.socket(Kind::Stream);
    assert_eq!(client.connect(Some(to(Ipv4Addr::LOCALHOST, 80))), Ok(()));
    let server = listener.accept().unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 4) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < data.len() {
        if sent < data.len() {
            match client.send(&mut SliceSource::new(&data[sent..]), &SendMeta::default()) {
                Ok(n) => sent += n,
                Err(error) => assert_eq!(error, Errno::EAGAIN),
            }
        }
        let mut sink = VecSink::new(100_000);
        match server.recv(&mut sink, MsgFlags::empty()) {
            Ok(_) => got.extend(sink.into_bytes()),
            Err(error) => panic!("{error:?} at {}", got.len()),
        }
    }
    assert_eq!(got, data);
    // Both addresses of this machine lead to it, nothing left by the card.
    let own = s.socket(Kind::Stream);
    assert_eq!(own.connect(Some(to(host(1), 80))), Ok(()));
    assert!(s.nic.take_sent().is_empty());
    client.shutdown(Shutdown::Both).unwrap();
    assert_eq!(recv(&server).unwrap().0, b"");
    let nobody = s.socket(Kind::Stream);
    assert_eq!(
        nobody.connect(Some(to(Ipv4Addr::LOCALHOST, 81))),
        Err(Errno::ECONNREFUSED)
    );
    for socket in [client, server, own, listener] {
        socket.close();
    }
    assert_eq!(s.stack.memory(), 0);
}

#[test]
fn ports_and_addresses() {
    let s = Script::new();
    let a = s.socket(Kind::Stream);
    a.bind(to(Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = a.local_addr().unwrap().port();
    assert!(port >= 32_768);
    let b = s.socket(Kind::Stream);
    assert_eq!(
        b.bind(to(Ipv4Addr::LOCALHOST, port)),
        Err(Errno::EADDRINUSE)
    );
    assert_eq!(
        b.bind(to(Ipv4Addr::new(9, 9, 9, 9), 1)),
        Err(Errno::EADDRNOTAVAIL)
    );
    a.close();
    b.bind(to(Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(b.bind(to(Ipv4Addr::LOCALHOST, 5)), Err(Errno::EINVAL));
    // Dual stack: an IPv6 listener takes IPv4.
    let six = s.stack.socket(Family::Inet6, Kind::Stream, 0).unwrap();
    six.bind("[::]:80".parse().unwrap()).unwrap();
    six.listen(1).unwrap();
    let client = s.socket(Kind::Stream);
    client.connect(Some(to(Ipv4Addr::LOCALHOST, 80))).unwrap();
    let server = six.accept().unwrap();
    assert_eq!(
        server.local_addr().unwrap(),
        "[::ffff:127.0.0.1]:80".parse().unwrap()
    );
    // And IPv6 over the loopback.
    let client = s.stack.socket(Family::Inet6, Kind::Stream, 0).unwrap();
    client.connect(Some("[::1]:80".parse().unwrap())).unwrap();
    assert_eq!(six.accept().unwrap().peer_addr(), client.local_addr());
    assert_eq!(client.connect(None), Ok(()));
}

fn query(sport: u16, data: &[u8]) -> Vec<u8> {
    let datagram = udp(peer(), host(1), sport, 53, data);
    ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 17, &datagram)
}

#[test]
fn datagrams_of_a_flow_are_merged_for_who_asks() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    socket.bind(to(Ipv4Addr::UNSPECIFIED, 53)).unwrap();
    socket.set_option(Opt::UdpGro(true)).unwrap();
    // Three alike and a shorter last; then another after that, another flow, and a longer one.
    for (port, data) in [
        (99, &b"aaaa"[..]),
        (99, b"bbbb"),
        (99, b"cccc"),
        (99, b"d"),
        (99, b"e"),
        (98, b"ffff"),
        (98, b"ggggg"),
    ] {
        s.inject(&query(port, data));
    }
    let (data, meta) = recv(&socket).unwrap();
    assert_eq!(data, b"aaaabbbbccccd");
    assert_eq!(meta.control, [Control::UdpSegment(4)]);
    for alone in [&b"e"[..], b"ffff", b"ggggg"] {
        let (data, meta) = recv(&socket).unwrap();
        assert_eq!((&data[..], meta.control.len()), (alone, 0));
    }
    assert_eq!(recv(&socket).err(), Some(Errno::EAGAIN));
    socket.close();
    assert_eq!(s.stack.memory(), 0);
}

#[test]
fn parts_held_back_go_as_one() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    let more = SendMeta {
        to: Some(to(peer(), 7)),
        flags: MsgFlags::MORE,
        ..SendMeta::default()
    };
    let part = |bytes: &[u8]| socket.send(&mut SliceSource::new(bytes), &more);
    assert_eq!(part(b"one "), Ok(4));
    assert_eq!(part(b"two "), Ok(4));
    assert!(sent_udp(&mut s).is_empty());
    assert_eq!(send_to(&socket, to(peer(), 8), b"three"), Ok(5));
    let frames = sent_udp(&mut s);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][36..38], [0, 7], "the first destination");
    assert_eq!(&frames[0][42..], b"one two three");
    // The option does the same, until it is taken back.
    socket.set_option(Opt::UdpCork(true)).unwrap();
    send_to(&socket, to(peer(), 9), b"held").unwrap();
    assert!(sent_udp(&mut s).is_empty());
    socket.set_option(Opt::UdpCork(false)).unwrap();
    assert_eq!(&sent_udp(&mut s)[0][42..], b"held");
    // Too much of it is lost as a whole.
    let most = vec![0; 65_000];
    assert_eq!(socket.send(&mut SliceSource::new(&most), &more), Ok(65_000));
    let answer = socket.send(&mut SliceSource::new(&most), &more);
    assert_eq!(answer, Err(Errno::EMSGSIZE));
    assert!(sent_udp(&mut s).is_empty());
    assert_eq!(send_to(&socket, to(peer(), 7), b"new"), Ok(3));
    assert_eq!(&sent_udp(&mut s)[0][42..], b"new");
}

#[test]
fn errors_wait_with_the_data_they_are_about() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    socket.set_option(Opt::RecvErr(true)).unwrap();
    send_to(&socket, to(peer(), 99), b"lost").unwrap();
    let frame = sent_udp(&mut s).remove(0);
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    icmp.extend_from_slice(&frame[14..]);
    let sum = !fold(&icmp, 0);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    s.inject(&ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 1, &icmp));
    let mut sink = VecSink::new(100);
    let meta = socket.recv(&mut sink, MsgFlags::ERRQUEUE).unwrap();
    assert_eq!(sink.into_bytes(), b"lost");
    assert_eq!(meta.from, Some(to(peer(), 99)));
    let [Control::RecvErr(error)] = meta.control[..] else {
        panic!("no extended error");
    };
    assert_eq!((error.errno, error.origin), (Errno::ECONNREFUSED, 2));
    // What is too large for the way is told there as well.
    socket.take_error();
    socket
        .set_option(Opt::MtuDiscover(MtuDiscover::Do))
        .unwrap();
    let answer = send_to(&socket, to(peer(), 99), &[0; 3000]);
    assert_eq!(answer, Err(Errno::EMSGSIZE));
    let meta = socket
        .recv(&mut VecSink::new(0), MsgFlags::ERRQUEUE)
        .unwrap();
    let [Control::RecvErr(error)] = meta.control[..] else {
        panic!("no extended error");
    };
    assert_eq!((error.origin, error.info), (1, 1500));
}

#[test]
fn a_receiver_hears_what_it_missed() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    socket.bind(to(Ipv4Addr::UNSPECIFIED, 53)).unwrap();
    socket.set_option(Opt::RxqOvfl(true)).unwrap();
    socket.set_option(Opt::RcvBuf(0)).unwrap();
    for _ in 0..20 {
        s.inject(&query(99, &[0; 500]));
    }
    let mut kept = 0;
    while let Ok((_, meta)) = recv(&socket) {
        assert!(meta.control.is_empty());
        kept += 1;
    }
    assert!(kept > 0 && kept < 20);
    s.inject(&query(99, b"later"));
    let (_, meta) = recv(&socket).unwrap();
    assert_eq!(meta.control, [Control::Dropped(20 - kept)]);
}
