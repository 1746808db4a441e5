//! What `/proc` shows of the program (`proc(5)`): `/proc/self`, its tasks and descriptors, and the
//! network's tables. What it shows of the machine is in the `fs` room.
//!
//! Formats are Linux's to the column: tools parse them.

mod descriptors;
mod mounts;
mod net_counters;
mod net_sockets;
mod network;
mod status;
mod tasks;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::Path;
use fs::pseudo::{Dir, Node};
use machine::sync::SpinLock;

use crate::process::{PID, Process};

/// Adds everything to the tree at `/proc`.
pub fn add(process: &'static Process, root: &Arc<Dir>) {
    root.link("self", || Ok(format!("{PID}").into_bytes()))
        .link("thread-self", || {
            let tid = crate::files::raise::current_thread().map_or(PID, |thread| thread.tid);
            Ok(format!("{PID}/task/{tid}").into_bytes())
        })
        .link("mounts", || Ok(b"self/mounts".to_vec()))
        .link("net", || Ok(b"self/net".to_vec()));
    root.text("locks", locks).text("version", || {
        let names = crate::uts::get();
        format!(
            "{} version {} (nanos) (rustc) {}\n",
            names.sysname, names.release, names.version
        )
    });
    let own = root.dir(&format!("{PID}"));
    process_files(process, &own);
    network::add(process, &own.dir("net"));
    settings(&root.dir("sys"));
}

