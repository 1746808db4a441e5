//! The rest: `uname`, `sysinfo`, `getrandom`, resource limits, `prctl`, `personality`, `syslog`, `reboot`.
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

use errno::{Errno, Result};
use iobuf::Sink;

use super::times::is_self;
use crate::ctx::Ctx;
use crate::limits::{Limit, Resource};
use crate::process::{ALL_CAPS, ExitStatus};
use crate::signal::NSIG;
use crate::thread::COMM_LEN;
use crate::uaccess::{UserPtr, UserSlice};
use crate::uts;

/// `uname(2)`.
pub fn sys_uname(_: &mut Ctx<'_>, buffer: UserPtr<u8>) -> Result<usize> {
    let names = uts::get();
    let mut bytes = [0; 6 * (uts::UTS_LEN + 1)];
    let fields = [
        &names.sysname,
        &names.nodename,
        &names.release,
        &names.version,
        uts::MACHINE,
        &names.domain,
    ];
    for (field, name) in bytes.chunks_exact_mut(uts::UTS_LEN + 1).zip(fields) {
        let len = name.len().min(uts::UTS_LEN);
        field[..len].copy_from_slice(&name.as_bytes()[..len]);
    }
    buffer.write_bytes(&bytes)?;
    Ok(0)
}

/// A name that the program gives the machine.
fn read_name(name: UserPtr<u8>, len: i32) -> Result<String> {
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= uts::UTS_LEN)
        .ok_or(Errno::EINVAL)?;
    let mut bytes = [0; uts::UTS_LEN];
    name.read_bytes(&mut bytes[..len])?;
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// `sethostname(2)`.
pub fn sys_sethostname(_: &mut Ctx<'_>, name: UserPtr<u8>, len: i32) -> Result<usize> {
    let name = read_name(name, len)?;
    uts::change(|names| names.nodename = name);
    Ok(0)
}

/// `setdomainname(2)`.
pub fn sys_setdomainname(_: &mut Ctx<'_>, name: UserPtr<u8>, len: i32) -> Result<usize> {
    let name = read_name(name, len)?;
    uts::change(|names| names.domain = name);
    Ok(0)
}

/// `sysinfo(2)`.
pub fn sys_sysinfo(ctx: &mut Ctx<'_>, info: UserPtr<[u64; 14]>) -> Result<usize> {
    let memory = machine::mem::stats();
    let page = machine::mem::PAGE_SIZE as u64;
    let mut words = [0_u64; 14];
    words[0] = machine::time::now_ns() / 1_000_000_000;
    // Load averages in 1/65536.
    words[1..4].fill((sched::stats().runnable as u64) << 16);
    words[4] = memory.total as u64 * page;
    words[5] = memory.free as u64 * page;
    words[10] = ctx.process.thread_count() as u64;
    // `mem_unit`: the sizes are in bytes.
    words[13] = 1;
    info.write(&words)?;
    Ok(0)
}

/// `GRND_NONBLOCK`, `GRND_RANDOM`, `GRND_INSECURE`.
const GRND_ALL: u32 = 7;
const GRND_RANDOM: u32 = 2;
const GRND_INSECURE: u32 = 4;

