//! The three things this kernel wants of a DSDT, found by their byte patterns instead of by running its AML: the sleep
//! type of S5, the generic event device, and virtio-mmio devices. The patterns are those that firmware compilers and
//! QEMU emit (ACPI 6.4, chapters 6.4 and 20.2); anything else is simply not found.

use alloc::vec::Vec;

use super::HEADER_LEN;
use crate::bytes::{u8_at, u16_at, u32_at, u64_at};

const EXT_PREFIX: u8 = 0x5b;
const DEVICE_OP: u8 = 0x82;
const REGION_OP: u8 = 0x80;
const PACKAGE_OP: u8 = 0x12;
const STRING_PREFIX: u8 = 0x0d;
const NAME_OP: u8 = 0x08;

/// The values for the sleep-type fields of the two PM1 control registers (the first also for the sleep control
/// register) that turn the machine off.
pub fn soft_off(dsdt: &[u8]) -> Option<(u8, u8)> {
    let body = dsdt.get(HEADER_LEN..)?;
    positions(body, b"_S5_").find_map(|at| {
        let mut at = at + 4;
        if u8_at(body, at)? != PACKAGE_OP {
            return None;
        }
        let (length, width) = package_length(body.get(at + 1..)?)?;
        let package = body.get(at + 1..)?.get(..length)?;
        at = width + 1;
        let (first, next) = integer(package, at)?;
        let second = integer(package, next).map_or(first, |(value, _)| value);
        Some((
            u8::try_from(first).ok()? & 7,
            u8::try_from(second).ok()? & 7,
        ))
    })
}

/// A generic event device (`ACPI0013`) of the kind that QEMU makes: one register that says which events happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventDevice {
    /// Physical address of the 32-bit event register.
    pub register: u64,
    /// Its interrupt.
    pub interrupt: Interrupt,
}

/// An interrupt as a resource descriptor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The line.
    pub gsi: u32,
    /// It signals by an edge, not by a level.
    pub edge: bool,
    /// It is low when it signals.
    pub active_low: bool,
}

/// The first generic event device.
pub fn event_device(dsdt: &[u8]) -> Option<EventDevice> {
    devices(dsdt, b"ACPI0013").find_map(|device| {
        let register = positions(device, &[EXT_PREFIX, REGION_OP]).find_map(|at| {
            // Name segment (4 bytes), region space (0 = memory), offset, length.
            (u8_at(device, at + 6)? == 0).then_some(())?;
            let (address, next) = integer(device, at + 7)?;
            let (len, _) = integer(device, next)?;
            (len >= 4).then_some(address)
        })?;
        Some(EventDevice {
            register,
            interrupt: interrupt(device)?,
        })
    })
}

/// A virtio-mmio device (`LNRO0005`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Physical address of its registers.
    pub base: u64,
    /// Bytes of registers and configuration.
    pub size: u64,
    /// Its interrupt.
    pub interrupt: Interrupt,
}

/// All virtio-mmio devices.
pub fn virtio_devices(dsdt: &[u8]) -> Vec<VirtioMmio> {
    devices(dsdt, b"LNRO0005")
        .filter_map(|device| {
            let (base, size) = fixed_memory(device)?;
            Some(VirtioMmio {
                base,
                size,
                interrupt: interrupt(device)?,
            })
        })
        .collect()
}

/// The bodies of the devices whose `_HID` is the string `id`.
fn devices<'a>(dsdt: &'a [u8], id: &'a [u8; 8]) -> impl Iterator<Item = &'a [u8]> {
    let body = dsdt.get(HEADER_LEN..).unwrap_or(&[]);
    positions(body, &[EXT_PREFIX, DEVICE_OP]).filter_map(move |at| {
        let rest = &body[at + 2..];
        let (length, width) = package_length(rest)?;
        let device = rest.get(width..length)?;
        // The name segment, then the first declaration: `Name (_HID, "...")`.
        let hid = device.get(4..)?;
        let matches = hid.first() == Some(&NAME_OP)
            && hid.get(1..5)? == b"_HID"
            && hid.get(5) == Some(&STRING_PREFIX)
            && hid.get(6..14)? == id
            && hid.get(14) == Some(&0);
        matches.then_some(device)
    })
}

