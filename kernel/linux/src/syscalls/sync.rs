//! Durability and advice: `fsync(2)`, `sync(2)`, `fallocate(2)`, `posix_fadvise(2)`, `readahead(2)`.

use errno::{Errno, Result};
use fs::{FallocateMode, OpenFlags};

use crate::ctx::Ctx;

fn fsync(ctx: &Ctx<'_>, fd: i32, data_only: bool) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    file.file().sync(data_only)?;
    Ok(0)
}

/// `fsync(2)`.
pub fn sys_fsync(ctx: &mut Ctx<'_>, fd: i32) -> Result<usize> {
    fsync(ctx, fd, false)
}

/// `fdatasync(2)`.
pub fn sys_fdatasync(ctx: &mut Ctx<'_>, fd: i32) -> Result<usize> {
    fsync(ctx, fd, true)
}

/// `sync(2)`: errors are not told.
pub fn sys_sync(ctx: &mut Ctx<'_>) -> Result<usize> {
    if let Err(error) = ctx.process.fs.namespace().sync_all() {
        log::warn!("sync: {error}");
    }
    Ok(0)
}

/// `syncfs(2)`.
pub fn sys_syncfs(ctx: &mut Ctx<'_>, fd: i32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    if let Some(place) = file.path() {
        place.mount().fs().sync()?;
    }
    Ok(0)
}

/// `sync_file_range(2)`: writes the file's data, all of it, which is more than was asked.
pub fn sys_sync_file_range(
    ctx: &mut Ctx<'_>,
    fd: i32,
    offset: i64,
    len: i64,
    flags: u32,
) -> Result<usize> {
    if flags & !7 != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    let file = ctx.process.files.get(fd)?;
    if !file.file().seekable() {
        return Err(Errno::ESPIPE);
    }
    if flags != 0 {
        file.file().sync(true)?;
    }
    Ok(0)
}

/// `fallocate(2)`.
pub fn sys_fallocate(
    ctx: &mut Ctx<'_>,
    fd: i32,
    mode: u32,
    offset: i64,
    len: i64,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let (Ok(offset), Ok(len)) = (u64::try_from(offset), u64::try_from(len)) else {
        return Err(Errno::EINVAL);
    };
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let mode = FallocateMode::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
    // The checks of `vfs_fallocate`: at most one of the operations, and a hole keeps the size.
    let operations = mode - FallocateMode::KEEP_SIZE;
    if operations.bits().count_ones() > 1 {
        return Err(Errno::EOPNOTSUPP);
    }
    if mode.contains(FallocateMode::PUNCH_HOLE) && !mode.contains(FallocateMode::KEEP_SIZE) {
        return Err(Errno::EOPNOTSUPP);
    }
    let moves = FallocateMode::COLLAPSE_RANGE | FallocateMode::INSERT_RANGE;
    if mode.intersects(moves) && mode.contains(FallocateMode::KEEP_SIZE) {
        return Err(Errno::EINVAL);
    }
    file.fallocate(mode, offset, len)?;
    Ok(0)
}

const POSIX_FADV_WILLNEED: u32 = 3;

/// `posix_fadvise(2)`: what is said of the future is advice, and only reading ahead acts on it.
pub fn sys_fadvise64(
    ctx: &mut Ctx<'_>,
    fd: i32,
    offset: i64,
    len: i64,
    advice: u32,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    if matches!(file.metadata()?.file_type, fs::FileType::Fifo) {
        return Err(Errno::ESPIPE);
    }
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    if advice > 5 {
        return Err(Errno::EINVAL);
    }
    if advice == POSIX_FADV_WILLNEED
        && let Ok(offset) = u64::try_from(offset)
    {
        let len = if len == 0 { u64::MAX - offset } else { len };
        file.file().will_need(offset, len);
    }
    Ok(0)
}

/// `readahead(2)`.
pub fn sys_readahead(ctx: &mut Ctx<'_>, fd: i32, offset: i64, len: usize) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    if file.metadata()?.file_type != fs::FileType::Regular {
        return Err(Errno::EINVAL);
    }
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    file.file().will_need(offset, len as u64);
    Ok(0)
}
