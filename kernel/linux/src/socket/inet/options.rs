//! The encoding of IP's, TCP's and UDP's options (`ip(7)`, `ipv6(7)`, `tcp(7)`, `udp(7)`): bytes of
//! the program to the engine's typed values and back.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use errno::{Errno, Result};
use net::bpf::Program;
use net::udp::TxStamps;
use net::{Congestion, Family, Membership, MtuDiscover, Opt, OptName, Socket};

use super::multicast;
use crate::socket::option::{
    self as so, SOL_SOCKET, int, linger, parse_int, parse_int_or_byte, parse_linger,
};

pub(super) const SOL_IP: i32 = 0;
const SOL_TCP: i32 = 6;
const SOL_UDP: i32 = 17;
pub(super) const SOL_IPV6: i32 = 41;
const SOL_ICMPV6: i32 = 58;
const SOL_RAW: i32 = 255;

/// The value of an option that stands alone: what it means, or how it reads.
struct Codec {
    level: i32,
    number: i32,
    name: OptName,
    kind: Encoding,
}

/// How the value of an option is encoded.
enum Encoding {
    /// An `int` that is 0 or not.
    Bool(fn(bool) -> Opt),
    /// An `int` that must not be negative.
    Uint(fn(u32) -> Opt),
    /// An `int`, where what is negative counts as 0.
    Floor(fn(u32) -> Opt),
    /// An `int` whose bits are unsigned.
    Word(fn(u32) -> Opt),
    /// An `int` that may be negative.
    Int(fn(i32) -> Opt),
    /// An `int` or a byte, from 0 to 255.
    Byte(fn(u8) -> Opt),
    /// An `int` from -1 (the default) to 255.
    Hops(fn(Option<u8>) -> Opt),
    /// `IP_PMTUDISC_*`.
    Discover(fn(MtuDiscover) -> Opt),
}

use Encoding::{Bool, Byte, Discover, Floor, Hops, Int, Uint, Word};

macro_rules! codecs {
    ($($level:ident $number:literal $name:ident $kind:ident;)*) => {
        static CODECS: &[Codec] = &[$(Codec {
            level: $level, number: $number, name: OptName::$name, kind: $kind(Opt::$name),
        }),*];
    };
}

