//! Where the process stands in the tree of names, and the look-ups that system calls and sockets
//! share.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use errno::{Errno, Result};
use fs::{
    Credentials, DeviceId, FileType, LookupFlags, Namespace, OpenFile, OpenFlags, Path, Start,
};
use machine::sync::SpinLock;

use crate::process::Process;

/// `AT_FDCWD`.
pub const AT_FDCWD: i32 = -100;

/// Root, working directory, file-mode mask.
pub struct FsContext {
    namespace: Arc<Namespace>,
    places: SpinLock<Places>,
    umask: AtomicU32,
}

#[derive(Clone)]
struct Places {
    root: Path,
    cwd: Path,
}

impl FsContext {
    /// A process that starts at the root of `namespace`.
    pub fn new(namespace: Arc<Namespace>) -> Self {
        let root = namespace.root().clone();
        FsContext {
            namespace,
            places: SpinLock::new(Places {
                cwd: root.clone(),
                root,
            }),
            umask: AtomicU32::new(0o022),
        }
    }

    /// All that is mounted.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// The root directory.
    pub fn root(&self) -> Path {
        self.places.lock().root.clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> Path {
        self.places.lock().cwd.clone()
    }

    /// Changes the working directory.
    pub fn set_cwd(&self, path: Path) {
        let old = core::mem::replace(&mut self.places.lock().cwd, path);
        drop(old);
    }

    /// Changes the root directory.
    pub fn set_root(&self, path: Path) {
        let old = core::mem::replace(&mut self.places.lock().root, path);
        drop(old);
    }

    /// The mask.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Changes the mask and returns the one before.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }

    /// The name of a place, as the program sees it; `(unreachable)` in front where it does not.
    pub fn name_of(&self, path: &Path) -> Vec<u8> {
        let (name, reachable) = self.namespace.path_name(path, &self.root());
        if reachable {
            name
        } else {
            [b"(unreachable)", &name[..]].concat()
        }
    }
}

/// The starting point of a look-up, with what it borrows from.
pub struct From {
    root: Path,
    dir: Path,
    creds: Credentials,
}

impl From {
    /// The form the name space takes.
    pub fn start(&self) -> Start<'_> {
        Start {
            root: &self.root,
            dir: &self.dir,
            creds: &self.creds,
        }
    }
}

/// The ids that permission checks use: those for files, or the real ones (`access(2)`).
pub fn credentials(process: &Process, real: bool) -> Credentials {
    let ids = process.credentials.lock();
    let which = if real { 0 } else { 3 };
    Credentials {
        uid: ids.uid[which],
        gid: ids.gid[which],
        groups: ids.groups.clone(),
    }
}

/// Where the look-up of `path` relative to `dirfd` starts.
///
/// # Errors
/// `EBADF`, `ENOTDIR` for a descriptor that is no directory.
pub fn from(process: &Process, dirfd: i32, path: &[u8]) -> Result<From> {
    from_dir(process, dirfd, path, path.first() != Some(&b'/'))
}

/// As [`from`], saying whether `dirfd` matters: it does for an absolute path that is not to leave it.
///
/// # Errors
/// As [`from`].
pub fn from_dir(process: &Process, dirfd: i32, path: &[u8], needs_dir: bool) -> Result<From> {
    let dir = if !needs_dir || dirfd == AT_FDCWD {
        process.fs.cwd()
    } else {
        let file = process.files.get(dirfd)?;
        match file.path() {
            Some(place) if path.is_empty() || place.file_type() == FileType::Directory => {
                place.clone()
            }
            None if path.is_empty() => {
                return Err(Errno::ENOENT);
            }
            _ => return Err(Errno::ENOTDIR),
        }
    };
    Ok(From {
        root: process.fs.root(),
        dir,
        creds: credentials(process, false),
    })
}

/// Resolves `path` relative to `dirfd`.
///
/// # Errors
/// Those of path_resolution(7).
pub fn resolve(process: &Process, dirfd: i32, path: &[u8], flags: LookupFlags) -> Result<Path> {
    let from = from(process, dirfd, path)?;
    process.fs.namespace().resolve(&from.start(), path, flags)
}

/// What a call with an optional path works on: a place, or a descriptor's file without one.
pub enum Target {
    /// A place in the tree.
    Place(Path),
    /// A file without a name, such as a socket.
    File(Arc<OpenFile>),
}

/// Resolves `path`, or with `flags` holding `EMPTY` and no path the descriptor itself.
///
/// # Errors
/// As [`resolve`]; `EBADF`.
pub fn resolve_or_file(
    process: &Process,
    dirfd: i32,
    path: &[u8],
    flags: LookupFlags,
) -> Result<Target> {
    if path.is_empty() && flags.contains(LookupFlags::EMPTY) && dirfd != AT_FDCWD {
        return Ok(Target::File(process.files.get(dirfd)?));
    }
    resolve(process, dirfd, path, flags).map(Target::Place)
}

/// Opens a file as the process would, for the kernel's own use.
///
/// # Errors
/// Those of `open(2)`.
pub fn open(process: &Process, path: &[u8], flags: OpenFlags) -> Result<Arc<OpenFile>> {
    let from = from(process, AT_FDCWD, path)?;
    process
        .fs
        .namespace()
        .open(&from.start(), path, flags, 0, LookupFlags::empty())
}

fn current() -> Result<&'static Process> {
    crate::process::get().ok_or(Errno::ENOENT)
}

fn key(path: &Path) -> Result<(u64, u64)> {
    let meta = path.inode().metadata()?;
    Ok((meta.dev.to_u64(), meta.ino))
}

/// Makes the inode of a UNIX socket; returns its place and identity.
///
/// # Errors
/// `EADDRINUSE` when the name exists, and those of `mknod(2)`.
pub fn create_socket(name: &[u8]) -> Result<(Path, (u64, u64))> {
    let process = current()?;
    let from = from(process, AT_FDCWD, name)?;
    let mode = 0o777 & !process.fs.umask();
    let path = process
        .fs
        .namespace()
        .mknod(
            &from.start(),
            name,
            FileType::Socket,
            mode,
            DeviceId::default(),
        )
        .map_err(|error| match error {
            Errno::EEXIST => Errno::EADDRINUSE,
            other => other,
        })?;
    let key = key(&path)?;
    Ok((path, key))
}

/// Takes back the name that [`create_socket`] made.
pub fn remove_socket(name: &[u8]) {
    if let Ok(process) = current()
        && let Ok(from) = from(process, AT_FDCWD, name)
    {
        // Somebody else may have removed it meanwhile.
        let _ = process.fs.namespace().unlink(&from.start(), name);
    }
}

/// The identity of the UNIX socket that `name` stands for.
///
/// # Errors
/// `ECONNREFUSED` when it is no socket, `EACCES`, and those of path_resolution(7).
pub fn find_socket(name: &[u8]) -> Result<(u64, u64)> {
    let process = current()?;
    let from = from(process, AT_FDCWD, name)?;
    let namespace = process.fs.namespace();
    let path = namespace.resolve(&from.start(), name, LookupFlags::FOLLOW)?;
    namespace.access(&from.start(), &path, fs::Access::WRITE)?;
    if path.file_type() != FileType::Socket {
        return Err(Errno::ECONNREFUSED);
    }
    key(&path)
}
