//! Fast Open as a client (RFC 7413 §4.2).

use super::*;

const COOKIE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn server() -> SocketAddr {
    SocketAddr::new(peer().into(), 443)
}

/// `sendto` with `MSG_FASTOPEN`.
fn send_first(socket: &Arc<dyn Socket>, bytes: &[u8]) -> Result<usize, Errno> {
    let meta = SendMeta {
        to: Some(server()),
        flags: MsgFlags::FASTOPEN,
        ..SendMeta::default()
    };
    socket.send(&mut SliceSource::new(bytes), &meta)
}

/// The server's answer to `syn`, which acknowledges `data` bytes of it.
fn answer(syn: &Seg, flags: u8, data: u32, cookie: &[u8]) -> Seg {
    let mut options = PLAIN.to_vec();
    if !cookie.is_empty() {
        options.extend([34, 2 + cookie.len() as u8]);
        options.extend(cookie);
        options.extend([1, 1]);
    }
    Seg {
        sport: 443,
        dport: syn.sport,
        options: if flags & SYN != 0 { options } else { vec![] },
        ..seg(
            9000 + u32::from(flags & SYN == 0),
            syn.seq.wrapping_add(1 + data),
            flags,
            b"",
        )
    }
}

fn cookie_of(syn: &Seg) -> Option<Vec<u8>> {
    find(&syn.options, 34).map(|option| option[2..].to_vec())
}

/// A first visit, which brings the cookie.
fn visit(s: &mut Script) {
    let client = s.socket(Kind::Stream);
    assert_eq!(send_first(&client, b"hello"), Err(Errno::EINPROGRESS));
    let syn = s.expect("SYN");
    assert_eq!((cookie_of(&syn), syn.data.len()), (Some(vec![]), 0));
    assert_eq!(send_first(&client, b"hello"), Err(Errno::EALREADY));
    s.send(&answer(&syn, SYN | ACK, 0, &COOKIE));
    assert!(s.expect("ACK").is(ACK));
    assert_eq!(client.connect_result(), Some(Ok(())));
    assert_eq!(info(&client).fastopen_client_fail, 0);
    assert_eq!(send_first(&client, b"hello"), Err(Errno::EISCONN));
    write(&client, b"hello").unwrap();
    assert_eq!(s.expect("data").data, b"hello");
    s.send(&Seg {
        sport: 443,
        dport: syn.sport,
        ..seg(9001, 0, RST, b"")
    });
}

#[test]
fn data_goes_with_the_syn_of_the_second_visit() {
    let mut s = Script::new();
    visit(&mut s);
    let client = s.socket(Kind::Stream);
    assert_eq!(send_first(&client, b"request"), Ok(7));
    let syn = s.expect("SYN with data");
    assert!(syn.is(SYN), "{syn:?}");
    assert_eq!(cookie_of(&syn), Some(COOKIE.to_vec()));
    assert_eq!(syn.data, b"request");
    assert_eq!(client.connect_result(), None);
    s.send(&answer(&syn, SYN | ACK, 7, &[]));
    let ack = s.expect("ACK");
    assert_eq!((ack.flags, ack.seq), (ACK, syn.seq.wrapping_add(8)));
    let told = info(&client);
    assert_eq!(
        (told.options & 32, told.unacked, told.bytes_acked),
        (32, 0, 8)
    );
    assert_eq!((told.total_retrans, told.fastopen_client_fail), (0, 0));
    assert_eq!(s.stack.counters().sum(|c| &c.fastopen_active), 1);
    s.send(&Seg {
        data: b"response".to_vec(),
        ..answer(&syn, ACK, 7, &[])
    });
    assert_eq!(read(&client, 99).unwrap(), b"response");
    write(&client, b"more").unwrap();
    assert_eq!(s.expect("data").seq, syn.seq.wrapping_add(8));
}

#[test]
fn what_the_server_did_not_take_goes_again_at_once() {
    for taken in [0, 3] {
        let mut s = Script::new();
        visit(&mut s);
        let client = s.socket(Kind::Stream);
        // No more than a segment fits: the rest waits for the connection.
        assert_eq!(send_first(&client, &[7; 5000]), Ok(1420));
        let syn = s.expect("SYN with data");
        assert_eq!(syn.data.len(), 1420);
        s.send(&answer(&syn, SYN | ACK, taken, &[9; 8]));
        let again = s.expect("data");
        assert_eq!(again.seq, syn.seq.wrapping_add(1 + taken));
        assert_eq!(again.data.len(), 1420 - taken as usize);
        let told = info(&client);
        assert_eq!(told.fastopen_client_fail, if taken == 0 { 2 } else { 0 });
        s.send(&answer(&syn, ACK, 1420, &[]));
        assert_eq!(info(&client).unacked, 0);
        assert_eq!(client.output_queued(), 0);
        // The new cookie is the one that is shown.
        let next = s.socket(Kind::Stream);
        assert_eq!(send_first(&next, b"x"), Ok(1));
        assert_eq!(cookie_of(&s.expect("SYN")), Some(vec![9; 8]));
    }
}

