//! Reading an ELF64 file's headers (System V gABI, x86-64 psABI). Nothing in it is trusted.
use alloc::vec::Vec;

use errno::{Errno, Result};

use crate::mm::vma::PAGE;
use crate::uaccess::USER_END;

/// Bytes at an offset: a file, or a mapped object.
pub trait ReadAt {
    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// `ENOEXEC` past the end, or what reading reports.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<()>;

    /// How many bytes there are.
    fn size(&self) -> u64;
}

impl ReadAt for &[u8] {
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).map_err(|_| Errno::ENOEXEC)?;
        let end = start.checked_add(into.len()).ok_or(Errno::ENOEXEC)?;
        into.copy_from_slice(self.get(start..end).ok_or(Errno::ENOEXEC)?);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// The most program headers that are read.
const MAX_HEADERS: usize = 512;
/// The longest interpreter path (`PATH_MAX`).
const MAX_INTERP: u64 = 4096;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// A part of the file that is to be in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// Where in memory, before the load address is added.
    pub vaddr: usize,
    /// Bytes out of the file.
    pub file_size: usize,
    /// Bytes in memory; what the file does not give is zero.
    pub mem_size: usize,
    /// Bit 0 execute, 1 write, 2 read.
    pub flags: u32,
    /// Alignment wanted.
    pub align: usize,
}

