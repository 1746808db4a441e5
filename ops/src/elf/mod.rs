//! What the tool has to know of an ELF file: its machine, its interpreter, the libraries it needs. Finding those on the
//! host is in `closure`. Nothing here runs the file.

pub mod cache;
pub mod closure;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, ReadRef};

/// The facts read from one ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// PT_INTERP: the program interpreter's path.
    pub interpreter: Option<String>,
    /// DT_NEEDED, in order.
    pub needed: Vec<String>,
    /// DT_RPATH, split at colons. Empty where there is a DT_RUNPATH, which supersedes it.
    pub rpath: Vec<String>,
    /// DT_RUNPATH, split at colons.
    pub runpath: Vec<String>,
    /// DF_1_NODEFLIB: default folders are not searched.
    pub no_default_dirs: bool,
}

const MACHINE_X86_64: u16 = 62;
const CLASS_64: u8 = 2;
const DATA_BIG_ENDIAN: u8 = 2;

/// Reads an ELF program or library for x86-64.
///
/// An error says what the file is instead, and for a script which package runs it.
pub fn read(path: &Path) -> Result<Elf> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    if file.metadata()?.is_dir() {
        bail!("{} is a folder, not an ELF program", path.display());
    }
    let mut start = Vec::new();
    (&file).take(4096).read_to_end(&mut start)?;
    identify(&start, path)?;
    parse(file).with_context(|| format!("{}: damaged ELF file", path.display()))
}

/// Whether a file that begins like this is an ELF library or program for this machine (for search paths, where others
/// are passed over).
pub fn is_usable(path: &Path) -> bool {
    let mut start = [0; 64];
    File::open(path)
        .and_then(|mut f| f.read_exact(&mut start))
        .is_ok()
        && identify(&start, path).is_ok()
}

fn identify(start: &[u8], path: &Path) -> Result<()> {
    let name = path.display();
    if start.starts_with(b"#!") {
        let line = start[2..].split(|&b| b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let interpreter = line.split_whitespace().find(|w| !w.ends_with("/env"));
        let interpreter = interpreter.unwrap_or("/bin/sh");
        let base = interpreter.rsplit('/').next().unwrap_or(interpreter);
        let package = base.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        bail!(
            "{name} is a script for {interpreter}, not an ELF program; run it with a package: ops pkg load {package} -a {name}"
        );
    }
    if !start.starts_with(b"\x7fELF") {
        let hint = match path.extension().and_then(|e| e.to_str()) {
            Some("py") => "; run it with a package: ops pkg load python -a ",
            _ => bail!("{name} is not an ELF program"),
        };
        bail!("{name} is not an ELF program{hint}{name}");
    }
    let machine = start.get(18..20).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let machine = if start.get(5) == Some(&DATA_BIG_ENDIAN) {
        machine.map(u16::swap_bytes)
    } else {
        machine
    };
    let Some(machine) = machine else {
        bail!("{name} is a damaged ELF file: it is cut short");
    };
    if machine != MACHINE_X86_64 || start.get(4) != Some(&CLASS_64) {
        bail!(
            "{name} is a program for {}, and the kernel is for x86-64 (64 bits)",
            machine_name(machine)
        );
    }
    Ok(())
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "32-bit x86".into(),
        8 => "MIPS".into(),
        20 | 21 => "PowerPC".into(),
        22 => "s390".into(),
        40 => "32-bit ARM".into(),
        62 => "x86-64 with 32-bit pointers (x32)".into(),
        183 => "arm64".into(),
        243 => "RISC-V".into(),
        258 => "LoongArch".into(),
        other => format!("machine type {other}"),
    }
}

type Header = elf::FileHeader64<Endianness>;

