//! The tool's own folder: `~/.ops`, or `.ops` under `$OPS_HOME`. Where each thing lies in it; nothing about contents.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The `.ops` folder.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Finds the folder from `$OPS_HOME` or `$HOME`. Nothing is made yet.
    pub fn find() -> Result<Self> {
        let parent = ["OPS_HOME", "HOME"]
            .iter()
            .filter_map(env::var_os)
            .find(|v| !v.is_empty());
        match parent {
            Some(parent) => Ok(Home {
                root: PathBuf::from(parent).join(".ops"),
            }),
            None => bail!("neither OPS_HOME nor HOME is set, so there is no place for ~/.ops"),
        }
    }

    /// Disk images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Packages made from recipes, of one architecture.
    pub fn packages(&self) -> PathBuf {
        self.root.join("packages").join(ARCH)
    }

    /// Packages added by the user, of one architecture.
    pub fn local_packages(&self) -> PathBuf {
        self.root.join("local_packages").join(ARCH)
    }

    /// What APT keeps for us: indices of its own where the host's do not serve, and the archives fetched.
    pub fn apt(&self) -> PathBuf {
        self.root.join("apt")
    }

    /// Where the kernel that is embedded in this version of the tool is unpacked.
    pub fn kernel(&self) -> PathBuf {
        self.root.join(env!("CARGO_PKG_VERSION")).join("kernel.img")
    }

    /// Records of the machines that run.
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// The record that `ops profile` leaves.
    pub fn profile(&self) -> PathBuf {
        self.root.join("profile")
    }
}

/// The architecture's name in paths of the store.
pub const ARCH: &str = "amd64";

/// Makes a folder and those above it, with an error that names it.
pub fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Removes what an interrupted run left in a folder: entries whose names begin with `prefix` and that nobody has changed
/// for `age`. What can not be removed stays: this is only housekeeping.
pub fn sweep(folder: &Path, prefix: &str, age: Duration) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(prefix);
        let changed = entry.metadata().and_then(|m| m.modified());
        let old = changed.is_ok_and(|t| t.elapsed().is_ok_and(|e| e >= age));
        if ours && old {
            let path = entry.path();
            let _ = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
        }
    }
}

/// Writes a file beside its place and moves it there, so that a reader never sees half of it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_dir(folder)?;
    let context = || format!("cannot write {}", path.display());
    let file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(context)?;
    fs::write(file.path(), bytes).with_context(context)?;
    file.persist(path)
        .map_err(|e| e.error)
        .with_context(context)?;
    Ok(())
}
