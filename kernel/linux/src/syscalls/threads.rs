//! Making and ending threads: `clone(2)`, `clone3(2)`, `exit(2)`, and the calls that need a second process.
use core::sync::atomic::Ordering;

use errno::{Errno, Result};
use machine::user;

use crate::ctx::Ctx;
use crate::process::{ExitStatus, PID};
use crate::run;
use crate::signal::state::{AltStack, SS_DISABLE};
use crate::thread::LinuxThread;
use crate::uaccess::{USER_END, UserPtr};

const CSIGNAL: u64 = 0xff;
const CLONE_VM: u64 = 0x100;
const CLONE_FS: u64 = 0x200;
const CLONE_FILES: u64 = 0x400;
const CLONE_SIGHAND: u64 = 0x800;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PTRACE: u64 = 0x2000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_SYSVSEM: u64 = 0x4_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_DETACHED: u64 = 0x40_0000;
const CLONE_UNTRACED: u64 = 0x80_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;
const CLONE_IO: u64 = 0x8000_0000;

/// What a thread shares with its process by definition.
const THREAD: u64 = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
/// Everything a thread may be made with.
const KNOWN: u64 = THREAD
    | CLONE_FS
    | CLONE_FILES
    | CLONE_PTRACE
    | CLONE_VFORK
    | CLONE_PARENT
    | CLONE_SYSVSEM
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID
    | CLONE_DETACHED
    | CLONE_UNTRACED
    | CLONE_CHILD_SETTID
    | CLONE_IO;

struct Request {
    flags: u64,
    stack: usize,
    tls: usize,
    parent_tid: usize,
    child_tid: usize,
}

pub(super) fn sys_clone(
    ctx: &mut Ctx<'_>,
    flags: u64,
    stack: usize,
    parent_tid: usize,
    child_tid: usize,
    tls: usize,
) -> Result<usize> {
    let flags = flags & 0xffff_ffff;
    clone(
        ctx,
        &Request {
            flags: flags & !CSIGNAL,
            stack,
            tls,
            parent_tid,
            child_tid,
        },
    )
}

/// The smallest `struct clone_args` and the fields known here.
const CLONE_ARGS_MIN: usize = 64;
const CLONE_ARGS_FIELDS: usize = 11;

