//! Path resolution (path_resolution(7)) and the table of mounts.
//!
//! What is done with the place a path leads to is in [`crate::ops`] and [`crate::open`].

use alloc::{borrow::Cow, collections::BTreeMap, sync::Arc, vec::Vec};
use core::ops::Range;

use bitflags::bitflags;
use errno::{Errno, Result};
use machine::sync::SpinLock;

use crate::{
    Access, Credentials, Dentry, FileSystem, FileType, LinkTarget, Mount, MountFlags, NAME_MAX,
    PATH_MAX, Path, SYMLINK_LIMIT, Superblock, dentry, mount::touch_atime, notify,
};

bitflags! {
    /// How a path is to be resolved; the upper half is `openat2(2)`'s `RESOLVE_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LookupFlags: u32 {
        /// Follow a symbolic link in the last component.
        const FOLLOW = 1;
        /// The result must be a directory.
        const DIRECTORY = 2;
        /// An empty path means the starting point (`AT_EMPTY_PATH`).
        const EMPTY = 4;
        /// Do not cross mounts.
        const NO_XDEV = 0x10;
        /// Do not follow the links of /proc that jump.
        const NO_MAGICLINKS = 0x20;
        /// Follow no symbolic links at all.
        const NO_SYMLINKS = 0x40;
        /// Stay below the starting point, or fail.
        const BENEATH = 0x80;
        /// Take the starting point for the root.
        const IN_ROOT = 0x100;
        /// Only what needs no I/O, else `EAGAIN`.
        const CACHED = 0x200;
    }
}

/// From where, and for whom, a path is resolved.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The root directory of the process.
    pub root: &'a Path,
    /// Where a relative path starts: the working directory or the directory of a descriptor.
    pub dir: &'a Path,
    /// Who asks.
    pub creds: &'a Credentials,
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// A name: a range of the walker's text.
    Name(Range<usize>),
    /// `.`, or a path of slashes only.
    Dot,
    /// `..`
    DotDot,
}

/// The directory and last name that a path for a change of names leads to.
pub struct Parent {
    /// The directory.
    pub dir: Path,
    /// The last component.
    pub name: Vec<u8>,
    /// The path ended in a slash.
    pub trailing_slash: bool,
    /// What kind of last component.
    pub kind: ParentKind,
}

/// What the last component of a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentKind {
    /// An ordinary name.
    Name,
    /// `.` or nothing.
    Dot,
    /// `..`
    DotDot,
}

/// The tree of names: all mounts, from the root on.
pub struct Namespace {
    root: Path,
    table: SpinLock<Table>,
}

struct Table {
    /// By the mount and the dentry it covers; the address of a dentry is its identity while the
    /// mount's `point` keeps it alive.
    by_point: BTreeMap<(u64, usize), Arc<Mount>>,
    all: Vec<Arc<Mount>>,
}

fn key(mount: &Mount, dentry: &Arc<Dentry>) -> (u64, usize) {
    (mount.id(), Arc::as_ptr(dentry).addr())
}

impl Namespace {
    /// A name space with `fs` as its root.
    ///
    /// # Errors
    /// `ENOTDIR` when the file system's root is no directory.
    pub fn new(fs: Arc<dyn FileSystem>, flags: MountFlags) -> Result<Arc<Namespace>> {
        let superblock = Superblock::new(fs);
        superblock.count_mount(true);
        let mount = Mount::new(superblock.clone(), superblock.root().clone(), flags);
        let root = Path::root_of(&mount)
            .filter(|root| root.file_type() == FileType::Directory)
            .ok_or(Errno::ENOTDIR)?;
        Ok(Arc::new(Namespace {
            root,
            table: SpinLock::new(Table {
                by_point: BTreeMap::new(),
                all: alloc::vec![mount],
            }),
        }))
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All mounts in the order they were made.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.table.lock().all.clone()
    }

    /// Mounts `fs` on the directory `point`.
    ///
    /// # Errors
    /// `ENOTDIR`; `ENOENT` when the directory is gone.
    pub fn mount(
        &self,
        fs: Arc<dyn FileSystem>,
        point: &Path,
        flags: MountFlags,
    ) -> Result<Arc<Mount>> {
        let superblock = Superblock::new(fs);
        let root = superblock.root().clone();
        self.attach(superblock, root, point, flags)
    }

    /// Shows the tree at `source` at `point`, too (`MS_BIND`).
    ///
    /// # Errors
    /// As [`Namespace::mount`].
    pub fn bind(&self, source: &Path, point: &Path) -> Result<Arc<Mount>> {
        let mount = source.mount();
        self.attach(
            mount.superblock().clone(),
            source.dentry().clone(),
            point,
            mount.flags(),
        )
    }

