//! Moving data between descriptors: `pipe(2)`, `sendfile(2)`, `copy_file_range(2)`, `splice(2)`,
//! `tee(2)`, `vmsplice(2)`.
//!
//! Where both sides can, memory is passed on by reference: that is [`by_reference`]'s. Else data goes
//! through one buffer in the kernel. No page changes its owner.

use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::{FileType, OpenFile, OpenFlags};
use iobuf::{SliceSource, VecSink};

use super::by_reference;
use crate::ctx::Ctx;
use crate::files::blocking::{any, wait};
use crate::files::handles::PipeEnd;
use crate::files::{descriptor_limit, install};
use crate::uaccess::{MAX_RW_COUNT, UserPtr, UserVec};
use net::nic::TxSegment;
use sched::poll::Events;

fn pipe_with(ctx: &Ctx<'_>, out: UserPtr<[i32; 2]>, flags: u32) -> Result<usize> {
    let allowed = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT;
    if flags & !allowed.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = OpenFlags::from_bits_retain(flags);
    let close_on_exec = flags.contains(OpenFlags::CLOEXEC);
    let (reader, writer) = PipeEnd::pair();
    let kept = flags - OpenFlags::CLOEXEC;
    let reading = install(
        ctx.process,
        OpenFile::new(reader, kept - OpenFlags::DIRECT, None),
        close_on_exec,
    )?;
    let writing = install(
        ctx.process,
        OpenFile::new(writer, kept | OpenFlags::WRONLY, None),
        close_on_exec,
    );
    let fds = match writing {
        Ok(writing) => [reading as i32, writing as i32],
        Err(error) => {
            let _ = ctx.process.files.remove(reading as i32);
            return Err(error);
        }
    };
    if let Err(error) = out.write(&fds) {
        for fd in fds {
            let _ = ctx.process.files.remove(fd);
        }
        return Err(error);
    }
    Ok(0)
}

/// `pipe(2)`.
pub fn sys_pipe(ctx: &mut Ctx<'_>, out: UserPtr<[i32; 2]>) -> Result<usize> {
    pipe_with(ctx, out, 0)
}

/// `pipe2(2)`.
pub fn sys_pipe2(ctx: &mut Ctx<'_>, out: UserPtr<[i32; 2]>, flags: u32) -> Result<usize> {
    pipe_with(ctx, out, flags)
}

/// How much goes through the buffer at a time.
const CHUNK: usize = 1 << 16;

/// Where one side of a transfer is: the description's own offset, or one that the program keeps.
pub(super) enum Position {
    Own,
    At(u64, UserPtr<i64>),
}

impl Position {
    fn read(at: UserPtr<i64>) -> Result<Position> {
        match at.read_opt()? {
            None => Ok(Position::Own),
            Some(offset) => {
                let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
                Ok(Position::At(offset, at))
            }
        }
    }

    /// The offset that is next.
    pub fn start(&self, file: &OpenFile) -> u64 {
        match self {
            Position::Own => file.offset(),
            Position::At(offset, _) => *offset,
        }
    }

    /// Goes behind `by` bytes of `file` that were taken without reading them, and tells the program if it keeps the offset.
    pub fn pass(&mut self, file: &OpenFile, by: usize) -> Result<()> {
        self.advance(by);
        match self {
            // They were found there, so the offset exists.
            Position::Own => file.seek(fs::Whence::Current, by as i64).map(|_| ()),
            Position::At(..) => self.store(),
        }
    }

    fn advance(&mut self, by: usize) {
        if let Position::At(offset, _) = self {
            *offset += by as u64;
        }
    }

    fn store(&self) -> Result<()> {
        match self {
            Position::Own => Ok(()),
            Position::At(offset, to) => to.write(&(*offset as i64)),
        }
    }
}

fn fill(file: &OpenFile, position: &Position, limit: usize) -> Result<Vec<u8>> {
    let mut sink = VecSink::new(limit);
    match position {
        Position::Own => file.read(&mut sink)?,
        Position::At(offset, _) => file.read_at(*offset, &mut sink)?,
    };
    Ok(sink.into_bytes())
}

