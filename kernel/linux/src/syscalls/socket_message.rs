//! Sending and receiving: `sendto(2)`, `sendmsg(2)`, `sendmmsg(2)`, `recvfrom(2)`, `recvmsg(2)`,
//! `recvmmsg(2)`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::{OpenFile, OpenFlags};
use iobuf::{Sink, Source};
use net::MsgFlags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::control_message;
use super::socket::{read_address, write_address};
use crate::ctx::Ctx;
use crate::socket::addr::{AF_INET, Address, MAX_LEN};
use crate::socket::file::{SocketFile, of};
use crate::socket::ops::{Received, SendMsg};
use crate::time::from_timespec;
use crate::uaccess::{MAX_RW_COUNT, UserPtr, UserSlice, UserVec};

/// `struct msghdr` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsgHdr {
    name: u64,
    name_len: i32,
    pad: u32,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u32,
    pad2: u32,
}

/// `struct mmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MMsgHdr {
    header: MsgHdr,
    len: u32,
    pad: u32,
}

/// Where the fields that an answer changes lie.
const NAME_LEN_AT: usize = 8;
const CONTROL_LEN_AT: usize = 40;
const FLAGS_AT: usize = 48;
const MESSAGE_LEN_AT: usize = 56;

const MSG_WAITFORONE: u32 = 0x10000;
const MSG_CMSG_CLOEXEC: u32 = 0x4000_0000;
/// `MSG_CMSG_COMPAT` is the kernel's own.
const MSG_CMSG_COMPAT: u32 = 0x8000_0000;
/// How many messages one call moves (`UIO_MAXIOV`).
const MAX_MESSAGES: u32 = 1024;

fn slice(addr: usize, len: usize) -> Result<UserSlice> {
    UserSlice::new(addr, len.min(MAX_RW_COUNT))
}

fn nonblock(file: &OpenFile) -> bool {
    file.flags().contains(OpenFlags::NONBLOCK)
}

/// Where a message goes. An IPv4 socket looks at the family before the length that another family needs.
fn destination(socket: &SocketFile, addr: UserPtr<u8>, len: i32) -> Result<Address> {
    /// `sizeof(struct sockaddr_in)`.
    const INET_LEN: i32 = 16;
    match read_address(addr, len) {
        Err(Errno::EINVAL)
            if socket.ops().family() == AF_INET && (INET_LEN..=MAX_LEN as i32).contains(&len) =>
        {
            Err(Errno::EAFNOSUPPORT)
        }
        other => other,
    }
}

/// `sendto(2)`.
pub fn sys_sendto(
    ctx: &mut Ctx<'_>,
    fd: i32,
    buffer: usize,
    len: usize,
    flags: u32,
    addr: UserPtr<u8>,
    addr_len: i32,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let to = if addr.is_null() {
        None
    } else {
        Some(destination(socket, addr, addr_len)?)
    };
    let msg = SendMsg {
        to,
        flags: MsgFlags::from_bits_truncate(flags),
        control: Vec::new(),
    };
    socket.send(&mut slice(buffer, len)?, &msg, nonblock(&file))
}

fn send_one(
    ctx: &Ctx<'_>,
    file: &Arc<OpenFile>,
    socket: &SocketFile,
    header: &MsgHdr,
    flags: u32,
) -> Result<usize> {
    let to = if header.name == 0 || header.name_len == 0 {
        None
    } else {
        Some(destination(
            socket,
            UserPtr::new(header.name as usize),
            header.name_len,
        )?)
    };
    let mut vector = read_vector(header)?;
    let control = if header.control == 0 || header.control_len == 0 {
        Vec::new()
    } else {
        control_message::read(
            ctx.process,
            socket.ops().family(),
            UserPtr::new(header.control as usize),
            header.control_len,
        )?
    };
    let msg = SendMsg {
        to,
        flags: MsgFlags::from_bits_truncate(flags),
        control,
    };
    let source: &mut dyn Source = &mut vector;
    socket.send(source, &msg, nonblock(file))
}

fn read_vector(header: &MsgHdr) -> Result<UserVec> {
    let count = usize::try_from(header.iov_len).map_err(|_| Errno::EMSGSIZE)?;
    if count > crate::uaccess::IOV_MAX {
        return Err(Errno::EMSGSIZE);
    }
    UserVec::read(UserPtr::new(header.iov as usize), count)
}

/// `sendmsg(2)`.
pub fn sys_sendmsg(
    ctx: &mut Ctx<'_>,
    fd: i32,
    message: UserPtr<MsgHdr>,
    flags: u32,
) -> Result<usize> {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let header = message.read()?;
    send_one(ctx, &file, socket, &header, flags)
}

