//! How a thread stops and goes on: on the machine's CPUs, or as a thread of `std` on the host.

#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
pub(crate) use kernel::{Place, current, exit, spawn};
#[cfg(target_os = "none")]
pub use kernel::{
    cond_resched, cpu_times, in_user, init, park, preempt_point, start_cpu, start_sampling, stats,
    stop_sampling, yield_now,
};

#[cfg(not(target_os = "none"))]
mod hosted;
#[cfg(not(target_os = "none"))]
pub(crate) use hosted::{Place, current, exit, spawn};
#[cfg(not(target_os = "none"))]
pub use hosted::{
    cond_resched, cpu_times, in_user, park, preempt_point, start_sampling, stats, stop_sampling,
    yield_now,
};
