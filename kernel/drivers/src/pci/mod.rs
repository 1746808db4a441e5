//! PCI: configuration space, finding functions behind bridges, base address registers, capabilities, MSI-X.
//! No hot-plug, and no assignment of addresses: the firmware has done that.

pub mod access;
pub mod msix;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

pub use access::ConfigSpace;

/// A function's place: bus, device (0 to 31), function (0 to 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Bus number.
    pub bus: u8,
    /// Device (slot) number.
    pub device: u8,
    /// Function number.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Offsets in configuration space.
mod offset {
    pub(super) const COMMAND: u16 = 0x04;
    pub(super) const CLASS: u16 = 0x08;
    pub(super) const HEADER_TYPE: u16 = 0x0c;
    pub(super) const BAR0: u16 = 0x10;
    pub(super) const BUS_NUMBERS: u16 = 0x18;
    pub(super) const CAPABILITIES: u16 = 0x34;
    pub(super) const INTERRUPT: u16 = 0x3c;
}

const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
const COMMAND_NO_INTX: u32 = 1 << 10;
const STATUS_CAPABILITIES: u32 = 1 << 20;

/// What was found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where.
    pub address: Address,
    /// The maker.
    pub vendor: u16,
    /// The maker's number of the device.
    pub device: u16,
    /// Class and subclass, such as 0x0604 for a bridge.
    pub class: u16,
    /// Layout of the header: 0 for a device, 1 for a bridge.
    pub header: u8,
}

/// A base address register that maps memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBar {
    /// Physical address.
    pub address: u64,
}

/// A capability's identifier and its offset in configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is: 0x09 vendor, 0x11 MSI-X.
    pub id: u8,
    /// Where it begins.
    pub at: u16,
}

/// Finds every function, depth first from bus 0. Bridges must have been numbered by the firmware; one whose numbers
/// make no sense is not followed, so that a bad one cannot lead in circles.
pub fn enumerate(config: &dyn ConfigSpace) -> Vec<Function> {
    let mut found = Vec::new();
    let mut seen = [false; 256];
    let mut pending = Vec::from([0u8]);
    while let Some(bus) = pending.pop() {
        if core::mem::replace(&mut seen[usize::from(bus)], true) {
            continue;
        }
        for device in 0..32 {
            scan_device(config, bus, device, &mut found, &mut pending);
        }
    }
    found
}

fn scan_device(
    config: &dyn ConfigSpace,
    bus: u8,
    device: u8,
    found: &mut Vec<Function>,
    pending: &mut Vec<u8>,
) {
    let mut functions = 1;
    let mut number = 0;
    while number < functions {
        let address = Address {
            bus,
            device,
            function: number,
        };
        number += 1;
        let id = config.read32(address, 0);
        if id & 0xffff == 0xffff || id == 0 {
            continue;
        }
        let header = (config.read32(address, offset::HEADER_TYPE) >> 16) as u8;
        if header & 0x80 != 0 {
            functions = 8;
        }
        let function = Function {
            address,
            vendor: id as u16,
            device: (id >> 16) as u16,
            class: (config.read32(address, offset::CLASS) >> 16) as u16,
            header: header & 0x7f,
        };
        if function.header == 1 && function.class == 0x0604 {
            let numbers = config.read32(address, offset::BUS_NUMBERS);
            let (secondary, last) = ((numbers >> 8) as u8, (numbers >> 16) as u8);
            if secondary > bus && last >= secondary {
                pending.push(secondary);
            }
        }
        found.push(function);
    }
}

impl Function {
    /// Base address register `index` (0 to 5), if it maps memory and the firmware gave it an address.
    pub fn memory_bar(&self, config: &dyn ConfigSpace, index: u8) -> Option<MemoryBar> {
        if index > 5 || self.header != 0 {
            return None;
        }
        let at = offset::BAR0 + 4 * u16::from(index);
        let low = config.read32(self.address, at);
        if low & 1 != 0 {
            return None;
        }
        let high = match (low >> 1) & 3 {
            0 => 0,
            2 if index < 5 => config.read32(self.address, at + 4),
            _ => return None,
        };
        let address = u64::from(high) << 32 | u64::from(low & !0xf);
        (address != 0).then_some(MemoryBar { address })
    }

    /// The capabilities in the order of the list, at most as many as there is room for.
    pub fn capabilities(&self, config: &dyn ConfigSpace) -> Vec<Capability> {
        let mut list = Vec::new();
        if config.read32(self.address, offset::COMMAND) & STATUS_CAPABILITIES == 0 {
            return list;
        }
        let mut at = (config.read32(self.address, offset::CAPABILITIES) & 0xfc) as u16;
        // 192 bytes of capabilities, at least 4 for each: a longer list is a circle.
        while at >= 0x40 && list.len() < 48 {
            let head = config.read32(self.address, at);
            list.push(Capability { id: head as u8, at });
            at = (head >> 8 & 0xfc) as u16;
        }
        list
    }

    /// Lets the function answer memory accesses and reach memory itself, with or without its interrupt pin.
    pub fn enable(&self, config: &dyn ConfigSpace, intx: bool) {
        let command = config.read32(self.address, offset::COMMAND) & 0xffff;
        let mut wanted = command | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        if intx {
            wanted &= !COMMAND_NO_INTX;
        } else {
            wanted |= COMMAND_NO_INTX;
        }
        if wanted != command {
            // The upper half is the status register, whose bits are cleared by writing ones: write zeros.
            config.write32(self.address, offset::COMMAND, wanted);
        }
    }

    /// The interrupt line that the firmware noted and the pin (1 to 4; 0 for none).
    pub fn interrupt_pin(&self, config: &dyn ConfigSpace) -> (u8, u8) {
        let word = config.read32(self.address, offset::INTERRUPT);
        (word as u8, (word >> 8) as u8)
    }
}

/// The interrupt (GSI) behind the pin of a function on bus 0, as far as that can be known without interpreting AML.
///
/// On QEMU's q35, slots 0 to 24 use the PIRQE to PIRQH lines, GSIs 20 to 23, each slot one further; elsewhere the
/// firmware's note in the interrupt line register is right for the PC's classic wiring.
pub fn intx_gsi(config: &dyn ConfigSpace, function: &Function) -> Option<u32> {
    let (line, pin) = function.interrupt_pin(config);
    if !(1..=4).contains(&pin) {
        return None;
    }
    let root = Address {
        bus: 0,
        device: 0,
        function: 0,
    };
    const Q35_HOST_BRIDGE: u32 = 0x29c0_8086;
    if config.read32(root, 0) == Q35_HOST_BRIDGE
        && function.address.bus == 0
        && function.address.device < 25
    {
        let turn = u32::from(function.address.device) + u32::from(pin) - 1;
        return Some(20 + (turn & 3));
    }
    (line != 0 && line < 24).then_some(line.into())
}
