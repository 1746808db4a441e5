//! The GUID partition table: the little of it that an image needs, read by the kernel and written by the tool.
//!
//! Sectors are 512 bytes, the table has 128 entries of 128 bytes. See the UEFI specification, chapter 5.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::crc::crc32;

/// Bytes in a logical block.
pub const SECTOR: usize = 512;
/// Entries in a table that [`encode`] writes.
pub const ENTRIES: usize = 128;
/// Sectors before the first that a partition can use: protective MBR, header, entries.
pub const FIRST_USABLE: u64 = 34;
/// Sectors after the last that a partition can use: entries, header.
pub const TAIL_SECTORS: u64 = 33;

const ENTRY_LEN: usize = 128;
const HEADER_LEN: usize = 92;
const SIGNATURE: [u8; 8] = *b"EFI PART";

/// A GUID, held in its on-disk byte order (first three fields little-endian).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// A GUID from its printed fields; the last eight bytes are in printed order.
    #[must_use]
    pub const fn from_fields(a: u32, b: u16, c: u16, d: [u8; 8]) -> Self {
        let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
        Guid([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5],
            d[6], d[7],
        ])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, at) in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
            .into_iter()
            .enumerate()
        {
            if [4, 6, 8, 10].contains(&i) {
                f.write_str("-")?;
            }
            write!(f, "{:02X}", self.0[at])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub kind: Guid,
    /// Its own GUID.
    pub id: Guid,
    /// Its first sector.
    pub first: u64,
    /// Its last sector, which belongs to it.
    pub last: u64,
    /// Its name, at most 36 UTF-16 units.
    pub name: String,
}

impl Partition {
    /// The first byte on the disk.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.first * SECTOR as u64
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.last - self.first + 1) * SECTOR as u64
    }

    /// Never: a partition has at least one sector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Why a disk's partition table was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GptError {
    /// No GPT signature where the header belongs.
    NoSignature,
    /// A header field is out of bounds.
    BadHeader,
    /// A checksum does not match.
    Checksum,
    /// Not enough bytes were given.
    Truncated,
    /// The entry of this number lies outside the usable sectors.
    BadEntry(usize),
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSignature => f.write_str("no GUID partition table"),
            Self::BadHeader => f.write_str("the partition table's header makes no sense"),
            Self::Checksum => f.write_str("the partition table's checksum is wrong"),
            Self::Truncated => f.write_str("the partition table is cut short"),
            Self::BadEntry(n) => {
                write!(f, "partition {} lies outside the disk's usable part", n + 1)
            }
        }
    }
}

impl core::error::Error for GptError {}

/// Where the primary table's entries are, as the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// First sector of the entries.
    pub entries_at: u64,
    /// How many entries there are.
    pub count: usize,
    /// Bytes in each.
    pub entry_len: usize,
    first_usable: u64,
    last_usable: u64,
    entries_crc: u32,
}

impl Header {
    /// Reads the header from the disk's second sector (LBA 1).
    ///
    /// # Errors
    /// See [`GptError`].
    pub fn parse(sector: &[u8]) -> Result<Self, GptError> {
        let sector = sector.get(..SECTOR).ok_or(GptError::Truncated)?;
        if sector[..8] != SIGNATURE {
            return Err(GptError::NoSignature);
        }
        let length = u32_at(sector, 12) as usize;
        if !(HEADER_LEN..=SECTOR).contains(&length) {
            return Err(GptError::BadHeader);
        }
        let mut copy = sector[..length].to_vec();
        copy[16..20].fill(0);
        if crc32(&copy) != u32_at(sector, 16) {
            return Err(GptError::Checksum);
        }
        let header = Header {
            entries_at: u64_at(sector, 72),
            count: u32_at(sector, 80) as usize,
            entry_len: u32_at(sector, 84) as usize,
            first_usable: u64_at(sector, 40),
            last_usable: u64_at(sector, 48),
            entries_crc: u32_at(sector, 88),
        };
        let sane = (1..=1024).contains(&header.count)
            && (ENTRY_LEN..=4096).contains(&header.entry_len)
            && header.entries_at >= 2
            && header.last_usable < u64::MAX / SECTOR as u64;
        sane.then_some(header).ok_or(GptError::BadHeader)
    }

    /// Bytes of the entries, from sector [`Header::entries_at`] on.
    #[must_use]
    pub fn entries_len(&self) -> usize {
        self.count * self.entry_len
    }

