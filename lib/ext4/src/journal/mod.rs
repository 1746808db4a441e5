//! The journal (jbd2): its superblock, the ring of log blocks, and where they lie on the device.
//!
//! `commit` writes transactions and brings their blocks home, `recover` replays them after a crash.

mod commit;
mod recover;

use crate::crc::crc32c;
use crate::inode::Node;
use crate::{BlockDevice, Error, Ext4, Result};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Magic number of every block that the journal itself owns.
const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPER_V2: u32 = 4;
const REVOKE: u32 = 5;

/// Journal features (incompatible).
const FEATURE_REVOKE: u32 = 1;
const FEATURE_64BIT: u32 = 2;
const FEATURE_ASYNC_COMMIT: u32 = 4;
const FEATURE_CSUM_V2: u32 = 8;
const FEATURE_CSUM_V3: u32 = 16;
const FEATURES_KNOWN: u32 =
    FEATURE_REVOKE | FEATURE_64BIT | FEATURE_ASYNC_COMMIT | FEATURE_CSUM_V2 | FEATURE_CSUM_V3;

/// Flags of a tag.
const TAG_ESCAPE: u32 = 1;
const TAG_SAME_UUID: u32 = 2;
const TAG_LAST: u32 = 8;

/// Length of the journal's superblock.
const SUPER_SIZE: usize = 1024;
/// Shortest journal that e2fsprogs and Linux accept.
pub(crate) const MIN_BLOCKS: u32 = 1024;

