//! Descriptors on their way between UNIX sockets, and the cycles they can form: a socket whose only descriptors lie in
//! queues that nobody can read any more. Linux's `net/unix/garbage.c`; here as there it is looked for when a socket is
//! closed while sockets are under way.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use fs::OpenFile;
use machine::sync::SpinLock;

use super::{State, UnixSocket};
use crate::socket::file::SocketFile;

/// The UNIX sockets under way, by the address of their open file: how many times each is.
static UNDER_WAY: SpinLock<BTreeMap<usize, (Weak<OpenFile>, usize)>> =
    SpinLock::new(BTreeMap::new());
static COLLECTING: AtomicBool = AtomicBool::new(false);
static WANTED: AtomicBool = AtomicBool::new(false);

fn key(file: &Arc<OpenFile>) -> usize {
    Arc::as_ptr(file).addr()
}

fn socket(file: &OpenFile) -> Option<&UnixSocket> {
    let file = file.file().as_any().downcast_ref::<SocketFile>()?;
    file.ops().as_any().downcast_ref::<UnixSocket>()
}

/// Descriptors in a queue (`SCM_RIGHTS`).
#[derive(Default)]
pub struct InFlight(Vec<Arc<OpenFile>>);

impl InFlight {
    /// Sends them off.
    pub fn new(files: Vec<Arc<OpenFile>>) -> Self {
        for file in files.iter().filter(|file| socket(file).is_some()) {
            let weak = Arc::downgrade(file);
            let mut all = UNDER_WAY.lock();
            all.entry(key(file)).or_insert((weak, 0)).1 += 1;
        }
        InFlight(files)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy for a peek, which is not under way.
    pub fn peek(&self) -> Vec<Arc<OpenFile>> {
        self.0.clone()
    }

    /// They have arrived.
    pub fn take(&mut self) -> Vec<Arc<OpenFile>> {
        let files = core::mem::take(&mut self.0);
        for file in files.iter().filter(|file| socket(file).is_some()) {
            let mut all = UNDER_WAY.lock();
            let mut gone = None;
            if let Some((_, count)) = all.get_mut(&key(file)) {
                *count -= 1;
                if *count == 0 {
                    gone = all.remove(&key(file));
                }
            }
            drop(all);
            drop(gone);
        }
        files
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl UnixSocket {
    /// Looks at each descriptor in its queue, and in those of connections that wait to be accepted.
    fn each_right(&self, look: &mut dyn FnMut(&Arc<OpenFile>)) {
        self.queue.lock().each_right(look);
        for embryo in self.embryos() {
            embryo.queue.lock().each_right(look);
        }
    }

    /// Takes all those descriptors out.
    fn take_rights(&self) -> Vec<InFlight> {
        let mut rights = self.queue.lock().take_rights();
        for embryo in self.embryos() {
            rights.extend(embryo.queue.lock().take_rights());
        }
        rights
    }

    fn embryos(&self) -> Vec<Arc<UnixSocket>> {
        match &*self.state.lock() {
            State::Listening { waiting, .. } => waiting.iter().cloned().collect(),
            _ => Vec::new(),
        }
    }
}

/// A socket that may be garbage.
struct Candidate {
    file: Arc<OpenFile>,
    /// The candidates in its queues, by their place; as often as they are there.
    holds: Vec<usize>,
    alive: bool,
}

/// Looks for sockets that nobody can reach, and empties their queues, which closes them. Who finds it going on, or is
/// closed by it, has it look once more.
pub fn collect() {
    if UNDER_WAY.lock().is_empty() {
        return;
    }
    WANTED.store(true, Ordering::Release);
    while WANTED.load(Ordering::Acquire) && !COLLECTING.swap(true, Ordering::AcqRel) {
        WANTED.store(false, Ordering::Release);
        look();
        COLLECTING.store(false, Ordering::Release);
    }
}

fn look() {
    let mut candidates = candidates();
    find_edges(&mut candidates);
    settle(&mut candidates);
    let rights: Vec<InFlight> = candidates
        .iter()
        .filter(|candidate| !candidate.alive)
        .filter_map(|candidate| socket(&candidate.file))
        .flat_map(UnixSocket::take_rights)
        .collect();
    drop(candidates);
    drop(rights);
}

/// Those that are under way and nowhere else.
fn candidates() -> Vec<Candidate> {
    let all: Vec<(Arc<OpenFile>, usize)> = UNDER_WAY
        .lock()
        .values()
        .filter_map(|(file, count)| Some((file.upgrade()?, *count)))
        .collect();
    all.into_iter()
        // One more reference is ours.
        .filter(|(file, count)| Arc::strong_count(file) == count + 1)
        .map(|(file, _)| Candidate {
            file,
            holds: Vec::new(),
            alive: false,
        })
        .collect()
}

fn find_edges(candidates: &mut [Candidate]) {
    let places: BTreeMap<usize, usize> = candidates
        .iter()
        .enumerate()
        .map(|(place, candidate)| (key(&candidate.file), place))
        .collect();
    for candidate in candidates {
        let Some(socket) = socket(&candidate.file) else {
            continue;
        };
        socket.each_right(&mut |file| candidate.holds.extend(places.get(&key(file))));
    }
}

/// Whoever has a reference that does not lie in the queue of a dead one is alive, and so is what it holds.
///
/// The counts are read anew: a candidate that somebody received meanwhile has a reference more than was found. One
/// that passes has none but in the queues of the others, so that nobody can come by one any more.
fn settle(candidates: &mut [Candidate]) {
    loop {
        let mut found = alloc::vec![0; candidates.len()];
        for candidate in candidates.iter().filter(|candidate| !candidate.alive) {
            for place in &candidate.holds {
                found[*place] += 1;
            }
        }
        let mut changed = false;
        for (candidate, found) in candidates.iter_mut().zip(found) {
            if !candidate.alive && Arc::strong_count(&candidate.file) != found + 1 {
                candidate.alive = true;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}
