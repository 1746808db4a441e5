//! A card from both sides.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use machine::mem::{Frame, PAGE_SIZE};
use smallvec::smallvec;

use super::*;
use crate::{
    fuzz::Random,
    nic::{Gso, GsoKind, Header, RxChecksum, TxOffload, TxSegment},
    virtio::{device_type, fake::Fake},
};

const ALL: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::MTU
    | feature::MAC
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::MRG_RXBUF
    | feature::STATUS
    | ring::INDIRECT_DESC
    | ring::EVENT_IDX;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

fn card(features: u64) -> (Arc<Fake>, VirtioNet) {
    let mut config = MAC.to_vec();
    config.extend_from_slice(&[1, 0, 1, 0]);
    config.extend_from_slice(&9000u16.to_le_bytes());
    let fake = Fake::new(device_type::NET, features, &[256, 256], &config);
    let nic = VirtioNet::new(fake.clone()).unwrap();
    (fake, nic)
}

/// Delivers a packet in buffers of at most `piece` bytes each, one interrupt at most.
fn deliver(fake: &Fake, header: [u8; 12], packet: &[u8], piece: usize) {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(packet);
    let mut parts: Vec<&[u8]> = bytes.chunks(piece).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    for part in parts {
        let chain = fake.next(0).expect("a buffer");
        let len = chain.fill(part);
        fake.give_back(0, chain.head, len);
    }
}

fn header(buffers: u16) -> [u8; 12] {
    let mut header = [0; 12];
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    header
}

fn received(nic: &VirtioNet) -> Vec<RxPacket> {
    let mut packets = Vec::new();
    nic.receive(0, usize::MAX, &mut |packet| packets.push(packet));
    packets
}

#[test]
fn what_is_negotiated() {
    let (fake, nic) = card(ALL);
    assert_eq!(fake.accepted() & ALL, ALL);
    assert_eq!((nic.mac(), nic.mtu(), nic.queue_count()), (MAC, 9000, 1));
    assert!(nic.caps().tso4 && nic.caps().rx_gro && nic.link_up());

    // Merged packets need merged buffers, segmentation needs checksums.
    let (fake, nic) = card(ALL & !feature::MRG_RXBUF & !feature::CSUM);
    let refused = feature::GUEST_TSO4 | feature::HOST_TSO4 | feature::HOST_ECN | feature::GUEST_ECN;
    assert_eq!(fake.accepted() & refused, 0);
    assert_eq!(nic.mtu() as usize + 18 + 12, rx::BUFFER_LEN);

    let (_, nic) = card(0);
    assert_eq!(nic.mtu(), 1500);
    assert_eq!(nic.mac()[0] & 3, 2);
}

