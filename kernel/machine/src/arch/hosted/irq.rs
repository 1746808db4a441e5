//! No interrupts on the host: registering fails.

use crate::irq::{Handler, IrqError, MsiMessage, Trigger, VectorInfo};

/// Keeps a handler registered.
#[derive(Debug)]
pub struct IrqHandle(());

pub(crate) fn register_gsi(
    _gsi: u32,
    _trigger: Trigger,
    _handler: Handler,
) -> Result<IrqHandle, IrqError> {
    Err(IrqError::NoSuchLine)
}

pub(crate) fn isa_to_gsi(irq: u8) -> (u32, Trigger) {
    (irq.into(), Trigger::Edge)
}

pub(crate) fn alloc_msi(
    _cpu: usize,
    _handler: Handler,
) -> Result<(MsiMessage, IrqHandle), IrqError> {
    Err(IrqError::NoVector)
}

pub(crate) fn count(_cpu: usize) -> u64 {
    0
}

pub(crate) fn vectors() -> Vec<VectorInfo> {
    Vec::new()
}
