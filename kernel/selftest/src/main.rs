//! A kernel that tests `machine` where only the real machine will do: memory, tasks, timers, several CPUs, ring 3.
//! Boots under QEMU like the real kernel, prints a line for each test and ends with `exit 0` if all passed; a failed
//! test panics. `tests/e2e` runs it with 1, 2 and 4 CPUs.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod program;
#[cfg(target_os = "none")]
mod several;
#[cfg(target_os = "none")]
mod tasks;

#[cfg(not(target_os = "none"))]
fn main() {}

machine::entry!(main);

#[cfg(target_os = "none")]
fn main(boot: &'static machine::boot::BootInfo) -> ! {
    use machine::println;

    println!(
        "selftest: {} CPUs, {:?}, up after {} us",
        machine::cpu::count(),
        boot.hypervisor,
        machine::time::now_ns() / 1000
    );
    for word in boot.command_line.split_whitespace() {
        match word {
            "exit" => machine::power::exit(machine::power::ExitReason::Exit(0)),
            "panic" => panic!("asked to"),
            "overflow" => drop(tasks::overflow(1)),
            _ => {}
        }
    }
    machine::cpu::enable_interrupts();
    let tests: &[(&str, fn())] = &[
        ("heap", memory::heap),
        ("frames", memory::frames),
        ("device memory is not RAM", memory::mmio_refuses_ram),
        ("tasks", tasks::ping_pong),
        ("timer", tasks::timer),
        ("user copies", program::copies),
        (
            "a program's system calls and faults",
            program::calls_and_faults,
        ),
        (
            "floating point follows the task",
            program::vectors_follow_the_task,
        ),
        ("a busy program is interrupted", program::interrupted),
        ("speed", program::speed),
        ("other CPUs", several::start),
        ("tasks move between CPUs", several::migrate),
        ("TLB shootdown", several::shootdown),
        ("heap on all CPUs", several::heap),
    ];
    for (name, test) in tests {
        println!("test {name} ...");
        test();
    }
    println!(
        "all passed after {} us; TSC {} kHz",
        machine::time::now_ns() / 1000,
        machine::time::tsc_khz()
    );
    machine::power::exit(machine::power::ExitReason::Exit(0))
}
