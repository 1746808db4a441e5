//! The backend for unit tests: the kernel's crates run as an ordinary Linux process. "Physical" addresses are the
//! process's own; there are no interrupts; the program's memory is a model behind [`PageTable`].

pub(crate) mod fw_cfg;
pub mod irq;
mod memory;
mod paging;
mod process;
pub(crate) mod time;

pub(crate) use memory::*;
pub use memory::{dma_device_read, dma_device_write};
pub use paging::PageTable;
pub(crate) use paging::*;
pub use process::Task;
pub(crate) use process::*;

pub(crate) mod features {
    //! The emulated processor has no features to speak of.
    pub use crate::cpu_features::Features;

    /// What the processor can do.
    pub fn features() -> &'static Features {
        static NONE: std::sync::LazyLock<Features> = std::sync::LazyLock::new(Features::default);
        &NONE
    }
}

#[inline]
pub(crate) fn relax() {
    std::thread::yield_now();
}

pub(crate) fn device_fence() {}

pub(crate) fn is_emulated() -> bool {
    false
}

pub(crate) fn refresh_tlb() {}

pub(crate) fn early_console_write(bytes: &[u8]) {
    eprint!("{}", String::from_utf8_lossy(bytes).replace('\r', ""));
}

pub(crate) fn debugcon_write(_byte: u8) {}

pub(crate) fn debug_exit(code: u8) {
    std::process::exit(code.into());
}

pub(crate) fn reset() -> ! {
    std::process::exit(0)
}

pub(crate) fn symbol_table() -> Option<&'static [u8]> {
    None
}

pub(crate) fn frame_pointer() -> usize {
    0
}

pub(crate) fn read_frame(_frame: usize) -> Option<(usize, usize)> {
    None
}

pub(crate) fn rdrand() -> Option<u64> {
    use std::hash::{BuildHasher, Hasher};
    Some(std::hash::RandomState::new().build_hasher().finish())
}

pub(crate) fn rdseed() -> Option<u64> {
    rdrand()
}

pub(crate) fn read_firmware(_phys: u64, _into: &mut [u8]) -> bool {
    false
}
