//! The ELF reader against real and hostile files.
use super::*;

fn minimal() -> Vec<u8> {
    let mut file = vec![0; 0x1100];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16..18].copy_from_slice(&2u16.to_le_bytes());
    file[18..20].copy_from_slice(&62u16.to_le_bytes());
    file[24..32].copy_from_slice(&0x401000u64.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&2u16.to_le_bytes());
    segment(&mut file, 0, [0, 0x400000, 0x100, 0x100]);
    segment(&mut file, 1, [0x1000, 0x401000, 0x100, 0x2000]);
    file
}

fn segment(file: &mut [u8], n: usize, [offset, vaddr, file_size, mem_size]: [u64; 4]) {
    let at = 64 + 56 * n;
    file[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
    file[at + 4..at + 8].copy_from_slice(&5u32.to_le_bytes());
    for (field, value) in [
        (8, offset),
        (16, vaddr),
        (24, vaddr),
        (32, file_size),
        (40, mem_size),
        (48, 0x1000),
    ] {
        file[at + field..at + field + 8].copy_from_slice(&value.to_le_bytes());
    }
}

#[test]
fn a_minimal_program_is_read() {
    let file = minimal();
    let image = Image::parse(&file.as_slice()).unwrap();
    assert!(!image.relocatable);
    assert_eq!(image.entry, 0x401000);
    assert_eq!(image.span(), 0x400000..0x403000);
    assert_eq!(image.headers, (0x400040, 2));
    assert_eq!(image.interpreter, None);
}

#[test]
fn this_test_program_itself_is_read_and_symbolised() {
    let file = std::fs::read("/proc/self/exe").unwrap();
    let image = Image::parse(&file.as_slice()).unwrap();
    assert!(image.relocatable);
    assert!(image.interpreter.unwrap().starts_with(b"/lib"));
    let entry = image
        .segments
        .iter()
        .find(|s| s.vaddr <= image.entry && image.entry < s.vaddr + s.file_size)
        .unwrap();
    let offset = entry.offset + (image.entry - entry.vaddr) as u64;
    assert_eq!(symbol_at(&file.as_slice(), offset).unwrap().name, b"_start");
}

#[test]
fn lies_about_sizes_and_places_are_refused() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = minimal();
        change(&mut file);
        assert_eq!(Image::parse(&file.as_slice()), Err(Errno::ENOEXEC));
    };
    refused(&|file| file.truncate(63));
    refused(&|file| file.truncate(100));
    refused(&|file| file[18] = 183);
    refused(&|file| file[4] = 1);
    refused(&|file| file[54] = 55);
    refused(&|file| file[56..58].copy_from_slice(&0u16.to_le_bytes()));
    refused(&|file| file[32..40].copy_from_slice(&u64::MAX.to_le_bytes()));
    refused(&|file| segment(file, 1, [0x1000, 0x401000, 0x200, 0x100]));
    refused(&|file| segment(file, 1, [0x1000, 0x401000, 0x10_0000, 0x10_0000]));
    refused(&|file| segment(file, 1, [0x1000, u64::MAX - 0xfff, 0x100, 0x2000]));
    refused(&|file| segment(file, 1, [0x1000, 0x7fff_ffff_f000, 0x100, 0x100]));
    refused(&|file| segment(file, 1, [0x1000, 0x401001, 0x100, 0x100]));
    refused(&|file| segment(file, 1, [0x1000, 0x400000, 0x100, 0x100]));
}

#[test]
fn damaged_files_never_panic() {
    let original = std::fs::read("/proc/self/exe").unwrap();
    let head = &original[..original.len().min(1 << 16)];
    let mut state = 1u64;
    for _ in 0..2000 {
        let mut file = head.to_vec();
        for _ in 0..8 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % 1024;
            file[at] = (state >> 25) as u8;
        }
        let _ = Image::parse(&file.as_slice());
        let _ = symbol_at(&file.as_slice(), 0x1000);
    }
}
