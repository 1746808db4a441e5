//! Connections over TLS: the byte stream inside the byte stream.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tls::{Acceptor, Connection};

use crate::transport::{Gone, Incoming, Listener, Received, Remote, Transport};
use crate::turn;

/// Bytes that are taken from the connection at once: a record and its frame.
const BUFFER: usize = 17 << 10;

/// Speaks TLS with whoever comes in at another listener.
pub struct SecureListener<L> {
    inner: L,
    acceptor: Acceptor,
}

impl<L: Listener> SecureListener<L> {
    /// Shows `acceptor`'s certificate to those that come in at `inner`.
    pub fn new(inner: L, acceptor: Acceptor) -> SecureListener<L> {
        SecureListener { inner, acceptor }
    }
}

impl<L: Listener> Listener for SecureListener<L> {
    fn accept(&mut self) -> Option<Incoming> {
        loop {
            let Incoming { transport, peer } = self.inner.accept()?;
            // The handshake is made when the client's thread first waits for bytes.
            match self.acceptor.accept() {
                Ok(tls) => {
                    let transport = Box::new(SecureTransport {
                        inner: transport,
                        tls,
                        plain: Vec::new(),
                    });
                    return Some(Incoming { transport, peer });
                }
                Err(error) => log::warn!("{peer}: {error}"),
            }
        }
    }
}

struct SecureTransport {
    inner: Box<dyn Transport>,
    tls: Connection,
    /// What the client said and nobody has read yet: a record at most.
    plain: Vec<u8>,
}

impl SecureTransport {
    fn flush(&mut self, deadline_ns: u64) -> Result<(), Gone> {
        let bytes = self.tls.take_outgoing();
        match bytes.is_empty() {
            true => Ok(()),
            false => self.inner.send(&bytes, deadline_ns),
        }
    }
}

impl Transport for SecureTransport {
    fn receive(&mut self, into: &mut [u8], deadline_ns: u64) -> Received {
        let mut buffer = Vec::new();
        while self.plain.is_empty() {
            if self.tls.has_ended() {
                return Received::Closed;
            }
            buffer.resize(BUFFER, 0);
            let count = match self.inner.receive(&mut buffer, deadline_ns) {
                Received::Bytes(count) => count,
                other => return other,
            };
            let taken = {
                // A handshake is the most that one who is not known can make us do.
                let _turn = (!self.tls.is_established()).then(turn::take);
                self.tls.receive(&buffer[..count], &mut self.plain)
            };
            // An alert goes out as well.
            if self.flush(deadline_ns).is_err() || taken.is_err() {
                return Received::Closed;
            }
        }
        let count = into.len().min(self.plain.len());
        into[..count].copy_from_slice(&self.plain[..count]);
        self.plain.drain(..count);
        Received::Bytes(count)
    }

    fn send(&mut self, bytes: &[u8], deadline_ns: u64) -> Result<(), Gone> {
        self.tls.send(bytes).map_err(|_| Gone)?;
        self.flush(deadline_ns)
    }

    fn recognize(&mut self) {
        self.inner.recognize();
    }

    fn is_closed(&mut self) -> bool {
        self.tls.has_ended() || self.inner.is_closed()
    }

    fn finish(&mut self) {
        // A client that is not that far yet is told nothing.
        if self.tls.close().is_ok() {
            let _ = self.flush(machine::time::now_ns());
        }
        self.inner.finish();
    }

    fn remote(&self) -> Arc<dyn Remote> {
        self.inner.remote()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::sync::Mutex;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What the two ends have sent and not yet read.
    #[derive(Default)]
    struct Wire {
        to_server: VecDeque<u8>,
        to_client: Vec<u8>,
    }

    struct End(Arc<Mutex<Wire>>);

    impl Transport for End {
        fn receive(&mut self, into: &mut [u8], _: u64) -> Received {
            let queue = &mut self.0.lock().unwrap().to_server;
            match queue.read(into).unwrap() {
                0 => Received::TimedOut,
                count => Received::Bytes(count),
            }
        }

        fn send(&mut self, bytes: &[u8], _: u64) -> Result<(), Gone> {
            self.0.lock().unwrap().to_client.extend_from_slice(bytes);
            Ok(())
        }

        fn is_closed(&mut self) -> bool {
            false
        }

        fn finish(&mut self) {}

        fn remote(&self) -> Arc<dyn Remote> {
            unreachable!("nobody asks in this test")
        }
    }

    struct One(Option<Incoming>);

    impl Listener for One {
        fn accept(&mut self) -> Option<Incoming> {
            self.0.take()
        }
    }

    fn pair() -> (ClientConnection, Arc<Mutex<Wire>>, Box<dyn Transport>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let sources = tls::Sources {
            random: |bytes| bytes.fill(7),
            now: || 1_800_000_000,
        };
        let key = made.signing_key.serialize_pem();
        let acceptor = Acceptor::new(made.cert.pem().as_bytes(), key.as_bytes(), sources).unwrap();
        let wire = Arc::new(Mutex::new(Wire::default()));
        let incoming = Incoming {
            transport: Box::new(End(wire.clone())),
            peer: "test".into(),
        };
        let mut listener = SecureListener::new(One(Some(incoming)), acceptor);
        let server = listener.accept().unwrap().transport;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        (client, wire, server)
    }

    /// One turn of the client: what it has to send, then what there is to read.
    fn turn(client: &mut ClientConnection, wire: &Mutex<Wire>) {
        let mut wire = wire.lock().unwrap();
        while client.wants_write() {
            client.write_tls(&mut wire.to_server).unwrap();
        }
        let bytes = core::mem::take(&mut wire.to_client);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }

    #[test]
    fn a_request_and_its_answer_pass_in_secret() {
        let (mut client, wire, mut server) = pair();
        assert!(server.send(b"nobody is there yet", 0).is_err());
        client.writer().write_all(b"a question").unwrap();
        let mut buffer = [0; 4];
        let mut heard = Vec::new();
        for _ in 0..8 {
            turn(&mut client, &wire);
            while let Received::Bytes(count) = server.receive(&mut buffer, 0) {
                heard.extend_from_slice(&buffer[..count]);
            }
        }
        assert_eq!(heard, b"a question");
        server.send(b"an answer", 0).unwrap();
        server.finish();
        assert!(
            !wire
                .lock()
                .unwrap()
                .to_client
                .windows(6)
                .any(|w| w == b"answer")
        );
        turn(&mut client, &wire);
        let mut answer = Vec::new();
        client.reader().read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"an answer");
        client.send_close_notify();
        turn(&mut client, &wire);
        assert_eq!(server.receive(&mut buffer, 0), Received::Closed);
        assert!(server.is_closed());
    }

    #[test]
    fn what_is_no_tls_is_closed_after_an_alert() {
        let (_, wire, mut server) = pair();
        wire.lock()
            .unwrap()
            .to_server
            .extend(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(server.receive(&mut [0; 16], 0), Received::Closed);
        assert_eq!(wire.lock().unwrap().to_client.first(), Some(&21));
    }
}
