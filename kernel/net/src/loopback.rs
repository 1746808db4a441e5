//! Packets this machine sends to itself, and the copies it keeps of what it sends to groups.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::iface::Interface;
use crate::nic::TxPacket;
use crate::pkt::InPacket;
use crate::stack::Stack;
use crate::sync::SpinLock;

/// Packets the loopback holds for each CPU before it drops, which only a loop of programs can reach.
const LOOP_LIMIT: usize = 65_536;
const LOOPS: usize = 16;

#[derive(Default)]
struct LoopQueue {
    packets: SpinLock<VecDeque<(TxPacket, Option<Arc<Interface>>)>>,
    len: AtomicUsize,
    draining: AtomicBool,
}

/// Packets this machine sent to itself. They are delivered by the sender itself, once it holds no
/// lock: no other thread is needed for a packet over `lo`.
#[derive(Default)]
pub(crate) struct Loopback {
    queues: [LoopQueue; LOOPS],
    /// Packets in all queues: one look tells that there is nothing to do.
    waiting: AtomicUsize,
}

impl Stack {
    pub(crate) fn loop_back(&self, lo: &Interface, packet: TxPacket) {
        if lo.taps.active() {
            lo.tap_out(&packet, None);
        }
        self.loop_unseen(lo, packet);
    }

    /// The same for a packet that the taps have seen.
    pub(crate) fn loop_unseen(&self, lo: &Interface, packet: TxPacket) {
        lo.count_looped(packet.len());
        self.enqueue_loop(packet, None);
    }

    /// `through` is the interface that a copy of a multicast packet left by.
    fn enqueue_loop(&self, packet: TxPacket, through: Option<Arc<Interface>>) {
        let queue = &self.loopback.queues[crate::sync::cpu_id() % LOOPS];
        let mut packets = queue.packets.lock();
        if packets.len() < LOOP_LIMIT {
            packets.push_back((packet, through));
            queue.len.store(packets.len(), Ordering::Release);
            self.loopback.waiting.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A multicast packet leaves through `iface`: sockets here that joined the group there get a copy.
    pub(crate) fn loop_multicast(&self, iface: &Arc<Interface>, group: IpAddr, packet: &TxPacket) {
        if iface.is_loopback() || !self.groups.listens(group, iface.index) {
            return;
        }
        let mut copy = packet.clone();
        copy.offload = None;
        self.enqueue_loop(copy, Some(iface.clone()));
    }

    /// Delivers what was sent over `lo`. Called wherever a packet may have been sent and no lock is held.
    #[inline]
    pub(crate) fn drain_loopback(&self) {
        if self.loopback.waiting.load(Ordering::Acquire) != 0 {
            for queue in &self.loopback.queues {
                if queue.len.load(Ordering::Acquire) != 0 {
                    self.drain_queue(queue);
                }
            }
        }
    }

    fn drain_queue(&self, queue: &LoopQueue) {
        let Some(lo) = self.interface(1) else { return };
        // One drainer at a time keeps the order of packets; it sees what comes in meanwhile.
        while queue.len.load(Ordering::Acquire) != 0 {
            if queue.draining.swap(true, Ordering::Acquire) {
                return;
            }
            let now = self.now();
            loop {
                let packet = {
                    let mut packets = queue.packets.lock();
                    let packet = packets.pop_front();
                    queue.len.store(packets.len(), Ordering::Release);
                    packet
                };
                let Some((packet, through)) = packet else {
                    break;
                };
                self.loopback.waiting.fetch_sub(1, Ordering::AcqRel);
                let packet = InPacket::looped(packet);
                match through {
                    None => self.input(&lo, packet, now),
                    Some(iface) => self.dispatch(&iface, packet, now),
                }
            }
            queue.draining.store(false, Ordering::Release);
        }
    }
}
