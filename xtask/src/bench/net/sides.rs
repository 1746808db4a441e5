//! The two guests behind their TAP devices, and the host: each starts the measured server or iperf3.

use super::load;
use crate::bench::guest::Guest;
use crate::bench::machine::{EMULATED, Machine, Tool, linux, nanos};
use crate::build::{self, Built};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use xshell::{Shell, cmd};

/// MiB of each guest.
const MEMORY: &str = "1024";

/// The longest a guest may take to serve.
const LIMIT: Duration = Duration::from_secs(60);

/// The measured programs, on the host.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
    server: PathBuf,
    iperf: PathBuf,
    plugin: PathBuf,
}

impl Programs {
    /// Compiles the server and the plugin.
    pub fn make(sh: &Shell) -> Result<Programs> {
        let folder = build::target_dir().join("bench/net");
        sh.create_dir(&folder)?;
        let source = build::root().join("xtask/src/bench/net");
        let (server, plugin) = (folder.join("server"), folder.join("count.so"));
        cmd!(sh, "gcc -O2 -static -o {server} {source}/server.c")
            .quiet()
            .run()?;
        cmd!(sh, "gcc -O2 -shared -fPIC -o {plugin} {source}/count.c")
            .quiet()
            .run()?;
        Ok(Programs {
            folder,
            server,
            iperf: PathBuf::from("/usr/bin/iperf3"),
            plugin,
        })
    }
}

/// How a side starts its machines.
#[derive(Debug)]
enum Kind {
    Nanos {
        tool: Tool,
        built: Built,
    },
    Linux {
        kernel: PathBuf,
        server: PathBuf,
        iperf: PathBuf,
    },
    Host {
        server: PathBuf,
    },
}

/// One of the compared.
#[derive(Debug)]
pub struct Side {
    /// For messages.
    pub name: &'static str,
    /// Where it serves.
    pub address: String,
    kind: Kind,
    folder: PathBuf,
    plugin: PathBuf,
}

/// A machine that serves.
#[derive(Debug)]
pub struct Running {
    machine: Option<Machine>,
    /// Where its instructions are counted, if they are.
    pub counter: Option<PathBuf>,
}

impl Running {
    /// Ends the machine, so that another can take its network device.
    pub fn stop(&mut self) {
        self.machine = None;
    }
}

impl Side {
    /// This kernel, started by the tool; `tap0`, 10.9.0.2.
    pub fn nanos(sh: &Shell, programs: &Programs) -> Result<Side> {
        tap(sh, "tap0", "10.9.0.1/24")?;
        let built = Built::last();
        let tool = Tool::new(&built, &programs.folder, &programs.folder);
        for (program, name) in [(&programs.server, "server"), (&programs.iperf, "iperf")] {
            let path = program.to_str().context("a path in UTF-8")?;
            let mut words = vec!["build", path, "-i", name];
            words.extend(ADDRESS);
            if name == "iperf" {
                words.extend(["-a", "-s"]);
            }
            tool.output(&words)?;
        }
        Ok(Side {
            name: "nanos",
            address: "10.9.0.2".to_owned(),
            kind: Kind::Nanos { tool, built },
            folder: programs.folder.clone(),
            plugin: programs.plugin.clone(),
        })
    }

    /// The Linux guest; `tap1`, 10.9.1.2.
    pub fn linux(sh: &Shell, programs: &Programs, guest: &Guest) -> Result<Side> {
        tap(sh, "tap1", "10.9.1.1/24")?;
        let initramfs = |program: &Path, arguments: &[&str], name: &str| {
            guest.initramfs_for_network(sh, program, arguments, "10.9.1.2/24", name)
        };
        Ok(Side {
            name: "Linux",
            address: "10.9.1.2".to_owned(),
            kind: Kind::Linux {
                kernel: guest.kernel.clone(),
                server: initramfs(&programs.server, &[], "net-server")?,
                iperf: initramfs(&programs.iperf, &["-s"], "net-iperf")?,
            },
            folder: programs.folder.clone(),
            plugin: programs.plugin.clone(),
        })
    }

    /// The host itself, over `lo`.
    pub fn host(programs: &Programs) -> Side {
        Side {
            name: "the host",
            address: "127.0.0.1".to_owned(),
            kind: Kind::Host {
                server: programs.server.clone(),
            },
            folder: programs.folder.clone(),
            plugin: programs.plugin.clone(),
        }
    }

