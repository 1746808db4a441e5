//! That each counter counts what Linux counts under its name.

use std::net::Ipv6Addr;
use std::sync::atomic::Ordering::Relaxed;

use net::Family;

use super::*;

/// What the counters of these names say.
macro_rules! counts {
    ($s:expr, $($name:ident),+) => {
        [$($s.stack.counters().sum(|c| &c.$name)),+]
    };
}

/// An acknowledgement with the SACK blocks of those segments.
fn sacked(seq: u32, ack: u32, iss: u32, blocks: &[(u32, u32)]) -> Seg {
    let mut options = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
    for (left, right) in blocks {
        options.extend((iss + left * 1460).to_be_bytes());
        options.extend((iss + right * 1460).to_be_bytes());
    }
    Seg {
        options,
        ..seg(seq, ack, ACK, b"")
    }
}

fn drain(s: &mut Script) -> Vec<Seg> {
    std::iter::from_fn(|| s.next()).collect()
}

#[test]
fn windows_that_close_and_open() {
    let mut s = Script::new();
    let listener = s.listen(80, 16);
    listener.set_option(Opt::RcvBuf(4000)).unwrap();
    let (server, mut seq, iss) = s.establish(&listener, 5000, &[]);
    let mut last = drain(&mut s).pop();
    for _ in 0..20 {
        s.send(&seg(seq, iss, ACK, &[1; 500]));
        s.advance(50 * MS);
        if let Some(ack) = drain(&mut s).pop() {
            seq = ack.ack;
            last = Some(ack);
        }
    }
    assert_eq!(last.map(|ack| ack.window), Some(0));
    let [to, from, want] = counts!(s, to_zero_window, from_zero_window, want_zero_window);
    assert_eq!((to, from), (1, 0));
    assert!(want >= 1, "it could not be taken back at once");
    assert!(counts!(s, zero_window_drop)[0] >= 1);
    while read(&server, 4000).is_ok_and(|bytes| !bytes.is_empty()) {}
    s.advance(50 * MS);
    assert!(drain(&mut s).pop().is_some_and(|ack| ack.window > 0));
    assert_eq!(counts!(s, to_zero_window, from_zero_window), [1, 1]);
}

#[test]
fn reordering_is_counted_once_for_what_tells_it() {
    let mut s = Script::new();
    let (server, seq, iss) = slow(&mut s, &SACK, 40);
    write(&server, &[7; 8 * 1460]).unwrap();
    assert_eq!(drain(&mut s).len(), 8);
    assert_eq!(counts!(s, orig_data_sent), [8]);
    s.advance(40 * MS);
    // The third is there, then the first two: one event.
    s.send(&sacked(seq, iss, iss, &[(2, 3)]));
    assert_eq!(counts!(s, sack_reorder, delivered), [0, 1]);
    s.send(&seg(seq, iss + 3 * 1460, ACK, b""));
    assert_eq!(
        counts!(s, sack_reorder, ts_reorder, delivered, tcp_retrans_segs),
        [1, 0, 3, 0]
    );
    assert_eq!(info(&server).reord_seen, 1);
}

#[test]
fn a_time_tells_that_what_filled_a_hole_was_only_late() {
    for whole in [false, true] {
        let mut s = Script::new();
        let listener = s.listen(80, 16);
        let (server, seq, iss) = s.establish(&listener, 5000, &FULL);
        write(&server, &[7; 8 * 1448]).unwrap();
        let sent = drain(&mut s);
        assert_eq!(sent.len(), 8);
        let first = tsval(&sent[0].options);
        s.advance(40 * MS);
        let ack = |ack: u32, blocks: &[(u32, u32)]| {
            let mut options = ts(3, first);
            if !blocks.is_empty() {
                options.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
            }
            for (left, right) in blocks {
                options.extend((iss + left * 1448).to_be_bytes());
                options.extend((iss + right * 1448).to_be_bytes());
            }
            Seg {
                options,
                ..seg(seq, iss + ack * 1448, ACK, b"")
            }
        };
        s.send(&ack(0, &[(2, 6)]));
        assert_eq!(info(&server).ca_state, 3);
        assert!(counts!(s, fast_retrans)[0] > 0);
        s.send(&ack(if whole { 8 } else { 1 }, &[]));
        // Open, or disorder while there still is a hole.
        assert_eq!(info(&server).ca_state, u8::from(!whole));
        let [full, partial, late] = counts!(s, full_undo, partial_undo, ts_reorder);
        let part = u64::from(!whole);
        assert_eq!((full, partial, late), (1 - part, part, part));
    }
}

