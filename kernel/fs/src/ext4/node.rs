//! The inodes of an ext4 volume.
//!
//! A [`Node`] is what memory knows of an inode: one for each inode number. It is the store below the
//! page cache of the file. An [`Ext4Inode`] is the handle that dentries hold; it keeps the page cache
//! alive. (The cache holds the node, so the node cannot hold the cache.)

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{
    any::Any,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use errno::{Errno, Result};
use libext4::{Attrs, FileKind, Ino, RenameMode, XattrMode};
use machine::sync::{Once, SpinLock};

use super::{Ext4Fs, errno_of, from_time, to_time};
use crate::{
    DeviceId, DirEntry, FallocateMode, FileSystem, FileType, Inode, Metadata, NewInode, PageCache,
    RenameFlags, SetAttr, XattrFlags, inode::Emit, time::now,
};

/// Directory entries taken from the volume at a time.
const READDIR_BATCH: usize = 512;

/// What memory knows of an inode.
pub struct Node {
    pub(super) fs: Arc<Ext4Fs>,
    ino: Ino,
    file_type: FileType,
    rdev: DeviceId,
    attrs: SpinLock<Attrs>,
    /// The times in `attrs` are newer than the volume's.
    newer_times: AtomicBool,
    /// The node is on the list of those.
    pub(super) listed: AtomicBool,
    cache: SpinLock<Weak<PageCache>>,
    handle: SpinLock<Weak<Ext4Inode>>,
    /// Blocks promised to dirty pages, shown in `st_blocks`.
    pub(super) promised: AtomicU64,
    me: Once<Weak<Node>>,
}

impl Node {
    pub(super) fn new(fs: Arc<Ext4Fs>, attrs: &Attrs) -> Node {
        let (file_type, rdev) = match attrs.kind {
            FileKind::Regular => (FileType::Regular, 0),
            FileKind::Directory => (FileType::Directory, 0),
            FileKind::Symlink => (FileType::Symlink, 0),
            FileKind::Fifo => (FileType::Fifo, 0),
            FileKind::Socket => (FileType::Socket, 0),
            FileKind::CharDevice(rdev) => (FileType::CharDevice, rdev),
            FileKind::BlockDevice(rdev) => (FileType::BlockDevice, rdev),
        };
        Node {
            fs,
            ino: attrs.ino,
            file_type,
            rdev: DeviceId::from_u64(u64::from(rdev)),
            attrs: SpinLock::new(*attrs),
            newer_times: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            cache: SpinLock::new(Weak::new()),
            handle: SpinLock::new(Weak::new()),
            promised: AtomicU64::new(0),
            me: Once::new(),
        }
    }

    pub(super) fn ino(&self) -> Ino {
        self.ino
    }

    /// The size that the volume has.
    pub(super) fn size_on_disk(&self) -> u64 {
        self.attrs.lock().size
    }

    /// Takes over what the volume now says, but for times that are newer here.
    pub(super) fn refresh(&self, new: &Attrs) {
        let mut attrs = self.attrs.lock();
        let times = (attrs.atime, attrs.mtime, attrs.ctime);
        *attrs = *new;
        if self.newer_times.load(Ordering::Acquire) {
            attrs.atime = times.0;
            attrs.mtime = times.1.max(new.mtime);
            attrs.ctime = times.2.max(new.ctime);
        }
    }

    /// Asks the volume for the attributes again, after a call that changed them.
    pub(super) fn reload(&self) -> Result<()> {
        let new = self.fs.look(|volume| volume.attrs(self.ino))?;
        self.refresh(&new);
        Ok(())
    }

    pub(super) fn has_names(&self) -> bool {
        self.attrs.lock().nlink > 0
    }

    /// Drops the cached pages if only the write-back list still holds them.
    pub(super) fn discard_if_unused(&self) {
        if self.handle.lock().strong_count() > 0 {
            return;
        }
        let cache = self.cache.lock().upgrade();
        if let Some(cache) = cache
            && Arc::strong_count(&cache) <= 2
        {
            cache.writer().truncate(0);
        }
    }

    /// Changes times in memory; the volume is told soon.
    pub(super) fn set_times(&self, set: impl FnOnce(&mut Attrs)) {
        self.set_times_lazily(set);
        self.fs.note_change();
    }

    /// Changes times in memory; the volume is told when it changes anyway.
    fn set_times_lazily(&self, set: impl FnOnce(&mut Attrs)) {
        set(&mut self.attrs.lock());
        self.newer_times.store(true, Ordering::Release);
        if !self.listed.swap(true, Ordering::AcqRel)
            && let Some(me) = self.me.get().and_then(Weak::upgrade)
        {
            self.fs.restless(me);
        }
    }

    /// Tells the volume the times.
    pub(super) fn settle_times(&self) -> Result<()> {
        if !self.newer_times.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let attrs = *self.attrs.lock();
        if attrs.nlink == 0 {
            // Nobody will see them.
            return Ok(());
        }
        self.fs.look(|volume| {
            volume.set_times(
                self.ino,
                Some(attrs.atime),
                Some(attrs.mtime),
                Some(attrs.ctime),
            )
        })
    }
}

/// A handle of an inode.
pub struct Ext4Inode {
    node: Arc<Node>,
    cache: Once<Arc<PageCache>>,
}

impl Ext4Inode {
    /// The handle of `node`: one at a time.
    pub(super) fn of(node: Arc<Node>) -> Arc<Ext4Inode> {
        node.me.call_once(|| Arc::downgrade(&node));
        let fresh = Arc::new(Ext4Inode {
            node: node.clone(),
            cache: Once::new(),
        });
        let mut handle = node.handle.lock();
        if let Some(known) = handle.upgrade() {
            return known;
        }
        *handle = Arc::downgrade(&fresh);
        fresh
    }

    fn cache(&self) -> &Arc<PageCache> {
        self.cache.call_once(|| {
            // Pages may have outlived the last handle: mapped, or dirty.
            let mut cache = self.node.cache.lock();
            if let Some(known) = cache.upgrade() {
                return known;
            }
            let fresh = PageCache::new(self.node.clone(), self.node.size_on_disk());
            *cache = Arc::downgrade(&fresh);
            fresh
        })
    }

    fn downcast(inode: &Arc<dyn Inode>) -> Result<&Ext4Inode> {
        inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }

    fn made(&self, attrs: &Attrs) -> Result<Arc<dyn Inode>> {
        let node = self.node.fs.adopt(attrs)?;
        self.node.reload()?;
        Ok(Ext4Inode::of(node))
    }

    fn truncate(&self, size: u64) -> Result<()> {
        if size > self.node.fs.max_size {
            return Err(Errno::EFBIG);
        }
        let cache = self.cache();
        let writer = cache.writer();
        if size < cache.size() {
            // So that the volume can clear the end of the last block without a write in its way. A
            // failure to write that page is told to whoever syncs.
            let last = size / machine::mem::PAGE_SIZE as u64;
            let _ = cache.flush(last, last + 1);
        }
        let _held = cache.hold_writeback();
        writer.truncate(size);
        let ino = self.node.ino;
        self.node
            .fs
            .change_or_make_room(|volume| volume.truncate(ino, size))
    }
}

fn new_inode(new: &NewInode) -> libext4::NewInode {
    let rdev = new.rdev.to_u64() as u32;
    libext4::NewInode {
        kind: match new.file_type {
            FileType::Regular => FileKind::Regular,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::CharDevice => FileKind::CharDevice(rdev),
            FileType::BlockDevice => FileKind::BlockDevice(rdev),
        },
        perm: new.permissions as u16 & 0o7777,
        uid: new.uid,
        gid: new.gid,
    }
}

impl Inode for Ext4Inode {
    fn file_system(&self) -> Arc<dyn FileSystem> {
        self.node.fs.clone()
    }

    fn file_type(&self) -> FileType {
        self.node.file_type
    }

    fn metadata(&self) -> Result<Metadata> {
        let node = &self.node;
        let attrs = *node.attrs.lock();
        let size = match self.cache.get() {
            Some(cache) => cache.size(),
            None if node.file_type == FileType::Regular => {
                let cache = node.cache.lock().upgrade();
                cache.map_or(attrs.size, |cache| cache.size())
            }
            None => attrs.size,
        };
        let promised = node.promised.load(Ordering::Relaxed);
        Ok(Metadata {
            dev: node.fs.dev,
            ino: u64::from(node.ino),
            file_type: node.file_type,
            permissions: u32::from(attrs.mode) & 0o7777,
            nlink: attrs.nlink,
            uid: attrs.uid,
            gid: attrs.gid,
            rdev: node.rdev,
            size,
            block_size: node.fs.block_size,
            blocks: attrs.blocks + promised * u64::from(node.fs.block_size / 512),
            atime: to_time(attrs.atime),
            mtime: to_time(attrs.mtime),
            ctime: to_time(attrs.ctime),
            btime: Some(to_time(attrs.crtime)),
        })
    }

    fn set_attr(&self, new: &SetAttr) -> Result<()> {
        let (fs, ino) = (&self.node.fs, self.node.ino);
        if let Some(size) = new.size {
            self.truncate(size)?;
        }
        if new.permissions.is_some() || new.uid.is_some() || new.gid.is_some() {
            fs.change_or_make_room(|volume| {
                if new.uid.is_some() || new.gid.is_some() {
                    volume.set_owner(ino, new.uid, new.gid)?;
                }
                if let Some(permissions) = new.permissions {
                    volume.set_mode(ino, permissions as u16 & 0o7777)?;
                }
                Ok(())
            })?;
        }
        if new.size.is_some() || new.permissions.is_some() || new.uid.is_some() || new.gid.is_some()
        {
            self.node.reload()?;
        }
        if new.atime.is_some() || new.mtime.is_some() || new.ctime.is_some() {
            self.node.set_times(|attrs| {
                attrs.atime = new.atime.map_or(attrs.atime, from_time);
                attrs.mtime = new.mtime.map_or(attrs.mtime, from_time);
                attrs.ctime = new.ctime.map_or(attrs.ctime, from_time);
            });
        }
        Ok(())
    }

    fn touch_atime(&self) {
        if !self.node.fs.read_only {
            let now = from_time(now());
            self.node.set_times_lazily(|attrs| attrs.atime = now);
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let (fs, dir) = (&self.node.fs, self.node.ino);
        let attrs = fs.look(|volume| {
            let ino = volume.lookup(dir, name)?;
            volume.attrs(ino)
        })?;
        // An inode in memory may know newer times than the volume.
        Ok(Ext4Inode::of(fs.adopt(&attrs)?))
    }

    fn readdir(&self, cookie: u64, emit: Emit<'_>) -> Result<u64> {
        let (fs, dir) = (&self.node.fs, self.node.ino);
        let mut at = cookie;
        loop {
            // Taken out first: `emit` may fault on the program's memory, which may need the volume.
            let mut batch: Vec<(Vec<u8>, Ino, u8, u64)> = Vec::new();
            fs.look(|volume| {
                volume.readdir(dir, at, &mut |entry| {
                    batch.push((
                        entry.name.to_vec(),
                        entry.ino,
                        entry.dirent_type,
                        entry.next,
                    ));
                    batch.len() < READDIR_BATCH
                })
            })?;
            let full = batch.len() >= READDIR_BATCH;
            for (name, ino, dirent_type, next) in batch {
                if name != b"." && name != b".." {
                    let file_type = match FileType::from_mode(u32::from(dirent_type) << 12) {
                        Some(file_type) => file_type,
                        None => fs.node(ino)?.file_type,
                    };
                    let entry = DirEntry {
                        name: &name,
                        ino: u64::from(ino),
                        file_type,
                        next,
                    };
                    if !emit(&entry) {
                        return Ok(at);
                    }
                }
                at = next;
            }
            if !full {
                return Ok(at);
            }
        }
    }

    fn create(&self, name: &[u8], new: &NewInode) -> Result<Arc<dyn Inode>> {
        let dir = self.node.ino;
        let new = new_inode(new);
        let fs = &self.node.fs;
        let attrs = fs.change_or_make_room(|volume| volume.create(dir, name, &new))?;
        self.made(&attrs)
    }

    fn create_unnamed(&self, new: &NewInode) -> Result<Arc<dyn Inode>> {
        let dir = self.node.ino;
        let new = new_inode(new);
        let fs = &self.node.fs;
        let attrs = fs.change_or_make_room(|volume| volume.create_unnamed(dir, &new))?;
        let node = fs.adopt(&attrs)?;
        fs.doom(&node);
        Ok(Ext4Inode::of(node))
    }

    fn symlink(&self, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Arc<dyn Inode>> {
        let dir = self.node.ino;
        let fs = &self.node.fs;
        let attrs = fs.change_or_make_room(|volume| volume.symlink(dir, name, target, uid, gid))?;
        self.made(&attrs)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = Self::downcast(target)?;
        let (dir, ino) = (self.node.ino, target.node.ino);
        let fs = &self.node.fs;
        fs.change_or_make_room(|volume| volume.link(dir, name, ino))?;
        fs.undoom(ino);
        target.node.reload()?;
        self.node.reload()
    }

    fn unlink(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = Self::downcast(target)?;
        let (dir, fs) = (self.node.ino, &self.node.fs);
        let (_, left) = fs.change_or_make_room(|volume| volume.unlink(dir, name))?;
        if left == 0 {
            fs.doom(&target.node);
        }
        target.node.reload()?;
        self.node.reload()
    }

    fn rmdir(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = Self::downcast(target)?;
        let (dir, fs) = (self.node.ino, &self.node.fs);
        fs.change_or_make_room(|volume| volume.rmdir(dir, name))?;
        fs.doom(&target.node);
        target.node.reload()?;
        self.node.reload()
    }

    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
    ) -> Result<()> {
        let new_dir = Self::downcast(new_dir)?;
        let fs = &self.node.fs;
        let (from, to) = (self.node.ino, new_dir.node.ino);
        let mode = if flags.contains(RenameFlags::EXCHANGE) {
            RenameMode::Exchange
        } else if flags.contains(RenameFlags::NOREPLACE) {
            RenameMode::NoReplace
        } else {
            RenameMode::Replace
        };
        let moved = self.look_ino(name)?;
        let gone =
            fs.change_or_make_room(|volume| volume.rename(from, name, to, new_name, mode))?;
        if let Some(replaced) = replaced {
            let replaced = Self::downcast(replaced)?;
            if gone == Some(replaced.node.ino) {
                fs.doom(&replaced.node);
            }
            replaced.node.reload()?;
        }
        if let Some(node) = fs.known(moved) {
            node.reload()?;
        }
        new_dir.node.reload()?;
        self.node.reload()
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        if self.node.file_type != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        self.node.fs.look(|volume| volume.readlink(self.node.ino))
    }

    fn page_cache(&self) -> Result<Arc<PageCache>> {
        match self.node.file_type {
            FileType::Regular => Ok(self.cache().clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn fallocate(&self, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        if self.node.file_type != FileType::Regular {
            return Err(Errno::ENODEV);
        }
        let (fs, ino) = (&self.node.fs, self.node.ino);
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if end > fs.max_size {
            return Err(Errno::EFBIG);
        }
        let cache = self.cache();
        let writer = cache.writer();
        let keep_size = mode.contains(FallocateMode::KEEP_SIZE);
        let zero = match mode - FallocateMode::KEEP_SIZE {
            rest if rest.is_empty() => false,
            FallocateMode::PUNCH_HOLE if keep_size => true,
            FallocateMode::ZERO_RANGE => true,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        if zero {
            // Partial pages reach the disk before the volume clears its own copy of them.
            cache.flush(0, u64::MAX)?;
            let _held = cache.hold_writeback();
            writer.punch(offset, len);
            fs.change_or_make_room(|volume| volume.punch_hole(ino, offset, len))?;
        }
        if !mode.contains(FallocateMode::PUNCH_HOLE) {
            // The volume clears the end of the block in which the file ended.
            cache.flush(0, u64::MAX)?;
            let _held = cache.hold_writeback();
            fs.change_or_make_room(|volume| volume.fallocate(ino, offset, len, keep_size))?;
            if !keep_size && end > cache.size() {
                writer.truncate(end);
            }
        }
        self.node.reload()
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        let node = &self.node;
        if let Some(cache) = self.cache.get() {
            let written = cache.flush(0, u64::MAX);
            // Failures of the background's writes are told here, too, and once.
            cache.take_error()?;
            written?;
        }
        if node.fs.read_only {
            return Ok(());
        }
        if !data_only {
            node.settle_times()?;
        }
        node.fs.look(|volume| volume.fsync(node.ino, data_only))
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.node
            .fs
            .look(|volume| volume.get_xattr(self.node.ino, name))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let mode = if flags.contains(XattrFlags::CREATE) {
            XattrMode::Create
        } else if flags.contains(XattrFlags::REPLACE) {
            XattrMode::Replace
        } else {
            XattrMode::Any
        };
        let (fs, ino) = (&self.node.fs, self.node.ino);
        fs.change_or_make_room(|volume| volume.set_xattr(ino, name, value, mode))?;
        self.node.reload()
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let (fs, ino) = (&self.node.fs, self.node.ino);
        fs.change_or_make_room(|volume| volume.remove_xattr(ino, name))?;
        self.node.reload()
    }

    fn list_xattrs(&self) -> Result<Vec<u8>> {
        self.node
            .fs
            .look(|volume| volume.list_xattrs(self.node.ino))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Ext4Inode {
    fn look_ino(&self, name: &[u8]) -> Result<Ino> {
        let dir = self.node.ino;
        self.node
            .fs
            .volume
            .lock()
            .lookup(dir, name)
            .map_err(errno_of)
    }
}
