//! Writes a tree as an ext4 file system onto a device. Order, times and identifiers come from the tree alone, so the same
//! tree gives the same bytes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ext4::{
    BlockDevice, Ext4, FileKind, Ino, MkfsOptions, MountOptions, NewInode, ROOT_INO, Timestamp,
    mkfs,
};
use indicatif::ProgressBar;

use super::tree::{Attributes, Id, Kind, ROOT, Tree};

/// File contents are moved in pieces of this many bytes.
const PIECE: usize = 1 << 20;
/// Journal blocks of 4 KiB.
const JOURNAL: u32 = 1024;

/// How large a file system for this tree has to be, in bytes: its contents with half as much again or 64 MiB to spare,
/// at least `least`, in whole MiB.
pub fn size_for(tree: &Tree, least: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    let content = tree.content_bytes();
    let inodes = inodes_for(tree, content) * 256;
    let own = u64::from(JOURNAL) * 4096 + inodes + 4 * MIB;
    let spare = (content / 2).max(64 * MIB);
    // Bitmaps and descriptors of the block groups take below one part in 256.
    let sum = content + own + spare;
    (sum + sum / 256).max(least).next_multiple_of(MIB)
}

fn inodes_for(tree: &Tree, bytes: u64) -> u64 {
    (tree.len() as u64 * 3 / 2 + 1024).max(bytes / 16_384)
}

/// Makes the file system and fills it. `id` seeds the volume's UUID and the directory hash.
pub fn write<D: BlockDevice>(
    device: D,
    tree: &Tree,
    id: [u8; 16],
    progress: &ProgressBar,
) -> Result<()> {
    let size = device.size_bytes();
    let epoch = Timestamp::from_secs(Attributes::made(0).mtime.0);
    let mut seed = id;
    seed.reverse();
    let mut options = MkfsOptions::new(size, id, seed, epoch);
    options.label[..4].copy_from_slice(b"root");
    options.journal_blocks = JOURNAL;
    options.inodes = u32::try_from(inodes_for(tree, tree.content_bytes()).max(size / 65_536)).ok();
    options.zeroed = true;
    mkfs(&device, &options).context("cannot make the root file system")?;
    let fs = Ext4::mount(device, MountOptions::bulk(epoch))
        .context("cannot open the new root file system")?;
    let mut writer = Writer {
        fs,
        tree,
        done: HashMap::new(),
        progress,
        buffer: vec![0; PIECE],
    };
    writer.attributes(ROOT_INO, tree.node(ROOT).attributes)?;
    writer.folder(ROOT, ROOT_INO, Path::new("/"))?;
    writer
        .fs
        .unmount()
        .context("cannot finish the root file system")?;
    Ok(())
}

struct Writer<'a, D> {
    fs: Ext4<D>,
    tree: &'a Tree,
    /// Files written already, for further names of the same file.
    done: HashMap<Id, Ino>,
    progress: &'a ProgressBar,
    buffer: Vec<u8>,
}

impl<D: BlockDevice> Writer<'_, D> {
    fn folder(&mut self, id: Id, ino: Ino, path: &Path) -> Result<()> {
        let tree = self.tree;
        for (name, child) in tree.entries(id) {
            let path = path.join(name);
            self.entry(ino, name, child, &path)
                .with_context(|| format!("cannot write {} into the image", path.display()))?;
        }
        self.times(ino, tree.node(id).attributes)
    }

    fn entry(&mut self, folder: Ino, name: &OsStr, id: Id, path: &Path) -> Result<()> {
        let name = name.as_bytes();
        let node = self.tree.node(id);
        if let Some(&ino) = self.done.get(&id) {
            self.fs.link(folder, name, ino)?;
            return Ok(());
        }
        let kind = match &node.kind {
            Kind::Symlink(target) => {
                let target = target.as_os_str().as_bytes();
                let a = node.attributes;
                let made = self.fs.symlink(folder, name, target, a.uid, a.gid)?;
                return self.times(made.ino, a);
            }
            Kind::Dir(_) => FileKind::Directory,
            Kind::HostFile(..) | Kind::Bytes(_) => FileKind::Regular,
        };
        let new = NewInode {
            kind,
            perm: node.attributes.mode,
            uid: node.attributes.uid,
            gid: node.attributes.gid,
        };
        // A new file system brings a lost+found of its own.
        let ino = match self.fs.create(folder, name, &new) {
            Ok(made) => made.ino,
            Err(ext4::Error::Exists) if kind == FileKind::Directory => {
                let ino = self.fs.lookup(folder, name)?;
                self.attributes(ino, node.attributes)?;
                ino
            }
            Err(e) => return Err(e.into()),
        };
        self.done.insert(id, ino);
        match &node.kind {
            Kind::Dir(_) => return self.folder(id, ino, path),
            Kind::Bytes(bytes) => {
                self.fs.write_at(ino, 0, bytes)?;
                self.progress.inc(bytes.len() as u64);
            }
            Kind::HostFile(host, size) => self.copy(ino, host, *size)?,
            Kind::Symlink(_) => {}
        }
        self.times(ino, node.attributes)
    }

    fn copy(&mut self, ino: Ino, host: &Path, size: u64) -> Result<()> {
        let context = || format!("cannot read {}", host.display());
        let mut file = File::open(host).with_context(context)?;
        let mut at = 0;
        loop {
            let mut length = 0;
            while length < PIECE {
                match file
                    .read(&mut self.buffer[length..])
                    .with_context(context)?
                {
                    0 => break,
                    n => length += n,
                }
            }
            if length == 0 {
                break;
            }
            let piece = &self.buffer[..length];
            // Pieces of zeros stay holes, so that the image stays sparse.
            if piece.iter().any(|&b| b != 0) {
                self.fs.write_at(ino, at, piece)?;
            }
            at += length as u64;
            self.progress.inc(length as u64);
        }
        if at != size {
            bail!("{} changed while it was read", host.display());
        }
        if self.fs.attrs(ino)?.size != size {
            self.fs.truncate(ino, size)?;
        }
        Ok(())
    }

    fn attributes(&mut self, ino: Ino, a: Attributes) -> Result<()> {
        self.fs.set_mode(ino, a.mode)?;
        self.fs.set_owner(ino, Some(a.uid), Some(a.gid))?;
        Ok(())
    }

    fn times(&mut self, ino: Ino, a: Attributes) -> Result<()> {
        let time = Timestamp {
            sec: a.mtime.0,
            nsec: a.mtime.1,
        };
        self.fs.set_times(ino, Some(time), Some(time), Some(time))?;
        Ok(())
    }
}