codecs! {
    SOL_SOCKET 2 ReuseAddr Bool;
    SOL_SOCKET 15 ReusePort Bool;
    SOL_SOCKET 9 KeepAlive Bool;
    SOL_SOCKET 6 Broadcast Bool;
    SOL_SOCKET 5 DontRoute Bool;
    SOL_SOCKET 10 OobInline Bool;
    SOL_SOCKET 7 SndBuf Uint;
    SOL_SOCKET 8 RcvBuf Uint;
    SOL_SOCKET 32 SndBufForce Uint;
    SOL_SOCKET 33 RcvBufForce Uint;
    SOL_SOCKET 18 RcvLowat Uint;
    SOL_SOCKET 62 BindToDevice Uint;
    SOL_SOCKET 29 Timestamp Bool;
    SOL_SOCKET 49 IncomingCpu Uint;
    SOL_SOCKET 40 RxqOvfl Bool;
    SOL_TCP 1 NoDelay Bool;
    SOL_TCP 2 MaxSeg Uint;
    SOL_TCP 3 Cork Bool;
    SOL_TCP 4 KeepIdle Uint;
    SOL_TCP 5 KeepIntvl Uint;
    SOL_TCP 6 KeepCnt Uint;
    SOL_TCP 7 SynCnt Uint;
    SOL_TCP 8 Linger2 Int;
    SOL_TCP 9 DeferAccept Floor;
    SOL_TCP 10 WindowClamp Uint;
    SOL_TCP 12 QuickAck Bool;
    SOL_TCP 18 UserTimeout Uint;
    SOL_TCP 23 FastOpen Uint;
    SOL_TCP 30 FastOpenConnect Bool;
    SOL_TCP 25 NotSentLowat Word;
    SOL_UDP 1 UdpCork Bool;
    SOL_UDP 104 UdpGro Bool;
    SOL_IP 1 Tos Byte;
    SOL_IP 2 Ttl Byte;
    SOL_IP 3 HdrIncl Bool;
    SOL_IP 8 PktInfo Bool;
    SOL_IP 10 MtuDiscover Discover;
    SOL_IP 11 RecvErr Bool;
    SOL_IP 12 RecvTtl Bool;
    SOL_IP 13 RecvTos Bool;
    SOL_IP 14 Mtu Uint;
    SOL_IP 15 FreeBind Bool;
    SOL_IP 19 Transparent Bool;
    SOL_IP 20 RecvOrigDstAddr Bool;
    SOL_IP 21 MinTtl Byte;
    SOL_IP 24 BindAddressNoPort Bool;
    SOL_IP 33 MulticastTtl Byte;
    SOL_IP 34 MulticastLoop Bool;
    SOL_IP 49 MulticastAll Bool;
    SOL_IP 51 LocalPortRange Word;
    SOL_RAW 7 Checksum6 Int;
    SOL_IPV6 7 Checksum6 Int;
    SOL_IPV6 16 UnicastHops Hops;
    SOL_IPV6 17 MulticastIf6 Uint;
    SOL_IPV6 18 MulticastHops Hops;
    SOL_IPV6 19 MulticastLoop6 Bool;
    SOL_IPV6 23 MtuDiscover6 Discover;
    SOL_IPV6 24 Mtu6 Uint;
    SOL_IPV6 25 RecvErr6 Bool;
    SOL_IPV6 26 V6Only Bool;
    SOL_IPV6 29 MulticastAll Bool;
    SOL_IPV6 36 HdrIncl Bool;
    SOL_IPV6 49 RecvPktInfo6 Bool;
    SOL_IPV6 51 RecvHopLimit Bool;
    SOL_IPV6 66 RecvTClass Bool;
    SOL_IPV6 73 MinHops Byte;
    SOL_IPV6 67 TClass Byte;
    SOL_IPV6 29 MulticastAll Bool;
    SOL_IPV6 62 DontFrag6 Bool;
    SOL_IPV6 74 RecvOrigDstAddr6 Bool;
    SOL_IPV6 75 Transparent Bool;
    SOL_IPV6 78 FreeBind Bool;
}

fn codec(level: i32, number: i32) -> Option<&'static Codec> {
    CODECS
        .iter()
        .find(|codec| (codec.level, codec.number) == (level, number))
}

fn byte(value: i32) -> Result<u8> {
    u8::try_from(value).map_err(|_| Errno::EINVAL)
}

/// What the program's bytes say; `None` for an option that is accepted and changes nothing, as it
/// does on Linux for the sockets there are here.
///
/// # Errors
/// `ENOPROTOOPT`, `EINVAL`, `ENOENT`, `ENODEV`.
pub fn decode(socket: &dyn Socket, level: i32, number: i32, value: &[u8]) -> Result<Option<Opt>> {
    if !has_level(socket, level) {
        return Err(Errno::ENOPROTOOPT);
    }
    // A stream takes no filter, so it has none to give up.
    if (level, number) == (SOL_SOCKET, so::SO_DETACH_FILTER) && socket.kind() == net::Kind::Stream {
        return Err(Errno::ENOENT);
    }
    // Of the protocol itself, the length is looked at before the name.
    if level == i32::from(socket.protocol()) && level != SOL_IP {
        parse_int(value)?;
    }
    decode_value(level, number, value)
}

