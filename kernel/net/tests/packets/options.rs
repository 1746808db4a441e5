//! What the options of `tcp(7)` do on the wire.

use super::*;

#[test]
fn delayed_and_quick_acknowledgements() {
    let mut s = Script::new();
    let (server, mut seq, iss) = connection(&mut s, &PLAIN);
    // At the start they are quick: the peer is in slow start.
    for _ in 0..16 {
        s.send(&seg(seq, iss, ACK, b"x"));
        seq += 1;
        assert_eq!(s.expect_after(2, "quick ACK").ack, seq);
    }
    s.send(&seg(seq, iss, ACK, b"x"));
    assert_eq!(s.expect_after(40, "delayed ACK").ack, seq + 1);
    seq += 1;
    server.set_option(Opt::QuickAck(true)).unwrap();
    s.send(&seg(seq, iss, ACK, b"x"));
    assert_eq!(s.expect_after(2, "quick ACK").ack, seq + 1);
    seq += 1;
    server.set_option(Opt::QuickAck(false)).unwrap();
    s.send(&seg(seq, iss, ACK, b"x"));
    assert_eq!(s.expect_after(40, "delayed ACK").ack, seq + 1);
    // One that waits goes when quickness is asked for.
    s.send(&seg(seq + 1, iss, ACK, b"x"));
    s.silence();
    server.set_option(Opt::QuickAck(true)).unwrap();
    assert_eq!(s.expect("ACK").ack, seq + 2);
}

#[test]
fn the_segment_size_asked_for() {
    let mut s = Script::new();
    let listener = s.listen(80, 4);
    listener.set_option(Opt::MaxSeg(1000)).unwrap();
    s.send(&Seg {
        options: PLAIN.to_vec(),
        ..seg(1000, 0, SYN, b"")
    });
    let answer = s.expect("SYN-ACK");
    assert_eq!(find(&answer.options, 2), Some(vec![2, 4, 3, 232]));
    let iss = answer.seq.wrapping_add(1);
    s.send(&seg(1001, iss, ACK, b""));
    let server = listener.accept().unwrap();
    write(&server, &[1; 2000]).unwrap();
    assert_eq!(s.expect("data").data.len(), 1000);
    assert_eq!(s.expect("data").data.len(), 1000);
    assert_eq!(server.option(OptName::MaxSeg), Ok(Opt::MaxSeg(1000)));
    // A peer that says nothing takes 536 (RFC 9293 §3.7.1).
    let mut s = Script::new();
    let (server, ..) = connection(&mut s, &[]);
    write(&server, &[1; 1000]).unwrap();
    assert_eq!(s.expect("data").data.len(), 536);
}

#[test]
fn how_often_a_syn_is_sent() {
    let mut s = Script::new();
    let client = s.socket(Kind::Stream);
    client.set_option(Opt::SynCnt(2)).unwrap();
    let to = Some(SocketAddr::new(peer().into(), 443));
    assert_eq!(client.connect(to), Err(Errno::EINPROGRESS));
    s.expect("SYN");
    s.expect_after(1000, "SYN again");
    s.expect_after(2000, "SYN again");
    s.advance(3 * SECOND);
    assert_eq!(client.connect_result(), None);
    s.advance(SECOND + 5 * MS);
    s.silence();
    assert_eq!(client.connect_result(), Some(Err(Errno::ETIMEDOUT)));
}

#[test]
fn a_writer_may_be_told_of_room_only_when_little_waits() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server.set_option(Opt::NotSentLowat(2000)).unwrap();
    write(&server, &[1; 20 * 1460]).unwrap();
    for _ in 0..10 {
        s.expect("data");
    }
    assert_eq!(info(&server).notsent_bytes, 10 * 1460);
    assert!(!server.poll().contains(Events::OUT));
    for i in 1..=10 {
        s.send(&seg(seq, iss + i * 1460, ACK, b""));
    }
    assert_eq!(info(&server).notsent_bytes, 0);
    assert!(server.poll().contains(Events::OUT));
}

#[test]
fn the_window_may_be_clamped() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server.set_option(Opt::WindowClamp(5000)).unwrap();
    assert_eq!(server.set_option(Opt::WindowClamp(0)), Err(Errno::EINVAL));
    // What was told is not taken back, but nothing is added to it.
    let mut at = seq;
    for _ in 0..60 {
        s.send(&seg(at, iss, ACK, &[1; 1000]));
        at += 1000;
        read(&server, 1000).unwrap();
    }
    s.advance(50 * MS);
    let mut last = None;
    while let Some(ack) = s.next() {
        last = Some(ack);
    }
    let window = last.expect("ACK").window;
    assert!((4000..=5600).contains(&window), "{window}");
}

