//! virtio over PCI, the modern interface (virtio 1.2, 4.1): capabilities that say where the register blocks are, MSI-X
//! with a vector for each queue, or the interrupt pin where there is no MSI-X.

use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use machine::{
    cpu,
    irq::{self, IrqHandle, Trigger},
    mmio::Mmio,
    sync::IrqLock,
};

use super::{
    SetupError, device_type,
    queue::Placement,
    transport::{Handlers, Notifier, Transport, read_in_pieces},
};
use crate::pci::{self, Capability, ConfigSpace, Function, access::read8, msix};

/// The vendor of all virtio devices.
pub const VENDOR: u16 = 0x1af4;

const CAPABILITY_VENDOR: u8 = 0x09;
const NO_VECTOR: u16 = 0xffff;

/// Offsets in the common configuration block.
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(super) const DEVICE_FEATURE: usize = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(super) const DRIVER_FEATURE: usize = 0x0c;
    pub(super) const CONFIG_VECTOR: usize = 0x10;
    pub(super) const STATUS: usize = 0x14;
    pub(super) const CONFIG_GENERATION: usize = 0x15;
    pub(super) const QUEUE_SELECT: usize = 0x16;
    pub(super) const QUEUE_SIZE: usize = 0x18;
    pub(super) const QUEUE_VECTOR: usize = 0x1a;
    pub(super) const QUEUE_ENABLE: usize = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFFSET: usize = 0x1e;
    pub(super) const QUEUE_DESCRIPTORS: usize = 0x20;
    pub(super) const QUEUE_AVAILABLE: usize = 0x28;
    pub(super) const QUEUE_USED: usize = 0x30;
    pub(super) const LEN: usize = 0x38;
}

/// The register blocks that a virtio capability can point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Features, status, queues.
    Common,
    /// Notification, with the multiplier of a queue's offset.
    Notify(u32),
    /// Interrupt status of the pin.
    Isr,
    /// The device's own configuration.
    Device,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it is.
    pub block: Block,
    /// Which base address register.
    pub bar: u8,
    /// Offset there.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// Reads a vendor capability as virtio's, if it is one that is used here.
pub fn parse_capability(
    config: &dyn ConfigSpace,
    function: &Function,
    capability: Capability,
) -> Option<Region> {
    if capability.id != CAPABILITY_VENDOR || capability.at > 0xf0 {
        return None;
    }
    let at = capability.at;
    let len = read8(config, function.address, at + 2);
    let block = match read8(config, function.address, at + 3) {
        1 => Block::Common,
        2 if len >= 20 => Block::Notify(config.read32(function.address, at + 16)),
        3 => Block::Isr,
        4 => Block::Device,
        _ => return None,
    };
    let region = Region {
        block,
        bar: read8(config, function.address, at + 4),
        offset: config.read32(function.address, at + 8),
        len: config.read32(function.address, at + 12),
    };
    (region.bar <= 5 && len >= 16).then_some(region)
}

/// The registers of one device.
pub struct PciTransport {
    config: Arc<dyn ConfigSpace>,
    function: Function,
    device_type: u32,
    common: Mmio,
    notify: Mmio,
    notify_multiplier: u32,
    isr: Option<Mmio>,
    device: Option<Mmio>,
    msix: Option<(msix::Location, Mmio)>,
    interrupts: Arc<AtomicU64>,
    handles: IrqLock<Vec<IrqHandle>>,
}

impl PciTransport {
    /// The type of virtio device that a function is, if it is one.
    pub fn device_type_of(function: &Function) -> Option<u32> {
        if function.vendor != VENDOR {
            return None;
        }
        match function.device {
            // Transitional devices: both interfaces.
            0x1000 => Some(device_type::NET),
            0x1001 => Some(device_type::BLOCK),
            0x1005 => Some(device_type::ENTROPY),
            id @ 0x1041..=0x107f => Some(u32::from(id) - 0x1040),
            _ => None,
        }
    }

