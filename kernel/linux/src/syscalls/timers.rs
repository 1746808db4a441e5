//! Timers that send signals: `alarm`, `setitimer`, `timer_create` and their like.
use alloc::sync::Arc;

use errno::{Errno, Result};

use super::times::TIMER_ABSTIME;
use crate::ctx::Ctx;
use crate::signal::{NSIG, SIGALRM};
use crate::time::interval::Kind;
use crate::time::posix::Notify;
use crate::time::{Clock, SECOND_NS, from_timespec, from_timeval, to_timespec, to_timeval};
use crate::uaccess::UserPtr;

/// `alarm(2)`.
pub fn sys_alarm(ctx: &mut Ctx<'_>, seconds: u32) -> Result<usize> {
    let timer = ctx.process.timers.interval(Kind::Real);
    let (left, _) = timer.set(ctx.process, u64::from(seconds) * SECOND_NS, 0);
    // Rounded to the nearest second, but never to "there was none".
    let rounded = (left + SECOND_NS / 2) / SECOND_NS;
    Ok(if left > 0 { rounded.max(1) as usize } else { 0 })
}

fn itimerval((value, interval): (u64, u64)) -> [i64; 4] {
    let ([a, b], [c, d]) = (to_timeval(interval), to_timeval(value));
    [a, b, c, d]
}

/// `getitimer(2)`.
pub fn sys_getitimer(ctx: &mut Ctx<'_>, which: i32, current: UserPtr<[i64; 4]>) -> Result<usize> {
    let kind = Kind::from_number(which).ok_or(Errno::EINVAL)?;
    current.write(&itimerval(
        ctx.process.timers.interval(kind).get(ctx.process),
    ))?;
    Ok(0)
}

/// `setitimer(2)`. Without a new value the timer is turned off, as Linux does.
pub fn sys_setitimer(
    ctx: &mut Ctx<'_>,
    which: i32,
    new: UserPtr<[i64; 4]>,
    old: UserPtr<[i64; 4]>,
) -> Result<usize> {
    let [a, b, c, d] = new.read_opt()?.unwrap_or_default();
    let kind = Kind::from_number(which).ok_or(Errno::EINVAL)?;
    let (interval, value) = (from_timeval([a, b])?, from_timeval([c, d])?);
    let before = ctx
        .process
        .timers
        .interval(kind)
        .set(ctx.process, value, interval);
    old.write_opt(&itimerval(before))?;
    Ok(0)
}

/// `sigev_notify` of a `struct sigevent`.
const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD: i32 = 2;
const SIGEV_THREAD_ID: i32 = 4;

/// `timer_create(2)`.
pub fn sys_timer_create(
    ctx: &mut Ctx<'_>,
    id: i32,
    event: UserPtr<[u64; 8]>,
    timer: UserPtr<i32>,
) -> Result<usize> {
    let clock = match id {
        // The raw and coarse clocks have no timers.
        4..=6 => return Err(Errno::EOPNOTSUPP),
        _ => Clock::from_id(id, ctx.process, ctx.thread)?,
    };
    let (notify, value) = match event.read_opt()? {
        None => (Notify::Process(SIGALRM), None),
        Some(event) => {
            let (signo, kind) = (event[1] as i32, (event[1] >> 32) as i32);
            let signal = || {
                if (1..=NSIG).contains(&signo) {
                    Ok(signo)
                } else {
                    Err(Errno::EINVAL)
                }
            };
            let notify = match kind {
                SIGEV_NONE => Notify::Nobody,
                SIGEV_SIGNAL | SIGEV_THREAD => Notify::Process(signal()?),
                SIGEV_THREAD_ID => {
                    let thread = ctx.process.thread(event[2] as i32).ok_or(Errno::EINVAL)?;
                    Notify::Thread(signal()?, Arc::downgrade(&thread))
                }
                _ => return Err(Errno::EINVAL),
            };
            (notify, Some(event[0]))
        }
    };
    let made = ctx.process.timers.create(clock, notify, value)?;
    if let Err(error) = timer.write(&made) {
        ctx.process.timers.delete(made)?;
        return Err(error);
    }
    Ok(0)
}

fn itimerspec((value, interval): (u64, u64)) -> [i64; 4] {
    let ([a, b], [c, d]) = (to_timespec(interval), to_timespec(value));
    [a, b, c, d]
}

/// `timer_settime(2)`.
pub fn sys_timer_settime(
    ctx: &mut Ctx<'_>,
    id: i32,
    flags: i32,
    new: UserPtr<[i64; 4]>,
    old: UserPtr<[i64; 4]>,
) -> Result<usize> {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let [a, b, c, d] = new.read()?;
    let (interval, value) = (from_timespec([a, b])?, from_timespec([c, d])?);
    let timer = ctx.process.timers.get(id)?;
    let before = timer.set(ctx.process, flags & TIMER_ABSTIME != 0, value, interval);
    old.write_opt(&itimerspec(before))?;
    Ok(0)
}

/// `timer_gettime(2)`.
pub fn sys_timer_gettime(ctx: &mut Ctx<'_>, id: i32, current: UserPtr<[i64; 4]>) -> Result<usize> {
    let timer = ctx.process.timers.get(id)?;
    current.write(&itimerspec(timer.get(ctx.process)))?;
    Ok(0)
}

/// `timer_getoverrun(2)`.
pub fn sys_timer_getoverrun(ctx: &mut Ctx<'_>, id: i32) -> Result<usize> {
    Ok(ctx.process.timers.get(id)?.overrun() as usize)
}

/// `timer_delete(2)`.
pub fn sys_timer_delete(ctx: &mut Ctx<'_>, id: i32) -> Result<usize> {
    ctx.process.timers.delete(id)?;
    Ok(0)
}
