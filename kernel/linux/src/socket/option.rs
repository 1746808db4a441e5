//! The encoding of socket options (`socket(7)`): numbers, integers, times; and those that every
//! family keeps in the same way.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use errno::{Errno, Result};

/// `SOL_SOCKET`.
pub const SOL_SOCKET: i32 = 1;

macro_rules! names {
    ($($number:literal $name:ident)*) => {
        $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: i32 = $number;)*
    };
}

names! {
    1 SO_DEBUG 2 SO_REUSEADDR 3 SO_TYPE 4 SO_ERROR 5 SO_DONTROUTE 6 SO_BROADCAST 7 SO_SNDBUF
    8 SO_RCVBUF 9 SO_KEEPALIVE 10 SO_OOBINLINE 11 SO_NO_CHECK 12 SO_PRIORITY 13 SO_LINGER
    15 SO_REUSEPORT 16 SO_PASSCRED 17 SO_PEERCRED 18 SO_RCVLOWAT 19 SO_SNDLOWAT 20 SO_RCVTIMEO
    21 SO_SNDTIMEO 25 SO_BINDTODEVICE 26 SO_ATTACH_FILTER 27 SO_DETACH_FILTER 28 SO_PEERNAME
    29 SO_TIMESTAMP 30 SO_ACCEPTCONN 31 SO_PEERSEC 32 SO_SNDBUFFORCE 33 SO_RCVBUFFORCE
    34 SO_PASSSEC 35 SO_TIMESTAMPNS 36 SO_MARK 37 SO_TIMESTAMPING 38 SO_PROTOCOL 39 SO_DOMAIN
    40 SO_RXQ_OVFL 42 SO_PEEK_OFF 43 SO_NOFCS 44 SO_LOCK_FILTER 46 SO_BUSY_POLL
    47 SO_MAX_PACING_RATE 49 SO_INCOMING_CPU 56 SO_INCOMING_NAPI_ID 57 SO_COOKIE 59 SO_PEERGROUPS
    60 SO_ZEROCOPY 62 SO_BINDTOIFINDEX 63 SO_TIMESTAMP_NEW 64 SO_TIMESTAMPNS_NEW
    66 SO_RCVTIMEO_NEW 67 SO_SNDTIMEO_NEW
}

/// An `int` as bytes.
pub fn int(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// The `int` at the front of an option's value.
///
/// # Errors
/// `EINVAL` when it is too short.
pub fn parse_int(value: &[u8]) -> Result<i32> {
    let bytes = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

/// An `int`, or the single byte that IP's options also take.
///
/// # Errors
/// `EINVAL` when it is empty.
pub fn parse_int_or_byte(value: &[u8]) -> Result<i32> {
    match value {
        [] => Err(Errno::EINVAL),
        [byte] | [byte, _] | [byte, _, _] => Ok(i32::from(*byte)),
        _ => parse_int(value),
    }
}

/// Two 64-bit words, as `struct timeval` and `struct linger` users need them.
fn parse_pair(value: &[u8]) -> Result<(i64, i64)> {
    let bytes = value.first_chunk::<16>().ok_or(Errno::EINVAL)?;
    let (first, second) = bytes.split_at(8);
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0u64, |sum, b| sum << 8 | u64::from(*b))
    };
    Ok((word(first) as i64, word(second) as i64))
}

const NS_PER_S: u64 = 1_000_000_000;

/// What every family keeps for itself here, since waiting is done here.
#[derive(Debug, Default)]
pub struct Common {
    /// Nanoseconds; 0 is for ever.
    receive_timeout_ns: AtomicU64,
    send_timeout_ns: AtomicU64,
    /// Seconds; negative is off.
    linger_s: AtomicI32,
    debug: AtomicBool,
}

impl Common {
    /// The usual values.
    pub fn new() -> Self {
        Common {
            linger_s: AtomicI32::new(-1),
            ..Common::default()
        }
    }

    /// When a receive that starts now gives up.
    pub fn receive_deadline(&self) -> Option<u64> {
        deadline(self.receive_timeout_ns.load(Ordering::Relaxed))
    }

    /// When a send that starts now gives up.
    pub fn send_deadline(&self) -> Option<u64> {
        deadline(self.send_timeout_ns.load(Ordering::Relaxed))
    }

    /// Whether a send gives up at some time.
    pub fn has_send_timeout(&self) -> bool {
        self.send_timeout_ns.load(Ordering::Relaxed) != 0
    }

