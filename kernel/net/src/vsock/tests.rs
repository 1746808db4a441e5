//! Vsock by script: a link that the test plays, and the machine talking to itself.

use std::sync::Mutex;

use iobuf::{SliceSource, VecSink};

use super::header::{EOM, EOR, NO_RECEIVE, NO_SEND};
use super::*;
use crate::socket::MsgFlags;

const GUEST: u32 = 7;

/// The other side of the card.
#[derive(Default)]
struct Wire {
    sent: Mutex<VecDeque<Box<[u8]>>>,
    arriving: Mutex<VecDeque<Arrival>>,
    full: AtomicBool,
    old: bool,
}

impl VsockLink for Wire {
    fn guest_cid(&self) -> u64 {
        GUEST.into()
    }

    fn has_seqpacket(&self) -> bool {
        !self.old
    }

    fn send(&self, packet: Box<[u8]>) -> core::result::Result<(), Box<[u8]>> {
        if self.full.load(Ordering::SeqCst) {
            return Err(packet);
        }
        self.sent.lock().unwrap().push_back(packet);
        Ok(())
    }

    fn receive(&self) -> Option<Arrival> {
        self.arriving.lock().unwrap().pop_front()
    }
}

/// The host: a port of its own against one of the machine.
struct Host {
    wire: Arc<Wire>,
    vsock: Arc<Vsock>,
    port: u32,
    peer: u32,
    kind: u16,
    buf_alloc: u32,
}

impl Host {
    fn new() -> Host {
        let wire = Arc::new(Wire::default());
        Host {
            vsock: Vsock::new(Some(wire.clone()), 5000),
            wire,
            port: 99,
            peer: 0,
            kind: STREAM,
            buf_alloc: 1000,
        }
    }

    fn inject(&self, op: u16, flags: u32, fwd_cnt: u32, data: &[u8]) {
        let mut packet = alloc::vec![0; HEADER_LEN];
        Header {
            src: VsockAddr {
                cid: CID_HOST,
                port: self.port,
            },
            dst: VsockAddr {
                cid: GUEST,
                port: self.peer,
            },
            len: data.len() as u32,
            kind: self.kind,
            op,
            flags,
            buf_alloc: self.buf_alloc,
            fwd_cnt,
        }
        .write(&mut packet);
        packet.extend_from_slice(data);
        let len = packet.len();
        let arrival = Arrival::Packet(packet.into(), len);
        self.wire.arriving.lock().unwrap().push_back(arrival);
        self.vsock.serve();
    }

    /// What the machine sent next: operation, flags, data.
    fn next(&self) -> Option<(u16, u32, Vec<u8>)> {
        let packet = self.wire.sent.lock().unwrap().pop_front()?;
        let header = Header::parse(&packet).unwrap();
        assert_eq!((header.src.cid, header.dst.cid), (GUEST, CID_HOST));
        assert_eq!(header.len as usize, packet.len() - HEADER_LEN);
        Some((header.op, header.flags, packet[HEADER_LEN..].to_vec()))
    }

    fn connected(&mut self) -> Arc<VsockSocket> {
        let socket = VsockSocket::new(&self.vsock, self.kind == STREAM);
        let to = VsockAddr {
            cid: CID_HOST,
            port: self.port,
        };
        assert_eq!(socket.connect(to), Err(Errno::EINPROGRESS));
        self.peer = socket.local_addr().port;
        assert_eq!(self.next(), Some((op::REQUEST, 0, Vec::new())));
        self.inject(op::RESPONSE, 0, 0, b"");
        assert_eq!(socket.connect_result(), Some(Ok(())));
        socket
    }
}

fn send(socket: &VsockSocket, bytes: &[u8]) -> Result<usize> {
    socket.send(&mut SliceSource::new(bytes), MsgFlags::empty())
}

fn recv(socket: &VsockSocket, room: usize, flags: MsgFlags) -> Result<(Vec<u8>, MsgFlags)> {
    let mut sink = VecSink::new(room);
    let meta = socket.recv(&mut sink, flags)?;
    Ok((sink.into_bytes(), meta.flags))
}

fn bytes(socket: &VsockSocket, room: usize) -> Result<Vec<u8>> {
    recv(socket, room, MsgFlags::empty()).map(|got| got.0)
}

