//! Taps: who sees which frame, bounded queues, frames sent by hand. Routes and links changed by hand.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::host;
use common::script::*;
use errno::Errno;
use iobuf::SliceSource;
use net::query::RouteInfo;
use net::tap::{FRAME_COST, Seen};
use net::{Cidr, FrameKind, Kind, SendMeta, Socket, TapConfig};

fn send_to(socket: &Arc<dyn Socket>, to: Ipv4Addr, bytes: &[u8]) {
    let meta = SendMeta {
        to: Some(SocketAddr::new(to.into(), 9)),
        ..SendMeta::default()
    };
    socket.send(&mut SliceSource::new(bytes), &meta).unwrap();
}

#[test]
fn a_tap_sees_both_directions_with_their_times() {
    let mut s = Script::new();
    let tap = s
        .stack
        .tap(TapConfig {
            index: 2,
            ..TapConfig::default()
        })
        .unwrap();
    let other = s
        .stack
        .tap(TapConfig {
            index: 1,
            ..TapConfig::default()
        })
        .unwrap();
    let frame = ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 253, b"in");
    s.inject(&frame);
    let seen = tap.next().unwrap();
    assert_eq!(
        (seen.bytes, seen.kind, seen.index),
        (frame, FrameKind::Host, 2)
    );
    assert_eq!(seen.at_ns, s.now);
    // The answer: protocol unreachable.
    let seen = tap.next().unwrap();
    assert_eq!((seen.kind, seen.bytes[23]), (FrameKind::Outgoing, 1));
    assert!(tap.next().is_none());
    assert!(other.next().is_none());
    assert_eq!(tap.config().index, 2);
    drop(tap);
    s.inject(&ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 253, b"in"));
    assert_eq!(
        s.stack
            .tap(TapConfig {
                index: 9,
                ..TapConfig::default()
            })
            .err(),
        Some(Errno::ENODEV)
    );
}

#[test]
fn lo_is_seen_out_and_in() {
    let s = Script::new();
    let tap = s.stack.tap(TapConfig::default()).unwrap();
    let socket = s.socket(Kind::Dgram);
    send_to(&socket, Ipv4Addr::LOCALHOST, b"data");
    let kinds: Vec<_> = std::iter::from_fn(|| tap.next())
        .map(|f| (f.kind, f.bytes[23]))
        .collect();
    // The datagram, and that nobody has its port.
    let (out, host) = (FrameKind::Outgoing, FrameKind::Host);
    assert_eq!(kinds, [(out, 17), (host, 17), (out, 1), (host, 1)]);
}

#[test]
fn what_does_not_fit_is_cut_or_counted() {
    let s = Script::new();
    let config = TapConfig {
        index: 1,
        snaplen: 42,
        outgoing: false,
        protocol: Some(0x0800),
        capacity: 2 * (42 + FRAME_COST),
        ..TapConfig::default()
    };
    let tap = s.stack.tap(config.clone()).unwrap();
    let socket = s.socket(Kind::Dgram);
    let receiver = s.socket(Kind::Dgram);
    receiver
        .bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9))
        .unwrap();
    for _ in 0..3 {
        send_to(&socket, Ipv4Addr::LOCALHOST, &[7; 3000]);
    }
    assert_eq!((tap.seen(), tap.dropped()), (3, 1));
    assert_eq!(
        (tap.next_len(), tap.queued()),
        (Some(42), 2 * (42 + FRAME_COST))
    );
    let seen = tap.next().unwrap();
    assert_eq!((seen.len, seen.bytes.len()), (3042, 42));
    // A filter that keeps less, or nothing.
    while tap.next().is_some() {}
    let filter = Arc::new(|seen: &Seen<'_>| {
        assert_eq!(seen.bytes.len(), seen.len.min(42));
        if seen.len > 100 { 0 } else { 20 }
    });
    tap.set_config(TapConfig {
        filter: Some(filter),
        ..config
    })
    .unwrap();
    send_to(&socket, Ipv4Addr::LOCALHOST, &[7; 3000]);
    send_to(&socket, Ipv4Addr::LOCALHOST, b"small");
    assert_eq!(tap.next().unwrap().bytes.len(), 20);
    assert!(tap.next().is_none());
}

