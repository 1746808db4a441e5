//! The one error type of the drivers: why a device did not do what it was asked to do.
//! Errors of configuration that only stop a probe are in [`mod@crate::probe`].

use core::fmt;

use errno::Errno;

/// Why an operation on a device failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// The device reported a failure, such as a bad medium.
    Device,
    /// The device does not offer this operation.
    Unsupported,
    /// The request lies beyond the end of the device.
    OutOfRange,
    /// A write to a read-only device.
    ReadOnly,
    /// The request is malformed: a length that is no multiple of a sector, too many segments.
    Invalid,
    /// No memory for buffers.
    NoMemory,
    /// The device broke the protocol or was taken out of service.
    Gone,
}

impl IoError {
    /// What happened, as a part of a sentence.
    pub const fn description(self) -> &'static str {
        match self {
            IoError::Device => "the device reported an error",
            IoError::Unsupported => "the device does not support the operation",
            IoError::OutOfRange => "the request is beyond the end of the device",
            IoError::ReadOnly => "the device is read-only",
            IoError::Invalid => "the request is malformed",
            IoError::NoMemory => "out of memory",
            IoError::Gone => "the device is out of service",
        }
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}

impl core::error::Error for IoError {}

impl From<IoError> for Errno {
    /// The number that Linux's block layer gives the program for the same failure.
    fn from(error: IoError) -> Errno {
        match error {
            IoError::Device | IoError::OutOfRange | IoError::Gone => Errno::EIO,
            IoError::Unsupported => Errno::EOPNOTSUPP,
            IoError::ReadOnly => Errno::EROFS,
            IoError::Invalid => Errno::EINVAL,
            IoError::NoMemory => Errno::ENOMEM,
        }
    }
}