/// What a program's headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Whether it can be loaded anywhere (`ET_DYN`).
    pub relocatable: bool,
    /// Where it starts, before the load address is added.
    pub entry: usize,
    /// Its segments, in order of address.
    pub segments: Vec<Segment>,
    /// The dynamic linker it asks for.
    pub interpreter: Option<Vec<u8>>,
    /// Address of its program headers in memory, before the load address is added, and how many.
    pub headers: (usize, usize),
    /// Address, before the load address is added, and size of the index of its unwind tables (`PT_GNU_EH_FRAME`).
    pub unwind_index: Option<(usize, usize)>,
    /// Whether its stack must be executable: without a `PT_GNU_STACK`, x86-64 says no.
    pub exec_stack: bool,
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut word = [0; N];
    // Callers read fixed offsets within buffers of fixed size.
    word.copy_from_slice(&bytes[at..at + N]);
    word
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(word(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(word(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(word(bytes, at))
}

/// `len` zeroes, to read into.
///
/// # Errors
/// `ENOMEM`.
pub fn zeroed(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Size of the file header.
pub const HEADER: usize = 64;
/// Size of a program header.
pub const PROGRAM_HEADER: usize = 56;

impl Image {
    /// Reads the headers of `file`.
    ///
    /// # Errors
    /// `ENOEXEC` for what is not a valid ELF64 program of x86-64, with the reason in the log.
    pub fn parse(file: &dyn ReadAt) -> Result<Image> {
        let mut header = [0; HEADER];
        file.read_exact_at(0, &mut header)?;
        let refuse = |why: &str| {
            log::warn!("not a program this machine can run: {why}");
            Err(Errno::ENOEXEC)
        };
        if header[..4] != *b"\x7fELF" {
            return refuse("no ELF file");
        }
        if header[4] != 2 || header[5] != 1 {
            return refuse("not a 64-bit little-endian ELF file");
        }
        let machine = u16_at(&header, 18);
        if machine != 62 {
            return refuse(match machine {
                183 => "built for aarch64, not x86-64",
                3 => "built for 32-bit x86, not x86-64",
                243 => "built for RISC-V, not x86-64",
                _ => "built for another processor than x86-64",
            });
        }
        let relocatable = match u16_at(&header, 16) {
            2 => false,
            3 => true,
            _ => return refuse("neither an executable nor a shared object"),
        };
        let (offset, entry) = (u64_at(&header, 32), u64_at(&header, 24));
        let (size, count) = (u16_at(&header, 54) as usize, u16_at(&header, 56) as usize);
        if size != PROGRAM_HEADER || count == 0 || count > MAX_HEADERS {
            return refuse("its program headers have the wrong size or number");
        }
        let mut table = zeroed(count * size)?;
        file.read_exact_at(offset, &mut table)?;

        let mut image = Image {
            relocatable,
            entry: usize::try_from(entry).map_err(|_| Errno::ENOEXEC)?,
            segments: Vec::new(),
            interpreter: None,
            headers: (0, count),
            unwind_index: None,
            exec_stack: false,
        };
        for header in table.chunks_exact(PROGRAM_HEADER) {
            match u32_at(header, 0) {
                PT_LOAD => image.add_segment(header, file.size())?,
                PT_INTERP => image.interpreter = Some(read_interpreter(header, file)?),
                PT_PHDR => image.headers.0 = u64_at(header, 16) as usize,
                PT_GNU_EH_FRAME => {
                    let (vaddr, size) = (u64_at(header, 16), u64_at(header, 32));
                    image.unwind_index = Some((vaddr as usize, size as usize));
                }
                PT_GNU_STACK => image.exec_stack = u32_at(header, 4) & 1 != 0,
                _ => {}
            }
        }
        image.finish(offset)?;
        Ok(image)
    }

    fn add_segment(&mut self, header: &[u8], file_len: u64) -> Result<()> {
        let (offset, vaddr) = (u64_at(header, 8), u64_at(header, 16));
        let (file_size, mem_size, align) =
            (u64_at(header, 32), u64_at(header, 40), u64_at(header, 48));
        let end = vaddr.checked_add(mem_size);
        let valid = file_size <= mem_size
            && end.is_some_and(|end| end <= USER_END as u64)
            && offset
                .checked_add(file_size)
                .is_some_and(|end| end <= file_len)
            && (align <= 1 || align.is_power_of_two() && align <= 1 << 30)
            && offset % PAGE as u64 == vaddr % PAGE as u64;
        if !valid {
            log::warn!(
                "a segment of the program is malformed: offset {offset:#x}, address {vaddr:#x}, {file_size:#x} of {mem_size:#x} bytes"
            );
            return Err(Errno::ENOEXEC);
        }
        if mem_size > 0 {
            self.segments.push(Segment {
                offset,
                vaddr: vaddr as usize,
                file_size: file_size as usize,
                mem_size: mem_size as usize,
                flags: u32_at(header, 4),
                align: (align as usize).max(PAGE),
            });
        }
        Ok(())
    }

    fn finish(&mut self, headers_offset: u64) -> Result<()> {
        self.segments.sort_by_key(|segment| segment.vaddr);
        let overlap = |pair: &[Segment]| pair[0].vaddr + pair[0].mem_size > pair[1].vaddr;
        if self.segments.is_empty() || self.segments.windows(2).any(overlap) {
            log::warn!("the program has no segments, or segments that overlap");
            return Err(Errno::ENOEXEC);
        }
        if self.headers.0 == 0 {
            self.headers.0 = self.address_of(headers_offset).unwrap_or(0) as usize;
        }
        Ok(())
    }

    /// The address of a byte of the file, before the load address is added; `None` for one that no segment has.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| {
            (segment.offset..segment.offset + segment.file_size as u64).contains(&file_offset)
        })?;
        Some(segment.vaddr as u64 + (file_offset - segment.offset))
    }

    /// The pages it needs, from the first to the last, before the load address is added.
    pub fn span(&self) -> core::ops::Range<usize> {
        let start = self
            .segments
            .first()
            .map_or(0, |segment| segment.vaddr / PAGE * PAGE);
        let end = self
            .segments
            .iter()
            .map(|segment| segment.vaddr + segment.mem_size)
            .max()
            .unwrap_or(start);
        start..end.next_multiple_of(PAGE)
    }

    /// The largest alignment of its segments.
    pub fn align(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| segment.align)
            .max()
            .unwrap_or(PAGE)
    }
}

fn read_interpreter(header: &[u8], file: &dyn ReadAt) -> Result<Vec<u8>> {
    let (offset, size) = (u64_at(header, 8), u64_at(header, 32));
    if !(2..=MAX_INTERP).contains(&size) {
        return Err(Errno::ENOEXEC);
    }
    let mut path = alloc::vec![0; size as usize];
    file.read_exact_at(offset, &mut path)?;
    if path.pop() != Some(0) || path.contains(&0) {
        return Err(Errno::ENOEXEC);
    }
    Ok(path)
}

/// A symbol found for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSymbol {
    /// Its name as in the file.
    pub name: Vec<u8>,
    /// How far behind its start the address is.
    pub offset: u64,
}

/// The function of `file` that holds the byte at `file_offset`, from its symbol table, or else the
/// dynamic one. Reads in pieces; a damaged table answers nothing.
pub fn symbol_at(file: &dyn ReadAt, file_offset: u64) -> Option<FoundSymbol> {
    symbols_at(file, &[file_offset])?.pop().flatten()
}

