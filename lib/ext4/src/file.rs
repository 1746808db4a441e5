//! File data: mappings for callers that move data themselves, plain reads and writes, and changes of the size.

use crate::extent::{Ext, MAX_BLOCKS};
use crate::inode::{Node, flag};
use crate::{BlockDevice, Error, Ext4, Extent, Ino, Result};

impl<D: BlockDevice> Ext4<D> {
    fn file_node(&mut self, ino: Ino) -> Result<Node> {
        let node = self.node(ino)?;
        match node.is_file() {
            true => Ok(node),
            false if node.is_dir() => Err(Error::IsDir),
            false => Err(Error::Invalid),
        }
    }

    /// Largest size of a file in bytes.
    pub fn max_size(&self) -> u64 {
        MAX_BLOCKS * u64::from(self.sb.block_size)
    }

    /// Moves the end of a file in memory, noting the feature that sizes above 2 GiB need.
    fn put_size(&mut self, node: &mut Node, size: u64) -> Result<()> {
        if size > self.max_size() {
            return Err(Error::TooBig);
        }
        node.size = size;
        if size > i32::MAX as u64 {
            self.sb.live.large_file = true;
        }
        Ok(())
    }

    fn check_range(first: u32, count: u32) -> Result<u32> {
        match first.checked_add(count) {
            Some(end) if count > 0 => Ok(end),
            Some(_) => Err(Error::Invalid),
            None => Err(Error::TooBig),
        }
    }

    /// What lies at block `first` of a file: one run, cut to `count` blocks. Holes are runs too.
    pub fn map(&mut self, ino: Ino, first: u32, count: u32) -> Result<Extent> {
        self.cache.trim();
        let node = self.file_node(ino)?;
        self.map_node(&node, first, count)
    }

    /// Makes sure that block `first` has space: returns the run there, cut to `count` blocks, allocating an unwritten
    /// one if it was a hole. May return fewer blocks than asked; call again for the rest. The file size stays.
    pub fn allocate(&mut self, ino: Ino, first: u32, count: u32) -> Result<Extent> {
        Self::check_range(first, count)?;
        let node = self.file_node(ino)?;
        let run = self.map_node(&node, first, count)?;
        if run.physical.is_some() {
            return Ok(run);
        }
        self.change(|fs| {
            let mut node = fs.file_node(ino)?;
            let run = fs.fill_hole(&mut node, first, run.len, true)?;
            fs.store_node(&node, false)?;
            Ok(run)
        })
    }

    /// Allocates at most `len` blocks for the hole that starts at `first`.
    fn fill_hole(
        &mut self,
        node: &mut Node,
        first: u32,
        len: u32,
        unwritten: bool,
    ) -> Result<Extent> {
        let goal = match self.data_goal(node, first)? {
            Some(goal) => goal,
            None if self.data_cursor != 0 => self.data_cursor,
            None => self.inode_goal(node.ino),
        };
        let (physical, len) = self.alloc_run(goal, len.min(Ext::max_len(unwritten)))?;
        self.data_cursor = physical + u64::from(len);
        self.insert_extent(
            node,
            Ext {
                logical: first,
                len,
                physical,
                unwritten,
            },
        )?;
        node.blocks += u64::from(len) * u64::from(self.sb.block_size / 512);
        Ok(Extent {
            logical: first,
            physical: Some(physical),
            len,
            unwritten,
        })
    }

