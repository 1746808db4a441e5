//! Clocks and sleeping: `clock_*`, `gettimeofday`, `time`, `nanosleep`, `adjtimex`, `times`, `getrusage`.
use alloc::vec::Vec;
use errno::{Errno, Result};
use machine::time;
use sched::Woken;

use crate::ctx::Ctx;
use crate::process::PID;
use crate::thread::RestartBlock;
use crate::time::{Clock, from_timespec, from_timeval, to_timespec, to_timeval};
use crate::uaccess::UserPtr;

/// The resolution of the coarse clocks on the kernel that programs know (`CONFIG_HZ=250`); ours are finer.
const COARSE_NS: u64 = 4_000_000;

/// `TIMER_ABSTIME` of `clock_nanosleep(2)` and `timer_settime(2)`.
pub const TIMER_ABSTIME: i32 = 1;

/// `clock_gettime(2)`.
pub fn sys_clock_gettime(ctx: &mut Ctx<'_>, id: i32, time: UserPtr<[i64; 2]>) -> Result<usize> {
    let clock = Clock::from_id(id, ctx.process, ctx.thread)?;
    time.write(&to_timespec(clock.now_ns(ctx.process)))?;
    Ok(0)
}

/// `clock_getres(2)`.
pub fn sys_clock_getres(
    ctx: &mut Ctx<'_>,
    id: i32,
    resolution: UserPtr<[i64; 2]>,
) -> Result<usize> {
    Clock::from_id(id, ctx.process, ctx.thread)?;
    let ns = if matches!(id, 5 | 6) { COARSE_NS } else { 1 };
    resolution.write_opt(&to_timespec(ns))?;
    Ok(0)
}

/// `clock_settime(2)`.
pub fn sys_clock_settime(ctx: &mut Ctx<'_>, id: i32, time: UserPtr<[i64; 2]>) -> Result<usize> {
    Clock::from_id(id, ctx.process, ctx.thread)?;
    let ns = from_timespec(time.read()?)?;
    if id != 0 {
        return Err(Errno::EINVAL);
    }
    set_wall(ns)
}

/// `settimeofday(2)`. A time zone is refused, as the kernel has none.
pub fn sys_settimeofday(
    _: &mut Ctx<'_>,
    time: UserPtr<[i64; 2]>,
    zone: UserPtr<[i32; 2]>,
) -> Result<usize> {
    if zone.read_opt()?.is_some_and(|zone| zone != [0, 0]) {
        return Err(Errno::EINVAL);
    }
    match time.read_opt()? {
        Some(time) => set_wall(from_timeval(time)?),
        None => Ok(0),
    }
}

fn set_wall(ns: u64) -> Result<usize> {
    // Linux refuses a time at which the monotonic clock would have started before 1970.
    if ns < time::now_ns() {
        return Err(Errno::EINVAL);
    }
    time::set_wall(ns);
    crate::files::timerfd::clock_was_set();
    Ok(0)
}

/// `gettimeofday(2)`.
pub fn sys_gettimeofday(
    _: &mut Ctx<'_>,
    now: UserPtr<[i64; 2]>,
    zone: UserPtr<[i32; 2]>,
) -> Result<usize> {
    now.write_opt(&to_timeval(time::wall_ns()))?;
    zone.write_opt(&[0, 0])?;
    Ok(0)
}

/// `time(2)`.
pub fn sys_time(_: &mut Ctx<'_>, now: UserPtr<i64>) -> Result<usize> {
    let [seconds, _] = to_timespec(time::wall_ns());
    now.write_opt(&seconds)?;
    Ok(seconds as usize)
}

/// `nanosleep(2)`.
pub fn sys_nanosleep(
    ctx: &mut Ctx<'_>,
    wanted: UserPtr<[i64; 2]>,
    rest: UserPtr<[i64; 2]>,
) -> Result<usize> {
    let ns = from_timespec(wanted.read()?)?;
    sleep(ctx, time::now_ns().saturating_add(ns), rest.addr())
}

