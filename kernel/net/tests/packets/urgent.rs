//! Urgent data, as Linux reads the pointer (RFC 6093 §3.2).

use super::*;

fn urgent(seq: u32, ack: u32, pointer: u16, data: &[u8]) -> Seg {
    Seg {
        urgent: pointer,
        ..seg(seq, ack, ACK | PSH | URG, data)
    }
}

/// `recv` with `MSG_OOB`: the byte, and what the flags say.
fn oob(socket: &Arc<dyn Socket>, flags: MsgFlags) -> Result<(Vec<u8>, MsgFlags), Errno> {
    let mut sink = VecSink::new(10);
    let meta = socket.recv(&mut sink, MsgFlags::OOB | flags)?;
    Ok((sink.into_bytes(), meta.flags))
}

fn write_oob(socket: &Arc<dyn Socket>, bytes: &[u8]) -> usize {
    let meta = SendMeta {
        flags: MsgFlags::OOB,
        ..SendMeta::default()
    };
    socket.send(&mut SliceSource::new(bytes), &meta).unwrap()
}

#[test]
fn the_urgent_byte_is_read_apart_and_the_stream_skips_it() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    assert_eq!(oob(&server, MsgFlags::empty()), Err(Errno::EINVAL));
    // "abc!def", the pointer names the byte after "!".
    s.send(&urgent(seq, iss, 4, b"abc!def"));
    assert!(server.poll().contains(Events::IN | Events::PRI));
    assert_eq!(server.at_mark(), Ok(false));
    assert_eq!(server.input_queued(), 3, "up to the mark");
    let told = Ok((b"!".to_vec(), MsgFlags::OOB));
    assert_eq!(oob(&server, MsgFlags::PEEK), told);
    assert_eq!(oob(&server, MsgFlags::empty()), told);
    assert_eq!(oob(&server, MsgFlags::empty()), Err(Errno::EINVAL));
    assert!(!server.poll().contains(Events::PRI));
    // A read stops at the mark, the next one skips the byte.
    assert_eq!(read(&server, 100).unwrap(), b"abc");
    assert_eq!(server.at_mark(), Ok(true));
    let mut sink = VecSink::new(100);
    server.recv(&mut sink, MsgFlags::PEEK).unwrap();
    assert_eq!(sink.into_bytes(), b"def");
    assert_eq!(server.at_mark(), Ok(true));
    assert_eq!(read(&server, 2).unwrap(), b"de");
    assert_eq!(server.at_mark(), Ok(false));
    assert_eq!(read(&server, 100).unwrap(), b"f");
    assert_eq!(s.stack.memory(), 0);
}

#[test]
fn inline_it_stays_in_the_stream_behind_a_mark() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server.set_option(Opt::OobInline(true)).unwrap();
    s.send(&urgent(seq, iss, 4, b"abc!def"));
    assert_eq!(oob(&server, MsgFlags::empty()), Err(Errno::EINVAL));
    assert_eq!(server.input_queued(), 7);
    assert_eq!(read(&server, 100).unwrap(), b"abc");
    assert_eq!(server.at_mark(), Ok(true));
    assert_eq!(read(&server, 100).unwrap(), b"!def");
    assert_eq!(server.at_mark(), Ok(false));
}

#[test]
fn announced_before_it_is_here() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    // The pointer comes with nothing; the byte four segments later, the first of them out of order.
    s.send(&urgent(seq, iss, 3, b""));
    assert_eq!(oob(&server, MsgFlags::empty()), Err(Errno::EAGAIN));
    assert!(!server.poll().contains(Events::PRI));
    s.send(&seg(seq + 1, iss, ACK, b"b!c"));
    assert_eq!(s.expect("duplicate ACK").ack, seq);
    assert_eq!(oob(&server, MsgFlags::empty()).unwrap().0, b"!");
    assert_eq!(read(&server, 9), Err(Errno::EAGAIN));
    s.send(&seg(seq, iss, ACK, b"a"));
    assert_eq!(read(&server, 9).unwrap(), b"ab");
    assert_eq!(read(&server, 9).unwrap(), b"c");
}

