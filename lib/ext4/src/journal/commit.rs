//! Writing the running transaction, and bringing committed blocks home.

use super::*;
use crate::cache::{Id, Kind};
use crate::superblock::{STATE_VALID, incompat};
use crate::{fs, group, sums};

/// Bytes that are gathered before a write to the device.
const WRITE_CHUNK: usize = 128 * 1024;

impl<D: BlockDevice> Ext4<D> {
    /// Before an operation: makes sure that what it changes fits the running transaction.
    pub(crate) fn make_room(&mut self) -> Result<()> {
        self.cache.trim();
        if self.sb.has_journal() && !self.bulk {
            let most = match &self.journal {
                Some(journal) => journal.max_transaction(),
                None => {
                    let journal = self.open_journal()?;
                    let most = journal.max_transaction();
                    self.journal = Some(journal);
                    most
                }
            };
            if self.cache.dirty_count() + fs::OP_BLOCKS > most {
                self.commit()?;
            }
        } else if self.cache.dirty_count() > self.cache.limit() {
            self.commit()?;
        }
        Ok(())
    }

    /// Whether there is anything to commit.
    fn is_changed(&self) -> bool {
        self.cache.dirty_count() > 0 || self.super_dirty || !self.revoked.is_empty()
    }

    /// Commits the running transaction. Returns false if there was nothing to commit. When the device fails the file
    /// system becomes read-only.
    pub(crate) fn commit(&mut self) -> Result<bool> {
        self.check_alive()?;
        if !self.is_changed() || self.read_only {
            return Ok(false);
        }
        let result = self.commit_inner();
        self.note_failure(result).map(|()| true)
    }

