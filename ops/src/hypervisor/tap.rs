//! A tap device as the kernel describes it: asked of rtnetlink, which unlike `/sys` always speaks of the caller's own network
//! namespace.

use std::io;

use anyhow::{Context, Result};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv,
    sendto, socket_with,
};

const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
/// Bytes of `nlmsghdr` and of `ifinfomsg`.
const HEADER: usize = 16;
const LINK: usize = 16;

/// Whether a tap device is one of several queues (`multi_queue`), each to be opened on its own; `None` when there is no
/// device of that name, or it is no tap device: QEMU says what is wrong then, or makes one.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn multi_queue(name: &str) -> Result<Option<bool>> {
    let answer = ask(name).with_context(|| format!("asking about the tap device {name}"))?;
    Ok(read(&answer))
}

fn ask(name: &str) -> io::Result<Vec<u8>> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut request = vec![0; HEADER + LINK];
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    request.extend(((4 + name.len()) as u16).to_ne_bytes());
    request.extend(IFLA_IFNAME.to_ne_bytes());
    request.extend(&name);
    request.resize(request.len().next_multiple_of(4), 0);
    let len = request.len() as u32;
    request[..4].copy_from_slice(&len.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    sendto(
        &socket,
        &request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = vec![0; 32 * 1024];
    let (len, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(len);
    Ok(answer)
}

/// Reads an answer: anything but a description of a tap device is `None`.
fn read(answer: &[u8]) -> Option<bool> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    if kind != RTM_NEWLINK {
        return None;
    }
    let info = attribute(answer.get(HEADER + LINK..)?, IFLA_LINKINFO)?;
    if attribute(info, IFLA_INFO_KIND)?.strip_suffix(b"\0")? != b"tun" {
        return None;
    }
    let data = attribute(info, IFLA_INFO_DATA)?;
    Some(*attribute(data, IFLA_TUN_MULTI_QUEUE)?.first()? != 0)
}

/// The value of the first attribute of that type in a list of them.
fn attribute(mut list: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(*list.first_chunk()?));
        // The two highest bits are flags.
        let kind = u16::from_ne_bytes(*list.get(2..)?.first_chunk()?) & 0x3fff;
        let value = list.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        list = list.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn link(kind: &[u8], multi_queue: u8) -> Vec<u8> {
        let data = [attr(1, &[0; 4]), attr(IFLA_TUN_MULTI_QUEUE, &[multi_queue])].concat();
        let info = [
            attr(IFLA_INFO_KIND, kind),
            attr(IFLA_INFO_DATA | 0x8000, &data),
        ]
        .concat();
        let mut out = vec![0; HEADER + LINK];
        out[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        out.extend(attr(IFLA_IFNAME, b"tap0\0"));
        out.extend(attr(IFLA_LINKINFO, &info));
        out
    }

    #[test]
    fn descriptions_of_devices() {
        assert_eq!(read(&link(b"tun\0", 1)), Some(true));
        assert_eq!(read(&link(b"tun\0", 0)), Some(false));
        assert_eq!(read(&link(b"veth\0", 1)), None);
        let whole = link(b"tun\0", 1);
        for len in 0..whole.len() {
            // Cut anywhere: no panic. The last attribute is padded, so a cut in the padding takes nothing away.
            let cut = read(&whole[..len]);
            assert!(
                cut.is_none() || len + 3 >= whole.len(),
                "{cut:?} of {len} bytes"
            );
        }
    }

    #[test]
    fn what_is_no_tap_device() {
        assert_eq!(multi_queue("lo").unwrap(), None);
        assert_eq!(multi_queue("no-such-device0").unwrap(), None);
    }
}