    fn attach(
        &self,
        superblock: Arc<Superblock>,
        root: Arc<Dentry>,
        point: &Path,
        flags: MountFlags,
    ) -> Result<Arc<Mount>> {
        if root.is_dir() != (point.file_type() == FileType::Directory) {
            return Err(Errno::ENOTDIR);
        }
        // A mount on a mount covers it.
        let mut point = point.clone();
        while let Some(top) = self.mounted_at(&point) {
            point = top;
        }
        if point.dentry().is_unlinked() {
            return Err(Errno::ENOENT);
        }
        superblock.count_mount(true);
        let mount = Mount::new(superblock, root, flags);
        mount.set_point(Some(point.clone()));
        let mut table = self.table.lock();
        table
            .by_point
            .insert(key(point.mount(), point.dentry()), mount.clone());
        table.all.push(mount.clone());
        point.dentry().set_mount_point(true);
        Ok(mount)
    }

    /// Takes the mount whose root is `path` away (umount2(2)). With `lazy` it may be in use.
    ///
    /// # Errors
    /// `EINVAL` when nothing is mounted there, `EBUSY` when it is in use, and what the file system
    /// says when it is written out.
    pub fn unmount(&self, path: &Path, lazy: bool) -> Result<()> {
        let mount = path.mount();
        let point = mount.point().ok_or(Errno::EINVAL)?;
        if !Arc::ptr_eq(path.dentry(), mount.root()) {
            return Err(Errno::EINVAL);
        }
        {
            let mut table = self.table.lock();
            let covered = table.by_point.keys().any(|(id, _)| *id == mount.id());
            // Held by the table twice, by `path`, and by nobody else.
            if !lazy && (covered || Arc::strong_count(mount) > 3) {
                return Err(Errno::EBUSY);
            }
            table.by_point.remove(&key(point.mount(), point.dentry()));
            table.all.retain(|other| !Arc::ptr_eq(other, mount));
            let address = Arc::as_ptr(point.dentry()).addr();
            if !table.by_point.keys().any(|(_, dentry)| *dentry == address) {
                point.dentry().set_mount_point(false);
            }
        }
        mount.set_point(None);
        notify::inode_event(path.inode(), notify::Mask::UNMOUNT, 0, None);
        if mount.superblock().count_mount(false) == 1 {
            dentry::drop_tree(mount.superblock().root());
            mount.fs().unmount()?;
        }
        Ok(())
    }

    /// Writes out and leaves clean every file system, in the reverse order of their mounting: the
    /// last thing before the machine goes off. Goes on over errors and reports the first.
    ///
    /// # Errors
    /// What a file system says.
    pub fn unmount_all(&self) -> Result<()> {
        let mut result = Ok(());
        for mount in self.mounts().iter().rev() {
            result = result.and(mount.fs().unmount());
        }
        result
    }

    /// Makes everything written so far durable (`sync(2)`).
    ///
    /// # Errors
    /// What a file system says; the others are synced nevertheless.
    pub fn sync_all(&self) -> Result<()> {
        let mut result = Ok(());
        for mount in self.mounts() {
            result = result.and(mount.fs().sync());
        }
        result
    }

    /// The root of what is mounted on `path`.
    fn mounted_at(&self, path: &Path) -> Option<Path> {
        if !path.dentry().is_mount_point() {
            return None;
        }
        let mount = self
            .table
            .lock()
            .by_point
            .get(&key(path.mount(), path.dentry()))?
            .clone();
        Path::root_of(&mount)
    }

    /// The place that `path` names.
    ///
    /// # Errors
    /// Those of path_resolution(7) and openat2(2): `ENOENT`, `ENOTDIR`, `ELOOP`, `EACCES`,
    /// `ENAMETOOLONG`, `EXDEV`, `EAGAIN`, and `EIO`.
    pub fn resolve(&self, start: &Start<'_>, path: &[u8], flags: LookupFlags) -> Result<Path> {
        if path.is_empty() && flags.contains(LookupFlags::EMPTY) {
            return Ok(start.dir.clone());
        }
        let mut walker = Walker::new(self, start, path, flags)?;
        loop {
            let (last, trailing) = walker.walk_to_parent()?;
            let found = match last {
                Last::Dot => walker.at.clone(),
                Last::DotDot => {
                    walker.check_search()?;
                    walker.up(walker.at.clone())?
                }
                Last::Name(name) => walker.step(name)?.ok_or(Errno::ENOENT)?,
            };
            let follow = trailing || flags.contains(LookupFlags::FOLLOW);
            if found.file_type() == FileType::Symlink {
                if follow {
                    walker.follow(&found, if trailing { b"/" } else { b"" })?;
                    continue;
                }
                // Even a link that is not followed does not pass: openat2(2).
                if flags.contains(LookupFlags::NO_SYMLINKS) {
                    return Err(Errno::ELOOP);
                }
            }
            let must_be_dir = trailing || flags.contains(LookupFlags::DIRECTORY);
            if must_be_dir && found.file_type() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            return Ok(found);
        }
    }

