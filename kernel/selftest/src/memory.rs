//! Memory: the heap and frames.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use machine::mem::{self, Frame, HugeFrame};
use machine::mmio::{Mmio, MmioError};

pub fn heap() {
    let before = mem::stats();
    let mut live: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    let mut seed = 1usize;
    for round in 0..20_000usize {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let size = match seed >> 60 {
            0..12 => seed >> 40 & 0x3ff,
            12..15 => seed >> 40 & 0x1fff,
            _ => seed >> 40 & 0xffff,
        };
        live.insert(round, alloc::vec![round as u8; size]);
        if round >= 200 {
            let old = live.remove(&(round - 200)).unwrap_or_default();
            assert!(
                old.iter().all(|&b| b == (round - 200) as u8),
                "heap object overwritten"
            );
        }
    }
    drop(live);
    let after = mem::stats();
    assert!(
        after.heap <= before.heap + 64,
        "heap keeps {} frames, had {}",
        after.heap,
        before.heap
    );
    for align in [16usize, 64, 4096] {
        #[repr(align(64))]
        struct Line(#[expect(dead_code, reason = "only its address matters")] u8);
        let boxed = Box::new(Line(1));
        assert_eq!((&raw const *boxed).addr() % align.min(64), 0);
    }
}

pub fn frames() {
    let before = mem::stats().free;
    {
        let frames: Vec<Frame> = (0..1000)
            .filter_map(|_| Frame::alloc_zeroed().ok())
            .collect();
        assert_eq!(frames.len(), 1000);
        for (i, frame) in frames.iter().enumerate() {
            frame.write(i, &[i as u8]);
        }
        for (i, frame) in frames.iter().enumerate() {
            let mut byte = [0];
            frame.read(i, &mut byte);
            assert_eq!(byte[0], i as u8);
        }
        let huge = HugeFrame::alloc_zeroed();
        assert!(huge.is_ok_and(|huge| huge.split().count() == 512));
    }
    let after = mem::stats().free;
    assert!(
        before.abs_diff(after) < 32,
        "frames lost: {before} free before, {after} after"
    );
}

pub fn mmio_refuses_ram() {
    assert_eq!(
        Mmio::map(0x20_0000, 4096).err(),
        Some(MmioError::NotDeviceMemory)
    );
    assert_eq!(
        Mmio::map(0xfee0_0000, 4096).err(),
        Some(MmioError::NotDeviceMemory)
    );
    assert!(Mmio::map(0xfe00_0000, 4096).is_ok());
}