/// Whether an option of that level can be one of the socket's.
fn has_level(socket: &dyn Socket, level: i32) -> bool {
    match level {
        SOL_SOCKET | SOL_IP => true,
        SOL_IPV6 => socket.family() == Family::Inet6,
        SOL_RAW | SOL_ICMPV6 => {
            socket.kind() == net::Kind::Raw || !matches!(socket.protocol(), 6 | 17)
        }
        level => level == i32::from(socket.protocol()) && socket.kind() != net::Kind::Raw,
    }
}

fn decode_value(level: i32, number: i32, value: &[u8]) -> Result<Option<Opt>> {
    if matches!(
        (level, number),
        (SOL_IP, 14) | (SOL_SOCKET, so::SO_INCOMING_CPU)
    ) {
        return Err(Errno::ENOPROTOOPT);
    }
    if (level, number) == (SOL_IP, 51) && value.len() != 4 {
        return Err(Errno::EINVAL);
    }
    if let Some(codec) = codec(level, number) {
        let option = match codec.kind {
            Bool(make) => match bool_value(level, number, value)? {
                // Those that Linux is strict about.
                other
                    if !matches!(other, 0 | 1)
                        && matches!(
                            (level, number),
                            (SOL_IP, 49) | (SOL_IPV6, 19) | (SOL_TCP, 30)
                        ) =>
                {
                    return Err(Errno::EINVAL);
                }
                on => make(on != 0),
            },
            Uint(make) => make(u32::try_from(parse_int(value)?).map_err(|_| Errno::EINVAL)?),
            Floor(make) => make(parse_int(value)?.max(0) as u32),
            Word(make) => make(parse_int(value)? as u32),
            Int(make) => make(parse_int(value)?),
            Byte(make) if level == SOL_IPV6 => match parse_int(value)? {
                -1 if !matches!(codec.name, OptName::MinHops) => make(0),
                value => make(byte(value)?),
            },
            Byte(make) => match parse_int_or_byte(value)? {
                // The rest is cut off.
                value if matches!(codec.name, OptName::Tos) => make(value as u8),
                // -1 asks for the default.
                -1 if matches!(codec.name, OptName::Ttl) => make(64),
                -1 if matches!(codec.name, OptName::MulticastTtl) => make(1),
                0 if matches!(codec.name, OptName::Ttl) => return Err(Errno::EINVAL),
                value => make(byte(value)?),
            },
            Hops(make) => match parse_int(value)? {
                -1 => make(None),
                value => make(Some(byte(value)?)),
            },
            Discover(make) => {
                let raw =
                    u32::try_from(bool_value(level, number, value)?).map_err(|_| Errno::EINVAL)?;
                make(MtuDiscover::from_raw(raw).ok_or(Errno::EINVAL)?)
            }
        };
        return Ok(Some(option));
    }
    special(level, number, value)
}

fn bool_value(level: i32, number: i32, value: &[u8]) -> Result<i32> {
    // Of IPv6's, IPV6_DONTFRAG alone takes a byte.
    if level == SOL_IP || (level, number) == (SOL_IPV6, 62) {
        parse_int_or_byte(value)
    } else {
        parse_int(value)
    }
}

