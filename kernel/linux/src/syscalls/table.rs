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
        pub(crate) fn call(ctx: &mut Ctx<'_>, number: u64, args: [u64; 6]) -> Result<usize> {
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
    9 mmap(addr: Ptr, len: Size, prot: ProtFlags, flags: MapFlags, fd: Fd, offset: Hex) => super::memory::sys_mmap;
    10 mprotect(addr: Ptr, len: Size, prot: ProtFlags) => super::memory::sys_mprotect;
    11 munmap(addr: Ptr, len: Size) => super::memory::sys_munmap;
    12 brk(addr: Ptr) => super::memory::sys_brk;
    25 mremap(addr: Ptr, old_len: Size, new_len: Size, flags: RemapFlags, to: Ptr) => super::memory::sys_mremap;
    26 msync(addr: Ptr, len: Size, flags: Hex) => super::memory::sys_msync;
    27 mincore(addr: Ptr, len: Size, vector: Ptr) => super::memory::sys_mincore;
    28 madvise(addr: Ptr, len: Size, advice: Advice) => super::memory::sys_madvise;
    149 mlock(addr: Ptr, len: Size) => super::memory::sys_mlock;
    150 munlock(addr: Ptr, len: Size) => super::memory::sys_munlock;
    151 mlockall(flags: Hex) => super::memory::sys_mlockall;
    152 munlockall() => super::memory::sys_munlockall;
    325 mlock2(addr: Ptr, len: Size, flags: Hex) => super::memory::sys_mlock2;
    329 pkey_mprotect(addr: Ptr, len: Size, prot: ProtFlags, key: Int) => super::memory::sys_pkey_mprotect;

    // ---- threads and futexes (linux-core) ----
    56 clone(flags: CloneFlags, stack: Ptr, parent_tid: Ptr, child_tid: Ptr, tls: Ptr) => super::threads::sys_clone;
    57 fork() => super::threads::sys_fork;
    58 vfork() => super::threads::sys_fork;
    59 execve(path: Path, argv: Ptr, envp: Ptr) => super::threads::sys_execve;
    60 exit(status: Int) => super::threads::sys_exit;
    61 wait4(pid: Int, status: Ptr, options: WaitFlags, usage: Ptr) => super::threads::sys_wait4;
    158 arch_prctl(code: ArchPrctl, addr: Ptr) => super::threads::sys_arch_prctl;
    202 futex(addr: Ptr, op: FutexOp, value: Uint, timeout: Ptr, addr2: Ptr, value3: Hex) => super::futex::sys_futex;
    218 set_tid_address(addr: Ptr) => super::threads::sys_set_tid_address;
    231 exit_group(status: Int) => super::threads::sys_exit_group;
    247 waitid(kind: Int, id: Int, info: Ptr, options: WaitFlags) => super::threads::sys_waitid;
    273 set_robust_list(head: Ptr, len: Size) => super::threads::sys_set_robust_list;
    274 get_robust_list(tid: Int, head: Ptr, len: Ptr) => super::threads::sys_get_robust_list;
    334 rseq(addr: Ptr, len: Size, flags: Hex, signature: Hex) => super::rseq::sys_rseq;
    435 clone3(args: Ptr, size: Size) => super::threads::sys_clone3;
    449 futex_waitv(waiters: Ptr, count: Uint, flags: Hex, timeout: Ptr, clock: Int) => super::futex::sys_futex_waitv;

    // ---- signals (linux-core) ----
    13 rt_sigaction(signal: Signal, new: Ptr, old: Ptr, size: Size) => super::signals::sys_rt_sigaction;
    14 rt_sigprocmask(how: SigHow, new: Ptr, old: Ptr, size: Size) => super::signals::sys_rt_sigprocmask;
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
    222 timer_create(clock: Clock, event: Ptr, timer: Ptr) => super::timers::sys_timer_create;
    223 timer_settime(timer: Int, flags: Hex, new: Ptr, old: Ptr) => super::timers::sys_timer_settime;
    224 timer_gettime(timer: Int, current: Ptr) => super::timers::sys_timer_gettime;
    225 timer_getoverrun(timer: Int) => super::timers::sys_timer_getoverrun;
    226 timer_delete(timer: Int) => super::timers::sys_timer_delete;
    227 clock_settime(clock: Clock, time: Ptr) => super::times::sys_clock_settime;
    228 clock_gettime(clock: Clock, time: Ptr) => super::times::sys_clock_gettime;
    229 clock_getres(clock: Clock, resolution: Ptr) => super::times::sys_clock_getres;
    230 clock_nanosleep(clock: Clock, flags: Hex, wanted: Ptr, rest: Ptr) => super::times::sys_clock_nanosleep;
    305 clock_adjtime(clock: Clock, timex: Ptr) => super::times::sys_clock_adjtime;

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
    97 getrlimit(resource: Resource, limit: Ptr) => super::misc::sys_getrlimit;
    99 sysinfo(info: Ptr) => super::misc::sys_sysinfo;
    135 personality(persona: Hex) => super::misc::sys_personality;
    157 prctl(option: Int, a: Hex, b: Hex, c: Hex, d: Hex) => super::misc::sys_prctl;
    160 setrlimit(resource: Resource, limit: Ptr) => super::misc::sys_setrlimit;
    169 reboot(magic: Hex, magic2: Hex, command: Hex, arg: Ptr) => super::misc::sys_reboot;
    170 sethostname(name: Path, len: Size) => super::misc::sys_sethostname;
    171 setdomainname(name: Path, len: Size) => super::misc::sys_setdomainname;
    302 prlimit64(pid: Int, resource: Resource, new: Ptr, old: Ptr) => super::misc::sys_prlimit64;
    318 getrandom(buffer: Ptr, len: Size, flags: RandomFlags) => super::misc::sys_getrandom;

    // ---- files and directories ----
    2 open(path: Path, flags: OpenFlags, mode: Mode) => super::open::sys_open;
    3 close(fd: Fd) => super::open::sys_close;
    4 stat(path: Path, out: Ptr) => super::stat::sys_stat;
    5 fstat(fd: Fd, out: Ptr) => super::stat::sys_fstat;
    6 lstat(path: Path, out: Ptr) => super::stat::sys_lstat;
    21 access(path: Path, mode: AccessMode) => super::stat::sys_access;
    76 truncate(path: Path, size: Int) => super::attributes::sys_truncate;
    77 ftruncate(fd: Fd, size: Int) => super::attributes::sys_ftruncate;
    78 getdents(fd: Fd, out: Ptr, len: Size) => super::names::sys_getdents;
    79 getcwd(buffer: Ptr, len: Size) => super::names::sys_getcwd;
    80 chdir(path: Path) => super::names::sys_chdir;
    81 fchdir(fd: Fd) => super::names::sys_fchdir;
    82 rename(old: Path, new: Path) => super::names::sys_rename;
    83 mkdir(path: Path, mode: Mode) => super::names::sys_mkdir;
    84 rmdir(path: Path) => super::names::sys_rmdir;
    85 creat(path: Path, mode: Mode) => super::open::sys_creat;
    86 link(old: Path, new: Path) => super::names::sys_link;
    87 unlink(path: Path) => super::names::sys_unlink;
    88 symlink(target: Path, path: Path) => super::names::sys_symlink;
    89 readlink(path: Path, buffer: Filled, len: Int) => super::names::sys_readlink;
    90 chmod(path: Path, mode: Mode) => super::attributes::sys_chmod;
    91 fchmod(fd: Fd, mode: Mode) => super::attributes::sys_fchmod;
    92 chown(path: Path, uid: Int, gid: Int) => super::attributes::sys_chown;
    93 fchown(fd: Fd, uid: Int, gid: Int) => super::attributes::sys_fchown;
    94 lchown(path: Path, uid: Int, gid: Int) => super::attributes::sys_lchown;
    95 umask(mask: Mode) => super::open::sys_umask;
    132 utime(path: Path, times: Ptr) => super::attributes::sys_utime;
    133 mknod(path: Path, mode: Mode, dev: Hex) => super::names::sys_mknod;
    137 statfs(path: Path, out: Ptr) => super::stat::sys_statfs;
    138 fstatfs(fd: Fd, out: Ptr) => super::stat::sys_fstatfs;
    161 chroot(path: Path) => super::names::sys_chroot;
    188 setxattr(path: Path, name: Path, value: Ptr, size: Size, flags: Hex) => super::attributes::sys_setxattr;
    189 lsetxattr(path: Path, name: Path, value: Ptr, size: Size, flags: Hex) => super::attributes::sys_lsetxattr;
    190 fsetxattr(fd: Fd, name: Path, value: Ptr, size: Size, flags: Hex) => super::attributes::sys_fsetxattr;
    191 getxattr(path: Path, name: Path, out: Ptr, size: Size) => super::attributes::sys_getxattr;
    192 lgetxattr(path: Path, name: Path, out: Ptr, size: Size) => super::attributes::sys_lgetxattr;
    193 fgetxattr(fd: Fd, name: Path, out: Ptr, size: Size) => super::attributes::sys_fgetxattr;
    194 listxattr(path: Path, out: Ptr, size: Size) => super::attributes::sys_listxattr;
    195 llistxattr(path: Path, out: Ptr, size: Size) => super::attributes::sys_llistxattr;
    196 flistxattr(fd: Fd, out: Ptr, size: Size) => super::attributes::sys_flistxattr;
    197 removexattr(path: Path, name: Path) => super::attributes::sys_removexattr;
    198 lremovexattr(path: Path, name: Path) => super::attributes::sys_lremovexattr;
    199 fremovexattr(fd: Fd, name: Path) => super::attributes::sys_fremovexattr;
    217 getdents64(fd: Fd, out: Ptr, len: Size) => super::names::sys_getdents64;
    235 utimes(path: Path, times: Ptr) => super::attributes::sys_utimes;
    257 openat(dirfd: DirFd, path: Path, flags: OpenFlags, mode: Mode) => super::open::sys_openat;
    258 mkdirat(dirfd: DirFd, path: Path, mode: Mode) => super::names::sys_mkdirat;
    259 mknodat(dirfd: DirFd, path: Path, mode: Mode, dev: Hex) => super::names::sys_mknodat;
    260 fchownat(dirfd: DirFd, path: Path, uid: Int, gid: Int, flags: AtFlags) => super::attributes::sys_fchownat;
    261 futimesat(dirfd: DirFd, path: Path, times: Ptr) => super::attributes::sys_futimesat;
    262 newfstatat(dirfd: DirFd, path: Path, out: Ptr, flags: AtFlags) => super::stat::sys_newfstatat;
    263 unlinkat(dirfd: DirFd, path: Path, flags: AtFlags) => super::names::sys_unlinkat;
    264 renameat(old_dirfd: DirFd, old: Path, new_dirfd: DirFd, new: Path) => super::names::sys_renameat;
    265 linkat(old_dirfd: DirFd, old: Path, new_dirfd: DirFd, new: Path, flags: AtFlags) => super::names::sys_linkat;
    266 symlinkat(target: Path, dirfd: DirFd, path: Path) => super::names::sys_symlinkat;
    267 readlinkat(dirfd: DirFd, path: Path, buffer: Filled, len: Int) => super::names::sys_readlinkat;
    268 fchmodat(dirfd: DirFd, path: Path, mode: Mode) => super::attributes::sys_fchmodat;
    269 faccessat(dirfd: DirFd, path: Path, mode: AccessMode) => super::stat::sys_faccessat;
    280 utimensat(dirfd: DirFd, path: Path, times: Ptr, flags: AtFlags) => super::attributes::sys_utimensat;
    316 renameat2(old_dirfd: DirFd, old: Path, new_dirfd: DirFd, new: Path, flags: Hex) => super::names::sys_renameat2;
    319 memfd_create(name: Path, flags: Hex) => super::open::sys_memfd_create;
    332 statx(dirfd: DirFd, path: Path, flags: AtFlags, mask: Hex, out: Ptr) => super::stat::sys_statx;
    436 close_range(first: Uint, last: Uint, flags: Hex) => super::open::sys_close_range;
    437 openat2(dirfd: DirFd, path: Path, how: Ptr, size: Size) => super::open::sys_openat2;
    439 faccessat2(dirfd: DirFd, path: Path, mode: AccessMode, flags: AtFlags) => super::stat::sys_faccessat2;
    452 fchmodat2(dirfd: DirFd, path: Path, mode: Mode, flags: AtFlags) => super::attributes::sys_fchmodat2;

    // ---- descriptors and transfers ----
    0 read(fd: Fd, buffer: Filled, len: Size) => super::rw::sys_read;
    1 write(fd: Fd, buffer: Data, len: Size) => super::rw::sys_write;
    8 lseek(fd: Fd, by: Int, whence: Whence) => super::rw::sys_lseek;
    16 ioctl(fd: Fd, request: IoctlRequest, arg: Hex) => super::control::sys_ioctl;
    17 pread64(fd: Fd, buffer: Filled, len: Size, at: Int) => super::rw::sys_pread64;
    18 pwrite64(fd: Fd, buffer: Data, len: Size, at: Int) => super::rw::sys_pwrite64;
    19 readv(fd: Fd, iov: VectorsFilled, count: Size) => super::rw::sys_readv;
    20 writev(fd: Fd, iov: Vectors, count: Size) => super::rw::sys_writev;
    22 pipe(fds: FdsOut) => super::splice::sys_pipe;
    32 dup(fd: Fd) => super::open::sys_dup;
    33 dup2(old: Fd, new: Fd) => super::open::sys_dup2;
    40 sendfile(output: Fd, input: Fd, offset: Ptr, len: Size) => super::splice::sys_sendfile;
    72 fcntl(fd: Fd, command: FcntlCommand, arg: Hex) => super::control::sys_fcntl;
    73 flock(fd: Fd, operation: Hex) => super::control::sys_flock;
    74 fsync(fd: Fd) => super::sync::sys_fsync;
    75 fdatasync(fd: Fd) => super::sync::sys_fdatasync;
    162 sync() => super::sync::sys_sync;
    187 readahead(fd: Fd, offset: Int, len: Size) => super::sync::sys_readahead;
    221 fadvise64(fd: Fd, offset: Int, len: Int, advice: Int) => super::sync::sys_fadvise64;
    275 splice(input: Fd, input_at: Ptr, output: Fd, output_at: Ptr, len: Size, flags: Hex) => super::splice::sys_splice;
    276 tee(input: Fd, output: Fd, len: Size, flags: Hex) => super::splice::sys_tee;
    277 sync_file_range(fd: Fd, offset: Int, len: Int, flags: Hex) => super::sync::sys_sync_file_range;
    278 vmsplice(fd: Fd, iov: Vectors, count: Size, flags: Hex) => super::splice::sys_vmsplice;
    285 fallocate(fd: Fd, mode: Hex, offset: Int, len: Int) => super::sync::sys_fallocate;
    292 dup3(old: Fd, new: Fd, flags: FdFlags) => super::open::sys_dup3;
    293 pipe2(fds: FdsOut, flags: FdFlags) => super::splice::sys_pipe2;
    295 preadv(fd: Fd, iov: VectorsFilled, count: Size, at: Int) => super::rw::sys_preadv;
    296 pwritev(fd: Fd, iov: Vectors, count: Size, at: Int) => super::rw::sys_pwritev;
    306 syncfs(fd: Fd) => super::sync::sys_syncfs;
    326 copy_file_range(input: Fd, input_at: Ptr, output: Fd, output_at: Ptr, len: Size, flags: Hex) => super::splice::sys_copy_file_range;
    327 preadv2(fd: Fd, iov: VectorsFilled, count: Size, at: Int, high: Hex, flags: Hex) => super::rw::sys_preadv2;
    328 pwritev2(fd: Fd, iov: Vectors, count: Size, at: Int, high: Hex, flags: Hex) => super::rw::sys_pwritev2;

    // ---- readiness: poll, select, epoll, eventfd, timerfd, signalfd ----
    7 poll(fds: Ptr, count: Size, timeout_ms: Int) => super::poll::sys_poll;
    23 select(count: Int, reading: Ptr, writing: Ptr, exceptional: Ptr, timeout: Ptr) => super::poll::sys_select;
    213 epoll_create(size: Int) => super::epoll::sys_epoll_create;
    232 epoll_wait(set: Fd, events: Ptr, max: Int, timeout_ms: Int) => super::epoll::sys_epoll_wait;
    233 epoll_ctl(set: Fd, operation: EpollOp, fd: Fd, event: Ptr) => super::epoll::sys_epoll_ctl;
    253 inotify_init() => super::events::sys_inotify_init;
    254 inotify_add_watch(fd: Fd, path: Path, mask: Hex) => super::events::sys_inotify_add_watch;
    255 inotify_rm_watch(fd: Fd, id: Int) => super::events::sys_inotify_rm_watch;
    270 pselect6(count: Int, reading: Ptr, writing: Ptr, exceptional: Ptr, timeout: Ptr, mask: Ptr) => super::poll::sys_pselect6;
    271 ppoll(fds: Ptr, count: Size, timeout: Ptr, mask: Ptr, size: Size) => super::poll::sys_ppoll;
    281 epoll_pwait(set: Fd, events: Ptr, max: Int, timeout_ms: Int, mask: Ptr, size: Size) => super::epoll::sys_epoll_pwait;
    282 signalfd(fd: Fd, mask: Ptr, size: Size) => super::events::sys_signalfd;
    283 timerfd_create(clock: Clock, flags: FdFlags) => super::events::sys_timerfd_create;
    284 eventfd(initial: Uint) => super::events::sys_eventfd;
    286 timerfd_settime(fd: Fd, flags: Hex, new: Ptr, old: Ptr) => super::events::sys_timerfd_settime;
    287 timerfd_gettime(fd: Fd, out: Ptr) => super::events::sys_timerfd_gettime;
    289 signalfd4(fd: Fd, mask: Ptr, size: Size, flags: Hex) => super::events::sys_signalfd4;
    290 eventfd2(initial: Uint, flags: FdFlags) => super::events::sys_eventfd2;
    291 epoll_create1(flags: FdFlags) => super::epoll::sys_epoll_create1;
    294 inotify_init1(flags: FdFlags) => super::events::sys_inotify_init1;
    441 epoll_pwait2(set: Fd, events: Ptr, max: Int, timeout: Ptr, mask: Ptr, size: Size) => super::epoll::sys_epoll_pwait2;

    // ---- sockets ----
    41 socket(domain: Domain, kind: SocketKind, protocol: Int) => super::socket::sys_socket;
    42 connect(fd: Fd, addr: Address, len: Int) => super::socket::sys_connect;
    43 accept(fd: Fd, addr: AddressOut, len: Ptr) => super::socket::sys_accept;
    44 sendto(fd: Fd, buffer: Data, len: Size, flags: MsgFlags, addr: Address, addr_len: Int) => super::socket_message::sys_sendto;
    45 recvfrom(fd: Fd, buffer: Filled, len: Size, flags: MsgFlags, addr: AddressOut, addr_len: Ptr) => super::socket_message::sys_recvfrom;
    46 sendmsg(fd: Fd, message: Message, flags: MsgFlags) => super::socket_message::sys_sendmsg;
    47 recvmsg(fd: Fd, message: MessageFilled, flags: MsgFlags) => super::socket_message::sys_recvmsg;
    48 shutdown(fd: Fd, how: How) => super::socket::sys_shutdown;
    49 bind(fd: Fd, addr: Address, len: Int) => super::socket::sys_bind;
    50 listen(fd: Fd, backlog: Int) => super::socket::sys_listen;
    51 getsockname(fd: Fd, addr: AddressOut, len: Ptr) => super::socket::sys_getsockname;
    52 getpeername(fd: Fd, addr: AddressOut, len: Ptr) => super::socket::sys_getpeername;
    53 socketpair(domain: Domain, kind: SocketKind, protocol: Int, out: FdsOut) => super::socket::sys_socketpair;
    54 setsockopt(fd: Fd, level: Level, name: Int, value: Ptr, len: Int) => super::socket::sys_setsockopt;
    55 getsockopt(fd: Fd, level: Level, name: Int, value: Ptr, len: Ptr) => super::socket::sys_getsockopt;
    288 accept4(fd: Fd, addr: AddressOut, len: Ptr, flags: SocketKind) => super::socket::sys_accept4;
    299 recvmmsg(fd: Fd, messages: MessagesFilled, count: Uint, flags: MsgFlags, timeout: Ptr) => super::socket_message::sys_recvmmsg;
    307 sendmmsg(fd: Fd, messages: Messages, count: Uint, flags: MsgFlags) => super::socket_message::sys_sendmmsg;
}
