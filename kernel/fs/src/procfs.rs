//! /proc, as far as it tells of the machine and the kernel; what it tells of the program is added by the `linux` room.
//!
//! Formats are those of `proc(5)`: programs parse them.

use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
};
use core::fmt::Write;

use machine::{
    cpu,
    mem::{self, PAGE_SIZE},
    sync::SpinLock,
    time,
};

use crate::pseudo::Tree;

/// `PROC_SUPER_MAGIC`.
const MAGIC: u64 = 0x9fa0;

/// Makes the tree, to be mounted at /proc.
pub fn new() -> Arc<Tree> {
    let tree = Tree::new("proc", MAGIC);
    let root = tree.dir();
    root.text("cpuinfo", cpuinfo)
        .text("meminfo", meminfo)
        .text("stat", stat)
        .text("uptime", uptime)
        .text("loadavg", loadavg)
        .text("filesystems", || {
            "nodev\tproc\nnodev\tsysfs\nnodev\ttmpfs\nnodev\tdevtmpfs\nnodev\tdevpts\n\text4\n".into()
        })
        .text("cmdline", || {
            let words = machine::boot::info().map_or("", |boot| boot.command_line.as_str());
            format!("{words}\n")
        })
        .text("devices", || {
            "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n".into()
        })
        .text("swaps", || "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".into())
        .text("interrupts", interrupts)
        .text("vmstat", vmstat);
    let kernel = root.dir("sys").dir("kernel");
    kernel
        .text("pid_max", || "4194304\n".into())
        .text("cap_last_cap", || "40\n".into())
        .text("ngroups_max", || "65536\n".into())
        .text("randomize_va_space", || "2\n".into())
        .text("panic", || "0\n".into())
        .text("sched_rr_timeslice_ms", || "4\n".into())
        .text("perf_event_paranoid", || "3\n".into());
    let boot_id = uuid();
    kernel
        .dir("random")
        .text("boot_id", move || boot_id.clone())
        .text("uuid", uuid)
        .text("entropy_avail", || "256\n".into())
        .text("poolsize", || "256\n".into());
    root.dir("sys")
        .dir("vm")
        .text("overcommit_memory", || "0\n".into())
        .text("overcommit_ratio", || "50\n".into())
        .text("max_map_count", || "65530\n".into())
        .text("mmap_min_addr", || "65536\n".into())
        .text("swappiness", || "0\n".into())
        .text("nr_hugepages", || "0\n".into());
    root.dir("sys")
        .dir("fs")
        .text("file-max", || "1048576\n".into())
        .text("nr_open", || "1048576\n".into())
        .text("pipe-max-size", || "1048576\n".into());
    tree
}

/// Kilobytes of so many frames.
fn kib(frames: usize) -> usize {
    frames * (PAGE_SIZE / 1024)
}

fn cpuinfo() -> String {
    let features = cpu::features();
    let mhz = time::tsc_khz() as f64 / 1000.0;
    let mut text = String::new();
    let count = cpu::count();
    for n in 0..count {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "processor\t: {n}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\nstepping\t: {}\n\
             cpu MHz\t\t: {mhz:.3}\ncache size\t: {} KB\nphysical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {n}\n\
             cpu cores\t: {count}\napicid\t\t: {n}\ninitial apicid\t: {n}\nfpu\t\t: yes\nfpu_exception\t: yes\n\
             cpuid level\t: 13\nwp\t\t: yes\nflags\t\t: {}\nbugs\t\t:\nbogomips\t: {:.2}\nclflush size\t: {}\n\
             cache_alignment\t: {}\naddress sizes\t: {} bits physical, {} bits virtual\npower management:\n",
            features.vendor,
            features.family,
            features.model,
            features.brand,
            features.stepping,
            features.cache_kib,
            features.flags.join(" "),
            mhz * 2.0,
            features.clflush_size,
            features.clflush_size,
            features.physical_bits,
            features.virtual_bits,
        );
    }
    text
}

