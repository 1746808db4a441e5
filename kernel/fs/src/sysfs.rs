//! /sys, as far as programs look: the CPUs, huge pages.

use alloc::{format, string::String, sync::Arc};

use machine::cpu;

use crate::pseudo::Tree;

/// `SYSFS_MAGIC`.
const MAGIC: u64 = 0x6265_6572;

/// Makes the tree, to be mounted at /sys.
pub fn new() -> Arc<Tree> {
    let tree = Tree::new("sysfs", MAGIC);
    let root = tree.dir();
    let cpus = root.dir("devices").dir("system").dir("cpu");
    for name in ["online", "possible", "present"] {
        cpus.text(name, range);
    }
    cpus.text("offline", || "\n".into())
        .text("kernel_max", || format!("{}\n", cpu::MAX_CPUS - 1));
    for n in 0..cpu::count() {
        let one = cpus.dir(&format!("cpu{n}"));
        one.text("online", || "1\n".into());
        let topology = one.dir("topology");
        topology
            .text("core_id", move || format!("{n}\n"))
            .text("physical_package_id", || "0\n".into())
            .text("thread_siblings_list", move || format!("{n}\n"))
            .text("core_siblings_list", range);
    }
    let node = root.dir("devices").dir("system").dir("node");
    node.text("online", || "0\n".into())
        .text("possible", || "0\n".into());
    node.dir("node0").text("cpulist", range);
    root.dir("kernel")
        .dir("mm")
        .dir("transparent_hugepage")
        .text("enabled", || "[always] madvise never\n".into())
        .text("hpage_pmd_size", || "2097152\n".into());
    for name in [
        "block", "bus", "class", "dev", "firmware", "fs", "module", "power",
    ] {
        root.dir(name);
    }
    tree
}

/// All CPUs as a list: `0` or `0-3`.
fn range() -> String {
    match cpu::count() {
        0 | 1 => "0\n".into(),
        count => format!("0-{}\n", count - 1),
    }
}
