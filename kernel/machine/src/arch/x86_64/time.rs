//! The time-stamp counter as the clock, and the one-shot timer.
//!
//! The counter's frequency comes from the hypervisor or CPUID where they say it. Where they do not (QEMU's
//! emulation), it is measured against the local APIC timer, which QEMU and KVM run at 1 GHz: first over the time that
//! boot takes anyway, then better and better over the intervals between settings of the timer. No time is spent
//! waiting.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::apic;
use super::features;
use super::io::{cpuid, rdtsc};
use super::percpu::block;
use crate::boot::Hypervisor;
use crate::sync::SeqLock;
use crate::time::TscParams;

/// Words: base_tsc, base_ns, mult, shift.
static PARAMS: SeqLock<4> = SeqLock::new([0, 0, 1 << 31, 31]);
static KHZ: AtomicU64 = AtomicU64::new(0);
/// The frequency is known exactly: no measuring.
static EXACT: AtomicBool = AtomicBool::new(false);
/// Worth of the best measurement: its length in ns, less where an end is uncertain.
static BEST: AtomicU64 = AtomicU64::new(0);
static USER: AtomicBool = AtomicBool::new(false);
/// Ticks of the local APIC timer in a second.
static APIC_HZ: AtomicU64 = AtomicU64::new(1_000_000_000);
static FIRST_TSC: AtomicU64 = AtomicU64::new(0);

#[inline]
pub(crate) fn counter() -> u64 {
    rdtsc()
}

#[inline]
fn scale(ticks: u64, mult: u64, shift: u64) -> u64 {
    ((u128::from(ticks) * u128::from(mult)) >> shift) as u64
}

#[inline]
fn convert(tsc: u64, [base_tsc, base_ns, mult, shift]: [u64; 4]) -> u64 {
    // Another CPU's counter may lag a little behind the base.
    base_ns + scale(tsc.saturating_sub(base_tsc), mult, shift)
}

#[inline]
pub(crate) fn now_ns() -> u64 {
    let params = PARAMS.read();
    convert(rdtsc(), params)
}

pub(crate) fn tsc_params() -> TscParams {
    let [base_tsc, base_ns, mult, shift] = PARAMS.read();
    TscParams {
        base_tsc,
        base_ns,
        mult: mult as u32,
        shift: shift as u32,
        usable_by_user: USER.load(Relaxed),
    }
}

pub(crate) fn tsc_khz() -> u64 {
    KHZ.load(Relaxed)
}

/// Goes on from the present time at a new rate: `ticks` of the counter take `ns`.
fn set_rate(ticks: u64, ns: u64) {
    if ticks == 0 || ns == 0 {
        return;
    }
    // mult = ns * 2^shift / ticks, as large as fits 32 bits.
    let mut shift = 31u64;
    let mut mult = (u128::from(ns) << shift) / u128::from(ticks);
    while mult >= 1 << 32 {
        mult >>= 1;
        shift -= 1;
    }
    PARAMS.update(|params| {
        let tsc = rdtsc();
        *params = [tsc, convert(tsc, *params), mult as u64, shift];
    });
    KHZ.store(
        (u128::from(ticks) * 1_000_000 / u128::from(ns)) as u64,
        Relaxed,
    );
}

/// The counter's frequency in kHz from CPUID, if it says.
fn khz_from_cpuid(hypervisor: Hypervisor) -> Option<u64> {
    // Hypervisors' timing leaf (VMware's convention, also KVM's under QEMU and others).
    if hypervisor != Hypervisor::None {
        let top = cpuid(0x4000_0000, 0)[0];
        if (0x4000_0010..0x4000_0100).contains(&top) {
            let [khz, bus_khz, ..] = cpuid(0x4000_0010, 0);
            if khz != 0 {
                if bus_khz != 0 {
                    APIC_HZ.store(u64::from(bus_khz) * 1000, Relaxed);
                }
                return Some(khz.into());
            }
        }
    }
    if cpuid(0, 0)[0] >= 0x15 {
        let [denominator, numerator, crystal, _] = cpuid(0x15, 0);
        if denominator != 0 && numerator != 0 && crystal != 0 {
            if hypervisor == Hypervisor::None {
                APIC_HZ.store(crystal.into(), Relaxed);
            }
            return Some(u64::from(crystal) * u64::from(numerator) / u64::from(denominator) / 1000);
        }
    }
    None
}

/// KVM's clock gives the scale from counter to nanoseconds.
fn khz_from_kvm_clock() -> Option<u64> {
    const FEATURE_CLOCK: u32 = 1 << 3;
    if cpuid(0x4000_0001, 0)[0] & FEATURE_CLOCK == 0 {
        return None;
    }
    /// `struct pvclock_vcpu_time_info`, with room to spare: the hypervisor writes 32 bytes.
    #[repr(C, align(64))]
    struct Info {
        version: u32,
        _pad: u32,
        tsc: u64,
        system_ns: u64,
        mult: u32,
        shift: i8,
        _flags: u8,
        _pad2: [u8; 2],
    }
    static mut INFO: Info = Info {
        version: 0,
        _pad: 0,
        tsc: 0,
        system_ns: 0,
        mult: 0,
        shift: 0,
        _flags: 0,
        _pad2: [0; 2],
    };
    const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;
    let at = &raw mut INFO;
    // SAFETY: the register exists by the feature bit. KVM writes the structure (aligned, never freed) until it is
    // told to stop; it is read with volatile loads meanwhile.
    let (mult, shift) = unsafe {
        super::io::wrmsr(MSR_SYSTEM_TIME, super::heap_phys(at.cast()) | 1);
        let read = (
            (&raw const (*at).mult).read_volatile(),
            (&raw const (*at).shift).read_volatile(),
        );
        super::io::wrmsr(MSR_SYSTEM_TIME, 0);
        let _ = ((*at).version, (*at).tsc, (*at).system_ns);
        read
    };
    if mult == 0 {
        return None;
    }
    // ns = (ticks << shift) * mult >> 32, so kHz = 10^6 * 2^32 / mult >> shift.
    let khz = (1_000_000u64 << 32) / u64::from(mult);
    Some(if shift < 0 {
        khz << -shift
    } else {
        khz >> shift
    })
}

