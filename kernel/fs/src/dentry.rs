//! The dentry cache: which name in which directory stands for which inode, so that a path that was
//! walked before is walked again without asking the file system.
//!
//! A [`Dentry`] holds its parent; a directory's dentry knows its cached children only weakly. What
//! keeps an unused dentry alive is the clock of recently used ones at the end of this file, bounded
//! by [`set_limit`]. Negative dentries remember that a name does not exist. A hit takes one short
//! spin lock for each component and never sleeps.
//!
//! Consistency with the file system: changes of a tree hold its tree lock ([`crate::mount`]), first
//! change the file system, then the cache, and bump `changes` of the directory; a look-up that
//! missed notes `changes` before it asks the file system and tries again if it moved.

use alloc::{
    boxed::Box,
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU8, AtomicUsize, Ordering},
};

use errno::{Errno, Result};
use hashbrown::HashMap;
use machine::sync::SpinLock;

use crate::{FileType, Inode};

const UNLINKED: u8 = 1;
const RECENT: u8 = 2;
const MOUNT_POINT: u8 = 4;

/// A name in a directory and the inode it stands for, if any.
pub struct Dentry {
    inode: Option<Arc<dyn Inode>>,
    place: SpinLock<Place>,
    children: SpinLock<Children>,
    flags: AtomicU8,
}

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

#[derive(Default)]
struct Children {
    changes: u64,
    map: Option<Box<NameMap>>,
}

type NameMap = HashMap<Arc<[u8]>, Weak<Dentry>, NameHash>;

/// A hash for names and numbers: eight bytes at a time, mixed by multiplication.
#[derive(Clone, Copy, Default)]
pub(crate) struct NameHash;
pub(crate) struct NameHasher(u64);

impl BuildHasher for NameHash {
    type Hasher = NameHasher;
    fn build_hasher(&self) -> NameHasher {
        NameHasher(0xcbf2_9ce4_8422_2325)
    }
}

impl NameHasher {
    fn mix(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for &word in words {
            self.mix(u64::from_le_bytes(word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(last));
        }
    }
    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0xff51_afd7_ed55_8ccd)
    }
}

impl Dentry {
    /// The top of a tree, or an object that has no tree at all (a pipe), shown as `name`.
    pub fn new_root(inode: Arc<dyn Inode>, name: &[u8]) -> Arc<Dentry> {
        Arc::new(Self::make(Some(inode), None, name.into()))
    }

    fn make(inode: Option<Arc<dyn Inode>>, parent: Option<Arc<Dentry>>, name: Arc<[u8]>) -> Dentry {
        Dentry {
            inode,
            place: SpinLock::new(Place { parent, name }),
            children: SpinLock::new(Children::default()),
            flags: AtomicU8::new(RECENT),
        }
    }

    /// The inode; `None` for a name known not to exist.
    pub fn inode(&self) -> Option<&Arc<dyn Inode>> {
        self.inode.as_ref()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == Some(FileType::Directory)
    }

    /// What it is.
    pub fn file_type(&self) -> Option<FileType> {
        self.inode.as_ref().map(|inode| inode.file_type())
    }

    /// The last component of its name now.
    pub fn name(&self) -> Arc<[u8]> {
        self.place.lock().name.clone()
    }

    /// The directory it lies in; `None` for the root of a file system.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    /// Directory and name, as they belong together at one moment.
    pub fn parent_and_name(&self) -> Option<(Arc<Dentry>, Arc<[u8]>)> {
        let place = self.place.lock();
        Some((place.parent.clone()?, place.name.clone()))
    }

    /// Whether its name was removed while it is still in use.
    pub fn is_unlinked(&self) -> bool {
        self.flags.load(Ordering::Acquire) & UNLINKED != 0
    }

    /// Whether a file system may be mounted here.
    pub fn is_mount_point(&self) -> bool {
        self.flags.load(Ordering::Acquire) & MOUNT_POINT != 0
    }

    pub(crate) fn set_mount_point(&self, is: bool) {
        if is {
            self.flags.fetch_or(MOUNT_POINT, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!MOUNT_POINT, Ordering::AcqRel);
        }
    }

    pub(crate) fn set_unlinked(&self, is: bool) {
        if is {
            self.flags.fetch_or(UNLINKED, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!UNLINKED, Ordering::AcqRel);
        }
    }

