//! `inotify(7)`: a queue of changes to watched inodes, and its record layout. Where changes are
//! noticed is `fs::notify`.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use errno::{Errno, Result};
use fs::notify::{self, Event, Mask, Watch};
use fs::{File, Inode, Metadata, OpenFlags};
use iobuf::Sink;
use machine::sync::SpinLock;
use sched::poll::{Events, Pollee};

use super::anon::{AnonInode, Home};
use super::blocking::retry;

/// `IN_MASK_CREATE`.
pub const MASK_CREATE: u32 = 0x1000_0000;
/// `IN_MASK_ADD`.
pub const MASK_ADD: u32 = 0x2000_0000;
/// `IN_ONESHOT`.
pub const ONESHOT: u32 = 0x8000_0000;
/// `IN_Q_OVERFLOW`.
const OVERFLOW: u32 = 0x4000;
/// Every event that can be asked for (`IN_ALL_EVENTS`).
const ALL_EVENTS: u32 = 0xfff;

/// `fs.inotify.max_queued_events`.
const MAX_QUEUED: usize = 16384;
/// `fs.inotify.max_user_watches`.
const MAX_WATCHES: usize = 65536;
/// `sizeof(struct inotify_event)` without the name.
const HEADER: usize = 16;

#[derive(Clone, PartialEq, Eq)]
struct Record {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Record {
    /// The name's length with its zeros: a multiple of the header's size.
    fn name_len(&self) -> usize {
        match self.name.len() {
            0 => 0,
            len => (len + 1).next_multiple_of(HEADER),
        }
    }

    fn len(&self) -> usize {
        HEADER + self.name_len()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        bytes.extend(self.watch.to_ne_bytes());
        bytes.extend(self.mask.to_ne_bytes());
        bytes.extend(self.cookie.to_ne_bytes());
        bytes.extend((self.name_len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&self.name);
        bytes.resize(self.len(), 0);
        bytes
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Record>,
    bytes: usize,
    watches: BTreeMap<i32, Watched>,
    last: i32,
}

struct Watched {
    watch: Watch,
    one_shot: bool,
}

struct Shared {
    state: SpinLock<State>,
    pollee: Pollee,
}

impl State {
    fn push(&mut self, record: Record) {
        // Two equal events in a row are one.
        if self.queue.back() == Some(&record) {
            return;
        }
        let record = if self.queue.len() >= MAX_QUEUED {
            let overflow = Record {
                watch: -1,
                mask: OVERFLOW,
                cookie: 0,
                name: Vec::new(),
            };
            if self.queue.back() == Some(&overflow) {
                return;
            }
            overflow
        } else {
            record
        };
        self.bytes += record.len();
        self.queue.push_back(record);
    }
}

impl notify::Observer for Shared {
    fn event(&self, event: &Event<'_>) {
        let mut gone = None;
        {
            let mut state = self.state.lock();
            let Some(watched) = state.watches.get(&event.watch) else {
                return;
            };
            let ends = watched.one_shot || event.mask.intersects(Mask::DELETE_SELF | Mask::UNMOUNT);
            state.push(Record {
                watch: event.watch,
                mask: event.mask.bits(),
                cookie: event.cookie,
                name: event.name.unwrap_or_default().to_vec(),
            });
            if ends {
                gone = state.watches.remove(&event.watch);
                state.push(Record {
                    watch: event.watch,
                    mask: Mask::IGNORED.bits(),
                    cookie: 0,
                    name: Vec::new(),
                });
            }
        }
        drop(gone);
        self.pollee.notify(Events::IN);
    }
}

/// A descriptor of `inotify_init(2)`.
pub struct InotifyFile {
    shared: Arc<Shared>,
    inode: AnonInode,
}

impl InotifyFile {
    /// A queue without watches.
    pub fn new() -> Self {
        InotifyFile {
            shared: Arc::new(Shared {
                state: SpinLock::new(State::default()),
                pollee: Pollee::new(),
            }),
            inode: AnonInode::new(Home::Anonymous),
        }
    }

    /// `inotify_add_watch(2)`: adds a watch, or changes the one there is on this inode.
    ///
    /// # Errors
    /// `EINVAL` without an event in `mask`, `EEXIST` with `IN_MASK_CREATE`, `ENOSPC`.
    pub fn add(&self, inode: &Arc<dyn Inode>, mask: u32) -> Result<i32> {
        if mask & (ALL_EVENTS | ONESHOT | Mask::UNMOUNT.bits()) == 0
            || mask & (MASK_ADD | MASK_CREATE) == MASK_ADD | MASK_CREATE
        {
            return Err(Errno::EINVAL);
        }
        let events = Mask::from_bits_truncate(mask & ALL_EVENTS);
        let mut state = self.shared.state.lock();
        let existing = state
            .watches
            .iter_mut()
            .find(|(_, watched)| fs::same_inode(watched.watch.inode(), inode));
        if let Some((id, watched)) = existing {
            if mask & MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            let events = if mask & MASK_ADD != 0 {
                events | watched.watch.mask()
            } else {
                events
            };
            watched.watch.set_mask(events);
            watched.one_shot = mask & ONESHOT != 0;
            return Ok(*id);
        }
        if state.watches.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC);
        }
        let id = state.last.checked_add(1).ok_or(Errno::ENOSPC)?;
        state.last = id;
        let observer: Arc<dyn notify::Observer> = self.shared.clone();
        let watch = notify::watch(inode, events, id, &observer);
        state.watches.insert(
            id,
            Watched {
                watch,
                one_shot: mask & ONESHOT != 0,
            },
        );
        Ok(id)
    }

