//! The information store: each room's branch hung into one tree. It is built when something asks for it (the console),
//! and never otherwise.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use drivers::block::{BlockDevice, SECTOR_SIZE, Traffic};
use drivers::{Devices, Note};
use machine::mem::PAGE_SIZE;
use machine::sync::Once;
use machine::{cpu, irq, mem, time};
use manifest::Value as Json;
use net::Stack;
use store::{Branch, HIDDEN, Leaf, Node, Observer, Store, Value, is_name};

use crate::disk::BootDisk;
use crate::environment;

/// Keys of the manifest whose values are for nobody's eyes.
const SECRETS: [&str; 4] = ["token", "key", "password", "secret"];

/// The tree of this machine, once something asked for it.
pub static STORE: Once<Arc<Store>> = Once::new();

/// Builds the tree, tells `observers` of its changes, and has system calls counted from now on.
pub fn start(boot: &BootDisk, devices: &Devices, observers: Vec<Observer>) {
    let Ok(stack) = linux::socket::stack() else {
        log::error!("the information store: there is no network yet");
        return;
    };
    let mut store = build(boot, devices, stack);
    for observer in observers {
        store.observe(observer);
    }
    linux::trace::enable_stats();
    STORE.call_once(|| Arc::new(store));
}

fn build(boot: &BootDisk, devices: &Devices, stack: &Arc<Stack>) -> Store {
    static CHANGING: sched::Mutex<()> = sched::Mutex::new(());
    let exclusive = Box::new(|change: &mut dyn FnMut()| {
        let _one = CHANGING.lock();
        change();
    });
    let net = net::report::branch(stack)
        .with("hostname", linux::report::host_name())
        .with("name_servers", linux::report::name_servers());
    let root = Branch::new("All that can be looked at in this machine.")
        .with("manifest", manifest_branch(&boot.manifest.tree))
        .with("cpu", cpus())
        .with("memory", memory())
        .with("threads", linux::report::threads())
        .with("syscalls", linux::report::syscalls())
        .with("files", linux::report::files())
        .with("net", net)
        .with("devices", devices_branch(devices))
        .with("irq", interrupts())
        .with("log", linux::report::log())
        .with("trace", linux::report::trace())
        .with("limits", linux::report::limits())
        .with("time", times())
        .with("build", build_branch())
        .with("environment", environment::leaf(&boot.source));
    let mut store = Store::new(root, exclusive);
    // Nothing preempts the kernel: after so long the program goes first.
    store.pause_with(sched::cond_resched);
    store
}

/// The manifest as it was merged at boot.
fn manifest_branch(tree: &Json) -> Branch {
    let branch = Branch::new("The boot manifest as it holds for this run.").no_metrics();
    let Some(object) = tree.as_object() else {
        return branch;
    };
    let fold = |branch: Branch, (key, value): (&String, &Json)| match manifest_node(key, value) {
        Some(node) => branch.with(key.clone(), node),
        None => branch,
    };
    object.iter().fold(branch, fold)
}

/// An object is a branch if all its keys can be names of children, all else a leaf; `null` is nothing.
fn manifest_node(key: &str, value: &Json) -> Option<Node> {
    if SECRETS.contains(&key) {
        return Some(Leaf::text(|| HIDDEN).help("A secret.").into());
    }
    match value.as_object() {
        Some(object) if object.keys().all(|key| is_name(key)) => {
            let branch = Branch::new("A part of the manifest.");
            let children = object.iter();
            let children =
                children.filter_map(|(key, value)| Some((key.clone(), manifest_node(key, value)?)));
            Some(
                children
                    .fold(branch, |branch, (key, node)| branch.with(key, node))
                    .into(),
            )
        }
        _ => Some(
            Leaf::fixed(Value::from_plain_json(value)?)
                .help("A key of the manifest.")
                .into(),
        ),
    }
}

fn cpus() -> Branch {
    Branch::new("The CPUs.")
        .with(
            "count",
            Leaf::gauge(cpu::count)
                .metric("cores")
                .unit("cpus")
                .help("How many there are."),
        )
        .with(
            "model",
            Leaf::text(|| cpu::features().brand.clone()).help("What they call themselves."),
        )
        .listed(
            "cpu",
            || (0..cpu::count()).map(|n| format!("{n}")).collect(),
            one_cpu,
        )
}

