//! What is bounded, forgotten or looked at again: fragments and neighbours that do not come, and datagrams peeked at.

mod common;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use common::script::{Script, peer};
use common::{MS, SECOND, Weather, World, host};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::nic::RxChecksum;
use net::{Cidr, Family, Ipv6Config, Kind, MsgFlags, Opt, SendMeta, Socket};

fn send_to(socket: &Arc<dyn Socket>, to: SocketAddr, bytes: &[u8]) -> Result<usize, Errno> {
    let meta = SendMeta {
        to: Some(to),
        ..SendMeta::default()
    };
    socket.send(&mut SliceSource::new(bytes), &meta)
}

fn count(world: &World, name: &str) -> u64 {
    let mut found = None;
    world.stacks[0].counters().for_each(|_, counter, value| {
        if counter == name {
            found = Some(value);
        }
    });
    found.expect("the counter")
}

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
}

fn v6_world() -> World {
    let weather = Weather {
        delay_ns: MS,
        ..Weather::default()
    };
    let ipv6 = |n: u8| Ipv6Config::Static {
        addr: Cidr::new(v6(n.into()).into(), 64).unwrap(),
        gateway: None,
    };
    let mut world = World::full(5, weather, [false, false], |_| {}, ipv6);
    world.run(2 * SECOND);
    world
}

#[test]
fn peeking_goes_on_from_where_it_was() {
    // SO_PEEK_OFF counts over datagrams: those that end before it are passed over, none is glued to the next.
    let s = Script::new();
    let (a, b) = (s.socket(Kind::Dgram), s.socket(Kind::Dgram));
    let here = SocketAddr::new(host(1).into(), 700);
    b.bind(here).unwrap();
    assert!(!b.can_peek(0));
    for bytes in [&b"one"[..], b"three", b"", b"x"] {
        send_to(&a, here, bytes).unwrap();
    }
    let peek = |off, most| {
        let mut sink = VecSink::new(most);
        b.peek_from(off, &mut sink, MsgFlags::empty())
            .map(|meta| (sink.into_bytes(), meta.full_len, meta.flags))
    };
    let none = MsgFlags::empty();
    assert_eq!(peek(0, 9), Ok((b"one".to_vec(), 3, none)));
    assert_eq!(peek(1, 1), Ok((b"n".to_vec(), 3, MsgFlags::TRUNC)));
    assert_eq!(peek(3, 9), Ok((b"three".to_vec(), 5, none)));
    assert_eq!(peek(6, 9), Ok((b"ee".to_vec(), 5, none)));
    assert_eq!(peek(8, 9), Ok((vec![], 0, none)), "the empty one");
    assert_eq!(
        peek(8, 9),
        Ok((b"x".to_vec(), 1, none)),
        "the empty one was seen"
    );
    assert!(b.can_peek(8) && !b.can_peek(9));
    assert_eq!(peek(9, 9), Err(Errno::EAGAIN));
    // All of them are still there, in their order.
    for bytes in [&b"one"[..], b"three", b"", b"x"] {
        let mut sink = VecSink::new(9);
        b.recv(&mut sink, none).unwrap();
        assert_eq!(sink.into_bytes(), bytes);
    }
    a.close();
    b.close();
    assert_eq!(s.stack.memory(), 0);
}

#[test]
fn what_waits_for_a_neighbour_is_bounded_by_its_bytes() {
    let mut s = Script::new();
    let socket = s.socket(Kind::Dgram);
    let to = SocketAddr::new(host(77).into(), 9);
    // Many small ones all wait, of large ones the newest 200 KB.
    for (size, sent, least, most) in [(10, 200, 200, 200), (1400, 1000, 100, 152)] {
        for i in 0..sent {
            let mut bytes = vec![0; size];
            bytes[..2].copy_from_slice(&(i as u16).to_be_bytes());
            send_to(&socket, to, &bytes).unwrap();
        }
        s.out.extend(s.nic.take_sent());
        let asked = s.out.iter().filter(|f| f[12..14] == [8, 6]).count();
        assert_eq!((asked, s.out.len()), (1, 1), "asked, and nothing else");
        s.out.clear();
        let mut reply = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 77, 8, 6];
        reply.extend([0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 77]);
        reply.extend(host(77).octets());
        reply.extend([2, 0, 0, 0, 0, 1]);
        reply.extend(host(1).octets());
        s.inject(&reply);
        s.out.extend(s.nic.take_sent());
        let all: Vec<u16> = s
            .out
            .drain(..)
            .filter(|f| f[12..14] == [8, 0] && f[23] == 17)
            .map(|f| u16::from_be_bytes([f[42], f[43]]))
            .collect();
        assert!((least..=most).contains(&all.len()), "{}", all.len());
        let newest: Vec<u16> = (sent as u16 - all.len() as u16..sent as u16).collect();
        assert_eq!(all, newest);
        s.stack.remove_neighbour(2, host(77).into()).unwrap();
    }
    assert_ne!(peer(), host(77));
}

#[test]
fn fragments_that_never_become_whole_are_counted_for_their_protocol() {
    let mut w = v6_world();
    // The first fragment of a datagram, alone.
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0, 0, 24, 44, 64]);
    frame.extend(v6(2).octets());
    frame.extend(v6(1).octets());
    frame.extend([17, 0, 0, 1, 0, 0, 0, 9]);
    frame.extend([0; 16]);
    w.nics[0].inject(&frame, RxChecksum::Unknown);
    w.run(MS);
    assert_eq!(
        (count(&w, "Ip6ReasmReqds"), count(&w, "Ip6ReasmTimeout")),
        (1, 0)
    );
    w.run(62 * SECOND);
    assert_eq!(
        (count(&w, "Ip6ReasmTimeout"), count(&w, "Ip6ReasmFails")),
        (1, 1)
    );
    assert_eq!((count(&w, "ReasmTimeout"), count(&w, "ReasmFails")), (0, 0));
}

#[test]
fn marks_are_counted_for_ipv6_as_well() {
    let mut w = v6_world();
    let socket = |i: usize| w.stacks[i].socket(Family::Inet6, Kind::Dgram, 0).unwrap();
    let (a, b) = (socket(0), socket(1));
    let to = SocketAddr::new(v6(2).into(), 700);
    b.bind(to).unwrap();
    let counts = |w: &World| {
        let counters = w.stacks[1].counters();
        [
            counters.sum(|c| &c.ip6_in_no_ect),
            counters.sum(|c| &c.ip6_in_ect1),
            counters.sum(|c| &c.ip6_in_ect0),
            counters.sum(|c| &c.ip6_in_ce),
        ]
    };
    send_to(&a, to, b"neighbours find each other").unwrap();
    w.run(SECOND);
    let before = counts(&w);
    for (class, times) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
        a.set_option(Opt::TClass(class)).unwrap();
        for _ in 0..times {
            send_to(&a, to, b"x").unwrap();
        }
    }
    w.run(10 * MS);
    let after = counts(&w);
    let new: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    assert_eq!(new, [1, 2, 3, 4]);
    assert!(matches!(a.local_addr().unwrap().ip(), IpAddr::V6(_)));
}
