//! Raw sockets and ping sockets, by script.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use common::script::*;
use common::{fold, host};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::{
    Control, Events, Family, Kind, MsgFlags, Opt, OptName, RecvMeta, SendMeta, Socket, Stack,
};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn socket(stack: &Arc<Stack>, family: Family, kind: Kind, protocol: u8) -> Arc<dyn Socket> {
    stack.socket(family, kind, protocol).unwrap()
}

fn send_to(socket: &Arc<dyn Socket>, to: impl Into<IpAddr>, bytes: &[u8]) -> Result<usize, Errno> {
    let meta = SendMeta {
        to: Some(SocketAddr::new(to.into(), 0)),
        ..SendMeta::default()
    };
    socket.send(&mut SliceSource::new(bytes), &meta)
}

fn recv(socket: &Arc<dyn Socket>) -> Result<(Vec<u8>, RecvMeta), Errno> {
    let mut sink = VecSink::new(70_000);
    let meta = socket.recv(&mut sink, MsgFlags::empty())?;
    Ok((sink.into_bytes(), meta))
}

fn icmp(kind: u8, ident: u16, data: &[u8]) -> Vec<u8> {
    let mut m = vec![kind, 0, 0, 0];
    m.extend(ident.to_be_bytes());
    m.extend([0, 1]);
    m.extend(data);
    let sum = !fold(&m, 0);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    m
}

#[test]
fn which_protocols_there_are() {
    let s = Script::new();
    let make = |family, kind, protocol| s.stack.socket(family, kind, protocol).err();
    assert_eq!(
        make(Family::Inet, Kind::Raw, 0),
        Some(Errno::EPROTONOSUPPORT)
    );
    assert_eq!(
        make(Family::Inet, Kind::Dgram, 58),
        Some(Errno::EPROTONOSUPPORT)
    );
    assert_eq!(
        make(Family::Inet6, Kind::Dgram, 1),
        Some(Errno::EPROTONOSUPPORT)
    );
    assert_eq!(make(Family::Inet, Kind::Raw, 255), None);
    assert_eq!(make(Family::Inet6, Kind::Raw, 89), None);
}

#[test]
fn a_raw_socket_sees_its_protocol_with_the_header() {
    let mut s = Script::new();
    let raw = socket(&s.stack, Family::Inet, Kind::Raw, 89);
    let other = socket(&s.stack, Family::Inet, Kind::Raw, 90);
    raw.set_option(Opt::RecvTtl(true)).unwrap();
    let frame = ip_frame(OURS, peer(), host(1), 89, b"hello");
    s.inject(&frame);
    assert!(raw.poll().contains(Events::IN));
    assert_eq!(raw.input_queued(), 25);
    let (bytes, meta) = recv(&raw).unwrap();
    assert_eq!(bytes, frame[14..]);
    assert_eq!(meta.from, Some(SocketAddr::new(peer().into(), 0)));
    assert_eq!(meta.control, [Control::Ttl(64)]);
    assert_eq!(recv(&other).err(), Some(Errno::EAGAIN));
    // Nobody is told that the protocol is unknown.
    assert!(s.nic.take_sent().is_empty());
    assert_eq!(raw.local_addr().unwrap().port(), 89);
    assert_eq!(s.stack.raw_sockets().len(), 2);
    assert_eq!(send_to(&raw, peer(), b"out"), Ok(3));
    let sent = s.nic.take_sent().remove(0);
    assert_eq!((sent[23], &sent[34..]), (89, &b"out"[..]));
    assert_eq!(fold(&sent[14..34], 0), 0xffff);
    // Only from the peer it is connected to.
    raw.connect(Some(SocketAddr::new(host(7).into(), 0)))
        .unwrap();
    s.inject(&frame);
    assert_eq!(recv(&raw).err(), Some(Errno::EAGAIN));
    raw.close();
    other.close();
    assert!(s.stack.raw_sockets().is_empty());
    assert_eq!(s.stack.memory(), 0);
}

#[test]
fn what_is_larger_than_the_path_goes_in_fragments() {
    let mut s = Script::new();
    let raw = socket(&s.stack, Family::Inet, Kind::Raw, 89);
    assert_eq!(send_to(&raw, peer(), &[5; 4000]), Ok(4000));
    assert_eq!(s.nic.take_sent().len(), 3);
    assert_eq!(
        send_to(&raw, peer(), &vec![5; 70_000]),
        Err(Errno::EMSGSIZE)
    );
    // In fragments as well it arrives whole.
    let piece = |offset: u16, more: bool, data: &[u8]| {
        let mut f = ip_frame(OURS, peer(), host(1), 89, data);
        let word = (offset / 8) | if more { 0x2000 } else { 0 };
        f[20..22].copy_from_slice(&word.to_be_bytes());
        f[24..26].fill(0);
        let sum = !fold(&f[14..34], 0);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
        f
    };
    s.inject(&piece(16, false, &[2; 8]));
    s.inject(&piece(0, true, &[1; 16]));
    let (bytes, _) = recv(&raw).unwrap();
    assert_eq!(bytes[20..], [vec![1; 16], vec![2; 8]].concat());
}

