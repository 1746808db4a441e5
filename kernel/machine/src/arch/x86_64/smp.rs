//! Starting the other CPUs, and idling.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::kernel_map::{map_stack, phys_to_virt, root};
use super::percpu::{self, block, block_of};
use super::{acpi, apic, boot, features, io, paging, task, trap};
use crate::boot::Hypervisor;
use crate::cpu::MAX_CPUS;

/// Where each CPU's first stack ends, read by the start code.
#[unsafe(no_mangle)]
static mut ap_stacks: [u64; MAX_CPUS] = [0; MAX_CPUS];
/// The emergency stacks of each.
static mut AP_EMERGENCY: [[u64; 3]; MAX_CPUS] = [[0; 3]; MAX_CPUS];
static ENTRY: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn cpu_count() -> usize {
    match COUNT.load(Ordering::Relaxed) {
        0 => {
            let listed = acpi::madt().cpus;
            let count = if listed != 0 {
                listed
            } else {
                crate::boot::info()
                    .and_then(|info| info.fw_cfg.as_ref())
                    .map_or(1, |fw| fw.cpu_count())
            };
            let count = count.clamp(1, MAX_CPUS);
            COUNT.store(count, Ordering::Relaxed);
            count
        }
        count => count,
    }
}

pub(crate) fn cpu_online(cpu: usize) -> bool {
    cpu < MAX_CPUS && block_of(cpu).online.load(Ordering::Acquire)
}

pub(crate) fn start_others(entry: fn() -> !) {
    let count = cpu_count();
    if count == 1 || !ENTRY.load(Ordering::Relaxed).is_null() {
        return;
    }
    ENTRY.store(entry as *mut (), Ordering::Release);
    for cpu in 1..count {
        let size = crate::task::STACK_SIZE;
        let Some(bottom) = map_stack(size) else { break };
        // SAFETY: the other CPUs have not been started yet.
        unsafe {
            ap_stacks[cpu] = (bottom + size) as u64;
            AP_EMERGENCY[cpu] = percpu::new_stacks();
        }
    }
    // SAFETY: an atomic defined by the start code.
    unsafe { boot::ap_root.store(root(), Ordering::Relaxed) };
    let code = boot::ap_code();
    // SAFETY: a page below 1 MiB that the allocator never gets; the boot tables map it.
    unsafe { io::copy(code.as_ptr(), phys_to_virt(boot::AP_PAGE), code.len()) };
    let real = crate::boot::info().is_none_or(|info| info.hypervisor == Hypervisor::None);
    apic::start_others(boot::AP_PAGE, |ns| {
        // Hypervisors start CPUs at once; real ones need the pauses of the manual.
        let until = crate::time::now_ns() + ns;
        while real && crate::time::now_ns() < until {
            io::relax();
        }
    });
}

/// Where the other CPUs come from the start code, on the boot tables.
#[unsafe(no_mangle)]
extern "C" fn start_ap_rust(cpu: usize) -> ! {
    // SAFETY: this CPU's first steps, in the order the parts need; see `entry::start_rust` for the first CPU's.
    unsafe {
        percpu::init(cpu, AP_EMERGENCY[cpu]);
        features::init_cpu();
        trap::init_cpu();
    }
    block().root.store(root(), Ordering::Relaxed);
    apic::init_cpu();
    task::adopt();
    block().online.store(true, Ordering::Release);
    let entry = ENTRY.load(Ordering::Acquire);
    // SAFETY: stored by `start_others` from such a function.
    let entry = unsafe { core::mem::transmute::<*mut (), fn() -> !>(entry) };
    entry()
}

/// Turns interrupts on and stops until the next one, unless a kick is pending. Called with interrupts off.
pub(crate) fn halt() {
    let block = block();
    if block.kick.swap(false, Ordering::Relaxed) {
        io::irq_restore(true);
    } else {
        block.lazy.store(true, Ordering::SeqCst);
        io::sti_hlt();
        // Handlers that have run by now touch no memory of the program. Either a CPU that wants a flush sees that this
        // one is not lazy any more, or this one sees that it is stale.
        block.lazy.store(false, Ordering::SeqCst);
        if block.stale.swap(false, Ordering::SeqCst) {
            let on = io::irq_disable();
            paging::flush_all();
            io::irq_restore(on);
        }
    }
}

/// This is QEMU's emulation, which needs some things done that no processor does.
static EMULATED: AtomicBool = AtomicBool::new(false);

/// Notes, at boot, who runs this machine.
pub(super) fn set_hypervisor(hypervisor: Hypervisor) {
    EMULATED.store(hypervisor == Hypervisor::Tcg, Ordering::Relaxed);
}

pub(crate) fn is_emulated() -> bool {
    EMULATED.load(Ordering::Relaxed)
}

/// See [`crate::dma::barrier`]: after instructions that may change the interrupt flag, the emulator leaves the translated
/// code, and passes an atomic exchange on its way back.
#[inline]
pub(crate) fn device_fence() {
    if EMULATED.load(Ordering::Relaxed) {
        // SAFETY: pushes the flags and takes them back; the kernel's stack has no red zone.
        unsafe { core::arch::asm!("pushfq", "popfq") };
    }
}

pub(crate) fn refresh_tlb() {
    let on = io::irq_disable();
    paging::flush_all();
    io::irq_restore(on);
}
