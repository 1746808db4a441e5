//! Unpacks archives into a folder, as an ordinary user: paths checked, modes and times kept, `/bin`, `/lib` and the like
//! moved below `/usr` as on a merged-usr system.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// Folders of the root that are links into `/usr`.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// A folder that archives are unpacked into.
pub struct Target {
    root: PathBuf,
    merge_usr: bool,
    drop: Vec<glob::Pattern>,
    /// Modification times of folders, set at the end: filling them changes them.
    folders: BTreeMap<PathBuf, (u32, i64)>,
}

impl Target {
    /// Unpacks into `root`, which is made. With `merge_usr`, `/bin` and so on become links into `/usr`.
    pub fn new(root: &Path, merge_usr: bool, drop: &[&str]) -> Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Target {
            root: root.to_path_buf(),
            merge_usr,
            drop: drop
                .iter()
                .map(|p| glob::Pattern::new(p))
                .collect::<Result<_, _>>()?,
            folders: BTreeMap::new(),
        })
    }

    /// Unpacks one archive over what is there.
    pub fn add<R: Read>(&mut self, archive: &mut tar::Archive<R>) -> Result<()> {
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            self.entry(&path, &mut entry)
                .with_context(|| format!("cannot unpack {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes a file of our own, over what is there.
    pub fn write(&mut self, path: &str, text: &str, mtime: i64) -> Result<()> {
        let below = self.place(Path::new(path))?.context("no path of a file")?;
        let file = self.make_way(&below)?;
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        set_mtime(&file, mtime)
    }

    fn entry<R: Read>(&mut self, path: &Path, entry: &mut tar::Entry<'_, R>) -> Result<()> {
        let Some(below) = self.place(path)? else {
            return Ok(());
        };
        let header = entry.header();
        let mode = header.mode()? & 0o7777;
        let mtime = header.mtime()? as i64;
        let kind = header.entry_type();
        if kind.is_dir() {
            self.make_dirs(&below)?;
            self.folders.insert(below, (mode, mtime));
            return Ok(());
        }
        if self.dropped(&below) {
            return Ok(());
        }
        let file = self.make_way(&below)?;
        if kind.is_file() {
            let mut out = File::create(&file)?;
            io::copy(entry, &mut out)?;
            out.set_permissions(fs::Permissions::from_mode(mode))?;
            drop(out);
            set_mtime(&file, mtime)?;
        } else if kind.is_symlink() {
            let target = entry.link_name()?.context("a link without a target")?;
            symlink(&target, &file)?;
            set_mtime(&file, mtime)?;
        } else if kind.is_hard_link() {
            let target = entry.link_name()?.context("a link without a target")?;
            if let Some(target) = self.place(&target)? {
                fs::hard_link(self.root.join(target), &file)?;
            }
        } else {
            bail!("it is neither file, folder nor link");
        }
        Ok(())
    }

    /// Makes the folders that `below` is in, and removes what stands there; gives the place in the file system.
    fn make_way(&mut self, below: &Path) -> Result<PathBuf> {
        self.make_dirs(below.parent().unwrap_or(Path::new("")))?;
        let file = self.root.join(below);
        if file.symlink_metadata().is_ok() {
            fs::remove_file(&file)?;
        }
        Ok(file)
    }

    /// Where a path of an archive goes, relative to the root; `None` for the root itself.
    fn place(&self, path: &Path) -> Result<Option<PathBuf>> {
        let mut out = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => out.push(name),
                Component::CurDir | Component::RootDir => {}
                _ => bail!("the path leads out of the archive"),
            }
        }
        let first = out.components().next().map(|c| c.as_os_str().to_owned());
        if self.merge_usr && first.is_some_and(|f| MERGED.iter().any(|m| f == *m)) {
            out = Path::new("usr").join(out);
        }
        Ok((!out.as_os_str().is_empty()).then_some(out))
    }

    fn dropped(&self, below: &Path) -> bool {
        self.drop.iter().any(|p| p.matches_path(below))
    }

    /// Makes a folder; one that is a link already could lead elsewhere and is refused.
    fn make_dirs(&mut self, below: &Path) -> Result<()> {
        let mut at = self.root.clone();
        for part in below.components() {
            at.push(part);
            match at.symlink_metadata() {
                Ok(m) if m.is_dir() => {}
                Ok(_) => bail!("{} is in the way", at.display()),
                Err(_) => fs::create_dir(&at)?,
            }
        }
        Ok(())
    }

    /// Makes the merged-usr links for the folders that there are.
    pub fn links(&self, epoch: i64) -> Result<()> {
        for name in MERGED.iter().filter(|_| self.merge_usr) {
            let link = self.root.join(name);
            if self.root.join("usr").join(name).is_dir() && link.symlink_metadata().is_err() {
                symlink(format!("usr/{name}"), &link)?;
                set_mtime(&link, epoch)?;
            }
        }
        Ok(())
    }

    /// Finishes: removes folders that only held dropped files, makes the merged-usr links, sets modes and times of all
    /// folders.
    pub fn finish(self, epoch: i64) -> Result<()> {
        self.links(epoch)?;
        self.settle(&self.root, Path::new(""), epoch)?;
        Ok(())
    }

    /// Returns whether the folder is still there.
    fn settle(&self, folder: &Path, below: &Path, epoch: i64) -> Result<bool> {
        let mut children: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        children.sort_by_key(fs::DirEntry::file_name);
        let mut left = 0;
        for child in children {
            let path = child.path();
            if !child.file_type()?.is_dir()
                || self.settle(&path, &below.join(child.file_name()), epoch)?
            {
                left += 1;
            }
        }
        let inside = below.join("x");
        if left == 0 && !below.as_os_str().is_empty() && self.dropped(&inside) {
            fs::remove_dir(folder)?;
            return Ok(false);
        }
        let (mode, mtime) = self.folders.get(below).copied().unwrap_or((0o755, epoch));
        fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o700))?;
        set_mtime(folder, mtime)?;
        Ok(true)
    }
}

