//! Mounted file systems: [`Superblock`] (one for each file system), [`Mount`] (one for each place it
//! is visible at) and [`Path`], a dentry seen through a mount.
//!
//! Mounting and the walk over mounts are in [`crate::namespace`].

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use errno::{Errno, Result};
use machine::sync::SpinLock;
use sched::Mutex;

use crate::{
    Dentry, FileSystem, FileType, Inode, Metadata, MountFlags, Timestamp, time::now, types::SetAttr,
};

/// A file system in use, with the root of its dentries.
pub struct Superblock {
    fs: Arc<dyn FileSystem>,
    root: Arc<Dentry>,
    /// Held while names of this file system change, so that a check and the change it allows
    /// belong together. One lock for the whole tree: the file systems below serialise their own
    /// metadata anyway, and a rename needs no order of locks. Look-ups do not take it.
    tree: Mutex<()>,
    mounts: AtomicUsize,
}

impl Superblock {
    /// Takes a file system into use.
    pub fn new(fs: Arc<dyn FileSystem>) -> Arc<Self> {
        let root = Dentry::new_root(fs.root(), b"/");
        Arc::new(Superblock {
            fs,
            root,
            tree: Mutex::new(()),
            mounts: AtomicUsize::new(0),
        })
    }

    /// The file system.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// The root directory.
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    pub(crate) fn tree(&self) -> &Mutex<()> {
        &self.tree
    }

    /// Counts a mount more or less; returns how many there were before.
    pub(crate) fn count_mount(&self, up: bool) -> usize {
        if up {
            self.mounts.fetch_add(1, Ordering::AcqRel)
        } else {
            self.mounts.fetch_sub(1, Ordering::AcqRel)
        }
    }
}

/// A file system, or a part of one, visible at a place in the name space.
pub struct Mount {
    id: u64,
    superblock: Arc<Superblock>,
    root: Arc<Dentry>,
    /// On which mount and dentry it lies; none for the first root.
    point: SpinLock<Option<Path>>,
    flags: AtomicU64,
}

impl Mount {
    /// A mount of `root`, a directory of `superblock`, that lies nowhere yet.
    pub fn new(superblock: Arc<Superblock>, root: Arc<Dentry>, flags: MountFlags) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(Mount {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            superblock,
            root,
            point: SpinLock::new(None),
            flags: AtomicU64::new(flags.bits()),
        })
    }

    /// The number in /proc/self/mountinfo.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file system.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.superblock.fs
    }

    /// The file system with its dentries.
    pub fn superblock(&self) -> &Arc<Superblock> {
        &self.superblock
    }

    /// The directory visible at the mount point.
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    /// Where it is mounted.
    pub fn point(&self) -> Option<Path> {
        self.point.lock().clone()
    }

    pub(crate) fn set_point(&self, point: Option<Path>) {
        let old = core::mem::replace(&mut *self.point.lock(), point);
        drop(old);
    }

    /// The options.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Changes the options (`MS_REMOUNT | MS_BIND`).
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// Whether files can be changed through it.
    ///
    /// # Errors
    /// `EROFS`.
    pub fn check_writable(&self) -> Result<()> {
        if self.flags().contains(MountFlags::RDONLY) || self.fs().read_only() {
            Err(Errno::EROFS)
        } else {
            Ok(())
        }
    }

    /// The options as /proc/mounts writes them: `rw,nosuid,relatime`.
    pub fn option_text(&self) -> Vec<u8> {
        let flags = self.flags();
        let mut text = Vec::new();
        text.extend_from_slice(if self.check_writable().is_ok() {
            b"rw"
        } else {
            b"ro"
        });
        for (flag, word) in [
            (MountFlags::NOSUID, &b",nosuid"[..]),
            (MountFlags::NODEV, b",nodev"),
            (MountFlags::NOEXEC, b",noexec"),
            (MountFlags::SYNCHRONOUS, b",sync"),
            (MountFlags::NOATIME, b",noatime"),
            (MountFlags::NODIRATIME, b",nodiratime"),
            (MountFlags::RELATIME, b",relatime"),
        ] {
            if flags.contains(flag) {
                text.extend_from_slice(word);
            }
        }
        text
    }
}

/// A place in the tree of names: a positive dentry, seen through a mount.
#[derive(Clone)]
pub struct Path {
    mount: Arc<Mount>,
    /// Never negative: the constructors see to it, and a dentry does not change its inode.
    dentry: Arc<Dentry>,
}

