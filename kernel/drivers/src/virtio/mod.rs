//! virtio 1.2: feature negotiation, virtqueues, the two transports, and the devices that speak it.
//!
//! A device passes through three types: [`setup::Found`] (reset, its features readable), [`setup::Negotiated`]
//! (features agreed, queues being made) and [`setup::Running`]. Nothing here trusts what a device writes further than
//! that it may deliver wrong data: indexes and lengths from it are checked before use.

pub mod blk;
#[cfg(test)]
pub(crate) mod fake;
pub mod mmio;
pub mod net;
pub mod pci;
pub mod queue;
#[cfg(test)]
mod queue_tests;
pub mod rng;
pub mod setup;
mod slots;
pub mod transport;
pub mod vsock;

use core::fmt;

/// Device types (virtio 1.2, chapter 5).
pub mod device_type {
    /// Network card.
    pub const NET: u32 = 1;
    /// Block device.
    pub const BLOCK: u32 = 2;
    /// Entropy source.
    pub const ENTROPY: u32 = 4;
    /// Sockets between the machine and its host.
    pub const VSOCK: u32 = 19;
}

/// The name of a device type, for messages.
pub fn device_type_name(device_type: u32) -> &'static str {
    match device_type {
        device_type::NET => "virtio-net",
        device_type::BLOCK => "virtio-blk",
        3 => "virtio-console",
        device_type::ENTROPY => "virtio-rng",
        5 => "virtio-balloon",
        8 => "virtio-scsi",
        9 => "virtio-9p",
        16 => "virtio-gpu",
        18 => "virtio-input",
        device_type::VSOCK => "virtio-vsock",
        26 => "virtio-fs",
        _ => "virtio device",
    }
}

/// Feature bits that belong to the transport and the queues (virtio 1.2, chapter 6).
pub mod feature {
    /// A descriptor may point to a table of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Both sides say at which index they want to be told next.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The modern interface.
    pub const VERSION_1: u64 = 1 << 32;
    /// The device sees memory through the platform's translation. There is none on the machines supported here, so
    /// its addresses are physical ones and the bit may be accepted.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
}

/// Why a device was not taken into service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// No virtio device answers there.
    NotVirtio,
    /// The device speaks only the interface from before virtio 1.0.
    Legacy,
    /// A version of the MMIO register layout that is not known.
    Version(u32),
    /// The device does not offer a feature that is needed (its bits).
    MissingFeature(u64),
    /// The device did not accept the features that were chosen.
    Rejected,
    /// A PCI capability or register block that the specification demands is absent or out of bounds.
    BadLayout,
    /// The device has no queue of this index.
    NoQueue(u16),
    /// A value in the device's configuration makes no sense.
    BadConfig,
    /// No memory for the queues.
    NoMemory,
    /// No interrupt could be set up.
    NoInterrupt,
    /// The device did not answer a command.
    NoAnswer,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::NotVirtio => f.write_str("no virtio device answers there"),
            SetupError::Legacy => f.write_str(
                "the device speaks only the legacy interface from before virtio 1.0; with QEMU, start it with \
                 -global virtio-mmio.force-legacy=false, or disable-legacy=on for PCI",
            ),
            SetupError::Version(version) => write!(f, "unknown virtio-mmio version {version}"),
            SetupError::MissingFeature(bits) => {
                write!(f, "the device lacks a feature that is needed ({bits:#x})")
            }
            SetupError::Rejected => f.write_str("the device rejected the chosen features"),
            SetupError::BadLayout => f.write_str("the device's registers are not laid out as virtio demands"),
            SetupError::NoQueue(index) => write!(f, "the device has no queue {index}"),
            SetupError::BadConfig => f.write_str("the device's configuration makes no sense"),
            SetupError::NoMemory => f.write_str("no memory for the device's queues"),
            SetupError::NoInterrupt => f.write_str("no interrupt could be set up for the device"),
            SetupError::NoAnswer => f.write_str("the device did not answer a command"),
        }
    }
}

impl core::error::Error for SetupError {}

/// Bits of the device status register (virtio 1.2, 2.1).
pub(crate) mod status {
    /// The driver has seen the device.
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    pub(crate) const DRIVER: u8 = 2;
    /// The device may run.
    pub(crate) const DRIVER_OK: u8 = 4;
    /// The features are agreed.
    pub(crate) const FEATURES_OK: u8 = 8;
    /// The driver gave up.
    pub(crate) const FAILED: u8 = 128;
}
