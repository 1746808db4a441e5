//! The folder of images: names to files, the listing, deletion.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::home::Home;

/// One image file.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Size of the disk in bytes.
    pub size: u64,
    /// When it was made.
    pub created: SystemTime,
}

/// The file of an image name. A name with a slash is a path of its own.
pub fn path_of(home: &Home, name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    if name.is_empty() || name == "." || name == ".." {
        bail!("`{name}` is not a name for an image");
    }
    Ok(home.images().join(name))
}

/// The file of an image that must exist; an unknown name suggests the nearest.
pub fn existing(home: &Home, name: &str) -> Result<PathBuf> {
    let path = path_of(home, name)?;
    if path.is_file() {
        return Ok(path);
    }
    let names: Vec<String> = list(home)?.into_iter().map(|i| i.name).collect();
    let near = crate::package::name::nearest(name, names.iter().map(String::as_str));
    match near {
        Some(near) => bail!("there is no image `{name}`; did you mean `{near}`?"),
        None => bail!("there is no image `{name}` in {}", home.images().display()),
    }
}

/// All images, by name.
pub fn list(home: &Home) -> Result<Vec<Stored>> {
    let folder = home.images();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(e).with_context(|| format!("cannot read {}", folder.display()));
        }
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if metadata.is_file() && !name.starts_with('.') {
            out.push(Stored {
                name,
                path: entry.path(),
                size: metadata.len(),
                created: metadata.modified()?,
            });
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

/// Whether a process holds the image open (a running machine does), as far as `/proc` lets us see.
pub fn in_use(path: &Path) -> Option<u32> {
    let path = path.canonicalize().ok()?;
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for file in files.flatten() {
            if fs::read_link(file.path()).is_ok_and(|target| target == path) {
                return Some(pid);
            }
        }
    }
    None
}
