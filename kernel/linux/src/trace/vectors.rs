//! `struct iovec` and `struct msghdr` as text, as strace writes them: a few of the first ones, each with its first bytes.
use alloc::string::String;
use core::fmt::Write;

use super::decode;
use super::flags;
use super::memory::Memory;

/// The most elements of an array shown.
const MAX_VECTORS: u64 = 8;
/// The most messages shown of `sendmmsg(2)` and `recvmmsg(2)`.
const MAX_MESSAGES: u64 = 3;
/// The size of a `struct iovec`.
const VECTOR: u64 = 16;
/// The size of a `struct msghdr`, and of it with the length behind it in a `struct mmsghdr`.
const MESSAGE: usize = 56;
const MULTIPLE: u64 = 64;

/// Writes `[{iov_base="...", iov_len=3}, ...]`: `count` elements at `addr`, of whose bytes `valid` hold data.
pub(super) fn vectors(out: &mut String, memory: Memory<'_>, addr: u64, count: u64, mut valid: u64) {
    if addr == 0 || (count > 0 && memory.word(addr).is_none()) {
        return decode::pointer(out, addr);
    }
    out.push('[');
    for n in 0..count {
        if n > 0 {
            out.push_str(", ");
        }
        let at = addr.wrapping_add(n.saturating_mul(VECTOR));
        let (base, len) = (memory.word(at), memory.word(at.wrapping_add(8)));
        let (Some(base), Some(len), true) = (base, len, n < MAX_VECTORS) else {
            out.push_str("...");
            break;
        };
        out.push_str("{iov_base=");
        quoted(out, memory, base, len.min(valid));
        valid -= len.min(valid);
        let _ = write!(out, ", iov_len={len}}}");
    }
    out.push(']');
}

fn quoted(out: &mut String, memory: Memory<'_>, addr: u64, len: u64) {
    let start = out.len();
    out.push('"');
    let (read, cut) = decode::data(out, memory, addr, len);
    if read {
        out.push('"');
        out.push_str(if cut { "..." } else { "" });
    } else {
        // It is a pointer then.
        out.remove(start);
    }
}

/// Writes the `struct msghdr` at `addr`, of whose buffers' bytes `valid` hold data. `after` says that a call has filled it.
pub(super) fn message(out: &mut String, memory: Memory<'_>, addr: u64, valid: u64, after: bool) {
    let mut bytes = [0; MESSAGE];
    if memory.read(addr, &mut bytes).is_none() {
        return decode::pointer(out, addr);
    }
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let half = |at: usize| word(at / 8 * 8) >> (at % 8 * 8) & 0xffff_ffff;
    let (name, name_len) = (word(0), half(8));
    out.push_str("{msg_name=");
    decode::address(out, memory, name, name_len);
    let _ = write!(out, ", msg_namelen={name_len}, msg_iov=");
    vectors(out, memory, word(16), word(24), valid);
    let (iov_len, control_len) = (word(24), word(40));
    let _ = write!(out, ", msg_iovlen={iov_len}, msg_controllen={control_len}");
    if after {
        out.push_str(", msg_flags=");
        flags::bits(out, flags::MSG, half(48));
    }
    out.push('}');
}

/// Writes the array of `struct mmsghdr`. After the call, `filled` messages hold what came.
pub(super) fn messages(
    out: &mut String,
    memory: Memory<'_>,
    addr: u64,
    count: u64,
    filled: Option<u64>,
) {
    if memory.word(addr).is_none() {
        return decode::pointer(out, addr);
    }
    out.push('[');
    for n in 0..filled.unwrap_or(count) {
        if n > 0 {
            out.push_str(", ");
        }
        if n == MAX_MESSAGES {
            out.push_str("...");
            break;
        }
        let at = addr.wrapping_add(n * MULTIPLE);
        let len = memory.half(at.wrapping_add(MESSAGE as u64));
        let len = len.filter(|_| filled.is_some()).map(u64::from);
        out.push_str("{msg_hdr=");
        message(out, memory, at, len.unwrap_or(u64::MAX), filled.is_some());
        if let Some(len) = len {
            let _ = write!(out, ", msg_len={len}");
        }
        out.push('}');
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const BASE: u64 = 4096;

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn show(bytes: &[u8], count: u64, valid: u64) -> String {
        let mut out = String::new();
        vectors(&mut out, Memory::Test(bytes), BASE, count, valid);
        out
    }

    #[test]
    fn vectors_are_straces() {
        let mut bytes = words(&[BASE + 48, 3, BASE + 51, 2, 1, 7]);
        bytes.extend(b"a\"\nxy");
        let all = show(&bytes, 3, u64::MAX);
        assert_eq!(
            all,
            r#"[{iov_base="a\"\n", iov_len=3}, {iov_base="xy", iov_len=2}, {iov_base=0x1, iov_len=7}]"#
        );
        let filled = show(&bytes, 2, 4);
        assert_eq!(
            filled,
            r#"[{iov_base="a\"\n", iov_len=3}, {iov_base="x", iov_len=2}]"#
        );
        assert_eq!(show(&bytes, 0, 0), "[]");
        // Beyond the memory that is there, and beyond what is shown.
        assert!(show(&bytes, 1 << 40, u64::MAX).ends_with(", ...]"));
        let many = words(&[[0, 0]; 9].concat());
        assert_eq!(show(&many, 9, 0).matches("iov_len").count(), 8);
        assert_eq!(show(&[], 2, 0), "0x1000");
        let mut long = words(&[BASE + 16, 40]);
        long.extend([b'z'; 40]);
        assert!(show(&long, 1, 40).contains("z\"..., iov_len=40"));
    }

    #[test]
    fn messages_are_straces() {
        let mut bytes = words(&[BASE + 80, 16, BASE + 64, 1, 0, 0, 0x40, 2, BASE + 96, 2]);
        bytes.extend([2, 0, 0x1f, 0x90, 10, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(b"hi");
        let mut out = String::new();
        message(&mut out, Memory::Test(&bytes), BASE, u64::MAX, true);
        let iov = r#"msg_iov=[{iov_base="hi", iov_len=2}], msg_iovlen=1, msg_controllen=0"#;
        let head = "{msg_name=10.0.2.2:8080, msg_namelen=16, ";
        assert_eq!(out, alloc::format!("{head}{iov}, msg_flags=MSG_DONTWAIT}}"));
        out.clear();
        messages(&mut out, Memory::Test(&bytes), BASE, 1, Some(1));
        assert!(
            out.starts_with("[{msg_hdr={msg_name=10.0.2.2:8080"),
            "{out}"
        );
        assert!(out.ends_with("}, msg_len=2}]"), "{out}");
        out.clear();
        messages(&mut out, Memory::Test(&bytes), 7, 5, None);
        assert_eq!(out, "0x7");
    }
}