/// Writes all of `bytes` if it can; how much went, and the error that stopped it.
fn drain(file: &OpenFile, position: &mut Position, bytes: &[u8]) -> (usize, Option<Errno>) {
    let mut done = 0;
    while done < bytes.len() {
        let mut source = SliceSource::new(&bytes[done..]);
        let result = match position {
            Position::Own => file.write(&mut source),
            Position::At(offset, _) => file.write_at(*offset, &mut source),
        };
        match result {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                position.advance(n);
            }
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

/// Takes back what was read and could not be written: a seekable source is simply set back, a pipe gets it again.
fn unread(file: &OpenFile, position: &Position, rest: &[u8]) {
    if rest.is_empty() {
        return;
    }
    if let Some(end) = pipe_of(file) {
        let all = 0..rest.len();
        end.pipe()
            .untake(Vec::from([TxSegment::Bytes(Arc::from(rest), all)]));
    } else if matches!(position, Position::Own) && file.file().seekable() {
        // It was read from there, so the offset exists.
        let _ = file.seek(fs::Whence::Current, -(rest.len() as i64));
    }
}

fn transfer(
    from: &OpenFile,
    from_at: &mut Position,
    to: &OpenFile,
    to_at: &mut Position,
    len: usize,
) -> Result<usize> {
    let mut total = 0;
    let mut failure = None;
    while total < len {
        let bytes = match fill(from, from_at, CHUNK.min(len - total)) {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => bytes,
            Err(error) => {
                failure = Some(error);
                break;
            }
        };
        let (done, error) = drain(to, to_at, &bytes);
        unread(from, from_at, &bytes[done..]);
        from_at.advance(done);
        total += done;
        if done < bytes.len() {
            failure = error;
            break;
        }
        // What a stream had at once is the answer: waiting for more is the program's choice.
        if !from.file().seekable() {
            break;
        }
    }
    match failure {
        Some(error) if total == 0 => Err(error),
        _ => {
            from_at.store()?;
            to_at.store()?;
            Ok(total)
        }
    }
}

/// `sendfile(2)`.
pub fn sys_sendfile(
    ctx: &mut Ctx<'_>,
    out: i32,
    input: i32,
    offset: UserPtr<i64>,
    len: usize,
) -> Result<usize> {
    let from = ctx.process.files.get(input)?;
    let to = ctx.process.files.get(out)?;
    if !from.flags().can_read() || !to.flags().can_write() {
        return Err(Errno::EBADF);
    }
    if to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let mut position = Position::read(offset)?;
    if !from.file().seekable() {
        // From a pipe sendfile(2) works on Linux since 5.12; an offset there is ESPIPE.
        if matches!(position, Position::At(..)) {
            return Err(Errno::ESPIPE);
        }
        if pipe_of(&from).is_none() {
            return Err(Errno::EINVAL);
        }
    }
    let len = len.min(MAX_RW_COUNT);
    if let Some(sent) = by_reference::send_pages(&from, &mut position, &to, len)? {
        return Ok(sent);
    }
    transfer(&from, &mut position, &to, &mut Position::Own, len)
}

/// `copy_file_range(2)`.
pub fn sys_copy_file_range(
    ctx: &mut Ctx<'_>,
    input: i32,
    input_at: UserPtr<i64>,
    output: i32,
    output_at: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let from = ctx.process.files.get(input)?;
    let to = ctx.process.files.get(output)?;
    if !from.flags().can_read() || !to.flags().can_write() || to.flags().contains(OpenFlags::APPEND)
    {
        return Err(Errno::EBADF);
    }
    let (from_meta, to_meta) = (from.file().metadata()?, to.file().metadata()?);
    for meta in [&from_meta, &to_meta] {
        match meta.file_type {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    let mut from_at = Position::read(input_at)?;
    let mut to_at = Position::read(output_at)?;
    let len = len.min(MAX_RW_COUNT);
    if from_meta.ino == to_meta.ino && from_meta.dev == to_meta.dev {
        let (a, b) = (from_at.start(&from), to_at.start(&to));
        if a < b.saturating_add(len as u64) && b < a.saturating_add(len as u64) {
            return Err(Errno::EINVAL);
        }
    }
    transfer(&from, &mut from_at, &to, &mut to_at, len)
}

pub(super) fn pipe_of(file: &OpenFile) -> Option<&PipeEnd> {
    file.file().as_any().downcast_ref::<PipeEnd>()
}

const SPLICE_F_NONBLOCK: u32 = 2;
const SPLICE_F_MORE: u32 = 4;
const SPLICE_F_ALL: u32 = 0xf;

/// Waits until a pipe has something, or room, unless the call may not wait.
fn wait_pipe(end: &PipeEnd, for_reading: bool, nonblock: bool) -> Result<()> {
    let pipe = end.pipe();
    let (pollee, wanted) = if for_reading {
        (pipe.read_side(), Events::IN)
    } else {
        (pipe.write_side(), Events::OUT)
    };
    let ready = || {
        let now = if for_reading {
            pipe.poll_read()
        } else {
            pipe.poll_write()
        };
        any(now, wanted)
    };
    if nonblock {
        return if ready() { Ok(()) } else { Err(Errno::EAGAIN) };
    }
    wait(pollee, None, ready)
}

/// `splice(2)`.
pub fn sys_splice(
    ctx: &mut Ctx<'_>,
    input: i32,
    input_at: UserPtr<i64>,
    output: i32,
    output_at: UserPtr<i64>,
    len: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let from = ctx.process.files.get(input)?;
    let to = ctx.process.files.get(output)?;
    if !from.flags().can_read() || !to.flags().can_write() {
        return Err(Errno::EBADF);
    }
    let (from_pipe, to_pipe) = (pipe_of(&from), pipe_of(&to));
    if from_pipe.is_none() && to_pipe.is_none() {
        return Err(Errno::EINVAL);
    }
    if let (Some(a), Some(b)) = (from_pipe, to_pipe)
        && Arc::ptr_eq(a.pipe(), b.pipe())
    {
        return Err(Errno::EINVAL);
    }
    if (from_pipe.is_some() && !input_at.is_null()) || (to_pipe.is_some() && !output_at.is_null()) {
        return Err(Errno::ESPIPE);
    }
    if to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let mut from_at = Position::read(input_at)?;
    let mut to_at = Position::read(output_at)?;
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    let mut len = len.min(MAX_RW_COUNT);
    if let Some(end) = from_pipe {
        wait_pipe(
            end,
            true,
            nonblock || from.flags().contains(OpenFlags::NONBLOCK),
        )?;
        len = len.min(end.pipe().used().max(1));
    }
    if let Some(end) = to_pipe {
        wait_pipe(
            end,
            false,
            nonblock || to.flags().contains(OpenFlags::NONBLOCK),
        )?;
        let pipe = end.pipe();
        // No more than there is room for: what was taken from a stream must not be lost.
        len = len.min(pipe.room().max(1));
    }
    let moved = match (from_pipe, to_pipe) {
        (Some(a), Some(b)) => by_reference::between_pipes(a, b, len),
        (Some(end), None) => {
            by_reference::pipe_to_socket(end, &to, len, flags & SPLICE_F_MORE != 0)
        }
        (None, Some(end)) if from.file().seekable() => {
            by_reference::file_to_pipe(&from, &mut from_at, end, len)
        }
        (None, Some(_)) => by_reference::socket_to_pipe(&from, &to, len),
        (None, None) => Ok(None),
    };
    if let Some(moved) = moved? {
        return Ok(moved);
    }
    transfer(&from, &mut from_at, &to, &mut to_at, len)
}

/// `tee(2)`.
pub fn sys_tee(
    ctx: &mut Ctx<'_>,
    input: i32,
    output: i32,
    len: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let from = ctx.process.files.get(input)?;
    let to = ctx.process.files.get(output)?;
    if !from.flags().can_read() || !to.flags().can_write() {
        return Err(Errno::EBADF);
    }
    let (Some(source), Some(target)) = (pipe_of(&from), pipe_of(&to)) else {
        return Err(Errno::EINVAL);
    };
    if Arc::ptr_eq(source.pipe(), target.pipe()) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    wait_pipe(source, true, nonblock)?;
    wait_pipe(target, false, nonblock)?;
    let pipe = target.pipe();
    let room = pipe.room();
    let mut sink = VecSink::new(len.min(room).min(source.pipe().used()));
    source.pipe().peek(&mut sink, len)?;
    let bytes = sink.into_bytes();
    pipe.write(&mut SliceSource::new(&bytes), false)
}

/// `vmsplice(2)`: into a pipe as a write, out of one as a read.
pub fn sys_vmsplice(
    ctx: &mut Ctx<'_>,
    fd: i32,
    iov: UserPtr<[u64; 2]>,
    count: usize,
    flags: u32,
) -> Result<usize> {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.process.files.get(fd)?;
    let end = pipe_of(&file).ok_or(Errno::EBADF)?;
    let mut vector = UserVec::read(iov, count)?;
    let mut open = file.flags();
    if flags & SPLICE_F_NONBLOCK != 0 {
        open |= OpenFlags::NONBLOCK;
    }
    use fs::File;
    if end.writes() {
        end.write(&mut vector, open)
    } else {
        end.read(&mut vector, open)
    }
}

/// The two descriptors of a pair, installed together (`socketpair(2)`).
pub(super) fn install_pair(
    ctx: &Ctx<'_>,
    files: [Arc<OpenFile>; 2],
    out: UserPtr<[i32; 2]>,
    close_on_exec: bool,
) -> Result<usize> {
    let limit = descriptor_limit(ctx.process);
    let [first, second] = files;
    let first = ctx.process.files.insert(first, limit, close_on_exec)?;
    let second = match ctx.process.files.insert(second, limit, close_on_exec) {
        Ok(second) => second,
        Err(error) => {
            let _ = ctx.process.files.remove(first);
            return Err(error);
        }
    };
    if let Err(error) = out.write(&[first, second]) {
        for fd in [first, second] {
            let _ = ctx.process.files.remove(fd);
        }
        return Err(error);
    }
    Ok(0)
}
