//! Opening and closing: `open(2)` and its kin, `close(2)`, `dup(2)`, `memfd_create(2)`.

use alloc::sync::Arc;

use errno::{Errno, Result};
use fs::{LookupFlags, OpenFile, OpenFlags};

use crate::ctx::Ctx;
use crate::files::paths::{self, AT_FDCWD};
use crate::files::{descriptor_limit, install, lock_table, sigio};
use crate::uaccess::UserPtr;

/// `struct open_how`: flags, mode, resolve.
type OpenHow = [u64; 3];

/// Every flag that `open(2)` knows; it ignores others, `openat2(2)` does not.
const KNOWN: u32 = OpenFlags::all().bits() | 0o3;

fn open_at(
    ctx: &Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    flags: u32,
    mode: u32,
    how: LookupFlags,
) -> Result<usize> {
    let path = path.read_path()?;
    let mut flags = OpenFlags::from_bits_retain(flags & KNOWN);
    // O_SYNC holds O_DSYNC's bit: __O_SYNC alone is not a thing.
    if flags.contains(OpenFlags::SYNC_BIT) {
        flags |= OpenFlags::DSYNC;
    }
    flags |= OpenFlags::LARGEFILE;
    let close_on_exec = flags.contains(OpenFlags::CLOEXEC);
    let mode = mode & 0o7777 & !ctx.process.fs.umask();
    let stays = how.intersects(LookupFlags::IN_ROOT | LookupFlags::BENEATH);
    let needs_dir = stays || path.first() != Some(&b'/');
    let from = paths::from_dir(ctx.process, dirfd, &path, needs_dir)?;
    let file = ctx
        .process
        .fs
        .namespace()
        .open(&from.start(), &path, flags, mode, how)?;
    install(ctx.process, file, close_on_exec)
}

/// `open(2)`.
pub fn sys_open(ctx: &mut Ctx<'_>, path: UserPtr<u8>, flags: u32, mode: u32) -> Result<usize> {
    open_at(ctx, AT_FDCWD, path, flags, mode, LookupFlags::empty())
}

/// `creat(2)`.
pub fn sys_creat(ctx: &mut Ctx<'_>, path: UserPtr<u8>, mode: u32) -> Result<usize> {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    open_at(
        ctx,
        AT_FDCWD,
        path,
        flags.bits(),
        mode,
        LookupFlags::empty(),
    )
}

/// `openat(2)`.
pub fn sys_openat(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    flags: u32,
    mode: u32,
) -> Result<usize> {
    open_at(ctx, dirfd, path, flags, mode, LookupFlags::empty())
}

/// `openat2(2)`.
pub fn sys_openat2(
    ctx: &mut Ctx<'_>,
    dirfd: i32,
    path: UserPtr<u8>,
    how: UserPtr<OpenHow>,
    size: usize,
) -> Result<usize> {
    const SIZE: usize = size_of::<OpenHow>();
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    // What a newer program has added must be zero for an older kernel.
    for at in SIZE..size {
        if UserPtr::<u8>::new(how.addr() + at).read()? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    let [flags, mode, resolve] = how.read()?;
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let makes = flags & (OpenFlags::CREAT.bits() | OpenFlags::TMPFILE_BIT.bits()) != 0;
    if mode & !0o7777 != 0 || (mode != 0 && !makes) {
        return Err(Errno::EINVAL);
    }
    let parsed = OpenFlags::from_bits_retain(flags);
    let beside_path =
        OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    if parsed.contains(OpenFlags::PATH) && flags & !beside_path.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    let mut lookup = LookupFlags::empty();
    let mut left = resolve;
    for (bit, flag) in [
        (0x01, LookupFlags::NO_XDEV),
        (0x02, LookupFlags::NO_MAGICLINKS),
        (0x04, LookupFlags::NO_SYMLINKS),
        (0x08, LookupFlags::BENEATH),
        (0x10, LookupFlags::IN_ROOT),
        (0x20, LookupFlags::CACHED),
    ] {
        if resolve & bit != 0 {
            lookup |= flag;
            left &= !bit;
        }
    }
    let both = LookupFlags::BENEATH | LookupFlags::IN_ROOT;
    if left != 0 || lookup.contains(both) {
        return Err(Errno::EINVAL);
    }
    open_at(ctx, dirfd, path, flags, mode as u32, lookup)
}

/// What closing a descriptor does besides dropping it.
fn closed(file: &Arc<OpenFile>) -> Result<()> {
    lock_table::descriptor_closed(file);
    file.file().flush()
}

/// `close(2)`.
pub fn sys_close(ctx: &mut Ctx<'_>, fd: i32) -> Result<usize> {
    let file = ctx.process.files.remove(fd)?;
    closed(&file)?;
    Ok(0)
}

const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// `close_range(2)`.
pub fn sys_close_range(ctx: &mut Ctx<'_>, first: u32, last: u32, flags: u32) -> Result<usize> {
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    // One process: its table is shared with nobody but its own threads, who see the change.
    let (first, last) = (first as usize, last as usize);
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        ctx.process.files.set_close_on_exec_range(first, last);
    } else {
        for file in ctx.process.files.remove_range(first, last) {
            // As on Linux, nobody is told of errors here.
            let _ = closed(&file);
        }
    }
    Ok(0)
}

