//! The errors of the library and their Linux error numbers.

use crate::IoError;
use core::fmt;

/// Shorthand for results of this library.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No such name or inode (ENOENT).
    NotFound,
    /// The name exists already (EEXIST).
    Exists,
    /// A directory was needed (ENOTDIR).
    NotDir,
    /// A directory is not allowed here (EISDIR).
    IsDir,
    /// The directory still has entries (ENOTEMPTY).
    NotEmpty,
    /// No block or inode is free (ENOSPC).
    NoSpace,
    /// The name is longer than 255 bytes, or a link target longer than a block (ENAMETOOLONG).
    NameTooLong,
    /// The inode has as many links as the format can count (EMLINK).
    TooManyLinks,
    /// The file system is mounted read-only (EROFS).
    ReadOnly,
    /// A file would grow past what extents can map (EFBIG).
    TooBig,
    /// An argument makes no sense: an empty name, a directory moved below itself, a wrong file type (EINVAL).
    Invalid,
    /// The operation is not permitted on this inode, such as a hard link to a directory (EPERM).
    NotPermitted,
    /// No such extended attribute (ENODATA).
    NoData,
    /// A buffer or value is outside the allowed range (ERANGE).
    Range,
    /// An extended attribute of an unknown name space (EOPNOTSUPP).
    NotSupported,
    /// The volume uses a feature this library does not have (EOPNOTSUPP at mount).
    Unsupported {
        /// The feature.
        what: &'static str,
    },
    /// The disk contents contradict themselves (EUCLEAN, as Linux's EFSCORRUPTED).
    Corrupt {
        /// The structure that is wrong.
        what: &'static str,
    },
    /// The device failed (EIO).
    Io,
}

impl Error {
    /// The Linux error number, positive.
    pub fn errno(&self) -> i32 {
        match self {
            Error::NotPermitted => 1,
            Error::NotFound => 2,
            Error::Io => 5,
            Error::Exists => 17,
            Error::NotDir => 20,
            Error::IsDir => 21,
            Error::Invalid => 22,
            Error::TooBig => 27,
            Error::NoSpace => 28,
            Error::ReadOnly => 30,
            Error::TooManyLinks => 31,
            Error::Range => 34,
            Error::NameTooLong => 36,
            Error::NotEmpty => 39,
            Error::NoData => 61,
            Error::NotSupported | Error::Unsupported { .. } => 95,
            Error::Corrupt { .. } => 117,
        }
    }

    pub(crate) const fn corrupt(what: &'static str) -> Error {
        Error::Corrupt { what }
    }
}

impl From<IoError> for Error {
    fn from(_: IoError) -> Error {
        Error::Io
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Error::NotFound => "no such file or directory",
            Error::Exists => "file exists",
            Error::NotDir => "not a directory",
            Error::IsDir => "is a directory",
            Error::NotEmpty => "directory not empty",
            Error::NoSpace => "no space left on the file system",
            Error::NameTooLong => "file name too long",
            Error::TooManyLinks => "too many links",
            Error::ReadOnly => "read-only file system",
            Error::TooBig => "file too large",
            Error::Invalid => "invalid argument",
            Error::NotPermitted => "operation not permitted",
            Error::NoData => "no such attribute",
            Error::Range => "result out of range",
            Error::NotSupported => "operation not supported",
            Error::Unsupported { what } => return write!(f, "unsupported ext4 feature: {what}"),
            Error::Corrupt { what } => return write!(f, "file system is corrupt: {what}"),
            Error::Io => "input/output error",
        };
        f.write_str(text)
    }
}

impl core::error::Error for Error {}
