//! The inodes of a tmpfs.

use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{
    any::Any,
    sync::atomic::{AtomicU32, Ordering},
};

use errno::{Errno, Result};
use machine::{
    mem::{Frame, PAGE_SIZE},
    sync::SpinLock,
};

use super::{TmpFs, dir::Table};
use crate::{
    DeviceId, DirEntry, FallocateMode, FileSystem, FileType, Inode, LINK_MAX, Metadata, NewInode,
    PageCache, RenameFlags, SetAttr, Timestamp, XattrFlags,
    cache::{Fill, PageStore},
    inode::Emit,
    time::now,
};

/// What Linux counts for an entry in the size of a tmpfs directory.
const ENTRY_SIZE: u64 = 20;
/// Most bytes of extended attributes of one inode.
const XATTR_MOST: usize = 64 * 1024;

/// What all handles of one inode share.
pub struct Data {
    pub(super) fs: Arc<TmpFs>,
    ino: u64,
    file_type: FileType,
    rdev: DeviceId,
    counted: bool,
    attr: SpinLock<Attr>,
    table: SpinLock<Table>,
    target: Vec<u8>,
    xattrs: SpinLock<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// The seals of a memfd; all others have `F_SEAL_SEAL` alone.
    pub(super) seals: AtomicU32,
}

#[derive(Clone, Copy)]
struct Attr {
    permissions: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    btime: Timestamp,
}

impl Data {
    /// A new inode's data; `root` is not counted against the limit of inodes.
    pub fn new(fs: Arc<TmpFs>, new: &NewInode, root: bool) -> Data {
        let now = now();
        let ino = fs.new_ino();
        Data {
            fs,
            ino,
            file_type: new.file_type,
            rdev: new.rdev,
            counted: !root,
            attr: SpinLock::new(Attr {
                permissions: new.permissions & 0o7777,
                uid: new.uid,
                gid: new.gid,
                nlink: if new.file_type == FileType::Directory {
                    2
                } else {
                    1
                },
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
            }),
            table: SpinLock::new(Table::default()),
            target: Vec::new(),
            xattrs: SpinLock::new(BTreeMap::new()),
            seals: AtomicU32::new(super::Seals::SEAL.bits()),
        }
    }

    fn touch(&self) {
        let now = now();
        let mut attr = self.attr.lock();
        (attr.mtime, attr.ctime) = (now, now);
    }

    /// Changes the link count and the change time.
    fn relink(&self, by: i32) -> u32 {
        let now = now();
        let mut attr = self.attr.lock();
        attr.ctime = now;
        attr.nlink = attr.nlink.saturating_add_signed(by);
        attr.nlink
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if self.counted {
            self.fs.give_inode();
        }
    }
}

impl PageStore for Data {
    fn in_memory(&self) -> bool {
        true
    }

    fn read(&self, pages: Vec<Fill>) {
        for page in pages {
            page.frame().zero();
            page.finish(Ok(()));
        }
    }

    fn reserve(&self, _: u64) -> Result<bool> {
        self.fs.take_page().map(|()| true)
    }

    fn release(&self, pages: u64) {
        self.fs.give_pages(pages);
    }

    fn write(&self, _: u64, _: &[Frame], _: u64) -> Result<()> {
        Ok(())
    }

    fn modified(&self) {
        self.touch();
    }

    fn may_change(&self, size: u64, end: u64) -> Result<()> {
        super::memfd::may_change(&self.seals, size, end)
    }

    fn may_map_writable(&self) -> Result<()> {
        super::memfd::may_map_writable(&self.seals)
    }
}

/// An inode of a [`TmpFs`].
pub struct TmpInode {
    pub(super) data: Arc<Data>,
    cache: Option<Arc<PageCache>>,
    me: Weak<TmpInode>,
}

impl TmpInode {
    pub(super) fn make(data: Data) -> Arc<TmpInode> {
        let data = Arc::new(data);
        let cache = (data.file_type == FileType::Regular).then(|| PageCache::new(data.clone(), 0));
        Arc::new_cyclic(|me| TmpInode {
            data,
            cache,
            me: me.clone(),
        })
    }

    pub(super) fn unnamed(fs: Arc<TmpFs>, new: &NewInode) -> Result<Arc<TmpInode>> {
        fs.take_inode()?;
        let data = Data::new(fs, new, false);
        data.attr.lock().nlink = 0;
        Ok(Self::make(data))
    }

    /// Takes a tree apart without recursion.
    pub(super) fn tear_down(self: Arc<Self>) {
        let mut left = alloc::vec![self];
        while let Some(inode) = left.pop() {
            let entries: Vec<_> = inode.data.table.lock().take_all().collect();
            left.extend(entries);
        }
    }

