//! The QEMU command line: one place for the machine, its devices and its options. Starting it is in `run`.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::accel::Accel;
use super::ports::Forward;

/// QEMU's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The machine model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Machine {
    /// No PCI, no firmware tables to walk: the fastest to start.
    #[default]
    Microvm,
    /// A PC with PCI Express.
    Q35,
}

impl Machine {
    /// Reads the name of a machine.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "microvm" => Ok(Machine::Microvm),
            "q35" => Ok(Machine::Q35),
            _ => bail!("machine `{name}` is not supported: it must be microvm or q35"),
        }
    }
}

/// How a network card is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// QEMU's own network, with forwarded ports. The address is the guest's, where it is fixed.
    User {
        forwards: Vec<Forward>,
        address: Option<Fixed>,
    },
    /// A tap device that exists, and how many queue pairs it is opened with.
    Tap { name: String, queues: u32 },
}

/// A fixed address of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    pub address: Ipv4Addr,
    pub netmask: Ipv4Addr,
    pub gateway: Option<Ipv4Addr>,
}

/// All that the command line says.
#[derive(Debug, Clone)]
pub struct Settings {
    pub machine: Machine,
    pub accel: Accel,
    /// RAM in MiB.
    pub memory: u64,
    pub cpus: u32,
    pub kernel: PathBuf,
    pub image: PathBuf,
    /// The file with the merge patch over the disk's manifest.
    pub patch: Option<PathBuf>,
    pub nics: Vec<Backend>,
    /// The control socket.
    pub qmp: PathBuf,
    /// A TCP port for a second control socket, for the user.
    pub user_qmp: Option<u16>,
    /// The file that receives the kernel's last line.
    pub exit: PathBuf,
    pub gdb_port: Option<u16>,
    /// Wait for the debugger before the first instruction.
    pub wait_for_gdb: bool,
    pub vga: bool,
    /// A reset of the guest starts it again; otherwise it ends QEMU.
    pub reboot: bool,
}

/// The name of the port that ends QEMU, and of the one that takes the kernel's last line.
const DEBUG_EXIT: &str = "isa-debug-exit,iobase=0x501,iosize=2";
const DEBUG_CONSOLE: &str = "isa-debugcon,iobase=0xe9,chardev=exit";

/// The arguments, without the program's name.
pub fn arguments(s: &Settings) -> Vec<OsString> {
    let mut a = Arguments(Vec::new());
    a.add(&["-nodefaults", "-no-user-config"]);
    if !s.reboot {
        a.add(&["-no-reboot"]);
    }
    a.add(&["-display", "none"]);
    match s.machine {
        Machine::Microvm => {
            a.add(&[
                "-machine",
                "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,auto-kernel-cmdline=on",
            ]);
            a.add(&["-global", "virtio-mmio.force-legacy=false"]);
        }
        Machine::Q35 => a.add(&["-machine", "q35"]),
    }
    match s.accel {
        Accel::Kvm => a.add(&["-accel", "kvm", "-cpu", "host"]),
        Accel::Emulation(_) => a.add(&["-accel", "tcg,thread=multi", "-cpu", "max"]),
    }
    a.add(&["-m", &format!("{}M", s.memory)]);
    if s.cpus > 1 {
        a.add(&["-smp", &s.cpus.to_string()]);
    }
    a.add(&["-kernel"]);
    a.0.push(s.kernel.clone().into());
    if let Some(patch) = &s.patch {
        let option = format!("name={},file=", manifest::FW_CFG_NAME);
        a.with_path("-fw_cfg", &option, patch, "");
    }
    a.with_path("-drive", "if=none,id=root,format=raw,file=", &s.image, "");
    a.device(s.machine, "virtio-blk", "drive=root");
    for (index, nic) in s.nics.iter().enumerate() {
        a.add(&["-netdev", &netdev(index, nic)]);
        let more = match nic {
            Backend::Tap { name, queues } => {
                let mac = local_mac(name, index);
                format!(",mac={mac}{}", several_queues(s.machine, *queues))
            }
            Backend::User { .. } => String::new(),
        };
        a.device(s.machine, "virtio-net", &format!("netdev=n{index}{more}"));
    }
    a.device(s.machine, "virtio-rng", "");
    if s.vga && s.machine == Machine::Q35 {
        a.add(&["-device", "VGA"]);
    }
    a.add(&["-chardev", "stdio,id=console,mux=off,signal=off"]);
    a.add(&["-serial", "chardev:console"]);
    a.with_path("-chardev", "file,id=exit,path=", &s.exit, "");
    a.add(&["-device", DEBUG_CONSOLE, "-device", DEBUG_EXIT]);
    a.with_path("-qmp", "unix:", &s.qmp, ",server=on,wait=off");
    if let Some(port) = s.user_qmp {
        a.add(&["-qmp", &format!("tcp:127.0.0.1:{port},server=on,wait=off")]);
    }
    if let Some(port) = s.gdb_port {
        a.add(&["-gdb", &format!("tcp:127.0.0.1:{port}")]);
    }
    if s.wait_for_gdb {
        a.add(&["-S"]);
    }
    a.0
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }

    /// An option with a path in it: QEMU takes a comma for the end of a value unless it is doubled.
    fn with_path(&mut self, option: &str, before: &str, path: &Path, after: &str) {
        let mut value: Vec<u8> = before.into();
        for &byte in path.as_os_str().as_bytes() {
            value.push(byte);
            if byte == b',' {
                value.push(byte);
            }
        }
        value.extend(after.bytes());
        self.0.push(option.into());
        self.0.push(OsString::from_vec(value));
    }

    /// A virtio device on the machine's bus for these.
    fn device(&mut self, machine: Machine, kind: &str, options: &str) {
        let bus = match machine {
            Machine::Microvm => "device",
            // Without the legacy interface, which the kernel does not speak.
            Machine::Q35 => "pci,disable-legacy=on",
        };
        let separator = if options.is_empty() { "" } else { "," };
        self.add(&["-device", &format!("{kind}-{bus}{separator}{options}")]);
    }
}

