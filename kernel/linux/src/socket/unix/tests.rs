//! What UNIX sockets promise, without descriptors: pairs, names, queues, ends.

use super::*;
use crate::socket::ops::SendMsg;
use alloc::vec;
use fs::{File, Metadata, OpenFile, OpenFlags};
use iobuf::{SliceSource, VecSink};

fn send(socket: &UnixSocket, bytes: &[u8]) -> Result<usize> {
    socket.send(&mut SliceSource::new(bytes), &SendMsg::default())
}

fn recv(socket: &UnixSocket, room: usize) -> Result<Vec<u8>> {
    let mut sink = VecSink::new(room);
    socket.recv(&mut sink, MsgFlags::empty())?;
    Ok(sink.into_bytes())
}

fn named(name: &str) -> Address {
    Address::Unix(UnixAddr::Abstract(name.as_bytes().to_vec()))
}

#[test]
fn a_stream_pair_talks_both_ways_and_tells_the_end() {
    let (a, b) = UnixSocket::pair(Kind::Stream);
    assert_eq!(recv(&b, 9), Err(Errno::EAGAIN));
    assert_eq!(send(&a, b"hel"), Ok(3));
    assert_eq!(send(&a, b"lo"), Ok(2));
    assert!(b.poll().contains(Events::IN | Events::OUT));
    assert_eq!(b.input_queued(), Ok(5));
    assert_eq!(a.output_queued(), Ok(5));
    assert_eq!(recv(&b, 9), Ok(b"hello".to_vec()));
    send(&b, b"last").unwrap();
    b.close();
    assert!(a.poll().contains(Events::HUP | Events::RDHUP));
    assert_eq!(recv(&a, 9), Ok(b"last".to_vec()));
    assert_eq!(recv(&a, 9), Ok(Vec::new()));
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
}

#[test]
fn closing_with_unread_data_resets_the_peer() {
    let (a, b) = UnixSocket::pair(Kind::Stream);
    send(&a, b"unread").unwrap();
    b.close();
    assert_eq!(recv(&a, 1), Err(Errno::ECONNRESET));
    assert_eq!(recv(&a, 1), Ok(Vec::new()));
}

#[test]
fn shutting_down_one_way_leaves_the_other() {
    let (a, b) = UnixSocket::pair(Kind::Stream);
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
    assert_eq!(recv(&b, 9), Ok(Vec::new()));
    assert_eq!(send(&b, b"y"), Ok(1));
    assert_eq!(recv(&a, 9), Ok(b"y".to_vec()));
}

#[test]
fn connections_wait_in_the_backlog() {
    let listener = UnixSocket::new(Kind::Stream);
    let addr = named("backlog-test");
    let client = UnixSocket::new(Kind::Stream);
    assert_eq!(client.connect(&addr), Err(Errno::ECONNREFUSED));
    listener.bind(&addr).unwrap();
    assert_eq!(client.connect(&addr), Err(Errno::ECONNREFUSED));
    listener.listen(0).unwrap();
    client.connect(&addr).unwrap();
    let second = UnixSocket::new(Kind::Stream);
    assert_eq!(second.connect(&addr), Err(Errno::EAGAIN), "queue full");
    assert_eq!(client.connect(&addr), Err(Errno::EAGAIN), "told first");
    send(&client, b"early").unwrap();
    assert!(listener.poll().contains(Events::IN));
    let server = listener.take_connection().unwrap();
    assert_eq!(recv(&server, 9), Ok(b"early".to_vec()));
    assert_eq!(client.peer_addr(), Ok(addr.clone()));
    assert_eq!(server.local_addr(), Ok(addr.clone()));
    second.connect(&addr).unwrap();
    listener.close();
    assert_eq!(recv(&second, 1), Err(Errno::ECONNRESET));
    // The name is held by the accepted socket no longer than by the listener.
    drop(server);
    let next = UnixSocket::new(Kind::Stream);
    assert_eq!(next.bind(&addr), Ok(()));
}

#[test]
fn datagrams_keep_their_borders_and_senders() {
    let (a, b) = (UnixSocket::new(Kind::Dgram), UnixSocket::new(Kind::Dgram));
    let (addr_a, addr_b) = (named("dgram-a"), named("dgram-b"));
    a.bind(&addr_a).unwrap();
    b.bind(&addr_b).unwrap();
    let msg = SendMsg {
        to: Some(addr_b),
        ..SendMsg::default()
    };
    a.send(&mut SliceSource::new(b"one"), &msg).unwrap();
    a.send(&mut SliceSource::new(b""), &msg).unwrap();
    let mut sink = VecSink::new(2);
    let received = b.recv(&mut sink, MsgFlags::empty()).unwrap();
    assert_eq!((received.len, received.full_len), (2, 3));
    assert_eq!(received.from, Some(addr_a));
    assert!(received.flags.contains(MsgFlags::TRUNC));
    assert_eq!(recv(&b, 9), Ok(Vec::new()));
    assert_eq!(recv(&b, 9), Err(Errno::EAGAIN));
}

#[test]
fn a_full_datagram_queue_has_the_sender_wait() {
    let (a, b) = UnixSocket::pair(Kind::Dgram);
    let mut sent = 0;
    while send(&a, b"x").is_ok() {
        sent += 1;
        assert!(sent <= MAX_DATAGRAMS);
    }
    assert_eq!(send(&a, b"x"), Err(Errno::EAGAIN));
    assert!(!a.poll().contains(Events::OUT));
    recv(&b, 1).unwrap();
    assert!(a.poll().contains(Events::OUT));
    assert_eq!(send(&a, &vec![0; BUFFER + 1]), Err(Errno::EMSGSIZE));
}

