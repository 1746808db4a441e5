//! Ring 3: a page of machine code with a few tiny programs.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use machine::context::{Trap, UserContext};
use machine::mem::Frame;
use machine::user::{self, Access, Fault};
use machine::vm::{PageTable, Prot};
use machine::{task, time};

/// The programs, assembled:
///
/// 0x00: `eax=0x1234; rdi=rsp; syscall; if rax != 77 ud2; vmovdqu ymm3,[rdi]; eax=0x1235; syscall; vmovdqu [rdi+32],ymm3;
/// eax=0x1236; syscall; wrfsbase rsi; mov rax,fs:[0]; mov byte [0x10],1`; 0x3f: `inc qword [rdi]` forever;
/// 0x44: divides by zero; 0x48: `eax=39; syscall` forever.
#[rustfmt::skip]
const CODE: &[u8] = &[  0xb8, 0x34, 0x12, 0x00, 0x00, 0x48, 0x89, 0xe7, 0x0f, 0x05, 0x48, 0x83,  0xf8, 0x4d, 0x75, 0x2d, 0xc5, 0xfe, 0x6f, 0x1f, 0xb8, 0x35, 0x12, 0x00,  0x00, 0x0f, 0x05, 0xc5, 0xfe, 0x7f, 0x5f, 0x20, 0xb8, 0x36, 0x12, 0x00,  0x00, 0x0f, 0x05, 0xf3, 0x48, 0x0f, 0xae, 0xd6, 0x64, 0x48, 0x8b, 0x04,  0x25, 0x00, 0x00, 0x00, 0x00, 0xc6, 0x04, 0x25, 0x10, 0x00, 0x00, 0x00,  0x01, 0x0f, 0x0b, 0x48, 0xff, 0x07, 0xeb, 0xfb, 0x31, 0xc9, 0xf7, 0xf1,  0xb8, 0x27, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xeb, 0xf7];

pub const TEXT: usize = 0x40_0000;
pub const COUNT_FOREVER: usize = TEXT + 0x3f;
const DIVIDE: usize = TEXT + 0x44;
const CALL_FOREVER: usize = TEXT + 0x48;
pub const DATA: usize = 0x7fff_0000_0000;
const LAZY: usize = 0x5000_0000;

fn frame() -> Frame {
    Frame::alloc_zeroed().unwrap_or_else(|_| panic!("no frame"))
}

/// The address space of all tests, with two pages mapped.
pub fn space() -> &'static PageTable {
    static SPACE: machine::sync::Once<PageTable> = machine::sync::Once::new();
    SPACE.call_once(|| {
        let table = PageTable::new().unwrap_or_else(|_| panic!("no page table"));
        let text = frame();
        text.write(0, CODE);
        assert_eq!(table.map(TEXT, text, Prot::RX), Ok(()));
        assert_eq!(table.map(DATA, frame(), Prot::RW), Ok(()));
        table
    })
}

fn bring_in(addr: usize, access: Access) -> Result<(), Fault> {
    if addr & !0xfff != LAZY || access == Access::Exec {
        return Err(Fault);
    }
    // The handler may block: come back through a switch to another task.
    let home = task::current();
    let helper = super::tasks::spawn(move || {
        space()
            .map(LAZY, frame(), Prot::RW)
            .unwrap_or_else(|e| panic!("{e:?}"));
        task::exit_to(home)
    });
    task::switch_to(&helper);
    Ok(())
}

pub fn copies() {
    user::set_fault_handler(bring_in);
    space().activate();
    assert_eq!(user::write_u64(DATA + 8, 0x1122_3344_5566_7788), Ok(()));
    assert_eq!(user::read_u32(DATA + 10), Ok(0x3344_5566));
    assert_eq!(
        user::write_u8(TEXT, 0),
        Err(Fault),
        "wrote to read-only memory"
    );
    assert_eq!(user::read_u8(0), Err(Fault));
    assert_eq!(user::read_u8(usize::MAX - 4), Err(Fault));
    assert_eq!(user::read_u8(0xffff_8000_0020_0000), Err(Fault));
    assert_eq!(user::write_u32(LAZY + 100, 5), Ok(()));
    assert_eq!(user::cmpxchg_u32(LAZY + 100, 5, 6), Ok(Ok(5)));
    assert_eq!(user::cmpxchg_u32(LAZY + 100, 5, 7), Ok(Err(6)));
    assert_eq!(user::load_u32(LAZY + 104), Ok(0));
    assert_eq!(user::load_u32(0x1000), Err(Fault));
    let big = [7u8; 3000];
    assert_eq!(user::copy_to_user(LAZY + 500, &big), Ok(()));
    let mut back = [0u8; 3000];
    assert_eq!(user::copy_from_user(LAZY + 500, &mut back), Ok(()));
    assert_eq!(back, big);
    assert_eq!(
        user::copy_to_user(LAZY + 2000, &big),
        Err(Fault),
        "wrote beyond a mapping"
    );
}

