//! Ending the machine.
//!
//! The tool learns the outcome from one line on QEMU's `isa-debugcon` at port 0xE9, then the machine is stopped by
//! what there is: `isa-debug-exit` at port 0x501, the platform's own way (set by a driver), a triple fault.

use core::fmt::{self, Write};

use crate::arch;
use crate::sync::Once;

/// Why the machine ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The program ended with this exit code.
    Exit(u8),
    /// The program died of this signal.
    Signal(u8),
    /// The kernel failed.
    Panic,
    /// A restart was asked for.
    Reboot,
}

impl ExitReason {
    /// The code for the hypervisor: the shell's convention.
    pub fn code(self) -> u8 {
        match self {
            Self::Exit(code) => code,
            Self::Signal(signal) => 128u8.wrapping_add(signal),
            Self::Panic => 255,
            Self::Reboot => 0,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Panic => f.write_str("panic"),
            Self::Reboot => f.write_str("reboot"),
        }
    }
}

static POWER_OFF: Once<fn()> = Once::new();

/// Sets the platform's way to switch off (ACPI, say), found by a driver. The first caller wins.
pub fn set_power_off(off: fn()) {
    let _ = POWER_OFF.set(off);
}

struct DebugCon;

impl Write for DebugCon {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(arch::debugcon_write);
        Ok(())
    }
}

/// Reports `reason` and ends the machine.
pub fn exit(reason: ExitReason) -> ! {
    let _ = writeln!(DebugCon, "{reason}");
    if reason == ExitReason::Reboot {
        reset();
    }
    arch::debug_exit(reason.code());
    if let Some(off) = POWER_OFF.get() {
        off();
    }
    reset()
}

/// Restarts the machine (under QEMU's `-no-reboot`: ends it).
pub fn reset() -> ! {
    arch::reset()
}
