//! The machines under test: nanos through the tool, Linux through QEMU itself. Both end with their value.

use crate::build::Built;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that any one machine may take to answer or to end.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A started machine.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    started: Instant,
}

impl Machine {
    /// Starts `command`, whose console goes nowhere.
    pub fn start(mut command: Command) -> Result<Machine> {
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Machine { child, started })
    }

    /// The seconds from the start to the first `200` on `port`, or an error when the machine ends
    /// before that or the limit passes.
    pub fn first_answer(&mut self, port: u16, limit: Duration) -> Result<f64> {
        while self.started.elapsed() < limit {
            if answers(port) {
                return Ok(self.started.elapsed().as_secs_f64());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the machine ended before it answered: {status}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("no answer within {limit:?}")
    }

    /// The seconds from the start to the end.
    pub fn whole_run(mut self) -> Result<f64> {
        while self.started.elapsed() < LIMIT {
            if self.child.try_wait()?.is_some() {
                return Ok(self.started.elapsed().as_secs_f64());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        bail!("still running after {LIMIT:?}")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // The tool ends its machine at the second request at the latest; QEMU ends at the first.
        for _ in 0..2 {
            let _ = Command::new("kill")
                .args(["-TERM", &self.child.id().to_string()])
                .status();
            std::thread::sleep(Duration::from_millis(100));
        }
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether an HTTP server on `port` answers `200` now.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        // A connection that arrives before the guest listens is only tried again seconds later by QEMU's network:
        // a new one is quicker, on either side.
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

/// A port of 127.0.0.1 that nothing listens on now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// The tool, with a home of its own below the target folder.
#[derive(Debug)]
pub struct Tool {
    program: PathBuf,
    home: PathBuf,
    folder: PathBuf,
}

impl Tool {
    /// The tool just built, run in `folder`.
    pub fn new(built: &Built, home: &Path, folder: &Path) -> Tool {
        Tool {
            program: built.ops.clone(),
            home: home.to_owned(),
            folder: folder.to_owned(),
        }
    }

    /// A command of the tool.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("OPS_HOME", &self.home);
        command
    }

    /// Runs a command of the tool to its end and returns what it printed.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        output(self.command(arguments))
    }

    /// Where the image of that name lies.
    pub fn image(&self, name: &str) -> Result<PathBuf> {
        std::fs::read_dir(self.home.join(".ops/images"))?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.file_stem().is_some_and(|stem| stem == name))
            .with_context(|| format!("no image {name}"))
    }
}

/// Runs `command` to its end and returns its standard output.
pub fn output(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() && output.stdout.is_empty() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// QEMU with nanos on `microvm`, as the tool starts it, without a network card.
pub fn nanos(accel: &[&str], kernel: &Path, image: &Path, memory: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-machine",
            "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on",
        ])
        .args(["-global", "virtio-mmio.force-legacy=false"])
        .args(accel)
        .args(["-cpu", "max", "-nodefaults", "-no-user-config"])
        .args(["-no-reboot", "-display", "none", "-serial", "stdio"])
        .args(["-m", memory, "-kernel"])
        .arg(kernel)
        .args([
            "-device",
            "isa-debug-exit,iobase=0x501,iosize=2",
            "-device",
            "virtio-blk-device,drive=root",
        ])
        .arg("-drive")
        .arg(format!(
            "if=none,id=root,format=raw,snapshot=on,file={}",
            image.display()
        ));
    command
}

/// One instruction for each nanosecond of the guest's time; while it waits for a device, real nanoseconds count.
pub const COUNTED: [&str; 4] = ["-icount", "shift=0", "-accel", "tcg,thread=single"];

/// The usual emulation, every CPU on a thread of its own.
pub const EMULATED: [&str; 2] = ["-accel", "tcg,thread=multi"];

/// QEMU with a Linux guest: `q35`, emulation, no BIOS screen, console on standard output.
pub fn linux(
    accel: &[&str],
    kernel: &Path,
    initramfs: &Path,
    append: &str,
    more: &[&str],
) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", "q35"])
        .args(accel)
        .args(["-cpu", "max", "-nodefaults", "-no-user-config"])
        .args([
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-kernel",
        ])
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", append])
        .args(more);
    command
}