#[test]
fn a_closed_socket_does_not_wait_long_for_the_peers_fin() {
    // TCP_LINGER2: 3 seconds, then it is forgotten; negative: not a moment.
    for (linger, wait) in [(3, Some(3)), (-1, None)] {
        let mut s = Script::new();
        let (server, seq, iss) = connection(&mut s, &PLAIN);
        server.set_option(Opt::Linger2(linger)).unwrap();
        server.close();
        assert!(s.expect("FIN").is(FIN | ACK));
        s.send(&seg(seq, iss + 1, ACK, b""));
        if let Some(seconds) = wait {
            s.advance(seconds * SECOND - 5 * MS);
            assert_eq!(s.stack.flow_counts().0, 1);
            s.advance(10 * MS);
        } else {
            assert!(s.expect("RST").flags & RST != 0);
        }
        assert_eq!(s.stack.flow_counts(), (0, 0));
        s.silence();
    }
}

#[test]
fn a_request_is_awaited_only_so_long() {
    // TCP_DEFER_ACCEPT of 3 s: after it the SYN-ACK asks once more, and a bare acknowledgement is enough.
    let mut s = Script::new();
    let listener = s.listen(80, 4);
    listener.set_option(Opt::DeferAccept(3)).unwrap();
    assert_eq!(
        listener.option(OptName::DeferAccept),
        Ok(Opt::DeferAccept(3))
    );
    s.send(&seg(1000, 0, SYN, b""));
    let iss = s.expect("SYN-ACK").seq.wrapping_add(1);
    s.send(&seg(1001, iss, ACK, b""));
    s.advance(2900 * MS);
    s.silence();
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    s.advance(400 * MS);
    assert!(s.expect("SYN-ACK").is(SYN | ACK));
    s.send(&seg(1001, iss, ACK, b""));
    assert!(listener.accept().is_ok());
}

#[test]
fn when_the_last_of_the_data_arrived() {
    // SO_TIMESTAMP: as Linux has it on a stream, of what a read returns the time of the last segment.
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    let take = |most: usize, flags: MsgFlags| {
        let mut sink = VecSink::new(most);
        let meta = server.recv(&mut sink, flags).unwrap();
        let at = match meta.control[..] {
            [] => None,
            [net::Control::Timestamp(at)] => Some(at),
            ref other => panic!("{other:?}"),
        };
        (sink.into_bytes(), at)
    };
    let none = MsgFlags::empty();
    s.send(&seg(seq, iss, ACK, b"before"));
    assert_eq!(take(9, none), (b"before".to_vec(), None), "not asked for");
    assert_eq!(server.option(OptName::Timestamp), Ok(Opt::Timestamp(false)));
    server.set_option(Opt::Timestamp(true)).unwrap();
    let seq = seq + 6;
    let mut times = vec![];
    for (at, data) in [(0, b"abc"), (6, b"ghi"), (3, b"def")] {
        s.advance(10 * MS);
        times.push(s.now);
        s.send(&seg(seq + at, iss, ACK, data));
    }
    let [first, beyond, gap] = times[..] else {
        panic!()
    };
    assert_eq!(
        take(100, MsgFlags::PEEK),
        (b"abcdefghi".to_vec(), Some(beyond))
    );
    assert_eq!(take(2, MsgFlags::PEEK), (b"ab".to_vec(), Some(first)));
    assert_eq!(take(2, none), (b"ab".to_vec(), Some(first)));
    assert_eq!(take(3, none), (b"cde".to_vec(), Some(gap)));
    assert_eq!(take(100, none), (b"fghi".to_vec(), Some(beyond)));
    server.set_option(Opt::Timestamp(false)).unwrap();
    s.send(&seg(seq + 9, iss, ACK, b"x"));
    assert_eq!(take(1, none).1, None);
}

#[test]
fn who_is_too_far_away_is_not_heard() {
    // IP_MINTTL; the script's segments come with 64.
    let mut s = Script::new();
    let listener = s.listen(80, 4);
    listener.set_option(Opt::MinTtl(65)).unwrap();
    s.send(&seg(1000, 0, SYN, b""));
    s.silence();
    listener.set_option(Opt::MinTtl(64)).unwrap();
    assert_eq!(listener.option(OptName::MinTtl), Ok(Opt::MinTtl(64)));
    let (server, seq, iss) = s.establish(&listener, 5000, &[]);
    s.send(&seg(seq, iss, ACK, b"near"));
    assert_eq!(read(&server, 9).unwrap(), b"near");
    assert_eq!(server.option(OptName::MinTtl), Ok(Opt::MinTtl(64)));
    server.set_option(Opt::MinTtl(255)).unwrap();
    s.send(&seg(seq + 4, iss, ACK, b"far"));
    s.send(&seg(seq + 4, iss, RST, b""));
    assert_eq!(read(&server, 9), Err(Errno::EAGAIN));
    assert_eq!(s.stack.counters().sum(|c| &c.min_ttl_drop), 3);
    server.set_option(Opt::MinTtl(0)).unwrap();
    s.send(&seg(seq + 4, iss, ACK, b"far"));
    assert_eq!(read(&server, 9).unwrap(), b"far");
}
