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

#[test]
fn a_black_hole_stays_found() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    write(&server, &[1; 1460]).unwrap();
    s.advance(3 * SECOND);
    while s.next().is_some() {}
    s.send(&seg(seq, iss + 1460, ACK, b""));
    assert_eq!(info(&server).pmtu, 1200);
    // Also when routes change, and when others may try again.
    for wait in [1, 700] {
        s.advance(wait * SECOND);
        s.stack.set_neighbour(2, peer().into(), PEER_MAC).unwrap();
        assert_eq!(info(&server).snd_mss, 1160);
    }
    write(&server, &[1; 1460]).unwrap();
    assert_eq!(s.expect("data").data.len(), 1160);
}
