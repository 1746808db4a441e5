//! When the kernel itself fails: says what and where, stops the other CPUs, ends the machine.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch;
use crate::backtrace::{Backtrace, Symbol};
use crate::context::Registers;
use crate::power::{ExitReason, exit};

static PANICKING: AtomicBool = AtomicBool::new(false);

/// Straight to the serial port: no locks, no sinks.
struct Raw;

impl Write for Raw {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (i, line) in text.split('\n').enumerate() {
            if i > 0 {
                crate::console::write_raw(b"\r\n");
            }
            crate::console::write_raw(line.as_bytes());
        }
        Ok(())
    }
}

/// Takes the right to speak; a second failure on the way ends everything at once.
fn begin() {
    arch::irq_disable();
    if PANICKING.swap(true, Ordering::SeqCst) {
        crate::console::write_raw(b"\r\nfailed again while reporting a failure\r\n");
        exit(ExitReason::Panic);
    }
    arch::stop_others();
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    let _ = writeln!(
        Raw,
        "\nkernel panic on CPU {}: {}",
        arch::cpu_id(),
        info.message()
    );
    if let Some(at) = info.location() {
        let _ = writeln!(Raw, "  at {at}");
    }
    let _ = write!(Raw, "{}", Backtrace::capture());
    exit(ExitReason::Panic)
}

/// An exception in the kernel that nothing can be done about.
pub(crate) fn fatal_trap(name: &str, frame: &Registers, addr: usize) -> ! {
    begin();
    let r = frame;
    let _ = writeln!(
        Raw,
        "\nkernel fault on CPU {}: {name} (error {:#x}, address {addr:#x})\n  at {:#018x} {}",
        arch::cpu_id(),
        r.error,
        r.rip,
        Symbol(r.rip as usize),
    );
    for row in [
        [
            ("rax", r.rax),
            ("rbx", r.rbx),
            ("rcx", r.rcx),
            ("rdx", r.rdx),
        ],
        [
            ("rsi", r.rsi),
            ("rdi", r.rdi),
            ("rbp", r.rbp),
            ("rsp", r.rsp),
        ],
        [("r8 ", r.r8), ("r9 ", r.r9), ("r10", r.r10), ("r11", r.r11)],
        [
            ("r12", r.r12),
            ("r13", r.r13),
            ("r14", r.r14),
            ("r15", r.r15),
        ],
    ] {
        for (name, value) in row {
            let _ = write!(Raw, "  {name} {value:016x}");
        }
        let _ = writeln!(Raw);
    }
    let _ = write!(Raw, "{}", Backtrace::from_frame(r.rbp as usize));
    exit(ExitReason::Panic)
}
