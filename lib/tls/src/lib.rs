//! TLS 1.3 (RFC 8446) for a server in the kernel: rustls for the protocol, RustCrypto for the ciphers.
//!
//! An [`Acceptor`] holds certificate and key; each client gets a [`Connection`], which turns bytes of the network into bytes of
//! the application and back and does no input or output itself. One cipher suite (`TLS_CHACHA20_POLY1305_SHA256`, the quickest
//! without vector registers), one key exchange (X25519), keys of ECDSA P-256 or Ed25519; no client certificates, no
//! resumption, no early data.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod keys;
mod provider;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::time_provider::TimeProvider;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::version::TLS13;

/// The most that may wait for the rest of a record or of a handshake message, in bytes.
const MOST_WAITING: usize = 96 << 10;
/// The most of the application's bytes in one record (RFC 8446, section 5.1).
const RECORD: usize = 16 << 10;

/// Why TLS is not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// There is no certificate in what was given as one.
    NoCertificate,
    /// There is no private key in what was given as one.
    NoKey,
    /// The key can not be used, or belongs to another certificate.
    Unfit(String),
    /// The peer broke the protocol.
    Protocol(String),
    /// The peer sends without an end to its message.
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoCertificate => f.write_str("there is no PEM certificate"),
            Error::NoKey => f.write_str("there is no PEM private key"),
            Error::Unfit(why) => write!(f, "the key and the certificate can not be used: {why}"),
            Error::Protocol(why) => write!(f, "TLS: {why}"),
            Error::TooLong => f.write_str("TLS: a message without an end"),
        }
    }
}

impl core::error::Error for Error {}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Error::Protocol(error.to_string())
    }
}

/// Where randomness and the time come from.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// Fills a buffer with random bytes fit for keys.
    pub random: fn(&mut [u8]),
    /// Seconds since 1970.
    pub now: fn() -> u64,
}

impl TimeProvider for Sources {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(
            Duration::from_secs((self.now)()),
        ))
    }
}

/// A server's certificate and key.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// A server that shows the chain of `certificates` and proves it with `key`, both in PEM (RFC 7468).
    ///
    /// What rustls keeps for ever is made once for each call: make one acceptor.
    ///
    /// # Errors
    /// [`Error::NoCertificate`], [`Error::NoKey`], or [`Error::Unfit`] for keys other than ECDSA P-256 and Ed25519 and for a
    /// key that is not the certificate's.
    pub fn new(certificates: &[u8], key: &[u8], sources: Sources) -> Result<Acceptor, Error> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|_| Error::NoCertificate)?;
        if chain.is_empty() {
            return Err(Error::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::NoKey)?;
        let unfit = |error: rustls::Error| Error::Unfit(error.to_string());
        let mut config =
            ServerConfig::builder_with_details(provider::new(sources.random), Arc::new(sources))
                .with_protocol_versions(&[&TLS13])
                .map_err(unfit)?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(unfit)?;
        config.alpn_protocols = alloc::vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Acceptor {
            config: Arc::new(config),
        })
    }

    /// The server's end of a new connection.
    ///
    /// # Errors
    /// As rustls says; none is known for this configuration.
    pub fn accept(&self) -> Result<Connection, Error> {
        Ok(Connection {
            tls: UnbufferedServerConnection::new(self.config.clone())?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            established: false,
            ended: false,
            broken: false,
        })
    }
}

/// One client's connection. After each call, what [`Connection::take_outgoing`] gives is to be sent.
pub struct Connection {
    tls: UnbufferedServerConnection,
    /// Bytes of the network that are not processed yet: less than a message.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    established: bool,
    ended: bool,
    /// The client broke the protocol: rustls is not asked again.
    broken: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("established", &self.established)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// What a step of the protocol left to do.
enum Step {
    Again,
    Wait,
}

impl Connection {
    /// Takes bytes of the network; appends what the client said to `plaintext`.
    ///
    /// # Errors
    /// When the client breaks the protocol: what is outgoing then tells it why, and the connection is to be closed.
    pub fn receive(&mut self, bytes: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Protocol("the connection is broken".to_string()));
        }
        self.incoming.extend_from_slice(bytes);
        loop {
            match self.step(plaintext) {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => break,
                Err(error) => {
                    // The alert waits behind the error: one step encodes it. What came is not looked at again.
                    let _ = self.step(plaintext);
                    self.broken = true;
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        match self.incoming.len() > MOST_WAITING {
            true => Err(Error::TooLong),
            false => Ok(()),
        }
    }

    fn step(&mut self, plaintext: &mut Vec<u8>) -> Result<Step, Error> {
        let UnbufferedStatus { mut discard, state } =
            self.tls.process_tls_records(&mut self.incoming);
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut step = Ok(Step::Again);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            plaintext.extend_from_slice(record.payload);
                        }
                        Err(error) => step = Err(error.into()),
                    }
                }
                step
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let start = self.outgoing.len();
                let written = match data.encode(&mut []) {
                    Err(EncodeError::InsufficientSize(size)) => {
                        self.outgoing.resize(start + size.required_size, 0);
                        data.encode(&mut self.outgoing[start..])
                    }
                    other => other,
                };
                self.outgoing
                    .truncate(start + written.as_ref().map_or(0, |n| *n));
                match written {
                    Ok(_) => Ok(Step::Again),
                    Err(error) => Err(Error::Protocol(error.to_string())),
                }
            }
            // What is outgoing is sent by our caller, in order.
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::WriteTraffic(_)) => {
                self.established = true;
                Ok(Step::Wait)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Wait),
            Ok(ConnectionState::PeerClosed) => {
                self.ended = true;
                Ok(Step::Again)
            }
            Ok(ConnectionState::Closed) => {
                self.ended = true;
                Ok(Step::Wait)
            }
            // Early data is not offered.
            Ok(_) => Err(Error::Protocol("an unexpected state".to_string())),
            Err(error) => Err(error.into()),
        };
        self.incoming.drain(..discard);
        step
    }

    /// Whether the handshake is done, so that [`Connection::send`] can be used.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the client will send no more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Encrypts bytes of the application.
    ///
    /// # Errors
    /// Before the handshake is done, and when the keys are used up.
    pub fn send(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        plaintext.chunks(RECORD).try_for_each(|chunk| {
            self.write(|traffic, out| match traffic {
                ConnectionState::WriteTraffic(traffic) => traffic.encrypt(chunk, out),
                _ => Err(EncryptError::EncryptExhausted),
            })
        })
    }

    /// Tells the client that nothing more comes (`close_notify`).
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn close(&mut self) -> Result<(), Error> {
        self.write(|traffic, out| match traffic {
            ConnectionState::WriteTraffic(traffic) => traffic.queue_close_notify(out),
            _ => Err(EncryptError::EncryptExhausted),
        })
    }

    fn write(
        &mut self,
        mut write: impl FnMut(
            &mut ConnectionState<'_, '_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Protocol("the connection is broken".to_string()));
        }
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
        let mut state = state?;
        let start = self.outgoing.len();
        let written = match write(&mut state, &mut []) {
            Err(EncryptError::InsufficientSize(size)) => {
                self.outgoing.resize(start + size.required_size, 0);
                write(&mut state, &mut self.outgoing[start..])
            }
            other => other,
        };
        self.outgoing
            .truncate(start + written.as_ref().map_or(0, |n| *n));
        drop(state);
        self.incoming.drain(..discard);
        written
            .map(drop)
            .map_err(|error| Error::Protocol(error.to_string()))
    }

    /// What is to be sent to the client now.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.outgoing)
    }
}

#[cfg(test)]
mod tests;
