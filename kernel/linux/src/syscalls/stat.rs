//! What a file is: `stat(2)` and its kin, `statx(2)`, `statfs(2)`, `access(2)`.

use errno::{Errno, Result};
use fs::{Access, LookupFlags, Metadata, OpenFile, StatFs, Timestamp};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ctx::Ctx;
use crate::files::anon;
use crate::files::paths::{self, AT_FDCWD, Target};
use crate::uaccess::UserPtr;

/// `AT_SYMLINK_NOFOLLOW`.
pub(super) const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EACCESS: u32 = 0x200;
/// `AT_EMPTY_PATH`.
pub(super) const AT_EMPTY_PATH: u32 = 0x1000;
const AT_NO_AUTOMOUNT: u32 = 0x800;
const AT_STATX_SYNC_TYPE: u32 = 0x6000;

/// `struct stat` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stat {
    st_dev: u64,
    st_ino: u64,
    st_nlink: u64,
    st_mode: u32,
    st_uid: u32,
    st_gid: u32,
    pad0: u32,
    st_rdev: u64,
    st_size: i64,
    st_blksize: i64,
    st_blocks: i64,
    st_atime: [i64; 2],
    st_mtime: [i64; 2],
    st_ctime: [i64; 2],
    unused: [i64; 3],
}

fn time(at: Timestamp) -> [i64; 2] {
    [at.seconds, i64::from(at.nanoseconds)]
}

/// `st_mode`, without a type for anonymous inodes.
fn mode_of(meta: &Metadata, file: Option<&OpenFile>) -> u32 {
    match file {
        Some(file) if anon::is_typeless(file.file().as_ref()) => meta.permissions,
        _ => meta.mode(),
    }
}

fn stat_of(meta: &Metadata, mode: u32) -> Stat {
    Stat {
        st_dev: meta.dev.to_u64(),
        st_ino: meta.ino,
        st_nlink: u64::from(meta.nlink),
        st_mode: mode,
        st_uid: meta.uid,
        st_gid: meta.gid,
        pad0: 0,
        st_rdev: meta.rdev.to_u64(),
        st_size: meta.size as i64,
        st_blksize: i64::from(meta.block_size),
        st_blocks: meta.blocks as i64,
        st_atime: time(meta.atime),
        st_mtime: time(meta.mtime),
        st_ctime: time(meta.ctime),
        unused: [0; 3],
    }
}

/// Metadata and mode of what `path` relative to `dirfd` names.
fn look(ctx: &Ctx<'_>, dirfd: i32, path: &[u8], flags: LookupFlags) -> Result<(Metadata, u32)> {
    match paths::resolve_or_file(ctx.process, dirfd, path, flags)? {
        Target::Place(path) => {
            let meta = path.inode().metadata()?;
            Ok((meta, meta.mode()))
        }
        Target::File(file) => {
            let meta = file.metadata()?;
            Ok((meta, mode_of(&meta, Some(&file))))
        }
    }
}

fn stat_at(
    ctx: &Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    out: UserPtr<Stat>,
    flags: LookupFlags,
) -> Result<usize> {
    let path = path.read_path()?;
    let (meta, mode) = look(ctx, dirfd, &path, flags)?;
    out.write(&stat_of(&meta, mode))?;
    Ok(0)
}

/// `stat(2)`.
pub fn sys_stat(ctx: &mut Ctx<'_>, path: UserPtr<u8>, out: UserPtr<Stat>) -> Result<usize> {
    stat_at(ctx, AT_FDCWD, path, out, LookupFlags::FOLLOW)
}

/// `lstat(2)`.
pub fn sys_lstat(ctx: &mut Ctx<'_>, path: UserPtr<u8>, out: UserPtr<Stat>) -> Result<usize> {
    stat_at(ctx, AT_FDCWD, path, out, LookupFlags::empty())
}

/// `fstat(2)`.
pub fn sys_fstat(ctx: &mut Ctx<'_>, fd: i32, out: UserPtr<Stat>) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let meta = file.metadata()?;
    out.write(&stat_of(&meta, mode_of(&meta, Some(&file))))?;
    Ok(0)
}

/// The look-up flags that `AT_*` flags mean.
pub(super) fn lookup(flags: u32) -> LookupFlags {
    let mut lookup = LookupFlags::empty();
    if flags & AT_SYMLINK_NOFOLLOW == 0 {
        lookup |= LookupFlags::FOLLOW;
    }
    if flags & AT_EMPTY_PATH != 0 {
        lookup |= LookupFlags::EMPTY;
    }
    lookup
}

