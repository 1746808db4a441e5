//! A request of a block device on its way into a queue: what is asked, the memory that the device gets for it, and the
//! pieces that become descriptors.

use alloc::vec::Vec;

use machine::dma::{DmaIn, DmaOut};

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
pub(super) enum Transfer {
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

    pub(super) fn address(&self) -> u64 {
        match self {
            Transfer::In(data) => data.phys(),
            Transfer::Out(data) => data.phys(),
        }
    }

    pub(super) fn len(&self) -> u32 {
        let len = match self {
            Transfer::In(data) => data.len(),
            Transfer::Out(data) => data.len(),
        };
        len as u32
    }

    pub(super) fn complete(self) {
        match self {
            Transfer::In(data) => data.complete(),
            Transfer::Out(data) => data.complete(),
        }
    }
}

/// A request as it is given to the device.
pub(super) struct Prepared {
    pub(super) kind: u32,
    pub(super) sector: u64,
    /// Sectors and flags of a discard or write-zeroes.
    pub(super) range: Option<(u32, u32)>,
    pub(super) transfers: Vec<Transfer>,
}

impl Prepared {
    pub(super) fn new(
        command: Command,
        sector: u64,
        segments: &[Segment],
        may_unmap: bool,
    ) -> Result<Prepared, IoError> {
        let (kind, range) = match command {
            Command::GetId => (kind::GET_ID, None),
            Command::Operation(op) => match op {
                Operation::Read => (kind::IN, None),
                Operation::Write => (kind::OUT, None),
                Operation::Flush => (kind::FLUSH, None),
                Operation::Discard { sectors } => (kind::DISCARD, Some((sectors, 0))),
                Operation::WriteZeroes {
                    sectors,
                    may_unmap: allowed,
                } => (
                    kind::WRITE_ZEROES,
                    Some((sectors, u32::from(may_unmap && allowed))),
                ),
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
        transfers.extend(
            segments
                .iter()
                .map(|segment| Transfer::new(segment, device_writes)),
        );
        Ok(Prepared {
            kind,
            sector,
            range,
            transfers,
        })
    }

    /// The device is done with it, or never saw it.
    pub(super) fn complete(self) {
        self.transfers.into_iter().for_each(Transfer::complete);
    }
}

/// The pieces of a request, at most [`MOST_PIECES`].
pub(super) struct Pieces {
    list: [Piece; MOST_PIECES],
    len: usize,
}

impl Pieces {
    pub(super) fn new() -> Pieces {
        let none = Piece {
            address: 0,
            len: 0,
            device_writes: false,
        };
        Pieces {
            list: [none; MOST_PIECES],
            len: 0,
        }
    }

    pub(super) fn push(&mut self, address: u64, len: u32, device_writes: bool) {
        // Requests have at most MOST_SEGMENTS segments: there is always room.
        if let Some(place) = self.list.get_mut(self.len) {
            *place = Piece {
                address,
                len,
                device_writes,
            };
            self.len += 1;
        }
    }

    /// Makes the last piece longer if `address` follows it, so that neighbouring frames cost one descriptor.
    pub(super) fn extend_last(
        &mut self,
        address: u64,
        len: u32,
        device_writes: bool,
        most: u32,
    ) -> bool {
        if self.len < 2 {
            return false;
        }
        let last = &mut self.list[self.len - 1];
        let joined = last.len.checked_add(len).filter(|&joined| joined <= most);
        match joined {
            Some(joined)
                if last.device_writes == device_writes
                    && last.address + u64::from(last.len) == address =>
            {
                last.len = joined;
                true
            }
            _ => false,
        }
    }

    pub(super) fn as_slice(&self) -> &[Piece] {
        &self.list[..self.len]
    }
}
