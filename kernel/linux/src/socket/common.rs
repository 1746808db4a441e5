//! The options of `SOL_SOCKET` (`socket(7)`) that every family keeps in the same way. What changes how a family
//! works is handed on to it as well; waiting, time stamps and peeking are [`file`](super::file)'s, which looks here.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use errno::{Errno, Result};
use machine::sync::SpinLock;

use super::addr::{AF_INET, AF_INET6, AF_UNIX};
use super::ops::SocketOps;
use super::option::*;

const NS_PER_S: u64 = 1_000_000_000;
/// Bits that `SO_TIMESTAMPING` knows (`SOF_TIMESTAMPING_MASK` of Linux 6.1).
const TIMESTAMPING_MASK: u32 = (1 << 16) - 1;
/// Software time stamps of what was sent (`TX_SOFTWARE`, `TX_SCHED`, `TX_ACK`): not every kind of socket has them.
const TIMESTAMPING_TX: u32 = 1 << 1 | 1 << 8 | 1 << 9;
/// `SOF_TIMESTAMPING_OPT_TSONLY`, and `SOF_TIMESTAMPING_OPT_STATS`, which needs it.
const TIMESTAMPING_BARE: u32 = 1 << 11;
const TIMESTAMPING_STATS: u32 = 1 << 12;
/// `SOF_TIMESTAMPING_RX_SOFTWARE`.
const TIMESTAMPING_RX: u32 = 1 << 3;
/// `SOF_TIMESTAMPING_SOFTWARE`.
const TIMESTAMPING_REPORT: u32 = 1 << 4;

/// The options that are a flag; the place in this list is its bit.
const FLAGS: &[i32] = &[
    SO_DEBUG,
    SO_REUSEADDR,
    SO_DONTROUTE,
    SO_BROADCAST,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_NO_CHECK,
    SO_REUSEPORT,
    SO_PASSSEC,
    SO_RXQ_OVFL,
    SO_NOFCS,
    SO_LOCK_FILTER,
    SO_SELECT_ERR_QUEUE,
    SO_ZEROCOPY,
    SO_PREFER_BUSY_POLL,
    SO_RCVMARK,
];

/// What is known of the socket that an option is set on.
#[derive(Clone, Copy)]
struct Kindred {
    inet: bool,
    unix: bool,
    stream: bool,
    udp: bool,
}

impl Kindred {
    fn of(ops: &dyn SocketOps) -> Kindred {
        Kindred {
            inet: matches!(ops.family(), AF_INET | AF_INET6),
            unix: ops.family() == AF_UNIX,
            stream: ops.kind().is_stream(),
            udp: matches!(ops.family(), AF_INET | AF_INET6) && ops.protocol() == 17,
        }
    }

    fn tcp(self) -> bool {
        self.inet && self.stream
    }
}

/// Which of the time stamp options was set last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stamp {
    #[default]
    Off,
    On(i32),
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    priority: i32,
    mark: i32,
    busy_poll: i32,
    pacing: u64,
    ifindex: i32,
    receive_low: i32,
    /// Where the next peek begins; negative is off.
    peek_off: i32,
    stamp: Stamp,
    timestamping: u32,
    buf_lock: i32,
    rehash: i32,
}

impl Kept {
    const NEW: Kept = Kept {
        priority: 0,
        mark: 0,
        busy_poll: 0,
        pacing: u64::MAX,
        ifindex: 0,
        receive_low: 1,
        peek_off: -1,
        stamp: Stamp::Off,
        timestamping: 0,
        buf_lock: 0,
        rehash: 1,
    };

    fn wants_stamps(&self) -> bool {
        self.stamp != Stamp::Off || self.timestamping & TIMESTAMPING_RX != 0
    }
}

/// Which control messages tell when something arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// `SCM_TIMESTAMP`, microseconds.
    pub micros: bool,
    /// `SCM_TIMESTAMPNS`, nanoseconds.
    pub nanos: bool,
    /// `SCM_TIMESTAMPING`.
    pub detailed: bool,
}