#[test]
fn a_syn_that_is_not_answered_goes_again_without() {
    let mut s = Script::new();
    visit(&mut s);
    let client = s.socket(Kind::Stream);
    assert_eq!(send_first(&client, b"request"), Ok(7));
    let syn = s.expect("SYN with data");
    let again = s.expect_after(1000, "SYN again");
    assert_eq!((again.flags, again.seq), (SYN, syn.seq));
    assert_eq!((cookie_of(&again), again.data.len()), (None, 0));
    s.send(&answer(&syn, SYN | ACK, 0, &[]));
    assert_eq!(s.expect("data").data, b"request");
    assert_eq!(info(&client).fastopen_client_fail, 3);
    assert_eq!(s.stack.counters().sum(|c| &c.fastopen_active_fail), 1);
    // Whatever is in the way there: the next one only asks.
    let next = s.socket(Kind::Stream);
    assert_eq!(send_first(&next, b"x"), Err(Errno::EINPROGRESS));
    assert_eq!(cookie_of(&s.expect("SYN")), Some(vec![]));
}

#[test]
fn connect_may_wait_for_the_first_write() {
    let mut s = Script::new();
    visit(&mut s);
    let client = s.socket(Kind::Stream);
    client.set_option(Opt::FastOpenConnect(true)).unwrap();
    assert_eq!(client.connect(Some(server())), Ok(()));
    s.advance(5 * SECOND);
    s.silence();
    assert!(client.poll().contains(Events::OUT));
    assert_eq!(client.connect_result(), Some(Ok(())));
    assert_eq!(client.connect(Some(server())), Err(Errno::EISCONN));
    assert_eq!(read(&client, 9), Err(Errno::EAGAIN));
    write(&client, b"request").unwrap();
    let syn = s.expect("SYN with data");
    assert_eq!(
        (cookie_of(&syn), &syn.data[..]),
        (Some(COOKIE.to_vec()), &b"request"[..])
    );
    assert!(!client.poll().contains(Events::OUT));
    s.send(&answer(&syn, SYN | ACK, 7, &[]));
    s.expect("ACK");
    assert!(client.poll().contains(Events::OUT));
    let busy = client.set_option(Opt::FastOpenConnect(false));
    assert_eq!(busy, Err(Errno::EINVAL));
    // A reset instead: what went with the SYN is lost, and the program hears of it.
    let client = s.socket(Kind::Stream);
    client.set_option(Opt::FastOpenConnect(true)).unwrap();
    client.connect(Some(server())).unwrap();
    write(&client, b"request").unwrap();
    let syn = s.expect("SYN with data");
    s.send(&answer(&syn, RST | ACK, 7, &[]));
    assert_eq!(client.connect_result(), Some(Err(Errno::ECONNREFUSED)));
    // One that never writes leaves nothing behind.
    let client = s.socket(Kind::Stream);
    client.set_option(Opt::FastOpenConnect(true)).unwrap();
    client.connect(Some(server())).unwrap();
    let before = s.stack.flow_counts().0;
    client.close();
    assert_eq!(s.stack.flow_counts().0, before - 1);
    s.silence();
}

#[test]
fn both_ends_are_ours_over_the_loopback() {
    let s = Script::new();
    let listener = s.listen(80, 8);
    listener.set_option(Opt::FastOpen(5)).unwrap();
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
    for visit in 0..3 {
        let client = s.socket(Kind::Stream);
        client.set_option(Opt::FastOpenConnect(true)).unwrap();
        client.connect(Some(to)).unwrap();
        write(&client, b"hi").unwrap();
        let server = listener.accept().unwrap();
        assert_eq!(read(&server, 9).unwrap(), b"hi");
        write(&server, b"ho").unwrap();
        assert_eq!(read(&client, 9).unwrap(), b"ho");
        assert_eq!(info(&client).options & 32 != 0, visit > 0);
        assert_eq!(info(&server).options & 32 != 0, visit > 0);
    }
}