fn get(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

fn put(data: &mut [u8], at: usize, value: u32) {
    data[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put_header(data: &mut [u8], kind: u32, sequence: u32) {
    put(data, 0, MAGIC);
    put(data, 4, kind);
    put(data, 8, sequence);
}

/// A run of log blocks on the device.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    physical: u64,
    len: u32,
}

/// An open journal.
pub(crate) struct Journal {
    runs: Vec<Run>,
    /// The journal's superblock.
    raw: Box<[u8]>,
    /// First and one past the last block of the ring.
    first: u32,
    end: u32,
    /// Next block to be written.
    head: u32,
    /// Blocks of the ring that hold transactions which are not home yet.
    used: u32,
    /// Number of the next transaction.
    sequence: u32,
    /// The superblock on disk says where the log starts (it is not marked empty).
    started: bool,
    incompat: u32,
    seed: u32,
}

/// Makes the superblock of an empty journal of `blocks` blocks.
pub(crate) fn format_super(raw: &mut [u8], block_size: u32, blocks: u32, uuid: &[u8; 16]) {
    raw.fill(0);
    put_header(raw, SUPER_V2, 0);
    put(raw, 12, block_size);
    put(raw, 16, blocks);
    put(raw, 20, 1);
    put(raw, 24, 1);
    put(raw, 40, FEATURE_REVOKE | FEATURE_64BIT | FEATURE_CSUM_V3);
    raw[48..64].copy_from_slice(uuid);
    put(raw, 64, 1);
    raw[80] = 4;
    stamp_super(raw);
}

fn stamp_super(raw: &mut [u8]) {
    put(raw, 252, 0);
    let sum = crc32c(!0, &raw[..SUPER_SIZE]);
    put(raw, 252, sum);
}

impl Journal {
    /// Where log block `block` lies, and how many follow it contiguously.
    fn locate(&self, block: u32) -> Result<(u64, u32)> {
        let at = self.runs.partition_point(|run| run.first <= block);
        match at.checked_sub(1).and_then(|at| self.runs.get(at)) {
            Some(run) if block - run.first < run.len => {
                let skip = block - run.first;
                Ok((run.physical + u64::from(skip), run.len - skip))
            }
            _ => Err(Error::corrupt("journal file")),
        }
    }

    /// The log block after `block`, around the ring.
    fn after(&self, block: u32) -> u32 {
        if block + 1 >= self.end {
            self.first
        } else {
            block + 1
        }
    }

    fn has(&self, feature: u32) -> bool {
        self.incompat & feature != 0
    }

    fn has_csum(&self) -> bool {
        self.has(FEATURE_CSUM_V2 | FEATURE_CSUM_V3)
    }

    /// Length of one tag of a descriptor block.
    fn tag_len(&self) -> usize {
        if self.has(FEATURE_CSUM_V3) {
            16
        } else {
            8 + if self.has(FEATURE_CSUM_V2) { 2 } else { 0 }
                + if self.has(FEATURE_64BIT) { 4 } else { 0 }
        }
    }

    /// Most metadata blocks that one transaction may change.
    pub(crate) fn max_transaction(&self) -> usize {
        ((self.end - self.first) / 3) as usize
    }

    /// Log blocks that the largest transaction takes.
    fn reserve(&self) -> u32 {
        let ring = self.end - self.first;
        ring / 3 + ring / 180 + ring / 100 + 16
    }
}

impl<D: BlockDevice> Ext4<D> {
    /// Opens the journal named in the superblock.
    pub(crate) fn open_journal(&mut self) -> Result<Journal> {
        if self.sb.journal_inode == 0 {
            return Err(Error::Unsupported {
                what: "a journal on another device",
            });
        }
        let node = self.raw_node(self.sb.journal_inode)?;
        if !node.is_file() || node.nlink == 0 {
            return Err(Error::corrupt("journal inode"));
        }
        let mut raw = alloc::vec![0; self.sb.block_size as usize].into_boxed_slice();
        let runs = self.journal_runs(&node)?;
        let Some(run) = runs.first() else {
            return Err(Error::corrupt("journal file"));
        };
        // The journal's own superblock never goes through the journal.
        self.device
            .read(run.physical * u64::from(self.sb.block_size), &mut raw)?;
        if get(&raw, 0) != MAGIC || get(&raw, 4) != SUPER_V2 || get(&raw, 12) != self.sb.block_size
        {
            return Err(Error::corrupt("journal superblock"));
        }
        let (mut incompat, end, first) = (get(&raw, 40), get(&raw, 16), get(&raw, 20));
        if incompat & !FEATURES_KNOWN != 0 {
            return Err(Error::Unsupported {
                what: "an unknown journal feature",
            });
        }
        if incompat & (FEATURE_CSUM_V2 | FEATURE_CSUM_V3) != 0 {
            let mut copy = raw.clone();
            stamp_super(&mut copy);
            if get(&copy, 252) != get(&raw, 252) {
                return Err(Error::corrupt("journal superblock checksum"));
            }
            if incompat & FEATURE_CSUM_V3 != 0 {
                incompat &= !FEATURE_CSUM_V2;
            }
        }
        let mapped: u64 = runs.iter().map(|run| u64::from(run.len)).sum();
        if first == 0 || end < MIN_BLOCKS / 4 || first > end / 2 || u64::from(end) > mapped {
            return Err(Error::corrupt("journal size"));
        }
        let seed = crc32c(!0, &raw[48..64]);
        let sequence = get(&raw, 24);
        Ok(Journal {
            runs,
            raw,
            first,
            end,
            head: first,
            used: 0,
            sequence,
            started: false,
            incompat,
            seed,
        })
    }

    fn journal_runs(&mut self, node: &Node) -> Result<Vec<Run>> {
        let blocks = node.size / u64::from(self.sb.block_size);
        let blocks = u32::try_from(blocks.min(self.sb.blocks))
            .map_err(|_| Error::corrupt("journal size"))?;
        let mut runs = Vec::new();
        let mut at = 0;
        while at < blocks {
            let run = self.map_node(node, at, blocks - at)?;
            let Some(physical) = run.physical.filter(|_| !run.unwritten) else {
                return Err(Error::corrupt("journal file"));
            };
            runs.push(Run {
                first: at,
                physical,
                len: run.len,
            });
            at += run.len;
        }
        Ok(runs)
    }
}
