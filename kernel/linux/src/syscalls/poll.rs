//! Waiting for several descriptors: `poll(2)`, `ppoll(2)`, `select(2)`, `pselect6(2)`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use errno::{Errno, Result};
use fs::OpenFile;
use sched::Woken;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ctx::Ctx;
use crate::files::descriptor_limit;
use crate::files::readiness::{ALWAYS, NVAL, RDBAND, RDNORM, WRBAND, WRNORM, Watched, wait_any};
use crate::signal::SigSet;
use crate::thread::RestartBlock;
use crate::time::{SECOND_NS, from_timespec, to_timespec, to_timeval};
use crate::uaccess::UserPtr;

/// `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PollFd {
    fd: i32,
    events: u16,
    revents: u16,
}

struct Entry {
    file: Option<Arc<OpenFile>>,
    wanted: u32,
    found: u32,
}

impl Entry {
    fn look(&mut self) -> bool {
        if let Some(file) = &self.file {
            self.found = file.poll().bits() & (self.wanted | ALWAYS);
        }
        self.found != 0
    }
}

/// Waits until some entry is ready or the deadline passes; answers how many are.
fn wait(entries: &mut [Entry], deadline_ns: Option<u64>) -> core::result::Result<usize, Woken> {
    let count = |entries: &mut [Entry]| {
        let mut ready = 0;
        for entry in entries.iter_mut() {
            ready += usize::from(entry.look());
        }
        ready
    };
    let ready = count(entries);
    if ready > 0 || deadline_ns == Some(0) {
        return Ok(ready);
    }
    let files: Vec<Arc<OpenFile>> = entries
        .iter()
        .filter_map(|entry| entry.file.clone())
        .collect();
    let pollees = files
        .iter()
        .filter_map(|file| Watched::pollee(file.as_ref()));
    let result = wait_any(pollees, deadline_ns, || match count(entries) {
        0 => None,
        ready => Some(ready),
    });
    match result {
        Err(Woken::TimedOut) => Ok(0),
        other => other,
    }
}

fn read_fds(
    ctx: &Ctx<'_>,
    fds: UserPtr<PollFd>,
    count: usize,
) -> Result<(Vec<PollFd>, Vec<Entry>)> {
    if count > descriptor_limit(ctx.process) {
        return Err(Errno::EINVAL);
    }
    let raw = fds.read_vec(count)?;
    let entries = raw
        .iter()
        .map(|fd| {
            // A negative descriptor is left out; one that is not open is told as such.
            let file = ctx.process.files.get(fd.fd).ok();
            Entry {
                found: if fd.fd >= 0 && file.is_none() {
                    NVAL
                } else {
                    0
                },
                file,
                wanted: u32::from(fd.events),
            }
        })
        .collect();
    Ok((raw, entries))
}

fn write_fds(fds: UserPtr<PollFd>, raw: &mut [PollFd], entries: &[Entry]) -> Result<()> {
    for (n, (fd, entry)) in raw.iter_mut().zip(entries).enumerate() {
        fd.revents = entry.found as u16;
        fds.add(n).write(fd)?;
    }
    Ok(())
}

fn poll(
    ctx: &Ctx<'_>,
    fds: UserPtr<PollFd>,
    count: usize,
    deadline_ns: Option<u64>,
) -> Result<core::result::Result<usize, Woken>> {
    let (mut raw, mut entries) = read_fds(ctx, fds, count)?;
    let result = wait(&mut entries, deadline_ns);
    if result.is_ok() {
        write_fds(fds, &mut raw, &entries)?;
    }
    Ok(result)
}

/// The deadline of a timeout: zero means not to wait.
fn deadline(timeout_ns: Option<u64>) -> Option<u64> {
    timeout_ns.map(|ns| match ns {
        0 => 0,
        ns => machine::time::now_ns().saturating_add(ns),
    })
}

/// `poll(2)`.
pub fn sys_poll(
    ctx: &mut Ctx<'_>,
    fds: UserPtr<PollFd>,
    count: usize,
    timeout_ms: i32,
) -> Result<usize> {
    let timeout = u64::try_from(timeout_ms).ok().map(|ms| ms * 1_000_000);
    let deadline_ns = deadline(timeout);
    poll_restartable(ctx, fds, count, deadline_ns)
}