#[test]
fn the_link_goes_down_and_up() {
    let (fake, nic) = card(ALL);
    let told = Arc::new(AtomicUsize::new(0));
    let counter = told.clone();
    nic.set_link_handler(Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    fake.change_config(6, &[0, 0]);
    assert!(!nic.link_up());
    fake.change_config(6, &[0, 0]);
    fake.change_config(6, &[1, 0]);
    assert!(nic.link_up());
    assert_eq!(told.load(Ordering::Relaxed), 2);
}

#[test]
fn packets_in_one_buffer_and_in_many() {
    let (fake, nic) = card(ALL);
    let mut random = Random::new(1);
    for round in 0..2000 {
        let len = 14 + random.below(if round % 10 == 0 { 65_000 } else { 1600 });
        let packet: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let buffers = (packet.len() + 12).div_ceil(rx::BUFFER_LEN) as u16;
        let mut head = header(buffers);
        head[0] = 2;
        deliver(&fake, head, &packet, rx::BUFFER_LEN);
        let packets = received(&nic);
        assert_eq!(packets.len(), 1);
        assert_eq!(packets[0].to_vec(), packet);
        assert_eq!(packets[0].rest.len() + 1, usize::from(buffers));
        assert_eq!(packets[0].checksum, RxChecksum::Verified);
    }
    assert_eq!(nic.stats().rx_packets, 2000);
    assert_eq!(nic.stats().rx_dropped, 0);
}

#[test]
fn a_packet_whose_end_comes_later() {
    let (fake, nic) = card(ALL);
    let packet: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
    let mut bytes = header(3).to_vec();
    bytes.extend_from_slice(&packet);
    for part in bytes.chunks(2048) {
        assert!(received(&nic).is_empty());
        let chain = fake.next(0).unwrap();
        let len = chain.fill(part);
        fake.give_back(0, chain.head, len);
    }
    assert_eq!(received(&nic)[0].to_vec(), packet);
}

#[test]
fn one_interrupt_for_each_time_it_is_asked_for() {
    for features in [ALL, ALL & !ring::EVENT_IDX] {
        let (fake, nic) = card(features);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        nic.set_receive_handler(
            0,
            Arc::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            }),
        );
        let packet = [0x55; 60];
        deliver(&fake, header(1), &packet, 2048);
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        assert!(nic.enable_interrupts(0), "one is there already");
        assert_eq!(received(&nic).len(), 1);
        assert!(!nic.enable_interrupts(0));
        for _ in 0..20 {
            deliver(&fake, header(1), &packet, 2048);
        }
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(received(&nic).len(), 20);
        assert!(!nic.enable_interrupts(0));
        // A spurious interrupt wakes nobody.
        fake.interrupt(0);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        deliver(&fake, header(1), &packet, 2048);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn who_looks_is_not_interrupted_and_misses_nothing() {
    for features in [ALL, ALL & !ring::EVENT_IDX] {
        let (fake, nic) = card(features);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        nic.set_receive_handler(
            0,
            Arc::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            }),
        );
        let told = |count: usize| assert_eq!(woken.load(Ordering::Relaxed), count);
        let packet = [0x55; 60];
        assert!(!nic.enable_interrupts(0));
        nic.begin_looking(0);
        assert!(!nic.look(0));
        let before = fake.interrupts.load(Ordering::Relaxed);
        deliver(&fake, header(1), &packet, 2048);
        assert_eq!(fake.interrupts.load(Ordering::Relaxed), before);
        told(0);
        assert!(nic.look(0));
        told(1);
        // The poller is at work: what comes now it finds itself.
        deliver(&fake, header(1), &packet, 2048);
        assert!(!nic.look(0));
        nic.end_looking(0);
        told(1);
        assert_eq!(received(&nic).len(), 2);
        // What comes between the last look and the end is told at the end; after it, the card interrupts.
        assert!(!nic.enable_interrupts(0));
        nic.begin_looking(0);
        assert!(!nic.look(0));
        deliver(&fake, header(1), &packet, 2048);
        nic.end_looking(0);
        told(2);
        assert_eq!(received(&nic).len(), 1);
        assert!(!nic.enable_interrupts(0));
        nic.begin_looking(0);
        nic.end_looking(0);
        deliver(&fake, header(1), &packet, 2048);
        assert_eq!(fake.interrupts.load(Ordering::Relaxed), before + 1);
        told(3);
    }
}

/// How many buffers the device has.
fn buffers_out(fake: &Fake) -> usize {
    std::iter::from_fn(|| fake.next(0)).count()
}

#[test]
fn buffers_follow_the_load() {
    let (fake, nic) = card(ALL & !feature::GUEST_TSO4 & !feature::GUEST_TSO6);
    for _ in 0..20 {
        deliver(&fake, header(1), &[1; 60], 2048);
        assert_eq!(received(&nic).len(), 1);
    }
    assert_eq!(buffers_out(&fake), 16);
    let (fake, nic) = card(ALL);
    for burst in [20, 60, 100, 200] {
        for _ in 0..burst {
            deliver(&fake, header(1), &[1; 60], 2048);
        }
        assert_eq!(received(&nic).len(), burst);
    }
    assert_eq!(buffers_out(&fake), 256);
}

#[test]
fn budgets_hold() {
    let (fake, nic) = card(ALL);
    for _ in 0..25 {
        deliver(&fake, header(1), &[1; 60], 2048);
    }
    let mut count = 0;
    assert_eq!(nic.receive(0, 20, &mut |_| count += 1), 20);
    assert_eq!(nic.receive(0, 20, &mut |_| count += 1), 5);
    assert_eq!(count, 25);
    assert_eq!(nic.receive(7, 20, &mut |_| count += 1), 0);
}

/// Sends and returns what the device saw: device header and packet.
fn sent(fake: &Fake) -> Option<(Vec<u8>, Vec<u8>, bool)> {
    let chain = fake.next(1)?;
    let bytes = chain.readable();
    fake.give_back(1, chain.head, 0);
    Some((bytes[..12].to_vec(), bytes[12..].to_vec(), chain.indirect))
}

#[test]
fn a_small_packet_is_one_descriptor() {
    let (fake, nic) = card(ALL);
    nic.transmit(0, TxPacket::copy_of(&[7; 60])).unwrap();
    let chain = fake.next(1).unwrap();
    assert_eq!(chain.buffers.len(), 1);
    assert_eq!(chain.readable()[12..], [7; 60]);
}

