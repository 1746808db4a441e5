//! Signals that files raise: `SIGPIPE`, `SIGIO`, `SIGINT` of a terminal.

use alloc::sync::Arc;

use crate::signal::{SigInfo, code, send};
use crate::thread::LinuxThread;

/// The calling thread, if it is one of the program's.
pub fn current_thread() -> Option<Arc<LinuxThread>> {
    sched::current().ext::<LinuxThread>()
}

/// Raises `signal` for the calling thread, as a broken pipe does.
pub fn on_thread(signal: i32) {
    if let (Some(process), Some(thread)) = (crate::process::get(), current_thread()) {
        let info = SigInfo::from_program(signal, code::SI_USER, crate::process::PID, 0);
        // A full queue concerns real-time signals only.
        let _ = send::to_thread(process, &thread, info);
    }
}

/// Raises `signal` for the process, as a terminal does.
pub fn on_process(signal: i32) {
    if let Some(process) = crate::process::get() {
        let _ = send::to_process(process, SigInfo::kernel(signal));
    }
}
