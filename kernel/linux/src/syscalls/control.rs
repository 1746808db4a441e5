//! `fcntl(2)`, `ioctl(2)`, `flock(2)`.

use alloc::sync::Arc;

use errno::{Errno, Result};
use fs::{OpenFile, OpenFlags, Whence};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::open::set_status;
use crate::ctx::Ctx;
use crate::files::handles::PipeEnd;
use crate::files::locks::{Kind, Lock, Owner, Range};
use crate::files::sigio::{self, Receiver};
use crate::files::{descriptor_limit, lock_table};
use crate::process::PID;
use crate::uaccess::UserPtr;

/// `struct flock` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RawLock {
    l_type: i16,
    l_whence: i16,
    pad: i32,
    l_start: i64,
    l_len: i64,
    l_pid: i32,
    pad2: i32,
}

const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;

/// `fcntl(2)`.
pub fn sys_fcntl(ctx: &mut Ctx<'_>, fd: i32, command: u32, arg: usize) -> Result<usize> {
    const F_DUPFD: u32 = 0;
    const F_GETFD: u32 = 1;
    const F_SETFD: u32 = 2;
    const F_GETFL: u32 = 3;
    const F_SETFL: u32 = 4;
    const F_DUPFD_CLOEXEC: u32 = 1030;
    let files = &ctx.process.files;
    let file = files.get(fd)?;
    // An O_PATH descriptor answers for itself only.
    let path_only = file.flags().contains(OpenFlags::PATH);
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let limit = descriptor_limit(ctx.process);
            let from = arg as u32 as usize;
            if from >= limit {
                return Err(Errno::EINVAL);
            }
            files
                .insert_from(file, from, limit, command == F_DUPFD_CLOEXEC)
                .map(|fd| fd as usize)
        }
        F_GETFD => files.close_on_exec(fd).map(usize::from),
        F_SETFD => {
            files.set_close_on_exec(fd, arg & 1 != 0)?;
            Ok(0)
        }
        F_GETFL => Ok(file.flags().bits() as usize),
        _ if path_only => Err(Errno::EBADF),
        F_SETFL => {
            set_status(&file, OpenFlags::from_bits_truncate(arg as u32))?;
            Ok(0)
        }
        _ => more(ctx, &file, command, arg),
    }
}

