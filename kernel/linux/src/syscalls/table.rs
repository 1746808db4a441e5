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

    // ---- threads and futexes (linux-core) ----
    39 getpid() => super::ids::sys_getpid;
    60 exit(status: Int) => super::threads::sys_exit;
    186 gettid() => super::ids::sys_gettid;
    231 exit_group(status: Int) => super::threads::sys_exit_group;

    // ---- signals (linux-core) ----

    // ---- time (linux-core) ----

    // ---- identity, limits, machine (linux-core) ----

    // ---- files and directories (linux-io) ----

    // ---- descriptors and transfers (linux-io) ----

    // ---- readiness: poll, select, epoll, eventfd, timerfd, signalfd (linux-io) ----

    // ---- sockets (linux-io) ----
}