#[test]
fn a_stream_to_the_host_keeps_to_its_credit() {
    let mut host = Host::new();
    let socket = host.connected();
    assert!(socket.poll().contains(Events::OUT));
    // 1000 bytes of credit: a part goes, then the peer is asked once.
    assert_eq!(send(&socket, &[1; 1500]), Ok(1000));
    assert_eq!(host.next(), Some((op::RW, 0, alloc::vec![1; 1000])));
    assert_eq!(host.next().map(|p| p.0), Some(op::CREDIT_REQUEST));
    assert_eq!(send(&socket, &[1; 500]), Err(Errno::EAGAIN));
    assert_eq!(host.next(), None);
    assert!(!socket.poll().contains(Events::OUT));
    host.inject(op::CREDIT_UPDATE, 0, 600, b"");
    assert!(socket.poll().contains(Events::OUT));
    assert_eq!(send(&socket, &[2; 700]), Ok(600));
    // What comes in is one stream; a peek leaves it.
    host.inject(op::RW, 0, 1600, b"hel");
    host.inject(op::RW, 0, 1600, b"lo");
    assert_eq!(recv(&socket, 9, MsgFlags::PEEK).unwrap().0, b"hello");
    assert_eq!(bytes(&socket, 2), Ok(b"he".to_vec()));
    assert_eq!(bytes(&socket, 9), Ok(b"llo".to_vec()));
    assert_eq!(bytes(&socket, 9), Err(Errno::EAGAIN));
}

#[test]
fn what_was_read_is_told_and_too_much_is_refused() {
    let mut host = Host::new();
    let socket = host.connected();
    socket.set_option(VsockOption::BufferMin(100));
    socket.set_option(VsockOption::Buffer(400));
    while host.next().is_some() {}
    host.inject(op::RW, 0, 0, &[3; 300]);
    assert_eq!(bytes(&socket, 50), Ok(alloc::vec![3; 50]));
    assert_eq!(host.next(), None, "not worth a packet yet");
    assert_eq!(bytes(&socket, 50), Ok(alloc::vec![3; 50]));
    let update = host.wire.sent.lock().unwrap().pop_front().unwrap();
    let update = Header::parse(&update).unwrap();
    assert_eq!(
        (update.op, update.fwd_cnt, update.buf_alloc),
        (op::CREDIT_UPDATE, 100, 400)
    );
    // 200 bytes wait in a buffer of 400.
    host.inject(op::RW, 0, 0, &[4; 201]);
    assert_eq!(host.next().map(|p| p.0), Some(op::RST));
    assert_eq!(bytes(&socket, 9), Err(Errno::ECONNRESET));
    assert_eq!(bytes(&socket, 400).map(|b| b.len()), Ok(200));
    assert_eq!(bytes(&socket, 9), Ok(Vec::new()));
    assert_eq!(send(&socket, b"x"), Err(Errno::EPIPE));
}

#[test]
fn the_host_connects_and_goes() {
    let mut host = Host::new();
    let listener = VsockSocket::new(&host.vsock, true);
    let addr = VsockAddr {
        cid: CID_ANY,
        port: 80,
    };
    listener.bind(addr).unwrap();
    let other = VsockSocket::new(&host.vsock, true);
    assert_eq!(other.bind(addr), Err(Errno::EADDRINUSE));
    host.peer = 80;
    host.inject(op::REQUEST, 0, 0, b"");
    assert_eq!(host.next().map(|p| p.0), Some(op::RST), "nobody listens");
    listener.listen(0).unwrap();
    host.inject(op::REQUEST, 0, 0, b"");
    assert_eq!(host.next().map(|p| p.0), Some(op::RESPONSE));
    host.port = 100;
    host.inject(op::REQUEST, 0, 0, b"");
    assert_eq!(host.next().map(|p| p.0), Some(op::RST), "the queue is full");
    host.port = 99;
    assert!(listener.poll().contains(Events::IN));
    let socket = listener.accept().unwrap();
    assert_eq!(listener.accept().err(), Some(Errno::EAGAIN));
    assert_eq!(
        socket.peer_addr(),
        Ok(VsockAddr {
            cid: CID_HOST,
            port: 99
        })
    );
    host.inject(op::RW, 0, 0, b"bye");
    host.inject(op::SHUTDOWN, NO_SEND, 0, b"");
    assert!(socket.poll().contains(Events::IN | Events::RDHUP));
    assert_eq!(bytes(&socket, 9), Ok(b"bye".to_vec()));
    assert_eq!(bytes(&socket, 9), Ok(Vec::new()));
    assert_eq!(send(&socket, b"still"), Ok(5));
    assert_eq!(host.next().map(|p| p.0), Some(op::RW));
    host.inject(op::SHUTDOWN, NO_SEND | NO_RECEIVE, 0, b"");
    assert_eq!(host.next().map(|p| p.0), Some(op::RST));
    assert_eq!(send(&socket, b"x"), Err(Errno::EPIPE));
    host.inject(op::RW, 0, 0, b"late");
    assert_eq!(host.next().map(|p| p.0), Some(op::RST));
}

