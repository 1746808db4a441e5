//! Clocks: monotonic nanoseconds since boot, the wall clock's offset, and each CPU's one-shot timer.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::arch;
use crate::sync::Once;

/// How to turn the time-stamp counter into [`now_ns`]: `base_ns + ((tsc - base_tsc) * mult >> shift)`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TscParams {
    /// Counter value at `base_ns`.
    pub base_tsc: u64,
    /// Nanoseconds since boot at `base_tsc`.
    pub base_ns: u64,
    /// Multiplier; the product needs 128 bits once the counter is far from `base_tsc`.
    pub mult: u32,
    /// Right shift of the product.
    pub shift: u32,
    /// The program may read the counter itself: it runs at one rate on all CPUs.
    pub usable_by_user: bool,
}

/// Nanoseconds since boot. Never goes back on one CPU.
#[inline]
pub fn now_ns() -> u64 {
    arch::time::now_ns()
}

/// The present conversion. It changes as the calibration gets better: see [`set_params_hook`].
pub fn tsc_params() -> TscParams {
    arch::time::tsc_params()
}

/// Frequency of the time-stamp counter in kHz, as far as known.
pub fn tsc_khz() -> u64 {
    arch::time::tsc_khz()
}

static PARAMS_HOOK: Once<fn(TscParams)> = Once::new();

/// Sets the function called, perhaps in interrupt context, when [`tsc_params`] or [`wall_offset_ns`] change. The
/// first caller wins.
pub fn set_params_hook(hook: fn(TscParams)) {
    let _ = PARAMS_HOOK.set(hook);
}

pub(crate) fn params_changed() {
    if let Some(hook) = PARAMS_HOOK.get() {
        hook(tsc_params());
    }
}

static WALL_OFFSET: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds to add to [`now_ns`] to get the time since 1970 (UTC). 0 until [`set_wall`].
#[inline]
pub fn wall_offset_ns() -> u64 {
    WALL_OFFSET.load(Relaxed)
}

/// Nanoseconds since 1970 (UTC).
#[inline]
pub fn wall_ns() -> u64 {
    now_ns().wrapping_add(wall_offset_ns())
}

/// Sets the wall clock to `unix_ns` nanoseconds since 1970, as of now.
pub fn set_wall(unix_ns: u64) {
    WALL_OFFSET.store(unix_ns.wrapping_sub(now_ns()), Relaxed);
    params_changed();
}

/// Improves the calibration if it is due; cheap when not. `sched` calls it where a CPU has time.
pub fn refine() {
    arch::time::refine()
}

/// Each CPU's one-shot timer.
pub mod timer {
    use crate::arch;
    use crate::sync::Once;

    static HANDLER: Once<fn()> = Once::new();

    /// Sets the function called, in interrupt context, when a CPU's timer expires. The first caller wins.
    pub fn set_handler(handler: fn()) {
        let _ = HANDLER.set(handler);
    }

    #[cfg_attr(
        not(target_os = "none"),
        expect(dead_code, reason = "hosted timers are threads of sched")
    )]
    pub(crate) fn expired() {
        if let Some(handler) = HANDLER.get() {
            handler();
        }
    }

    /// Makes this CPU's timer expire at `deadline_ns` (or at once if that has passed), instead of any earlier request.
    pub fn arm(deadline_ns: u64) {
        arch::time::arm(Some(deadline_ns))
    }

    /// Forgets this CPU's request.
    pub fn disarm() {
        arch::time::arm(None)
    }
}
