//! How threads are scheduled: affinity, nice values, policies, `getcpu`, `membarrier`.
//!
//! There is one class, the fair one; the real-time policies are refused with `EPERM`, as to a program without the right.
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use errno::{Errno, Result};
use sched::CpuSet;

use crate::ctx::Ctx;
use crate::process::PID;
use crate::thread::LinuxThread;
use crate::uaccess::UserPtr;

/// `SCHED_OTHER` and the highest policy that there is (`SCHED_DEADLINE`).
const SCHED_OTHER: i32 = 0;
const SCHED_DEADLINE: i32 = 6;
/// Accepted beside a policy; there are no children to reset it for.
const SCHED_RESET_ON_FORK: i32 = 0x4000_0000;

/// The thread that a call names; 0 is the caller.
fn target(ctx: &Ctx<'_>, tid: i32) -> Result<Arc<LinuxThread>> {
    match tid {
        0 => Ok(ctx.thread.clone()),
        ..0 => Err(Errno::EINVAL),
        tid => ctx.process.thread(tid).ok_or(Errno::ESRCH),
    }
}

/// `sched_yield(2)`.
pub fn sys_sched_yield(_: &mut Ctx<'_>) -> Result<usize> {
    sched::yield_now();
    Ok(0)
}

/// The CPUs that there are.
fn all_cpus() -> u64 {
    u64::MAX >> (64 - machine::cpu::count().clamp(1, 64))
}

/// `sched_getaffinity(2)`: answers how many bytes it wrote.
pub fn sys_sched_getaffinity(
    ctx: &mut Ctx<'_>,
    tid: i32,
    len: usize,
    mask: UserPtr<u64>,
) -> Result<usize> {
    if len < 8 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let thread = target(ctx, tid)?;
    let allowed = thread
        .sched()
        .map_or(CpuSet::ALL, |thread| thread.affinity());
    mask.write(&(allowed.0 & all_cpus()))?;
    Ok(8)
}

/// `sched_setaffinity(2)`.
pub fn sys_sched_setaffinity(
    ctx: &mut Ctx<'_>,
    tid: i32,
    len: usize,
    mask: UserPtr<u8>,
) -> Result<usize> {
    let mut bytes = [0; 8];
    mask.read_bytes(&mut bytes[..len.min(8)])?;
    let thread = target(ctx, tid)?;
    let set = CpuSet(u64::from_le_bytes(bytes) & all_cpus());
    match thread.sched() {
        Some(thread) if !thread.set_affinity(set) => Err(Errno::EINVAL),
        Some(_) => {
            // The caller moves at once if it must.
            sched::preempt_point();
            Ok(0)
        }
        None => Err(Errno::ESRCH),
    }
}

/// `getcpu(2)`.
pub fn sys_getcpu(
    _: &mut Ctx<'_>,
    cpu: UserPtr<u32>,
    node: UserPtr<u32>,
    _cache: usize,
) -> Result<usize> {
    cpu.write_opt(&(machine::cpu::id() as u32))?;
    node.write_opt(&0)?;
    Ok(0)
}

