//! The groups of flags that commands share, and what each does to the configuration.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use crate::config::{Config, load, support};

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalFlags {
    /// Print JSON instead of tables
    #[arg(short, long, global = true, help_heading = "Global Flags")]
    pub json: bool,
    /// Print warnings (they are always printed)
    #[arg(long, global = true, help_heading = "Global Flags")]
    pub show_warnings: bool,
    /// Print errors (they are always printed)
    #[arg(long, global = true, help_heading = "Global Flags")]
    pub show_errors: bool,
    /// Print debug lines: the QEMU command line
    #[arg(long, global = true, help_heading = "Global Flags")]
    pub show_debug: bool,
}

/// The configuration file.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFlags {
    /// Configuration file (JSON)
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFlags {
    /// The layers below the flags.
    pub fn load(&self) -> Result<Config> {
        load::layers(self.config.as_deref())
    }
}

/// Where images and instances live: only this machine.
#[derive(Debug, Clone, Default, Args)]
pub struct ProviderFlags {
    /// Provider; only onprem, this machine, is supported
    #[arg(short, long, value_name = "NAME")]
    pub target_cloud: Option<String>,
    /// Cloud project (not supported)
    #[arg(short = 'g', long, value_name = "ID")]
    pub projectid: Option<String>,
    /// Cloud zone (not supported)
    #[arg(short, long, value_name = "ZONE")]
    pub zone: Option<String>,
}

impl ProviderFlags {
    /// Fails for what is not this machine.
    pub fn check(&self) -> Result<()> {
        support::provider(self.target_cloud.as_deref().unwrap_or_default())?;
        for (flag, value) in [("projectid", &self.projectid), ("zone", &self.zone)] {
            if value.is_some() {
                bail!("--{flag} is not supported: there are no cloud providers yet");
            }
        }
        Ok(())
    }
}

/// Which kernel.
#[derive(Debug, Clone, Default, Args)]
pub struct NightlyFlags {
    /// Use a nightly kernel (not supported)
    #[arg(short, long)]
    pub nightly: bool,
    /// Architecture: amd64
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
}

impl NightlyFlags {
    /// Fails for what there is not.
    pub fn check(&self) -> Result<()> {
        if self.nightly {
            support::nightly()?;
        }
        support::arch(self.arch.as_deref().unwrap_or_default())
    }
}

/// Which release of the kernel.
#[derive(Debug, Clone, Default, Args)]
pub struct NanosFlags {
    /// Release of the kernel; only the one this tool carries
    #[arg(long, value_name = "VERSION")]
    pub nanos_version: Option<String>,
}

impl NanosFlags {
    /// Fails for another release.
    pub fn check(&self) -> Result<()> {
        support::nanos_version(self.nanos_version.as_deref().unwrap_or_default())
    }
}

/// What goes into an image.
#[derive(Debug, Clone, Default, Args)]
pub struct BuildFlags {
    /// Image type (not supported)
    #[arg(long = "type", value_name = "TYPE")]
    pub image_type: Option<String>,
    /// Environment variable K=V; everything after the first = is the value
    #[arg(short, long, value_name = "K=V")]
    pub envs: Vec<String>,
    /// Argument of the program
    #[arg(short, long, value_name = "ARG", allow_hyphen_values = true)]
    pub args: Vec<String>,
    /// Do not copy the file that the first argument names
    #[arg(long)]
    pub disable_args_copy: bool,
    /// Folder in which files of the image are looked up first
    #[arg(short = 'r', long, value_name = "DIR")]
    pub target_root: Option<String>,
    /// Name of the image
    #[arg(short, long, value_name = "NAME")]
    pub imagename: Option<String>,
    /// Old file system encoding (not supported)
    #[arg(short = '4', long)]
    pub tfsv4: bool,
    /// Volume and where to mount it (not supported)
    #[arg(long, value_name = "VOLUME:/PATH")]
    pub mounts: Vec<String>,
    /// Static IPv4 address
    #[arg(long, value_name = "IP")]
    pub ip_address: Option<String>,
    /// Static IPv6 address
    #[arg(long, value_name = "IP")]
    pub ipv6_address: Option<String>,
    /// Gateway of the static address
    #[arg(long, value_name = "IP")]
    pub gateway: Option<String>,
    /// Netmask of the static address [default: 255.255.255.0]
    #[arg(long, value_name = "MASK")]
    pub netmask: Option<String>,
    /// Console to switch on or off: +net, -serial
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub consoles: Vec<String>,
    /// Address that the network console sends to [default: 10.0.2.2]
    #[arg(long, value_name = "IP")]
    pub netconsole_ip: Option<String>,
    /// Port that the network console sends to [default: 4444]
    #[arg(long, value_name = "PORT")]
    pub netconsole_port: Option<String>,
}