/// `clock_nanosleep(2)`.
pub fn sys_clock_nanosleep(
    ctx: &mut Ctx<'_>,
    id: i32,
    flags: i32,
    wanted: UserPtr<[i64; 2]>,
    rest: UserPtr<[i64; 2]>,
) -> Result<usize> {
    let clock = Clock::from_id(id, ctx.process, ctx.thread)?;
    match id {
        3 => return Err(Errno::EINVAL),
        // The raw and coarse clocks cannot be slept on (clock_nanosleep(2)).
        4..=6 => return Err(Errno::EOPNOTSUPP),
        _ => {}
    }
    if let Clock::Thread(thread) = &clock
        && thread.tid == ctx.thread.tid
    {
        return Err(Errno::EINVAL);
    }
    let ns = from_timespec(wanted.read()?)?;
    let absolute = flags & TIMER_ABSTIME != 0;
    if !absolute && !clock.is_cpu_time() {
        return sleep(ctx, time::now_ns().saturating_add(ns), rest.addr());
    }
    let target = if absolute {
        ns
    } else {
        clock.now_ns(ctx.process).saturating_add(ns)
    };
    // The real-time clock may be set and CPU time may stand still meanwhile: look again after each sleep.
    while clock.now_ns(ctx.process) < target {
        match sched::sleep_until_ns(clock.earliest_ns(target, ctx.process)) {
            Ok(()) | Err(Woken::TimedOut) => {}
            Err(Woken::Interrupted) => return Err(Errno::ERESTARTNOHAND),
        }
    }
    Ok(0)
}

/// Sleeps until `deadline_ns` of the monotonic clock. Interrupted, it stores what is left at `remaining` and goes on
/// after the signal with `restart_syscall(2)`, unless a handler ran.
pub(super) fn sleep(ctx: &mut Ctx<'_>, deadline_ns: u64, remaining: usize) -> Result<usize> {
    match sched::sleep_until_ns(deadline_ns) {
        Ok(()) | Err(Woken::TimedOut) => Ok(0),
        Err(Woken::Interrupted) => {
            let left = deadline_ns.saturating_sub(time::now_ns());
            if left == 0 {
                return Ok(0);
            }
            UserPtr::<[i64; 2]>::new(remaining).write_opt(&to_timespec(left))?;
            *ctx.thread.restart.lock() = Some(RestartBlock::Sleep {
                deadline_ns,
                remaining,
            });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
    }
}

/// The size of a `struct timex`.
const TIMEX_SIZE: usize = 208;
/// `ADJ_SETOFFSET`: step the clock by `time`.
const ADJ_SETOFFSET: u32 = 0x0100;
/// `ADJ_NANO`: `time` is in nanoseconds.
const ADJ_NANO: u32 = 0x2000;
/// `ADJ_OFFSET_SS_READ`: only read the old-style adjustment.
const ADJ_OFFSET_SS_READ: u32 = 0xa001;
/// `TIME_ERROR`: the clock is not synchronised.
const TIME_ERROR: usize = 5;
/// `STA_UNSYNC`.
const STA_UNSYNC: i32 = 0x40;

/// `adjtimex(2)`.
pub fn sys_adjtimex(_: &mut Ctx<'_>, timex: UserPtr<[u8; TIMEX_SIZE]>) -> Result<usize> {
    adjust(timex)
}

/// `clock_adjtime(2)`.
pub fn sys_clock_adjtime(
    ctx: &mut Ctx<'_>,
    id: i32,
    timex: UserPtr<[u8; TIMEX_SIZE]>,
) -> Result<usize> {
    Clock::from_id(id, ctx.process, ctx.thread)?;
    if id != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    adjust(timex)
}

/// Reads the clock's state, and steps the clock where asked. Slewing it and changing its frequency are not there:
/// such a request fails with `EOPNOTSUPP`.
fn adjust(timex: UserPtr<[u8; TIMEX_SIZE]>) -> Result<usize> {
    let mut bytes = timex.read()?;
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        i64::from_le_bytes(word)
    };
    let modes = word(0) as u32;
    if modes & ADJ_SETOFFSET != 0 && modes & !(ADJ_SETOFFSET | ADJ_NANO) == 0 {
        let (seconds, fraction) = (word(72), word(80));
        let scale = if modes & ADJ_NANO != 0 { 1 } else { 1000 };
        if !(0..1_000_000_000 / scale).contains(&fraction) {
            return Err(Errno::EINVAL);
        }
        let step = i128::from(seconds) * 1_000_000_000 + i128::from(fraction * scale);
        let target = i128::from(time::wall_ns()) + step;
        set_wall(u64::try_from(target).map_err(|_| Errno::EINVAL)?)?;
    } else if modes != 0 && modes != ADJ_OFFSET_SS_READ {
        return Err(Errno::EOPNOTSUPP);
    }
    bytes[4..].fill(0);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    // maxerror and esterror as on a Linux that was never synchronised, precision 1 µs, tolerance 500 ppm, tick 10 ms.
    put(24, &16_000_000_i64.to_le_bytes());
    put(32, &16_000_000_i64.to_le_bytes());
    put(40, &STA_UNSYNC.to_le_bytes());
    put(48, &2_i64.to_le_bytes());
    put(56, &1_i64.to_le_bytes());
    put(64, &32_768_000_i64.to_le_bytes());
    let [seconds, micros] = to_timeval(time::wall_ns());
    put(72, &seconds.to_le_bytes());
    put(80, &micros.to_le_bytes());
    put(88, &10_000_i64.to_le_bytes());
    timex.write(&bytes)?;
    Ok(TIME_ERROR)
}