#[test]
fn a_large_packet_with_everything() {
    let (fake, nic) = card(ALL);
    let frame = Frame::alloc_zeroed().unwrap();
    frame.write(100, b"from a page");
    let bytes: Arc<[u8]> = (0..50_000u32).map(|i| i as u8).collect();
    let gso = Gso {
        kind: GsoKind::Tcp4,
        segment_size: 1448,
        header_len: 66,
        ecn: false,
    };
    let mut segments = smallvec![TxSegment::Frame {
        frame: frame.clone(),
        offset: 100,
        len: 11
    }];
    segments.extend((0..12).map(|i| TxSegment::Bytes(bytes.clone(), i * 4096..(i + 1) * 4096)));
    segments.push(TxSegment::Bytes(bytes.clone(), 5..5));
    let packet = TxPacket {
        header: Header::from_slice(&[9; 66]).unwrap(),
        segments,
        offload: Some(TxOffload {
            csum_start: 34,
            csum_offset: 16,
            gso: Some(gso),
        }),
    };
    let expected = packet.to_vec();
    nic.transmit(0, packet).unwrap();
    assert_eq!(frame.ref_count(), 2);
    let (head, data, indirect) = sent(&fake).unwrap();
    assert_eq!(head, [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
    assert_eq!(data, expected);
    assert!(indirect);
    assert_eq!(nic.reclaim(0), 1);
    assert_eq!(frame.ref_count(), 1);
    assert_eq!(Arc::strong_count(&bytes), 1);
}

#[test]
fn packets_that_the_card_cannot_send_are_counted() {
    let (fake, nic) = card(ALL);
    let bytes: Arc<[u8]> = Arc::from([0u8; 100]);
    let offload = |csum_start, gso| {
        Some(TxOffload {
            csum_start,
            csum_offset: 16,
            gso,
        })
    };
    let gso = |kind, segment_size, header_len| {
        Some(Gso {
            kind,
            segment_size,
            header_len,
            ecn: false,
        })
    };
    let with = |segments: Vec<TxSegment>, offload| TxPacket {
        header: Header::from_slice(&[1; 60]).unwrap(),
        segments: segments.into(),
        offload,
    };
    let frame = Frame::alloc_zeroed().unwrap();
    let bad = [
        TxPacket::default(),
        TxPacket::copy_of(&[1; 13]),
        TxPacket::copy_of(&vec![1; 70_000]),
        with(vec![TxSegment::Bytes(bytes.clone(), 50..101)], None),
        #[expect(clippy::reversed_empty_ranges, reason = "what must not panic")]
        with(vec![TxSegment::Bytes(bytes.clone(), 60..50)], None),
        with(
            vec![TxSegment::Frame {
                frame,
                offset: PAGE_SIZE as u32 - 5,
                len: 6,
            }],
            None,
        ),
        with(vec![TxSegment::Bytes(bytes.clone(), 0..1); 40], None),
        with(vec![], offload(50, None)),
        with(vec![], offload(u16::MAX, None)),
        with(vec![], offload(34, gso(GsoKind::Udp, 100, 42))),
        with(vec![], offload(34, gso(GsoKind::Tcp4, 0, 54))),
        with(vec![], offload(34, gso(GsoKind::Tcp4, 100, 61))),
    ];
    let count = bad.len() as u64;
    for packet in bad {
        assert!(nic.transmit(0, packet).is_ok());
        assert!(fake.next(1).is_none());
    }
    assert_eq!(nic.stats().tx_dropped, count);
    let (fake, nic) = card(ALL & !feature::CSUM);
    nic.transmit(0, with(vec![], offload(34, None))).unwrap();
    assert!(fake.next(1).is_none());
}

#[test]
fn a_full_queue_says_so_and_tells_of_room() {
    for features in [ALL, ALL & !ring::EVENT_IDX, ALL & !ring::INDIRECT_DESC] {
        let (fake, nic) = card(features);
        let told = Arc::new(AtomicUsize::new(0));
        let counter = told.clone();
        nic.set_transmit_handler(
            0,
            Arc::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            }),
        );
        let bytes: Arc<[u8]> = Arc::from([3u8; 400]);
        let packet = || TxPacket {
            header: Header::from_slice(&[1; 60]).unwrap(),
            segments: smallvec![
                TxSegment::Bytes(bytes.clone(), 0..100),
                TxSegment::Bytes(bytes.clone(), 200..300)
            ],
            offload: None,
        };
        for round in 0..5 {
            let mut waiting: VecDeque<_> = (0..400).map(|_| packet()).collect();
            let took = nic.transmit_all(0, &mut waiting);
            assert!((40..=128).contains(&took), "{took}");
            assert_eq!(waiting.len() + took, 400);
            assert!(nic.transmit(0, packet()).is_err());
            assert_eq!(told.load(Ordering::Relaxed), round);
            let mut seen = 0;
            while let Some((_, data, _)) = sent(&fake) {
                assert_eq!(data.len(), 260);
                seen += 1;
            }
            assert_eq!(seen, took);
            assert_eq!(told.load(Ordering::Relaxed), round + 1);
            assert_eq!(nic.reclaim(0), took);
        }
        assert_eq!(Arc::strong_count(&bytes), 1);
    }
}

