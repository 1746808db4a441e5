//! Backtraces of the program's threads: where each is in the kernel, what it waits for, where it is in the program.
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;

use machine::context::Registers;

use super::symbols::{self, Place};
use crate::mm::AddressSpace;
use crate::mm::vma::VmProt;
use crate::process::Process;
use crate::thread::{LinuxThread, NO_SYSCALL};
use crate::trace::json_string;

/// The most frames of the program that are walked.
const MAX_FRAMES: usize = 64;
/// How far up the stack return addresses are looked for where frame pointers end, in words.
const SCAN_WORDS: usize = 512;

/// One frame of the kernel.
#[derive(Clone, Debug)]
pub struct KernelFrame {
    /// The address of the call, or of the instruction where it stopped.
    pub address: usize,
    /// Function and distance from its start.
    pub symbol: Option<(String, u64)>,
}

/// One frame of the program.
#[derive(Clone, Debug)]
pub struct ProgramFrame {
    /// The instruction, or the return address.
    pub address: usize,
    /// It was found by frame pointers; else it only looks like a return address.
    pub sure: bool,
    /// What is known of it.
    pub place: Place,
}

/// A thread's two stacks, innermost frame first.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The thread.
    pub tid: i32,
    /// It runs, so that only its program's part of a moment ago is known, or nothing.
    pub running: bool,
    /// In the kernel.
    pub kernel: Vec<KernelFrame>,
    /// In the program.
    pub program: Vec<ProgramFrame>,
}

/// Whether the instruction that ends at `at` may be a call: `E8` with a 32-bit distance, or `FF /2`.
pub(super) fn follows_call(mm: &AddressSpace, at: usize) -> bool {
    let mut bytes = [0; 7];
    if at < 7 || mm.peek(at - 7, &mut bytes).is_err() {
        return false;
    }
    let indirect = |n: usize| bytes[7 - n] == 0xff && bytes[8 - n] >> 3 & 7 == 2;
    bytes[2] == 0xe8 || indirect(2) || indirect(3) || indirect(6) || indirect(7)
}

fn is_code(mm: &AddressSpace, at: usize) -> bool {
    mm.prot_at(at).is_some_and(|p| p.contains(VmProt::EXEC))
}

/// The program's return addresses from those registers on, and whether each is sure.
fn walk(mm: &AddressSpace, regs: &Registers) -> Vec<(usize, bool)> {
    let (ip, sp) = (regs.rip as usize, regs.rsp as usize);
    let mut frames = alloc::vec![(ip, true)];
    // A function that has not made its frame: its caller is on top of the stack.
    let top = mm.peek_u64(sp).map_or(0, |word| word as usize);
    let (mut frame, mut low) = (regs.rbp as usize, sp);
    let mut chain = Vec::new();
    while chain.len() < MAX_FRAMES && frame >= low && frame.is_multiple_of(8) {
        let (Ok(next), Ok(back)) = (mm.peek_u64(frame), mm.peek_u64(frame.wrapping_add(8))) else {
            break;
        };
        if !is_code(mm, back as usize) {
            break;
        }
        chain.push((back as usize, true));
        low = frame + 16;
        frame = next as usize;
    }
    let first_frame = regs.rbp as usize;
    if chain.first().is_none_or(|(first, _)| *first != top)
        && is_code(mm, top)
        && follows_call(mm, top)
    {
        frames.push((top, true));
    } else if !chain.is_empty() {
        // A function that makes no frame, with words of its own on the stack: its caller is among those.
        scan(mm, sp..first_frame, &mut frames, 3);
    }
    frames.extend(chain);
    if frames.len() < 4 {
        scan(
            mm,
            low..low.saturating_add(8 * SCAN_WORDS),
            &mut frames,
            MAX_FRAMES,
        );
    }
    frames
}

/// Adds what looks like return addresses in the words of `range` and is not there yet, up to `most`.
fn scan(mm: &AddressSpace, range: Range<usize>, frames: &mut Vec<(usize, bool)>, most: usize) {
    let end = range.end.min(range.start.saturating_add(8 * SCAN_WORDS));
    let full = frames.len() + most;
    for at in (range.start..end).step_by(8) {
        let Ok(word) = mm.peek_u64(at) else {
            return;
        };
        let word = word as usize;
        if frames.len() < full.min(MAX_FRAMES)
            && is_code(mm, word)
            && follows_call(mm, word)
            && !frames.iter().any(|(seen, _)| *seen == word)
        {
            frames.push((word, false));
        }
    }
}

