//! From the machine to the program, step by step, and what can be wrong on the way.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use drivers::{Devices, IoError};
use errno::Errno;
use linux::StartOptions;
use machine::boot::BootInfo;
use manifest::Manifest;

use crate::{console, disk, ending, files, log, network, server, store};

/// Why the program could not be started.
#[derive(Debug)]
pub enum StartError {
    /// There is no disk.
    NoDisk,
    /// No disk has a manifest.
    NoManifest,
    /// The manifest's partition could not be read.
    Disk(IoError),
    /// It holds something else.
    ManifestPartition(manifest::partition::PartitionError),
    /// The manifest is wrong.
    Manifest(manifest::Error),
    /// The root file system could not be mounted.
    Root(Errno),
    /// One of the kernel's own file systems could not be mounted.
    Mount(&'static str, Errno),
    /// There is no memory for the process.
    Process(Errno),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoDisk => {
                f.write_str("there is no disk: give the machine a virtio block device")
            }
            StartError::NoManifest => {
                f.write_str("no disk has a boot manifest: is it an image made by `ops build`?")
            }
            StartError::Disk(error) => write!(f, "the disk could not be read: {error}"),
            StartError::ManifestPartition(error) => {
                write!(f, "the manifest partition is damaged: {error}")
            }
            StartError::Manifest(error) => write!(f, "{error}"),
            StartError::Root(error) => {
                write!(f, "the root file system could not be mounted: {error}")
            }
            StartError::Mount(place, error) => write!(f, "{place} could not be mounted: {error}"),
            StartError::Process(error) => write!(f, "the process could not be made: {error}"),
        }
    }
}

/// Starts the program, or says why not and ends the machine.
pub fn run(boot: &'static BootInfo) {
    if let Err(error) = start(boot) {
        ending::fail(&error);
    }
}

fn start(boot: &'static BootInfo) -> Result<(), StartError> {
    let devices = drivers::probe(boot);
    for note in &devices.notes {
        if let Some(problem) = &note.problem {
            ::log::warn!("{} at {}: {problem}", note.name, note.location);
        }
    }
    set_clock();
    let disk = disk::find(boot, &devices.blocks)?;
    let manifest = &disk.manifest;
    if let Some(level) = manifest.log_level {
        log::set_level(level);
    }
    for (key, _) in &manifest.unknown {
        ::log::warn!("the manifest's key {key:?} is not known");
    }
    name_machine(manifest);
    let namespace = files::mount(disk.root.clone(), manifest, !devices.vsocks.is_empty())?;
    if let Some(card) = devices.vsocks.first() {
        linux::socket::vsock::set_card(card.clone());
    }
    fs::cache::start_writeback().map_err(StartError::Root)?;
    gather_entropy(&devices);
    network::start(manifest, &devices.nics);
    console::start(devices.uart.clone());
    ending::prepare(manifest, namespace.clone());
    if let Some(power) = &devices.power {
        ending::watch_power(power.clone());
    }
    if let Some(config) = &manifest.console {
        server::start(config, &namespace, |observer| {
            store::start(&disk, &devices, Vec::from([observer]));
            store::STORE.get().cloned()
        });
    }
    let options = StartOptions {
        namespace,
        exit: ending::exit,
        prepare: console::prepare,
    };
    linux::start(manifest, options).map_err(StartError::Process)
}

/// Sets the wall clock from the hardware's, where there is one.
fn set_clock() {
    if let Some(seconds) = drivers::rtc::read() {
        machine::time::set_wall(seconds.saturating_mul(1_000_000_000));
    }
}

fn name_machine(manifest: &Manifest) {
    linux::uts::change(|names| {
        let Manifest {
            uname, hostname, ..
        } = manifest;
        let set = |name: &mut alloc::string::String, value: &Option<alloc::string::String>| {
            if let Some(value) = value {
                name.clone_from(value);
            }
        };
        set(&mut names.sysname, &uname.sysname);
        set(&mut names.release, &uname.release);
        set(&mut names.version, &uname.version);
        set(&mut names.nodename, hostname);
    });
}

/// Mixes in what the entropy devices deliver, while the program starts.
fn gather_entropy(devices: &Devices) {
    for device in &devices.entropy {
        let device = Arc::clone(device);
        let gather = move || {
            let mut bytes = [0; 64];
            match device.read(&mut bytes) {
                Ok(()) => drivers::random::add(&bytes),
                Err(error) => ::log::warn!("the entropy device: {error}"),
            }
        };
        if let Err(error) = sched::spawn(sched::SpawnOptions::named("entropy"), gather) {
            ::log::warn!("the entropy device: {error}");
        }
    }
}