    /// The data of these blocks is on its way to the device (the write call has returned): unwritten extents become
    /// data, and the file size grows to `size` if that is larger. Modification times stay. Blocks behind the new end of
    /// the file stay unwritten: the format does not allow data there.
    pub fn mark_written(
        &mut self,
        ino: Ino,
        first: u32,
        count: u32,
        size: Option<u64>,
    ) -> Result<()> {
        let end = Self::check_range(first, count)?;
        loop {
            let done = self.change(|fs| {
                let mut node = fs.file_node(ino)?;
                let blocks = node
                    .size
                    .max(size.unwrap_or(0))
                    .div_ceil(u64::from(fs.sb.block_size));
                let end = u64::from(end).min(blocks) as u32;
                let done = fs.write_extents(&mut node, first, end)?;
                if let Some(size) = size
                    && done
                    && size > node.size
                {
                    fs.put_size(&mut node, size)?;
                }
                fs.store_node(&node, false)?;
                Ok(done)
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Sets the size without touching blocks: growing, or after the caller's own clean-up. When it grows, the caller
    /// sees to it that the block in which the file ended holds zeros behind the old end.
    pub fn set_size(&mut self, ino: Ino, size: u64) -> Result<()> {
        self.change(|fs| {
            let mut node = fs.file_node(ino)?;
            fs.put_size(&mut node, size)?;
            fs.store_node(&node, false)
        })
    }

    /// Sets the size and the times; frees the blocks behind it when shrinking, and zeroes the rest of the block in
    /// which the smaller of both sizes ends on the device. No write of the file's data may be on its way meanwhile.
    pub fn truncate(&mut self, ino: Ino, size: u64) -> Result<()> {
        let block_size = u64::from(self.sb.block_size);
        if size > self.max_size() {
            return Err(Error::TooBig);
        }
        let mut done = self.change(|fs| {
            let mut node = fs.file_node(ino)?;
            let shrinks = size <= node.size;
            // Bytes behind the end read as zeros when the file grows, now or later.
            fs.zero_tail(&node, size.min(node.size))?;
            fs.put_size(&mut node, size)?;
            node.mtime = fs.now();
            node.ctime = node.mtime;
            let first = size.div_ceil(block_size) as u32;
            let done = !shrinks || fs.remove_extents(&mut node, first, MAX_BLOCKS as u32, false)?;
            if !done {
                fs.orphan_add(&mut node)?;
            }
            fs.store_node(&node, false)?;
            Ok(done)
        })?;
        while !done {
            done = self.cut_step(ino)?;
        }
        Ok(())
    }

    /// One more step of cutting a file on the orphan list to its size.
    pub(crate) fn cut_step(&mut self, ino: Ino) -> Result<bool> {
        self.change(|fs| {
            let mut node = fs.node(ino)?;
            let first = node.size.div_ceil(u64::from(fs.sb.block_size)) as u32;
            let done = fs.remove_extents(&mut node, first, MAX_BLOCKS as u32, false)?;
            if done && node.nlink > 0 {
                fs.orphan_remove(&mut node)?;
            }
            fs.store_node(&node, false)?;
            Ok(done)
        })
    }

    /// Frees the whole blocks in the byte range and zeroes the partial ones. The size stays.
    pub fn punch_hole(&mut self, ino: Ino, offset: u64, len: u64) -> Result<()> {
        let block_size = u64::from(self.sb.block_size);
        let end = offset
            .checked_add(len)
            .ok_or(Error::TooBig)?
            .min(self.max_size());
        if len == 0 || offset >= end {
            return Err(Error::Invalid);
        }
        let (first, last) = (offset.div_ceil(block_size), end / block_size);
        loop {
            let done = self.change(|fs| {
                let mut node = fs.file_node(ino)?;
                let done = first >= last
                    || fs.remove_extents(&mut node, first as u32, last as u32, false)?;
                if done {
                    // Last, as bytes on the device cannot be put back when there is no space for the tree.
                    if first > last {
                        fs.zero_part(&node, offset, end - offset)?;
                    } else {
                        fs.zero_part(&node, offset, first * block_size - offset)?;
                        fs.zero_part(&node, last * block_size, end - last * block_size)?;
                    }
                    node.mtime = fs.now();
                    node.ctime = node.mtime;
                }
                fs.store_node(&node, false)?;
                Ok(done)
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Allocates unwritten blocks for the holes in the byte range; the size grows unless `keep_size`.
    pub fn fallocate(&mut self, ino: Ino, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let block_size = u64::from(self.sb.block_size);
        let end = offset
            .checked_add(len)
            .filter(|&end| end <= self.max_size())
            .ok_or(Error::TooBig)?;
        if len == 0 {
            return Err(Error::Invalid);
        }
        self.file_node(ino)?;
        let (mut at, last) = (
            (offset / block_size) as u32,
            end.div_ceil(block_size) as u32,
        );
        while at < last {
            at += self.allocate(ino, at, last - at)?.len;
        }
        self.change(|fs| {
            let mut node = fs.file_node(ino)?;
            if !keep_size && end > node.size {
                fs.zero_tail(&node, node.size)?;
                fs.put_size(&mut node, end)?;
                node.mtime = fs.now();
            }
            node.ctime = fs.now();
            fs.store_node(&node, false)
        })
    }

    /// Zeroes the rest of the block in which `size` ends.
    fn zero_tail(&mut self, node: &Node, size: u64) -> Result<()> {
        let block_size = u64::from(self.sb.block_size);
        match size % block_size {
            0 => Ok(()),
            used => self.zero_part(node, size, block_size - used),
        }
    }

    /// Zeroes bytes within one block on the device, if the block holds data.
    fn zero_part(&mut self, node: &Node, offset: u64, len: u64) -> Result<()> {
        let block_size = u64::from(self.sb.block_size);
        let logical = offset / block_size;
        if len == 0 || logical >= MAX_BLOCKS {
            return Ok(());
        }
        let run = self.map_node(node, logical as u32, 1)?;
        let Some(physical) = run.physical.filter(|_| !run.unwritten) else {
            return Ok(());
        };
        let mut data = self.cache.buffer();
        self.device.read(physical * block_size, &mut data)?;
        let start = (offset % block_size) as usize;
        data[start..start + len as usize].fill(0);
        self.device.write(physical * block_size, &data)?;
        Ok(())
    }

    /// Reads file data. Returns the number of bytes, short at the end of the file.
    pub fn read_at(&mut self, ino: Ino, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.cache.trim();
        let node = self.file_node(ino)?;
        if offset >= node.size {
            return Ok(0);
        }
        let len = (node.size - offset).min(buf.len() as u64) as usize;
        let size = u64::from(self.sb.block_size);
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let skip = (at % size) as usize;
            let logical = u32::try_from(at / size).map_err(|_| Error::corrupt("inode size"))?;
            let blocks = ((skip + len - done) as u64).div_ceil(size) as u32;
            let run = self.map_node(&node, logical, blocks)?;
            let n = (u64::from(run.len) * size - skip as u64).min((len - done) as u64) as usize;
            let part = &mut buf[done..done + n];
            match run.physical.filter(|_| !run.unwritten) {
                None => part.fill(0),
                Some(physical) => self.read_run(physical, skip, part)?,
            }
            done += n;
        }
        Ok(len)
    }

    /// Reads bytes that lie contiguously on the device, `skip` bytes into block `physical`.
    fn read_run(&mut self, mut physical: u64, mut skip: usize, mut part: &mut [u8]) -> Result<()> {
        let size = self.sb.block_size as usize;
        while !part.is_empty() {
            if skip == 0 && part.len() >= size && self.overlay.is_empty() {
                let n = part.len() / size * size;
                let (whole, rest) = part.split_at_mut(n);
                self.device.read(physical * size as u64, whole)?;
                physical += (n / size) as u64;
                part = rest;
                continue;
            }
            let mut data = self.cache.buffer();
            self.read_block(physical, &mut data)?;
            let n = (size - skip).min(part.len());
            let (now, rest) = part.split_at_mut(n);
            now.copy_from_slice(&data[skip..skip + n]);
            physical += 1;
            skip = 0;
            part = rest;
        }
        Ok(())
    }

    /// Writes file data, growing the file as needed. Sets modification and change time.
    pub fn write_at(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        let size = u64::from(self.sb.block_size);
        let end = offset.checked_add(data.len() as u64).ok_or(Error::TooBig)?;
        if end > self.max_size() {
            return Err(Error::TooBig);
        }
        let mut done = 0;
        while done < data.len() {
            done += self.change(|fs| {
                let mut node = fs.file_node(ino)?;
                let at = offset + done as u64;
                let skip = (at % size) as usize;
                let logical = (at / size) as u32;
                if at > node.size {
                    fs.zero_tail(&node, node.size)?;
                }
                let blocks = ((skip + data.len() - done) as u64).div_ceil(size) as u32;
                let mut run = fs.map_node(&node, logical, blocks)?;
                let blank = run.physical.is_none() || run.unwritten;
                if run.physical.is_none() {
                    // The data goes to the device before the operation ends, so the extent may say so at once.
                    run = fs.fill_hole(&mut node, logical, run.len, false)?;
                }
                let Some(physical) = run.physical else {
                    return Err(Error::corrupt("extent"));
                };
                let n = (u64::from(run.len) * size - skip as u64).min((data.len() - done) as u64)
                    as usize;
                fs.write_run(physical, skip, &data[done..done + n], blank)?;
                if run.unwritten {
                    let blocks = ((skip + n) as u64).div_ceil(size) as u32;
                    fs.write_extents(&mut node, logical, logical + blocks)?;
                }
                if at + n as u64 > node.size {
                    fs.put_size(&mut node, at + n as u64)?;
                }
                node.mtime = fs.now();
                node.ctime = node.mtime;
                fs.store_node(&node, false)?;
                Ok(n)
            })?;
        }
        Ok(())
    }

    /// Writes bytes contiguously to the device, `skip` bytes into block `physical`. The rest of partial blocks is kept,
    /// or zeroed when the blocks are `blank`.
    fn write_run(
        &mut self,
        mut physical: u64,
        mut skip: usize,
        mut part: &[u8],
        blank: bool,
    ) -> Result<()> {
        let size = self.sb.block_size as usize;
        while !part.is_empty() {
            let n = if skip == 0 && part.len() >= size {
                let n = part.len() / size * size;
                self.device.write(physical * size as u64, &part[..n])?;
                n
            } else {
                let n = (size - skip).min(part.len());
                let mut data = self.cache.buffer();
                if blank {
                    data.fill(0);
                } else {
                    self.device.read(physical * size as u64, &mut data)?;
                }
                data[skip..skip + n].copy_from_slice(&part[..n]);
                self.device.write(physical * size as u64, &data)?;
                n
            };
            physical += ((skip + n) / size) as u64;
            skip = 0;
            part = &part[n..];
        }
        Ok(())
    }

    /// Frees an inode without links that nobody uses any more. Does nothing if it has links.
    pub fn release(&mut self, ino: Ino) -> Result<()> {
        let node = self.node(ino)?;
        if node.nlink > 0 {
            return Ok(());
        }
        loop {
            let done = self.change(|fs| {
                let mut node = fs.node(ino)?;
                let metadata = !node.is_file();
                if node.flags & flag::EXTENTS != 0 {
                    if !fs.remove_extents(&mut node, 0, MAX_BLOCKS as u32, metadata)? {
                        fs.store_node(&node, false)?;
                        return Ok(false);
                    }
                } else if (node.is_file() || node.is_dir()) && node.blocks > 0 {
                    return Err(Error::Unsupported {
                        what: "files without extents",
                    });
                }
                fs.drop_xattr_block(&mut node)?;
                fs.orphan_remove(&mut node)?;
                fs.free_inode(&mut node)?;
                Ok(true)
            })?;
            if done {
                return Ok(());
            }
        }
    }
}