/// A file that counts its end.
struct Probe(Arc<AtomicUsize>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl File for Probe {
    fn metadata(&self) -> Result<Metadata> {
        Err(Errno::EIO)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[test]
fn descriptors_travel_and_are_closed_with_the_queue() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let file = OpenFile::new(Arc::new(Probe(dropped.clone())), OpenFlags::RDWR, None);
    let (a, b) = UnixSocket::pair(Kind::Stream);
    send(&a, b"before").unwrap();
    let msg = SendMsg {
        control: vec![Control::Rights(vec![file])],
        ..SendMsg::default()
    };
    a.send(&mut SliceSource::new(b"with"), &msg).unwrap();
    send(&a, b"after").unwrap();
    drop(msg);
    let mut sink = VecSink::new(99);
    let received = b.recv(&mut sink, MsgFlags::empty()).unwrap();
    assert_eq!(
        sink.into_bytes(),
        b"beforewith",
        "the read stops behind the descriptors"
    );
    let Some(Control::Rights(files)) = received.control.into_iter().next() else {
        panic!("no descriptors");
    };
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    let again = SendMsg {
        control: vec![Control::Rights(files)],
        ..SendMsg::default()
    };
    a.send(&mut SliceSource::new(b"!"), &again).unwrap();
    drop(again);
    b.close();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn credentials_come_along_when_asked_for() {
    let (a, b) = UnixSocket::pair(Kind::Stream);
    let on = 1i32.to_ne_bytes();
    b.set_option(1, 16, &on).unwrap();
    send(&a, b"x").unwrap();
    let received = b.recv(&mut VecSink::new(1), MsgFlags::empty()).unwrap();
    assert!(matches!(
        received.control.first(),
        Some(Control::Credentials(ids)) if ids.pid == crate::process::PID
    ));
    let peer = b.option(1, 17, 12).unwrap();
    assert_eq!(peer[..4], crate::process::PID.to_ne_bytes());
}

#[test]
fn unnamed_sockets_bind_themselves() {
    let socket = UnixSocket::new(Kind::Dgram);
    socket.bind(&Address::Unix(UnixAddr::Unnamed)).unwrap();
    let Ok(Address::Unix(UnixAddr::Abstract(name))) = socket.local_addr() else {
        panic!("not an abstract name");
    };
    assert_eq!(name.len(), 5);
}

/// An open file of a socket, as a descriptor table would hold it.
fn open(socket: &Arc<UnixSocket>) -> Arc<OpenFile> {
    let file = crate::socket::file::SocketFile::new(socket.clone());
    OpenFile::new(file, OpenFlags::RDWR, None)
}

fn pass(from: &UnixSocket, files: Vec<Arc<OpenFile>>) {
    let msg = SendMsg {
        control: vec![Control::Rights(files)],
        ..SendMsg::default()
    };
    from.send(&mut SliceSource::new(b"!"), &msg).unwrap();
}

/// The tests here run side by side, and what is under way is counted for all: each looks at its own sockets only.
#[test]
fn sockets_in_each_others_queues_are_collected() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let probe = || OpenFile::new(Arc::new(Probe(dropped.clone())), OpenFlags::RDWR, None);
    // Each end is in the other's queue, and something hangs on it.
    let (a, b) = UnixSocket::pair(Kind::Stream);
    let files = [open(&a), open(&b)];
    pass(&a, vec![files[0].clone(), probe()]);
    pass(&b, vec![files[1].clone()]);
    let ends = [Arc::downgrade(&files[0]), Arc::downgrade(&files[1])];
    drop((a, b));
    drop(files);
    assert!(ends.iter().all(|end| end.upgrade().is_some()), "a cycle");
    // One in its own queue, with a listener's waiting connection between.
    let (c, d) = UnixSocket::pair(Kind::Dgram);
    let file = open(&c);
    pass(&d, vec![file.clone()]);
    let own = Arc::downgrade(&file);
    drop((c, file));
    // One that can be received: it stays, and what it holds.
    let (e, f) = UnixSocket::pair(Kind::Stream);
    let (g, h) = UnixSocket::pair(Kind::Stream);
    pass(&g, vec![probe()]);
    pass(&e, vec![open(&h)]);
    drop(h);
    // Another test's close may be looking just now.
    for _ in 0..1000 {
        UnixSocket::new(Kind::Stream).close();
        if own.upgrade().is_none() && ends.iter().all(|end| end.upgrade().is_none()) {
            break;
        }
        std::thread::yield_now();
    }
    assert!(ends.iter().all(|end| end.upgrade().is_none()), "collected");
    assert!(own.upgrade().is_none());
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    let received = f.recv(&mut VecSink::new(9), MsgFlags::empty()).unwrap();
    let Some(Control::Rights(files)) = received.control.into_iter().next() else {
        panic!("lost");
    };
    let h = crate::socket::file::of(&files[0]).unwrap();
    let received = h
        .recv(&mut VecSink::new(9), MsgFlags::empty(), true)
        .unwrap();
    assert!(matches!(&received.control[..], [Control::Rights(_)]));
    drop(d);
}
