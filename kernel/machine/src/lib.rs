//! The hardware, as safe Rust: memory, CPUs, traps, interrupts, clocks, I/O.
//!
//! This is the only crate of the kernel that contains `unsafe`. Everything it exports must be sound: no safe call
//! here may corrupt memory, whatever its arguments. What is specific to a processor lives in `arch/`: `x86_64` for
//! the real machine and `hosted` for unit tests of the kernel's crates as ordinary processes on Linux.
//!
//! Policy does not live here: which thread runs next is `sched`'s, what a page fault means is `linux`'s, which
//! devices exist is `drivers`'.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(
    not(target_os = "none"),
    allow(
        dead_code,
        reason = "the hosted backend uses only a part of what is shared"
    )
)]

extern crate alloc;

mod arch;

pub mod backtrace;
pub mod boot;
pub mod console;
pub mod context;
pub mod cpu;
mod cpu_features;
pub mod dma;
pub mod inspect;
pub mod irq;
pub mod mem;
pub mod mmio;
pub mod port;
pub mod power;
pub mod random;
pub mod smp;
pub mod symbols;
pub mod sync;
pub mod task;
pub mod time;
pub mod try_lock;
pub mod user;
#[cfg(target_arch = "x86_64")]
pub mod vdso;
pub mod vm;

#[cfg(target_os = "none")]
mod panic;
