//! The first Rust code: from the boot tables to `main`, on the first CPU.

use alloc::string::String;
use alloc::vec::Vec;

use super::kernel_map::{
    self, TablePages, image_end, in_direct_map, phys_to_virt, table_pages_needed,
};
use super::percpu::{self, block};
use super::{apic, features, fw_cfg::FwCfg, io, smp, task, time, trap};
use crate::boot::{BootInfo, Hypervisor, MemoryRegion, RegionKind};
use crate::mem::{self, FrameInfo, FrameRange, PAGE_SIZE};
use crate::symbols;
use crate::sync::Once;

/// `hvm_start_info` (Xen's `arch-x86/hvm/start_info.h`), version 1.
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    _flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    _reserved: u32,
}

/// `hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapEntry {
    addr: u64,
    size: u64,
    kind: u32,
    _reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;
/// The boot tables map this much.
const BOOT_MAPPED: u64 = 1 << 30;
const LOW: u64 = 1 << 20;
const MAX_REGIONS: usize = 64;

static SYMBOLS: Once<&'static [u8]> = Once::new();

pub(crate) fn symbol_table() -> Option<&'static [u8]> {
    SYMBOLS.get().copied()
}

unsafe extern "Rust" {
    /// Defined by [`crate::entry!`] in the kernel's main crate.
    safe fn __nanos_main(boot: &'static BootInfo) -> !;
}

/// A value in the first GiB, which the boot tables map at its physical address.
///
/// # Safety
/// On the boot tables. The bytes must be a valid `T`.
unsafe fn peek<T: Copy>(phys: u64) -> Option<T> {
    let end = phys.checked_add(size_of::<T>() as u64)?;
    // SAFETY: mapped, as checked; plain data by the caller's word.
    (phys != 0 && end <= BOOT_MAPPED).then(|| unsafe { (phys as *const T).read_unaligned() })
}

/// The memory map as given, sorted, clipped to whole pages.
struct Regions {
    list: [MemoryRegion; MAX_REGIONS],
    len: usize,
}

impl Regions {
    /// # Safety
    /// On the boot tables.
    unsafe fn read(info: &StartInfo) -> Self {
        let empty = MemoryRegion {
            start: 0,
            len: 0,
            kind: RegionKind::Reserved,
        };
        let mut regions = Self {
            list: [empty; MAX_REGIONS],
            len: 0,
        };
        for i in 0..u64::from(info.memory_map_entries).min(MAX_REGIONS as u64) {
            // SAFETY: a table of such entries, all of whose bytes are plain integers.
            let Some(entry) =
                (unsafe { peek::<MapEntry>(info.memory_map + i * size_of::<MapEntry>() as u64) })
            else {
                break;
            };
            let kind = match entry.kind {
                1 => RegionKind::Ram,
                3 => RegionKind::AcpiReclaimable,
                _ => RegionKind::Reserved,
            };
            if entry.size != 0
                && entry
                    .addr
                    .checked_add(entry.size)
                    .is_some_and(|end| end < 1 << 46)
            {
                regions.list[regions.len] = MemoryRegion {
                    start: entry.addr,
                    len: entry.size,
                    kind,
                };
                regions.len += 1;
            }
        }
        regions.list[..regions.len].sort_unstable_by_key(|r| r.start);
        regions
    }

    fn all(&self) -> &[MemoryRegion] {
        &self.list[..self.len]
    }

    /// Room for `len` bytes in RAM of the first GiB, at or above `from`.
    fn room(&self, from: u64, len: u64) -> Option<u64> {
        self.all()
            .iter()
            .filter(|r| r.kind == RegionKind::Ram)
            .find_map(|r| {
                let start = r.start.max(from).next_multiple_of(PAGE_SIZE as u64);
                (start + len <= (r.start + r.len).min(BOOT_MAPPED)).then_some(start)
            })
    }
}

/// Called by the PVH entry, once, on the boot stack and tables.
#[unsafe(no_mangle)]
extern "C" fn start_rust(start_info: u64) -> ! {
    // SAFETY: the first code to run, on one CPU, interrupts off. The order: (1) GS before anything asks which CPU this
    // is; (2) features before control registers and code patches, which need the code writable as on the boot
    // tables; (3) the memory map is read before tables and allocator take memory, and names what they must not take;
    // (4) the full tables before the allocator, whose frame table is reached through the direct map.
    let (info, regions, command_line) = unsafe {
        percpu::init(0, percpu::first_stacks());
        features::detect();
        features::init_cpu();
        trap::init();
        trap::init_cpu();

        let info: StartInfo = match peek(start_info) {
            Some(info) => info,
            None => panic!("no start information"),
        };
        assert!(
            info.magic == MAGIC && info.version >= 1,
            "not entered by PVH version 1"
        );
        let regions = Regions::read(&info);
        let command_line = info.command_line;

        // Behind the image: symbols if there are any, what the loader left, our tables, the frame table.
        let mut free = image_end();
        let header = peek::<[u8; 8]>(free).unwrap_or([0; 8]);
        let symbols_len =
            symbols::table_len(&header).filter(|len| free + *len as u64 <= BOOT_MAPPED);
        let symbols_at = free;
        free = (free + symbols_len.unwrap_or(0) as u64).next_multiple_of(PAGE_SIZE as u64);
        for at in [start_info, info.memory_map, command_line, info.modules] {
            // QEMU leaves these below 1 MiB; other loaders may not: step over them.
            if at >= free && at < free + (64 << 20) {
                free = (at + 0x1_0000).next_multiple_of(PAGE_SIZE as u64);
            }
        }
        let table_len = table_pages_needed(regions.all()) * PAGE_SIZE as u64;
        let tables = match regions.room(free, table_len) {
            Some(at) => at,
            None => panic!("no room for page tables"),
        };
        kernel_map::build(
            regions.all(),
            &mut TablePages {
                next: tables,
                end: tables + table_len,
            },
        );
        block()
            .root
            .store(kernel_map::root(), core::sync::atomic::Ordering::Relaxed);

        init_allocator(&regions, tables + table_len);
        if let Some(len) = symbols_len {
            let _ = SYMBOLS.set(core::slice::from_raw_parts(phys_to_virt(symbols_at), len));
        }
        (info, regions, command_line)
    };
    let hypervisor = features::hypervisor();
    smp::set_hypervisor(hypervisor);
    apic::silence_pics();
    apic::init_cpu();
    time::start(hypervisor);
    task::adopt();
    block()
        .online
        .store(true, core::sync::atomic::Ordering::Release);
    let boot = BootInfo {
        command_line: read_command_line(regions.all(), command_line),
        memory: regions.all().to_vec(),
        rsdp: (info.rsdp != 0).then_some(info.rsdp),
        hypervisor,
        fw_cfg: if hypervisor == Hypervisor::None {
            None
        } else {
            FwCfg::find()
        },
    };
    let _ = crate::boot::set_info(boot);
    time::refine();
    match crate::boot::info() {
        Some(boot) => __nanos_main(boot),
        None => unreachable!("it has just been set"),
    }
}

/// Gives the allocator all RAM from `free` on (and RAM before it but above 1 MiB that the image leaves).
///
/// # Safety
/// Once, on the full tables; RAM from `free` on is unused.
unsafe fn init_allocator(regions: &Regions, free: u64) {
    let ram = || regions.all().iter().filter(|r| r.kind == RegionKind::Ram);
    let end = ram().map(|r| r.start + r.len).max().unwrap_or(0) / PAGE_SIZE as u64;
    let table_len = end * size_of::<FrameInfo>() as u64;
    // In the first region that has room, at `free` or later.
    let at = ram().find_map(|r| {
        let start = r.start.max(free).next_multiple_of(PAGE_SIZE as u64);
        (start + table_len <= r.start + r.len).then_some(start)
    });
    let Some(at) = at else {
        panic!("no room for the frame table")
    };
    let table_end = (at + table_len).next_multiple_of(PAGE_SIZE as u64);
    // SAFETY: free RAM in the direct map. The entries are plain atomics, for which any bytes are valid, and the
    // allocator resets each before it looks at it.
    let table =
        unsafe { core::slice::from_raw_parts(phys_to_virt(at).cast::<FrameInfo>(), end as usize) };
    // RAM, less the first MiB (firmware, the other CPUs' start page) and what is taken: up to `free`, and the table.
    let mut parts = [FrameRange { start: 0, end: 0 }; MAX_REGIONS * 2];
    let mut count = 0;
    let image = 0x20_0000;
    for region in ram() {
        let (mut start, end) = (region.start.max(LOW), region.start + region.len);
        for (taken, upto) in [(image, free), (at, table_end)] {
            if start < upto && end > taken {
                if start < taken {
                    push(&mut parts, &mut count, start, taken);
                }
                start = upto;
            }
        }
        push(&mut parts, &mut count, start, end);
    }
    mem::init(0, table, parts.into_iter().take(count));
}

fn push(parts: &mut [FrameRange], count: &mut usize, start: u64, end: u64) {
    let page = PAGE_SIZE as u64;
    let (start, end) = (start.div_ceil(page), end / page);
    if start < end && *count < parts.len() {
        parts[*count] = FrameRange {
            start: start as u32,
            end: end as u32,
        };
        *count += 1;
    }
}

fn read_command_line(regions: &[MemoryRegion], at: u64) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while at != 0
        && bytes.len() < 4096
        && read_ram(regions, at + bytes.len() as u64, &mut byte)
        && byte[0] != 0
    {
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_ram(regions: &[MemoryRegion], phys: u64, into: &mut [u8]) -> bool {
    let len = into.len() as u64;
    // The first 2 MiB are always mapped: the first table page covers them.
    if !in_direct_map(regions, phys, len) && phys.checked_add(len).is_none_or(|end| end > LOW) {
        return false;
    }
    // SAFETY: mapped; a copy in assembly of memory that others may own.
    unsafe { io::copy(phys_to_virt(phys), into.as_mut_ptr(), into.len()) };
    true
}

pub(crate) fn read_firmware(phys: u64, into: &mut [u8]) -> bool {
    let Some(info) = crate::boot::info() else {
        return false;
    };
    if read_ram(&info.memory, phys, into) {
        return true;
    }
    let Some(end) = phys
        .checked_add(into.len() as u64)
        .filter(|&end| end < 1 << 46)
    else {
        return false;
    };
    // Reserved memory, in which firmware keeps tables: only if the map names it, so that no device is touched.
    let named = info
        .memory
        .iter()
        .any(|r| r.start <= phys && end <= r.start + r.len);
    if !named || (phys < 0xfef0_0000 && end > 0xfec0_0000) {
        return false;
    }
    let page = phys & !(PAGE_SIZE as u64 - 1);
    let Some(at) = kernel_map::map_device(page, (end - page) as usize) else {
        return false;
    };
    // SAFETY: just mapped.
    unsafe {
        io::copy(
            at.add((phys - page) as usize),
            into.as_mut_ptr(),
            into.len(),
        )
    };
    true
}

/// The caller's frame pointer and the return address in the frame at `frame`, if that lies in the kernel's memory.
pub(crate) fn read_frame(frame: usize) -> Option<(usize, usize)> {
    if !frame.is_multiple_of(8)
        || !kernel_map::is_mapped(frame)
        || !kernel_map::is_mapped(frame + 8)
    {
        return None;
    }
    // SAFETY: mapped kernel memory, aligned; plain words.
    unsafe {
        Some((
            (frame as *const usize).read_volatile(),
            (frame as *const usize).add(1).read_volatile(),
        ))
    }
}