fn parse(file: File) -> Result<Elf> {
    let cache = ReadCache::new(file);
    let data = &cache;
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut out = Elf {
        interpreter: None,
        needed: Vec::new(),
        rpath: Vec::new(),
        runpath: Vec::new(),
        no_default_dirs: false,
    };
    let mut entries: Vec<(i64, u64)> = Vec::new();
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data)? {
            out.interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
        for entry in segment.dynamic(endian, data)?.unwrap_or_default() {
            let tag = entry.d_tag(endian).0;
            if tag == 0 {
                break;
            }
            entries.push((tag, entry.d_val(endian)));
        }
    }
    let value = |wanted: i64| entries.iter().find(|(tag, _)| *tag == wanted).map(|e| e.1);
    let strings = value(DT_STRTAB).and_then(|address| {
        segments.iter().find_map(|s| {
            let (start, size) = (s.p_vaddr(endian), s.p_filesz(endian));
            let inside = s.p_type(endian) == elf::PT_LOAD && address.checked_sub(start)? < size;
            inside.then(|| s.p_offset(endian).checked_add(address - start))?
        })
    });
    let string = |offset: u64| -> Result<String> {
        let start = strings
            .and_then(|s| s.checked_add(offset))
            .context("no string table")?;
        match data.read_bytes_at_until(start..start.saturating_add(4096), 0) {
            Ok(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            Err(()) => bail!("a name lies outside the file"),
        }
    };
    for &(tag, value) in &entries {
        match tag {
            DT_NEEDED => out.needed.push(string(value)?),
            DT_RPATH => out.rpath = split(&string(value)?),
            DT_RUNPATH => out.runpath = split(&string(value)?),
            DT_FLAGS_1 => out.no_default_dirs = value & DF_1_NODEFLIB != 0,
            _ => {}
        }
    }
    if !out.runpath.is_empty() {
        out.rpath.clear();
    }
    Ok(out)
}

const DT_NEEDED: i64 = 1;
const DT_STRTAB: i64 = 5;
const DT_RPATH: i64 = 15;
const DT_RUNPATH: i64 = 29;
const DT_FLAGS_1: i64 = 0x6fff_fffb;
const DF_1_NODEFLIB: u64 = 0x800;

fn split(path: &str) -> Vec<String> {
    path.split(':')
        .filter(|p| !p.is_empty())
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_test_program_itself() {
        let elf = read(&std::env::current_exe().unwrap()).unwrap();
        assert!(elf.interpreter.unwrap().contains("ld-linux"));
        assert!(
            elf.needed.iter().any(|n| n == "libc.so.6"),
            "{:?}",
            elf.needed
        );
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let says = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            format!("{:#}", read(&path).unwrap_err())
        };
        assert!(
            says("a.py", b"#!/usr/bin/env python3.11\nprint()").contains("ops pkg load python -a")
        );
        assert!(says("b.py", b"print()").contains("ops pkg load python -a"));
        assert!(says("c.sh", b"#! /bin/sh\n").contains("a script for /bin/sh"));
        assert!(says("d", b"hello").contains("is not an ELF program"));
        assert!(says("e", b"").contains("is not an ELF program"));
        let mut arm = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        arm[18] = 183;
        assert!(says("f", &arm).contains("arm64"));
        arm[4] = 1;
        arm[18] = 3;
        assert!(says("g", &arm).contains("32-bit x86"));
        assert!(says("h", b"\x7fELF\x02\x01").contains("cut short"));
        let error = format!("{:#}", read(folder.path()).unwrap_err());
        assert!(error.contains("is a folder"), "{error}");
        let error = format!("{:#}", read(&folder.path().join("none")).unwrap_err());
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn damaged_files_are_errors() {
        let good = std::fs::read("/bin/true").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for cut in [64, 100, 500, 1000, 5000] {
            std::fs::write(&path, &good[..cut.min(good.len())]).unwrap();
            let _ = read(&path);
        }
        for at in (24..700).step_by(3) {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            std::fs::write(&path, &bytes).unwrap();
            let _ = read(&path);
        }
    }
}
