//! Names: `mkdir(2)`, `unlink(2)`, `rename(2)`, `link(2)`, `symlink(2)`, `readlink(2)`, `mknod(2)`,
//! `getdents64(2)`, and where the process stands (`chdir(2)`, `getcwd(2)`, `chroot(2)`).

use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::{Access, DeviceId, FileType, LookupFlags, RenameFlags};

use super::stat::{AT_EMPTY_PATH, lookup};
use crate::ctx::Ctx;
use crate::files::anon;
use crate::files::dirent::{Layout, Packer};
use crate::files::paths::{self, AT_FDCWD, Target};
use crate::uaccess::{PATH_MAX, UserPtr};

const AT_REMOVEDIR: u32 = 0x200;
const AT_SYMLINK_FOLLOW: u32 = 0x400;

fn mkdir_at(ctx: &Ctx<'_>, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    let path = path.read_path()?;
    let mode = mode & 0o1777 & !ctx.process.fs.umask();
    let from = paths::from(ctx.process, dirfd, &path)?;
    ctx.process
        .fs
        .namespace()
        .mkdir(&from.start(), &path, mode)?;
    Ok(0)
}

/// `mkdir(2)`.
pub fn sys_mkdir(ctx: &mut Ctx<'_>, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    mkdir_at(ctx, AT_FDCWD, path, mode)
}

/// `mkdirat(2)`.
pub fn sys_mkdirat(ctx: &mut Ctx<'_>, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    mkdir_at(ctx, dirfd, path, mode)
}

fn mknod_at(ctx: &Ctx<'_>, dirfd: i32, path: UserPtr<u8>, mode: u32, dev: u64) -> Result<usize> {
    let path = path.read_path()?;
    let file_type = match mode & 0o170_000 {
        0 => FileType::Regular,
        bits => FileType::from_mode(bits).ok_or(Errno::EINVAL)?,
    };
    let rdev = match file_type {
        // new_decode_dev of the 32 bits that mknod takes.
        FileType::CharDevice | FileType::BlockDevice => DeviceId::from_u64(u64::from(dev as u32)),
        _ => DeviceId::default(),
    };
    let permissions = mode & 0o7777 & !ctx.process.fs.umask();
    let from = paths::from(ctx.process, dirfd, &path)?;
    ctx.process
        .fs
        .namespace()
        .mknod(&from.start(), &path, file_type, permissions, rdev)?;
    Ok(0)
}

/// `mknod(2)`.
pub fn sys_mknod(ctx: &mut Ctx<'_>, path: UserPtr<u8>, mode: u32, dev: u64) -> Result<usize> {
    mknod_at(ctx, AT_FDCWD, path, mode, dev)
}

/// `mknodat(2)`.
pub fn sys_mknodat(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    mode: u32,
    dev: u64,
) -> Result<usize> {
    mknod_at(ctx, dirfd, path, mode, dev)
}

fn remove_at(ctx: &Ctx<'_>, dirfd: i32, path: UserPtr<u8>, directory: bool) -> Result<usize> {
    let path = path.read_path()?;
    let from = paths::from(ctx.process, dirfd, &path)?;
    let namespace = ctx.process.fs.namespace();
    if directory {
        namespace.rmdir(&from.start(), &path)?;
    } else {
        namespace.unlink(&from.start(), &path)?;
    }
    Ok(0)
}

/// `rmdir(2)`.
pub fn sys_rmdir(ctx: &mut Ctx<'_>, path: UserPtr<u8>) -> Result<usize> {
    remove_at(ctx, AT_FDCWD, path, true)
}

/// `unlink(2)`.
pub fn sys_unlink(ctx: &mut Ctx<'_>, path: UserPtr<u8>) -> Result<usize> {
    remove_at(ctx, AT_FDCWD, path, false)
}

/// `unlinkat(2)`.
pub fn sys_unlinkat(ctx: &mut Ctx<'_>, dirfd: i32, path: UserPtr<u8>, flags: u32) -> Result<usize> {
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    remove_at(ctx, dirfd, path, flags != 0)
}