/// Sets access and modification time of a file, folder or link.
pub fn set_mtime(path: &Path, seconds: i64) -> Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("cannot set the time of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn entry(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, data: &str) {
        let mut header = tar::Header::new_gnu();
        // Raw, so that a path can also be one that a sane archive would not have.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o750 } else { 0o4755 });
        header.set_mtime(1_000_000_000);
        if kind.is_file() {
            header.set_size(data.len() as u64);
        } else {
            header.set_size(0);
            if !data.is_empty() {
                header.set_link_name_literal(data).unwrap();
            }
        }
        header.set_cksum();
        let body = if kind.is_file() { data.as_bytes() } else { b"" };
        builder.append(&header, body).unwrap();
    }

    fn unpack(root: &Path, entries: &[(&str, tar::EntryType, &str)]) -> Result<()> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, data) in entries {
            entry(&mut builder, path, *kind, data);
        }
        let bytes = builder.into_inner().unwrap();
        let mut target = Target::new(root, true, &["usr/share/doc/**"])?;
        target.add(&mut tar::Archive::new(&bytes[..]))?;
        target.finish(5)
    }

    use tar::EntryType as T;

    #[test]
    fn merged_usr_modes_times_and_drops() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("r");
        unpack(
            &at,
            &[
                ("./", T::Directory, ""),
                ("./bin/", T::Directory, ""),
                ("./bin/x", T::Regular, "hello"),
                ("./usr/bin/y", T::Symlink, "x"),
                ("./usr/bin/z", T::Link, "./bin/x"),
                ("./usr/share/doc/x/copyright", T::Regular, "no"),
            ],
        )
        .unwrap();
        assert_eq!(fs::read_link(at.join("bin")).unwrap(), Path::new("usr/bin"));
        assert_eq!(fs::read_to_string(at.join("bin/y")).unwrap(), "hello");
        let x = fs::metadata(at.join("usr/bin/x")).unwrap();
        assert_eq!(x.mode() & 0o7777, 0o4755);
        assert_eq!((x.mtime(), x.nlink()), (1_000_000_000, 2));
        let bin = fs::metadata(at.join("usr/bin")).unwrap();
        assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o750, 1_000_000_000));
        assert_eq!(fs::metadata(at.join("usr")).unwrap().mtime(), 5);
        assert!(!at.join("usr/share/doc").exists());
    }

    #[test]
    fn nothing_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("r");
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let target = outside.to_str().unwrap().to_string();
        assert!(unpack(&at, &[("../evil", T::Regular, "x")]).is_err());
        assert!(unpack(&at, &[("a/../../evil", T::Regular, "x")]).is_err());
        assert!(
            unpack(
                &at,
                &[("l", T::Symlink, &target), ("l/evil", T::Regular, "x")]
            )
            .is_err()
        );
        assert!(unpack(&at, &[("dev", T::Char, "")]).is_err());
        assert!(!folder.path().join("evil").exists() && !outside.join("evil").exists());
    }
}
