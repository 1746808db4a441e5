//! The project's own chores: `cargo xtask <chore>`.
//!
//! Each module is one chore. What a chore needs from the machine (QEMU, a Rust target, a C
//! compiler for the test programs) it installs itself through `setup`.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod debug;
mod demo;
mod setup;
mod shipped;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xshell::Shell;

/// The chores of the nanos project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Build the kernel and the tool in release: leaves `target/release/ops`.
    Build {
        /// A kernel that is built in pieces: sooner there after a change, larger and slower. Not what ships.
        #[arg(long)]
        quick: bool,
    },
    /// Build everything, package Python and serve the README's example on port 8000.
    Demo {
        /// The port of 127.0.0.1 that the example answers on.
        #[arg(long, default_value_t = 8000)]
        port: u16,
    },
    /// Install what is missing and run all tests.
    Test {
        /// Only the parts whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Formatting, lints and documentation, then all tests: what `.ci/run` runs.
    Ci,
    /// Measure this kernel beside a Linux guest.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Start a program under QEMU's gdb stub, and say how to connect.
    Debug(debug::Debug),
    /// Install what the other chores need.
    Setup,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let sh = Shell::new()?;
    sh.change_dir(build::root());
    match cli.chore {
        Chore::Build { quick } => {
            let built = if quick {
                build::quick(&sh)
            } else {
                build::all(&sh)
            };
            built.map(|built| println!("{}", built.ops.display()))
        }
        Chore::Demo { port } => demo::run(&sh, port),
        Chore::Test { filter } => test::run(&sh, &filter),
        Chore::Ci => test::ci(&sh),
        Chore::Bench(bench) => bench::run(&sh, &bench),
        Chore::Debug(debug) => debug::run(&sh, &debug),
        Chore::Setup => setup::for_tests(&sh),
    }
}
