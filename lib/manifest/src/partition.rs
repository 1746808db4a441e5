//! The manifest partition: the JSON text of the boot manifest, which a running machine can replace so that a power cut leaves
//! the old text or the new one.
//!
//! Two places hold a text each; the first two sectors are a record each, of which the valid one with the higher generation
//! says which text holds. A change goes to the place that is not in use; only once it lies there for good, the sector of
//! the other record is written, which switches over.
//!
//! | offset | bytes | content of a record |
//! |---|---|---|
//! | 0 | 8 | `NANOSMF2` |
//! | 8 | 8 | generation |
//! | 16 | 8 | where the text begins in the partition, in bytes |
//! | 24 | 4 | length of the text in bytes |
//! | 28 | 4 | CRC-32C of the text |
//! | 32 | 4 | CRC-32C of the 32 bytes before |
//!
//! Numbers are little-endian, the rest of a record's sector is zero.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::crc::crc32c;

/// The first eight bytes of a record.
pub const MAGIC: [u8; 8] = *b"NANOSMF2";
/// What a disk writes whole or not at all, in bytes.
pub const SECTOR: usize = 512;
/// The partition is a whole number of these, in bytes; the first one is read at once.
pub const BLOCK: usize = 4096;
/// The longest text that is accepted, in bytes: nothing sensible is longer, and a damaged length must not exhaust memory.
pub const MAX_TEXT: usize = 1 << 20;

/// The part of a record that is not zero.
const RECORD: usize = 36;
/// The first text begins behind the records.
const FIRST: usize = 2 * SECTOR;

/// Why bytes are not a manifest partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionError {
    /// There is no valid record.
    NotAManifest,
    /// The text's length is beyond [`MAX_TEXT`], or beyond half of the partition.
    TooLong(usize),
    /// The text would reach beyond the partition's end.
    Truncated,
    /// The checksum does not match the text.
    Checksum,
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAManifest => f.write_str("not a manifest partition"),
            Self::TooLong(n) => write!(f, "the manifest is too long ({n} bytes)"),
            Self::Truncated => f.write_str("the manifest is cut short"),
            Self::Checksum => f.write_str("the manifest's checksum is wrong"),
        }
    }
}

impl core::error::Error for PartitionError {}

/// What the partition lies on. Offsets and lengths are in bytes from its start, and multiples of [`SECTOR`].
pub trait Disk {
    /// Why it fails.
    type Error;

    /// The partition's size.
    fn size(&self) -> u64;

    /// Reads.
    ///
    /// # Errors
    /// The disk's.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes; in which order and when, the disk decides.
    ///
    /// # Errors
    /// The disk's.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Returns when all that was written lies there for good.
    ///
    /// # Errors
    /// The disk's.
    fn flush(&self) -> Result<(), Self::Error>;
}

/// Why a text could not be read or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error<E> {
    /// The disk failed.
    Disk(E),
    /// What is there, or was to be, is no manifest.
    Partition(PartitionError),
}

impl<E> From<PartitionError> for Error<E> {
    fn from(error: PartitionError) -> Self {
        Error::Partition(error)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Disk(error) => write!(f, "{error}"),
            Error::Partition(error) => write!(f, "{error}"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Record {
    generation: u64,
    offset: u64,
    length: usize,
    crc: u32,
}

impl Record {
    fn encode(&self) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..24].copy_from_slice(&self.offset.to_le_bytes());
        out[24..28].copy_from_slice(&(self.length as u32).to_le_bytes());
        out[28..32].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32c(&out[..32]);
        out[32..RECORD].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Record> {
        let bytes: &[u8; RECORD] = bytes.first_chunk()?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let half = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| bytes[at + n]));
        let valid = bytes[..8] == MAGIC && half(32) == crc32c(&bytes[..32]);
        valid.then(|| Record {
            generation: word(8),
            offset: word(16),
            length: half(24) as usize,
            crc: half(28),
        })
    }

