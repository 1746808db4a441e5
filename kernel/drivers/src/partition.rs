//! Partitions of a block device: reading the GUID partition table, and a part of a device as a device of its own. The
//! table's format is in `manifest::gpt`, which the tool shares.

use alloc::{sync::Arc, vec, vec::Vec};
use core::fmt;

use manifest::gpt::{self, GptError, Guid, Header};

use crate::{
    IoError,
    block::{BlockDevice, Limits, Operation, Outcome, Request, SECTOR_SIZE, Segment},
};

/// The most bytes of partition entries that are read: 1024 entries of the usual size.
const MAX_ENTRIES: usize = 128 << 10;

/// Why no partitions were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionError {
    /// Neither the table at the start of the disk nor its backup at the end is usable; why the first is not.
    Table(GptError),
    /// The disk could not be read.
    Io(IoError),
    /// The table describes a larger disk than this one: the partition of this number ends beyond it.
    BeyondDisk(usize),
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PartitionError::Table(error) => error.fmt(f),
            PartitionError::Io(error) => {
                write!(f, "the partition table could not be read: {error}")
            }
            PartitionError::BeyondDisk(number) => {
                write!(
                    f,
                    "partition {} ends beyond the disk: was the image cut short?",
                    number + 1
                )
            }
        }
    }
}

impl core::error::Error for PartitionError {}

impl From<IoError> for PartitionError {
    fn from(error: IoError) -> Self {
        PartitionError::Io(error)
    }
}

/// A partition: a stretch of a device, with what the table says of it.
#[derive(Clone)]
pub struct Partition {
    device: Arc<dyn BlockDevice>,
    entry: gpt::Partition,
    first: u64,
    sectors: u64,
}

impl Partition {
    /// What it is for.
    pub fn kind(&self) -> Guid {
        self.entry.kind
    }