    /// The directory that `path` leads to, and its last component unresolved.
    ///
    /// # Errors
    /// As [`Namespace::resolve`].
    pub fn resolve_parent(
        &self,
        start: &Start<'_>,
        path: &[u8],
        flags: LookupFlags,
    ) -> Result<Parent> {
        let mut walker = Walker::new(self, start, path, flags)?;
        let (last, trailing_slash) = walker.walk_to_parent()?;
        let (name, kind) = match last {
            Last::Name(range) => (walker.text(range).to_vec(), ParentKind::Name),
            Last::Dot => (Vec::new(), ParentKind::Dot),
            Last::DotDot => (Vec::new(), ParentKind::DotDot),
        };
        Ok(Parent {
            dir: walker.at,
            name,
            trailing_slash,
            kind,
        })
    }

    /// The name of `path` as seen from `root`, as `getcwd(2)` and /proc show it. The second value
    /// is false when the place cannot be reached from `root`.
    pub fn path_name(&self, path: &Path, root: &Path) -> (Vec<u8>, bool) {
        let mut parts: Vec<Arc<[u8]>> = Vec::new();
        let mut at = path.clone();
        let gone = path.dentry().is_unlinked();
        let mut reachable = true;
        loop {
            if at.same(root) {
                break;
            }
            if Arc::ptr_eq(at.dentry(), at.mount().root()) {
                match at.mount().point() {
                    Some(point) => at = point,
                    None => {
                        if at.same(&self.root) {
                            reachable = false;
                            break;
                        }
                        // A tree of its own: an anonymous object shows its name alone.
                        let name = at.dentry().name();
                        if parts.is_empty() && &*name != b"/" {
                            return (name.to_vec(), true);
                        }
                        reachable = false;
                        break;
                    }
                }
                continue;
            }
            let Some((parent, name)) = at.dentry().parent_and_name() else {
                reachable = false;
                break;
            };
            parts.push(name);
            match Path::new(at.mount().clone(), parent) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        let mut text = Vec::new();
        for part in parts.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(part);
        }
        if text.is_empty() {
            text.push(b'/');
        }
        if gone {
            text.extend_from_slice(b" (deleted)");
        }
        (text, reachable)
    }
}

/// One resolution under way.
pub(crate) struct Walker<'a> {
    ns: &'a Namespace,
    start: &'a Start<'a>,
    root: &'a Path,
    flags: LookupFlags,
    /// Where it has got to.
    pub at: Path,
    text: Cow<'a, [u8]>,
    position: usize,
    links: usize,
}