#[test]
fn only_the_newest_counts() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    // The first one becomes a part of the stream when a second is announced before it is reached.
    s.send(&urgent(seq, iss, 2, b"a1b"));
    s.send(&urgent(seq + 3, iss, 2, b"c2d"));
    assert_eq!(oob(&server, MsgFlags::empty()).unwrap().0, b"2");
    assert_eq!(read(&server, 9).unwrap(), b"a1bc");
    assert_eq!(read(&server, 9).unwrap(), b"d");
    // But not when it was what came next.
    s.send(&urgent(seq + 6, iss, 1, b"3"));
    assert_eq!(oob(&server, MsgFlags::empty()).unwrap().0, b"3");
    s.send(&urgent(seq + 7, iss, 2, b"e4f"));
    assert_eq!(read(&server, 9).unwrap(), b"e");
    assert_eq!(oob(&server, MsgFlags::empty()).unwrap().0, b"4");
    assert_eq!(read(&server, 9).unwrap(), b"f");
    // An old pointer that comes again is none.
    s.send(&urgent(seq + 6, iss, 1, b"3"));
    assert_eq!(oob(&server, MsgFlags::empty()), Err(Errno::EINVAL));
    assert_eq!(read(&server, 9), Err(Errno::EAGAIN));
}

#[test]
fn a_lone_urgent_byte_is_nothing_to_read() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&urgent(seq, iss, 1, b"!"));
    let events = server.poll();
    assert!(events.contains(Events::PRI) && !events.contains(Events::IN));
    assert_eq!(server.at_mark(), Ok(true));
    assert_eq!(server.input_queued(), 0);
    assert_eq!(read(&server, 9), Err(Errno::EAGAIN));
    s.send(&seg(seq + 1, iss, ACK, b"x"));
    assert_eq!(read(&server, 9).unwrap(), b"x");
    // The byte was passed and not asked for: it is gone.
    assert_eq!(oob(&server, MsgFlags::empty()), Err(Errno::EINVAL));
}

#[test]
fn what_is_sent_urgently_says_so_until_it_is_acknowledged() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    server.set_option(Opt::NoDelay(true)).unwrap();
    assert_eq!(write_oob(&server, b"ab!"), 3);
    let data = s.expect("data");
    assert_eq!((data.flags, data.urgent), (ACK | PSH | URG, 3));
    assert_eq!(data.data, b"ab!");
    write(&server, b"after").unwrap();
    let data = s.expect("more");
    assert_eq!((data.flags & URG, data.urgent), (0, 0));
    // Again with the pointer.
    let again = s.expect_after(200, "retransmission");
    assert_eq!((again.seq, again.urgent, again.flags & URG), (iss, 3, URG));
    s.send(&seg(seq, iss + 8, ACK, b""));
    write(&server, b"later").unwrap();
    assert_eq!(s.expect("data").flags & URG, 0);
}

#[test]
fn a_closed_window_does_not_hold_the_pointer_back() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&Seg {
        window: 0,
        ..seg(seq, iss, ACK, b"")
    });
    assert_eq!(write_oob(&server, b"0123456789!"), 11);
    let probe = s.expect_after(200, "probe");
    assert_eq!((probe.seq, probe.flags & URG), (iss.wrapping_sub(1), URG));
    assert_eq!(probe.urgent, 12);
}

/// The urgent byte came alone, and what follows it is more than the read asks for.
#[test]
fn peeking_past_an_urgent_byte_that_came_alone() {
    let mut s = Script::new();
    let (server, seq, iss) = connection(&mut s, &PLAIN);
    s.send(&urgent(seq, iss, 1, b"!"));
    let mut sink = VecSink::new(10);
    let looked = server.recv(&mut sink, MsgFlags::PEEK);
    assert_eq!(looked.map(|meta| meta.len), Err(Errno::EAGAIN));
    s.send(&seg(seq + 1, iss, ACK, &[7; 1000]));
    for flags in [MsgFlags::PEEK, MsgFlags::empty()] {
        let mut sink = VecSink::new(10);
        server.recv(&mut sink, flags).unwrap();
        assert_eq!(sink.into_bytes(), [7; 10]);
    }
    assert_eq!(read(&server, 2000).unwrap(), [7; 990]);
}