/// [`symbol_at`] for many offsets at once, which must ascend: the table is read once. `None` for what is no ELF file
/// with symbols.
pub fn symbols_at(file: &dyn ReadAt, file_offsets: &[u64]) -> Option<Vec<Option<FoundSymbol>>> {
    const SYMTAB: u32 = 2;
    const DYNSYM: u32 = 11;
    let image = Image::parse(file).ok()?;
    // Pairs of address and place in the answer, by address.
    let mut addresses: Vec<(u64, usize)> = Vec::new();
    for (n, offset) in file_offsets.iter().enumerate() {
        if let Some(address) = image.address_of(*offset) {
            addresses.push((address, n));
        }
    }
    addresses.sort_unstable();
    let mut header = [0; HEADER];
    file.read_exact_at(0, &mut header).ok()?;
    let (table, size, count) = (
        u64_at(&header, 40),
        u16_at(&header, 58),
        u16_at(&header, 60),
    );
    if size != 64 {
        return None;
    }
    let section = |n: u32| -> Option<[u8; 64]> {
        let mut bytes = [0; 64];
        let at = table.checked_add(u64::from(n) * 64)?;
        file.read_exact_at(at, &mut bytes).ok()?;
        Some(bytes)
    };
    let find = |kind: u32| {
        (0..u32::from(count))
            .filter_map(section)
            .find(|bytes| u32_at(bytes, 4) == kind)
    };
    let symbols = find(SYMTAB).or_else(|| find(DYNSYM))?;
    let strings = section(u32_at(&symbols, 40))?;
    let mut found = alloc::vec![None; file_offsets.len()];
    for ((address, n), best) in addresses
        .iter()
        .zip(search_symbols(file, &symbols, &addresses)?)
    {
        found[*n] = best.and_then(|(start, name_at)| {
            Some(FoundSymbol {
                name: symbol_name(file, &strings, name_at)?,
                offset: address - start,
            })
        });
    }
    Some(found)
}

/// For each address, ascending, the start of the function that holds it and where its name is in the strings.
fn search_symbols(
    file: &dyn ReadAt,
    symbols: &[u8; 64],
    addresses: &[(u64, usize)],
) -> Option<Vec<Option<(u64, u32)>>> {
    const ENTRY: u64 = 24;
    const FUNC: u8 = 2;
    const IFUNC: u8 = 10;
    /// How far a symbol without a size reaches at most.
    const REACH: u64 = 64 << 10;
    let (offset, size) = (u64_at(symbols, 24), u64_at(symbols, 32).min(64 << 20));
    let mut best: Vec<Option<(u64, u32)>> = alloc::vec![None; addresses.len()];
    let mut chunk = alloc::vec![0; 170 * ENTRY as usize];
    let mut at = 0;
    while at + ENTRY <= size {
        let len = (size - at).min(chunk.len() as u64) / ENTRY * ENTRY;
        file.read_exact_at(offset.checked_add(at)?, &mut chunk[..len as usize])
            .ok()?;
        for symbol in chunk[..len as usize].chunks_exact(ENTRY as usize) {
            let (value, length) = (u64_at(symbol, 8), u64_at(symbol, 16));
            if !matches!(symbol[4] & 15, FUNC | IFUNC) || u16_at(symbol, 6) == 0 {
                continue;
            }
            let reach = if length == 0 { REACH } else { length };
            let first = addresses.partition_point(|(address, _)| *address < value);
            for (n, (address, _)) in addresses.iter().enumerate().skip(first) {
                if address - value >= reach {
                    break;
                }
                if best[n].is_none_or(|(start, _)| start < value) {
                    best[n] = Some((value, u32_at(symbol, 0)));
                }
            }
        }
        at += len;
    }
    Some(best)
}

fn symbol_name(file: &dyn ReadAt, strings: &[u8; 64], name_at: u32) -> Option<Vec<u8>> {
    let room = u64_at(strings, 32)
        .checked_sub(u64::from(name_at))?
        .min(256);
    let mut name = alloc::vec![0; room as usize];
    file.read_exact_at(
        u64_at(strings, 24).checked_add(u64::from(name_at))?,
        &mut name,
    )
    .ok()?;
    name.truncate(
        name.iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len()),
    );
    Some(name)
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
