//! How losses are found and what they cost: the timeout (RFC 6298), RACK and tail loss probes (RFC 8985),
//! D-SACK's undo (RFC 2883, 3522), CUBIC (RFC 9438) and Reno (RFC 5681).

use super::*;

/// SACK blocks, each from and to so many segments of 1460 after `iss`.
fn sack(iss: u32, blocks: &[(u32, u32)]) -> Vec<u8> {
    let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
    for (from, to) in blocks {
        option.extend((iss + from * 1460).to_be_bytes());
        option.extend((iss + to * 1460).to_be_bytes());
    }
    option
}

fn sacked(seq: u32, ack: u32, iss: u32, blocks: &[(u32, u32)]) -> Seg {
    Seg {
        options: sack(iss, blocks),
        ..seg_at(seq, ack)
    }
}

fn seg_at(seq: u32, ack: u32) -> Seg {
    seg(seq, ack, ACK, b"")
}

/// A connection whose round trip of `rtt_ms` is known, with nothing on the way. Returns the next sequence number of ours.
fn measured(s: &mut Script, options: &[u8], rtt_ms: u64) -> (Arc<dyn Socket>, u32, u32) {
    let (server, seq, mut iss) = slow(s, options, rtt_ms);
    server.set_option(Opt::NoDelay(true)).unwrap();
    for _ in 0..40 {
        write(&server, b"x").unwrap();
        s.expect("x");
        s.advance(rtt_ms * MS);
        iss += 1;
        s.send(&seg_at(seq, iss));
    }
    (server, seq, iss)
}

/// When a probe of several segments is due: two round trips and a little (RFC 8985 §7.2).
fn probe_ms(socket: &Arc<dyn Socket>) -> u64 {
    (2 * u64::from(info(socket).rtt) + 2000) / 1000
}

fn segments(s: &mut Script, iss: u32) -> Vec<u32> {
    let mut all = vec![];
    while let Some(data) = s.next() {
        all.push(data.seq.wrapping_sub(iss) / 1460);
    }
    all
}

#[test]
fn the_timeout_follows_the_round_trip_and_doubles() {
    // Before any sample: a second (RFC 6298 §2.1).
    let mut s = Script::new();
    let to = Some(SocketAddr::new(peer().into(), 443));
    let client = s.socket(Kind::Stream);
    assert_eq!(client.connect(to), Err(Errno::EINPROGRESS));
    s.expect("SYN");
    for ms in [1000, 2000, 4000, 8000] {
        assert!(s.expect_after(ms, "SYN again").is(SYN));
    }
    // Steady samples of 300 ms: no variance left, so SRTT and the least of 200 ms.
    let mut s = Script::new();
    let (server, seq, iss) = measured(&mut s, &PLAIN, 300);
    let told = info(&server);
    assert!((295_000..310_000).contains(&told.rtt), "{}", told.rtt);
    let rto = u64::from(told.rto) / 1000;
    assert!((495..520).contains(&rto), "{rto}");
    write(&server, b"lost").unwrap();
    s.expect("data");
    for factor in [1, 2, 4, 8] {
        let again = s.expect_after(rto * factor, "again");
        assert_eq!((again.seq, again.data.as_slice()), (iss, &b"lost"[..]));
    }
    assert_eq!((info(&server).retransmits, info(&server).backoff), (4, 4));
    // Karn: the acknowledgement of what was sent five times is no sample, and ends the backing off.
    s.send(&seg_at(seq, iss + 4));
    let after = info(&server);
    assert_eq!((after.rtt, after.backoff, after.ca_state), (told.rtt, 0, 0));
}

