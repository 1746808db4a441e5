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
) -> Option<Result<usize>> {
    let socket = socket::file::of(to).ok()?;
    if !socket.ops().takes_pages() {
        return None;
    }
    let nonblock = to.flags().contains(OpenFlags::NONBLOCK);
    let start = match from_at {
        Position::Own => from.offset(),
        Position::At(offset, _) => *offset,
    };
    let size = match from.file().metadata() {
        Ok(metadata) => metadata.size,
        Err(error) => return Some(Err(error)),
    };
    let len = len.min(usize::try_from(size.saturating_sub(start)).unwrap_or(usize::MAX));
    let mut total = 0;
    let mut pages = Vec::new();
    let mut failure = None;
    while total < len && failure.is_none() {
        pages.clear();
        let at = start + total as u64;
        let within = (at % PAGE_SIZE as u64) as usize;
        let want = (PAGES * PAGE_SIZE - within).min(len - total);
        let read = pages_of(from, at, want, &mut pages);
        let read = match read {
            Ok(0) => break,
            Ok(read) => read,
            Err(Errno::ENODEV) if total == 0 => return None,
            Err(error) => {
                failure = Some(error);
                break;
            }
        };
        let (sent, stopped) = socket.send_pages(&mut pages, total + read < len, nonblock);
        total += sent;
        failure = stopped;
    }
    if total == 0
        && let Some(error) = failure
    {
        return Some(Err(error));
    }
    from_at.advance(total);
    let moved = match from_at {
        // It was read from there, so the offset exists.
        Position::Own => from.seek(fs::Whence::Current, total as i64).map(|_| ()),
        Position::At(..) => from_at.store(),
    };
    Some(moved.map(|()| total))
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
) -> Option<Result<usize>> {
    let start = match from_at {
        Position::Own => from.offset(),
        Position::At(offset, _) => *offset,
    };
    let size = match from.file().metadata() {
        Ok(metadata) => metadata.size,
        Err(error) => return Some(Err(error)),
    };
    let left = usize::try_from(size.saturating_sub(start)).unwrap_or(usize::MAX);
    let within = (start % PAGE_SIZE as u64) as usize;
    let len = len.min(left).min(PAGES * PAGE_SIZE - within);
    let mut pages = Vec::new();
    match pages_of(from, start, len, &mut pages) {
        Ok(_) => {}
        Err(Errno::ENODEV) => return None,
        Err(error) => return Some(Err(error)),
    }
    let moved = match to.pipe().push(&mut pages) {
        // Others filled it meanwhile: to wait again is the copy's.
        Err(Errno::EAGAIN) => return None,
        other => pushed(other),
    };
    let moved = moved.and_then(|moved| {
        from_at.advance(moved);
        match from_at {
            // It was read from there, so the offset exists.
            Position::Own => from.seek(fs::Whence::Current, moved as i64).map(|_| moved),
            Position::At(..) => from_at.store().map(|()| moved),
        }
    });
    Some(moved)
}

/// A pipe without a reader has the program told.
fn pushed(result: Result<usize>) -> Result<usize> {
    if result == Err(Errno::EPIPE) {
        raise::on_thread(SIGPIPE);
    }
    result
}

/// What the pipe `from` holds or refers to, to `to`. `None` where others filled that meanwhile.
pub(super) fn between_pipes(from: &PipeEnd, to: &PipeEnd, len: usize) -> Option<Result<usize>> {
    let mut segments = match from.pipe().take(len.min(MOST)) {
        Ok(segments) if segments.is_empty() => return Some(Ok(0)),
        Ok(segments) => segments,
        Err(error) => return Some(Err(error)),
    };
    let moved = to.pipe().push(&mut segments);
    from.pipe().untake(segments);
    match moved {
        Err(Errno::EAGAIN) => None,
        other => Some(pushed(other)),
    }
}

/// What a pipe holds or refers to, to a socket whose queue refers to it then. `None` where the socket cannot.
pub(super) fn pipe_to_socket(
    from: &PipeEnd,
    to: &OpenFile,
    len: usize,
    more: bool,
) -> Option<Result<usize>> {
    let socket = socket::file::of(to).ok()?;
    if !socket.ops().takes_pages() {
        return None;
    }
    let nonblock = to.flags().contains(OpenFlags::NONBLOCK);
    let mut segments = match from.pipe().take(len.min(MOST)) {
        Ok(segments) if segments.is_empty() => return Some(Ok(0)),
        Ok(segments) => segments,
        Err(error) => return Some(Err(error)),
    };
    let (sent, stopped) = socket.send_pages(&mut segments, more, nonblock);
    from.pipe().untake(segments);
    Some(match stopped {
        Some(error) if sent == 0 => Err(error),
        _ => Ok(sent),
    })
}

/// What a stream socket has received, copied once, to memory that the pipe refers to. `None` for other files, and where it is too
/// little to be worth memory of its own.
pub(super) fn socket_to_pipe(from: &OpenFile, to: &OpenFile, len: usize) -> Option<Result<usize>> {
    let end = pipe_of(to)?;
    let socket = socket::file::of(from).ok()?;
    if !socket.ops().kind().is_stream() {
        return None;
    }
    let queued = socket.ops().input_queued().unwrap_or(0);
    let len = len.min(queued).min(MOST);
    if len < PIPE_BUF {
        return None;
    }
    let (bytes, read) = match pipe_content::shared(len, |sink: &mut dyn Sink| from.read(sink)) {
        Ok(received) => received,
        Err(error) => return Some(Err(error)),
    };
    let pushed = if read < len / 2 {
        // Somebody else read as well: no large memory for few bytes.
        Err(Errno::EAGAIN)
    } else {
        let bytes = TxSegment::Bytes(bytes.clone(), 0..read);
        end.pipe().push(&mut Vec::from([bytes]))
    };
    Some(match pushed {
        // What was received must not be lost: it waits for room.
        Err(_) => to.write(&mut SliceSource::new(&bytes[..read])),
        pushed => pushed,
    })
}
