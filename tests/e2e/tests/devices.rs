//! The drivers on QEMU's devices: a kernel that uses each over every transport and says how that went.

use anyhow::{Context, Result, ensure};
use e2e::{RUN_LIMIT, root, target_dir};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Builds the kernel that tests drivers, once.
fn kernel() -> Result<PathBuf> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = Command::new(cargo)
            .args(["build", "--quiet", "--package", "drivertest"])
            .args(["--target", "x86_64-unknown-none", "--profile", "kernel"])
            .current_dir(root())
            .status();
        build.is_ok_and(|status| status.success())
    });
    ensure!(built, "the kernel that tests drivers does not build");
    Ok(target_dir().join("x86_64-unknown-none/kernel/drivertest"))
}

/// A virtual machine that is stopped when this is dropped.
struct Machine {
    qemu: Child,
    input: Option<ChildStdin>,
    console: Arc<Mutex<String>>,
    folder: TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Machine {
    fn start(machine: &str, cpus: u32, command_line: &str, devices: &[String]) -> Result<Machine> {
        let folder = TempDir::new()?;
        let disk = folder.path().join("disk.img");
        File::create(&disk)?.set_len(8 << 20)?;
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-machine", machine, "-smp", &cpus.to_string()])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "64"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-serial", "stdio", "-no-reboot"])
            .args(["-device", "isa-debug-exit,iobase=0x501,iosize=4"])
            .arg("-drive")
            .arg(format!(
                "id=disk,if=none,format=raw,file={}",
                disk.display()
            ))
            .args(["-netdev", "user,id=net,restrict=on"])
            .arg("-qmp")
            .arg(format!(
                "unix:{},server=on,wait=off",
                qmp(folder.path()).display()
            ))
            .args(devices)
            .args(["-append", command_line])
            .arg("-kernel")
            .arg(kernel()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting qemu-system-x86_64")?;
        let input = qemu.stdin.take();
        let mut output = qemu.stdout.take().context("no output")?;
        let console = Arc::new(Mutex::new(String::new()));
        let collected = console.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if let Ok(mut console) = collected.lock() {
                    console.push_str(&String::from_utf8_lossy(&bytes[..count]));
                }
            }
        });
        Ok(Machine {
            qemu,
            input,
            console,
            folder,
        })
    }

    fn console(&self) -> String {
        self.console
            .lock()
            .map(|text| text.clone())
            .unwrap_or_default()
    }

    fn wait_for(&self, text: &str) -> Result<()> {
        let start = Instant::now();
        while !self.console().contains(text) {
            ensure!(
                start.elapsed() < RUN_LIMIT,
                "no {text:?} in:\n{}",
                self.console()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The exit status and all that was printed.
    fn end(mut self) -> Result<(Option<i32>, String)> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.qemu.try_wait()? {
                break status;
            }
            ensure!(
                start.elapsed() < RUN_LIMIT,
                "it does not end:\n{}",
                self.console()
            );
            thread::sleep(Duration::from_millis(20));
        };
        // The reader sees the end of the output a moment later.
        thread::sleep(Duration::from_millis(50));
        Ok((status.code(), self.console()))
    }
}

fn qmp(folder: &Path) -> PathBuf {
    folder.join("qmp")
}

/// Gives a command to QEMU's monitor.
fn monitor(folder: &Path, command: &str) -> Result<()> {
    let mut socket = UnixStream::connect(qmp(folder))?;
    socket.set_read_timeout(Some(RUN_LIMIT))?;
    let mut lines = BufReader::new(socket.try_clone()?).lines();
    lines.next().context("no greeting")??;
    for command in ["qmp_capabilities", command] {
        writeln!(socket, "{{\"execute\":\"{command}\"}}")?;
        loop {
            let answer: Value = serde_json::from_str(&lines.next().context("no answer")??)?;
            ensure!(answer.get("error").is_none(), "{answer}");
            if answer.get("return").is_some() {
                break;
            }
        }
    }
    Ok(())
}

/// A disk, a card and an entropy source on one kind of bus.
fn devices(bus: &str, options: &str) -> Vec<String> {
    let mut list: Vec<String> = vec!["-global".into(), "virtio-mmio.force-legacy=false".into()];
    for device in [
        format!("virtio-blk-{bus},drive=disk,serial=spoon{options}"),
        format!("virtio-net-{bus},netdev=net{options}"),
        format!("virtio-rng-{bus}{options}"),
    ] {
        list.extend(["-device".into(), device]);
    }
    list
}

