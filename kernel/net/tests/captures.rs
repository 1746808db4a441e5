//! Captures: what is in the file, whose it is, and that Wireshark's own reader takes it.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use common::host;
use common::script::*;
use iobuf::SliceSource;
use net::capture::live::{MAX_CAPTURES, Options};
use net::capture::{Capture, CaptureError};
use net::{Kind, SendMeta};

/// Kinds of the blocks, in order.
fn blocks(mut file: &[u8]) -> Vec<u32> {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut kinds = Vec::new();
    while !file.is_empty() {
        let len = word(file, 4) as usize;
        assert_eq!(word(file, len - 4) as usize, len);
        kinds.push(word(file, 0));
        file = &file[len..];
    }
    kinds
}

fn send(s: &Script, to: Ipv4Addr, port: u16, bytes: &[u8]) {
    let meta = SendMeta {
        to: Some(SocketAddr::new(to.into(), port)),
        ..SendMeta::default()
    };
    let socket = s.socket(Kind::Dgram);
    socket.send(&mut SliceSource::new(bytes), &meta).unwrap();
}

const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// One test: the number of captures is bounded for all together.
#[test]
fn a_capture_is_a_file_of_what_its_filter_wants() {
    let mut s = Script::new();
    let options = Options {
        wall_offset_ns: 1_700_000_000_000_000_000,
        ..Options::default()
    };
    let lo = Options {
        interface: Some("lo"),
        filter: Some("udp port 7"),
        ..options
    };
    let mut capture = Capture::start(&s.stack, &lo).unwrap();
    let mut all = Capture::start(&s.stack, &options).unwrap();
    assert_eq!(
        blocks(&capture.read(1 << 20, u64::MAX)),
        [SECTION, INTERFACE]
    );
    send(&s, Ipv4Addr::LOCALHOST, 7, b"wanted");
    send(&s, Ipv4Addr::LOCALHOST, 8, b"not wanted");
    let file = capture.read(1 << 20, u64::MAX);
    // Once, though it passed twice; the answer that the port is closed is ICMP.
    assert_eq!(blocks(&file), [PACKET]);
    assert_eq!(blocks(&capture.finish()), [STATISTICS]);
    assert_eq!(capture.frames(), 1);
    drop(capture);

    s.inject(&ip_frame([2, 0, 0, 0, 0, 1], peer(), host(1), 253, b"in"));
    let mut file = all.read(1 << 20, u64::MAX);
    // Two datagrams and two answers on lo, then one frame in and one out.
    let kinds = blocks(&file);
    assert_eq!(kinds[..3], [SECTION, INTERFACE, PACKET]);
    assert_eq!(kinds.iter().filter(|kind| **kind == PACKET).count(), 6);
    assert_eq!(kinds.iter().filter(|kind| **kind == INTERFACE).count(), 2);
    // No more than asked for at once.
    send(&s, Ipv4Addr::LOCALHOST, 7, b"1");
    file.extend(all.read(1 << 20, 1));
    assert_eq!(all.frames(), 7);
    file.extend(all.finish());
    read_by_tshark(&file);

    // The reader's own port, and what cannot be.
    let own = Options {
        own_port: Some(9090),
        filter: Some("tcp"),
        ..options
    };
    let mut without = Capture::start(&s.stack, &own).unwrap();
    let mut with = Capture::start(
        &s.stack,
        &Options {
            filter: Some("tcp port 9090"),
            ..own
        },
    )
    .unwrap();
    s.send(&Seg {
        dport: 9090,
        ..Seg::default()
    });
    assert_eq!(blocks(&without.read(1 << 20, u64::MAX)), [SECTION]);
    assert!(blocks(&with.read(1 << 20, u64::MAX)).contains(&PACKET));
    let refused = |options: Options<'_>| Capture::start(&s.stack, &options).err();
    assert_eq!(
        refused(Options {
            interface: Some("en9"),
            ..options
        }),
        Some(CaptureError::NoInterface("en9".into()))
    );
    assert!(matches!(
        refused(Options {
            filter: Some("port"),
            ..options
        }),
        Some(CaptureError::Filter(_))
    ));
    let mut many = Vec::new();
    let refused = loop {
        match Capture::start(&s.stack, &options) {
            Ok(one) => many.push(one),
            Err(error) => break error,
        }
    };
    assert_eq!(
        (refused, many.len() + 3),
        (CaptureError::TooMany, MAX_CAPTURES)
    );
}

/// Wireshark's reader finds the frames, with their interfaces and times.
fn read_by_tshark(file: &[u8]) {
    let path = std::env::temp_dir().join(format!("nanos-capture-{}.pcapng", std::process::id()));
    std::fs::write(&path, file).unwrap();
    let fields = ["frame.interface_name", "ip.proto", "frame.time_epoch"];
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output = command.arg("-r").arg(&path).output();
    let _ = std::fs::remove_file(&path);
    let Ok(output) = output else {
        eprintln!("tshark is not installed");
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(lines.len(), 7, "{text}");
    assert_eq!(lines[0][..2], ["lo", "17"]);
    assert!(
        lines.iter().any(|line| line[..2] == ["en1", "253"]),
        "{text}"
    );
    assert!(lines[0][2].starts_with("1700000100."), "{text}");
}
