//! The arguments of a system call as text: by the kinds that the table gives them.
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::event::Arg;
use super::memory::Memory;
use super::{flags, vectors};
use crate::syscalls::ArgKind;

/// The most bytes of a buffer shown (`strace -s`).
const MAX_DATA: usize = 32;
/// The longest socket address (`struct sockaddr_storage`).
const MAX_ADDRESS: usize = 128;

/// The word in the JSON for a kind of argument.
pub(super) fn word(kind: ArgKind) -> &'static str {
    use ArgKind::*;
    match kind {
        Int | Uint | Size => "number",
        Hex => "hex",
        Fd | DirFd => "fd",
        Ptr => "pointer",
        Path => "path",
        Signal => "signal",
        Mode => "mode",
        Data | Filled => "string",
        Vectors | VectorsFilled => "iovec",
        Message | MessageFilled | Messages | MessagesFilled => "message",
        Address | AddressOut => "address",
        FdsOut => "fds",
        Whence | Clock | Domain | EpollOp | FcntlCommand | IoctlRequest | Advice | SigHow | How
        | Level | ArchPrctl | Resource => "constant",
        OpenFlags | FdFlags | ProtFlags | MapFlags | AtFlags | AccessMode | CloneFlags
        | MsgFlags | FutexOp | SocketKind | RandomFlags | RemapFlags | WaitFlags => "flags",
    }
}

/// Whether the argument is what the call leaves in memory, to be read when it has ended.
pub(super) fn is_output(kind: ArgKind) -> bool {
    matches!(
        kind,
        ArgKind::Filled
            | ArgKind::AddressOut
            | ArgKind::FdsOut
            | ArgKind::VectorsFilled
            | ArgKind::MessageFilled
            | ArgKind::MessagesFilled
    )
}

