//! `futex(2)`, `futex_waitv(2)`: operations, flags and clocks. The waiting itself is `futex`'s.
use alloc::vec::Vec;
use errno::{Errno, Result};
use machine::user;

use crate::ctx::Ctx;
use crate::futex::{BITSET_ANY, Key, WaitError, WakeOp};
use crate::thread::RestartBlock;
use crate::uaccess::UserPtr;

const PRIVATE: u32 = 128;
const CLOCK_REALTIME: u32 = 256;
const WAITV_MAX: usize = 128;

/// A `struct timespec` in nanoseconds.
///
/// # Errors
/// `EINVAL` for a negative time or too many nanoseconds.
pub(crate) fn timespec_ns(value: [i64; 2]) -> Result<u64> {
    let [seconds, nanoseconds] = value;
    if seconds < 0 || !(0..1_000_000_000).contains(&nanoseconds) {
        return Err(Errno::EINVAL);
    }
    Ok((seconds as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds as u64))
}

/// The monotonic time of an absolute one.
fn deadline(time: UserPtr<[i64; 2]>, realtime: bool) -> Result<Option<u64>> {
    let Some(time) = time.read_opt()? else {
        return Ok(None);
    };
    let ns = timespec_ns(time)?;
    Ok(Some(if realtime {
        ns.saturating_sub(machine::time::wall_offset_ns())
    } else {
        ns
    }))
}

pub(super) fn sys_futex(
    ctx: &mut Ctx<'_>,
    addr: usize,
    op: u32,
    value: u32,
    timeout: usize,
    addr2: usize,
    value3: u32,
) -> Result<usize> {
    let private = op & PRIVATE != 0;
    let realtime = op & CLOCK_REALTIME != 0;
    let command = op & !(PRIVATE | CLOCK_REALTIME);
    // WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2 and WAIT know the real-time clock.
    if realtime && !matches!(command, 0 | 9 | 11 | 13) {
        return Err(Errno::ENOSYS);
    }
    let table = &ctx.process.futexes;
    let mm = &ctx.process.mm;
    let time = UserPtr::<[i64; 2]>::new(timeout);
    // Counts of waiters come in the place of the timeout.
    let count2 = timeout as u32 as usize;
    let count = |value: u32| {
        if (value as i32) < 0 {
            Err(Errno::EINVAL)
        } else {
            Ok(value as usize)
        }
    };
    let is_alive = |tid| ctx.process.thread(tid).is_some();
    match command {
        0 => {
            let relative = time.read_opt()?.map(timespec_ns).transpose()?;
            let deadline_ns = relative.map(|ns| machine::time::now_ns().saturating_add(ns));
            wait(ctx, addr, value, BITSET_ANY, private, deadline_ns)
        }
        9 => {
            let deadline_ns = deadline(time, realtime)?;
            wait(ctx, addr, value, value3, private, deadline_ns)
        }
        1 => Ok(table.wake(
            Key::of(mm, addr, private)?,
            (value as i32).max(1) as usize,
            BITSET_ANY,
        )),
        10 => {
            if value3 == 0 {
                return Err(Errno::EINVAL);
            }
            Ok(table.wake(
                Key::of(mm, addr, private)?,
                (value as i32).max(1) as usize,
                value3,
            ))
        }
        3 | 4 => {
            let (wake, requeue) = (count(value)?, count(count2 as u32)?);
            let (from, to) = (Key::of(mm, addr, private)?, Key::of(mm, addr2, private)?);
            if command == 4 && user::load_u32(addr).map_err(|_| Errno::EFAULT)? != value3 {
                return Err(Errno::EAGAIN);
            }
            let (woken, moved) = table.requeue(from, to, wake, requeue);
            Ok(if command == 4 { woken + moved } else { woken })
        }
        5 => {
            let (from, to) = (Key::of(mm, addr, private)?, Key::of(mm, addr2, private)?);
            let operation = WakeOp::decode(value3)?;
            let old = user::fetch_update_u32(addr2, |old| operation.apply(old))
                .map_err(|_| Errno::EFAULT)?;
            let mut woken = table.wake(from, (value as i32).max(1) as usize, BITSET_ANY);
            if operation.holds(old) {
                woken += table.wake(to, (count2 as i32).max(1) as usize, BITSET_ANY);
            }
            Ok(woken)
        }
        // LOCK_PI counts on the real-time clock, LOCK_PI2 on the one it says.
        6 | 13 => {
            let deadline_ns = deadline(time, command == 6 || realtime)?;
            let key = Key::of(mm, addr, private)?;
            table.lock_pi(key, addr, ctx.thread.tid, false, deadline_ns, is_alive)?;
            Ok(0)
        }
        7 => {
            table.unlock_pi(Key::of(mm, addr, private)?, addr, ctx.thread.tid)?;
            Ok(0)
        }
        8 => {
            table.lock_pi(
                Key::of(mm, addr, private)?,
                addr,
                ctx.thread.tid,
                true,
                None,
                is_alive,
            )?;
            Ok(0)
        }
        // FUTEX_FD is gone from Linux; WAIT_REQUEUE_PI and CMP_REQUEUE_PI are not provided.
        _ => Err(Errno::ENOSYS),
    }
}

