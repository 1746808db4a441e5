//! Replaying the journal after a crash.

use super::*;
use crate::cache::NumberMap;

/// A block of the log and where it belongs.
#[derive(Clone, Copy)]
struct Copy {
    home: u64,
    log: u32,
    escaped: bool,
}

/// What the log holds: for each home block its newest copy that was not revoked.
struct Found {
    copies: Vec<Copy>,
    /// Number of the first transaction that is not there.
    next: u32,
}

impl<D: BlockDevice> Ext4<D> {
    /// Replays the journal: onto the device, or into memory when the mount is read-only.
    pub(crate) fn recover(&mut self, read_only: bool) -> Result<()> {
        let mut journal = self.open_journal()?;
        let start = get(&journal.raw, 28);
        if start == 0 {
            return Ok(());
        }
        if start < journal.first || start >= journal.end {
            return Err(Error::corrupt("journal start"));
        }
        let found = self.scan(&journal, start)?;
        let size = self.sb.block_size as usize;
        for copy in &found.copies {
            let mut data = alloc::vec![0; size].into_boxed_slice();
            self.read_log(&journal, copy.log, &mut data)?;
            if copy.escaped {
                put(&mut data, 0, MAGIC);
            }
            if read_only {
                self.overlay.insert(copy.home, data);
            } else {
                self.device.write(copy.home * size as u64, &data)?;
            }
        }
        if !read_only {
            self.device.flush()?;
            // Skipping a number makes sure that remains of an unfinished transaction never look like a new one.
            self.write_log_super(&mut journal, 0, found.next.wrapping_add(1))?;
            self.device.flush()?;
        }
        Ok(())
    }

    fn read_log(&self, journal: &Journal, block: u32, data: &mut [u8]) -> Result<()> {
        let (nr, _) = journal.locate(block)?;
        self.device.read(nr * u64::from(self.sb.block_size), data)?;
        Ok(())
    }

    /// Walks the log from its start to the first transaction that is not complete.
    fn scan(&self, journal: &Journal, start: u32) -> Result<Found> {
        let size = self.sb.block_size as usize;
        let mut block = alloc::vec![0; size];
        let mut data = alloc::vec![0; size];
        let mut newest: NumberMap<u64, (u32, Copy)> = NumberMap::default();
        let mut revoked: NumberMap<u64, u32> = NumberMap::default();
        let mut copies: Vec<Copy> = Vec::new();
        let mut revokes: Vec<u64> = Vec::new();
        let (mut at, mut sequence) = (start, get(&journal.raw, 24));
        let first = sequence;
        let mut left = journal.end - journal.first;
        'log: while left > 0 {
            self.read_log(journal, at, &mut block)?;
            if get(&block, 0) != MAGIC || get(&block, 8) != sequence {
                break;
            }
            at = journal.after(at);
            left -= 1;
            match get(&block, 4) {
                DESCRIPTOR => {
                    if !tail_is_right(journal, &mut block) {
                        break;
                    }
                    for tag in tags(journal, &block) {
                        let Some((home, escaped, sum)) = tag else {
                            break 'log;
                        };
                        if left == 0 {
                            break 'log;
                        }
                        self.read_log(journal, at, &mut data)?;
                        if !data_is_right(journal, sequence, &data, sum) {
                            break 'log;
                        }
                        if home >= self.sb.blocks {
                            return Err(Error::corrupt("block number in the journal"));
                        }
                        copies.push(Copy {
                            home,
                            log: at,
                            escaped,
                        });
                        at = journal.after(at);
                        left -= 1;
                    }
                }
                REVOKE => {
                    if !tail_is_right(journal, &mut block) {
                        break;
                    }
                    let width = if journal.has(FEATURE_64BIT) { 8 } else { 4 };
                    let end = (get(&block, 12) as usize).min(size);
                    for record in block.get(16..end).unwrap_or_default().chunks_exact(width) {
                        revokes.push(record.iter().fold(0, |nr, &byte| nr << 8 | u64::from(byte)));
                    }
                }
                COMMIT => {
                    if journal.has_csum() {
                        let stored = get(&block, 16);
                        put(&mut block, 16, 0);
                        if crc32c(journal.seed, &block) != stored {
                            break;
                        }
                    }
                    let age = sequence.wrapping_sub(first);
                    for copy in copies.drain(..) {
                        newest.insert(copy.home, (age, copy));
                    }
                    for nr in revokes.drain(..) {
                        revoked.insert(nr, age);
                    }
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
        }
        let mut copies: Vec<Copy> = newest
            .into_values()
            .filter(|(age, copy)| revoked.get(&copy.home).is_none_or(|revoked| revoked < age))
            .map(|(_, copy)| copy)
            .collect();
        copies.sort_unstable_by_key(|copy| copy.home);
        Ok(Found {
            copies,
            next: sequence,
        })
    }
}

/// Checks the checksum at the end of a descriptor or revoke block.
fn tail_is_right(journal: &Journal, block: &mut [u8]) -> bool {
    if !journal.has_csum() {
        return true;
    }
    let end = block.len();
    let stored = get(block, end - 4);
    put(block, end - 4, 0);
    crc32c(journal.seed, block) == stored
}

fn data_is_right(journal: &Journal, sequence: u32, data: &[u8], sum: u32) -> bool {
    if !journal.has_csum() {
        return true;
    }
    let whole = crc32c(crc32c(journal.seed, &sequence.to_be_bytes()), data);
    if journal.has(FEATURE_CSUM_V3) {
        whole == sum
    } else {
        whole & 0xffff == sum
    }
}

/// The tags of a descriptor block: home block, whether escaped, checksum. `None` marks a broken end.
fn tags<'a>(
    journal: &'a Journal,
    block: &'a [u8],
) -> impl Iterator<Item = Option<(u64, bool, u32)>> + 'a {
    let len = journal.tag_len();
    let end = block.len() - if journal.has_csum() { 4 } else { 0 };
    let v3 = journal.has(FEATURE_CSUM_V3);
    let wide = journal.has(FEATURE_64BIT);
    let mut at = Some(12);
    core::iter::from_fn(move || {
        let start = at?;
        if start + len > end {
            at = None;
            return Some(None);
        }
        let tag = &block[start..start + len];
        let (flags, sum, high) = if v3 {
            (get(tag, 4), get(tag, 12), get(tag, 8))
        } else {
            let flags = u32::from(u16::from_be_bytes([tag[6], tag[7]]));
            let sum = u32::from(u16::from_be_bytes([tag[4], tag[5]]));
            (flags, sum, if wide { get(tag, 8) } else { 0 })
        };
        let high = if wide { u64::from(high) << 32 } else { 0 };
        let next = start + len + if flags & TAG_SAME_UUID != 0 { 0 } else { 16 };
        at = (flags & TAG_LAST == 0).then_some(next);
        Some(Some((
            u64::from(get(tag, 0)) | high,
            flags & TAG_ESCAPE != 0,
            sum,
        )))
    })
}
