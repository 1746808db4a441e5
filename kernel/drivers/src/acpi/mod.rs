//! The ACPI tables that drivers need: where they are, whether they are whole, and (in the modules below) what MCFG,
//! FADT and the few patterns of a DSDT say. There is no AML interpreter. Interrupt controllers and processors (MADT)
//! are `machine`'s business.
//!
//! Reference: ACPI 6.4, chapter 5. Everything read here comes from outside and is checked before it is used.

pub mod aml;
pub mod fadt;
pub mod mcfg;

#[cfg(test)]
mod tests;

use alloc::{string::String, vec, vec::Vec};
use core::fmt;

pub use fadt::{Fadt, GenericAddress, Space};

use crate::bytes::{array_at, u8_at, u32_at, u64_at};

/// A table's signature, such as `FACP`.
pub type Signature = [u8; 4];

/// Bytes of the header that every table begins with.
pub const HEADER_LEN: usize = 36;

/// The longest table that is read, in bytes: real DSDTs stay below this, and a damaged length must not exhaust memory.
const MAX_TABLE: u32 = 4 << 20;

/// The most entries of a root table.
const MAX_TABLES: usize = 256;

/// Where tables are read from: physical memory.
pub trait PhysicalMemory {
    /// Fills `bytes` from `address` on; `false` when there is no readable memory there.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;
}

/// The machine's own memory, as far as reading it is harmless.
pub struct Firmware;

impl PhysicalMemory for Firmware {
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        machine::boot::read_firmware(address, bytes)
    }
}

/// Why tables were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// No `RSD PTR ` where the root pointer should be.
    NoRoot,
    /// A table lies where there is no memory.
    Unreadable(u64),
    /// A table's bytes do not add up to zero.
    Checksum(Signature),
    /// A table's length or a field in it makes no sense.
    Malformed(Signature),
    /// There is no such table.
    Missing(Signature),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |signature: &Signature| {
            let printable = signature.iter().all(u8::is_ascii_graphic);
            let text = if printable { &signature[..] } else { b"????" };
            String::from_utf8_lossy(text).into_owned()
        };
        match self {
            AcpiError::NoRoot => f.write_str("there is no ACPI root pointer"),
            AcpiError::Unreadable(at) => write!(f, "an ACPI table lies outside memory, at {at:#x}"),
            AcpiError::Checksum(table) => {
                write!(f, "the checksum of ACPI table {} is wrong", name(table))
            }
            AcpiError::Malformed(table) => write!(f, "ACPI table {} makes no sense", name(table)),
            AcpiError::Missing(table) => write!(f, "there is no ACPI table {}", name(table)),
        }
    }
}

impl core::error::Error for AcpiError {}

/// The directory of tables.
pub struct Tables<'a> {
    memory: &'a dyn PhysicalMemory,
    found: Vec<(Signature, u64)>,
}

impl<'a> Tables<'a> {
    /// Follows the root pointer at physical address `rsdp`. Tables are read when they are asked for.
    ///
    /// # Errors
    /// See [`AcpiError`].
    pub fn new(memory: &'a dyn PhysicalMemory, rsdp: u64) -> Result<Tables<'a>, AcpiError> {
        const RSDP: Signature = *b"RSDP";
        let mut root = [0; 36];
        if !memory.read(rsdp, &mut root[..20]) {
            return Err(AcpiError::Unreadable(rsdp));
        }
        if root[..8] != *b"RSD PTR " {
            return Err(AcpiError::NoRoot);
        }
        if !adds_up(&root[..20]) {
            return Err(AcpiError::Checksum(RSDP));
        }
        let rsdt = u32_at(&root, 16).map_or(0, u64::from);
        let mut xsdt = 0;
        if root[15] >= 2 {
            if !memory.read(rsdp, &mut root) {
                return Err(AcpiError::Unreadable(rsdp));
            }
            if !adds_up(&root) {
                return Err(AcpiError::Checksum(RSDP));
            }
            xsdt = u64_at(&root, 24).unwrap_or(0);
        }
        let (address, signature, width) = if xsdt != 0 {
            (xsdt, *b"XSDT", 8)
        } else {
            (rsdt, *b"RSDT", 4)
        };
        let directory = read_table(memory, address, Some(signature))?;
        let mut found = Vec::new();
        for entry in directory[HEADER_LEN..].chunks_exact(width).take(MAX_TABLES) {
            let at = u64_at(entry, 0)
                .or_else(|| u32_at(entry, 0).map(u64::from))
                .unwrap_or(0);
            let mut name = [0; 4];
            if at != 0 && memory.read(at, &mut name) {
                found.push((name, at));
            }
        }
        Ok(Tables { memory, found })
    }

    /// The first table with this signature, header included, its checksum checked.
    ///
    /// # Errors
    /// See [`AcpiError`].
    pub fn get(&self, signature: Signature) -> Result<Vec<u8>, AcpiError> {
        let address = self
            .found
            .iter()
            .find_map(|&(name, at)| (name == signature).then_some(at))
            .ok_or(AcpiError::Missing(signature))?;
        read_table(self.memory, address, Some(signature))
    }

    /// The signatures in the directory, for whoever lists them.
    pub fn signatures(&self) -> impl Iterator<Item = Signature> {
        self.found.iter().map(|&(name, _)| name)
    }

    /// The fixed description table.
    ///
    /// # Errors
    /// See [`AcpiError`].
    pub fn fadt(&self) -> Result<Fadt, AcpiError> {
        Fadt::parse(&self.get(*b"FACP")?)
    }
}

/// The differentiated description table that `fadt` points to.
///
/// # Errors
/// See [`AcpiError`].
pub fn dsdt(memory: &dyn PhysicalMemory, fadt: &Fadt) -> Result<Vec<u8>, AcpiError> {
    read_table(memory, fadt.dsdt, Some(*b"DSDT"))
}

/// Reads the table at `address` whole.
fn read_table(
    memory: &dyn PhysicalMemory,
    address: u64,
    expected: Option<Signature>,
) -> Result<Vec<u8>, AcpiError> {
    let mut header = [0; HEADER_LEN];
    if address == 0 || !memory.read(address, &mut header) {
        return Err(AcpiError::Unreadable(address));
    }
    let signature: Signature = array_at(&header, 0).unwrap_or_default();
    if expected.is_some_and(|expected| expected != signature) {
        return Err(AcpiError::Malformed(expected.unwrap_or(signature)));
    }
    let length = u32_at(&header, 4).unwrap_or(0);
    if length < HEADER_LEN as u32 || length > MAX_TABLE {
        return Err(AcpiError::Malformed(signature));
    }
    let mut table = vec![0; length as usize];
    if !memory.read(address, &mut table) {
        return Err(AcpiError::Unreadable(address));
    }
    if !adds_up(&table) {
        return Err(AcpiError::Checksum(signature));
    }
    Ok(table)
}

/// Whether the bytes' sum is zero modulo 256, as a table's must be.
fn adds_up(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

/// The revision of a table, from its header.
fn revision(table: &[u8]) -> u8 {
    u8_at(table, 8).unwrap_or(0)
}
