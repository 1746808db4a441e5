//! The texts of `/proc/self/{status,stat,statm,limits,schedstat,syscall}`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sched::State;

use crate::limits::{RLIM_INFINITY, Resource};
use crate::process::{PARENT_PID, PID, Process};
use crate::signal::SigSet;
use crate::thread::{LinuxThread, NO_SYSCALL};

/// The unit of times in `stat` (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;
const PAGE: usize = 4096;

/// The letter and the word of a thread's state.
fn state(thread: &LinuxThread) -> (char, &'static str) {
    match thread.sched().map(|thread| thread.state()) {
        Some(State::Parked) => ('S', "sleeping"),
        Some(State::Dead) | None => ('Z', "zombie"),
        Some(_) => ('R', "running"),
    }
}

/// `status`.
pub fn status(process: &Process, thread: &LinuxThread) -> Vec<u8> {
    let (letter, word) = state(thread);
    let ids = process.credentials.lock().clone();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text += name;
        text += ":\t";
        text += value;
        text.push('\n');
    };
    line("Name", &escaped(&thread.comm_text()));
    line("Umask", &format!("{:04o}", process.fs.umask()));
    line("State", &format!("{letter} ({word})"));
    line("Tgid", &format!("{PID}"));
    line("Ngid", "0");
    line("Pid", &format!("{}", thread.tid));
    line("PPid", &format!("{PARENT_PID}"));
    line("TracerPid", "0");
    let four = |ids: &[u32; 4]| format!("{}\t{}\t{}\t{}", ids[0], ids[1], ids[2], ids[3]);
    line("Uid", &four(&ids.uid));
    line("Gid", &four(&ids.gid));
    line("FDSize", &format!("{}", process.files.capacity()));
    let groups: Vec<String> = ids.groups.iter().map(|id| format!("{id} ")).collect();
    line("Groups", &groups.concat());
    line("NStgid", &format!("{PID}"));
    line("NSpid", &format!("{}", thread.tid));
    line("NSpgid", &format!("{PID}"));
    line("NSsid", &format!("{PID}"));
    let totals = process.mm.totals();
    let peak = process.mm.peak_resident_bytes().max(totals.resident);
    let kb = |bytes: usize| format!("{:8} kB", bytes / 1024);
    for (name, value) in [
        ("VmPeak", totals.size),
        ("VmSize", totals.size),
        ("VmLck", totals.locked),
        ("VmPin", 0),
        ("VmHWM", peak),
        ("VmRSS", totals.resident),
        ("RssAnon", totals.resident),
        ("RssFile", 0),
        ("RssShmem", 0),
        ("VmData", totals.data),
        ("VmStk", totals.stack),
        ("VmExe", totals.text),
        ("VmLib", totals.library),
        ("VmPTE", 0),
        ("VmSwap", 0),
    ] {
        line(name, &kb(value));
    }
    line("CoreDumping", "0");
    line("THP_enabled", "1");
    line("Threads", &format!("{}", process.thread_count()));
    let queued = process.signals.queued();
    let limit = process.limits.soft(Resource::Sigpending);
    line("SigQ", &format!("{queued}/{limit}"));
    let (caught, ignored) = process.signals.caught_and_ignored();
    let set = |set: SigSet| format!("{:016x}", set.0);
    line("SigPnd", &set(thread.signals.pending()));
    line("ShdPnd", &set(process.signals.pending()));
    line("SigBlk", &set(thread.signals.mask()));
    line("SigIgn", &set(ignored));
    line("SigCgt", &set(caught));
    line("CapInh", &format!("{:016x}", ids.caps[2]));
    line("CapPrm", &format!("{:016x}", ids.caps[1]));
    line("CapEff", &format!("{:016x}", ids.caps[0]));
    line("CapBnd", &format!("{:016x}", crate::process::ALL_CAPS));
    line("CapAmb", "0000000000000000");
    line("NoNewPrivs", "0");
    line("Seccomp", "0");
    line("Seccomp_filters", "0");
    line("Speculation_Store_Bypass", "thread vulnerable");
    let cpus = machine::cpu::count();
    let usable: u64 = if cpus >= 64 {
        u64::MAX
    } else {
        (1 << cpus) - 1
    };
    let affinity = thread
        .sched()
        .map_or(usable, |thread| thread.affinity().0 & usable);
    line("Cpus_allowed", &format!("{affinity:x}"));
    line("Cpus_allowed_list", &ranges(affinity));
    line("Mems_allowed", "1");
    line("Mems_allowed_list", "0");
    let switches = thread.sched().map_or(0, |thread| thread.switches());
    line("voluntary_ctxt_switches", &format!("{switches}"));
    line("nonvoluntary_ctxt_switches", "0");
    text.into_bytes()
}

/// A name as `status` shows it: newline and backslash escaped.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\n', "\\n")
}

/// A set of CPUs as `0-2,5`.
fn ranges(set: u64) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut at = 0;
    while at < 64 {
        if set >> at & 1 == 0 {
            at += 1;
            continue;
        }
        let first = at;
        while at < 64 && set >> at & 1 != 0 {
            at += 1;
        }
        parts.push(if at - first == 1 {
            format!("{first}")
        } else {
            format!("{first}-{}", at - 1)
        });
    }
    parts.join(",")
}

