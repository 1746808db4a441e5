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
    sync::{IrqGuard, IrqLock, SpinLock},
};
use sched::{SpawnOptions, WaitQueue};

use super::{
    Config, GONE,
    request::{Command, MOST_PIECES, Prepared, Rules},
};
use crate::{
    IoError,
    block::{Done, Operation, Outcome, Request, Segment},
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
const _: () = assert!(TABLE_LEN == MOST_PIECES);
/// Header and status take a descriptor each.
const MOST_SEGMENTS: usize = TABLE_LEN - 2;
/// Requests under way at once; a bit each in a word.
const MOST_SLOTS: usize = 64;
/// Up to so many descriptors go into the ring itself: the device then has one table less to map.
const DIRECT_MOST: usize = 4;

/// A request with a callback.
struct Called {
    prepared: Prepared,
    done: Done,
}

impl Called {
    fn finish(self, outcome: Outcome) {
        self.prepared.complete();
        (self.done)(outcome);
    }
}

/// What a slot is doing.
enum Slot {
    /// Nothing.
    Free,
    /// Under way for a thread that waits at the slot's wait queue.
    Waited(Prepared),
    /// Ended, to be seen by that thread.
    Ended(Outcome, Prepared),
    /// Under way with a callback.
    Called(Called),
    /// Ended, to be finished by the queue's thread.
    ToCall(Called, Outcome),
}

struct State {
    ring: Queue,
    memory: SlotMemory,
    slots: Vec<Slot>,
    free: Vec<u8>,
    /// The slot of the chain that starts at a descriptor.
    slot_of: Vec<u8>,
    /// How many slots are in state `ToCall`.
    to_call: usize,
    requests: u64,
    kicks: u64,
}

/// One queue.
pub(super) struct BlkQueue {
    /// Requests with a callback that found no slot. Taken before `state`, never in an interrupt.
    backlog: SpinLock<VecDeque<Called>>,
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
    rules: Rules,
}

impl BlkQueue {
    pub(super) fn new(
        ring: Queue,
        notifier: Notifier,
        indirect: bool,
        config: &Config,
    ) -> BlkQueue {
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
            rules: Rules {
                max_piece: config.max_segment_len,
                zeroes_may_unmap: config.zeroes_may_unmap,
            },
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
        // Prepared before the lock is taken: no allocation with interrupts off.
        let mut held = Some(Prepared::new(command, sector, segments, self.rules)?);
        let begin = || {
            let (mut state, added) = self.add_with_room(held.as_ref()?);
            match added {
                Added::Slot(slot) => {
                    state.slots[usize::from(slot)] = held.take().map_or(Slot::Free, Slot::Waited);
                    self.tell(state);
                    Some(Ok(slot))
                }
                Added::NoRoom | Added::NoSlot => None,
                Added::Failed(error) => Some(Err(error)),
            }
        };
        let slot = match self.room.wait(begin) {
            Ok(slot) => usize::from(slot),
            Err(error) => {
                held.into_iter().for_each(Prepared::complete);
                return Err(error);
            }
        };
        let (outcome, prepared) = self.waits[slot].wait(|| {
            let mut state = self.state.lock();
            match core::mem::replace(&mut state.slots[slot], Slot::Free) {
                Slot::Ended(outcome, prepared) => {
                    state.free.push(slot as u8);
                    Some((outcome, prepared))
                }
                other => {
                    state.slots[slot] = other;
                    None
                }
            }
        });
        self.retire(&outcome, prepared);
        self.slot_freed();
        outcome
    }

    /// Gives a request's memory back, unless the device cannot be trusted to be done with it: then it is never freed.
    fn retire(&self, outcome: &Outcome, prepared: Prepared) {
        if *outcome != GONE {
            prepared.complete();
        }
    }

    /// Puts a request with a callback on its way, without telling the device yet.
    pub(super) fn submit(self: &Arc<Self>, request: Request) {
        self.start_caller();
        let command = Command::Operation(request.op);
        let called = match Prepared::new(command, request.sector, &request.segments, self.rules) {
            Ok(prepared) => Called {
                prepared,
                done: request.done,
            },
            Err(error) => return request.finish(Err(error)),
        };
        let refused = {
            let mut backlog = self.backlog.lock();
            let tried = if backlog.is_empty() {
                self.begin(called)
            } else {
                Err((called, None))
            };
            match tried {
                Ok(()) => None,
                Err((called, None)) => {
                    backlog.push_back(called);
                    None
                }
                Err((called, Some(error))) => Some((called, error)),
            }
        };
        if let Some((called, error)) = refused {
            called.finish(Err(error));
        }
    }

    /// Tells the device of what was added, if it wants to be told.
    pub(super) fn kick(&self) {
        self.tell(self.state.lock());
    }

    fn tell(&self, mut state: IrqGuard<'_, State>) {
        let wanted = state.ring.publish();
        state.kicks += u64::from(wanted);
        drop(state);
        if wanted {
            self.notifier.notify();
        }
    }

    /// Adds a request, after making slots if there may be more of them.
    fn add_with_room(&self, request: &Prepared) -> (IrqGuard<'_, State>, Added) {
        let mut state = self.state.lock();
        let added = self.add(&mut state, request);
        if !matches!(added, Added::NoSlot) || state.memory.len() >= self.depth() {
            return (state, added);
        }
        drop(state);
        // Allocated without the lock: it may take a while.
        let page = DmaBuffer::new(PAGE_SIZE);
        let mut state = self.state.lock();
        let from = state.memory.len();
        match page {
            Ok(page) if from < self.depth() => {
                state.memory.grow(page);
                let to = state.memory.len().min(self.depth());
                state.free.extend((from as u8..to as u8).rev());
            }
            Err(_) if from == 0 => return (state, Added::Failed(IoError::NoMemory)),
            // Others have made room, or what there is has to do.
            _ => {}
        }
        let added = self.add(&mut state, request);
        (state, added)
    }

    /// Gives a request a slot. Returns it when there is no room (`None`) or it cannot be done (`Some`).
    fn begin(&self, called: Called) -> Result<(), (Called, Option<IoError>)> {
        let (mut state, added) = self.add_with_room(&called.prepared);
        match added {
            Added::Slot(slot) => {
                state.slots[usize::from(slot)] = Slot::Called(called);
                Ok(())
            }
            Added::NoRoom | Added::NoSlot => Err((called, None)),
            Added::Failed(error) => Err((called, Some(error))),
        }
    }

    /// Writes the descriptors of a request and takes a slot for it.
    fn add(&self, state: &mut State, request: &Prepared) -> Added {
        if state.ring.is_broken() {
            return Added::Failed(IoError::Gone);
        }
        let Some(&slot) = state.free.last() else {
            return Added::NoSlot;
        };
        let Some((memory, at)) = state.memory.get(slot.into()) else {
            return Added::Failed(IoError::NoMemory);
        };
        let header_sector = if request.range.is_some() {
            0
        } else {
            request.sector
        };
        memory.write64(at, u64::from(request.kind));
        memory.write64(at + 8, header_sector);
        memory.write8(at + STATUS_AT, NOT_DONE);
        let base = memory.phys() + at as u64;
        let piece = |offset, len, device_writes| Piece {
            address: base + offset as u64,
            len,
            device_writes,
        };
        let range = request.range.map(|(sectors, flags)| {
            memory.write64(at + RANGE_AT, request.sector);
            memory.write32(at + RANGE_AT + 8, sectors);
            memory.write32(at + RANGE_AT + 12, flags);
            piece(RANGE_AT, 16, false)
        });
        // `check_request` saw to it that the segments fit into a table.
        let count = 2 + usize::from(range.is_some()) + request.pieces.len();
        let pieces = core::iter::once(piece(0, 16, false))
            .chain(range)
            .chain(request.pieces.iter().copied())
            .chain(core::iter::once(piece(STATUS_AT, 1, true)));
        let roomy = state.ring.free_count() > usize::from(state.ring.size()) / 2;
        let head = if !self.indirect || count <= DIRECT_MOST && roomy {
            state.ring.add_chain(count, pieces)
        } else {
            state
                .ring
                .add_indirect_chain(memory, at + TABLE_AT, count, pieces)
        };
        let Some(head) = head else {
            return Added::NoRoom;
        };
        state.free.pop();
        state.slot_of[usize::from(head)] = slot;
        state.requests += 1;
        Added::Slot(slot)
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
                            state.end(slot, Some(IoError::Gone));
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
            match backlog.pop_front().map(|called| self.begin(called)) {
                None => false,
                Some(Ok(())) => true,
                Some(Err((called, None))) => {
                    backlog.push_front(called);
                    false
                }
                Some(Err((called, Some(error)))) => {
                    refused = Some((called, error));
                    false
                }
            }
        };
        if took {
            self.kick();
        } else {
            self.room.wake_one();
        }
        if let Some((called, error)) = refused {
            called.finish(Err(error));
        }
    }

    fn start_caller(self: &Arc<Self>) {
        if self.caller_started.swap(true, Ordering::AcqRel) {
            return;
        }
        let queue = self.clone();
        let started = sched::spawn(SpawnOptions::named("blk-done"), move || {
            loop {
                let finished = queue.caller.wait(|| queue.finished());
                for Finished {
                    called,
                    outcome,
                    sent,
                } in finished
                {
                    if sent && outcome == GONE {
                        // The device may still use the memory: it is never freed.
                        drop(called.prepared);
                        (called.done)(outcome);
                    } else {
                        called.finish(outcome);
                    }
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
    fn finished(&self) -> Option<Vec<Finished>> {
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
                    Slot::ToCall(called, outcome) => {
                        list.push(Finished {
                            called,
                            outcome,
                            sent: true,
                        });
                        free.push(index as u8);
                    }
                    other => *slot = other,
                }
            }
        }
        list.extend(orphans.into_iter().map(|called| Finished {
            called,
            outcome: GONE,
            sent: false,
        }));
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
            Slot::Waited(prepared) => {
                *slot = Slot::Ended(outcome, prepared);
                false
            }
            Slot::Called(called) => {
                *slot = Slot::ToCall(called, outcome);
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

/// What became of a request that looked for room.
enum Added {
    /// It has this slot.
    Slot(u8),
    /// There is none in the ring now.
    NoRoom,
    /// All slots are taken now.
    NoSlot,
    /// It cannot be done.
    Failed(IoError),
}

/// A request to be called back.
struct Finished {
    called: Called,
    outcome: Outcome,
    /// The device has seen it.
    sent: bool,
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