/// `dup(2)`.
pub fn sys_dup(ctx: &mut Ctx<'_>, fd: i32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    install(ctx.process, file, false)
}

fn dup_to(ctx: &Ctx<'_>, old: i32, new: i32, close_on_exec: bool) -> Result<usize> {
    let file = ctx.process.files.get(old)?;
    let limit = descriptor_limit(ctx.process);
    let replaced = ctx.process.files.replace(new, file, limit, close_on_exec)?;
    if let Some(replaced) = replaced {
        let _ = closed(&replaced);
    }
    Ok(new as usize)
}

/// `dup2(2)`.
pub fn sys_dup2(ctx: &mut Ctx<'_>, old: i32, new: i32) -> Result<usize> {
    if old == new {
        ctx.process.files.get(old)?;
        return Ok(new as usize);
    }
    dup_to(ctx, old, new, false)
}

/// `dup3(2)`.
pub fn sys_dup3(ctx: &mut Ctx<'_>, old: i32, new: i32, flags: u32) -> Result<usize> {
    if old == new || flags & !OpenFlags::CLOEXEC.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    dup_to(ctx, old, new, flags != 0)
}

/// `umask(2)`.
pub fn sys_umask(ctx: &mut Ctx<'_>, mask: u32) -> Result<usize> {
    Ok(ctx.process.fs.set_umask(mask) as usize)
}

/// `memfd_create(2)`.
pub fn sys_memfd_create(ctx: &mut Ctx<'_>, name: UserPtr<u8>, flags: u32) -> Result<usize> {
    const CLOEXEC: u32 = 1;
    const ALLOW_SEALING: u32 = 2;
    const NOEXEC_SEAL: u32 = 8;
    const EXEC: u32 = 16;
    // MFD_HUGETLB asks for huge pages set aside, of which there are none.
    if flags & !(CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL | EXEC) != 0
        || flags & (NOEXEC_SEAL | EXEC) == NOEXEC_SEAL | EXEC
    {
        return Err(Errno::EINVAL);
    }
    const NAME_MAX: usize = 249;
    let name = name.read_cstr(NAME_MAX + 1, Errno::EINVAL)?;
    let sealing = flags & (ALLOW_SEALING | NOEXEC_SEAL) != 0;
    let creds = paths::credentials(ctx.process, false);
    let file = fs::tmpfs::memfd(&name, sealing, &creds)?;
    if flags & NOEXEC_SEAL != 0
        && let Some(place) = file.path()
    {
        place.inode().set_attr(&fs::SetAttr {
            permissions: Some(0o666),
            ..fs::SetAttr::default()
        })?;
        fs::tmpfs::add_seals(place.inode(), fs::tmpfs::Seals::EXEC)?;
    }
    install(ctx.process, file, flags & CLOEXEC != 0)
}

/// Switches `O_ASYNC` with the other status flags of `file`.
pub(super) fn set_status(file: &Arc<OpenFile>, flags: OpenFlags) -> Result<()> {
    file.set_flags(flags)?;
    sigio::set_armed(file, flags.contains(OpenFlags::ASYNC));
    Ok(())
}
