//! `/threads`: what each thread is, does and has used.
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use sched::{State, Thread};
use store::{Branch, Leaf, Value};

use super::{MAX_LISTED, with_process};
use crate::process::Process;
use crate::syscalls::ArgKind;
use crate::syscalls::names::descriptor_text;
use crate::syscalls::table;
use crate::thread::{LinuxThread, NO_SYSCALL};

/// Kernel threads have no thread id. They are shown with their own number above the greatest one (`pid_max`).
pub(crate) const KERNEL_IDS: u64 = 4_194_304;

/// All threads, the kernel's too.
pub fn branch() -> Branch {
    Branch::new("Threads of the program and, with ids above 4194304, of the kernel.")
        .with(
            "count",
            Leaf::gauge(|| with_process(Process::thread_count) as u64)
                .metric("alive")
                .unit("threads")
                .help("Threads of the program."),
        )
        .with(
            "runnable",
            Leaf::gauge(|| sched::stats().runnable)
                .unit("threads")
                .help("Threads that run or wait for a CPU."),
        )
        .listed("thread", names, thread)
}

fn id_of(thread: &Thread) -> u64 {
    match thread.ext::<LinuxThread>() {
        Some(own) => own.tid as u64,
        None => KERNEL_IDS + thread.id(),
    }
}

fn names() -> Vec<String> {
    let mut ids: Vec<u64> = sched::threads()
        .iter()
        .filter(|thread| thread.state() != State::Dead)
        .map(|thread| id_of(thread))
        .collect();
    ids.sort_unstable();
    ids.into_iter()
        .take(MAX_LISTED)
        .map(|id| format!("{id}"))
        .collect()
}

fn find(name: &str) -> Option<(Arc<Thread>, Option<Arc<LinuxThread>>)> {
    let id: u64 = name.parse().ok()?;
    match id.checked_sub(KERNEL_IDS + 1) {
        None => {
            let own = with_process(|process| process.thread(id as i32))?;
            Some((own.sched()?, Some(own)))
        }
        Some(_) => {
            let found = sched::find(id - KERNEL_IDS)?;
            found
                .ext::<LinuxThread>()
                .is_none()
                .then_some((found, None))
        }
    }
}

fn thread(name: &str) -> Option<Branch> {
    let (thread, own) = find(name)?;
    let (cpu_ns, user_ns) = (thread.cpu_ns(), thread.user_ns());
    let (switches, cpu) = (thread.switches(), thread.cpu() as u64);
    let state = match thread.state() {
        State::Runnable => "runnable",
        State::Parked => "waiting",
        State::Dead => "ended",
    };
    let call = own.as_ref().and_then(|own| call_of(own));
    let wait = match (&call, thread.state()) {
        (Some((number, args)), State::Parked) => wait_of(*number, args),
        _ => String::new(),
    };
    let call = call.map_or(String::new(), |(number, _)| call_name(number));
    let faults = own.as_ref().map_or([0; 2], |own| {
        [0, 1].map(|n| own.faults[n].load(core::sync::atomic::Ordering::Relaxed))
    });
    let text = |value: String| Leaf::fixed(Value::String(value));
    let time = |ns, help| Leaf::fixed(Value::Duration(ns)).counter().help(help);
    let number = |value| Leaf::fixed(Value::integer(value)).no_metric();
    let name = own
        .as_ref()
        .map_or_else(|| thread.name(), |own| own.comm_text());
    Some(
        Branch::new("One thread.")
            .label("name", name.clone())
            .with("name", text(name).help("Its name."))
            .with(
                "kernel",
                Leaf::fixed(own.is_none().into())
                    .no_metric()
                    .help("Whether it is the kernel's."),
            )
            .with(
                "state",
                text(state.into()).help("runnable, waiting or ended."),
            )
            .with("cpu_ns", time(cpu_ns, "CPU time."))
            .with("user_ns", time(user_ns, "CPU time in the program's code."))
            .with(
                "system_ns",
                time(cpu_ns.saturating_sub(user_ns), "CPU time in the kernel."),
            )
            .with(
                "switches",
                number(switches)
                    .counter()
                    .help("How often it gave up a CPU."),
            )
            .with("syscall", text(call).help("The system call that it is in."))
            .with("wait", text(wait).help("What it waits for."))
            .with(
                "cpu",
                number(cpu).help("The CPU that it runs on or ran on last."),
            )
            .with("nice", nice(&thread))
            .with(
                "minor_faults",
                number(faults[0])
                    .counter()
                    .help("Page faults that needed no disk."),
            )
            .with(
                "major_faults",
                number(faults[1])
                    .counter()
                    .help("Page faults that waited for the disk."),
            ),
    )
}

/// The nice value, which can be changed.
fn nice(thread: &Arc<Thread>) -> Leaf {
    let changed = thread.clone();
    Leaf::fixed(Value::Integer(thread.nice().into()))
        .no_metric()
        .help("From -20, the most CPU time, to 19.")
        .range(-20, 19)
        .writable(
            |_| Ok(()),
            move |value| {
                let nice = value.as_integer().and_then(|nice| i32::try_from(nice).ok());
                changed.set_nice(nice.ok_or("it is no nice value")?);
                Ok(())
            },
        )
}

/// The call a thread is in, with its arguments.
fn call_of(thread: &LinuxThread) -> Option<(u64, [u64; 6])> {
    let (number, args) = thread.syscall();
    (number != NO_SYSCALL).then_some((number, args))
}

fn call_name(number: u64) -> String {
    let info = u32::try_from(number).ok().and_then(table::info);
    info.map_or_else(|| format!("{number}"), |info| info.name.into())
}

/// What a blocked call waits for: the file of its descriptor, a futex's word, or just the call.
fn wait_of(number: u64, args: &[u64; 6]) -> String {
    let Some(info) = u32::try_from(number).ok().and_then(table::info) else {
        return String::new();
    };
    match info.args.first() {
        Some((_, ArgKind::Fd)) => with_process(|process| {
            let fd = args[0] as i32;
            let file = process.files.get(fd).ok()?;
            let text = descriptor_text(process, file.as_ref());
            Some(format!(
                "descriptor {fd}, {}",
                String::from_utf8_lossy(&text)
            ))
        })
        .unwrap_or_default(),
        _ if info.name == "futex" => format!("futex {:#x}", args[0]),
        _ if info.name.contains("sleep") => "a time".into(),
        _ if info.name.contains("poll") || info.name.contains("select") => "events".into(),
        _ if info.name.contains("sig") || info.name == "pause" => "a signal".into(),
        _ => info.name.into(),
    }
}
