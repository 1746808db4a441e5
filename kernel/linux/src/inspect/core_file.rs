//! The program's core file, taken without ending it, for `gdb program core`.
//!
//! Registers of all threads, the list of areas, and the live part of each stack are of one moment, for which the program
//! is stopped. The other pages are copied when they are read: each is consistent in itself, and the program goes on. So
//! the core of a program of any size needs little memory and does not hold it up.
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use errno::{Errno, Result};
use machine::context::UserContext;

use super::notes::{self, FileNote, ProcessNote, ThreadNote};
use super::pause::{self, ThreadState};
use crate::ctx::Ctx;
use crate::mm::report::MapLine;
use crate::mm::vma::{PAGE, VmFlags, VmProt};
use crate::process::{PARENT_PID, PID, Process};
use crate::signal::SigSet;

/// How much of one stack is kept from the moment of the stop, at most.
const MAX_STACK: usize = 128 << 10;
/// How much of all stacks.
const MAX_STACKS: usize = 8 << 20;
/// What lies below the stack pointer and belongs to the running function.
const RED_ZONE: usize = 128;
/// Holes in anonymous memory from this size on are left out.
const HOLE: usize = 64 * PAGE;
/// The most segments (below `PN_XNUM`).
const MAX_SEGMENTS: usize = 60_000;

const EHDR: usize = 64;
const PHDR: usize = 56;

/// A part of the address space in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    range: Range<usize>,
    /// `PF_*`.
    flags: u32,
    /// Bytes of it that are in the file, from its start.
    stored: usize,
}

/// A core file that is being read, from the front.
pub struct CoreFile {
    process: &'static Process,
    /// Headers and notes, up to a page's end.
    head: Vec<u8>,
    segments: Vec<Segment>,
    stacks: Vec<(usize, Vec<u8>)>,
    /// How much has been read of the head, then which segment and how much of it.
    done: usize,
    at: (usize, usize),
    /// It is one of the readers.
    counted: bool,
}

/// The most core files that are being read at once.
const MAX_READERS: usize = 2;
static READERS: AtomicUsize = AtomicUsize::new(0);

/// Takes the core of the running program: stops it for a moment.
///
/// # Errors
/// `EBUSY` while two are being read already.
pub fn take(process: &'static Process) -> Result<CoreFile> {
    let more = |n: usize| (n < MAX_READERS).then_some(n + 1);
    READERS
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
        .map_err(|_| Errno::EBUSY)?;
    let mut core = pause::with_paused(process, None, |threads| build(process, threads, 0));
    core.counted = true;
    Ok(core)
}