fn wait(
    ctx: &Ctx<'_>,
    addr: usize,
    value: u32,
    bitset: u32,
    private: bool,
    deadline_ns: Option<u64>,
) -> Result<usize> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = Key::of(&ctx.process.mm, addr, private)?;
    match ctx
        .process
        .futexes
        .wait(key, addr, value, bitset, deadline_ns)
    {
        Ok(()) => Ok(0),
        Err(WaitError::Changed) => Err(Errno::EAGAIN),
        Err(WaitError::Fault) => Err(Errno::EFAULT),
        Err(WaitError::TimedOut) => Err(Errno::ETIMEDOUT),
        Err(WaitError::Interrupted) => match deadline_ns {
            None => Err(Errno::ERESTARTSYS),
            Some(deadline_ns) => {
                *ctx.thread.restart.lock() = Some(RestartBlock::FutexWait {
                    addr,
                    value,
                    bitset,
                    private,
                    deadline_ns,
                });
                Err(Errno::ERESTART_RESTARTBLOCK)
            }
        },
    }
}

/// Goes on with a wait that a signal without a handler interrupted.
pub(super) fn restart(
    ctx: &Ctx<'_>,
    addr: usize,
    value: u32,
    bitset: u32,
    private: bool,
    deadline_ns: u64,
) -> Result<usize> {
    wait(ctx, addr, value, bitset, private, Some(deadline_ns))
}

pub(super) fn sys_futex_waitv(
    ctx: &mut Ctx<'_>,
    waiters: UserPtr<[u64; 3]>,
    count: u32,
    flags: u32,
    timeout: UserPtr<[i64; 2]>,
    clock: i32,
) -> Result<usize> {
    const SIZE_U32: u32 = 2;
    if flags != 0 || count == 0 || count as usize > WAITV_MAX || waiters.is_null() {
        return Err(Errno::EINVAL);
    }
    if !timeout.is_null() && !matches!(clock, 0 | 1) {
        return Err(Errno::EINVAL);
    }
    let deadline_ns = deadline(timeout, clock == 0)?;
    let mut words = Vec::new();
    for n in 0..count as usize {
        let [value, addr, flags_and_reserved] = waiters.add(n).read()?;
        let flags = flags_and_reserved as u32;
        if flags_and_reserved >> 32 != 0 || flags & !PRIVATE != SIZE_U32 {
            return Err(Errno::EINVAL);
        }
        let key = Key::of(&ctx.process.mm, addr as usize, flags & PRIVATE != 0)?;
        words.push((key, addr as usize, value as u32));
    }
    ctx.process
        .futexes
        .wait_many(&words, deadline_ns)
        .map_err(|error| match error {
            WaitError::Changed => Errno::EAGAIN,
            WaitError::Fault => Errno::EFAULT,
            WaitError::TimedOut => Errno::ETIMEDOUT,
            WaitError::Interrupted => Errno::ERESTARTSYS,
        })
}
