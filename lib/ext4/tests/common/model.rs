//! A model of a file system, and random operations that are done on the model and on a real one alike.
#![allow(dead_code, missing_docs)]

use super::{NOW, Rng};
use ext4::{BlockDevice, Error, Ext4, FileKind, Ino, NewInode, ROOT_INO, RenameMode, XattrMode};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that unwritten device space is filled with.
pub const POISON: u8 = 0xa5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    File(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, Ino>),
    Link(Vec<u8>),
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub tag: u32,
    pub mode: u16,
    pub nlink: u32,
    pub body: Body,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone)]
pub struct Model {
    pub items: BTreeMap<Ino, Item>,
    /// Inodes without a name that are still held open.
    pub open: Vec<Ino>,
    next_tag: u32,
    /// Inodes touched since the caller last cleared the set.
    pub touched: BTreeSet<Ino>,
    pub no_space: u32,
}

/// The byte that a file with this tag has at an offset, wherever it was written. Never zero or poison.
pub fn tag_byte(tag: u32, offset: u64) -> u8 {
    let byte = (tag >> (offset % 4 * 7)) as u8 & 0x7f;
    byte | if offset % 4 == 3 { 0x40 } else { 0x01 }
}

pub fn pattern(tag: u32, offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64)
        .map(|at| tag_byte(tag, at))
        .collect()
}

/// What may be done, as weights.
#[derive(Clone, Copy)]
pub struct Mix {
    pub max_write: u64,
    pub rename_dirs: bool,
    /// Keep at most that many entries.
    pub max_items: usize,
}

impl Model {
    pub fn new() -> Model {
        let mut root = BTreeMap::new();
        root.insert(b"lost+found".to_vec(), 11);
        let item = |body, nlink, mode| Item {
            tag: 0,
            mode,
            nlink,
            body,
            xattrs: BTreeMap::new(),
        };
        let mut items = BTreeMap::new();
        items.insert(ROOT_INO, item(Body::Dir(root), 3, 0o755));
        items.insert(11, item(Body::Dir(BTreeMap::new()), 2, 0o700));
        Model {
            items,
            open: Vec::new(),
            next_tag: 1,
            touched: BTreeSet::new(),
            no_space: 0,
        }
    }

