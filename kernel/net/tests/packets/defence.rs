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
