//! Compiles the Python files of a package beforehand, so that a start does not parse them.
//!
//! The package's own interpreter does it, through the package's own loader and libraries, so the result is what this very
//! Python would write itself, whatever is installed on the host. It is told everything that could make two runs differ
//! (hash seed, paths, no environment), and the files are of the *unchecked hash* kind (PEP 552), which do not depend on times
//! and are used without looking at the source again.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::unpack::set_mtime;

/// Compiles all Python files below `folders` of `sysroot`. Returns false where the host can not run the package's program.
pub fn compile(sysroot: &Path, program: &str, folders: &[PathBuf]) -> Result<bool> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) || folders.is_empty() {
        return Ok(false);
    }
    let sysroot = sysroot.canonicalize()?;
    let interpreter = inside(&sysroot, Path::new(program))?;
    let loader = inside(&sysroot, Path::new("/usr/lib64/ld-linux-x86-64.so.2"))?;
    let mut strip: OsString = sysroot.clone().into();
    strip.push("/");
    let output = Command::new(&loader)
        .arg("--inhibit-cache")
        .arg("--library-path")
        .arg(sysroot.join("usr/lib/x86_64-linux-gnu"))
        .arg(&interpreter)
        .args(["-B", "-P", "-S", "-m", "compileall", "-f", "-q", "-j", "1"])
        .args(["--invalidation-mode", "unchecked-hash", "-s"])
        .arg(&strip)
        .args(["-p", "/"])
        .args(folders)
        .current_dir("/")
        .env_clear()
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONNOUSERSITE", "1")
        .stdin(Stdio::null())
        .output()
        .context("cannot start the package's Python")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let text = format!("{text}{}", String::from_utf8_lossy(&output.stdout));
        bail!(
            "the package's Python could not compile its library: {}",
            text.trim()
        );
    }
    for folder in folders {
        date(folder)?;
    }
    Ok(true)
}

/// Gives each compiled file the time of its source.
fn date(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            date(&path)?;
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if folder.ends_with("__pycache__")
            && let Some((module, _)) = name.split_once('.')
        {
            let source = folder.join("..").join(format!("{module}.py"));
            set_mtime(&path, fs::metadata(source)?.mtime())?;
        }
    }
    Ok(())
}

/// The file of a path inside a sysroot, following links as the guest would.
fn inside(sysroot: &Path, path: &Path) -> Result<PathBuf> {
    crate::elf::closure::Host::new(Some(sysroot.to_path_buf()))
        .find(path)
        .filter(|found| found.starts_with(sysroot) && found.is_file())
        .with_context(|| format!("the package has no {}", path.display()))
}
