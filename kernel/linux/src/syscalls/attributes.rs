//! Changing what a file is: `chmod(2)`, `chown(2)`, `utimensat(2)`, `truncate(2)`, `setxattr(2)` and
//! their kin.

use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::{LookupFlags, Path, SetTime, Timestamp, XattrFlags};

use super::names::checked_lookup;
use crate::ctx::Ctx;
use crate::files::paths::{self, AT_FDCWD, Target};
use crate::uaccess::UserPtr;

/// Runs `work` on a place with the process's own starting point.
fn with_start<T>(ctx: &Ctx<'_>, work: impl FnOnce(&fs::Start<'_>) -> Result<T>) -> Result<T> {
    let creds = paths::credentials(ctx.process, false);
    let (root, cwd) = (ctx.process.fs.root(), ctx.process.fs.cwd());
    work(&fs::Start {
        root: &root,
        dir: &cwd,
        creds: &creds,
    })
}

fn place_at(ctx: &Ctx<'_>, dirfd: i32, path: UserPtr<u8>, how: LookupFlags) -> Result<Path> {
    let path = path.read_path()?;
    match paths::resolve_or_file(ctx.process, dirfd, &path, how)? {
        Target::Place(place) => Ok(place),
        Target::File(file) => file.path().cloned().ok_or(Errno::EPERM),
    }
}

