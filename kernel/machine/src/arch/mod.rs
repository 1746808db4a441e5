//! Picks the processor backend. The rest of the crate names it `arch::…` and nothing else.
//!
//! Each backend offers the same internal functions; the public modules of the crate hold what they share.

#[cfg(target_os = "none")]
mod x86_64;
#[cfg(target_os = "none")]
pub use x86_64::*;

#[cfg(not(target_os = "none"))]
mod hosted;
#[cfg(not(target_os = "none"))]
pub use hosted::*;
