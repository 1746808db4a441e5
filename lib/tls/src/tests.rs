//! Against rustls's own client with another implementation of the ciphers.

use std::io::{Read, Write};
use std::string::String;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// Not random at all: the peers still have different keys.
fn random(buffer: &mut [u8]) {
    use std::sync::atomic::{AtomicU8, Ordering};
    static NEXT: AtomicU8 = AtomicU8::new(1);
    for byte in buffer {
        *byte = NEXT.fetch_add(37, Ordering::Relaxed);
    }
}

const SOURCES: Sources = Sources {
    random,
    now: || 1_800_000_000,
};

fn certificate(
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> (String, String, CertificateDer<'static>) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    (
        certificate.pem(),
        key.serialize_pem(),
        certificate.der().clone(),
    )
}

fn client(trusted: CertificateDer<'static>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// Passes bytes both ways, `step` bytes at a time, until nobody has any; gives what the server heard.
fn talk(
    client: &mut ClientConnection,
    server: &mut Connection,
    step: usize,
) -> Result<Vec<u8>, Error> {
    let mut heard = Vec::new();
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut result = Ok(());
        for part in bytes.chunks(step) {
            result = server.receive(part, &mut heard);
            if result.is_err() {
                break;
            }
        }
        let back = server.take_outgoing();
        if bytes.is_empty() && back.is_empty() {
            return Ok(heard);
        }
        let mut rest = &back[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            let processed = client.process_new_packets();
            if let Err(error) = processed {
                return Err(Error::Protocol(error.to_string()));
            }
        }
        result?;
    }
}

fn conversation(algorithm: &'static rcgen::SignatureAlgorithm, step: usize) {
    let (pem, key, der) = certificate(algorithm);
    let acceptor = Acceptor::new(pem.as_bytes(), key.as_bytes(), SOURCES).unwrap();
    let (mut client, mut server) = (client(der), acceptor.accept().unwrap());
    assert!(server.send(b"too early").is_err());
    assert_eq!(talk(&mut client, &mut server, step).unwrap(), b"");
    assert!(server.is_established());
    assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));

    // More than a record, both ways.
    let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let mut heard = Vec::new();
    for part in long.chunks(20_000) {
        client.writer().write_all(part).unwrap();
        heard.extend(talk(&mut client, &mut server, step).unwrap());
    }
    assert_eq!(heard, long);
    server.send(&long).unwrap();
    let bytes = server.take_outgoing();
    let (mut rest, mut answer) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        client.process_new_packets().unwrap();
        let mut part = vec![0; 200_000];
        while let Ok(n @ 1..) = client.reader().read(&mut part) {
            answer.extend_from_slice(&part[..n]);
        }
    }
    assert_eq!(answer, long);

    client.send_close_notify();
    talk(&mut client, &mut server, step).unwrap();
    assert!(server.has_ended());
    server.close().unwrap();
    assert!(!server.take_outgoing().is_empty());
}

#[test]
fn a_conversation_with_p256() {
    conversation(&rcgen::PKCS_ECDSA_P256_SHA256, usize::MAX);
}

#[test]
fn a_conversation_with_ed25519_byte_by_byte() {
    conversation(&rcgen::PKCS_ED25519, 7);
}

#[test]
fn what_can_not_be_used_is_said() {
    let (pem, key, _) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
    let new = |c: &str, k: &str| Acceptor::new(c.as_bytes(), k.as_bytes(), SOURCES).map(drop);
    assert_eq!(new("", &key), Err(Error::NoCertificate));
    assert_eq!(new(&pem, ""), Err(Error::NoKey));
    assert_eq!(new(&pem, &pem), Err(Error::NoKey));
    let CertifiedKey { signing_key, .. } =
        generate_simple_self_signed(vec!["other".into()]).unwrap();
    assert!(matches!(
        new(&pem, &signing_key.serialize_pem()),
        Err(Error::Unfit(_))
    ));
    let (other, p384, _) = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
    let error = new(&other, &p384).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("neither ECDSA P-256 nor Ed25519"),
        "{error}"
    );
}

#[test]
fn a_client_that_trusts_another_is_told_apart_and_noise_is_refused() {
    let (pem, key, _) = certificate(&rcgen::PKCS_ED25519);
    let (_, _, other) = certificate(&rcgen::PKCS_ED25519);
    let acceptor = Acceptor::new(pem.as_bytes(), key.as_bytes(), SOURCES).unwrap();
    assert!(
        talk(
            &mut client(other.clone()),
            &mut acceptor.accept().unwrap(),
            usize::MAX
        )
        .is_err()
    );

    let mut state = 1u64;
    let mut word = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    for round in 0..2_000 {
        let mut server = acceptor.accept().unwrap();
        let mut hello = Vec::new();
        client(other.clone()).write_tls(&mut hello).unwrap();
        if round % 2 == 0 {
            hello = (0..word() % 600).map(|_| word() as u8).collect();
        } else if let length @ 1.. = hello.len() {
            for _ in 0..1 + word() % 8 {
                hello[word() % length] = word() as u8;
            }
        }
        let mut heard = Vec::new();
        let _ = server.receive(&hello, &mut heard);
        assert!(heard.is_empty());
    }
}

#[test]
fn plain_http_is_answered_with_an_alert() {
    let (pem, key, _) = certificate(&rcgen::PKCS_ED25519);
    let acceptor = Acceptor::new(pem.as_bytes(), key.as_bytes(), SOURCES).unwrap();
    let mut server = acceptor.accept().unwrap();
    let refused = server.receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &mut Vec::new());
    assert!(refused.is_err() && server.has_ended());
    // An alert record (RFC 8446, section 6).
    assert_eq!(server.take_outgoing().first(), Some(&21));
}