/// What every family keeps here.
#[derive(Debug)]
pub struct Common {
    /// Nanoseconds; 0 is for ever.
    receive_timeout_ns: AtomicU64,
    send_timeout_ns: AtomicU64,
    /// Seconds; negative is off.
    linger_s: AtomicI32,
    /// Bits by the place in [`FLAGS`].
    flags: AtomicU64,
    kept: SpinLock<Kept>,
}

impl Default for Common {
    fn default() -> Self {
        Common::new()
    }
}

fn bit(name: i32) -> u64 {
    match FLAGS.iter().position(|flag| *flag == name) {
        Some(at) => 1 << at,
        None => 0,
    }
}

impl Common {
    /// The usual values.
    pub fn new() -> Self {
        Common {
            receive_timeout_ns: AtomicU64::new(0),
            send_timeout_ns: AtomicU64::new(0),
            linger_s: AtomicI32::new(-1),
            flags: AtomicU64::new(0),
            kept: SpinLock::new(Kept::NEW),
        }
    }

    /// What an accepted connection has from its listener.
    pub fn inherit(&self, listener: &Common) {
        let copy = |to: &AtomicU64, from: &AtomicU64| {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        };
        copy(&self.receive_timeout_ns, &listener.receive_timeout_ns);
        copy(&self.send_timeout_ns, &listener.send_timeout_ns);
        copy(&self.flags, &listener.flags);
        let linger = listener.linger_s.load(Ordering::Relaxed);
        self.linger_s.store(linger, Ordering::Relaxed);
        let kept = *listener.kept.lock();
        *self.kept.lock() = kept;
    }

    /// When a receive that starts now gives up.
    pub fn receive_deadline(&self) -> Option<u64> {
        deadline(self.receive_timeout_ns.load(Ordering::Relaxed))
    }

    /// When a send that starts now gives up.
    pub fn send_deadline(&self) -> Option<u64> {
        deadline(self.send_timeout_ns.load(Ordering::Relaxed))
    }

    /// Seconds to wait at `close(2)`, if at all.
    pub fn linger_s(&self) -> Option<u64> {
        u64::try_from(self.linger_s.load(Ordering::Relaxed)).ok()
    }

    /// Whether a flag is set, by its `SO_*` number.
    pub fn has(&self, name: i32) -> bool {
        self.flags.load(Ordering::Relaxed) & bit(name) != 0
    }

    /// The least bytes that end a receive on a stream (`SO_RCVLOWAT`).
    pub fn receive_low(&self) -> usize {
        usize::try_from(self.kept.lock().receive_low).unwrap_or(1)
    }

    /// Where the next peek begins (`SO_PEEK_OFF`), if that is on.
    pub fn peek_off(&self) -> Option<usize> {
        usize::try_from(self.kept.lock().peek_off).ok()
    }

    /// Moves on after a peek of `len` bytes.
    pub fn peeked(&self, len: usize) {
        self.move_peek(|off| off.saturating_add(i32::try_from(len).unwrap_or(i32::MAX)));
    }

    /// Moves back after `len` bytes were taken.
    pub fn taken(&self, len: usize) {
        self.move_peek(|off| {
            off.saturating_sub(i32::try_from(len).unwrap_or(i32::MAX))
                .max(0)
        });
    }

    fn move_peek(&self, change: impl FnOnce(i32) -> i32) {
        let mut kept = self.kept.lock();
        if kept.peek_off >= 0 {
            kept.peek_off = change(kept.peek_off);
        }
    }

    /// Which control messages tell when something arrived.
    pub fn stamps(&self) -> Stamps {
        let kept = self.kept.lock();
        Stamps {
            micros: matches!(kept.stamp, Stamp::On(SO_TIMESTAMP | SO_TIMESTAMP_NEW)),
            nanos: matches!(kept.stamp, Stamp::On(SO_TIMESTAMPNS | SO_TIMESTAMPNS_NEW)),
            detailed: kept.timestamping & TIMESTAMPING_REPORT != 0,
        }
    }