    /// Maps the register blocks of a virtio device.
    ///
    /// # Errors
    /// [`SetupError::NotVirtio`]; [`SetupError::Legacy`] when it has none of the capabilities;
    /// [`SetupError::BadLayout`].
    pub fn probe(
        config: Arc<dyn ConfigSpace>,
        function: Function,
    ) -> Result<PciTransport, SetupError> {
        let device_type = PciTransport::device_type_of(&function).ok_or(SetupError::NotVirtio)?;
        let capabilities = function.capabilities(&*config);
        let (mut common, mut notify, mut isr, mut device, mut msix) =
            (None, None, None, None, None);
        for capability in capabilities {
            if let Some(location) = msix::Location::parse(&*config, &function, capability) {
                msix = Some(location);
            } else if let Some(region) = parse_capability(&*config, &function, capability) {
                // The first of each kind is the one the device prefers.
                let slot = match region.block {
                    Block::Common => &mut common,
                    Block::Notify(_) => &mut notify,
                    Block::Isr => &mut isr,
                    Block::Device => &mut device,
                };
                slot.get_or_insert(region);
            }
        }
        let (Some(common), Some(notify)) = (common, notify) else {
            return Err(SetupError::Legacy);
        };
        let Block::Notify(notify_multiplier) = notify.block else {
            return Err(SetupError::BadLayout);
        };
        let map = |region: &Region, least: usize| {
            let bar = function.memory_bar(&*config, region.bar)?;
            let address = bar.address.checked_add(region.offset.into())?;
            let len = usize::try_from(region.len).ok()?;
            // Blocks are small; a length beyond this is nonsense that would only use up address space.
            (least..=1 << 24).contains(&len).then_some(())?;
            Mmio::map(address, len).ok()
        };
        // Memory decoding must be on before the first access.
        function.enable(&*config, msix.is_none());
        let msix = msix.and_then(|location| Some((location, location.map(&*config, &function)?)));
        Ok(PciTransport {
            common: map(&common, common::LEN).ok_or(SetupError::BadLayout)?,
            notify: map(&notify, 2).ok_or(SetupError::BadLayout)?,
            notify_multiplier,
            isr: isr.and_then(|region| map(&region, 1)),
            device: device.and_then(|region| map(&region, 1)),
            msix,
            config,
            function,
            device_type,
            interrupts: Arc::default(),
            handles: IrqLock::new(Vec::new()),
        })
    }

    fn select_queue(&self, queue: u16) {
        self.common.write16(common::QUEUE_SELECT, queue);
    }

    fn write_address(&self, at: usize, address: u64) {
        self.common.write32(at, address as u32);
        self.common.write32(at + 4, (address >> 32) as u32);
    }

    /// A message for each queue and one for the configuration, as far as the table has room. Returns the vector of
    /// each queue.
    fn connect_messages(
        &self,
        location: &msix::Location,
        table: &Mmio,
        queues: &[(u16, Placement)],
        handlers: Handlers,
    ) -> Result<Vec<(u16, u16)>, SetupError> {
        let wanted = handlers.queues.len() + usize::from(handlers.config.is_some());
        let mut vectors = Vec::new();
        let mut handles = Vec::new();
        if wanted > usize::from(location.entries) {
            // One vector for everything.
            let handler = self.shared_handler(handlers, false);
            let (message, handle) =
                irq::alloc_msi(0, handler).map_err(|_| SetupError::NoInterrupt)?;
            msix::program(table, 0, message.address, message.data);
            handles.push(handle);
            vectors.extend(queues.iter().map(|&(queue, _)| (queue, 0)));
            self.common.write16(common::CONFIG_VECTOR, 0);
        } else {
            let mut entry = 0;
            for (number, (queue, handler)) in handlers.queues.into_iter().enumerate() {
                let count = self.interrupts.clone();
                let handler = Box::new(move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    handler();
                });
                let target = number % cpu::count().max(1);
                let (message, handle) =
                    irq::alloc_msi(target, handler).map_err(|_| SetupError::NoInterrupt)?;
                msix::program(table, entry, message.address, message.data);
                handles.push(handle);
                vectors.push((queue, entry));
                entry += 1;
            }
            let vector = match handlers.config {
                Some(changed) => {
                    let (message, handle) =
                        irq::alloc_msi(0, changed).map_err(|_| SetupError::NoInterrupt)?;
                    msix::program(table, entry, message.address, message.data);
                    handles.push(handle);
                    entry
                }
                None => NO_VECTOR,
            };
            self.common.write16(common::CONFIG_VECTOR, vector);
        }
        location.enable(&*self.config, &self.function);
        self.handles.lock().append(&mut handles);
        Ok(vectors)
    }

    /// One handler for all causes. With `pin`, reading the status register tells the cause and lowers the pin.
    fn shared_handler(&self, handlers: Handlers, pin: bool) -> irq::Handler {
        const CAUSE_QUEUE: u8 = 1;
        const CAUSE_CONFIG: u8 = 2;
        let count = self.interrupts.clone();
        let isr = if pin { self.isr.clone() } else { None };
        Box::new(move || {
            let cause = isr
                .as_ref()
                .map_or(CAUSE_QUEUE | CAUSE_CONFIG, |isr| isr.read8(0));
            if cause == 0 {
                // Another device on the same line.
                return;
            }
            count.fetch_add(1, Ordering::Relaxed);
            for (_, handler) in &handlers.queues {
                handler();
            }
            if cause & CAUSE_CONFIG != 0
                && let Some(changed) = &handlers.config
            {
                changed();
            }
        })
    }
}

