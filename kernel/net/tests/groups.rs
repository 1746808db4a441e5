//! Multicast groups: who gets what, and what routers are told (IGMP, MLD), by script.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use common::script::*;
use common::{SECOND, fold, host};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::{
    Family, GroupFilter, Kind, Membership, MsgFlags, Opt, SendMeta, Socket, SourceMembership,
};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

fn membership(group: impl Into<IpAddr>, index: u32) -> Membership {
    Membership {
        group: group.into(),
        interface: Ipv4Addr::UNSPECIFIED,
        index,
    }
}

fn source(n: u8) -> SourceMembership {
    SourceMembership {
        membership: membership(GROUP, 2),
        source: host(n).into(),
    }
}

/// The IGMP messages sent: destination and message.
fn sent(s: &mut Script) -> Vec<(Ipv4Addr, Vec<u8>)> {
    s.out.extend(s.nic.take_sent());
    let mut all = Vec::new();
    for f in s
        .out
        .drain(..)
        .filter(|f| f[12..14] == [8, 0] && f[23] == 2)
    {
        assert_eq!(f[14], 0x46, "router alert");
        assert_eq!(f[34..38], [0x94, 4, 0, 0]);
        assert_eq!(f[22], 1, "TTL");
        assert_eq!((fold(&f[14..38], 0), fold(&f[38..], 0)), (0xffff, 0xffff));
        assert_eq!(f[..3], [1, 0, 0x5e]);
        let to: [u8; 4] = f[30..34].try_into().unwrap();
        all.push((to.into(), f[38..].to_vec()));
    }
    all
}

/// An IGMPv3 report of one group.
fn report(kind: u8, sources: &[u8]) -> (Ipv4Addr, Vec<u8>) {
    let mut m = vec![0x22, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, sources.len() as u8];
    m.extend(GROUP.octets());
    for n in sources {
        m.extend(host(*n).octets());
    }
    let sum = !fold(&m, 0);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    (Ipv4Addr::new(224, 0, 0, 22), m)
}

fn old(kind: u8, to: Ipv4Addr) -> (Ipv4Addr, Vec<u8>) {
    let mut m = vec![kind, 0, 0, 0];
    m.extend(GROUP.octets());
    let sum = !fold(&m, 0);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    (to, m)
}

fn query(s: &mut Script, mut m: Vec<u8>) {
    let sum = !fold(&m, 0);
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    let to = Ipv4Addr::new(224, 0, 0, 1);
    s.inject(&ip_frame([1, 0, 0x5e, 0, 0, 1], host(254), to, 2, &m));
}

fn datagram(s: &mut Script, from: Ipv4Addr) {
    let mut u = vec![0, 9, 0, 77, 0, 12, 0, 0];
    u.extend(b"data");
    s.inject(&ip_frame([1, 0, 0x5e, 1, 2, 3], from, GROUP, 17, &u));
}

fn got(socket: &Arc<dyn Socket>) -> bool {
    socket
        .recv(&mut VecSink::new(100), MsgFlags::empty())
        .is_ok()
}

fn listener(s: &Script) -> Arc<dyn Socket> {
    let socket = s.socket(Kind::Dgram);
    socket.set_option(Opt::ReuseAddr(true)).unwrap();
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 77);
    socket.bind(any).unwrap();
    socket
}

#[test]
fn joins_and_leaves_are_told_twice() {
    let mut s = Script::new();
    let socket = listener(&s);
    datagram(&mut s, peer());
    assert!(!got(&socket), "nobody joined");
    socket.set_option(Opt::Join(membership(GROUP, 2))).unwrap();
    assert_eq!(sent(&mut s), [report(4, &[])]);
    s.advance(5 * SECOND);
    assert_eq!(sent(&mut s), [report(4, &[])]);
    assert_eq!(s.stack.groups().len(), 1);
    datagram(&mut s, peer());
    assert!(got(&socket));
    // A second listener changes nothing.
    let second = listener(&s);
    second.set_option(Opt::Join(membership(GROUP, 2))).unwrap();
    second.close();
    assert_eq!(sent(&mut s), []);
    let again = Opt::Join(membership(GROUP, 2));
    assert_eq!(socket.set_option(again), Err(Errno::EADDRINUSE));
    socket.close();
    assert_eq!(sent(&mut s), [report(3, &[])]);
    s.advance(5 * SECOND);
    assert_eq!(sent(&mut s), [report(3, &[])]);
    s.advance(60 * SECOND);
    assert_eq!(sent(&mut s), []);
    assert!(s.stack.groups().is_empty());
}

