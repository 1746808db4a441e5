//! What `TCP_INFO` tells is true (tcp(7), linux/tcp.h).

use std::sync::atomic::Ordering::Relaxed;

use super::*;

fn seg_at(seq: u32, ack: u32) -> Seg {
    seg(seq, ack, ACK, b"")
}

fn drain(s: &mut Script) -> Vec<Seg> {
    std::iter::from_fn(|| s.next()).collect()
}

#[test]
fn what_time_was_spent_on() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    let spent = |server: &Arc<dyn Socket>| {
        let told = info(server);
        let ms = |us: u64| us / 1000;
        (
            ms(told.busy_time),
            ms(told.rwnd_limited),
            ms(told.sndbuf_limited),
        )
    };
    s.advance(500 * MS);
    assert_eq!(spent(&server), (0, 0, 0), "nothing to send");
    // The network: from the write to its acknowledgement.
    write(&server, &[1; 100]).unwrap();
    s.advance(30 * MS);
    assert_eq!(spent(&server), (30, 0, 0));
    s.send(&Seg {
        window: 1000,
        ..seg_at(seq, iss + 100)
    });
    s.advance(70 * MS);
    assert_eq!(spent(&server), (30, 0, 0));
    drain(&mut s);
    // The peer's window, which takes less than there is.
    write(&server, &[1; 5000]).unwrap();
    assert_eq!(drain(&mut s).len(), 1);
    s.advance(50 * MS);
    assert_eq!(spent(&server), (80, 50, 0));
    s.send(&seg_at(seq, iss + 1100));
    assert_eq!(drain(&mut s).len(), 3);
    s.advance(20 * MS);
    assert_eq!(spent(&server), (100, 50, 0));
    s.send(&seg_at(seq, iss + 5100));
    // Our buffer: all of it is on the way, the congestion window has room, and the program has more.
    server.set_option(Opt::SndBuf(4000)).unwrap();
    let mut wrote = 0;
    while let Ok(n) = write(&server, &[1; 1000]) {
        wrote += n as u32;
    }
    drain(&mut s);
    let told = info(&server);
    assert!(
        told.notsent_bytes == 0 && told.unacked < told.snd_cwnd,
        "{told:?}"
    );
    s.advance(40 * MS);
    assert_eq!(spent(&server), (140, 50, 40));
    s.send(&seg_at(seq, iss + 5100 + wrote));
    s.advance(40 * MS);
    assert_eq!(spent(&server), (140, 50, 40));
    // And it stops with the connection.
    write(&server, b"x").unwrap();
    s.advance(10 * MS);
    s.send(&seg(seq, 0, RST, b""));
    s.advance(500 * MS);
    assert_eq!(spent(&server), (150, 50, 40));
}

#[test]
fn how_fast_it_goes() {
    let mut s = Script::new();
    let listener = s.listen(80, 4);
    s.send(&Seg {
        options: SACK.to_vec(),
        ..seg(1000, 0, SYN, b"")
    });
    let iss = s.expect("SYN-ACK").seq.wrapping_add(1);
    s.advance(20 * MS);
    s.send(&seg_at(1001, iss));
    let server = listener.accept().unwrap();
    let told = info(&server);
    assert_eq!((told.rtt, told.min_rtt), (20_000, 20_000));
    assert_eq!(told.delivery_rate, 0, "nothing was delivered yet");
    // Ten segments each 20 ms, in slow start: twice the window for a round trip.
    let rate = |segments: u64| segments * 1460 * 50;
    let close = |rate: u64, to: u64| rate.abs_diff(to) < to / 50;
    assert!(close(told.pacing_rate, 2 * rate(10)), "{told:?}");
    write(&server, &[7; 60 * 1460]).unwrap();
    assert_eq!(drain(&mut s).len(), 10);
    s.advance(20 * MS);
    s.send(&seg_at(1001, iss + 10 * 1460));
    let told = info(&server);
    assert!(close(told.delivery_rate, rate(10)), "{told:?}");
    assert!(
        told.delivery_rate_app_limited,
        "as Linux has the first flight"
    );
    assert_eq!(told.snd_cwnd, 20);
    assert_eq!(drain(&mut s).len(), 20);
    s.advance(25 * MS);
    s.send(&seg_at(1001, iss + 30 * 1460));
    let told = info(&server);
    assert!(close(told.delivery_rate, 20 * 1460 * 40), "{told:?}");
    assert!(!told.delivery_rate_app_limited);
    assert_eq!(told.min_rtt, 20_000, "the least");
    // The rest is what the program had, then it says little: that is no measure of the network.
    drain(&mut s);
    s.advance(20 * MS);
    s.send(&seg_at(1001, iss + 60 * 1460));
    let best = info(&server).delivery_rate;
    s.advance(20 * MS);
    write(&server, b"x").unwrap();
    s.advance(20 * MS);
    s.send(&seg_at(1001, iss + 60 * 1460 + 1));
    assert_eq!(info(&server).delivery_rate, best);
}

