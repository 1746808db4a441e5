//! The `drivers` room of the kernel: PCI, the virtio transport and its devices, the serial port, the real-time clock
//! and ACPI power events. What is found at boot comes out of [`probe()`].
//!
//! Upwards it shows traits ([`block::BlockDevice`], [`nic::Nic`], [`entropy::Entropy`],
//! [`vsock::VsockCard`]) and takes callbacks; it knows
//! nothing of files, protocols or programs. Downwards it uses `machine`'s safe registers, DMA memory and interrupts.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod block;
mod bytes;
pub mod entropy;
mod error;
#[cfg(test)]
mod fuzz;
pub mod nic;
pub mod partition;
pub mod pci;
pub mod power;
mod probe;
pub mod random;
pub mod rtc;
pub mod uart;
pub mod virtio;
pub mod vsock;

pub use error::IoError;
pub use probe::{Devices, Note, probe};