    /// Its own identifier.
    pub fn id(&self) -> Guid {
        self.entry.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Its first sector on the device.
    pub fn first_sector(&self) -> u64 {
        self.first
    }

    /// Translates a sector of the partition; the whole request must lie inside.
    fn translate(&self, op: Operation, sector: u64, segments: &[Segment]) -> Result<u64, IoError> {
        let sectors = match op {
            Operation::Flush => return Ok(0),
            Operation::Read | Operation::Write => {
                let bytes: u64 = segments.iter().map(|s| u64::from(s.len)).sum();
                bytes.div_ceil(SECTOR_SIZE as u64)
            }
            Operation::Discard { sectors } | Operation::WriteZeroes { sectors, .. } => sectors,
        };
        match sector.checked_add(sectors) {
            Some(end) if end <= self.sectors => Ok(self.first + sector),
            _ => Err(IoError::OutOfRange),
        }
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

impl BlockDevice for Partition {
    fn sector_count(&self) -> u64 {
        self.sectors
    }

    fn read_only(&self) -> bool {
        self.device.read_only()
    }

    fn limits(&self) -> Limits {
        self.device.limits()
    }

    fn submit(&self, mut request: Request) {
        match self.translate(request.op, request.sector, &request.segments) {
            Ok(sector) => {
                request.sector = sector;
                self.device.submit(request);
            }
            Err(error) => request.finish(Err(error)),
        }
    }

    fn submit_all(&self, requests: &mut dyn Iterator<Item = Request>) {
        let mut translated = requests.filter_map(|mut request| {
            match self.translate(request.op, request.sector, &request.segments) {
                Ok(sector) => {
                    request.sector = sector;
                    Some(request)
                }
                Err(error) => {
                    request.finish(Err(error));
                    None
                }
            }
        });
        self.device.submit_all(&mut translated);
    }

    fn execute(&self, op: Operation, sector: u64, segments: &[Segment]) -> Outcome {
        let sector = self.translate(op, sector, segments)?;
        self.device.execute(op, sector, segments)
    }
}

/// Reads the partitions of a disk. If the table at its start is damaged, the backup at its end is used.
///
/// # Errors
/// See [`PartitionError`].
pub fn gpt(device: &Arc<dyn BlockDevice>) -> Result<Vec<Partition>, PartitionError> {
    let sectors = device.sector_count();
    let first = match read_table(&**device, 1) {
        Ok(entries) => return wrap(device, entries),
        Err(PartitionError::Io(error)) if error != IoError::OutOfRange => {
            return Err(PartitionError::Io(error));
        }
        Err(error) => error,
    };
    let backup = sectors.checked_sub(1).filter(|&last| last > 1);
    if let Some(at) = backup
        && let Ok(entries) = read_table(&**device, at)
    {
        log::warn!("the disk's partition table is damaged ({first}); using its backup");
        return wrap(device, entries);
    }
    Err(first)
}

/// Reads the table whose header is in sector `at`.
fn read_table(device: &dyn BlockDevice, at: u64) -> Result<Vec<gpt::Partition>, PartitionError> {
    // The usual table lies right behind its header: one read brings both.
    let usual = 1 + gpt::ENTRIES * 128 / SECTOR_SIZE;
    let rest = device.sector_count().saturating_sub(at);
    let span = (usual as u64).min(rest).max(1) as usize;
    let mut bytes = vec![0; span * SECTOR_SIZE];
    device.read(at, &mut bytes)?;
    let header = Header::parse(&bytes[..SECTOR_SIZE]).map_err(PartitionError::Table)?;
    let len = header.entries_len();
    if len > MAX_ENTRIES {
        return Err(PartitionError::Table(GptError::BadHeader));
    }
    let behind = bytes.get(SECTOR_SIZE..SECTOR_SIZE + len);
    let entries = match behind {
        Some(entries) if header.entries_at == at + 1 => header.partitions(entries),
        _ => {
            let mut elsewhere = vec![0; len.next_multiple_of(SECTOR_SIZE)];
            device.read(header.entries_at, &mut elsewhere)?;
            header.partitions(&elsewhere)
        }
    };
    entries.map_err(PartitionError::Table)
}

fn wrap(
    device: &Arc<dyn BlockDevice>,
    entries: Vec<gpt::Partition>,
) -> Result<Vec<Partition>, PartitionError> {
    let end = device.sector_count();
    entries
        .into_iter()
        .enumerate()
        .map(|(number, entry)| {
            let sectors = entry
                .last
                .checked_sub(entry.first)
                .and_then(|span| span.checked_add(1));
            match sectors {
                Some(sectors) if entry.last < end => Ok(Partition {
                    device: device.clone(),
                    first: entry.first,
                    sectors,
                    entry,
                }),
                _ => Err(PartitionError::BeyondDisk(number)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use manifest::gpt::encode;

    use super::*;
    use crate::{block::memory::MemoryDisk, fuzz::Random};

    const SECTORS: usize = 256;

    fn disk() -> Vec<u8> {
        let part = |n: u8, first, last| gpt::Partition {
            kind: Guid([n; 16]),
            id: Guid([n + 100; 16]),
            first,
            last,
            name: format!("part{n}"),
        };
        let parts = [part(1, 40, 47), part(2, 48, 200)];
        let table = encode(Guid([9; 16]), SECTORS as u64, &parts).unwrap();
        let mut bytes = vec![0; SECTORS * SECTOR_SIZE];
        bytes[..table.head.len()].copy_from_slice(&table.head);
        let at = bytes.len() - table.tail.len();
        bytes[at..].copy_from_slice(&table.tail);
        bytes[48 * SECTOR_SIZE..49 * SECTOR_SIZE].fill(7);
        bytes
    }

    fn device(bytes: Vec<u8>) -> Arc<dyn BlockDevice> {
        Arc::new(MemoryDisk::from_bytes(bytes))
    }

    #[test]
    fn partitions_are_devices_of_their_own() {
        let found = gpt(&device(disk())).unwrap();
        assert_eq!(found.len(), 2);
        let second = &found[1];
        assert_eq!(second.name(), "part2");
        assert_eq!(second.kind(), Guid([2; 16]));
        assert_eq!(second.sector_count(), 153);
        let mut sector = [0; SECTOR_SIZE];
        second.read(0, &mut sector).unwrap();
        assert_eq!(sector, [7; SECTOR_SIZE]);
        assert_eq!(found[0].write(7, &sector), Ok(()));
        assert_eq!(found[0].write(8, &sector), Err(IoError::OutOfRange));
        assert_eq!(found[0].write(u64::MAX, &sector), Err(IoError::OutOfRange));
        assert_eq!(found[0].flush(), Ok(()));
    }

    #[test]
    fn the_backup_helps_out() {
        let mut bytes = disk();
        bytes[SECTOR_SIZE + 60] ^= 1;
        assert_eq!(gpt(&device(bytes)).unwrap().len(), 2);
        let mut bytes = disk();
        bytes[2 * SECTOR_SIZE + 3] ^= 1;
        assert_eq!(gpt(&device(bytes.clone())).unwrap().len(), 2);
        let last = bytes.len() - SECTOR_SIZE;
        bytes[last] ^= 1;
        assert_eq!(
            gpt(&device(bytes)).unwrap_err(),
            PartitionError::Table(GptError::Checksum)
        );
    }

    #[test]
    fn disks_without_a_table() {
        for sectors in [0, 1, 2, 3, 40] {
            assert!(gpt(&device(vec![0; sectors * SECTOR_SIZE])).is_err());
        }
        let cut = disk()[..100 * SECTOR_SIZE].to_vec();
        assert_eq!(
            gpt(&device(cut)).unwrap_err(),
            PartitionError::BeyondDisk(1)
        );
    }

    #[test]
    fn hostile_tables_do_not_panic() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut bytes = disk();
            let mut head = bytes[SECTOR_SIZE..6 * SECTOR_SIZE].to_vec();
            random.damage(&mut head);
            head.resize(5 * SECTOR_SIZE, 0);
            bytes[SECTOR_SIZE..6 * SECTOR_SIZE].copy_from_slice(&head);
            // Mend the header's checksum in half of the cases.
            if seed % 2 == 0 {
                let header = &mut bytes[SECTOR_SIZE..2 * SECTOR_SIZE];
                header[12..16].copy_from_slice(&92u32.to_le_bytes());
                header[16..20].fill(0);
                let crc = manifest::crc32(&header[..92]);
                header[16..20].copy_from_slice(&crc.to_le_bytes());
            }
            if let Ok(found) = gpt(&device(bytes)) {
                for partition in found {
                    let mut sector = [0; SECTOR_SIZE];
                    let last = partition.sector_count() - 1;
                    assert_eq!(partition.read(last, &mut sector), Ok(()));
                }
            }
        }
    }
}