    /// `setsockopt(2)` at level `SOL_SOCKET`.
    ///
    /// # Errors
    /// `EINVAL`, `ENOPROTOOPT`, `EOPNOTSUPP`, `EDOM`, `EPERM`, and the family's.
    pub fn set(&self, ops: &dyn SocketOps, name: i32, value: &[u8]) -> Result<()> {
        if name == SO_BINDTODEVICE {
            return ops.set_option(SOL_SOCKET, name, value);
        }
        let number = parse_int(value)?;
        let kind = Kindred::of(ops);
        match name {
            SO_RCVTIMEO | SO_RCVTIMEO_NEW => set_timeout(&self.receive_timeout_ns, value),
            SO_SNDTIMEO | SO_SNDTIMEO_NEW => set_timeout(&self.send_timeout_ns, value),
            SO_LINGER => {
                let linger = parse_linger(value)?;
                if kind.inet {
                    ops.set_option(SOL_SOCKET, name, value)?;
                }
                let seconds = linger.map_or(-1, |s| i32::try_from(s).unwrap_or(i32::MAX));
                self.linger_s.store(seconds, Ordering::Relaxed);
                Ok(())
            }
            SO_REUSEPORT if !kind.inet && number != 0 => Err(Errno::EOPNOTSUPP),
            SO_PASSSEC if !kind.unix => Err(Errno::EOPNOTSUPP),
            SO_PASSCRED if kind.inet => Err(Errno::EOPNOTSUPP),
            SO_LOCK_FILTER if number == 0 && self.has(SO_LOCK_FILTER) => Err(Errno::EPERM),
            SO_ATTACH_FILTER | SO_DETACH_FILTER if self.has(SO_LOCK_FILTER) => Err(Errno::EPERM),
            // eBPF: as in a Linux without it.
            SO_ATTACH_BPF | SO_ATTACH_REUSEPORT_EBPF => {
                Err(match (value.len(), self.has(SO_LOCK_FILTER)) {
                    (4, true) => Errno::EPERM,
                    (4, false) => Errno::EOPNOTSUPP,
                    _ => Errno::EINVAL,
                })
            }
            SO_ZEROCOPY if kind.unix => Err(Errno::EOPNOTSUPP),
            SO_ZEROCOPY if !matches!(number, 0 | 1) => Err(Errno::EINVAL),
            _ if bit(name) != 0 => self.set_flag(ops, kind, name, number != 0),
            SO_TIMESTAMP | SO_TIMESTAMPNS | SO_TIMESTAMP_NEW | SO_TIMESTAMPNS_NEW => {
                let stamp = if number != 0 {
                    Stamp::On(name)
                } else {
                    Stamp::Off
                };
                self.set_stamps(ops, kind, |kept| kept.stamp = stamp)
            }
            SO_TIMESTAMPING | SO_TIMESTAMPING_NEW => {
                let bits = number as u32;
                let statistics = bits & TIMESTAMPING_STATS != 0;
                if bits & !TIMESTAMPING_MASK != 0 || statistics && bits & TIMESTAMPING_BARE == 0 {
                    return Err(Errno::EINVAL);
                }
                // What goes through a UNIX socket is never stamped.
                if !kind.unix {
                    match ops.set_option(SOL_SOCKET, SO_TIMESTAMPING, &int(number)) {
                        Err(Errno::ENOPROTOOPT) if bits & TIMESTAMPING_TX == 0 => {}
                        Err(Errno::ENOPROTOOPT) => return Err(Errno::EOPNOTSUPP),
                        answer => answer?,
                    }
                }
                self.set_stamps(ops, kind, |kept| kept.timestamping = bits)
            }
            SO_SNDBUF | SO_RCVBUF => {
                // A negative size is a very large unsigned one, which the limit cuts.
                let size = if number < 0 { i32::MAX } else { number };
                ops.set_option(SOL_SOCKET, name, &int(size))
            }
            SO_SNDBUFFORCE | SO_RCVBUFFORCE => {
                ops.set_option(SOL_SOCKET, name, &int(number.max(0)))
            }
            SO_MAX_PACING_RATE => {
                let rate = match (value.first_chunk::<8>(), number) {
                    (Some(bytes), _) => u64::from_ne_bytes(*bytes),
                    (None, -1) => u64::MAX,
                    (None, rate) => u64::from(rate as u32),
                };
                if kind.tcp() {
                    ops.set_option(SOL_SOCKET, name, value)?;
                }
                self.kept.lock().pacing = rate;
                Ok(())
            }
            SO_RCVLOWAT => {
                let low = match number {
                    ..0 => i32::MAX,
                    0 => 1,
                    low => low,
                };
                if kind.tcp() {
                    ops.set_option(SOL_SOCKET, name, &int(low))?;
                }
                self.kept.lock().receive_low = low;
                Ok(())
            }
            SO_PEEK_OFF if !kind.stream && !kind.unix && !kind.udp => Err(Errno::EOPNOTSUPP),
            SO_RESERVE_MEM if number >= 0 => Err(Errno::EOPNOTSUPP),
            SO_TXREHASH if !kind.tcp() => Err(Errno::EOPNOTSUPP),
            SO_BINDTOIFINDEX if number >= 0 && kind.inet => ops.set_option(SOL_SOCKET, name, value),
            _ => self.keep(name, number).unwrap_or_else(|| match name {
                SO_PASSCRED | SO_ATTACH_FILTER | SO_DETACH_FILTER => {
                    ops.set_option(SOL_SOCKET, name, value)
                }
                _ => Err(Errno::ENOPROTOOPT),
            }),
        }
    }