    /// `inotify_rm_watch(2)`.
    ///
    /// # Errors
    /// `EINVAL` when there is no such watch.
    pub fn remove(&self, id: i32) -> Result<()> {
        let gone = {
            let mut state = self.shared.state.lock();
            let gone = state.watches.remove(&id).ok_or(Errno::EINVAL)?;
            state.push(Record {
                watch: id,
                mask: Mask::IGNORED.bits(),
                cookie: 0,
                name: Vec::new(),
            });
            gone
        };
        drop(gone);
        self.shared.pollee.notify(Events::IN);
        Ok(())
    }

    fn take(&self, sink: &mut dyn Sink) -> Result<usize> {
        let mut done = 0;
        loop {
            let record = {
                let mut state = self.shared.state.lock();
                let Some(first) = state.queue.front() else {
                    break;
                };
                let len = first.len();
                if len > sink.remaining() {
                    if done == 0 {
                        return Err(Errno::EINVAL);
                    }
                    break;
                }
                state.bytes -= len;
                state.queue.pop_front()
            };
            let Some(record) = record else { break };
            match sink.put(&record.to_bytes()) {
                Ok(n) => done += n,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if done == 0 {
            Err(Errno::EAGAIN)
        } else {
            Ok(done)
        }
    }

    /// The watches, for `/proc/self/fdinfo`: number, inode, mask.
    pub fn all(&self) -> Vec<(i32, Arc<dyn Inode>, u32)> {
        self.shared
            .state
            .lock()
            .watches
            .iter()
            .map(|(id, watched)| {
                (
                    *id,
                    watched.watch.inode().clone(),
                    watched.watch.mask().bits(),
                )
            })
            .collect()
    }
}

impl Default for InotifyFile {
    fn default() -> Self {
        Self::new()
    }
}

impl File for InotifyFile {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        retry(
            &self.shared.pollee,
            flags.contains(OpenFlags::NONBLOCK),
            None,
            || self.poll().contains(Events::IN),
            || self.take(sink),
        )
    }

    fn poll(&self) -> Events {
        if self.shared.state.lock().queue.is_empty() {
            Events::empty()
        } else {
            Events::IN | Events::RDNORM
        }
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(&self.shared.pollee)
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        match request {
            super::handles::FIONREAD => super::put_int(arg, self.shared.state.lock().bytes as i32),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(self.inode.metadata())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
