//! Merging segments: what becomes one, what does not, and that no byte changes place.

use super::*;
use crate::nic::{RxBuffer, RxPacket};
use std::vec::Vec;

/// A segment with timestamps of flow `flow`.
#[derive(Clone, Copy)]
struct Shape {
    v6: bool,
    flow: u8,
    seq: u32,
    len: usize,
    flags: u8,
    stamp: u32,
    tos: u8,
}

const PLAIN: Shape = Shape {
    v6: false,
    flow: 1,
    seq: 1000,
    len: 100,
    flags: ACK,
    stamp: 7,
    tos: 0,
};

/// What byte `at` of the stream of a flow is.
fn stream(flow: u8, at: u32) -> u8 {
    (at.wrapping_mul(31) >> 3) as u8 ^ flow
}

fn frame(shape: &Shape) -> Vec<u8> {
    let mut out = vec![2; 12];
    let tcp_len = 32 + shape.len;
    if shape.v6 {
        out.extend([0x86, 0xdd, 0x60, shape.tos, 0, 0]);
        out.extend((tcp_len as u16).to_be_bytes());
        out.extend([proto::TCP, 64]);
        out.extend([0xfd; 15]);
        out.push(shape.flow);
        out.extend([0xfc; 16]);
    } else {
        out.extend([8, 0]);
        let mut ip = vec![0x45, shape.tos];
        ip.extend((20 + tcp_len as u16).to_be_bytes());
        // An identification of its own.
        ip.extend([shape.seq as u8, 9, 0x40, 0, 64, proto::TCP, 0, 0]);
        ip.extend([10, 0, 0, shape.flow, 10, 0, 0, 200]);
        let sum = Sum::default().bytes(&ip).finish().to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        out.extend(ip);
    }
    let tcp = out.len();
    out.extend([0x10, shape.flow, 0, 80]);
    out.extend(shape.seq.to_be_bytes());
    out.extend(77u32.to_be_bytes());
    out.extend([0x80, shape.flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10]);
    out.extend(shape.stamp.to_be_bytes());
    out.extend([0; 4]);
    out.extend((0..shape.len as u32).map(|i| stream(shape.flow, shape.seq.wrapping_add(i))));
    let at = Layout {
        v4: !shape.v6,
        tcp,
        data: tcp + 32,
    };
    let (src, dst) = addresses(&out, at).unwrap();
    let sum = Sum::pseudo(src, dst, proto::TCP, tcp_len).bytes(&out[tcp..]);
    out[tcp + 16..tcp + 18].copy_from_slice(&sum.finish().to_be_bytes());
    out
}

fn packet(bytes: Vec<u8>) -> InPacket {
    RxPacket::plain(RxBuffer::from(bytes)).into()
}

/// One batch through; what comes out.
fn through(frames: Vec<Vec<u8>>) -> Vec<InPacket> {
    let mut out = Vec::new();
    let mut gro = Gro::default();
    for bytes in frames {
        gro.add(packet(bytes), &mut |packet| out.push(packet));
    }
    gro.flush(&mut |packet| out.push(packet));
    out
}

fn lengths(shapes: &[Shape]) -> Vec<usize> {
    let frames = shapes.iter().map(frame).collect();
    through(frames).iter().map(InPacket::len).collect()
}

fn next(shape: &Shape) -> Shape {
    Shape {
        seq: shape.seq.wrapping_add(shape.len as u32),
        ..*shape
    }
}

#[test]
fn segments_that_follow_each_other_become_one() {
    for v6 in [false, true] {
        let a = Shape {
            v6,
            seq: u32::MAX - 120,
            ..PLAIN
        };
        let b = next(&a);
        let c = Shape {
            len: 60,
            flags: ACK | PSH,
            ..next(&b)
        };
        let all = through(vec![frame(&a), frame(&b), frame(&c)]);
        assert_eq!(all.len(), 1);
        let merged = all[0].to_vec();
        // Just as if it had been sent so, checksum of the transport aside.
        let whole = frame(&Shape {
            len: 260,
            flags: ACK | PSH,
            ..a
        });
        let sum = if v6 { ETH + 56 } else { ETH + 36 };
        assert_eq!(merged[..sum], whole[..sum]);
        assert_eq!(merged[sum + 2..], whole[sum + 2..]);
        assert_eq!(all[0].csum, RxChecksum::Verified);
        let gso = all[0].gso.unwrap();
        assert_eq!(
            (gso.segment_size, usize::from(gso.header_len)),
            (100, merged.len() - 260)
        );
    }
}