    /// Sets what is a number and only kept; `None` for what is not.
    fn keep(&self, name: i32, number: i32) -> Option<Result<()>> {
        let mut kept = self.kept.lock();
        let (slot, valid) = match name {
            SO_PRIORITY => (&mut kept.priority, true),
            SO_MARK => (&mut kept.mark, true),
            SO_PEEK_OFF => (&mut kept.peek_off, true),
            SO_BUSY_POLL => (&mut kept.busy_poll, number >= 0),
            SO_BINDTOIFINDEX => (&mut kept.ifindex, number >= 0),
            SO_BUF_LOCK => (&mut kept.buf_lock, number & !3 == 0),
            SO_TXREHASH => (&mut kept.rehash, matches!(number, -1..=1)),
            SO_RESERVE_MEM => return Some(Err(Errno::EINVAL)),
            // Advice that cannot be seen to be followed or not.
            SO_BUSY_POLL_BUDGET if !(0..=0xffff).contains(&number) => {
                return Some(Err(Errno::EINVAL));
            }
            SO_BUSY_POLL_BUDGET | SO_CNX_ADVICE | SO_BSDCOMPAT => return Some(Ok(())),
            _ => return None,
        };
        if !valid {
            return Some(Err(Errno::EINVAL));
        }
        *slot = if name == SO_TXREHASH && number == -1 {
            1
        } else {
            number
        };
        Some(Ok(()))
    }

    fn set_flag(&self, ops: &dyn SocketOps, kind: Kindred, name: i32, on: bool) -> Result<()> {
        let told = match name {
            SO_REUSEADDR | SO_REUSEPORT | SO_BROADCAST | SO_DONTROUTE => kind.inet,
            SO_RXQ_OVFL => kind.inet && !kind.stream,
            SO_KEEPALIVE | SO_OOBINLINE => kind.tcp(),
            _ => false,
        };
        if told {
            match ops.set_option(SOL_SOCKET, name, &int(i32::from(on))) {
                // A kind of socket to which it means nothing.
                Ok(()) | Err(Errno::ENOPROTOOPT) => {}
                error => return error,
            }
        }
        if on {
            self.flags.fetch_or(bit(name), Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!bit(name), Ordering::Relaxed);
        }
        Ok(())
    }

