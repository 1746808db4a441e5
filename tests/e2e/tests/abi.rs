//! Linux is the oracle: each program of `tests/abi` prints the same and ends with the same code on this machine's
//! Linux and in the unikernel.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use e2e::{Ops, root, target_dir};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Compiles all programs and returns them: each static and dynamic.
fn build() -> Result<Vec<PathBuf>> {
    let out = target_dir().join("e2e/abi");
    let made = Command::new("make")
        .arg("--silent")
        .arg("-C")
        .arg(root().join("tests/abi"))
        .arg(format!("OUT={}", out.display()))
        .output()
        .context("make is there: cargo xtask setup installs it")?;
    if !made.status.success() {
        bail!("{}", String::from_utf8_lossy(&made.stderr));
    }
    let mut programs = Vec::new();
    for source in std::fs::read_dir(root().join("tests/abi/programs"))? {
        let source = source?.path();
        if source.extension().is_some_and(|extension| extension == "c") {
            let name = source.file_stem().context("a program has a name")?;
            // Not every Linux has these sockets.
            if name == "vsock_calls" && !Path::new("/dev/vsock").exists() {
                continue;
            }
            let program = out.join(name);
            programs.push(program.with_extension("dyn"));
            programs.push(program);
        }
    }
    programs.sort();
    Ok(programs)
}

/// One program at a time runs on this machine: two would meet in its abstract socket names and ports.
static LINUX: Mutex<()> = Mutex::new(());

/// What it prints on this machine, and its code.
fn on_linux(program: &Path) -> Result<(String, i32)> {
    let _alone = LINUX.lock().expect("no comparison panics");
    let output = Command::new("sh")
        .args(["-c", "exec timeout 60 \"$0\" 2>&1 </dev/null"])
        .arg(program)
        .output()?;
    Ok((
        String::from_utf8_lossy(&output.stdout).into_owned(),
        output.status.code().unwrap_or(-1),
    ))
}

/// What it prints in the unikernel, and its code.
fn on_nanos(program: &Path) -> Result<(String, i32)> {
    let path = program.to_str().context("a path in UTF-8")?;
    let output = Ops::new()?.run(&["run", path])?;
    Ok((output.stdout.replace("\r\n", "\n"), output.code()))
}

/// The first line that differs, with both versions of it.
fn first_difference(linux: &str, nanos: &str) -> String {
    let mut pairs = linux.lines().zip(nanos.lines()).enumerate();
    match pairs.find(|(_, (a, b))| a != b) {
        Some((n, (a, b))) => format!("line {}: Linux {a:?}, nanos {b:?}", n + 1),
        None => format!(
            "{} lines on Linux, {} here",
            linux.lines().count(),
            nanos.lines().count()
        ),
    }
}

#[test]
fn programs_print_the_same_as_on_linux() -> Result<()> {
    let programs = Mutex::new(build()?);
    let failures = Mutex::new(Vec::new());
    let compare = || -> Result<()> {
        loop {
            let Some(program) = programs.lock().expect("no comparison panics").pop() else {
                return Ok(());
            };
            let (expected, seen) = (on_linux(&program)?, on_nanos(&program)?);
            if expected != seen {
                let name = program
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let difference = first_difference(&expected.0, &seen.0);
                let line = format!("{name}: codes {} and {}, {difference}", expected.1, seen.1);
                failures.lock().expect("no comparison panics").push(line);
            }
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let second = scope.spawn(compare);
        compare()?;
        second.join().expect("no comparison panics")
    })?;
    let failures = failures.into_inner().expect("no comparison panics");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    Ok(())
}
