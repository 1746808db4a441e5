//! `ops build`: an image from an ELF program; and the part of `ops run` that is the same.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

use super::flags::{BuildFlags, ConfigFlags, GlobalFlags, NanosFlags, NightlyFlags, ProviderFlags};
use super::launch::{image_of, least_size};
use crate::config::{Config, support};
use crate::home::Home;
use crate::image::{boot, collect, disk};
use crate::output;

/// Builds an image and prints where it is.
#[derive(Debug, Args)]
pub struct BuildCommand {
    /// The program
    #[arg(value_name = "ELF")]
    pub elf: PathBuf,
    #[arg(hide = true)]
    pub surplus: Vec<String>,
    #[command(flatten)]
    pub config: ConfigFlags,
    #[command(flatten)]
    pub provider: ProviderFlags,
    #[command(flatten)]
    pub nightly: NightlyFlags,
    #[command(flatten)]
    pub nanos: NanosFlags,
    #[command(flatten)]
    pub build: BuildFlags,
}

impl BuildCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<()> {
        no_surplus(&self.surplus)?;
        self.provider.check()?;
        self.nightly.check()?;
        self.nanos.check()?;
        let home = Home::find()?;
        let mut config = self.config.load()?;
        self.build.apply(&mut config)?;
        support::check(&config)?;
        with_program(&mut config, &self.elf);
        let image = program_image(&home, &config, &self.elf)?;
        if global.json {
            return output::json(&serde_json::json!({ "path": image }));
        }
        output::line(format!("Bootable image file:{}", image.display()))
    }
}

/// Further words after the program are most likely meant for it.
pub fn no_surplus(words: &[String]) -> Result<()> {
    match words.first() {
        None => Ok(()),
        Some(word) => bail!("unexpected `{word}`: give arguments to the program with -a {word}"),
    }
}

/// Puts the program's name, as typed, before the arguments, unless they begin with it.
pub fn with_program(config: &mut Config, elf: &Path) {
    let typed = elf.to_string_lossy().into_owned();
    let args = config.args.get_or_insert_default();
    if args.first() != Some(&typed) {
        args.insert(0, typed);
    }
}

/// Builds the image of a program; returns its file.
pub fn program_image(home: &Home, config: &Config, elf: &Path) -> Result<PathBuf> {
    let (name, path) = image_of(home, config, elf)?;
    let tree = collect::from_program(config, elf)?;
    let manifest = boot::manifest(config, &collect::guest_path(elf), &name)?;
    disk::write(&path, &tree, &manifest, least_size(config)?)?;
    Ok(path)
}