    fn set_stamps(
        &self,
        ops: &dyn SocketOps,
        kind: Kindred,
        change: impl FnOnce(&mut Kept),
    ) -> Result<()> {
        let wanted = {
            let mut kept = self.kept.lock();
            change(&mut kept);
            kept.wants_stamps()
        };
        if kind.inet || kind.unix && !kind.stream {
            match ops.set_option(SOL_SOCKET, SO_TIMESTAMP, &int(i32::from(wanted))) {
                Err(Errno::ENOPROTOOPT) => Ok(()),
                answer => answer,
            }
        } else {
            Ok(())
        }
    }

    /// `getsockopt(2)` at level `SOL_SOCKET`; `len` is how much room the program has.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EOPNOTSUPP`, and the family's.
    pub fn get(&self, ops: &dyn SocketOps, name: i32, len: usize) -> Result<Vec<u8>> {
        let kind = Kindred::of(ops);
        let kept = *self.kept.lock();
        Ok(match name {
            SO_RCVTIMEO | SO_RCVTIMEO_NEW => {
                timeval(self.receive_timeout_ns.load(Ordering::Relaxed))
            }
            SO_SNDTIMEO | SO_SNDTIMEO_NEW => timeval(self.send_timeout_ns.load(Ordering::Relaxed)),
            SO_LINGER if !kind.inet => linger(self.linger_s().map(|s| s as u32)),
            SO_PASSSEC if !kind.unix => return Err(Errno::EOPNOTSUPP),
            SO_PASSCRED if kind.inet => return Err(Errno::EOPNOTSUPP),
            SO_TXREHASH if !kind.tcp() => return Err(Errno::EOPNOTSUPP),
            _ if bit(name) != 0 => int(i32::from(self.has(name))),
            SO_TIMESTAMP | SO_TIMESTAMPNS | SO_TIMESTAMP_NEW | SO_TIMESTAMPNS_NEW => {
                int(i32::from(kept.stamp == Stamp::On(name)))
            }
            SO_TIMESTAMPING | SO_TIMESTAMPING_NEW => {
                let mut bytes = int(kept.timestamping as i32);
                bytes.extend([0; 4]);
                bytes
            }
            SO_PRIORITY => int(kept.priority),
            SO_MARK => int(kept.mark),
            SO_BUSY_POLL => int(kept.busy_poll),
            SO_PEEK_OFF => int(kept.peek_off),
            SO_BUF_LOCK => int(kept.buf_lock),
            SO_TXREHASH => int(kept.rehash),
            SO_RCVLOWAT => int(kept.receive_low),
            SO_SNDLOWAT => int(1),
            SO_RESERVE_MEM | SO_INCOMING_NAPI_ID => int(0),
            SO_BINDTOIFINDEX if !kind.inet => int(kept.ifindex),
            SO_MAX_PACING_RATE => {
                let mut bytes = kept.pacing.to_ne_bytes().to_vec();
                if len < 8 {
                    bytes.truncate(4);
                }
                bytes
            }
            SO_TYPE => int(ops.kind() as i32),
            SO_DOMAIN => int(i32::from(ops.family())),
            SO_PROTOCOL => int(ops.protocol()),
            SO_ACCEPTCONN => int(i32::from(ops.is_listening())),
            SO_ERROR => {
                let error = ops.take_error();
                int(error.map_or(0, |error| i32::from(error.raw())))
            }
            SO_PEERNAME => {
                let peer = ops.peer_addr().map_err(|_| Errno::ENOTCONN)?.to_bytes();
                // The program must have room for all of it.
                if len < peer.len() {
                    return Err(Errno::EINVAL);
                }
                peer
            }
            SO_MEMINFO => meminfo(ops),
            // Obsolete: never on.
            SO_BSDCOMPAT => int(0),
            // SKF_AD_MAX: all ancillary loads are known.
            SO_BPF_EXTENSIONS => int(64),
            SO_PEERGROUPS if !kind.unix => return Err(Errno::ENODATA),
            SO_ATTACH_FILTER => match ops.option(SOL_SOCKET, name, len) {
                // A kind of socket that takes none has none.
                Err(Errno::ENOPROTOOPT) => Vec::new(),
                answer => return answer,
            },
            _ => return ops.option(SOL_SOCKET, name, len),
        })
    }
}

