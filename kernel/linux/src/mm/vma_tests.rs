//! The set of areas against a model: one entry for each page.
use std::collections::BTreeMap;

use super::*;

const BASE: usize = 0x10000;
const PAGES: usize = 64;

fn vma(start: usize, pages: usize, prot: u8) -> Vma {
    Vma {
        start,
        end: start + pages * PAGE,
        prot: VmProt::from_bits_truncate(prot),
        max_prot: VmProt::all(),
        flags: VmFlags::empty(),
        backing: Backing::Anonymous,
        name: VmName::None,
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

fn check(set: &VmaSet, model: &BTreeMap<usize, u8>) {
    let mut seen = BTreeMap::new();
    let mut last: Option<&Vma> = None;
    for area in set.iter() {
        assert!(area.start < area.end);
        if let Some(last) = last {
            assert!(last.end <= area.start, "areas overlap");
            assert!(!last.joins(area), "alike neighbours were not joined");
        }
        for addr in area.range().step_by(PAGE) {
            seen.insert(addr, area.prot.bits());
        }
        last = Some(area);
    }
    assert_eq!(&seen, model);
    assert_eq!(set.bytes(), model.len() * PAGE);
}

#[test]
fn random_changes_agree_with_a_map_of_pages() {
    for seed in 1..40 {
        let mut random = Random(seed);
        let mut set = VmaSet::new();
        let mut model = BTreeMap::new();
        for _ in 0..200 {
            let first = random.below(PAGES);
            let count = 1 + random.below((PAGES - first).min(12));
            let range = BASE + first * PAGE..BASE + (first + count) * PAGE;
            let prot = random.below(4) as u8;
            match random.below(3) {
                0 => {
                    set.remove(range.clone());
                    set.insert(vma(range.start, count, prot));
                    model.extend(range.step_by(PAGE).map(|addr| (addr, prot)));
                }
                1 => {
                    set.remove(range.clone());
                    model.retain(|addr, _| !range.contains(addr));
                }
                _ => {
                    set.modify(range.clone(), |vma| {
                        vma.prot = VmProt::from_bits_truncate(prot)
                    });
                    for (_, old) in model.range_mut(range) {
                        *old = prot;
                    }
                }
            }
            check(&set, &model);
            let probe = BASE + random.below(PAGES) * PAGE + random.below(PAGE);
            let page = probe / PAGE * PAGE;
            assert_eq!(
                set.find(probe).map(|vma| vma.prot.bits()),
                model.get(&page).copied()
            );
        }
    }
}

#[test]
fn gaps_are_free_aligned_and_as_high_or_low_as_they_go() {
    for seed in 1..40 {
        let mut random = Random(seed);
        let mut set = VmaSet::new();
        for _ in 0..20 {
            let first = random.below(PAGES);
            let count = 1 + random.below((PAGES - first).min(4));
            let range = BASE + first * PAGE..BASE + (first + count) * PAGE;
            set.remove(range);
            set.insert(vma(BASE + first * PAGE, count, 1));
        }
        let within = BASE..BASE + PAGES * PAGE;
        for pages in 1..6 {
            let len = pages * PAGE;
            let candidates: Vec<usize> = (within.start..=within.end - len)
                .step_by(PAGE)
                .filter(|start| set.is_free(*start..start + len))
                .collect();
            let down = set.find_gap_down(len, within.clone(), PAGE, |_| 0);
            assert_eq!(down, candidates.last().copied());
            let up = set.find_gap_up(len, within.clone(), PAGE, |_| 0);
            assert_eq!(up, candidates.first().copied());
        }
    }
}

#[test]
fn a_stack_keeps_its_distance() {
    let mut set = VmaSet::new();
    let mut stack = vma(BASE + 32 * PAGE, 4, 3);
    stack.flags = VmFlags::GROWSDOWN;
    set.insert(stack);
    let guard = |vma: &Vma| {
        if vma.flags.contains(VmFlags::GROWSDOWN) {
            16 * PAGE
        } else {
            0
        }
    };
    let found = set.find_gap_down(PAGE, BASE..BASE + 33 * PAGE, PAGE, guard);
    assert_eq!(found, Some(BASE + 15 * PAGE));
}

#[test]
fn object_offsets_follow_splits_and_joins() {
    let pager: Arc<dyn Pager> = Arc::new(super::super::pager::FixedPages::new(Vec::new(), b"x"));
    let mut set = VmaSet::new();
    let mut area = vma(BASE, 8, 1);
    area.backing = Backing::Object {
        pager,
        offset: 0x5000,
    };
    set.insert(area);
    set.modify(BASE + 2 * PAGE..BASE + 3 * PAGE, |vma| {
        vma.prot = VmProt::READ | VmProt::WRITE
    });
    assert_eq!(set.count(), 3);
    assert_eq!(
        set.find(BASE + 2 * PAGE)
            .and_then(|vma| vma.page_index(BASE + 2 * PAGE)),
        Some(7)
    );
    assert_eq!(
        set.find(BASE + 4 * PAGE)
            .and_then(|vma| vma.page_index(BASE + 4 * PAGE)),
        Some(9)
    );
    set.modify(BASE + 2 * PAGE..BASE + 3 * PAGE, |vma| {
        vma.prot = VmProt::READ
    });
    assert_eq!(set.count(), 1);
    assert!(set.covers(BASE..BASE + 8 * PAGE) && !set.covers(BASE..BASE + 9 * PAGE));
}