/// The place of a descriptor's file. Pipes and sockets have attributes on Linux that can be changed;
/// here they have none of their own.
fn place_of(ctx: &Ctx<'_>, fd: i32) -> Result<Path> {
    let file = ctx.process.files.get(fd)?;
    if file.flags().contains(fs::OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    file.path().cloned().ok_or(Errno::EPERM)
}

fn chmod(ctx: &Ctx<'_>, place: &Path, mode: u32) -> Result<usize> {
    with_start(ctx, |start| {
        ctx.process.fs.namespace().chmod(start, place, mode)
    })?;
    Ok(0)
}

/// `chmod(2)`.
pub fn sys_chmod(ctx: &mut Ctx<'_>, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    let place = place_at(ctx, AT_FDCWD, path, LookupFlags::FOLLOW)?;
    chmod(ctx, &place, mode)
}

/// `fchmod(2)`.
pub fn sys_fchmod(ctx: &mut Ctx<'_>, fd: i32, mode: u32) -> Result<usize> {
    chmod(ctx, &place_of(ctx, fd)?, mode)
}

/// `fchmodat(2)`: the kernel's own has no flags.
pub fn sys_fchmodat(ctx: &mut Ctx<'_>, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    let place = place_at(ctx, dirfd, path, LookupFlags::FOLLOW)?;
    chmod(ctx, &place, mode)
}

/// `fchmodat2(2)`.
pub fn sys_fchmodat2(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    mode: u32,
    flags: u32,
) -> Result<usize> {
    let place = place_at(ctx, dirfd, path, checked_lookup(flags)?)?;
    chmod(ctx, &place, mode)
}

fn chown(ctx: &Ctx<'_>, place: &Path, uid: u32, gid: u32) -> Result<usize> {
    let given = |id: u32| (id != u32::MAX).then_some(id);
    with_start(ctx, |start| {
        ctx.process
            .fs
            .namespace()
            .chown(start, place, given(uid), given(gid))
    })?;
    Ok(0)
}

/// `chown(2)`.
pub fn sys_chown(ctx: &mut Ctx<'_>, path: UserPtr<u8>, uid: u32, gid: u32) -> Result<usize> {
    let place = place_at(ctx, AT_FDCWD, path, LookupFlags::FOLLOW)?;
    chown(ctx, &place, uid, gid)
}

/// `lchown(2)`.
pub fn sys_lchown(ctx: &mut Ctx<'_>, path: UserPtr<u8>, uid: u32, gid: u32) -> Result<usize> {
    let place = place_at(ctx, AT_FDCWD, path, LookupFlags::empty())?;
    chown(ctx, &place, uid, gid)
}

/// `fchown(2)`.
pub fn sys_fchown(ctx: &mut Ctx<'_>, fd: i32, uid: u32, gid: u32) -> Result<usize> {
    chown(ctx, &place_of(ctx, fd)?, uid, gid)
}

/// `fchownat(2)`.
pub fn sys_fchownat(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    uid: u32,
    gid: u32,
    flags: u32,
) -> Result<usize> {
    let place = place_at(ctx, dirfd, path, checked_lookup(flags)?)?;
    chown(ctx, &place, uid, gid)
}

const UTIME_NOW: i64 = 0x3fff_ffff;
const UTIME_OMIT: i64 = 0x3fff_fffe;

fn set_time([seconds, nanos]: [i64; 2]) -> Result<SetTime> {
    match nanos {
        UTIME_NOW => Ok(SetTime::Now),
        UTIME_OMIT => Ok(SetTime::Omit),
        0..=999_999_999 => Ok(SetTime::At(Timestamp {
            seconds,
            nanoseconds: nanos as u32,
        })),
        _ => Err(Errno::EINVAL),
    }
}

fn set_times(ctx: &Ctx<'_>, place: &Path, times: Option<[SetTime; 2]>) -> Result<usize> {
    let [atime, mtime] = times.unwrap_or([SetTime::Now; 2]);
    with_start(ctx, |start| {
        ctx.process
            .fs
            .namespace()
            .set_times(start, place, atime, mtime)
    })?;
    Ok(0)
}

/// `utimensat(2)`.
pub fn sys_utimensat(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    times: UserPtr<[[i64; 2]; 2]>,
    flags: u32,
) -> Result<usize> {
    let times = match times.read_opt()? {
        Some([atime, mtime]) => Some([set_time(atime)?, set_time(mtime)?]),
        None => None,
    };
    if times == Some([SetTime::Omit; 2]) {
        return Ok(0);
    }
    // futimens(3): no path at all.
    let place = if path.is_null() {
        if dirfd == AT_FDCWD {
            return Err(Errno::EFAULT);
        }
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        place_of(ctx, dirfd)?
    } else {
        place_at(ctx, dirfd, path, checked_lookup(flags)?)?
    };
    set_times(ctx, &place, times)
}

fn from_timevals(times: UserPtr<[[i64; 2]; 2]>) -> Result<Option<[SetTime; 2]>> {
    let convert = |[seconds, micros]: [i64; 2]| match micros {
        0..=999_999 => Ok(SetTime::At(Timestamp {
            seconds,
            nanoseconds: micros as u32 * 1000,
        })),
        _ => Err(Errno::EINVAL),
    };
    match times.read_opt()? {
        Some([atime, mtime]) => Ok(Some([convert(atime)?, convert(mtime)?])),
        None => Ok(None),
    }
}

/// `utimes(2)`.
pub fn sys_utimes(
    ctx: &mut Ctx<'_>,
    path: UserPtr<u8>,
    times: UserPtr<[[i64; 2]; 2]>,
) -> Result<usize> {
    sys_futimesat(ctx, AT_FDCWD, path, times)
}

/// `futimesat(2)`.
pub fn sys_futimesat(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    times: UserPtr<[[i64; 2]; 2]>,
) -> Result<usize> {
    let times = from_timevals(times)?;
    let place = place_at(ctx, dirfd, path, LookupFlags::FOLLOW)?;
    set_times(ctx, &place, times)
}

/// `utime(2)`.
pub fn sys_utime(ctx: &mut Ctx<'_>, path: UserPtr<u8>, times: UserPtr<[i64; 2]>) -> Result<usize> {
    let at = |seconds| {
        SetTime::At(Timestamp {
            seconds,
            nanoseconds: 0,
        })
    };
    let times = times
        .read_opt()?
        .map(|[atime, mtime]| [at(atime), at(mtime)]);
    let place = place_at(ctx, AT_FDCWD, path, LookupFlags::FOLLOW)?;
    set_times(ctx, &place, times)
}

/// `truncate(2)`.
pub fn sys_truncate(ctx: &mut Ctx<'_>, path: UserPtr<u8>, size: i64) -> Result<usize> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let place = place_at(ctx, AT_FDCWD, path, LookupFlags::FOLLOW)?;
    check_file_size(ctx, size)?;
    with_start(ctx, |start| {
        ctx.process.fs.namespace().truncate(start, &place, size)
    })?;
    Ok(0)
}

/// `ftruncate(2)`.
pub fn sys_ftruncate(ctx: &mut Ctx<'_>, fd: i32, size: i64) -> Result<usize> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let file = ctx.process.files.get(fd)?;
    check_file_size(ctx, size)?;
    file.truncate(size)?;
    Ok(0)
}

/// A file must not grow beyond `RLIMIT_FSIZE`: `SIGXFSZ` and `EFBIG`.
fn check_file_size(ctx: &Ctx<'_>, size: u64) -> Result<()> {
    if size > ctx.process.limits.soft(crate::limits::Resource::Fsize) {
        crate::files::raise::on_thread(crate::signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

/// `XATTR_SIZE_MAX`, `XATTR_LIST_MAX`.
const XATTR_MAX: usize = 65536;

fn xattr_name(name: UserPtr<u8>) -> Result<Vec<u8>> {
    // XATTR_NAME_MAX and the ending zero.
    let name = name.read_cstr(256, Errno::ERANGE)?;
    if name.is_empty() {
        return Err(Errno::ERANGE);
    }
    let known: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];
    if known
        .iter()
        .any(|space| name.starts_with(space) && name.len() > space.len())
    {
        Ok(name)
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}

fn set_xattr(
    ctx: &Ctx<'_>,
    place: &Path,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: usize,
    flags: u32,
) -> Result<usize> {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let name = xattr_name(name)?;
    if size > XATTR_MAX {
        return Err(Errno::E2BIG);
    }
    let mut bytes = alloc::vec![0; size];
    value.read_bytes(&mut bytes)?;
    with_start(ctx, |start| {
        ctx.process
            .fs
            .namespace()
            .set_xattr(start, place, &name, &bytes, flags)
    })?;
    Ok(0)
}

fn answer(bytes: &[u8], out: UserPtr<u8>, size: usize) -> Result<usize> {
    if size == 0 {
        return Ok(bytes.len());
    }
    if bytes.len() > size {
        return Err(Errno::ERANGE);
    }
    out.write_bytes(bytes)?;
    Ok(bytes.len())
}

fn get_xattr(
    ctx: &Ctx<'_>,
    place: &Path,
    name: UserPtr<u8>,
    out: UserPtr<u8>,
    size: usize,
) -> Result<usize> {
    let name = xattr_name(name)?;
    let value = with_start(ctx, |start| {
        ctx.process.fs.namespace().get_xattr(start, place, &name)
    })?;
    answer(&value, out, size)
}

fn list_xattr(place: &Path, out: UserPtr<u8>, size: usize) -> Result<usize> {
    match place.inode().list_xattrs() {
        Ok(names) => answer(&names, out, size),
        // A file system without attributes has an empty list.
        Err(Errno::EOPNOTSUPP) => Ok(0),
        Err(error) => Err(error),
    }
}

fn remove_xattr(ctx: &Ctx<'_>, place: &Path, name: UserPtr<u8>) -> Result<usize> {
    let name = xattr_name(name)?;
    with_start(ctx, |start| {
        ctx.process.fs.namespace().remove_xattr(start, place, &name)
    })?;
    Ok(0)
}

/// The three ways to name the file of an attribute call.
macro_rules! xattr_calls {
    ($($plain:ident $link:ident $fd:ident => $work:ident($($arg:ident: $kind:ty),*);)*) => { $(
        #[doc = concat!("`", stringify!($plain), "(2)` without its prefix.")]
        pub fn $plain(ctx: &mut Ctx<'_>, path: UserPtr<u8>, $($arg: $kind),*) -> Result<usize> {
            let place = place_at(ctx, AT_FDCWD, path, LookupFlags::FOLLOW)?;
            $work(ctx, &place, $($arg),*)
        }

        #[doc = concat!("`", stringify!($link), "(2)` without its prefix.")]
        pub fn $link(ctx: &mut Ctx<'_>, path: UserPtr<u8>, $($arg: $kind),*) -> Result<usize> {
            let place = place_at(ctx, AT_FDCWD, path, LookupFlags::empty())?;
            $work(ctx, &place, $($arg),*)
        }

        #[doc = concat!("`", stringify!($fd), "(2)` without its prefix.")]
        pub fn $fd(ctx: &mut Ctx<'_>, fd: i32, $($arg: $kind),*) -> Result<usize> {
            let place = place_of(ctx, fd)?;
            $work(ctx, &place, $($arg),*)
        }
    )* };
}

fn list_xattr_of(_ctx: &Ctx<'_>, place: &Path, out: UserPtr<u8>, size: usize) -> Result<usize> {
    list_xattr(place, out, size)
}

xattr_calls! {
    sys_setxattr sys_lsetxattr sys_fsetxattr
        => set_xattr(name: UserPtr<u8>, value: UserPtr<u8>, size: usize, flags: u32);
    sys_getxattr sys_lgetxattr sys_fgetxattr
        => get_xattr(name: UserPtr<u8>, out: UserPtr<u8>, size: usize);
    sys_listxattr sys_llistxattr sys_flistxattr => list_xattr_of(out: UserPtr<u8>, size: usize);
    sys_removexattr sys_lremovexattr sys_fremovexattr => remove_xattr(name: UserPtr<u8>);
}
