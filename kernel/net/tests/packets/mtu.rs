//! The size of what the path carries: ICMP and black holes.

use super::*;

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
