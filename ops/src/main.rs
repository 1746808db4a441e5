//! `ops`: packages and runs a program as a nanos unikernel.
//!
//! Here is only the start: read the command line, carry it out, print an error as one line, end with the right code. The
//! commands are in `cli`; below them are the configuration (`config`), packages (`package`), ELF files (`elf`), disk images
//! (`image`), the hypervisor (`hypervisor`), the machines that run (`instance`) and talking to them (`console`), none of
//! which knows the command line.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    reason = "a program has no readers of its interface; what is not plain from its name is documented"
)]

mod cli;
mod config;
mod console;
mod elf;
mod home;
mod hypervisor;
mod image;
mod instance;
mod output;
mod package;
mod progress;

use std::ffi::OsString;
use std::process::ExitCode;

/// The version of this tool.
pub const OPS_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of the kernel it carries: they are made together.
pub const NANOS_VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let result = if arguments
        .get(1)
        .is_some_and(|a| a == hypervisor::run::EXEC_BOUND)
    {
        hypervisor::run::exec_bound(&arguments[2..]).map(|()| 0)
    } else {
        cli::main(arguments.into_iter())
    };
    match result {
        Ok(code) => ExitCode::from(code),
        // As a program that the signal SIGPIPE ends: without a word.
        Err(error) if error.is::<output::ReaderGone>() => ExitCode::from(128 + 13),
        Err(error) => {
            output::note(one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, outermost first, in one line; causes that only repeat what was said are left out.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}