#[test]
fn retransmissions_by_what_they_are_for() {
    let mut s = Script::new();
    let (server, seq, iss) = slow(&mut s, &SACK, 40);
    write(&server, &[7; 10 * 1460]).unwrap();
    assert_eq!(drain(&mut s).len(), 10);
    s.advance(40 * MS);
    s.send(&sacked(seq, iss, iss, &[(2, 10)]));
    let again = drain(&mut s).len() as u64;
    assert!(again >= 1);
    assert_eq!(
        counts!(
            s,
            sack_recovery,
            fast_retrans,
            slow_start_retrans,
            lost_retransmit
        ),
        [1, again, 0, 0]
    );
    // They are lost as well: the timeout's is neither, what follows it is slow start's.
    while counts!(s, timeouts) == [0] {
        s.advance(MS);
    }
    let lost = counts!(s, lost_retransmit)[0];
    assert!(lost >= 1 && lost <= counts!(s, fast_retrans)[0]);
    drain(&mut s);
    assert_eq!(counts!(s, slow_start_retrans), [0]);
    s.send(&sacked(seq, iss + 1460, iss, &[(2, 10)]));
    assert_eq!(drain(&mut s).len(), 1);
    assert_eq!(counts!(s, slow_start_retrans, retrans_fail), [1, 0]);
    // A range that the peer got twice: below the acknowledgement, and beyond the gap.
    s.send(&sacked(seq, iss + 1460, iss, &[(0, 1), (2, 10)]));
    assert_eq!(counts!(s, dsack_recv, dsack_ofo_recv), [1, 0]);
    s.send(&sacked(seq, iss + 1460, iss, &[(4, 5), (2, 10)]));
    assert_eq!(counts!(s, dsack_recv, dsack_ofo_recv), [1, 1]);
}

#[test]
fn what_lies_beyond_a_gap() {
    let mut s = Script::new();
    let (_server, seq, iss) = connection(&mut s, &SACK);
    s.send(&seg(seq + 100, iss, ACK, &[2; 100]));
    s.send(&seg(seq + 200, iss, ACK, &[2; 100]));
    assert_eq!(counts!(s, ofo_queue, ofo_merge), [2, 0]);
    // Again; then one that holds both and more.
    s.send(&seg(seq + 100, iss, ACK, &[2; 100]));
    assert_eq!(counts!(s, ofo_merge, dsack_ofo_sent), [1, 1]);
    s.send(&seg(seq + 50, iss, ACK, &[2; 300]));
    assert_eq!(counts!(s, ofo_merge, dsack_ofo_sent), [3, 2]);
    s.send(&seg(seq, iss, ACK, &[1; 50]));
    assert_eq!(drain(&mut s).pop().map(|ack| ack.ack), Some(seq + 350));
    assert_eq!(counts!(s, delayed_ack_lost, dsack_old_sent), [0, 0]);
    // All of it once more: our acknowledgement was lost. In part: it was not.
    s.send(&seg(seq, iss, ACK, &[1; 350]));
    assert_eq!(counts!(s, delayed_ack_lost, dsack_old_sent), [1, 1]);
    s.send(&seg(seq, iss, ACK, &[1; 351]));
    assert_eq!(counts!(s, delayed_ack_lost, dsack_old_sent), [1, 2]);
    assert_eq!(counts!(s, ofo_drop, rcv_q_drop, rcv_pruned), [0, 0, 0]);
}

