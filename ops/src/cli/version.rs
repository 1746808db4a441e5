//! `ops version` and `ops profile`.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::flags::GlobalFlags;
use crate::home::{Home, write_atomically};
use crate::hypervisor::run::find_qemu;
use crate::output;
use crate::{NANOS_VERSION, OPS_VERSION};

pub fn version(global: &GlobalFlags) -> Result<()> {
    if global.json {
        return output::json(&json!({ "ops": OPS_VERSION, "nanos": NANOS_VERSION }));
    }
    output::line(format!("Ops version: {OPS_VERSION}"))?;
    output::line(format!("Nanos version: {NANOS_VERSION}"))
}

/// Prints the profile and keeps it in `~/.ops/profile`.
pub fn profile() -> Result<()> {
    let lines = [
        ("Ops version", OPS_VERSION.to_string()),
        ("Nanos version", NANOS_VERSION.to_string()),
        ("Qemu version", qemu_version()),
        ("OS", std::env::consts::OS.to_string()),
        ("Arch", std::env::consts::ARCH.to_string()),
        ("Virtualized", virtualized().to_string()),
    ];
    let mut text = String::new();
    for (key, value) in lines {
        text.push_str(&format!("{key}: {value}\n"));
    }
    write_atomically(&Home::find()?.profile(), text.as_bytes())?;
    output::line(text.trim_end())
}

fn qemu_version() -> String {
    let output = find_qemu().and_then(|q| Ok(Command::new(q).arg("--version").output()?));
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let first = text.lines().next().unwrap_or_default();
            first
                .trim_start_matches("QEMU emulator version ")
                .to_string()
        }
        Err(_) => "not installed".to_string(),
    }
}

/// Whether this machine is itself a guest.
fn virtualized() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.lines()
            .any(|l| l.starts_with("flags") && l.contains(" hypervisor"))
    })
}
