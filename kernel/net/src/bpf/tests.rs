//! What programs are taken and what they answer. Held against Linux itself by `tests/bpf.rs`.

use super::*;

/// `(code, jt, jf, k)` of each instruction.
type Listing<'a> = &'a [(u16, u8, u8, u32)];

fn program(listing: Listing<'_>) -> Result<Program> {
    let mut bytes = Vec::new();
    for (code, jt, jf, k) in listing {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([*jt, *jf]);
        bytes.extend(k.to_ne_bytes());
    }
    Program::new(&bytes)
}

fn packet(frame: &[u8]) -> Packet<'_> {
    Packet {
        frame,
        data: 0,
        network: 14,
        protocol: 0x0800,
        kind: 4,
        index: 3,
        hardware: 772,
        random: &|| 99,
    }
}

/// What a program answers about a frame of the bytes 0, 1, 2, ... 63.
fn answer(listing: Listing<'_>) -> u32 {
    let frame: Vec<u8> = (0..64).collect();
    program(listing).unwrap().run(&packet(&frame))
}

/// What is in A after some instructions.
fn a_after(listing: Listing<'_>) -> u32 {
    let mut all = listing.to_vec();
    all.push((0x16, 0, 0, 0));
    answer(&all)
}

#[test]
fn loads_are_in_network_order_and_end_with_the_packet() {
    assert_eq!(a_after(&[(0x20, 0, 0, 1)]), 0x0102_0304);
    assert_eq!(a_after(&[(0x28, 0, 0, 62)]), 0x3e3f);
    assert_eq!(a_after(&[(0x30, 0, 0, 63)]), 63);
    // One byte too far: the packet is dropped, whatever would follow.
    for one in [
        (0x20, 0, 0, 61),
        (0x28, 0, 0, 63),
        (0x30, 0, 0, 64),
        (0xb1, 0, 0, 64),
        (0x20, 0, 0, 0x7fff_ffff),
    ] {
        assert_eq!(answer(&[one, (0x06, 0, 0, 5)]), 0, "{one:?}");
    }
    // X is added modulo 2^32: 70 - 10.
    let x = (0x01, 0, 0, 70);
    assert_eq!(a_after(&[x, (0x50, 0, 0, 10u32.wrapping_neg())]), 60);
    assert_eq!(
        answer(&[x, (0x50, 0, 0, 80u32.wrapping_neg()), (0x06, 0, 0, 5)]),
        0
    );
    // The length of an IP header at byte 5: 4 * (5 & 15).
    assert_eq!(a_after(&[(0xb1, 0, 0, 5), (0x87, 0, 0, 0)]), 20);
    assert_eq!(a_after(&[(0x80, 0, 0, 0)]), 64);
}

#[test]
fn negative_offsets_name_headers() {
    let net = NETWORK as u32;
    let link = LINK as u32;
    assert_eq!(a_after(&[(0x30, 0, 0, net + 2)]), 16);
    assert_eq!(a_after(&[(0x28, 0, 0, link + 12)]), 0x0c0d);
    assert_eq!(answer(&[(0x30, 0, 0, net + 50), (0x06, 0, 0, 5)]), 0);
    assert_eq!(answer(&[(0x30, 0, 0, link - 1), (0x06, 0, 0, 5)]), 0);
    // They do so wherever the data begins.
    let frame: Vec<u8> = (0..64).collect();
    let mut at = packet(&frame);
    at.data = 34;
    let run = |k| {
        program(&[(0x30, 0, 0, k), (0x16, 0, 0, 0)])
            .unwrap()
            .run(&at)
    };
    assert_eq!((run(0), run(net), run(link + 1)), (34, 14, 1));
}

#[test]
fn ancillary_loads_tell_of_the_packet() {
    let ad = |place: u32| {
        a_after(&[
            (0x00, 0, 0, 6),
            (0x01, 0, 0, 3),
            (0x20, 0, 0, 0xffff_f000 + place),
        ])
    };
    assert_eq!((ad(0), ad(4), ad(8), ad(28)), (0x0800, 4, 3, 772));
    assert_eq!((ad(40), ad(56)), (6 ^ 3, 99));
    for none in [20, 24, 32, 44, 48, 60] {
        assert_eq!(ad(none), 0, "{none}");
    }
    // Of something that came from no interface there is no index: Linux ends with what is in A.
    let mut bare = packet(&[0; 20]);
    bare.index = 0;
    let index = [(0x00, 0, 0, 7), (0x20, 0, 0, 0xffff_f008), (0x06, 0, 0, 5)];
    assert_eq!(program(&index).unwrap().run(&bare), 7);
}

#[test]
fn the_payload_is_found_behind_known_transports() {
    let tell = program(&[(0x20, 0, 0, 0xffff_f034), (0x16, 0, 0, 0)]).unwrap();
    let mut frame = [0u8; 80];
    frame[14] = 0x46;
    for (protocol, there) in [(17, 14 + 24 + 8), (1, 46), (47, 38)] {
        frame[23] = protocol;
        assert_eq!(tell.run(&packet(&frame)), there, "{protocol}");
    }
    frame[23] = 6;
    frame[14 + 24 + 12] = 0x80;
    assert_eq!(tell.run(&packet(&frame)), 14 + 24 + 32);
    // No first fragment: there is no transport header.
    frame[21] = 3;
    assert_eq!(tell.run(&packet(&frame)), 38);
    assert_eq!(tell.run(&packet(&frame[..30])), 38);
    assert_eq!(tell.run(&packet(&frame[..20])), 0);
    // IPv6 with a hop-by-hop header of 16 bytes before ICMPv6.
    let mut frame = [0u8; 80];
    frame[54] = 58;
    frame[55] = 1;
    let mut six = packet(&frame);
    six.protocol = 0x86dd;
    assert_eq!(tell.run(&six), 14 + 40 + 16 + 8);
}

