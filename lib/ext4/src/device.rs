//! The device trait under the file system. Implementations live with the users.

use alloc::sync::Arc;
use core::fmt;

/// The device failed to carry out a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoError;

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("input/output error")
    }
}

impl core::error::Error for IoError {}

/// A device of fixed size that is read and written at byte offsets.
///
/// Offsets and lengths are multiples of 512. A call may block. Writes may stay in a volatile cache of the device, in
/// any order, until [`BlockDevice::flush`] returns.
pub trait BlockDevice {
    /// Size of the device in bytes.
    fn size_bytes(&self) -> u64;

    /// Fills `buf` from the device at byte `offset`.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError>;

    /// Writes `buf` to the device at byte `offset`.
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError>;

    /// Returns when all writes that returned before this call are on stable storage.
    fn flush(&self) -> Result<(), IoError>;

    /// Says that the contents of a range no longer matter. A hint: the default does nothing.
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let _ = (offset, len);
        Ok(())
    }
}

macro_rules! forward {
    ($($kind:ty),*) => {$(
        impl<T: BlockDevice + ?Sized> BlockDevice for $kind {
            fn size_bytes(&self) -> u64 {
                (**self).size_bytes()
            }
            fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
                (**self).read(offset, buf)
            }
            fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
                (**self).write(offset, buf)
            }
            fn flush(&self) -> Result<(), IoError> {
                (**self).flush()
            }
            fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
                (**self).discard(offset, len)
            }
        }
    )*};
}

forward!(&T, Arc<T>, alloc::boxed::Box<T>);
