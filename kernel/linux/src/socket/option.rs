//! The encoding of socket options (`socket(7)`): numbers, integers, times. Those that every family keeps in the
//! same way are in [`common`](super::common).

use alloc::vec::Vec;

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
    40 SO_RXQ_OVFL 42 SO_PEEK_OFF 43 SO_NOFCS 44 SO_LOCK_FILTER 45 SO_SELECT_ERR_QUEUE
    46 SO_BUSY_POLL 53 SO_CNX_ADVICE 55 SO_MEMINFO 65 SO_TIMESTAMPING_NEW 69 SO_PREFER_BUSY_POLL
    70 SO_BUSY_POLL_BUDGET 72 SO_BUF_LOCK 73 SO_RESERVE_MEM 74 SO_TXREHASH 75 SO_RCVMARK
    47 SO_MAX_PACING_RATE 49 SO_INCOMING_CPU 56 SO_INCOMING_NAPI_ID 57 SO_COOKIE 59 SO_PEERGROUPS
    60 SO_ZEROCOPY 62 SO_BINDTOIFINDEX 63 SO_TIMESTAMP_NEW 64 SO_TIMESTAMPNS_NEW
    66 SO_RCVTIMEO_NEW 67 SO_SNDTIMEO_NEW 50 SO_ATTACH_BPF 52 SO_ATTACH_REUSEPORT_EBPF
    14 SO_BSDCOMPAT 48 SO_BPF_EXTENSIONS
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

/// Two 64-bit words, as `struct timeval` has them.
///
/// # Errors
/// `EINVAL` when it is too short.
pub fn parse_pair(value: &[u8]) -> Result<(i64, i64)> {
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