fn node(make: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Node {
    Node::text(move || Ok(make()))
}

fn process_files(process: &'static Process, own: &Arc<Dir>) {
    tasks::add_common(process, own, PID);
    own.add("task", Node::Dir(tasks::directory(process)));
    own.add("fd", Node::Dir(descriptors::links(process)));
    own.add("fdinfo", Node::Dir(descriptors::infos(process)));
    let place = |name: &str, find: fn(&Process) -> Result<Path>| {
        own.add(
            name,
            Node::jump(
                move || Ok(process.fs.name_of(&find(process)?)),
                move || find(process),
            ),
        );
    };
    place("cwd", |process| Ok(process.fs.cwd()));
    place("root", |process| Ok(process.fs.root()));
    place("exe", executable);
    own.add("cmdline", node(|| image_text(|image| &image.arguments)))
        .add("environ", node(|| image_text(|image| &image.environment)))
        .add(
            "auxv",
            node(|| {
                crate::process::get()
                    .and_then(|process| process.image.get())
                    .map(|image| image.auxv.clone())
                    .unwrap_or_default()
            }),
        )
        .add("mounts", node(move || mounts::mounts(process)))
        .add("mountinfo", node(move || mounts::mountinfo(process)))
        .add("mountstats", node(move || mounts::mountstats(process)));
    let score: Arc<SpinLock<i32>> = Arc::new(SpinLock::new(0));
    let shown = score.clone();
    own.text("oom_score", || "0\n".into());
    own.setting(
        "oom_score_adj",
        move || format!("{}\n", *shown.lock()),
        move |text| {
            let value = number(text)?;
            if !(-1000..=1000).contains(&value) {
                return Err(Errno::EINVAL);
            }
            *score.lock() = value as i32;
            Ok(())
        },
    );
    own.text("cgroup", || "0::/\n".into())
        .text("loginuid", || "4294967295".into())
        .text("sessionid", || "4294967295".into())
        .text("coredump_filter", || "00000033\n".into())
        .text("uid_map", || "         0          0 4294967295\n".into())
        .text("gid_map", || "         0          0 4294967295\n".into())
        .text("setgroups", || "allow\n".into());
}

/// A decimal number as it is written to a setting.
fn number(text: &[u8]) -> Result<i64> {
    core::str::from_utf8(text)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or(Errno::EINVAL)
}

fn image_text(part: fn(&crate::process::Image) -> &Vec<Vec<u8>>) -> Vec<u8> {
    let Some(image) = crate::process::get().and_then(|process| process.image.get()) else {
        return Vec::new();
    };
    let mut text = Vec::new();
    for word in part(image) {
        text.extend_from_slice(word);
        text.push(0);
    }
    text
}

/// The place of the program's file. It was opened by its name, which may lead elsewhere by now, as
/// after an update in place; Linux would still show the old file.
fn executable(process: &Process) -> Result<Path> {
    let image = process.image.get().ok_or(Errno::ENOENT)?;
    crate::files::paths::resolve(
        process,
        crate::files::paths::AT_FDCWD,
        &image.exe,
        fs::LookupFlags::FOLLOW,
    )
}

/// `/proc/locks`.
fn locks() -> String {
    use crate::files::locks::{Kind, Owner};
    let mut text = String::new();
    for (n, ((dev, ino), lock)) in crate::files::lock_table::all().iter().enumerate() {
        let device = fs::DeviceId::from_u64(*dev);
        let (class, pid) = match lock.owner {
            Owner::Process => ("POSIX", PID),
            Owner::Description(_) => ("OFDLCK", -1),
        };
        let kind = match lock.kind {
            Kind::Shared => "READ ",
            Kind::Exclusive => "WRITE",
        };
        let end = match lock.range.end {
            u64::MAX => String::from("EOF"),
            end => format!("{}", end - 1),
        };
        text += &format!(
            "{}: {class:<6} ADVISORY  {kind} {pid} {:02x}:{:02x}:{ino} {} {end}\n",
            n + 1,
            device.major,
            device.minor,
            lock.range.start,
        );
    }
    text
}

/// The keepalive defaults of new TCP sockets.
fn keepalive() -> (u32, u32, u32) {
    crate::socket::stack().map_or((7200, 75, 9), |stack| stack.tcp_defaults().keepalive())
}

/// The settings under `/proc/sys` that belong to this room.
fn settings(sys: &Arc<Dir>) {
    sys.dir("net")
        .dir("core")
        .text("somaxconn", || {
            let limit =
                crate::socket::stack().map_or(4096, |stack| stack.config().limits.somaxconn);
            format!("{limit}\n")
        })
        .text("rmem_max", || "4194304\n".into())
        .text("wmem_max", || "4194304\n".into())
        .text("rmem_default", || "212992\n".into())
        .text("wmem_default", || "212992\n".into())
        .text("optmem_max", || "20480\n".into());
    let ipv4 = sys.dir("net").dir("ipv4");
    ipv4.text("ip_local_port_range", || {
        let (first, last) =
            crate::socket::stack().map_or((32768, 60999), |stack| stack.config().limits.port_range);
        format!("{first}\t{last}\n")
    })
    .text("ip_forward", || "0\n".into())
    .text("tcp_fin_timeout", || "60\n".into())
    .text("tcp_keepalive_time", || format!("{}\n", keepalive().0))
    .text("tcp_keepalive_intvl", || format!("{}\n", keepalive().1))
    .text("tcp_keepalive_probes", || format!("{}\n", keepalive().2))
    .text("tcp_max_syn_backlog", || "1024\n".into())
    .text("tcp_congestion_control", || {
        let name = crate::socket::stack()
            .map_or("cubic", |stack| stack.tcp_defaults().congestion().name());
        format!("{name}\n")
    })
    // As a server only, for those that ask for it.
    .text("tcp_fastopen", || "3\n".into())
    .text("tcp_ecn", || {
        let how = crate::socket::stack().map_or(2, |stack| stack.config().limits.tcp_ecn);
        format!("{how}\n")
    })
    .text("tcp_available_congestion_control", || {
        let names: Vec<&str> = net::Congestion::ALL.iter().map(|c| c.name()).collect();
        format!("{}\n", names.join(" "))
    });
    sys.dir("net")
        .dir("unix")
        .text("max_dgram_qlen", || "512\n".into());
    sys.dir("fs")
        .dir("inotify")
        .text("max_queued_events", || "16384\n".into())
        .text("max_user_instances", || "65536\n".into())
        .text("max_user_watches", || "65536\n".into());
    let kernel = sys.dir("kernel");
    let name =
        |part: fn(crate::uts::Uts) -> String| move || format!("{}\n", part(crate::uts::get()));
    kernel
        .text("ostype", name(|names| names.sysname))
        .text("osrelease", name(|names| names.release))
        .text("version", name(|names| names.version))
        .text("hostname", name(|names| names.nodename))
        .text("domainname", name(|names| names.domain))
        .text("threads-max", || {
            format!("{}\n", crate::process::MAX_THREADS)
        });
    let pty = kernel.dir("pty");
    pty.text("max", || "4096\n".into())
        .text("nr", || format!("{}\n", crate::tty::pty::numbers().len()));
}
