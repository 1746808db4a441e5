//! `ops pkg`: packages.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use regex_lite::Regex;
use serde::Serialize;

use super::attach::Console;
use super::build::no_surplus;
use super::flags::{BuildFlags, ConfigFlags, GlobalFlags, NanosFlags, NightlyFlags, RunFlags};
use super::launch::{self, image_of, least_size};
use crate::config::{Config, support};
use crate::home::Home;
use crate::image::{boot, collect, disk, store as images};
use crate::output;
use crate::package::apt::hex;
use crate::package::name::Name;
use crate::package::store::{Listed, Store, contents, read_manifest, remove};

/// What can be done with packages.
#[derive(Debug, Subcommand)]
pub enum PkgCommand {
    /// List packages
    List(ListCommand),
    /// Find packages by a word in their name or description
    Search(SearchCommand),
    /// Make a package, so that it is here when it is needed
    Get(OneCommand),
    /// Build an image from a package and boot it
    Load(Box<LoadCommand>),
    /// Print what a package says about itself
    Describe(LocalCommand),
    /// List the files of a package
    Contents(LocalCommand),
    /// Add a folder or a .tar.gz to the local packages
    Add(AddCommand),
    /// Delete a package from this machine
    Delete(LocalCommand),
}

#[derive(Debug, Args)]
pub struct ListCommand {
    /// Local packages
    #[arg(short, long)]
    local: bool,
    /// Only packages whose language, name or namespace matches
    #[arg(short, long, value_name = "REGEX")]
    search: Option<String>,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    nightly: NightlyFlags,
}

#[derive(Debug, Args)]
pub struct SearchCommand {
    /// What to look for
    term: String,
    /// Architecture: amd64
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
}

#[derive(Debug, Args)]
pub struct OneCommand {
    /// The package: name, name_version, namespace/name:version
    package: String,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    nightly: NightlyFlags,
}

#[derive(Debug, Args)]
pub struct LocalCommand {
    /// The package: name, name_version, namespace/name:version
    package: String,
    /// It is a local package
    #[arg(short, long)]
    local: bool,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    nightly: NightlyFlags,
}

#[derive(Debug, Args)]
pub struct AddCommand {
    /// Folder or .tar.gz of the package
    source: PathBuf,
    /// Its name; random when there is none
    #[arg(long)]
    name: Option<String>,
    /// Packages are always added to the local ones
    #[arg(short, long)]
    local: bool,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    nightly: NightlyFlags,
}

#[derive(Debug, Args)]
pub struct LoadCommand {
    /// The package: name, name_version, namespace/name:version
    package: String,
    #[arg(hide = true)]
    surplus: Vec<String>,
    /// It is a local package
    #[arg(short, long)]
    local: bool,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    build: BuildFlags,
    #[command(flatten)]
    run: RunFlags,
    #[command(flatten)]
    nightly: NightlyFlags,
    #[command(flatten)]
    nanos: NanosFlags,
}

impl PkgCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<u8> {
        let home = Home::find()?;
        let store = Store::new(&home);
        match self {
            PkgCommand::Load(c) => return c.execute(&home, global),
            PkgCommand::List(c) => c.execute(&store, global)?,
            PkgCommand::Search(c) => {
                support::arch(c.arch.as_deref().unwrap_or_default())?;
                let term = c.term.to_lowercase();
                let has = |text: &str| text.to_lowercase().contains(&term);
                let found = store
                    .list()?
                    .into_iter()
                    .filter(|p| has(&p.name) || has(&p.description) || has(&p.language));
                print(found.collect(), global)?;
            }
            PkgCommand::Get(c) => {
                check(&c.config, &c.nightly)?;
                let folder = store.get(&Name::parse(&c.package)?, false)?;
                output::line(folder.display().to_string())?;
            }
            PkgCommand::Describe(c) => {
                let folder = c.folder(&store)?;
                let path = folder.join("README.md");
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("{} has no README.md", c.package))?;
                output::line(text.trim_end())?;
            }
            PkgCommand::Contents(c) => list_contents(&c.folder(&store)?, global)?,
            PkgCommand::Add(c) => {
                check(&c.config, &c.nightly)?;
                let name = match c.name {
                    Some(name) => name,
                    None => random_name()?,
                };
                store.add(&c.source, &name)?;
                output::line(name)?;
            }
            PkgCommand::Delete(c) => remove(&c.existing(&home, &store)?)?,
        }
        Ok(0)
    }
}

fn check(config: &ConfigFlags, nightly: &NightlyFlags) -> Result<()> {
    nightly.check()?;
    support::check(&config.load()?)
}

impl ListCommand {
    fn execute(self, store: &Store<'_>, global: &GlobalFlags) -> Result<()> {
        check(&self.config, &self.nightly)?;
        let mut list = if self.local {
            store.list_local()?
        } else {
            store.list()?
        };
        if let Some(pattern) = &self.search {
            let regex = Regex::new(&format!("(?i){pattern}"))
                .with_context(|| format!("--search {pattern} is not a regular expression"))?;
            list.retain(|p| {
                [&p.language, &p.name, &p.namespace]
                    .iter()
                    .any(|t| regex.is_match(t))
            });
        }
        print(list, global)
    }
}

