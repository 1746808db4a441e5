//! The split virtqueue against a device that works it from the other side.

use super::{
    fake::DeviceQueue,
    queue::{Broken, Piece, Queue},
};
use crate::fuzz::Random;

use machine::dma::{DmaBuffer, DmaIn};

fn piece(address: u64, len: u32, device_writes: bool) -> Piece {
    Piece {
        address,
        len,
        device_writes,
    }
}

fn pair(size: u16, event_idx: bool) -> (Queue, DeviceQueue) {
    let queue = Queue::new(size, event_idx).unwrap();
    let device = DeviceQueue::new(queue.placement(), event_idx);
    (queue, device)
}

#[test]
fn sizes() {
    for size in [0, 3, 100, 40000] {
        assert!(Queue::new(size, true).is_err(), "{size}");
    }
    for size in [1, 2, 256, 1 << 15] {
        let place = Queue::new(size, true).unwrap().placement();
        assert_eq!(place.descriptors % 16, 0);
        assert_eq!(place.used % 4, 0);
        assert!(place.available >= place.descriptors + 16 * u64::from(size));
        assert!(place.used >= place.available + 6 + 2 * u64::from(size));
    }
}

/// More than twice around the 16-bit indexes, chains of random length, random order of completion: no notification
/// and no interrupt that is wanted is missed, and no chain is lost or seen twice.
#[test]
fn around_the_indexes_in_any_order() {
    for event_idx in [true, false] {
        let mut random = Random::new(7);
        let (mut queue, mut device) = pair(16, event_idx);
        let mut held: Vec<(u16, u32)> = Vec::new();
        let mut device_asleep = true;
        let mut driver_asleep = !queue.enable_interrupts(1);
        let (mut started, mut ended) = (0u32, 0u32);
        while ended < 140_000 {
            // The driver adds some, and tells the device if it wants.
            for _ in 0..random.below(4) {
                let count = 1 + random.below(3);
                let pieces: Vec<Piece> = (0..count)
                    .map(|i| piece(u64::from(started) * 64 + i as u64, started, i + 1 == count))
                    .collect();
                let added = queue.add(&pieces);
                if added.is_some() {
                    started += 1;
                }
            }
            if queue.publish() {
                device_asleep = false;
            }
            // The device works if it was told.
            if !device_asleep {
                for _ in 0..random.below(6) {
                    match device.next() {
                        Some(chain) => {
                            let first = chain.buffers[0];
                            assert_eq!(first.address, u64::from(first.len) * 64);
                            held.push((chain.head, first.len));
                        }
                        None => {
                            device_asleep = true;
                            break;
                        }
                    }
                }
            }
            while !held.is_empty() && random.below(3) > 0 {
                let (head, tag) = held.swap_remove(random.below(held.len()));
                if device.give_back(head, tag) {
                    driver_asleep = false;
                }
            }
            // The driver takes back if it was told.
            if !driver_asleep {
                while let Ok(Some((_, _))) = queue.take() {
                    ended += 1;
                }
                driver_asleep = !queue.enable_interrupts(1);
            }
            if device_asleep && driver_asleep && held.is_empty() {
                assert_eq!(started, ended, "both sleep and something is under way");
            }
        }
    }
}

#[test]
fn indirect_tables() {
    let (mut queue, mut device) = pair(4, true);
    let table = DmaBuffer::new(4096).unwrap();
    let room = DmaIn::with_len(100);
    let pieces: Vec<Piece> = (0..50u64)
        .map(|i| piece(room.phys() + i, 1, i >= 25))
        .collect();
    assert_eq!(queue.free_count(), 4);
    let head = queue.add_indirect(&table, 1024, &pieces).unwrap();
    assert_eq!(queue.free_count(), 3);
    assert!(queue.publish());
    let chain = device.next().unwrap();
    assert!(chain.indirect);
    assert_eq!(
        (chain.head, chain.buffers.len(), chain.room()),
        (head, 50, 25)
    );
    for (buffer, piece) in chain.buffers.iter().zip(&pieces) {
        assert_eq!(
            (buffer.address, buffer.len, buffer.writable),
            (piece.address, piece.len, piece.device_writes)
        );
    }
    device.give_back(chain.head, 25);
    assert_eq!(queue.take(), Ok(Some((head, 25))));
    assert_eq!(queue.free_count(), 4);
    room.complete();
}

