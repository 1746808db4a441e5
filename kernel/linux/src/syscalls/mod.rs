//! System calls: the dispatcher, and one module for each family of handlers.
//!
//! Which number means which call stands in [`table`]; what a call does stands in its family.
pub mod table;

mod attributes;
mod by_reference;
mod control;
mod control_message;
mod epoll;
mod events;
mod futex;
mod ids;
mod memory;
mod misc;
pub(crate) mod names;
mod open;
pub(crate) mod poll;
mod rseq;
mod rw;
mod schedule;
mod signals;
mod socket;
mod socket_message;
mod splice;
mod stat;
mod sync;
mod threads;
mod timers;
mod times;

pub(crate) use misc::huge_pages_disabled;
pub use rseq::RSEQ_FEATURE_SIZE;
pub(crate) use rseq::{abort_rseq, update_rseq};

use core::sync::atomic::{AtomicU64, Ordering};

use errno::{Errno, Result};

use crate::ctx::Ctx;
use crate::uaccess::FromArg;

/// How an argument is shown in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A signed number.
    Int,
    /// An unsigned number.
    Uint,
    /// A count of bytes or items.
    Size,
    /// Flags or other bits, in hexadecimal.
    Hex,
    /// A file descriptor.
    Fd,
    /// An address.
    Ptr,
    /// The address of a path name or another zero-ended string.
    Path,
    /// A signal number.
    Signal,
    /// File permission bits, in octal.
    Mode,
    /// A descriptor of a directory, or `AT_FDCWD`.
    DirFd,
    /// Bytes that the call reads; the next argument says how many.
    Data,
    /// Bytes that the call has written; its result says how many, the next argument bounds it.
    Filled,
    /// Buffers (`struct iovec`) that the call reads; the next argument says how many.
    Vectors,
    /// Buffers that the call has written; its result says how many bytes.
    VectorsFilled,
    /// A message (`struct msghdr`) that the call reads.
    Message,
    /// A message that the call has written; its result says how many bytes.
    MessageFilled,
    /// Messages (`struct mmsghdr`) that the call reads; the next argument says how many.
    Messages,
    /// Messages that the call has written; its result says how many.
    MessagesFilled,
    /// A socket address that the call reads; the next argument is its length.
    Address,
    /// A socket address that the call has written; the next argument points to its length.
    AddressOut,
    /// Two descriptors that the call has written.
    FdsOut,
    /// `O_*` with the access mode.
    OpenFlags,
    /// `O_*` (or `EFD_*` and the like, which are the same bits) without one.
    FdFlags,
    /// `PROT_*`.
    ProtFlags,
    /// `MAP_*`.
    MapFlags,
    /// `MREMAP_*`.
    RemapFlags,
    /// `MADV_*`.
    Advice,
    /// `AT_*` besides `AT_FDCWD`.
    AtFlags,
    /// `R_OK` and the like.
    AccessMode,
    /// `CLONE_*`.
    CloneFlags,
    /// `WNOHANG` and the like.
    WaitFlags,
    /// `MSG_*`.
    MsgFlags,
    /// `GRND_*`.
    RandomFlags,
    /// `FUTEX_*`.
    FutexOp,
    /// `SEEK_*`.
    Whence,
    /// `CLOCK_*`.
    Clock,
    /// `AF_*`.
    Domain,
    /// `SOCK_*`.
    SocketKind,
    /// `SOL_*`.
    Level,
    /// `SHUT_*`.
    How,
    /// `EPOLL_CTL_*`.
    EpollOp,
    /// `F_*`.
    FcntlCommand,
    /// The request of `ioctl(2)`.
    IoctlRequest,
    /// `SIG_BLOCK` and the like.
    SigHow,
    /// `ARCH_*`.
    ArchPrctl,
    /// `RLIMIT_*`.
    Resource,
}

/// One line of the table.
#[derive(Debug)]
pub struct SyscallInfo {
    /// The number in `rax`.
    pub number: u32,
    /// The name as in the manual.
    pub name: &'static str,
    /// Names and kinds of its arguments.
    pub args: &'static [(&'static str, ArgKind)],
}

/// Calls of numbers that the table lacks.
pub static UNKNOWN_CALLS: AtomicU64 = AtomicU64::new(0);

/// Takes the next register as an argument.
fn next<T: FromArg>(registers: &mut impl Iterator<Item = u64>) -> T {
    T::from_arg(registers.next().unwrap_or(0))
}

/// Runs the system call that the program's registers ask for and sets its result.
///
/// A restart code stays in `rax`, negative, until signal delivery resolves it (`signal::deliver`).
pub fn dispatch(ctx: &mut Ctx<'_>) {
    let number = ctx.user.syscall_number() as u64;
    let args = ctx.user.syscall_args().map(|arg| arg as u64);
    ctx.thread.enter_syscall(number, &args);
    let result = if crate::trace::is_on() {
        crate::trace::watched(ctx, number, args)
    } else {
        table::call(ctx, number, args)
    };
    let value = match result {
        Ok(value) => value as isize,
        Err(errno) => -(errno.raw() as isize),
    };
    // `rt_sigreturn` restores every register, `rax` too; it asks not to be overwritten.
    if ctx.thread.take_keep_registers() {
        return;
    }
    ctx.user.set_return(value);
}

/// Answers a number that the table lacks.
fn unknown(number: u64) -> Result<usize> {
    UNKNOWN_CALLS.fetch_add(1, Ordering::Relaxed);
    crate::trace::stats::count_refused(number);
    log::debug!("system call {number} is not known");
    Err(Errno::ENOSYS)
}
