//! Measures this kernel beside a Linux guest in the same QEMU, in one run.

mod boot;
mod guest;
mod machine;
mod net;

use anyhow::Result;
use clap::Subcommand;
use xshell::Shell;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// From starting QEMU to the first answer of the Python example, requests per second, the least
    /// memory that serves; and the whole run of a static hello program.
    Boot {
        /// How often each figure is taken; the median is printed.
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// Requests per second over 1 to 10,000 connections, connections per second, bulk transfer, and
    /// instructions for each request, over TAP.
    Net(net::Options),
}

/// Runs one benchmark and prints its table.
pub fn run(sh: &Shell, bench: &Bench) -> Result<()> {
    match bench {
        Bench::Boot { runs } => boot::run(sh, *runs),
        Bench::Net(options) => net::run(sh, options),
    }
}