#[test]
fn full_and_empty() {
    let (mut queue, mut device) = pair(4, false);
    let one = [piece(0, 1, false)];
    assert!(queue.add(&[]).is_none());
    assert!(queue.add(&[one[0]; 5]).is_none());
    assert!(!queue.publish());
    assert!(queue.add(&[one[0]; 3]).is_some());
    assert!(queue.add(&[one[0]; 2]).is_none());
    assert!(queue.add(&one).is_some());
    assert!(queue.add(&one).is_none());
    assert!(queue.publish());
    assert_eq!(queue.take(), Ok(None));
    assert_eq!(queue.in_flight(), 2);
    let first = device.next().unwrap();
    device.give_back(first.head, 0);
    assert_eq!(queue.take(), Ok(Some((first.head, 0))));
    assert_eq!((queue.free_count(), queue.in_flight()), (3, 1));
}

#[test]
fn interrupts_after_several() {
    let (mut queue, mut device) = pair(16, true);
    for _ in 0..10 {
        queue.add(&[piece(0, 1, false)]).unwrap();
    }
    assert!(queue.publish());
    assert!(!queue.enable_interrupts(5));
    let told: Vec<bool> = (0..10)
        .map(|_| {
            let chain = device.next().unwrap();
            device.give_back(chain.head, 0)
        })
        .collect();
    assert_eq!(told.iter().position(|&told| told), Some(4));
    assert_eq!(told.iter().filter(|&&told| told).count(), 1);
    assert!(queue.enable_interrupts(10));
    assert!(!queue.enable_interrupts(11));
    queue.disable_interrupts();
}

#[test]
fn a_peek_sees_what_was_used() {
    let (mut queue, mut device) = pair(4, true);
    let peek = queue.peek();
    queue.add(&[piece(0, 1, false)]).unwrap();
    assert!(queue.publish());
    assert!(!peek.any());
    let chain = device.next().unwrap();
    device.give_back(chain.head, 0);
    assert!(peek.any());
    assert!(queue.take().is_ok());
    assert!(!peek.any());
}

/// Whatever the device writes into the used ring, a chain comes back at most once, and no index leaves the queue.
#[test]
fn hostile_used_rings() {
    for seed in 0..3000 {
        let mut random = Random::new(seed);
        let (mut queue, mut device) = pair(8, seed % 2 == 0);
        device.honest = false;
        let mut under_way = Vec::new();
        for _ in 0..40 {
            if let Some(head) = queue.add(&vec![piece(0, 1, false); 1 + random.below(3)]) {
                assert!(!under_way.contains(&head));
                under_way.push(head);
            }
            let _ = queue.publish();
            match random.below(4) {
                0 => {
                    if let Some(chain) = device.next() {
                        device.give_back(chain.head, random.next() as u32);
                    }
                }
                1 => {
                    // A head that may or may not be under way.
                    device.give_back(random.below(9) as u16, 0);
                }
                2 if random.below(10) == 0 => {
                    device.lie(random.next() as u32, random.next() as u16)
                }
                _ => {}
            }
            loop {
                match queue.take() {
                    Ok(Some((head, _))) => {
                        let at = under_way.iter().position(|&other| other == head);
                        under_way.swap_remove(at.expect("a chain that was under way"));
                    }
                    Ok(None) => break,
                    Err(Broken) => {
                        assert!(queue.is_broken());
                        assert_eq!(queue.take(), Err(Broken));
                        assert!(queue.add(&[piece(0, 1, false)]).is_none());
                        break;
                    }
                }
            }
            if queue.is_broken() {
                break;
            }
        }
    }
}
