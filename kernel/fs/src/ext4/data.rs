//! File contents between the page cache and the disk. The volume only says where blocks lie.
//!
//! Writing follows the library's ordered mode: allocate as unwritten, write, wait for the device,
//! then mark as written together with the new size; so no crash shows what the disk held before.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use drivers::block::{Operation, Outcome, Request, SECTOR_SIZE, Segment};
use errno::{Errno, Result};
use libext4::Extent;
use machine::mem::{Frame, PAGE_SIZE};
use sched::WaitQueue;

use super::{Ext4Fs, from_time, node::Node};
use crate::{
    cache::{Fill, PageStore},
    time::now,
};

impl Node {
    fn blocks_per_page(&self) -> u64 {
        (PAGE_SIZE as u32 / self.fs.block_size) as u64
    }

    /// Maps blocks `first..end`; holes and unwritten runs included.
    fn runs(&self, first: u64, end: u64) -> Result<Vec<Extent>> {
        let mut runs = Vec::new();
        let end = u32::try_from(end).map_err(|_| Errno::EFBIG)?;
        let mut at = u32::try_from(first).map_err(|_| Errno::EFBIG)?;
        let mut volume = self.fs.volume.lock();
        while at < end {
            let run = volume
                .map(self.ino(), at, end - at)
                .map_err(super::errno_of)?;
            at += run.len.max(1);
            runs.push(run);
        }
        Ok(runs)
    }

    /// Reads pages whose blocks are as large as a page.
    fn read_whole(&self, pages: Vec<Fill>, runs: Vec<Extent>) {
        let mut pages = pages.into_iter();
        let mut requests: Vec<Request> = Vec::new();
        for run in runs {
            let fills: Vec<Fill> = pages.by_ref().take(run.len as usize).collect();
            let Some(physical) = run.physical.filter(|_| !run.unwritten) else {
                for fill in fills {
                    fill.frame().zero();
                    fill.finish(Ok(()));
                }
                continue;
            };
            let mut fills = fills.into_iter();
            let mut block = physical;
            loop {
                let part: Vec<Fill> = fills.by_ref().take(self.fs.max_pages()).collect();
                if part.is_empty() {
                    break;
                }
                let segments = part
                    .iter()
                    .map(|fill| Segment::page(fill.frame().clone()))
                    .collect();
                let sector = self.fs.sector(block);
                block += part.len() as u64;
                requests.push(Request {
                    op: Operation::Read,
                    sector,
                    segments,
                    done: Box::new(move |outcome| {
                        for fill in part {
                            fill.finish(outcome.map_err(Errno::from));
                        }
                    }),
                });
            }
        }
        self.fs.disk.device().submit_all(&mut requests.into_iter());
    }

    /// Reads one page of several blocks, and waits for it.
    fn read_pieces(&self, fill: Fill, runs: &[Extent]) {
        let result = self.pieces(&fill, runs);
        fill.finish(result);
    }

    fn pieces(&self, fill: &Fill, runs: &[Extent]) -> Result<()> {
        let size = self.fs.block_size as usize;
        let first = fill.index() * self.blocks_per_page();
        for at in 0..self.blocks_per_page() {
            let block = first + at;
            let offset = at as usize * size;
            let run = runs.iter().find(|run| {
                (u64::from(run.logical)..u64::from(run.logical) + u64::from(run.len))
                    .contains(&block)
            });
            match run.and_then(|run| Some((run, run.physical.filter(|_| !run.unwritten)?))) {
                None => fill.frame().fill(offset, size, 0),
                Some((run, physical)) => {
                    let segment = Segment {
                        frame: fill.frame().clone(),
                        offset: offset as u32,
                        len: size as u32,
                    };
                    let sector = self.fs.sector(physical + block - u64::from(run.logical));
                    self.fs
                        .disk
                        .device()
                        .execute(Operation::Read, sector, &[segment])?;
                }
            }
        }
        Ok(())
    }

    /// Gets room on the disk for blocks `first..end`.
    fn allocate(&self, first: u64, end: u64) -> Result<Vec<Extent>> {
        let end = u32::try_from(end).map_err(|_| Errno::EFBIG)?;
        let mut at = u32::try_from(first).map_err(|_| Errno::EFBIG)?;
        let mut runs = Vec::new();
        while at < end {
            let ino = self.ino();
            let run = self
                .fs
                .change_or_make_room(|volume| volume.allocate(ino, at, end - at))?;
            at += run.len.max(1);
            runs.push(run);
        }
        Ok(runs)
    }

    /// Sends the pages of `runs` to the disk and waits for all.
    fn send(&self, first: u64, frames: &[Frame], runs: &[Extent]) -> Result<()> {
        let size = u64::from(self.fs.block_size);
        let base = first * PAGE_SIZE as u64;
        let latch = Arc::new(Latch::default());
        let mut requests: Vec<Request> = Vec::new();
        for run in runs {
            let physical = run.physical.ok_or(Errno::EIO)?;
            let len = u64::from(run.len) * size;
            self.fs.disk.forget(physical * size, len);
            let mut at = u64::from(run.logical) * size - base;
            let run_start = at;
            let end = at + len;
            let mut segments = Vec::new();
            let mut start = at;
            while at < end {
                let within = at % PAGE_SIZE as u64;
                let part = (PAGE_SIZE as u64 - within).min(end - at);
                let frame = frames
                    .get((at / PAGE_SIZE as u64) as usize)
                    .ok_or(Errno::EIO)?;
                segments.push(Segment {
                    frame: frame.clone(),
                    offset: within as u32,
                    len: part as u32,
                });
                at += part;
                if segments.len() >= self.fs.max_pages() || at >= end {
                    let sector = (physical * size + (start - run_start)) / SECTOR_SIZE as u64;
                    let waiter = latch.clone();
                    requests.push(Request {
                        op: Operation::Write,
                        sector,
                        segments: core::mem::take(&mut segments),
                        done: Box::new(move |outcome| waiter.done(outcome)),
                    });
                    start = at;
                }
            }
        }
        latch.left.store(requests.len(), Ordering::Release);
        self.fs.disk.device().submit_all(&mut requests.into_iter());
        let result = latch.wait();
        for run in runs {
            if let Some(physical) = run.physical {
                self.fs
                    .disk
                    .forget(physical * size, u64::from(run.len) * size);
            }
        }
        result
    }
}