pub(super) fn sys_clone3(ctx: &mut Ctx<'_>, args: UserPtr<u64>, size: usize) -> Result<usize> {
    if size < CLONE_ARGS_MIN {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut fields = [0u64; CLONE_ARGS_FIELDS];
    for (n, field) in fields.iter_mut().enumerate().take(size / 8) {
        *field = args.add(n).read()?;
    }
    // What a newer program says beyond the known fields must be nothing.
    for n in CLONE_ARGS_FIELDS..size / 8 {
        if args.add(n).read()? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    let [
        flags,
        _pidfd,
        child_tid,
        parent_tid,
        exit_signal,
        stack,
        stack_size,
        tls,
        set_tid,
        set_tid_size,
        cgroup,
    ] = fields;
    if flags & (CSIGNAL | CLONE_DETACHED) != 0 || (stack == 0) != (stack_size == 0) || cgroup != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & CLONE_THREAD != 0 && exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    if set_tid_size != 0 || set_tid != 0 {
        return Err(
            if set_tid_size > 32 || (set_tid == 0) != (set_tid_size == 0) {
                Errno::EINVAL
            } else {
                Errno::EPERM
            },
        );
    }
    let top = stack
        .checked_add(stack_size)
        .filter(|top| *top <= USER_END as u64)
        .ok_or(Errno::EINVAL)?;
    clone(
        ctx,
        &Request {
            flags,
            stack: top as usize,
            tls: tls as usize,
            parent_tid: parent_tid as usize,
            child_tid: child_tid as usize,
        },
    )
}

fn clone(ctx: &mut Ctx<'_>, request: &Request) -> Result<usize> {
    let flags = request.flags;
    if flags & CLONE_SIGHAND != 0 && flags & CLONE_VM == 0
        || flags & CLONE_THREAD != 0 && flags & CLONE_SIGHAND == 0
    {
        return Err(Errno::EINVAL);
    }
    if flags & CLONE_THREAD == 0 {
        // One process is all there is: no fork, no vfork, no new process that shares memory.
        log::info!(
            "the program asked for a second process (clone flags {flags:#x}); there is only one"
        );
        return Err(Errno::ENOSYS);
    }
    if flags & CLONE_PIDFD != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let tid = ctx.process.allocate_tid()?;
    let parent = ctx.thread;
    let child = LinuxThread::new(tid, &parent.comm(), parent.signals.mask());
    if flags & CLONE_VFORK != 0 {
        child.signals.set_altstack(parent.signals.altstack());
    } else {
        // A thread that shares memory starts without its creator's alternate stack.
        child.signals.set_altstack(AltStack {
            flags: SS_DISABLE,
            ..AltStack::DISABLED
        });
    }
    child.timer_slack_ns.store(
        parent.timer_slack_ns.load(Ordering::Relaxed),
        Ordering::Relaxed,
    );
    let mut registers = ctx.user.duplicate();
    registers.set_return(0);
    if request.stack != 0 {
        registers.regs.rsp = request.stack as u64;
    }
    if flags & CLONE_SETTLS != 0 && !registers.set_fs_base(request.tls) {
        return Err(Errno::EPERM);
    }
    if flags & CLONE_CHILD_CLEARTID != 0 {
        child.set_clear_child_tid(request.child_tid);
    }
    if flags & CLONE_PARENT_SETTID != 0 {
        user::write_u32(request.parent_tid, tid as u32).map_err(|_| Errno::EFAULT)?;
    }
    if flags & CLONE_CHILD_SETTID != 0 {
        // Linux does this in the child and forgets an error; memory is shared, so it can be done here.
        let _ = user::write_u32(request.child_tid, tid as u32);
    }
    let (affinity, nice) = parent
        .sched()
        .map_or((sched::CpuSet::ALL, 0), |me| (me.affinity(), me.nice()));
    let options = sched::SpawnOptions {
        name: parent.comm_text(),
        affinity,
        nice,
    };
    run::start(ctx.process, child, registers, options)?;
    Ok(tid as usize)
}

/// `fork(2)`, `vfork(2)`: there is one process.
pub(super) fn sys_fork(_ctx: &mut Ctx<'_>) -> Result<usize> {
    log::info!("the program asked for a second process (fork); there is only one");
    Err(Errno::ENOSYS)
}

/// `execve(2)`, `execveat(2)`: the program is the machine's only one and cannot be replaced.
pub(super) fn sys_execve(
    _ctx: &mut Ctx<'_>,
    _path: usize,
    _argv: usize,
    _envp: usize,
) -> Result<usize> {
    Err(Errno::ENOSYS)
}

pub(super) fn sys_exit(ctx: &mut Ctx<'_>, status: i32) -> Result<usize> {
    if ctx.thread.tid == PID {
        ctx.process.set_leader_code(status as u8);
    }
    ctx.thread.set_exiting();
    Ok(0)
}

pub(super) fn sys_exit_group(ctx: &mut Ctx<'_>, status: i32) -> Result<usize> {
    ctx.process.exit(ExitStatus::Code(status as u8))
}

pub(super) fn sys_set_tid_address(ctx: &mut Ctx<'_>, addr: usize) -> Result<usize> {
    ctx.thread.set_clear_child_tid(addr);
    Ok(ctx.thread.tid as usize)
}

pub(super) fn sys_set_robust_list(ctx: &mut Ctx<'_>, head: usize, len: usize) -> Result<usize> {
    if len != crate::futex::robust::HEAD_SIZE {
        return Err(Errno::EINVAL);
    }
    ctx.thread.set_robust_list(head, len);
    Ok(0)
}

pub(super) fn sys_get_robust_list(
    ctx: &mut Ctx<'_>,
    tid: i32,
    head: UserPtr<u64>,
    len: UserPtr<u64>,
) -> Result<usize> {
    let thread = match tid {
        0 => ctx.thread.clone(),
        tid => ctx.process.thread(tid).ok_or(Errno::ESRCH)?,
    };
    len.write(&(crate::futex::robust::HEAD_SIZE as u64))?;
    head.write(&(thread.robust_list().0 as u64))?;
    Ok(0)
}

/// The only process has no children to wait for (`wait4(2)`, `waitid(2)`).
pub(super) fn sys_wait4(
    _ctx: &mut Ctx<'_>,
    _pid: i32,
    _status: usize,
    options: u32,
    _usage: usize,
) -> Result<usize> {
    const KNOWN: u32 = 1 | 2 | 8 | 0x2000_0000 | 0x4000_0000 | 0x8000_0000;
    if options & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ECHILD)
}

pub(super) fn sys_waitid(
    _ctx: &mut Ctx<'_>,
    kind: i32,
    _id: i32,
    _info: usize,
    options: u32,
) -> Result<usize> {
    const WAIT: u32 = 2 | 4 | 8;
    const KNOWN: u32 = WAIT | 1 | 0x0100_0000 | 0x2000_0000 | 0x4000_0000 | 0x8000_0000;
    if !(0..=3).contains(&kind) || options & WAIT == 0 || options & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ECHILD)
}

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;

pub(super) fn sys_arch_prctl(ctx: &mut Ctx<'_>, code: i32, addr: usize) -> Result<usize> {
    let set = |done: bool| if done { Ok(0) } else { Err(Errno::EPERM) };
    match code {
        ARCH_SET_FS => set(ctx.user.set_fs_base(addr)),
        ARCH_SET_GS => set(ctx.user.set_gs_base(addr)),
        ARCH_GET_FS => UserPtr::new(addr)
            .write(&(ctx.user.fs_base() as u64))
            .map(|()| 0),
        ARCH_GET_GS => UserPtr::new(addr)
            .write(&(ctx.user.gs_base() as u64))
            .map(|()| 0),
        // CPUID faulting, CET, LAM, permission for large states: not provided.
        _ => Err(Errno::EINVAL),
    }
}
