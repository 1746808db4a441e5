//! What `/proc/self/maps`, `smaps`, `statm` and `status` say of the address space.
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::AddressSpace;
use super::pager::Description;
use super::vma::{Backing, PAGE, VmFlags, VmName, VmProt, Vma};

/// One area as `/proc/self/maps` shows it.
#[derive(Clone, Debug)]
pub struct MapLine {
    /// First address and the one behind the last.
    pub range: core::ops::Range<usize>,
    /// Rights.
    pub prot: VmProt,
    /// Properties.
    pub flags: VmFlags,
    /// Byte offset in the file.
    pub offset: u64,
    /// The file.
    pub file: Description,
}

/// Sums of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Present in memory.
    pub resident: usize,
    /// Of these, shared with the page cache or others.
    pub shared: usize,
    /// Of these, the program's own.
    pub private: usize,
    /// Written to.
    pub dirty: usize,
    /// Used.
    pub accessed: usize,
    /// In huge pages.
    pub huge: usize,
}

/// Sums over the whole address space, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// All areas.
    pub size: usize,
    /// Present.
    pub resident: usize,
    /// Private writable areas without the stack (`VmData`).
    pub data: usize,
    /// The stack (`VmStk`).
    pub stack: usize,
    /// The program's text (`VmExe`).
    pub text: usize,
    /// Other executable files' areas (`VmLib`).
    pub library: usize,
    /// Locked (`VmLck`).
    pub locked: usize,
}

fn line_of(vma: &Vma) -> MapLine {
    let (offset, mut file) = match &vma.backing {
        Backing::Anonymous => (0, Description::default()),
        Backing::Object { pager, offset } => (*offset, pager.describe()),
    };
    match vma.name {
        VmName::None => {}
        VmName::Heap => file.path = b"[heap]".to_vec(),
        VmName::Stack => file.path = b"[stack]".to_vec(),
        VmName::Vvar => file.path = b"[vvar]".to_vec(),
        VmName::Vdso => file.path = b"[vdso]".to_vec(),
    }
    MapLine {
        range: vma.range(),
        prot: vma.prot,
        flags: vma.flags,
        offset: if vma.flags.contains(VmFlags::SPECIAL) {
            0
        } else {
            offset
        },
        file,
    }
}

impl MapLine {
    /// The line, without its end.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut head = String::new();
        let flag = |on: VmProt, letter| if self.prot.contains(on) { letter } else { '-' };
        let share = if self.flags.contains(VmFlags::SHARED) {
            's'
        } else {
            'p'
        };
        let _ = write!(
            head,
            "{:08x}-{:08x} {}{}{}{share} {:08x} {:02x}:{:02x} {} ",
            self.range.start,
            self.range.end,
            flag(VmProt::READ, 'r'),
            flag(VmProt::WRITE, 'w'),
            flag(VmProt::EXEC, 'x'),
            self.offset,
            self.file.device.0,
            self.file.device.1,
            self.file.inode,
        );
        if self.file.path.is_empty() {
            head.truncate(head.trim_end().len());
            head.push(' ');
        } else {
            while head.len() < 73 {
                head.push(' ');
            }
        }
        out.extend_from_slice(head.as_bytes());
        for byte in &self.file.path {
            match byte {
                b'\n' => out.extend_from_slice(b"\\012"),
                other => out.push(*other),
            }
        }
    }
}

/// So many pages are looked at before the time is.
const LOOK: usize = 512;

impl AddressSpace {
    /// All areas, in order.
    pub fn map_lines(&self) -> Vec<MapLine> {
        self.areas.read().iter().map(line_of).collect()
    }

    /// `/proc/self/maps`.
    pub fn maps(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for line in self.map_lines() {
            line.write(&mut out);
            out.push(b'\n');
        }
        out
    }