    /// Starts the server, and waits until it answers. With `count`, the machine counts its instructions.
    pub fn start_server(&self, cpus: u32, count: Option<&str>) -> Result<Running> {
        let counter = count.map(|name| self.folder.join(format!("{name}-{}", self.name)));
        let plugin = counter
            .as_ref()
            .map(|file| format!("{},into={}", self.plugin.display(), file.display()));
        let command = match &self.kind {
            Kind::Nanos { tool, built } if plugin.is_some() => {
                let mut command = nanos(&EMULATED, &built.shipped, &tool.image("server")?, MEMORY);
                command.args(["-netdev", &netdev("tap0"), "-device"]);
                command.args(["virtio-net-device,netdev=n"]);
                command.args(["-smp", &cpus.to_string()]);
                command
            }
            Kind::Nanos { tool, .. } => nanos_by_tool(tool, "server", &self.folder, cpus)?,
            Kind::Linux { kernel, server, .. } => linux_guest(kernel, server, cpus),
            Kind::Host { server } => Command::new(server),
        };
        let mut command = command;
        if let Some(plugin) = &plugin {
            command.args(["-plugin", plugin]);
        }
        let machine = Machine::start(command)?;
        wait_until(self.name, || load::count(&self.address).is_ok())?;
        Ok(Running {
            machine: Some(machine),
            counter,
        })
    }

    /// Starts iperf3 as a server, and waits until it takes connections.
    pub fn start_iperf(&self, cpus: u32) -> Result<Running> {
        let command = match &self.kind {
            Kind::Nanos { tool, .. } => nanos_by_tool(tool, "iperf", &self.folder, cpus)?,
            Kind::Linux { kernel, iperf, .. } => linux_guest(kernel, iperf, cpus),
            Kind::Host { .. } => bail!("the host has no iperf3 of its own here"),
        };
        let machine = Machine::start(command)?;
        // A connection that says nothing would disturb it: a whole test of a kilobyte does not.
        let address = self.address.clone();
        wait_until(self.name, || {
            let mut ping = Command::new("timeout");
            ping.args([
                "5",
                "iperf3",
                "-c",
                &address,
                "-n",
                "1K",
                "--connect-timeout",
                "1000",
            ]);
            ping.output().is_ok_and(|output| output.status.success())
        })?;
        Ok(Running {
            machine: Some(machine),
            counter: None,
        })
    }
}

const ADDRESS: [&str; 4] = ["--ip-address", "10.9.0.2", "--gateway", "10.9.0.1"];

fn nanos_by_tool(tool: &Tool, image: &str, folder: &Path, cpus: u32) -> Result<Command> {
    let program = match image {
        "server" => folder.join("server"),
        _ => PathBuf::from("/usr/bin/iperf3"),
    };
    let program = program.to_str().context("a path in UTF-8")?;
    let (memory, cpus) = (format!("{MEMORY}M"), cpus.to_string());
    let mut words = vec!["run", program, "-s", "-i", image, "--tapname", "tap0"];
    words.extend(ADDRESS);
    words.extend(["-m", &memory, "--smp", &cpus]);
    if image != "server" {
        words.extend(["-a", "-s"]);
    }
    Ok(tool.command(&words))
}

fn linux_guest(kernel: &Path, initramfs: &Path, cpus: u32) -> Command {
    let (cpus, net) = (cpus.to_string(), netdev("tap1"));
    let more = [
        "-m",
        MEMORY,
        "-smp",
        &cpus,
        "-netdev",
        &net,
        "-device",
        "virtio-net-pci,netdev=n,romfile=",
        "-device",
        "virtio-rng-pci",
    ];
    let append = "console=ttyS0 quiet panic=-1";
    linux(&EMULATED, kernel, initramfs, append, &more)
}

fn netdev(tap: &str) -> String {
    format!("tap,id=n,ifname={tap},script=no,downscript=no")
}

/// A TAP device of this namespace, with the host's address. It holds a packet of each connection and more: the device's
/// usual 1,000 would drop most of what 10,000 connections send at once, whatever the guest does.
fn tap(sh: &Shell, name: &str, address: &str) -> Result<()> {
    cmd!(sh, "ip tuntap add {name} mode tap").quiet().run()?;
    cmd!(sh, "ip addr add {address} dev {name}").quiet().run()?;
    cmd!(sh, "ip link set {name} txqueuelen 32768 up")
        .quiet()
        .run()?;
    Ok(())
}

fn wait_until(name: &str, ready: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < LIMIT {
        if ready() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{name} does not serve after {LIMIT:?}")
}
