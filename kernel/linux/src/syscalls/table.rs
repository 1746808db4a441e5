//! The one table of system calls: number, name, arguments, handler (numbers of x86-64,
//! `arch/x86/entry/syscalls/syscall_64.tbl`).
//!
//! The dispatcher, the trace and the documentation come from it. A number given twice does not
//! compile (an unreachable `match` arm).
use errno::Result;

use super::{ArgKind, SyscallInfo};
use crate::ctx::Ctx;

macro_rules! syscalls {
    ($($number:literal $name:ident ( $($arg:ident : $kind:ident),* ) => $handler:path;)*) => {
        /// Runs the call `number` with the six argument registers.
        #[deny(unreachable_patterns)]
        pub(super) fn call(ctx: &mut Ctx<'_>, number: u64, args: [u64; 6]) -> Result<usize> {
            let mut registers = args.into_iter();
            let _ = &mut registers;
            match number {
                $($number => $handler(ctx, $({
                    const _: ArgKind = ArgKind::$kind;
                    super::next(&mut registers)
                }),*),)*
                _ => super::unknown(number),
            }
        }

        /// Every call that is handled, in the order of the table.
        pub static TABLE: &[SyscallInfo] = &[$(SyscallInfo {
            number: $number,
            name: stringify!($name),
            args: &[$((stringify!($arg), ArgKind::$kind)),*],
        }),*];
    };
}

/// The line of the table for `number`.
pub fn info(number: u32) -> Option<&'static SyscallInfo> {
    TABLE.iter().find(|info| info.number == number)
}

