//! The sampling profiler: where all CPUs spend their time, in the program and in the kernel.
//!
//! While a profile runs, each CPU's timer interrupts it so many times a second and notes what it came upon: the thread,
//! the kernel's frames, the program's registers and a piece of its stack. Samples are gathered from the CPUs a few times a
//! second, the program's stacks are walked ([`unwind`](super::unwind)), and equal ones added up; names are looked for at
//! the end.
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use errno::{Errno, Result};
use machine::context::Registers;
use machine::cpu::{MAX_CPUS, PerCpu};
use machine::sync::IrqLock;
use machine::time::{now_ns, wall_ns};

use super::pprof;
use super::symbols::{self, Place};
use super::unwind::Unwinder;
use crate::exec::elf::zeroed;
use crate::mm::AddressSpace;
use crate::mm::vma::VmProt;
use crate::process::Process;
use crate::thread::LinuxThread;
use crate::trace::json_string;

/// The most samples a second.
pub const MAX_HZ: u32 = 1000;
/// Frames of the program that are kept.
const PROGRAM_FRAMES: usize = 96;
/// Frames of the kernel that are kept.
const KERNEL_FRAMES: usize = machine::backtrace::DEPTH;
/// The most of the program's stack that a sample has, in bytes.
const STACK_BYTES: usize = 16 << 10;
/// The most memory that the stacks of one CPU's samples take, in bytes.
const STACKS_BYTES: usize = 2 << 20;
/// How often samples are taken off the CPUs.
const GATHER_NS: u64 = 200_000_000;
/// Different stacks that are told apart; samples of others are counted as lost.
const MAX_STACKS: usize = 16_384;

/// One sample as the interrupt leaves it.
struct Raw {
    thread: u64,
    kernel_len: usize,
    kernel: [usize; KERNEL_FRAMES],
    /// The program's registers, for a thread that has a program.
    program: Option<Registers>,
    stack_len: usize,
    /// The program's stack from its stack pointer up.
    stack: Box<[u8]>,
}

impl Raw {
    fn new(stack: usize) -> Result<Raw> {
        Ok(Raw {
            thread: 0,
            kernel_len: 0,
            kernel: [0; KERNEL_FRAMES],
            program: None,
            stack_len: 0,
            stack: zeroed(stack)?.into_boxed_slice(),
        })
    }

    /// The word of the copied stack at an address of the program.
    fn word(&self, address: usize) -> Option<u64> {
        let sp = self.program.as_ref()?.rsp as usize;
        let at = address.checked_sub(sp)?;
        let bytes = self.stack[..self.stack_len].get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// What one CPU has sampled since it was last looked at.
struct Ring {
    samples: Box<[Raw]>,
    len: usize,
    idle: u64,
    lost: u64,
}

static RINGS: PerCpu<IrqLock<Option<Ring>>> = PerCpu::new([const { IrqLock::new(None) }; MAX_CPUS]);
static RUNNING: AtomicBool = AtomicBool::new(false);

/// In the timer's interrupt.
fn sample(thread: Option<u64>) {
    let mut slot = RINGS.get().lock();
    let Some(ring) = slot.as_mut() else {
        return;
    };
    let Some(thread) = thread else {
        ring.idle += 1;
        return;
    };
    let Some(raw) = ring.samples.get_mut(ring.len) else {
        ring.lost += 1;
        return;
    };
    ring.len += 1;
    raw.thread = thread;
    raw.kernel_len = 0;
    if let Some(frames) = machine::inspect::kernel_frames() {
        let frames = frames.addresses();
        raw.kernel_len = frames.len();
        raw.kernel[..frames.len()].copy_from_slice(frames);
    }
    raw.program = None;
    if let Some((registers, copied)) = machine::inspect::user_stack(&mut raw.stack) {
        raw.program = Some(registers);
        raw.stack_len = copied;
    }
}

/// A stack that was sampled: its thread, and addresses of the instructions that it is at, innermost first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stack {
    thread: u64,
    kernel: Box<[usize]>,
    program: Box<[usize]>,
}

/// What a profile has gathered.
pub struct Profile {
    counts: BTreeMap<Stack, u64>,
    threads: BTreeMap<u64, (i32, String)>,
    /// Samples of CPUs that had nothing to do.
    pub idle: u64,
    /// Samples for which there was no room.
    pub lost: u64,
    /// Samples a second on each CPU.
    pub hz: u32,
    /// How long it ran.
    pub duration_ns: u64,
    start_unix_ns: u64,
    unwinder: Unwinder,
}

/// A profile that is being taken. It ends when it is finished or dropped.
pub struct Session {
    process: &'static Process,
    profile: Profile,
    start_ns: u64,
    end_ns: u64,
    /// The sample that is being looked at; it changes places with one of a CPU's.
    raw: Raw,
}

impl Session {
    /// Starts to sample all CPUs `hz` times a second, for `duration_ns`.
    ///
    /// # Errors
    /// `EBUSY` while another profile runs; `EINVAL` for a rate of 0 or above [`MAX_HZ`]; `ENOMEM`.
    pub fn start(process: &'static Process, hz: u32, duration_ns: u64) -> Result<Session> {
        if !(1..=MAX_HZ).contains(&hz) {
            return Err(Errno::EINVAL);
        }
        // Twice what comes between two gatherings.
        let room = (u64::from(hz) * GATHER_NS / 1_000_000_000 * 2 + 16) as usize;
        let stack = STACK_BYTES.min(STACKS_BYTES / room);
        let start_ns = now_ns();
        let raw = Raw::new(stack)?;
        if RUNNING.swap(true, Ordering::SeqCst) {
            return Err(Errno::EBUSY);
        }
        // From here on, dropping it undoes everything.
        let session = Session {
            process,
            profile: Profile::new(hz),
            start_ns,
            end_ns: start_ns.saturating_add(duration_ns),
            raw,
        };
        for cpu in 0..machine::cpu::count() {
            let mut samples = Vec::new();
            samples.try_reserve_exact(room).map_err(|_| Errno::ENOMEM)?;
            for _ in 0..room {
                samples.push(Raw::new(stack)?);
            }
            *RINGS.on(cpu).lock() = Some(Ring {
                samples: samples.into_boxed_slice(),
                len: 0,
                idle: 0,
                lost: 0,
            });
        }
        if sched::start_sampling(1_000_000_000 / u64::from(hz), sample) {
            Ok(session)
        } else {
            Err(Errno::EBUSY)
        }
    }

