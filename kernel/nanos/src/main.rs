//! The kernel's main: puts the parts together and starts the program; nothing else.
//!
//! The order: devices, the manifest, the root file system, the network, the program. Nothing here waits for what the
//! program does not need yet: other CPUs, addresses and randomness arrive while it starts.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports))]

extern crate alloc;

mod console;
mod disk;
mod ending;
mod environment;
mod files;
mod log;
mod network;
mod server;
mod services;
mod start;
mod store;

pub use start::StartError;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a kernel: cargo xtask build makes it for its own machine");
    std::process::exit(1);
}

#[cfg(target_os = "none")]
machine::entry!(main);

#[cfg(target_os = "none")]
fn main(boot: &'static machine::boot::BootInfo) -> ! {
    log::start();
    sched::init();
    let init = sched::spawn(sched::SpawnOptions::named("init"), move || start::run(boot));
    if let Err(error) = init {
        ending::fail(&error);
    }
    machine::smp::start(sched::start_cpu);
    sched::start_cpu()
}