fn started_at(rip: usize) -> UserContext {
    let mut context = UserContext::new();
    context.regs.rip = rip as u64;
    context.regs.rsp = (DATA + 0x800) as u64;
    context
}

/// Runs until something else than an interrupt.
pub fn run(context: &mut UserContext) -> Trap {
    loop {
        match context.run() {
            Trap::Interrupt => {}
            trap => return trap,
        }
    }
}

pub fn calls_and_faults() {
    let mut context = started_at(TEXT);
    assert_eq!(run(&mut context), Trap::Syscall);
    assert_eq!(context.syscall_number(), 0x1234);
    assert_eq!(context.syscall_args()[0], DATA + 0x800);
    context.set_return(77);
    context.regs.rdi = DATA as u64;
    assert_eq!(user::copy_to_user(DATA, &[0xab; 32]), Ok(()));
    assert_eq!(run(&mut context), Trap::Syscall);
    assert_eq!(context.syscall_number(), 0x1235);
    assert_eq!(run(&mut context), Trap::Syscall);
    let mut stored = [0; 32];
    assert_eq!(user::copy_from_user(DATA + 32, &mut stored), Ok(()));
    assert_eq!(stored, [0xab; 32]);
    // ymm3 low half in the legacy area, high half in the AVX component at 576.
    let state = context.fp_state();
    assert_eq!(state[160 + 48..160 + 64], [0xab; 16]);
    assert_eq!(state[576 + 48..576 + 64], [0xab; 16]);
    let copy = alloc::vec::Vec::from(state);
    assert_eq!(context.set_fp_state(&copy), Ok(()));
    context.regs.rsi = DATA as u64;
    // Page fault: a write to 0x10, after FS was set by the program itself.
    assert_eq!(
        run(&mut context),
        Trap::Exception {
            vector: 14,
            error: 6,
            addr: 0x10
        }
    );
    assert_eq!(context.regs.rax, 0xabab_abab_abab_abab);
    assert_eq!(context.fs_base(), DATA);
    context.regs.rip = (TEXT + 0x3d) as u64;
    assert_eq!(
        run(&mut context),
        Trap::Exception {
            vector: 6,
            error: 0,
            addr: 0
        }
    );
    context.regs.rip = DIVIDE as u64;
    assert_eq!(
        run(&mut context),
        Trap::Exception {
            vector: 0,
            error: 0,
            addr: 0
        }
    );
    context.regs.rip = DATA as u64;
    assert_eq!(
        run(&mut context),
        Trap::Exception {
            vector: 14,
            error: 0x15,
            addr: DATA
        }
    );
    context.regs.rip = 0xffff_8000_0000_0000;
    assert!(matches!(
        run(&mut context),
        Trap::Exception { vector: 14, .. }
    ));
    context.regs.rip = 0x8000_0000_0000;
    assert!(matches!(
        run(&mut context),
        Trap::Exception { vector: 14, .. }
    ));
    // By way of IRET: RCX is not RIP.
    context.regs.rip = (TEXT + 0x14) as u64;
    context.regs.rcx = 5;
    context.set_rflags(!0x100);
    assert_eq!(run(&mut context), Trap::Syscall);
    assert_eq!(context.syscall_number(), 0x1235);
    assert_eq!(context.rflags() & 0x3000, 0, "a program got I/O privilege");
    let mut bad = copy.clone();
    bad[520] = 0xff; // compacted format
    bad[24..28].fill(0xff);
    assert_eq!(context.set_fp_state(&bad), Ok(()));
    context.regs.rip = (TEXT + 0x14) as u64;
    assert_eq!(
        run(&mut context),
        Trap::Syscall,
        "a mad floating-point state"
    );
}