    /// Reads the partitions from the entries' bytes.
    ///
    /// # Errors
    /// See [`GptError`].
    pub fn partitions(&self, entries: &[u8]) -> Result<Vec<Partition>, GptError> {
        let entries = entries
            .get(..self.entries_len())
            .ok_or(GptError::Truncated)?;
        if crc32(entries) != self.entries_crc {
            return Err(GptError::Checksum);
        }
        let mut out = Vec::new();
        for (number, entry) in entries.chunks_exact(self.entry_len).enumerate() {
            let kind = Guid(array_at(entry, 0));
            if kind.0 == [0; 16] {
                continue;
            }
            let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
            if first < self.first_usable || last > self.last_usable || first > last {
                return Err(GptError::BadEntry(number));
            }
            let units: Vec<u16> = entry[56..ENTRY_LEN]
                .chunks_exact(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .take_while(|&unit| unit != 0)
                .collect();
            out.push(Partition {
                kind,
                id: Guid(array_at(entry, 16)),
                first,
                last,
                name: String::from_utf16_lossy(&units),
            });
        }
        Ok(out)
    }
}

/// The two ends of a partitioned disk: what to write at its start and at its end.
pub struct Table {
    /// Protective MBR, header and entries: the disk's first [`FIRST_USABLE`] sectors.
    pub head: Vec<u8>,
    /// The backup: the disk's last [`TAIL_SECTORS`] sectors.
    pub tail: Vec<u8>,
}

/// Writes a partition table for a disk of `sectors` sectors.
///
/// # Errors
/// [`GptError::BadHeader`] when the disk is too small or there are too many partitions, [`GptError::BadEntry`] when one
/// lies outside the usable sectors.
pub fn encode(disk: Guid, sectors: u64, partitions: &[Partition]) -> Result<Table, GptError> {
    if sectors <= FIRST_USABLE + TAIL_SECTORS || partitions.len() > ENTRIES {
        return Err(GptError::BadHeader);
    }
    let last_usable = sectors - TAIL_SECTORS - 1;
    let mut entries = vec![0; ENTRIES * ENTRY_LEN];
    for (number, (entry, part)) in entries
        .chunks_exact_mut(ENTRY_LEN)
        .zip(partitions)
        .enumerate()
    {
        if part.first < FIRST_USABLE || part.last > last_usable || part.first > part.last {
            return Err(GptError::BadEntry(number));
        }
        entry[..16].copy_from_slice(&part.kind.0);
        entry[16..32].copy_from_slice(&part.id.0);
        entry[32..40].copy_from_slice(&part.first.to_le_bytes());
        entry[40..48].copy_from_slice(&part.last.to_le_bytes());
        for (slot, unit) in entry[56..]
            .chunks_exact_mut(2)
            .zip(part.name.encode_utf16())
        {
            slot.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let header = |own: u64, other: u64, entries_at: u64| {
        let mut h = vec![0; SECTOR];
        h[..8].copy_from_slice(&SIGNATURE);
        h[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        h[12..16].copy_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        for (at, value) in [
            (24, own),
            (32, other),
            (40, FIRST_USABLE),
            (48, last_usable),
            (72, entries_at),
        ] {
            h[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        h[56..72].copy_from_slice(&disk.0);
        for (at, value) in [
            (80, ENTRIES as u32),
            (84, ENTRY_LEN as u32),
            (88, crc32(&entries)),
        ] {
            h[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc32(&h[..HEADER_LEN]);
        h[16..20].copy_from_slice(&crc.to_le_bytes());
        h
    };
    let mut head = protective_mbr(sectors);
    head.extend(header(1, sectors - 1, 2));
    head.extend_from_slice(&entries);
    let mut tail = entries.clone();
    tail.extend(header(sectors - 1, 1, sectors - TAIL_SECTORS));
    Ok(Table { head, tail })
}

fn protective_mbr(sectors: u64) -> Vec<u8> {
    let mut mbr = vec![0; SECTOR];
    let entry = &mut mbr[446..462];
    entry[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
    entry[4] = 0xee;
    entry[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&1u32.to_le_bytes());
    let length = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    entry[12..16].copy_from_slice(&length.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

// The three readers below are given offsets inside a slice whose length the callers have checked.

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    core::array::from_fn(|i| bytes[at + i])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Partition> {
        vec![
            Partition {
                kind: crate::MANIFEST_PARTITION_TYPE,
                id: Guid([1; 16]),
                first: 2048,
                last: 2055,
                name: "manifest".into(),
            },
            Partition {
                kind: crate::ROOT_PARTITION_TYPE,
                id: Guid([2; 16]),
                first: 4096,
                last: 9000,
                name: "root".into(),
            },
        ]
    }

    fn read(table: &Table) -> Result<Vec<Partition>, GptError> {
        let header = Header::parse(&table.head[SECTOR..])?;
        header.partitions(&table.head[header.entries_at as usize * SECTOR..])
    }

    #[test]
    fn what_is_written_is_read() {
        let table = encode(Guid([9; 16]), 10_000, &sample()).unwrap();
        assert_eq!(table.head.len() as u64, FIRST_USABLE * SECTOR as u64);
        assert_eq!(table.tail.len() as u64, TAIL_SECTORS * SECTOR as u64);
        assert_eq!(read(&table).unwrap(), sample());
        let backup = Header::parse(&table.tail[table.tail.len() - SECTOR..]).unwrap();
        assert_eq!(backup.partitions(&table.tail).unwrap(), sample());
    }

    #[test]
    fn printed_form() {
        let text = alloc::format!("{}", crate::ROOT_PARTITION_TYPE);
        assert_eq!(text, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709");
    }

    #[test]
    fn damage_is_an_error() {
        let good = encode(Guid([9; 16]), 10_000, &sample()).unwrap();
        for at in [
            SECTOR,
            SECTOR + 12,
            SECTOR + 50,
            SECTOR + 80,
            2 * SECTOR + 33,
        ] {
            let mut table = encode(Guid([9; 16]), 10_000, &sample()).unwrap();
            table.head[at] ^= 0x5a;
            assert!(read(&table).is_err(), "byte {at}");
        }
        assert_eq!(
            Header::parse(&good.head[SECTOR..700]),
            Err(GptError::Truncated)
        );
        assert!(encode(Guid([9; 16]), 60, &[]).is_err());
        assert!(encode(Guid([9; 16]), 9_000, &sample()).is_err());
    }
}
