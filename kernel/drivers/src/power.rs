//! Power events and power states by ACPI: the power button as a callback, switching off, and resetting. What a press
//! of the button means is for the rooms above.
//!
//! Two kinds of machine: with fixed hardware (q35: status and enable registers, SCI), and hardware-reduced (microvm:
//! a generic event device).

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::fmt;

use machine::{
    irq::{self, IrqHandle, Trigger},
    mmio::Mmio,
    port::{Port8, Port16},
    sync::Once,
    time,
};

use crate::acpi::{
    self, Fadt, Firmware, GenericAddress, Space,
    aml::{self, EventDevice, Interrupt},
};

const PM1_POWER_BUTTON: u16 = 1 << 8;
const PM1_SCI_ENABLE: u16 = 1;
const PM1_SLEEP_ENABLE: u16 = 1 << 13;
/// Sleep control register: enable bit; the type is in bits 2 to 4.
const SLEEP_ENABLE: u8 = 1 << 5;
/// The event that QEMU's generic event device reports for the button.
const GED_POWER_DOWN: u32 = 2;

/// Told, in an interrupt, that the power button was pressed.
pub type ButtonHandler = Arc<dyn Fn() + Send + Sync>;

/// Why there will be no power events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerError {
    /// The tables name no button that is supported.
    NoButton,
    /// The registers could not be reached.
    NoRegisters,
    /// The interrupt could not be set up.
    NoInterrupt,
    /// There is a handler already.
    Taken,
}

impl fmt::Display for PowerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PowerError::NoButton => "the machine has no power button",
            PowerError::NoRegisters => "the power button's registers cannot be reached",
            PowerError::NoInterrupt => "the power button's interrupt could not be set up",
            PowerError::Taken => "the power button has a handler already",
        })
    }
}

impl core::error::Error for PowerError {}

/// A register of 8 bits in either space.
#[derive(Clone)]
enum Register8 {
    Memory(Mmio),
    Port(Port8),
}

impl Register8 {
    fn open(address: GenericAddress) -> Option<Register8> {
        match address.space {
            Space::Memory => Mmio::map(address.address, 1).ok().map(Register8::Memory),
            Space::Port => Port8::new(u16::try_from(address.address).ok()?).map(Register8::Port),
        }
    }

    fn write(&self, value: u8) {
        match self {
            Register8::Memory(mmio) => mmio.write8(0, value),
            Register8::Port(port) => port.write(value),
        }
    }
}

/// A 16-bit power management register; only machines with ports have these.
fn port16(address: GenericAddress, offset: u16) -> Option<Port16> {
    match address.space {
        Space::Port => Port16::new(u16::try_from(address.address).ok()?.checked_add(offset)?),
        Space::Memory => None,
    }
}

/// What the tables say of power, ready to be used. Nothing is touched before a method is called.
pub struct Power {
    fadt: Fadt,
    /// Read when it is needed: on machines with fixed hardware only to switch off.
    dsdt: Once<Option<Vec<u8>>>,
    button: Once<IrqHandle>,
}

impl Power {
    /// By the tables of this machine.
    pub fn new(fadt: Fadt) -> Power {
        Power {
            fadt,
            dsdt: Once::new(),
            button: Once::new(),
        }
    }

    /// The machine has no fixed hardware.
    pub fn hardware_reduced(&self) -> bool {
        self.fadt.hardware_reduced
    }

    /// The differentiated description table, if it can be read.
    pub fn dsdt(&self) -> Option<&[u8]> {
        self.dsdt
            .call_once(|| acpi::dsdt(&Firmware, &self.fadt).ok())
            .as_deref()
    }

    /// Calls `handler` whenever the power button is pressed.
    ///
    /// # Errors
    /// See [`PowerError`].
    pub fn watch_button(&self, handler: ButtonHandler) -> Result<(), PowerError> {
        if self.button.get().is_some() {
            return Err(PowerError::Taken);
        }
        let handle = if self.fadt.hardware_reduced {
            let device = self.dsdt().and_then(aml::event_device);
            watch_event_device(device.ok_or(PowerError::NoButton)?, handler)?
        } else if self.fadt.fixed_power_button {
            self.watch_fixed(handler)?
        } else {
            return Err(PowerError::NoButton);
        };
        self.button.set(handle).map_err(|_| PowerError::Taken)
    }