#[test]
fn notifications_are_rare_when_the_device_is_busy() {
    let (fake, nic) = card(ALL);
    let before = nic.stats().kicks;
    for _ in 0..100 {
        nic.transmit(0, TxPacket::copy_of(&[7; 60])).unwrap();
    }
    // The device asked for one at the first packet and has not looked since.
    assert_eq!(nic.stats().kicks, before + 1);
    assert_eq!(fake.notifications.load(Ordering::Relaxed), before + 1);
}

/// A device that writes random headers and lengths: nothing panics, nothing is lost but the packets.
#[test]
fn hostile_headers_and_lengths() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let (fake, nic) = card(ALL);
        for _ in 0..random.below(400) {
            let Some(chain) = fake.next(0) else { break };
            let mut bytes = [0; 64];
            bytes.fill_with(|| random.next() as u8 & random.next() as u8);
            if random.below(2) == 0 {
                bytes[11] = 0;
                bytes[10] &= 3;
            }
            chain.fill(&bytes);
            let len = match random.below(4) {
                0 => random.next() as u32,
                1 => random.below(14) as u32,
                _ => 64,
            };
            fake.give_back(0, chain.head, len);
            if random.below(3) == 0 {
                for packet in received(&nic) {
                    assert!(packet.first.len() >= 14);
                    assert!(packet.len() <= 40 * rx::BUFFER_LEN);
                }
            }
        }
        // Afterwards the queue is as good as before, once the last announced buffers were passed.
        received(&nic);
        assert!(fake.next(0).is_some() || nic.stats().rx_packets + nic.stats().rx_dropped > 0);
    }
}

#[test]
fn hostile_used_rings() {
    for (id, index) in [(0xffff_ffffu32, 1u16), (256, 1), (200, 1), (0, 1000)] {
        let (fake, nic) = card(ALL);
        fake.with_queue(0, |queue| queue.lie(id, index));
        fake.interrupt(0);
        assert!(received(&nic).is_empty());
        assert!(received(&nic).is_empty());
        nic.transmit(0, TxPacket::copy_of(&[7; 60])).unwrap();
        fake.with_queue(1, |queue| queue.lie(id, index));
        fake.interrupt(1);
        assert_eq!(nic.reclaim(0), 0);
        // The queue takes nothing more, and says nothing wrong.
        nic.transmit(0, TxPacket::copy_of(&[7; 60])).unwrap();
        assert_eq!(nic.stats().tx_dropped, 1);
    }
}

#[test]
fn several_pairs_are_switched_on_by_command() {
    // The host has one emulated CPU, so the command is tested by itself.
    let answers = Arc::new(Mutex::new(Vec::new()));
    let fake = Fake::new(device_type::NET, ring::EVENT_IDX, &[4], &[]);
    let mut device = Found::new(fake.clone())
        .negotiate(0, ring::EVENT_IDX)
        .unwrap();
    let (queue, notifier) = device.queue(0, 4).unwrap();
    let _running = device.start(Handlers::default()).unwrap();
    let seen = answers.clone();
    fake.on_notify(move |fake, queue| {
        let chain = fake.next(queue).unwrap();
        let command = chain.readable();
        let answer = u8::from(command[2] > 4);
        seen.lock().unwrap().push(command);
        let len = chain.fill(&[answer]);
        fake.give_back(queue, chain.head, len);
    });
    let mut control = ControlQueue::new(queue, notifier).unwrap();
    for _ in 0..20 {
        assert_eq!(control.set_queue_pairs(3), Ok(()));
    }
    assert_eq!(control.set_queue_pairs(9), Err(SetupError::Rejected));
    let answers = answers.lock().unwrap();
    assert_eq!((answers.len(), &answers[0]), (21, &vec![4, 0, 3, 0]));
}