/// `poll(2)` until `deadline_ns`, and its continuation by `restart_syscall(2)`.
pub(crate) fn poll_restartable(
    ctx: &mut Ctx<'_>,
    fds: UserPtr<PollFd>,
    count: usize,
    deadline_ns: Option<u64>,
) -> Result<usize> {
    match poll(ctx, fds, count, deadline_ns)? {
        Ok(ready) => Ok(ready),
        Err(_) => {
            *ctx.thread.restart.lock() = Some(RestartBlock::Poll {
                fds: fds.addr(),
                count,
                deadline_ns: deadline_ns.unwrap_or(u64::MAX),
            });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
    }
}

/// Blocks the signals of `mask` for the rest of the call.
pub(super) fn set_mask(ctx: &Ctx<'_>, mask: UserPtr<u64>, size: usize) -> Result<()> {
    if mask.is_null() {
        return Ok(());
    }
    if size != size_of::<u64>() {
        return Err(Errno::EINVAL);
    }
    ctx.set_temporary_mask(SigSet(mask.read()?));
    Ok(())
}

/// `ppoll(2)`: the kernel's own writes back what is left of the time.
pub fn sys_ppoll(
    ctx: &mut Ctx<'_>,
    fds: UserPtr<PollFd>,
    count: usize,
    timeout: UserPtr<[i64; 2]>,
    mask: UserPtr<u64>,
    size: usize,
) -> Result<usize> {
    let timeout_ns = match timeout.read_opt()? {
        Some(timeout) => Some(from_timespec(timeout)?),
        None => None,
    };
    set_mask(ctx, mask, size)?;
    let deadline_ns = deadline(timeout_ns);
    let result = poll(ctx, fds, count, deadline_ns)?;
    if timeout_ns.is_some() {
        let left = deadline_ns.map_or(0, |at| at.saturating_sub(machine::time::now_ns()));
        // The time cannot be told: the answer stands nevertheless, as on Linux.
        let _ = timeout.write(&to_timespec(left));
    }
    result.map_err(|_| Errno::ERESTARTNOHAND)
}

/// The largest number of descriptors `select(2)` looks at.
const FD_BITS: usize = 64;

/// What makes a descriptor readable, writable, exceptional (`select(2)`).
const SETS: [(u32, u32); 3] = [
    (0x1 | RDNORM | RDBAND, 0x10 | 0x8),
    (0x4 | WRNORM | WRBAND, 0x8),
    (0x2, 0),
];

struct FdSets {
    at: [UserPtr<u64>; 3],
    words: [Vec<u64>; 3],
}

impl FdSets {
    fn read(at: [UserPtr<u64>; 3], count: usize) -> Result<FdSets> {
        let words = count.div_ceil(FD_BITS);
        let read = |at: UserPtr<u64>| {
            if at.is_null() {
                Ok(alloc::vec![0; words])
            } else {
                at.read_vec(words)
            }
        };
        Ok(FdSets {
            at,
            words: [read(at[0])?, read(at[1])?, read(at[2])?],
        })
    }

    fn contains(&self, set: usize, fd: usize) -> bool {
        self.words[set][fd / FD_BITS] >> (fd % FD_BITS) & 1 != 0
    }

    fn write(&self, results: &[Vec<u64>; 3]) -> Result<()> {
        for (at, words) in self.at.iter().zip(results) {
            if at.is_null() {
                continue;
            }
            for (n, word) in words.iter().enumerate() {
                at.add(n).write(word)?;
            }
        }
        Ok(())
    }
}

fn select(
    ctx: &Ctx<'_>,
    count: i32,
    at: [UserPtr<u64>; 3],
    deadline_ns: Option<u64>,
) -> Result<core::result::Result<usize, Woken>> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    // Beyond the table there is nothing to look at.
    let count = count.min(ctx.process.files.capacity());
    let sets = FdSets::read(at, count)?;
    let mut fds = Vec::new();
    let mut entries = Vec::new();
    for fd in 0..count {
        let mut wanted = 0;
        for (n, (events, always)) in SETS.iter().enumerate() {
            if sets.contains(n, fd) {
                wanted |= events | always;
            }
        }
        if wanted == 0 {
            continue;
        }
        let file = ctx.process.files.get(fd as i32)?;
        fds.push(fd);
        entries.push(SelectEntry {
            file,
            sets: [
                sets.contains(0, fd),
                sets.contains(1, fd),
                sets.contains(2, fd),
            ],
            found: [false; 3],
        });
    }
    let result = wait_select(&mut entries, deadline_ns);
    let ready = match result {
        Ok(ready) => ready,
        Err(woken) => return Ok(Err(woken)),
    };
    let words = count.div_ceil(FD_BITS);
    let mut results = [
        alloc::vec![0u64; words],
        alloc::vec![0; words],
        alloc::vec![0; words],
    ];
    for (fd, entry) in fds.iter().zip(&entries) {
        for (words, found) in results.iter_mut().zip(entry.found) {
            words[fd / FD_BITS] |= u64::from(found) << (fd % FD_BITS);
        }
    }
    sets.write(&results)?;
    Ok(Ok(ready))
}