fn passes(machine: &str, cpus: u32, devices: &[String]) -> Result<()> {
    let (code, console) = Machine::start(machine, cpus, "", devices)?.end()?;
    // The exit device turns code 0 into status 1.
    ensure!(
        code == Some(1) && console.contains("all passed"),
        "{machine} with {cpus} CPUs: {code:?}\n{console}"
    );
    for found in ["serial Some(\"spoon\")", "card: [52, 54, 00", "entropy: "] {
        ensure!(console.contains(found), "no {found:?} in:\n{console}");
    }
    Ok(())
}

#[test]
fn mmio() -> Result<()> {
    passes("microvm,acpi=on", 1, &devices("device", ""))?;
    passes("microvm,acpi=off", 2, &devices("device", ""))?;
    let plain = ",indirect_desc=off,event_idx=off";
    passes("microvm,acpi=on", 1, &devices("device", plain))
}

#[test]
fn pci_with_messages() -> Result<()> {
    passes("q35", 1, &devices("pci", ""))?;
    passes("q35", 4, &devices("pci", ""))?;
    passes("pc", 1, &devices("pci", ",disable-legacy=on"))
}

#[test]
fn pci_with_pins() -> Result<()> {
    passes("q35", 1, &devices("pci", ",vectors=0"))?;
    passes("pc", 2, &devices("pci", ",vectors=0"))
}

#[test]
fn devices_behind_a_bridge() -> Result<()> {
    let mut list = vec![
        "-device".into(),
        "pcie-root-port,id=bridge,chassis=1,slot=1".into(),
    ];
    list.extend(devices("pci", ""));
    for device in &mut list {
        if device.starts_with("virtio-blk") {
            device.push_str(",bus=bridge");
        }
    }
    passes("q35", 1, &list)
}

#[test]
fn a_legacy_device_is_refused_by_name() -> Result<()> {
    let list: Vec<String> = [
        "-global",
        "virtio-mmio.force-legacy=true",
        "-device",
        "virtio-net-device,netdev=net",
    ]
    .map(String::from)
    .to_vec();
    let (code, console) = Machine::start("microvm,acpi=on", 1, "", &list)?.end()?;
    ensure!(code == Some(1), "{code:?}\n{console}");
    ensure!(
        console.contains("speaks only the legacy interface")
            && console.contains("force-legacy=false"),
        "{console}"
    );
    Ok(())
}

#[test]
fn typing_and_the_power_button() -> Result<()> {
    for machine in ["microvm,acpi=on", "q35"] {
        let mut vm = Machine::start(machine, 1, "type button off", &[])?;
        vm.wait_for("type a line")?;
        if let Some(input) = &mut vm.input {
            input.write_all(b"a line that is longer than the FIFO of sixteen bytes\n")?;
            input.flush()?;
        }
        vm.wait_for("typed: Ok(\"a line that is longer than the FIFO of sixteen bytes\")")?;
        vm.wait_for("press the button")?;
        monitor(vm.folder.path(), "system_powerdown")?;
        vm.wait_for("switching off")?;
        let (code, console) = vm.end()?;
        // Switched off by ACPI, not by the exit device.
        ensure!(code == Some(0), "{machine}: {code:?}\n{console}");
    }
    Ok(())
}

/// Checksums and segmentation left to the card, and merged receive buffers.
#[test]
fn offloads_against_a_linux_host() -> Result<()> {
    if !Path::new("/dev/net/tun").exists() {
        eprintln!("not run: this machine has no /dev/net/tun");
        return Ok(());
    }
    for (machine, device) in [
        ("microvm,acpi=on", "virtio-net-device"),
        ("q35", "virtio-net-pci"),
    ] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/offload.py");
        let output = Command::new("timeout")
            .args([
                "--kill-after=5",
                "120",
                "unshare",
                "--net",
                "--map-root-user",
            ])
            .args(["python3", script, "qemu-system-x86_64"])
            .args(["-machine", machine, "-smp", "2", "-m", "64"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-serial", "stdio", "-no-reboot"])
            .args(["-device", "isa-debug-exit,iobase=0x501,iosize=4"])
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args(["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"])
            .args(["-device", &format!("{device},netdev=net,host_mtu=9000")])
            .args(["-append", "offload", "-kernel"])
            .arg(kernel()?)
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && text.contains("acknowledged"),
            "{machine}: {text}"
        );
    }
    Ok(())
}
