//! virtio-vsock (virtio 1.2, 5.10): packets between the machine and its host through three queues. Connections and
//! credit are `net`'s; here is only what the device needs: buffers out, packets in, events.

mod queues;
#[cfg(test)]
mod tests;

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicU64, Ordering};

use machine::sync::SpinLock;

use self::queues::{Events, Rx, Tx};
use super::{
    SetupError, feature as ring,
    queue::UsedPeek,
    setup::{Found, Running},
    transport::{Handlers, InterruptHandler, Notifier, Transport},
};
use crate::{
    nic::Handler,
    vsock::{Arrival, VsockCard, VsockLink},
};

/// Feature bits (virtio 1.2, 5.10.3).
pub mod feature {
    /// Streams.
    pub const STREAM: u64 = 1 << 0;
    /// Sequenced packets.
    pub const SEQPACKET: u64 = 1 << 1;
}

/// Queue indexes.
const RX: u16 = 0;
const TX: u16 = 1;
const EVENT: u16 = 2;

/// Descriptors: two for each buffer or packet.
const RX_SIZE: u16 = 64;
const TX_SIZE: u16 = 128;
const EVENT_SIZE: u16 = 8;

/// A virtio socket device, not in service yet.
pub struct VirtioVsock {
    transport: Arc<dyn Transport>,
}

impl VirtioVsock {
    /// Remembers the device for later.
    pub fn new(transport: Arc<dyn Transport>) -> VirtioVsock {
        VirtioVsock { transport }
    }
}

impl VsockCard for VirtioVsock {
    fn start(&self, wake: Handler) -> Result<Arc<dyn VsockLink>, SetupError> {
        let mut device = Found::new(self.transport.clone())
            .negotiate(0, feature::STREAM | feature::SEQPACKET | ring::EVENT_IDX)?;
        let cid = u64::from_le_bytes(device.config::<8>(0)?);
        let has_seqpacket = device.has(feature::SEQPACKET);
        let (rx, rx_notifier) = device.queue(RX, RX_SIZE)?;
        let (tx, tx_notifier) = device.queue(TX, TX_SIZE)?;
        let (events, event_notifier) = device.queue(EVENT, EVENT_SIZE)?;
        let peeks = [rx.peek(), tx.peek(), events.peek()];
        let mut rx = Rx::new(rx);
        let tx = Tx::new(tx);
        let mut events = Events::new(events)?;
        let fill = (rx.refill(), events.refill());
        let running = device.start(handlers(peeks, &wake))?;
        if fill.0 {
            rx_notifier.notify();
        }
        if fill.1 {
            event_notifier.notify();
        }
        Ok(Arc::new(Link {
            running,
            cid: AtomicU64::new(cid),
            has_seqpacket,
            rx: SpinLock::new(rx),
            tx: SpinLock::new(tx),
            events: SpinLock::new(events),
            rx_notifier,
            tx_notifier,
            event_notifier,
        }))
    }
}

/// Interrupt handlers that only look and wake.
fn handlers(peeks: [UsedPeek; 3], wake: &Handler) -> Handlers {
    let queues = peeks
        .into_iter()
        .enumerate()
        .map(|(index, peek)| {
            let wake = wake.clone();
            let handler: InterruptHandler = Box::new(move || {
                let found = peek.any();
                if found {
                    wake();
                }
                found
            });
            (index as u16, handler)
        })
        .collect();
    Handlers {
        queues,
        config: None,
    }
}

/// The device in service.
struct Link {
    // First, so that the device is reset before the queues' memory goes.
    running: Running,
    cid: AtomicU64,
    has_seqpacket: bool,
    rx: SpinLock<Rx>,
    tx: SpinLock<Tx>,
    events: SpinLock<Events>,
    rx_notifier: Notifier,
    tx_notifier: Notifier,
    event_notifier: Notifier,
}

impl Link {
    /// Looks for an event; whether it was a reset of the transport.
    fn was_reset(&self) -> bool {
        let (reset, kick) = {
            let mut events = self.events.lock();
            (events.take(), events.refill())
        };
        if kick {
            self.event_notifier.notify();
        }
        if reset && let Ok(bytes) = self.running.config::<8>(0) {
            self.cid.store(u64::from_le_bytes(bytes), Ordering::Release);
        }
        reset
    }
}

impl VsockLink for Link {
    fn guest_cid(&self) -> u64 {
        self.cid.load(Ordering::Acquire)
    }

    fn has_seqpacket(&self) -> bool {
        self.has_seqpacket
    }

    fn send(&self, packet: Box<[u8]>) -> Result<(), Box<[u8]>> {
        let (sent, kick) = {
            let mut tx = self.tx.lock();
            let sent = tx.add(packet);
            (sent, tx.publish())
        };
        if kick {
            self.tx_notifier.notify();
        }
        sent
    }

    fn receive(&self) -> Option<Arrival> {
        if self.was_reset() {
            return Some(Arrival::Reset);
        }
        loop {
            let (packet, kick) = {
                let mut rx = self.rx.lock();
                let packet = rx.take();
                (packet, rx.refill())
            };
            if kick {
                self.rx_notifier.notify();
            }
            if let Some((bytes, len)) = packet {
                return Some(Arrival::Packet(bytes, len));
            }
            if !self.rx.lock().enable_interrupts() {
                return None;
            }
        }
    }
}