fn rename_at(
    ctx: &Ctx<'_>,
    old_dirfd: i32,
    old: UserPtr<u8>,
    new_dirfd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<usize> {
    // RENAME_WHITEOUT is for overlay file systems, of which there is none.
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let (old, new) = (old.read_path()?, new.read_path()?);
    let old_from = paths::from(ctx.process, old_dirfd, &old)?;
    let new_from = paths::from(ctx.process, new_dirfd, &new)?;
    ctx.process
        .fs
        .namespace()
        .rename(&old_from.start(), &old, &new_from.start(), &new, flags)?;
    Ok(0)
}

/// `rename(2)`.
pub fn sys_rename(ctx: &mut Ctx<'_>, old: UserPtr<u8>, new: UserPtr<u8>) -> Result<usize> {
    rename_at(ctx, AT_FDCWD, old, AT_FDCWD, new, 0)
}

/// `renameat(2)`.
pub fn sys_renameat(
    ctx: &mut Ctx<'_>,
    old_dirfd: i32,
    old: UserPtr<u8>,
    new_dirfd: i32,
    new: UserPtr<u8>,
) -> Result<usize> {
    rename_at(ctx, old_dirfd, old, new_dirfd, new, 0)
}

/// `renameat2(2)`.
pub fn sys_renameat2(
    ctx: &mut Ctx<'_>,
    old_dirfd: i32,
    old: UserPtr<u8>,
    new_dirfd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<usize> {
    rename_at(ctx, old_dirfd, old, new_dirfd, new, flags)
}

fn link_at(
    ctx: &Ctx<'_>,
    old_dirfd: i32,
    old: UserPtr<u8>,
    new_dirfd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<usize> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (old, new) = (old.read_path()?, new.read_path()?);
    let mut how = LookupFlags::empty();
    if flags & AT_SYMLINK_FOLLOW != 0 {
        how |= LookupFlags::FOLLOW;
    }
    if flags & AT_EMPTY_PATH != 0 {
        how |= LookupFlags::EMPTY;
    }
    let target = match paths::resolve_or_file(ctx.process, old_dirfd, &old, how)? {
        Target::Place(place) => place,
        Target::File(file) => file.path().cloned().ok_or(Errno::EXDEV)?,
    };
    let from = paths::from(ctx.process, new_dirfd, &new)?;
    ctx.process
        .fs
        .namespace()
        .link(&from.start(), &target, &new)?;
    Ok(0)
}

/// `link(2)`.
pub fn sys_link(ctx: &mut Ctx<'_>, old: UserPtr<u8>, new: UserPtr<u8>) -> Result<usize> {
    link_at(ctx, AT_FDCWD, old, AT_FDCWD, new, 0)
}

/// `linkat(2)`.
pub fn sys_linkat(
    ctx: &mut Ctx<'_>,
    old_dirfd: i32,
    old: UserPtr<u8>,
    new_dirfd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<usize> {
    link_at(ctx, old_dirfd, old, new_dirfd, new, flags)
}

fn symlink_at(ctx: &Ctx<'_>, target: UserPtr<u8>, dirfd: i32, path: UserPtr<u8>) -> Result<usize> {
    let (target, path) = (target.read_path()?, path.read_path()?);
    let from = paths::from(ctx.process, dirfd, &path)?;
    ctx.process
        .fs
        .namespace()
        .symlink(&from.start(), &target, &path)?;
    Ok(0)
}

/// `symlink(2)`.
pub fn sys_symlink(ctx: &mut Ctx<'_>, target: UserPtr<u8>, path: UserPtr<u8>) -> Result<usize> {
    symlink_at(ctx, target, AT_FDCWD, path)
}

/// `symlinkat(2)`.
pub fn sys_symlinkat(
    ctx: &mut Ctx<'_>,
    target: UserPtr<u8>,
    dirfd: i32,
    path: UserPtr<u8>,
) -> Result<usize> {
    symlink_at(ctx, target, dirfd, path)
}

fn readlink_at(
    ctx: &Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    buffer: UserPtr<u8>,
    len: i32,
) -> Result<usize> {
    let room = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if room == 0 {
        return Err(Errno::EINVAL);
    }
    let path = path.read_path()?;
    let text = if path.is_empty() && dirfd != AT_FDCWD {
        // An O_PATH descriptor of a link; of anything else there is no link to read.
        let file = ctx.process.files.get(dirfd)?;
        let place = file.path().ok_or(Errno::ENOENT)?;
        if place.file_type() != FileType::Symlink {
            return Err(Errno::ENOENT);
        }
        ctx.process.fs.namespace().readlink(place)?
    } else {
        let place = paths::resolve(ctx.process, dirfd, &path, LookupFlags::empty())?;
        ctx.process.fs.namespace().readlink(&place)?
    };
    let len = text.len().min(room);
    buffer.write_bytes(&text[..len])?;
    Ok(len)
}

/// `readlink(2)`.
pub fn sys_readlink(
    ctx: &mut Ctx<'_>,
    path: UserPtr<u8>,
    buffer: UserPtr<u8>,
    len: i32,
) -> Result<usize> {
    readlink_at(ctx, AT_FDCWD, path, buffer, len)
}

/// `readlinkat(2)`.
pub fn sys_readlinkat(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    buffer: UserPtr<u8>,
    len: i32,
) -> Result<usize> {
    readlink_at(ctx, dirfd, path, buffer, len)
}

/// The most bytes of entries handed out at once; a longer buffer is filled by further calls.
const DENTS_MAX: usize = 1 << 16;

fn dents(ctx: &Ctx<'_>, fd: i32, out: UserPtr<u8>, len: u32, layout: Layout) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let mut packer = Packer::new(layout, (len as usize).min(DENTS_MAX));
    let mut full = false;
    file.readdir(&mut |entry| {
        let taken = packer.push(entry.ino, entry.next, entry.file_type.d_type(), entry.name);
        full |= !taken;
        taken
    })?;
    if full && packer.is_empty() {
        return Err(Errno::EINVAL);
    }
    let bytes = packer.into_bytes();
    out.write_bytes(&bytes)?;
    Ok(bytes.len())
}

/// `getdents(2)`.
pub fn sys_getdents(ctx: &mut Ctx<'_>, fd: i32, out: UserPtr<u8>, len: u32) -> Result<usize> {
    dents(ctx, fd, out, len, Layout::Old)
}

/// `getdents64(2)`.
pub fn sys_getdents64(ctx: &mut Ctx<'_>, fd: i32, out: UserPtr<u8>, len: u32) -> Result<usize> {
    dents(ctx, fd, out, len, Layout::New)
}

/// Whether the process may search the directory, so that it can stand there.
fn may_stand(ctx: &Ctx<'_>, place: &fs::Path) -> Result<()> {
    if place.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    let creds = paths::credentials(ctx.process, false);
    let root = ctx.process.fs.root();
    let start = fs::Start {
        root: &root,
        dir: place,
        creds: &creds,
    };
    ctx.process
        .fs
        .namespace()
        .access(&start, place, Access::EXEC)
}

/// `chdir(2)`.
pub fn sys_chdir(ctx: &mut Ctx<'_>, path: UserPtr<u8>) -> Result<usize> {
    let path = path.read_path()?;
    let how = LookupFlags::FOLLOW | LookupFlags::DIRECTORY;
    let place = paths::resolve(ctx.process, AT_FDCWD, &path, how)?;
    may_stand(ctx, &place)?;
    ctx.process.fs.set_cwd(place);
    Ok(0)
}

/// `fchdir(2)`.
pub fn sys_fchdir(ctx: &mut Ctx<'_>, fd: i32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let place = file.path().cloned().ok_or(Errno::ENOTDIR)?;
    may_stand(ctx, &place)?;
    ctx.process.fs.set_cwd(place);
    Ok(0)
}

/// `chroot(2)`.
pub fn sys_chroot(ctx: &mut Ctx<'_>, path: UserPtr<u8>) -> Result<usize> {
    let path = path.read_path()?;
    let how = LookupFlags::FOLLOW | LookupFlags::DIRECTORY;
    let place = paths::resolve(ctx.process, AT_FDCWD, &path, how)?;
    may_stand(ctx, &place)?;
    if !paths::credentials(ctx.process, false).is_root() {
        return Err(Errno::EPERM);
    }
    ctx.process.fs.set_root(place);
    Ok(0)
}

/// `getcwd(2)`: answers the length with the ending zero.
pub fn sys_getcwd(ctx: &mut Ctx<'_>, buffer: UserPtr<u8>, len: usize) -> Result<usize> {
    let cwd = ctx.process.fs.cwd();
    if cwd.dentry().is_unlinked() {
        return Err(Errno::ENOENT);
    }
    let mut name = ctx.process.fs.name_of(&cwd);
    name.push(0);
    if name.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.len() > len {
        return Err(Errno::ERANGE);
    }
    buffer.write_bytes(&name)?;
    Ok(name.len())
}

/// The text of `/proc/self/fd/N`: a name in the tree, or the kind of what has none.
pub fn descriptor_text(process: &crate::process::Process, file: &fs::OpenFile) -> Vec<u8> {
    match file.path() {
        Some(place) => process.fs.name_of(place),
        None => anon::link_text(file),
    }
}

/// The look-up flags of calls that take `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH`.
pub(super) fn checked_lookup(flags: u32) -> Result<LookupFlags> {
    if flags & !(super::stat::AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(lookup(flags))
}
