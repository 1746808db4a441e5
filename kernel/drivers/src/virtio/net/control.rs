//! The control queue of a network card (virtio 1.2, 5.1.6.5): commands, one at a time, while the card is set up.

use machine::{dma::DmaBuffer, time};

use crate::virtio::{
    SetupError,
    queue::{Piece, Queue},
    transport::Notifier,
};

const CLASS_MQ: u8 = 4;
const MQ_VQ_PAIRS_SET: u8 = 0;
const OK: u8 = 0;

/// How long a device may take over a command, in nanoseconds.
const PATIENCE_NS: u64 = 1_000_000_000;

/// The queue and a page for the command.
pub(super) struct ControlQueue {
    ring: Queue,
    notifier: Notifier,
    memory: DmaBuffer,
}

impl ControlQueue {
    pub(super) fn new(mut ring: Queue, notifier: Notifier) -> Result<ControlQueue, SetupError> {
        ring.disable_interrupts();
        Ok(ControlQueue {
            ring,
            notifier,
            memory: DmaBuffer::new(64).map_err(|_| SetupError::NoMemory)?,
        })
    }

    /// Puts `pairs` queue pairs into use.
    pub(super) fn set_queue_pairs(&mut self, pairs: u16) -> Result<(), SetupError> {
        let [low, high] = pairs.to_le_bytes();
        self.command(&[CLASS_MQ, MQ_VQ_PAIRS_SET, low, high])
    }

    /// Sends a command and waits for its answer. Devices answer while they are notified or within microseconds; the
    /// card is not in use yet, so the wait is a busy one.
    fn command(&mut self, command: &[u8]) -> Result<(), SetupError> {
        const ANSWER_AT: usize = 32;
        self.memory.write(0, command);
        self.memory.write8(ANSWER_AT, !OK);
        let base = self.memory.phys();
        let pieces = [
            Piece {
                address: base,
                len: command.len() as u32,
                device_writes: false,
            },
            Piece {
                address: base + ANSWER_AT as u64,
                len: 1,
                device_writes: true,
            },
        ];
        self.ring.add(&pieces).ok_or(SetupError::NoAnswer)?;
        if self.ring.publish() {
            self.notifier.notify();
        }
        let deadline = time::now_ns().saturating_add(PATIENCE_NS);
        loop {
            match self.ring.take() {
                Ok(Some(_)) => break,
                Ok(None) if time::now_ns() < deadline => core::hint::spin_loop(),
                Ok(None) | Err(_) => return Err(SetupError::NoAnswer),
            }
        }
        match self.memory.read8(ANSWER_AT) {
            OK => Ok(()),
            _ => Err(SetupError::Rejected),
        }
    }
}
