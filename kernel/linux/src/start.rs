//! Starting the program: from the boot manifest to its first instruction.
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::{LookupFlags, Namespace, OpenFlags};
use manifest::Manifest;

use crate::exec::{self, ImageFile};
use crate::mm::advice::{HugePages, set_huge_pages};
use crate::mm::layout::{Entropy, Layout, MMAP_MIN_ADDR};
use crate::mm::{AddressSpace, fault, file};
use crate::process::{self, ExitStatus, PID, Process};
use crate::run;
use crate::signal::SigSet;
use crate::thread::LinuxThread;

/// What the program needs besides the manifest.
pub struct StartOptions {
    /// All that is mounted.
    pub namespace: Arc<Namespace>,
    /// Ends the machine: flushes, unmounts, powers off. Called once, by the thread that ends the program.
    pub exit: fn(ExitStatus) -> !,
    /// Called when the process exists and before its program is loaded: opens the standard descriptors, fills `/proc`.
    pub prepare: fn(&'static Process) -> Result<()>,
}

struct Random;

impl Entropy for Random {
    fn word(&mut self) -> u64 {
        drivers::random::word()
    }
}

/// Starts the program of `manifest` on a thread of its own and returns.
///
/// # Errors
/// `ENOMEM`, `EAGAIN` when the machine has no memory for the process; `EEXIST` when there is one. What is wrong with
/// the program itself is reported by the new thread, which then ends the machine with 126 or 127, as a shell would.
pub fn start(manifest: &Manifest, options: StartOptions) -> Result<()> {
    let mut random = Random;
    let min_addr = manifest
        .mmap_min_addr
        .map_or(MMAP_MIN_ADDR, |addr| addr as usize);
    let entropy: Option<&mut dyn Entropy> = if manifest.noaslr {
        None
    } else {
        Some(&mut random)
    };
    let limits = crate::limits::Limits::new();
    let layout = Layout::new(
        entropy,
        limits.soft(crate::limits::Resource::Stack),
        min_addr,
    );
    if !manifest.transparent_hugepage {
        set_huge_pages(HugePages::Never);
    }
    crate::trace::configure(&manifest.tracing);
    crate::signal::fatal::set_core_limit(manifest.coredumplimit);
    machine::user::set_fault_handler(fault::kernel_copy_fault);
    let process = process::install(Process::new(
        AddressSpace::new(layout)?,
        options.namespace.clone(),
        options.exit,
    ))?;
    (options.prepare)(process)?;

    let path = manifest.program.clone().into_bytes();
    let mut arguments: Vec<Vec<u8>> = manifest
        .arguments
        .iter()
        .map(|text| text.clone().into_bytes())
        .collect();
    if arguments.is_empty() {
        arguments.push(path.clone());
    }
    let environment = manifest
        .environment
        .iter()
        .map(|(name, value)| alloc::format!("{name}={value}").into_bytes());
    let environment: Vec<Vec<u8>> = environment.collect();
    let random = !manifest.noaslr;

    let name = path
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or(b"program")
        .to_vec();
    let tid = process.allocate_tid()?;
    debug_assert_eq!(tid, PID, "the first thread's id is the process's");
    let thread = LinuxThread::new(tid, &name, SigSet::EMPTY);
    let spawn = sched::SpawnOptions::named(&String::from_utf8_lossy(&name));
    run::start_with(process, thread, spawn, move || {
        let mut source = Random;
        let mut bytes = [0; 16];
        drivers::random::fill(&mut bytes);
        let request = exec::Request {
            path: path.clone(),
            arguments,
            environment,
            lookup: &|name| lookup(process, name),
            entropy: if random { Some(&mut source) } else { None },
            random: bytes,
        };
        match exec::load(process, request) {
            Ok((registers, _)) => Some(registers),
            Err(errno) => {
                let line = alloc::format!("nanos: cannot start {}: {errno}\n", path.escape_ascii());
                machine::console::write(line.as_bytes());
                process.exit(ExitStatus::Code(if errno == Errno::ENOENT {
                    127
                } else {
                    126
                }))
            }
        }
    })
}

/// Opens a program file by name.
fn lookup(process: &'static Process, name: &[u8]) -> Result<(ImageFile, Vec<u8>)> {
    let root = process.fs.root();
    let dir = process.fs.cwd();
    let start = fs::Start {
        root: &root,
        dir: &dir,
        creds: &fs::Credentials::ROOT,
    };
    let how = LookupFlags::FOLLOW;
    let open = process
        .namespace
        .open(&start, name, OpenFlags::CLOEXEC, 0, how)?;
    let image = file::image_file(&open)?;
    Ok((image, file::path_of(&open)))
}
