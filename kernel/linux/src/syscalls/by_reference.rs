//! Moving data between descriptors without copying it: pages of files to sockets and pipes, what pipes refer to on to other pipes
//! and sockets. A page that goes so stays the file's: what is written there before the other side has it may be what it gets,
//! as on Linux.

use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::{OpenFile, OpenFlags};
use iobuf::{Sink, SliceSource};
use machine::mem::PAGE_SIZE;
use net::nic::TxSegment;

use super::splice::{Position, pipe_of};
use crate::files::handles::PipeEnd;
use crate::files::pipe::PIPE_BUF;
use crate::files::{pipe_content, raise};
use crate::signal::SIGPIPE;
use crate::socket;

/// The most that is taken out of a pipe at a time.
const MOST: usize = 1 << 20;

/// Pages that go to a socket at a time.
const PAGES: usize = 16;

/// From a file to a socket whose queue refers to the file's pages: nothing is copied. `None` where one of the two cannot.
pub(super) fn send_pages(
    from: &OpenFile,
    from_at: &mut Position,
    to: &OpenFile,
    len: usize,
) -> Result<Option<usize>> {
    let Some(socket) = taker(to) else {
        return Ok(None);
    };
    let nonblock = to.flags().contains(OpenFlags::NONBLOCK);
    let start = from_at.start(from);
    let len = len.min(left(from, start)?);
    let mut total = 0;
    let mut pages = Vec::new();
    let mut failure = None;
    while total < len && failure.is_none() {
        pages.clear();
        let at = start + total as u64;
        let want = up_to_pages(at).min(len - total);
        let read = match pages_of(from, at, want, &mut pages) {
            Ok(0) => break,
            Ok(read) => read,
            Err(Errno::ENODEV) if total == 0 => return Ok(None),
            Err(error) => {
                failure = Some(error);
                break;
            }
        };
        let (sent, stopped) = socket.send_pages(&mut pages, total + read < len, nonblock);
        total += sent;
        failure = stopped;
    }
    match failure {
        Some(error) if total == 0 => Err(error),
        _ => from_at.pass(from, total).map(|()| Some(total)),
    }
}

/// The socket behind `to`, if it is one whose queue refers to memory that is somebody else's.
fn taker(to: &OpenFile) -> Option<&socket::file::SocketFile> {
    let socket = socket::file::of(to).ok()?;
    socket.ops().takes_pages().then_some(socket)
}

/// Bytes of the file from `start` on.
fn left(from: &OpenFile, start: u64) -> Result<usize> {
    let size = from.file().metadata()?.size;
    Ok(usize::try_from(size.saturating_sub(start)).unwrap_or(usize::MAX))
}

/// Bytes from `at` to the end of the last of [`PAGES`].
fn up_to_pages(at: u64) -> usize {
    PAGES * PAGE_SIZE - (at % PAGE_SIZE as u64) as usize
}

/// The pages of a file that hold up to `want` bytes from `at` on.
///
/// # Errors
/// `ENODEV` where the file has no pages, and those of reading.
fn pages_of(from: &OpenFile, at: u64, want: usize, pages: &mut Vec<TxSegment>) -> Result<usize> {
    from.file()
        .read_frames(at, want, from.flags(), &mut |frame, offset, len| {
            pages.push(TxSegment::Frame {
                frame,
                offset: offset as u32,
                len: len as u32,
            });
            Ok(len)
        })
}

/// From a file to a pipe that then refers to the file's pages. `None` where the file has none.
pub(super) fn file_to_pipe(
    from: &OpenFile,
    from_at: &mut Position,
    to: &PipeEnd,
    len: usize,
) -> Result<Option<usize>> {
    let start = from_at.start(from);
    let len = len.min(left(from, start)?).min(up_to_pages(start));
    let mut pages = Vec::new();
    match pages_of(from, start, len, &mut pages) {
        Err(Errno::ENODEV) => return Ok(None),
        read => read?,
    };
    let moved = pushed(to.pipe().push(&mut pages))?;
    if let Some(moved) = moved {
        from_at.pass(from, moved)?;
    }
    Ok(moved)
}

/// What became of a push to a pipe: where there is no reader, the program is told; `None` where others filled the pipe
/// meanwhile: to wait again is the copy's.
fn pushed(result: Result<usize>) -> Result<Option<usize>> {
    match result {
        Err(Errno::EAGAIN) => Ok(None),
        Err(Errno::EPIPE) => {
            raise::on_thread(SIGPIPE);
            Err(Errno::EPIPE)
        }
        other => other.map(Some),
    }
}

/// What the pipe `from` holds or refers to, to `to`. `None` where others filled that meanwhile.
pub(super) fn between_pipes(from: &PipeEnd, to: &PipeEnd, len: usize) -> Result<Option<usize>> {
    let mut segments = from.pipe().take(len.min(MOST))?;
    if segments.is_empty() {
        return Ok(Some(0));
    }
    let moved = to.pipe().push(&mut segments);
    from.pipe().untake(segments);
    pushed(moved)
}

/// What a pipe holds or refers to, to a socket whose queue refers to it then. `None` where the socket cannot.
pub(super) fn pipe_to_socket(
    from: &PipeEnd,
    to: &OpenFile,
    len: usize,
    more: bool,
) -> Result<Option<usize>> {
    let Some(socket) = taker(to) else {
        return Ok(None);
    };
    let nonblock = to.flags().contains(OpenFlags::NONBLOCK);
    let mut segments = from.pipe().take(len.min(MOST))?;
    if segments.is_empty() {
        return Ok(Some(0));
    }
    let (sent, stopped) = socket.send_pages(&mut segments, more, nonblock);
    from.pipe().untake(segments);
    match stopped {
        Some(error) if sent == 0 => Err(error),
        _ => Ok(Some(sent)),
    }
}

/// What a stream socket has received, copied once, to memory that the pipe refers to. `None` for other files, and where it is too
/// little to be worth memory of its own.
pub(super) fn socket_to_pipe(from: &OpenFile, to: &OpenFile, len: usize) -> Result<Option<usize>> {
    let (Some(end), Ok(socket)) = (pipe_of(to), socket::file::of(from)) else {
        return Ok(None);
    };
    if !socket.ops().kind().is_stream() {
        return Ok(None);
    }
    let queued = socket.ops().input_queued().unwrap_or(0);
    let len = len.min(queued).min(MOST);
    if len < PIPE_BUF {
        return Ok(None);
    }
    let (bytes, read) = pipe_content::shared(len, |sink: &mut dyn Sink| from.read(sink))?;
    // Less when somebody else read as well: no large memory for few bytes.
    if read >= len / 2 {
        let all = TxSegment::Bytes(bytes.clone(), 0..read);
        if let Ok(moved) = end.pipe().push(&mut Vec::from([all])) {
            return Ok(Some(moved));
        }
    }
    // What was received must not be lost: it waits for room.
    to.write(&mut SliceSource::new(&bytes[..read])).map(Some)
}
