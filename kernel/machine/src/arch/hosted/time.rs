//! The host's clock.

use std::sync::LazyLock;
use std::time::Instant;

use crate::time::TscParams;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(crate) fn now_ns() -> u64 {
    START.elapsed().as_nanos() as u64
}

pub(crate) fn counter() -> u64 {
    now_ns()
}

pub(crate) fn tsc_params() -> TscParams {
    TscParams {
        base_tsc: 0,
        base_ns: 0,
        mult: 1,
        shift: 0,
        usable_by_user: false,
    }
}

pub(crate) fn tsc_khz() -> u64 {
    1_000_000
}

pub(crate) fn refine() {}

pub(crate) fn arm(_deadline_ns: Option<u64>) {}
