//! Device interrupts: vectors, the I/O APICs, messages; and what each vector calls.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::apic::{
    VECTOR_FLUSH, VECTOR_RESCHEDULE, VECTOR_SPURIOUS, VECTOR_STOP, VECTOR_TIMER, end_of_interrupt,
};
use super::kernel_map::map_device;
use super::percpu::{block, block_of};
use super::{acpi, paging, time};
use crate::irq::{Handler, IrqError, MsiMessage, Trigger, VectorInfo};
use crate::sync::{IrqLock, Once};

/// Device vectors: 32 to 0xef.
const FIRST: usize = 32;
const LAST: usize = 0xef;

/// A list of handlers that interrupts walk without a lock. Replaced as a whole.
type List = Vec<(usize, alloc::sync::Arc<Handler>)>;

struct Vector {
    list: AtomicPtr<List>,
    /// Interrupts that are walking `list` now.
    walking: AtomicU32,
    /// Interrupts so far.
    count: AtomicU64,
}

static VECTORS: [Vector; 256] = [const {
    Vector {
        list: AtomicPtr::new(core::ptr::null_mut()),
        walking: AtomicU32::new(0),
        count: AtomicU64::new(0),
    }
}; 256];

/// What is set up; the lock also orders changes to `VECTORS`.
struct Routes {
    next_id: usize,
    /// By vector: the line it serves, for lines.
    lines: Vec<(u32, u8)>,
    used: [bool; 256],
}

static ROUTES: IrqLock<Routes> = IrqLock::new(Routes {
    next_id: 1,
    lines: Vec::new(),
    used: [false; 256],
});

/// Keeps a handler registered.
#[derive(Debug)]
pub struct IrqHandle {
    vector: u8,
    id: usize,
    gsi: Option<u32>,
}

/// Replaces the list of `vector` by what `change` makes of it, and waits until no interrupt walks the old one.
fn change_list(vector: u8, change: impl FnOnce(&mut List)) -> bool {
    let slot = &VECTORS[vector as usize];
    let old = slot.list.load(Ordering::Acquire);
    let mut list = if old.is_null() {
        List::new()
    } else {
        // SAFETY: lists are only freed below, by the holder of `ROUTES`, which the caller is.
        unsafe { (*old).clone() }
    };
    change(&mut list);
    let empty = list.is_empty();
    let new = if empty {
        core::ptr::null_mut()
    } else {
        Box::into_raw(Box::new(list))
    };
    slot.list.store(new, Ordering::SeqCst);
    if !old.is_null() {
        // A handler on this CPU cannot be running: interrupts are off under the lock, and handlers do not register.
        while slot.walking.load(Ordering::SeqCst) != 0 {
            super::relax();
        }
        // SAFETY: unlinked, and nobody walks it.
        drop(unsafe { Box::from_raw(old) });
    }
    empty
}

impl Drop for IrqHandle {
    fn drop(&mut self) {
        let mut routes = ROUTES.lock();
        let empty = change_list(self.vector, |list| list.retain(|(id, _)| *id != self.id));
        if empty {
            if let Some(gsi) = self.gsi {
                mask_line(gsi);
                routes.lines.retain(|(line, _)| *line != gsi);
            }
            routes.used[self.vector as usize] = false;
        }
    }
}

fn take_vector(routes: &mut Routes) -> Result<u8, IrqError> {
    let vector = (FIRST..=LAST)
        .rev()
        .find(|&v| !routes.used[v])
        .ok_or(IrqError::NoVector)?;
    routes.used[vector] = true;
    Ok(vector as u8)
}

fn add(routes: &mut Routes, vector: u8, gsi: Option<u32>, handler: Handler) -> IrqHandle {
    let id = routes.next_id;
    routes.next_id += 1;
    change_list(vector, |list| {
        list.push((id, alloc::sync::Arc::new(handler)))
    });
    IrqHandle { vector, id, gsi }
}

pub(crate) fn register_gsi(
    gsi: u32,
    trigger: Trigger,
    handler: Handler,
) -> Result<IrqHandle, IrqError> {
    let (chip, pin) = line(gsi).ok_or(IrqError::NoSuchLine)?;
    let mut routes = ROUTES.lock();
    let known = routes
        .lines
        .iter()
        .find(|(line, _)| *line == gsi)
        .map(|(_, vector)| *vector);
    let vector = match known {
        Some(vector) => vector,
        None => take_vector(&mut routes)?,
    };
    let handle = add(&mut routes, vector, Some(gsi), handler);
    if known.is_none() {
        routes.lines.push((gsi, vector));
        chip.set(
            pin,
            vector,
            trigger,
            block_of(0).lapic.load(Ordering::Relaxed),
        );
    }
    Ok(handle)
}

pub(crate) fn isa_to_gsi(irq: u8) -> (u32, Trigger) {
    let found = acpi::madt().overrides.iter().find(|(isa, ..)| *isa == irq);
    found.map_or((irq.into(), Trigger::Edge), |&(_, gsi, trigger)| {
        (gsi, trigger)
    })
}

pub(crate) fn alloc_msi(cpu: usize, handler: Handler) -> Result<(MsiMessage, IrqHandle), IrqError> {
    let online = super::cpu_online(cpu);
    let lapic = block_of(if online { cpu } else { 0 })
        .lapic
        .load(Ordering::Relaxed);
    let mut routes = ROUTES.lock();
    let vector = take_vector(&mut routes)?;
    let handle = add(&mut routes, vector, None, handler);
    let message = MsiMessage {
        address: 0xfee0_0000 | u64::from(lapic & 0xff) << 12,
        data: vector.into(),
    };
    Ok((message, handle))
}

