//! Opening a connection: options, both sides at once, refusal, the backlog, SYN cookies, deferred accept.

use super::*;

#[test]
fn the_handshake_offers_what_the_peer_offers() {
    let mut s = Script::new();
    let listener = s.listen(80, 16);
    s.send(&Seg {
        options: FULL.to_vec(),
        ..seg(1000, 0, SYN, b"")
    });
    let answer = s.expect("SYN-ACK");
    assert_eq!(find(&answer.options, 2), Some(vec![2, 4, 5, 180]));
    assert!(find(&answer.options, 3).is_some() && find(&answer.options, 4).is_some());
    assert_eq!(find(&answer.options, 8).unwrap()[6..], [0, 0, 0, 1]);
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    // Not answered: again after one and after two more seconds.
    s.advance(SECOND + 5 * MS);
    assert!(s.expect("SYN-ACK again").is(SYN | ACK));
    s.silence();
    s.advance(2 * SECOND + 5 * MS);
    assert!(s.expect("SYN-ACK again").is(SYN | ACK));
    // A plain SYN gets a plain answer.
    s.send(&Seg {
        sport: 6,
        options: PLAIN.to_vec(),
        ..seg(1000, 0, SYN, b"")
    });
    let answer = s.expect("SYN-ACK");
    assert!(find(&answer.options, 3).is_none() && find(&answer.options, 4).is_none());
}

#[test]
fn nobody_listens() {
    let mut s = Script::new();
    s.send(&Seg {
        sport: 1,
        dport: 81,
        ..seg(5, 0, SYN, b"")
    });
    let reset = s.expect("RST");
    assert!(reset.is(RST | ACK) && reset.ack == 6 && reset.seq == 0);
    s.send(&Seg {
        sport: 1,
        dport: 81,
        ..seg(5, 77, ACK, b"")
    });
    let reset = s.expect("RST");
    assert!(reset.is(RST) && reset.seq == 77);
    s.send(&Seg {
        sport: 1,
        dport: 81,
        ..seg(5, 77, RST, b"")
    });
    s.silence();
}

#[test]
fn connecting() {
    let mut s = Script::new();
    let client = s.socket(Kind::Stream);
    let to = Some(SocketAddr::new(peer().into(), 443));
    assert_eq!(client.connect(to), Err(Errno::EINPROGRESS));
    assert_eq!(client.connect(to), Err(Errno::EALREADY));
    let syn = s.expect("SYN");
    assert!(syn.is(SYN));
    assert!(client.connect_result().is_none());
    assert!(!client.poll().intersects(Events::OUT));
    let back = |flags, ack| Seg {
        sport: 443,
        dport: syn.sport,
        seq: 9,
        ack,
        flags,
        window: 1000,
        ..Seg::default()
    };
    // An answer to what was never sent is refused.
    s.send(&back(SYN | ACK, syn.seq.wrapping_add(7)));
    assert!(s.expect("RST").is(RST));
    s.send(&back(SYN | ACK, syn.seq.wrapping_add(1)));
    assert!(s.expect("ACK").is(ACK));
    assert_eq!(client.connect_result(), Some(Ok(())));
    assert_eq!(client.connect(to), Err(Errno::EISCONN));
    assert_eq!(client.peer_addr().ok(), to);
    // Refused.
    let other = s.socket(Kind::Stream);
    assert_eq!(other.connect(to), Err(Errno::EINPROGRESS));
    let syn = s.expect("SYN");
    s.send(&Seg {
        sport: 443,
        dport: syn.sport,
        ack: syn.seq.wrapping_add(1),
        flags: RST | ACK,
        ..Seg::default()
    });
    assert_eq!(other.connect_result(), Some(Err(Errno::ECONNREFUSED)));
    assert_eq!(other.take_error(), None);
    // Silence: six times again, then given up.
    let third = s.socket(Kind::Stream);
    assert_eq!(third.connect(to), Err(Errno::EINPROGRESS));
    s.advance(130 * SECOND);
    let mut count = 0;
    while s.next().is_some() {
        count += 1;
    }
    assert_eq!(count, 7);
    assert_eq!(third.connect_result(), Some(Err(Errno::ETIMEDOUT)));
}

