//! Against forged and old segments: RFC 5961 and PAWS.

use super::*;

#[test]
fn a_forged_reset_is_challenged_and_a_true_one_believed() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&seg(seq + 10, iss, RST, b""));
    let challenge = s.expect("challenge ACK");
    assert!(challenge.is(ACK) && challenge.ack == seq);
    // At most one in half a second.
    s.send(&seg(seq + 11, iss, RST, b""));
    s.silence();
    s.send(&seg(seq + 5, iss, SYN, b""));
    s.silence();
    s.send(&seg(seq, iss, RST, b""));
    assert!(
        server
            .poll()
            .contains(Events::ERR | Events::HUP | Events::IN)
    );
    assert_eq!(read(&server, 10), Err(Errno::ECONNRESET));
    assert_eq!(read(&server, 10).unwrap(), b"");
    assert_eq!(write(&server, b"x"), Err(Errno::EPIPE));
}

#[test]
fn old_duplicates_are_told_by_their_timestamps() {
    let mut s = Script::new();
    let listener = s.listen(80, 4);
    let (server, seq, iss) = s.establish(&listener, 5000, &FULL);
    s.send(&Seg {
        options: ts(50, 1),
        ..seg(seq, iss, ACK, b"new")
    });
    assert_eq!(read(&server, 10).unwrap(), b"new");
    s.send(&Seg {
        options: ts(20, 1),
        ..seg(seq + 3, iss, ACK, b"old")
    });
    assert_eq!(read(&server, 10), Err(Errno::EAGAIN));
    assert_eq!(s.expect("ACK").ack, seq + 3);
    assert_eq!(s.stack.counters().sum(|c| &c.paws_estab), 1);
}

#[test]
fn sequence_numbers_start_where_nobody_can_guess_and_move_with_time() {
    // RFC 6528: the same flow moves with the clock, 64 ns a step; others are somewhere else.
    let mut s = Script::new();
    let _listener = s.listen(80, 16);
    let first = |s: &mut Script, sport: u16| {
        s.send(&Seg {
            sport,
            ..seg(1000, 0, SYN, b"")
        });
        let iss = s.expect("SYN-ACK").seq;
        s.send(&Seg {
            sport,
            ..seg(1001, 0, RST, b"")
        });
        iss
    };
    let a = first(&mut s, 1);
    s.advance(64 * MS);
    let again = first(&mut s, 1).wrapping_sub(a);
    assert!((1_000_000..1_001_000).contains(&again), "{again}");
    let apart: Vec<u32> = (2..10)
        .map(|p| first(&mut s, p).wrapping_sub(a))
        .filter(|far| (5_000_000..u32::MAX - 5_000_000).contains(far))
        .collect();
    assert!(apart.len() >= 6, "{apart:?}");
}

#[test]
fn another_secret_gives_other_sequence_numbers() {
    // RFC 6528 §3: F() of the connection and a secret. Same clock, same flow.
    let iss = |secret: u64| {
        let mut s = Script::with(|c| c.secret[2] ^= secret, None);
        let _listener = s.listen(80, 16);
        s.send(&seg(1000, 0, SYN, b""));
        s.expect("SYN-ACK").seq
    };
    assert_eq!(iss(0), iss(0));
    let all: std::collections::BTreeSet<u32> = (0..64).map(iss).collect();
    assert_eq!(all.len(), 64, "{all:?}");
    // Nor does any part of the number stay.
    let (ones, zeros) = all.iter().fold((0, 0), |(o, z), n| (o | n, z | !n));
    assert_eq!((ones, zeros), (u32::MAX, u32::MAX));
}

#[test]
fn a_segment_outside_the_window_is_answered_but_not_for_ever() {
    let mut s = Script::new();
    let (_server, seq, iss) = connection(&mut s, &PLAIN);
    // Data is always answered, as the peer may just have lost our acknowledgement.
    for _ in 0..3 {
        s.send(&seg(seq.wrapping_sub(10), iss, ACK, b"old"));
        assert_eq!(s.expect("ACK").ack, seq);
    }
    // Bare acknowledgements twice a second at most: two ends that misunderstand each other stop.
    let misfit = seg(seq.wrapping_sub(10), iss, ACK, b"");
    s.send(&misfit);
    assert_eq!(s.expect("ACK").ack, seq);
    s.send(&misfit);
    s.advance(400 * MS);
    s.send(&misfit);
    s.silence();
    s.advance(101 * MS);
    s.send(&misfit);
    assert_eq!(s.expect("ACK").ack, seq);
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_challenged() {
    // RFC 5961 §5.2, and no more than one in half a second.
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&seg(seq, iss.wrapping_add(500_000), ACK, b"evil"));
    assert_eq!(s.expect("challenge").seq, iss);
    s.send(&seg(seq, iss.wrapping_sub(500_000), ACK, b"evil"));
    s.silence();
    s.advance(501 * MS);
    s.send(&seg(seq, iss.wrapping_sub(500_000), ACK, b"evil"));
    assert_eq!(s.expect("challenge").seq, iss);
    assert_eq!(read(&server, 9), Err(Errno::EAGAIN));
    assert_eq!(s.stack.counters().sum(|c| &c.challenge_ack), 2);
}
