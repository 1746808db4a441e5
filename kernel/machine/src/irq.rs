//! Device interrupts: lines of the I/O APICs (GSIs) and messages (MSI).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::arch;
pub use crate::arch::irq::IrqHandle;

/// What an interrupt calls: on the CPU that got it, with interrupts off. It must be short, must not block and may
/// take only [`crate::sync::IrqLock`]s.
pub type Handler = Box<dyn Fn() + Send + Sync>;

/// How a line signals.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A rising edge (ISA, virtio-mmio of QEMU's microvm).
    Edge,
    /// Held high until served (the ACPI event device of QEMU's microvm).
    LevelHigh,
    /// Held low until served (PCI INTx).
    LevelLow,
}

/// Why an interrupt could not be set up.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum IrqError {
    /// No I/O APIC has this line.
    NoSuchLine,
    /// All vectors are taken.
    NoVector,
}

impl fmt::Display for IrqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchLine => "no such interrupt line",
            Self::NoVector => "no free interrupt vector",
        })
    }
}

/// What to write into a device's MSI or MSI-X registers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address (low and high half together).
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// Calls `handler` at each interrupt of line `gsi`, until the handle is dropped. Several handlers may share a line.
pub fn register_gsi(gsi: u32, trigger: Trigger, handler: Handler) -> Result<IrqHandle, IrqError> {
    arch::irq::register_gsi(gsi, trigger, handler)
}

/// The line that legacy ISA interrupt `irq` arrives on and how it signals, by the firmware's overrides.
pub fn isa_to_gsi(irq: u8) -> (u32, Trigger) {
    arch::irq::isa_to_gsi(irq)
}

/// Calls `handler` on CPU `cpu` whenever a device sends the message returned, until the handle is dropped.
pub fn alloc_msi(cpu: usize, handler: Handler) -> Result<(MsiMessage, IrqHandle), IrqError> {
    arch::irq::alloc_msi(cpu, handler)
}

/// Interrupts taken so far on CPU `cpu`, timer and inter-processor ones included.
pub fn count(cpu: usize) -> u64 {
    arch::irq::count(cpu)
}

/// A vector that devices use.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct VectorInfo {
    /// Its number.
    pub vector: u8,
    /// The line that arrives on it; without one, messages do.
    pub gsi: Option<u32>,
    /// How many handlers it calls.
    pub handlers: usize,
    /// Interrupts so far.
    pub count: u64,
}

/// The vectors that devices use now.
pub fn vectors() -> Vec<VectorInfo> {
    arch::irq::vectors()
}

/// Runs `work` with this CPU's interrupts off.
pub fn disabled<R>(work: impl FnOnce() -> R) -> R {
    crate::cpu::without_interrupts(work)
}