    /// Goes on until `deadline_ns` of the monotonic clock or the end, and answers whether it is over.
    pub fn step(&mut self, deadline_ns: u64) -> bool {
        let deadline = deadline_ns.min(self.end_ns);
        while now_ns() < deadline {
            let _ = sched::sleep_until_ns((now_ns() + GATHER_NS).min(deadline));
            self.profile.gather(self.process, &mut self.raw);
        }
        now_ns() >= self.end_ns
    }

    /// Ends it.
    pub fn finish(mut self) -> Profile {
        sched::stop_sampling();
        self.profile.gather(self.process, &mut self.raw);
        self.profile.duration_ns = now_ns() - self.start_ns;
        core::mem::replace(&mut self.profile, Profile::new(1))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        sched::stop_sampling();
        for ring in RINGS.iter() {
            let gone = ring.lock().take();
            drop(gone);
        }
        RUNNING.store(false, Ordering::SeqCst);
    }
}

impl Profile {
    fn new(hz: u32) -> Profile {
        Profile {
            counts: BTreeMap::new(),
            threads: BTreeMap::new(),
            idle: 0,
            lost: 0,
            hz,
            duration_ns: 0,
            start_unix_ns: wall_ns(),
            unwinder: Unwinder::default(),
        }
    }

    /// Takes the samples off the CPUs.
    fn gather(&mut self, process: &Process, raw: &mut Raw) {
        for slot in RINGS.iter().take(machine::cpu::count()) {
            loop {
                // One at a time: interrupts are off meanwhile.
                let mut guard = slot.lock();
                let Some(ring) = guard.as_mut() else {
                    break;
                };
                self.idle += core::mem::take(&mut ring.idle);
                self.lost += core::mem::take(&mut ring.lost);
                let Some(last) = ring.len.checked_sub(1) else {
                    break;
                };
                core::mem::swap(raw, &mut ring.samples[last]);
                ring.len = last;
                drop(guard);
                let program = self.walk(process, raw);
                self.add(raw, program);
            }
        }
        self.name_threads(process);
    }

    /// The program's instructions of a sample, innermost first.
    fn walk(&mut self, process: &Process, raw: &Raw) -> Box<[usize]> {
        let Some(registers) = &raw.program else {
            return Box::default();
        };
        let memory = |address| raw.word(address);
        let walk = self
            .unwinder
            .walk(&process.mm, registers, &memory, PROGRAM_FRAMES);
        walk.steps.iter().map(|step| step.instruction()).collect()
    }