/// `sendmmsg(2)`.
pub fn sys_sendmmsg(
    ctx: &mut Ctx<'_>,
    fd: i32,
    messages: UserPtr<MMsgHdr>,
    count: u32,
    flags: u32,
) -> Result<usize> {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let mut done = 0;
    for n in 0..count.min(MAX_MESSAGES) as usize {
        let at = messages.add(n);
        let sent = at
            .read()
            .and_then(|message| send_one(ctx, &file, socket, &message.header, flags))
            .and_then(|len| {
                at.cast::<u8>()
                    .byte_add(MESSAGE_LEN_AT)
                    .cast::<u32>()
                    .write(&(len as u32))
            });
        match sent {
            Ok(()) => done += 1,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// What `recv(2)` answers: with `MSG_TRUNC` the whole length of a message.
fn answer_len(received: &Received, flags: u32) -> usize {
    if flags & MsgFlags::TRUNC.bits() != 0 {
        received.full_len
    } else {
        received.len
    }
}

/// `recvfrom(2)`.
pub fn sys_recvfrom(
    ctx: &mut Ctx<'_>,
    fd: i32,
    buffer: usize,
    len: usize,
    flags: u32,
    addr: UserPtr<u8>,
    addr_len: UserPtr<i32>,
) -> Result<usize> {
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let asked = MsgFlags::from_bits_truncate(flags);
    let received = socket.recv(&mut slice(buffer, len)?, asked, nonblock(&file))?;
    // Descriptors that nobody asks for are closed with the message.
    write_address(received.from.as_ref(), addr, addr_len)?;
    Ok(answer_len(&received, flags))
}

fn receive_one(
    ctx: &Ctx<'_>,
    file: &Arc<OpenFile>,
    socket: &SocketFile,
    at: UserPtr<MsgHdr>,
    flags: u32,
) -> Result<usize> {
    let header = at.read()?;
    if header.name_len < 0 {
        return Err(Errno::EINVAL);
    }
    let mut vector = read_vector(&header)?;
    let asked = MsgFlags::from_bits_truncate(flags);
    let sink: &mut dyn Sink = &mut vector;
    let received = socket.recv(sink, asked, nonblock(file))?;
    let field = |offset: usize| at.cast::<u8>().byte_add(offset);
    if header.name != 0 {
        write_address(
            received.from.as_ref(),
            UserPtr::new(header.name as usize),
            field(NAME_LEN_AT).cast(),
        )?;
    } else {
        field(NAME_LEN_AT).cast::<i32>().write(&0)?;
    }
    let len = answer_len(&received, flags);
    let mut answer = received.flags;
    let room = if header.control == 0 {
        0
    } else {
        usize::try_from(header.control_len).unwrap_or(usize::MAX)
    };
    let (bytes, truncated) = control_message::write(
        ctx.process,
        received,
        room,
        socket,
        flags & MSG_CMSG_CLOEXEC != 0,
    );
    if truncated {
        answer |= MsgFlags::CTRUNC;
    }
    if !bytes.is_empty() {
        UserPtr::<u8>::new(header.control as usize).write_bytes(&bytes)?;
    }
    field(CONTROL_LEN_AT)
        .cast::<u64>()
        .write(&(bytes.len() as u64))?;
    let told = answer.bits() | (flags & MSG_CMSG_CLOEXEC);
    field(FLAGS_AT).cast::<u32>().write(&told)?;
    Ok(len)
}

/// `recvmsg(2)`.
pub fn sys_recvmsg(
    ctx: &mut Ctx<'_>,
    fd: i32,
    message: UserPtr<MsgHdr>,
    flags: u32,
) -> Result<usize> {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    receive_one(ctx, &file, socket, message, flags)
}

/// `recvmmsg(2)`. The timeout is looked at between messages, as on Linux.
pub fn sys_recvmmsg(
    ctx: &mut Ctx<'_>,
    fd: i32,
    messages: UserPtr<MMsgHdr>,
    count: u32,
    mut flags: u32,
    timeout: UserPtr<[i64; 2]>,
) -> Result<usize> {
    if flags & MSG_CMSG_COMPAT != 0 {
        return Err(Errno::EINVAL);
    }
    let deadline_ns = match timeout.read_opt()? {
        Some(timeout) => Some(machine::time::now_ns().saturating_add(from_timespec(timeout)?)),
        None => None,
    };
    let file = ctx.process.files.get(fd)?;
    let socket = of(&file)?;
    let mut done = 0;
    for n in 0..count.min(MAX_MESSAGES) as usize {
        let at = messages.add(n);
        let received = receive_one(ctx, &file, socket, at.cast(), flags & !MSG_WAITFORONE)
            .and_then(|len| {
                at.cast::<u8>()
                    .byte_add(MESSAGE_LEN_AT)
                    .cast::<u32>()
                    .write(&(len as u32))
            });
        match received {
            Ok(()) => done += 1,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        if flags & MSG_WAITFORONE != 0 {
            flags |= MsgFlags::DONTWAIT.bits();
        }
        if deadline_ns.is_some_and(|at| machine::time::now_ns() >= at) {
            break;
        }
    }
    if let Some(at) = deadline_ns {
        let left = at.saturating_sub(machine::time::now_ns());
        timeout.write(&crate::time::to_timespec(left))?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_linux_layout() {
        assert_eq!(size_of::<MsgHdr>(), 56);
        assert_eq!(size_of::<MMsgHdr>(), 64);
        assert_eq!(core::mem::offset_of!(MsgHdr, name_len), NAME_LEN_AT);
        assert_eq!(core::mem::offset_of!(MsgHdr, control_len), CONTROL_LEN_AT);
        assert_eq!(core::mem::offset_of!(MsgHdr, flags), FLAGS_AT);
        assert_eq!(core::mem::offset_of!(MMsgHdr, len), MESSAGE_LEN_AT);
    }
}