    /// What of `range` is present.
    pub fn usage(&self, range: core::ops::Range<usize>) -> Usage {
        let mut usage = Usage::default();
        for (n, page) in range.step_by(PAGE).enumerate() {
            // What is reserved may be very large.
            if n % LOOK == LOOK - 1 {
                sched::cond_resched();
            }
            let Some(mapping) = self.table.get(page) else {
                continue;
            };
            usage.resident += 1;
            // The table and this look are two owners.
            if mapping.frame.ref_count() > 2 {
                usage.shared += 1;
            } else {
                usage.private += 1;
            }
            usage.dirty += usize::from(mapping.dirty);
            usage.accessed += usize::from(mapping.accessed);
            usage.huge += usize::from(mapping.huge);
        }
        usage
    }

    /// `/proc/self/smaps`.
    pub fn smaps(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for line in self.map_lines() {
            line.write(&mut out);
            out.push(b'\n');
            let usage = self.usage(line.range.clone());
            let kb = |pages: usize| pages * PAGE / 1024;
            let shared_dirty = if line.flags.contains(VmFlags::SHARED) {
                usage.dirty.min(usage.shared)
            } else {
                0
            };
            let private_dirty = (usage.dirty - shared_dirty).min(usage.private);
            let anonymous = if line.file.inode == 0 {
                usage.private
            } else {
                private_dirty
            };
            let fields = [
                ("Size", line.range.len() / 1024),
                ("KernelPageSize", 4),
                ("MMUPageSize", 4),
                ("Rss", kb(usage.resident)),
                ("Pss", kb(usage.resident)),
                ("Shared_Clean", kb(usage.shared - shared_dirty)),
                ("Shared_Dirty", kb(shared_dirty)),
                ("Private_Clean", kb(usage.private - private_dirty)),
                ("Private_Dirty", kb(private_dirty)),
                ("Referenced", kb(usage.accessed)),
                ("Anonymous", kb(anonymous)),
                ("AnonHugePages", kb(usage.huge)),
                ("Swap", 0),
                (
                    "Locked",
                    if line.flags.contains(VmFlags::LOCKED) {
                        kb(usage.resident)
                    } else {
                        0
                    },
                ),
            ];
            let mut text = String::new();
            for (name, value) in fields {
                let _ = writeln!(text, "{:<16}{value:8} kB", alloc::format!("{name}:"));
            }
            let _ = write!(text, "VmFlags:");
            for (on, word) in [
                (line.prot.contains(VmProt::READ), "rd"),
                (line.prot.contains(VmProt::WRITE), "wr"),
                (line.prot.contains(VmProt::EXEC), "ex"),
                (line.flags.contains(VmFlags::SHARED), "sh"),
                (line.flags.contains(VmFlags::GROWSDOWN), "gd"),
                (line.flags.contains(VmFlags::LOCKED), "lo"),
                (line.flags.contains(VmFlags::NORESERVE), "nr"),
                (line.flags.contains(VmFlags::HUGE), "hg"),
                (line.flags.contains(VmFlags::NOHUGE), "nh"),
                (line.flags.contains(VmFlags::DONTDUMP), "dd"),
            ] {
                if on {
                    let _ = write!(text, " {word}");
                }
            }
            text.push('\n');
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// How many areas there are.
    pub fn area_count(&self) -> usize {
        self.areas.read().count()
    }

    /// Sums for `statm`, `status` and `stat`.
    pub fn totals(&self) -> Totals {
        let code = self.layout.lock().code;
        let mut totals = Totals {
            resident: self.table.resident_pages() * PAGE,
            ..Totals::default()
        };
        for vma in self.areas.read().iter() {
            totals.size += vma.len();
            if vma.flags.contains(VmFlags::GROWSDOWN) {
                totals.stack += vma.len();
            } else if vma.is_private() && vma.prot.contains(VmProt::WRITE) {
                totals.data += vma.len();
            }
            if vma.prot.contains(VmProt::EXEC) && !vma.prot.contains(VmProt::WRITE) {
                if vma.start <= code.0 && code.0 < vma.end {
                    totals.text += vma.len();
                } else {
                    totals.library += vma.len();
                }
            }
            if vma.flags.contains(VmFlags::LOCKED) {
                totals.locked += vma.len();
            }
        }
        totals
    }
}
