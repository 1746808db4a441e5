//! The `machine` room of the kernel.
#![cfg_attr(target_os = "none", no_std)]
