//! What every system-call handler gets: the process, the calling thread and its registers.
use alloc::sync::Arc;

use machine::context::UserContext;

use crate::process::Process;
use crate::signal::SigSet;
use crate::thread::LinuxThread;

/// The context of one system call or fault of the calling thread.
pub struct Ctx<'a> {
    /// The one process.
    pub process: &'static Process,
    /// The calling thread.
    pub thread: &'a Arc<LinuxThread>,
    /// The program's registers.
    pub user: &'a mut UserContext,
}

impl Ctx<'_> {
    /// Whether a signal that is not blocked is pending, so that a call that would wait must not.
    pub fn signal_pending(&self) -> bool {
        self.thread.has_deliverable_signal(self.process)
    }

    /// Blocks exactly `mask` until the system call ends; see `ThreadSignals::set_temporary_mask`.
    pub fn set_temporary_mask(&self, mask: SigSet) {
        self.thread.signals.set_temporary_mask(mask);
        if self.signal_pending() {
            // A signal that was blocked until now must end the wait that follows.
            self.thread.kick();
        }
    }
}
