//! Backtraces of the program's threads: where each is in the kernel, what it waits for, where it is in the program.
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;

use machine::backtrace::Backtrace;
use machine::context::Registers;

use super::symbols::{self, Place};
use super::unwind::{Code, Step, Unwinder};
use crate::mm::AddressSpace;
use crate::process::Process;
use crate::report::threads::KERNEL_IDS;
use crate::thread::{LinuxThread, NO_SYSCALL};
use crate::trace::json_string;

/// The most frames of the program that are walked.
const MAX_FRAMES: usize = 64;
/// How far up the stack return addresses are looked for where a walk breaks off, in words.
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
    /// It was found by unwind tables or frame pointers; else it only looks like a return address.
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

/// The program's functions from those registers on, and whether each is sure.
fn walk(mm: &AddressSpace, regs: &Registers) -> Vec<(Step, bool)> {
    let memory = |address| mm.peek_u64(address).ok();
    let walk = Unwinder::default().walk(mm, regs, &memory, MAX_FRAMES);
    let mut frames: Vec<(Step, bool)> = walk.steps.iter().map(|step| (*step, true)).collect();
    if !walk.whole && frames.len() < 4 {
        let end = walk.sp.saturating_add(8 * SCAN_WORDS);
        scan(mm, walk.sp..end, &mut frames);
    }
    frames
}

/// Adds what looks like return addresses in the words of `range` and is not there yet.
fn scan(mm: &AddressSpace, range: Range<usize>, frames: &mut Vec<(Step, bool)>) {
    for at in range.step_by(8) {
        let Ok(word) = mm.peek_u64(at) else {
            return;
        };
        let ip = word as usize;
        if frames.len() < MAX_FRAMES
            && mm.is_code(ip)
            && mm.follows_call(ip)
            && !frames.iter().any(|(seen, _)| seen.ip == ip)
        {
            frames.push((Step { ip, exact: false }, false));
        }
    }
}

/// The stacks of the thread `tid`; `None` when there is no such thread. The kernel's own have the ids of `/threads`.
pub fn of(process: &Process, tid: i32) -> Option<Stack> {
    if let Some(id) = u64::try_from(tid).ok()?.checked_sub(KERNEL_IDS + 1) {
        return of_kernel(tid, id + 1);
    }
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
    stack.kernel = kernel_frames(found.as_ref());
    if let Some(regs) = regs.or_else(|| paused_registers(process, tid)) {
        let frames = walk(&process.mm, &regs);
        let wanted: BTreeSet<usize> = frames.iter().map(|(step, _)| step.instruction()).collect();
        let places = symbols::resolve(process, wanted);
        for (step, sure) in frames {
            let place = places.get(&step.instruction()).cloned();
            stack.program.push(ProgramFrame {
                address: step.ip,
                sure,
                place: place.unwrap_or_default(),
            });
        }
    }
    Some(stack)
}

/// The stack of the kernel's own thread `id`, which is shown as `tid`.
fn of_kernel(tid: i32, id: u64) -> Option<Stack> {
    let thread = sched::find(id).filter(|thread| thread.ext::<LinuxThread>().is_none())?;
    let found = thread.backtrace();
    Some(Stack {
        tid,
        running: found.is_none(),
        kernel: kernel_frames(found.as_ref()),
        program: Vec::new(),
    })
}

fn kernel_frames(found: Option<&Backtrace>) -> Vec<KernelFrame> {
    let addresses = found.into_iter().flat_map(Backtrace::addresses);
    let frame = |(n, address): (usize, &usize)| {
        // A return address lies behind its call.
        let address = if n == 0 { *address } else { address - 1 };
        KernelFrame {
            address,
            symbol: symbols::kernel(address),
        }
    };
    addresses.enumerate().map(frame).collect()
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
///
/// # Errors
/// `TooLarge` where they are more than an answer may hold.
pub fn threads_json(process: &Process) -> Result<String, store::Error> {
    let mut out = String::from("[");
    for (n, thread) in process.threads().iter().enumerate() {
        store::json::check_length(&out)?;
        sched::cond_resched();
        if n > 0 {
            out.push(',');
        }
        thread_json(&mut out, thread);
    }
    out.push(']');
    Ok(out)
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
