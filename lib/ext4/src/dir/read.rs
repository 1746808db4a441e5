//! Reading a directory from a cookie on.
//!
//! Cookies of hashed directories, and of those with one block that may become hashed, are positions in hash order, so
//! they stay right while names come and go and when blocks split. Other directories use byte offsets.

use super::hash::HashKind;
use super::leaf;
use crate::cache::Id;
use crate::inode::Node;
use crate::{BlockDevice, DirEntry, Error, Ext4, Ino, Result};
use alloc::vec::Vec;

type Each<'a> = &'a mut dyn FnMut(&DirEntry<'_>) -> bool;

/// The position of a hash: 63 bits, never one of the two that `.` and `..` use.
fn position((major, minor): (u32, u32)) -> u64 {
    (u64::from(major >> 1) << 32 | u64::from(minor)).max(2)
}

impl<D: BlockDevice> Ext4<D> {
    /// Hands the entries of `dir` from `cookie` (0 is the start) to `each` until that returns false. Cookies are
    /// positions in hash order, so other entries may come and go in between. `NotFound` for a removed directory.
    pub fn readdir(
        &mut self,
        dir: Ino,
        cookie: u64,
        each: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.cache.trim();
        let node = self.live_dir(dir)?;
        self.each_entry(&node, cookie, each)
    }

    pub(crate) fn each_entry(&mut self, dir: &Node, cookie: u64, each: Each<'_>) -> Result<()> {
        let names: [&[u8]; 2] = [b".", b".."];
        for (at, name) in (0u64..).zip(names) {
            if cookie <= at
                && let Some(place) = self.find_entry(dir, name)?
            {
                let dirent_type = crate::FileKind::Directory.dirent_type();
                if !each(&DirEntry {
                    ino: place.ino,
                    dirent_type,
                    name,
                    next: at + 1,
                }) {
                    return Ok(());
                }
            }
        }
        let cookie = cookie.max(2);
        if self.is_indexed(dir) {
            self.each_hashed(dir, cookie, each)
        } else if self.dir_blocks(dir)? == 1 && self.sb.has_dir_index() {
            let kind = HashKind::new(
                self.sb.hash_version,
                self.sb.hash_unsigned,
                self.sb.hash_seed,
            )?;
            let id = self.dir_leaf(dir, 0)?;
            self.emit(&[id], &kind, cookie, each).map(|_| ())
        } else {
            self.each_linear(dir, cookie, each)
        }
    }

    fn each_hashed(&mut self, dir: &Node, cookie: u64, each: Each<'_>) -> Result<()> {
        let root = self.index_root(dir)?;
        let hash = (cookie >> 32 << 1) as u32;
        let (mut frames, logical) = self.probe(dir, &root, hash)?;
        let mut ids = alloc::vec![self.dir_leaf(dir, logical)?];
        let mut last = 0;
        loop {
            let next = self.next_leaf(dir, &mut frames)?;
            if let Some((start, _)) = next {
                if start <= last {
                    return Err(Error::corrupt("hash tree order"));
                }
                last = start;
            }
            if let Some((start, logical)) = next
                && start & 1 != 0
                && ids.len() < 64
            {
                // Names of one hash go on in the next block: sort the two together.
                ids.push(self.dir_leaf(dir, logical)?);
                continue;
            }
            if !self.emit(&ids, &root.hash, cookie, each)? {
                return Ok(());
            }
            match next {
                None => return Ok(()),
                Some((start, mut logical)) => {
                    ids.clear();
                    if self.cache.is_over_limit() && !self.in_operation() {
                        // Evicting invalidates the frames.
                        self.cache.trim();
                        let root = self.index_root(dir)?;
                        (frames, logical) = self.probe(dir, &root, start)?;
                    }
                    ids.push(self.dir_leaf(dir, logical)?);
                }
            }
        }
    }

    /// Hands out the entries of some leaves in hash order. False when `each` has had enough.
    fn emit(&mut self, ids: &[Id], kind: &HashKind, cookie: u64, each: Each<'_>) -> Result<bool> {
        let end = self.leaf_end();
        let typed = self.sb.has_filetype();
        let inodes = self.sb.inodes;
        let mut sorted: Vec<(u64, leaf::Entry<'_>)> = Vec::new();
        for &id in ids {
            for entry in leaf::entries(&self.data(id)[..end]) {
                let entry = entry?;
                if entry.ino == 0 || entry.ino > inodes || entry.name == b"." || entry.name == b".."
                {
                    continue;
                }
                let at = position(kind.hash(entry.name));
                if at >= cookie {
                    sorted.push((at, entry));
                }
            }
        }
        sorted.sort_unstable_by_key(|&(at, ref entry)| (at, entry.name));
        for (at, entry) in sorted {
            let dirent_type = if typed {
                dirent_type(entry.file_type)
            } else {
                0
            };
            if !each(&DirEntry {
                ino: entry.ino,
                dirent_type,
                name: entry.name,
                next: at + 1,
            }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn each_linear(&mut self, dir: &Node, cookie: u64, each: Each<'_>) -> Result<()> {
        let (end, size) = (self.leaf_end(), u64::from(self.sb.block_size));
        let (typed, inodes) = (self.sb.has_filetype(), self.sb.inodes);
        let blocks = self.dir_blocks(dir)?;
        for logical in (cookie / size).min(u64::from(blocks)) as u32..blocks {
            if logical % 64 == 63 {
                self.trim_in_read();
            }
            let id = self.dir_leaf(dir, logical)?;
            for entry in leaf::entries(&self.data(id)[..end]) {
                let entry = entry?;
                let at = u64::from(logical) * size + entry.at as u64;
                let dots = entry.name == b"." || entry.name == b"..";
                if at < cookie || entry.ino == 0 || entry.ino > inodes || dots {
                    continue;
                }
                let next = at + entry.rec_len as u64;
                let dirent_type = if typed {
                    dirent_type(entry.file_type)
                } else {
                    0
                };
                if !each(&DirEntry {
                    ino: entry.ino,
                    dirent_type,
                    name: entry.name,
                    next,
                }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The `d_type` of a file-type byte.
fn dirent_type(file_type: u8) -> u8 {
    match file_type {
        1 => 8,
        2 => 4,
        3 => 2,
        4 => 6,
        5 => 1,
        6 => 12,
        7 => 10,
        _ => 0,
    }
}
