//! What a block device is to the rooms above: sectors, requests, the trait. The devices themselves are in
//! [`crate::virtio::blk`] and [`memory`]; partitions of a device in [`crate::partition`].

pub mod memory;

use alloc::{boxed::Box, string::String, vec::Vec};

use machine::mem::{Frame, PAGE_SIZE};

pub use crate::partition::{Partition, PartitionError, gpt};

use crate::IoError;

/// Bytes in a sector, the unit of every address here, whatever the device's own block size is.
pub const SECTOR_SIZE: usize = 512;

/// Sectors in a page.
pub const SECTORS_PER_PAGE: u64 = (PAGE_SIZE / SECTOR_SIZE) as u64;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Device to memory.
    Read,
    /// Memory to device; done when the device has taken the data, durable only after a flush.
    Write,
    /// Everything written and reported done before is made durable. No segments; the sector is ignored.
    Flush,
    /// The contents of this many sectors are no longer needed. No segments.
    Discard {
        /// How many sectors.
        sectors: u64,
    },
    /// This many sectors read as zero from now on. No segments.
    WriteZeroes {
        /// How many sectors.
        sectors: u64,
        /// The device may deallocate them.
        may_unmap: bool,
    },
}

/// A piece of a frame that takes part in a transfer. Offset and length are in bytes; the length is not zero and the
/// piece lies inside the frame.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The page; the request holds one reference to it until it is done.
    pub frame: Frame,
    /// First byte in the page.
    pub offset: u32,
    /// How many bytes.
    pub len: u32,
}

impl Segment {
    /// All of `frame`.
    pub fn page(frame: Frame) -> Segment {
        Segment {
            frame,
            offset: 0,
            len: PAGE_SIZE as u32,
        }
    }
}

/// How a request ended.
pub type Outcome = Result<(), IoError>;

/// What is called when an asynchronous request has ended.
///
/// It runs in a thread of the device, not in an interrupt: it may take locks, free memory and submit further
/// requests, but should not wait for other I/O of the same device, which would then have nobody to finish it.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// One request of a device's queue.
pub struct Request {
    /// What to do.
    pub op: Operation,
    /// The first sector.
    pub sector: u64,
    /// The memory, in the order of the sectors; the total length is a multiple of [`SECTOR_SIZE`].
    pub segments: Vec<Segment>,
    /// Told the outcome, exactly once.
    pub done: Done,
}

impl Request {
    /// Ends the request with `outcome`, giving its memory back first.
    pub fn finish(self, outcome: Outcome) {
        drop(self.segments);
        (self.done)(outcome);
    }
}

/// What a device was asked to do so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests to read.
    pub reads: u64,
    /// Bytes of these.
    pub read_bytes: u64,
    /// Requests to write.
    pub writes: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Requests to make durable what was written.
    pub flushes: u64,
}

/// What a device can take in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most segments of a read or write.
    pub max_segments: usize,
    /// The most sectors of a read or write.
    pub max_sectors: u64,
    /// The most sectors of a discard; 0 = the device cannot.
    pub max_discard_sectors: u64,
    /// The most sectors of a write-zeroes; 0 = the device cannot.
    pub max_zeroes_sectors: u64,
    /// The device's own block in bytes: transfers aligned to it cost the least.
    pub block_size: u32,
    /// How many requests can be under way at once.
    pub queue_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_segments: 32,
            max_sectors: 32 * SECTORS_PER_PAGE,
            max_discard_sectors: 0,
            max_zeroes_sectors: 0,
            block_size: SECTOR_SIZE as u32,
            queue_depth: 1,
        }
    }
}

/// A device of numbered sectors.
///
/// The blocking calls put the thread to sleep; they must not be called from an interrupt handler or with a spin lock
/// held. Any number of requests may be under way from any number of threads; requests that overlap are done in no
/// particular order.
pub trait BlockDevice: Send + Sync {
    /// The size in sectors of [`SECTOR_SIZE`] bytes.
    fn sector_count(&self) -> u64;

    /// Whether writes are refused.
    fn read_only(&self) -> bool;

    /// What one request may ask for.
    fn limits(&self) -> Limits;

