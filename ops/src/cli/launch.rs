//! From a configuration to a running machine: shared by `run` and `pkg load`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::attach::Console;
use crate::config::{Config, support};
use crate::home::Home;
use crate::hypervisor::accel::{self, Accel};
use crate::hypervisor::kernel;
use crate::hypervisor::ports::{self, Protocol};
use crate::hypervisor::qemu::{self, Backend, Fixed, Machine, Settings};
use crate::hypervisor::run::{Scratch, find_qemu, run};
use crate::hypervisor::tap;
use crate::output::note;

/// RAM unless said otherwise.
const MEMORY: &str = "2G";
/// Ports for QMP that users may connect to.
const QMP_PORTS: std::ops::Range<u16> = 40_000..50_000;

/// Checks all that can be checked before an image is built: so a slow build is not followed by a quick error.
pub fn check(home: &Home, config: &Config) -> Result<()> {
    support::check(config)?;
    let run = config.run();
    Machine::parse(run.machine.as_deref().unwrap_or("microvm"))?;
    memory(config)?;
    cpus(config)?;
    ports::check_free(&forwards(config)?)?;
    find_qemu()?;
    if config.kernel.is_some() || run.kernel.is_some() {
        kernel_file(home, config)?;
    }
    Ok(())
}

fn kernel_file(home: &Home, config: &Config) -> Result<PathBuf> {
    let run = config.run();
    let given = config.kernel.as_ref().or(run.kernel.as_ref());
    kernel::file(home, given.map(Path::new))
}

/// Boots an image in the foreground. `patch` goes over the manifest on its disk.
pub fn boot(
    home: &Home,
    config: &Config,
    image: &Path,
    mut patch: Option<Value>,
    console: Option<Console>,
) -> Result<u8> {
    let run_config = config.run();
    let scratch = Scratch::new()?;
    if let Some(console) = &console {
        console.hand_over(&mut patch);
    }
    let patch = match patch {
        Some(value) => {
            let path = scratch.path("manifest.json");
            fs::write(&path, serde_json::to_vec(&value)?)?;
            Some(path)
        }
        None => None,
    };
    let debug = run_config.debug == Some(true);
    let machine = Machine::parse(run_config.machine.as_deref().unwrap_or("microvm"))?;
    if run_config.vga == Some(true) && machine != Machine::Q35 {
        bail!("RunConfig.Vga needs --machine q35");
    }
    let settings = Settings {
        machine,
        accel: acceleration(config, debug),
        memory: memory(config)?,
        cpus: cpus(config)?,
        kernel: kernel_file(home, config)?,
        image: std::path::absolute(image)?,
        patch,
        nics: nics(config, console.as_ref().map(Console::forward))?,
        qmp: scratch.path("qmp"),
        user_qmp: match run_config.qmp {
            Some(true) => Some(free_qmp_port()?),
            _ => None,
        },
        exit: scratch.path("exit"),
        gdb_port: run_config.gdb_port.or(debug.then_some(1234)),
        wait_for_gdb: debug,
        vga: run_config.vga == Some(true),
        // The console can restart the machine.
        reboot: config.reboot_on_exit == Some(true) || console.is_some(),
    };
    if let Some(port) = settings.gdb_port {
        if forwards(config)?.iter().any(|f| f.host == port) {
            bail!("port {port} can not both be forwarded and serve the debugger");
        }
        if debug {
            note(format!(
                "waiting for a debugger: gdb -ex 'target remote :{port}'"
            ));
        }
    }
    if let Some(port) = settings.user_qmp {
        note(format!("QMP listens on 127.0.0.1:{port}"));
    }
    if run_config.verbose == Some(true) {
        let words: Vec<String> = qemu::arguments(&settings)
            .iter()
            .map(|a| quoted(&a.to_string_lossy()))
            .collect();
        note(format!("{} {}", qemu::PROGRAM, words.join(" ")));
    }
    let registered = console
        .map(|c| c.register(home, image, config))
        .transpose()?;
    let code = run(&settings)?;
    drop(registered);
    if let Some(hook) = &run_config.at_exit {
        let status = Command::new("/bin/sh").args(["-c", hook]).status();
        let status = status.with_context(|| format!("cannot run AtExit: {hook}"))?;
        if !status.success() {
            note(format!("AtExit: {hook}: {status}"));
        }
    }
    Ok(code)
}

fn acceleration(config: &Config, debug: bool) -> Accel {
    if config.run().accel == Some(false) {
        return Accel::Emulation(String::new());
    }
    if debug {
        return Accel::Emulation(String::new());
    }
    let found = accel::detect();
    if let Accel::Emulation(why) = &found {
        note(format!(
            "no KVM: {why}; running under emulation, which is slower"
        ));
    }
    found
}