/// `getrandom(2)`. The generator is ready before the program starts, so nothing blocks.
pub fn sys_getrandom(_: &mut Ctx<'_>, buffer: usize, len: usize, flags: u32) -> Result<usize> {
    if flags & !GRND_ALL != 0
        || flags & (GRND_RANDOM | GRND_INSECURE) == GRND_RANDOM | GRND_INSECURE
    {
        return Err(Errno::EINVAL);
    }
    let mut to = UserSlice::new(buffer, len.min(i32::MAX as usize))?;
    let mut done = 0;
    let mut part = [0; 256];
    while to.remaining() > 0 {
        let part = &mut part[..to.remaining().min(256)];
        drivers::random::fill(part);
        match to.put(part) {
            Ok(n) if n == part.len() => done += n,
            Ok(n) => return Ok(done + n),
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// `getrlimit(2)`.
pub fn sys_getrlimit(ctx: &mut Ctx<'_>, resource: u32, limit: UserPtr<[u64; 2]>) -> Result<usize> {
    let resource = Resource::from_number(resource).ok_or(Errno::EINVAL)?;
    let Limit { soft, hard } = ctx.process.limits.get(resource);
    limit.write(&[soft, hard])?;
    Ok(0)
}

/// `setrlimit(2)`.
pub fn sys_setrlimit(ctx: &mut Ctx<'_>, resource: u32, limit: UserPtr<[u64; 2]>) -> Result<usize> {
    let [soft, hard] = limit.read()?;
    let resource = Resource::from_number(resource).ok_or(Errno::EINVAL)?;
    ctx.process.limits.set(resource, Limit { soft, hard })?;
    Ok(0)
}

/// `prlimit(2)`.
pub fn sys_prlimit64(
    ctx: &mut Ctx<'_>,
    pid: i32,
    resource: u32,
    new: UserPtr<[u64; 2]>,
    old: UserPtr<[u64; 2]>,
) -> Result<usize> {
    let resource = Resource::from_number(resource).ok_or(Errno::EINVAL)?;
    let new = new.read_opt()?;
    if !is_self(pid) && ctx.process.thread(pid).is_none() {
        return Err(Errno::ESRCH);
    }
    let before = ctx.process.limits.get(resource);
    if let Some([soft, hard]) = new {
        ctx.process.limits.set(resource, Limit { soft, hard })?;
    }
    old.write_opt(&[before.soft, before.hard])?;
    Ok(0)
}

/// What `prctl(2)` keeps for the process, by the number that reads it.
struct Switches {
    dumpable: AtomicU64,
    keep_caps: AtomicU64,
    no_new_privs: AtomicU64,
    subreaper: AtomicU64,
    no_huge_pages: AtomicU64,
    bounding: AtomicU64,
}

static SWITCHES: Switches = Switches {
    dumpable: AtomicU64::new(1),
    keep_caps: AtomicU64::new(0),
    no_new_privs: AtomicU64::new(0),
    subreaper: AtomicU64::new(0),
    no_huge_pages: AtomicU64::new(0),
    bounding: AtomicU64::new(ALL_CAPS),
};

/// Whether `PR_SET_KEEPCAPS` is on.
pub(super) fn keeps_capabilities() -> bool {
    SWITCHES.keep_caps.load(Ordering::Relaxed) == 1
}

/// Whether `PR_SET_THP_DISABLE` is on.
pub(crate) fn huge_pages_disabled() -> bool {
    SWITCHES.no_huge_pages.load(Ordering::Relaxed) == 1
}

/// Reads a switch that is 0 or 1.
fn read(switch: &AtomicU64) -> Result<usize> {
    Ok(switch.load(Ordering::Relaxed) as usize)
}

/// Sets a switch to `value`, which is at most `most`.
fn set(switch: &AtomicU64, value: usize, most: usize) -> Result<usize> {
    if value > most {
        return Err(Errno::EINVAL);
    }
    switch.store(value as u64, Ordering::Relaxed);
    Ok(0)
}

/// `prctl(2)`: what a single process can mean; the rest is `EINVAL`, as on a Linux built without it.
pub fn sys_prctl(
    ctx: &mut Ctx<'_>,
    option: i32,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
) -> Result<usize> {
    let thread = ctx.thread;
    match option {
        // PR_SET_PDEATHSIG, PR_GET_PDEATHSIG
        1 => {
            if a > NSIG as usize {
                return Err(Errno::EINVAL);
            }
            thread
                .parent_death_signal
                .store(a as u64, Ordering::Relaxed);
            Ok(0)
        }
        2 => {
            UserPtr::<i32>::new(a)
                .write(&(thread.parent_death_signal.load(Ordering::Relaxed) as i32))?;
            Ok(0)
        }
        // PR_GET_DUMPABLE, PR_SET_DUMPABLE
        3 => read(&SWITCHES.dumpable),
        4 => set(&SWITCHES.dumpable, a, 1),
        // PR_GET_KEEPCAPS, PR_SET_KEEPCAPS
        7 => read(&SWITCHES.keep_caps),
        8 => set(&SWITCHES.keep_caps, a, 1),
        // PR_SET_NAME, PR_GET_NAME
        15 => {
            let name = match UserPtr::<u8>::new(a).read_cstr(COMM_LEN - 1, Errno::ENAMETOOLONG) {
                Err(Errno::ENAMETOOLONG) => {
                    let mut name = [0; COMM_LEN - 1];
                    UserPtr::<u8>::new(a).read_bytes(&mut name)?;
                    name.to_vec()
                }
                name => name?,
            };
            thread.set_comm(&name);
            Ok(0)
        }
        16 => {
            let mut name = thread.comm();
            name.resize(COMM_LEN, 0);
            UserPtr::<u8>::new(a).write_bytes(&name)?;
            Ok(0)
        }
        // PR_GET_SECCOMP: no filter.
        21 => Ok(0),
        // PR_CAPBSET_READ, PR_CAPBSET_DROP
        23 | 24 if a >= 64 || ALL_CAPS >> a & 1 == 0 => Err(Errno::EINVAL),
        23 => Ok((SWITCHES.bounding.load(Ordering::Relaxed) >> a & 1) as usize),
        24 => {
            SWITCHES.bounding.fetch_and(!(1 << a), Ordering::Relaxed);
            Ok(0)
        }
        // PR_SET_TIMERSLACK, PR_GET_TIMERSLACK: ours is none, whatever is allowed.
        29 => {
            thread
                .timer_slack_ns
                .store(if a == 0 { 50_000 } else { a as u64 }, Ordering::Relaxed);
            Ok(0)
        }
        30 => Ok(thread.timer_slack_ns.load(Ordering::Relaxed) as usize),
        // PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER
        36 => set(&SWITCHES.subreaper, usize::from(a != 0), 1),
        37 => {
            UserPtr::<i32>::new(a).write(&(SWITCHES.subreaper.load(Ordering::Relaxed) as i32))?;
            Ok(0)
        }
        // PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS
        38 if a != 1 || (b, c, d) != (0, 0, 0) => Err(Errno::EINVAL),
        38 => set(&SWITCHES.no_new_privs, 1, 1),
        39 if (a, b, c, d) != (0, 0, 0, 0) => Err(Errno::EINVAL),
        39 => read(&SWITCHES.no_new_privs),
        // PR_GET_TID_ADDRESS
        40 => {
            UserPtr::<usize>::new(a).write(&thread.clear_child_tid())?;
            Ok(0)
        }
        // PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
        41 if (b, c, d) != (0, 0, 0) => Err(Errno::EINVAL),
        41 => set(&SWITCHES.no_huge_pages, usize::from(a != 0), 1),
        42 => read(&SWITCHES.no_huge_pages),
        _ => Err(Errno::EINVAL),
    }
}

/// `personality(2)`: there is one, Linux.
pub fn sys_personality(_: &mut Ctx<'_>, persona: u32) -> Result<usize> {
    match persona {
        0 | u32::MAX => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// `reboot(2)`: its magic numbers, and what it can do here.
pub fn sys_reboot(
    ctx: &mut Ctx<'_>,
    magic: u32,
    magic2: u32,
    command: u32,
    _arg: usize,
) -> Result<usize> {
    const MAGIC: u32 = 0xfee1_dead;
    const MAGICS: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const CMD_RESTART: u32 = 0x0123_4567;
    const CMD_HALT: u32 = 0xcdef_0123;
    const CMD_CAD_ON: u32 = 0x89ab_cdef;
    const CMD_CAD_OFF: u32 = 0;
    const CMD_POWER_OFF: u32 = 0x4321_fedc;
    if magic != MAGIC || !MAGICS.contains(&magic2) {
        return Err(Errno::EINVAL);
    }
    match command {
        // There is no key for it.
        CMD_CAD_ON | CMD_CAD_OFF => Ok(0),
        CMD_HALT | CMD_POWER_OFF => ctx.process.exit(ExitStatus::Code(0)),
        CMD_RESTART => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}