pub fn vectors_follow_the_task() {
    // Two tasks, each with a pattern in ymm3, taking turns at the system call between load and store.
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let home = task::current();
    let tasks: [Arc<task::Task>; 2] = core::array::from_fn(|i| {
        let weak = Arc::downgrade(&home);
        super::tasks::spawn(move || {
            space().activate();
            let pattern = [0x11 * (i as u8 + 1); 32];
            let at = DATA + 0x100 + i * 0x100;
            assert_eq!(user::copy_to_user(at, &pattern), Ok(()));
            let back = || {
                weak.upgrade()
                    .unwrap_or_else(|| panic!("the test has ended"))
            };
            for _ in 0..50 {
                let mut context = started_at(TEXT);
                assert!(context.set_fs_base(0x1000 + i));
                assert_eq!(run(&mut context), Trap::Syscall);
                context.set_return(77);
                context.regs.rdi = at as u64;
                assert_eq!(run(&mut context), Trap::Syscall);
                task::switch_to(&{ back() });
                assert_eq!(run(&mut context), Trap::Syscall);
                assert_eq!(context.fs_base(), 0x1000 + i);
                let mut stored = [0; 32];
                assert_eq!(user::copy_from_user(at + 32, &mut stored), Ok(()));
                assert_eq!(stored, pattern, "vector registers mixed up");
            }
            DONE.fetch_add(1, Ordering::Relaxed);
            let home = back();
            drop(weak);
            task::exit_to(home)
        })
    });
    for _ in 0..51 {
        for task in &tasks {
            if DONE.load(Ordering::Relaxed) < 2 {
                task::switch_to(task);
            }
        }
    }
    assert_eq!(DONE.load(Ordering::Relaxed), 2);
}

pub fn interrupted() {
    let mut context = started_at(COUNT_FOREVER);
    context.regs.rdi = (DATA + 0x400) as u64;
    // On a busy host the timer may expire before the program has run at all: try again.
    let limit = time::now_ns() + 10_000_000_000;
    loop {
        let start = time::now_ns();
        time::timer::arm(start + 5_000_000);
        assert_eq!(context.run(), Trap::Interrupt);
        let took = time::now_ns() - start;
        assert!(took > 4_500_000, "interrupted after {took} ns");
        if user::read_u64(DATA + 0x400).is_ok_and(|n| n > 0) {
            break;
        }
        assert!(start < limit, "the program does not run");
    }
    machine::cpu::kick_self();
    assert_eq!(context.run(), Trap::Interrupt, "a kick was lost");
}

pub fn speed() {
    let mut context = started_at(CALL_FOREVER);
    let start = time::now_ns();
    for _ in 0..100_000 {
        assert_eq!(run(&mut context), Trap::Syscall);
        context.set_return(1);
    }
    machine::println!("  {} ns a system call", (time::now_ns() - start) / 100_000);
    let mut page = Box::new([0u8; 4096]);
    let start = time::now_ns();
    for _ in 0..1000 {
        assert_eq!(user::copy_from_user(DATA, &mut page[..]), Ok(()));
    }
    machine::println!(
        "  {} ns to copy a page from the program",
        (time::now_ns() - start) / 1000
    );
    let start = time::now_ns();
    for _ in 0..1000 {
        page.copy_within(0..2048, 2048);
    }
    machine::println!(
        "  {} ns to copy half a page in the kernel",
        (time::now_ns() - start) / 1000
    );
    let start = time::now_ns();
    for _ in 0..1000 {
        drop(core::hint::black_box(Frame::alloc_zeroed()));
    }
    machine::println!(
        "  {} ns for a zeroed frame",
        (time::now_ns() - start) / 1000
    );
    let start = time::now_ns();
    for i in 0..10_000 {
        drop(core::hint::black_box(Box::new([i; 4])));
    }
    machine::println!(
        "  {} ns for a small heap object",
        (time::now_ns() - start) / 10_000
    );
    // A page fault: the program touches a page, gets a new frame, and goes on.
    let mut context = started_at(COUNT_FOREVER);
    let start = time::now_ns();
    for i in 0..500 {
        let page = 0x7000_0000 + i * 0x1000;
        context.regs.rdi = page as u64;
        // The emulator reads before it writes, so the error code may be either.
        assert!(
            matches!(run(&mut context), Trap::Exception { vector: 14, addr, .. } if addr == page)
        );
        assert_eq!(space().map(page, frame(), Prot::RW), Ok(()));
    }
    machine::println!("  {} ns a page fault", (time::now_ns() - start) / 500);
    let start = time::now_ns();
    space().unmap(0x7000_0000..0x7020_0000, &mut |_, frame, _| drop(frame));
    machine::println!("  {} ns to unmap a page", (time::now_ns() - start) / 500);
}
