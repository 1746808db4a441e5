//! A block device whose sectors are kernel memory: for tests of what lies above, and for small scratch disks.

use alloc::{vec, vec::Vec};

use machine::sync::SpinLock;

use super::{
    BlockDevice, Limits, Operation, Outcome, Request, SECTOR_SIZE, Segment, check_request,
};

/// A disk in memory. Requests are done before `submit` returns.
pub struct MemoryDisk {
    bytes: SpinLock<Vec<u8>>,
    sectors: u64,
    read_only: bool,
}

impl MemoryDisk {
    /// A disk of `sectors` zeroed sectors.
    pub fn new(sectors: usize) -> MemoryDisk {
        MemoryDisk::from_bytes(vec![0; sectors * SECTOR_SIZE])
    }

    /// A disk with these contents, without the last part that is no whole sector.
    pub fn from_bytes(mut bytes: Vec<u8>) -> MemoryDisk {
        bytes.truncate(bytes.len() / SECTOR_SIZE * SECTOR_SIZE);
        MemoryDisk {
            sectors: (bytes.len() / SECTOR_SIZE) as u64,
            bytes: SpinLock::new(bytes),
            read_only: false,
        }
    }

    /// The same disk, refusing writes from now on.
    pub fn into_read_only(mut self) -> MemoryDisk {
        self.read_only = true;
        self
    }

    /// A copy of all its bytes.
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.lock().clone()
    }

    fn perform(&self, op: Operation, sector: u64, segments: &[Segment]) -> Outcome {
        check_request(
            op,
            sector,
            segments,
            self.sectors,
            self.read_only,
            &self.limits(),
        )?;
        let mut bytes = self.bytes.lock();
        let mut at = sector as usize * SECTOR_SIZE;
        match op {
            Operation::Read | Operation::Write => {
                for segment in segments {
                    let part = &mut bytes[at..at + segment.len as usize];
                    if op == Operation::Read {
                        segment.frame.write(segment.offset as usize, part);
                    } else {
                        segment.frame.read(segment.offset as usize, part);
                    }
                    at += part.len();
                }
            }
            Operation::Flush => {}
            Operation::Discard { sectors } | Operation::WriteZeroes { sectors, .. } => {
                bytes[at..at + sectors as usize * SECTOR_SIZE].fill(0);
            }
        }
        Ok(())
    }
}

impl BlockDevice for MemoryDisk {
    fn sector_count(&self) -> u64 {
        self.sectors
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn limits(&self) -> Limits {
        Limits {
            max_discard_sectors: u64::MAX,
            max_zeroes_sectors: u64::MAX,
            ..Limits::default()
        }
    }

    fn submit(&self, request: Request) {
        let outcome = self.perform(request.op, request.sector, &request.segments);
        request.finish(outcome);
    }

    fn execute(&self, op: Operation, sector: u64, segments: &[Segment]) -> Outcome {
        self.perform(op, sector, segments)
    }
}

#[cfg(test)]
mod tests {
    use machine::mem::Frame;

    use super::*;
    use crate::IoError;

    #[test]
    fn what_was_written_is_read() {
        let disk = MemoryDisk::new(64);
        let data: Vec<u8> = (0..SECTOR_SIZE * 11).map(|i| (i % 251) as u8).collect();
        disk.write(3, &data).unwrap();
        let mut back = vec![0; data.len()];
        disk.read(3, &mut back).unwrap();
        assert_eq!(back, data);
        let frame = Frame::alloc().unwrap();
        disk.read_frames(3, core::slice::from_ref(&frame)).unwrap();
        let mut page = vec![0; 4096];
        frame.read(0, &mut page);
        assert_eq!(page, data[..4096]);
        disk.write_zeroes(4, 1, false).unwrap();
        disk.read(3, &mut back).unwrap();
        assert_eq!(back[..512], data[..512]);
        assert!(back[512..1024].iter().all(|&b| b == 0));
    }

    #[test]
    fn bounds_and_direction_are_checked() {
        let disk = MemoryDisk::new(8).into_read_only();
        let mut sector = [0; SECTOR_SIZE];
        assert_eq!(disk.read(7, &mut sector), Ok(()));
        assert_eq!(disk.read(8, &mut sector), Err(IoError::OutOfRange));
        assert_eq!(disk.read(u64::MAX, &mut sector), Err(IoError::OutOfRange));
        assert_eq!(disk.read(0, &mut sector[..100]), Err(IoError::Invalid));
        assert_eq!(disk.write(0, &sector), Err(IoError::ReadOnly));
        assert_eq!(disk.flush(), Ok(()));
    }
}