/// The first interrupt of the extended interrupt descriptor in a device's resources.
fn interrupt(device: &[u8]) -> Option<Interrupt> {
    resources(device).find_map(|item| match item {
        (0x89, data) if u8_at(data, 1)? >= 1 => Some(Interrupt {
            gsi: u32_at(data, 2)?,
            edge: data[0] & 2 != 0,
            active_low: data[0] & 4 != 0,
        }),
        _ => None,
    })
}

/// The base and length of the first 32-bit fixed memory descriptor in a device's resources.
fn fixed_memory(device: &[u8]) -> Option<(u64, u64)> {
    resources(device).find_map(|item| match item {
        (0x86, data) => Some((u32_at(data, 1)?.into(), u32_at(data, 5)?.into())),
        _ => None,
    })
}

/// The large resource descriptors of the `_CRS` buffer of a device: type and data.
fn resources(device: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    const BUFFER_OP: u8 = 0x11;
    let template = positions(device, b"_CRS").find_map(|at| {
        let rest = device.get(at + 4..)?;
        (rest.first() == Some(&BUFFER_OP)).then_some(())?;
        let (length, width) = package_length(rest.get(1..)?)?;
        let buffer = rest.get(1..)?.get(width..length)?;
        let (size, next) = integer(buffer, 0)?;
        let data = buffer.get(next..)?;
        Some(&data[..data.len().min(usize::try_from(size).ok()?)])
    });
    let mut rest = template.unwrap_or(&[]);
    core::iter::from_fn(move || {
        loop {
            let tag = *rest.first()?;
            if tag & 0x80 != 0 {
                let length = usize::from(u16_at(rest, 1)?);
                let data = rest.get(3..3 + length)?;
                rest = &rest[3 + length..];
                return Some((tag, data));
            }
            // A small descriptor; tag 0x78 ends the template.
            if tag & 0x78 == 0x78 {
                return None;
            }
            rest = rest.get(1 + usize::from(tag & 7)..)?;
        }
    })
}

/// A package length: its value (which counts its own bytes) and how many bytes encode it.
fn package_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let lead = *bytes.first()?;
    let follow = usize::from(lead >> 6);
    if follow == 0 {
        return Some((usize::from(lead & 0x3f), 1));
    }
    let mut length = usize::from(lead & 0xf);
    for (i, &byte) in bytes.get(1..=follow)?.iter().enumerate() {
        length |= usize::from(byte) << (4 + 8 * i);
    }
    Some((length, 1 + follow))
}

/// An integer constant: its value and where the next term begins.
fn integer(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    match u8_at(bytes, at)? {
        0x00 => Some((0, at + 1)),
        0x01 => Some((1, at + 1)),
        0xff => Some((u64::MAX, at + 1)),
        0x0a => Some((u8_at(bytes, at + 1)?.into(), at + 2)),
        0x0b => Some((u16_at(bytes, at + 1)?.into(), at + 3)),
        0x0c => Some((u32_at(bytes, at + 1)?.into(), at + 5)),
        0x0e => Some((u64_at(bytes, at + 1)?, at + 9)),
        _ => None,
    }
}

/// Where `needle` occurs. Most bytes are passed over by looking at one of its bytes only.
fn positions<'a>(bytes: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> {
    let mut from = 0;
    core::iter::from_fn(move || {
        let first = needle.first()?;
        loop {
            let at = from + bytes.get(from..)?.iter().position(|byte| byte == first)?;
            from = at + 1;
            if bytes[at..].starts_with(needle) {
                return Some(at);
            }
        }
    })
}
