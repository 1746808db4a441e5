//! A kernel that tests `drivers` on the devices of a real virtual machine: disks, cards, entropy, clock, serial port,
//! power button. It uses what is there, prints a line for each test and ends with `exit 0`; a failed test panics.
//! Words on its command line: `button` waits for the power button, `type` for a typed line, `load` measures,
//! `offload` expects the host side of `offload.rs`.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod disk;
#[cfg(target_os = "none")]
mod network;
#[cfg(target_os = "none")]
mod offload;
#[cfg(target_os = "none")]
mod people;

#[cfg(not(target_os = "none"))]
fn main() {}

machine::entry!(main);

#[cfg(target_os = "none")]
fn main(boot: &'static machine::boot::BootInfo) -> ! {
    sched::init();
    machine::cpu::enable_interrupts();
    machine::smp::start(|| sched::start_cpu());
    let options = sched::SpawnOptions::named("drivertest");
    if sched::spawn(options, move || run(boot)).is_err() {
        panic!("no thread");
    }
    sched::start_cpu()
}

#[cfg(target_os = "none")]
fn run(boot: &'static machine::boot::BootInfo) {
    use machine::{println, time::now_ns};

    let start = now_ns();
    let devices = drivers::probe(boot);
    let end = now_ns();
    println!(
        "drivertest: {} CPUs, {:?}, up at {} us, probe took {} us",
        machine::cpu::count(),
        boot.hypervisor,
        start / 1000,
        (end - start) / 1000
    );
    for note in &devices.notes {
        match &note.problem {
            None => println!("device: {} at {}", note.name, note.location),
            Some(problem) => println!("device: {} at {}: {problem}", note.name, note.location),
        }
    }
    let word = |wanted: &str| {
        boot.command_line
            .split_whitespace()
            .any(|word| word == wanted)
    };
    println!("clock: {:?}", drivers::rtc::read());
    for disk in &devices.blocks {
        disk::test(disk, word("load"));
    }
    for nic in &devices.nics {
        network::test(nic, word("load"), word("offload"));
    }
    for source in &devices.entropy {
        let (mut first, mut second) = ([0; 32], [0; 300]);
        assert_eq!(source.read(&mut first), Ok(()));
        assert_eq!(source.read(&mut second), Ok(()));
        assert!(first.iter().any(|&b| b != 0) && first[..] != second[..32]);
        println!("entropy: {:02x?}...", &first[..4]);
    }
    if word("type") {
        people::typed(&devices);
    }
    if word("button") {
        people::button(&devices);
    }
    println!("all passed");
    if word("off")
        && let Some(power) = &devices.power
    {
        println!("switching off");
        power.off();
        panic!("still on");
    }
    machine::power::exit(machine::power::ExitReason::Exit(0))
}
