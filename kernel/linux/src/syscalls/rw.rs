//! Reading, writing, seeking: `read(2)`, `readv(2)`, `pread(2)`, `preadv2(2)` and their mirrors,
//! `lseek(2)`.

use errno::{Errno, Result};
use fs::{OpenFile, OpenFlags, Whence};
use iobuf::{Sink, Source};

use crate::ctx::Ctx;
use crate::uaccess::{MAX_RW_COUNT, UserPtr, UserSlice, UserVec};

fn slice(addr: usize, len: usize) -> Result<UserSlice> {
    // A negative length leaves the program's memory at its other end: EFAULT, told first on Linux.
    Ok(UserSlice::new(addr, len)?.first(MAX_RW_COUNT))
}

/// `read(2)`.
pub fn sys_read(ctx: &mut Ctx<'_>, fd: i32, buffer: usize, len: usize) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    file.read(&mut slice(buffer, len)?)
}

/// `write(2)`.
pub fn sys_write(ctx: &mut Ctx<'_>, fd: i32, buffer: usize, len: usize) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    if !file.flags().can_write() {
        return Err(Errno::EBADF);
    }
    file.write(&mut slice(buffer, len)?)
}

/// `readv(2)`.
pub fn sys_readv(
    ctx: &mut Ctx<'_>,
    fd: i32,
    iov: UserPtr<[u64; 2]>,
    count: usize,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF);
    }
    file.read(&mut UserVec::read(iov, count)?)
}

/// `writev(2)`.
pub fn sys_writev(
    ctx: &mut Ctx<'_>,
    fd: i32,
    iov: UserPtr<[u64; 2]>,
    count: usize,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    if !file.flags().can_write() {
        return Err(Errno::EBADF);
    }
    file.write(&mut UserVec::read(iov, count)?)
}

fn offset(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Errno::EINVAL)
}

/// `pread64(2)`.
pub fn sys_pread64(
    ctx: &mut Ctx<'_>,
    fd: i32,
    buffer: usize,
    len: usize,
    at: i64,
) -> Result<usize> {
    let at = offset(at)?;
    let file = ctx.process.files.get(fd)?;
    file.read_at(at, &mut slice(buffer, len)?)
}

/// `pwrite64(2)`.
pub fn sys_pwrite64(
    ctx: &mut Ctx<'_>,
    fd: i32,
    buffer: usize,
    len: usize,
    at: i64,
) -> Result<usize> {
    let at = offset(at)?;
    let file = ctx.process.files.get(fd)?;
    file.write_at(at, &mut slice(buffer, len)?)
}

/// `preadv(2)`. On a 64-bit kernel the offset is in one register.
pub fn sys_preadv(
    ctx: &mut Ctx<'_>,
    fd: i32,
    iov: UserPtr<[u64; 2]>,
    count: usize,
    at: i64,
) -> Result<usize> {
    let at = offset(at)?;
    let file = ctx.process.files.get(fd)?;
    file.read_at(at, &mut UserVec::read(iov, count)?)
}

/// `pwritev(2)`.
pub fn sys_pwritev(
    ctx: &mut Ctx<'_>,
    fd: i32,
    iov: UserPtr<[u64; 2]>,
    count: usize,
    at: i64,
) -> Result<usize> {
    let at = offset(at)?;
    let file = ctx.process.files.get(fd)?;
    file.write_at(at, &mut UserVec::read(iov, count)?)
}

const RWF_HIPRI: u32 = 1;
const RWF_DSYNC: u32 = 2;
const RWF_SYNC: u32 = 4;
const RWF_NOWAIT: u32 = 8;
const RWF_APPEND: u32 = 16;

/// The flags of the description with those of the call. `RWF_NOWAIT` on a regular file would need to
/// know what is cached: it is refused there, as a file system without support does.
fn call_flags(file: &OpenFile, flags: u32) -> Result<OpenFlags> {
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut all = file.flags();
    if flags & RWF_DSYNC != 0 {
        all |= OpenFlags::DSYNC;
    }
    if flags & RWF_SYNC != 0 {
        all |= OpenFlags::SYNC;
    }
    if flags & RWF_APPEND != 0 {
        all |= OpenFlags::APPEND;
    }
    if flags & RWF_NOWAIT != 0 {
        if file.file().seekable() {
            return Err(Errno::EOPNOTSUPP);
        }
        all |= OpenFlags::NONBLOCK;
    }
    Ok(all)
}

fn read_with(file: &OpenFile, at: i64, sink: &mut dyn Sink, flags: u32) -> Result<usize> {
    let all = call_flags(file, flags)?;
    if flags == 0 {
        return match at {
            -1 => file.read(sink),
            at => file.read_at(offset(at)?, sink),
        };
    }
    if !all.can_read() {
        return Err(Errno::EBADF);
    }
    match (at, file.file().seekable()) {
        (-1, true) => file.read(sink),
        (-1, false) => file.file().read(sink, all),
        (at, true) => file.file().read_at(offset(at)?, sink, all),
        (_, false) => Err(Errno::ESPIPE),
    }
}

fn write_with(file: &OpenFile, at: i64, source: &mut dyn Source, flags: u32) -> Result<usize> {
    let all = call_flags(file, flags)?;
    if flags == 0 {
        return match at {
            -1 => file.write(source),
            at => file.write_at(offset(at)?, source),
        };
    }
    if !all.can_write() {
        return Err(Errno::EBADF);
    }
    match (at, file.file().seekable()) {
        (-1, false) => file.file().write(source, all),
        (-1, true) => {
            let start = file.offset();
            let (done, end) = file.file().write_at(start, source, all)?;
            let end = i64::try_from(end).map_err(|_| Errno::EOVERFLOW)?;
            file.seek(Whence::Set, end)?;
            Ok(done)
        }
        (at, true) => {
            let (done, _) = file.file().write_at(offset(at)?, source, all)?;
            Ok(done)
        }
        (_, false) => Err(Errno::ESPIPE),
    }
}

/// `preadv2(2)`.
pub fn sys_preadv2(
    ctx: &mut Ctx<'_>,
    fd: i32,
    iov: UserPtr<[u64; 2]>,
    count: usize,
    at: i64,
    _high: u64,
    flags: u32,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    read_with(&file, at, &mut UserVec::read(iov, count)?, flags)
}

/// `pwritev2(2)`.
pub fn sys_pwritev2(
    ctx: &mut Ctx<'_>,
    fd: i32,
    iov: UserPtr<[u64; 2]>,
    count: usize,
    at: i64,
    _high: u64,
    flags: u32,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    write_with(&file, at, &mut UserVec::read(iov, count)?, flags)
}

/// `lseek(2)`.
pub fn sys_lseek(ctx: &mut Ctx<'_>, fd: i32, by: i64, whence: u32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let whence = match whence {
        0 => Whence::Set,
        1 => Whence::Current,
        2 => Whence::End,
        3 => Whence::Data,
        4 => Whence::Hole,
        _ => return Err(Errno::EINVAL),
    };
    file.seek(whence, by).map(|at| at as usize)
}