#[test]
fn without_memory_what_lies_beyond_a_gap_is_dropped() {
    let mut s = Script::with(|config| config.limits.memory = 64 << 10, None);
    let (_server, mut seq, iss) = connection(&mut s, &PLAIN);
    for _ in 0..200 {
        s.send(&seg(seq, iss, ACK, &[1; 1400]));
        seq = drain(&mut s).pop().map_or(seq, |ack| ack.ack);
    }
    let [in_order, pruned] = counts!(s, rcv_q_drop, rcv_pruned);
    assert!(in_order > 0 && pruned == in_order);
    s.send(&seg(seq + 1, iss, ACK, &[1; 1400]));
    assert_eq!(
        counts!(s, ofo_drop, rcv_q_drop, rcv_pruned),
        [1, in_order, in_order + 1]
    );
}

#[test]
fn small_segments_are_put_together() {
    let mut s = Script::new();
    let (_server, mut seq, iss) = connection(&mut s, &PLAIN);
    for _ in 0..200 {
        s.send(&seg(seq, iss, ACK, &[1; 10]));
        seq += 10;
    }
    let [coalesced] = counts!(s, rcv_coalesce);
    assert!((50..200).contains(&coalesced), "{coalesced}");
}

#[test]
fn a_datagram_is_one_request_however_many_packets_it_becomes() {
    let s = Script::new();
    let socket = s.socket(Kind::Dgram);
    let send = |socket: &Arc<dyn Socket>, bytes: &[u8], meta: &SendMeta| {
        socket.send(&mut SliceSource::new(bytes), meta)
    };
    send(&socket, &[1; 100], &to(peer())).unwrap();
    assert_eq!(counts!(s, ip_out_requests, ip_out_transmits), [1, 1]);
    send(&socket, &[1; 4000], &to(peer())).unwrap();
    assert_eq!(counts!(s, ip_out_requests, ip_out_transmits), [2, 4]);
    assert_eq!(counts!(s, ip_frag_oks, ip_frag_creates), [1, 3]);
    assert_eq!(counts!(s, out_octets), [128 + 4008 + 3 * 20]);
    // An echo that may not be cut is an error of ICMPv6 and no message; IPv4 has no counter for it.
    for (family, protocol, local) in [
        (Family::Inet, 1, to(Ipv4Addr::LOCALHOST)),
        (Family::Inet6, 58, to(Ipv6Addr::LOCALHOST)),
    ] {
        let ping = s.stack.socket(family, Kind::Dgram, protocol).unwrap();
        let whole = net::MtuDiscover::Do;
        ping.set_option(Opt::MtuDiscover(whole)).unwrap();
        let _ = ping.set_option(Opt::MtuDiscover6(whole));
        let mut echo = vec![0; 65_535];
        echo[0] = if protocol == 1 { 8 } else { 128 };
        assert_eq!(send(&ping, &echo, &local), Err(Errno::EMSGSIZE));
    }
    assert_eq!(
        counts!(
            s,
            icmp6_out_errors,
            icmp6_out_msgs,
            icmp_out_errors,
            icmp_out_msgs
        ),
        [1, 0, 0, 0]
    );
}

fn to(addr: impl Into<std::net::IpAddr>) -> SendMeta<'static> {
    SendMeta {
        to: Some(SocketAddr::new(addr.into(), 9)),
        ..SendMeta::default()
    }
}

