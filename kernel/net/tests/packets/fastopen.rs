//! Fast Open as a server (RFC 7413).

use super::*;

/// MSS and a Fast Open option with that cookie; an empty one asks for one.
fn option(cookie: &[u8]) -> Vec<u8> {
    let mut options = PLAIN.to_vec();
    options.extend([34, 2 + cookie.len() as u8]);
    options.extend(cookie);
    options.resize(options.len().div_ceil(4) * 4, 1);
    options
}

fn syn(sport: u16, cookie: &[u8], data: &[u8]) -> Seg {
    Seg {
        sport,
        options: option(cookie),
        ..seg(1000, 0, SYN, data)
    }
}

fn from(sport: u16, seg: Seg) -> Seg {
    Seg { sport, ..seg }
}

/// A listener that takes `most` early connections.
fn listener(s: &mut Script, most: u32) -> Arc<dyn Socket> {
    let listener = s.listen(80, 16);
    listener.set_option(Opt::FastOpen(most)).unwrap();
    listener
}

/// Asks for a cookie in a handshake that is broken off.
fn visit(s: &mut Script) -> Vec<u8> {
    s.send(&syn(4000, b"", b"ignored"));
    let answer = s.expect("SYN-ACK");
    assert_eq!(answer.ack, 1001, "data without a cookie is not taken");
    let cookie = find(&answer.options, 34).expect("a cookie")[2..].to_vec();
    assert_eq!(cookie.len(), 8);
    s.send(&from(4000, seg(1001, 0, RST, b"")));
    cookie
}

#[test]
fn data_in_the_syn_is_there_at_accept_and_answered_before_the_handshake_is_done() {
    let mut s = Script::new();
    let listener = listener(&mut s, 5);
    let cookie = visit(&mut s);
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    s.send(&syn(5000, &cookie, b"GET /"));
    let answer = s.expect("SYN-ACK");
    assert!(answer.is(SYN | ACK));
    assert_eq!(answer.ack, 1006, "the data is acknowledged");
    assert_eq!(find(&answer.options, 34), None);
    assert!(listener.poll().contains(Events::IN));
    let server = listener.accept().unwrap();
    assert!(server.poll().contains(Events::IN | Events::OUT));
    assert_eq!(read(&server, 100).unwrap(), b"GET /");
    assert_eq!(info(&server).state, 3, "SYN-RECEIVED");
    write(&server, b"200 OK").unwrap();
    let iss = answer.seq.wrapping_add(1);
    let data = s.expect("the answer, before the handshake is done");
    assert_eq!((data.seq, data.ack), (iss, 1006));
    assert_eq!(data.data, b"200 OK");
    s.send(&seg(1006, iss + 6, ACK, b""));
    let after = info(&server);
    assert_eq!((after.state, after.options & 32), (1, 32), "SYN data");
    assert_eq!((after.bytes_received, after.bytes_acked), (5, 6));
    // From here on a connection like others.
    s.send(&seg(1006, iss + 6, ACK | FIN, b""));
    assert_eq!(s.expect("ACK").ack, 1007);
    server.close();
    assert!(s.expect("FIN").is(FIN | ACK));
    s.send(&seg(1007, iss + 7, ACK, b""));
    assert_eq!(s.stack.flow_counts(), (0, 0));
    assert_eq!(s.stack.memory(), 0);
    let counters = s.stack.counters();
    assert_eq!(counters.sum(|c| &c.fastopen_cookie_reqd), 1);
    assert_eq!(counters.sum(|c| &c.fastopen_passive), 1);
}

#[test]
fn without_the_option_it_is_an_ordinary_handshake() {
    let mut s = Script::new();
    let _plain = s.listen(80, 16);
    s.send(&syn(5000, b"", b"x"));
    let answer = s.expect("SYN-ACK");
    assert_eq!((answer.ack, find(&answer.options, 34)), (1001, None));
}

#[test]
fn a_false_cookie_costs_the_round_trip_and_brings_the_true_one() {
    let mut s = Script::new();
    let listener = listener(&mut s, 5);
    let cookie = visit(&mut s);
    let mut forged = cookie.clone();
    forged[3] ^= 1;
    s.send(&syn(5000, &forged, b"GET /"));
    let answer = s.expect("SYN-ACK");
    assert_eq!(answer.ack, 1001);
    assert_eq!(find(&answer.options, 34).unwrap()[2..], cookie);
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    let iss = answer.seq.wrapping_add(1);
    s.send(&seg(1001, iss, ACK | PSH, b"GET /"));
    let server = listener.accept().unwrap();
    assert_eq!(read(&server, 100).unwrap(), b"GET /");
    assert_eq!(info(&server).options & 32, 0);
    // Another client's cookie is as false.
    let frame = tcp_frame(host(7), &syn(5000, &cookie, b"GET /"));
    s.stack.set_neighbour(2, host(7).into(), PEER_MAC).unwrap();
    s.inject(&frame);
    assert_eq!(s.expect("SYN-ACK").ack, 1001);
    assert_eq!(s.stack.counters().sum(|c| &c.fastopen_passive_fail), 2);
}

#[test]
fn a_cookie_is_good_for_two_periods_and_replaced_in_the_second() {
    let mut s = Script::new();
    let _listener = listener(&mut s, 5);
    let cookie = visit(&mut s);
    s.advance(3600 * SECOND);
    s.out.clear();
    s.send(&syn(5001, &cookie, b"a"));
    let answer = s.expect("SYN-ACK");
    assert_eq!(answer.ack, 1002, "the old one still opens");
    let fresh = find(&answer.options, 34).expect("a new cookie")[2..].to_vec();
    assert_ne!(fresh, cookie);
    s.send(&syn(5002, &fresh, b"a"));
    let answer = s.expect("SYN-ACK");
    assert_eq!((answer.ack, find(&answer.options, 34)), (1002, None));
    s.advance(3600 * SECOND);
    s.out.clear();
    s.send(&syn(5003, &cookie, b"a"));
    assert_eq!(s.expect("SYN-ACK").ack, 1001, "two periods are too long");
    s.send(&syn(5004, &fresh, b"a"));
    assert_eq!(s.expect("SYN-ACK").ack, 1002);
}

