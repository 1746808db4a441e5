//! `epoll_create(2)`, `epoll_ctl(2)`, `epoll_wait(2)` and their kin. What a set does is
//! `files::epoll`'s.

use alloc::sync::Arc;

use errno::{Errno, Result};
use fs::{OpenFile, OpenFlags};
use sched::Woken;

use super::poll::set_mask;
use crate::ctx::Ctx;
use crate::files::epoll::{Epoll, Interest};
use crate::files::handles::EpollFile;
use crate::files::install;
use crate::files::readiness::Watched;
use crate::time::from_timespec;
use crate::uaccess::UserPtr;

/// `sizeof(struct epoll_event)`: packed on x86-64.
const EVENT_SIZE: usize = 12;
/// `EP_MAX_EVENTS`.
const MAX_EVENTS: i32 = i32::MAX / EVENT_SIZE as i32;

fn create(ctx: &Ctx<'_>, close_on_exec: bool) -> Result<usize> {
    let file = OpenFile::new(Arc::new(EpollFile::new()), OpenFlags::RDWR, None);
    install(ctx.process, file, close_on_exec)
}

/// `epoll_create(2)`.
pub fn sys_epoll_create(ctx: &mut Ctx<'_>, size: i32) -> Result<usize> {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    create(ctx, false)
}

/// `epoll_create1(2)`.
pub fn sys_epoll_create1(ctx: &mut Ctx<'_>, flags: u32) -> Result<usize> {
    if flags & !OpenFlags::CLOEXEC.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    create(ctx, flags != 0)
}

fn set_of(file: &OpenFile) -> Result<&Epoll> {
    Watched::as_epoll(file).ok_or(Errno::EINVAL)
}

/// `epoll_ctl(2)`.
pub fn sys_epoll_ctl(
    ctx: &mut Ctx<'_>,
    set: i32,
    operation: i32,
    fd: i32,
    event: UserPtr<u8>,
) -> Result<usize> {
    const ADD: i32 = 1;
    const DEL: i32 = 2;
    const MOD: i32 = 3;
    let interest = if operation == DEL {
        Interest { events: 0, data: 0 }
    } else {
        let mut bytes = [0; EVENT_SIZE];
        event.read_bytes(&mut bytes)?;
        let [e0, e1, e2, e3, d0, d1, d2, d3, d4, d5, d6, d7] = bytes;
        Interest {
            events: u32::from_ne_bytes([e0, e1, e2, e3]),
            data: u64::from_ne_bytes([d0, d1, d2, d3, d4, d5, d6, d7]),
        }
    };
    let epoll = ctx.process.files.get(set)?;
    let target = ctx.process.files.get(fd)?;
    if target.file().pollee().is_none() {
        return Err(Errno::EPERM);
    }
    if Arc::ptr_eq(&epoll, &target) {
        return Err(Errno::EINVAL);
    }
    let epoll = set_of(&epoll)?;
    let target: Arc<dyn Watched> = target;
    match operation {
        ADD => epoll.add(fd, &target, interest)?,
        MOD => epoll.modify(fd, &target, interest)?,
        DEL => epoll.remove(fd, &target)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn wait(
    ctx: &Ctx<'_>,
    set: i32,
    events: UserPtr<u8>,
    max: i32,
    timeout_ns: Option<u64>,
) -> Result<usize> {
    if max <= 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL);
    }
    let file = ctx.process.files.get(set)?;
    let epoll = set_of(&file)?;
    let deadline_ns = timeout_ns.map(|ns| machine::time::now_ns().saturating_add(ns));
    loop {
        let mut at = 0;
        let done = epoll.harvest(max as usize, |found, data| {
            let mut bytes = [0; EVENT_SIZE];
            bytes[..4].copy_from_slice(&found.to_ne_bytes());
            bytes[4..].copy_from_slice(&data.to_ne_bytes());
            events.byte_add(at).write_bytes(&bytes)?;
            at += EVENT_SIZE;
            Ok(())
        })?;
        if done > 0 || timeout_ns == Some(0) {
            return Ok(done);
        }
        match epoll.wait(deadline_ns) {
            Ok(()) => {}
            Err(Woken::TimedOut) => return Ok(0),
            // Never restarted, whatever the handler's flags (signal(7)).
            Err(Woken::Interrupted) => return Err(Errno::EINTR),
        }
    }
}

fn from_ms(timeout_ms: i32) -> Option<u64> {
    u64::try_from(timeout_ms).ok().map(|ms| ms * 1_000_000)
}

/// `epoll_wait(2)`.
pub fn sys_epoll_wait(
    ctx: &mut Ctx<'_>,
    set: i32,
    events: UserPtr<u8>,
    max: i32,
    timeout_ms: i32,
) -> Result<usize> {
    wait(ctx, set, events, max, from_ms(timeout_ms))
}

/// `epoll_pwait(2)`.
pub fn sys_epoll_pwait(
    ctx: &mut Ctx<'_>,
    set: i32,
    events: UserPtr<u8>,
    max: i32,
    timeout_ms: i32,
    mask: UserPtr<u64>,
    size: usize,
) -> Result<usize> {
    set_mask(ctx, mask, size)?;
    wait(ctx, set, events, max, from_ms(timeout_ms))
}

/// `epoll_pwait2(2)`.
pub fn sys_epoll_pwait2(
    ctx: &mut Ctx<'_>,
    set: i32,
    events: UserPtr<u8>,
    max: i32,
    timeout: UserPtr<[i64; 2]>,
    mask: UserPtr<u64>,
    size: usize,
) -> Result<usize> {
    let timeout_ns = match timeout.read_opt()? {
        Some(timeout) => Some(from_timespec(timeout)?),
        None => None,
    };
    set_mask(ctx, mask, size)?;
    wait(ctx, set, events, max, timeout_ns)
}