impl<'a> Walker<'a> {
    pub fn new(
        ns: &'a Namespace,
        start: &'a Start<'a>,
        path: &'a [u8],
        flags: LookupFlags,
    ) -> Result<Walker<'a>> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let root = if flags.contains(LookupFlags::IN_ROOT) {
            start.dir
        } else {
            start.root
        };
        let absolute = path.first() == Some(&b'/');
        let mut walker = Walker {
            ns,
            start,
            root,
            flags,
            at: if absolute { root } else { start.dir }.clone(),
            text: Cow::Borrowed(path),
            position: 0,
            links: 0,
        };
        if absolute && !flags.is_empty() {
            walker.at = start.dir.clone();
            walker.go_to_root()?;
        }
        Ok(walker)
    }

    /// The bytes of a component.
    pub fn text(&self, range: Range<usize>) -> &[u8] {
        self.text.get(range).unwrap_or_default()
    }

    fn go_to_root(&mut self) -> Result<()> {
        if self.flags.contains(LookupFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        if self.flags.contains(LookupFlags::NO_XDEV)
            && !Arc::ptr_eq(self.at.mount(), self.root.mount())
        {
            return Err(Errno::EXDEV);
        }
        self.at = self.root.clone();
        Ok(())
    }

    /// Takes the next component off the text.
    fn next(&mut self) -> Option<Range<usize>> {
        let rest = self.text.get(self.position..)?;
        let slashes = rest.iter().position(|&byte| byte != b'/')?;
        let rest = &rest[slashes..];
        let len = rest.iter().position(|&byte| byte == b'/');
        let from = self.position + slashes;
        let to = from + len.unwrap_or(rest.len());
        self.position = to;
        Some(from..to)
    }

    /// Walks all components but the last. Returns that and whether a slash follows it.
    pub fn walk_to_parent(&mut self) -> Result<(Last, bool)> {
        let Some(mut component) = self.next() else {
            // Only slashes, or nothing more behind a link that jumped.
            return Ok((Last::Dot, !self.text.is_empty()));
        };
        loop {
            if self.at.file_type() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            if component.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            let trailing = self.text.get(self.position) == Some(&b'/');
            let kind = match self.text(component.clone()) {
                b"." => Last::Dot,
                b".." => Last::DotDot,
                _ => Last::Name(component),
            };
            let Some(next) = self.next() else {
                return Ok((kind, trailing));
            };
            component = next;
            match kind {
                Last::Dot => {}
                Last::DotDot => {
                    self.check_search()?;
                    self.at = self.up(self.at.clone())?;
                }
                Last::Name(name) => {
                    let found = self.step(name)?.ok_or(Errno::ENOENT)?;
                    if found.file_type() == FileType::Symlink {
                        // What is left of the path, the component just taken included.
                        let rest = self.text(component.start..self.text.len()).to_vec();
                        self.follow(&found, &rest)?;
                        component = match self.next() {
                            Some(first) => first,
                            None => return Ok((Last::Dot, true)),
                        };
                    } else {
                        self.at = found;
                    }
                }
            }
        }
    }

    /// Whether the directory reached may be searched.
    pub fn check_search(&self) -> Result<()> {
        if self.start.creds.is_root() {
            return Ok(());
        }
        let meta = self.at.inode().metadata()?;
        self.start.creds.check(&meta, Access::EXEC)
    }

    /// The child of the directory reached, over mounts; `None` when there is no such name.
    pub fn step(&self, name: Range<usize>) -> Result<Option<Path>> {
        self.check_search()?;
        let name = self.text(name);
        let dir = self.at.dentry();
        let child = if self.flags.contains(LookupFlags::CACHED) {
            dir.cached(name).ok_or(Errno::EAGAIN)?
        } else {
            dir.child(name)?
        };
        let Some(mut path) = Path::new(self.at.mount().clone(), child) else {
            return Ok(None);
        };
        while let Some(top) = self.ns.mounted_at(&path) {
            if self.flags.contains(LookupFlags::NO_XDEV) {
                return Err(Errno::EXDEV);
            }
            path = top;
        }
        Ok(Some(path))
    }

    /// The parent of `at`, which stays put at the root.
    pub fn up(&self, mut at: Path) -> Result<Path> {
        if self.flags.contains(LookupFlags::BENEATH) && at.same(self.start.dir) {
            return Err(Errno::EXDEV);
        }
        loop {
            if at.same(self.root) {
                return Ok(at);
            }
            if Arc::ptr_eq(at.dentry(), at.mount().root()) {
                match at.mount().point() {
                    Some(_) if self.flags.contains(LookupFlags::NO_XDEV) => {
                        return Err(Errno::EXDEV);
                    }
                    Some(point) => at = point,
                    None => return Ok(at),
                }
                continue;
            }
            let Some(parent) = at.dentry().parent() else {
                return Ok(at);
            };
            let mut path = Path::new(at.mount().clone(), parent).ok_or(Errno::ENOENT)?;
            while let Some(top) = self.ns.mounted_at(&path) {
                path = top;
            }
            return Ok(path);
        }
    }

    /// Follows the link at `link`, found in the directory reached; `rest` is what comes after it.
    pub fn follow(&mut self, link: &Path, rest: &[u8]) -> Result<()> {
        self.links += 1;
        if self.links > SYMLINK_LIMIT || self.flags.contains(LookupFlags::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        touch_atime(link.mount(), link.inode());
        match link.inode().follow()? {
            LinkTarget::Path(target) => {
                if target.is_empty() {
                    return Err(Errno::ENOENT);
                }
                let absolute = target.first() == Some(&b'/');
                let mut text = target;
                if !rest.is_empty() {
                    text.push(b'/');
                    text.extend_from_slice(rest);
                }
                self.text = Cow::Owned(text);
                self.position = 0;
                if absolute {
                    self.go_to_root()?;
                }
                Ok(())
            }
            LinkTarget::Jump(target) => {
                if self.flags.contains(LookupFlags::NO_MAGICLINKS) {
                    return Err(Errno::ELOOP);
                }
                if self
                    .flags
                    .intersects(LookupFlags::BENEATH | LookupFlags::IN_ROOT)
                {
                    return Err(Errno::EXDEV);
                }
                if self.flags.contains(LookupFlags::NO_XDEV)
                    && !Arc::ptr_eq(target.mount(), self.at.mount())
                {
                    return Err(Errno::EXDEV);
                }
                self.at = target;
                self.text = Cow::Owned(rest.to_vec());
                self.position = 0;
                Ok(())
            }
        }
    }

    /// Where a link that jumped has led, if no text is left.
    pub fn arrived(&self) -> Option<Path> {
        self.text.is_empty().then(|| self.at.clone())
    }

    /// The flags it walks with.
    pub fn flags(&self) -> LookupFlags {
        self.flags
    }
}
