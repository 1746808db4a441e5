//! Descriptors for events: `eventfd(2)`, `timerfd_create(2)`, `signalfd(2)`, `inotify(7)`.

use alloc::sync::Arc;

use errno::{Errno, Result};
use fs::{File, FileType, LookupFlags, OpenFile, OpenFlags};

use crate::ctx::Ctx;
use crate::files::eventfd::EventFd;
use crate::files::handles::EventFile;
use crate::files::inotify::InotifyFile;
use crate::files::install;
use crate::files::paths::{self, AT_FDCWD};
use crate::files::signalfd::SignalFile;
use crate::files::timerfd::{Clock, Setting, TimerFile};
use crate::signal::SigSet;
use crate::time::{from_timespec, to_timespec};
use crate::uaccess::UserPtr;

/// Installs `file` with the two flags that all these calls share.
fn add(ctx: &Ctx<'_>, file: Arc<dyn File>, flags: u32, access: OpenFlags) -> Result<usize> {
    let flags = OpenFlags::from_bits_retain(flags);
    let kept = (flags & OpenFlags::NONBLOCK) | access;
    let open = OpenFile::new(file, kept, None);
    install(ctx.process, open, flags.contains(OpenFlags::CLOEXEC))
}

const COMMON: u32 = OpenFlags::NONBLOCK.bits() | OpenFlags::CLOEXEC.bits();

fn eventfd_with(ctx: &Ctx<'_>, initial: u32, flags: u32) -> Result<usize> {
    const EFD_SEMAPHORE: u32 = 1;
    if flags & !(COMMON | EFD_SEMAPHORE) != 0 {
        return Err(Errno::EINVAL);
    }
    let event = EventFd::new(u64::from(initial), flags & EFD_SEMAPHORE != 0);
    add(ctx, Arc::new(EventFile::new(event)), flags, OpenFlags::RDWR)
}

/// `eventfd(2)`.
pub fn sys_eventfd(ctx: &mut Ctx<'_>, initial: u32) -> Result<usize> {
    eventfd_with(ctx, initial, 0)
}

/// `eventfd2(2)`.
pub fn sys_eventfd2(ctx: &mut Ctx<'_>, initial: u32, flags: u32) -> Result<usize> {
    eventfd_with(ctx, initial, flags)
}

/// `timerfd_create(2)`.
pub fn sys_timerfd_create(ctx: &mut Ctx<'_>, clock_id: i32, flags: u32) -> Result<usize> {
    if flags & !COMMON != 0 {
        return Err(Errno::EINVAL);
    }
    let clock = match clock_id {
        0 | 8 => Clock::Realtime,
        1 | 7 | 9 => Clock::Monotonic,
        _ => return Err(Errno::EINVAL),
    };
    add(ctx, TimerFile::new(clock_id, clock), flags, OpenFlags::RDWR)
}

/// `struct itimerspec`: interval, value.
type TimerSpec = [[i64; 2]; 2];

fn spec(setting: Setting) -> TimerSpec {
    [
        to_timespec(setting.interval_ns),
        to_timespec(setting.value_ns),
    ]
}

/// The timer behind a descriptor; `EINVAL` for another kind.
fn timer(file: &OpenFile) -> Result<&TimerFile> {
    file.file()
        .as_any()
        .downcast_ref::<TimerFile>()
        .ok_or(Errno::EINVAL)
}

/// `timerfd_settime(2)`.
pub fn sys_timerfd_settime(
    ctx: &mut Ctx<'_>,
    fd: i32,
    flags: u32,
    new: UserPtr<TimerSpec>,
    old: UserPtr<TimerSpec>,
) -> Result<usize> {
    const ABSTIME: u32 = 1;
    const CANCEL_ON_SET: u32 = 2;
    let [interval, value] = new.read()?;
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let setting = Setting {
        value_ns: from_timespec(value)?,
        interval_ns: from_timespec(interval)?,
    };
    let file = ctx.process.files.get(fd)?;
    let before = timer(&file)?.set(setting, flags & ABSTIME != 0, flags & CANCEL_ON_SET != 0);
    old.write_opt(&spec(before))?;
    Ok(0)
}

/// `timerfd_gettime(2)`.
pub fn sys_timerfd_gettime(ctx: &mut Ctx<'_>, fd: i32, out: UserPtr<TimerSpec>) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    out.write(&spec(timer(&file)?.get()))?;
    Ok(0)
}

fn signalfd_with(
    ctx: &Ctx<'_>,
    fd: i32,
    mask: UserPtr<u64>,
    size: usize,
    flags: u32,
) -> Result<usize> {
    if size != size_of::<u64>() || flags & !COMMON != 0 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(mask.read()?);
    if fd == -1 {
        let file = SignalFile::new(ctx.process, mask);
        return add(ctx, Arc::new(file), flags, OpenFlags::RDWR);
    }
    let file = ctx.process.files.get(fd)?;
    file.file()
        .as_any()
        .downcast_ref::<SignalFile>()
        .ok_or(Errno::EINVAL)?
        .set_mask(mask);
    Ok(fd as usize)
}

/// `signalfd(2)`.
pub fn sys_signalfd(ctx: &mut Ctx<'_>, fd: i32, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    signalfd_with(ctx, fd, mask, size, 0)
}

/// `signalfd4(2)`.
pub fn sys_signalfd4(
    ctx: &mut Ctx<'_>,
    fd: i32,
    mask: UserPtr<u64>,
    size: usize,
    flags: u32,
) -> Result<usize> {
    signalfd_with(ctx, fd, mask, size, flags)
}

fn inotify_with(ctx: &Ctx<'_>, flags: u32) -> Result<usize> {
    if flags & !COMMON != 0 {
        return Err(Errno::EINVAL);
    }
    add(ctx, Arc::new(InotifyFile::new()), flags, OpenFlags::empty())
}

/// `inotify_init(2)`.
pub fn sys_inotify_init(ctx: &mut Ctx<'_>) -> Result<usize> {
    inotify_with(ctx, 0)
}

/// `inotify_init1(2)`.
pub fn sys_inotify_init1(ctx: &mut Ctx<'_>, flags: u32) -> Result<usize> {
    inotify_with(ctx, flags)
}

fn inotify(file: &OpenFile) -> Result<&InotifyFile> {
    file.file()
        .as_any()
        .downcast_ref::<InotifyFile>()
        .ok_or(Errno::EINVAL)
}

/// `inotify_add_watch(2)`.
pub fn sys_inotify_add_watch(
    ctx: &mut Ctx<'_>,
    fd: i32,
    path: UserPtr<u8>,
    mask: u32,
) -> Result<usize> {
    const IN_ONLYDIR: u32 = 0x0100_0000;
    const IN_DONT_FOLLOW: u32 = 0x0200_0000;
    let file = ctx.process.files.get(fd)?;
    let queue = inotify(&file)?;
    let mut how = LookupFlags::empty();
    if mask & IN_DONT_FOLLOW == 0 {
        how |= LookupFlags::FOLLOW;
    }
    let path = path.read_path()?;
    let place = paths::resolve(ctx.process, AT_FDCWD, &path, how)?;
    if mask & IN_ONLYDIR != 0 && place.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    queue.add(place.inode(), mask).map(|id| id as usize)
}

/// `inotify_rm_watch(2)`.
pub fn sys_inotify_rm_watch(ctx: &mut Ctx<'_>, fd: i32, id: i32) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    inotify(&file)?.remove(id)?;
    Ok(0)
}
