//! Mounting, and the calls about the whole file system.

use crate::superblock::{SUPER_OFFSET, SUPER_SIZE, Super, incompat, ro_compat};
use crate::{BlockDevice, Error, Ext4, Ino, MountOptions, Result, StatFs};

impl<D: BlockDevice> Ext4<D> {
    /// Mounts the volume on `device`. Replays the journal and cleans up orphans where needed; a volume that was
    /// unmounted cleanly costs one read.
    pub fn mount(device: D, options: MountOptions) -> Result<Self> {
        let mut raw = [0; SUPER_SIZE];
        let size = device.size_bytes();
        if size < SUPER_OFFSET + SUPER_SIZE as u64 {
            return Err(Error::corrupt("superblock beyond the device"));
        }
        device.read(SUPER_OFFSET, &mut raw)?;
        let sb = Super::parse(&raw, size)?;
        if !options.read_only {
            if sb.ro_compat & !ro_compat::KNOWN != 0 {
                return Err(Error::Unsupported {
                    what: "a feature that allows only reading",
                });
            }
            if sb.incompat & incompat::EXTENTS == 0 {
                return Err(Error::Unsupported {
                    what: "writing a volume without extents",
                });
            }
        }
        let needs_recovery = sb.incompat & incompat::RECOVER != 0 && sb.has_journal();
        let mut fs = Ext4::assemble(
            device,
            sb,
            options.cache_blocks,
            options.clock,
            options.seed,
        );
        fs.bulk = options.bulk;
        if needs_recovery {
            if options.bulk {
                return Err(Error::Unsupported {
                    what: "bulk changes of a volume that was not unmounted",
                });
            }
            fs.recover(options.read_only)?;
            fs.reload(options.read_only)?;
        }
        if options.read_only {
            return Ok(fs);
        }
        fs.read_only = false;
        if fs.bulk {
            fs.place_cursors()?;
        }
        fs.load_orphans()?;
        Ok(fs)
    }

    /// Reads the superblock again after a replay, and clears the recovery flag on the device.
    fn reload(&mut self, read_only: bool) -> Result<()> {
        let (nr, at) = self.sb.super_location();
        // What was cached on the way to the journal may have been replayed.
        self.cache = crate::cache::Cache::new(self.sb.block_size as usize, self.cache.limit());
        let mut block = alloc::vec![0; self.sb.block_size as usize];
        self.read_block(nr, &mut block)?;
        let mut sb = Super::parse(&block[at..at + SUPER_SIZE], self.device.size_bytes())?;
        if sb.block_size != self.sb.block_size || sb.blocks != self.sb.blocks {
            return Err(Error::corrupt("superblock in the journal"));
        }
        sb.incompat &= !incompat::RECOVER;
        self.sb = sb;
        if !read_only {
            self.sb
                .store(&mut block[at..at + SUPER_SIZE], self.now().sec);
            self.device
                .write(nr * u64::from(self.sb.block_size), &block)?;
            self.device.flush()?;
        }
        Ok(())
    }

    /// Bulk mode: directories and other metadata go to the front of the free space, file data behind a gap for them.
    fn place_cursors(&mut self) -> Result<()> {
        let desc = self.group(0)?;
        let id = self.block_bitmap(0, &desc)?;
        let bits = crate::bitmap::Bits {
            bits: self.data(id),
            busy: None,
        };
        let first = bits.next_zero(0, self.sb.blocks_in_group(0));
        let start = self.sb.group_start(0) + u64::from(first);
        let gap = (u64::from(self.sb.inodes) / 16).min(self.sb.live.free_blocks / 8);
        self.meta_cursor = start;
        self.data_cursor = start + gap;
        Ok(())
    }

    /// Reads the orphan list and deals with what is on it, as nobody can have it open.
    fn load_orphans(&mut self) -> Result<()> {
        let mut at = self.sb.live.orphan_head;
        let mut list = alloc::vec::Vec::new();
        let mut seen = crate::cache::NumberMap::<Ino, ()>::default();
        while at != 0 {
            if at > self.sb.inodes || at < self.sb.first_inode || seen.insert(at, ()).is_some() {
                return Err(Error::corrupt("orphan list"));
            }
            list.push(at);
            at = self.raw_node(at)?.dtime;
        }
        list.reverse();
        self.orphans = list.clone();
        for ino in list.into_iter().rev() {
            let result = if self.node(ino)?.nlink > 0 {
                loop {
                    match self.cut_step(ino) {
                        Ok(true) => break Ok(()),
                        Ok(false) => {}
                        Err(error) => break Err(error),
                    }
                }
            } else {
                self.release(ino)
            };
            match result {
                // Stays on the list: this library cannot free it, Linux can.
                Ok(()) | Err(Error::Unsupported { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether changes are refused: mounted so, or after the device failed during a commit. In the second case every
    /// call that would make something durable fails with `Io`.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Usage of the volume.
    pub fn statfs(&self) -> StatFs {
        let sb = &self.sb;
        StatFs {
            block_size: sb.block_size,
            blocks: sb.blocks.saturating_sub(self.overhead),
            free_blocks: sb.live.free_blocks,
            available_blocks: sb.live.free_blocks.saturating_sub(sb.reserved_blocks),
            inodes: u64::from(sb.inodes),
            free_inodes: u64::from(sb.live.free_inodes),
            uuid: sb.uuid,
            label: sb.label,
        }
    }

    /// Commits the running transaction: all changes so far, and all data written to the device before, are durable when
    /// this returns.
    pub fn sync(&mut self) -> Result<()> {
        if !self.commit()? || self.bulk {
            self.device.flush()?;
        }
        Ok(())
    }

    /// Makes one inode durable: commits only if it changed in the running transaction, otherwise flushes the device.
    /// With `data_only`, changes of times alone do not count (`fdatasync`).
    pub fn fsync(&mut self, ino: Ino, data_only: bool) -> Result<()> {
        match self.changed.get(&ino) {
            Some(&more_than_times) if more_than_times || !data_only => self.sync(),
            _ => {
                self.check_alive()?;
                Ok(self.device.flush()?)
            }
        }
    }

    /// Brings blocks that are only in the journal to their own places, so that a later recovery or unmount is short.
    /// A kernel calls this when idle.
    pub fn write_back(&mut self) -> Result<()> {
        self.commit()?;
        if self.read_only {
            return Ok(());
        }
        let result = self.checkpoint();
        self.note_failure(result)
    }

    /// Metadata blocks in memory.
    pub fn cached_blocks(&self) -> usize {
        self.cache.len()
    }

    /// Metadata blocks that wait for the next commit.
    pub fn dirty_blocks(&self) -> usize {
        self.cache.dirty_count()
    }
}
