//! Clients that are slow, rude, many or mad.

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::fuzz::{Fuzz, Seed};
use common::{Client, TOKEN, connect, start};
use console::Limits;

const MS: u64 = 1_000_000;

fn quick() -> Limits {
    Limits {
        clients: 8,
        head_ns: 300 * MS,
        body_ns: 300 * MS,
        idle_ns: 3000 * MS,
        send_ns: 300 * MS,
    }
}

fn is_alive(address: std::net::SocketAddr) {
    assert_eq!(connect(address).get("/healthz").status, 200);
}

/// Every request of the OpenAPI document with parameters and bodies that fit its schema and such that do not: the
/// status is one that the document names, and never says that the server failed.
#[test]
fn every_request_of_the_document_answers_as_it_says() {
    let address = start(Limits::default(), false);
    let seen = Fuzz::new(address, TOKEN, 0x0dd_ba11).run(60);
    for status in [200, 202, 204, 303, 400, 401, 404, 405, 426] {
        assert!(
            seen.contains(&status),
            "{status} never came of it: {seen:?}"
        );
    }
    is_alive(address);
}

#[test]
fn any_bytes_leave_the_console_alive() {
    let address = start(quick(), false);
    let mut seed = Seed(0xfeed_beef_1234_5677);
    let good = format!(
        "PUT /api/store/limits/nofile HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{{\"value\":9}}\r\n0\r\n\r\n"
    );
    for round in 0..300 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=seed.below(4) {
            let at = seed.below(bytes.len());
            match seed.below(4) {
                0 => bytes[at] = seed.below(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, *seed.pick(&[&b'\r', &b'\n', &b' ', &b':', &0, &b';'])),
                _ => {
                    let part = bytes[at..].to_vec();
                    bytes.extend(part);
                }
            }
        }
        let mut client = connect(address);
        client.send(&bytes);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        let answer = client.read_all();
        let failed = answer.starts_with(b"HTTP/1.1 500");
        assert!(
            !failed,
            "round {round}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
    is_alive(address);
}

#[test]
fn endless_and_oversized_requests_are_cut_short() {
    let address = start(quick(), false);
    let long = "x".repeat(1 << 16);
    let auth = format!("Host: h\r\nAuthorization: Bearer {TOKEN}\r\n");
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nX: {long}\r\n"), "431"),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)),
            "431",
        ),
        (
            format!("PUT /api/store/log/level HTTP/1.1\r\n{auth}Content-Length: 99999999\r\n\r\n"),
            "413",
        ),
        (
            format!(
                "PUT /api/store/log/level HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\n\r\nfffffff\r\n"
            ),
            "413",
        ),
        (
            format!("POST /api/power HTTP/1.1\r\n{auth}Content-Length: 5000\r\n\r\n"),
            "413",
        ),
        ("\u{16}\u{3}\u{1}\u{2}".into(), "400"),
        ("GET / HTTP/3.0\r\n\r\n".into(), "505"),
    ] {
        let mut client = connect(address);
        client.send(&request);
        let answer = String::from_utf8(client.read_all()).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{}: {answer}",
            &request[..20.min(request.len())]
        );
        assert!(answer.contains("Connection: close"));
    }
    is_alive(address);
}

#[test]
fn a_trickle_has_its_time() {
    let address = start(quick(), false);
    let head = format!(
        "PUT /api/store/log/level HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n"
    );
    for whole in ["GET / HTT", &head] {
        let mut client = connect(address);
        client.send(whole);
        let begun = Instant::now();
        // A byte each 50 ms must not put the end off.
        while begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(50));
            if client.stream.write_all(b"a").is_err() {
                break;
            }
        }
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
    }
    // And who says nothing at all.
    let begun = Instant::now();
    assert!(connect(address).read_all().is_empty());
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn who_reads_nothing_is_dropped() {
    let address = start(quick(), false);
    let mut readers: Vec<Client> = (0..6).map(|_| connect(address)).collect();
    for reader in &mut readers {
        reader.send(format!(
            "GET /api/core HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        ));
    }
    std::thread::sleep(Duration::from_millis(100));
    is_alive(address);
    std::thread::sleep(Duration::from_millis(1500));
    for reader in &mut readers {
        // Far from the 64 MiB, and without the last chunk.
        let got = reader.read_all();
        assert!(
            got.len() < 60 << 20 && !got.ends_with(b"0\r\n\r\n"),
            "{}",
            got.len()
        );
    }
}

#[test]
fn strangers_do_not_keep_the_owner_out() {
    // As many as one process may have.
    let address = start(
        Limits {
            head_ns: 30_000 * MS,
            idle_ns: 60_000 * MS,
            ..quick()
        },
        false,
    );
    let mut owner = connect(address);
    assert_eq!(owner.get("/healthz").status, 200);
    let mut strangers = Vec::new();
    for _ in 0..900 {
        let mut stranger = connect(address);
        stranger.send("GET / HTTP/1.1\r\nHost");
        strangers.push(stranger);
    }
    // Who was in stays in, and a new connection of the owner's finds its way.
    assert_eq!(owner.get("/healthz").status, 200);
    let begun = Instant::now();
    loop {
        let status = connect(address).get("/healthz").status;
        if status == 200 {
            break;
        }
        // 503, or nothing where the short answer was lost.
        assert!(status == 503 || status == 0, "{status}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
    // The last of them were told to go.
    let refused = strangers.iter_mut().rev().take(50);
    let told = refused.filter_map(|stranger| {
        stranger.stream.set_nonblocking(true).unwrap();
        stranger.stream.peek(&mut [0]).ok()
    });
    assert!(told.count() >= 40);
}
