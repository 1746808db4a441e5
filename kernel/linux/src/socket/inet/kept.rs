//! Options of IP that are kept and read back, and change nothing: on Linux too, for these kinds of socket. A stream
//! has no control messages of single packets; without security modules there is no label to pass on.

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::vec::Vec;
use errno::{Errno, Result};

use super::options::{SOL_IP, SOL_IPV6};
use crate::socket::option::{int, parse_int, parse_int_or_byte};

/// Which sockets only keep an option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Stream,
    Udp,
    Both,
}

use On::{Both, Stream, Udp};

/// Level, number, on which sockets, whether on at first, whether only 0 and 1 are taken.
const KEPT: &[(i32, i32, On, bool, bool)] = &[
    (SOL_IP, 8, Stream, false, false),    // IP_PKTINFO
    (SOL_IP, 11, Stream, false, false),   // IP_RECVERR
    (SOL_IP, 12, Stream, false, false),   // IP_RECVTTL
    (SOL_IP, 13, Stream, false, false),   // IP_RECVTOS
    (SOL_IP, 18, Both, false, false),     // IP_PASSSEC
    (SOL_IP, 20, Stream, false, false),   // IP_RECVORIGDSTADDR
    (SOL_IP, 24, Udp, false, false),      // IP_BIND_ADDRESS_NO_PORT
    (SOL_IP, 34, Stream, true, false),    // IP_MULTICAST_LOOP
    (SOL_IPV6, 19, Stream, true, true),   // IPV6_MULTICAST_LOOP
    (SOL_IPV6, 25, Stream, false, false), // IPV6_RECVERR
    (SOL_IPV6, 29, Stream, true, false),  // IPV6_MULTICAST_ALL
    (SOL_IPV6, 49, Stream, false, false), // IPV6_RECVPKTINFO
    (SOL_IPV6, 51, Stream, false, false), // IPV6_RECVHOPLIMIT
    (SOL_IPV6, 62, Stream, false, false), // IPV6_DONTFRAG
    (SOL_IPV6, 66, Stream, false, false), // IPV6_RECVTCLASS
    (SOL_IPV6, 74, Stream, false, false), // IPV6_RECVORIGDSTADDR
];

/// The values, a bit for each, by the place in [`KEPT`].
pub struct Kept {
    bits: AtomicU32,
    on: Option<On>,
}

impl Kept {
    /// Those of a socket of this kind.
    pub fn new(kind: net::Kind, protocol: u8) -> Kept {
        let on = match (kind, protocol) {
            (net::Kind::Stream, _) => Some(Stream),
            (net::Kind::Dgram, 17) => Some(Udp),
            _ => None,
        };
        let bits = KEPT
            .iter()
            .enumerate()
            .fold(0, |bits, (at, kept)| bits | u32::from(kept.3) << at);
        Kept {
            bits: AtomicU32::new(bits),
            on,
        }
    }

    fn find(&self, level: i32, number: i32) -> Option<usize> {
        let on = self.on?;
        KEPT.iter().position(|kept| {
            (kept.0, kept.1) == (level, number) && (kept.2 == on || kept.2 == Both)
        })
    }

    /// Sets an option, if it is one of these.
    pub fn set(&self, level: i32, number: i32, value: &[u8]) -> Option<Result<()>> {
        let at = self.find(level, number)?;
        let parsed = if level == SOL_IP || number == 62 {
            parse_int_or_byte(value)
        } else {
            parse_int(value)
        };
        Some(match parsed {
            Ok(number) if KEPT[at].4 && !matches!(number, 0 | 1) => Err(Errno::EINVAL),
            Ok(0) => {
                self.bits.fetch_and(!(1 << at), Ordering::Relaxed);
                Ok(())
            }
            Ok(_) => {
                self.bits.fetch_or(1 << at, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(error),
        })
    }

    /// The value of an option, if it is one of these.
    pub fn get(&self, level: i32, number: i32) -> Option<Vec<u8>> {
        let at = self.find(level, number)?;
        Some(int((self.bits.load(Ordering::Relaxed) >> at & 1) as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_where_they_change_nothing() {
        let tcp = Kept::new(net::Kind::Stream, 6);
        assert_eq!(tcp.get(SOL_IP, 8), Some(int(0)));
        assert_eq!(tcp.set(SOL_IP, 8, &[1]), Some(Ok(())));
        assert_eq!(tcp.get(SOL_IP, 8), Some(int(1)));
        assert_eq!(tcp.get(SOL_IPV6, 19), Some(int(1)));
        assert_eq!(tcp.set(SOL_IPV6, 19, &int(2)), Some(Err(Errno::EINVAL)));
        let udp = Kept::new(net::Kind::Dgram, 17);
        assert_eq!(udp.set(SOL_IP, 8, &int(1)), None, "the engine's");
        assert!(KEPT.len() <= 32);
    }
}