#[test]
fn a_close_waits_for_the_other_side() {
    let mut host = Host::new();
    let socket = host.connected();
    socket.close();
    assert_eq!(
        host.next(),
        Some((op::SHUTDOWN, NO_RECEIVE | NO_SEND, Vec::new()))
    );
    assert_eq!(host.vsock.table.lock().connections.len(), 1);
    host.inject(op::RST, 0, 0, b"");
    assert_eq!(host.vsock.table.lock().connections.len(), 0);
    // One that never answers is given up, as is one that is asked for a connection.
    let socket = host.connected();
    socket.close();
    let waiting = VsockSocket::new(&host.vsock, true);
    let to = VsockAddr {
        cid: CID_HOST,
        port: 5,
    };
    assert_eq!(waiting.connect(to), Err(Errno::EINPROGRESS));
    let now = machine::time::now_ns();
    let next = host.vsock.expire(now).unwrap();
    assert!(next > now && next < now + 3_000_000_000);
    while host.next().is_some() {}
    assert_eq!(host.vsock.expire(now + 10_000_000_000), None);
    assert_eq!(host.next().map(|p| p.0), Some(op::RST));
    assert_eq!(host.next().map(|p| p.0), Some(op::RST));
    assert_eq!(waiting.connect_result(), Some(Err(Errno::ETIMEDOUT)));
    let table = host.vsock.table.lock();
    assert_eq!((table.connections.len(), table.bound.len()), (0, 1));
}

#[test]
fn messages_are_whole() {
    let mut host = Host::new();
    host.kind = SEQPACKET;
    let socket = host.connected();
    assert_eq!(send(&socket, &[0; 1001]), Err(Errno::EMSGSIZE));
    let end = |socket: &VsockSocket, bytes: &[u8]| {
        socket.send(&mut SliceSource::new(bytes), MsgFlags::EOR)
    };
    assert_eq!(end(&socket, b"one"), Ok(3));
    assert_eq!(host.next(), Some((op::RW, EOM | EOR, b"one".to_vec())));
    assert_eq!(send(&socket, b""), Ok(0));
    assert_eq!(host.next(), Some((op::RW, EOM, Vec::new())));
    assert_eq!(
        send(&socket, &[0; 998]),
        Err(Errno::EAGAIN),
        "no part of it"
    );
    assert_eq!(host.next().map(|p| p.0), Some(op::CREDIT_REQUEST));
    // In: not before its end; cut to the room there is.
    host.inject(op::RW, 0, 3, b"ab");
    assert_eq!(bytes(&socket, 9), Err(Errno::EAGAIN));
    assert!(!socket.poll().contains(Events::IN));
    host.inject(op::RW, EOM | EOR, 3, b"cd");
    host.inject(op::RW, EOM, 3, b"next");
    assert!(socket.poll().contains(Events::IN));
    let (got, flags) = recv(&socket, 9, MsgFlags::PEEK).unwrap();
    assert_eq!((&got[..], flags), (&b"abcd"[..], MsgFlags::EOR));
    let (got, flags) = recv(&socket, 3, MsgFlags::empty()).unwrap();
    assert_eq!(
        (&got[..], flags),
        (&b"abc"[..], MsgFlags::EOR | MsgFlags::TRUNC)
    );
    assert_eq!(bytes(&socket, 9), Ok(b"next".to_vec()));
    assert_eq!(host.next().map(|p| p.0), Some(op::CREDIT_UPDATE));
    // A device that knows streams only.
    let wire = Arc::new(Wire {
        old: true,
        ..Wire::default()
    });
    let vsock = Vsock::new(Some(wire), 5000);
    let to = VsockAddr {
        cid: CID_HOST,
        port: 1,
    };
    let answer = VsockSocket::new(&vsock, false).connect(to);
    assert_eq!(answer, Err(Errno::ESOCKTNOSUPPORT));
}

