//! A socket device from both sides.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::{
    virtio::{device_type, fake::Fake},
    vsock::HEADER_LEN,
};

const SIZES: [u16; 3] = [64, 128, 8];

fn started(features: u64) -> (Arc<Fake>, Arc<dyn VsockLink>, Arc<AtomicUsize>) {
    let fake = Fake::new(device_type::VSOCK, features, &SIZES, &42u64.to_le_bytes());
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    let wake: Handler = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let link = VirtioVsock::new(fake.clone()).start(wake).unwrap();
    (fake, link, woken)
}

fn packet(fill: u8, data: usize) -> Box<[u8]> {
    alloc::vec![fill; HEADER_LEN + data].into()
}

#[test]
fn what_is_agreed_and_told() {
    let (fake, link, _) = started(feature::STREAM | feature::SEQPACKET | 1 << 2 | ring::EVENT_IDX);
    assert_eq!(link.guest_cid(), 42);
    assert!(link.has_seqpacket());
    assert_eq!(fake.accepted() & 7, 3, "nothing that is not known");
    let (_, link, _) = started(0);
    assert!(!link.has_seqpacket());
    let fake = Fake::new(device_type::VSOCK, 0, &SIZES, &[0; 4]);
    let error = VirtioVsock::new(fake).start(Arc::new(|| {})).err();
    assert_eq!(error, Some(SetupError::BadConfig));
}

#[test]
fn packets_go_out_whole_and_their_memory_comes_back() {
    for features in [0, ring::EVENT_IDX] {
        let (fake, link, woken) = started(features);
        for (fill, data) in [(1, 0), (2, 5), (3, 64 * 1024)] {
            link.send(packet(fill, data)).unwrap();
            let chain = fake.next(TX).unwrap();
            assert_eq!(chain.readable(), &packet(fill, data)[..]);
            assert_eq!(chain.buffers[0].len as usize, HEADER_LEN);
            fake.give_back(TX, chain.head, 0);
        }
        // Until the ring is full; then room is told of, once some came back.
        let mut sent = 0;
        while link.send(packet(4, 1)).is_ok() {
            sent += 1;
            assert!(sent <= 64);
        }
        assert_eq!(sent, 64);
        let before = woken.load(Ordering::SeqCst);
        for _ in 0..sent {
            let chain = fake.next(TX).unwrap();
            fake.give_back(TX, chain.head, 0);
        }
        assert!(woken.load(Ordering::SeqCst) > before);
        assert_eq!(link.send(packet(5, 1)), Ok(()));
    }
}

#[test]
fn packets_come_in_with_the_length_that_the_device_says() {
    for features in [0, ring::EVENT_IDX] {
        let (fake, link, woken) = started(features);
        assert_eq!(link.receive(), None);
        for round in 0..200 {
            for data in [0, 7, 4096] {
                let chain = fake.next(RX).unwrap();
                assert_eq!(chain.room(), HEADER_LEN + 4096);
                let before = woken.load(Ordering::SeqCst);
                let len = chain.fill(&packet(round, data));
                fake.give_back(RX, chain.head, len);
                assert_eq!(woken.load(Ordering::SeqCst), before + 1);
                let Some(Arrival::Packet(bytes, len)) = link.receive() else {
                    panic!("nothing arrived");
                };
                assert_eq!(&bytes[..len], &packet(round, data)[..]);
                assert_eq!(link.receive(), None);
            }
        }
    }
}

#[test]
fn nonsense_is_dropped() {
    let (fake, link, _) = started(0);
    // Shorter than a header; longer than the buffer.
    for (len, arrives) in [(0, None), (43, None), (1 << 20, Some(HEADER_LEN + 4096))] {
        let chain = fake.next(RX).unwrap();
        fake.give_back(RX, chain.head, len);
        let got = link.receive().map(|arrival| match arrival {
            Arrival::Packet(_, len) => len,
            Arrival::Reset => 0,
        });
        assert_eq!(got, arrives);
    }
    // A chain that is not out: the queue gives nothing more, and does not claim that there is something.
    fake.with_queue(RX, |queue| queue.lie(9999, queue.used.wrapping_add(1)));
    assert_eq!(link.receive(), None);
    assert_eq!(link.receive(), None);
    fake.with_queue(TX, |queue| queue.lie(77, 1));
    assert_eq!(link.send(packet(1, 1)), Ok(()), "lost as on a cut wire");
}

#[test]
fn a_reset_brings_a_new_address() {
    let (fake, link, woken) = started(ring::EVENT_IDX);
    fake.config.lock().unwrap()[0] = 43;
    let chain = fake.next(EVENT).unwrap();
    let len = chain.fill(&0u32.to_le_bytes());
    fake.give_back(EVENT, chain.head, len);
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert_eq!(link.receive(), Some(Arrival::Reset));
    assert_eq!(link.guest_cid(), 43);
    assert_eq!(link.receive(), None);
    // Another event means nothing here.
    let chain = fake.next(EVENT).unwrap();
    let len = chain.fill(&7u32.to_le_bytes());
    fake.give_back(EVENT, chain.head, len);
    assert_eq!(link.receive(), None);
}