    /// Refuses what cannot be on a disk of that length.
    fn check(&self, disk_len: u64) -> Result<(), PartitionError> {
        if self.length > MAX_TEXT {
            return Err(PartitionError::TooLong(self.length));
        }
        let end = self.offset.checked_add(self.length as u64);
        let aligned = self.offset >= FIRST as u64 && self.offset.is_multiple_of(SECTOR as u64);
        match end {
            Some(end) if aligned && end.next_multiple_of(SECTOR as u64) <= disk_len => Ok(()),
            _ => Err(PartitionError::Truncated),
        }
    }
}

/// The text that a partition holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// UTF-8 JSON.
    pub text: Vec<u8>,
    /// A newer text is damaged: a change that was not finished, or a disk that fails.
    pub fell_back: bool,
}

/// How long a partition has to be for a text of `length` bytes, and one of the same length to replace it.
pub fn partition_len(length: usize) -> u64 {
    (2 * (FIRST + length).next_multiple_of(SECTOR)).next_multiple_of(BLOCK) as u64
}

/// The first bytes of a new partition with that text.
///
/// # Errors
/// [`PartitionError::TooLong`].
pub fn encode(text: &[u8]) -> Result<Vec<u8>, PartitionError> {
    if text.len() > MAX_TEXT {
        return Err(PartitionError::TooLong(text.len()));
    }
    let record = Record {
        generation: 1,
        offset: FIRST as u64,
        length: text.len(),
        crc: crc32c(text),
    };
    let mut out = vec![0; FIRST];
    out[..SECTOR].copy_from_slice(&record.encode());
    out.extend_from_slice(text);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    Ok(out)
}

/// Reads the text that holds.
///
/// # Errors
/// The disk's, or why there is none.
pub fn load<D: Disk + ?Sized>(disk: &D) -> Result<Found, Error<D::Error>> {
    find(disk).map(|(found, ..)| found)
}

