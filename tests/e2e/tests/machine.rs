//! The machine's own tests, on the machine: a kernel that runs them and says how they went.

use anyhow::{Context, Result, ensure};
use e2e::{RUN_LIMIT, root, target_dir};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

/// Builds the kernel of self-tests, once.
fn kernel() -> Result<PathBuf> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = Command::new(cargo)
            .args(["build", "--quiet", "--package", "selftest"])
            .args(["--target", "x86_64-unknown-none", "--profile", "kernel"])
            .current_dir(root())
            .status();
        build.is_ok_and(|status| status.success())
    });
    ensure!(built, "the kernel of self-tests does not build");
    Ok(target_dir().join("x86_64-unknown-none/kernel/selftest"))
}

/// Boots it with a command line; returns the exit status and what it printed.
fn run(machine: &str, cpus: u32, command_line: &str) -> Result<(Option<i32>, String)> {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-machine", machine, "-smp", &cpus.to_string()])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "128"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-serial", "stdio", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=4"])
        .args(["-append", command_line])
        .arg("-kernel")
        .arg(kernel()?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting qemu-system-x86_64")?;
    let start = Instant::now();
    // Its output is a few KiB: the pipe holds it until the end.
    while qemu.try_wait()?.is_none() {
        if start.elapsed() > RUN_LIMIT {
            qemu.kill()?;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = qemu.wait_with_output()?;
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code(), console))
}

fn passes(machine: &str, cpus: u32) -> Result<()> {
    let (code, console) = run(machine, cpus, "")?;
    // The exit device turns code 0 into status 1.
    ensure!(
        code == Some(1) && console.contains("all passed"),
        "{machine} with {cpus} CPUs: {code:?}\n{console}"
    );
    Ok(())
}

#[test]
fn microvm() -> Result<()> {
    [1, 2, 4]
        .into_iter()
        .try_for_each(|cpus| passes("microvm,acpi=on", cpus))
}

#[test]
fn microvm_without_acpi() -> Result<()> {
    passes("microvm,acpi=off", 2)
}

#[test]
fn q35() -> Result<()> {
    [1, 3].into_iter().try_for_each(|cpus| passes("q35", cpus))
}

#[test]
fn a_panic_says_where() -> Result<()> {
    let (code, console) = run("microvm,acpi=on", 2, "panic")?;
    ensure!(code == Some(255), "{code:?}\n{console}");
    ensure!(
        console.contains("kernel panic on CPU 0: asked to"),
        "{console}"
    );
    ensure!(
        console.contains("kernel/selftest/src/main.rs:"),
        "{console}"
    );
    Ok(())
}

#[test]
fn a_stack_overflow_is_reported() -> Result<()> {
    let (code, console) = run("microvm,acpi=on", 1, "overflow")?;
    ensure!(code == Some(255), "{code:?}\n{console}");
    ensure!(
        console.contains("double fault (kernel stack overflow?)"),
        "{console}"
    );
    Ok(())
}
