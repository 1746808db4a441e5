//! `ops image`: the images of this machine.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use ext4::{FileKind, Ino};
use serde_json::{Value, json};

use super::flags::{ConfigFlags, GlobalFlags, ProviderFlags};
use crate::config::support;
use crate::home::Home;
use crate::image::reader::{Entry, Image};
use crate::image::store;
use crate::output;

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the images
    List(Common),
    /// Delete images
    Delete(DeleteCommand),
    /// List the files of a folder in an image
    Ls(LsCommand),
    /// Print a file of an image
    Cat(CatCommand),
    /// Print all that is in an image
    Tree(TreeCommand),
    /// Copy files out of an image
    Cp(CpCommand),
    /// Print the environment of an image's program
    Env(EnvCommand),
}

/// Flags of all of them.
#[derive(Debug, Args)]
pub struct Common {
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    provider: ProviderFlags,
}

impl Common {
    fn check(&self) -> Result<Home> {
        self.provider.check()?;
        support::check(&self.config.load()?)?;
        Home::find()
    }
}

#[derive(Debug, Args)]
pub struct DeleteCommand {
    /// The images
    names: Vec<String>,
    /// Images not used since then: 1w, 300d, 1m, 2y
    #[arg(long, value_name = "TIME")]
    lru: Option<String>,
    /// Do not ask
    #[arg(long)]
    assume_yes: bool,
    /// Delete even what a running machine uses
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct LsCommand {
    /// The image
    image: String,
    /// The folder
    #[arg(default_value = "/")]
    path: String,
    /// Modes, owners, sizes and times
    #[arg(short, long)]
    long_format: bool,
    #[command(flatten)]
    boot: BootFs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct CatCommand {
    /// The image
    image: String,
    /// The file
    path: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct TreeCommand {
    /// The image
    image: String,
    #[command(flatten)]
    boot: BootFs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct CpCommand {
    /// The image
    image: String,
    /// Files and folders in the image, then where to copy them here
    #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "DESTINATION"])]
    paths: Vec<String>,
    /// Copy folders with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// Copy what links point to
    #[arg(short = 'L', long)]
    dereference: bool,
    #[command(flatten)]
    boot: BootFs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct EnvCommand {
    /// The image
    image: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct BootFs {
    /// The boot file system (there is none)
    #[arg(long)]
    bootfs: bool,
}

impl BootFs {
    fn check(&self) -> Result<()> {
        if self.bootfs {
            bail!(
                "--bootfs is not supported: images have no boot file system, the kernel is started directly"
            );
        }
        Ok(())
    }
}

impl ImageCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<()> {
        match self {
            ImageCommand::List(c) => list(&c.check()?, global),
            ImageCommand::Delete(c) => c.execute(),
            ImageCommand::Ls(c) => c.execute(global),
            ImageCommand::Cat(c) => c.execute(),
            ImageCommand::Tree(c) => c.execute(global),
            ImageCommand::Cp(c) => c.execute(),
            ImageCommand::Env(c) => c.execute(global),
        }
    }
}

fn open(home: &Home, name: &str) -> Result<Image> {
    Image::open(&store::existing(home, name)?)
}

fn list(home: &Home, global: &GlobalFlags) -> Result<()> {
    let images = store::list(home)?;
    if global.json {
        let items: Vec<Value> = images
            .iter()
            .map(|i| {
                json!({
                    "ID": "", "Name": i.name, "Status": "", "Size": i.size, "Path": i.path,
                    "Created": output::rfc3339(i.created), "Tag": "", "Labels": [],
                })
            })
            .collect();
        return output::json(&items);
    }
    let rows = images
        .into_iter()
        .map(|i| {
            let path = i.path.display().to_string();
            vec![i.name, path, output::size(i.size), output::ago(i.created)]
        })
        .collect();
    output::table(&["Name", "Path", "Size", "CreatedAt"], rows)
}

impl DeleteCommand {
    fn execute(self) -> Result<()> {
        let home = self.common.check()?;
        let mut paths: Vec<PathBuf> = Vec::new();
        for name in &self.names {
            paths.push(store::existing(&home, name)?);
        }
        if let Some(age) = &self.lru {
            let limit = SystemTime::now() - parse_age(age)?;
            let old = store::list(&home)?
                .into_iter()
                .filter(|i| i.created < limit);
            paths.extend(old.map(|i| i.path));
        }
        if self.names.is_empty() && self.lru.is_none() {
            bail!("name the images to delete, or use --lru");
        }
        paths.sort();
        paths.dedup();
        if paths.is_empty() {
            output::note("no image is that old");
            return Ok(());
        }
        for path in &paths {
            if let Some(pid) = store::in_use(path).filter(|_| !self.force) {
                bail!(
                    "{} is in use by process {pid}; --force deletes it all the same",
                    path.display()
                );
            }
        }
        if !self.assume_yes && !confirmed(&paths)? {
            return Ok(());
        }
        for path in paths {
            fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
        Ok(())
    }
}

fn confirmed(paths: &[PathBuf]) -> Result<bool> {
    let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    eprint!("Delete {}? [y/N] ", names.join(", "));
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Reads an age: a number and d, w, m (30 days) or y (365 days).
fn parse_age(text: &str) -> Result<Duration> {
    let days = text.char_indices().next_back().and_then(|(at, unit)| {
        let unit = match unit {
            'd' => 1,
            'w' => 7,
            'm' => 30,
            'y' => 365,
            _ => return None,
        };
        text[..at].parse::<u32>().ok().map(|n| u64::from(n) * unit)
    });
    // A thousand years are within any clock's range.
    days.filter(|d| *d <= 365_000)
        .map(|d| Duration::from_secs(d * 86_400))
        .with_context(|| format!("--lru {text}: write 300d, 1w, 1m or 2y"))
}

impl LsCommand {
    fn execute(self, global: &GlobalFlags) -> Result<()> {
        self.boot.check()?;
        let home = self.common.check()?;
        let mut image = open(&home, &self.image)?;
        let ino = image.find(&self.path, true)?;
        let attrs = image.attrs(ino)?;
        let entries = if attrs.kind == FileKind::Directory {
            image.entries(ino)?
        } else {
            vec![Entry {
                name: self.path.clone().into_bytes(),
                attrs,
                target: None,
            }]
        };
        if global.json {
            let items: Vec<Value> = entries.iter().map(entry_json).collect();
            return output::json(&items);
        }
        let color = io::stdout().is_terminal();
        for entry in &entries {
            let name = shown(entry, color);
            if self.long_format {
                let a = &entry.attrs;
                let time = u64::try_from(a.mtime.sec).unwrap_or(0);
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time);
                let time = output::rfc3339(time);
                let mode = mode_text(a.mode);
                output::line(format!(
                    "{mode} {:>5} {:>5} {:>10} {time} {name}",
                    a.uid, a.gid, a.size
                ))?;
            } else {
                output::line(name)?;
            }
        }
        Ok(())
    }
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "name": String::from_utf8_lossy(&entry.name),
        "type": kind_name(entry.attrs.kind),
        "size": entry.attrs.size,
        "mode": format!("{:04o}", entry.attrs.mode & 0o7777),
        "uid": entry.attrs.uid,
        "gid": entry.attrs.gid,
        "mtime": entry.attrs.mtime.sec,
        "target": entry.target.as_ref().map(|t| String::from_utf8_lossy(t).into_owned()),
    })
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "dir",
        FileKind::Symlink => "link",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice(_) => "char",
        FileKind::BlockDevice(_) => "block",
    }
}

/// A name as listings show it: folders blue, links cyan with their target.
fn shown(entry: &Entry, color: bool) -> String {
    let name = String::from_utf8_lossy(&entry.name).into_owned();
    let paint = |code: &str, text: String| {
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text
        }
    };
    match &entry.target {
        Some(target) => format!(
            "{} -> {}",
            paint("36", name),
            String::from_utf8_lossy(target)
        ),
        None if entry.attrs.kind == FileKind::Directory => paint("34", name),
        None => name,
    }
}

fn mode_text(mode: u16) -> String {
    let kind = match mode >> 12 {
        0o01 => 'p',
        0o02 => 'c',
        0o04 => 'd',
        0o06 => 'b',
        0o12 => 'l',
        0o14 => 's',
        _ => '-',
    };
    let mut out = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    out
}

impl CatCommand {
    fn execute(self) -> Result<()> {
        let home = self.common.check()?;
        let mut image = open(&home, &self.image)?;
        let ino = image.find(&self.path, true)?;
        match image.attrs(ino)?.kind {
            FileKind::Regular => {}
            FileKind::Directory => bail!("{} is a folder", self.path),
            other => bail!("{} is a {}, not a file", self.path, kind_name(other)),
        }
        let mut out = io::stdout().lock();
        image.read(ino, &mut |piece| Ok(out.write_all(piece)?))?;
        Ok(out.flush()?)
    }
}

impl TreeCommand {
    fn execute(self, global: &GlobalFlags) -> Result<()> {
        self.boot.check()?;
        let home = self.common.check()?;
        let mut image = open(&home, &self.image)?;
        let root = image.find("/", true)?;
        if global.json {
            let mut paths = Vec::new();
            flat(&mut image, root, "", &mut paths)?;
            return output::json(&paths);
        }
        output::line("/")?;
        indented(&mut image, root, 1, io::stdout().is_terminal())
    }
}

fn flat(image: &mut Image, folder: Ino, path: &str, out: &mut Vec<String>) -> Result<()> {
    for entry in image.entries(folder)? {
        let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
        out.push(path.clone());
        if entry.attrs.kind == FileKind::Directory {
            flat(image, entry.attrs.ino, &path, out)?;
        }
    }
    Ok(())
}

fn indented(image: &mut Image, folder: Ino, depth: usize, color: bool) -> Result<()> {
    for entry in image.entries(folder)? {
        output::line(format!("{}{}", "|   ".repeat(depth), shown(&entry, color)))?;
        if entry.attrs.kind == FileKind::Directory {
            indented(image, entry.attrs.ino, depth + 1, color)?;
        }
    }
    Ok(())
}

impl CpCommand {
    fn execute(self) -> Result<()> {
        self.boot.check()?;
        let home = self.common.check()?;
        let mut image = open(&home, &self.image)?;
        let Some((destination, sources)) = self.paths.split_last() else {
            bail!("name what to copy and where to");
        };
        let destination = Path::new(destination);
        if sources.len() > 1 && !destination.is_dir() {
            bail!("{} is not a folder", destination.display());
        }
        for source in sources {
            let target = match Path::new(source).file_name() {
                Some(name) if destination.is_dir() => destination.join(name),
                _ => destination.to_path_buf(),
            };
            let ino = image.find(source, self.dereference)?;
            self.copy(&mut image, ino, source, &target)
                .with_context(|| format!("cannot copy {source}"))?;
        }
        Ok(())
    }

    fn copy(&self, image: &mut Image, ino: Ino, source: &str, target: &Path) -> Result<()> {
        let attrs = image.attrs(ino)?;
        let mode = fs::Permissions::from_mode(u32::from(attrs.mode & 0o777));
        match attrs.kind {
            FileKind::Regular => {
                let mut out = fs::File::create(target)
                    .with_context(|| format!("cannot write {}", target.display()))?;
                image.read(ino, &mut |piece| Ok(out.write_all(piece)?))?;
                out.set_permissions(mode)?;
                if let Ok(seconds) = u64::try_from(attrs.mtime.sec) {
                    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, attrs.mtime.nsec);
                    out.set_modified(time)?;
                }
            }
            FileKind::Directory => {
                if !self.recursive {
                    bail!("{source} is a folder: -r copies it with all that is in it");
                }
                if !target.is_dir() {
                    fs::create_dir(target)
                        .with_context(|| format!("cannot make {}", target.display()))?;
                }
                for entry in image.entries(ino)? {
                    let name = std::ffi::OsStr::from_bytes(&entry.name);
                    let below = format!(
                        "{}/{}",
                        source.trim_end_matches('/'),
                        name.to_string_lossy()
                    );
                    let child = if self.dereference && entry.target.is_some() {
                        image.find(&below, true)?
                    } else {
                        entry.attrs.ino
                    };
                    self.copy(image, child, &below, &target.join(name))?;
                }
            }
            FileKind::Symlink => {
                let link = image.target(ino)?;
                let link = std::ffi::OsStr::from_bytes(&link);
                if target.is_symlink() {
                    fs::remove_file(target)?;
                }
                symlink(link, target)
                    .with_context(|| format!("cannot write {}", target.display()))?;
            }
            other => output::note(format!("{source} is a {}: left out", kind_name(other))),
        }
        Ok(())
    }
}

impl EnvCommand {
    fn execute(self, global: &GlobalFlags) -> Result<()> {
        let home = self.common.check()?;
        let image = open(&home, &self.image)?;
        let environment = image
            .manifest()
            .get("environment")
            .and_then(Value::as_object);
        if global.json {
            return output::json(&environment.cloned().unwrap_or_default());
        }
        let mut any = false;
        for (name, value) in environment.into_iter().flatten() {
            any = true;
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_string);
            output::line(format!("{name}: {value}"))?;
        }
        if !any {
            output::line("(none)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let days = |t: &str| parse_age(t).unwrap().as_secs() / 86_400;
        assert_eq!(
            (days("3d"), days("1w"), days("2m"), days("1y")),
            (3, 7, 60, 365)
        );
        for bad in ["", "d", "3", "3x", "-1d", "4294967295y"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes() {
        assert_eq!(mode_text(0o100644), "-rw-r--r--");
        assert_eq!(mode_text(0o041777), "drwxrwxrwt");
        assert_eq!(mode_text(0o104711), "-rws--x--x");
        assert_eq!(mode_text(0o120777), "lrwxrwxrwx");
    }
}