/// The value of `value`, whose neighbour to the right is `next`, and whether it is cut short. `result` is what the call
/// returned, 0 when it has not.
pub(super) fn value(
    kind: ArgKind,
    memory: Memory<'_>,
    value: u64,
    next: u64,
    result: u64,
) -> (String, bool) {
    let mut out = String::new();
    let mut cut = false;
    let low = u64::from(value as u32);
    match kind {
        ArgKind::Int => {
            // An `int` whose upper half is zero, or a whole word.
            let _ = match u32::try_from(value) {
                Ok(low) => write!(out, "{}", low as i32),
                Err(_) => write!(out, "{}", value as i64),
            };
        }
        ArgKind::Fd | ArgKind::DirFd => match value as i32 {
            -100 if kind == ArgKind::DirFd => out.push_str("AT_FDCWD"),
            fd => {
                let _ = write!(out, "{fd}");
            }
        },
        ArgKind::Uint => {
            let _ = write!(out, "{low}");
        }
        ArgKind::Size => {
            let _ = write!(out, "{value}");
        }
        ArgKind::Ptr if value == 0 => out.push_str("NULL"),
        ArgKind::Hex | ArgKind::Ptr => {
            let _ = write!(out, "{value:#x}");
        }
        ArgKind::Mode => {
            let _ = write!(out, "0{:o}", value as u32);
        }
        ArgKind::Signal => match crate::signal::name(value as i32) {
            "SIG?" | "SIGRT" => {
                let _ = write!(out, "{}", value as i32);
            }
            name => out.push_str(name),
        },
        ArgKind::Path => match memory.path(value) {
            Some((bytes, whole)) => {
                out = String::from_utf8_lossy(&bytes).into_owned();
                cut = !whole;
            }
            None => pointer(&mut out, value),
        },
        ArgKind::Data => cut = data(&mut out, memory, value, next).1,
        ArgKind::Filled => cut = data(&mut out, memory, value, result.min(next)).1,
        ArgKind::Address => address(&mut out, memory, value, next),
        ArgKind::AddressOut => match memory.half(next) {
            Some(len) => address(&mut out, memory, value, len.into()),
            None => pointer(&mut out, value),
        },
        ArgKind::FdsOut => match memory.word(value) {
            Some(pair) => {
                let _ = write!(out, "[{}, {}]", pair as i32, (pair >> 32) as i32);
            }
            None => pointer(&mut out, value),
        },
        ArgKind::Vectors => vectors::vectors(&mut out, memory, value, next, u64::MAX),
        ArgKind::VectorsFilled => vectors::vectors(&mut out, memory, value, next, result),
        ArgKind::Message => vectors::message(&mut out, memory, value, u64::MAX, false),
        ArgKind::MessageFilled => vectors::message(&mut out, memory, value, result, true),
        ArgKind::Messages => vectors::messages(&mut out, memory, value, low32(next), None),
        ArgKind::MessagesFilled => {
            vectors::messages(&mut out, memory, value, low32(next), Some(result));
        }
        ArgKind::Whence => flags::exact(&mut out, flags::WHENCE, low),
        ArgKind::Clock => flags::exact(&mut out, flags::CLOCK, low),
        ArgKind::Domain => flags::exact(&mut out, flags::DOMAIN, low),
        ArgKind::EpollOp => flags::exact(&mut out, flags::EPOLL, low),
        ArgKind::FcntlCommand => flags::exact(&mut out, flags::FCNTL, low),
        ArgKind::IoctlRequest => flags::exact(&mut out, flags::IOCTL, low),
        ArgKind::Advice => flags::exact(&mut out, flags::ADVICE, low),
        ArgKind::SigHow => flags::exact(&mut out, flags::SIG_HOW, low),
        ArgKind::How => flags::exact(&mut out, flags::SHUTDOWN, low),
        ArgKind::Level => flags::exact(&mut out, flags::SOCKET_LEVEL, low),
        ArgKind::ArchPrctl => flags::exact(&mut out, flags::ARCH_PRCTL, low),
        ArgKind::Resource => flags::exact(&mut out, flags::RESOURCE, low),
        ArgKind::FdFlags => flags::bits(&mut out, flags::OPEN, low),
        ArgKind::OpenFlags => flags::open(&mut out, low),
        ArgKind::ProtFlags if low == 0 => out.push_str("PROT_NONE"),
        ArgKind::ProtFlags => flags::bits(&mut out, flags::PROT, low),
        ArgKind::MapFlags => flags::bits(&mut out, flags::MAP, low),
        ArgKind::AtFlags => flags::bits(&mut out, flags::AT, low),
        ArgKind::AccessMode if low == 0 => out.push_str("F_OK"),
        ArgKind::AccessMode => flags::bits(&mut out, flags::ACCESS, low),
        ArgKind::CloneFlags => flags::bits(&mut out, flags::CLONE, low),
        ArgKind::MsgFlags => flags::bits(&mut out, flags::MSG, low),
        ArgKind::RandomFlags => flags::bits(&mut out, flags::RANDOM, low),
        ArgKind::RemapFlags => flags::bits(&mut out, flags::REMAP, low),
        ArgKind::WaitFlags => flags::bits(&mut out, flags::WAIT, low),
        ArgKind::FutexOp => {
            flags::exact(&mut out, flags::FUTEX, low & 127);
            with_bits(&mut out, flags::FUTEX_BITS, low & !127);
        }
        ArgKind::SocketKind if low & 15 == 0 => flags::bits(&mut out, flags::SOCKET_BITS, low),
        ArgKind::SocketKind => {
            flags::exact(&mut out, flags::SOCKET_KIND, low & 15);
            with_bits(&mut out, flags::SOCKET_BITS, low & !15);
        }
    }
    (out, cut)
}

fn with_bits(out: &mut String, names: flags::Names, bits: u64) {
    if bits != 0 {
        out.push('|');
        flags::bits(out, names, bits);
    }
}

/// An `unsigned int` in a register.
fn low32(value: u64) -> u64 {
    u64::from(value as u32)
}

pub(super) fn pointer(out: &mut String, value: u64) {
    let _ = match value {
        0 => write!(out, "NULL"),
        value => write!(out, "{value:#x}"),
    };
}

/// Writes the first bytes of a buffer. Answers whether they could be read, and whether there are more.
pub(super) fn data(out: &mut String, memory: Memory<'_>, addr: u64, len: u64) -> (bool, bool) {
    let shown = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_DATA);
    let mut bytes = [0; MAX_DATA];
    if memory.read(addr, &mut bytes[..shown]).is_none() {
        pointer(out, addr);
        return (false, false);
    }
    let _ = write!(out, "{}", bytes[..shown].escape_ascii());
    (true, len > shown as u64)
}

pub(super) fn address(out: &mut String, memory: Memory<'_>, addr: u64, len: u64) {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_ADDRESS);
    let mut bytes = [0; MAX_ADDRESS];
    if len < 2 || memory.read(addr, &mut bytes[..len]).is_none() {
        return pointer(out, addr);
    }
    socket_address(out, &bytes[..len]);
}

