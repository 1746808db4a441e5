//! QEMU's firmware configuration device: named blobs from the command line of QEMU, and a few facts.

use alloc::string::String;
use alloc::vec::Vec;

use super::io::{in8, out16, out32, relax};
use super::kernel_map::phys_of;
use crate::mem::PAGE_SIZE;
use crate::sync::{Once, SpinLock};

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const DMA_HIGH: u16 = 0x514;
const DMA_LOW: u16 = 0x518;

const KEY_SIGNATURE: u16 = 0;
const KEY_ID: u16 = 1;
const KEY_CPUS: u16 = 5;
const KEY_DIRECTORY: u16 = 0x19;

/// Keeps selecting and reading together.
static LOCK: SpinLock<()> = SpinLock::new(());

struct File {
    name: String,
    key: u16,
    size: usize,
}

/// QEMU's firmware configuration device.
#[derive(Debug, Clone, Copy)]
pub struct FwCfg {
    dma: bool,
}

impl FwCfg {
    /// The device, if it is there.
    pub(super) fn find() -> Option<Self> {
        let none = Self { dma: false };
        let mut signature = [0; 4];
        none.read(KEY_SIGNATURE, &mut signature);
        if &signature != b"QEMU" {
            return None;
        }
        let mut id = [0; 4];
        none.read(KEY_ID, &mut id);
        Some(Self {
            dma: id[0] & 2 != 0,
        })
    }

    fn read(&self, key: u16, into: &mut [u8]) {
        let _lock = LOCK.lock();
        // SAFETY: the device's ports; where it does not exist, reads give ones.
        unsafe { out16(SELECTOR, key) };
        if self.dma && into.len() > 16 {
            // A page at a time: the request and the pages it names are physically contiguous.
            let mut done = 0;
            while done < into.len() {
                let at = into[done..].as_mut_ptr();
                let len = (into.len() - done).min(PAGE_SIZE - at as usize % PAGE_SIZE);
                if !dma_read(at, len) {
                    into[done..].fill(0);
                    return;
                }
                done += len;
            }
        } else {
            for byte in into {
                // SAFETY: as above.
                *byte = unsafe { in8(DATA) };
            }
        }
    }

    fn directory(&self) -> &'static [File] {
        static DIRECTORY: Once<Vec<File>> = Once::new();
        DIRECTORY.call_once(|| {
            let mut count = [0; 4];
            self.read(KEY_DIRECTORY, &mut count);
            let count = (u32::from_be_bytes(count) as usize).min(1024);
            let mut bytes = alloc::vec![0; 4 + count * 64];
            self.read(KEY_DIRECTORY, &mut bytes);
            let entries = bytes[4..].chunks_exact(64);
            entries
                .map(|e| File {
                    size: u32::from_be_bytes([e[0], e[1], e[2], e[3]]) as usize,
                    key: u16::from_be_bytes([e[4], e[5]]),
                    name: e[8..]
                        .iter()
                        .take_while(|&&b| b != 0)
                        .map(|&b| b as char)
                        .collect(),
                })
                .collect()
        })
    }

    /// The content of the file `name`, as given by QEMU's `-fw_cfg name=…`.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.directory().iter().find(|file| file.name == name)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(file.size).ok()?;
        bytes.resize(file.size, 0);
        self.read(file.key, &mut bytes);
        Some(bytes)
    }

    /// Names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.directory().iter().map(|file| file.name.as_str())
    }

    /// Number of CPUs at start.
    pub(super) fn cpu_count(&self) -> usize {
        let mut count = [0; 2];
        self.read(KEY_CPUS, &mut count);
        u16::from_le_bytes(count).into()
    }
}

/// Reads on from the selected item by DMA. False if the device reports an error.
fn dma_read(into: *mut u8, len: usize) -> bool {
    /// `FWCfgDmaAccess`, big-endian.
    #[repr(C, align(16))]
    struct Request {
        control: u32,
        len: u32,
        address: u64,
    }
    let request = Request {
        control: 2u32.to_be(),
        len: (len as u32).to_be(),
        address: phys_of(into).to_be(),
    };
    let at = phys_of((&raw const request).cast());
    // SAFETY: the device writes `len` bytes at `into`, which do not cross a page and are borrowed by the caller, and
    // the control word of the request; it is done when that is zero or an error.
    unsafe {
        out32(DMA_HIGH, ((at >> 32) as u32).to_be());
        out32(DMA_LOW, (at as u32).to_be());
        loop {
            let control = u32::from_be((&raw const request.control).read_volatile());
            if control & !1 == 0 {
                core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
                return control == 0;
            }
            relax();
        }
    }
}
