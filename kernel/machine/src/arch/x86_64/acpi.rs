//! The one ACPI table this crate needs itself: the MADT, with CPUs, I/O APICs and overrides of ISA interrupts.
//! Other tables are the drivers' business.

use alloc::vec::Vec;

use crate::boot::read_firmware;
use crate::irq::Trigger;
use crate::sync::Once;

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub(super) struct IoApic {
    pub phys: u64,
    pub first_gsi: u32,
}

/// What the MADT says, or the PC's customs where there is none.
#[derive(Clone, Debug)]
pub(super) struct Madt {
    /// CPUs that can be used; 0 if not known.
    pub cpus: usize,
    pub io_apics: Vec<IoApic>,
    /// ISA interrupt, line, trigger.
    pub overrides: Vec<(u8, u32, Trigger)>,
}

static MADT: Once<Madt> = Once::new();

pub(super) fn madt() -> &'static Madt {
    MADT.call_once(|| {
        let rsdp = crate::boot::info().and_then(|info| info.rsdp);
        rsdp.and_then(find).unwrap_or_else(|| Madt {
            cpus: 0,
            io_apics: alloc::vec![IoApic {
                phys: 0xfec0_0000,
                first_gsi: 0
            }],
            overrides: alloc::vec![(0, 2, Trigger::Edge)],
        })
    })
}

fn bytes<const N: usize>(phys: u64) -> Option<[u8; N]> {
    let mut out = [0; N];
    read_firmware(phys, &mut out).then_some(out)
}

fn u32_at(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(table.get(at..at + 4)?.try_into().ok()?))
}

/// Follows the root pointer to the MADT. Anything malformed ends the search.
fn find(rsdp: u64) -> Option<Madt> {
    let root: [u8; 36] = bytes(rsdp)?;
    if &root[..8] != b"RSD PTR " {
        return None;
    }
    let (list, width) = if root[15] >= 2 {
        (u64::from_le_bytes(root[24..32].try_into().ok()?), 8)
    } else {
        (u64::from(u32_at(&root, 16)?), 4)
    };
    let header: [u8; 36] = bytes(list)?;
    let len = u64::from(u32_at(&header, 4)?).min(4096);
    let mut at = 36;
    while at + width <= len {
        let pointer = if width == 8 {
            u64::from_le_bytes(bytes(list + at)?)
        } else {
            u32::from_le_bytes(bytes(list + at)?).into()
        };
        let header: [u8; 36] = bytes(pointer)?;
        if &header[..4] == b"APIC" {
            let len = (u32_at(&header, 4)? as usize).min(1 << 16);
            let mut table = alloc::vec![0; len];
            return read_firmware(pointer, &mut table).then(|| parse(&table));
        }
        at += width;
    }
    None
}

fn parse(table: &[u8]) -> Madt {
    let mut madt = Madt {
        cpus: 0,
        io_apics: Vec::new(),
        overrides: Vec::new(),
    };
    let mut rest = table.get(44..).unwrap_or(&[]);
    while let [kind, len, ..] = *rest {
        let len = len as usize;
        let Some(entry) = rest.get(..len).filter(|_| len >= 2) else {
            break;
        };
        match (kind, len) {
            (0, 8..) if entry[4] & 1 != 0 => madt.cpus += 1,
            (9, 16..) if entry[8] & 1 != 0 => madt.cpus += 1,
            (1, 12..) => {
                if let (Some(phys), Some(first_gsi)) = (u32_at(entry, 4), u32_at(entry, 8)) {
                    madt.io_apics.push(IoApic {
                        phys: phys.into(),
                        first_gsi,
                    });
                }
            }
            (2, 10..) => {
                if let Some(gsi) = u32_at(entry, 4) {
                    let trigger = match (entry[8] & 3, entry[8] >> 2 & 3) {
                        (3, 3) => Trigger::LevelLow,
                        (_, 3) => Trigger::LevelHigh,
                        _ => Trigger::Edge,
                    };
                    madt.overrides.push((entry[3], gsi, trigger));
                }
            }
            _ => {}
        }
        rest = &rest[len..];
    }
    madt
}