impl Drop for CoreFile {
    fn drop(&mut self) {
        if self.counted {
            READERS.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Takes the core of the program from one of its threads, which dies of `signal`.
pub(crate) fn take_own(ctx: &mut Ctx<'_>, signal: i32) -> CoreFile {
    let own = ThreadState {
        tid: ctx.thread.tid,
        name: ctx.thread.comm_text(),
        state: pause::own_state(ctx),
        syscall: None,
    };
    let process = ctx.process;
    pause::with_paused(process, Some(own), |threads| {
        build(process, threads, signal)
    })
}

fn build(process: &'static Process, threads: &[ThreadState], signal: i32) -> CoreFile {
    let lines = process.mm.map_lines();
    let segments = segments(process, &lines);
    let stacks = stacks(process, threads, &lines);
    let files: Vec<FileNote> = lines
        .iter()
        .filter(|line| line.file.path.first() == Some(&b'/'))
        .map(|line| FileNote {
            start: line.range.start,
            end: line.range.end,
            page: line.offset / PAGE as u64,
            name: line.file.path.clone(),
        })
        .collect();
    let signals = |tid: i32| {
        process
            .thread(tid)
            .map_or((SigSet::EMPTY, SigSet::EMPTY), |thread| {
                (thread.signals.mask(), thread.signals.pending())
            })
    };
    let times = |tid: i32| {
        let thread = process.thread(tid).and_then(|thread| thread.sched());
        thread.map_or((0, 0), |thread| (thread.user_ns(), thread.system_ns()))
    };
    let threads: Vec<ThreadNote<'_>> = threads
        .iter()
        .map(|thread| ThreadNote {
            tid: thread.tid,
            state: &thread.state,
            syscall: thread.syscall,
            // As Linux: debuggers take the last thread's word for it.
            signal,
            held: signals(thread.tid).0.0,
            pending: signals(thread.tid).1.0,
            times_ns: times(thread.tid),
        })
        .collect();
    let image = process.image.get();
    let name = process.name();
    let about = ProcessNote {
        pid: PID,
        parent: PARENT_PID,
        name: name.as_bytes(),
        arguments: image.map_or(&[], |image| &image.arguments),
        auxv: image.map_or(&[], |image| &image.auxv),
    };
    let notes = notes::all(&about, &threads, &files, UserContext::fp_features());
    CoreFile {
        process,
        head: head(&notes, &segments),
        segments,
        stacks,
        done: 0,
        at: (0, 0),
        counted: false,
    }
}

/// What of each area is stored: what can be read, without the large holes of anonymous memory.
fn segments(process: &Process, lines: &[MapLine]) -> Vec<Segment> {
    let mut segments = Vec::new();
    for line in lines {
        let bit = |on: VmProt, bit| if line.prot.contains(on) { bit } else { 0 };
        let flags = bit(VmProt::READ, 4) | bit(VmProt::WRITE, 2) | bit(VmProt::EXEC, 1);
        let mut push = |range: Range<usize>, stored: bool| {
            if !range.is_empty() && segments.len() < MAX_SEGMENTS {
                segments.push(Segment {
                    stored: if stored { range.len() } else { 0 },
                    range,
                    flags,
                });
            }
        };
        let vvar = line.file.path == b"[vvar]";
        if line.prot.is_empty() || line.flags.contains(VmFlags::DONTDUMP) || vvar {
            push(line.range.clone(), false);
        } else if line.file.inode != 0 || line.flags.contains(VmFlags::SPECIAL) {
            push(line.range.clone(), true);
        } else {
            let mut end = line.range.start;
            for run in process.mm.present(line.range.clone(), HOLE) {
                push(end..run.start, false);
                end = run.end;
                push(run, true);
            }
            push(end..line.range.end, false);
        }
    }
    segments
}

/// The live part of each thread's stack.
fn stacks(process: &Process, threads: &[ThreadState], lines: &[MapLine]) -> Vec<(usize, Vec<u8>)> {
    let mut stacks = Vec::new();
    let mut left = MAX_STACKS;
    for thread in threads {
        let sp = thread.state.regs.rsp as usize;
        let Some(line) = lines.iter().find(|line| line.range.contains(&sp)) else {
            continue;
        };
        let start = sp.saturating_sub(RED_ZONE).max(line.range.start) / PAGE * PAGE;
        let len = (line.range.end - start).min(MAX_STACK).min(left);
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            break;
        }
        bytes.resize(len, 0);
        if process.mm.peek(start, &mut bytes).is_ok() {
            left -= len;
            stacks.push((start, bytes));
        }
    }
    stacks
}

/// The ELF header, the program headers and the notes, padded to a page.
fn head(notes: &[u8], segments: &[Segment]) -> Vec<u8> {
    let count = segments.len() + 1;
    let notes_at = EHDR + count * PHDR;
    let mut data_at = (notes_at + notes.len()).next_multiple_of(PAGE) as u64;
    let mut out = Vec::with_capacity(data_at as usize);
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_CORE for EM_X86_64, version 1.
    out.extend_from_slice(&[4, 0, 62, 0, 1, 0, 0, 0]);
    for word in [0, EHDR as u64, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    for half in [EHDR, PHDR, count, 0, 0, 0] {
        out.extend_from_slice(&(half as u16).to_le_bytes());
    }
    let mut header = |kind: u32, flags: u32, words: [u64; 6]| {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        for word in words {
            out.extend_from_slice(&word.to_le_bytes());
        }
    };
    header(4, 0, [notes_at as u64, 0, 0, notes.len() as u64, 0, 4]);
    for segment in segments {
        let start = segment.range.start as u64;
        let (stored, size) = (segment.stored as u64, segment.range.len() as u64);
        header(
            1,
            segment.flags,
            [data_at, start, 0, stored, size, PAGE as u64],
        );
        data_at += stored;
    }
    out.extend_from_slice(notes);
    out.resize(out.len().next_multiple_of(PAGE), 0);
    out
}

impl CoreFile {
    /// Its whole size in bytes.
    pub fn size(&self) -> u64 {
        let stored: u64 = self.segments.iter().map(|s| s.stored as u64).sum();
        self.head.len() as u64 + stored
    }

    /// Fills `into` with what comes next, and answers how many bytes: 0 at the end. A page that is gone by now, or
    /// cannot be read, reads as zeroes. May sleep for I/O.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < into.len() {
            if self.done < self.head.len() {
                let len = (self.head.len() - self.done).min(into.len() - filled);
                into[filled..filled + len].copy_from_slice(&self.head[self.done..self.done + len]);
                self.done += len;
                filled += len;
                continue;
            }
            let (n, within) = self.at;
            let Some(segment) = self.segments.get(n) else {
                break;
            };
            if within >= segment.stored {
                self.at = (n + 1, 0);
                continue;
            }
            let addr = segment.range.start + within;
            // Not beyond the page: one that is gone costs only itself.
            let len = (PAGE - addr % PAGE)
                .min(segment.stored - within)
                .min(into.len() - filled);
            let part = &mut into[filled..filled + len];
            if !self.kept_stack(addr, part) && self.process.mm.peek(addr, part).is_err() {
                part.fill(0);
            }
            self.at = (n, within + len);
            filled += len;
        }
        filled
    }

    /// Copies from what was kept of the stacks, if `addr` lies there. Both are cut at pages.
    fn kept_stack(&self, addr: usize, into: &mut [u8]) -> bool {
        let kept = self.stacks.iter().find_map(|(start, bytes)| {
            let at = addr.checked_sub(*start)?;
            bytes.get(at..at.checked_add(into.len())?)
        });
        match kept {
            Some(kept) => {
                into.copy_from_slice(kept);
                true
            }
            None => false,
        }
    }
}

/// Writes the core of a program that dies of `signal` to `/coredumps/core`, at most `limit` bytes (manifest key
/// `coredumplimit`); answers how many.
///
/// # Errors
/// What the file system says.
pub(crate) fn write_file(ctx: &mut Ctx<'_>, signal: i32, limit: u64) -> Result<u64> {
    use fs::{LookupFlags, OpenFlags};
    let mut core = take_own(ctx, signal);
    let root = ctx.process.fs.root();
    let start = fs::Start {
        root: &root,
        dir: &root,
        creds: &fs::Credentials::ROOT,
    };
    let namespace = &ctx.process.namespace;
    match namespace.mkdir(&start, b"/coredumps", 0o700) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OpenFlags::CREAT | OpenFlags::TRUNC | OpenFlags::WRONLY | OpenFlags::CLOEXEC;
    let how = LookupFlags::FOLLOW;
    let file = namespace.open(&start, b"/coredumps/core", flags, 0o600, how)?;
    let mut buffer = alloc::vec![0; 16 * PAGE];
    let mut written = 0;
    while written < limit {
        let want = usize::try_from(limit - written)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let len = core.read(&mut buffer[..want]);
        if len == 0 {
            break;
        }
        let mut source = iobuf::SliceSource::new(&buffer[..len]);
        let mut left = len;
        while left > 0 {
            match file.write_at(written, &mut source)? {
                0 => return Err(Errno::ENOSPC),
                done => {
                    written += done as u64;
                    left -= done;
                }
            }
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_places_what_follows() {
        let segments = [
            Segment {
                range: 0x1000..0x3000,
                flags: 5,
                stored: 0x2000,
            },
            Segment {
                range: 0x10000..0x20000,
                flags: 0,
                stored: 0,
            },
            Segment {
                range: 0x20000..0x21000,
                flags: 6,
                stored: 0x1000,
            },
        ];
        let head = head(&[7; 5000], &segments);
        assert_eq!(head.len(), 8192);
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        assert_eq!(&head[16..20], [4, 0, 62, 0]);
        assert_eq!(&head[54..58], [56, 0, 4, 0]);
        // The note's header, then the three segments': offset, address, bytes stored, size.
        let of = |n: usize| {
            let at = 64 + n * 56;
            (word(at + 8), word(at + 16), word(at + 32), word(at + 40))
        };
        assert_eq!(of(0), (64 + 4 * 56, 0, 5000, 0));
        assert_eq!(of(1), (8192, 0x1000, 0x2000, 0x2000));
        assert_eq!(of(2), (8192 + 0x2000, 0x10000, 0, 0x10000));
        assert_eq!(of(3), (8192 + 0x2000, 0x20000, 0x1000, 0x1000));
        assert_eq!(head[64 + 4 * 56], 7);
    }
}