#[test]
fn the_machine_talks_to_itself() {
    for (vsock, cid) in [
        (Vsock::new(None, 5000), CID_LOCAL),
        (Host::new().vsock, GUEST),
    ] {
        for stream in [true, false] {
            let listener = VsockSocket::new(&vsock, stream);
            let any = VsockAddr {
                cid: CID_ANY,
                port: PORT_ANY,
            };
            listener.bind(any).unwrap();
            let port = listener.local_addr().port;
            let to = VsockAddr { cid, port };
            let client = VsockSocket::new(&vsock, stream);
            assert_eq!(client.connect(to), Err(Errno::ECONNRESET));
            listener.listen(5).unwrap();
            assert_eq!(client.connect(to), Ok(()));
            let server = listener.accept().unwrap();
            assert_eq!(server.peer_addr(), Ok(client.local_addr()));
            assert_eq!(server.local_addr(), to);
            // Until the buffer of the other side is full.
            let part = alloc::vec![5; 64 * 1024];
            let mut sent = 0;
            while let Ok(n) = send(&client, &part) {
                sent += n;
            }
            assert_eq!(sent, 256 * 1024);
            let mut got = 0;
            while let Ok(data) = bytes(&server, 100_000) {
                got += data.len();
            }
            assert_eq!(got, sent);
            assert_eq!(send(&client, &part), Ok(part.len()), "credit came back");
            client.close();
            assert_eq!(bytes(&server, 1 << 20).map(|b| b.len()), Ok(part.len()));
            assert_eq!(bytes(&server, 9), Ok(Vec::new()));
            assert!(server.poll().contains(Events::HUP));
            server.close();
            listener.close();
            let table = vsock.table.lock();
            assert_eq!((table.connections.len(), table.bound.len()), (0, 0));
        }
    }
}

#[test]
fn without_a_card_there_is_no_way_out() {
    let vsock = Vsock::new(None, 5000);
    let socket = VsockSocket::new(&vsock, true);
    let to = VsockAddr {
        cid: CID_HOST,
        port: 1,
    };
    assert_eq!(socket.connect(to), Err(Errno::ENODEV));
    assert_eq!(vsock.local_cid(), CID_ANY);
    let addr = VsockAddr { cid: 33, port: 1 };
    assert_eq!(socket.bind(addr), Err(Errno::EADDRNOTAVAIL));
}

#[test]
fn a_full_card_has_senders_wait() {
    let mut host = Host::new();
    host.buf_alloc = 1 << 30;
    let socket = host.connected();
    host.wire.full.store(true, Ordering::SeqCst);
    let mut sent = 0;
    while send(&socket, b"x").is_ok() {
        sent += 1;
        assert!(sent <= QUEUED);
    }
    assert_eq!(sent, QUEUED);
    host.wire.full.store(false, Ordering::SeqCst);
    host.vsock.serve();
    for _ in 0..sent {
        assert_eq!(host.next().map(|p| p.0), Some(op::RW));
    }
    assert_eq!(send(&socket, b"x"), Ok(1));
}

#[test]
fn a_reset_of_the_transport_ends_connections_to_the_host_only() {
    let mut host = Host::new();
    let socket = host.connected();
    let listener = VsockSocket::new(&host.vsock, true);
    let here = VsockAddr {
        cid: CID_LOCAL,
        port: 3000,
    };
    listener.bind(here).unwrap();
    listener.listen(1).unwrap();
    let local = VsockSocket::new(&host.vsock, true);
    local.connect(here).unwrap();
    host.wire.arriving.lock().unwrap().push_back(Arrival::Reset);
    host.vsock.serve();
    assert_eq!(bytes(&socket, 9), Err(Errno::ECONNRESET));
    assert_eq!(send(&local, b"x"), Ok(1));
}

#[test]
fn hostile_packets_change_nothing() {
    let mut host = Host::new();
    let socket = host.connected();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    for _ in 0..20_000 {
        let mut packet = alloc::vec![0u8; (random() % 120) as usize];
        for byte in &mut packet {
            *byte = random() as u8;
        }
        if packet.len() >= HEADER_LEN && !random().is_multiple_of(4) {
            Header {
                src: VsockAddr {
                    cid: [CID_HOST, CID_LOCAL, GUEST][(random() % 3) as usize],
                    port: 50 + random() % 3,
                },
                dst: VsockAddr {
                    cid: GUEST,
                    port: 5000 + random() % 3,
                },
                len: random() % 100,
                kind: (random() % 4) as u16,
                op: (random() % 10) as u16,
                flags: random() % 4,
                buf_alloc: random(),
                fwd_cnt: random(),
            }
            .write(&mut packet);
        }
        let len = packet.len();
        let arrival = Arrival::Packet(packet.into(), len);
        host.wire.arriving.lock().unwrap().push_back(arrival);
        host.vsock.serve();
        host.wire.sent.lock().unwrap().clear();
    }
    // The connection was none of theirs.
    host.inject(op::RW, 0, 0, b"fine");
    assert_eq!(bytes(&socket, 9), Ok(b"fine".to_vec()));
}
