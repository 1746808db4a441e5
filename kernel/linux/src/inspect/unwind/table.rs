//! The unwind tables of one file: how each of its functions gives back its caller's registers.
//!
//! Compilers leave them in `.eh_frame` for exceptions (System V ABI for x86-64 section 4.2.4; DWARF 5 section 6.4), found
//! through the sorted index that the linker makes (Linux Standard Base, `.eh_frame_hdr`). `gimli` reads both.
use alloc::sync::Arc;
use alloc::vec::Vec;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EhFrameOffset, Encoding, EvaluationResult,
    Expression, LittleEndian, Location, Pointer, Register, RegisterRule, UnwindContext,
    UnwindSection, Value,
};

use super::{Frame, SP};
use crate::exec::elf::{Image, ReadAt, zeroed};

/// The most of a file's tables that is read, in bytes.
const MAX_TABLES: usize = 16 << 20;
/// Operations that one expression of a table may take: a damaged one may loop.
const MAX_OPERATIONS: u32 = 1000;
/// The size of an address.
const ADDRESS: u8 = 8;

type Bytes<'a> = gimli::EndianSlice<'a, LittleEndian>;

/// The tables of one file.
pub struct Table {
    pub(super) image: Image,
    /// Address and bytes of the index.
    pub(super) index: (u64, Vec<u8>),
    /// Address and bytes of the tables.
    pub(super) frames: (u64, Vec<u8>),
}

/// What a table says of one instruction.
pub struct Row {
    frame: CfaRule<usize>,
    saved: Vec<(Register, RegisterRule<usize>)>,
    caller: Register,
    encoding: Encoding,
    /// The instruction belongs to what the kernel makes a signal handler return to: the frame above was interrupted,
    /// and did not call.
    pub signal: bool,
}

/// The word at an address, where it is known.
pub type Memory<'a> = dyn Fn(usize) -> Option<u64> + 'a;

impl Table {
    /// Reads the tables of `file`; `None` for one that has none, or damaged or very large ones.
    pub fn read(file: &dyn ReadAt) -> Option<Table> {
        let image = Image::parse(file).ok()?;
        let (vaddr, size) = image.unwind_index?;
        let index = bytes_at(&image, file, vaddr, size)?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(vaddr as u64);
        let header = EhFrameHdr::new(&index, LittleEndian).parse(&bases, ADDRESS);
        let Pointer::Direct(frames_at) = header.ok()?.eh_frame_ptr() else {
            return None;
        };
        // The end is not said, but what ends the segment lies behind it.
        let frames = bytes_at(&image, file, usize::try_from(frames_at).ok()?, usize::MAX)?;
        Some(Table {
            image,
            index: (vaddr as u64, index),
            frames: (frames_at, frames),
        })
    }

    /// What it says of the instruction at a byte of the file.
    pub fn row(&self, file_offset: u64) -> Option<Arc<Row>> {
        let address = self.image.address_of(file_offset)?;
        let bases = BaseAddresses::default()
            .set_eh_frame_hdr(self.index.0)
            .set_eh_frame(self.frames.0);
        let header = EhFrameHdr::new(&self.index.1, LittleEndian);
        let header = header.parse(&bases, ADDRESS).ok()?;
        let frames = self.frames();
        let cie = |section: &EhFrame<_>, bases: &_, offset: EhFrameOffset| {
            section.cie_from_offset(bases, offset)
        };
        let Pointer::Direct(at) = header.table()?.lookup(address, &bases).ok()? else {
            return None;
        };
        let offset = usize::try_from(at.checked_sub(self.frames.0)?).ok()?;
        let entry = frames.fde_from_offset(&bases, offset.into(), cie).ok()?;
        let mut context = UnwindContext::new();
        let row = entry
            .unwind_info_for_address(&frames, &bases, &mut context, address)
            .ok()?;
        Some(Arc::new(Row {
            frame: row.cfa().clone(),
            saved: row
                .registers()
                .map(|(n, rule)| (*n, rule.clone()))
                .collect(),
            caller: entry.cie().return_address_register(),
            encoding: entry.cie().encoding(),
            signal: entry.is_signal_trampoline(),
        }))
    }

