//! Walking a program's stack: who called the code that it is in.
//!
//! Distributions build their programs without frame pointers. Their files carry tables instead ([`table`]), which are used
//! where there are any. Code without tables, as Go's and that of JIT compilers, is walked by frame pointers.
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use gimli::Register;
use machine::context::Registers;

use super::MappedFile;
use crate::mm::AddressSpace;
use crate::mm::vma::VmProt;

mod table;

pub use table::Memory;
use table::{Row, Table};

/// Instructions whose rows are remembered.
const MAX_ROWS: usize = 65_536;
/// The frame pointer, `rbp`, and the stack pointer, `rsp`, by DWARF's numbers (System V ABI for x86-64, figure 3.36).
const FP: usize = 6;
const SP: usize = 7;

/// The registers of one function on the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    ip: u64,
    registers: [u64; 16],
}

impl Frame {
    fn new(regs: &Registers) -> Frame {
        let r = regs;
        Frame {
            ip: r.rip,
            registers: [
                r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
                r.r12, r.r13, r.r14, r.r15,
            ],
        }
    }

    fn get(&self, register: Register) -> Option<u64> {
        self.registers.get(usize::from(register.0)).copied()
    }

    fn sp(&self) -> usize {
        self.registers[SP] as usize
    }
}

/// One function on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it is, or where it goes on when what it has called returns.
    pub ip: usize,
    /// It did not call: it was interrupted at this instruction.
    pub exact: bool,
}

impl Step {
    /// An address within the instruction that it is at: a return address lies behind its call.
    pub fn instruction(&self) -> usize {
        self.ip.saturating_sub(usize::from(!self.exact))
    }
}

/// A walk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The functions, innermost first. The first is the one that was interrupted, whatever is there.
    pub steps: Vec<Step>,
    /// It came to the outermost function.
    pub whole: bool,
    /// The stack pointer of the last one.
    pub sp: usize,
}

/// What a walk has to know of a program.
pub trait Code {
    /// Whether code is there.
    fn is_code(&self, address: usize) -> bool;
    /// Whether the instruction that ends there may be a call.
    fn follows_call(&self, address: usize) -> bool;
    /// The file that is mapped there, by a number of its own, and the byte of it.
    fn file_at(&self, address: usize) -> Option<(usize, u64)>;
    /// The unwind tables of the file that is mapped there.
    fn table_at(&self, address: usize) -> Option<Table>;
}

impl Code for AddressSpace {
    fn is_code(&self, address: usize) -> bool {
        self.prot_at(address)
            .is_some_and(|prot| prot.contains(VmProt::EXEC))
    }

    fn follows_call(&self, at: usize) -> bool {
        // `E8` with a 32-bit distance, or `FF /2`.
        let mut bytes = [0; 7];
        if at < 7 || self.peek(at - 7, &mut bytes).is_err() {
            return false;
        }
        let indirect = |n: usize| bytes[7 - n] == 0xff && bytes[8 - n] >> 3 & 7 == 2;
        bytes[2] == 0xe8 || indirect(2) || indirect(3) || indirect(6) || indirect(7)
    }

    fn file_at(&self, address: usize) -> Option<(usize, u64)> {
        let (pager, offset) = self.object_at(address)?;
        Some((pager.id(), offset))
    }

    fn table_at(&self, address: usize) -> Option<Table> {
        Table::read(&MappedFile(self.object_at(address)?.0))
    }
}

/// What is known of an instruction, and whose table says so.
type Known = (Arc<Table>, Arc<Row>);

/// Walks stacks, and remembers what it has learned of the program's code meanwhile.
#[derive(Default)]
pub struct Unwinder {
    tables: BTreeMap<usize, Option<Arc<Table>>>,
    rows: BTreeMap<usize, Option<Known>>,
}

impl Unwinder {
    /// Walks from those registers on, to `most` functions at the most.
    pub fn walk(
        &mut self,
        code: &dyn Code,
        regs: &Registers,
        memory: &Memory,
        most: usize,
    ) -> Walk {
        let mut frame = Frame::new(regs);
        let mut step = Step {
            ip: frame.ip as usize,
            exact: true,
        };
        let mut walk = Walk {
            steps: alloc::vec![step],
            whole: false,
            sp: frame.sp(),
        };
        while walk.steps.len() < most {
            let (caller, signal) = match self.row(code, step.instruction()) {
                Some((table, row)) => {
                    let caller = table.caller(&row, &frame, memory);
                    walk.whole = caller.is_none();
                    (caller, row.signal)
                }
                None => (by_frame_pointer(code, &frame, step.exact, memory), false),
            };
            let Some(caller) = caller.filter(|caller| code.is_code(caller.ip as usize)) else {
                break;
            };
            // A stack grows downwards, but a signal handler may have one of its own.
            if caller.sp() <= frame.sp() && !signal {
                break;
            }
            frame = caller;
            step = Step {
                ip: frame.ip as usize,
                exact: signal,
            };
            walk.steps.push(step);
            walk.sp = frame.sp();
        }
        walk
    }

    fn row(&mut self, code: &dyn Code, address: usize) -> Option<Known> {
        if let Some(known) = self.rows.get(&address) {
            return known.clone();
        }
        let found = code.file_at(address).and_then(|(file, offset)| {
            let read = || code.table_at(address).map(Arc::new);
            let table = self.tables.entry(file).or_insert_with(read).clone()?;
            let row = table.row(offset)?;
            Some((table, row))
        });
        if self.rows.len() < MAX_ROWS {
            self.rows.insert(address, found.clone());
        }
        found
    }
}

/// The caller by frame pointers. Of a function that was interrupted before it has made its frame, and of one that makes
/// none and has nothing on the stack, the return address is on top.
fn by_frame_pointer(
    code: &dyn Code,
    frame: &Frame,
    innermost: bool,
    memory: &Memory,
) -> Option<Frame> {
    let (sp, fp) = (frame.sp(), frame.registers[FP] as usize);
    let mut caller = frame.clone();
    let made = (fp >= sp && fp.is_multiple_of(8))
        .then(|| Some((memory(fp)?, memory(fp.checked_add(8)?)?)))
        .flatten();
    if innermost
        && let Some(top) = memory(sp)
        && made.is_none_or(|(_, back)| back != top)
        && code.is_code(top as usize)
        && code.follows_call(top as usize)
    {
        caller.ip = top;
        caller.registers[SP] = sp as u64 + 8;
        return Some(caller);
    }
    let (outer, back) = made?;
    caller.ip = back;
    caller.registers[FP] = outer;
    caller.registers[SP] = fp as u64 + 16;
    Some(caller)
}

#[cfg(test)]
mod tests;