fn netdev(index: usize, nic: &Backend) -> String {
    match nic {
        Backend::Tap { name, queues } => {
            let several = if *queues > 1 {
                format!(",queues={queues}")
            } else {
                String::new()
            };
            format!("tap,id=n{index},ifname={name},script=no,downscript=no{several}")
        }
        Backend::User { forwards, address } => {
            let mut out = format!("user,id=n{index}");
            let mut target = String::new();
            if let Some(fixed) = address {
                target = fixed.address.to_string();
                let mask = fixed.netmask.to_bits();
                let net = Ipv4Addr::from_bits(fixed.address.to_bits() & mask);
                if net != Ipv4Addr::new(10, 0, 2, 0) {
                    out.push_str(&format!(",net={net}/{}", mask.count_ones()));
                    if let Some(gateway) = fixed.gateway {
                        out.push_str(&format!(",host={gateway}"));
                    }
                }
            }
            for f in forwards {
                let Forward {
                    protocol,
                    address,
                    host,
                    guest,
                } = f;
                out.push_str(&format!(
                    ",hostfwd={protocol}:{address}:{host}-{target}:{guest}"
                ));
            }
            out
        }
    }
}

/// What gives a card as many queue pairs as its backend has. On PCI each queue has an interrupt of its own, and so have
/// the configuration and the control queue.
fn several_queues(machine: Machine, queues: u32) -> String {
    match machine {
        _ if queues <= 1 => String::new(),
        Machine::Microvm => ",mq=on".to_string(),
        Machine::Q35 => format!(",mq=on,vectors={}", 2 * queues + 2),
    }
}

/// A locally administered address that depends on the tap device, so that machines on one bridge differ.
fn local_mac(name: &str, index: usize) -> String {
    let hash = manifest::crc32c(format!("{name} {index}").as_bytes()).to_be_bytes();
    let parts: Vec<String> = hash.iter().map(|b| format!("{b:02x}")).collect();
    format!("52:54:{}", parts.join(":"))
}

#[cfg(test)]
mod tests {
    use super::super::ports::{Protocol, parse};
    use super::*;

    fn settings() -> Settings {
        Settings {
            machine: Machine::Microvm,
            accel: Accel::Emulation(String::new()),
            memory: 2048,
            cpus: 1,
            kernel: "/k".into(),
            image: "/images/a b,c".into(),
            patch: None,
            nics: vec![Backend::User {
                forwards: parse("8080-80,0.0.0.0:9:10", Protocol::Tcp).unwrap(),
                address: None,
            }],
            qmp: "/t/qmp".into(),
            user_qmp: None,
            exit: "/t/exit".into(),
            gdb_port: None,
            wait_for_gdb: false,
            vga: false,
            reboot: false,
        }
    }