#[test]
fn attributes_of_netlink_are_found() {
    let mut frame = alloc::vec![0xff; 4];
    let attribute = |kind: u16, len: u16| [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    frame.extend(attribute(1, 5));
    frame.extend([1, 0, 0, 0]);
    frame.extend(attribute(0x8002, 12));
    frame.extend(attribute(7, 6));
    frame.extend([9, 9, 0, 0]);
    let find = |from: u32, kind: u32, place: u32| {
        let listing = [
            (0x00, 0, 0, from),
            (0x01, 0, 0, kind),
            (0x20, 0, 0, 0xffff_f000 + place),
            (0x16, 0, 0, 0),
        ];
        program(&listing).unwrap().run(&packet(&frame))
    };
    assert_eq!((find(4, 1, 12), find(4, 2, 12), find(4, 3, 12)), (4, 12, 0));
    assert_eq!(
        (find(12, 7, 16), find(12, 1, 16), find(4, 7, 16)),
        (16, 0, 0)
    );
    assert_eq!((find(4000, 1, 12), find(u32::MAX, 1, 16)), (0, 0));
}

#[test]
fn arithmetic_wraps_and_division_by_zero_drops() {
    let with = |code: u16, a: u32, k: u32| a_after(&[(0x00, 0, 0, a), (code, 0, 0, k)]);
    assert_eq!(with(0x04, u32::MAX, 2), 1);
    assert_eq!(with(0x14, 1, 2), u32::MAX);
    assert_eq!(with(0x24, 0x1_0001, 0x1_0000), 0x1_0000);
    assert_eq!((with(0x34, 7, 2), with(0x94, 7, 4)), (3, 3));
    assert_eq!(
        (with(0x64, 1, 31), with(0x74, 0x8000_0000, 31)),
        (1 << 31, 1)
    );
    assert_eq!((with(0x84, 1, 0), with(0xa4, 6, 3)), (u32::MAX, 5));
    for code in [0x3c, 0x9c] {
        assert_eq!(answer(&[(code, 0, 0, 0), (0x06, 0, 0, 5)]), 0);
    }
    // By X, shifts count modulo 32.
    assert_eq!(
        a_after(&[(0x00, 0, 0, 1), (0x01, 0, 0, 33), (0x6c, 0, 0, 0)]),
        2
    );
}

#[test]
fn jumps_go_both_ways() {
    let which = |code: u16, a: u32, k: u32| {
        answer(&[
            (0x00, 0, 0, a),
            (code, 0, 1, k),
            (0x06, 0, 0, 1),
            (0x06, 0, 0, 2),
        ])
    };
    assert_eq!((which(0x15, 5, 5), which(0x15, 5, 6)), (1, 2));
    assert_eq!((which(0x25, 0x8000_0000, 5), which(0x25, 5, 5)), (1, 2));
    assert_eq!((which(0x35, 5, 5), which(0x45, 4, 3)), (1, 2));
    assert_eq!(
        answer(&[(0x05, 0, 0, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 2)]),
        2
    );
}

#[test]
fn what_linux_does_not_take_is_refused() {
    let ret = (0x06, 0, 0, 1);
    for wrong in [
        &[][..],
        &[(0x00, 0, 0, 1)],
        // Jumps beyond the end.
        &[(0x05, 0, 0, 1), ret],
        &[(0x05, 0, 0, u32::MAX), ret],
        &[(0x15, 1, 0, 1), ret],
        &[(0x15, 0, 1, 1), ret],
        // Constants that cannot be.
        &[(0x34, 0, 0, 0), ret],
        &[(0x94, 0, 0, 0), ret],
        &[(0x64, 0, 0, 32), ret],
        &[(0x02, 0, 0, 16), ret],
        &[(0x20, 0, 0, 0xffff_f001), ret],
        &[(0x20, 0, 0, 0xffff_f040), ret],
        &[(0x20, 0, 0, 0xffff_ffff), ret],
        // Instructions that are none.
        &[(0x0e, 0, 0, 0), ret],
        &[(0x18, 0, 0, 0), ret],
        &[(0x8c, 0, 0, 0), ret],
        &[(0x120, 0, 0, 0), ret],
        // A cell that was not written, or on one way only.
        &[(0x60, 0, 0, 0), ret],
        &[(0x15, 1, 0, 0), (0x02, 0, 0, 3), (0x60, 0, 0, 3), ret],
    ] {
        assert_eq!(program(wrong), Err(Errno::EINVAL), "{wrong:?}");
    }
    let both = [
        (0x15, 0, 2, 0),
        (0x02, 0, 0, 3),
        (0x05, 0, 0, 1),
        (0x03, 0, 0, 3),
        (0x60, 0, 0, 3),
        ret,
    ];
    assert!(program(&both).is_ok());
    let longest = alloc::vec![(0x06, 0, 0, 1); MAX_LEN];
    assert!(program(&longest).is_ok());
    assert!(program(&[&longest[..], &[ret]].concat()).is_err());
    assert!(Program::new(&[0; 7]).is_err());
    let bytes = program(&both).unwrap().to_bytes();
    assert_eq!(Program::new(&bytes).unwrap().to_bytes(), bytes);
}