/// Nanoseconds of one tick of `times(2)`: `sysconf(_SC_CLK_TCK)` is 100.
const TICK_NS: u64 = 10_000_000;

/// `times(2)`.
pub fn sys_times(ctx: &mut Ctx<'_>, buffer: UserPtr<[i64; 4]>) -> Result<usize> {
    let (user, system) = ctx.process.cpu_time_ns();
    buffer.write_opt(&[(user / TICK_NS) as i64, (system / TICK_NS) as i64, 0, 0])?;
    Ok((time::now_ns() / TICK_NS) as usize)
}

/// `getrusage(2)`.
pub fn sys_getrusage(ctx: &mut Ctx<'_>, who: i32, usage: UserPtr<[i64; 18]>) -> Result<usize> {
    let mut fields = [0_i64; 18];
    let (user, system, threads) = match who {
        0 => {
            let (user, system) = ctx.process.cpu_time_ns();
            (user, system, ctx.process.threads())
        }
        // There are no children.
        -1 => (0, 0, Vec::new()),
        1 => {
            let thread = ctx.thread.sched();
            let times = thread.map_or((0, 0), |thread| (thread.user_ns(), thread.system_ns()));
            (times.0, times.1, alloc::vec![ctx.thread.clone()])
        }
        _ => return Err(Errno::EINVAL),
    };
    fields[..2].copy_from_slice(&to_timeval(user));
    fields[2..4].copy_from_slice(&to_timeval(system));
    if who >= 0 {
        fields[4] = (ctx.process.mm.peak_resident_bytes() / 1024) as i64;
    }
    for thread in threads {
        fields[8] += thread.faults[0].load(core::sync::atomic::Ordering::Relaxed) as i64;
        fields[9] += thread.faults[1].load(core::sync::atomic::Ordering::Relaxed) as i64;
        fields[16] += thread.sched().map_or(0, |thread| thread.switches()) as i64;
    }
    usage.write(&fields)?;
    Ok(0)
}

/// `clock_getcpuclockid(3)`'s question: whether `pid` is the process.
pub(super) fn is_self(pid: i32) -> bool {
    pid == 0 || pid == PID
}
