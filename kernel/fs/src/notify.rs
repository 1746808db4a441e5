//! Telling who watches of what happens to files: the hooks behind inotify(7).
//!
//! The `linux` room implements the descriptor (queue, watch numbers, record layout) as an
//! [`Observer`]; here are the registry of watches and the places that raise events. While nobody
//! watches, an event costs one atomic load.

use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use bitflags::bitflags;
use machine::sync::SpinLock;

use crate::{FileType, Inode, Path};

bitflags! {
    /// The events and marks of inotify(7), with their values there.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Mask: u32 {
        /// Was read.
        const ACCESS = 0x1;
        /// Was written or truncated.
        const MODIFY = 0x2;
        /// Attributes or link count changed.
        const ATTRIB = 0x4;
        /// A descriptor open for writing was closed.
        const CLOSE_WRITE = 0x8;
        /// Another descriptor was closed.
        const CLOSE_NOWRITE = 0x10;
        /// Was opened.
        const OPEN = 0x20;
        /// Left the directory by a rename.
        const MOVED_FROM = 0x40;
        /// Came into the directory by a rename.
        const MOVED_TO = 0x80;
        /// A name was made in the directory.
        const CREATE = 0x100;
        /// A name was removed from the directory.
        const DELETE = 0x200;
        /// The watched inode lost its last name.
        const DELETE_SELF = 0x400;
        /// The watched inode was renamed.
        const MOVE_SELF = 0x800;
        /// Its file system was unmounted.
        const UNMOUNT = 0x2000;
        /// The watch is gone.
        const IGNORED = 0x8000;
        /// The subject is a directory.
        const ISDIR = 0x4000_0000;
    }
}

/// One thing that happened to a watched inode.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The number under which the watch was registered.
    pub watch: i32,
    /// What happened.
    pub mask: Mask,
    /// Joins the two halves of a rename; 0 otherwise.
    pub cookie: u32,
    /// Which entry, when the watched inode is its directory.
    pub name: Option<&'a [u8]>,
}

/// Who is told. Called without locks of this room held except the file system's tree lock; must not
/// call back into path operations.
pub trait Observer: Send + Sync {
    /// Takes note of an event.
    fn event(&self, event: &Event<'_>);
}

struct Entry {
    id: i32,
    mask: AtomicU32,
    observer: Weak<dyn Observer>,
}

/// A watch on an inode. Ends when dropped.
pub struct Watch {
    // Keeps the object in memory, so that its address stays its identity.
    inode: Arc<dyn Inode>,
    entry: Arc<Entry>,
}

static WATCHES: SpinLock<BTreeMap<usize, Vec<Arc<Entry>>>> = SpinLock::new(BTreeMap::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static COOKIE: AtomicU32 = AtomicU32::new(1);

fn key(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>().addr()
}

/// Watches `inode` for the events of `mask`; they arrive at `observer` with the number `id`.
pub fn watch(inode: &Arc<dyn Inode>, mask: Mask, id: i32, observer: &Arc<dyn Observer>) -> Watch {
    let entry = Arc::new(Entry {
        id,
        mask: AtomicU32::new(mask.bits()),
        observer: Arc::downgrade(observer),
    });
    WATCHES
        .lock()
        .entry(key(inode))
        .or_default()
        .push(entry.clone());
    COUNT.fetch_add(1, Ordering::SeqCst);
    Watch {
        inode: inode.clone(),
        entry,
    }
}

impl Watch {
    /// The inode watched.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// The number.
    pub fn id(&self) -> i32 {
        self.entry.id
    }

    /// Which events are wanted.
    pub fn mask(&self) -> Mask {
        Mask::from_bits_retain(self.entry.mask.load(Ordering::Relaxed))
    }

    /// Changes which events are wanted.
    pub fn set_mask(&self, mask: Mask) {
        self.entry.mask.store(mask.bits(), Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = WATCHES.lock();
        let key = key(&self.inode);
        let mut removed = None;
        if let Some(list) = all.get_mut(&key) {
            if let Some(at) = list.iter().position(|e| Arc::ptr_eq(e, &self.entry)) {
                removed = Some(list.swap_remove(at));
            }
            if list.is_empty() {
                all.remove(&key);
            }
        }
        drop(all);
        if removed.is_some() {
            COUNT.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether anyone watches anything.
pub fn active() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

/// A number that joins `MOVED_FROM` and `MOVED_TO`.
pub fn new_cookie() -> u32 {
    COOKIE.fetch_add(1, Ordering::Relaxed)
}

/// Raises an event on `inode`; `name` is the entry concerned when `inode` is its directory.
pub fn inode_event(inode: &Arc<dyn Inode>, mask: Mask, cookie: u32, name: Option<&[u8]>) {
    if !active() {
        return;
    }
    // Cloned out: observers are not called with a spin lock held.
    let entries = match WATCHES.lock().get(&key(inode)) {
        Some(list) => list.clone(),
        None => return,
    };
    for entry in entries {
        let wanted = Mask::from_bits_retain(entry.mask.load(Ordering::Relaxed));
        let always = Mask::UNMOUNT | Mask::IGNORED;
        if mask.intersects(wanted | always)
            && let Some(observer) = entry.observer.upgrade()
        {
            observer.event(&Event {
                watch: entry.id,
                mask,
                cookie,
                name,
            });
        }
    }
}

/// Raises an event on the inode at `path` and, with its name, on the directory it lies in.
pub fn path_event(path: &Path, mask: Mask) {
    if !active() {
        return;
    }
    let inode = path.inode();
    let mask = if inode.file_type() == FileType::Directory {
        mask | Mask::ISDIR
    } else {
        mask
    };
    if let Some((parent, name)) = path.dentry().parent_and_name()
        && let Some(parent) = parent.inode()
    {
        inode_event(parent, mask, 0, Some(&name));
    }
    inode_event(inode, mask, 0, None);
}