fn special(level: i32, number: i32, value: &[u8]) -> Result<Option<Opt>> {
    let option = match (level, number) {
        (SOL_SOCKET, so::SO_LINGER) => {
            let seconds = parse_linger(value)?;
            Opt::Linger(seconds.map(|s| Duration::from_secs(u64::from(s))))
        }
        (SOL_SOCKET, so::SO_BINDTODEVICE) => Opt::BindToDevice(device(value)?),
        (SOL_SOCKET, so::SO_MAX_PACING_RATE) => Opt::MaxPacingRate(match value.len() {
            8.. => u64_at(value),
            _ => u64::from(parse_int(value)? as u32),
        }),
        // Checksums are always computed.
        (SOL_SOCKET, so::SO_NO_CHECK) => return Ok(None),
        (SOL_SOCKET, so::SO_TIMESTAMPING) => {
            Opt::TxStamps(TxStamps::from_bits(parse_int(value)? as u32))
        }
        (SOL_SOCKET, so::SO_ATTACH_FILTER) => Opt::Filter(Some(Arc::new(Program::new(value)?))),
        (SOL_SOCKET, so::SO_DETACH_FILTER) => Opt::Filter(None),
        (SOL_TCP, 13) => {
            let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
            Opt::Congestion(Congestion::by_name(&value[..end]).ok_or(Errno::ENOENT)?)
        }
        (SOL_UDP, 103) => {
            Opt::UdpSegment(u16::try_from(parse_int(value)?).map_err(|_| Errno::EINVAL)?)
        }
        (SOL_IP, 32) => Opt::MulticastIf(multicast_interface(value)?),
        (SOL_IP, 35) => Opt::Join(membership4(value)?),
        (SOL_IP, 36) => Opt::Leave(membership4(value)?),
        (SOL_IPV6, 20) => Opt::Join(membership6(value)?),
        (SOL_IPV6, 21) => Opt::Leave(membership6(value)?),
        (SOL_IP, 37..=48) | (SOL_IPV6, 42..=48) => multicast::decode(level, number, value)?,
        (SOL_RAW, 1) => Opt::IcmpFilter(parse_int(value)? as u32),
        (SOL_ICMPV6, 1) => {
            let bytes = value.first_chunk::<32>().ok_or(Errno::EINVAL)?;
            let mut filter = [0; 8];
            for (word, part) in filter.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = parse_int(part)? as u32;
            }
            Opt::Icmp6Filter(filter)
        }
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(Some(option))
}

fn u64_at(value: &[u8]) -> u64 {
    value
        .iter()
        .take(8)
        .rev()
        .fold(0, |sum, b| sum << 8 | u64::from(*b))
}

/// The index of the interface with that name; an empty name is none.
fn device(value: &[u8]) -> Result<u32> {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    let name = &value[..end];
    if name.is_empty() {
        return Ok(0);
    }
    crate::socket::stack()?
        .links()
        .iter()
        .find(|link| link.name.as_bytes() == name)
        .map(|link| link.index)
        .ok_or(Errno::ENODEV)
}

pub(super) fn ipv4(bytes: &[u8]) -> Result<Ipv4Addr> {
    let octets = bytes.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    Ok(Ipv4Addr::from(*octets))
}

/// `struct in_addr`, `struct ip_mreq` or `struct ip_mreqn`.
fn multicast_interface(value: &[u8]) -> Result<(Ipv4Addr, u32)> {
    match value.len() {
        12.. => Ok((ipv4(&value[4..])?, parse_int(&value[8..])? as u32)),
        8..12 => Ok((ipv4(&value[4..])?, 0)),
        _ => Ok((ipv4(value)?, 0)),
    }
}

fn membership4(value: &[u8]) -> Result<Membership> {
    if value.len() < 8 {
        return Err(Errno::EINVAL);
    }
    Ok(Membership {
        group: IpAddr::V4(ipv4(value)?),
        interface: ipv4(&value[4..])?,
        index: match value.len() {
            12.. => parse_int(&value[8..])? as u32,
            _ => 0,
        },
    })
}

fn membership6(value: &[u8]) -> Result<Membership> {
    let octets = value.first_chunk::<16>().ok_or(Errno::EINVAL)?;
    Ok(Membership {
        group: IpAddr::V6(Ipv6Addr::from(*octets)),
        interface: Ipv4Addr::UNSPECIFIED,
        index: parse_int(&value[16..])? as u32,
    })
}

