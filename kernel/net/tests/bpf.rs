//! Classic BPF against Linux's own: random programs, attached to a socket of this machine and interpreted here, must be
//! taken or refused alike, and keep alike.

mod common;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use common::Rng;
use net::bpf::{Packet, Program};

/// Reads lines `program data` in hexadecimal. Tells for each the bytes of a datagram that come through the filter, or the
/// negative error with which the filter is refused.
const LINUX: &str = r"
import ctypes, errno, socket, struct, sys
for line in sys.stdin:
    program, data = (bytes.fromhex(word) for word in line.split())
    code = ctypes.create_string_buffer(program, len(program))
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        b.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HxxxxxxP', len(program) // 8, ctypes.addressof(code)))
    except OSError as error:
        print(-error.errno)
        continue
    a.send(data)
    try:
        print(len(b.recv(4096, socket.MSG_DONTWAIT)))
    except BlockingIOError:
        print(0)
";

const CODES: &[u16] = &[
    0x00, 0x01, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x61, 0x80, 0x81, 0xb1, 0x02, 0x03, 0x04,
    0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x84,
    0x94, 0x9c, 0xa4, 0xac, 0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x06, 0x16, 0x07,
    0x87, 0x20, 0x28, 0x30, 0x15, 0x25, 0x45,
];

/// What both sides answer alike of a datagram without an interface: not the CPU, nothing random.
const ANCILLARY: &[u32] = &[0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 44, 48, 52, 60];

fn instruction(bytes: &mut Vec<u8>, code: u16, jt: u8, jf: u8, k: u32) {
    bytes.extend(code.to_ne_bytes());
    bytes.extend([jt, jf]);
    bytes.extend(k.to_ne_bytes());
}

fn program(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cell in 0..4 {
        instruction(&mut bytes, 0x00, 0, 0, rng.next() as u32);
        instruction(&mut bytes, 0x02, 0, 0, cell);
    }
    let len = 1 + rng.below(20);
    for left in (0..len).rev() {
        let mut code = CODES[rng.below(CODES.len() as u64) as usize];
        let mut k = match rng.below(4) {
            0 => rng.next() as u32,
            1 => rng.below(320) as u32,
            _ => rng.below(20) as u32,
        };
        match code {
            0x60 | 0x61 | 0x02 | 0x03 => k &= 3,
            0x05 => k = rng.below(left + 1) as u32,
            0x20 | 0x28 | 0x30 if rng.chance(200_000) => {
                k = 0xffff_f000 + ANCILLARY[rng.below(ANCILLARY.len() as u64) as usize];
            }
            // Where headers of a local datagram would be is not told anywhere.
            0x20 | 0x28 | 0x30 | 0xb1 => k &= 0x8000_01ff,
            0x64 | 0x74 => k &= 31,
            _ => {}
        }
        let jump = |rng: &mut Rng| rng.below(left + 1) as u8;
        let (mut jt, jf) = (jump(rng), jump(rng));
        // Now and then something that is not to be.
        match rng.below(400) {
            0 => code = rng.next() as u16 & 0x1ff,
            1 => k = rng.next() as u32,
            2 => jt = rng.next() as u8,
            _ => {}
        }
        instruction(&mut bytes, code, jt, jf, k);
    }
    // A and X folded into a number from 1 to 256.
    for (code, k) in [
        (0xac, 0),
        (0x07, 0),
        (0x74, 16),
        (0xac, 0),
        (0x07, 0),
        (0x74, 8),
        (0xac, 0),
        (0x54, 255),
        (0x04, 1),
        (0x16, 0),
    ] {
        instruction(&mut bytes, code, 0, 0, k);
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn random_programs_do_what_they_do_on_linux() {
    let mut rng = Rng(5);
    let cases: Vec<(Vec<u8>, Vec<u8>)> = (0..4000)
        .map(|_| {
            let mut data: Vec<u8> = (0..300).map(|_| rng.next() as u8).collect();
            // Attributes of netlink, one behind the other.
            for (at, part) in data.chunks_exact_mut(4).take(16).enumerate() {
                part.copy_from_slice(&[4 + 4 * (at as u8 & 3), 0, at as u8, 0]);
            }
            (program(&mut rng), data)
        })
        .collect();
    let mut linux = Command::new("python3")
        .args(["-c", LINUX])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = cases
        .iter()
        .map(|(program, data)| format!("{} {}\n", hex(program), hex(data)))
        .collect();
    let mut input = linux.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = linux.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    let (mut refused, mut dropped) = (0, 0);
    let mut count = 0;
    for ((program, data), theirs) in cases.iter().zip(answers.lines()) {
        let ours = match Program::new(program) {
            Err(error) => -i64::from(error.raw()),
            Ok(checked) => {
                let keep = checked.run(&Packet {
                    frame: data,
                    data: 0,
                    network: data.len(),
                    protocol: 0,
                    kind: 0,
                    index: 0,
                    hardware: 0,
                    random: &|| 0,
                });
                i64::from(keep).min(data.len() as i64)
            }
        };
        assert_eq!(ours.to_string(), theirs, "{}", hex(program));
        refused += u32::from(ours < 0);
        dropped += u32::from(ours == 0);
        count += 1;
    }
    println!("{count} programs, {refused} refused, {dropped} datagrams dropped");
    assert_eq!(count, cases.len(), "the other side ended");
    assert!(refused > 50 && dropped > 100 && refused + dropped < count as u32 / 2);
}