    fn watch_fixed(&self, handler: ButtonHandler) -> Result<IrqHandle, PowerError> {
        let half = u16::from(self.fadt.pm1_event_len / 2);
        let block = self.fadt.pm1a_event.ok_or(PowerError::NoButton)?;
        if half < 2 {
            return Err(PowerError::NoButton);
        }
        let status = port16(block, 0).ok_or(PowerError::NoRegisters)?;
        let enable = port16(block, half).ok_or(PowerError::NoRegisters)?;
        self.leave_legacy_mode();
        let (gsi, trigger) = match u8::try_from(self.fadt.sci) {
            Ok(line) => irq::isa_to_gsi(line),
            Err(_) => (self.fadt.sci.into(), Trigger::LevelLow),
        };
        // The SCI is a level interrupt, whatever the ISA default for its line is.
        let trigger = if trigger == Trigger::Edge {
            Trigger::LevelHigh
        } else {
            trigger
        };
        // An old press is no press.
        status.write(PM1_POWER_BUTTON);
        let on_interrupt = Box::new(move || {
            let events = status.read();
            if events & PM1_POWER_BUTTON != 0 {
                status.write(PM1_POWER_BUTTON);
                handler();
            }
        });
        let handle =
            irq::register_gsi(gsi, trigger, on_interrupt).map_err(|_| PowerError::NoInterrupt)?;
        enable.write(enable.read() | PM1_POWER_BUTTON);
        Ok(handle)
    }

    /// Tells the firmware, if it has not happened yet, that the operating system handles power.
    fn leave_legacy_mode(&self) {
        let control = self.fadt.pm1a_control.and_then(|block| port16(block, 0));
        let (Some(control), Some((port, value))) = (control, self.fadt.enable) else {
            return;
        };
        if control.read() & PM1_SCI_ENABLE == 0
            && let Some(command) = Port8::new(port)
        {
            command.write(value);
        }
    }

    /// Switches the machine off. Returns if that did not work or there is no way.
    pub fn off(&self) {
        let Some((first, second)) = self.dsdt().and_then(aml::soft_off) else {
            return;
        };
        if let Some(register) = self.fadt.sleep_control.and_then(Register8::open)
            && self.fadt.hardware_reduced
        {
            register.write((first << 2) | SLEEP_ENABLE);
            return linger();
        }
        let blocks = [
            (self.fadt.pm1a_control, first),
            (self.fadt.pm1b_control, second),
        ];
        for (block, sleep_type) in blocks {
            if let Some(control) = block.and_then(|block| port16(block, 0)) {
                let kept = control.read() & !(7 << 10);
                control.write(kept | (u16::from(sleep_type) << 10) | PM1_SLEEP_ENABLE);
            }
        }
        linger();
    }

    /// Resets the machine. Returns if that did not work or there is no way.
    pub fn reset(&self) {
        if let Some((address, value)) = self.fadt.reset
            && let Some(register) = Register8::open(address)
        {
            register.write(value);
            linger();
        }
    }
}

/// A hypervisor acts on these registers in a thread of its own: the processor goes on for a moment.
fn linger() {
    const MOMENT_NS: u64 = 500_000_000;
    let end = time::now_ns().saturating_add(MOMENT_NS);
    while time::now_ns() < end {
        core::hint::spin_loop();
    }
}

fn watch_event_device(
    device: EventDevice,
    handler: ButtonHandler,
) -> Result<IrqHandle, PowerError> {
    let register = Mmio::map(device.register, 4).map_err(|_| PowerError::NoRegisters)?;
    let on_interrupt = Box::new(move || {
        // Reading clears the events.
        if register.read32(0) & GED_POWER_DOWN != 0 {
            handler();
        }
    });
    irq::register_gsi(
        device.interrupt.gsi,
        trigger_of(device.interrupt),
        on_interrupt,
    )
    .map_err(|_| PowerError::NoInterrupt)
}

/// How an interrupt of a resource descriptor signals.
pub(crate) fn trigger_of(interrupt: Interrupt) -> Trigger {
    match (interrupt.edge, interrupt.active_low) {
        (true, _) => Trigger::Edge,
        (false, true) => Trigger::LevelLow,
        (false, false) => Trigger::LevelHigh,
    }
}