    /// Fails if changes were lost before: nothing may look durable after that.
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.failed { Err(Error::Io) } else { Ok(()) }
    }

    /// After an error while writing metadata the file system takes no more changes.
    pub(crate) fn note_failure<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.failed = true;
            self.read_only = true;
        }
        result
    }

    fn commit_inner(&mut self) -> Result<()> {
        if !self.in_use {
            self.begin_use()?;
        }
        self.seal()?;
        let ids = self.cache.sorted(|buf| buf.dirty);
        match self.journal.take() {
            Some(mut journal) => {
                let result = self.log(&mut journal, &ids);
                let full = journal.end - journal.first - 1 - journal.used < journal.reserve()
                    || self.cache.logged_count() + ids.len() > self.cache.limit().max(256);
                self.journal = Some(journal);
                result?;
                for id in ids {
                    self.cache.set_written(id, false);
                }
                self.busy.clear();
                self.revoked.clear();
                self.changed.clear();
                self.super_dirty = false;
                if full {
                    self.checkpoint()?;
                }
            }
            None => {
                self.write_home(&ids)?;
                self.busy.clear();
                self.revoked.clear();
                self.changed.clear();
                self.super_dirty = false;
                if !self.bulk {
                    self.device.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Marks the volume as in use, before the first write.
    fn begin_use(&mut self) -> Result<()> {
        if self.journal.is_some() {
            self.sb.incompat |= incompat::RECOVER;
        } else {
            self.sb.state &= !STATE_VALID;
        }
        self.write_super()?;
        self.device.flush()?;
        if let Some(mut journal) = self.journal.take() {
            let started = self.start_log(&mut journal);
            self.journal = Some(journal);
            started?;
        }
        self.in_use = true;
        Ok(())
    }

    /// Writes the state and feature fields of the superblock to the device now; its counters stay as committed.
    fn write_super(&mut self) -> Result<()> {
        let (nr, at) = self.sb.super_location();
        let id = self.block(nr, Kind::Super)?;
        let mut block = self.data(id).to_vec();
        let raw = &mut block[at..at + 1024];
        let mut sb = self.sb.clone();
        if let Ok(committed) = crate::superblock::Super::parse(raw, u64::MAX) {
            sb.live = committed.live;
        }
        sb.store(raw, self.now().sec);
        self.cache.get_mut(id).data.copy_from_slice(&block);
        self.device
            .write(nr * u64::from(self.sb.block_size), &block)?;
        Ok(())
    }

    /// Brings all that is kept in memory into the blocks: the superblock, the checksums.
    fn seal(&mut self) -> Result<()> {
        let bitmaps = self.cache.sorted(|buf| {
            buf.dirty && matches!(buf.kind, Kind::BlockBitmap(_) | Kind::InodeBitmap(_))
        });
        for id in bitmaps {
            let kind = self.cache.get(id).kind;
            let (Kind::BlockBitmap(number) | Kind::InodeBitmap(number)) = kind else {
                continue;
            };
            let mut desc = self.group(number)?;
            let before: group::Group = desc;
            match kind {
                Kind::BlockBitmap(_) => desc.sum_block_bitmap(&self.sb, self.data(id)),
                _ => desc.sum_inode_bitmap(&self.sb, self.data(id)),
            }
            if desc != before {
                self.store_group(number, &desc)?;
            }
        }
        let now = self.now().sec;
        let (nr, at) = self.sb.super_location();
        let id = self.block(nr, Kind::Super)?;
        let sb = &self.sb;
        sb.store(&mut self.cache.edit(id)[at..at + 1024], now);
        self.cache.finish_op();
        for id in self.cache.sorted(|buf| buf.dirty) {
            let (nr, kind) = (self.cache.get(id).nr, self.cache.get(id).kind);
            sums::stamp(&self.sb, nr, kind, &mut self.cache.get_mut(id).data)?;
        }
        Ok(())
    }

    /// Writes cached blocks to their own places, neighbours together.
    pub(crate) fn write_home(&mut self, ids: &[Id]) -> Result<()> {
        self.drop_ahead();
        let size = self.sb.block_size as usize;
        let mut chunk: Vec<u8> = Vec::new();
        let mut start = 0;
        for (at, &id) in ids.iter().enumerate() {
            let buf = self.cache.get(id);
            if chunk.is_empty() {
                start = buf.nr;
            }
            chunk.extend_from_slice(&buf.data);
            let next = ids.get(at + 1).map(|&next| self.cache.get(next).nr);
            if next != Some(buf.nr + 1) || chunk.len() >= WRITE_CHUNK {
                self.device.write(start * size as u64, &chunk)?;
                chunk.clear();
            }
        }
        for &id in ids {
            self.cache.set_written(id, true);
        }
        Ok(())
    }

    /// Brings every committed block home and empties the log. Only with no uncommitted change.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        if self.cache.logged_count() == 0
            && self
                .journal
                .as_ref()
                .is_none_or(|journal| journal.used == 0)
        {
            return Ok(());
        }
        let ids = self.cache.sorted(|buf| buf.logged && !buf.dirty);
        self.write_home(&ids)?;
        self.device.flush()?;
        if let Some(mut journal) = self.journal.take() {
            journal.used = 0;
            let (head, sequence) = (journal.head, journal.sequence);
            let written = self.write_log_super(&mut journal, head, sequence);
            self.journal = Some(journal);
            written?;
            // The freed part of the log may be overwritten only when the new start is on the disk.
            self.device.flush()?;
        }
        Ok(())
    }

    /// Says in the journal's superblock that the log starts at its head, and upgrades its features to what is written
    /// here. The log is empty.
    fn start_log(&mut self, journal: &mut Journal) -> Result<()> {
        journal.incompat = FEATURE_REVOKE | FEATURE_64BIT | FEATURE_CSUM_V3;
        let incompat = journal.incompat;
        put(&mut journal.raw, 40, incompat);
        journal.raw[80] = 4;
        let (head, sequence) = (journal.head, journal.sequence);
        self.write_log_super(journal, head, sequence)
    }

    pub(super) fn write_log_super(
        &mut self,
        journal: &mut Journal,
        start: u32,
        sequence: u32,
    ) -> Result<()> {
        put(&mut journal.raw, 24, sequence);
        put(&mut journal.raw, 28, start);
        if journal.has_csum() {
            stamp_super(&mut journal.raw);
        }
        let (nr, _) = journal.locate(0)?;
        self.device
            .write(nr * u64::from(self.sb.block_size), &journal.raw)?;
        journal.started = start != 0;
        Ok(())
    }

    /// Writes one transaction: revoke records, descriptors with the blocks' copies, a flush, the commit record, a flush.
    fn log(&mut self, journal: &mut Journal, ids: &[Id]) -> Result<()> {
        let size = self.sb.block_size as usize;
        let sequence = journal.sequence;
        let mut writer = Writer {
            chunk: Vec::new(),
            start: journal.head,
        };
        let per_revoke = (size - 16 - 4) / 8;
        for part in self.revoked.chunks(per_revoke) {
            let mut block = alloc::vec![0; size];
            put_header(&mut block, REVOKE, sequence);
            put(&mut block, 12, (16 + part.len() * 8) as u32);
            for (at, nr) in (16..).step_by(8).zip(part) {
                put(&mut block, at, (nr >> 32) as u32);
                put(&mut block, at + 4, *nr as u32);
            }
            stamp_tail(journal.seed, &mut block);
            writer.push(&self.device, journal, &block)?;
        }
        // The first tag of a descriptor carries the UUID.
        let per_descriptor = (size - 12 - 4 - 16) / 16;
        for part in ids.chunks(per_descriptor) {
            let mut block = alloc::vec![0; size];
            put_header(&mut block, DESCRIPTOR, sequence);
            let mut at = 12;
            for (index, &id) in part.iter().enumerate() {
                let buf = self.cache.get(id);
                let mut flags = if index > 0 { TAG_SAME_UUID } else { 0 };
                if index + 1 == part.len() {
                    flags |= TAG_LAST;
                }
                let seed = crc32c(journal.seed, &sequence.to_be_bytes());
                let sum = if get(&buf.data, 0) == MAGIC {
                    flags |= TAG_ESCAPE;
                    crc32c(crc32c(seed, &[0; 4]), &buf.data[4..])
                } else {
                    crc32c(seed, &buf.data)
                };
                put(&mut block, at, buf.nr as u32);
                put(&mut block, at + 4, flags);
                put(&mut block, at + 8, (buf.nr >> 32) as u32);
                put(&mut block, at + 12, sum);
                at += 16;
                if index == 0 {
                    block[at..at + 16].copy_from_slice(&journal.raw[48..64]);
                    at += 16;
                }
            }
            stamp_tail(journal.seed, &mut block);
            writer.push(&self.device, journal, &block)?;
            for &id in part {
                let data = &self.cache.get(id).data;
                if get(data, 0) == MAGIC {
                    let mut copy = data.to_vec();
                    put(&mut copy, 0, 0);
                    writer.push(&self.device, journal, &copy)?;
                } else {
                    writer.push(&self.device, journal, data)?;
                }
            }
        }
        // The commit record's place is cleared first: then only one sector of it changes when it is written, so it cannot
        // be torn. (A torn one would be no commit to this library, but a corrupt journal to e2fsck.)
        let record = journal.head;
        writer.push(&self.device, journal, &alloc::vec![0; size])?;
        writer.write(&self.device, journal, size)?;
        // File data and the log are on the disk before the record that makes them count.
        self.device.flush()?;
        let now = self.now();
        let mut block = alloc::vec![0; size];
        put_header(&mut block, COMMIT, sequence);
        put(&mut block, 48, (now.sec >> 32) as u32);
        put(&mut block, 52, now.sec as u32);
        put(&mut block, 56, now.nsec);
        let sum = crc32c(journal.seed, &block);
        put(&mut block, 16, sum);
        let (nr, _) = journal.locate(record)?;
        self.device.write(nr * size as u64, &block)?;
        self.device.flush()?;
        journal.sequence = sequence.wrapping_add(1);
        Ok(())
    }

    /// Writes everything out and marks the volume clean. Inodes that lost their last link are freed. Further calls are
    /// allowed and make the volume dirty again.
    pub fn unmount(&mut self) -> Result<()> {
        self.check_alive()?;
        if self.read_only {
            return Ok(());
        }
        while let Some(&ino) = self.orphans.last() {
            let before = self.orphans.len();
            if self.node(ino)?.nlink > 0 {
                while !self.cut_step(ino)? {}
            } else {
                self.release(ino)?;
            }
            if self.orphans.len() == before {
                return Err(Error::corrupt("orphan list"));
            }
        }
        self.commit()?;
        if !self.in_use {
            return Ok(());
        }
        let result = self.end_use();
        self.note_failure(result)
    }

    /// Empties the log and marks the volume clean.
    fn end_use(&mut self) -> Result<()> {
        self.checkpoint()?;
        self.device.flush()?;
        if let Some(mut journal) = self.journal.take() {
            let sequence = journal.sequence;
            journal.head = journal.first;
            let written = self.write_log_super(&mut journal, 0, sequence);
            self.journal = Some(journal);
            written?;
            self.device.flush()?;
            self.sb.incompat &= !incompat::RECOVER;
        } else {
            self.sb.state |= STATE_VALID;
        }
        self.write_super()?;
        self.device.flush()?;
        self.in_use = false;
        Ok(())
    }
}

/// Sets the checksum at the end of a descriptor or revoke block.
fn stamp_tail(seed: u32, block: &mut [u8]) {
    let sum = crc32c(seed, block);
    let end = block.len();
    put(block, end - 4, sum);
}

/// Gathers log blocks into large writes.
struct Writer {
    chunk: Vec<u8>,
    start: u32,
}

impl Writer {
    fn push<D: BlockDevice>(
        &mut self,
        device: &D,
        journal: &mut Journal,
        block: &[u8],
    ) -> Result<()> {
        if journal.used + 1 >= journal.end - journal.first {
            return Err(Error::corrupt("journal too small for a transaction"));
        }
        self.chunk.extend_from_slice(block);
        journal.used += 1;
        journal.head = journal.after(journal.head);
        if self.chunk.len() >= WRITE_CHUNK || journal.head == journal.first {
            self.write(device, journal, block.len())?;
        }
        Ok(())
    }

    /// Writes what was gathered; it does not cross the ring's end.
    fn write<D: BlockDevice>(&mut self, device: &D, journal: &Journal, size: usize) -> Result<()> {
        let mut rest = &self.chunk[..];
        while !rest.is_empty() {
            let (nr, run) = journal.locate(self.start)?;
            let n = rest.len().min(run as usize * size);
            device.write(nr * size as u64, &rest[..n])?;
            self.start += (n / size) as u32;
            rest = &rest[n..];
        }
        self.chunk.clear();
        self.start = journal.head;
        Ok(())
    }
}
