//! Starting the other CPUs.

use crate::arch;

/// Starts the other CPUs without waiting for them; each runs `entry`, with interrupts off, when it is up. Once.
pub fn start(entry: fn() -> !) {
    arch::start_others(entry)
}