    /// Whether `self` is `other` or lies above it in the same file system.
    pub fn is_ancestor_of(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut at = other.clone();
        loop {
            if Arc::ptr_eq(self, &at) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// Counts the changes of this directory's names that went through the cache.
    pub(crate) fn changes(&self) -> u64 {
        self.children.lock().changes
    }

    /// The cached child `name`, positive or negative.
    pub(crate) fn cached(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let found = self.children.lock().map.as_ref()?.get(name)?.upgrade()?;
        if found.flags.load(Ordering::Relaxed) & RECENT == 0 {
            found.flags.fetch_or(RECENT, Ordering::Relaxed);
        }
        Some(found)
    }

    /// The child `name` of this directory: from the cache, or from the file system. A name that
    /// does not exist gives a negative dentry.
    ///
    /// # Errors
    /// What the file system says, other than `ENOENT`.
    pub(crate) fn child(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Dentry>> {
        if let Some(found) = self.cached(name) {
            return Ok(found);
        }
        let dir = self.inode.as_ref().ok_or(Errno::ENOENT)?;
        loop {
            let before = self.children.lock().changes;
            let inode = match dir.lookup(name) {
                Ok(inode) => Some(inode),
                Err(Errno::ENOENT) => None,
                Err(error) => return Err(error),
            };
            let keep = dir.cacheable(name, inode.as_ref());
            let fresh = Arc::new(Self::make(inode, Some(self.clone()), name.into()));
            if !keep {
                return Ok(fresh);
            }
            if let Some(dentry) = self.keep(fresh, Some(before)) {
                return Ok(dentry);
            }
        }
    }

    /// Puts `dentry` under its name, unless another is there, which is then returned. With
    /// `before`, nothing happens if the directory has changed since.
    fn keep(&self, dentry: Arc<Dentry>, before: Option<u64>) -> Option<Arc<Dentry>> {
        let name = dentry.name();
        {
            let mut children = self.children.lock();
            if before.is_some_and(|before| before != children.changes) {
                return None;
            }
            let map = children
                .map
                .get_or_insert_with(|| Box::new(HashMap::with_hasher(NameHash)));
            if let Some(other) = map.get(&name).and_then(Weak::upgrade) {
                return Some(other);
            }
            map.insert(name, Arc::downgrade(&dentry));
        }
        CLOCK.add(dentry.clone());
        Some(dentry)
    }

    /// Records that `name` now stands for `inode`, made while the tree lock was held.
    pub(crate) fn created(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let caches = self
            .inode
            .as_ref()
            .is_none_or(|dir| dir.cacheable(name, Some(&inode)));
        let fresh = Arc::new(Self::make(Some(inode), Some(self.clone()), name.into()));
        if !caches {
            return fresh;
        }
        self.forget(name);
        // A look-up may have found the new inode in between and put in the same.
        self.keep(fresh.clone(), None).unwrap_or(fresh)
    }

    /// A file without a name (`O_TMPFILE`), shown by Linux as `#` and its inode number.
    pub(crate) fn unnamed(self: &Arc<Self>, inode: Arc<dyn Inode>, ino: u64) -> Arc<Dentry> {
        let name = alloc::format!("#{ino}").into_bytes();
        let dentry = Self::make(Some(inode), Some(self.clone()), name.into());
        dentry.set_unlinked(true);
        Arc::new(dentry)
    }

    /// Drops a negative dentry of `name` and notes the change.
    fn forget(&self, name: &[u8]) {
        let mut children = self.children.lock();
        children.changes += 1;
        let negative = children
            .map
            .as_ref()
            .and_then(|map| map.get(name))
            .and_then(Weak::upgrade)
            .filter(|dentry| dentry.inode.is_none());
        if negative.is_some()
            && let Some(map) = &mut children.map
        {
            map.remove(name);
        }
        drop(children);
        // `negative` may be the last owner, whose end takes the lock again.
        drop(negative);
    }

    /// Records that the name of `child` was removed, while the tree lock was held.
    pub(crate) fn removed(self: &Arc<Self>, child: &Arc<Dentry>) {
        child.set_unlinked(true);
        let name = child.name();
        let mut children = self.children.lock();
        children.changes += 1;
        if let Some(map) = &mut children.map
            && map
                .get(&name)
                .is_some_and(|weak| core::ptr::eq(weak.as_ptr(), Arc::as_ptr(child)))
        {
            map.remove(&name);
        }
        drop(children);
        if self
            .inode
            .as_ref()
            .is_some_and(|dir| dir.cacheable(&name, None))
        {
            let negative = Arc::new(Self::make(None, Some(self.clone()), name));
            let _ = self.keep(negative, None);
        }
    }

    /// Records that `child` of this directory is now `name` in `new_dir`, replacing what was there.
    /// The tree lock is held.
    pub(crate) fn moved(self: &Arc<Self>, child: &Arc<Dentry>, new_dir: &Arc<Dentry>, name: &[u8]) {
        let new_name: Arc<[u8]> = name.into();
        let (old_parent, old_name) = {
            let mut place = child.place.lock();
            let old_parent = place.parent.replace(new_dir.clone());
            let old_name = core::mem::replace(&mut place.name, new_name.clone());
            (old_parent, old_name)
        };
        let replaced;
        {
            let mut children = new_dir.children.lock();
            children.changes += 1;
            let map = children
                .map
                .get_or_insert_with(|| Box::new(HashMap::with_hasher(NameHash)));
            replaced = map
                .insert(new_name, Arc::downgrade(child))
                .and_then(|weak| weak.upgrade());
        }
        {
            let mut children = self.children.lock();
            children.changes += 1;
            if let Some(map) = &mut children.map
                && map
                    .get(&old_name)
                    .is_some_and(|weak| core::ptr::eq(weak.as_ptr(), Arc::as_ptr(child)))
            {
                map.remove(&old_name);
            }
        }
        drop((old_parent, replaced));
    }

    /// Records that two names changed places (`RENAME_EXCHANGE`). The tree lock is held.
    pub(crate) fn exchanged(
        self: &Arc<Self>,
        child: &Arc<Dentry>,
        other_dir: &Arc<Dentry>,
        other: &Arc<Dentry>,
    ) {
        let (name, other_name) = (child.name(), other.name());
        let set = |dentry: &Arc<Dentry>, dir: &Arc<Dentry>, name: &Arc<[u8]>| {
            let old = {
                let mut place = dentry.place.lock();
                place.name = name.clone();
                place.parent.replace(dir.clone())
            };
            drop(old);
            let mut children = dir.children.lock();
            children.changes += 1;
            let map = children
                .map
                .get_or_insert_with(|| Box::new(HashMap::with_hasher(NameHash)));
            map.insert(name.clone(), Arc::downgrade(dentry));
        };
        set(child, other_dir, &other_name);
        set(other, self, &name);
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        let place = self.place.get_mut();
        let name = place.name.clone();
        let mut next = place.parent.take();
        if let Some(parent) = &next {
            let mut children = parent.children.lock();
            if let Some(map) = &mut children.map
                && map.get(&name).is_some_and(|weak| weak.strong_count() == 0)
            {
                map.remove(&name);
            }
        }
        // A deep chain of directories ends here link by link, not by recursion on a small stack.
        while let Some(parent) = next {
            next = match Arc::into_inner(parent) {
                Some(mut dentry) => {
                    let place = dentry.place.get_mut();
                    let (up, name) = (place.parent.take(), place.name.clone());
                    if let Some(up) = &up {
                        let mut children = up.children.lock();
                        if let Some(map) = &mut children.map
                            && map.get(&name).is_some_and(|weak| weak.strong_count() == 0)
                        {
                            map.remove(&name);
                        }
                    }
                    up
                }
                None => None,
            };
        }
    }
}

/// Keeps recently used dentries alive: a ring that gives each a second chance.
struct Clock {
    ring: SpinLock<VecDeque<Arc<Dentry>>>,
    limit: AtomicUsize,
}

static CLOCK: Clock = Clock {
    ring: SpinLock::new(VecDeque::new()),
    limit: AtomicUsize::new(16_384),
};

impl Clock {
    fn add(&self, dentry: Arc<Dentry>) {
        let mut out = [const { None }; 2];
        {
            let mut ring = self.ring.lock();
            ring.push_back(dentry);
            let limit = self.limit.load(Ordering::Relaxed);
            for slot in &mut out {
                if ring.len() > limit {
                    *slot = Self::evict(&mut ring);
                }
            }
        }
        // Dropped without the lock: the end of a dentry takes others.
        drop(out);
    }

    fn evict(ring: &mut VecDeque<Arc<Dentry>>) -> Option<Arc<Dentry>> {
        // A few turns only: under pressure some recently used one has to go.
        for _ in 0..16 {
            let dentry = ring.pop_front()?;
            let used = dentry.flags.fetch_and(!RECENT, Ordering::Relaxed) & RECENT != 0;
            if used && !dentry.is_unlinked() {
                ring.push_back(dentry);
            } else {
                return Some(dentry);
            }
        }
        ring.pop_front()
    }
}

/// Sets how many dentries are kept without anyone using them.
pub fn set_limit(dentries: usize) {
    CLOCK.limit.store(dentries, Ordering::Relaxed);
}

/// Lets go of up to `count` kept dentries, the least recently used first, and returns how many.
pub fn shrink(count: usize) -> usize {
    let mut done = 0;
    while done < count {
        let Some(dentry) = Clock::evict(&mut CLOCK.ring.lock()) else {
            break;
        };
        drop(dentry);
        done += 1;
    }
    done
}

/// How many dentries are kept.
pub fn kept() -> usize {
    CLOCK.ring.lock().len()
}

/// Drops every kept dentry in the tree under `root`, so that its inodes can go (before unmount).
pub(crate) fn drop_tree(root: &Arc<Dentry>) {
    let mut out = Vec::new();
    CLOCK.ring.lock().retain(|dentry| {
        let inside = root.is_ancestor_of(dentry);
        if inside {
            out.push(dentry.clone());
        }
        !inside
    });
    drop(out);
}
