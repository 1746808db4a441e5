//! From addresses of the program to files, offsets and functions.
//!
//! Functions come from the ELF symbol tables of the mapped files, read when somebody asks, and for code made at run time
//! from the table that JIT compilers leave (`/tmp/perf-PID.map`, `perf(1)`).
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use fs::{LookupFlags, OpenFlags};
use iobuf::VecSink;

use super::{MappedFile, cpp};
use crate::exec::elf;
use crate::mm::pager::Pager;
use crate::process::{PID, Process};

/// The most of a JIT's table that is read, in bytes.
const MAX_PERF_MAP: usize = 8 << 20;

/// What is known of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The mapped file; empty for memory without one.
    pub file: String,
    /// The byte of the file at the address.
    pub offset: u64,
    /// The function, its name as a person reads it, and the distance from its start.
    pub symbol: Option<(String, u64)>,
}

impl Place {
    /// The function's name, or else the file and offset, or else the address.
    pub fn label(&self, address: usize) -> String {
        match &self.symbol {
            Some((name, _)) => name.clone(),
            None if self.file.is_empty() => format!("{address:#x}"),
            None => {
                let name = self.file.rsplit('/').next().unwrap_or(&self.file);
                format!("{name}+{:#x}", self.offset)
            }
        }
    }
}

/// The name of a function as its source has it.
pub fn demangle(raw: &[u8]) -> String {
    let raw = String::from_utf8_lossy(raw);
    match rustc_demangle::try_demangle(&raw) {
        Ok(name) => format!("{name:#}"),
        Err(_) => cpp::demangle(&raw).unwrap_or_else(|| raw.into_owned()),
    }
}

/// The name of the kernel function that holds `address`, and the distance from its start.
pub fn kernel(address: usize) -> Option<(String, u64)> {
    let (name, offset) = machine::symbols::lookup(address)?;
    Some((demangle(name.as_bytes()), offset as u64))
}

/// Finds out about `addresses`. An address that is not mapped is not in the answer.
pub fn resolve(
    process: &Process,
    addresses: impl IntoIterator<Item = usize>,
) -> BTreeMap<usize, Place> {
    let mut places = BTreeMap::new();
    // By file: what it is, and pairs of offset and address.
    type File = (Arc<dyn Pager>, Vec<(u64, usize)>);
    let mut files: BTreeMap<usize, File> = BTreeMap::new();
    let mut others = Vec::new();
    for address in addresses {
        if places.contains_key(&address) {
            continue;
        }
        match process.mm.object_at(address) {
            Some((pager, offset)) => {
                let file = files.entry(pager.id()).or_insert((pager, Vec::new()));
                file.1.push((offset, address));
            }
            None if process.mm.prot_at(address).is_some() => others.push(address),
            None => continue,
        }
        places.insert(address, Place::default());
    }
    for (pager, mut wanted) in files.into_values() {
        wanted.sort_unstable();
        let name = String::from_utf8_lossy(&pager.describe().path).into_owned();
        let offsets: Vec<u64> = wanted.iter().map(|(offset, _)| *offset).collect();
        let symbols = elf::symbols_at(&MappedFile(pager), &offsets)
            .unwrap_or_else(|| alloc::vec![None; offsets.len()]);
        for ((offset, address), symbol) in wanted.into_iter().zip(symbols) {
            let place = Place {
                file: name.clone(),
                offset,
                symbol: symbol.map(|symbol| (demangle(&symbol.name), symbol.offset)),
            };
            places.insert(address, place);
        }
    }
    if !others.is_empty()
        && let Some(text) = perf_map(process)
    {
        let table = parse_perf_map(&text);
        for address in others {
            if let (Some(symbol), Some(place)) =
                (find_perf(&table, address), places.get_mut(&address))
            {
                place.symbol = Some(symbol);
            }
        }
    }
    places
}

/// The table of a JIT compiler, if there is one.
fn perf_map(process: &Process) -> Option<String> {
    let root = process.fs.root();
    let start = fs::Start {
        root: &root,
        dir: &root,
        creds: &fs::Credentials::ROOT,
    };
    let path = format!("/tmp/perf-{PID}.map");
    let how = LookupFlags::FOLLOW;
    let open = process
        .namespace
        .open(&start, path.as_bytes(), OpenFlags::CLOEXEC, 0, how)
        .ok()?;
    let mut sink = VecSink::new(MAX_PERF_MAP);
    let mut at = 0;
    loop {
        match open.read_at(at, &mut sink) {
            Ok(0) | Err(_) => break,
            Ok(n) => at += n as u64,
        }
    }
    Some(String::from_utf8_lossy(&sink.into_bytes()).into_owned())
}

/// Start, length, name of each function; by start.
fn parse_perf_map(text: &str) -> Vec<(usize, usize, &str)> {
    let number = |text: &str| usize::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let mut table: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            Some((
                number(words.next()?)?,
                number(words.next()?)?,
                words.next()?,
            ))
        })
        .collect();
    // What was written last for a start is right now.
    table.reverse();
    table.sort_by_key(|(start, ..)| *start);
    table.dedup_by_key(|(start, ..)| *start);
    table
}

fn find_perf(table: &[(usize, usize, &str)], address: usize) -> Option<(String, u64)> {
    let n = table.partition_point(|(start, ..)| *start <= address);
    let (start, len, name) = table.get(n.checked_sub(1)?)?;
    (address - start < *len).then(|| (name.to_string(), (address - start) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jits_table_is_searched() {
        let text = "7f00 10 old name\n0x8000 20 second\nnonsense\n7f00 10 LazyCompile:~f /x.js:1\n";
        let table = parse_perf_map(text);
        assert_eq!(table.len(), 2);
        let name = |at| find_perf(&table, at);
        assert_eq!(name(0x7f00), Some(("LazyCompile:~f /x.js:1".into(), 0)));
        assert_eq!(name(0x7f0f), Some(("LazyCompile:~f /x.js:1".into(), 15)));
        assert_eq!(name(0x7f10), None);
        assert_eq!(name(0x801f), Some(("second".into(), 31)));
        assert_eq!(name(0), None);
    }

    #[test]
    fn a_place_has_a_label() {
        let mut place = Place::default();
        assert_eq!(place.label(0x40), "0x40");
        place.file = "/lib/libc.so.6".into();
        place.offset = 0x123;
        assert_eq!(place.label(0x40), "libc.so.6+0x123");
        place.symbol = Some(("write".into(), 3));
        assert_eq!(place.label(0x40), "write");
        assert_eq!(
            demangle(b"_ZN4core3fmt5write17h0123456789abcdefE"),
            "core::fmt::write"
        );
        assert_eq!(demangle(b"_ZN4node3RunEv"), "node::Run");
        assert_eq!(demangle(b"main"), "main");
    }
}