    fn frames(&self) -> EhFrame<Bytes<'_>> {
        let mut frames = EhFrame::new(&self.frames.1, LittleEndian);
        frames.set_address_size(ADDRESS);
        frames
    }

    /// The caller's frame of `frame`; `None` at the outermost one, and where memory is not known.
    pub(super) fn caller(&self, row: &Row, frame: &Frame, memory: &Memory) -> Option<Frame> {
        let run = |expression: &gimli::UnwindExpression<usize>, first: Option<u64>| {
            let expression = expression.get(&self.frames()).ok()?;
            evaluate(expression, row.encoding, first, frame, memory)
        };
        let base = match &row.frame {
            CfaRule::RegisterAndOffset { register, offset } => {
                frame.get(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => run(expression, None)?,
        };
        let word = |at: u64| memory(usize::try_from(at).ok()?);
        let mut caller = frame.clone();
        // In System V's ABI the frame's base is the caller's stack pointer.
        caller.registers[SP] = base;
        let mut ip = None;
        for (register, rule) in &row.saved {
            let value = match rule {
                RegisterRule::SameValue => continue,
                RegisterRule::Offset(offset) => word(base.wrapping_add_signed(*offset)),
                RegisterRule::ValOffset(offset) => Some(base.wrapping_add_signed(*offset)),
                RegisterRule::Register(other) => frame.get(*other),
                RegisterRule::Expression(expression) => run(expression, Some(base)).and_then(word),
                RegisterRule::ValExpression(expression) => run(expression, Some(base)),
                RegisterRule::Constant(value) => Some(*value),
                // Of the return address: there is no caller.
                _ => None,
            };
            if *register == row.caller {
                ip = value;
            } else if let (Some(slot), Some(value)) =
                (caller.registers.get_mut(usize::from(register.0)), value)
            {
                *slot = value;
            }
        }
        caller.ip = ip.filter(|ip| *ip != 0)?;
        Some(caller)
    }
}

/// The bytes of the file from `vaddr` on: `size` of them, or less where the segment ends.
fn bytes_at(image: &Image, file: &dyn ReadAt, vaddr: usize, size: usize) -> Option<Vec<u8>> {
    let segment = image
        .segments
        .iter()
        .find(|segment| (segment.vaddr..segment.vaddr + segment.file_size).contains(&vaddr))?;
    let within = vaddr - segment.vaddr;
    let len = size.min(segment.file_size - within);
    if len > MAX_TABLES {
        return None;
    }
    let mut bytes = zeroed(len).ok()?;
    file.read_exact_at(segment.offset + within as u64, &mut bytes)
        .ok()?;
    Some(bytes)
}

/// Runs an expression of a table (DWARF 5 section 2.5): some frames cannot be told by an offset, those of signals among them.
fn evaluate(
    expression: Expression<Bytes<'_>>,
    encoding: Encoding,
    first: Option<u64>,
    frame: &Frame,
    memory: &Memory,
) -> Option<u64> {
    let mut evaluation = expression.evaluation(encoding);
    evaluation.set_max_iterations(MAX_OPERATIONS);
    if let Some(first) = first {
        evaluation.set_initial_value(first);
    }
    let mut state = evaluation.evaluate().ok()?;
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresMemory { address, size, .. } if size == ADDRESS => {
                let value = memory(usize::try_from(address).ok()?)?;
                evaluation.resume_with_memory(Value::Generic(value)).ok()?
            }
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = frame.get(register)?;
                evaluation
                    .resume_with_register(Value::Generic(value))
                    .ok()?
            }
            _ => return None,
        };
    }
    match evaluation.as_result().last()?.location {
        Location::Address { address } => Some(address),
        _ => None,
    }
}