struct SelectEntry {
    file: Arc<OpenFile>,
    sets: [bool; 3],
    found: [bool; 3],
}

impl SelectEntry {
    /// How many of its sets are ready.
    fn look(&mut self) -> usize {
        let now = self.file.poll().bits();
        let mut ready = 0;
        for (n, (events, always)) in SETS.iter().enumerate() {
            self.found[n] = self.sets[n] && now & (events | always) != 0;
            ready += usize::from(self.found[n]);
        }
        ready
    }
}

fn wait_select(
    entries: &mut [SelectEntry],
    deadline_ns: Option<u64>,
) -> core::result::Result<usize, Woken> {
    let count =
        |entries: &mut [SelectEntry]| entries.iter_mut().map(SelectEntry::look).sum::<usize>();
    let ready = count(entries);
    if ready > 0 || deadline_ns == Some(0) {
        return Ok(ready);
    }
    let files: Vec<Arc<OpenFile>> = entries.iter().map(|entry| entry.file.clone()).collect();
    let pollees = files
        .iter()
        .filter_map(|file| Watched::pollee(file.as_ref()));
    match wait_any(pollees, deadline_ns, || match count(entries) {
        0 => None,
        ready => Some(ready),
    }) {
        Err(Woken::TimedOut) => Ok(0),
        other => other,
    }
}

/// `select(2)`: writes back what is left of the time.
pub fn sys_select(
    ctx: &mut Ctx<'_>,
    count: i32,
    reading: UserPtr<u64>,
    writing: UserPtr<u64>,
    exceptional: UserPtr<u64>,
    timeout: UserPtr<[i64; 2]>,
) -> Result<usize> {
    let timeout_ns = match timeout.read_opt()? {
        Some([seconds, micros]) => {
            // Linux takes microseconds beyond a second here and carries them over.
            let (seconds, micros) = (
                u64::try_from(seconds).map_err(|_| Errno::EINVAL)?,
                u64::try_from(micros).map_err(|_| Errno::EINVAL)?,
            );
            Some(
                seconds
                    .saturating_mul(SECOND_NS)
                    .saturating_add(micros.saturating_mul(1000)),
            )
        }
        None => None,
    };
    let deadline_ns = deadline(timeout_ns);
    let result = select(ctx, count, [reading, writing, exceptional], deadline_ns)?;
    if timeout_ns.is_some() {
        let left = deadline_ns.map_or(0, |at| at.saturating_sub(machine::time::now_ns()));
        let _ = timeout.write(&to_timeval(left));
    }
    result.map_err(|_| Errno::ERESTARTNOHAND)
}

/// `pselect6(2)`: the last argument points to the mask's address and size.
pub fn sys_pselect6(
    ctx: &mut Ctx<'_>,
    count: i32,
    reading: UserPtr<u64>,
    writing: UserPtr<u64>,
    exceptional: UserPtr<u64>,
    timeout: UserPtr<[i64; 2]>,
    mask: UserPtr<[u64; 2]>,
) -> Result<usize> {
    let timeout_ns = match timeout.read_opt()? {
        Some(timeout) => Some(from_timespec(timeout)?),
        None => None,
    };
    if let Some([at, size]) = mask.read_opt()? {
        set_mask(ctx, UserPtr::new(at as usize), size as usize)?;
    }
    let deadline_ns = deadline(timeout_ns);
    let result = select(ctx, count, [reading, writing, exceptional], deadline_ns)?;
    if timeout_ns.is_some() {
        let left = deadline_ns.map_or(0, |at| at.saturating_sub(machine::time::now_ns()));
        let _ = timeout.write(&to_timespec(left));
    }
    result.map_err(|_| Errno::ERESTARTNOHAND)
}