fn meminfo() -> String {
    let memory = mem::stats();
    let cached = crate::cache::resident_pages();
    let dirty = crate::cache::dirty_pages();
    let mut text = String::new();
    // Clean pages of the cache can be had back.
    let available = memory.free + cached.saturating_sub(dirty);
    for (name, frames) in [
        ("MemTotal", memory.total),
        ("MemFree", memory.free),
        ("MemAvailable", available),
        ("Buffers", 0),
        ("Cached", cached),
        ("SwapCached", 0),
        ("Active", cached),
        ("Inactive", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", dirty),
        ("Slab", memory.heap),
        ("CommitLimit", memory.total / 2),
    ] {
        let _ = writeln!(text, "{:<16}{:>8} kB", format!("{name}:"), kib(frames));
    }
    text.push_str(
        "HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n",
    );
    text
}

/// Hundredths of a second, the unit of /proc/stat.
fn ticks(ns: u64) -> u64 {
    ns / 10_000_000
}

fn stat() -> String {
    let stats = sched::stats();
    let mut text = String::new();
    let line = |text: &mut String, name: &str, user: u64, system: u64, idle: u64| {
        let (user, system, idle) = (ticks(user), ticks(system), ticks(idle));
        let _ = writeln!(text, "{name} {user} 0 {system} {idle} 0 0 0 0 0 0");
    };
    let sum = |part: fn(&sched::CpuTimes) -> u64| stats.cpus.iter().map(part).sum();
    let (user, system, idle) = (
        sum(|cpu| cpu.user_ns),
        sum(|cpu| cpu.system_ns),
        sum(|cpu| cpu.idle_ns),
    );
    line(&mut text, "cpu ", user, system, idle);
    for (n, cpu) in stats.cpus.iter().enumerate() {
        let name = format!("cpu{n}");
        line(&mut text, &name, cpu.user_ns, cpu.system_ns, cpu.idle_ns);
    }
    let interrupts: u64 = (0..cpu::count()).map(machine::irq::count).sum();
    let booted = time::wall_offset_ns() / 1_000_000_000;
    let _ = write!(
        text,
        "intr {interrupts}\nctxt {}\nbtime {booted}\nprocesses 1\nprocs_running {}\nprocs_blocked 0\n",
        stats.context_switches, stats.runnable,
    );
    text
}

fn uptime() -> String {
    let idle: u64 = (0..cpu::count()).map(|n| sched::cpu_times(n).idle_ns).sum();
    let hundredths = |ns: u64| format!("{}.{:02}", ns / 1_000_000_000, ns / 10_000_000 % 100);
    format!("{} {}\n", hundredths(time::now_ns()), hundredths(idle))
}

/// The load averages and when they were last brought up to date.
struct Load {
    at_ns: u64,
    averages: [f64; 3],
}

static LOAD: SpinLock<Load> = SpinLock::new(Load {
    at_ns: 0,
    averages: [0.0; 3],
});

/// One step of the average in nanoseconds (5 s, as on Linux), and what is left of the old value after it for
/// 1, 5 and 15 minutes: e^(-5/60), e^(-5/300), e^(-5/900).
const STEP_NS: u64 = 5_000_000_000;
const DECAY: [f64; 3] = [0.920_044_415, 0.983_471_454, 0.994_459_848];

/// Brings the averages up to date. Nobody samples while nobody asks: the time since the last look counts as it is now.
fn loadavg() -> String {
    let runnable = sched::stats().runnable;
    let now = time::now_ns();
    let mut load = LOAD.lock();
    // After an hour of steps nothing is left of the old value.
    let steps = (now.saturating_sub(load.at_ns) / STEP_NS).min(720);
    for (average, decay) in load.averages.iter_mut().zip(DECAY) {
        for _ in 0..steps {
            *average = *average * decay + runnable as f64 * (1.0 - decay);
        }
    }
    if steps > 0 {
        load.at_ns = now;
    }
    let [one, five, fifteen] = load.averages;
    let threads = sched::threads().len();
    format!("{one:.2} {five:.2} {fifteen:.2} {runnable}/{threads} 2\n")
}

fn interrupts() -> String {
    let mut text = String::from("    ");
    for n in 0..cpu::count() {
        let _ = write!(text, "       CPU{n}");
    }
    text.push_str("\nALL:");
    for n in 0..cpu::count() {
        let _ = write!(text, " {:>10}", machine::irq::count(n));
    }
    text.push_str("   all interrupts\n");
    text
}

fn vmstat() -> String {
    let memory = mem::stats();
    format!(
        "nr_free_pages {}\nnr_file_pages {}\nnr_dirty {}\n",
        memory.free,
        crate::cache::resident_pages(),
        crate::cache::dirty_pages()
    )
}

/// A random UUID of version 4 (RFC 9562) and a line's end.
fn uuid() -> String {
    let mut bytes = [0; 16];
    drivers::random::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    text.to_string()
}

#[cfg(test)]
mod tests {
    use std::{string::String, vec::Vec};

    use iobuf::VecSink;

    use super::new;
    use crate::{FileSystem, OpenFlags};

    fn read(path: &str) -> String {
        let mut inode = new().root();
        for name in path.split('/') {
            inode = inode.lookup(name.as_bytes()).unwrap();
        }
        let mut sink = VecSink::new(1 << 16);
        let file = inode.open(OpenFlags::empty()).unwrap().unwrap();
        file.read_at(0, &mut sink, OpenFlags::empty()).unwrap();
        String::from_utf8(sink.into_bytes()).unwrap()
    }

    #[test]
    fn the_formats_are_those_that_programs_parse() {
        let total = read("meminfo").lines().next().unwrap().to_owned();
        let words: Vec<&str> = total.split_whitespace().collect();
        assert_eq!((words[0], words[2]), ("MemTotal:", "kB"));
        assert!(words[1].parse::<u64>().unwrap() > 0);
        assert_eq!(
            read("uptime")
                .split_whitespace()
                .filter(|n| n.parse::<f64>().is_ok())
                .count(),
            2
        );
        assert_eq!(read("loadavg").split_whitespace().count(), 5);
        let stat = read("stat");
        assert_eq!(stat.lines().next().unwrap().split_whitespace().count(), 11);
        assert!(stat.contains("\nbtime "));
        let uuid = read("sys/kernel/random/uuid");
        assert_eq!((uuid.len(), &uuid[14..15]), (37, "4"));
        assert_eq!(read("sys/kernel/random/boot_id").len(), 37);
        assert!(read("cpuinfo").starts_with("processor\t: 0\n"));
    }
}
