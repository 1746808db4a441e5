//! The fixed ACPI description table (FADT, signature `FACP`): the registers of power management.

use super::{AcpiError, HEADER_LEN, revision};
use crate::bytes::{u8_at, u16_at, u32_at, u64_at};

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Physical memory.
    Memory,
    /// I/O ports.
    Port,
}

/// A register's place (ACPI 6.4, 5.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenericAddress {
    /// The address space.
    pub space: Space,
    /// The address in it.
    pub address: u64,
}

impl GenericAddress {
    /// Parses the 12-byte structure at `at`; `None` for an absent register or a space that is not supported.
    fn parse(table: &[u8], at: usize) -> Option<GenericAddress> {
        let space = match u8_at(table, at)? {
            0 => Space::Memory,
            1 => Space::Port,
            _ => return None,
        };
        let address = u64_at(table, at + 4)?;
        (address != 0).then_some(GenericAddress { space, address })
    }

    fn port(address: u32) -> Option<GenericAddress> {
        (address != 0).then_some(GenericAddress {
            space: Space::Port,
            address: u64::from(address),
        })
    }
}

/// What the FADT says, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fadt {
    /// Physical address of the DSDT.
    pub dsdt: u64,
    /// The interrupt of fixed events, an ISA interrupt number or GSI.
    pub sci: u16,
    /// No fixed hardware: power events come from a generic event device, sleep by the sleep registers.
    pub hardware_reduced: bool,
    /// The power button is a fixed event (else a device described in AML).
    pub fixed_power_button: bool,
    /// The port that switches the firmware to ACPI mode, and what to write there; `None` if it is always on.
    pub enable: Option<(u16, u8)>,
    /// First status register; the enable register follows after [`Fadt::pm1_event_len`] / 2 bytes.
    pub pm1a_event: Option<GenericAddress>,
    /// A second block like it.
    pub pm1b_event: Option<GenericAddress>,
    /// Bytes of an event block, both halves.
    pub pm1_event_len: u8,
    /// The control register with the sleep type (bits 10 to 12) and sleep enable (13).
    pub pm1a_control: Option<GenericAddress>,
    /// A second one like it.
    pub pm1b_control: Option<GenericAddress>,
    /// The register that resets the machine and the value that does it.
    pub reset: Option<(GenericAddress, u8)>,
    /// The sleep control register of hardware-reduced machines.
    pub sleep_control: Option<GenericAddress>,
}

const FLAG_POWER_BUTTON_IS_DEVICE: u32 = 1 << 4;
const FLAG_RESET_REGISTER: u32 = 1 << 10;
const FLAG_HARDWARE_REDUCED: u32 = 1 << 20;

impl Fadt {
    /// Parses the table, header included. Short tables of early revisions lack the later fields.
    ///
    /// # Errors
    /// [`AcpiError::Malformed`] when it ends before the flags.
    pub fn parse(table: &[u8]) -> Result<Fadt, AcpiError> {
        const BAD: AcpiError = AcpiError::Malformed(*b"FACP");
        if table.len() < HEADER_LEN {
            return Err(BAD);
        }
        let flags = u32_at(table, 112).ok_or(BAD)?;
        let word = |at| u32_at(table, at).unwrap_or(0);
        let extended = |at, legacy| {
            let wide = (revision(table) >= 3)
                .then(|| GenericAddress::parse(table, at))
                .flatten();
            wide.or_else(|| GenericAddress::port(word(legacy)))
        };
        let enable = match (word(48), u8_at(table, 52).unwrap_or(0)) {
            (0, _) | (_, 0) => None,
            (port, value) => u16::try_from(port).ok().map(|port| (port, value)),
        };
        let wide_dsdt = u64_at(table, 140).unwrap_or(0);
        Ok(Fadt {
            dsdt: if wide_dsdt != 0 {
                wide_dsdt
            } else {
                u64::from(word(40))
            },
            sci: u16_at(table, 46).ok_or(BAD)?,
            hardware_reduced: flags & FLAG_HARDWARE_REDUCED != 0,
            fixed_power_button: flags & FLAG_POWER_BUTTON_IS_DEVICE == 0,
            enable,
            pm1a_event: extended(148, 56),
            pm1b_event: extended(160, 60),
            pm1_event_len: u8_at(table, 88).unwrap_or(0),
            pm1a_control: extended(172, 64),
            pm1b_control: extended(184, 68),
            reset: if flags & FLAG_RESET_REGISTER != 0 {
                GenericAddress::parse(table, 116).zip(u8_at(table, 128))
            } else {
                None
            },
            sleep_control: GenericAddress::parse(table, 244),
        })
    }
}