/// `stat`: of the whole process, or of one task.
pub fn stat(process: &'static Process, thread: &LinuxThread, whole: bool) -> Vec<u8> {
    let (letter, _) = state(thread);
    let totals = process.mm.totals();
    let (user_ns, system_ns) = if whole {
        process.cpu_time_ns()
    } else {
        thread
            .sched()
            .map_or((0, 0), |thread| (thread.user_ns(), thread.system_ns()))
    };
    let nice = thread.sched().map_or(0, |thread| thread.nice());
    let cpu = thread.sched().map_or(0, |thread| thread.cpu());
    let (caught, ignored) = process.signals.caught_and_ignored();
    let (code, data, stack, brk, args, env) = {
        let layout = process.mm.layout.lock();
        (
            layout.code,
            layout.data,
            layout.stack_start,
            layout.brk_start,
            layout.args,
            layout.env,
        )
    };
    let faults = |n: usize| thread.faults[n].load(core::sync::atomic::Ordering::Relaxed);
    // proc_pid_stat(5), fields 3 to 52. The terminal is the console, 5:1.
    format!(
        "{} ({}) {letter} {PARENT_PID} {PID} {PID} 1281 {PID} 4194304 {} 0 {} 0 {} {} 0 0 {} {nice} \
         {} 0 {} {} {} {} {} {} {stack} 0 0 {} {} {} {} 0 0 0 17 {cpu} 0 0 0 0 0 {} {} {brk} {} {} \
         {} {} 0\n",
        thread.tid,
        thread.comm_text(),
        faults(0),
        faults(1),
        user_ns / TICK_NS,
        system_ns / TICK_NS,
        20 + nice,
        process.thread_count(),
        process.start_ns / TICK_NS,
        totals.size,
        totals.resident / PAGE,
        u64::MAX,
        code.0,
        code.1,
        thread.signals.pending().0 & 0x7fff_ffff,
        thread.signals.mask().0 & 0x7fff_ffff,
        ignored.0 & 0x7fff_ffff,
        caught.0 & 0x7fff_ffff,
        data.0,
        data.1,
        args.0,
        args.1,
        env.0,
        env.1,
    )
    .into_bytes()
}

/// `wchan`: the function of the kernel in which the thread waits, or `0`.
pub fn wchan(thread: &LinuxThread) -> Vec<u8> {
    let reason = crate::inspect::stacks::wait_reason(thread);
    if reason.is_empty() {
        b"0".to_vec()
    } else {
        reason.into_bytes()
    }
}

/// `stack`: the kernel's frames of the thread, innermost first. Empty while it runs on another CPU.
pub fn stack(thread: &LinuxThread) -> Vec<u8> {
    let mut text = String::new();
    let found = thread.sched().and_then(|thread| thread.backtrace());
    for address in found.iter().flat_map(|found| found.addresses()) {
        match crate::inspect::symbols::kernel(address - 1) {
            Some((name, offset)) => text += &format!("[<0>] {name}+{:#x}\n", offset + 1),
            None => text += &format!("[<0>] {address:#x}\n"),
        }
    }
    text.into_bytes()
}

/// `statm`, in pages.
pub fn statm(process: &Process) -> Vec<u8> {
    let totals = process.mm.totals();
    format!(
        "{} {} 0 {} 0 {} 0\n",
        totals.size / PAGE,
        totals.resident / PAGE,
        totals.text / PAGE,
        (totals.data + totals.stack) / PAGE,
    )
    .into_bytes()
}

/// `limits`.
pub fn limits(process: &Process) -> Vec<u8> {
    let mut text = format!(
        "{:<25} {:<20} {:<20} {:<10}\n",
        "Limit", "Soft Limit", "Hard Limit", "Units"
    );
    for (resource, name, unit) in [
        (Resource::Cpu, "Max cpu time", "seconds"),
        (Resource::Fsize, "Max file size", "bytes"),
        (Resource::Data, "Max data size", "bytes"),
        (Resource::Stack, "Max stack size", "bytes"),
        (Resource::Core, "Max core file size", "bytes"),
        (Resource::Rss, "Max resident set", "bytes"),
        (Resource::Nproc, "Max processes", "processes"),
        (Resource::Nofile, "Max open files", "files"),
        (Resource::Memlock, "Max locked memory", "bytes"),
        (Resource::As, "Max address space", "bytes"),
        (Resource::Locks, "Max file locks", "locks"),
        (Resource::Sigpending, "Max pending signals", "signals"),
        (Resource::Msgqueue, "Max msgqueue size", "bytes"),
        (Resource::Nice, "Max nice priority", ""),
        (Resource::Rtprio, "Max realtime priority", ""),
        (Resource::Rttime, "Max realtime timeout", "us"),
    ] {
        let limit = process.limits.get(resource);
        let show = |value: u64| match value {
            RLIM_INFINITY => String::from("unlimited"),
            value => format!("{value}"),
        };
        text += &format!(
            "{name:<25} {:<20} {:<20} {unit:<10}\n",
            show(limit.soft),
            show(limit.hard)
        );
    }
    text.into_bytes()
}

/// `schedstat`: time run, time waited to run, slices.
pub fn schedstat(thread: &LinuxThread) -> Vec<u8> {
    let (run, switches) = thread
        .sched()
        .map_or((0, 0), |thread| (thread.cpu_ns(), thread.switches()));
    format!("{run} 0 {switches}\n").into_bytes()
}

/// `syscall`.
pub fn syscall(thread: &LinuxThread) -> Vec<u8> {
    let (number, args) = thread.syscall();
    if number == NO_SYSCALL {
        return b"running\n".to_vec();
    }
    format!(
        "{number} {:#x} {:#x} {:#x} {:#x} {:#x} {:#x}\n",
        args[0], args[1], args[2], args[3], args[4], args[5]
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn sets_of_cpus_read_as_ranges() {
        assert_eq!(super::ranges(0), "");
        assert_eq!(super::ranges(0b10_0111), "0-2,5");
        assert_eq!(super::ranges(u64::MAX), "0-63");
    }
}
