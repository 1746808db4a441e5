//! The address space on the hosted page table: mapping, faults, copy-on-write, moves.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as O};

use errno::Result;
use machine::user::Access;

use super::fault::FaultError;
use super::map::{MapRequest, Placement, Remap};
use super::pager::{Description, SharedMemory};
use super::vma::{VmFlags, VmName};
use super::*;

fn space() -> AddressSpace {
    AddressSpace::new(Layout::new(None, 8 << 20, layout::MMAP_MIN_ADDR)).unwrap()
}

fn anonymous(len: usize) -> MapRequest {
    MapRequest {
        placement: Placement::Anywhere(0),
        len,
        prot: VmProt::READ | VmProt::WRITE,
        max_prot: VmProt::all(),
        flags: VmFlags::empty(),
        backing: Backing::Anonymous,
        name: VmName::None,
        populate: false,
    }
}

/// A file of four pages, each filled with its number; counts what it is told.
struct Fake {
    pages: SharedMemory,
    dirtied: AtomicUsize,
    reads: AtomicUsize,
}

impl Fake {
    fn new() -> Arc<Fake> {
        Arc::new(Fake {
            pages: SharedMemory::new(4),
            dirtied: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
        })
    }
}

impl Pager for Fake {
    fn id(&self) -> usize {
        self.pages.id()
    }
    fn page(&self, index: u64) -> Result<Frame> {
        self.reads.fetch_add(1, O::SeqCst);
        let frame = self.pages.page(index)?;
        if frame.is_zero() {
            frame.write(0, &[index as u8 + 1; PAGE]);
        }
        Ok(frame)
    }
    fn cached(&self, index: u64) -> Option<Frame> {
        self.pages.cached(index)
    }
    fn mark_dirty(&self, _: u64) -> Result<()> {
        self.dirtied.fetch_add(1, O::SeqCst);
        Ok(())
    }
    fn describe(&self) -> Description {
        Description {
            device: (8, 1),
            inode: 12,
            path: b"/lib/x.so".to_vec(),
        }
    }
}

fn byte(mm: &AddressSpace, addr: usize) -> u8 {
    let mut byte = [0];
    mm.table
        .get(addr)
        .unwrap()
        .frame
        .read(addr % PAGE, &mut byte);
    byte[0]
}

fn poke(mm: &AddressSpace, addr: usize, value: u8) {
    mm.fault(addr, Access::Write).unwrap();
    assert!(mm.table.get(addr).unwrap().prot.write);
    mm.table
        .get(addr)
        .unwrap()
        .frame
        .write(addr % PAGE, &[value]);
}

#[test]
fn anonymous_memory_is_zero_then_ones_own() {
    let mm = space();
    let at = mm.map(anonymous(3 * PAGE)).unwrap();
    mm.fault(at, Access::Read).unwrap();
    assert!(
        !mm.table.get(at).unwrap().prot.write,
        "the page of zeroes is nobody's"
    );
    poke(&mm, at, 7);
    assert_eq!(byte(&mm, at), 7);
    mm.fault(at + PAGE, Access::Read).unwrap();
    assert_eq!(byte(&mm, at + PAGE), 0);
    assert_eq!(mm.fault(at, Access::Exec), Err(FaultError::Denied));
    assert_eq!(
        mm.fault(at + 3 * PAGE, Access::Read),
        Err(FaultError::NoMapping)
    );
    mm.unmap(at, PAGE).unwrap();
    assert_eq!(mm.fault(at, Access::Read), Err(FaultError::NoMapping));
}

#[test]
fn private_file_pages_are_copied_and_shared_ones_marked() {
    let mm = space();
    let file = Fake::new();
    let backing = Backing::Object {
        pager: file.clone(),
        offset: PAGE as u64,
    };
    let private = mm
        .map(MapRequest {
            backing: backing.clone(),
            ..anonymous(4 * PAGE)
        })
        .unwrap();
    mm.fault(private, Access::Read).unwrap();
    assert_eq!(byte(&mm, private), 2);
    poke(&mm, private, 99);
    assert_eq!(byte(&mm, private), 99);
    let mut seen = [0];
    file.page(1).unwrap().read(0, &mut seen);
    assert_eq!(
        (seen[0], file.dirtied.load(O::SeqCst)),
        (2, 0),
        "the file must not see it"
    );
    assert_eq!(
        mm.fault(private + 3 * PAGE, Access::Read),
        Err(FaultError::Bus)
    );

    let shared = mm
        .map(MapRequest {
            backing,
            flags: VmFlags::SHARED,
            ..anonymous(PAGE)
        })
        .unwrap();
    mm.fault(shared, Access::Read).unwrap();
    assert_eq!(file.dirtied.load(O::SeqCst), 0);
    poke(&mm, shared, 55);
    assert!(file.dirtied.load(O::SeqCst) > 0);
    file.page(1).unwrap().read(0, &mut seen);
    assert_eq!(seen[0], 55);
    // After a write-back the next store tells again.
    let before = file.dirtied.load(O::SeqCst);
    mm.write_protect(file.id(), 0..4);
    assert!(!mm.table.get(shared).unwrap().prot.write);
    poke(&mm, shared, 56);
    assert!(file.dirtied.load(O::SeqCst) > before);
    mm.forget_pages(file.id(), 1..2, false);
    assert!(mm.table.get(shared).is_none() && mm.table.get(private).is_some());
    mm.forget_pages(file.id(), 1..u64::MAX, true);
    assert!(mm.table.get(shared).is_none() && mm.table.get(private).is_none());
}