    /// Puts a request on its way and returns. Never sleeps; a request beyond the queue's room waits in memory. Errors
    /// of any kind reach `request.done`, perhaps before this returns.
    fn submit(&self, request: Request);

    /// Several requests at once: the device is told of them together.
    fn submit_all(&self, requests: &mut dyn Iterator<Item = Request>) {
        for request in requests {
            self.submit(request);
        }
    }

    /// Does one request and sleeps until it has ended.
    ///
    /// # Errors
    /// See [`IoError`]; [`IoError::Invalid`] when it is beyond [`BlockDevice::limits`].
    fn execute(&self, op: Operation, sector: u64, segments: &[Segment]) -> Outcome;

    /// What was transferred so far, if the device counts it.
    fn traffic(&self) -> Option<Traffic> {
        None
    }

    /// The serial number or identifier that the device reports, if any.
    fn serial(&self) -> Option<String> {
        None
    }

    /// Reads whole sectors into kernel memory.
    ///
    /// # Errors
    /// See [`IoError`]; [`IoError::Invalid`] when the length is no multiple of [`SECTOR_SIZE`].
    fn read(&self, sector: u64, bytes: &mut [u8]) -> Outcome {
        check_length(bytes.len())?;
        let mut at = sector;
        for part in bytes.chunks_mut(bounce_bytes(&self.limits())) {
            let segments = bounce(part.len())?;
            self.execute(Operation::Read, at, &segments)?;
            for (segment, page) in segments.iter().zip(part.chunks_mut(PAGE_SIZE)) {
                segment.frame.read(0, page);
            }
            at += (part.len() / SECTOR_SIZE) as u64;
        }
        Ok(())
    }

    /// Writes whole sectors from kernel memory.
    ///
    /// # Errors
    /// See [`IoError`]; [`IoError::Invalid`] when the length is no multiple of [`SECTOR_SIZE`].
    fn write(&self, sector: u64, bytes: &[u8]) -> Outcome {
        check_length(bytes.len())?;
        let mut at = sector;
        for part in bytes.chunks(bounce_bytes(&self.limits())) {
            let segments = bounce(part.len())?;
            for (segment, page) in segments.iter().zip(part.chunks(PAGE_SIZE)) {
                segment.frame.write(0, page);
            }
            self.execute(Operation::Write, at, &segments)?;
            at += (part.len() / SECTOR_SIZE) as u64;
        }
        Ok(())
    }

    /// Reads consecutive pages into whole frames, without a copy.
    ///
    /// # Errors
    /// See [`IoError`].
    fn read_frames(&self, sector: u64, frames: &[Frame]) -> Outcome {
        transfer_frames(self, Operation::Read, sector, frames)
    }

    /// Writes whole frames to consecutive pages, without a copy.
    ///
    /// # Errors
    /// See [`IoError`].
    fn write_frames(&self, sector: u64, frames: &[Frame]) -> Outcome {
        transfer_frames(self, Operation::Write, sector, frames)
    }

    /// Makes everything written so far durable. Succeeds at once on a device without a volatile cache.
    ///
    /// # Errors
    /// See [`IoError`].
    fn flush(&self) -> Outcome {
        self.execute(Operation::Flush, 0, &[])
    }

    /// Tells the device that `sectors` sectors are no longer needed; it may forget them or not.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] when the device knows no discard.
    fn discard(&self, sector: u64, sectors: u64) -> Outcome {
        let most = self.limits().max_discard_sectors;
        in_pieces(sector, sectors, most, |at, sectors| {
            self.execute(Operation::Discard { sectors }, at, &[])
        })
    }

    /// Makes `sectors` sectors read as zero without moving the zeros.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] when the device knows no write-zeroes: the caller writes them.
    fn write_zeroes(&self, sector: u64, sectors: u64, may_unmap: bool) -> Outcome {
        let most = self.limits().max_zeroes_sectors;
        in_pieces(sector, sectors, most, |at, sectors| {
            self.execute(Operation::WriteZeroes { sectors, may_unmap }, at, &[])
        })
    }
}