#[test]
fn no_route_and_many_receivers() {
    let s = Script::with(
        |_| {},
        Some(net::IfConfig {
            ipv4: net::Ipv4Config::Static {
                addr: net::Cidr::new(host(1).into(), 24).unwrap(),
                gateway: None,
            },
            ..net::IfConfig::default()
        }),
    );
    let send = |socket: &Arc<dyn Socket>, meta: &SendMeta| {
        socket.send(&mut SliceSource::new(b"datagram"), meta)
    };
    let socket = s.socket(Kind::Dgram);
    let far = to(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(send(&socket, &far), Err(Errno::ENETUNREACH));
    assert_eq!(counts!(s, ip_out_no_routes, ip6_out_no_routes), [1, 0]);
    let six = s.stack.socket(Family::Inet6, Kind::Dgram, 0).unwrap();
    let far = to(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    assert_eq!(send(&six, &far), Err(Errno::ENETUNREACH));
    assert_eq!(counts!(s, ip_out_no_routes, ip6_out_no_routes), [1, 1]);

    let mcast = counts!(s, out_mcast)[0];
    socket.set_option(Opt::Broadcast(true)).unwrap();
    send(&socket, &to(Ipv4Addr::BROADCAST)).unwrap();
    send(&socket, &to(host(255))).unwrap();
    send(&socket, &to(Ipv4Addr::new(239, 1, 2, 3))).unwrap();
    assert_eq!(counts!(s, out_bcast, out_bcast_octets), [2, 72]);
    assert_eq!(counts!(s, out_mcast)[0] - mcast, 1);

    // By IPv6 is counted apart, and over it only.
    let receiver = s.stack.socket(Family::Inet6, Kind::Dgram, 0).unwrap();
    let here = to(Ipv6Addr::LOCALHOST);
    let before = counts!(s, udp_out_datagrams, udp_in_datagrams);
    receiver.bind(here.to.unwrap()).unwrap();
    send(&six, &here).unwrap();
    assert_eq!(counts!(s, udp6_out_datagrams, udp6_in_datagrams), [1, 1]);
    assert_eq!(counts!(s, udp_out_datagrams, udp_in_datagrams), before);
    receiver.close();
    send(&six, &here).unwrap();
    assert_eq!(counts!(s, udp6_no_ports, udp_no_ports), [1, 0]);

    // In: everybody's, and the network's own.
    let mut s = s;
    let mut udp = vec![0, 9, 0, 9, 0, 10, 0, 0, b'i', b'n'];
    for dst in [Ipv4Addr::BROADCAST, host(255)] {
        s.inject(&ip_frame([0xff; 6], peer(), dst, 17, &udp));
    }
    assert_eq!(counts!(s, in_bcast, in_bcast_octets), [2, 60]);
    // What is to another host is not ours, and no route makes it so.
    udp[1] = 8;
    let other = Ipv4Addr::new(192, 0, 2, 7);
    s.inject(&ip_frame([2, 0, 0, 0, 0, 1], peer(), other, 17, &udp));
    assert_eq!(counts!(s, ip_in_addr_errors, in_no_routes), [1, 0]);
}

#[test]
fn what_the_card_has_no_room_for() {
    let mut s = Script::new();
    let (server, _, _) = connection(&mut s, &PLAIN);
    let socket = s.socket(Kind::Dgram);
    s.nic.full.store(true, Relaxed);
    for _ in 0..1003 {
        let meta = to(peer());
        assert_eq!(socket.send(&mut SliceSource::new(b"x"), &meta), Ok(1));
    }
    assert_eq!(
        counts!(s, udp_out_datagrams, udp_sndbuf_errors, ip_out_discards),
        [1000, 3, 3]
    );
    // TCP sends it again, and that is what is counted; but a reset is sent once only.
    write(&server, b"data").unwrap();
    s.advance(210 * MS);
    let [failed] = counts!(s, retrans_fail);
    assert_eq!(
        counts!(s, timeouts, ip_out_discards, abort_failed),
        [1, 3, 0]
    );
    assert_eq!(failed, 1);
    server
        .set_option(Opt::Linger(Some(std::time::Duration::ZERO)))
        .unwrap();
    server.close();
    assert_eq!(counts!(s, abort_failed), [1]);
}
