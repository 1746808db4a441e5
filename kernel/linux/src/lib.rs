//! The Linux ABI: one process with its memory, threads, signals, futexes, descriptors and clocks,
//! and the system calls over them.
//!
//! What a file, a socket or a device *is* lies below, in `fs`, `net` and `drivers`; this room gives
//! them to a program the way Linux does. [`start()`] begins the program; [`syscalls::table`] lists
//! every call.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod ctx;
pub mod exec;
pub mod files;
pub mod futex;
pub mod inspect;
pub mod klog;
pub mod limits;
pub mod mm;
pub mod proc;
pub mod process;
pub mod report;
mod run;
pub mod signal;
pub mod socket;
pub mod standard;
mod start;
pub mod syscalls;
pub mod thread;
pub mod time;
pub mod trace;
pub mod tty;
pub mod uaccess;
pub mod uts;

pub use errno::Errno;
pub use start::{StartOptions, start};
