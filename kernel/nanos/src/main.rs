//! The kernel's main: puts the parts together and starts the program; nothing else.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(not(target_os = "none"))]
fn main() {}

machine::entry!(main);

#[cfg(target_os = "none")]
fn main(boot: &'static machine::boot::BootInfo) -> ! {
    machine::println!("hello from nanos: {:?}", boot);
    machine::power::exit(machine::power::ExitReason::Exit(0))
}
