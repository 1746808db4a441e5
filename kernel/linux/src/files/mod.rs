//! Descriptors and what they refer to, beyond the files of the `fs` room: pipes, event counters,
//! timers, signals, epoll sets, change watches; advisory locks; waiting.
//!
//! The system calls on them are in `syscalls`, sockets in `socket`, terminals in `tty`.

pub mod anon;
pub mod blocking;
pub mod dirent;
pub mod epoll;
pub mod eventfd;
pub mod fifo;
pub mod handles;
pub mod inotify;
pub mod lock_table;
pub mod locks;
pub mod paths;
pub mod pipe;
pub mod pipe_content;
pub mod raise;
pub mod readiness;
pub mod ring;
pub mod sigio;
pub mod signalfd;
pub mod table;
pub mod timerfd;

use alloc::sync::Arc;

use errno::Result;
use fs::OpenFile;

pub use paths::FsContext;

use crate::limits::Resource;
use crate::process::Process;
use crate::uaccess::UserPtr;

/// The descriptor table of the process.
pub type FileTable = table::FdTable<Arc<OpenFile>>;

/// One above the highest descriptor that may be opened (`RLIMIT_NOFILE`).
pub fn descriptor_limit(process: &Process) -> usize {
    usize::try_from(process.limits.soft(Resource::Nofile)).unwrap_or(usize::MAX)
}

/// Opens the lowest free descriptor for `file`.
///
/// # Errors
/// `EMFILE`, `ENOMEM`.
pub fn install(process: &Process, file: Arc<OpenFile>, close_on_exec: bool) -> Result<usize> {
    process
        .files
        .insert(file, descriptor_limit(process), close_on_exec)
        .map(|fd| fd as usize)
}

/// Writes an `int` where an `ioctl(2)` asks for it.
///
/// # Errors
/// `EFAULT`.
pub fn put_int(arg: usize, value: i32) -> Result<usize> {
    UserPtr::<i32>::new(arg).write(&value)?;
    Ok(0)
}