fn one_cpu(name: &str) -> Option<Branch> {
    let n: usize = name.parse().ok().filter(|n| *n < cpu::count())?;
    let times = sched::cpu_times(n);
    let interrupts = irq::count(n);
    let time = |ns, help| Leaf::fixed(Value::Duration(ns)).counter().help(help);
    let count = |value: u64, unit, help| {
        Leaf::fixed(Value::integer(value))
            .counter()
            .unit(unit)
            .help(help)
    };
    Some(
        Branch::new("One CPU.")
            .with(
                "online",
                Leaf::fixed(cpu::is_online(n).into()).help("Whether it has started."),
            )
            .with(
                "user_ns",
                time(times.user_ns, "Time in the program's code."),
            )
            .with("system_ns", time(times.system_ns, "Time in the kernel."))
            .with("idle_ns", time(times.idle_ns, "Time without work."))
            .with(
                "switches",
                count(times.switches, "switches", "Switches to another thread."),
            )
            .with(
                "interrupts",
                count(interrupts, "interrupts", "Interrupts taken."),
            ),
    )
}

/// What the frames are used for. What is left over is the program's: its own pages, not those of files.
fn memory() -> Branch {
    fn bytes(frames: usize) -> u64 {
        (frames * PAGE_SIZE) as u64
    }
    let frames = |part: fn(&mem::Stats) -> usize, help| {
        Leaf::size(move || bytes(part(&mem::stats()))).help(help)
    };
    let program = || {
        let all = mem::stats();
        let others = all.free + all.heap + all.page_tables + all.stacks + all.dma;
        bytes(
            all.total
                .saturating_sub(others + fs::cache::resident_pages()),
        )
    };
    let available = || {
        let clean = fs::cache::resident_pages().saturating_sub(fs::cache::dirty_pages());
        bytes(mem::stats().free + clean)
    };
    let objects = || {
        let classes = mem::heap_classes().into_iter();
        let bytes = classes.map(|class| class.objects * class.size);
        bytes.sum::<usize>() as u64
    };
    let branch = Branch::new("Memory by use.")
        .with("total", frames(|all| all.total, "All memory."))
        .with("free", frames(|all| all.free, "Memory that nothing uses."))
        .with(
            "available",
            Leaf::size(available).help("Free memory and clean pages of files."),
        )
        .with(
            "program",
            Leaf::size(program).help("The program's own pages, not those of files."),
        )
        .with(
            "page_cache",
            Leaf::size(|| bytes(fs::cache::resident_pages())).help("Pages of files."),
        )
        .with(
            "dirty",
            Leaf::size(|| bytes(fs::cache::dirty_pages()))
                .help("Pages of files that are still to be written."),
        )
        .with("kernel_heap", frames(|all| all.heap, "The kernel's heap."))
        .with(
            "kernel_objects",
            Leaf::size(objects)
                .help("What of the kernel's heap is in use, and kept for the next use."),
        )
        .with("heap", heap())
        .with("page_tables", frames(|all| all.page_tables, "Page tables."))
        .with(
            "kernel_stacks",
            frames(|all| all.stacks, "Stacks of threads in the kernel."),
        )
        .with(
            "device_buffers",
            frames(|all| all.dma, "Buffers that devices read and write."),
        );
    linux::report::memory(branch)
}

/// The kernel's heap by size of objects.
fn heap() -> Branch {
    let all = || {
        let classes = mem::heap_classes().into_iter();
        let used = classes.filter(|class| class.frames > 0);
        used.map(|class| (format!("{}", class.size), heap_class(class)))
            .collect()
    };
    Branch::new("The kernel's heap by size of objects in bytes.").listed_at_once("size", all)
}

fn heap_class(class: mem::HeapClass) -> Branch {
    let backing = (class.frames * PAGE_SIZE) as u64;
    Branch::new("Objects of one size.")
        .with(
            "objects",
            Leaf::fixed(Value::integer(class.objects as u64))
                .unit("objects")
                .help("Those in use, and kept for the next use."),
        )
        .with(
            "backing",
            Leaf::fixed(Value::Size(backing)).help("Memory behind them."),
        )
}