#[test]
fn what_stays_apart() {
    let (a, head) = (PLAIN, 66);
    let b = next(&a);
    let apart = |b: Shape| assert_eq!(lengths(&[a, b]), [head + a.len, head + b.len]);
    assert_eq!(lengths(&[a, b]), [head + 200]);
    apart(Shape {
        seq: b.seq + 1,
        ..b
    });
    apart(Shape { len: 101, ..b });
    apart(Shape { stamp: 8, ..b });
    apart(Shape { tos: 3, ..b });
    apart(Shape { flow: 2, ..b });
    apart(Shape {
        flags: ACK | crate::tcp::header::FIN,
        ..b
    });
    apart(Shape {
        flags: ACK | crate::tcp::header::URG,
        ..b
    });
    apart(a);
    // A short one, and one with PSH, end it.
    let short = Shape { len: 99, ..b };
    assert_eq!(lengths(&[a, short, next(&short)]), [head + 199, head + 99]);
    let push = Shape {
        flags: ACK | PSH,
        ..b
    };
    assert_eq!(lengths(&[a, push, next(&push)]), [head + 200, head + 100]);
    // A bare acknowledgement lets what came before it through first.
    assert_eq!(
        lengths(&[a, Shape { len: 0, ..b }, b]),
        [head + 100, head, head + 100]
    );
}

#[test]
fn a_wrong_checksum_is_not_hidden() {
    for at in [ETH + 8, ETH + 30, ETH + 60] {
        let mut bad = frame(&next(&PLAIN));
        bad[at] ^= 0x10;
        let all = through(vec![frame(&PLAIN), bad.clone()]);
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].to_vec(), bad);
        assert_eq!(all[1].csum, RxChecksum::Unknown);
    }
}

#[test]
fn no_more_than_an_ip_packet_holds() {
    let mut shape = Shape { len: 1448, ..PLAIN };
    let mut shapes = Vec::new();
    for _ in 0..60 {
        shapes.push(shape);
        shape = next(&shape);
    }
    assert_eq!(lengths(&shapes), [66 + 45 * 1448, 66 + 15 * 1448]);
}

#[test]
fn padding_is_no_data() {
    let a = Shape { len: 10, ..PLAIN };
    let mut padded = frame(&a);
    padded.extend([0xee; 6]);
    let all = through(vec![padded, frame(&next(&a))]);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].to_vec()[66..], frame(&Shape { len: 20, ..a })[66..]);
}

/// Any mix of flows, sizes, flags and mistakes: each flow's bytes come out in the order in which they went in.
#[test]
fn order_within_a_flow_stays() {
    for seed in 1..400u64 {
        let mut state = seed;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let mut flows: Vec<Shape> = (0..6)
            .map(|flow| Shape {
                flow,
                v6: flow % 2 == 1,
                seq: random(1 << 32) as u32,
                ..PLAIN
            })
            .collect();
        let (mut frames, mut sent) = (Vec::new(), vec![Vec::new(); 6]);
        for _ in 0..random(64) + 2 {
            let flow = random(6) as usize;
            let mut shape = flows[flow];
            match random(12) {
                0 => shape.len = random(120) as usize,
                1 => shape.flags |= PSH,
                2 => shape.stamp += 1,
                3 => shape.seq = shape.seq.wrapping_add(random(300) as u32),
                4 => shape.flags |= crate::tcp::header::FIN,
                _ => {}
            }
            frames.push(frame(&shape));
            for i in 0..shape.len as u32 {
                sent[flow].push(shape.seq.wrapping_add(i));
            }
            flows[flow] = Shape {
                flags: ACK,
                len: 100,
                ..next(&shape)
            };
        }
        let mut came = vec![Vec::new(); 6];
        for packet in through(frames) {
            let bytes = packet.to_vec();
            let v4 = bytes[12] == 8;
            let (tcp, total) = if v4 {
                (
                    34,
                    14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]])),
                )
            } else {
                (
                    54,
                    54 + usize::from(u16::from_be_bytes([bytes[18], bytes[19]])),
                )
            };
            assert_eq!(total, bytes.len());
            let flow = bytes[tcp + 1];
            let seq = word(&bytes, tcp + 4);
            for (i, byte) in bytes[tcp + 32..].iter().enumerate() {
                let at = seq.wrapping_add(i as u32);
                assert_eq!(*byte, stream(flow, at), "seed {seed}");
                came[usize::from(flow)].push(at);
            }
        }
        assert_eq!(came, sent, "seed {seed}");
    }
}
