//! What a transport does for a device: registers, notification, interrupts. MMIO and PCI implement it.

#[cfg(test)]
use alloc::sync::Arc;
use alloc::{boxed::Box, string::String, vec::Vec};

use machine::mmio::Mmio;

use super::{SetupError, queue::Placement};

/// Called in an interrupt: returns whether it found work. Must be short and neither sleep nor allocate.
pub type InterruptHandler = Box<dyn Fn() -> bool + Send + Sync>;

/// What to call for the interrupts of a device.
#[derive(Default)]
pub struct Handlers {
    /// For each queue that wants interrupts: its index and what to call.
    pub queues: Vec<(u16, InterruptHandler)>,
    /// When the configuration changed.
    pub config: Option<Box<dyn Fn() + Send + Sync>>,
}

/// Tells the device that a queue has new buffers. One register write, which costs an exit from the virtual machine.
#[derive(Clone)]
pub enum Notifier {
    /// A 32-bit register.
    Register32(Mmio, usize, u32),
    /// A 16-bit register.
    Register16(Mmio, usize, u16),
    /// A function: a device that is simulated.
    #[cfg(test)]
    Call(Arc<dyn Fn() + Send + Sync>),
}

impl Notifier {
    /// Does it.
    pub fn notify(&self) {
        match self {
            Notifier::Register32(registers, at, value) => registers.write32(*at, *value),
            Notifier::Register16(registers, at, value) => registers.write16(*at, *value),
            #[cfg(test)]
            Notifier::Call(call) => call(),
        }
    }
}

/// The registers of one device.
pub trait Transport: Send + Sync {
    /// What it is: one of [`super::device_type`].
    fn device_type(&self) -> u32;

    /// The features that the device offers.
    fn device_features(&self) -> u64;

    /// Chooses among them.
    fn set_driver_features(&self, features: u64);

    /// The status register.
    fn status(&self) -> u8;

    /// Sets the status register; 0 resets the device, and this returns when it has.
    fn set_status(&self, status: u8);

    /// Reads the device's configuration from `offset` on, in naturally aligned pieces. `false` if it is not that long.
    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> bool;

    /// Changes whenever the configuration does.
    fn config_generation(&self) -> u32;

    /// The most descriptors of a queue; 0 if there is no such queue.
    fn max_queue_size(&self, queue: u16) -> u16;

    /// How to notify the device of a queue.
    ///
    /// # Errors
    /// [`SetupError::BadLayout`].
    fn notifier(&self, queue: u16) -> Result<Notifier, SetupError>;

    /// Routes interrupts to the handlers, tells the device where the queues are, and enables them. Once, before the
    /// device runs.
    ///
    /// # Errors
    /// [`SetupError::NoInterrupt`].
    fn connect(&self, queues: &[(u16, Placement)], handlers: Handlers) -> Result<(), SetupError>;

    /// Interrupts taken so far.
    fn interrupts(&self) -> u64;

    /// Where the device is, for messages.
    fn location(&self) -> String;
}

/// Reads `bytes.len()` bytes of registers from `at` on, each naturally aligned piece in one access.
pub(super) fn read_in_pieces(registers: &Mmio, mut at: usize, mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        let piece = if at.is_multiple_of(4) && bytes.len() >= 4 {
            4
        } else if at.is_multiple_of(2) && bytes.len() >= 2 {
            2
        } else {
            1
        };
        let (now, rest) = bytes.split_at_mut(piece);
        match piece {
            4 => now.copy_from_slice(&registers.read32(at).to_le_bytes()),
            2 => now.copy_from_slice(&registers.read16(at).to_le_bytes()),
            _ => now[0] = registers.read8(at),
        }
        at += piece;
        bytes = rest;
    }
}
