//! The x86-64 backend.

mod acpi;
mod apic;
mod boot;
pub mod entry;
pub(crate) mod features;
pub(crate) mod fw_cfg;
mod io;
pub mod irq;
mod kernel_map;
mod paging;
mod percpu;
mod smp;
mod task;
pub(crate) mod time;
mod trap;
mod usercopy;
mod usermode;

pub(crate) use apic::{kick_self, send_ipi, stop_others};
pub(crate) use entry::{read_firmware, read_frame, symbol_table};
pub(crate) use io::*;
pub(crate) use kernel_map::*;
pub use paging::PageTable;
#[cfg(debug_assertions)]
pub(crate) use percpu::held_locks;
pub(crate) use percpu::{cpu_id, heap_flag};
pub(crate) use smp::*;
pub use task::Task;
pub(crate) use task::*;
pub(crate) use usercopy::{copy_from_user, copy_to_user, user_cmpxchg_u32, user_load_u32};
pub(crate) use usermode::{HwState, fp_features, fp_state_size, run_user};

/// Assembler macros STAC and CLAC: three bytes of no-operation that become the instruction where SMAP exists. The
/// places are listed in section `.patch` (address, kind). Purge the macros at the end of each block that uses them.
macro_rules! smap_macros {
    () => {
        r#"
    .macro STAC
    771: .byte 0x0f, 0x1f, 0x00
    .pushsection .patch, "a"
    .quad 771b, 1
    .popsection
    .endm
    .macro CLAC
    771: .byte 0x0f, 0x1f, 0x00
    .pushsection .patch, "a"
    .quad 771b, 0
    .popsection
    .endm
"#
    };
}
use smap_macros;