pub(crate) fn vectors() -> Vec<VectorInfo> {
    let routes = ROUTES.lock();
    (FIRST..=LAST)
        .filter(|&vector| routes.used[vector])
        .map(|vector| {
            let slot = &VECTORS[vector];
            let list = slot.list.load(Ordering::Acquire);
            // SAFETY: lists are only freed by the holder of `ROUTES`, which this is.
            let handlers = unsafe { list.as_ref() }.map_or(0, Vec::len);
            let line = routes
                .lines
                .iter()
                .find(|(_, of)| usize::from(*of) == vector);
            VectorInfo {
                vector: vector as u8,
                gsi: line.map(|(gsi, _)| *gsi),
                handlers,
                count: slot.count.load(Ordering::Relaxed),
            }
        })
        .collect()
}

pub(crate) fn count(cpu: usize) -> u64 {
    if cpu < crate::cpu::MAX_CPUS {
        block_of(cpu).interrupts.load(Ordering::Relaxed)
    } else {
        0
    }
}

/// An interrupt has come, on any path. Interrupts are off.
pub(super) fn dispatch(vector: u8) {
    let interrupts = &block().interrupts;
    interrupts.store(interrupts.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    match vector {
        VECTOR_SPURIOUS => return,
        VECTOR_STOP => super::io::halt_forever(),
        VECTOR_FLUSH => {
            end_of_interrupt();
            paging::serve_shootdown();
            return;
        }
        VECTOR_RESCHEDULE => {
            end_of_interrupt();
            block().kick.store(true, Ordering::Relaxed);
            crate::cpu::ipi_arrived();
            return;
        }
        VECTOR_TIMER => {
            end_of_interrupt();
            time::expired();
            return;
        }
        _ => {}
    }
    let slot = &VECTORS[vector as usize];
    slot.walking.fetch_add(1, Ordering::SeqCst);
    slot.count.fetch_add(1, Ordering::Relaxed);
    let list = slot.list.load(Ordering::SeqCst);
    if !list.is_null() {
        // SAFETY: a list is freed only after it is unlinked and `walking` has been seen zero.
        for (_, handler) in unsafe { &*list } {
            handler();
        }
    }
    slot.walking.fetch_sub(1, Ordering::SeqCst);
    end_of_interrupt();
}

/// A non-maskable interrupt: nothing sends one in normal operation.
pub(super) fn on_nmi() {
    crate::console::write_raw(b"non-maskable interrupt ignored\r\n");
}

/// One I/O APIC.
struct Chip {
    base: AtomicPtr<u8>,
    first_gsi: u32,
    pins: u32,
    lock: IrqLock<()>,
}

static CHIPS: Once<Vec<Chip>> = Once::new();

impl Chip {
    /// Selects a register and accesses its window. The lock keeps the pair together.
    fn access(&self, register: u32, value: Option<u32>) -> u32 {
        let _lock = self.lock.lock();
        let base = self.base.load(Ordering::Relaxed);
        // SAFETY: the mapped registers of an I/O APIC, written only as `set` and `mask_line` do.
        unsafe {
            super::write32(base.cast(), register);
            match value {
                Some(value) => {
                    super::write32(base.add(0x10).cast(), value);
                    value
                }
                None => super::read32(base.add(0x10).cast()),
            }
        }
    }

    fn set(&self, pin: u32, vector: u8, trigger: Trigger, lapic: u32) {
        let mode = match trigger {
            Trigger::Edge => 0,
            Trigger::LevelHigh => 1 << 15,
            Trigger::LevelLow => 1 << 15 | 1 << 13,
        };
        self.access(0x11 + pin * 2, Some(lapic << 24));
        self.access(0x10 + pin * 2, Some(mode | u32::from(vector)));
    }
}

fn chips() -> &'static [Chip] {
    CHIPS.call_once(|| {
        let mut chips = Vec::new();
        for chip in &acpi::madt().io_apics {
            let Some(base) = map_device(chip.phys & !0xfff, 0x1000) else {
                continue;
            };
            let base = base.wrapping_add((chip.phys & 0xfff) as usize);
            let mut made = Chip {
                base: AtomicPtr::new(base),
                first_gsi: chip.first_gsi,
                pins: 0,
                lock: IrqLock::new(()),
            };
            let version = made.access(1, None);
            if version == u32::MAX {
                continue;
            }
            made.pins = (version >> 16 & 0xff) + 1;
            chips.push(made);
        }
        chips
    })
}

fn line(gsi: u32) -> Option<(&'static Chip, u32)> {
    chips().iter().find_map(|chip| {
        let pin = gsi.checked_sub(chip.first_gsi)?;
        (pin < chip.pins).then_some((chip, pin))
    })
}

fn mask_line(gsi: u32) {
    if let Some((chip, pin)) = line(gsi) {
        chip.access(0x10 + pin * 2, Some(1 << 16));
    }
}

/// Physical pages of the I/O APICs.
pub(super) fn io_apic_pages() -> impl Iterator<Item = u64> {
    acpi::madt().io_apics.iter().map(|chip| chip.phys & !0xfff)
}