    fn add(&mut self, raw: &Raw, program: Box<[usize]>) {
        let stack = Stack {
            thread: raw.thread,
            kernel: raw.kernel[..raw.kernel_len].into(),
            program,
        };
        if let Some(count) = self.counts.get_mut(&stack) {
            *count += 1;
        } else if self.counts.len() < MAX_STACKS {
            self.counts.insert(stack, 1);
        } else {
            self.lost += 1;
        }
    }

    /// Remembers the names of threads that were seen first since the last time: they may end.
    fn name_threads(&mut self, process: &Process) {
        let known = |id: &u64| self.threads.contains_key(id);
        if self.counts.keys().all(|stack| known(&stack.thread)) {
            return;
        }
        for thread in sched::threads() {
            let tid = thread.ext::<LinuxThread>().map_or(0, |t| t.tid);
            self.threads.insert(thread.id(), (tid, thread.name()));
        }
        for stack in self.counts.keys() {
            let name = || (0, process.name());
            self.threads.entry(stack.thread).or_insert_with(name);
        }
    }

    /// How many samples found a CPU at work.
    pub fn samples(&self) -> u64 {
        self.counts.values().sum()
    }

    fn thread(&self, id: u64) -> (i32, &str) {
        self.threads
            .get(&id)
            .map_or((0, "?"), |(tid, name)| (*tid, name.as_str()))
    }

    /// Folded stacks, a line each: `thread;outer;inner count`. Frames of the kernel end in `_[k]`.
    pub fn folded(&self, process: &Process) -> String {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        let names = Names::find(process, self);
        for (stack, count) in &self.counts {
            let mut line = clean(self.thread(stack.thread).1);
            for frame in names.frames(stack).iter().rev() {
                line.push(';');
                line.push_str(&clean(&names.label(*frame)));
            }
            *sums.entry(line).or_insert(0) += count;
        }
        let mut out = String::new();
        for (line, count) in sums {
            let _ = writeln!(out, "{line} {count}");
        }
        out
    }

    /// As JSON: `{"hz":...,"duration_ns":...,"samples":...,"idle":...,"lost":...,"stacks":[{"thread":...,"tid":...,
    /// "count":...,"frames":[outermost first]}]}`.
    pub fn json(&self, process: &Process) -> String {
        let names = Names::find(process, self);
        let mut out = format!(
            "{{\"hz\":{},\"duration_ns\":{},\"samples\":{},\"idle\":{},\"lost\":{},\"stacks\":[",
            self.hz,
            self.duration_ns,
            self.samples(),
            self.idle,
            self.lost
        );
        for (n, (stack, count)) in self.counts.iter().enumerate() {
            let (tid, name) = self.thread(stack.thread);
            out.push_str(if n == 0 {
                "{\"thread\":"
            } else {
                ",{\"thread\":"
            });
            json_string(&mut out, name);
            let _ = write!(out, ",\"tid\":{tid},\"count\":{count},\"frames\":[");
            for (n, frame) in names.frames(stack).iter().rev().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                json_string(&mut out, &names.label(*frame));
            }
            out.push_str("]}");
        }
        out.push_str("]}");
        out
    }

    /// In pprof's form, not compressed.
    pub fn pprof(&self, process: &Process) -> Vec<u8> {
        let names = Names::find(process, self);
        // The program's own file is to be the first; the kernel comes last.
        let areas = names.areas.iter().map(|area| pprof::Mapping {
            start: area.range.start as u64,
            end: area.range.end as u64,
            offset: area.offset,
            file: area.file.clone(),
        });
        let mut mappings: Vec<pprof::Mapping> = areas.collect();
        mappings.push(pprof::Mapping {
            start: KERNEL_START as u64,
            end: u64::MAX,
            offset: 0,
            file: "[kernel]".into(),
        });
        let mut index: BTreeMap<Frame, usize> = BTreeMap::new();
        let mut locations = Vec::new();
        let mut samples = Vec::new();
        for (stack, count) in &self.counts {
            let mut ids = Vec::new();
            for frame in names.frames(stack) {
                let id = *index.entry(frame).or_insert(locations.len());
                if id == locations.len() {
                    locations.push(names.location(frame));
                }
                ids.push(id);
            }
            let (tid, name) = self.thread(stack.thread);
            samples.push(pprof::Sample {
                locations: ids,
                count: *count,
                thread: name.into(),
                tid: tid.into(),
            });
        }
        let times = pprof::Times {
            start_unix_ns: self.start_unix_ns,
            duration_ns: self.duration_ns,
            period_ns: 1_000_000_000 / u64::from(self.hz),
        };
        pprof::profile(&samples, &locations, &mappings, &times)
    }
}