#[test]
fn rights_taken_and_given_back_keep_the_page() {
    let mm = space();
    let at = mm.map(anonymous(4 * PAGE)).unwrap();
    poke(&mm, at + PAGE, 5);
    mm.protect(at + PAGE..at + 2 * PAGE, VmProt::empty(), false)
        .unwrap();
    assert_eq!(mm.fault(at + PAGE, Access::Read), Err(FaultError::Denied));
    mm.protect(
        at + PAGE..at + 2 * PAGE,
        VmProt::READ | VmProt::WRITE,
        false,
    )
    .unwrap();
    mm.fault(at + PAGE, Access::Write).unwrap();
    assert_eq!(byte(&mm, at + PAGE), 5);
    assert_eq!(mm.map_lines().len(), 1);
    assert_eq!(
        mm.protect(at..at + 5 * PAGE, VmProt::READ, false),
        Err(Errno::ENOMEM)
    );
    assert_eq!(
        mm.map_lines()[0].prot,
        VmProt::READ,
        "what lies before the hole is changed"
    );
}

#[test]
fn placements_replace_refuse_or_give_way() {
    let mm = space();
    let at = mm.map(anonymous(PAGE)).unwrap();
    poke(&mm, at, 1);
    let no = MapRequest {
        placement: Placement::FixedNoReplace(at),
        ..anonymous(PAGE)
    };
    assert_eq!(mm.map(no), Err(Errno::EEXIST));
    mm.map(MapRequest {
        placement: Placement::Fixed(at),
        ..anonymous(PAGE)
    })
    .unwrap();
    mm.fault(at, Access::Read).unwrap();
    assert_eq!(byte(&mm, at), 0);
    let other = mm
        .map(MapRequest {
            placement: Placement::Anywhere(at),
            ..anonymous(PAGE)
        })
        .unwrap();
    assert_ne!(other, at);
    let low = mm
        .map(MapRequest {
            placement: Placement::Low,
            ..anonymous(PAGE)
        })
        .unwrap();
    assert!(low < 1 << 31);
    assert_eq!(
        mm.map(MapRequest {
            placement: Placement::Fixed(PAGE),
            ..anonymous(PAGE)
        }),
        Err(Errno::EPERM)
    );
    assert_eq!(
        mm.map(MapRequest {
            placement: Placement::Fixed(at + 1),
            ..anonymous(PAGE)
        }),
        Err(Errno::EINVAL)
    );
    assert_eq!(mm.map(anonymous(1 << 46)), Err(Errno::ENOMEM));
}

#[test]
fn a_stack_grows_to_its_limit_and_keeps_its_distance() {
    let mm = space();
    let top = 0x7f00_0000_0000;
    mm.map(MapRequest {
        placement: Placement::Fixed(top - PAGE),
        flags: VmFlags::GROWSDOWN,
        name: VmName::Stack,
        ..anonymous(PAGE)
    })
    .unwrap();
    mm.fault(top - 100 * PAGE, Access::Write).unwrap();
    assert_eq!(mm.map_lines()[0].range, top - 100 * PAGE..top);
    assert_eq!(
        mm.fault(top - (9 << 20), Access::Write),
        Err(FaultError::NoMapping)
    );
    mm.map(MapRequest {
        placement: Placement::Fixed(top - 600 * PAGE),
        ..anonymous(PAGE)
    })
    .unwrap();
    assert_eq!(
        mm.fault(top - 599 * PAGE, Access::Write),
        Err(FaultError::NoMapping)
    );
    mm.fault(top - 300 * PAGE, Access::Write).unwrap();
}

