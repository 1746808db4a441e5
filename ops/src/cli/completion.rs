//! `ops completion`: scripts that make shells complete the tool's commands and flags.

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, ValueEnum};
use clap_complete::Shell;

#[derive(Debug, Args)]
pub struct CompletionCommand {
    /// The shell
    #[arg(value_enum)]
    shell: ShellName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShellName {
    Bash,
    Fish,
    Powershell,
    Zsh,
}

impl CompletionCommand {
    pub fn execute(self) -> Result<()> {
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Fish => Shell::Fish,
            ShellName::Powershell => Shell::PowerShell,
            ShellName::Zsh => Shell::Zsh,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut super::command(), "ops", &mut script);
        Ok(io::stdout().lock().write_all(&script)?)
    }
}