    fn entries(&self, dir: Ino) -> &BTreeMap<Vec<u8>, Ino> {
        match &self.items[&dir].body {
            Body::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    fn entries_mut(&mut self, dir: Ino) -> &mut BTreeMap<Vec<u8>, Ino> {
        self.touched.insert(dir);
        match &mut self.items.get_mut(&dir).expect("an inode").body {
            Body::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    fn data_mut(&mut self, ino: Ino) -> &mut Vec<u8> {
        self.touched.insert(ino);
        match &mut self.items.get_mut(&ino).expect("an inode").body {
            Body::File(data) => data,
            _ => panic!("not a file"),
        }
    }

    fn pick(&self, rng: &mut Rng, want: impl Fn(&Item) -> bool) -> Option<Ino> {
        let list: Vec<Ino> = self
            .items
            .iter()
            .filter(|(ino, item)| **ino != 11 && want(item))
            .map(|(ino, _)| *ino)
            .collect();
        (!list.is_empty()).then(|| list[rng.below(list.len() as u64) as usize])
    }

    fn pick_dir(&self, rng: &mut Rng) -> Ino {
        self.pick(rng, |item| {
            matches!(item.body, Body::Dir(_)) && item.nlink > 0
        })
        .expect("the root")
    }

    fn pick_file(&self, rng: &mut Rng) -> Option<Ino> {
        self.pick(rng, |item| matches!(item.body, Body::File(_)))
    }

    fn pick_entry(&self, rng: &mut Rng) -> Option<(Ino, Vec<u8>, Ino)> {
        for _ in 0..10 {
            let dir = self.pick_dir(rng);
            let entries = self.entries(dir);
            if entries.is_empty() {
                continue;
            }
            let (name, &ino) = entries
                .iter()
                .nth(rng.below(entries.len() as u64) as usize)
                .expect("an entry");
            if ino != 11 {
                return Some((dir, name.clone(), ino));
            }
        }
        None
    }

    /// Marks a directory and all below it as touched: their paths change.
    fn touch_tree(&mut self, ino: Ino) {
        self.touched.insert(ino);
        if let Body::Dir(entries) = &self.items[&ino].body {
            for child in entries.values().copied().collect::<Vec<_>>() {
                self.touch_tree(child);
            }
        }
    }

    fn is_below(&self, top: Ino, dir: Ino) -> bool {
        if top == dir {
            return true;
        }
        match &self.items[&top].body {
            Body::Dir(entries) => entries.values().any(|&child| self.is_below(child, dir)),
            _ => false,
        }
    }

    fn new_name(&mut self, rng: &mut Rng) -> Vec<u8> {
        let tag = self.next_tag;
        let mut name = format!("{tag}").into_bytes();
        let len = match rng.below(10) {
            0 => 255,
            1..=3 => 60 + rng.below(100) as usize,
            _ => name.len() + rng.below(20) as usize,
        };
        while name.len() < len {
            name.push(0x80 | rng.next() as u8 | 1);
        }
        name
    }

    fn insert(&mut self, dir: Ino, name: Vec<u8>, ino: Ino, mode: u16, nlink: u32, body: Body) {
        self.entries_mut(dir).insert(name, ino);
        self.touched.insert(ino);
        let tag = self.next_tag;
        self.next_tag += 1;
        self.items.insert(
            ino,
            Item {
                tag,
                mode,
                nlink,
                body,
                xattrs: BTreeMap::new(),
            },
        );
    }

    fn drop_link<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>, ino: Ino) {
        self.touched.insert(ino);
        let item = self.items.get_mut(&ino).expect("an inode");
        item.nlink = if matches!(item.body, Body::Dir(_)) {
            0
        } else {
            item.nlink - 1
        };
        if item.nlink == 0 {
            if rng.below(4) == 0 && matches!(item.body, Body::File(_)) {
                self.open.push(ino);
            } else {
                fs.release(ino).expect("release");
                self.items.remove(&ino);
            }
        }
    }

    pub fn release_open<D: BlockDevice>(&mut self, fs: &mut Ext4<D>) {
        for ino in std::mem::take(&mut self.open) {
            if self.items[&ino].nlink == 0 {
                fs.release(ino).expect("release");
                self.items.remove(&ino);
                self.touched.insert(ino);
            }
        }
    }

    /// Accepts a full disk; anything else must not fail.
    fn ok<T>(&mut self, result: ext4::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::NoSpace) => {
                self.no_space += 1;
                None
            }
            Err(error) => panic!("unexpected error: {error:?}"),
        }
    }

    /// One random operation.
    pub fn step<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>, mix: &Mix) {
        let crowded = self.items.len() > mix.max_items;
        match rng.below(100) {
            0..=17 if !crowded => self.create(rng, fs),
            18..=21 if !crowded => self.symlink(rng, fs),
            22..=25 => self.link(rng, fs),
            0..=37 => self.unlink(rng, fs),
            38..=45 => self.rename(rng, fs, mix),
            46..=70 => self.write(rng, fs, mix),
            71..=77 => self.truncate(rng, fs, mix),
            78..=81 => self.punch(rng, fs),
            82..=84 => self.fallocate(rng, fs, mix),
            85..=91 => self.xattr(rng, fs),
            92..=94 => {
                let Some(ino) = self.pick(rng, |_| true) else {
                    return;
                };
                let mode = rng.below(0o10000) as u16;
                fs.set_mode(ino, mode).expect("set_mode");
                self.touched.insert(ino);
                self.items.get_mut(&ino).expect("an inode").mode = mode;
            }
            95 => self.release_open(fs),
            _ => {
                let dir = self.pick_dir(rng);
                self.check_dir(fs, dir);
            }
        }
    }