/// Checks a request against a device before it reaches a queue: range, direction, segments.
///
/// # Errors
/// The error that the request ends with.
pub fn check_request(
    op: Operation,
    sector: u64,
    segments: &[Segment],
    sector_count: u64,
    read_only: bool,
    limits: &Limits,
) -> Outcome {
    let sectors = match op {
        Operation::Read | Operation::Write => {
            if segments.is_empty() || segments.len() > limits.max_segments {
                return Err(IoError::Invalid);
            }
            let mut bytes = 0u64;
            for segment in segments {
                let end = u64::from(segment.offset) + u64::from(segment.len);
                if segment.len == 0 || end > PAGE_SIZE as u64 {
                    return Err(IoError::Invalid);
                }
                bytes += u64::from(segment.len);
            }
            if !bytes.is_multiple_of(SECTOR_SIZE as u64) {
                return Err(IoError::Invalid);
            }
            let sectors = bytes / SECTOR_SIZE as u64;
            if sectors > limits.max_sectors {
                return Err(IoError::Invalid);
            }
            sectors
        }
        Operation::Flush => return Ok(()),
        Operation::Discard { sectors } => within(sectors, limits.max_discard_sectors)?,
        Operation::WriteZeroes { sectors, .. } => within(sectors, limits.max_zeroes_sectors)?,
    };
    if read_only && op != Operation::Read {
        return Err(IoError::ReadOnly);
    }
    match sector.checked_add(sectors) {
        Some(end) if end <= sector_count => Ok(()),
        _ => Err(IoError::OutOfRange),
    }
}

fn within(sectors: u64, most: u64) -> Result<u64, IoError> {
    match most {
        0 => Err(IoError::Unsupported),
        _ if sectors == 0 || sectors > most => Err(IoError::Invalid),
        _ => Ok(sectors),
    }
}

fn in_pieces(
    mut sector: u64,
    mut sectors: u64,
    most: u64,
    mut piece: impl FnMut(u64, u64) -> Outcome,
) -> Outcome {
    if most == 0 {
        return Err(IoError::Unsupported);
    }
    while sectors > 0 {
        let now = sectors.min(most);
        piece(sector, now)?;
        sector = sector.checked_add(now).ok_or(IoError::OutOfRange)?;
        sectors -= now;
    }
    Ok(())
}

fn check_length(len: usize) -> Outcome {
    if len.is_multiple_of(SECTOR_SIZE) {
        Ok(())
    } else {
        Err(IoError::Invalid)
    }
}

/// How many bytes go through fresh frames at a time: at most 128 KiB, so that a large read does not drain memory.
fn bounce_bytes(limits: &Limits) -> usize {
    let pages = limits
        .max_segments
        .min((limits.max_sectors / SECTORS_PER_PAGE) as usize)
        .clamp(1, 32);
    pages * PAGE_SIZE
}

fn bounce(len: usize) -> Result<Vec<Segment>, IoError> {
    let mut segments = Vec::new();
    segments
        .try_reserve_exact(len.div_ceil(PAGE_SIZE))
        .map_err(|_| IoError::NoMemory)?;
    let mut left = len;
    while left > 0 {
        let now = left.min(PAGE_SIZE);
        segments.push(Segment {
            frame: Frame::alloc().map_err(|_| IoError::NoMemory)?,
            offset: 0,
            len: now as u32,
        });
        left -= now;
    }
    Ok(segments)
}

fn transfer_frames<D: BlockDevice + ?Sized>(
    device: &D,
    op: Operation,
    sector: u64,
    frames: &[Frame],
) -> Outcome {
    let limits = device.limits();
    let most = limits
        .max_segments
        .min((limits.max_sectors / SECTORS_PER_PAGE) as usize)
        .max(1);
    let mut segments = Vec::new();
    segments
        .try_reserve_exact(frames.len().min(most))
        .map_err(|_| IoError::NoMemory)?;
    let mut at = sector;
    for part in frames.chunks(most) {
        segments.clear();
        segments.extend(part.iter().cloned().map(Segment::page));
        device.execute(op, at, &segments)?;
        at = at
            .checked_add(part.len() as u64 * SECTORS_PER_PAGE)
            .ok_or(IoError::OutOfRange)?;
    }
    Ok(())
}