#[test]
fn the_tail_of_a_flight_is_probed() {
    let mut s = Script::new();
    let (server, seq, iss) = measured(&mut s, &SACK, 50);
    write(&server, &[7; 4 * 1460]).unwrap();
    assert_eq!(segments(&mut s, iss), [0, 1, 2, 3]);
    // The last one is lost: no duplicate will ever tell.
    s.advance(50 * MS);
    s.send(&seg_at(seq, iss + 2 * 1460));
    let pto = probe_ms(&server);
    // 2 SRTT and a little, much before the timeout (RFC 8985 §7.2).
    let again = s.expect_after(pto, "loss probe");
    assert_eq!((again.seq, again.data.len()), (iss + 3 * 1460, 1460));
    assert_eq!(s.stack.counters().sum(|c| &c.loss_probes), 1);
    assert_eq!(s.stack.counters().sum(|c| &c.timeouts), 0);
    // One acknowledgement of the two copies, and no other before the next news: the probe repaired a loss, and the
    // window hears of it (RFC 8985 §7.4.2).
    let before = info(&server).snd_cwnd;
    s.send(&seg_at(seq, iss + 4 * 1460));
    assert_eq!(info(&server).snd_cwnd, before);
    let iss = iss + 4 * 1460;
    write(&server, b"x").unwrap();
    s.expect("x");
    s.send(&seg_at(seq, iss + 1));
    assert!(info(&server).snd_cwnd < before);
    assert_eq!(s.stack.counters().sum(|c| &c.loss_probe_recovery), 1);
    // One that was for nothing (D-SACK) costs nothing.
    let iss = iss + 1;
    let before = info(&server).snd_cwnd;
    write(&server, &[7; 2 * 1460]).unwrap();
    assert_eq!(segments(&mut s, iss), [0, 1]);
    let pto = probe_ms(&server);
    let again = s.expect_after(pto, "loss probe");
    assert_eq!(again.seq, iss + 1460);
    s.send(&sacked(seq, iss + 2 * 1460, iss, &[(1, 2)]));
    assert!(info(&server).snd_cwnd >= before);
    assert_eq!(info(&server).dsack_dups, 1);
    // Nor does one that a duplicate acknowledgement tells.
    let iss = iss + 2 * 1460;
    let before = info(&server).snd_cwnd;
    write(&server, &[7; 2 * 1460]).unwrap();
    assert_eq!(segments(&mut s, iss), [0, 1]);
    let pto = probe_ms(&server);
    s.expect_after(pto, "loss probe");
    for _ in 0..2 {
        s.send(&seg_at(seq, iss + 2 * 1460));
    }
    write(&server, b"x").unwrap();
    s.expect("x");
    s.send(&seg_at(seq, iss + 2 * 1460 + 1));
    assert!(info(&server).snd_cwnd >= before);
    assert_eq!(s.stack.counters().sum(|c| &c.loss_probe_recovery), 1);
}

#[test]
fn a_probe_goes_in_the_place_of_a_timeout_that_is_sooner() {
    // A short, steady round trip of which one segment is on the way: two round trips and the peer's delay would be
    // later than the timeout (RFC 8985 §7.2).
    let mut s = Script::new();
    let (server, seq, iss) = measured(&mut s, &SACK, 20);
    let rto = u64::from(info(&server).rto) / 1000;
    assert!((219..=222).contains(&rto), "{rto}");
    write(&server, b"lost").unwrap();
    s.expect("data");
    let probe = s.expect_after(rto, "loss probe");
    assert_eq!((probe.seq, probe.data.as_slice()), (iss, &b"lost"[..]));
    assert_eq!(s.stack.counters().sum(|c| &c.loss_probes), 1);
    let after = info(&server);
    assert_eq!((after.retransmits, after.ca_state), (0, 0));
    // A second one is not sent: then it is the timeout's turn.
    s.expect_after(rto, "timeout");
    assert_eq!(info(&server).ca_state, 4);
    s.send(&seg_at(seq, iss + 4));
    assert_eq!(info(&server).ca_state, 0);
}

#[test]
fn writing_on_does_not_push_the_timeout_away() {
    // RFC 6298 §5.1: only the first of what is on the way starts the timer.
    for options in [&PLAIN[..], &SACK[..]] {
        let mut s = Script::new();
        let (server, _, iss) = measured(&mut s, options, 100);
        let rto = u64::from(info(&server).rto) / 1000;
        let mut again = None;
        for _ in 0..rto / 50 + 2 {
            write(&server, b"x").unwrap();
            s.advance(50 * MS);
            while let Some(data) = s.next() {
                again = again.or(s
                    .stack
                    .counters()
                    .sum(|c| &c.tcp_retrans_segs)
                    .checked_sub(1));
                assert!(data.seq.wrapping_sub(iss) < 100);
            }
        }
        assert!(again.is_some(), "nothing was sent again in {rto} ms");
    }
}