/// `SK_MEMINFO_*`: what is queued and may be queued, each way.
fn meminfo(ops: &dyn SocketOps) -> Vec<u8> {
    let size = |name| match ops.option(SOL_SOCKET, name, 4) {
        Ok(value) => parse_int(&value).unwrap_or(0) as u32,
        Err(_) => 0,
    };
    let received = ops.input_queued().unwrap_or(0) as u32;
    let sent = ops.output_queued().unwrap_or(0) as u32;
    let words = [
        received,
        size(SO_RCVBUF),
        sent,
        size(SO_SNDBUF),
        0,
        sent,
        0,
        0,
        0,
    ];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
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
    use crate::socket::ops::Kind;
    use crate::socket::unix::UnixSocket;

    #[test]
    fn timeouts_survive_a_round_trip() {
        let socket = UnixSocket::new(Kind::Stream);
        let common = Common::new();
        assert_eq!(common.receive_deadline(), None);
        let mut value = 3i64.to_ne_bytes().to_vec();
        value.extend(250_000i64.to_ne_bytes());
        assert_eq!(common.set(&*socket, SO_RCVTIMEO, &value), Ok(()));
        assert_eq!(common.get(&*socket, SO_RCVTIMEO, 16), Ok(value.clone()));
        assert!(common.receive_deadline().is_some());
        value[8..].copy_from_slice(&1_000_000i64.to_ne_bytes());
        assert_eq!(common.set(&*socket, SO_SNDTIMEO, &value), Err(Errno::EDOM));
        assert_eq!(
            common.set(&*socket, SO_SNDTIMEO, &[0; 8]),
            Err(Errno::EINVAL)
        );
    }

    #[test]
    fn every_option_survives_hostile_values() {
        for kind in [Kind::Stream, Kind::Dgram, Kind::SeqPacket] {
            let socket = UnixSocket::new(kind);
            let common = Common::new();
            for name in -1..90 {
                for len in 0..20 {
                    let _ = common.set(&*socket, name, &alloc::vec![0xff; len]);
                }
                assert!(common.set(&*socket, name, &[1; 3]).is_err(), "{name}");
                let _ = common.get(&*socket, name, 0);
            }
        }
    }

    #[test]
    fn a_peek_offset_follows_what_is_read() {
        let socket = UnixSocket::new(Kind::Stream);
        let common = Common::new();
        common.taken(3);
        assert_eq!(common.peek_off(), None);
        common.set(&*socket, SO_PEEK_OFF, &int(4)).unwrap();
        common.peeked(2);
        assert_eq!(common.peek_off(), Some(6));
        common.taken(5);
        assert_eq!(common.peek_off(), Some(1));
        common.taken(5);
        assert_eq!(common.peek_off(), Some(0));
    }

    #[test]
    fn the_last_kind_of_time_stamp_counts() {
        let socket = UnixSocket::new(Kind::Stream);
        let common = Common::new();
        common.set(&*socket, SO_TIMESTAMP, &int(1)).unwrap();
        common.set(&*socket, SO_TIMESTAMPNS, &int(1)).unwrap();
        assert_eq!(common.get(&*socket, SO_TIMESTAMP, 4), Ok(int(0)));
        assert!(common.stamps().nanos && !common.stamps().micros);
        common.set(&*socket, SO_TIMESTAMPING, &int(0x18)).unwrap();
        assert!(common.stamps().detailed);
    }
}