#[test]
fn others_frames_show_when_promiscuous() {
    let mut s = Script::new();
    let tap = s
        .stack
        .tap(TapConfig {
            index: 2,
            ..TapConfig::default()
        })
        .unwrap();
    let frame = ip_frame([2, 0, 0, 0, 0, 77], peer(), host(77), 17, &[0; 8]);
    s.inject(&frame);
    assert!(tap.next().is_none());
    s.stack.promiscuous(2, true).unwrap();
    assert!(s.stack.links()[1].promiscuous);
    s.inject(&frame);
    assert_eq!(tap.next().unwrap().kind, FrameKind::OtherHost);
    s.stack.promiscuous(2, false).unwrap();
    assert!(!s.stack.links()[1].promiscuous);
    s.inject(&frame);
    assert!(tap.next().is_none());
}

#[test]
fn frames_sent_by_hand_leave_as_they_are() {
    let mut s = Script::new();
    let tap = s.stack.tap(TapConfig::default()).unwrap();
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend([5; 400]);
    assert_eq!(s.stack.send_frame(2, &frame), Ok(414));
    assert_eq!(s.nic.take_sent(), [frame.clone()]);
    assert_eq!(tap.next().unwrap().bytes, frame);
    assert_eq!(s.stack.send_frame(2, &[0; 1519]), Err(Errno::EMSGSIZE));
    assert_eq!(s.stack.send_frame(2, &[0; 13]), Err(Errno::EINVAL));
    assert_eq!(s.stack.send_frame(7, &frame), Err(Errno::ENODEV));
    // Over lo it comes back.
    assert_eq!(s.stack.send_frame(1, &frame), Ok(414));
    let kinds: Vec<_> = std::iter::from_fn(|| tap.next()).map(|f| f.kind).collect();
    assert_eq!(kinds, [FrameKind::Outgoing, FrameKind::Host]);
    s.advance(0);
}

#[test]
fn a_route_goes_alone() {
    let s = Script::new();
    let route = |metric| RouteInfo {
        dst: Cidr::new("10.99.0.0".parse().unwrap(), 16).unwrap(),
        gateway: None,
        index: 2,
        source: None,
        metric,
        protocol: 4,
    };
    let there = || {
        let all = s.stack.routes().into_iter();
        all.filter(|r| r.protocol == 4)
            .map(|r| r.metric)
            .collect::<Vec<_>>()
    };
    s.stack.add_route(route(7)).unwrap();
    s.stack.add_route(route(0)).unwrap();
    assert_eq!(there(), [0, 7]);
    s.stack.remove_route(&route(7)).unwrap();
    assert_eq!(there(), [0]);
    assert_eq!(s.stack.remove_route(&route(7)), Err(Errno::ESRCH));
    s.stack.remove_route(&route(0)).unwrap();
    assert!(there().is_empty());
}

#[test]
fn an_mtu_is_told_as_it_was_set() {
    let s = Script::new();
    let mtu = |index: usize| s.stack.links()[index].mtu;
    assert_eq!((mtu(0), mtu(1)), (65_536, 1500));
    s.stack.set_mtu(1, 1500).unwrap();
    s.stack.set_mtu(2, 1400).unwrap();
    assert_eq!((mtu(0), mtu(1)), (1500, 1400));
    s.stack.set_mtu(1, 65_536).unwrap();
    assert_eq!(mtu(0), 65_536);
    assert_eq!(s.stack.set_mtu(2, 1501), Err(Errno::EINVAL));
}

#[test]
fn what_goes_through_a_router_comes_from_its_network() {
    let s = Script::new();
    let own = Ipv4Addr::new(10, 98, 0, 5);
    s.stack
        .add_address(2, Cidr::new(own.into(), 24).unwrap())
        .unwrap();
    let route = RouteInfo {
        dst: Cidr::new("10.99.0.0".parse().unwrap(), 16).unwrap(),
        gateway: Some("10.98.0.1".parse().unwrap()),
        index: 2,
        source: None,
        metric: 0,
        protocol: 4,
    };
    s.stack.add_route(route).unwrap();
    let socket = s.socket(Kind::Dgram);
    socket
        .connect(Some("10.99.1.1:9".parse().unwrap()))
        .unwrap();
    assert_eq!(socket.local_addr().unwrap().ip(), own);
}