fn more(ctx: &Ctx<'_>, file: &Arc<OpenFile>, command: u32, arg: usize) -> Result<usize> {
    const F_GETLK: u32 = 5;
    const F_SETLK: u32 = 6;
    const F_SETLKW: u32 = 7;
    const F_SETOWN: u32 = 8;
    const F_GETOWN: u32 = 9;
    const F_SETSIG: u32 = 10;
    const F_GETSIG: u32 = 11;
    const F_SETOWN_EX: u32 = 15;
    const F_GETOWN_EX: u32 = 16;
    const F_OFD_GETLK: u32 = 36;
    const F_OFD_SETLK: u32 = 37;
    const F_OFD_SETLKW: u32 = 38;
    const F_SETLEASE: u32 = 1024;
    const F_GETLEASE: u32 = 1025;
    const F_SETPIPE_SZ: u32 = 1031;
    const F_GETPIPE_SZ: u32 = 1032;
    const F_ADD_SEALS: u32 = 1033;
    const F_GET_SEALS: u32 = 1034;
    match command {
        F_GETLK => get_lock(file, Owner::Process, UserPtr::new(arg)),
        F_SETLK => set_lock(file, Owner::Process, UserPtr::new(arg), false),
        F_SETLKW => set_lock(file, Owner::Process, UserPtr::new(arg), true),
        F_OFD_GETLK => get_lock(file, description(file), UserPtr::new(arg)),
        F_OFD_SETLK => set_lock(file, description(file), UserPtr::new(arg), false),
        F_OFD_SETLKW => set_lock(file, description(file), UserPtr::new(arg), true),
        F_SETOWN => set_owner(file, arg as i32),
        F_GETOWN => Ok(owner(file) as isize as usize),
        F_SETOWN_EX => {
            let [kind, id] = UserPtr::<[i32; 2]>::new(arg).read()?;
            let receiver = match (kind, id) {
                (0..=2, 0) => Receiver::Nobody,
                (0, id) => Receiver::Thread(id),
                (1, id) => Receiver::Process(id),
                (2, id) => Receiver::Group(id),
                _ => return Err(Errno::EINVAL),
            };
            sigio::set_receiver(file, receiver)?;
            Ok(0)
        }
        F_GETOWN_EX => {
            let answer = match sigio::receiver(file) {
                Receiver::Nobody => [1, 0],
                Receiver::Thread(id) => [0, id],
                Receiver::Process(id) => [1, id],
                Receiver::Group(id) => [2, id],
            };
            UserPtr::<[i32; 2]>::new(arg).write(&answer)?;
            Ok(0)
        }
        F_SETSIG => {
            sigio::set_signal(file, arg as i32)?;
            Ok(0)
        }
        F_GETSIG => Ok(sigio::signal(file) as usize),
        // A lease tells of other processes' opens, of which there are none: nobody holds one.
        F_GETLEASE => Ok(F_UNLCK as usize),
        F_SETLEASE if arg as i16 == F_UNLCK => Err(Errno::EAGAIN),
        F_SETLEASE => Err(Errno::EINVAL),
        F_GETPIPE_SZ => Ok(pipe(file)?.pipe().capacity()),
        F_SETPIPE_SZ => {
            let privileged = ctx.process.credentials.lock().uid[1] == 0;
            let size = (arg as u32) as usize;
            pipe(file)?.pipe().set_capacity(size, privileged)
        }
        F_ADD_SEALS => {
            if !file.flags().can_write() {
                return Err(Errno::EPERM);
            }
            let seals = fs::tmpfs::Seals::from_bits(arg as u32).ok_or(Errno::EINVAL)?;
            fs::tmpfs::add_seals(file.file().inode().ok_or(Errno::EINVAL)?, seals)?;
            Ok(0)
        }
        F_GET_SEALS => {
            let inode = file.file().inode().ok_or(Errno::EINVAL)?;
            fs::tmpfs::seals(inode).map(|seals| seals.bits() as usize)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn description(file: &Arc<OpenFile>) -> Owner {
    Owner::Description(lock_table::identity(file))
}

fn pipe(file: &OpenFile) -> Result<&PipeEnd> {
    file.file()
        .as_any()
        .downcast_ref::<PipeEnd>()
        .ok_or(Errno::EBADF)
}

/// The range that a `struct flock` names (`flock64_to_posix_lock`).
fn range_of(file: &OpenFile, raw: &RawLock) -> Result<Range> {
    let base = match raw.l_whence {
        0 => 0,
        1 => file.offset() as i64,
        2 => file.file().seek(0, Whence::End, 0)? as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(raw.l_start).ok_or(Errno::EOVERFLOW)?;
    let (start, end) = match raw.l_len {
        0 => (start, None),
        len if len > 0 => (start, Some(start.checked_add(len).ok_or(Errno::EOVERFLOW)?)),
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, Some(start)),
    };
    Ok(Range {
        start: u64::try_from(start).map_err(|_| Errno::EINVAL)?,
        end: end.map_or(u64::MAX, |end| end as u64),
    })
}

fn set_lock(
    file: &Arc<OpenFile>,
    owner: Owner,
    arg: UserPtr<RawLock>,
    may_wait: bool,
) -> Result<usize> {
    let raw = arg.read()?;
    if matches!(owner, Owner::Description(_)) && raw.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let range = range_of(file, &raw)?;
    let kind = match raw.l_type {
        F_UNLCK => {
            lock_table::clear_record(file, owner, range)?;
            return Ok(0);
        }
        F_RDLCK if file.flags().can_read() => Kind::Shared,
        F_WRLCK if file.flags().can_write() => Kind::Exclusive,
        F_RDLCK | F_WRLCK => return Err(Errno::EBADF),
        _ => return Err(Errno::EINVAL),
    };
    lock_table::set_record(file, Lock { owner, kind, range }, may_wait)?;
    Ok(0)
}

fn get_lock(file: &Arc<OpenFile>, owner: Owner, arg: UserPtr<RawLock>) -> Result<usize> {
    let mut raw = arg.read()?;
    if matches!(owner, Owner::Description(_)) && raw.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let range = range_of(file, &raw)?;
    let kind = match raw.l_type {
        F_RDLCK => Kind::Shared,
        F_WRLCK => Kind::Exclusive,
        _ => return Err(Errno::EINVAL),
    };
    match lock_table::conflict(file, &Lock { owner, kind, range })? {
        None => raw.l_type = F_UNLCK,
        Some(held) => {
            raw.l_type = match held.kind {
                Kind::Shared => F_RDLCK,
                Kind::Exclusive => F_WRLCK,
            };
            raw.l_whence = 0;
            raw.l_start = held.range.start as i64;
            raw.l_len = match held.range.end {
                u64::MAX => 0,
                end => (end - held.range.start) as i64,
            };
            raw.l_pid = match held.owner {
                Owner::Process => PID,
                Owner::Description(_) => -1,
            };
        }
    }
    arg.write(&raw)?;
    Ok(0)
}

/// `flock(2)`.
pub fn sys_flock(ctx: &mut Ctx<'_>, fd: i32, operation: u32) -> Result<usize> {
    const LOCK_NB: u32 = 4;
    const LOCK_MAND: u32 = 32;
    // Mandatory locks are gone from Linux; asking for one does nothing.
    if operation & LOCK_MAND != 0 {
        return Ok(0);
    }
    let kind = match operation & !LOCK_NB {
        1 => Some(Kind::Shared),
        2 => Some(Kind::Exclusive),
        8 => None,
        _ => return Err(Errno::EINVAL),
    };
    let file = ctx.process.files.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    lock_table::flock(&file, kind, operation & LOCK_NB == 0)?;
    Ok(0)
}

fn is_socket(file: &OpenFile) -> bool {
    crate::socket::file::of(file).is_ok()
}

/// `F_SETOWN`: a process, or a group as a negative number; 0 is nobody.
fn set_owner(file: &Arc<OpenFile>, id: i32) -> Result<usize> {
    let receiver = match id {
        0 => Receiver::Nobody,
        i32::MIN => return Err(Errno::EINVAL),
        id if id < 0 => Receiver::Group(-id),
        id => Receiver::Process(id),
    };
    sigio::set_receiver(file, receiver)?;
    Ok(0)
}

/// `F_GETOWN`.
fn owner(file: &Arc<OpenFile>) -> i32 {
    match sigio::receiver(file) {
        Receiver::Nobody => 0,
        Receiver::Process(id) | Receiver::Thread(id) => id,
        Receiver::Group(id) => -id,
    }
}

/// `ioctl(2)`: requests of every descriptor first, then the file's own.
pub fn sys_ioctl(ctx: &mut Ctx<'_>, fd: i32, request: u32, arg: usize) -> Result<usize> {
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    const FIONBIO: u32 = 0x5421;
    const FIOASYNC: u32 = 0x5452;
    const FIONREAD: u32 = 0x541b;
    const FIOQSIZE: u32 = 0x5460;
    const FIOSETOWN: u32 = 0x8901;
    const SIOCSPGRP: u32 = 0x8902;
    const FIOGETOWN: u32 = 0x8903;
    const SIOCGPGRP: u32 = 0x8904;
    let files = &ctx.process.files;
    let file = files.get(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF);
    }
    let switch = |flag: OpenFlags| -> Result<usize> {
        let on = UserPtr::<i32>::new(arg).read()? != 0;
        let old = file.flags();
        set_status(&file, if on { old | flag } else { old - flag })?;
        Ok(0)
    };
    match request {
        FIOCLEX => files.set_close_on_exec(fd, true).map(|()| 0),
        FIONCLEX => files.set_close_on_exec(fd, false).map(|()| 0),
        FIONBIO => switch(OpenFlags::NONBLOCK),
        FIOASYNC => switch(OpenFlags::ASYNC),
        // The same as F_SETOWN and F_GETOWN, of sockets only.
        FIOSETOWN | SIOCSPGRP if is_socket(&file) => {
            set_owner(&file, UserPtr::<i32>::new(arg).read()?)
        }
        FIOGETOWN | SIOCGPGRP if is_socket(&file) => crate::files::put_int(arg, owner(&file)),
        FIONREAD
            if file.metadata()?.file_type == fs::FileType::Regular && file.file().seekable() =>
        {
            let size = file.metadata()?.size;
            let left = size.saturating_sub(file.offset());
            crate::files::put_int(arg, left.min(i32::MAX as u64) as i32)
        }
        FIOQSIZE if file.file().seekable() => {
            let size = file.metadata()?.size as i64;
            UserPtr::<i64>::new(arg).write(&size)?;
            Ok(0)
        }
        _ => file.file().ioctl(request, arg),
    }
}
