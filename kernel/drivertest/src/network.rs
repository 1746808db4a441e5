//! A card on QEMU's user network: an ARP request to its gateway has to be answered.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering};

use drivers::nic::{Nic, RxPacket, TxPacket};
use machine::{println, time::now_ns};
use sched::WaitQueue;

pub const GATEWAY: [u8; 4] = [10, 0, 2, 2];
pub const OWN: [u8; 4] = [10, 0, 2, 15];

/// A queue as a poller has it.
pub struct Poller {
    nic: Arc<dyn Nic>,
    woken: Arc<(AtomicBool, WaitQueue)>,
}

impl Poller {
    fn new(nic: &Arc<dyn Nic>) -> Poller {
        let woken = Arc::new((AtomicBool::new(false), WaitQueue::new()));
        let handler = woken.clone();
        nic.set_receive_handler(
            0,
            Arc::new(move || {
                handler.0.store(true, Ordering::Release);
                handler.1.wake_one();
            }),
        );
        Poller {
            nic: nic.clone(),
            woken,
        }
    }

    /// Packets, at least one; sleeps until there are some. Panics after a while.
    pub fn packets(&self) -> Vec<RxPacket> {
        let limit = now_ns() + 5_000_000_000;
        let mut list = Vec::new();
        loop {
            self.nic.receive(0, 64, &mut |packet| list.push(packet));
            if !list.is_empty() {
                return list;
            }
            if self.nic.enable_interrupts(0) {
                continue;
            }
            let woken = self.woken.1.wait_interruptible(Some(limit), || {
                self.woken.0.swap(false, Ordering::AcqRel).then_some(())
            });
            assert!(woken.is_ok(), "no packet came");
        }
    }
}

fn arp_request(mac: [u8; 6]) -> TxPacket {
    let mut frame = [0xff; 6].to_vec();
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&OWN);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&GATEWAY);
    frame.resize(60, 0);
    TxPacket::copy_of(&frame)
}

fn is_answer(packet: &[u8]) -> bool {
    packet.len() >= 42 && packet[12..14] == [8, 6] && packet[21] == 2 && packet[28..32] == GATEWAY
}

pub fn test(nic: &Arc<dyn Nic>, load: bool, offload: bool) {
    println!(
        "card: {:02x?}, MTU {}, link {}, {} queue pairs, {:?}",
        nic.mac(),
        nic.mtu(),
        nic.link_up(),
        nic.queue_count(),
        nic.caps()
    );
    let poller = Poller::new(nic);
    let mut host = [0; 6];
    for _ in 0..3 {
        assert!(nic.transmit(0, arp_request(nic.mac())).is_ok());
        'answered: loop {
            for packet in poller.packets() {
                if is_answer(&packet.first) {
                    host.copy_from_slice(&packet.first[22..28]);
                    break 'answered;
                }
            }
        }
    }
    println!("  ok: {:?}", nic.stats());
    if offload {
        crate::offload::test(nic, &poller, host);
    }
    if load {
        measure(nic, &poller);
    }
}

fn measure(nic: &Arc<dyn Nic>, poller: &Poller) {
    let rounds = 500;
    let (start, before) = (now_ns(), nic.stats());
    for _ in 0..rounds {
        assert!(nic.transmit(0, arp_request(nic.mac())).is_ok());
        while !poller
            .packets()
            .iter()
            .any(|packet| is_answer(&packet.first))
        {}
    }
    report("one at a time", rounds, start, &before, nic);
    let (start, before) = (now_ns(), nic.stats());
    let mut answers = 0;
    for _ in 0..rounds / 50 {
        let mut batch: VecDeque<TxPacket> = (0..50).map(|_| arp_request(nic.mac())).collect();
        answers += 50;
        while !batch.is_empty() {
            nic.transmit_all(0, &mut batch);
        }
        while answers > 0 {
            answers -= poller
                .packets()
                .iter()
                .filter(|packet| is_answer(&packet.first))
                .count();
        }
    }
    report("fifty at a time", rounds, start, &before, nic);
}

fn report(
    name: &str,
    rounds: u64,
    start: u64,
    before: &drivers::nic::NicStats,
    nic: &Arc<dyn Nic>,
) {
    let after = nic.stats();
    println!(
        "  request and answer, {name}: {} ns each, {} kicks, {} interrupts for {rounds}",
        (now_ns() - start) / rounds,
        after.kicks - before.kicks,
        after.interrupts - before.interrupts
    );
}
