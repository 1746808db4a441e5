//! virtio over memory-mapped registers (virtio 1.2, 4.2), and the command-line words that say where such devices are.

use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use machine::{
    irq::{self, IrqHandle, Trigger},
    mmio::Mmio,
    sync::Once,
};

use super::{
    SetupError,
    queue::Placement,
    transport::{Handlers, Notifier, Transport},
};

/// Register offsets.
mod reg {
    pub(super) const MAGIC: usize = 0x000;
    pub(super) const VERSION: usize = 0x004;
    pub(super) const DEVICE_ID: usize = 0x008;
    pub(super) const DEVICE_FEATURES: usize = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: usize = 0x014;
    pub(super) const DRIVER_FEATURES: usize = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: usize = 0x024;
    pub(super) const QUEUE_SEL: usize = 0x030;
    pub(super) const QUEUE_NUM_MAX: usize = 0x034;
    pub(super) const QUEUE_NUM: usize = 0x038;
    pub(super) const QUEUE_READY: usize = 0x044;
    pub(super) const QUEUE_NOTIFY: usize = 0x050;
    pub(super) const INTERRUPT_STATUS: usize = 0x060;
    pub(super) const INTERRUPT_ACK: usize = 0x064;
    pub(super) const STATUS: usize = 0x070;
    pub(super) const QUEUE_DESCRIPTORS: usize = 0x080;
    pub(super) const QUEUE_AVAILABLE: usize = 0x090;
    pub(super) const QUEUE_USED: usize = 0x0a0;
    pub(super) const CONFIG_GENERATION: usize = 0x0fc;
    pub(super) const CONFIG: usize = 0x100;
}

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const INTERRUPT_QUEUE: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

/// Where a device is: what one command-line word or DSDT entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Physical address of the registers.
    pub base: u64,
    /// Bytes of registers and configuration.
    pub size: u64,
    /// Its interrupt.
    pub gsi: u32,
}

impl Slot {
    /// Parses the value of `virtio_mmio.device=`, as Linux has it: `<size>@<base>:<irq>[:<id>]`, numbers as in C, the
    /// size with an optional `K`, `M` or `G`. `None` when it is something else or makes no sense.
    pub fn parse(word: &str) -> Option<Slot> {
        let (size, rest) = word.split_once('@')?;
        let mut parts = rest.split(':');
        let (base, gsi) = (parts.next()?, parts.next()?);
        let id = parts.next();
        if parts.next().is_some() || id.is_some_and(|id| number(id).is_none()) {
            return None;
        }
        let slot = Slot {
            base: number(base)?,
            size: scaled(size)?,
            gsi: u32::try_from(number(gsi)?).ok()?,
        };
        let sane = slot.base.is_multiple_of(4)
            && (reg::CONFIG as u64..=1 << 20).contains(&slot.size)
            && slot
                .base
                .checked_add(slot.size)
                .is_some_and(|end| end <= 1 << 52);
        sane.then_some(slot)
    }

    /// All devices that a kernel command line names; words that do not parse are handed to `bad`.
    pub fn from_command_line<'a>(line: &'a str, mut bad: impl FnMut(&'a str)) -> Vec<Slot> {
        let words = line
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix("virtio_mmio.device="));
        let mut slots: Vec<Slot> = Vec::new();
        for word in words {
            match Slot::parse(word) {
                Some(slot) if slots.iter().any(|other| other.base == slot.base) => {}
                Some(slot) => slots.push(slot),
                None => bad(word),
            }
        }
        slots
    }
}

