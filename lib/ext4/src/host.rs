//! Block devices of the host: a file, and plain memory. For `ops` and for tests (feature `std`).

use crate::{BlockDevice, IoError};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::vec;
use std::vec::Vec;

/// A part of a host file (an image, or one partition of it) as a device.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    start: u64,
    size: u64,
}

impl FileDevice {
    /// The `size` bytes of `file` from byte `start`. The file must be that long already (`set_len` makes it so).
    pub fn new(file: File, start: u64, size: u64) -> FileDevice {
        FileDevice { file, start, size }
    }

    fn at(&self, offset: u64, len: usize) -> Result<u64, IoError> {
        let end = offset.checked_add(len as u64).ok_or(IoError)?;
        if end > self.size {
            Err(IoError)
        } else {
            Ok(self.start + offset)
        }
    }
}

impl BlockDevice for FileDevice {
    fn size_bytes(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        let at = self.at(offset, buf.len())?;
        self.file.read_exact_at(buf, at).map_err(|_| IoError)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        let at = self.at(offset, buf.len())?;
        self.file.write_all_at(buf, at).map_err(|_| IoError)
    }

    fn flush(&self) -> Result<(), IoError> {
        // An image in the making needs no disk barrier; a crash of the host means building it again.
        Ok(())
    }
}

/// A device in memory.
#[derive(Debug)]
pub struct MemDevice {
    data: Mutex<Vec<u8>>,
}

impl MemDevice {
    /// A device of `size` zero bytes.
    pub fn new(size: usize) -> MemDevice {
        MemDevice::from_vec(vec![0; size])
    }

    /// A device with these contents.
    pub fn from_vec(data: Vec<u8>) -> MemDevice {
        MemDevice {
            data: Mutex::new(data),
        }
    }

    /// The contents.
    pub fn into_vec(self) -> Vec<u8> {
        match self.data.into_inner() {
            Ok(data) => data,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    fn with<R>(
        &self,
        offset: u64,
        len: usize,
        act: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, IoError> {
        let mut data = self.data.lock().map_err(|_| IoError)?;
        let start = usize::try_from(offset).map_err(|_| IoError)?;
        let end = start.checked_add(len).ok_or(IoError)?;
        data.get_mut(start..end).map(act).ok_or(IoError)
    }
}

impl BlockDevice for MemDevice {
    fn size_bytes(&self) -> u64 {
        self.data.lock().map_or(0, |data| data.len() as u64)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.with(offset, buf.len(), |data| buf.copy_from_slice(data))
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.with(offset, buf.len(), |data| data.copy_from_slice(buf))
    }

    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}