    fn table(&self) -> Result<&SpinLock<Table>> {
        match self.data.file_type {
            FileType::Directory => Ok(&self.data.table),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn add(&self, name: &[u8], data: Data) -> Result<Arc<dyn Inode>> {
        let is_dir = data.file_type == FileType::Directory;
        let inode = Self::make(data);
        {
            let mut table = self.table()?.lock();
            if table.contains(name) {
                return Err(Errno::EEXIST);
            }
            table.insert(name, inode.clone());
        }
        if is_dir {
            self.data.relink(1);
        }
        self.data.touch();
        Ok(inode)
    }

    fn of(inode: &Arc<dyn Inode>) -> Result<&TmpInode> {
        inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }

    fn is_dir(&self) -> bool {
        self.data.file_type == FileType::Directory
    }
}

impl Inode for TmpInode {
    fn file_system(&self) -> Arc<dyn FileSystem> {
        self.data.fs.clone()
    }

    fn file_type(&self) -> FileType {
        self.data.file_type
    }

    fn metadata(&self) -> Result<Metadata> {
        let attr = *self.data.attr.lock();
        let (size, pages) = match &self.cache {
            Some(cache) => (cache.size(), cache.resident() as u64),
            None if self.is_dir() => ((self.data.table.lock().len() as u64 + 2) * ENTRY_SIZE, 0),
            None => (self.data.target.len() as u64, 0),
        };
        Ok(Metadata {
            dev: self.data.fs.dev,
            ino: self.data.ino,
            file_type: self.data.file_type,
            permissions: attr.permissions,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: self.data.rdev,
            size,
            block_size: PAGE_SIZE as u32,
            blocks: pages * (PAGE_SIZE as u64 / 512),
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: Some(attr.btime),
        })
    }

    fn set_attr(&self, new: &SetAttr) -> Result<()> {
        if let Some(size) = new.size {
            let writer = self.page_cache()?;
            let writer = writer.writer();
            let old = writer.cache().size();
            self.data.may_change(old, size)?;
            super::memfd::may_shrink(&self.data.seals, old, size)?;
            writer.truncate(size);
        }
        let mut attr = self.data.attr.lock();
        let set = |place: &mut u32, value: Option<u32>| *place = value.unwrap_or(*place);
        set(&mut attr.permissions, new.permissions);
        set(&mut attr.uid, new.uid);
        set(&mut attr.gid, new.gid);
        let set = |place: &mut Timestamp, value: Option<Timestamp>| {
            *place = value.unwrap_or(*place);
        };
        set(&mut attr.atime, new.atime);
        set(&mut attr.mtime, new.mtime);
        set(&mut attr.ctime, new.ctime);
        Ok(())
    }

    fn touch_atime(&self) {
        let now = now();
        self.data.attr.lock().atime = now;
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        match self.table()?.lock().get(name) {
            Some(inode) => Ok(inode),
            None => Err(Errno::ENOENT),
        }
    }

    fn readdir(&self, cookie: u64, emit: Emit<'_>) -> Result<u64> {
        let table = self.table()?;
        let mut at = cookie;
        loop {
            // One at a time: `emit` may fault on the program's memory.
            let next = table.lock().after(at);
            let Some((age, name, inode)) = next else {
                return Ok(at);
            };
            let entry = DirEntry {
                name: &name,
                ino: inode.data.ino,
                file_type: inode.data.file_type,
                next: age,
            };
            if !emit(&entry) {
                return Ok(at);
            }
            at = age;
        }
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        let fs = self.data.fs.arc()?;
        fs.take_inode()?;
        self.add(name, Data::new(fs, new, false))
    }

    fn create_unnamed(&self, new: &NewInode) -> Result<Arc<dyn Inode>> {
        Ok(TmpInode::unnamed(self.data.fs.arc()?, new)?)
    }

    fn symlink(&self, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Arc<dyn Inode>> {
        if target.len() >= crate::PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let fs = self.data.fs.arc()?;
        fs.take_inode()?;
        let new = NewInode {
            file_type: FileType::Symlink,
            permissions: 0o777,
            uid,
            gid,
            rdev: DeviceId::default(),
        };
        let mut data = Data::new(fs, &new, false);
        data.target = target.to_vec();
        self.add(name, data)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let handle = Self::of(target)?.me.upgrade().ok_or(Errno::ENOENT)?;
        let data = handle.data.clone();
        if data.attr.lock().nlink >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        {
            let mut table = self.table()?.lock();
            if table.contains(name) {
                return Err(Errno::EEXIST);
            }
            table.insert(name, handle);
        }
        data.relink(1);
        self.data.touch();
        Ok(())
    }

    fn unlink(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let old = self.table()?.lock().remove(name).ok_or(Errno::ENOENT)?;
        Self::of(target)?.data.relink(-1);
        self.data.touch();
        drop(old);
        Ok(())
    }

    fn rmdir(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let victim = Self::of(target)?;
        if !victim.data.table.lock().is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let old = self.table()?.lock().remove(name).ok_or(Errno::ENOENT)?;
        victim.data.attr.lock().nlink = 0;
        self.data.relink(-1);
        self.data.touch();
        drop(old);
        Ok(())
    }

    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
    ) -> Result<()> {
        let new_dir = Self::of(new_dir)?;
        let moved = self.table()?.lock().get(name).ok_or(Errno::ENOENT)?;
        let replaced = match replaced {
            Some(replaced) => Some(Self::of(replaced)?),
            None => None,
        };
        let other_dir = !Arc::ptr_eq(&self.data, &new_dir.data);
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = new_dir.table()?.lock().get(new_name).ok_or(Errno::ENOENT)?;
            if other_dir && moved.is_dir() != other.is_dir() {
                let by = if moved.is_dir() { 1 } else { -1 };
                self.data.relink(-by);
                new_dir.data.relink(by);
            }
            let one = self.table()?.lock().insert(name, other.clone());
            let two = new_dir.table()?.lock().insert(new_name, moved.clone());
            drop((one, two));
            other.data.relink(0);
        } else {
            if let Some(replaced) = replaced
                && replaced.is_dir()
            {
                if !replaced.data.table.lock().is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                replaced.data.attr.lock().nlink = 0;
                new_dir.data.relink(-1);
            } else if let Some(replaced) = replaced {
                replaced.data.relink(-1);
            }
            if moved.is_dir() && other_dir {
                self.data.relink(-1);
                new_dir.data.relink(1);
            }
            // First the new name, so that the inode is never without.
            let over = new_dir.table()?.lock().insert(new_name, moved.clone());
            let old = self.table()?.lock().remove(name);
            drop((over, old));
        }
        moved.data.relink(0);
        self.data.touch();
        new_dir.data.touch();
        Ok(())
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match self.data.file_type {
            FileType::Symlink => Ok(self.data.target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn page_cache(&self) -> Result<Arc<PageCache>> {
        self.cache.clone().ok_or(Errno::EINVAL)
    }

    fn fallocate(&self, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        let cache = self.page_cache()?;
        let writer = cache.writer();
        let (size, end) = (cache.size(), offset + len);
        if mode == FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE {
            self.data.may_change(size, 0)?;
            writer.punch(offset, len);
        } else if mode.is_empty() || mode == FallocateMode::KEEP_SIZE {
            let new_size = if mode.is_empty() { size.max(end) } else { size };
            self.data.may_change(size, new_size)?;
            writer.allocate(offset, len, new_size)?;
        } else {
            return Err(Errno::EOPNOTSUPP);
        }
        self.data.touch();
        Ok(())
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let xattrs = self.data.xattrs.lock();
        xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let known = [&b"user."[..], b"trusted.", b"security."];
        if !known.iter().any(|space| name.starts_with(space)) {
            return Err(Errno::EOPNOTSUPP);
        }
        {
            let mut xattrs = self.data.xattrs.lock();
            let exists = xattrs.contains_key(name);
            if exists && flags.contains(XattrFlags::CREATE) {
                return Err(Errno::EEXIST);
            }
            if !exists && flags.contains(XattrFlags::REPLACE) {
                return Err(Errno::ENODATA);
            }
            let used: usize = xattrs
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            if used + name.len() + value.len() > XATTR_MOST {
                return Err(Errno::ENOSPC);
            }
            xattrs.insert(name.to_vec(), value.to_vec());
        }
        self.data.relink(0);
        Ok(())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let removed = self.data.xattrs.lock().remove(name);
        removed.ok_or(Errno::ENODATA)?;
        self.data.relink(0);
        Ok(())
    }

    fn list_xattrs(&self) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        for name in self.data.xattrs.lock().keys() {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Data {
    /// Sets the seals, telling the old ones.
    pub(super) fn seal(&self, bits: u32) {
        self.seals.fetch_or(bits, Ordering::AcqRel);
    }
}

/// An empty directory of no file system that can be reached.
pub fn dead_directory() -> Arc<dyn Inode> {
    let options = super::Options::default();
    TmpFs::new(&options).root()
}