#[test]
fn when_what_came_last() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.advance(SECOND);
    s.send(&seg(seq, iss, ACK, b"x"));
    s.advance(SECOND);
    write(&server, b"y").unwrap();
    s.advance(100 * MS);
    s.send(&seg_at(seq + 1, iss + 1));
    s.advance(50 * MS);
    let told = info(&server);
    assert_eq!(told.last_data_recv, 1150);
    assert_eq!(told.last_ack_recv, 50);
    assert_eq!(told.last_data_sent, 150);
    assert_eq!((told.bytes_received, told.bytes_acked), (1, 1));
    assert_eq!((told.data_segs_in, told.data_segs_out), (1, 1));
    assert_eq!(told.segs_in, 4, "with the handshake's");
}

#[test]
fn segments_that_a_card_cuts_are_counted_as_what_they_become() {
    let mut s = Script::with_offload();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    let before = s.stack.counters().sum(|c| &c.tcp_out_segs);
    write(&server, &[7; 5 * 1460 - 1]).unwrap();
    assert_eq!(drain(&mut s).len(), 5);
    assert_eq!(s.nic.offloads.load(Relaxed), 1, "one packet for the card");
    let told = info(&server);
    assert_eq!((told.data_segs_out, told.unacked), (5, 5));
    assert_eq!(s.stack.counters().sum(|c| &c.tcp_out_segs) - before, 5);
    // After the timeout, one segment of it.
    s.advance(210 * MS);
    drain(&mut s);
    assert_eq!(info(&server).total_retrans, 1);
    s.send(&seg_at(seq, iss + 5 * 1460 - 1));
    assert_eq!(info(&server).delivered, 5);
}

#[test]
fn reordering_and_probes_show() {
    let mut s = Script::new();
    let (server, seq, iss) = slow(&mut s, &SACK, 40);
    write(&server, &[7; 8 * 1460]).unwrap();
    assert_eq!(drain(&mut s).len(), 8);
    s.advance(40 * MS);
    let block = |ack: u32, from: u32, to: u32| {
        let mut option = vec![1, 1, 5, 10];
        option.extend((iss + from * 1460).to_be_bytes());
        option.extend((iss + to * 1460).to_be_bytes());
        Seg {
            options: option,
            ..seg_at(seq, iss + ack * 1460)
        }
    };
    s.send(&block(0, 1, 2));
    assert_eq!(info(&server).ca_state, 1, "disorder");
    s.send(&seg_at(seq, iss + 2 * 1460));
    let told = info(&server);
    assert_eq!((told.ca_state, told.reord_seen, told.reordering), (0, 1, 3));
    // Of six segments the first comes last, and no sooner was it held for lost.
    s.send(&block(2, 3, 4));
    s.send(&seg_at(seq, iss + 8 * 1460));
    assert_eq!(info(&server).reord_seen, 2);
    drain(&mut s);
    // Probes of a closed window are no retransmissions.
    s.send(&Seg {
        window: 0,
        ..seg_at(seq, iss + 8 * 1460)
    });
    s.send(&Seg {
        window: 0,
        ..seg_at(seq, iss + 8 * 1460)
    });
    write(&server, b"x").unwrap();
    s.advance(5 * SECOND);
    let told = info(&server);
    assert!(told.probes >= 2 && told.backoff >= 2, "{told:?}");
    assert_eq!(told.retransmits, 0);
}
