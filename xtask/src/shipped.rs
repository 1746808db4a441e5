//! The kernel file that ships: only what is loaded, and the names of its functions as one more segment.
//!
//! The linked kernel carries debug sections that a loader skips but a user would have to carry. What is left here is the
//! ELF header, the program headers and their contents. The symbol table (`machine::symbols`) is put right behind
//! the kernel's memory, where the kernel looks for it.

use anyhow::{Context, Result, bail};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol, SymbolKind, elf};

const HEADER: usize = size_of::<elf::FileHeader64<LittleEndian>>();
const PROGRAM_HEADER: usize = size_of::<elf::ProgramHeader64<LittleEndian>>();

/// One program header and what it loads.
struct Segment<'a> {
    kind: elf::ProgramType,
    flags: elf::ProgramFlags,
    address: u64,
    physical: u64,
    memory: u64,
    align: u64,
    bytes: &'a [u8],
}

/// Makes the file that ships out of the linked kernel.
pub fn make(linked: &[u8]) -> Result<Vec<u8>> {
    let file =
        ElfFile64::<LittleEndian>::parse(linked).context("the kernel is no 64-bit ELF file")?;
    let header = file.elf_header();
    let endian = LittleEndian;
    let mut segments = Vec::new();
    for program in header.program_headers(endian, linked)? {
        let Ok(bytes) = program.data(endian, linked) else {
            bail!("a segment lies outside of the kernel's file")
        };
        segments.push(Segment {
            kind: program.p_type(endian),
            flags: program.p_flags(endian),
            address: program.p_vaddr(endian),
            physical: program.p_paddr(endian),
            memory: program.p_memsz(endian),
            align: program.p_align(endian),
            bytes,
        });
    }
    let last = segments
        .iter()
        .filter(|segment| segment.kind == elf::PT_LOAD)
        .max_by_key(|segment| segment.physical)
        .context("the kernel loads nothing")?;
    let symbols = table(&file);
    let end = |start: u64| (start + last.memory).next_multiple_of(4096);
    let names = Segment {
        kind: elf::PT_LOAD,
        flags: elf::PF_R,
        address: end(last.address),
        physical: end(last.physical),
        memory: symbols.len() as u64,
        align: 4096,
        bytes: &symbols,
    };
    segments.push(names);

    let mut shipped = linked
        .get(..HEADER)
        .context("the kernel has no header")?
        .to_vec();
    shipped.resize(HEADER + segments.len() * PROGRAM_HEADER, 0);
    for (n, segment) in segments.iter().enumerate() {
        shipped.resize(shipped.len().next_multiple_of(16), 0);
        let offset = shipped.len() as u64;
        shipped.extend_from_slice(segment.bytes);
        let at = HEADER + n * PROGRAM_HEADER;
        let numbers = [
            offset,
            segment.address,
            segment.physical,
            segment.bytes.len() as u64,
            segment.memory,
            segment.align,
        ];
        let mut fields = Vec::with_capacity(PROGRAM_HEADER);
        fields.extend_from_slice(&segment.kind.0.to_le_bytes());
        fields.extend_from_slice(&segment.flags.0.to_le_bytes());
        numbers
            .iter()
            .for_each(|number| fields.extend_from_slice(&number.to_le_bytes()));
        shipped[at..at + PROGRAM_HEADER].copy_from_slice(&fields);
    }
    // e_phoff; e_shoff; e_phnum; e_shnum and e_shstrndx: the sections stayed behind.
    shipped[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
    shipped[40..48].fill(0);
    shipped[56..58].copy_from_slice(&u16::try_from(segments.len())?.to_le_bytes());
    shipped[60..64].fill(0);
    Ok(shipped)
}

/// The functions' addresses and names, demangled and without hashes.
fn table(file: &ElfFile64<'_, LittleEndian>) -> Vec<u8> {
    let functions = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.address() > 0);
    let named = functions.filter_map(|symbol| {
        let name = symbol.name().ok()?;
        Some((
            symbol.address(),
            format!("{:#}", rustc_demangle::demangle(name)),
        ))
    });
    machine::symbols::build(named.collect())
}
