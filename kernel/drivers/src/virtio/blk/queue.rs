//! One request queue of a block device: requests into descriptors, completions out of interrupts.
//!
//! A request takes a *slot*: a little DMA memory for its header and status (and its indirect table), a place to
//! remember whose it is, and a wait queue. A thread that waits is woken out of the interrupt and takes its outcome and
//! its slot back itself. A request with a callback is finished by the queue's own thread, so that interrupt handlers
//! neither free memory nor run other rooms' code.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering};

use machine::{
    dma::DmaBuffer,
    mem::PAGE_SIZE,
    sync::{IrqLock, SpinLock},
};
use sched::{SpawnOptions, WaitQueue};

use super::{Config, GONE};
use crate::{
    IoError,
    block::{Operation, Outcome, Request, Segment},
    virtio::{
        queue::{DESCRIPTOR_LEN, Piece, Queue},
        slots::SlotMemory,
        transport::Notifier,
    },
};

/// Bytes of DMA memory of a slot: a request header (16), a discard range (16), the status byte, and from
/// [`TABLE_AT`] on an indirect table.
const SLOT_LEN: usize = 1024;
const RANGE_AT: usize = 16;
const STATUS_AT: usize = 32;
const TABLE_AT: usize = 48;
/// Descriptors in a slot's table.
const TABLE_LEN: usize = (SLOT_LEN - TABLE_AT) / DESCRIPTOR_LEN;
/// Header and status take a descriptor each.
const MOST_SEGMENTS: usize = TABLE_LEN - 2;
/// Requests under way at once; a bit each in a word.
const MOST_SLOTS: usize = 64;
/// Up to so many descriptors go into the ring itself: the device then has one table less to map.
const DIRECT_MOST: usize = 4;

/// Request types (virtio 1.2, 5.2.6).
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// What a slot is doing.
enum Slot {
    /// Nothing.
    Free,
    /// Under way for a thread that waits at the slot's wait queue. Its memory stays the thread's.
    Waited(Vec<Segment>),
    /// Ended, to be seen by that thread.
    Ended(Outcome, Vec<Segment>),
    /// Under way with a callback.
    Called(Request),
    /// Ended, to be finished by the queue's thread.
    ToCall(Request, Outcome),
}

struct State {
    ring: Queue,
    memory: SlotMemory,
    slots: Vec<Slot>,
    free: Vec<u8>,
    /// The slot of the chain that starts at a descriptor.
    slot_of: Vec<u8>,
    /// Added chains that the device was not told of.
    unpublished: bool,
    /// How many slots are in state `ToCall`.
    to_call: usize,
    requests: u64,
    kicks: u64,
}

/// One queue.
pub(super) struct BlkQueue {
    /// Requests with a callback that found no slot. Taken before `state`, never in an interrupt.
    backlog: SpinLock<VecDeque<Request>>,
    state: IrqLock<State>,
    /// One for each slot: the thread that waits for it.
    waits: Vec<WaitQueue>,
    /// Threads that wait for a slot.
    room: WaitQueue,
    /// The thread that calls back.
    caller: WaitQueue,
    caller_started: AtomicBool,
    notifier: Notifier,
    indirect: bool,
    max_segments: usize,
    max_piece: u32,
    zeroes_may_unmap: bool,
}

/// What is to be asked of the device.
#[derive(Clone, Copy)]
enum Command {
    Operation(Operation),
    GetId,
}

impl BlkQueue {
    pub(super) fn new(ring: Queue, notifier: Notifier, indirect: bool, config: &Config) -> BlkQueue {
        let size = usize::from(ring.size());
        let depth = if indirect { size } else { size / 3 };
        let depth = depth.clamp(1, MOST_SLOTS);
        let mut slots = Vec::new();
        slots.resize_with(depth, || Slot::Free);
        let mut waits = Vec::new();
        waits.resize_with(depth, WaitQueue::new);
        let most = if indirect {
            MOST_SEGMENTS
        } else {
            size.saturating_sub(2).clamp(1, MOST_SEGMENTS)
        };
        let mut state = State {
            memory: SlotMemory::new(depth, SLOT_LEN),
            slots,
            free: Vec::with_capacity(depth),
            slot_of: alloc::vec![0; size],
            unpublished: false,
            to_call: 0,
            requests: 0,
            kicks: 0,
            ring,
        };
        state.ring.enable_interrupts(1);
        BlkQueue {
            backlog: SpinLock::new(VecDeque::new()),
            state: IrqLock::new(state),
            waits,
            room: WaitQueue::new(),
            caller: WaitQueue::new(),
            caller_started: AtomicBool::new(false),
            notifier,
            indirect,
            max_segments: most.min(config.max_segments as usize),
            max_piece: config.max_segment_len,
            zeroes_may_unmap: config.zeroes_may_unmap,
        }
    }

