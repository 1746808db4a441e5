//! Losses found and repaired: timeout, duplicate acknowledgements, SACK and D-SACK.

use super::*;

#[test]
fn a_lost_segment_is_sent_again_after_the_timeout_and_then_less_often() {
    let mut s = Script::new();
    let (server, _seq, iss) = connection(&mut s, &PLAIN);
    write(&server, b"abc").unwrap();
    assert_eq!(s.expect("data").seq, iss);
    let mut times = Vec::new();
    let start = s.now;
    while times.len() < 4 {
        s.advance(MS);
        while let Some(again) = s.next() {
            assert_eq!((again.seq, again.data.as_slice()), (iss, &b"abc"[..]));
            times.push((s.now - start) / MS);
        }
        assert!(s.now - start < 10 * SECOND);
    }
    assert!((195..=210).contains(&times[0]), "{times:?}");
    for pair in times.windows(2) {
        let ratio = pair[1] as f64 / pair[0] as f64;
        assert!((1.8..3.3).contains(&ratio), "{times:?}");
    }
}

#[test]
fn three_duplicates_make_a_fast_retransmit() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server.set_option(Opt::NoDelay(true)).unwrap();
    write(&server, &[7; 8 * 1460]).unwrap();
    for i in 0..8 {
        assert_eq!(s.expect("data").seq, iss + i * 1460);
    }
    for _ in 0..2 {
        s.send(&seg(seq, iss, ACK, b""));
        s.silence();
    }
    s.send(&seg(seq, iss, ACK, b""));
    let again = s.expect("fast retransmit");
    assert_eq!((again.seq, again.data.len()), (iss, 1460));
    s.send(&seg(seq, iss + 8 * 1460, ACK, b""));
    s.advance(SECOND);
    s.silence();
}

#[test]
fn sack_tells_what_to_send_again() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &SACK);
    write(&server, &[7; 8 * 1460]).unwrap();
    for _ in 0..8 {
        s.expect("data");
    }
    // 0 and 2 are lost, 1 and 3 to 7 are there.
    let mut block = vec![1, 1, 5, 18];
    for edge in [3, 8, 1, 2u32] {
        block.extend_from_slice(&(iss + edge * 1460).to_be_bytes());
    }
    s.send(&Seg {
        options: block,
        ..seg(seq, iss, ACK, b"")
    });
    s.advance(50 * MS);
    let mut again = vec![];
    while let Some(seg) = s.next() {
        again.push((seg.seq.wrapping_sub(iss)) / 1460);
    }
    assert_eq!(again, [0, 2]);
}

#[test]
fn what_arrives_beyond_a_gap_is_told() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &SACK);
    s.send(&seg(seq + 100, iss, ACK, &[2; 100]));
    let ack = s.expect("duplicate ACK");
    assert_eq!(ack.ack, seq);
    let sack = find(&ack.options, 5).expect("SACK");
    assert_eq!(
        sack[2..10],
        [(seq + 100).to_be_bytes(), (seq + 200).to_be_bytes()].concat()
    );
    s.send(&seg(seq, iss, ACK, &[1; 100]));
    assert_eq!(s.expect("ACK").ack, seq + 200);
    assert_eq!(read(&server, 1000).unwrap().len(), 200);
    // The same again: D-SACK.
    s.send(&seg(seq, iss, ACK, &[1; 100]));
    let ack = s.expect("ACK");
    let sack = find(&ack.options, 5).expect("D-SACK");
    assert_eq!(
        sack[2..10],
        [seq.to_be_bytes(), (seq + 100).to_be_bytes()].concat()
    );
}