/// `newfstatat(2)`.
pub fn sys_newfstatat(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    out: UserPtr<Stat>,
    flags: u32,
) -> Result<usize> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE) != 0 {
        return Err(Errno::EINVAL);
    }
    stat_at(ctx, dirfd, path, out, lookup(flags))
}

/// `struct statx`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Statx {
    stx_mask: u32,
    stx_blksize: u32,
    stx_attributes: u64,
    stx_nlink: u32,
    stx_uid: u32,
    stx_gid: u32,
    stx_mode: u16,
    spare0: u16,
    stx_ino: u64,
    stx_size: u64,
    stx_blocks: u64,
    stx_attributes_mask: u64,
    stx_atime: [u64; 2],
    stx_btime: [u64; 2],
    stx_ctime: [u64; 2],
    stx_mtime: [u64; 2],
    stx_rdev_major: u32,
    stx_rdev_minor: u32,
    stx_dev_major: u32,
    stx_dev_minor: u32,
    stx_mnt_id: u64,
    stx_dio_mem_align: u32,
    stx_dio_offset_align: u32,
    spare3: [u64; 12],
}

const STATX_BASIC_STATS: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;
const STATX_MNT_ID: u32 = 0x1000;
const STATX_RESERVED: u32 = 0x8000_0000;
const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;

fn statx_time(at: Timestamp) -> [u64; 2] {
    [at.seconds as u64, u64::from(at.nanoseconds)]
}

/// `statx(2)`.
pub fn sys_statx(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    flags: u32,
    mask: u32,
    out: UserPtr<Statx>,
) -> Result<usize> {
    let known = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE;
    if flags & !known != 0
        || flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE
        || mask & STATX_RESERVED != 0
    {
        return Err(Errno::EINVAL);
    }
    let path = path.read_path()?;
    let target = paths::resolve_or_file(ctx.process, dirfd, &path, lookup(flags))?;
    let place = match &target {
        Target::Place(path) => Some(path),
        Target::File(file) => file.path(),
    };
    let (meta, mode) = match &target {
        Target::Place(path) => {
            let meta = path.inode().metadata()?;
            (meta, meta.mode())
        }
        Target::File(file) => {
            let meta = file.metadata()?;
            (meta, mode_of(&meta, Some(file)))
        }
    };
    let mut told = STATX_BASIC_STATS;
    if meta.btime.is_some() {
        told |= STATX_BTIME;
    }
    if place.is_some() {
        told |= STATX_MNT_ID;
    }
    let is_mount_root =
        place.is_some_and(|place| alloc::sync::Arc::ptr_eq(place.dentry(), place.mount().root()));
    out.write(&Statx {
        stx_mask: told,
        stx_blksize: meta.block_size,
        stx_attributes: if is_mount_root {
            STATX_ATTR_MOUNT_ROOT
        } else {
            0
        },
        stx_nlink: meta.nlink,
        stx_uid: meta.uid,
        stx_gid: meta.gid,
        stx_mode: mode as u16,
        spare0: 0,
        stx_ino: meta.ino,
        stx_size: meta.size,
        stx_blocks: meta.blocks,
        stx_attributes_mask: STATX_ATTR_MOUNT_ROOT,
        stx_atime: statx_time(meta.atime),
        stx_btime: meta.btime.map_or([0; 2], statx_time),
        stx_ctime: statx_time(meta.ctime),
        stx_mtime: statx_time(meta.mtime),
        stx_rdev_major: meta.rdev.major,
        stx_rdev_minor: meta.rdev.minor,
        stx_dev_major: meta.dev.major,
        stx_dev_minor: meta.dev.minor,
        stx_mnt_id: place.map_or(0, |place| place.mount().id()),
        stx_dio_mem_align: 0,
        stx_dio_offset_align: 0,
        spare3: [0; 12],
    })?;
    Ok(0)
}

/// `struct statfs` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawStatFs {
    f_type: u64,
    f_bsize: u64,
    f_blocks: u64,
    f_bfree: u64,
    f_bavail: u64,
    f_files: u64,
    f_ffree: u64,
    f_fsid: [u32; 2],
    f_namelen: u64,
    f_frsize: u64,
    f_flags: u64,
    f_spare: [u64; 4],
}