    pub(super) fn max_segments(&self) -> usize {
        self.max_segments
    }

    pub(super) fn depth(&self) -> usize {
        self.waits.len()
    }

    pub(super) fn counters(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.requests, state.kicks)
    }

    /// Does one request and sleeps until it has ended.
    pub(super) fn execute(&self, op: Operation, sector: u64, segments: &[Segment]) -> Outcome {
        self.run(Command::Operation(op), sector, segments)
    }

    /// Asks for the device's identifier.
    pub(super) fn get_id(&self, segments: &[Segment]) -> Outcome {
        self.run(Command::GetId, 0, segments)
    }

    fn run(&self, command: Command, sector: u64, segments: &[Segment]) -> Outcome {
        // Copied before the lock is taken: no allocation with interrupts off.
        let mut held = Some(segments.to_vec());
        let begin = || {
            self.make_slots();
            let mut state = self.state.lock();
            if state.ring.is_broken() {
                return Some(Err(IoError::Gone));
            }
            let Some(&slot) = state.free.last() else {
                let none_under_way = state.memory.len() == 0;
                return none_under_way.then_some(Err(IoError::NoMemory));
            };
            let added = self.add(&mut state, slot, command, sector, segments)?;
            if let Err(error) = added {
                return Some(Err(error));
            }
            state.slots[usize::from(slot)] = Slot::Waited(held.take().unwrap_or_default());
            Some(Ok(slot))
        };
        let slot = usize::from(self.room.wait(begin)?);
        self.kick();
        let (outcome, segments) = self.waits[slot].wait(|| {
            let mut state = self.state.lock();
            match core::mem::replace(&mut state.slots[slot], Slot::Free) {
                Slot::Ended(outcome, segments) => {
                    state.free.push(slot as u8);
                    Some((outcome, segments))
                }
                other => {
                    state.slots[slot] = other;
                    None
                }
            }
        });
        drop(segments);
        self.slot_freed();
        outcome
    }

    /// Puts a request with a callback on its way, without telling the device yet.
    pub(super) fn submit(self: &Arc<Self>, request: Request) {
        self.start_caller();
        let refused = {
            let mut backlog = self.backlog.lock();
            if backlog.is_empty() {
                match self.begin(request) {
                    Some((request, None)) => {
                        backlog.push_back(request);
                        None
                    }
                    other => other,
                }
            } else {
                backlog.push_back(request);
                None
            }
        };
        if let Some((request, Some(error))) = refused {
            request.finish(Err(error));
        }
    }

    /// Tells the device of what was added, if it wants to be told.
    pub(super) fn kick(&self) {
        let wanted = {
            let mut state = self.state.lock();
            if !core::mem::take(&mut state.unpublished) {
                return;
            }
            let wanted = state.ring.publish();
            state.kicks += u64::from(wanted);
            wanted
        };
        if wanted {
            self.notifier.notify();
        }
    }

    /// If all slots are taken and there may be more, makes more.
    fn make_slots(&self) {
        let wanted = {
            let state = self.state.lock();
            state.free.is_empty() && state.memory.len() < self.depth()
        };
        // Allocated without the lock: it may take a while.
        if wanted && let Ok(page) = DmaBuffer::new(PAGE_SIZE) {
            let mut state = self.state.lock();
            let from = state.memory.len();
            if from < self.depth() {
                state.memory.grow(page);
                let to = state.memory.len().min(self.depth());
                state.free.extend((from as u8..to as u8).rev());
            }
        }
    }

    /// Gives a request a slot. Returns it when there is no room (`None`) or it cannot be done (`Some`).
    fn begin(&self, request: Request) -> Option<(Request, Option<IoError>)> {
        self.make_slots();
        let mut state = self.state.lock();
        if state.ring.is_broken() {
            return Some((request, Some(IoError::Gone)));
        }
        let Some(&slot) = state.free.last() else {
            let none_under_way = state.memory.len() == 0;
            return Some((request, none_under_way.then_some(IoError::NoMemory)));
        };
        let command = Command::Operation(request.op);
        match self.add(&mut state, slot, command, request.sector, &request.segments) {
            None => Some((request, None)),
            Some(Err(error)) => Some((request, Some(error))),
            Some(Ok(())) => {
                state.slots[usize::from(slot)] = Slot::Called(request);
                None
            }
        }
    }

    /// Writes the descriptors of a request for the free slot `slot` and takes the slot. `None`: no room in the ring.
    fn add(
        &self,
        state: &mut State,
        slot: u8,
        command: Command,
        sector: u64,
        segments: &[Segment],
    ) -> Option<Result<(), IoError>> {
        let Some((memory, at)) = state.memory.get(slot.into()) else {
            return Some(Err(IoError::NoMemory));
        };
        let (kind, header_sector, range) = match command {
            Command::GetId => (kind::GET_ID, 0, None),
            Command::Operation(op) => match op {
                Operation::Read => (kind::IN, sector, None),
                Operation::Write => (kind::OUT, sector, None),
                Operation::Flush => (kind::FLUSH, 0, None),
                Operation::Discard { sectors } => (kind::DISCARD, 0, Some((sectors, 0))),
                Operation::WriteZeroes { sectors, may_unmap } => {
                    let unmap = u32::from(may_unmap && self.zeroes_may_unmap);
                    (kind::WRITE_ZEROES, 0, Some((sectors, unmap)))
                }
            },
        };
        memory.write64(at, u64::from(kind));
        memory.write64(at + 8, header_sector);
        memory.write8(at + STATUS_AT, NOT_DONE);
        let base = memory.phys() + at as u64;
        let mut pieces = Pieces::new();
        pieces.push(base, 16, false);
        if let Some((sectors, flags)) = range {
            // `check_request` saw that the count fits.
            memory.write64(at + RANGE_AT, sector);
            memory.write32(at + RANGE_AT + 8, u32::try_from(sectors).unwrap_or(u32::MAX));
            memory.write32(at + RANGE_AT + 12, flags);
            pieces.push(base + RANGE_AT as u64, 16, false);
        }
        let device_writes = kind == kind::IN || kind == kind::GET_ID;
        for segment in segments {
            let address = segment.frame.phys() + u64::from(segment.offset);
            if !pieces.extend_last(address, segment.len, device_writes, self.max_piece) {
                pieces.push(address, segment.len, device_writes);
            }
        }
        pieces.push(base + STATUS_AT as u64, 1, true);
        let pieces = pieces.as_slice();
        let direct = !self.indirect
            || pieces.len() <= DIRECT_MOST && state.ring.free_count() > usize::from(state.ring.size()) / 2;
        let head = if direct {
            state.ring.add(pieces)?
        } else {
            state.ring.add_indirect(memory, at + TABLE_AT, pieces)?
        };
        state.free.pop();
        state.slot_of[usize::from(head)] = slot;
        state.unpublished = true;
        state.requests += 1;
        Some(Ok(()))
    }

    /// Takes back what the device has done; runs in the interrupt. Returns whether there was anything.
    pub(super) fn interrupt(&self) -> bool {
        let mut ended = 0u64;
        let mut call = false;
        {
            let mut state = self.state.lock();
            loop {
                match state.ring.take() {
                    Ok(Some((head, _))) => {
                        let slot = state.slot_of[usize::from(head)];
                        call |= state.end(slot, None);
                        ended |= 1 << slot;
                    }
                    Ok(None) if state.ring.enable_interrupts(1) => {}
                    Ok(None) => break,
                    Err(_) => {
                        // Nothing of this device can be trusted any more: all that is under way fails.
                        for slot in 0..state.slots.len() as u8 {
                            call |= state.end(slot, Some(IoError::Gone));
                            ended |= 1 << slot;
                        }
                        // What waits for a slot fails too.
                        call = true;
                        break;
                    }
                }
            }
        }
        let any = ended != 0;
        while ended != 0 {
            self.waits[ended.trailing_zeros() as usize].wake_one();
            ended &= ended - 1;
        }
        if call {
            self.caller.wake_one();
        }
        any
    }

    /// After a slot came free: the next of the backlog takes it, or a thread that waits.
    fn slot_freed(&self) {
        let mut refused = None;
        let took = {
            let mut backlog = self.backlog.lock();
            match backlog.pop_front().map(|request| self.begin(request)) {
                None => false,
                Some(None) => true,
                Some(Some((request, None))) => {
                    backlog.push_front(request);
                    false
                }
                Some(Some((request, Some(error)))) => {
                    refused = Some((request, error));
                    false
                }
            }
        };
        if took {
            self.kick();
        } else {
            self.room.wake_one();
        }
        if let Some((request, error)) = refused {
            request.finish(Err(error));
        }
    }

    fn start_caller(self: &Arc<Self>) {
        if self.caller_started.swap(true, Ordering::AcqRel) {
            return;
        }
        let queue = self.clone();
        let options = SpawnOptions {
            name: "blk-done".into(),
            ..SpawnOptions::default()
        };
        let started = sched::spawn(options, move || {
            loop {
                let finished = queue.caller.wait(|| queue.finished());
                for (request, outcome) in finished {
                    request.finish(outcome);
                    queue.slot_freed();
                }
            }
        });
        if started.is_err() {
            // The next request tries again; until then, completions wait.
            self.caller_started.store(false, Ordering::Release);
        }
    }

    /// The requests to be called back, their slots free again.
    fn finished(&self) -> Option<Vec<(Request, Outcome)>> {
        // Room first, then the lock: no allocation with interrupts off.
        let mut list = Vec::with_capacity(self.waits.len());
        let broken = self.state.lock().ring.is_broken();
        let orphans = if broken {
            core::mem::take(&mut *self.backlog.lock())
        } else {
            VecDeque::new()
        };
        {
            let mut state = self.state.lock();
            if state.to_call == 0 && orphans.is_empty() {
                return None;
            }
            state.to_call = 0;
            let State { slots, free, .. } = &mut *state;
            for (index, slot) in slots.iter_mut().enumerate() {
                match core::mem::replace(slot, Slot::Free) {
                    Slot::ToCall(request, outcome) => {
                        list.push((request, outcome));
                        free.push(index as u8);
                    }
                    other => *slot = other,
                }
            }
        }
        list.extend(orphans.into_iter().map(|request| (request, GONE)));
        Some(list)
    }
}

