//! Window scaling (RFC 7323 §2): who offers it, what it applies to, and its limit.

use super::*;

/// MSS 1460 and window scaling by that many bits.
fn scaled(shift: u8) -> [u8; 8] {
    [2, 4, 5, 180, 1, 3, 3, shift]
}

/// A connection whose SYN says `options`; the window of the last acknowledgement of the handshake is `window`.
fn open(s: &mut Script, options: &[u8], window: u16) -> (Arc<dyn Socket>, u32, u32, Seg) {
    let listener = s.listen(80, 16);
    s.send(&Seg {
        options: options.to_vec(),
        window: 3000,
        ..seg(1000, 0, SYN, b"")
    });
    let answer = s.expect("SYN-ACK");
    let iss = answer.seq.wrapping_add(1);
    s.send(&Seg {
        window,
        ..seg(1001, iss, ACK, b"")
    });
    let server = listener.accept().unwrap();
    listener.close();
    (server, 1001, iss, answer)
}

#[test]
fn both_scale_or_neither_does() {
    let mut s = Script::new();
    let (server, seq, iss, answer) = open(&mut s, &scaled(3), 1000);
    let ours = find(&answer.options, 3).expect("the option")[2];
    assert!((1..=14).contains(&ours), "{ours}");
    assert_eq!(answer.window, 65_535, "a SYN's window is not scaled");
    let told = info(&server);
    assert_eq!((told.snd_wscale, told.rcv_wscale), (3, ours));
    assert_eq!((told.options & 4, told.snd_wnd), (4, 8000));
    // As far as the window goes in their units, and no further.
    write(&server, &[7; 20_000]).unwrap();
    let mut sent = 0;
    while let Some(data) = s.next() {
        sent += data.data.len();
        // In ours: what was told is never taken back by rounding.
        assert!(u32::from(data.window) << ours >= 65_535);
    }
    assert!((6500..=8000).contains(&sent), "{sent}");
    s.send(&Seg {
        window: 2000,
        ..seg(seq, iss + sent as u32, ACK, b"")
    });
    assert_eq!(info(&server).snd_wnd, 16_000);
    // Not offered, not used: neither answered nor applied.
    let mut s = Script::new();
    let (server, _, _, answer) = open(&mut s, &PLAIN, 1000);
    assert_eq!(find(&answer.options, 3), None);
    let told = info(&server);
    assert_eq!((told.snd_wscale, told.rcv_wscale), (0, 0));
    assert_eq!((told.options & 4, told.snd_wnd), (0, 1000));
    // No shift at all is still an offer: ours may differ.
    let mut s = Script::new();
    let (server, _, _, answer) = open(&mut s, &scaled(0), 1000);
    assert!(find(&answer.options, 3).is_some());
    assert_eq!(
        (info(&server).options & 4, info(&server).snd_wnd),
        (4, 1000)
    );
}

#[test]
fn a_shift_above_fourteen_counts_as_fourteen() {
    // RFC 7323 §2.3.
    let mut s = Script::new();
    let (server, ..) = open(&mut s, &scaled(200), 10);
    assert_eq!(info(&server).snd_wscale, 14);
    assert_eq!(info(&server).snd_wnd, 10 << 14);
}

#[test]
fn the_buffer_chooses_the_shift() {
    for (size, shift) in [(16_000, 1), (32_000, 1), (100_000, 2), (1 << 20, 5)] {
        let mut s = Script::with(|c| c.limits.rmem_max = 8 << 20, None);
        let listener = s.listen(80, 16);
        listener.set_option(Opt::RcvBuf(size)).unwrap();
        s.send(&Seg {
            options: scaled(7).to_vec(),
            ..seg(1000, 0, SYN, b"")
        });
        let answer = s.expect("SYN-ACK");
        let told = find(&answer.options, 3).expect("the option")[2];
        assert!(told >= shift, "{size}: {told}");
        assert!(65_535u64 << told >= u64::from(size), "{size}: {told}");
    }
}

#[test]
fn who_connects_scales_only_what_follows_an_answer_that_scales() {
    for (options, shift) in [(scaled(5).to_vec(), 5), (PLAIN.to_vec(), 0)] {
        let mut s = Script::new();
        let client = s.socket(Kind::Stream);
        let to = Some(SocketAddr::new(peer().into(), 443));
        assert_eq!(client.connect(to), Err(Errno::EINPROGRESS));
        let syn = s.expect("SYN");
        let ours = find(&syn.options, 3).expect("the offer")[2];
        assert_eq!(syn.window, 65_535);
        let answer = |flags, ack, window| Seg {
            sport: 443,
            dport: syn.sport,
            window,
            ..seg(9000, ack, flags, b"")
        };
        let ack = syn.seq.wrapping_add(1);
        s.send(&Seg {
            options,
            ..answer(SYN | ACK, ack, 5000)
        });
        let last = s.expect("ACK");
        let told = info(&client);
        assert_eq!(told.snd_wnd, 5000, "a SYN's window is not scaled");
        if shift == 0 {
            assert_eq!((told.rcv_wscale, last.window), (0, 65_535));
        } else {
            assert_eq!(told.rcv_wscale, ours);
            assert!(u32::from(last.window) << ours >= 65_535 && last.window < 65_535);
        }
        s.send(&Seg {
            seq: 9001,
            ..answer(ACK, ack, 5001)
        });
        assert_eq!(info(&client).snd_wnd, 5001 << shift);
    }
}
