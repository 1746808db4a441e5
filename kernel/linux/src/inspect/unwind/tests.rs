//! The tables are those of this test program and of the host's C library.
use super::*;
use crate::exec::elf::ReadAt;
use errno::{Errno, Result};
use std::os::unix::fs::FileExt;

fn registers(rip: usize, rsp: usize, rbp: u64) -> Registers {
    let mut regs = Registers::default();
    (regs.rip, regs.rsp, regs.rbp) = (rip as u64, rsp as u64, rbp);
    regs
}

struct OnHost(std::fs::File);

impl ReadAt for OnHost {
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        FileExt::read_exact_at(&self.0, into, offset).map_err(|_| Errno::EIO)
    }

    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |data| data.len())
    }
}

/// Lines of `/proc/self/maps` that are code of files: range, offset, path.
fn code_of_this_process() -> Vec<(core::ops::Range<usize>, u64, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (start, end) = words[0].split_once('-')?;
            let number = |text: &str| u64::from_str_radix(text, 16).ok();
            let path = words.get(5).filter(|path| path.starts_with('/'))?;
            words[1].contains('x').then_some((
                number(start)? as usize..number(end)? as usize,
                number(words[2])?,
                path.to_string(),
            ))
        })
        .collect()
}

/// This process, as the walk sees it.
struct Here(Vec<(core::ops::Range<usize>, u64, String)>);

impl Code for Here {
    fn is_code(&self, address: usize) -> bool {
        self.0.iter().any(|(range, ..)| range.contains(&address))
    }

    fn follows_call(&self, _: usize) -> bool {
        true
    }

    fn file_at(&self, address: usize) -> Option<(usize, u64)> {
        let n = self
            .0
            .iter()
            .position(|(range, ..)| range.contains(&address))?;
        let (range, offset, _) = &self.0[n];
        Some((n, offset + (address - range.start) as u64))
    }

    fn table_at(&self, address: usize) -> Option<Table> {
        let (.., path) = self.0.iter().find(|(range, ..)| range.contains(&address))?;
        Table::read(&OnHost(std::fs::File::open(path).ok()?))
    }
}

#[inline(never)]
fn probed(n: u64) -> u64 {
    std::hint::black_box(n + 1)
}

#[test]
fn at_the_start_of_a_function_its_caller_is_on_top_of_the_stack() {
    let here = Here(code_of_this_process());
    let start = probed as fn(u64) -> u64 as usize;
    let regs = registers(start, 0x7000, 0x1234);
    // Somewhere in this function, as a caller would be: the tables do not look at what instruction it is.
    let caller = at_the_start_of_a_function_its_caller_is_on_top_of_the_stack as fn() as usize + 1;
    let memory = |at: usize| (at == 0x7000).then_some(caller as u64);
    let mut unwinder = Unwinder::default();
    let walk = unwinder.walk(&here, &regs, &memory, 2);
    let steps: Vec<usize> = walk.steps.iter().map(|step| step.instruction()).collect();
    assert_eq!(steps, [start, caller - 1]);
    assert_eq!(walk.sp, 0x7008);
    // Where memory is not known there is no caller, and the walk says that it is at its end.
    let walk = unwinder.walk(&here, &regs, &|_| None, 9);
    assert_eq!((walk.steps.len(), walk.whole), (1, true));
    assert_eq!(probed(1), 2);
}

