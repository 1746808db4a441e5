//! What the boot loader and the hypervisor told the kernel, and the hook that starts it.

use alloc::string::String;
use alloc::vec::Vec;

pub use crate::arch::fw_cfg::FwCfg;
use crate::sync::Once;

/// What a range of physical memory is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Free for use.
    Ram,
    /// Firmware tables that may be used once read.
    AcpiReclaimable,
    /// Must not be touched or is no memory.
    Reserved,
}

/// A range of physical memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First physical address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: RegionKind,
}

/// Who runs this machine.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// None seen.
    None,
    /// Linux KVM, or one that looks like it.
    Kvm,
    /// QEMU's emulation.
    Tcg,
    /// Xen.
    Xen,
    /// Microsoft Hyper-V.
    HyperV,
    /// VMware.
    Vmware,
    /// Another, by its CPUID signature.
    Other([u8; 12]),
}

/// What is known about the machine at start.
#[derive(Debug)]
pub struct BootInfo {
    /// The kernel command line; bytes that are not UTF-8 are replaced.
    pub command_line: String,
    /// The memory map, ascending.
    pub memory: Vec<MemoryRegion>,
    /// Physical address of the ACPI root pointer.
    pub rsdp: Option<u64>,
    /// Who runs this machine.
    pub hypervisor: Hypervisor,
    /// QEMU's firmware configuration device, if there is one.
    pub fw_cfg: Option<FwCfg>,
}

static INFO: Once<BootInfo> = Once::new();

/// The boot information; `None` before it is known.
pub fn info() -> Option<&'static BootInfo> {
    INFO.get()
}

/// Sets the boot information, once. In the kernel the entry code calls it; in hosted tests a test may.
pub fn set_info(info: BootInfo) -> Result<(), BootInfo> {
    INFO.set(info)
}

/// Copies `into.len()` bytes of firmware-owned or reserved memory at `phys` (ACPI tables and the like), if the memory
/// map or the platform says that reading there is harmless. False if not.
pub fn read_firmware(phys: u64, into: &mut [u8]) -> bool {
    crate::arch::read_firmware(phys, into)
}

/// Names the function that the kernel starts with: `machine::entry!(main)` with
/// `fn main(boot: &'static machine::boot::BootInfo) -> !`. It is called on the first CPU with interrupts off, the heap
/// ready and the calling context made the first [`crate::task::Task`].
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(target_os = "none")]
        const _: () = {
            #[unsafe(no_mangle)]
            fn __nanos_main(boot: &'static $crate::boot::BootInfo) -> ! {
                const MAIN: fn(&'static $crate::boot::BootInfo) -> ! = $main;
                MAIN(boot)
            }
        };
    };
}
