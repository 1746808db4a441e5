//! The size of what the path carries: ICMP and black holes.

use super::*;

/// A router says that the segment `seq` of ours was too large for `mtu`.
fn too_big(s: &mut Script, seq: u32, mtu: u16) {
    let mut icmp = vec![3, 4, 0, 0, 0, 0, 0, 0];
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    let mut quoted = ip_frame([0; 6], host(1), peer(), 6, &[0; 20])[14..].to_vec();
    quoted[2..4].copy_from_slice(&1500u16.to_be_bytes());
    quoted[20..22].copy_from_slice(&80u16.to_be_bytes());
    quoted[22..24].copy_from_slice(&5000u16.to_be_bytes());
    quoted[24..28].copy_from_slice(&seq.to_be_bytes());
    icmp.extend_from_slice(&quoted[..28]);
    let sum = !common::fold(&icmp, 0);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    s.inject(&ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 1, &icmp));
}

#[test]
fn a_router_says_that_packets_are_too_large() {
    let mut s = Script::new();
    let (server, _seq, iss) = connection(&mut s, &PLAIN);
    write(&server, &[1; 2920]).unwrap();
    let first = s.expect("data");
    assert_eq!(first.data.len(), 1460);
    s.expect("data");
    too_big(&mut s, iss, 1024);
    let again = s.expect("smaller segment");
    assert_eq!((again.seq, again.data.len()), (iss, 1024 - 40));
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
fn what_a_router_said_is_bounded_and_forgotten() {
    let mut s = Script::new();
    let (server, seq, mut iss) = connection(&mut s, &PLAIN);
    let full = |s: &mut Script, iss: &mut u32| {
        write(&server, &[1; 1460]).unwrap();
        let first = s.expect("data").data.len();
        s.advance(MS);
        while s.next().is_some() {}
        *iss += 1460;
        s.send(&seg(seq, *iss, ACK, b""));
        first
    };
    assert_eq!(full(&mut s, &mut iss), 1460);
    // Smaller than any link needs: not believed (`min_pmtu`), and a claim to more than is known changes nothing.
    write(&server, &[1; 100]).unwrap();
    s.expect("data");
    too_big(&mut s, iss, 68);
    too_big(&mut s, iss, 1000);
    assert_eq!(server.option(OptName::Mtu), Ok(Opt::Mtu(552)));
    while s.next().is_some() {}
    iss += 100;
    s.send(&seg(seq, iss, ACK, b""));
    assert_eq!(full(&mut s, &mut iss), 512);
    // After ten minutes larger ones are tried again (RFC 1191 §6.3), by a connection that was there all the time.
    s.advance(590 * SECOND);
    assert_eq!(full(&mut s, &mut iss), 512);
    s.advance(11 * SECOND);
    assert_eq!(full(&mut s, &mut iss), 1460);
    assert_eq!(server.option(OptName::Mtu), Ok(Opt::Mtu(1500)));
}

/// A connection that has found a black hole: its socket, and both next sequence numbers.
fn in_black_hole(s: &mut Script, options: &[u8]) -> (Arc<dyn Socket>, u32, u32) {
    let (server, seq, iss) = connection(s, options);
    write(&server, &[1; 1460]).unwrap();
    s.advance(3 * SECOND);
    while s.next().is_some() {}
    s.send(&seg(seq, iss + 1460, ACK, b""));
    assert_eq!(info(&server).pmtu, 1200);
    (server, seq, iss + 1460)
}

#[test]
fn a_black_hole_stays_found_where_little_is_sent() {
    let mut s = Script::new();
    let (server, ..) = in_black_hole(&mut s, &PLAIN);
    // Also when routes change, and when others may try again: nothing would tell in time what became of a larger segment.
    for wait in [1, 700] {
        s.advance(wait * SECOND);
        s.stack.set_neighbour(2, peer().into(), PEER_MAC).unwrap();
        assert_eq!(info(&server).snd_mss, 1160);
    }
    write(&server, &[1; 1460]).unwrap();
    assert_eq!(s.expect("data").data.len(), 1160);
}

/// The other side of a path that lets packets of `limit` bytes pass.
struct Far {
    limit: usize,
    seq: u32,
    /// What came in order, and beyond that.
    next: u32,
    beyond: Vec<(u32, u32)>,
    sack: bool,
    /// Sizes of packets that were too large, and the largest that passed.
    lost: Vec<usize>,
    largest: usize,
}

impl Far {
    fn new(limit: usize, seq: u32, next: u32, sack: bool) -> Far {
        Far {
            limit,
            seq,
            next,
            beyond: vec![],
            sack,
            lost: vec![],
            largest: 0,
        }
    }

    /// What was sent takes 10 ms, and as long the answers to each; returns how many there were.
    fn round(&mut self, s: &mut Script) -> usize {
        s.advance(10 * MS);
        let sent: Vec<Seg> = std::iter::from_fn(|| s.next()).collect();
        s.advance(10 * MS);
        for segment in &sent {
            let size = 40 + segment.options.len() + segment.data.len();
            if size > self.limit {
                self.lost.push(size);
                continue;
            }
            self.largest = self.largest.max(size);
            let end = segment.seq.wrapping_add(segment.data.len() as u32);
            if segment.seq == self.next {
                self.next = end;
            } else {
                self.beyond.push((segment.seq, end));
            }
            self.beyond.sort();
            self.beyond.retain(|(start, end)| {
                if *start <= self.next {
                    self.next = self.next.max(*end);
                }
                *start > self.next
            });
            let mut options = vec![];
            if let (true, Some(first), Some(last)) =
                (self.sack, self.beyond.first(), self.beyond.last())
            {
                options.extend([1, 1, 5, 10]);
                options.extend(first.0.to_be_bytes());
                options.extend(last.1.to_be_bytes());
            }
            s.send(&Seg {
                options,
                ..seg(self.seq, self.next, ACK, b"")
            });
        }
        sent.len()
    }
}

#[test]
fn a_black_hole_that_is_gone_is_left_after_ten_minutes() {
    for options in [&SACK[..], &PLAIN[..]] {
        let mut s = Script::new();
        let (server, seq, iss) = in_black_hole(&mut s, options);
        let mut far = Far::new(1500, seq, iss, options == SACK);
        let send = |s: &mut Script, far: &mut Far| {
            write(&server, &[1; 20_000]).unwrap();
            while far.round(s) > 0 {}
            std::mem::take(&mut far.largest)
        };
        s.advance(500 * SECOND);
        assert_eq!(send(&mut s, &mut far), 1200, "it is early");
        s.advance(110 * SECOND);
        assert_eq!(send(&mut s, &mut far), 1500);
        assert_eq!((info(&server).pmtu, info(&server).snd_mss), (1500, 1460));
        assert_eq!(s.stack.counters().sum(|c| &c.mtup_success), 1);
        assert_eq!(far.next, iss + 40_000);
    }
}

#[test]
fn a_black_hole_is_sounded_without_harm_to_the_rest() {
    for options in [&SACK[..], &PLAIN[..]] {
        let mut s = Script::new();
        let (server, seq, iss) = in_black_hole(&mut s, options);
        let mut far = Far::new(1400, seq, iss, options == SACK);
        s.advance(610 * SECOND);
        write(&server, &[1; 10_000]).unwrap();
        far.next = iss;
        let before = (info(&server).snd_cwnd, info(&server).snd_ssthresh);
        let mut sent = 10_000;
        for _ in 0..100 {
            far.round(&mut s);
            assert!(info(&server).ca_state <= 1, "no recovery");
            write(&server, &[1; 10_000]).unwrap();
            sent += 10_000;
        }
        while far.round(&mut s) > 0 {}
        assert_eq!(far.next, iss + sent);
        // All of it at once, then halves of what is in doubt.
        assert_eq!(far.lost[0], 1500);
        assert!(far.lost.len() <= 7, "{:?}", far.lost);
        let found = info(&server).pmtu;
        assert!((1392..=1400).contains(&found), "{found}");
        assert_eq!(far.largest as u32, found);
        let after = (info(&server).snd_cwnd, info(&server).snd_ssthresh);
        // In segments, which are larger now.
        assert!(after.0 * 1360 >= before.0 * 1160, "{before:?} {after:?}");
        assert_eq!(s.stack.counters().sum(|c| &c.timeouts), 3);
        // That is that for ten minutes.
        let lost = far.lost.len();
        s.advance(590 * SECOND);
        write(&server, &[1; 20_000]).unwrap();
        while far.round(&mut s) > 0 {}
        assert_eq!(far.lost.len(), lost);
        s.advance(20 * SECOND);
        write(&server, &[1; 20_000]).unwrap();
        while far.round(&mut s) > 0 {}
        assert_eq!(far.lost[lost], 1500);
    }
}

#[test]
fn a_router_tells_what_a_probe_may_measure() {
    let mut s = Script::new();
    let (server, seq, iss) = in_black_hole(&mut s, &SACK);
    let mut far = Far::new(1400, seq, iss, true);
    write(&server, &[1; 20_000]).unwrap();
    while far.round(&mut s) > 0 {}
    let iss = iss + 20_000;
    s.advance(610 * SECOND);
    write(&server, &[1; 11_000]).unwrap();
    let probe = s.expect("a probe");
    assert_eq!((probe.seq, probe.data.len()), (iss, 1460));
    let last = std::iter::from_fn(|| s.next()).last().unwrap();
    let end = last.seq + last.data.len() as u32;
    too_big(&mut s, iss, 1400);
    let again = s.expect("the same in usual segments");
    assert_eq!((again.seq, again.data.len()), (iss, 1160));
    while s.next().is_some() {}
    s.send(&seg(seq, end, ACK, b""));
    far.next = end;
    write(&server, &[1; 20_000]).unwrap();
    while far.round(&mut s) > 0 {}
    assert_eq!((far.lost, far.largest), (vec![], 1400));
    assert_eq!(info(&server).pmtu, 1400);
}