#[test]
fn time_tells_a_loss_when_there_are_too_few_duplicates() {
    let mut s = Script::new();
    let (server, seq, iss) = measured(&mut s, &SACK, 40);
    write(&server, &[7; 2 * 1460]).unwrap();
    assert_eq!(segments(&mut s, iss), [0, 1]);
    s.advance(40 * MS);
    // One duplicate only: a quarter of the least round trip may be reordering, then it is a loss (RFC 8985 §6.2).
    s.send(&sacked(seq, iss, iss, &[(1, 2)]));
    let again = s.expect_after(10, "RACK's retransmission");
    assert_eq!((again.seq, again.data.len()), (iss, 1460));
    assert_eq!(info(&server).ca_state, 3);
    assert_eq!(s.stack.counters().sum(|c| &c.timeouts), 0);
}

#[test]
fn reordering_is_no_loss() {
    let mut s = Script::new();
    let (server, seq, iss) = measured(&mut s, &SACK, 40);
    write(&server, &[7; 2 * 1460]).unwrap();
    assert_eq!(segments(&mut s, iss), [0, 1]);
    s.advance(40 * MS);
    s.send(&sacked(seq, iss, iss, &[(1, 2)]));
    s.advance(5 * MS);
    s.send(&seg_at(seq, iss + 2 * 1460));
    s.advance(SECOND);
    s.silence();
    let after = info(&server);
    assert_eq!((after.ca_state, after.total_retrans), (0, 0));
    assert_eq!(after.snd_ssthresh, 0x7fff_ffff);
    assert_eq!(after.reord_seen, 1);
}

#[test]
fn a_loss_costs_what_the_chosen_algorithm_says_and_is_undone_if_it_was_none() {
    for (kind, share) in [(net::Congestion::Cubic, 7), (net::Congestion::Reno, 5)] {
        for undo in [false, true] {
            let mut s = Script::new();
            let (server, seq, iss) = slow(&mut s, &SACK, 40);
            server.set_option(Opt::Congestion(kind)).unwrap();
            let chosen = Ok(Opt::Congestion(kind));
            assert_eq!(server.option(OptName::Congestion), chosen);
            write(&server, &[7; 10 * 1460]).unwrap();
            assert_eq!(segments(&mut s, iss).len(), 10);
            s.advance(40 * MS);
            // The first is missing, nine came.
            s.send(&sacked(seq, iss, iss, &[(1, 4)]));
            assert_eq!(segments(&mut s, iss), [0]);
            s.send(&sacked(seq, iss, iss, &[(1, 10)]));
            assert_eq!(info(&server).snd_ssthresh, share, "{kind:?}");
            assert_eq!(info(&server).ca_state, 3);
            if undo {
                // It was only late: the peer has it twice, and says so (RFC 2883).
                s.send(&sacked(seq, iss + 10 * 1460, iss, &[(0, 1)]));
                assert_eq!(info(&server).snd_ssthresh, 0x7fff_ffff);
                assert!(info(&server).snd_cwnd >= 10);
                assert_eq!(info(&server).ca_state, 0);
            } else {
                s.send(&seg_at(seq, iss + 10 * 1460));
                assert_eq!(info(&server).ca_state, 0);
                assert_eq!(info(&server).snd_cwnd, share);
            }
        }
    }
}

#[test]
fn slow_start_doubles_and_a_timeout_starts_over() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server
        .set_option(Opt::Congestion(net::Congestion::Reno))
        .unwrap();
    write(&server, &[7; 60 * 1460]).unwrap();
    assert_eq!(segments(&mut s, iss).len(), 10, "RFC 6928");
    for i in 1..=5 {
        s.send(&seg_at(seq, iss + i * 2 * 1460));
        assert_eq!(segments(&mut s, iss).len(), 4, "two for each");
    }
    assert_eq!(info(&server).snd_cwnd, 20);
    s.advance(210 * MS);
    let again = segments(&mut s, iss);
    assert_eq!(again, [10]);
    let after = info(&server);
    assert_eq!((after.snd_cwnd, after.ca_state), (1, 4));
    assert_eq!(after.snd_ssthresh, 10, "half of what was on the way");
}