#[test]
fn senders_are_chosen() {
    let mut s = Script::new();
    let socket = listener(&s);
    socket.set_option(Opt::MulticastAll(false)).unwrap();
    socket.set_option(Opt::JoinSource(source(9))).unwrap();
    assert_eq!(sent(&mut s), [report(5, &[9])]);
    datagram(&mut s, host(9));
    assert!(got(&socket));
    datagram(&mut s, host(8));
    assert!(!got(&socket));
    s.advance(2 * SECOND);
    sent(&mut s);
    socket.set_option(Opt::JoinSource(source(8))).unwrap();
    assert_eq!(sent(&mut s), [report(5, &[8])]);
    datagram(&mut s, host(8));
    assert!(got(&socket));
    s.advance(2 * SECOND);
    sent(&mut s);
    // All but one.
    let filter = GroupFilter {
        membership: membership(GROUP, 2),
        exclude: true,
        sources: vec![host(9).into()],
    };
    socket.set_option(Opt::SourceFilter(filter)).unwrap();
    assert_eq!(sent(&mut s), [report(4, &[9])]);
    datagram(&mut s, host(9));
    assert!(!got(&socket));
    s.advance(2 * SECOND);
    sent(&mut s);
    socket.set_option(Opt::UnblockSource(source(9))).unwrap();
    assert_eq!(sent(&mut s), [report(5, &[9])]);
    socket.set_option(Opt::Leave(membership(GROUP, 0))).unwrap();
    // What was to be told of the sources is now told of the group.
    assert_eq!(sent(&mut s), [report(3, &[])]);
}

#[test]
fn routers_ask() {
    let mut s = Script::new();
    let socket = listener(&s);
    socket.set_option(Opt::Join(membership(GROUP, 2))).unwrap();
    s.advance(5 * SECOND);
    sent(&mut s);
    query(&mut s, vec![0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0]);
    assert_eq!(sent(&mut s), []);
    s.advance(10 * SECOND);
    assert_eq!(sent(&mut s), [report(2, &[])]);
    let mut about = vec![0x11, 10, 0, 0];
    about.extend(GROUP.octets());
    about.extend([2, 125, 0, 1]);
    about.extend(host(9).octets());
    query(&mut s, about.clone());
    s.advance(SECOND);
    assert_eq!(sent(&mut s), [report(1, &[9])]);
    // Sources that are not there.
    about[11] = 200;
    query(&mut s, about);
    s.advance(SECOND);
    assert_eq!(sent(&mut s), []);
}

#[test]
fn an_old_router_is_spoken_to_in_its_version() {
    let mut s = Script::new();
    query(&mut s, vec![0x11, 100, 0, 0, 0, 0, 0, 0]);
    let socket = listener(&s);
    socket.set_option(Opt::Join(membership(GROUP, 2))).unwrap();
    assert_eq!(sent(&mut s), [old(0x16, GROUP)]);
    s.advance(10 * SECOND);
    assert_eq!(sent(&mut s), [old(0x16, GROUP)]);
    query(&mut s, vec![0x11, 100, 0, 0, 0, 0, 0, 0]);
    // Another member answers first.
    let (to, m) = old(0x16, GROUP);
    s.inject(&ip_frame([1, 0, 0x5e, 1, 2, 3], host(8), to, 2, &m));
    s.advance(10 * SECOND);
    assert_eq!(sent(&mut s), []);
    query(&mut s, vec![0x11, 100, 0, 0, 0, 0, 0, 0]);
    s.advance(10 * SECOND);
    assert_eq!(sent(&mut s), [old(0x16, GROUP)]);
    socket.set_option(Opt::Leave(membership(GROUP, 2))).unwrap();
    assert_eq!(sent(&mut s), [old(0x17, Ipv4Addr::new(224, 0, 0, 2))]);
    // After a while it is forgotten.
    s.advance(300 * SECOND);
    socket.set_option(Opt::Join(membership(GROUP, 2))).unwrap();
    assert_eq!(sent(&mut s), [report(4, &[])]);
}