#[test]
fn a_signals_frame_gives_back_all_registers() {
    // What a handler returns to: `mov $15, %rax; syscall` (rt_sigreturn).
    const RESTORER: &[u8] = &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
    let here = Here(code_of_this_process());
    let (range, offset, path) = here
        .0
        .iter()
        .find(|(.., path)| path.contains("libc.so"))
        .expect("this process has a C library");
    let bytes = std::fs::read(path).unwrap();
    let at = bytes
        .windows(RESTORER.len())
        .position(|window| window == RESTORER)
        .expect("a C library has a restorer");
    let restorer = range.start + at - *offset as usize;
    let interrupted = probed as fn(u64) -> u64 as usize as u64;
    // There the stack pointer is at the `ucontext`, whose registers start at 40, in the order of <sys/ucontext.h>.
    let sp = 0x5000;
    let memory = |at: usize| match at.checked_sub(sp + 40)? / 8 {
        10 => Some(0xb0),
        15 => Some(0x9000),
        16 => Some(interrupted),
        n => Some(n as u64),
    };
    let regs = registers(restorer, sp, 0);
    let mut unwinder = Unwinder::default();
    let (table, row) = unwinder.row(&here, restorer).expect("it has a row");
    let caller = table.caller(&row, &Frame::new(&regs), &memory).unwrap();
    assert!(row.signal);
    assert_eq!(
        (caller.ip, caller.registers[FP], caller.registers[SP]),
        (interrupted, 0xb0, 0x9000)
    );
    let walk = unwinder.walk(&here, &regs, &memory, 2);
    let last = walk.steps.last().copied().unwrap();
    assert_eq!(last.instruction(), interrupted as usize, "it did not call");
}

/// Code without tables at 0x1000..0x2000.
struct Bare;

impl Code for Bare {
    fn is_code(&self, address: usize) -> bool {
        (0x1000..0x2000).contains(&address)
    }
    fn follows_call(&self, address: usize) -> bool {
        address.is_multiple_of(2)
    }
    fn file_at(&self, _: usize) -> Option<(usize, u64)> {
        None
    }
    fn table_at(&self, _: usize) -> Option<Table> {
        None
    }
}

#[test]
fn without_tables_frame_pointers_lead_on() {
    let walk = |rbp: u64, words: &[(usize, u64)]| {
        let regs = registers(0x1050, 0x8000, rbp);
        let memory = |at: usize| words.iter().find(|(a, _)| *a == at).map(|(_, word)| *word);
        let walk = Unwinder::default().walk(&Bare, &regs, &memory, 9);
        walk.steps.iter().map(|step| step.ip).collect::<Vec<_>>()
    };
    let chain = [
        (0x8000, 0x1100),
        (0x8010, 0x8030),
        (0x8018, 0x1200),
        (0x8030, 0),
        (0x8038, 0x1300),
    ];
    // It has not made its frame: its caller is on top of the stack.
    assert_eq!(walk(0x8010, &chain), [0x1050, 0x1100, 0x1200, 0x1300]);
    // What is on top comes after no call.
    let mut made = chain;
    made[0].1 = 0x1101;
    assert_eq!(walk(0x8010, &made), [0x1050, 0x1200, 0x1300]);
    // A chain that leads down, or nowhere.
    made[1].1 = 0x8008;
    assert_eq!(walk(0x8010, &made), [0x1050, 0x1200]);
    assert_eq!(walk(3, &made), [0x1050]);
}

#[test]
fn damaged_tables_do_no_harm() {
    struct Damaged(Vec<u8>);
    impl ReadAt for Damaged {
        fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
            let from = usize::try_from(offset).map_err(|_| Errno::EIO)?;
            let bytes = self.0.get(from..from + into.len()).ok_or(Errno::EIO)?;
            into.copy_from_slice(bytes);
            Ok(())
        }
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
    }
    let here = Here(code_of_this_process());
    let (range, offset, path) = here
        .0
        .iter()
        .find(|(.., path)| path.contains("libc.so"))
        .expect("this process has a C library");
    let whole = std::fs::read(path).unwrap();
    let sound = Table::read(&Damaged(whole.clone())).expect("it has tables");
    let memory = |at: usize| Some((at as u64).wrapping_add(8));
    let (mut seed, mut rows) = (7u64, 0);
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize % below
    };
    for _ in 0..30 {
        let mut table = Table {
            image: sound.image.clone(),
            index: sound.index.clone(),
            frames: sound.frames.clone(),
        };
        for _ in 0..2000 {
            let bytes = if random(8) == 0 {
                &mut table.index.1
            } else {
                &mut table.frames.1
            };
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        for _ in 0..300 {
            let at = offset + random(range.len()) as u64;
            if let Some(row) = table.row(at) {
                rows += 1;
                let frame = Frame::new(&registers(0, 0x7000, 0));
                let _ = table.caller(&row, &frame, &memory);
            }
        }
    }
    assert!(rows > 1000, "most of the tables are sound: {rows}");
}