/// The counter's value when the timer was started between two readings; 0 (unknown) if they are far apart, because
/// the host took the CPU away.
fn start_if_quick(before: u64, after: u64) -> u64 {
    if after - before > 100_000 {
        0
    } else {
        before + (after - before) / 2
    }
}

/// Starts the clock: as early as possible, so that the first measurement is long. After the APIC is on.
pub(super) fn start(hypervisor: Hypervisor) {
    let tsc = rdtsc();
    FIRST_TSC.store(tsc, Relaxed);
    PARAMS.update(|params| *params = [tsc, 0, 1 << 31, 31]);
    USER.store(
        features::has_invariant_tsc() || matches!(hypervisor, Hypervisor::Tcg | Hypervisor::Kvm),
        Relaxed,
    );
    let khz = khz_from_cpuid(hypervisor)
        .or_else(|| (hypervisor == Hypervisor::Kvm).then(khz_from_kvm_clock)?);
    if let Some(khz) = khz {
        set_rate(khz, 1_000_000);
        EXACT.store(true, Relaxed);
    } else {
        let block = block();
        block.timer_armed_count.store(u32::MAX, Relaxed);
        let before = rdtsc();
        apic::timer_start(u32::MAX);
        let after = rdtsc();
        block
            .timer_armed_tsc
            .store(start_if_quick(before, after), Relaxed);
    }
}

/// Takes what the running timer of this CPU tells: `left` was read between the counter values `before` and `tsc`.
/// `expired`: its end was noticed by interrupt, somewhat late.
fn measure(left: u32, before: u64, tsc: u64, expired: bool) {
    let block = block();
    let count = block.timer_armed_count.load(Relaxed);
    let start = block.timer_armed_tsc.load(Relaxed);
    if start == 0 || tsc <= start || (left == 0 && !expired) {
        return;
    }
    // The host may have taken the CPU away in between: then the pair of readings is worth nothing.
    if (tsc - before) * 500 > tsc - start {
        return;
    }
    let ns = (u128::from(count - left) * 1_000_000_000 / u128::from(APIC_HZ.load(Relaxed))) as u64;
    let worth = if expired { ns / 32 } else { ns };
    let best = BEST.load(Relaxed);
    // At least twice as good; from 8 s on it is as good as it gets.
    if ns < 20_000 || worth / 2 < best || best > 8_000_000_000 {
        return;
    }
    BEST.store(worth, Relaxed);
    set_rate(tsc - start, ns);
    crate::time::params_changed();
}

/// Improves the calibration if it is due.
pub(crate) fn refine() {
    if EXACT.load(Relaxed) {
        return;
    }
    let on = super::irq_disable();
    let before = rdtsc();
    let left = apic::timer_left();
    measure(left, before, rdtsc(), false);
    super::irq_restore(on);
}

pub(crate) fn arm(deadline_ns: Option<u64>) {
    let on = super::irq_disable();
    let block = block();
    if features::has_tsc_deadline() {
        let tsc = deadline_ns.map_or(0, |deadline| {
            let [base_tsc, base_ns, mult, shift] = PARAMS.read();
            let ahead = u128::from(deadline.saturating_sub(base_ns)) << shift;
            base_tsc
                .saturating_add(u64::try_from(ahead / u128::from(mult)).unwrap_or(u64::MAX))
                .max(1)
        });
        apic::timer_deadline(tsc);
    } else if let Some(deadline) = deadline_ns {
        let ahead = deadline.saturating_sub(now_ns());
        let ticks = u128::from(ahead) * u128::from(APIC_HZ.load(Relaxed)) / 1_000_000_000;
        // A longer wait takes several rounds: the handler arms again.
        let count = u32::try_from(ticks).unwrap_or(u32::MAX).max(1);
        if EXACT.load(Relaxed) {
            apic::timer_start(count);
        } else {
            let before = rdtsc();
            let left = apic::timer_left();
            measure(left, before, rdtsc(), false);
            let before = rdtsc();
            apic::timer_start(count);
            let after = rdtsc();
            block.timer_armed_count.store(count, Relaxed);
            block
                .timer_armed_tsc
                .store(start_if_quick(before, after), Relaxed);
        }
    } else {
        let before = rdtsc();
        let left = apic::timer_left();
        if !EXACT.load(Relaxed) {
            measure(left, before, rdtsc(), false);
            block.timer_armed_tsc.store(0, Relaxed);
        }
        apic::timer_start(0);
    }
    super::irq_restore(on);
}

/// This CPU's timer has expired. Interrupts off.
pub(super) fn expired() {
    if !EXACT.load(Relaxed) && !features::has_tsc_deadline() {
        let block = block();
        if apic::timer_left() == 0 {
            let tsc = rdtsc();
            measure(0, tsc, tsc, true);
            block.timer_armed_tsc.store(0, Relaxed);
        }
    }
    crate::time::timer::expired();
}