/// `getsockopt(2)`.
///
/// # Errors
/// `ENOPROTOOPT`, `ENOTCONN`, and the engine's.
pub fn get(socket: &dyn Socket, level: i32, number: i32, len: usize) -> Result<Vec<u8>> {
    // What is not the protocol's comes to IP, and IPv4 answers for other levels as it does.
    if !has_level(socket, level) {
        return Err(match socket.family() {
            Family::Inet => Errno::EOPNOTSUPP,
            Family::Inet6 => Errno::ENOPROTOOPT,
        });
    }
    let name = match (level, number) {
        (SOL_SOCKET, so::SO_LINGER) => OptName::Linger,
        (SOL_SOCKET, so::SO_ATTACH_FILTER) => OptName::Filter,
        (SOL_SOCKET, so::SO_BINDTODEVICE) => return device_name(socket),
        (SOL_SOCKET, so::SO_MAX_PACING_RATE) => OptName::MaxPacingRate,
        (SOL_SOCKET, so::SO_PEERCRED) => {
            return Ok(crate::socket::ops::Credentials {
                pid: 0,
                uid: u32::MAX,
                gid: u32::MAX,
            }
            .to_bytes()
            .to_vec());
        }
        (SOL_TCP, 11) => OptName::Info,
        (SOL_TCP, 13) => OptName::Congestion,
        (SOL_UDP, 103) => OptName::UdpSegment,
        (SOL_IP, 32) => OptName::MulticastIf,
        (SOL_RAW, 1) => OptName::IcmpFilter,
        (SOL_ICMPV6, 1) => OptName::Icmp6Filter,
        _ => codec(level, number).ok_or(Errno::ENOPROTOOPT)?.name,
    };
    Ok(fit(encode(socket.option(name)?), level, len))
}

/// IP's integers fit a single byte when the program has room for no more (`ip_sockglue.c`).
pub(super) fn fit(mut value: Vec<u8>, level: i32, len: usize) -> Vec<u8> {
    if level == SOL_IP && value.len() == 4 && (1..4).contains(&len) {
        value.truncate(1);
    }
    value
}

fn device_name(socket: &dyn Socket) -> Result<Vec<u8>> {
    let Opt::BindToDevice(index) = socket.option(OptName::BindToDevice)? else {
        return Err(Errno::ENOPROTOOPT);
    };
    let links = crate::socket::stack()?.links();
    Ok(match links.iter().find(|link| link.index == index) {
        Some(link) => [link.name.as_bytes(), b"\0"].concat(),
        None => Vec::new(),
    })
}

