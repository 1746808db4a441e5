//! Starts a program under QEMU's gdb stub with the kernel's symbols at hand.

use crate::build;
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;
use std::process::Command;
use xshell::Shell;

/// What to debug.
#[derive(Debug, Args)]
pub struct Debug {
    /// The program to run, an ELF file.
    program: PathBuf,
    /// The TCP port of 127.0.0.1 that gdb connects to.
    #[arg(long, default_value_t = 1234)]
    port: u16,
}

/// Starts the machine halted before its first instruction.
pub fn run(sh: &Shell, debug: &Debug) -> Result<()> {
    let built = build::all(sh)?;
    let port = debug.port.to_string();
    eprintln!("The machine waits for gdb before its first instruction. In another terminal:");
    eprintln!();
    eprintln!(
        "    gdb {} -ex 'target remote 127.0.0.1:{port}'",
        built.kernel.display()
    );
    eprintln!();
    eprintln!("Useful there: `hbreak __nanos_main`, `info threads` (one for each CPU), and");
    eprintln!(
        "`add-symbol-file {}` with the load address for the program.",
        debug.program.display()
    );
    let status = Command::new(&built.ops)
        .arg("run")
        .arg(&debug.program)
        .args(["--debug", "--gdbport", &port])
        .status()
        .with_context(|| format!("starting {}", built.ops.display()))?;
    std::process::exit(status.code().unwrap_or(1));
}
