//! Who the program is: process, thread, user and group ids, and capabilities.
//!
//! There is one process, in one session and group, that starts as root and may become somebody else.
use errno::{Errno, Result};

use super::times::is_self;
use crate::ctx::Ctx;
use crate::process::{ALL_CAPS, Credentials, PARENT_PID, PID};
use crate::uaccess::UserPtr;

/// "Leave it as it is" for the calls that set several ids.
const KEEP: u32 = u32::MAX;

/// `getpid(2)`.
pub fn sys_getpid(_: &mut Ctx<'_>) -> Result<usize> {
    Ok(PID as usize)
}

/// `getppid(2)`.
pub fn sys_getppid(_: &mut Ctx<'_>) -> Result<usize> {
    Ok(PARENT_PID as usize)
}

/// `gettid(2)`.
pub fn sys_gettid(ctx: &mut Ctx<'_>) -> Result<usize> {
    Ok(ctx.thread.tid as usize)
}

/// `getpgrp(2)`.
pub fn sys_getpgrp(_: &mut Ctx<'_>) -> Result<usize> {
    Ok(PID as usize)
}

/// `getpgid(2)`.
pub fn sys_getpgid(_: &mut Ctx<'_>, pid: i32) -> Result<usize> {
    if is_self(pid) {
        Ok(PID as usize)
    } else {
        Err(Errno::ESRCH)
    }
}

/// `setpgid(2)`: the process leads its group and session already, which may not change its group.
pub fn sys_setpgid(_: &mut Ctx<'_>, pid: i32, group: i32) -> Result<usize> {
    if group < 0 {
        return Err(Errno::EINVAL);
    }
    if !is_self(pid) {
        return Err(Errno::ESRCH);
    }
    Err(Errno::EPERM)
}

/// `getsid(2)`.
pub fn sys_getsid(_: &mut Ctx<'_>, pid: i32) -> Result<usize> {
    if is_self(pid) {
        Ok(PID as usize)
    } else {
        Err(Errno::ESRCH)
    }
}

/// `setsid(2)`: a group leader cannot make a session.
pub fn sys_setsid(_: &mut Ctx<'_>) -> Result<usize> {
    Err(Errno::EPERM)
}

/// Reads one of the ids.
fn id(ctx: &Ctx<'_>, pick: impl FnOnce(&Credentials) -> u32) -> Result<usize> {
    Ok(pick(&ctx.process.credentials.lock()) as usize)
}

/// `getuid(2)`.
pub fn sys_getuid(ctx: &mut Ctx<'_>) -> Result<usize> {
    id(ctx, |who| who.uid[0])
}

/// `geteuid(2)`.
pub fn sys_geteuid(ctx: &mut Ctx<'_>) -> Result<usize> {
    id(ctx, |who| who.uid[1])
}

/// `getgid(2)`.
pub fn sys_getgid(ctx: &mut Ctx<'_>) -> Result<usize> {
    id(ctx, |who| who.gid[0])
}

/// `getegid(2)`.
pub fn sys_getegid(ctx: &mut Ctx<'_>) -> Result<usize> {
    id(ctx, |who| who.gid[1])
}

/// Whether the capability `number` is in effect.
fn capable(who: &Credentials, number: u32) -> bool {
    who.caps[0] >> number & 1 == 1
}

/// `CAP_SETGID`.
const CAP_SETGID: u32 = 6;
/// `CAP_SETUID`.
const CAP_SETUID: u32 = 7;

/// Sets real, effective and saved id; each must be one of the present three unless the caller may set any.
fn set_ids(ids: &mut [u32; 4], wanted: [u32; 3], any: bool) -> Result<usize> {
    let known = [ids[0], ids[1], ids[2]];
    if wanted
        .iter()
        .any(|id| *id != KEEP && !any && !known.contains(id))
    {
        return Err(Errno::EPERM);
    }
    for (id, wanted) in ids.iter_mut().zip(wanted) {
        if wanted != KEEP {
            *id = wanted;
        }
    }
    // The file-system id follows the effective one.
    ids[3] = ids[1];
    Ok(0)
}

/// What `setreuid(2)` does to the saved id: it becomes the effective one when the real one is set, or the effective
/// one to something else than the real one.
fn saved_after(ids: &[u32; 4], real: u32, effective: u32) -> u32 {
    if real != KEEP || effective != KEEP && effective != ids[0] {
        if effective == KEEP { ids[1] } else { effective }
    } else {
        KEEP
    }
}

