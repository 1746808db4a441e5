//! What is sent when: delayed acknowledgements, windows, probes of a closed one, Nagle and cork.

use super::*;

#[test]
fn a_request_and_its_answer() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    assert_eq!(read(&server, 100), Err(Errno::EAGAIN));
    s.send(&seg(seq, iss, ACK | PSH, b"GET /"));
    assert!(server.poll().contains(Events::IN));
    assert_eq!(read(&server, 100).unwrap(), b"GET /");
    // The acknowledgement waits for the answer and goes with it.
    s.silence();
    assert_eq!(write(&server, b"hello"), Ok(5));
    let answer = s.expect("data");
    assert_eq!(
        (answer.data.as_slice(), answer.ack),
        (&b"hello"[..], seq + 5)
    );
    assert!(answer.flags & PSH != 0);
    s.send(&seg(seq + 5, iss + 5, ACK | FIN, b""));
    let ack = s.expect("ACK of FIN");
    assert!(ack.is(ACK) && ack.ack == seq + 6);
    assert_eq!(read(&server, 100).unwrap(), b"");
    assert!(server.poll().contains(Events::RDHUP));
    server.close();
    assert!(s.expect("FIN").is(FIN | ACK));
    s.send(&seg(seq + 6, iss + 6, ACK, b""));
    s.silence();
    assert_eq!(s.stack.flow_counts(), (0, 0));
}

#[test]
fn an_acknowledgement_is_not_delayed_for_ever() {
    let mut s = Script::new();
    let (_server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&seg(seq, iss, ACK, b"x"));
    s.silence();
    s.advance(45 * MS);
    assert_eq!(s.expect("delayed ACK").ack, seq + 1);
    // The second full segment is acknowledged at once.
    s.send(&seg(seq + 1, iss, ACK, &[1; 1460]));
    s.send(&seg(seq + 1461, iss, ACK, &[2; 1460]));
    assert_eq!(s.expect("ACK").ack, seq + 2921);
}

/// Where a program answers, but late, acknowledgements wait for it longer and longer; until it answers at once again,
/// or the peer sends more without an answer.
#[test]
fn acknowledgements_wait_for_answers_that_come_late() {
    let mut s = Script::new();
    let (server, mut seq, mut iss) = connection(&mut s, &PLAIN);
    let mut ask = |s: &mut Script, iss: u32| {
        s.send(&seg(seq, iss, ACK | PSH, b"?"));
        seq += 1;
        read(&server, 1).unwrap();
        s.silence();
    };
    let answer = |s: &mut Script, iss: &mut u32| {
        assert_eq!(write(&server, b"!"), Ok(1));
        assert_eq!(s.expect("answer").data, b"!");
        *iss += 1;
    };
    ask(&mut s, iss);
    s.advance(5 * MS);
    s.expect("an acknowledgement, quick at the start");
    answer(&mut s, &mut iss);
    for wait in [80, 160, 200, 200] {
        ask(&mut s, iss);
        s.advance((wait - 5) * MS);
        s.silence();
        s.advance(10 * MS);
        assert!(s.expect("an acknowledgement").data.is_empty());
        answer(&mut s, &mut iss);
    }
    // At once: the next waits as usual.
    ask(&mut s, iss);
    answer(&mut s, &mut iss);
    ask(&mut s, iss);
    s.advance(45 * MS);
    s.expect("an acknowledgement");
    answer(&mut s, &mut iss);
    // 80 ms now; but the peer goes on after a bare acknowledgement.
    ask(&mut s, iss);
    s.advance(85 * MS);
    s.expect("an acknowledgement");
    ask(&mut s, iss);
    s.advance(45 * MS);
    s.expect("an acknowledgement");
}

#[test]
fn a_closed_window_is_probed_and_the_data_goes_when_it_opens() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&Seg {
        window: 0,
        ..seg(seq, iss, ACK, b"")
    });
    assert_eq!(write(&server, b"data"), Ok(4));
    s.silence();
    s.advance(SECOND);
    let probe = s.expect("window probe");
    assert_eq!((probe.seq, probe.data.len()), (iss.wrapping_sub(1), 0));
    s.send(&Seg {
        window: 0,
        ..seg(seq, iss, ACK, b"")
    });
    s.advance(60 * SECOND);
    while s.next().is_some() {}
    s.send(&Seg {
        window: 100,
        ..seg(seq, iss, ACK, b"")
    });
    assert_eq!(s.expect("data").data, b"data");
}

#[test]
fn a_closed_window_is_probed_less_and_less_often() {
    // RFC 9293 §3.8.6.1: after the retransmission timeout, then each time twice as late, for as long as the peer answers.
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    let closed = Seg {
        window: 0,
        ..seg(seq, iss, ACK, b"")
    };
    s.send(&closed);
    write(&server, b"data").unwrap();
    let mut wait = u64::from(info(&server).rto) / 1000;
    for i in 0..20 {
        let probe = s.expect_after(wait, "window probe");
        assert_eq!(
            (probe.seq, probe.data.len()),
            (iss.wrapping_sub(1), 0),
            "{i}"
        );
        s.send(&closed);
        wait = (2 * wait).min(120_000);
    }
    assert_eq!(server.take_error(), None);
}

#[test]
fn our_window_closes_and_opens() {
    let mut s = Script::new();
    let listener = s.listen(80, 1);
    listener.set_option(Opt::RcvBuf(4000)).unwrap();
    let (server, mut seq, iss) = s.establish(&listener, 5000, &[]);
    let mut window = 4000;
    while window > 0 {
        let n = window.min(500);
        s.send(&seg(seq, iss, ACK, &vec![1; n]));
        seq += n as u32;
        s.advance(50 * MS);
        while let Some(ack) = s.next() {
            assert_eq!(ack.ack, seq);
            window = usize::from(ack.window);
        }
    }
    // What comes now is not taken, but answered.
    s.send(&seg(seq, iss, ACK, b"z"));
    assert_eq!(s.expect("ACK").ack, seq);
    let got = read(&server, 100_000).unwrap();
    assert!(got.len() >= 3500);
    let update = s.expect("window update");
    assert!(update.window > 3000, "{update:?}");
}

#[test]
fn nagle_and_cork() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    write(&server, b"a").unwrap();
    assert_eq!(s.expect("first").data, b"a");
    write(&server, b"b").unwrap();
    write(&server, b"c").unwrap();
    s.silence();
    s.send(&seg(seq, iss + 1, ACK, b""));
    assert_eq!(s.expect("rest").data, b"bc");
    s.send(&seg(seq, iss + 3, ACK, b""));
    server.set_option(Opt::NoDelay(true)).unwrap();
    write(&server, b"d").unwrap();
    write(&server, b"e").unwrap();
    assert_eq!(s.expect("d").data, b"d");
    assert_eq!(s.expect("e").data, b"e");
    s.send(&seg(seq, iss + 5, ACK, b""));
    server.set_option(Opt::Cork(true)).unwrap();
    write(&server, b"f").unwrap();
    s.silence();
    write(&server, b"g").unwrap();
    server.set_option(Opt::Cork(false)).unwrap();
    assert_eq!(s.expect("uncorked").data, b"fg");
    s.send(&seg(seq, iss + 7, ACK, b""));
    // A cork that is forgotten is pulled after 200 ms.
    server.set_option(Opt::Cork(true)).unwrap();
    write(&server, b"h").unwrap();
    s.advance(210 * MS);
    assert_eq!(s.expect("h").data, b"h");
}
