//! Mapping a program, its dynamic linker and the vDSO, and where they go.
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use errno::{Errno, Result};
use machine::mem::Frame;
use machine::sync::Once;
use machine::user;
use machine::vdso;

use super::ImageFile;
use super::elf::{Image, Segment};
use crate::mm::AddressSpace;
use crate::mm::layout::{BRK_SPAN, ET_DYN_BASE, Entropy, MMAP_BITS};
use crate::mm::map::{MapRequest, Placement};
use crate::mm::pager::{FixedPages, Pager};
use crate::mm::vma::{Backing, PAGE, VmFlags, VmName, VmProt};
use crate::uaccess::USER_END;

/// Where Linux puts a position-independent program when addresses are not random.
const FIXED_BASE: usize = 0x5555_5555_4000;

/// Where a loaded file ended up.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// What was added to its addresses.
    pub bias: usize,
    /// Its first instruction.
    pub entry: usize,
    /// Its program headers in memory, and how many.
    pub headers: (usize, usize),
    /// The end of its last segment.
    pub end: usize,
    /// Its text, from the first byte to behind the last.
    pub code: (usize, usize),
    /// Its data.
    pub data: (usize, usize),
}

fn random_pages(entropy: &mut Option<&mut dyn Entropy>, bits: u32) -> usize {
    entropy.as_mut().map_or(0, |entropy| {
        (entropy.word() & ((1 << bits) - 1)) as usize * PAGE
    })
}

fn prot_of(segment: &Segment) -> VmProt {
    let flag = |bit: u32, prot| {
        if segment.flags & bit != 0 {
            prot
        } else {
            VmProt::empty()
        }
    };
    flag(4, VmProt::READ) | flag(2, VmProt::WRITE) | flag(1, VmProt::EXEC)
}

/// Maps the program.
///
/// # Errors
/// `ENOEXEC` for a place that cannot be had, `ENOMEM`, what reading the file reports.
pub fn program(
    mm: &AddressSpace,
    file: &ImageFile,
    image: &Image,
    mut entropy: Option<&mut dyn Entropy>,
) -> Result<Loaded> {
    let span = image.span();
    let base = if !image.relocatable {
        return map_image(mm, file, image, 0);
    } else if entropy.is_some() {
        let room = (1usize << MMAP_BITS) * PAGE;
        debug_assert!(ET_DYN_BASE + room < USER_END);
        ET_DYN_BASE + random_pages(&mut entropy, MMAP_BITS)
    } else {
        FIXED_BASE
    };
    let base = base / image.align() * image.align();
    map_image(
        mm,
        file,
        image,
        base.wrapping_sub(span.start / image.align() * image.align()),
    )
}

/// Maps the dynamic linker, into the mapping area.
///
/// # Errors
/// As [`program`].
pub fn interpreter(mm: &AddressSpace, file: &ImageFile, image: &Image) -> Result<Loaded> {
    if !image.relocatable {
        return map_image(mm, file, image, 0);
    }
    let span = image.span();
    let wanted = span.len() + image.align();
    // Reserve a place, free it, and map into it: nobody else runs yet.
    let reserved = mm.map(MapRequest {
        placement: Placement::Anywhere(0),
        len: wanted,
        prot: VmProt::empty(),
        max_prot: VmProt::empty(),
        flags: VmFlags::NORESERVE | VmFlags::NOHUGE,
        backing: Backing::Anonymous,
        name: VmName::None,
        populate: false,
    })?;
    mm.unmap(reserved, wanted)?;
    // As high as it goes: the mapping area fills from the top.
    let top = reserved + wanted.next_multiple_of(PAGE);
    let base = (top - span.len()) / image.align() * image.align();
    map_image(mm, file, image, base.wrapping_sub(span.start))
}

fn map_image(mm: &AddressSpace, file: &ImageFile, image: &Image, bias: usize) -> Result<Loaded> {
    let mut loaded = Loaded {
        bias,
        entry: image.entry.wrapping_add(bias),
        headers: (image.headers.0.wrapping_add(bias), image.headers.1),
        end: 0,
        code: (usize::MAX, 0),
        data: (0, 0),
    };
    for segment in &image.segments {
        let start = segment.vaddr.checked_add(bias).ok_or(Errno::ENOEXEC)?;
        let end = start
            .checked_add(segment.mem_size)
            .filter(|end| *end <= USER_END)
            .ok_or(Errno::ENOEXEC)?;
        map_segment(mm, file, segment, start)?;
        loaded.end = loaded.end.max(end);
        if segment.flags & 1 != 0 {
            loaded.code = (
                loaded.code.0.min(start),
                loaded.code.1.max(start + segment.file_size),
            );
        }
        if segment.flags & 2 != 0 {
            loaded.data = (start, start + segment.file_size);
        }
    }
    if loaded.entry >= USER_END {
        return Err(Errno::ENOEXEC);
    }
    Ok(loaded)
}

