//! Builds the kernel and the tool that carries it.
//!
//! The kernel is linked twice: the first link gives the symbol table, the second embeds it, so that the
//! kernel can name the functions in its own backtraces.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// What a build leaves behind.
#[derive(Debug)]
pub struct Built {
    /// The tool, kernel included.
    pub ops: PathBuf,
    /// The kernel alone, an ELF file with symbols.
    pub kernel: PathBuf,
}

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds the kernel, then the tool around it.
pub fn all(sh: &Shell) -> Result<Built> {
    let kernel = kernel(sh)?;
    let _kernel = sh.push_env("NANOS_KERNEL", &kernel);
    cmd!(sh, "cargo build --quiet --release --package ops")
        .quiet()
        .run()
        .context("building ops")?;
    Ok(Built {
        ops: target_dir().join("release/ops"),
        kernel,
    })
}

/// Builds the kernel as it ships.
pub fn kernel(sh: &Shell) -> Result<PathBuf> {
    crate::setup::for_running(sh)?;
    let link = || {
        cmd!(
            sh,
            "cargo build --quiet --package nanos --target x86_64-unknown-none --profile kernel"
        )
        .quiet()
        .run()
        .context("building the kernel")
    };
    link()?;
    Ok(target_dir().join("x86_64-unknown-none/kernel/nanos"))
}
