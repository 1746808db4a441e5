//! Finding the devices of the machine: what the command line and the firmware's tables name, and the PCI bus where
//! there is one. Each register access costs an exit from the virtual machine, so nothing is touched that is not needed.

use alloc::{format, string::String, sync::Arc, vec::Vec};

use machine::boot::BootInfo;

use crate::{
    acpi::{Firmware, Tables, aml, mcfg},
    block::BlockDevice,
    entropy::Entropy,
    nic::Nic,
    pci::{
        self, ConfigSpace,
        access::{EcamAccess, PortAccess},
    },
    power::Power,
    uart::{COM1, Uart},
    virtio::{
        SetupError,
        blk::VirtioBlk,
        device_type, device_type_name,
        mmio::{MmioTransport, Slot},
        net::VirtioNet,
        pci::PciTransport,
        rng::VirtioRng,
        transport::Transport,
        vsock::VirtioVsock,
    },
    vsock::VsockCard,
};

/// What was found.
#[derive(Default)]
pub struct Devices {
    /// Disks, in the order of their addresses.
    pub blocks: Vec<Arc<dyn BlockDevice>>,
    /// Network cards, likewise.
    pub nics: Vec<Arc<dyn Nic>>,
    /// Sources of randomness.
    pub entropy: Vec<Arc<dyn Entropy>>,
    /// Sockets to the host.
    pub vsocks: Vec<Arc<dyn VsockCard>>,
    /// The serial port.
    pub uart: Option<Arc<Uart>>,
    /// Power by ACPI.
    pub power: Option<Arc<Power>>,
    /// One line for each device, found or failed, for the log and for whoever lists them.
    pub notes: Vec<Note>,
}

/// What became of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is.
    pub name: &'static str,
    /// Where.
    pub location: String,
    /// Why it is not in service, if it is not.
    pub problem: Option<String>,
}

/// Finds the devices and takes them into service. A device that fails is noted and left out.
pub fn probe(boot: &BootInfo) -> Devices {
    let mut devices = Devices {
        uart: Uart::probe(COM1).map(Arc::new),
        ..Devices::default()
    };
    let mut slots = Slot::from_command_line(&boot.command_line, |word| {
        devices.notes.push(Note {
            name: "virtio-mmio",
            location: format!("virtio_mmio.device={word}"),
            problem: Some("the command line's word makes no sense".into()),
        });
    });
    let mut config: Option<Arc<dyn ConfigSpace>> = None;
    let mut reduced = false;
    if let Some(rsdp) = boot.rsdp {
        match Tables::new(&Firmware, rsdp) {
            Ok(tables) => {
                reduced = devices.read_tables(&tables, &mut slots);
                config = ecam(&tables);
            }
            Err(error) => devices.notes.push(Note {
                name: "ACPI",
                location: format!("root pointer at {rsdp:#x}"),
                problem: Some(format!("{error}")),
            }),
        }
    }
    for slot in slots {
        devices.add_mmio(slot);
    }
    // A machine with reduced hardware, or one that names its devices, has no ports to a PCI bus.
    let named = devices.notes.iter().any(|note| note.problem.is_none());
    if config.is_none() && !reduced && !named {
        config = port_access();
    }
    if let Some(config) = config {
        devices.add_pci(&config);
    }
    devices
}

/// The memory-mapped configuration space of the first PCI segment.
fn ecam(tables: &Tables<'_>) -> Option<Arc<dyn ConfigSpace>> {
    let table = tables.get(*b"MCFG").ok()?;
    let first = mcfg::parse(&table)
        .into_iter()
        .find(|ecam| ecam.segment == 0 && ecam.first_bus == 0)?;
    Some(Arc::new(EcamAccess::new(first)))
}

/// The configuration ports, if a host bridge answers there.
fn port_access() -> Option<Arc<dyn ConfigSpace>> {
    let access = PortAccess::new()?;
    let root = pci::Address {
        bus: 0,
        device: 0,
        function: 0,
    };
    let present = access.read32(root, 0) != u32::MAX;
    present.then(|| Arc::new(access) as Arc<dyn ConfigSpace>)
}

impl Devices {
    /// Takes power management and virtio-mmio devices out of the tables. Returns whether the hardware is reduced.
    fn read_tables(&mut self, tables: &Tables<'_>, slots: &mut Vec<Slot>) -> bool {
        let fadt = match tables.fadt() {
            Ok(fadt) => fadt,
            Err(error) => {
                self.notes.push(Note {
                    name: "ACPI",
                    location: "FADT".into(),
                    problem: Some(format!("{error}")),
                });
                return false;
            }
        };
        let power = Power::new(fadt);
        let reduced = power.hardware_reduced();
        if reduced {
            let found = power.dsdt().map(aml::virtio_devices).unwrap_or_default();
            for device in found {
                if slots.iter().all(|slot| slot.base != device.base) {
                    slots.push(Slot {
                        base: device.base,
                        size: device.size,
                        gsi: device.interrupt.gsi,
                    });
                }
            }
        }
        self.power = Some(Arc::new(power));
        reduced
    }

    fn add_mmio(&mut self, slot: Slot) {
        match MmioTransport::probe(slot) {
            Ok(Some(transport)) => self.add_virtio(Arc::new(transport)),
            Ok(None) => {}
            Err(error) => self.notes.push(Note {
                name: "virtio-mmio",
                location: format!("{:#x}", slot.base),
                problem: Some(format!("{error}")),
            }),
        }
    }

    fn add_pci(&mut self, config: &Arc<dyn ConfigSpace>) {
        for function in pci::enumerate(&**config) {
            let Some(device_type) = PciTransport::device_type_of(&function) else {
                continue;
            };
            match PciTransport::probe(config.clone(), function) {
                Ok(transport) => self.add_virtio(Arc::new(transport)),
                Err(error) => self.notes.push(Note {
                    name: device_type_name(device_type),
                    location: format!("PCI {}", function.address),
                    problem: Some(format!("{error}")),
                }),
            }
        }
    }

    fn add_virtio(&mut self, transport: Arc<dyn Transport>) {
        let kind = transport.device_type();
        let location = transport.location();
        let outcome = match kind {
            device_type::BLOCK => {
                VirtioBlk::new(transport).map(|device| self.blocks.push(Arc::new(device)))
            }
            device_type::NET => {
                VirtioNet::new(transport).map(|device| self.nics.push(Arc::new(device)))
            }
            device_type::ENTROPY => {
                self.entropy.push(Arc::new(VirtioRng::new(transport)));
                Ok(())
            }
            device_type::VSOCK => {
                self.vsocks.push(Arc::new(VirtioVsock::new(transport)));
                Ok(())
            }
            _ => {
                self.notes.push(Note {
                    name: device_type_name(kind),
                    location,
                    problem: Some(format!("no driver for virtio device type {kind}")),
                });
                return;
            }
        };
        self.notes.push(Note {
            name: device_type_name(kind),
            location,
            problem: outcome.err().map(|error: SetupError| format!("{error}")),
        });
    }
}