syscalls! {
    // ---- memory (linux-core) ----
    9 mmap(addr: Ptr, len: Size, prot: Hex, flags: Hex, fd: Fd, offset: Hex) => super::memory::sys_mmap;
    10 mprotect(addr: Ptr, len: Size, prot: Hex) => super::memory::sys_mprotect;
    11 munmap(addr: Ptr, len: Size) => super::memory::sys_munmap;
    12 brk(addr: Ptr) => super::memory::sys_brk;
    25 mremap(addr: Ptr, old_len: Size, new_len: Size, flags: Hex, to: Ptr) => super::memory::sys_mremap;
    26 msync(addr: Ptr, len: Size, flags: Hex) => super::memory::sys_msync;
    27 mincore(addr: Ptr, len: Size, vector: Ptr) => super::memory::sys_mincore;
    28 madvise(addr: Ptr, len: Size, advice: Int) => super::memory::sys_madvise;
    149 mlock(addr: Ptr, len: Size) => super::memory::sys_mlock;
    150 munlock(addr: Ptr, len: Size) => super::memory::sys_munlock;
    151 mlockall(flags: Hex) => super::memory::sys_mlockall;
    152 munlockall() => super::memory::sys_munlockall;
    325 mlock2(addr: Ptr, len: Size, flags: Hex) => super::memory::sys_mlock2;
    329 pkey_mprotect(addr: Ptr, len: Size, prot: Hex, key: Int) => super::memory::sys_pkey_mprotect;

    // ---- threads and futexes (linux-core) ----
    56 clone(flags: Hex, stack: Ptr, parent_tid: Ptr, child_tid: Ptr, tls: Ptr) => super::threads::sys_clone;
    57 fork() => super::threads::sys_fork;
    58 vfork() => super::threads::sys_fork;
    59 execve(path: Path, argv: Ptr, envp: Ptr) => super::threads::sys_execve;
    60 exit(status: Int) => super::threads::sys_exit;
    61 wait4(pid: Int, status: Ptr, options: Hex, usage: Ptr) => super::threads::sys_wait4;
    158 arch_prctl(code: Hex, addr: Ptr) => super::threads::sys_arch_prctl;
    202 futex(addr: Ptr, op: Hex, value: Uint, timeout: Ptr, addr2: Ptr, value3: Hex) => super::futex::sys_futex;
    218 set_tid_address(addr: Ptr) => super::threads::sys_set_tid_address;
    231 exit_group(status: Int) => super::threads::sys_exit_group;
    247 waitid(kind: Int, id: Int, info: Ptr, options: Hex) => super::threads::sys_waitid;
    273 set_robust_list(head: Ptr, len: Size) => super::threads::sys_set_robust_list;
    274 get_robust_list(tid: Int, head: Ptr, len: Ptr) => super::threads::sys_get_robust_list;
    334 rseq(addr: Ptr, len: Size, flags: Hex, signature: Hex) => super::rseq::sys_rseq;
    435 clone3(args: Ptr, size: Size) => super::threads::sys_clone3;
    449 futex_waitv(waiters: Ptr, count: Uint, flags: Hex, timeout: Ptr, clock: Int) => super::futex::sys_futex_waitv;

    // ---- signals (linux-core) ----
    13 rt_sigaction(signal: Signal, new: Ptr, old: Ptr, size: Size) => super::signals::sys_rt_sigaction;
    14 rt_sigprocmask(how: Int, new: Ptr, old: Ptr, size: Size) => super::signals::sys_rt_sigprocmask;
    15 rt_sigreturn() => super::signals::sys_rt_sigreturn;
    34 pause() => super::signals::sys_pause;
    62 kill(pid: Int, signal: Signal) => super::signals::sys_kill;
    127 rt_sigpending(set: Ptr, size: Size) => super::signals::sys_rt_sigpending;
    128 rt_sigtimedwait(set: Ptr, info: Ptr, timeout: Ptr, size: Size) => super::signals::sys_rt_sigtimedwait;
    129 rt_sigqueueinfo(pid: Int, signal: Signal, info: Ptr) => super::signals::sys_rt_sigqueueinfo;
    130 rt_sigsuspend(mask: Ptr, size: Size) => super::signals::sys_rt_sigsuspend;
    131 sigaltstack(new: Ptr, old: Ptr) => super::signals::sys_sigaltstack;
    200 tkill(tid: Int, signal: Signal) => super::signals::sys_tkill;
    219 restart_syscall() => super::signals::sys_restart_syscall;
    234 tgkill(pid: Int, tid: Int, signal: Signal) => super::signals::sys_tgkill;
    297 rt_tgsigqueueinfo(pid: Int, tid: Int, signal: Signal, info: Ptr) => super::signals::sys_rt_tgsigqueueinfo;

    // ---- time ----
    35 nanosleep(wanted: Ptr, rest: Ptr) => super::times::sys_nanosleep;
    36 getitimer(which: Int, current: Ptr) => super::timers::sys_getitimer;
    37 alarm(seconds: Uint) => super::timers::sys_alarm;
    38 setitimer(which: Int, new: Ptr, old: Ptr) => super::timers::sys_setitimer;
    96 gettimeofday(now: Ptr, zone: Ptr) => super::times::sys_gettimeofday;
    98 getrusage(who: Int, usage: Ptr) => super::times::sys_getrusage;
    100 times(buffer: Ptr) => super::times::sys_times;
    159 adjtimex(timex: Ptr) => super::times::sys_adjtimex;
    164 settimeofday(time: Ptr, zone: Ptr) => super::times::sys_settimeofday;
    201 time(now: Ptr) => super::times::sys_time;
    222 timer_create(clock: Int, event: Ptr, timer: Ptr) => super::timers::sys_timer_create;
    223 timer_settime(timer: Int, flags: Hex, new: Ptr, old: Ptr) => super::timers::sys_timer_settime;
    224 timer_gettime(timer: Int, current: Ptr) => super::timers::sys_timer_gettime;
    225 timer_getoverrun(timer: Int) => super::timers::sys_timer_getoverrun;
    226 timer_delete(timer: Int) => super::timers::sys_timer_delete;
    227 clock_settime(clock: Int, time: Ptr) => super::times::sys_clock_settime;
    228 clock_gettime(clock: Int, time: Ptr) => super::times::sys_clock_gettime;
    229 clock_getres(clock: Int, resolution: Ptr) => super::times::sys_clock_getres;
    230 clock_nanosleep(clock: Int, flags: Hex, wanted: Ptr, rest: Ptr) => super::times::sys_clock_nanosleep;
    305 clock_adjtime(clock: Int, timex: Ptr) => super::times::sys_clock_adjtime;

    // ---- identity ----
    39 getpid() => super::ids::sys_getpid;
    102 getuid() => super::ids::sys_getuid;
    104 getgid() => super::ids::sys_getgid;
    105 setuid(id: Uint) => super::ids::sys_setuid;
    106 setgid(id: Uint) => super::ids::sys_setgid;
    107 geteuid() => super::ids::sys_geteuid;
    108 getegid() => super::ids::sys_getegid;
    109 setpgid(pid: Int, group: Int) => super::ids::sys_setpgid;
    110 getppid() => super::ids::sys_getppid;
    111 getpgrp() => super::ids::sys_getpgrp;
    112 setsid() => super::ids::sys_setsid;
    113 setreuid(real: Uint, effective: Uint) => super::ids::sys_setreuid;
    114 setregid(real: Uint, effective: Uint) => super::ids::sys_setregid;
    115 getgroups(size: Int, list: Ptr) => super::ids::sys_getgroups;
    116 setgroups(size: Size, list: Ptr) => super::ids::sys_setgroups;
    117 setresuid(real: Uint, effective: Uint, saved: Uint) => super::ids::sys_setresuid;
    118 getresuid(real: Ptr, effective: Ptr, saved: Ptr) => super::ids::sys_getresuid;
    119 setresgid(real: Uint, effective: Uint, saved: Uint) => super::ids::sys_setresgid;
    120 getresgid(real: Ptr, effective: Ptr, saved: Ptr) => super::ids::sys_getresgid;
    121 getpgid(pid: Int) => super::ids::sys_getpgid;
    122 setfsuid(id: Uint) => super::ids::sys_setfsuid;
    123 setfsgid(id: Uint) => super::ids::sys_setfsgid;
    124 getsid(pid: Int) => super::ids::sys_getsid;
    125 capget(header: Ptr, data: Ptr) => super::ids::sys_capget;
    126 capset(header: Ptr, data: Ptr) => super::ids::sys_capset;
    186 gettid() => super::ids::sys_gettid;

    // ---- scheduling ----
    24 sched_yield() => super::schedule::sys_sched_yield;
    140 getpriority(which: Int, who: Int) => super::schedule::sys_getpriority;
    141 setpriority(which: Int, who: Int, nice: Int) => super::schedule::sys_setpriority;
    142 sched_setparam(tid: Int, param: Ptr) => super::schedule::sys_sched_setparam;
    143 sched_getparam(tid: Int, param: Ptr) => super::schedule::sys_sched_getparam;
    144 sched_setscheduler(tid: Int, policy: Int, param: Ptr) => super::schedule::sys_sched_setscheduler;
    145 sched_getscheduler(tid: Int) => super::schedule::sys_sched_getscheduler;
    146 sched_get_priority_max(policy: Int) => super::schedule::sys_sched_get_priority_max;
    147 sched_get_priority_min(policy: Int) => super::schedule::sys_sched_get_priority_min;
    148 sched_rr_get_interval(tid: Int, interval: Ptr) => super::schedule::sys_sched_rr_get_interval;
    203 sched_setaffinity(tid: Int, len: Size, mask: Ptr) => super::schedule::sys_sched_setaffinity;
    204 sched_getaffinity(tid: Int, len: Size, mask: Ptr) => super::schedule::sys_sched_getaffinity;
    252 ioprio_get(which: Int, who: Int) => super::schedule::sys_ioprio_get;
    309 getcpu(cpu: Ptr, node: Ptr, cache: Ptr) => super::schedule::sys_getcpu;
    314 sched_setattr(tid: Int, attr: Ptr, flags: Hex) => super::schedule::sys_sched_setattr;
    315 sched_getattr(tid: Int, attr: Ptr, size: Size, flags: Hex) => super::schedule::sys_sched_getattr;
    324 membarrier(command: Int, flags: Hex, cpu: Int) => super::schedule::sys_membarrier;

    // ---- limits, machine ----
    63 uname(buffer: Ptr) => super::misc::sys_uname;
    97 getrlimit(resource: Int, limit: Ptr) => super::misc::sys_getrlimit;
    99 sysinfo(info: Ptr) => super::misc::sys_sysinfo;
    135 personality(persona: Hex) => super::misc::sys_personality;
    157 prctl(option: Int, a: Hex, b: Hex, c: Hex, d: Hex) => super::misc::sys_prctl;
    160 setrlimit(resource: Int, limit: Ptr) => super::misc::sys_setrlimit;
    169 reboot(magic: Hex, magic2: Hex, command: Hex, arg: Ptr) => super::misc::sys_reboot;
    170 sethostname(name: Path, len: Size) => super::misc::sys_sethostname;
    171 setdomainname(name: Path, len: Size) => super::misc::sys_setdomainname;
    302 prlimit64(pid: Int, resource: Int, new: Ptr, old: Ptr) => super::misc::sys_prlimit64;
    318 getrandom(buffer: Ptr, len: Size, flags: Hex) => super::misc::sys_getrandom;

    // ---- files and directories (linux-io) ----

    // ---- descriptors and transfers (linux-io) ----

    // ---- readiness: poll, select, epoll, eventfd, timerfd, signalfd (linux-io) ----

    // ---- sockets (linux-io) ----
}