#[test]
fn what_is_sent_comes_back_to_members_here() {
    let mut s = Script::new();
    let socket = listener(&s);
    let send = |s: &Script| {
        let sender = s.socket(Kind::Dgram);
        let meta = SendMeta {
            to: Some(SocketAddr::new(GROUP.into(), 77)),
            ..SendMeta::default()
        };
        sender.set_option(Opt::MulticastIf((host(1), 0))).unwrap();
        sender.send(&mut SliceSource::new(b"x"), &meta).unwrap();
        sender.set_option(Opt::MulticastLoop(false)).unwrap();
        sender.send(&mut SliceSource::new(b"y"), &meta).unwrap();
    };
    send(&s);
    assert!(!got(&socket));
    socket.set_option(Opt::Join(membership(GROUP, 2))).unwrap();
    send(&s);
    let mut sink = VecSink::new(100);
    let meta = socket.recv(&mut sink, MsgFlags::empty()).unwrap();
    assert_eq!(meta.from.unwrap().ip(), IpAddr::V4(host(1)));
    assert_eq!(sink.into_bytes(), b"x");
    assert!(!got(&socket));
    s.advance(0);
    let frames = s
        .out
        .iter()
        .filter(|f| f[..6] == [1, 0, 0x5e, 1, 2, 3])
        .count();
    assert_eq!(frames, 4);
}

#[test]
fn groups_of_ipv6_are_told_with_mld() {
    let mut s = Script::new();
    let group: Ipv6Addr = "ff15::77".parse().unwrap();
    let socket = s.stack.socket(Family::Inet6, Kind::Dgram, 0).unwrap();
    socket.set_option(Opt::Join(membership(group, 2))).unwrap();
    s.advance(0);
    let f = s.out.drain(..).next().unwrap();
    assert_eq!(f[..6], [0x33, 0x33, 0, 0, 0, 0x16]);
    // Hop-by-hop options with the router alert, hop limit 1.
    assert_eq!((f[20], f[21]), (0, 1));
    assert_eq!(f[54..62], [58, 0, 5, 2, 0, 0, 1, 0]);
    assert_eq!((f[62], f[69], f[70]), (143, 1, 4));
    assert_eq!(f[74..90], group.octets());
    let pseudo = u32::from(fold(&f[22..54], 58 + (f.len() - 62) as u32));
    assert_eq!(fold(&f[62..], pseudo), 0xffff);
    s.advance(5 * SECOND);
    s.out.clear();
    // A router of the first version.
    let mut q = vec![130, 0, 0, 0, 0x03, 0xe8, 0, 0];
    q.extend([0; 16]);
    let router: Ipv6Addr = "fe80::9".parse().unwrap();
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let mut frame = vec![
        0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 1,
    ];
    frame.extend(router.octets());
    frame.extend(all.octets());
    let pseudo = u32::from(fold(&frame[22..54], 58 + 24));
    let sum = !fold(&q, pseudo);
    q[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.extend(q);
    s.inject(&frame);
    s.advance(SECOND);
    let f = s.out.drain(..).next().unwrap();
    assert_eq!((f[62], &f[70..86]), (131, &group.octets()[..]));
    socket.close();
    s.advance(0);
    assert_eq!(s.out.drain(..).next().unwrap()[62], 132);
}