/// The stacks of the thread `tid`; `None` when there is no such thread.
pub fn of(process: &Process, tid: i32) -> Option<Stack> {
    let thread = process.thread(tid)?.sched()?;
    let mut found = thread.backtrace();
    let mut regs = thread.user_registers();
    if regs.is_none() {
        // It runs: ask it into the kernel, where it may be caught for a moment.
        for _ in 0..20 {
            thread.leave_user();
            let _ = sched::sleep_until_ns(machine::time::now_ns() + 100_000);
            regs = thread.user_registers();
            if regs.is_some() {
                found = thread.backtrace();
                break;
            }
        }
    }
    let mut stack = Stack {
        tid,
        running: regs.is_none(),
        kernel: Vec::new(),
        program: Vec::new(),
    };
    for (n, address) in found.iter().flat_map(|b| b.addresses()).enumerate() {
        // A return address lies behind its call.
        let address = if n == 0 { *address } else { address - 1 };
        stack.kernel.push(KernelFrame {
            address,
            symbol: symbols::kernel(address),
        });
    }
    if let Some(regs) = regs.or_else(|| paused_registers(process, tid)) {
        let frames = walk(&process.mm, &regs);
        let wanted: BTreeSet<usize> = frames
            .iter()
            .enumerate()
            .map(|(n, (at, _))| at.saturating_sub((n > 0).into()))
            .collect();
        let places = symbols::resolve(process, wanted);
        for (n, (address, sure)) in frames.into_iter().enumerate() {
            let looked_up = address.saturating_sub((n > 0).into());
            stack.program.push(ProgramFrame {
                address,
                sure,
                place: places.get(&looked_up).cloned().unwrap_or_default(),
            });
        }
    }
    Some(stack)
}

/// The registers of a thread that does not stop by itself.
fn paused_registers(process: &Process, tid: i32) -> Option<Registers> {
    super::pause::with_paused(process, None, |threads| {
        let thread = threads.iter().find(|thread| thread.tid == tid)?;
        Some(thread.state.regs)
    })
}

/// What a thread that waits is waiting in: the first function of the kernel that is not the waiting itself. Empty when it
/// does not wait.
pub fn wait_reason(thread: &LinuxThread) -> String {
    let Some(thread) = thread.sched() else {
        return String::new();
    };
    if thread.state() != sched::State::Parked {
        return String::new();
    }
    let Some(found) = thread.backtrace() else {
        return String::new();
    };
    let names = found
        .addresses()
        .iter()
        .filter_map(|address| symbols::kernel(address - 1));
    let mut last = String::new();
    for (name, _) in names {
        let waiting = ["sched::", "machine::", "<sched::", "<machine::", "core::"];
        if !waiting.iter().any(|room| name.starts_with(room)) {
            return name;
        }
        last = name;
    }
    last
}

/// The name of the system call a thread is in, or an empty string.
pub fn syscall_name(thread: &LinuxThread) -> &'static str {
    match thread.syscall().0 {
        NO_SYSCALL => "",
        number => u32::try_from(number)
            .ok()
            .and_then(crate::syscalls::table::info)
            .map_or("unknown", |info| info.name),
    }
}

impl Stack {
    /// As JSON: `{"tid":5,"running":false,"kernel":[...],"program":[...]}`.
    pub fn json(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            "{{\"tid\":{},\"running\":{},\"kernel\":[",
            self.tid, self.running
        );
        for (n, frame) in self.kernel.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(out, "{comma}{{\"address\":\"{:#x}\"", frame.address);
            symbol_json(&mut out, frame.symbol.as_ref(), "offset");
            out.push('}');
        }
        out.push_str("],\"program\":[");
        for (n, frame) in self.program.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(
                out,
                "{comma}{{\"address\":\"{:#x}\",\"sure\":{},\"file\":",
                frame.address, frame.sure
            );
            json_string(&mut out, &frame.place.file);
            let _ = write!(out, ",\"offset\":{}", frame.place.offset);
            symbol_json(&mut out, frame.place.symbol.as_ref(), "symbol_offset");
            out.push('}');
        }
        out.push_str("]}");
        out
    }
}

fn symbol_json(out: &mut String, symbol: Option<&(String, u64)>, key: &str) {
    match symbol {
        Some((name, offset)) => {
            out.push_str(",\"symbol\":");
            json_string(out, name);
            let _ = write!(out, ",\"{key}\":{offset}");
        }
        None => out.push_str(",\"symbol\":null"),
    }
}

/// `/api/threads`: a JSON array of the program's threads.
pub fn threads_json(process: &Process) -> String {
    let mut out = String::from("[");
    for (n, thread) in process.threads().iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        thread_json(&mut out, thread);
    }
    out.push(']');
    out
}

fn thread_json(out: &mut String, thread: &Arc<LinuxThread>) {
    let _ = write!(out, "{{\"tid\":{},\"name\":", thread.tid);
    json_string(out, &thread.comm_text());
    if let Some(sched) = thread.sched() {
        let state = match sched.state() {
            sched::State::Runnable => "running",
            sched::State::Parked => "waiting",
            sched::State::Dead => "ended",
        };
        let _ = write!(
            out,
            ",\"state\":\"{state}\",\"cpu\":{},\"nice\":{},\"cpu_ns\":{},\"user_ns\":{},\"system_ns\":{}",
            sched.cpu(),
            sched.nice(),
            sched.cpu_ns(),
            sched.user_ns(),
            sched.system_ns(),
        );
    }
    out.push_str(",\"wait\":");
    json_string(out, &wait_reason(thread));
    out.push_str(",\"syscall\":");
    json_string(out, syscall_name(thread));
    out.push('}');
}
