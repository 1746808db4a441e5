//! Explicit congestion notification (RFC 3168).

use super::*;

/// A connection that agreed on ECN.
fn agreed(s: &mut Script, options: &[u8]) -> (Arc<dyn Socket>, u32, u32) {
    let listener = s.listen(80, 16);
    s.send(&Seg {
        options: options.to_vec(),
        ..seg(1000, 0, SYN | ECE | CWR, b"")
    });
    let answer = s.expect("SYN-ACK");
    assert_eq!((answer.flags, answer.ecn), (SYN | ACK | ECE, 0));
    let iss = answer.seq.wrapping_add(1);
    s.send(&seg(1001, iss, ACK, b""));
    let server = listener.accept().unwrap();
    listener.close();
    (server, 1001, iss)
}

fn marked(seq: u32, ack: u32, ecn: u8, flags: u8, data: &[u8]) -> Seg {
    Seg {
        ecn,
        ..seg(seq, ack, flags, data)
    }
}

#[test]
fn both_must_agree() {
    let mut s = Script::new();
    let (server, ..) = agreed(&mut s, &SACK);
    assert_eq!(info(&server).options, 2 | 8);
    // One bit alone, and a SYN that is ECT itself, ask for nothing.
    for (flags, ecn) in [(ECE, 0), (CWR, 0), (ECE | CWR, ECT)] {
        let mut s = Script::new();
        let _listener = s.listen(80, 16);
        s.send(&marked(1000, 0, ecn, SYN | flags, b""));
        assert_eq!(s.expect("SYN-ACK").flags, SYN | ACK);
    }
    let mut s = Script::with(|c| c.limits.tcp_ecn = 0, None);
    let _listener = s.listen(80, 16);
    s.send(&seg(1000, 0, SYN | ECE | CWR, b""));
    assert_eq!(s.expect("SYN-ACK").flags, SYN | ACK);
    // A connection without it neither marks nor echoes.
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&marked(seq, iss, CE, ACK, b"x"));
    write(&server, b"y").unwrap();
    let data = s.expect("data");
    assert_eq!((data.flags & (ECE | CWR), data.ecn), (0, 0));
}

#[test]
fn who_connects_asks_if_told_to_and_once() {
    let mut s = Script::with(|c| c.limits.tcp_ecn = 1, None);
    let to = Some(SocketAddr::new(peer().into(), 443));
    let client = s.socket(Kind::Stream);
    assert_eq!(client.connect(to), Err(Errno::EINPROGRESS));
    let syn = s.expect("SYN");
    assert_eq!((syn.flags, syn.ecn), (SYN | ECE | CWR, 0));
    s.send(&Seg {
        sport: 443,
        dport: syn.sport,
        seq: 9,
        ack: syn.seq.wrapping_add(1),
        flags: SYN | ACK | ECE,
        window: 1000,
        ..Seg::default()
    });
    assert_eq!(s.expect("ACK").ecn, 0);
    write(&client, b"hello").unwrap();
    assert_eq!(s.expect("data").ecn, ECT);
    // Routers that drop such SYNs get a plain one the second time.
    let other = s.socket(Kind::Stream);
    assert_eq!(other.connect(to), Err(Errno::EINPROGRESS));
    assert_eq!(s.expect("SYN").flags, SYN | ECE | CWR);
    s.send(&Seg {
        sport: 443,
        dport: syn.sport,
        seq: 10,
        ack: syn.seq.wrapping_add(6),
        flags: ACK,
        window: 1000,
        ..Seg::default()
    });
    assert_eq!(s.expect_after(1000, "plain SYN").flags, SYN);
    // By default it does not ask.
    let mut s = Script::new();
    let client = s.socket(Kind::Stream);
    assert_eq!(client.connect(to), Err(Errno::EINPROGRESS));
    assert_eq!(s.expect("SYN").flags, SYN);
}