    fn create<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>) {
        let dir = self.pick_dir(rng);
        let name = self.new_name(rng);
        let perm = rng.below(0o10000) as u16;
        let kind = match rng.below(8) {
            0 => FileKind::Directory,
            1 => FileKind::Fifo,
            _ => FileKind::Regular,
        };
        let new = NewInode {
            kind,
            perm,
            uid: self.next_tag,
            gid: 7,
        };
        let Some(attrs) = self.ok(fs.create(dir, &name, &new)) else {
            return;
        };
        assert_eq!((attrs.mode, attrs.mtime), (kind.mode_bits() | perm, NOW));
        let (nlink, body) = match kind {
            FileKind::Directory => {
                self.items.get_mut(&dir).expect("an inode").nlink += 1;
                (2, Body::Dir(BTreeMap::new()))
            }
            FileKind::Regular => (1, Body::File(Vec::new())),
            _ => (1, Body::Other),
        };
        assert_eq!(fs.create(dir, &name, &new), Err(Error::Exists));
        self.insert(dir, name, attrs.ino, perm, nlink, body);
    }

    fn symlink<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>) {
        let dir = self.pick_dir(rng);
        let name = self.new_name(rng);
        let most = u64::from(fs.block_size()) - 1;
        let len = 1 + if rng.below(2) == 0 {
            rng.below(60)
        } else {
            rng.below(most)
        };
        // Targets follow the pattern too, so that their blocks are recognised.
        let target = pattern(self.next_tag, 0, len as usize);
        let Some(attrs) = self.ok(fs.symlink(dir, &name, &target, self.next_tag, 7)) else {
            return;
        };
        self.insert(dir, name, attrs.ino, 0o777, 1, Body::Link(target));
    }

    fn link<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>) {
        let Some(ino) = self.pick(rng, |item| !matches!(item.body, Body::Dir(_))) else {
            return;
        };
        let dir = self.pick_dir(rng);
        let name = self.new_name(rng);
        if self.ok(fs.link(dir, &name, ino)).is_some() {
            self.next_tag += 1;
            self.entries_mut(dir).insert(name, ino);
            self.touched.insert(ino);
            self.items.get_mut(&ino).expect("an inode").nlink += 1;
            self.open.retain(|&open| open != ino);
        }
    }

    fn unlink<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>) {
        let Some((dir, name, ino)) = self.pick_entry(rng) else {
            return;
        };
        if let Body::Dir(entries) = &self.items[&ino].body {
            assert_eq!(fs.unlink(dir, &name), Err(Error::IsDir));
            if !entries.is_empty() {
                assert_eq!(fs.rmdir(dir, &name), Err(Error::NotEmpty));
                return;
            }
            assert_eq!(fs.rmdir(dir, &name), Ok(ino));
            self.items.get_mut(&dir).expect("an inode").nlink -= 1;
        } else {
            assert_eq!(fs.rmdir(dir, &name), Err(Error::NotDir));
            let (gone, left) = fs.unlink(dir, &name).expect("unlink");
            assert_eq!((gone, left), (ino, self.items[&ino].nlink - 1));
        }
        self.entries_mut(dir).remove(&name);
        self.drop_link(rng, fs, ino);
    }

    fn rename<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>, mix: &Mix) {
        let Some((from_dir, from, ino)) = self.pick_entry(rng) else {
            return;
        };
        let is_dir = matches!(self.items[&ino].body, Body::Dir(_));
        if is_dir && !mix.rename_dirs {
            return;
        }
        let (to_dir, to, target) = match rng.below(3) {
            0 => match self.pick_entry(rng) {
                Some((dir, name, target)) => (dir, name, Some(target)),
                None => return,
            },
            _ => (self.pick_dir(rng), self.new_name(rng), None),
        };
        let exchange = target.is_some() && rng.below(3) == 0;
        let mode = if exchange {
            RenameMode::Exchange
        } else {
            RenameMode::Replace
        };
        let result = fs.rename(from_dir, &from, to_dir, &to, mode);
        if is_dir && self.is_below(ino, to_dir) {
            assert_eq!(result, Err(Error::Invalid));
            return;
        }
        let target_dir =
            target.is_some_and(|target| matches!(self.items[&target].body, Body::Dir(_)));
        if exchange {
            let target = target.expect("a target");
            if target_dir && self.is_below(target, from_dir) {
                assert_eq!(result, Err(Error::Invalid));
                return;
            }
            assert_eq!(result, Ok(None));
            for tree in [ino, target] {
                self.touch_tree(tree);
            }
            self.entries_mut(from_dir).insert(from, target);
            self.entries_mut(to_dir).insert(to, ino);
            if is_dir != target_dir {
                let (gains, loses) = if is_dir {
                    (to_dir, from_dir)
                } else {
                    (from_dir, to_dir)
                };
                self.items.get_mut(&gains).expect("an inode").nlink += 1;
                self.items.get_mut(&loses).expect("an inode").nlink -= 1;
            }
            return;
        }
        if let Some(target) = target {
            if target == ino {
                assert_eq!(result, Ok(None));
                return;
            }
            let expected = match (is_dir, target_dir) {
                (true, false) => Some(Error::NotDir),
                (false, true) => Some(Error::IsDir),
                (true, true) if !self.entries(target).is_empty() => Some(Error::NotEmpty),
                _ => None,
            };
            if let Some(expected) = expected {
                assert_eq!(result, Err(expected));
                return;
            }
        }
        let Some(gone) = self.ok(result) else { return };
        self.next_tag += 1;
        self.touch_tree(ino);
        self.entries_mut(from_dir).remove(&from);
        self.entries_mut(to_dir).insert(to, ino);
        if is_dir {
            self.items.get_mut(&from_dir).expect("an inode").nlink -= 1;
            self.items.get_mut(&to_dir).expect("an inode").nlink += 1;
        }
        if let Some(target) = target {
            if target_dir {
                self.items.get_mut(&to_dir).expect("an inode").nlink -= 1;
            }
            assert_eq!(gone.is_some(), self.items[&target].nlink == 1 || target_dir);
            self.drop_link(rng, fs, target);
        } else {
            assert_eq!(gone, None);
        }
    }

    fn write<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>, mix: &Mix) {
        let Some(ino) = self.pick_file(rng) else {
            return;
        };
        let tag = self.items[&ino].tag;
        let size = self.data_mut(ino).len() as u64;
        let offset = if rng.below(3) == 0 {
            size
        } else {
            rng.below((size + 20_000).min(400_000))
        };
        let len = 1 + match rng.below(4) {
            0 => rng.below(100),
            1 => rng.below(mix.max_write),
            _ => rng.below(mix.max_write / 8),
        };
        let result = if rng.below(2) == 0 {
            fs.write_at(ino, offset, &pattern(tag, offset, len as usize))
        } else {
            let block_size = u64::from(fs.block_size());
            // As a page cache does it: whole blocks, whose contents behind the end of the file are zeros.
            let first = offset / block_size;
            let last = (offset + len).div_ceil(block_size);
            let end = size.max(offset + len);
            let data = self.data_mut(ino);
            let mut blocks = vec![0; ((last - first) * block_size) as usize];
            for (at, byte) in (first * block_size..).zip(blocks.iter_mut()) {
                if at >= offset && at < offset + len {
                    *byte = tag_byte(tag, at);
                } else if let Some(&old) = data.get(at as usize) {
                    *byte = old;
                }
            }
            let result = page_write(fs, ino, first as u32, &blocks, end);
            if result.is_err() {
                // As a kernel does after a failed write: nothing may stay behind the end of the file.
                fs.truncate(ino, size).expect("truncate");
            }
            result
        };
        let full = self.ok(result).is_none();
        let data = self.data_mut(ino);
        if full {
            // Part of it may have been written.
            let size = fs.attrs(ino).expect("attrs").size as usize;
            let mut now = vec![0; size];
            assert_eq!(fs.read_at(ino, 0, &mut now).expect("read"), size);
            assert!(
                now.iter()
                    .enumerate()
                    .all(|(at, &byte)| byte == 0 || byte == tag_byte(tag, at as u64))
            );
            *data = now;
            return;
        }
        let end = (offset + len) as usize;
        if data.len() < end {
            data.resize(end, 0);
        }
        data[offset as usize..end].copy_from_slice(&pattern(tag, offset, len as usize));
    }

    fn truncate<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>, mix: &Mix) {
        let Some(ino) = self.pick_file(rng) else {
            return;
        };
        let size = self.data_mut(ino).len() as u64;
        let to = match rng.below(4) {
            0 => 0,
            1 => size + rng.below(mix.max_write),
            _ => rng.below(size + 1),
        };
        fs.truncate(ino, to).expect("truncate");
        self.data_mut(ino).resize(to as usize, 0);
    }

    fn punch<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>) {
        let Some(ino) = self.pick_file(rng) else {
            return;
        };
        let size = self.data_mut(ino).len() as u64;
        let offset = rng.below(size + 1);
        let len = 1 + rng.below(30_000);
        if self.ok(fs.punch_hole(ino, offset, len)).is_some() {
            let end = (offset + len).min(size) as usize;
            self.data_mut(ino)[offset as usize..end].fill(0);
        }
    }

    fn fallocate<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>, mix: &Mix) {
        let Some(ino) = self.pick_file(rng) else {
            return;
        };
        let size = self.data_mut(ino).len() as u64;
        let (offset, len) = (rng.below(size + 10_000), 1 + rng.below(mix.max_write));
        let keep = rng.below(2) == 0;
        if self.ok(fs.fallocate(ino, offset, len, keep)).is_some() && !keep {
            let end = size.max(offset + len) as usize;
            self.data_mut(ino).resize(end, 0);
        }
    }

    fn xattr<D: BlockDevice>(&mut self, rng: &mut Rng, fs: &mut Ext4<D>) {
        let Some(ino) = self.pick(rng, |_| true) else {
            return;
        };
        let name = format!("user.{}", rng.below(4)).into_bytes();
        self.touched.insert(ino);
        let has = self.items[&ino].xattrs.contains_key(&name);
        if rng.below(3) == 0 {
            let result = fs.remove_xattr(ino, &name);
            assert_eq!(result, if has { Ok(()) } else { Err(Error::NoData) });
            self.items
                .get_mut(&ino)
                .expect("an inode")
                .xattrs
                .remove(&name);
            return;
        }
        let most = if rng.below(3) == 0 { 900 } else { 40 };
        let len = rng.below(most) as usize;
        let value = rng.bytes(len);
        if self
            .ok(fs.set_xattr(ino, &name, &value, XattrMode::Any))
            .is_some()
        {
            self.items
                .get_mut(&ino)
                .expect("an inode")
                .xattrs
                .insert(name, value);
        }
    }

    fn check_dir<D: BlockDevice>(&self, fs: &mut Ext4<D>, dir: Ino) {
        let mut found = BTreeMap::new();
        let mut cookie = 0;
        // In small portions, as getdents does it.
        loop {
            let mut taken = 0;
            fs.readdir(dir, cookie, &mut |entry| {
                if taken == 7 {
                    return false;
                }
                taken += 1;
                assert!(entry.next > cookie && entry.next < 1 << 63);
                cookie = entry.next;
                if entry.name != b"." && entry.name != b".." {
                    assert_eq!(
                        found.insert(entry.name.to_vec(), entry.ino),
                        None,
                        "an entry came twice"
                    );
                }
                true
            })
            .expect("readdir");
            if taken < 7 {
                break;
            }
        }
        assert_eq!(&found, self.entries(dir));
    }

    /// Compares everything.
    pub fn check<D: BlockDevice>(&self, fs: &mut Ext4<D>) {
        for (&ino, item) in &self.items {
            let attrs = fs
                .attrs(ino)
                .unwrap_or_else(|error| panic!("inode {ino}: {error:?}"));
            assert_eq!(attrs.nlink, item.nlink, "links of {ino}");
            assert_eq!(attrs.mode & 0o7777, item.mode, "mode of {ino}");
            match &item.body {
                Body::File(data) => {
                    assert_eq!(attrs.size, data.len() as u64, "size of {ino}");
                    let mut now = vec![0xff; data.len()];
                    assert_eq!(fs.read_at(ino, 0, &mut now).expect("read"), data.len());
                    assert!(
                        now == *data,
                        "contents of {ino} from byte {:?}",
                        now.iter().zip(data).position(|(a, b)| a != b)
                    );
                }
                Body::Dir(entries) => {
                    self.check_dir(fs, ino);
                    for (name, &child) in entries {
                        assert_eq!(fs.lookup(ino, name), Ok(child));
                    }
                    assert_eq!(fs.lookup(ino, b"no such name"), Err(Error::NotFound));
                }
                Body::Link(target) => assert_eq!(&fs.readlink(ino).expect("readlink"), target),
                Body::Other => {}
            }
            if ino != 11 {
                for (name, value) in &item.xattrs {
                    assert_eq!(&fs.get_xattr(ino, name).expect("get_xattr"), value);
                }
                let names = fs.list_xattrs(ino).expect("list_xattrs");
                assert_eq!(
                    names.iter().filter(|&&byte| byte == 0).count(),
                    item.xattrs.len()
                );
            }
        }
    }
}

/// Writes whole blocks as a page cache does: allocate, write the data, mark it written.
pub fn page_write<D: BlockDevice>(
    fs: &mut Ext4<D>,
    ino: Ino,
    first: u32,
    blocks: &[u8],
    size: u64,
) -> ext4::Result<()> {
    let block_size = fs.block_size() as usize;
    let count = (blocks.len() / block_size) as u32;
    let mut at = 0;
    while at < count {
        let run = fs.allocate(ino, first + at, count - at)?;
        let physical = run.physical.expect("allocated");
        let from = at as usize * block_size;
        let data = &blocks[from..from + run.len as usize * block_size];
        fs.device().write(physical * block_size as u64, data)?;
        at += run.len;
    }
    fs.mark_written(ino, first, count, Some(size))
}