impl Path {
    /// The place of `dentry` under `mount`; `None` for a negative dentry.
    pub fn new(mount: Arc<Mount>, dentry: Arc<Dentry>) -> Option<Path> {
        dentry.inode()?;
        Some(Path { mount, dentry })
    }

    /// The root directory of `mount`.
    pub fn root_of(mount: &Arc<Mount>) -> Option<Path> {
        Path::new(mount.clone(), mount.root.clone())
    }

    /// An object without a place in any tree, shown as `name` (`pipe:[7]`): what the links of
    /// /proc/self/fd lead to for pipes and sockets.
    pub fn anonymous(inode: Arc<dyn Inode>, name: &[u8]) -> Path {
        let superblock = Superblock::new(inode.file_system());
        let dentry = Dentry::new_root(inode, name);
        let mount = Mount::new(superblock, dentry.clone(), MountFlags::empty());
        Path { mount, dentry }
    }

    /// The mount.
    pub fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    /// The dentry.
    pub fn dentry(&self) -> &Arc<Dentry> {
        &self.dentry
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        // See `dentry`: a path is never negative.
        self.dentry.inode().expect("a path has an inode")
    }

    /// What it is.
    pub fn file_type(&self) -> FileType {
        self.inode().file_type()
    }

    /// Whether both are the same place.
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// Notes a read access, as far as the options of the mount ask for it (mount(2), relatime).
    pub fn touch_atime(&self) {
        touch_atime(&self.mount, self.inode());
    }
}

/// See [`Path::touch_atime`].
pub(crate) fn touch_atime(mount: &Mount, inode: &Arc<dyn Inode>) {
    const DAY: i64 = 24 * 60 * 60;
    let flags = mount.flags();
    if flags.contains(MountFlags::NOATIME) || mount.check_writable().is_err() {
        return;
    }
    if flags.contains(MountFlags::NODIRATIME) && inode.file_type() == FileType::Directory {
        return;
    }
    if !flags.contains(MountFlags::STRICTATIME) {
        let Ok(meta) = inode.metadata() else { return };
        if !atime_is_due(&meta, now(), DAY) {
            return;
        }
    }
    inode.touch_atime();
}

fn atime_is_due(meta: &Metadata, now: Timestamp, day: i64) -> bool {
    meta.atime <= meta.mtime || meta.atime <= meta.ctime || now.seconds - meta.atime.seconds >= day
}

/// What a write or a change of owner does to setuid and setgid bits: the bits that remain, if they
/// change (`file_remove_privs`). A setgid bit without group execute does not mean privilege.
pub fn without_privileges(meta: &Metadata) -> Option<u32> {
    if meta.file_type != FileType::Regular {
        return None;
    }
    let mut permissions = meta.permissions & !0o4000;
    if permissions & 0o2010 == 0o2010 {
        permissions &= !0o2000;
    }
    (permissions != meta.permissions).then_some(permissions)
}

/// An attribute change that only drops privileges, or nothing.
pub(crate) fn drop_privileges(inode: &Arc<dyn Inode>) -> Result<()> {
    match without_privileges(&inode.metadata()?) {
        Some(permissions) => inode.set_attr(&SetAttr {
            permissions: Some(permissions),
            ctime: Some(now()),
            ..SetAttr::default()
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::metadata;

    #[test]
    fn relatime_updates_only_when_it_tells_something() {
        let mut meta = metadata(FileType::Regular, 0o644);
        let at = |seconds| Timestamp {
            seconds,
            nanoseconds: 0,
        };
        (meta.atime, meta.mtime, meta.ctime) = (at(100), at(50), at(60));
        assert!(!atime_is_due(&meta, at(200), 86400));
        assert!(atime_is_due(&meta, at(100 + 86400), 86400));
        meta.mtime = at(100);
        assert!(atime_is_due(&meta, at(200), 86400));
    }

    #[test]
    fn privileges_go_with_the_first_write() {
        let meta = |bits| metadata(FileType::Regular, bits);
        assert_eq!(without_privileges(&meta(0o4755)), Some(0o755));
        assert_eq!(without_privileges(&meta(0o2755)), Some(0o755));
        assert_eq!(without_privileges(&meta(0o2745)), None);
        assert_eq!(
            without_privileges(&metadata(FileType::Directory, 0o2755)),
            None
        );
    }
}
