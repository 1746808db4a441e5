//! The two ways to configuration space: memory-mapped (ECAM), and the pair of ports 0xCF8/0xCFC.

use alloc::vec::Vec;

use machine::{mmio::Mmio, port::Port32, sync::IrqLock};

use super::Address;
use crate::acpi::mcfg::Ecam;

/// Configuration space in aligned 32-bit words. What is not there reads as all ones.
pub trait ConfigSpace: Send + Sync {
    /// Reads the word at `at`, a multiple of 4.
    fn read32(&self, address: Address, at: u16) -> u32;

    /// Writes the word at `at`, a multiple of 4.
    fn write32(&self, address: Address, at: u16, value: u32);
}

/// Reads one byte of configuration space.
pub fn read8(config: &dyn ConfigSpace, address: Address, at: u16) -> u8 {
    (config.read32(address, at & !3) >> (8 * (at & 3))) as u8
}

/// Reads an aligned 16-bit number of configuration space.
pub fn read16(config: &dyn ConfigSpace, address: Address, at: u16) -> u16 {
    (config.read32(address, at & !3) >> (8 * (at & 2))) as u16
}

/// Configuration space through the I/O ports: bus segment 0, 256 bytes for each function.
pub struct PortAccess {
    ports: IrqLock<(Port32, Port32)>,
}

impl PortAccess {
    /// Uses the PC's ports; `None` when `machine` does not hand them out.
    pub fn new() -> Option<PortAccess> {
        let ports = (Port32::new(0xcf8)?, Port32::new(0xcfc)?);
        Some(PortAccess {
            ports: IrqLock::new(ports),
        })
    }

    fn select(address: Address, at: u16) -> u32 {
        1 << 31
            | u32::from(address.bus) << 16
            | u32::from(address.device & 31) << 11
            | u32::from(address.function & 7) << 8
            | u32::from(at & 0xfc)
    }
}

impl ConfigSpace for PortAccess {
    fn read32(&self, address: Address, at: u16) -> u32 {
        if at > 0xff {
            return u32::MAX;
        }
        let ports = self.ports.lock();
        ports.0.write(PortAccess::select(address, at));
        ports.1.read()
    }

    fn write32(&self, address: Address, at: u16, value: u32) {
        if at > 0xff {
            return;
        }
        let ports = self.ports.lock();
        ports.0.write(PortAccess::select(address, at));
        ports.1.write(value);
    }
}

/// Configuration space in memory. Each bus, 1 MiB, is mapped when it is first used.
pub struct EcamAccess {
    ecam: Ecam,
    buses: IrqLock<Vec<Option<Mmio>>>,
}

/// Bytes of configuration space of a bus.
const BUS_LEN: usize = 1 << 20;

impl EcamAccess {
    /// Uses the stretch that the MCFG table names.
    pub fn new(ecam: Ecam) -> EcamAccess {
        EcamAccess {
            ecam,
            buses: IrqLock::new(Vec::new()),
        }
    }

    fn with<T>(
        &self,
        address: Address,
        at: u16,
        access: impl FnOnce(&Mmio, usize) -> T,
    ) -> Option<T> {
        let range = self.ecam.first_bus..=self.ecam.last_bus;
        if at > 0xffc || !range.contains(&address.bus) {
            return None;
        }
        let index = usize::from(address.bus);
        let mut buses = self.buses.lock();
        if buses.len() <= index {
            buses.resize_with(index + 1, || None);
        }
        let slot = &mut buses[index];
        if slot.is_none() {
            let base = self.ecam.base + ((index as u64) << 20);
            *slot = Mmio::map(base, BUS_LEN).ok();
        }
        let within = usize::from(address.device & 31) << 15
            | usize::from(address.function & 7) << 12
            | usize::from(at);
        slot.as_ref().map(|mmio| access(mmio, within))
    }
}

impl ConfigSpace for EcamAccess {
    fn read32(&self, address: Address, at: u16) -> u32 {
        self.with(address, at, |mmio, offset| mmio.read32(offset))
            .unwrap_or(u32::MAX)
    }

    fn write32(&self, address: Address, at: u16, value: u32) {
        let _ = self.with(address, at, |mmio, offset| mmio.write32(offset, value));
    }
}
