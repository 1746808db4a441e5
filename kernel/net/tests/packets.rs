//! Packet scripts: inject a segment, make a call, expect a segment, at exact virtual times.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::script::*;
use common::{MS, SECOND, host};
use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::{Events, Kind, MsgFlags, Opt, OptName, SendMeta, Shutdown, Socket};

/// MSS 1460, SACK permitted, timestamps, window scale 7.
const FULL: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];
const PLAIN: [u8; 4] = [2, 4, 5, 180];
const SACK: [u8; 8] = [2, 4, 5, 180, 1, 1, 4, 2];

fn write(socket: &Arc<dyn Socket>, bytes: &[u8]) -> Result<usize, Errno> {
    socket.send(&mut SliceSource::new(bytes), &SendMeta::default())
}

fn read(socket: &Arc<dyn Socket>, most: usize) -> Result<Vec<u8>, Errno> {
    let mut sink = VecSink::new(most);
    socket.recv(&mut sink, MsgFlags::empty())?;
    Ok(sink.into_bytes())
}

fn seg(seq: u32, ack: u32, flags: u8, data: &[u8]) -> Seg {
    Seg {
        sport: 5000,
        dport: 80,
        seq,
        ack,
        flags,
        window: 65_535,
        data: data.to_vec(),
        ..Seg::default()
    }
}

/// An established connection without timestamps (options as given), from peer port 5000.
fn connection(s: &mut Script, options: &[u8]) -> (Arc<dyn Socket>, u32, u32) {
    let listener = s.listen(80, 16);
    s.send(&Seg {
        options: options.to_vec(),
        ..seg(1000, 0, SYN, b"")
    });
    let answer = s.expect("SYN-ACK");
    assert!(answer.is(SYN | ACK));
    let iss = answer.seq.wrapping_add(1);
    s.send(&seg(1001, iss, ACK, b""));
    let server = listener.accept().unwrap();
    listener.close();
    (server, 1001, iss)
}

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
fn a_router_says_that_packets_are_too_large() {
    let mut s = Script::new();
    let (server, _seq, iss) = connection(&mut s, &PLAIN);
    write(&server, &[1; 2920]).unwrap();
    let first = s.expect("data");
    assert_eq!(first.data.len(), 1460);
    s.expect("data");
    let mut icmp = vec![3, 4, 0, 0, 0, 0, 4, 0];
    let mut quoted = ip_frame([0; 6], host(1), peer(), 6, &[0; 20])[14..].to_vec();
    quoted[2..4].copy_from_slice(&1500u16.to_be_bytes());
    quoted[20..22].copy_from_slice(&80u16.to_be_bytes());
    quoted[22..24].copy_from_slice(&5000u16.to_be_bytes());
    quoted[24..28].copy_from_slice(&iss.to_be_bytes());
    icmp.extend_from_slice(&quoted[..28]);
    let sum = !common::fold(&icmp, 0);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    s.inject(&ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 1, &icmp));
    let again = s.expect("smaller segment");
    assert_eq!((again.seq, again.data.len()), (iss, 1024 - 40));
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

#[test]
fn a_black_hole_for_large_packets_is_found() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    write(&server, &[1; 1460]).unwrap();
    // Full segments vanish; the fourth try is smaller, and gets through.
    let mut sizes = vec![];
    while sizes.last() != Some(&1160) {
        s.advance(10 * MS);
        while let Some(segment) = s.next() {
            sizes.push(segment.data.len());
        }
        assert!(sizes.len() < 8, "{sizes:?}");
    }
    s.send(&seg(seq, iss + 1160, ACK, b""));
    assert_eq!(s.expect("the rest").data.len(), 300);
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
