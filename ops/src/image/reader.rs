//! Reading an image: its manifest and the files of its root. Serves `ops image ls`, `cat`, `tree`, `cp`, `env`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use ext4::{Attrs, Ext4, FileDevice, FileKind, Ino, MountOptions, ROOT_INO};
use manifest::gpt::{Header, Partition, SECTOR};
use manifest::{MANIFEST_PARTITION_TYPE, ROOT_PARTITION_TYPE, partition};
use serde_json::Value;

/// An image opened for reading.
pub struct Image {
    fs: Ext4<FileDevice>,
    manifest: Value,
}

/// One entry of a folder.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// Its attributes.
    pub attrs: Attrs,
    /// Where a link points to.
    pub target: Option<Vec<u8>>,
}

impl Image {
    /// Opens an image file.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("cannot read the image {}", path.display());
        let file = File::open(path).with_context(context)?;
        let (boot, root) = partitions(&file).with_context(context)?;
        let text = manifest_text(&file, &boot).with_context(context)?;
        let manifest = manifest::json::parse(&text)
            .map_err(|e| anyhow!("the manifest of {}: {e}", path.display()))?;
        let device = FileDevice::new(file, root.offset(), root.len());
        let fs = Ext4::mount(device, MountOptions::read_only()).with_context(context)?;
        Ok(Image { fs, manifest })
    }

    /// The boot manifest.
    pub fn manifest(&self) -> &Value {
        &self.manifest
    }

    /// The inode at a path; links are followed, the last one only when `follow`.
    pub fn find(&mut self, path: &str, follow: bool) -> Result<Ino> {
        self.walk(path, follow)
            .with_context(|| format!("{path} in the image"))
    }

    fn walk(&mut self, path: &str, follow: bool) -> Result<Ino> {
        // A stack of folders, so that `..` leads back; parts still to walk are kept in reverse.
        let mut above: Vec<Ino> = vec![ROOT_INO];
        let mut rest: Vec<Vec<u8>> = parts(path.as_bytes());
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let folder = *above.last().unwrap_or(&ROOT_INO);
            let ino = self.fs.lookup(folder, &part)?;
            let is_link = self.fs.attrs(ino)?.kind == FileKind::Symlink;
            if is_link && (follow || !rest.is_empty()) {
                links += 1;
                if links > 40 {
                    bail!("too many symbolic links");
                }
                let target = self.fs.readlink(ino)?;
                if target.starts_with(b"/") {
                    above.truncate(1);
                }
                rest.extend(parts(&target));
            } else {
                above.push(ino);
            }
        }
        Ok(*above.last().unwrap_or(&ROOT_INO))
    }

    /// The attributes of an inode.
    pub fn attrs(&mut self, ino: Ino) -> Result<Attrs> {
        Ok(self.fs.attrs(ino)?)
    }

    /// Where a link points to.
    pub fn target(&mut self, ino: Ino) -> Result<Vec<u8>> {
        Ok(self.fs.readlink(ino)?)
    }

    /// The entries of a folder but `.` and `..`, in byte order of their names.
    pub fn entries(&mut self, folder: Ino) -> Result<Vec<Entry>> {
        let mut names: Vec<(Vec<u8>, Ino)> = Vec::new();
        self.fs.readdir(folder, 0, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                names.push((entry.name.to_vec(), entry.ino));
            }
            true
        })?;
        names.sort();
        let mut out = Vec::with_capacity(names.len());
        for (name, ino) in names {
            let attrs = self.fs.attrs(ino)?;
            let target = match attrs.kind {
                FileKind::Symlink => Some(self.fs.readlink(ino)?),
                _ => None,
            };
            out.push(Entry {
                name,
                attrs,
                target,
            });
        }
        Ok(out)
    }

    /// Hands the contents of a file to `sink`, piece by piece.
    pub fn read(&mut self, ino: Ino, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            let length = self.fs.read_at(ino, at, &mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            sink(&buffer[..length])?;
            at += length as u64;
        }
    }
}

fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&b| b == b'/')
        .filter(|p| !p.is_empty() && *p != b".")
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

/// The manifest partition and the root partition.
fn partitions(file: &File) -> Result<(Partition, Partition)> {
    let length = file.metadata()?.len();
    let mut sector = [0; SECTOR];
    if length < 2 * SECTOR as u64 {
        bail!("the file is too short for a disk image");
    }
    file.read_exact_at(&mut sector, SECTOR as u64)?;
    let header = Header::parse(&sector).context("not an image of this tool")?;
    let mut entries = vec![0; header.entries_len()];
    let at = header.entries_at.saturating_mul(SECTOR as u64);
    file.read_exact_at(&mut entries, at)
        .context("the partition table is cut short")?;
    let all = header.partitions(&entries)?;
    let find = |kind, name: &str| {
        let part = all.iter().find(|p| p.kind == kind).cloned();
        let part = part.with_context(|| format!("it has no {name} partition"))?;
        if part.offset() + part.len() > length {
            bail!("the {name} partition reaches beyond the end of the file");
        }
        Ok(part)
    };
    Ok((
        find(MANIFEST_PARTITION_TYPE, "manifest")?,
        find(ROOT_PARTITION_TYPE, "root")?,
    ))
}

fn manifest_text(file: &File, part: &Partition) -> Result<Vec<u8>> {
    let found = partition::load(&OnDisk(file, part)).map_err(|error| match error {
        partition::Error::Disk(error) => error.into(),
        partition::Error::Partition(error) => anyhow::Error::from(error),
    })?;
    Ok(found.text)
}

/// The manifest partition in an image.
struct OnDisk<'a>(&'a File, &'a Partition);

impl partition::Disk for OnDisk<'_> {
    type Error = std::io::Error;

    fn size(&self) -> u64 {
        self.1.len()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(into, self.1.offset() + offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all_at(bytes, self.1.offset() + offset)
    }

    fn flush(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }
}
