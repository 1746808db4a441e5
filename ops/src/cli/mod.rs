//! The command line: which commands there are (`Cli`), their flags (`flags`), and what each does.

mod attach;
mod build;
mod completion;
pub mod flags;
mod image;
mod inspect;
mod launch;
mod pkg;
mod run;
mod version;

use std::ffi::OsString;

use anyhow::Result;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use flags::GlobalFlags;

/// Packages and runs programs as nanos unikernels.
#[derive(Debug, Parser)]
#[command(
    name = "ops",
    version,
    max_term_width = 100,
    disable_help_subcommand = false
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalFlags,
    #[command(subcommand)]
    pub command: Commands,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Commands {
    /// Build a disk image from an ELF program
    Build(build::BuildCommand),
    /// Run an ELF program as a unikernel
    Run(run::RunCommand),
    /// Packages: list, find, make, load, add, delete
    #[command(subcommand)]
    Pkg(pkg::PkgCommand),
    /// Images: list, delete, look inside
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Print the versions of the tool and of its kernel
    Version,
    /// Print the link that opens a running machine's console
    Console(inspect::ConsoleCommand),
    /// Show what a running machine does, live
    Top(inspect::top::TopCommand),
    /// Show a running machine's system calls, live
    Trace(inspect::trace::TraceCommand),
    /// Sample where a running machine spends its time; without flags, a report about this host
    Profile(inspect::profile::ProfileCommand),
    /// Save a core file of a running program
    Core(inspect::save::CoreCommand),
    /// Capture a running machine's packets
    Capture(inspect::save::CaptureCommand),
    /// Print values of a running machine's information store
    Get(inspect::values::GetCommand),
    /// Change a value of a running machine
    Set(inspect::values::SetCommand),
    /// Print values of a running machine as they change
    Watch(inspect::values::WatchCommand),
    /// Print a completion script for a shell
    Completion(completion::CompletionCommand),
}

/// The whole command, with booleans that also take `--flag=false` as they always did.
pub fn command() -> Command {
    loosen(Cli::command())
}

fn loosen(command: Command) -> Command {
    command
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .value_parser(BoolishValueParser::new())
                .num_args(0..=1)
                .require_equals(true)
                .default_value("false")
                .default_missing_value("true")
                .hide_default_value(true)
                .hide_possible_values(true)
                .value_name("BOOL"),
            _ => arg,
        })
        .mut_subcommands(loosen)
}

/// Reads the command line and carries it out; returns the exit code.
pub fn main(arguments: impl Iterator<Item = OsString>) -> Result<u8> {
    let cli = match command()
        .try_get_matches_from(arguments)
        .and_then(|m| Cli::from_arg_matches(&m))
    {
        Ok(cli) => cli,
        Err(e) => {
            // Nobody is left to be told when the stream is gone.
            let _ = e.print();
            return Ok(u8::from(e.use_stderr()));
        }
    };
    let global = cli.global;
    match cli.command {
        Commands::Build(c) => c.execute(&global).map(|()| 0),
        Commands::Run(c) => c.execute(&global),
        Commands::Pkg(c) => c.execute(&global),
        Commands::Image(c) => c.execute(&global).map(|()| 0),
        Commands::Version => version::version(&global).map(|()| 0),
        Commands::Console(c) => c.execute(&global).map(|()| 0),
        Commands::Top(c) => c.execute(&global).map(|()| 0),
        Commands::Trace(c) => c.execute(&global).map(|()| 0),
        Commands::Profile(c) => c.execute(&global).map(|()| 0),
        Commands::Core(c) => c.execute().map(|()| 0),
        Commands::Capture(c) => c.execute().map(|()| 0),
        Commands::Get(c) => c.execute(&global).map(|()| 0),
        Commands::Set(c) => c.execute(&global).map(|()| 0),
        Commands::Watch(c) => c.execute(&global).map(|()| 0),
        Commands::Completion(c) => c.execute().map(|()| 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Cli, clap::Error> {
        let matches = command().try_get_matches_from(["ops"].iter().chain(words))?;
        Cli::from_arg_matches(&matches)
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn booleans_in_every_form() {
        let run = |words: &[&str]| match read(words).unwrap().command {
            Commands::Run(c) => c,
            other => panic!("{other:?}"),
        };
        assert!(run(&["run", "-s", "x"]).run.skipbuild);
        assert!(!run(&["run", "--skipbuild=false", "x"]).run.skipbuild);
        assert!(run(&["run", "-sv", "x"]).run.verbose);
        assert_eq!(run(&["run", "x"]).run.accel, None);
        assert_eq!(run(&["run", "--accel=false", "x"]).run.accel, Some(false));
        assert_eq!(run(&["run", "--accel", "x"]).run.accel, Some(true));
        let c = run(&[
            "run", "-a", "-x", "-a", "--y=z", "-e", "A=b=c", "x", "-p", "80",
        ]);
        assert_eq!(c.build.args, ["-x", "--y=z"]);
        assert_eq!(c.build.envs, ["A=b=c"]);
        assert_eq!(c.run.port, ["80"]);
        assert!(read(&["run"]).is_err());
        assert!(read(&["run", "x", "--nope"]).is_err());
        assert!(read(&["pkg", "list", "-lj"]).unwrap().global.json);
    }
}
