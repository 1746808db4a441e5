//! What losses cost: slow start and the timeout (RFC 5681, 6298).

use super::*;

fn seg_at(seq: u32, ack: u32) -> Seg {
    seg(seq, ack, ACK, b"")
}

fn segments(s: &mut Script, iss: u32) -> Vec<u32> {
    let mut all = vec![];
    while let Some(data) = s.next() {
        all.push(data.seq.wrapping_sub(iss) / 1460);
    }
    all
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
