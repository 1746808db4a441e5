//! The local APIC of each CPU: end of interrupt, inter-processor interrupts, the one-shot timer. By memory (xAPIC) or,
//! where it exists, by registers (x2APIC).

use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering::Relaxed};

use super::features;
use super::io::{msr, rdmsr, relax, wrmsr};
use super::kernel_map::map_device;
use super::percpu::{block, block_of};
use crate::cpu::Ipi;

pub(super) const VECTOR_RESCHEDULE: u8 = 0xfb;
pub(super) const VECTOR_FLUSH: u8 = 0xfc;
pub(super) const VECTOR_TIMER: u8 = 0xfd;
pub(super) const VECTOR_STOP: u8 = 0xfe;
pub(super) const VECTOR_SPURIOUS: u8 = 0xff;

const ID: u32 = 0x20;
const EOI: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const ICR_LOW: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
const MODE_DEADLINE: u32 = 2 << 17;

static BASE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// 0 until known, 1 by memory, 2 by registers.
static MODE: AtomicU8 = AtomicU8::new(0);

fn x2() -> bool {
    MODE.load(Relaxed) == 2
}

fn read(register: u32) -> u32 {
    // SAFETY: registers of this CPU's APIC that exist in either form; reading them has no effect.
    unsafe {
        if x2() {
            rdmsr(0x800 + (register >> 4)) as u32
        } else {
            super::read32(BASE.load(Relaxed).add(register as usize).cast())
        }
    }
}

fn write(register: u32, value: u32) {
    // SAFETY: this module writes only what keeps interrupts going to the vectors set up for them.
    unsafe {
        if x2() {
            wrmsr(0x800 + (register >> 4), value.into());
        } else {
            super::write32(BASE.load(Relaxed).add(register as usize).cast(), value);
        }
    }
}

/// Masks the two legacy interrupt controllers, which firmware may have left delivering.
pub(super) fn silence_pics() {
    // SAFETY: their mask registers; where there are none, nothing happens.
    unsafe {
        super::out8(0x21, 0xff);
        super::out8(0xa1, 0xff);
    }
}

/// Turns this CPU's APIC on.
pub(super) fn init_cpu() {
    // SAFETY: the register exists wherever there is an APIC, and there is one in every machine supported.
    let base = unsafe { rdmsr(msr::APIC_BASE) };
    if features::has_x2apic() {
        MODE.store(2, Relaxed);
        // SAFETY: turning the APIC and its register form on.
        unsafe { wrmsr(msr::APIC_BASE, base | 1 << 11 | 1 << 10) };
    } else if MODE.swap(1, Relaxed) == 0 {
        let at = map_device(base & 0x000f_ffff_ffff_f000, 0x1000);
        BASE.store(
            at.unwrap_or_else(|| panic!("no room to map the local APIC")),
            Relaxed,
        );
    }
    write(SPURIOUS, 0x100 | u32::from(VECTOR_SPURIOUS));
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, 0x400); // NMI
    let id = read(ID);
    block()
        .lapic
        .store(if x2() { id } else { id >> 24 }, Relaxed);
    if features::has_tsc_deadline() {
        write(LVT_TIMER, MODE_DEADLINE | u32::from(VECTOR_TIMER));
    } else {
        write(TIMER_DIVIDE, 0b1011); // by 1
        write(LVT_TIMER, VECTOR_TIMER.into());
    }
}

pub(super) fn end_of_interrupt() {
    write(EOI, 0);
}

/// Sends `vector` to one CPU.
pub(super) fn send(cpu: usize, vector: u8) {
    send_command(
        block_of(cpu).lapic.load(Relaxed),
        0x4000 | u32::from(vector),
    );
}

fn send_command(target: u32, command: u32) {
    if x2() {
        // Unlike the memory form, the write to the register does not order earlier stores before it.
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        // SAFETY: sends an interrupt to vectors that are set up, or starts a CPU at code that is.
        unsafe { wrmsr(0x830, u64::from(target) << 32 | u64::from(command)) };
    } else {
        let on = super::irq_disable();
        write(ICR_HIGH, target << 24);
        write(ICR_LOW, command);
        let mut tries = 0;
        while read(ICR_LOW) & 1 << 12 != 0 && tries < 1_000_000 {
            tries += 1;
            relax();
        }
        super::irq_restore(on);
    }
}

/// Starts all other CPUs at `page` (INIT, start-up twice, as the manual wants).
pub(super) fn start_others(page: u64, wait: impl Fn(u64)) {
    const OTHERS: u32 = 3 << 18;
    send_command(0, OTHERS | 0x4500);
    wait(10_000_000);
    for _ in 0..2 {
        send_command(0, OTHERS | 0x4600 | (page >> 12) as u32);
        wait(200_000);
    }
}

/// Tells all other CPUs to stop for good: something is badly wrong.
pub(crate) fn stop_others() {
    if MODE.load(Relaxed) != 0 {
        send_command(0, 3 << 18 | 0x4000 | u32::from(VECTOR_STOP));
    }
}

pub(crate) fn kick_self() {
    block().kick.store(true, Relaxed);
}

pub(crate) fn send_ipi(cpu: usize, ipi: Ipi) {
    let Ipi::Reschedule = ipi;
    let target = block_of(cpu);
    if cpu == super::cpu_id() {
        target.kick.store(true, Relaxed);
    } else if target.online.load(core::sync::atomic::Ordering::Acquire) {
        send(cpu, VECTOR_RESCHEDULE);
    }
}

/// Starts this CPU's timer at `count` ticks; 0 stops it.
pub(super) fn timer_start(count: u32) {
    write(TIMER_INITIAL, count);
}

/// What is left of the last count.
pub(super) fn timer_left() -> u32 {
    read(TIMER_CURRENT)
}

/// Makes this CPU's timer expire when the time-stamp counter reaches `tsc`; 0 stops it.
pub(super) fn timer_deadline(tsc: u64) {
    // SAFETY: only called where the register exists.
    unsafe { wrmsr(msr::TSC_DEADLINE, tsc) };
}
