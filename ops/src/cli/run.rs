//! `ops run`: build and boot an ELF program.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::attach::Console;
use super::build::{no_surplus, program_image, with_program};
use super::flags::{BuildFlags, ConfigFlags, GlobalFlags, NanosFlags, NightlyFlags, RunFlags};
use super::launch::{self, image_of};
use crate::home::Home;
use crate::image::{boot, store};

/// Builds an image and boots it in the foreground; the program's exit code is the tool's.
#[derive(Debug, Args)]
pub struct RunCommand {
    /// The program
    #[arg(value_name = "ELF")]
    pub elf: PathBuf,
    #[arg(hide = true)]
    pub surplus: Vec<String>,
    #[command(flatten)]
    pub config: ConfigFlags,
    #[command(flatten)]
    pub build: BuildFlags,
    #[command(flatten)]
    pub run: RunFlags,
    #[command(flatten)]
    pub nightly: NightlyFlags,
    #[command(flatten)]
    pub nanos: NanosFlags,
    /// Open a control socket (QMP) on a port of this machine
    #[arg(long)]
    pub qmp: bool,
}

impl RunCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<u8> {
        no_surplus(&self.surplus)?;
        self.nightly.check()?;
        self.nanos.check()?;
        let home = Home::find()?;
        let mut config = self.config.load()?;
        self.build.apply(&mut config)?;
        self.run.apply(&mut config)?;
        if global.show_debug {
            config.run_mut().verbose = Some(true);
        }
        if self.qmp {
            config.run_mut().qmp = Some(true);
        }
        launch::check(&home, &config)?;
        let console = Console::prepare(&self.run, &config)?;
        if self.run.skipbuild {
            let (name, _) = image_of(&home, &config, &self.elf)?;
            let image = store::existing(&home, &name)?;
            if !config.args().is_empty() {
                with_program(&mut config, &self.elf);
            }
            let patch = boot::patch(&config)?;
            return launch::boot(&home, &config, &image, patch, console);
        }
        with_program(&mut config, &self.elf);
        let image = program_image(&home, &config, &self.elf)?;
        launch::boot(&home, &config, &image, None, console)
    }
}