/// The text that holds, its record, and which of the two that is.
fn find<D: Disk + ?Sized>(disk: &D) -> Result<(Found, Record, usize), Error<D::Error>> {
    let mut start = vec![0; BLOCK.min(disk.size() as usize / SECTOR * SECTOR)];
    disk.read(0, &mut start).map_err(Error::Disk)?;
    let record = |n: usize| Some((Record::decode(start.get(n * SECTOR..)?)?, n));
    let mut records: Vec<(Record, usize)> = [0, 1].into_iter().filter_map(record).collect();
    records.sort_by_key(|(record, _)| core::cmp::Reverse(record.generation));
    let mut error = PartitionError::NotAManifest;
    for (at, (record, number)) in records.into_iter().enumerate() {
        match read(disk, &start, &record) {
            Ok(text) => {
                let fell_back = at > 0;
                return Ok((Found { text, fell_back }, record, number));
            }
            Err(Error::Partition(why)) if at == 0 => error = why,
            Err(Error::Partition(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(error.into())
}

fn read<D: Disk + ?Sized>(
    disk: &D,
    start: &[u8],
    record: &Record,
) -> Result<Vec<u8>, Error<D::Error>> {
    record.check(disk.size())?;
    let (offset, length) = (record.offset, record.length);
    let text = match start.get(offset as usize..offset as usize + length) {
        Some(text) => text.to_vec(),
        None => {
            let mut bytes = vec![0; length.next_multiple_of(SECTOR)];
            disk.read(offset, &mut bytes).map_err(Error::Disk)?;
            bytes.truncate(length);
            bytes
        }
    };
    match crc32c(&text) == record.crc {
        true => Ok(text),
        false => Err(PartitionError::Checksum.into()),
    }
}

/// Whether a text of `length` bytes can replace one on a partition of `disk_len` bytes.
///
/// # Errors
/// [`PartitionError::TooLong`].
pub fn check_room(disk_len: u64, length: usize) -> Result<(), PartitionError> {
    match length <= MAX_TEXT && partition_len(length) <= disk_len {
        true => Ok(()),
        false => Err(PartitionError::TooLong(length)),
    }
}

/// Replaces the text. Whatever happens meanwhile, the old text holds or the new one; when this returns, the new one.
///
/// # Errors
/// The disk's; that there is no text to replace; [`check_room`].
pub fn replace<D: Disk + ?Sized>(disk: &D, text: &[u8]) -> Result<(), Error<D::Error>> {
    check_room(disk.size(), text.len())?;
    let (_, old, number) = find(disk)?;
    let second = disk.size() / 2 / SECTOR as u64 * SECTOR as u64;
    let offset = match old.offset < second {
        true => second,
        false => FIRST as u64,
    };
    let record = Record {
        generation: old.generation.wrapping_add(1),
        offset,
        length: text.len(),
        crc: crc32c(text),
    };
    let mut padded = text.to_vec();
    padded.resize(text.len().next_multiple_of(SECTOR), 0);
    disk.write(offset, &padded).map_err(Error::Disk)?;
    disk.flush().map_err(Error::Disk)?;
    let place = (1 - number) * SECTOR;
    disk.write(place as u64, &record.encode())
        .map_err(Error::Disk)?;
    disk.flush().map_err(Error::Disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::{Cell, RefCell};

    /// A disk that loses power: after `left` sectors nothing is written any more.
    struct Fragile {
        bytes: RefCell<Vec<u8>>,
        /// What is not flushed yet: where, and what.
        pending: RefCell<Vec<(usize, [u8; SECTOR])>>,
        left: Cell<usize>,
    }

    impl Fragile {
        fn new(bytes: Vec<u8>, left: usize) -> Fragile {
            Fragile {
                bytes: RefCell::new(bytes),
                pending: RefCell::default(),
                left: Cell::new(left),
            }
        }

        /// What is found after a power cut: of what was not flushed, the disk had written what `which` says, in any order.
        fn after_cut(&self, which: u64) -> Fragile {
            let mut bytes = self.bytes.borrow().clone();
            for (n, (at, sector)) in self.pending.borrow().iter().enumerate() {
                if which >> (n % 64) & 1 == 1 {
                    bytes[*at..*at + SECTOR].copy_from_slice(sector);
                }
            }
            Fragile::new(bytes, usize::MAX)
        }
    }

    impl Disk for Fragile {
        type Error = &'static str;

        fn size(&self) -> u64 {
            self.bytes.borrow().len() as u64
        }

        fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), &'static str> {
            let (bytes, at) = (self.bytes.borrow(), offset as usize);
            into.copy_from_slice(bytes.get(at..at + into.len()).ok_or("beyond the end")?);
            Ok(())
        }

        fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), &'static str> {
            let (sectors, rest) = bytes.as_chunks::<SECTOR>();
            assert!(rest.is_empty() && (offset as usize).is_multiple_of(SECTOR));
            for (n, sector) in sectors.iter().enumerate() {
                self.left
                    .set(self.left.get().checked_sub(1).ok_or("power cut")?);
                let at = offset as usize + n * SECTOR;
                self.pending.borrow_mut().push((at, *sector));
            }
            Ok(())
        }

        fn flush(&self) -> Result<(), &'static str> {
            *self.bytes.borrow_mut() = self.after_cut(u64::MAX).bytes.into_inner();
            self.pending.borrow_mut().clear();
            Ok(())
        }
    }

    fn partition(text: &[u8], len: usize) -> Vec<u8> {
        let mut bytes = encode(text).unwrap();
        bytes.resize(len, 0);
        bytes
    }

    fn text_of(disk: &Fragile) -> Vec<u8> {
        load(disk).unwrap().text
    }

    #[test]
    fn round_trip_and_every_damage() {
        let text = b"{\"program\":\"/x\"}";
        let bytes = encode(text).unwrap();
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(text_of(&Fragile::new(bytes.clone(), 0)), text);
        let big = vec![b' '; 2 * BLOCK];
        assert_eq!(text_of(&Fragile::new(encode(&big).unwrap(), 0)), big);
        let long = MAX_TEXT + 1;
        assert_eq!(encode(&vec![0; long]), Err(PartitionError::TooLong(long)));
        let error = |bytes: Vec<u8>| match load(&Fragile::new(bytes, 0)) {
            Err(Error::Partition(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(error(vec![]), PartitionError::NotAManifest);
        assert_eq!(error(vec![0; BLOCK]), PartitionError::NotAManifest);
        // Any flipped bit of the record makes it none, any of the text is seen.
        for bit in 0..RECORD * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(error(damaged), PartitionError::NotAManifest, "{bit}");
        }
        let mut damaged = bytes.clone();
        damaged[FIRST + 4] ^= 1;
        assert_eq!(error(damaged), PartitionError::Checksum);
        let record = |change: fn(&mut Record)| {
            let mut record = Record::decode(&bytes).unwrap();
            change(&mut record);
            let mut damaged = bytes.clone();
            damaged[..SECTOR].copy_from_slice(&record.encode());
            error(damaged)
        };
        assert_eq!(
            record(|r| r.length = MAX_TEXT + 1),
            PartitionError::TooLong(long)
        );
        for change in [
            (|r| r.length = BLOCK) as fn(&mut Record),
            |r| r.offset = u64::MAX,
            |r| r.offset = 0,
            |r| r.offset = FIRST as u64 + 1,
            |r| r.offset = BLOCK as u64,
        ] {
            assert_eq!(record(change), PartitionError::Truncated);
        }
    }

    /// Power is cut at each point of each of several changes, with each part of what was not flushed written.
    #[test]
    fn a_power_cut_leaves_the_old_text_or_the_new_one() {
        let texts: Vec<Vec<u8>> = (0..6)
            .map(|n| vec![b'a' + n; 700 * n as usize + 3])
            .collect();
        let mut bytes = partition(&texts[0], 16 << 10);
        for pair in texts.windows(2) {
            let [old, new] = pair else { unreachable!() };
            let sectors = new.len().div_ceil(SECTOR) + 1;
            for left in 0..=sectors {
                let disk = Fragile::new(bytes.clone(), left);
                let done = replace(&disk, new).is_ok();
                assert_eq!(done, left == sectors);
                for which in 0..1 << disk.pending.borrow().len() {
                    let found = text_of(&disk.after_cut(which));
                    assert!(
                        found == *new || (!done && found == *old),
                        "{left} {which:b}"
                    );
                    // And it can be changed after that.
                    let after = disk.after_cut(which);
                    replace(&after, b"{}").unwrap();
                    assert_eq!(text_of(&after), b"{}");
                }
            }
            let disk = Fragile::new(bytes, usize::MAX);
            replace(&disk, new).unwrap();
            assert_eq!(
                load(&disk),
                Ok(Found {
                    text: new.clone(),
                    fell_back: false
                })
            );
            bytes = disk.bytes.into_inner();
        }
        // The text before is there still, if the newest one's place goes bad.
        let newest = Record::decode(&bytes[SECTOR..]).unwrap();
        bytes[newest.offset as usize] ^= 1;
        let found = load(&Fragile::new(bytes, 0)).unwrap();
        assert!(found.fell_back && found.text == texts[4]);
    }

    #[test]
    fn a_text_fits_if_another_of_its_length_fits_beside_it() {
        for length in [0, 1, 511, 512, 513, 3072, 4096, 70_000, MAX_TEXT] {
            let text = vec![b'x'; length];
            let len = partition_len(length) as usize;
            let disk = Fragile::new(partition(&text, len), usize::MAX);
            replace(&disk, &text).unwrap();
            replace(&disk, &text).unwrap();
            assert_eq!(text_of(&disk), text);
            let one_more = len / 2 - FIRST + 1;
            let error = replace(&disk, &vec![0; one_more]);
            assert_eq!(error, Err(PartitionError::TooLong(one_more).into()));
        }
    }
}
