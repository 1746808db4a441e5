//! The `sched` room of the kernel.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]