/// Writes a `struct sockaddr` of at least two bytes.
fn socket_address(out: &mut String, bytes: &[u8]) {
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let _ = match (u16::from_le_bytes([bytes[0], bytes[1]]), bytes.len()) {
        (2, 8..) => write!(
            out,
            "{}:{}",
            core::net::Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]),
            port(2)
        ),
        (10, 24..) => {
            let mut address = [0; 16];
            address.copy_from_slice(&bytes[8..24]);
            write!(out, "[{}]:{}", core::net::Ipv6Addr::from(address), port(2))
        }
        (1, _) => match &bytes[2..] {
            [] => write!(out, "unix:"),
            [0, name @ ..] => write!(out, "unix:@{}", name.escape_ascii()),
            path => {
                let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
                write!(out, "unix:{}", String::from_utf8_lossy(&path[..end]))
            }
        },
        (family, _) => {
            out.push_str("{family=");
            flags::exact(out, flags::DOMAIN, family.into());
            write!(out, "}}")
        }
    };
}

/// The arguments of a call that the table lacks.
pub(super) fn unknown(args: &[u64; 6]) -> Vec<Arg> {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    NAMES
        .iter()
        .zip(args)
        .map(|(name, value)| Arg {
            name,
            kind: "hex",
            value: format!("{value:#x}"),
            cut: false,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: ArgKind, number: u64) -> String {
        value(kind, Memory::Own, number, 0, 0).0
    }

    #[test]
    fn numbers_and_constants() {
        assert_eq!(shown(ArgKind::DirFd, -100i64 as u64), "AT_FDCWD");
        assert_eq!(shown(ArgKind::DirFd, 0xffff_ff9c), "AT_FDCWD");
        assert_eq!(shown(ArgKind::Fd, 0xffff_ffff), "-1");
        assert_eq!(shown(ArgKind::Int, 0xffff_ffff), "-1");
        assert_eq!(shown(ArgKind::Int, 5 << 40), "5497558138880");
        assert_eq!(shown(ArgKind::Int, -1i64 as u64), "-1");
        assert_eq!(shown(ArgKind::Mode, 0o644), "0644");
        assert_eq!(shown(ArgKind::Ptr, 0), "NULL");
        assert_eq!(shown(ArgKind::Signal, 15), "SIGTERM");
        assert_eq!(
            shown(ArgKind::FutexOp, 128),
            "FUTEX_WAIT|FUTEX_PRIVATE_FLAG"
        );
        assert_eq!(
            shown(ArgKind::SocketKind, 0o2000001),
            "SOCK_STREAM|SOCK_CLOEXEC"
        );
        assert_eq!(shown(ArgKind::AccessMode, 0), "F_OK");
    }

    #[test]
    fn a_wild_pointer_is_shown_as_such() {
        for kind in [
            ArgKind::Path,
            ArgKind::Data,
            ArgKind::Filled,
            ArgKind::Address,
            ArgKind::AddressOut,
            ArgKind::FdsOut,
            ArgKind::Vectors,
            ArgKind::VectorsFilled,
            ArgKind::Message,
            ArgKind::MessageFilled,
            ArgKind::Messages,
            ArgKind::MessagesFilled,
        ] {
            let (text, cut) = value(kind, Memory::Own, u64::MAX - 5, 64, 64);
            assert_eq!((text.as_str(), cut), ("0xfffffffffffffffa", false));
        }
    }

    #[test]
    fn socket_addresses_are_readable() {
        let show = |bytes: &[u8]| {
            let mut out = String::new();
            socket_address(&mut out, bytes);
            out
        };
        assert_eq!(
            show(&[2, 0, 0x1f, 0x90, 10, 0, 2, 2, 0, 0]),
            "10.0.2.2:8080"
        );
        let mut six = [0; 28];
        (six[0], six[3], six[23]) = (10, 80, 1);
        assert_eq!(show(&six), "[::1]:80");
        assert_eq!(show(b"\x01\0/run/x\0"), "unix:/run/x");
        assert_eq!(show(b"\x01\0\0abs"), "unix:@abs");
        assert_eq!(show(&[2, 0, 1]), "{family=AF_INET}");
        assert_eq!(show(&[77, 0]), "{family=77}");
    }
}