#[test]
fn both_open_at_once() {
    let mut s = Script::new();
    let client = s.socket(Kind::Stream);
    client.bind(SocketAddr::new(host(1).into(), 700)).unwrap();
    let to = Some(SocketAddr::new(peer().into(), 701));
    assert_eq!(client.connect(to), Err(Errno::EINPROGRESS));
    let syn = s.expect("SYN");
    let base = Seg {
        sport: 701,
        dport: 700,
        window: 500,
        ..Seg::default()
    };
    s.send(&Seg {
        seq: 40,
        flags: SYN,
        ..base.clone()
    });
    let both = s.expect("SYN-ACK");
    assert!(both.is(SYN | ACK) && both.seq == syn.seq && both.ack == 41);
    s.send(&Seg {
        seq: 41,
        ack: syn.seq.wrapping_add(1),
        flags: ACK,
        ..base
    });
    assert_eq!(client.connect_result(), Some(Ok(())));
}

#[test]
fn the_backlog_holds_what_linux_would_hold() {
    let mut s = Script::new();
    let listener = s.listen(80, 1);
    // A backlog of one takes two (Linux's "more than").
    for sport in [1, 2] {
        s.send(&Seg {
            sport,
            ..seg(1000, 0, SYN, b"")
        });
        let answer = s.expect("SYN-ACK");
        s.send(&Seg {
            sport,
            ..seg(1001, answer.seq.wrapping_add(1), ACK, b"")
        });
    }
    s.send(&Seg {
        sport: 3,
        ..seg(1000, 0, SYN, b"")
    });
    s.silence();
    assert!(listener.accept().is_ok());
    s.send(&Seg {
        sport: 3,
        ..seg(1000, 0, SYN, b"")
    });
    let answer = s.expect("SYN-ACK");
    s.send(&Seg {
        sport: 3,
        ..seg(1001, answer.seq.wrapping_add(1), ACK, b"hi")
    });
    assert!(listener.accept().is_ok());
    let third = listener.accept().unwrap();
    let mut sink = VecSink::new(9);
    third.recv(&mut sink, MsgFlags::empty()).unwrap();
    assert_eq!(sink.into_bytes(), b"hi");
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
}

#[test]
fn a_flood_of_syns_is_answered_with_cookies_and_a_real_client_served() {
    let mut s = Script::with(|c| c.limits.syn_backlog = 8, None);
    let listener = s.listen(80, 8);
    for i in 0..1000u32 {
        let src = Ipv4Addr::new(10, 0, 1 + (i >> 8) as u8, i as u8);
        s.send_from(
            src,
            &Seg {
                sport: 9,
                ..seg(i, 0, SYN, b"")
            },
        );
    }
    assert!(s.stack.flow_counts().0 <= 8);
    while s.next().is_some() {}
    let (server, seq, iss) = s.establish(&listener, 5000, &FULL);
    let mut data = seg(seq, iss, ACK, b"real");
    data.options = ts(3, 0);
    s.send(&data);
    let mut sink = VecSink::new(9);
    server.recv(&mut sink, MsgFlags::empty()).unwrap();
    assert_eq!(sink.into_bytes(), b"real");
    // The options came back through the timestamp.
    let Ok(Opt::Info(info)) = server.option(OptName::Info) else {
        panic!()
    };
    assert_eq!((info.options, info.snd_wscale), (7, 7));
    // A forged acknowledgement is not a connection.
    s.send(&Seg {
        sport: 77,
        ..seg(5, 6, ACK, b"")
    });
    assert!(s.next().is_some());
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
}

#[test]
fn peeking_takes_nothing_and_defer_accept_waits_for_data() {
    let mut s = Script::new();
    let listener = s.listen(80, 4);
    listener.set_option(Opt::DeferAccept(5)).unwrap();
    s.send(&seg(1000, 0, SYN, b""));
    let iss = s.expect("SYN-ACK").seq.wrapping_add(1);
    s.send(&seg(1001, iss, ACK, b""));
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    s.send(&seg(1001, iss, ACK, b"data"));
    let server = listener.accept().unwrap();
    for _ in 0..2 {
        let mut sink = VecSink::new(2);
        assert_eq!(server.recv(&mut sink, MsgFlags::PEEK).unwrap().len, 2);
        assert_eq!(sink.into_bytes(), b"da");
    }
    assert_eq!(server.input_queued(), 4);
    assert_eq!(read(&server, 10).unwrap(), b"data");
}