impl State {
    /// Marks a slot that was under way as ended, with the device's status or with `error`. Returns whether the queue's
    /// thread has to call back.
    fn end(&mut self, slot: u8, error: Option<IoError>) -> bool {
        let outcome = match error {
            Some(error) => Err(error),
            None => match self.memory.get(slot.into()) {
                Some((memory, at)) => outcome_of(memory.read8(at + STATUS_AT)),
                None => Err(IoError::Gone),
            },
        };
        let slot = &mut self.slots[usize::from(slot)];
        match core::mem::replace(slot, Slot::Free) {
            Slot::Waited(segments) => {
                *slot = Slot::Ended(outcome, segments);
                false
            }
            Slot::Called(request) => {
                *slot = Slot::ToCall(request, outcome);
                self.to_call += 1;
                true
            }
            other => {
                *slot = other;
                false
            }
        }
    }
}

/// A status that no device writes.
const NOT_DONE: u8 = 0xff;

fn outcome_of(status: u8) -> Outcome {
    match status {
        0 => Ok(()),
        2 => Err(IoError::Unsupported),
        // 1 is the specified error; anything else is one as well.
        _ => Err(IoError::Device),
    }
}

/// The pieces of a request, at most [`TABLE_LEN`].
struct Pieces {
    list: [Piece; TABLE_LEN],
    len: usize,
}

impl Pieces {
    fn new() -> Pieces {
        let none = Piece {
            address: 0,
            len: 0,
            device_writes: false,
        };
        Pieces {
            list: [none; TABLE_LEN],
            len: 0,
        }
    }

    fn push(&mut self, address: u64, len: u32, device_writes: bool) {
        // Requests have at most MOST_SEGMENTS segments: there is always room.
        if let Some(place) = self.list.get_mut(self.len) {
            *place = Piece {
                address,
                len,
                device_writes,
            };
            self.len += 1;
        }
    }

    /// Makes the last piece longer if `address` follows it, so that neighbouring frames cost one descriptor.
    fn extend_last(&mut self, address: u64, len: u32, device_writes: bool, most: u32) -> bool {
        if self.len < 2 {
            return false;
        }
        let last = &mut self.list[self.len - 1];
        let joined = last.len.checked_add(len).filter(|&joined| joined <= most);
        match joined {
            Some(joined)
                if last.device_writes == device_writes
                    && last.address + u64::from(last.len) == address =>
            {
                last.len = joined;
                true
            }
            _ => false,
        }
    }

    fn as_slice(&self) -> &[Piece] {
        &self.list[..self.len]
    }
}
