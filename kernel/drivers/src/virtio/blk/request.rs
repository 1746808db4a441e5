//! A request of a block device on its way into a queue: what is asked, the memory that the device gets for it, and the
//! pieces that become descriptors.

use alloc::vec::Vec;

use machine::dma::{DmaIn, DmaOut};
use smallvec::SmallVec;

use crate::{
    IoError,
    block::{Operation, Segment},
    virtio::queue::Piece,
};

/// The most pieces of a request: as many descriptors as fit into a slot's table.
pub(super) const MOST_PIECES: usize = 61;

/// Request types (virtio 1.2, 5.2.6).
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// What is to be asked of the device.
#[derive(Clone, Copy)]
pub(super) enum Command {
    Operation(Operation),
    GetId,
}

/// A segment while the device has it.
enum Transfer {
    /// The device writes it.
    In(DmaIn),
    /// The device reads it.
    Out(DmaOut),
}

impl Transfer {
    pub(super) fn new(segment: &Segment, device_writes: bool) -> Transfer {
        let (frame, at, len) = (
            segment.frame.clone(),
            segment.offset as usize,
            segment.len as usize,
        );
        if device_writes {
            Transfer::In(DmaIn::from_frame(frame, at, len))
        } else {
            Transfer::Out(DmaOut::from_frame(frame, at, len))
        }
    }

    fn address(&self) -> u64 {
        match self {
            Transfer::In(data) => data.phys(),
            Transfer::Out(data) => data.phys(),
        }
    }

    fn len(&self) -> u32 {
        let len = match self {
            Transfer::In(data) => data.len(),
            Transfer::Out(data) => data.len(),
        };
        len as u32
    }

    fn complete(self) {
        match self {
            Transfer::In(data) => data.complete(),
            Transfer::Out(data) => data.complete(),
        }
    }
}

/// What the device's configuration demands of requests.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// The longest piece in bytes.
    pub(super) max_piece: u32,
    /// Write-zeroes may deallocate.
    pub(super) zeroes_may_unmap: bool,
}

/// A request as it is given to the device.
pub(super) struct Prepared {
    pub(super) kind: u32,
    pub(super) sector: u64,
    /// Sectors and flags of a discard or write-zeroes.
    pub(super) range: Option<(u32, u32)>,
    transfers: Vec<Transfer>,
    /// The transfers as descriptors; neighbouring frames share one.
    pub(super) pieces: SmallVec<[Piece; 2]>,
}

impl Prepared {
    pub(super) fn new(
        command: Command,
        sector: u64,
        segments: &[Segment],
        rules: Rules,
    ) -> Result<Prepared, IoError> {
        let (kind, range) = match command {
            Command::GetId => (kind::GET_ID, None),
            Command::Operation(op) => match op {
                Operation::Read => (kind::IN, None),
                Operation::Write => (kind::OUT, None),
                Operation::Flush => (kind::FLUSH, None),
                Operation::Discard { sectors } => (kind::DISCARD, Some((sectors, 0))),
                Operation::WriteZeroes { sectors, may_unmap } => {
                    let flags = u32::from(may_unmap && rules.zeroes_may_unmap);
                    (kind::WRITE_ZEROES, Some((sectors, flags)))
                }
            },
        };
        let range = match range {
            Some((sectors, flags)) => {
                let sectors = u32::try_from(sectors).map_err(|_| IoError::Invalid)?;
                Some((sectors, flags))
            }
            None => None,
        };
        let device_writes = kind == kind::IN || kind == kind::GET_ID;
        let mut transfers = Vec::new();
        transfers
            .try_reserve_exact(segments.len())
            .map_err(|_| IoError::NoMemory)?;
        let mut pieces = SmallVec::new();
        for segment in segments {
            let transfer = Transfer::new(segment, device_writes);
            let piece = Piece {
                address: transfer.address(),
                len: transfer.len(),
                device_writes,
            };
            if !join(&mut pieces, &piece, rules.max_piece) {
                pieces.push(piece);
            }
            transfers.push(transfer);
        }
        Ok(Prepared {
            kind,
            sector,
            range,
            transfers,
            pieces,
        })
    }

    /// The device is done with it, or never saw it.
    pub(super) fn complete(self) {
        self.transfers.into_iter().for_each(Transfer::complete);
    }
}

/// Makes the last piece longer if the next follows it in memory.
fn join(pieces: &mut SmallVec<[Piece; 2]>, next: &Piece, most: u32) -> bool {
    let Some(last) = pieces.last_mut() else {
        return false;
    };
    let joined = last.len.checked_add(next.len).filter(|&len| len <= most);
    match joined {
        Some(len) if last.address + u64::from(last.len) == next.address => {
            last.len = len;
            true
        }
        _ => false,
    }
}