/// Changes user ids; a program that gives up root for good loses its capabilities (`capabilities(7)`).
fn set_uids(
    ctx: &Ctx<'_>,
    wanted: impl FnOnce(&Credentials, bool) -> Result<[u32; 3]>,
) -> Result<usize> {
    let mut who = ctx.process.credentials.lock();
    let any = capable(&who, CAP_SETUID);
    let wanted = wanted(&who, any)?;
    let was_root = who.uid[..3].contains(&0);
    let was_effective_root = who.uid[1] == 0;
    set_ids(&mut who.uid, wanted, any)?;
    let keep = super::misc::keeps_capabilities();
    if was_root && !who.uid[..3].contains(&0) && !keep {
        who.caps[1] = 0;
    }
    if was_effective_root && who.uid[1] != 0 {
        who.caps[0] = 0;
    } else if !was_effective_root && who.uid[1] == 0 {
        who.caps[0] = who.caps[1];
    }
    Ok(0)
}

fn set_gids(
    ctx: &Ctx<'_>,
    wanted: impl FnOnce(&Credentials, bool) -> Result<[u32; 3]>,
) -> Result<usize> {
    let mut who = ctx.process.credentials.lock();
    let any = capable(&who, CAP_SETGID);
    let wanted = wanted(&who, any)?;
    set_ids(&mut who.gid, wanted, any)
}

/// The ids that `setuid(2)` and `setgid(2)` set: all three for who may, else the effective one.
fn for_set(id: u32, any: bool) -> Result<[u32; 3]> {
    match (id, any) {
        (KEEP, _) => Err(Errno::EINVAL),
        (id, true) => Ok([id; 3]),
        (id, false) => Ok([KEEP, id, KEEP]),
    }
}

/// `setuid(2)`.
pub fn sys_setuid(ctx: &mut Ctx<'_>, id: u32) -> Result<usize> {
    set_uids(ctx, |_, any| for_set(id, any))
}

/// `setgid(2)`.
pub fn sys_setgid(ctx: &mut Ctx<'_>, id: u32) -> Result<usize> {
    set_gids(ctx, |_, any| for_set(id, any))
}

/// `setreuid(2)`.
pub fn sys_setreuid(ctx: &mut Ctx<'_>, real: u32, effective: u32) -> Result<usize> {
    set_uids(ctx, |who, _| {
        Ok([real, effective, saved_after(&who.uid, real, effective)])
    })
}

/// `setregid(2)`.
pub fn sys_setregid(ctx: &mut Ctx<'_>, real: u32, effective: u32) -> Result<usize> {
    set_gids(ctx, |who, _| {
        Ok([real, effective, saved_after(&who.gid, real, effective)])
    })
}

/// `setresuid(2)`.
pub fn sys_setresuid(ctx: &mut Ctx<'_>, real: u32, effective: u32, saved: u32) -> Result<usize> {
    set_uids(ctx, |_, _| Ok([real, effective, saved]))
}

/// `setresgid(2)`.
pub fn sys_setresgid(ctx: &mut Ctx<'_>, real: u32, effective: u32, saved: u32) -> Result<usize> {
    set_gids(ctx, |_, _| Ok([real, effective, saved]))
}

fn write_three(ids: [u32; 4], to: [UserPtr<u32>; 3]) -> Result<usize> {
    for (id, to) in ids.iter().zip(to) {
        to.write(id)?;
    }
    Ok(0)
}

/// `getresuid(2)`.
pub fn sys_getresuid(
    ctx: &mut Ctx<'_>,
    r: UserPtr<u32>,
    e: UserPtr<u32>,
    s: UserPtr<u32>,
) -> Result<usize> {
    let ids = ctx.process.credentials.lock().uid;
    write_three(ids, [r, e, s])
}

/// `getresgid(2)`.
pub fn sys_getresgid(
    ctx: &mut Ctx<'_>,
    r: UserPtr<u32>,
    e: UserPtr<u32>,
    s: UserPtr<u32>,
) -> Result<usize> {
    let ids = ctx.process.credentials.lock().gid;
    write_three(ids, [r, e, s])
}

/// Sets the file-system id and answers the one before, also when it may not (`setfsuid(2)`).
fn set_fs_id(ids: &mut [u32; 4], id: u32, any: bool) -> usize {
    let before = ids[3];
    if any || ids.contains(&id) {
        ids[3] = id;
    }
    before as usize
}

/// `setfsuid(2)`.
pub fn sys_setfsuid(ctx: &mut Ctx<'_>, id: u32) -> Result<usize> {
    let mut who = ctx.process.credentials.lock();
    let any = capable(&who, CAP_SETUID) && id != KEEP;
    Ok(set_fs_id(&mut who.uid, id, any))
}

/// `setfsgid(2)`.
pub fn sys_setfsgid(ctx: &mut Ctx<'_>, id: u32) -> Result<usize> {
    let mut who = ctx.process.credentials.lock();
    let any = capable(&who, CAP_SETGID) && id != KEEP;
    Ok(set_fs_id(&mut who.gid, id, any))
}