fn raw_statfs(stat: &StatFs, mount_flags: u64) -> RawStatFs {
    const ST_VALID: u64 = 0x20;
    RawStatFs {
        f_type: stat.magic,
        f_bsize: stat.block_size,
        f_blocks: stat.blocks,
        f_bfree: stat.free,
        f_bavail: stat.available,
        f_files: stat.files,
        f_ffree: stat.free_files,
        f_fsid: [stat.id as u32, (stat.id >> 32) as u32],
        f_namelen: stat.name_max,
        f_frsize: stat.block_size,
        f_flags: ST_VALID | mount_flags,
        f_spare: [0; 4],
    }
}

/// `ST_*` of a mount: those of `MS_*` up to noexec are the same, the others moved.
fn st_flags(flags: fs::MountFlags) -> u64 {
    let bits = flags.bits();
    let mut st = bits & 0xf;
    for (ms, bit) in [(16, 16), (1024, 1024), (2048, 2048), (1 << 21, 4096)] {
        if bits & ms != 0 {
            st |= bit;
        }
    }
    st
}

/// `statfs(2)`.
pub fn sys_statfs(ctx: &mut Ctx<'_>, path: UserPtr<u8>, out: UserPtr<RawStatFs>) -> Result<usize> {
    let path = path.read_path()?;
    let place = paths::resolve(ctx.process, AT_FDCWD, &path, LookupFlags::FOLLOW)?;
    let stat = ctx.process.fs.namespace().statfs(&place)?;
    out.write(&raw_statfs(&stat, st_flags(place.mount().flags())))?;
    Ok(0)
}

/// `fstatfs(2)`. Files without a place are in one of Linux's internal file systems.
pub fn sys_fstatfs(ctx: &mut Ctx<'_>, fd: i32, out: UserPtr<RawStatFs>) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let (stat, flags) = match file.path() {
        Some(place) => (
            ctx.process.fs.namespace().statfs(place)?,
            st_flags(place.mount().flags()),
        ),
        None => {
            let magic = match file.metadata()?.file_type {
                fs::FileType::Fifo => 0x5049_5045,
                fs::FileType::Socket => 0x534f_434b,
                _ => 0x0904_1934,
            };
            let stat = StatFs {
                magic,
                block_size: 4096,
                name_max: 255,
                ..StatFs::default()
            };
            (stat, 0)
        }
    };
    out.write(&raw_statfs(&stat, flags))?;
    Ok(0)
}

fn access_at(ctx: &Ctx<'_>, dirfd: i32, path: UserPtr<u8>, mode: u32, flags: u32) -> Result<usize> {
    if mode & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = path.read_path()?;
    let target = paths::resolve_or_file(ctx.process, dirfd, &path, lookup(flags))?;
    let place = match &target {
        Target::Place(place) => place,
        Target::File(file) => match file.path() {
            Some(place) => place,
            // A pipe or socket of one's own: reading and writing is allowed, executing is not.
            None if mode & Access::EXEC.bits() != 0 => return Err(Errno::EACCES),
            None => return Ok(0),
        },
    };
    let creds = paths::credentials(ctx.process, flags & AT_EACCESS == 0);
    let (root, cwd) = (ctx.process.fs.root(), ctx.process.fs.cwd());
    let start = fs::Start {
        root: &root,
        dir: &cwd,
        creds: &creds,
    };
    ctx.process
        .fs
        .namespace()
        .access(&start, place, Access::from_bits_truncate(mode))?;
    Ok(0)
}

/// `access(2)`.
pub fn sys_access(ctx: &mut Ctx<'_>, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    access_at(ctx, AT_FDCWD, path, mode, 0)
}

/// `faccessat(2)`: the kernel's own has no flags.
pub fn sys_faccessat(ctx: &mut Ctx<'_>, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    access_at(ctx, dirfd, path, mode, 0)
}

/// `faccessat2(2)`.
pub fn sys_faccessat2(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    mode: u32,
    flags: u32,
) -> Result<usize> {
    access_at(ctx, dirfd, path, mode, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_linux_sizes() {
        assert_eq!(size_of::<Stat>(), 144);
        assert_eq!(size_of::<Statx>(), 256);
        assert_eq!(size_of::<RawStatFs>(), 120);
    }
}