/// The kernel's half of the addresses.
const KERNEL_START: usize = 0xffff_8000_0000_0000;

/// What separates frames, and what ends the line, may not be in a name.
fn clean(name: &str) -> String {
    name.replace(';', ":").replace('\n', " ")
}

/// A frame to be shown: the address of the instruction or of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Frame {
    Kernel(usize),
    Program(usize),
}

/// An area with code.
struct Area {
    range: Range<usize>,
    offset: u64,
    file: String,
}

/// What is known of the addresses of a profile.
struct Names {
    areas: Vec<Area>,
    places: BTreeMap<usize, Place>,
}

impl Names {
    fn find(process: &Process, profile: &Profile) -> Names {
        let mm: &AddressSpace = &process.mm;
        let areas = mm
            .map_lines()
            .into_iter()
            .filter(|line| line.prot.contains(VmProt::EXEC))
            .map(|line| Area {
                range: line.range,
                offset: line.offset,
                file: String::from_utf8_lossy(&line.file.path).into_owned(),
            })
            .collect();
        let wanted: BTreeSet<usize> = profile
            .counts
            .keys()
            .flat_map(|stack| stack.program.iter().copied())
            .collect();
        Names {
            areas,
            places: symbols::resolve(process, wanted),
        }
    }

    fn area(&self, address: usize) -> Option<usize> {
        let n = self.areas.partition_point(|area| area.range.end <= address);
        self.areas
            .get(n)
            .is_some_and(|area| area.range.contains(&address))
            .then_some(n)
    }

    /// The frames of a stack, innermost first.
    fn frames(&self, stack: &Stack) -> Vec<Frame> {
        // A return address of the kernel is turned into one of its call.
        let kernel = stack.kernel.iter().enumerate();
        kernel
            .map(|(n, address)| Frame::Kernel(address - usize::from(n > 0)))
            .chain(stack.program.iter().map(|at| Frame::Program(*at)))
            .collect()
    }

    fn label(&self, frame: Frame) -> String {
        match frame {
            Frame::Kernel(address) => match symbols::kernel(address) {
                Some((name, _)) => format!("{name}_[k]"),
                None => format!("{address:#x}_[k]"),
            },
            Frame::Program(address) => match self.places.get(&address) {
                Some(place) => place.label(address),
                None => format!("{address:#x}"),
            },
        }
    }

    fn location(&self, frame: Frame) -> pprof::Location {
        let (address, mapping, file) = match frame {
            Frame::Kernel(address) => {
                let last = self.areas.len();
                (address, Some(last), String::from("[kernel]"))
            }
            Frame::Program(address) => {
                let area = self.area(address);
                let file = area.map_or(String::new(), |n| self.areas[n].file.clone());
                (address, area, file)
            }
        };
        pprof::Location {
            address: address as u64,
            mapping,
            function: self.label(frame),
            file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_frames_do_not_break_a_line() {
        assert_eq!(clean("main;x\n"), "main:x ");
    }

    #[test]
    fn a_word_of_the_copied_stack_is_found_and_no_other() {
        let mut raw = Raw::new(32).unwrap();
        assert_eq!(raw.word(0), None);
        let mut registers = Registers::default();
        registers.rsp = 0x1000;
        raw.program = Some(registers);
        raw.stack[8] = 7;
        raw.stack_len = 24;
        assert_eq!(raw.word(0x1008), Some(7));
        assert_eq!(raw.word(0x1010), Some(0));
        for outside in [0xff8, 0x1011, 0x1018, usize::MAX] {
            assert_eq!(raw.word(outside), None, "{outside:#x}");
        }
    }

    #[test]
    fn samples_are_added_up_to_a_bound() {
        let mut profile = Profile::new(99);
        let mut raw = Raw::new(0).unwrap();
        raw.kernel_len = 1;
        let program = |ip: usize| -> Box<[usize]> { [ip, 0x1050].into() };
        profile.add(&raw, program(1));
        profile.add(&raw, program(1));
        assert_eq!((profile.samples(), profile.counts.len()), (2, 1));
        for n in 0..MAX_STACKS {
            // One that was not seen: the last finds no room.
            profile.add(&raw, program(0x10_0000 + n));
        }
        assert_eq!((profile.counts.len(), profile.lost), (MAX_STACKS, 1));
    }
}