    /// Seconds to wait at `close(2)`, if at all.
    pub fn linger_s(&self) -> Option<u64> {
        u64::try_from(self.linger_s.load(Ordering::Relaxed)).ok()
    }

    /// Sets one of its options; `None` for one that is the family's.
    pub fn set(&self, name: i32, value: &[u8]) -> Option<Result<()>> {
        Some(match name {
            SO_RCVTIMEO | SO_RCVTIMEO_NEW => set_timeout(&self.receive_timeout_ns, value),
            SO_SNDTIMEO | SO_SNDTIMEO_NEW => set_timeout(&self.send_timeout_ns, value),
            SO_DEBUG => parse_int(value).map(|on| self.debug.store(on != 0, Ordering::Relaxed)),
            SO_TYPE | SO_DOMAIN | SO_PROTOCOL | SO_ERROR | SO_ACCEPTCONN | SO_PEERCRED
            | SO_COOKIE | SO_INCOMING_NAPI_ID => Err(Errno::ENOPROTOOPT),
            _ => return None,
        })
    }

    /// The value of one of its options.
    pub fn get(&self, name: i32) -> Option<Vec<u8>> {
        Some(match name {
            SO_RCVTIMEO | SO_RCVTIMEO_NEW => {
                timeval(self.receive_timeout_ns.load(Ordering::Relaxed))
            }
            SO_SNDTIMEO | SO_SNDTIMEO_NEW => timeval(self.send_timeout_ns.load(Ordering::Relaxed)),
            SO_DEBUG => int(i32::from(self.debug.load(Ordering::Relaxed))),
            SO_SNDLOWAT => int(1),
            _ => return None,
        })
    }

    /// Remembers `SO_LINGER` for `close(2)`: off, or seconds.
    pub fn set_linger(&self, value: Option<u32>) {
        let seconds = value.map_or(-1, |s| i32::try_from(s).unwrap_or(i32::MAX));
        self.linger_s.store(seconds, Ordering::Relaxed);
    }
}

/// `struct linger`: whether, and how many seconds.
///
/// # Errors
/// `EINVAL` when it is too short.
pub fn parse_linger(value: &[u8]) -> Result<Option<u32>> {
    let on = parse_int(value)?;
    let seconds = parse_int(value.get(4..).unwrap_or_default())?;
    Ok((on != 0).then_some(seconds.max(0) as u32))
}

/// The bytes of a `struct linger`.
pub fn linger(value: Option<u32>) -> Vec<u8> {
    let mut bytes = int(i32::from(value.is_some()));
    bytes.extend(int(value.unwrap_or(0) as i32));
    bytes
}

fn deadline(timeout_ns: u64) -> Option<u64> {
    (timeout_ns != 0).then(|| crate::files::blocking::deadline_after(timeout_ns))
}

fn set_timeout(slot: &AtomicU64, value: &[u8]) -> Result<()> {
    let (seconds, micros) = parse_pair(value)?;
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno::EDOM);
    }
    // A negative time is none at all: return at once (`sock_set_timeout`).
    let ns = if seconds < 0 {
        1
    } else {
        (seconds as u64)
            .saturating_mul(NS_PER_S)
            .saturating_add(micros as u64 * 1000)
    };
    slot.store(ns, Ordering::Relaxed);
    Ok(())
}

fn timeval(ns: u64) -> Vec<u8> {
    let mut bytes = (ns / NS_PER_S).to_ne_bytes().to_vec();
    bytes.extend((ns % NS_PER_S / 1000).to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_survive_a_round_trip() {
        let common = Common::new();
        assert_eq!(common.receive_deadline(), None);
        let mut value = 3i64.to_ne_bytes().to_vec();
        value.extend(250_000i64.to_ne_bytes());
        assert_eq!(common.set(SO_RCVTIMEO, &value), Some(Ok(())));
        assert_eq!(common.get(SO_RCVTIMEO), Some(value.clone()));
        assert!(common.receive_deadline().is_some());
        value[8..].copy_from_slice(&1_000_000i64.to_ne_bytes());
        assert_eq!(common.set(SO_SNDTIMEO, &value), Some(Err(Errno::EDOM)));
        assert_eq!(common.set(SO_SNDTIMEO, &[0; 8]), Some(Err(Errno::EINVAL)));
        assert_eq!(common.set(SO_REUSEADDR, &[]), None);
    }
}
