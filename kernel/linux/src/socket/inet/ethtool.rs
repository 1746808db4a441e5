//! `SIOCETHTOOL` (`linux/ethtool.h`): whether there is a carrier and which driver it is. Nothing else is known of a card here.

use errno::{Errno, Result};
use net::query::LinkInfo;

use crate::uaccess::UserPtr;

const GDRVINFO: u32 = 0x3;
const GLINK: u32 = 0xa;
/// `sizeof(struct ethtool_drvinfo)`, and the width of each of its four texts.
const DRVINFO: usize = 196;
const TEXT: usize = 32;

/// Answers the request that lies at `at`.
///
/// # Errors
/// `EFAULT`, `EOPNOTSUPP`.
pub(super) fn answer(link: &LinkInfo, at: usize) -> Result<()> {
    match UserPtr::<u32>::new(at).read()? {
        GLINK => UserPtr::<u32>::new(at)
            .add(1)
            .write(&u32::from(link.up && link.carrier)),
        // `lo` has no driver.
        GDRVINFO if !link.loopback => {
            let mut info = [0u8; DRVINFO];
            info[..4].copy_from_slice(&GDRVINFO.to_ne_bytes());
            for (place, text) in [(0, "virtio_net"), (1, "1.0.0")] {
                let start = 4 + place * TEXT;
                info[start..start + text.len()].copy_from_slice(text.as_bytes());
            }
            UserPtr::<u8>::new(at).write_bytes(&info)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}
