//! `/proc/self/task/<tid>`, and the files that a task and the process have in common.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::FileType;
use fs::pseudo::{Dir, Dynamic, Node};

use super::status;
use crate::process::Process;
use crate::thread::LinuxThread;

fn thread(process: &Process, tid: i32) -> Result<Arc<LinuxThread>> {
    process.thread(tid).ok_or(Errno::ESRCH)
}

/// Adds what `/proc/self` and each task show under the same names, of the thread `tid`.
pub fn add_common(process: &'static Process, dir: &Arc<Dir>, tid: i32) {
    let whole = tid == crate::process::PID;
    let text = |make: fn(&'static Process, &LinuxThread, bool) -> Vec<u8>| {
        Node::text(move || Ok(make(process, thread(process, tid)?.as_ref(), whole)))
    };
    dir.add("status", text(|p, t, _| status::status(p, t)))
        .add("stat", text(status::stat))
        .add("statm", text(|p, _, _| status::statm(p)))
        .add("maps", text(|p, _, _| p.mm.maps()))
        .add("smaps", text(|p, _, _| p.mm.smaps()))
        .add("limits", text(|p, _, _| status::limits(p)))
        .add("schedstat", text(|_, t, _| status::schedstat(t)))
        .add("wchan", text(|_, t, _| status::wchan(t)))
        .add("stack", text(|_, t, _| status::stack(t)))
        .add("syscall", text(|_, t, _| status::syscall(t)));
    dir.add(
        "comm",
        Node::Text {
            permissions: 0o644,
            read: Arc::new(move || {
                let mut name = thread(process, tid)?.comm();
                name.push(b'\n');
                Ok(name)
            }),
            write: Some(Arc::new(move |name| {
                let end = name.iter().position(|b| *b == b'\n').unwrap_or(name.len());
                thread(process, tid)?.set_comm(&name[..end]);
                Ok(())
            })),
        },
    );
    dir.text("personality", || "00000000\n".into());
}

struct Tasks(&'static Process);

impl Tasks {
    fn node(&self, tid: i32) -> Node {
        let dir = Dir::new();
        add_common(self.0, &dir, tid);
        Node::Dir(dir)
    }
}

impl Dynamic for Tasks {
    fn lookup(&self, name: &[u8]) -> Option<Node> {
        let tid: i32 = core::str::from_utf8(name).ok()?.parse().ok()?;
        self.0.thread(tid)?;
        Some(self.node(tid))
    }

    fn next(&self, cookie: u64) -> Option<(u64, Vec<u8>, FileType)> {
        let thread = self
            .0
            .threads()
            .into_iter()
            .find(|thread| thread.tid as u64 > cookie)?;
        Some((
            thread.tid as u64,
            format!("{}", thread.tid).into_bytes(),
            FileType::Directory,
        ))
    }
}

/// `/proc/self/task`.
pub fn directory(process: &'static Process) -> Arc<Dir> {
    Dir::dynamic(0o555, Box::new(Tasks(process)))
}
