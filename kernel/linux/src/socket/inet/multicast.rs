//! The encoding of the options about multicast senders (`ip(7)`) and of those that serve both families (RFC 3678).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use errno::{Errno, Result};
use net::{GroupFilter, Membership, Opt, SourceMembership};

use super::options::ipv4;
use crate::socket::addr::Address;
use crate::socket::option::parse_int;

const SOL_IP: i32 = 0;
/// `sizeof(struct sockaddr_storage)`.
const STORAGE: usize = 128;
/// More sources than any socket may have.
const MOST: usize = 1024;

fn word(value: &[u8], at: usize) -> Result<u32> {
    parse_int(value.get(at..).unwrap_or_default()).map(|v| v as u32)
}

/// The address in a `struct sockaddr_storage` of the level's family.
fn storage(level: i32, value: &[u8], at: usize) -> Result<IpAddr> {
    let bytes = value.get(at..at + STORAGE).ok_or(Errno::EINVAL)?;
    match Address::parse(bytes) {
        Ok(Address::Inet(addr)) if addr.is_ipv4() == (level == SOL_IP) => Ok(addr.ip()),
        Ok(_) => Err(Errno::EADDRNOTAVAIL),
        Err(error) => Err(error),
    }
}

/// `struct group_req`.
fn group(level: i32, value: &[u8]) -> Result<Membership> {
    Ok(Membership {
        group: storage(level, value, 8)?,
        interface: Ipv4Addr::UNSPECIFIED,
        index: word(value, 0)?,
    })
}

/// `struct group_source_req`.
fn group_source(level: i32, value: &[u8]) -> Result<SourceMembership> {
    Ok(SourceMembership {
        membership: group(level, value)?,
        source: storage(level, value, 8 + STORAGE)?,
    })
}

/// `struct ip_mreq_source`.
fn source(value: &[u8]) -> Result<SourceMembership> {
    let at = |at: usize| ipv4(value.get(at..).unwrap_or_default());
    Ok(SourceMembership {
        membership: Membership {
            group: at(0)?.into(),
            interface: at(4)?,
            index: 0,
        },
        source: at(8)?.into(),
    })
}

/// `MCAST_EXCLUDE` is 0, `MCAST_INCLUDE` 1.
fn exclude(mode: u32) -> Result<bool> {
    match mode {
        0 => Ok(true),
        1 => Ok(false),
        _ => Err(Errno::EINVAL),
    }
}

/// `struct ip_msfilter`.
fn filter(value: &[u8]) -> Result<GroupFilter> {
    let at = |at: usize| ipv4(value.get(at..).unwrap_or_default());
    let count = word(value, 12)? as usize;
    if count > MOST {
        return Err(Errno::ENOBUFS);
    }
    let sources: Result<Vec<IpAddr>> = (0..count).map(|i| Ok(at(16 + i * 4)?.into())).collect();
    Ok(GroupFilter {
        membership: Membership {
            group: at(0)?.into(),
            interface: at(4)?,
            index: 0,
        },
        exclude: exclude(word(value, 8)?)?,
        sources: sources?,
    })
}

/// `struct group_filter`.
fn group_filter(level: i32, value: &[u8]) -> Result<GroupFilter> {
    let (mode, sources_at) = (8 + STORAGE, 16 + STORAGE);
    let count = word(value, mode + 4)? as usize;
    if count > MOST {
        return Err(Errno::ENOBUFS);
    }
    let sources: Result<Vec<IpAddr>> = (0..count)
        .map(|i| storage(level, value, sources_at + i * STORAGE))
        .collect();
    Ok(GroupFilter {
        membership: group(level, value)?,
        exclude: exclude(word(value, mode)?)?,
        sources: sources?,
    })
}

/// The option that the bytes of `number` mean: 37 to 41 of IPv4, 42 to 48 of both.
///
/// # Errors
/// `EINVAL`, `EADDRNOTAVAIL` for an address of another family, `ENOBUFS`, `ENOPROTOOPT`.
pub fn decode(level: i32, number: i32, value: &[u8]) -> Result<Opt> {
    Ok(match number {
        37 => Opt::UnblockSource(source(value)?),
        38 => Opt::BlockSource(source(value)?),
        39 => Opt::JoinSource(source(value)?),
        40 => Opt::LeaveSource(source(value)?),
        41 => Opt::SourceFilter(filter(value)?),
        42 => Opt::Join(group(level, value)?),
        43 => Opt::BlockSource(group_source(level, value)?),
        44 => Opt::UnblockSource(group_source(level, value)?),
        45 => Opt::Leave(group(level, value)?),
        46 => Opt::JoinSource(group_source(level, value)?),
        47 => Opt::LeaveSource(group_source(level, value)?),
        48 => Opt::SourceFilter(group_filter(level, value)?),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_read_and_hostile_ones_refused() {
        let mut value = 2u32.to_ne_bytes().to_vec();
        value.extend([0; 4]);
        let mut group = Address::Inet("239.0.0.1:0".parse().unwrap()).to_bytes();
        group.resize(STORAGE, 0);
        value.extend(group);
        let expected = Membership {
            group: "239.0.0.1".parse().unwrap(),
            interface: Ipv4Addr::UNSPECIFIED,
            index: 2,
        };
        assert_eq!(decode(0, 42, &value), Ok(Opt::Join(expected)));
        assert_eq!(decode(41, 42, &value), Err(Errno::EADDRNOTAVAIL));
        assert_eq!(decode(0, 46, &value), Err(Errno::EINVAL));
        value.extend(0u32.to_ne_bytes());
        value.extend(u32::MAX.to_ne_bytes());
        assert_eq!(decode(0, 48, &value), Err(Errno::ENOBUFS));
        for number in 37..=48 {
            for len in 0..300 {
                let _ = decode(0, number, &vec![0xff; len]);
                assert!(len >= 8 || decode(0, number, &vec![0; len]).is_err());
            }
        }
    }
}