#[test]
fn a_mark_is_echoed_until_the_sender_has_slowed_down() {
    let mut s = Script::new();
    let (server, seq, iss) = agreed(&mut s, &SACK);
    s.send(&marked(seq, iss, ECT, ACK, b"a"));
    s.silence();
    assert_eq!(info(&server).options, 2 | 8 | 16, "ECT seen");
    // A mark is told at once, and again with each acknowledgement.
    s.send(&marked(seq + 1, iss, CE, ACK, b"b"));
    let ack = s.expect("ACK");
    assert_eq!((ack.flags, ack.ack), (ACK | ECE, seq + 2));
    write(&server, b"x").unwrap();
    let data = s.expect("data");
    assert_eq!((data.flags, data.ecn), (ACK | PSH | ECE, ECT));
    s.send(&marked(seq + 2, iss + 1, ECT, ACK | CWR, b"c"));
    let ack = s.expect("ACK");
    assert_eq!((ack.flags, ack.ack), (ACK, seq + 3));
    // A new mark after that starts over.
    s.send(&marked(seq + 3, iss + 1, CE, ACK, b"d"));
    assert_eq!(s.expect("ACK").flags, ACK | ECE);
    // CWR on a segment that is itself marked ends one echo and begins the next.
    s.send(&marked(seq + 4, iss + 1, CE, ACK | CWR, b"e"));
    assert_eq!(s.expect("ACK").flags, ACK | ECE);
}

#[test]
fn an_echo_reduces_the_window_once_a_round_trip() {
    let mut s = Script::new();
    let (server, seq, iss) = agreed(&mut s, &SACK);
    write(&server, &[7; 40 * 1460]).unwrap();
    for i in 0..10 {
        let data = s.expect("initial window");
        assert_eq!((data.seq, data.ecn), (iss + i * 1460, ECT));
        assert_eq!(data.flags & (ECE | CWR), 0);
    }
    assert_eq!(info(&server).snd_cwnd, 10);
    s.send(&seg(seq, iss + 1460, ACK | ECE, b""));
    let after = info(&server);
    assert_eq!(
        (after.ca_state, after.snd_ssthresh),
        (2, 7),
        "CWR, beta 0.7"
    );
    let first = s.expect("the first after the reduction");
    assert_eq!((first.flags & CWR, first.ecn), (CWR, ECT));
    // More echoes of the same round trip change nothing more, and CWR is said once.
    let mut fresh = vec![];
    for i in 2..=10 {
        s.send(&seg(seq, iss + i * 1460, ACK | ECE, b""));
        while let Some(data) = s.next() {
            assert_eq!((data.flags & CWR, data.ecn), (0, ECT));
            fresh.push(data.seq);
        }
    }
    let end = info(&server);
    assert_eq!(end.snd_ssthresh, 7);
    assert!(end.unacked <= 8, "{end:?}");
    assert_eq!(end.retrans + end.total_retrans, 0);
    assert_eq!(end.delivered_ce, 10);
    // What was sent after the reduction is acknowledged: over.
    s.send(&seg(seq, iss + 11 * 1460, ACK, b""));
    assert_eq!(info(&server).ca_state, 0);
    assert_eq!(info(&server).snd_cwnd, 7);
}

#[test]
fn a_retransmission_is_not_capable_and_its_loss_reduces_with_cwr() {
    let mut s = Script::new();
    let (server, seq, iss) = agreed(&mut s, &PLAIN);
    write(&server, b"abc").unwrap();
    assert_eq!(s.expect("data").ecn, ECT);
    let again = s.expect_after(200, "retransmission");
    assert_eq!((again.seq, again.ecn, again.flags & CWR), (iss, 0, 0));
    s.send(&seg(seq, iss + 3, ACK, b""));
    write(&server, b"def").unwrap();
    let data = s.expect("data");
    assert_eq!((data.ecn, data.flags & CWR), (ECT, CWR));
    write(&server, b"ghi").unwrap();
    s.send(&seg(seq, iss + 6, ACK, b""));
    assert_eq!(s.expect("data").flags & CWR, 0);
}

#[test]
fn it_survives_a_syn_cookie() {
    let mut s = Script::with(|c| c.limits.syn_backlog = 1, None);
    let listener = s.listen(80, 8);
    s.send(&Seg {
        sport: 9,
        ..seg(1, 0, SYN, b"")
    });
    s.expect("SYN-ACK of a half-open connection");
    for (sport, flags, options) in [(5000, ECE | CWR, 7 | 8), (5001, 0, 7)] {
        s.send(&Seg {
            sport,
            options: FULL.to_vec(),
            ..seg(1000, 0, SYN | flags, b"")
        });
        let answer = s.expect("cookie");
        assert_eq!(answer.flags & ECE, flags & ECE);
        s.send(&Seg {
            sport,
            options: ts(2, tsval(&answer.options)),
            ..seg(1001, answer.seq.wrapping_add(1), ACK, b"")
        });
        let server = listener.accept().expect("accepted");
        assert_eq!(info(&server).options, options);
    }
    assert_eq!(s.stack.counters().sum(|c| &c.syncookies_recv), 2);
}