    fn words(s: &Settings) -> Vec<String> {
        arguments(s)
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect()
    }

    fn has(words: &[String], option: &str, value: &str) {
        let found = words.windows(2).any(|w| w[0] == option && w[1] == value);
        assert!(found, "{option} {value} in {words:?}");
    }

    #[test]
    fn microvm_by_default() {
        let w = words(&settings());
        has(&w, "-kernel", "/k");
        has(
            &w,
            "-drive",
            "if=none,id=root,format=raw,file=/images/a b,,c",
        );
        has(&w, "-device", "virtio-blk-device,drive=root");
        has(&w, "-device", "virtio-net-device,netdev=n0");
        has(&w, "-device", "virtio-rng-device");
        has(
            &w,
            "-netdev",
            "user,id=n0,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:0.0.0.0:9-:10",
        );
        has(&w, "-accel", "tcg,thread=multi");
        has(&w, "-m", "2048M");
        assert!(!w.contains(&"-smp".to_string()) && !w.contains(&"-fw_cfg".to_string()));
    }

    #[test]
    fn q35_and_the_rest() {
        let mut s = settings();
        s.machine = Machine::Q35;
        s.accel = Accel::Kvm;
        s.cpus = 4;
        s.patch = Some("/t/patch".into());
        s.user_qmp = Some(40_001);
        s.gdb_port = Some(1234);
        s.wait_for_gdb = true;
        s.nics.push(Backend::Tap {
            name: "tap0".into(),
            queues: 1,
        });
        let w = words(&s);
        has(&w, "-machine", "q35");
        has(&w, "-cpu", "host");
        has(&w, "-smp", "4");
        has(&w, "-fw_cfg", "name=opt/nanos/manifest,file=/t/patch");
        has(&w, "-device", "virtio-blk-pci,disable-legacy=on,drive=root");
        has(
            &w,
            "-netdev",
            "tap,id=n1,ifname=tap0,script=no,downscript=no",
        );
        has(&w, "-gdb", "tcp:127.0.0.1:1234");
        assert!(w.contains(&"-S".to_string()));
    }

    #[test]
    fn a_tap_device_of_several_queues() {
        let mut s = settings();
        s.cpus = 4;
        s.nics = vec![Backend::Tap {
            name: "tap0".into(),
            queues: 4,
        }];
        let mac = local_mac("tap0", 0);
        for (machine, device) in [
            (
                Machine::Microvm,
                format!("virtio-net-device,netdev=n0,mac={mac},mq=on"),
            ),
            (
                Machine::Q35,
                format!("virtio-net-pci,disable-legacy=on,netdev=n0,mac={mac},mq=on,vectors=10"),
            ),
        ] {
            s.machine = machine;
            let w = words(&s);
            has(
                &w,
                "-netdev",
                "tap,id=n0,ifname=tap0,script=no,downscript=no,queues=4",
            );
            has(&w, "-device", &device);
        }
    }

    #[test]
    fn fixed_addresses_shape_the_network() {
        let fixed = |a: [u8; 4], g: Option<[u8; 4]>| Backend::User {
            forwards: parse("80", Protocol::Udp).unwrap(),
            address: Some(Fixed {
                address: a.into(),
                netmask: [255, 255, 255, 0].into(),
                gateway: g.map(Into::into),
            }),
        };
        assert_eq!(
            netdev(0, &fixed([192, 168, 5, 7], Some([192, 168, 5, 1]))),
            "user,id=n0,net=192.168.5.0/24,host=192.168.5.1,hostfwd=udp:127.0.0.1:80-192.168.5.7:80"
        );
        assert_eq!(
            netdev(0, &fixed([10, 0, 2, 40], None)),
            "user,id=n0,hostfwd=udp:127.0.0.1:80-10.0.2.40:80"
        );
    }

    #[test]
    fn machine_names() {
        assert_eq!(Machine::parse("q35").unwrap(), Machine::Q35);
        assert!(Machine::parse("pc").is_err());
    }
}