fn devices_branch(devices: &Devices) -> Branch {
    let notes = devices.notes.clone();
    let blocks = devices.blocks.clone();
    let disks = move || {
        let named = blocks.iter().zip('a'..='z');
        named
            .map(|(disk, letter)| (format!("vd{letter}"), block(disk)))
            .collect()
    };
    let disks = Branch::new("Disks.").listed_at_once("device", disks);
    Branch::new("Devices.")
        .metric("")
        .with("block", disks.metric("disk"))
        .with(
            "found",
            Leaf::list(move || notes.iter().map(note).collect())
                .help("The devices that were found, and what is wrong with them."),
        )
}

fn note(note: &Note) -> Value {
    let mut entries = Vec::from([
        ("name".into(), Value::from(note.name)),
        ("location".into(), Value::text(&note.location)),
    ]);
    if let Some(problem) = &note.problem {
        entries.push(("problem".into(), Value::text(problem)));
    }
    Value::Map(entries)
}

fn block(disk: &Arc<dyn BlockDevice>) -> Branch {
    let size = disk.sector_count().saturating_mul(SECTOR_SIZE as u64);
    let branch = Branch::new("A disk.")
        .with("size", Leaf::fixed(Value::Size(size)).help("Its size."))
        .with(
            "read_only",
            Leaf::fixed(disk.read_only().into()).help("Whether writes are refused."),
        );
    if disk.traffic().is_none() {
        return branch;
    }
    let count = |part: fn(&Traffic) -> u64| {
        let disk = disk.clone();
        Leaf::count(move || disk.traffic().as_ref().map_or(0, part))
    };
    branch
        .with(
            "reads",
            count(|sum| sum.reads)
                .unit("requests")
                .help("Requests to read."),
        )
        .with(
            "read_bytes",
            count(|sum| sum.read_bytes)
                .unit("bytes")
                .help("Bytes read."),
        )
        .with(
            "writes",
            count(|sum| sum.writes)
                .unit("requests")
                .help("Requests to write."),
        )
        .with(
            "written_bytes",
            count(|sum| sum.written_bytes)
                .unit("bytes")
                .help("Bytes written."),
        )
        .with(
            "flushes",
            count(|sum| sum.flushes)
                .unit("requests")
                .help("Requests to make durable what was written."),
        )
}

fn interrupts() -> Branch {
    let all = || {
        irq::vectors()
            .into_iter()
            .map(|vector| (format!("{}", vector.vector), interrupt(&vector)))
            .collect()
    };
    Branch::new("Device interrupts by vector; what each CPU took in all stands in /cpu.")
        .listed_at_once("vector", all)
}

fn interrupt(vector: &irq::VectorInfo) -> Branch {
    let source = match vector.gsi {
        Some(gsi) => format!("line {gsi}"),
        None => String::from("message"),
    };
    Branch::new("An interrupt vector.")
        .with(
            "source",
            Leaf::fixed(source.into()).help("The line of the I/O APIC, or a message (MSI)."),
        )
        .with(
            "handlers",
            Leaf::fixed(Value::integer(vector.handlers))
                .no_metric()
                .help("How many handlers it calls."),
        )
        .with(
            "interrupts",
            Leaf::fixed(Value::integer(vector.count))
                .counter()
                .unit("interrupts")
                .help("How often it came."),
        )
}

fn times() -> Branch {
    Branch::new("Clocks.")
        .with(
            "now",
            Leaf::time(time::wall_ns)
                .metric("wall")
                .help("The time of day."),
        )
        .with(
            "uptime",
            Leaf::duration(time::now_ns).help("How long the machine has been running."),
        )
        .with(
            "boot",
            Leaf::time(time::wall_offset_ns).help("When the machine started."),
        )
        .with(
            "clock_source",
            Leaf::text(|| "tsc").help("What time is measured with: the CPU's time-stamp counter."),
        )
        .with(
            "tsc_khz",
            Leaf::gauge(time::tsc_khz)
                .unit("kilohertz")
                .no_metric()
                .help("How fast it counts."),
        )
}

fn build_branch() -> Branch {
    Branch::new("What this kernel is.")
        .with(
            "version",
            Leaf::text(|| env!("CARGO_PKG_VERSION")).help("Its version."),
        )
        .with(
            "linux",
            Leaf::text(|| linux::uts::LINUX_VERSION)
                .help("The Linux version that its interface follows."),
        )
        .with(
            "architecture",
            Leaf::text(|| linux::uts::MACHINE).help("The processor architecture."),
        )
}