fn print(list: Vec<Listed>, global: &GlobalFlags) -> Result<()> {
    if global.json {
        return output::json(&list);
    }
    let rows = list
        .into_iter()
        .map(|p| {
            vec![
                p.namespace,
                p.name,
                p.version,
                p.language,
                p.arch,
                p.description,
            ]
        })
        .collect();
    let headers = [
        "Namespace",
        "PackageName",
        "Version",
        "Language",
        "CPU Arch",
        "Description",
    ];
    output::table(&headers, rows)
}

fn list_contents(folder: &Path, global: &GlobalFlags) -> Result<()> {
    #[derive(Serialize)]
    struct Item {
        #[serde(rename = "Name")]
        name: String,
        #[serde(rename = "Dir")]
        dir: String,
    }
    let files = contents(folder)?;
    if global.json {
        let items: Vec<Item> = files
            .into_iter()
            .map(|(dir, name)| Item { name, dir })
            .collect();
        return output::json(&items);
    }
    for (dir, name) in files {
        output::line(format!("{}/{name}", dir.trim_end_matches('/')))?;
    }
    Ok(())
}

impl LocalCommand {
    /// The package's folder; one that can be made is made.
    fn folder(&self, store: &Store<'_>) -> Result<PathBuf> {
        check(&self.config, &self.nightly)?;
        if self.local {
            store.local(&self.package)
        } else {
            store.get(&Name::parse(&self.package)?, false)
        }
    }

    /// The package's folder, which must be here.
    fn existing(&self, home: &Home, store: &Store<'_>) -> Result<PathBuf> {
        check(&self.config, &self.nightly)?;
        if self.local {
            return store.local(&self.package);
        }
        let name = Name::parse(&self.package)?;
        match store.made(&name)? {
            Some(path) => Ok(path),
            None => bail!(
                "package `{name}` is not on this machine, below {}",
                home.packages().display()
            ),
        }
    }
}

impl LoadCommand {
    fn execute(self, home: &Home, global: &GlobalFlags) -> Result<u8> {
        no_surplus(&self.surplus)?;
        self.nightly.check()?;
        self.nanos.check()?;
        let mut given = self.config.load()?;
        self.build.apply(&mut given)?;
        self.run.apply(&mut given)?;
        if global.show_debug {
            given.run_mut().verbose = Some(true);
        }
        // Before the package is made, which can take long; its own manifest adds no ports.
        launch::check(home, &given)?;
        let store = Store::new(home);
        let folder = if self.local {
            store.local(&self.package)?
        } else {
            let again = given.force == Some(true);
            store.get(&Name::parse(&self.package)?, again)?
        };
        let config = merged(&read_manifest(&folder)?, &given);
        launch::check(home, &config)?;
        let program =
            collect::package_program(&folder, config.program.as_deref().unwrap_or_default())?;
        let (name, path) = image_of(home, &config, &program)?;
        let console = Console::prepare(&self.run, &config)?;
        if self.run.skipbuild {
            let image = images::existing(home, &name)?;
            // What the package says is in the image: the patch has only what was given now.
            let mut now = given;
            if !now.args().is_empty() {
                now.args = config.args.clone();
            }
            let patch = boot::patch(&now)?;
            return launch::boot(home, &config, &image, patch, console);
        }
        let tree = collect::from_package(&config, &folder)?;
        let manifest = boot::manifest(&config, &program, &name)?;
        disk::write(&path, &tree, &manifest, least_size(&config)?)?;
        launch::boot(home, &config, &path, None, console)
    }
}

/// A package's manifest with the user's configuration over it: arguments, files and folders add up.
fn merged(package: &Config, given: &Config) -> Config {
    let joined = |a: &Option<Vec<String>>, b: &Option<Vec<String>>| {
        let both: Vec<String> = a.iter().chain(b).flatten().cloned().collect();
        (!both.is_empty()).then_some(both)
    };
    let mut out = package.overlaid_with(given);
    out.args = joined(&package.args, &given.args);
    out.files = joined(&package.files, &given.files);
    out.dirs = joined(&package.dirs, &given.dirs);
    out
}

/// Sixteen hexadecimal digits by chance.
fn random_name() -> Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("cannot make up a name")?;
    if std::io::stderr().is_terminal() {
        output::note("no --name given: the package gets one by chance");
    }
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packages_arguments_come_first() {
        let read = |t: &str| crate::config::parse(t.as_bytes(), Path::new("c")).unwrap();
        let package =
            read(r#"{"Program":"/p","Args":["p"],"Env":{"A":"1","B":"1"},"Files":["x"]}"#);
        let given = read(r#"{"Args":["s.py"],"Env":{"B":"2"},"Files":["y"],"BaseVolumeSz":"1g"}"#);
        let m = merged(&package, &given);
        assert_eq!(m.args(), ["p", "s.py"]);
        assert_eq!(m.files.unwrap(), ["x", "y"]);
        assert_eq!(m.env.unwrap()["B"], "2");
        assert_eq!(m.program.as_deref(), Some("/p"));
        assert_eq!(m.base_volume_sz.as_deref(), Some("1g"));
    }
}