#[test]
fn remapping_moves_pages_and_grows_in_place() {
    let mm = space();
    mm.map(anonymous(PAGE)).unwrap();
    let at = mm
        .map(MapRequest {
            prot: VmProt::READ | VmProt::WRITE | VmProt::EXEC,
            ..anonymous(4 * PAGE)
        })
        .unwrap();
    poke(&mm, at, 3);
    poke(&mm, at + 3 * PAGE, 4);
    assert_eq!(mm.remap(at, 4 * PAGE, 2 * PAGE, Remap::InPlace), Ok(at));
    assert!(mm.table.get(at + 3 * PAGE).is_none());
    assert_eq!(mm.remap(at, 2 * PAGE, 4 * PAGE, Remap::InPlace), Ok(at));
    // The place above is taken: only moving helps.
    assert_eq!(
        mm.remap(at, 4 * PAGE, 64 * PAGE, Remap::InPlace),
        Err(Errno::ENOMEM)
    );
    let moved = mm.remap(at, 4 * PAGE, 64 * PAGE, Remap::MayMove { keep_old: false });
    let moved = match moved {
        Ok(moved) => moved,
        Err(errno) => panic!("{errno}"),
    };
    assert_eq!(byte(&mm, moved), 3);
    if moved != at {
        assert_eq!(mm.fault(at, Access::Read), Err(FaultError::NoMapping));
    }
    poke(&mm, moved + 60 * PAGE, 1);
    let fixed = moved - (1 << 30);
    let how = Remap::Fixed {
        to: fixed,
        keep_old: false,
    };
    assert_eq!(mm.remap(moved, 64 * PAGE, 64 * PAGE, how), Ok(fixed));
    assert_eq!((byte(&mm, fixed), byte(&mm, fixed + 60 * PAGE)), (3, 1));
    assert_eq!(
        mm.remap(fixed + 64 * PAGE, PAGE, PAGE, Remap::InPlace),
        Err(Errno::EFAULT)
    );
}

#[test]
fn the_heap_moves_both_ways_and_stops_at_an_obstacle() {
    let mm = space();
    let start = 0x60_0000;
    {
        let mut layout = mm.layout.lock();
        layout.brk_start = start;
        layout.brk = start;
    }
    assert_eq!(mm.set_brk(0), start);
    assert_eq!(mm.set_brk(start + 3 * PAGE + 5), start + 3 * PAGE + 5);
    poke(&mm, start + 3 * PAGE, 9);
    assert_eq!(mm.set_brk(start + PAGE), start + PAGE);
    assert_eq!(
        mm.fault(start + PAGE, Access::Read),
        Err(FaultError::NoMapping)
    );
    mm.map(MapRequest {
        placement: Placement::Fixed(start + 8 * PAGE),
        ..anonymous(PAGE)
    })
    .unwrap();
    assert_eq!(mm.set_brk(start + 8 * PAGE), start + PAGE);
    assert!(String::from_utf8(mm.maps()).unwrap().contains("[heap]"));
}

#[test]
fn advice_throws_pages_away_and_reports_what_is_there() {
    let mm = space();
    let at = mm.map(anonymous(4 * PAGE)).unwrap();
    poke(&mm, at, 1);
    assert_eq!(mm.in_core(at..at + 2 * PAGE), Ok(vec![1, 0]));
    mm.discard(at..at + 4 * PAGE, false).unwrap();
    mm.fault(at, Access::Read).unwrap();
    assert_eq!(byte(&mm, at), 0);
    mm.lock(at..at + PAGE, true).unwrap();
    assert_eq!(mm.locked_bytes(), PAGE);
    assert_eq!(mm.discard(at..at + PAGE, false), Err(Errno::EINVAL));
    assert_eq!(mm.in_core(at..at + 8 * PAGE), Err(Errno::ENOMEM));
}

#[test]
fn the_listing_has_linuxs_columns() {
    let mm = space();
    let backing = Backing::Object {
        pager: Fake::new(),
        offset: 0x1000,
    };
    let request = MapRequest {
        placement: Placement::Fixed(0x40_0000),
        prot: VmProt::READ | VmProt::EXEC,
        backing,
        ..anonymous(PAGE)
    };
    mm.map(request).unwrap();
    let text = String::from_utf8(mm.maps()).unwrap();
    let path_column = text.find("/lib/x.so").unwrap();
    assert!(
        text.starts_with("00400000-00401000 r-xp 00001000 08:01 12 "),
        "{text}"
    );
    assert_eq!(path_column, 73);
    let smaps = String::from_utf8(mm.smaps()).unwrap();
    assert!(
        smaps.contains("Size:                  4 kB\n") && smaps.contains("VmFlags: rd ex\n"),
        "{smaps}"
    );
}