#[test]
fn the_program_may_make_the_header() {
    let s = Script::new();
    let raw = socket(&s.stack, Family::Inet, Kind::Raw, 255);
    assert_eq!(raw.option(OptName::HdrIncl), Ok(Opt::HdrIncl(true)));
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 9, 253, 0, 0, 0, 0, 0, 0];
    packet.extend(peer().octets());
    packet.extend(b"data");
    assert_eq!(send_to(&raw, peer(), &packet), Ok(24));
    let sent = s.nic.take_sent().remove(0);
    assert_eq!((sent[22], sent[23]), (9, 253));
    assert_eq!(sent[16..18], [0, 24]);
    assert_eq!(sent[26..30], host(1).octets());
    assert_ne!(sent[18..20], [0, 0]);
    assert_eq!(fold(&sent[14..34], 0), 0xffff);
    assert_eq!(send_to(&raw, peer(), &packet[..19]), Err(Errno::EINVAL));
    packet[0] = 0x4f;
    assert_eq!(send_to(&raw, peer(), &packet), Err(Errno::EINVAL));
    packet[0] = 0x45;
    packet.resize(1501, 0);
    assert_eq!(send_to(&raw, peer(), &packet), Err(Errno::EMSGSIZE));
}

#[test]
fn types_of_icmp_are_filtered() {
    let mut s = Script::new();
    let raw = socket(&s.stack, Family::Inet, Kind::Raw, 1);
    raw.set_option(Opt::IcmpFilter(!(1 << 0))).unwrap();
    s.inject(&ip_frame(OURS, peer(), host(1), 1, &icmp(8, 1, b"x")));
    assert_eq!(recv(&raw).err(), Some(Errno::EAGAIN));
    s.inject(&ip_frame(OURS, peer(), host(1), 1, &icmp(0, 1, b"x")));
    assert_eq!(recv(&raw).unwrap().0[20], 0);
    let other = socket(&s.stack, Family::Inet, Kind::Raw, 17);
    assert_eq!(other.set_option(Opt::IcmpFilter(0)), Err(Errno::EOPNOTSUPP));
    assert_eq!(
        other.set_option(Opt::NoDelay(true)),
        Err(Errno::ENOPROTOOPT)
    );
}

#[test]
fn a_ping_socket_echoes() {
    let mut s = Script::new();
    let ping = socket(&s.stack, Family::Inet, Kind::Dgram, 1);
    assert_eq!(ping.kind(), Kind::Dgram);
    assert_eq!(send_to(&ping, peer(), &icmp(8, 9, b"abc")), Ok(11));
    let sent = s.nic.take_sent().remove(0);
    let ident = ping.local_addr().unwrap().port();
    assert_ne!(ident, 0);
    assert_eq!(sent[34..], icmp(8, ident, b"abc"));
    for wrong in [icmp(0, 1, b""), icmp(13, 1, b""), vec![8, 0, 0, 0]] {
        assert_eq!(send_to(&ping, peer(), &wrong), Err(Errno::EINVAL));
    }
    s.inject(&ip_frame(
        OURS,
        peer(),
        host(1),
        1,
        &icmp(0, ident ^ 1, b"not ours"),
    ));
    assert_eq!(recv(&ping).err(), Some(Errno::EAGAIN));
    s.inject(&ip_frame(OURS, peer(), host(1), 1, &icmp(0, ident, b"abc")));
    assert_eq!(recv(&ping).unwrap().0, icmp(0, ident, b"abc"));
    // Another's identifier.
    let second = socket(&s.stack, Family::Inet, Kind::Dgram, 1);
    let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    assert_eq!(second.bind(any(ident)), Err(Errno::EADDRINUSE));
    assert_eq!(second.bind(any(ident ^ 2)), Ok(()));
    assert_eq!(second.bind(any(5)), Err(Errno::EINVAL));
    assert_eq!(second.local_addr().unwrap().port(), ident ^ 2);
    assert_eq!(s.stack.ping_sockets().len(), 2);
}

