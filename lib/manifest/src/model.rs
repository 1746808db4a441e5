//! The manifest as the kernel sees it: typed, with defaults filled in. How it is read from JSON is in `extract`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use crate::console::ConsoleServer;
use crate::exit::ExitSet;

/// A boot manifest with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// `program`: the path of the ELF file to run, absolute in the root file system.
    pub program: String,
    /// `arguments`: the argument vector, `argv[0]` first; the program's path alone when the key is absent.
    pub arguments: Vec<String>,
    /// `environment`: variables by name.
    pub environment: BTreeMap<String, String>,
    /// `cwd`: the initial working directory, `/` by default.
    pub cwd: String,
    /// `mounts`: file systems to mount before the program starts.
    pub mounts: Vec<Mount>,
    /// `en1`, `en2`, ...: the settings of the network interface of that number. One that is absent uses DHCP.
    pub interfaces: BTreeMap<u32, Interface>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `nameservers`: resolvers; those of the image's `/etc/resolv.conf` apply when this is empty.
    pub nameservers: Vec<IpAddr>,

    /// `expected_exit_code`: program exit codes that the machine reports as 0.
    pub expected_exit_code: Option<ExitSet>,
    /// `reboot_on_exit`: exit codes after which the machine restarts. A bare flag means every code but 0.
    pub reboot_on_exit: Option<ExitSet>,
    /// `idle_on_exit`: exit codes after which the machine stays up, idle. A bare flag means code 0.
    pub idle_on_exit: Option<ExitSet>,
    /// `debug_exit`: end through QEMU's debug-exit device when there is one.
    pub debug_exit: bool,

    /// `noaslr`: load everything at its fixed place.
    pub noaslr: bool,
    /// `exec_protection`: only files with an execute bit can be mapped executable, and those can not be written.
    pub exec_protection: bool,
    /// `program_overwrite`: the program may write to its own executable file.
    pub program_overwrite: bool,
    /// `readonly_rootfs`: mount the root file system read-only.
    pub readonly_rootfs: bool,
    /// `static_map_program`: read the program in whole at start instead of on demand.
    pub static_map_program: bool,
    /// `transparent_hugepage`: false when the key says `never`.
    pub transparent_hugepage: bool,
    /// `mmap_min_addr`: the lowest address a program may map, in bytes.
    pub mmap_min_addr: Option<u64>,
    /// `coredumplimit`: the largest core file written, in bytes; 0 writes none.
    pub coredumplimit: u64,
    /// `so_rcvbuf`: default size of a socket's receive buffer, in bytes.
    pub so_rcvbuf: Option<u64>,
    /// `uname`: what `uname(2)` reports instead of the built-in words.
    pub uname: Uname,

    /// `log_level`: the least severe messages that are printed; `None` leaves the kernel's own choice.
    pub log_level: Option<LogLevel>,
    /// The tracing keys.
    pub tracing: Tracing,
    /// `console`: the page and interface that the kernel serves; off when the key is absent.
    pub console: Option<ConsoleServer>,
    /// `consoles`: consoles switched on or off, in order.
    pub consoles: Vec<Console>,
    /// `netconsole_ip` and `netconsole_port`.
    pub netconsole: NetConsole,

    /// Top-level keys that this library does not know: the kernel reports them.
    pub unknown: Map<String, Value>,
    /// The whole merged manifest, known keys and unknown ones, as JSON.
    pub tree: Value,
}

/// One file system to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// How the file system is found.
    pub source: MountSource,
    /// Where it is mounted: an absolute path.
    pub target: String,
    /// Whether the path ended in `:ro`.
    pub read_only: bool,
}

/// How the file system of a mount is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// By the label of the file system.
    Label(String),
    /// By the UUID of the file system, in the order of its printed form.
    Uuid([u8; 16]),
    /// `%N`: by the number of the attachment.
    Attachment(u32),
}

/// The settings of one network interface. What is absent is learned: IPv4 by DHCP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// `ipaddr`: a static IPv4 address.
    pub ipaddr: Option<Ipv4Addr>,
    /// `netmask`; /24 applies when a static address has none.
    pub netmask: Option<Ipv4Addr>,
    /// `gateway`.
    pub gateway: Option<Ipv4Addr>,
    /// `ip6addr`: a static IPv6 address and the length of its prefix (64 unless written).
    pub ip6addr: Option<(Ipv6Addr, u8)>,
    /// `mtu`, in bytes.
    pub mtu: Option<u16>,
    /// `default`: this interface has the default route.
    pub default: bool,
    /// `exec_wait_for_ip4_secs`: how long the program's start waits for an IPv4 address, in seconds.
    pub exec_wait_for_ip4_secs: Option<u32>,
    /// `exec_wait_for_ip6_secs`: the same for IPv6.
    pub exec_wait_for_ip6_secs: Option<u32>,
    /// `io-queues`: how many queue pairs to use at most.
    pub io_queues: Option<u16>,
}

/// Overrides for `uname(2)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uname {
    /// `uname.sysname`.
    pub sysname: Option<String>,
    /// `uname.release`.
    pub release: Option<String>,
    /// `uname.version`.
    pub version: Option<String>,
    /// `uname.machine`.
    pub machine: Option<String>,
}

/// How severe a message must be to be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing but errors.
    Error,
    /// Errors and warnings.
    Warn,
    /// These and what is worth knowing.
    Info,
    /// Details for finding a fault.
    Debug,
    /// Everything.
    Trace,
}

/// What is traced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracing {
    /// `trace`: tags of kernel events; a bare flag is the tag `all`.
    pub tags: Vec<String>,
    /// `debugsyscalls`: print every system call.
    pub debugsyscalls: bool,
    /// `futex_trace`: print futex operations.
    pub futex_trace: bool,
    /// `fault`: print page faults.
    pub fault: bool,
    /// `notrace`: system calls left out, by name or by `%class`.
    pub notrace: Vec<String>,
    /// `tracelist`: system calls kept, by name or by `%class`; empty keeps all.
    pub tracelist: Vec<String>,
    /// `syscall_summary`: a table of system calls at the end.
    pub syscall_summary: bool,
    /// `missing_files`: a list of files looked for and not found, at the end.
    pub missing_files: bool,
}

/// One entry of `consoles`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// The console's name: `serial`, `vga`, `net`, ...
    pub name: String,
    /// Whether it is switched on (`+name`, or `name`) or off (`-name`).
    pub on: bool,
}

/// Where the network console sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConsole {
    /// `netconsole_ip`, 10.0.2.2 by default.
    pub ip: Ipv4Addr,
    /// `netconsole_port`, 4444 by default.
    pub port: u16,
}

impl Default for NetConsole {
    fn default() -> Self {
        NetConsole {
            ip: Ipv4Addr::new(10, 0, 2, 2),
            port: 4444,
        }
    }
}
