//! What a source of true randomness is to the rooms above. Mixing and stretching it is theirs.

use crate::IoError;

/// A device that delivers unpredictable bytes, slowly.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`; sleeps until the device has delivered them all.
    ///
    /// # Errors
    /// [`IoError::Gone`] when the device is out of service, [`IoError::NoMemory`].
    fn read(&self, bytes: &mut [u8]) -> Result<(), IoError>;
}
