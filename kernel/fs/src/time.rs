//! The wall clock, as file times use it.

use crate::Timestamp;

/// The time now. Read each time: the clock's resolution is finer than a tick, which tells changes
/// of one file in quick succession apart.
pub fn now() -> Timestamp {
    Timestamp::from_ns(machine::time::wall_ns())
}