fn scaled(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

fn number(text: &str) -> Option<u64> {
    let (digits, radix) = if let Some(hex) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        (hex, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// The registers of one device.
pub struct MmioTransport {
    registers: Mmio,
    slot: Slot,
    device_type: u32,
    config_len: usize,
    interrupts: Arc<AtomicU64>,
    irq: Once<IrqHandle>,
}

impl MmioTransport {
    /// Looks whether a device answers. `Ok(None)`: a transport is there, but no device behind it.
    ///
    /// # Errors
    /// [`SetupError::NotVirtio`], [`SetupError::Legacy`], [`SetupError::Version`], [`SetupError::BadLayout`].
    pub fn probe(slot: Slot) -> Result<Option<MmioTransport>, SetupError> {
        let len = usize::try_from(slot.size).map_err(|_| SetupError::BadLayout)?;
        if len < reg::CONFIG {
            return Err(SetupError::BadLayout);
        }
        let registers = Mmio::map(slot.base, len).map_err(|_| SetupError::BadLayout)?;
        if registers.read32(reg::MAGIC) != MAGIC {
            return Err(SetupError::NotVirtio);
        }
        match registers.read32(reg::VERSION) {
            2 => {}
            1 => return Err(SetupError::Legacy),
            other => return Err(SetupError::Version(other)),
        }
        let device_type = registers.read32(reg::DEVICE_ID);
        if device_type == 0 {
            return Ok(None);
        }
        Ok(Some(MmioTransport {
            registers,
            slot,
            device_type,
            config_len: len - reg::CONFIG,
            interrupts: Arc::default(),
            irq: Once::new(),
        }))
    }

    fn select_queue(&self, queue: u16) {
        self.registers.write32(reg::QUEUE_SEL, queue.into());
    }

    fn write_address(&self, at: usize, address: u64) {
        self.registers.write32(at, address as u32);
        self.registers.write32(at + 4, (address >> 32) as u32);
    }
}

impl Transport for MmioTransport {
    fn device_type(&self) -> u32 {
        self.device_type
    }

    fn device_features(&self) -> u64 {
        self.registers.write32(reg::DEVICE_FEATURES_SEL, 0);
        let low = self.registers.read32(reg::DEVICE_FEATURES);
        self.registers.write32(reg::DEVICE_FEATURES_SEL, 1);
        let high = self.registers.read32(reg::DEVICE_FEATURES);
        u64::from(high) << 32 | u64::from(low)
    }

    fn set_driver_features(&self, features: u64) {
        self.registers.write32(reg::DRIVER_FEATURES_SEL, 0);
        self.registers
            .write32(reg::DRIVER_FEATURES, features as u32);
        self.registers.write32(reg::DRIVER_FEATURES_SEL, 1);
        self.registers
            .write32(reg::DRIVER_FEATURES, (features >> 32) as u32);
    }

    fn status(&self) -> u8 {
        self.registers.read32(reg::STATUS) as u8
    }

    fn set_status(&self, status: u8) {
        self.registers.write32(reg::STATUS, status.into());
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let end = offset.checked_add(bytes.len());
        if end.is_none_or(|end| end > self.config_len) {
            return false;
        }
        super::transport::read_in_pieces(&self.registers, reg::CONFIG + offset, bytes);
        true
    }

    fn config_generation(&self) -> u32 {
        self.registers.read32(reg::CONFIG_GENERATION)
    }

    fn max_queue_size(&self, queue: u16) -> u16 {
        self.select_queue(queue);
        let max = self.registers.read32(reg::QUEUE_NUM_MAX);
        max.min(1 << 15) as u16
    }

    fn notifier(&self, queue: u16) -> Result<Notifier, SetupError> {
        Ok(Notifier::Register32(
            self.registers.clone(),
            reg::QUEUE_NOTIFY,
            queue.into(),
        ))
    }

    fn connect(&self, queues: &[(u16, Placement)], handlers: Handlers) -> Result<(), SetupError> {
        let registers = self.registers.clone();
        let count = self.interrupts.clone();
        // All interrupts of a device share one line. Nearly all are for its queues, so those are acknowledged
        // unread, which saves an exit; only when no queue has work is the cause looked at. The line is level-triggered:
        // a cause that was not acknowledged raises it again.
        let handler = move || {
            count.fetch_add(1, Ordering::Relaxed);
            registers.write32(reg::INTERRUPT_ACK, INTERRUPT_QUEUE);
            let mut worked = false;
            for (_, handler) in &handlers.queues {
                worked |= handler();
            }
            if !worked {
                let cause = registers.read32(reg::INTERRUPT_STATUS);
                if cause & INTERRUPT_CONFIG != 0 {
                    registers.write32(reg::INTERRUPT_ACK, INTERRUPT_CONFIG);
                    if let Some(changed) = &handlers.config {
                        changed();
                    }
                }
            }
        };
        let handle = irq::register_gsi(self.slot.gsi, Trigger::LevelHigh, Box::new(handler))
            .map_err(|_| SetupError::NoInterrupt)?;
        if self.irq.set(handle).is_err() {
            return Err(SetupError::NoInterrupt);
        }
        for (index, placement) in queues {
            self.select_queue(*index);
            self.registers
                .write32(reg::QUEUE_NUM, placement.size.into());
            self.write_address(reg::QUEUE_DESCRIPTORS, placement.descriptors);
            self.write_address(reg::QUEUE_AVAILABLE, placement.available);
            self.write_address(reg::QUEUE_USED, placement.used);
            self.registers.write32(reg::QUEUE_READY, 1);
        }
        Ok(())
    }

    fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    fn location(&self) -> String {
        format!("virtio-mmio {:#x}, irq {}", self.slot.base, self.slot.gsi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_words() {
        let mut bad = Vec::new();
        let line = "console=ttyS0 virtio_mmio.device=512@0xfeb02e00:12 virtio_mmio.device=4K@4273995776:0x10:3 \
                    virtio_mmio.device=nonsense virtio_mmio.device=512@0xfeb02e00:12 quiet";
        let slots = Slot::from_command_line(line, |word| bad.push(word));
        assert_eq!(
            slots,
            [
                Slot {
                    base: 0xfeb0_2e00,
                    size: 512,
                    gsi: 12
                },
                Slot {
                    base: 4_273_995_776,
                    size: 4096,
                    gsi: 16
                },
            ]
        );
        assert_eq!(bad, ["nonsense"]);
    }

    #[test]
    fn words_that_make_no_sense() {
        for word in [
            "",
            "@:",
            "512@",
            "512@0xfeb00000",
            "512@0xfeb00000:",
            "512@0xfeb00000:x",
            "512@0xfeb00000:5:1:2",
            "512@0xfeb00000:5:",
            "512@0xfeb00001:5",
            "16@0xfeb00000:5",
            "99999999999G@0xfeb00000:5",
            "512@0xffffffffffffffff0:5",
            "512@0xfffffffffffffffc:5",
            "512@0xfeb00000:4294967296",
            "+512@0xfeb00000:5",
            "512@-1:5",
            "K@0xfeb00000:5",
            "512@0xfeb00000:08",
            "é@0xfeb00000:5",
        ] {
            assert_eq!(Slot::parse(word), None, "{word}");
        }
        assert!(Slot::parse("0x200@0xd0000000:5").is_some());
    }
}
