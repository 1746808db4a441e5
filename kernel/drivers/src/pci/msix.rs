//! MSI-X: a table in a function's memory that says which message each of its interrupts sends (PCI 3.0, 6.8.2).

use machine::mmio::Mmio;

use super::{Capability, ConfigSpace, Function, access::read16};

/// The identifier of the capability.
pub const CAPABILITY_ID: u8 = 0x11;

const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;
const ENTRY_LEN: usize = 16;

/// Where a function's table is and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Number of entries.
    pub entries: u16,
    /// The base address register that maps it.
    pub bar: u8,
    /// Its offset there.
    pub offset: u32,
    at: u16,
}

impl Location {
    /// Reads the capability, if this is one.
    pub fn parse(
        config: &dyn ConfigSpace,
        function: &Function,
        capability: Capability,
    ) -> Option<Location> {
        if capability.id != CAPABILITY_ID {
            return None;
        }
        let control = read16(config, function.address, capability.at + 2);
        let table = config.read32(function.address, capability.at.checked_add(4)?);
        let location = Location {
            entries: (control & 0x7ff) + 1,
            bar: (table & 7) as u8,
            offset: table & !7,
            at: capability.at,
        };
        (location.bar <= 5).then_some(location)
    }

    /// Maps the table.
    pub fn map(&self, config: &dyn ConfigSpace, function: &Function) -> Option<Mmio> {
        let bar = function.memory_bar(config, self.bar)?;
        let address = bar.address.checked_add(self.offset.into())?;
        Mmio::map(address, usize::from(self.entries) * ENTRY_LEN).ok()
    }

    /// Switches the function from its pin to messages. Entries that were not programmed stay masked.
    pub fn enable(&self, config: &dyn ConfigSpace, function: &Function) {
        let head = config.read32(function.address, self.at);
        config.write32(function.address, self.at, (head | ENABLE) & !MASK_ALL);
    }
}

/// Programs entry `index` of the mapped table and unmasks it.
pub fn program(table: &Mmio, index: u16, address: u64, data: u32) {
    let at = usize::from(index) * ENTRY_LEN;
    table.write32(at, address as u32);
    table.write32(at + 4, (address >> 32) as u32);
    table.write32(at + 8, data);
    table.write32(at + 12, 0);
}
