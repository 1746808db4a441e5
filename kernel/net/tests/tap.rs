//! The engine against Linux's own stack, through a TAP device in a network namespace of the test's own.
//! The frames' loss and delay are made by the example's card: not every kernel has `tc netem`.

use std::path::PathBuf;
use std::process::Command;

/// Where cargo puts examples, beside the folder of this test.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/tap")
}

fn transfer(loss: u32, delay_ms: u32, bytes: u32) {
    if !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("not run: this machine has no /dev/net/tun");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tap.py");
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            "240",
            "unshare",
            "--net",
            "--map-root-user",
            "python3",
            script,
        ])
        .arg(example())
        .args([loss, delay_ms, bytes].map(|n| n.to_string()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    println!("{text}");
}

#[test]
fn clean() {
    transfer(0, 0, 30_000_000);
}

#[test]
fn delayed() {
    transfer(0, 25, 20_000_000);
}

#[test]
fn one_percent_lost() {
    transfer(10_000, 25, 3_000_000);
}

#[test]
fn five_percent_lost() {
    transfer(50_000, 25, 500_000);
}