fn map_segment(mm: &AddressSpace, file: &ImageFile, segment: &Segment, start: usize) -> Result<()> {
    let prot = prot_of(segment);
    let first = start / PAGE * PAGE;
    let file_end = start + segment.file_size;
    let mem_end = start + segment.mem_size;
    let request = |placement, len, backing| MapRequest {
        placement,
        len,
        prot,
        max_prot: VmProt::all(),
        flags: VmFlags::empty(),
        backing,
        name: VmName::None,
        populate: false,
    };
    let occupied = |errno| {
        if errno == Errno::EEXIST {
            Errno::ENOEXEC
        } else {
            errno
        }
    };
    let mut zero_from = first;
    if segment.file_size > 0 {
        let len = (file_end - first).next_multiple_of(PAGE);
        let backing = Backing::Object {
            pager: file.pager.clone(),
            offset: segment.offset / PAGE as u64 * PAGE as u64,
        };
        mm.map(request(Placement::FixedNoReplace(first), len, backing))
            .map_err(occupied)?;
        zero_from = first + len;
    }
    if mem_end > zero_from {
        let len = mem_end - zero_from;
        mm.map(request(
            Placement::FixedNoReplace(zero_from),
            len,
            Backing::Anonymous,
        ))
        .map_err(occupied)?;
    }
    if segment.file_size > 0 && mem_end > file_end && prot.contains(VmProt::WRITE) {
        // What the file has behind the segment in its last page is not the program's.
        let len = zero_from.min(mem_end.next_multiple_of(PAGE)) - file_end;
        user::zero_user(file_end, len).map_err(|_| Errno::EFAULT)?;
    }
    Ok(())
}

/// Where the heap starts: behind the program, at a random distance.
pub fn heap_start(loaded: &Loaded, entropy: &mut Option<&mut dyn Entropy>) -> usize {
    let end = loaded.end.next_multiple_of(PAGE);
    match entropy {
        Some(entropy) => end + (entropy.word() as usize % BRK_SPAN) / PAGE * PAGE,
        None => end,
    }
}

/// The page of clock data that every vDSO call reads.
static CLOCK_PAGE: Once<Frame> = Once::new();
static SEQUENCE: AtomicU32 = AtomicU32::new(0);

/// Brings the clock page up to date; called whenever the clocks' parameters change.
fn update_clock_page(tsc: machine::time::TscParams) {
    let Some(page) = CLOCK_PAGE.get() else {
        return;
    };
    let clock = vdso::Clock {
        tsc,
        wall_offset_ns: machine::time::wall_offset_ns(),
        cpu_number: machine::cpu::features().flags.contains(&"rdtscp"),
    };
    machine::cpu::without_interrupts(|| {
        let odd = SEQUENCE.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        page.write(0, &odd.to_le_bytes());
        core::sync::atomic::fence(Ordering::SeqCst);
        page.write(vdso::CLOCK_OFFSET, &clock.to_bytes());
        core::sync::atomic::fence(Ordering::SeqCst);
        let even = SEQUENCE.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        page.write(0, &even.to_le_bytes());
    });
}

/// Maps the clock page and the vDSO behind it; answers the vDSO's address.
///
/// # Errors
/// `ENOMEM`.
pub fn vdso(mm: &AddressSpace) -> Result<usize> {
    let page = Frame::alloc_zeroed().map_err(|_| Errno::ENOMEM)?;
    let page = CLOCK_PAGE.call_once(|| page).clone();
    machine::time::set_params_hook(update_clock_page);
    update_clock_page(machine::time::tsc_params());

    let image = vdso::image();
    let mut frames = Vec::new();
    for chunk in image.chunks(PAGE) {
        let frame = Frame::alloc_zeroed().map_err(|_| Errno::ENOMEM)?;
        frame.write(0, chunk);
        frames.push(frame);
    }
    let len = frames.len() * PAGE;
    let code: Arc<dyn Pager> = Arc::new(FixedPages::new(frames, b"[vdso]"));
    let data: Arc<dyn Pager> = Arc::new(FixedPages::new(alloc::vec![page], b"[vvar]"));
    let request = |placement, len, prot, pager, name| MapRequest {
        placement,
        len,
        prot,
        max_prot: prot,
        flags: VmFlags::SPECIAL | VmFlags::DONTDUMP,
        backing: Backing::Object { pager, offset: 0 },
        name,
        populate: true,
    };
    // One place for both, found by asking for the sum.
    let room = mm.map(MapRequest {
        placement: Placement::Anywhere(0),
        len: PAGE + len,
        prot: VmProt::empty(),
        max_prot: VmProt::empty(),
        flags: VmFlags::NORESERVE | VmFlags::NOHUGE,
        backing: Backing::Anonymous,
        name: VmName::None,
        populate: false,
    })?;
    mm.unmap(room, PAGE + len)?;
    mm.map(request(
        Placement::Fixed(room),
        PAGE,
        VmProt::READ,
        data,
        VmName::Vvar,
    ))?;
    mm.map(request(
        Placement::Fixed(room + PAGE),
        len,
        VmProt::READ | VmProt::EXEC,
        code,
        VmName::Vdso,
    ))
}