impl PageStore for Node {
    fn read(&self, pages: Vec<Fill>) {
        let (Some(first), Some(last)) = (pages.first(), pages.last()) else {
            return;
        };
        let per_page = self.blocks_per_page();
        let (first, end) = (first.index() * per_page, (last.index() + 1) * per_page);
        match self.runs(first, end) {
            Ok(runs) if per_page == 1 => self.read_whole(pages, runs),
            Ok(runs) => {
                for fill in pages {
                    self.read_pieces(fill, &runs);
                }
            }
            Err(error) => {
                for fill in pages {
                    fill.finish(Err(error));
                }
            }
        }
    }

    fn reserve(&self, index: u64) -> Result<bool> {
        let fs = &self.fs;
        if fs.read_only {
            return Err(Errno::EROFS);
        }
        let blocks = self.blocks_per_page();
        if !fs.promise(blocks) {
            // Short of room: pages that have their blocks already need none.
            let first = index * blocks;
            let runs = self.runs(first, first + blocks)?;
            if runs.iter().all(|run| run.physical.is_some()) {
                return Ok(false);
            }
            fs.make_room()?;
            if !fs.promise(blocks) {
                return Err(Errno::ENOSPC);
            }
        }
        self.promised.fetch_add(blocks, Ordering::Relaxed);
        Ok(true)
    }

    fn release(&self, pages: u64) {
        let blocks = pages * self.blocks_per_page();
        self.fs.promised.fetch_sub(blocks, Ordering::AcqRel);
        self.promised.fetch_sub(blocks, Ordering::Relaxed);
    }

    fn write(&self, first: u64, frames: &[Frame], size: u64) -> Result<()> {
        let block = u64::from(self.fs.block_size);
        let start = first * PAGE_SIZE as u64;
        let end = (start + (frames.len() * PAGE_SIZE) as u64).min(size);
        if end <= start {
            return Ok(());
        }
        let runs = self.allocate(start / block, end.div_ceil(block))?;
        self.send(first, frames, &runs)?;
        let ino = self.ino();
        let grows = end > self.size_on_disk();
        if grows || runs.iter().any(|run| run.unwritten) {
            let attrs = self.fs.change_or_make_room(|volume| {
                for run in &runs {
                    // Each run brings the end of the file with it: blocks behind it are not data.
                    let run_end = (u64::from(run.logical) + u64::from(run.len)) * block;
                    volume.mark_written(ino, run.logical, run.len, Some(run_end.min(end)))?;
                }
                volume.attrs(ino)
            })?;
            self.refresh(&attrs);
        }
        Ok(())
    }

    fn modified(&self) {
        let now = from_time(now());
        self.set_times(|attrs| (attrs.mtime, attrs.ctime) = (now, now));
    }

    fn group(&self) -> usize {
        self.fs.group()
    }

    fn max_size(&self) -> u64 {
        self.fs.max_size
    }

    fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        let block = u64::from(self.fs.block_size);
        let mut at = offset / block;
        // The cache has written all pages: the end on the volume is the end of the file or less,
        // and a hole follows it.
        let end = self.size_on_disk().div_ceil(block);
        while at < end {
            let run = {
                let first = u32::try_from(at).map_err(|_| Errno::EFBIG)?;
                let count = u32::try_from(end - at).unwrap_or(u32::MAX);
                self.fs
                    .look(|volume| volume.map(self.ino(), first, count))?
            };
            if (run.physical.is_some() && !run.unwritten) == data {
                return Ok(Some(at * block));
            }
            at += u64::from(run.len.max(1));
        }
        Ok(None)
    }
}

impl Ext4Fs {
    fn sector(&self, block: u64) -> u64 {
        block * u64::from(self.block_size) / SECTOR_SIZE as u64
    }

    /// Pages in one request.
    fn max_pages(&self) -> usize {
        let limits = self.disk.device().limits();
        let by_sectors = limits.max_sectors * SECTOR_SIZE as u64 / PAGE_SIZE as u64;
        limits
            .max_segments
            .min(usize::try_from(by_sectors).unwrap_or(usize::MAX))
            .max(1)
    }
}

/// Waits for several requests.
#[derive(Default)]
struct Latch {
    left: AtomicUsize,
    failed: AtomicBool,
    queue: WaitQueue,
}

impl Latch {
    fn done(&self, outcome: Outcome) {
        if outcome.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.wake_all();
        }
    }

    fn wait(&self) -> Result<()> {
        self.queue
            .wait(|| (self.left.load(Ordering::Acquire) == 0).then_some(()));
        if self.failed.load(Ordering::Acquire) {
            Err(Errno::EIO)
        } else {
            Ok(())
        }
    }
}