impl Transport for PciTransport {
    fn device_type(&self) -> u32 {
        self.device_type
    }

    fn device_features(&self) -> u64 {
        self.common.write32(common::DEVICE_FEATURE_SELECT, 0);
        let low = self.common.read32(common::DEVICE_FEATURE);
        self.common.write32(common::DEVICE_FEATURE_SELECT, 1);
        let high = self.common.read32(common::DEVICE_FEATURE);
        u64::from(high) << 32 | u64::from(low)
    }

    fn set_driver_features(&self, features: u64) {
        self.common.write32(common::DRIVER_FEATURE_SELECT, 0);
        self.common.write32(common::DRIVER_FEATURE, features as u32);
        self.common.write32(common::DRIVER_FEATURE_SELECT, 1);
        self.common
            .write32(common::DRIVER_FEATURE, (features >> 32) as u32);
    }

    fn status(&self) -> u8 {
        self.common.read8(common::STATUS)
    }

    fn set_status(&self, status: u8) {
        self.common.write8(common::STATUS, status);
        if status == 0 {
            // The reset is complete when the register reads zero. A device that never says so is given up on; what
            // follows fails on its own.
            for _ in 0..1_000_000 {
                if self.common.read8(common::STATUS) == 0 {
                    break;
                }
                core::hint::spin_loop();
            }
        }
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let Some(device) = &self.device else {
            return false;
        };
        let end = offset.checked_add(bytes.len());
        if end.is_none_or(|end| end > device.len()) {
            return false;
        }
        read_in_pieces(device, offset, bytes);
        true
    }

    fn config_generation(&self) -> u32 {
        self.common.read8(common::CONFIG_GENERATION).into()
    }

    fn max_queue_size(&self, queue: u16) -> u16 {
        self.select_queue(queue);
        self.common.read16(common::QUEUE_SIZE).min(1 << 15)
    }

    fn notifier(&self, queue: u16) -> Result<Notifier, SetupError> {
        self.select_queue(queue);
        let offset = self.common.read16(common::QUEUE_NOTIFY_OFFSET);
        let at = u64::from(offset) * u64::from(self.notify_multiplier);
        let at = usize::try_from(at).map_err(|_| SetupError::BadLayout)?;
        if !at.is_multiple_of(2) || at.checked_add(2).is_none_or(|end| end > self.notify.len()) {
            return Err(SetupError::BadLayout);
        }
        Ok(Notifier::Register16(self.notify.clone(), at, queue))
    }

    fn connect(&self, queues: &[(u16, Placement)], handlers: Handlers) -> Result<(), SetupError> {
        let vectors = match &self.msix {
            Some((location, table)) => self.connect_messages(location, table, queues, handlers)?,
            None => {
                let gsi =
                    pci::intx_gsi(&*self.config, &self.function).ok_or(SetupError::NoInterrupt)?;
                let handler = self.shared_handler(handlers, true);
                let handle = irq::register_gsi(gsi, Trigger::LevelLow, handler)
                    .map_err(|_| SetupError::NoInterrupt)?;
                self.handles.lock().push(handle);
                Vec::new()
            }
        };
        for (queue, placement) in queues {
            self.select_queue(*queue);
            self.common.write16(common::QUEUE_SIZE, placement.size);
            if self.msix.is_some() {
                let vector = vectors
                    .iter()
                    .find_map(|&(of, vector)| (of == *queue).then_some(vector))
                    .unwrap_or(NO_VECTOR);
                self.common.write16(common::QUEUE_VECTOR, vector);
                if vector != NO_VECTOR && self.common.read16(common::QUEUE_VECTOR) != vector {
                    return Err(SetupError::NoInterrupt);
                }
            }
            self.write_address(common::QUEUE_DESCRIPTORS, placement.descriptors);
            self.write_address(common::QUEUE_AVAILABLE, placement.available);
            self.write_address(common::QUEUE_USED, placement.used);
            self.common.write16(common::QUEUE_ENABLE, 1);
        }
        Ok(())
    }

    fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    fn location(&self) -> String {
        format!("PCI {}", self.function.address)
    }
}
