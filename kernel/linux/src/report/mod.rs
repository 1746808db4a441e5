//! What this room shows in the information store: threads, system calls, descriptors, mounts, memory, limits, the trace,
//! the log, the host's names. Each function makes one branch; the kernel's main hangs them into the tree.
//!
//! Nothing is read before somebody looks. What comes and goes (threads, descriptors) shows the moment it was listed in.
mod calls;
mod files;
mod limits;
mod log;
mod memory;
mod names;
pub(crate) mod threads;
mod trace;

pub use calls::branch as syscalls;
pub use files::branch as files;
pub use limits::branch as limits;
pub use log::branch as log;
pub use memory::add as memory;
pub use names::{host_name, name_servers};
pub use threads::branch as threads;
pub use trace::branch as trace;

use crate::process::{self, Process};

/// The most children of one listing that programs can make any number of. Any other is still found by its name.
const MAX_LISTED: usize = 2000;

/// What `look` finds in the process; the default before there is one.
fn with_process<T: Default>(look: impl FnOnce(&'static Process) -> T) -> T {
    process::get().map(look).unwrap_or_default()
}

#[cfg(test)]
mod tests;