/// `NGROUPS_MAX`.
const NGROUPS_MAX: usize = 65536;

/// `getgroups(2)`.
pub fn sys_getgroups(ctx: &mut Ctx<'_>, size: i32, list: UserPtr<u32>) -> Result<usize> {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let groups = ctx.process.credentials.lock().groups.clone();
    if size > 0 {
        if size < groups.len() {
            return Err(Errno::EINVAL);
        }
        for (n, group) in groups.iter().enumerate() {
            list.add(n).write(group)?;
        }
    }
    Ok(groups.len())
}

/// `setgroups(2)`.
pub fn sys_setgroups(ctx: &mut Ctx<'_>, size: usize, list: UserPtr<u32>) -> Result<usize> {
    if !capable(&ctx.process.credentials.lock(), CAP_SETGID) {
        return Err(Errno::EPERM);
    }
    if size > NGROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let groups = list.read_vec(size)?;
    ctx.process.credentials.lock().groups = groups;
    Ok(0)
}

/// `_LINUX_CAPABILITY_VERSION_1` to `_3` and how many words of each set they have.
const CAPABILITY_VERSIONS: [(u32, usize); 3] =
    [(0x1998_0330, 1), (0x2007_1026, 2), (0x2008_0522, 2)];

/// The words of a capability header, or an error after the preferred version was written into it.
fn capability_words(header: UserPtr<[u32; 2]>) -> Result<(usize, i32)> {
    let [version, pid] = header.read()?;
    match CAPABILITY_VERSIONS
        .iter()
        .find(|(known, _)| *known == version)
    {
        Some((_, words)) => Ok((*words, pid as i32)),
        None => {
            header.write(&[CAPABILITY_VERSIONS[2].0, pid])?;
            Err(Errno::EINVAL)
        }
    }
}

/// `capget(2)`.
pub fn sys_capget(
    ctx: &mut Ctx<'_>,
    header: UserPtr<[u32; 2]>,
    data: UserPtr<[u32; 3]>,
) -> Result<usize> {
    let (words, pid) = match capability_words(header) {
        // Without a place for the sets the call only asks for the version.
        Ok(_) | Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        other => other?,
    };
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    if !is_self(pid) && ctx.process.thread(pid).is_none() {
        return Err(Errno::ESRCH);
    }
    let caps = ctx.process.credentials.lock().caps;
    for word in 0..words {
        data.add(word)
            .write(&caps.map(|set| (set >> (32 * word)) as u32))?;
    }
    Ok(0)
}

/// `capset(2)`: what is given up stays given up.
pub fn sys_capset(
    ctx: &mut Ctx<'_>,
    header: UserPtr<[u32; 2]>,
    data: UserPtr<[u32; 3]>,
) -> Result<usize> {
    let (words, pid) = capability_words(header)?;
    if !is_self(pid) && pid != ctx.thread.tid {
        return Err(Errno::EPERM);
    }
    let mut wanted = [0_u64; 3];
    for word in 0..words {
        let values = data.add(word).read()?;
        for (set, value) in wanted.iter_mut().zip(values) {
            *set |= u64::from(value) << (32 * word);
        }
    }
    let wanted = wanted.map(|set| set & ALL_CAPS);
    let mut who = ctx.process.credentials.lock();
    let [effective, permitted, inheritable] = wanted;
    let grows = permitted & !who.caps[1] != 0
        || effective & !permitted != 0
        || inheritable & !(who.caps[2] | who.caps[1]) != 0;
    if grows {
        return Err(Errno::EPERM);
    }
    who.caps = wanted;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_change_as_the_manual_says() {
        let mut ids = [1000, 1000, 1000, 1000];
        assert_eq!(set_ids(&mut ids, [KEEP, 0, KEEP], false), Err(Errno::EPERM));
        assert_eq!(ids, [1000; 4]);
        let mut ids = [0; 4];
        assert_eq!(set_ids(&mut ids, [KEEP, 33, KEEP], true), Ok(0));
        assert_eq!(ids, [0, 33, 0, 33]);
        assert_eq!(set_ids(&mut ids, [KEEP, 0, KEEP], false), Ok(0));
        assert_eq!(saved_after(&[5, 6, 7, 6], KEEP, 5), KEEP);
        assert_eq!(saved_after(&[5, 6, 7, 6], KEEP, 9), 9);
        assert_eq!(saved_after(&[5, 6, 7, 6], 8, KEEP), 6);
        assert_eq!(for_set(7, false), Ok([KEEP, 7, KEEP]));
    }
}
