//! A machine behind a tap device: as many queue pairs of its card as it has CPUs, where the device has several.

use anyhow::{Result, ensure};
use e2e::{Ops, programs, target_dir};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a server with that many CPUs behind a tap device of a namespace of its own; `queues` as `queues.py` has it.
fn echoes(machine: &str, cpus: &str, queues: &str) -> Result<()> {
    if !Path::new("/dev/net/tun").exists() {
        eprintln!("not run: this machine has no /dev/net/tun");
        return Ok(());
    }
    let program = programs::c("pinned", &["-static"])?;
    let ops = Ops::new()?;
    let config = format!(
        r#"{{"RunConfig": {{"QMP": true, "Machine": "{machine}", "CPUs": {cpus}, "TapName": "tap0",
            "IPAddress": "10.8.0.2", "Gateway": "10.8.0.1", "Memory": "256M"}}}}"#
    );
    ops.write("config.json", &config)?;
    let tool =
        std::env::var_os("OPS").map_or_else(|| target_dir().join("release/ops"), PathBuf::from);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/queues.py");
    let output = Command::new("timeout")
        .args(["--kill-after=5", "120", "unshare", "--net"])
        .args(["--map-root-user", "python3", script, queues])
        .arg(tool)
        .arg("run")
        .arg(program)
        .args(["-c", "config.json"])
        .current_dir(ops.folder())
        .env("OPS_HOME", ops.tree().parent().unwrap_or(ops.folder()))
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && text.contains("received on each queue"),
        "{machine} with {cpus} CPUs: {}\n{text}",
        output.status
    );
    Ok(())
}

#[test]
fn each_cpu_has_a_queue_pair_of_a_card_on_mmio() -> Result<()> {
    echoes("microvm", "2", "2")
}

#[test]
fn each_cpu_has_a_queue_pair_of_a_card_on_pci() -> Result<()> {
    echoes("q35", "2", "2")
}

#[test]
fn one_cpu_uses_one_pair_of_several() -> Result<()> {
    echoes("microvm", "1", "1")
}

#[test]
fn a_device_of_one_queue_serves_several_cpus() -> Result<()> {
    echoes("microvm", "2", "0")
}
