//! Builds the kernel and the tool that carries it.
//!
//! The linked kernel keeps its debug information for gdb; what the tool carries is made from it by `shipped`.

use crate::shipped;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// What a build leaves behind.
#[derive(Debug)]
pub struct Built {
    /// The tool, kernel included.
    pub ops: PathBuf,
    /// The kernel as linked, with debug information.
    pub kernel: PathBuf,
    /// The kernel as it ships.
    pub shipped: PathBuf,
}

impl Built {
    /// What the last build left, or would leave.
    pub fn last() -> Built {
        let kernel = kernel_path(SHIPPED);
        Built {
            ops: target_dir().join("release/ops"),
            shipped: kernel.with_extension("shipped"),
            kernel,
        }
    }
}

/// The profile of the kernel as it ships: optimised as a whole.
const SHIPPED: &str = "kernel";
/// The profile of a kernel for trying a change: each crate on its own, only what changed.
const QUICK: &str = "quick";

fn kernel_path(profile: &str) -> PathBuf {
    target_dir()
        .join("x86_64-unknown-none")
        .join(profile)
        .join("nanos")
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
    with_kernel(sh, SHIPPED)
}

/// The same with a kernel that is there sooner and runs slower.
pub fn quick(sh: &Shell) -> Result<Built> {
    with_kernel(sh, QUICK)
}

fn with_kernel(sh: &Shell, profile: &str) -> Result<Built> {
    let kernel = kernel(sh, profile)?;
    let shipped = kernel.with_extension("shipped");
    let image = shipped::make(&sh.read_binary_file(&kernel)?)?;
    // An unchanged kernel keeps its time, so that the tool is not built anew.
    if !shipped.exists() || sh.read_binary_file(&shipped)? != image {
        sh.write_file(&shipped, image)?;
    }
    let _kernel = sh.push_env("NANOS_KERNEL", &shipped);
    cmd!(sh, "cargo build --quiet --release --package ops")
        .quiet()
        .run()
        .context("building ops")?;
    Ok(Built {
        ops: target_dir().join("release/ops"),
        kernel,
        shipped,
    })
}

/// Builds the kernel and returns where it is.
fn kernel(sh: &Shell, profile: &str) -> Result<PathBuf> {
    crate::setup::for_running(sh)?;
    cmd!(
        sh,
        "cargo build --quiet --package nanos --target x86_64-unknown-none --profile {profile}"
    )
    .quiet()
    .run()
    .context("building the kernel")?;
    Ok(kernel_path(profile))
}
