//! How a connection ends: close, reset, half-close, TIME-WAIT, keepalive, user timeout.

use super::*;

#[test]
fn keepalive_finds_a_dead_peer() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server.set_option(Opt::KeepAlive(true)).unwrap();
    server.set_option(Opt::KeepIdle(10)).unwrap();
    server.set_option(Opt::KeepIntvl(5)).unwrap();
    server.set_option(Opt::KeepCnt(3)).unwrap();
    s.advance(10 * SECOND + 10 * MS);
    assert_eq!(s.expect("probe").seq, iss.wrapping_sub(1));
    s.send(&seg(seq, iss, ACK, b""));
    s.advance(9 * SECOND);
    s.silence();
    s.advance(40 * SECOND);
    for _ in 0..3 {
        assert_eq!(s.expect("probe").seq, iss.wrapping_sub(1));
    }
    assert!(s.expect("RST").flags & RST != 0);
    assert_eq!(read(&server, 1), Err(Errno::ETIMEDOUT));
}

#[test]
fn unread_data_at_close_is_a_reset_and_so_is_lingering_zero() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&seg(seq, iss, ACK, b"never read"));
    server.close();
    assert!(s.expect("RST").flags & RST != 0);
    let mut s = Script::new();
    let (server, ..) = connection(&mut s, &PLAIN);
    server
        .set_option(Opt::Linger(Some(core::time::Duration::ZERO)))
        .unwrap();
    server.close();
    assert!(s.expect("RST").flags & RST != 0);
    assert_eq!(s.stack.flow_counts(), (0, 0));
    // Data after close, which nobody can read.
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server.close();
    assert!(s.expect("FIN").is(FIN | ACK));
    s.send(&seg(seq, iss + 1, ACK, b"late"));
    assert!(s.expect("RST").flags & RST != 0);
}

#[test]
fn half_closed() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server.shutdown(Shutdown::Write).unwrap();
    assert!(s.expect("FIN").is(FIN | ACK));
    assert_eq!(write(&server, b"x"), Err(Errno::EPIPE));
    s.send(&seg(seq, iss + 1, ACK, b"still here"));
    assert_eq!(read(&server, 100).unwrap(), b"still here");
    s.send(&seg(seq + 10, iss + 1, FIN | ACK, b""));
    assert_eq!(s.expect("ACK").ack, seq + 11);
    assert_eq!(s.stack.flow_counts(), (1, 1));
    assert_eq!(read(&server, 100).unwrap(), b"");
    // TIME-WAIT answers a repeated FIN, ignores a reset, and makes way for a new connection.
    s.send(&seg(seq + 10, iss + 1, FIN | ACK, b""));
    assert_eq!(s.expect("ACK").ack, seq + 11);
    s.send(&seg(seq + 11, iss + 1, RST, b""));
    assert_eq!(s.stack.flow_counts(), (1, 1));
    let _listener = s.listen(80, 5);
    s.send(&seg(seq + 50_000, 0, SYN, b""));
    assert!(s.expect("SYN-ACK").is(SYN | ACK));
    assert_eq!(s.stack.flow_counts(), (1, 0));
}

#[test]
fn the_user_timeout_ends_what_is_not_acknowledged() {
    let mut s = Script::new();
    let (server, ..) = connection(&mut s, &PLAIN);
    server.set_option(Opt::UserTimeout(3000)).unwrap();
    write(&server, b"x").unwrap();
    s.advance(2 * SECOND);
    assert!(!server.poll().contains(Events::ERR));
    s.advance(5 * SECOND);
    assert!(server.poll().contains(Events::ERR));
    assert_eq!(read(&server, 1), Err(Errno::ETIMEDOUT));
}

/// A connection in TIME-WAIT, whose last segment had timestamp 50: the peer's next sequence number and ours.
fn waiting(s: &mut Script, stamps: bool) -> (u32, u32) {
    let listener = s.listen(80, 4);
    let options = |value| if stamps { ts(value, 0) } else { vec![] };
    let full = if stamps { &FULL[..] } else { &[] };
    let (server, seq, iss) = s.establish(&listener, 5000, full);
    server.close();
    assert!(s.expect("FIN").is(FIN | ACK));
    s.send(&Seg {
        options: options(50),
        ..seg(seq, iss + 1, FIN | ACK, b"")
    });
    assert_eq!(s.expect("ACK").ack, seq + 1);
    assert_eq!(s.stack.flow_counts(), (1, 1));
    core::mem::forget(listener);
    (seq + 1, iss + 1)
}

#[test]
fn time_wait_makes_way_only_for_what_is_new() {
    // RFC 6191: a larger timestamp is new, even with an older sequence number; an older one is not.
    let mut s = Script::new();
    let (seq, last) = waiting(&mut s, true);
    let mut old = FULL;
    old[11] = 49;
    s.send(&Seg {
        options: old.to_vec(),
        ..seg(seq + 100_000, 0, SYN, b"")
    });
    assert!(s.expect("ACK of the old connection").is(ACK));
    let mut new = FULL;
    new[11] = 51;
    s.send(&Seg {
        options: new.to_vec(),
        ..seg(seq - 1000, 0, SYN, b"")
    });
    let answer = s.expect("SYN-ACK");
    assert!(answer.is(SYN | ACK) && answer.ack == seq - 999);
    // It starts beyond all that the old one sent (RFC 1122 §4.2.2.13).
    assert!((answer.seq.wrapping_sub(last) as i32) > 0);
    assert_eq!(s.stack.flow_counts(), (1, 0));
    // Without timestamps the sequence number decides.
    let mut s = Script::new();
    let (seq, _) = waiting(&mut s, false);
    s.send(&seg(seq - 100, 0, SYN, b""));
    assert!(s.expect("ACK").is(ACK));
    s.send(&seg(seq + 100, 0, SYN, b""));
    assert!(s.expect("SYN-ACK").is(SYN | ACK));
    // And it ends after a minute.
    let mut s = Script::new();
    let (seq, last) = waiting(&mut s, false);
    s.advance(61 * SECOND);
    assert_eq!(s.stack.flow_counts(), (0, 0));
    s.send(&seg(seq, last, ACK, b""));
    assert!(s.expect("RST").is(RST));
}