#[test]
fn only_so_many_are_early_and_those_that_were_reset_count_for_a_minute() {
    let mut s = Script::new();
    let listener = listener(&mut s, 2);
    let cookie = visit(&mut s);
    let mut acks = vec![];
    for sport in [1, 2, 3] {
        s.send(&syn(sport, &cookie, b"x"));
        acks.push(s.expect("SYN-ACK"));
    }
    assert_eq!(acks[0].ack, 1002);
    assert_eq!(acks[1].ack, 1002);
    assert_eq!((acks[2].ack, find(&acks[2].options, 34)), (1001, None));
    // One completes its handshake: its place is free.
    s.send(&from(1, seg(1002, acks[0].seq.wrapping_add(1), ACK, b"")));
    s.send(&syn(4, &cookie, b"x"));
    assert_eq!(s.expect("SYN-ACK").ack, 1002);
    // One is reset, as by whoever has the forged address: its place is not.
    s.send(&from(2, seg(1002, 0, RST, b"")));
    s.send(&syn(5, &cookie, b"x"));
    assert_eq!(s.expect("SYN-ACK").ack, 1001);
    assert_eq!(s.stack.counters().sum(|c| &c.fastopen_listen_overflow), 2);
    s.send(&from(5, seg(1001, 0, RST, b"")));
    s.send(&from(3, seg(1001, 0, RST, b"")));
    s.advance(61 * SECOND);
    s.out.clear();
    s.send(&syn(6, &cookie, b"x"));
    assert_eq!(s.expect("SYN-ACK").ack, 1002);
    let first = listener.accept().unwrap();
    assert_eq!(read(&first, 9).unwrap(), b"x");
    let second = listener.accept().unwrap();
    assert_eq!(read(&second, 9).unwrap(), b"x");
    assert_eq!(read(&second, 9), Err(Errno::ECONNRESET));
}

#[test]
fn an_unanswered_syn_ack_is_sent_again_and_given_up() {
    let mut s = Script::new();
    let listener = listener(&mut s, 5);
    let cookie = visit(&mut s);
    s.send(&syn(5000, &cookie, b"x"));
    let answer = s.expect("SYN-ACK");
    let server = listener.accept().unwrap();
    write(&server, b"early").unwrap();
    assert_eq!(s.expect("data").data, b"early");
    // The client asks again: it has not got it.
    s.send(&syn(5000, &cookie, b"x"));
    assert_eq!(s.expect("SYN-ACK again"), answer);
    for (i, ms) in [1000, 2000, 4000, 8000, 16_000].iter().enumerate() {
        let again = s.expect_after(*ms, "SYN-ACK again");
        assert!(again.is(SYN | ACK) && again.ack == 1002, "{i}: {again:?}");
    }
    s.advance(40 * SECOND);
    s.silence();
    assert_eq!(read(&server, 9).unwrap(), b"x");
    assert_eq!(read(&server, 9), Err(Errno::ETIMEDOUT));
    server.close();
    assert_eq!(s.stack.flow_counts(), (0, 0));
    assert_eq!(s.stack.memory(), 0);
}

#[test]
fn what_was_sent_early_and_lost_goes_again_once_the_handshake_is_done() {
    let mut s = Script::new();
    let listener = listener(&mut s, 5);
    let cookie = visit(&mut s);
    s.send(&syn(5000, &cookie, b"x"));
    let iss = s.expect("SYN-ACK").seq.wrapping_add(1);
    let server = listener.accept().unwrap();
    assert_eq!(read(&server, 9).unwrap(), b"x");
    write(&server, b"early").unwrap();
    assert_eq!(s.expect("data").data, b"early");
    // Closed before the handshake is done: the FIN follows it.
    server.close();
    s.silence();
    s.send(&seg(1002, iss, ACK, b""));
    let fin = s.expect("FIN");
    assert!(fin.is(FIN | ACK) && fin.seq == iss + 5);
    let mut got = vec![];
    while got.len() < 2 {
        s.advance(MS);
        while let Some(again) = s.next() {
            got.push((again.seq.wrapping_sub(iss), again.data.len()));
        }
    }
    assert_eq!(got[0], (0, 5), "{got:?}");
    s.send(&seg(1002, iss + 6, ACK | FIN, b""));
    assert!(s.expect("ACK").is(ACK));
    assert_eq!(s.stack.flow_counts(), (1, 1));
}

#[test]
fn the_option_is_for_sockets_that_are_not_connected() {
    let mut s = Script::with(|c| c.limits.somaxconn = 100, None);
    let socket = s.socket(Kind::Stream);
    assert_eq!(socket.option(OptName::FastOpen), Ok(Opt::FastOpen(0)));
    socket.set_option(Opt::FastOpen(7)).unwrap();
    assert_eq!(socket.option(OptName::FastOpen), Ok(Opt::FastOpen(7)));
    socket.set_option(Opt::FastOpen(7000)).unwrap();
    assert_eq!(socket.option(OptName::FastOpen), Ok(Opt::FastOpen(100)));
    let (server, ..) = connection(&mut s, &PLAIN);
    assert_eq!(server.set_option(Opt::FastOpen(1)), Err(Errno::EINVAL));
}