fn uint(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

fn flag(value: bool) -> Vec<u8> {
    int(i32::from(value))
}

fn hops(value: Option<u8>) -> Vec<u8> {
    int(value.map_or(-1, i32::from))
}

fn encode(option: Opt) -> Vec<u8> {
    match option {
        Opt::ReuseAddr(v)
        | Opt::ReusePort(v)
        | Opt::KeepAlive(v)
        | Opt::Broadcast(v)
        | Opt::DontRoute(v)
        | Opt::OobInline(v)
        | Opt::Timestamp(v)
        | Opt::AcceptConn(v)
        | Opt::NoDelay(v)
        | Opt::Cork(v)
        | Opt::QuickAck(v)
        | Opt::FastOpenConnect(v)
        | Opt::UdpCork(v)
        | Opt::UdpGro(v)
        | Opt::HdrIncl(v)
        | Opt::PktInfo(v)
        | Opt::RecvTtl(v)
        | Opt::RecvTos(v)
        | Opt::RecvErr(v)
        | Opt::RecvOrigDstAddr(v)
        | Opt::FreeBind(v)
        | Opt::Transparent(v)
        | Opt::BindAddressNoPort(v)
        | Opt::MulticastLoop(v)
        | Opt::MulticastAll(v)
        | Opt::V6Only(v)
        | Opt::MulticastLoop6(v)
        | Opt::RecvPktInfo6(v)
        | Opt::RecvHopLimit(v)
        | Opt::RecvTClass(v)
        | Opt::RxqOvfl(v)
        | Opt::DontFrag6(v)
        | Opt::RecvOrigDstAddr6(v)
        | Opt::RecvErr6(v) => flag(v),
        Opt::RcvBuf(v)
        | Opt::SndBuf(v)
        | Opt::RcvBufForce(v)
        | Opt::SndBufForce(v)
        | Opt::RcvLowat(v)
        | Opt::BindToDevice(v)
        | Opt::IncomingCpu(v)
        | Opt::MaxSeg(v)
        | Opt::KeepIdle(v)
        | Opt::KeepIntvl(v)
        | Opt::KeepCnt(v)
        | Opt::SynCnt(v)
        | Opt::DeferAccept(v)
        | Opt::WindowClamp(v)
        | Opt::UserTimeout(v)
        | Opt::FastOpen(v)
        | Opt::NotSentLowat(v)
        | Opt::LocalPortRange(v)
        | Opt::Mtu(v)
        | Opt::MulticastIf6(v)
        | Opt::Mtu6(v)
        | Opt::IcmpFilter(v) => uint(v),
        Opt::Linger2(v) | Opt::Checksum6(v) => int(v),
        Opt::MaxPacingRate(v) => v.to_ne_bytes().to_vec(),
        Opt::UdpSegment(v) => uint(u32::from(v)),
        Opt::Tos(v)
        | Opt::Ttl(v)
        | Opt::MinTtl(v)
        | Opt::MinHops(v)
        | Opt::MulticastTtl(v)
        | Opt::TClass(v) => int(i32::from(v)),
        // The default is told as what it is.
        Opt::UnicastHops(v) => hops(Some(v.unwrap_or(64))),
        Opt::MulticastHops(v) => hops(v),
        Opt::MtuDiscover(v) | Opt::MtuDiscover6(v) => int(v as i32),
        Opt::Linger(v) => linger(v.map(|d| d.as_secs() as u32)),
        Opt::Congestion(v) => {
            // TCP_CA_NAME_MAX
            let mut name = v.name().as_bytes().to_vec();
            name.resize(16, 0);
            name
        }
        Opt::Info(info) => super::tcp_info::to_bytes(&Box::new(*info)),
        Opt::MulticastIf((addr, _)) => addr.octets().to_vec(),
        Opt::Icmp6Filter(filter) => filter.iter().flat_map(|word| word.to_ne_bytes()).collect(),
        Opt::Filter(program) => program.map_or(Vec::new(), |program| program.to_bytes()),
        // Write only.
        Opt::Join(_)
        | Opt::Leave(_)
        | Opt::JoinSource(_)
        | Opt::LeaveSource(_)
        | Opt::BlockSource(_)
        | Opt::UnblockSource(_)
        | Opt::SourceFilter(_)
        | Opt::TxStamps(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_round_trip() {
        for (level, number, value) in [
            (SOL_SOCKET, 2, int(1)),
            (SOL_SOCKET, 13, linger(Some(5))),
            (SOL_TCP, 1, int(1)),
            (SOL_TCP, 8, int(-1)),
            (SOL_IP, 2, int(17)),
            (SOL_IP, 10, int(2)),
        ] {
            let option = decode_value(level, number, &value).unwrap();
            assert_eq!(encode(option.unwrap()), value, "{level}/{number}");
        }
    }

    #[test]
    fn hostile_values_are_errors() {
        for codec in CODECS {
            assert!(decode_value(codec.level, codec.number, &[]).is_err());
        }
        for number in 0..70 {
            for len in 0..40 {
                for level in [
                    SOL_SOCKET, SOL_TCP, SOL_UDP, SOL_IP, SOL_IPV6, SOL_ICMPV6, SOL_RAW,
                ] {
                    let _ = decode_value(level, number, &vec![0xff; len]);
                }
            }
        }
        assert_eq!(decode_value(SOL_IP, 2, &int(256)), Err(Errno::EINVAL));
        assert_eq!(decode_value(SOL_TCP, 13, b"vegas\0"), Err(Errno::ENOENT));
    }
}