/// Checks a policy and its priority: only the fair class is to be had.
fn check_policy(policy: i32, priority: i32) -> Result<usize> {
    match policy & !SCHED_RESET_ON_FORK {
        SCHED_OTHER if priority == 0 => Ok(0),
        1 | 2 if !(1..=99).contains(&priority) => Err(Errno::EINVAL),
        SCHED_OTHER => Err(Errno::EINVAL),
        1..=SCHED_DEADLINE => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// `sched_setscheduler(2)`.
pub fn sys_sched_setscheduler(
    ctx: &mut Ctx<'_>,
    tid: i32,
    policy: i32,
    param: UserPtr<i32>,
) -> Result<usize> {
    if policy < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = param.read()?;
    target(ctx, tid)?;
    check_policy(policy, priority)
}

/// `sched_getscheduler(2)`.
pub fn sys_sched_getscheduler(ctx: &mut Ctx<'_>, tid: i32) -> Result<usize> {
    target(ctx, tid)?;
    Ok(SCHED_OTHER as usize)
}

/// `sched_setparam(2)`.
pub fn sys_sched_setparam(ctx: &mut Ctx<'_>, tid: i32, param: UserPtr<i32>) -> Result<usize> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = param.read()?;
    target(ctx, tid)?;
    check_policy(SCHED_OTHER, priority)
}

/// `sched_getparam(2)`.
pub fn sys_sched_getparam(ctx: &mut Ctx<'_>, tid: i32, param: UserPtr<i32>) -> Result<usize> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    target(ctx, tid)?;
    param.write(&0)?;
    Ok(0)
}

/// `sched_get_priority_max(2)`.
pub fn sys_sched_get_priority_max(_: &mut Ctx<'_>, policy: i32) -> Result<usize> {
    match policy {
        1 | 2 => Ok(99),
        0 | 3 | 5 | 6 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// `sched_get_priority_min(2)`.
pub fn sys_sched_get_priority_min(_: &mut Ctx<'_>, policy: i32) -> Result<usize> {
    match policy {
        1 | 2 => Ok(1),
        0 | 3 | 5 | 6 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// `sched_rr_get_interval(2)`: how long a thread runs while others wait.
pub fn sys_sched_rr_get_interval(
    ctx: &mut Ctx<'_>,
    tid: i32,
    interval: UserPtr<[i64; 2]>,
) -> Result<usize> {
    target(ctx, tid)?;
    interval.write(&[0, 4_000_000])?;
    Ok(0)
}

/// The size of the first `struct sched_attr`.
const SCHED_ATTR_SIZE: usize = 48;

/// `sched_getattr(2)`.
pub fn sys_sched_getattr(
    ctx: &mut Ctx<'_>,
    tid: i32,
    attr: UserPtr<u8>,
    size: u32,
    flags: u32,
) -> Result<usize> {
    if flags != 0 || (size as usize) < SCHED_ATTR_SIZE || attr.is_null() {
        return Err(Errno::EINVAL);
    }
    let thread = target(ctx, tid)?;
    let mut bytes = [0; SCHED_ATTR_SIZE];
    bytes[..4].copy_from_slice(&(SCHED_ATTR_SIZE as u32).to_le_bytes());
    let nice = thread.sched().map_or(0, |thread| thread.nice());
    bytes[16..20].copy_from_slice(&nice.to_le_bytes());
    attr.write_bytes(&bytes)?;
    Ok(0)
}

/// `sched_setattr(2)`.
pub fn sys_sched_setattr(
    ctx: &mut Ctx<'_>,
    tid: i32,
    attr: UserPtr<u8>,
    flags: u32,
) -> Result<usize> {
    if flags != 0 || attr.is_null() {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0; SCHED_ATTR_SIZE];
    attr.read_bytes(&mut bytes)?;
    let word =
        |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let thread = target(ctx, tid)?;
    check_policy(word(4), word(20))?;
    if let Some(thread) = thread.sched() {
        thread.set_nice(word(16));
    }
    Ok(0)
}

/// The threads that `getpriority(2)` and `setpriority(2)` mean: one, or all of the process, group or user.
fn prioritised(ctx: &Ctx<'_>, which: i32, who: i32) -> Result<Vec<Arc<LinuxThread>>> {
    match (which, who) {
        (0, 0) => Ok(alloc::vec![ctx.thread.clone()]),
        (0, tid) => ctx
            .process
            .thread(tid)
            .map(|thread| alloc::vec![thread])
            .ok_or(Errno::ESRCH),
        (1, 0 | PID) => Ok(ctx.process.threads()),
        (2, uid) if uid == 0 || uid as u32 == ctx.process.credentials.lock().uid[0] => {
            Ok(ctx.process.threads())
        }
        (1 | 2, _) => Err(Errno::ESRCH),
        _ => Err(Errno::EINVAL),
    }
}

/// `getpriority(2)`: the raw call answers 20 less the nice value, so that it is never negative.
pub fn sys_getpriority(ctx: &mut Ctx<'_>, which: i32, who: i32) -> Result<usize> {
    let threads = prioritised(ctx, which, who)?;
    let nice = threads
        .iter()
        .filter_map(|thread| thread.sched())
        .map(|thread| thread.nice())
        .min();
    Ok((20 - nice.unwrap_or(0)) as usize)
}

/// `setpriority(2)`.
pub fn sys_setpriority(ctx: &mut Ctx<'_>, which: i32, who: i32, nice: i32) -> Result<usize> {
    for thread in prioritised(ctx, which, who)? {
        if let Some(thread) = thread.sched() {
            thread.set_nice(nice);
        }
    }
    Ok(0)
}

/// `MEMBARRIER_CMD_QUERY`.
const MEMBARRIER_QUERY: i32 = 0;
/// `MEMBARRIER_CMD_GLOBAL`, and the expedited commands that need no registration here.
const MEMBARRIER_GLOBAL: i32 = 1;
const MEMBARRIER_GLOBAL_EXPEDITED: i32 = 1 << 1;
const MEMBARRIER_REGISTER_GLOBAL_EXPEDITED: i32 = 1 << 2;
/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED` and its registration.
const MEMBARRIER_PRIVATE_EXPEDITED: i32 = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;

/// `membarrier(2)`. On one CPU every system call is the barrier; on several this kernel has no way yet to make
/// all of them pass one, and says that it supports none.
pub fn sys_membarrier(ctx: &mut Ctx<'_>, command: i32, flags: u32, _cpu: i32) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let alone = machine::cpu::count() == 1;
    match command {
        MEMBARRIER_QUERY if alone => Ok((MEMBARRIER_GLOBAL
            | MEMBARRIER_GLOBAL_EXPEDITED
            | MEMBARRIER_REGISTER_GLOBAL_EXPEDITED
            | MEMBARRIER_PRIVATE_EXPEDITED
            | MEMBARRIER_REGISTER_PRIVATE_EXPEDITED)
            as usize),
        MEMBARRIER_QUERY => Ok(0),
        _ if !alone => Err(Errno::EINVAL),
        MEMBARRIER_REGISTER_GLOBAL_EXPEDITED | MEMBARRIER_REGISTER_PRIVATE_EXPEDITED => {
            ctx.process
                .membarrier
                .fetch_or(command as u64, Ordering::SeqCst);
            Ok(0)
        }
        MEMBARRIER_GLOBAL | MEMBARRIER_GLOBAL_EXPEDITED => {
            core::sync::atomic::fence(Ordering::SeqCst);
            Ok(0)
        }
        MEMBARRIER_PRIVATE_EXPEDITED => {
            let registered = ctx.process.membarrier.load(Ordering::SeqCst);
            if registered & MEMBARRIER_REGISTER_PRIVATE_EXPEDITED as u64 == 0 {
                return Err(Errno::EPERM);
            }
            core::sync::atomic::fence(Ordering::SeqCst);
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `IOPRIO_CLASS_NONE`: the class follows the nice value.
const IOPRIO_NONE: usize = 0;

/// `ioprio_get(2)`.
pub fn sys_ioprio_get(ctx: &mut Ctx<'_>, which: i32, who: i32) -> Result<usize> {
    // Its `which` counts from 1 where getpriority's counts from 0.
    prioritised(ctx, which - 1, who)?;
    Ok(IOPRIO_NONE)
}