/// RAM in MiB.
fn memory(config: &Config) -> Result<u64> {
    let run = config.run();
    let text = run
        .memory
        .as_deref()
        .filter(|m| !m.is_empty())
        .unwrap_or(MEMORY);
    // As in the existing tool, a bare number counts MiB, as it does for QEMU.
    let text = if text.bytes().all(|b| b.is_ascii_digit()) {
        format!("{text}M")
    } else {
        text.to_string()
    };
    let bytes = manifest::parse_size(&text)
        .with_context(|| format!("memory `{text}` is not a size: write 512M or 2G"))?;
    let mib = bytes.div_ceil(1 << 20);
    if !(8..=1 << 20).contains(&mib) {
        bail!("memory {text}: it must be from 8M to 1T");
    }
    Ok(mib)
}

fn cpus(config: &Config) -> Result<u32> {
    match config.run().cpus.unwrap_or(1) {
        0 => Ok(1),
        n @ 1..=16 => Ok(n),
        n => bail!("{n} CPUs: the kernel runs on 1 to 16"),
    }
}

/// All forwards, TCP first.
pub fn forwards(config: &Config) -> Result<Vec<ports::Forward>> {
    let run = config.run();
    let mut out = Vec::new();
    for (list, protocol) in [(run.ports, Protocol::Tcp), (run.udp_ports, Protocol::Udp)] {
        for text in list.iter().flatten() {
            out.extend(ports::parse(text, protocol)?);
        }
    }
    Ok(out)
}

fn nics(config: &Config, console: Option<ports::Forward>) -> Result<Vec<Backend>> {
    let run = config.run();
    let mut forwards = forwards(config)?;
    forwards.extend(console);
    if let Some(tap) = run.tap_name.filter(|t| !t.is_empty()) {
        if !forwards.is_empty() {
            bail!(
                "ports are not forwarded with --tapname: the program is reached at its own address"
            );
        }
        let queues = tap_queues(&tap, cpus(config)?)?;
        return Ok(vec![Backend::Tap { name: tap, queues }]);
    }
    let mut configured = run.nics.unwrap_or_default().into_iter();
    let first = configured.next().unwrap_or_default();
    let mut out = vec![Backend::User {
        forwards,
        address: fixed(
            run.ip_address.or(first.ip_address),
            run.net_mask.or(first.net_mask),
            run.gateway.or(first.gateway),
        )?,
    }];
    for nic in configured {
        out.push(Backend::User {
            forwards: Vec::new(),
            address: fixed(nic.ip_address, nic.net_mask, nic.gateway)?,
        });
    }
    Ok(out)
}

/// Queue pairs of a tap device: one for each CPU, if it can have several (`multi_queue`).
fn tap_queues(name: &str, cpus: u32) -> Result<u32> {
    Ok(match tap::multi_queue(name)? {
        // QEMU can open such a device only with several.
        Some(true) => cpus.max(2),
        Some(false) | None => 1,
    })
}

fn fixed(
    address: Option<String>,
    netmask: Option<String>,
    gateway: Option<String>,
) -> Result<Option<Fixed>> {
    let read = |what: &str, text: &str| -> Result<Ipv4Addr> {
        text.parse()
            .map_err(|_| anyhow!("{what} `{text}` is not an IPv4 address"))
    };
    let Some(address) = address.filter(|a| !a.is_empty()) else {
        return Ok(None);
    };
    let netmask = netmask.filter(|m| !m.is_empty());
    Ok(Some(Fixed {
        address: read("address", &address)?,
        netmask: read("netmask", netmask.as_deref().unwrap_or("255.255.255.0"))?,
        gateway: gateway
            .filter(|g| !g.is_empty())
            .map(|g| read("gateway", &g))
            .transpose()?,
    }))
}

fn free_qmp_port() -> Result<u16> {
    let start = QMP_PORTS.start + (std::process::id() % 10_000) as u16;
    (start..QMP_PORTS.end)
        .chain(QMP_PORTS.start..start)
        .find(|&port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .context("no port from 40000 to 49999 is free for QMP")
}

/// A word as a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The image's name and file.
pub fn image_of(home: &Home, config: &Config, default: &Path) -> Result<(String, PathBuf)> {
    let run = config.run();
    let name = match run.image_name.filter(|n| !n.is_empty()) {
        Some(name) => name,
        None => default
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .context("the program has no name to call the image by; give one with -i")?,
    };
    let path = crate::image::store::path_of(home, &name)?;
    Ok((name, path))
}

/// The smallest size of the image in bytes.
pub fn least_size(config: &Config) -> Result<u64> {
    match config.base_volume_sz.as_deref().filter(|s| !s.is_empty()) {
        None => Ok(0),
        Some(text) => manifest::parse_size(text)
            .with_context(|| format!("BaseVolumeSz `{text}` is not a size: write 100m or 2g")),
    }
}
