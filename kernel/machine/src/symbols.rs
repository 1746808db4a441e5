//! The kernel's symbol table, for backtraces. `cargo xtask build` makes it from the linked kernel and appends it to
//! the image as one more loadable segment right behind the kernel's memory; without it, addresses stay bare.
//!
//! Format, little-endian: magic `NSYM`, `u32` total length, `u32` count, `u32` zero, `u64` base address; then `count`
//! pairs of `u32` (address minus base, ascending; offset of the name from the start of the table); then the names,
//! each zero-terminated UTF-8.

use alloc::string::String;
use alloc::vec::Vec;

use crate::arch;

/// Length of the header before the pairs.
const HEADER: usize = 24;

/// Finds the function that holds `addr`: its name and the offset from its start.
pub fn lookup(addr: usize) -> Option<(&'static str, usize)> {
    lookup_in(arch::symbol_table()?, addr)
}

/// The total length in bytes of the table that starts with `header`, if it is one.
#[cfg(any(target_os = "none", test))]
pub(crate) fn table_len(header: &[u8]) -> Option<usize> {
    if header.get(..4)? != b"NSYM" {
        return None;
    }
    let len = word(header, 4)? as usize;
    (HEADER..64 << 20).contains(&len).then_some(len)
}

fn word(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(table.get(at..at + 4)?.try_into().ok()?))
}

fn lookup_in(table: &[u8], addr: usize) -> Option<(&str, usize)> {
    let count = word(table, 8)? as usize;
    let base = u64::from_le_bytes(table.get(16..24)?.try_into().ok()?) as usize;
    let offset = u32::try_from(addr.checked_sub(base)?).ok()?;
    // The last pair whose address is not beyond `offset`.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if word(table, HEADER + middle * 8)? <= offset {
            low = middle + 1
        } else {
            high = middle
        }
    }
    let pair = HEADER + low.checked_sub(1)? * 8;
    let name = table.get(word(table, pair + 4)? as usize..)?;
    let end = name.iter().position(|&b| b == 0)?;
    Some((
        core::str::from_utf8(&name[..end]).ok()?,
        (offset - word(table, pair)?) as usize,
    ))
}

/// Makes a table from `(address, name)` pairs; the counterpart of [`lookup`], for the tool that builds the image.
pub fn build(mut symbols: Vec<(u64, String)>) -> Vec<u8> {
    symbols.sort();
    symbols.dedup_by_key(|(addr, _)| *addr);
    let base = symbols.first().map_or(0, |(addr, _)| *addr);
    symbols.retain(|(addr, _)| addr - base <= u32::MAX.into());
    let mut table = Vec::new();
    table.extend_from_slice(b"NSYM\0\0\0\0");
    table.extend_from_slice(&(symbols.len() as u32).to_le_bytes());
    table.extend_from_slice(&0u32.to_le_bytes());
    table.extend_from_slice(&base.to_le_bytes());
    let mut name_at = HEADER + symbols.len() * 8;
    for (addr, name) in &symbols {
        table.extend_from_slice(&((addr - base) as u32).to_le_bytes());
        table.extend_from_slice(&(name_at as u32).to_le_bytes());
        name_at += name.len() + 1;
    }
    for (_, name) in &symbols {
        table.extend_from_slice(name.as_bytes());
        table.push(0);
    }
    let len = table.len() as u32;
    table[4..8].copy_from_slice(&len.to_le_bytes());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_found() {
        let table = build(vec![
            (0x2000, "second".into()),
            (0x1000, "first".into()),
            (0x2000, "alias".into()),
        ]);
        assert_eq!(table_len(&table), Some(table.len()));
        assert_eq!(lookup_in(&table, 0xfff), None);
        assert_eq!(lookup_in(&table, 0x1000), Some(("first", 0)));
        assert_eq!(lookup_in(&table, 0x1fff), Some(("first", 0xfff)));
        assert_eq!(lookup_in(&table, 0x2004), Some(("alias", 4)));
        assert_eq!(table_len(b"nothing here"), None);
    }
}
