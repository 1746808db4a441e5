//! The MCFG table: where PCI configuration space is mapped into memory (ECAM).

use alloc::vec::Vec;

use super::HEADER_LEN;
use crate::bytes::{u8_at, u16_at, u64_at};

/// One mapped stretch of configuration space: 1 MiB for each bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Physical address of bus 0 (not of `first_bus`).
    pub base: u64,
    /// PCI segment group.
    pub segment: u16,
    /// First bus that is mapped.
    pub first_bus: u8,
    /// Last bus that is mapped.
    pub last_bus: u8,
}

/// Reads the entries of the table, header included; entries that make no sense are left out.
pub fn parse(table: &[u8]) -> Vec<Ecam> {
    let entries = table.get(HEADER_LEN + 8..).unwrap_or(&[]);
    entries
        .chunks_exact(16)
        .filter_map(|entry| {
            let ecam = Ecam {
                base: u64_at(entry, 0)?,
                segment: u16_at(entry, 8)?,
                first_bus: u8_at(entry, 10)?,
                last_bus: u8_at(entry, 11)?,
            };
            let sane = ecam.base != 0
                && ecam.base.is_multiple_of(1 << 20)
                && ecam.base < 1 << 52
                && ecam.first_bus <= ecam.last_bus;
            sane.then_some(ecam)
        })
        .collect()
}
