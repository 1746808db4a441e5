//! The manifest partition: a 16-byte header and the JSON text, padded with zeros to whole 4 KiB blocks.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | `NANOSMAN` |
//! | 8 | 4 | length of the text in bytes, little-endian |
//! | 12 | 4 | CRC-32C of the text, little-endian |
//! | 16 | length | the text, UTF-8 JSON |

use alloc::vec::Vec;
use core::fmt;

use crate::crc::crc32c;

/// The first eight bytes of a manifest partition.
pub const MAGIC: [u8; 8] = *b"NANOSMAN";
/// The size of the header before the text, in bytes.
pub const HEADER_LEN: usize = 16;
/// The partition is a whole number of these, in bytes.
pub const BLOCK: usize = 4096;
/// The longest text that is accepted, in bytes: nothing sensible is longer, and a damaged length must not exhaust memory.
pub const MAX_TEXT: usize = 1 << 20;

/// Why bytes are not a manifest partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionError {
    /// The magic is not there.
    NotAManifest,
    /// The text's length is beyond [`MAX_TEXT`].
    TooLong(usize),
    /// Fewer bytes were given than the header announces.
    Truncated {
        /// Bytes needed, header included.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The checksum does not match the text.
    Checksum,
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAManifest => f.write_str("not a manifest partition"),
            Self::TooLong(n) => write!(f, "the manifest is too long ({n} bytes)"),
            Self::Truncated { needed, given } => {
                write!(f, "the manifest is cut short ({given} of {needed} bytes)")
            }
            Self::Checksum => f.write_str("the manifest's checksum is wrong"),
        }
    }
}

impl core::error::Error for PartitionError {}

/// Writes `text` as a manifest partition: header, text, zeros up to a whole block.
///
/// # Errors
/// [`PartitionError::TooLong`].
pub fn encode(text: &[u8]) -> Result<Vec<u8>, PartitionError> {
    if text.len() > MAX_TEXT {
        return Err(PartitionError::TooLong(text.len()));
    }
    let mut out = Vec::with_capacity((HEADER_LEN + text.len()).next_multiple_of(BLOCK));
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c(text).to_le_bytes());
    out.extend_from_slice(text);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    Ok(out)
}

/// How many bytes of the partition hold header and text, told from its first bytes: what a reader has to fetch before
/// [`decode`].
///
/// # Errors
/// Everything of [`PartitionError`] but a wrong checksum.
pub fn encoded_len(start: &[u8]) -> Result<usize, PartitionError> {
    let Some((magic, rest)) = start.split_first_chunk::<8>() else {
        return Err(PartitionError::NotAManifest);
    };
    if *magic != MAGIC {
        return Err(PartitionError::NotAManifest);
    }
    let Some((length, _)) = rest.split_first_chunk::<4>() else {
        return Err(PartitionError::Truncated {
            needed: HEADER_LEN,
            given: start.len(),
        });
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_TEXT {
        return Err(PartitionError::TooLong(length));
    }
    Ok(HEADER_LEN + length)
}

/// The text of a manifest partition.
///
/// # Errors
/// See [`PartitionError`].
pub fn decode(bytes: &[u8]) -> Result<&[u8], PartitionError> {
    let needed = encoded_len(bytes)?;
    let truncated = PartitionError::Truncated {
        needed,
        given: bytes.len(),
    };
    let text = bytes.get(HEADER_LEN..needed).ok_or(truncated)?;
    let crc = bytes[12..HEADER_LEN]
        .try_into()
        .map(u32::from_le_bytes)
        .map_err(|_| truncated)?;
    if crc != crc32c(text) {
        return Err(PartitionError::Checksum);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn round_trip_and_every_damage() {
        let text = b"{\"program\":\"/x\"}";
        let bytes = encode(text).unwrap();
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(decode(&bytes).unwrap(), text);
        assert_eq!(encoded_len(&bytes[..16]).unwrap(), 16 + text.len());
        let big = vec![b' '; BLOCK];
        assert_eq!(encode(&big).unwrap().len(), 2 * BLOCK);
        assert_eq!(
            encode(&vec![0; MAX_TEXT + 1]),
            Err(PartitionError::TooLong(MAX_TEXT + 1))
        );

        assert_eq!(decode(b""), Err(PartitionError::NotAManifest));
        assert_eq!(
            decode(b"NANOSMAX0123456789"),
            Err(PartitionError::NotAManifest)
        );
        assert!(matches!(
            decode(&bytes[..20]),
            Err(PartitionError::Truncated { .. })
        ));
        assert!(matches!(
            decode(&bytes[..10]),
            Err(PartitionError::Truncated { .. })
        ));
        let mut damaged = bytes.clone();
        damaged[20] ^= 1;
        assert_eq!(decode(&damaged), Err(PartitionError::Checksum));
        damaged[11] = 0xff;
        assert!(matches!(decode(&damaged), Err(PartitionError::TooLong(_))));
    }
}
