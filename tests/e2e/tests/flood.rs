//! A flood from the network against the booted kernel, over a TAP device in a network namespace of the test's own.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::{Ops, programs};

const CONFIG: &str = r#"{"RunConfig": {"IPAddress": "10.9.0.2", "Gateway": "10.9.0.1", "NetMask": "255.255.255.0"}}"#;

#[test]
fn a_client_is_served_through_a_flood_of_syns() -> Result<()> {
    if !Path::new("/dev/net/tun").exists() {
        eprintln!("not run: this machine has no /dev/net/tun");
        return Ok(());
    }
    let server = programs::c("flooded", &["-static"])?;
    let server = server.to_str().context("a path in UTF-8")?;
    let ops = Ops::new()?;
    ops.write("config.json", CONFIG)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/synflood.py");
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            "100",
            "unshare",
            "--net",
            "--map-root-user",
        ])
        .args(["python3", script, "3"])
        .arg(e2e::tool())
        .args(["run", server, "-c", "config.json", "--tapname", "tap0"])
        .current_dir(ops.folder())
        .env("OPS_HOME", ops.home())
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{text}");
    print!("{text}");
    Ok(())
}
