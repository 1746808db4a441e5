//! The programs that the tests run in a machine, compiled on first use into the target folder.

use crate::{root, target_dir};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `programs/<name>.c`, statically unless `flags` say otherwise.
pub fn c(name: &str, flags: &[&str]) -> Result<PathBuf> {
    let source = sources().join(format!("{name}.c"));
    compile(&source, name, |output| {
        let mut command = Command::new("gcc");
        command
            .args(["-O2", "-Wall", "-pthread", "-o"])
            .arg(output)
            .arg(&source)
            .args(flags);
        command
    })
}

/// Compiles `programs/<name>.rs` with std for the host, dynamically linked as cargo does.
pub fn rust(name: &str) -> Result<PathBuf> {
    let source = sources().join(format!("{name}.rs"));
    compile(&source, name, |output| {
        let mut command = Command::new("rustc");
        command
            .args(["--edition=2024", "-O", "-o"])
            .arg(output)
            .arg(&source);
        command
    })
}

/// Compiles `programs/<name>.go`, static as Go does it without cgo.
pub fn go(name: &str) -> Result<PathBuf> {
    let source = sources().join(format!("{name}.go"));
    let cache = target_dir().join("e2e/go-cache");
    compile(&source, name, |output| {
        let mut command = Command::new("go");
        command
            .args(["build", "-o"])
            .arg(output)
            .arg(&source)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=mod")
            .env("GO111MODULE", "off")
            .env("GOCACHE", &cache);
        command
    })
}

fn sources() -> PathBuf {
    root().join("tests/e2e/programs")
}

/// Runs the compiler into a file of this process's own, then renames: tests run side by side.
fn compile(source: &Path, name: &str, command: impl Fn(&Path) -> Command) -> Result<PathBuf> {
    let folder = target_dir().join("e2e/programs");
    std::fs::create_dir_all(&folder)?;
    let extension = source
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let output = folder.join(format!("{name}-{extension}"));
    let fresh = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if fresh(&output).is_some_and(|made| fresh(source).is_some_and(|written| made > written)) {
        return Ok(output);
    }
    let scratch = tempfile::Builder::new().prefix(name).tempdir_in(&folder)?;
    let fresh_output = scratch.path().join("program");
    let mut command = command(&fresh_output);
    let result = command.output().with_context(|| {
        format!(
            "no compiler {:?}: cargo xtask setup installs it",
            command.get_program()
        )
    })?;
    if !result.status.success() {
        bail!(
            "{} does not compile:\n{}",
            source.display(),
            String::from_utf8_lossy(&result.stderr)
        );
    }
    std::fs::rename(&fresh_output, &output)?;
    Ok(output)
}