impl BuildFlags {
    /// Lays the flags over a configuration.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        if self.image_type.is_some() {
            bail!("--type is not supported: there are no cloud providers yet");
        }
        if self.tfsv4 {
            bail!("--tfsv4 is not supported: images are ext4");
        }
        if !self.mounts.is_empty() {
            support::mounts()?;
        }
        for pair in &self.envs {
            let Some((name, value)) = pair.split_once('=').filter(|(n, _)| !n.is_empty()) else {
                bail!("-e {pair}: an environment variable is written NAME=value");
            };
            let env = config.env.get_or_insert_default();
            env.insert(name.to_string(), value.to_string());
        }
        if !self.args.is_empty() {
            config.args = Some(self.args.clone());
        }
        if self.disable_args_copy {
            config.disable_args_copy = Some(true);
        }
        if let Some(root) = &self.target_root {
            config.target_root = Some(root.clone());
        }
        let run = config.run_mut();
        for (flag, key) in [
            (&self.imagename, &mut run.image_name),
            (&self.ip_address, &mut run.ip_address),
            (&self.ipv6_address, &mut run.ipv6_address),
            (&self.gateway, &mut run.gateway),
            (&self.netmask, &mut run.net_mask),
        ] {
            if flag.is_some() {
                key.clone_from(flag);
            }
        }
        let mut through = |key: &str, value| {
            let map = config.manifest_passthrough.get_or_insert_default();
            map.insert(key.to_string(), value);
        };
        if !self.consoles.is_empty() {
            through("consoles", json!(self.consoles));
        } else if self.netconsole_ip.is_some() || self.netconsole_port.is_some() {
            bail!("--netconsole-ip and --netconsole-port need --consoles +net");
        }
        if let Some(ip) = &self.netconsole_ip {
            through("netconsole_ip", json!(ip));
        }
        if let Some(port) = &self.netconsole_port {
            through("netconsole_port", json!(port));
        }
        Ok(())
    }
}

/// How the machine is run here.
#[derive(Debug, Clone, Default, Args)]
pub struct RunFlags {
    /// Forward ports: 80, 80,81, 8080-80 (host to guest), 0.0.0.0:8080:80
    #[arg(short, long, value_name = "PORT")]
    pub port: Vec<String>,
    /// Forward UDP ports, written alike
    #[arg(long, value_name = "PORT")]
    pub udp: Vec<String>,
    /// Make the package again even when it is here
    #[arg(short, long)]
    pub force: bool,
    /// Wait for a debugger on start, without acceleration and address randomisation
    #[arg(short, long)]
    pub debug: bool,
    /// TCP port for a debugger
    #[arg(short, long, value_name = "PORT")]
    pub gdbport: Option<u16>,
    /// Trace system calls, faults and futexes
    #[arg(long)]
    pub trace: bool,
    /// Print a table of system calls at the end
    #[arg(long)]
    pub syscall_summary: bool,
    /// List files that were looked for in vain, at the end
    #[arg(long)]
    pub missing_files: bool,
    /// System call left out of the trace
    #[arg(long, value_name = "NAME")]
    pub no_trace: Vec<String>,
    /// Print what is done, with the whole QEMU command line
    #[arg(short, long)]
    pub verbose: bool,
    /// Network through a bridge; needs --tapname
    #[arg(short, long)]
    pub bridged: bool,
    /// Bridge to make (not supported)
    #[arg(long, value_name = "NAME")]
    pub bridgename: Option<String>,
    /// Address of the bridge (not supported)
    #[arg(long, value_name = "IP")]
    pub bridgeipaddress: Option<String>,
    /// Tap device, which must exist
    #[arg(short, long, value_name = "NAME")]
    pub tapname: Option<String>,
    /// Boot the image that exists, with the arguments and environment given now
    #[arg(short, long)]
    pub skipbuild: bool,
    /// Use hardware acceleration [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub accel: Option<bool>,
    /// RAM [default: 2G]
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Virtual CPUs [default: 1]
    #[arg(long, value_name = "N")]
    pub smp: Option<u32>,
    /// Machine: microvm or q35 [default: microvm]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Serve the console of this run on 127.0.0.1, on a port of its own unless one is given
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "0", value_name = "PORT")]
    pub console: Option<u16>,
    /// Serve it so that it can only look
    #[arg(long)]
    pub console_read_only: bool,
    /// Kernel to boot instead of the one in this tool
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<String>,
}

impl RunFlags {
    /// Lays the flags over a configuration.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        if self.console_read_only && self.console.is_none() {
            bail!("--console-read-only needs --console");
        }
        if self.bridged && self.tapname.is_none() {
            bail!(
                "--bridged is not supported without --tapname: making a bridge needs root; make a tap device and name it"
            );
        }
        for (flag, value) in [
            ("bridgename", &self.bridgename),
            ("bridgeipaddress", &self.bridgeipaddress),
        ] {
            if value.is_some() {
                bail!(
                    "--{flag} is not supported: making a bridge needs root; make a tap device and name it with --tapname"
                );
            }
        }
        let mut debug = |flag: &str| {
            let flags = config.debugflags.get_or_insert_default();
            if !flags.iter().any(|f| f == flag) {
                flags.push(flag.to_string());
            }
        };
        if self.trace {
            for flag in ["trace", "debugsyscalls", "fault", "futex_trace"] {
                debug(flag);
            }
        }
        for (flag, set) in [
            ("syscall_summary", self.syscall_summary),
            ("missing_files", self.missing_files),
            ("noaslr", self.debug),
        ] {
            if set {
                debug(flag);
            }
        }
        if !self.no_trace.is_empty() {
            config.no_trace = Some(self.no_trace.clone());
        }
        if self.force {
            config.force = Some(true);
        }
        if let Some(kernel) = &self.kernel {
            config.kernel = Some(kernel.clone());
        }
        let run = config.run_mut();
        run.ports
            .get_or_insert_default()
            .extend(self.port.iter().cloned());
        run.udp_ports
            .get_or_insert_default()
            .extend(self.udp.iter().cloned());
        for (flag, key) in [
            (&self.memory, &mut run.memory),
            (&self.machine, &mut run.machine),
            (&self.tapname, &mut run.tap_name),
        ] {
            if flag.is_some() {
                key.clone_from(flag);
            }
        }
        run.accel = self.accel.or(run.accel);
        run.cpus = self.smp.or(run.cpus);
        run.gdb_port = self.gdbport.or(run.gdb_port);
        if self.debug {
            run.debug = Some(true);
        }
        if self.verbose {
            run.verbose = Some(true);
        }
        Ok(())
    }
}