#[test]
fn lo_answers_a_ping_at_once() {
    let s = Script::new();
    let ping = socket(&s.stack, Family::Inet, Kind::Dgram, 1);
    send_to(&ping, Ipv4Addr::LOCALHOST, &icmp(8, 0, b"x")).unwrap();
    assert_eq!(recv(&ping).unwrap().0[0], 0);
    let ping = socket(&s.stack, Family::Inet6, Kind::Dgram, 58);
    ping.set_option(Opt::RecvHopLimit(true)).unwrap();
    send_to(&ping, Ipv6Addr::LOCALHOST, &[128, 0, 0, 0, 0, 0, 0, 1, 77]).unwrap();
    let (bytes, meta) = recv(&ping).unwrap();
    assert_eq!((bytes[0], bytes[8]), (129, 77));
    assert_eq!(meta.control, [Control::HopLimit(64)]);
    // A raw socket sees both the question and the answer.
    let raw = socket(&s.stack, Family::Inet6, Kind::Raw, 58);
    send_to(&ping, Ipv6Addr::LOCALHOST, &[128, 0, 0, 0, 0, 0, 0, 2]).unwrap();
    assert_eq!(recv(&raw).unwrap().0[0], 128);
    assert_eq!(recv(&raw).unwrap().0[0], 129);
}

#[test]
fn errors_come_back_to_who_asked() {
    let mut s = Script::new();
    let ping = socket(&s.stack, Family::Inet, Kind::Dgram, 1);
    ping.set_option(Opt::RecvErr(true)).unwrap();
    send_to(&ping, host(50), &icmp(8, 0, b"x")).unwrap();
    send_to(&ping, peer(), &icmp(8, 0, b"x")).unwrap();
    s.advance(0);
    let sent = s.out.pop_back().unwrap();
    let mut telling = vec![11, 0, 0, 0, 0, 0, 0, 0];
    telling.extend(&sent[14..]);
    let sum = !fold(&telling, 0);
    telling[2..4].copy_from_slice(&sum.to_be_bytes());
    s.inject(&ip_frame(OURS, host(200), host(1), 1, &telling));
    assert!(ping.poll().contains(Events::ERR));
    assert_eq!(recv(&ping).err(), Some(Errno::EHOSTUNREACH));
    let mut sink = VecSink::new(100);
    let meta = ping.recv(&mut sink, MsgFlags::ERRQUEUE).unwrap();
    let Control::RecvErr(error) = meta.control[0] else {
        panic!("{meta:?}")
    };
    assert_eq!((error.icmp_type, error.origin), (11, 2));
    assert_eq!(error.offender, Some(IpAddr::V4(host(200))));
    assert_eq!(meta.from.unwrap().ip(), IpAddr::V4(peer()));
    assert!(!meta.flags.contains(MsgFlags::TRUNC));
    // What does not fit is cut, and said to be.
    s.inject(&ip_frame(OURS, host(200), host(1), 1, &telling));
    let meta = ping.recv(&mut VecSink::new(4), MsgFlags::ERRQUEUE).unwrap();
    assert!(meta.len == 4 && meta.full_len > 4 && meta.flags.contains(MsgFlags::TRUNC));
}

#[test]
fn checksums_of_ipv6() {
    let s = Script::new();
    let raw = socket(&s.stack, Family::Inet6, Kind::Raw, 253);
    assert_eq!(raw.option(OptName::Checksum6), Ok(Opt::Checksum6(-1)));
    assert_eq!(raw.set_option(Opt::Checksum6(3)), Err(Errno::EINVAL));
    raw.set_option(Opt::Checksum6(2)).unwrap();
    assert_eq!(send_to(&raw, Ipv6Addr::LOCALHOST, &[1, 2, 0, 0, 5]), Ok(5));
    let (bytes, _) = recv(&raw).unwrap();
    let lo = Ipv6Addr::LOCALHOST.octets();
    let pseudo = u32::from(fold(&[lo, lo].concat(), 253 + 5));
    assert_eq!(fold(&bytes, pseudo), 0xffff);
    assert_eq!(
        send_to(&raw, Ipv6Addr::LOCALHOST, &[1, 2, 0]),
        Err(Errno::EINVAL)
    );
    let icmp = socket(&s.stack, Family::Inet6, Kind::Raw, 58);
    assert_eq!(icmp.set_option(Opt::Checksum6(2)), Err(Errno::EINVAL));
    let mut filter = [u32::MAX; 8];
    filter[4] = !2;
    icmp.set_option(Opt::Icmp6Filter(filter)).unwrap();
    send_to(&icmp, Ipv6Addr::LOCALHOST, &[128, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    assert_eq!(recv(&icmp).unwrap().0[0], 129);
}

#[test]
fn a_full_queue_counts_what_it_drops() {
    let mut s = Script::new();
    let raw = socket(&s.stack, Family::Inet, Kind::Raw, 89);
    raw.set_option(Opt::RcvBuf(4096)).unwrap();
    for _ in 0..20 {
        s.inject(&ip_frame(OURS, peer(), host(1), 89, &[1; 1000]));
    }
    let row = s.stack.raw_sockets().remove(0);
    assert!(row.drops > 10 && row.recv_queue <= 8192, "{row:?}");
    while recv(&raw).is_ok() {}
    assert_eq!(s.stack.memory(), 0);
}
