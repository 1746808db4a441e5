//! Signal-driven I/O (`fcntl(2)`, `F_SETOWN`, `F_SETSIG`, `O_ASYNC`): a description that raises a
//! signal when it becomes ready; and `SIGURG` of a socket whose peer sends urgent data (`tcp(7)`), which
//! goes to the owner without `O_ASYNC`.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use errno::{Errno, Result};
use fs::{OpenFile, OpenFlags};
use machine::sync::SpinLock;
use sched::poll::{Events, Observer, Registration};

use crate::process::Process;
use crate::signal::{SIGIO, SIGURG, SigInfo, send};

/// Who gets the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Receiver {
    /// Nobody.
    #[default]
    Nobody,
    /// A process, by id.
    Process(i32),
    /// A process group.
    Group(i32),
    /// One thread.
    Thread(i32),
}

struct Settings {
    receiver: SpinLock<Receiver>,
    signal: AtomicI32,
    armed: AtomicBool,
    /// A peer announced urgent data.
    urgent: AtomicBool,
}

impl Observer for Settings {
    fn notify(&self, events: Events) {
        let urgent = events.contains(Events::RDBAND | Events::PRI);
        if urgent {
            self.urgent.store(true, Ordering::Release);
        }
        if !urgent && !self.armed.load(Ordering::Relaxed) {
            return;
        }
        // Sources tell from interrupt handlers, where signals must not be sent: a thread does it.
        PENDING.fetch_add(1, Ordering::Release);
        ARRIVED.wake_all();
    }
}

struct Entry {
    settings: Arc<Settings>,
    file: Weak<OpenFile>,
    _registration: Option<Registration>,
}

static ENTRIES: SpinLock<BTreeMap<usize, Entry>> = SpinLock::new(BTreeMap::new());
static PENDING: AtomicI32 = AtomicI32::new(0);
static ARRIVED: sched::WaitQueue = sched::WaitQueue::new();
static STARTED: AtomicBool = AtomicBool::new(false);

fn key(file: &Arc<OpenFile>) -> usize {
    Arc::as_ptr(file).addr()
}

fn settings(file: &Arc<OpenFile>) -> Option<Arc<Settings>> {
    let entries = ENTRIES.lock();
    let entry = entries.get(&key(file))?;
    // An entry of a description that is gone whose address came back says nothing of this one.
    (entry.file.strong_count() > 0 && core::ptr::eq(entry.file.as_ptr(), Arc::as_ptr(file)))
        .then(|| entry.settings.clone())
}

fn settings_or_new(file: &Arc<OpenFile>) -> Arc<Settings> {
    if let Some(found) = settings(file) {
        return found;
    }
    let settings = Arc::new(Settings {
        receiver: SpinLock::new(Receiver::Nobody),
        signal: AtomicI32::new(0),
        armed: AtomicBool::new(file.flags().contains(OpenFlags::ASYNC)),
        urgent: AtomicBool::new(false),
    });
    let observer: Arc<dyn Observer> = settings.clone();
    let registration = file
        .file()
        .pollee()
        .map(|pollee| pollee.register(&Arc::downgrade(&observer)));
    let entry = Entry {
        settings: settings.clone(),
        file: Arc::downgrade(file),
        _registration: registration,
    };
    let mut entries = ENTRIES.lock();
    let dead: Vec<usize> = entries
        .iter()
        .filter(|(_, entry)| entry.file.strong_count() == 0)
        .map(|(key, _)| *key)
        .collect();
    let dropped: Vec<Entry> = dead.iter().filter_map(|key| entries.remove(key)).collect();
    let old = entries.insert(key(file), entry);
    drop(entries);
    drop((dropped, old));
    settings
}

/// Who gets the signal now.
pub fn receiver(file: &Arc<OpenFile>) -> Receiver {
    settings(file).map_or(Receiver::Nobody, |settings| *settings.receiver.lock())
}

/// Says who gets the signal.
///
/// # Errors
/// `ESRCH` when there is no such process or thread.
pub fn set_receiver(file: &Arc<OpenFile>, receiver: Receiver) -> Result<()> {
    let process = crate::process::get().ok_or(Errno::ESRCH)?;
    let exists = match receiver {
        Receiver::Nobody => true,
        Receiver::Process(pid) | Receiver::Group(pid) => pid == crate::process::PID,
        Receiver::Thread(tid) => process.thread(tid).is_some(),
    };
    if !exists {
        return Err(Errno::ESRCH);
    }
    *settings_or_new(file).receiver.lock() = receiver;
    start();
    Ok(())
}

/// Which signal; 0 is `SIGIO`.
pub fn signal(file: &Arc<OpenFile>) -> i32 {
    settings(file).map_or(0, |settings| settings.signal.load(Ordering::Relaxed))
}

/// Chooses the signal.
///
/// # Errors
/// `EINVAL` for a number that is none.
pub fn set_signal(file: &Arc<OpenFile>, signal: i32) -> Result<()> {
    send::check_number(signal)?;
    settings_or_new(file)
        .signal
        .store(signal, Ordering::Relaxed);
    Ok(())
}

/// Switches with `O_ASYNC`.
pub fn set_armed(file: &Arc<OpenFile>, armed: bool) {
    if armed {
        settings_or_new(file).armed.store(true, Ordering::Relaxed);
        start();
    } else if let Some(settings) = settings(file) {
        settings.armed.store(false, Ordering::Relaxed);
    }
}

/// Starts the thread that raises the signals, once.
fn start() {
    if STARTED.swap(true, Ordering::AcqRel) {
        return;
    }
    let spawned = sched::spawn(sched::SpawnOptions::named("sigio"), || {
        loop {
            ARRIVED.wait(|| (PENDING.swap(0, Ordering::AcqRel) > 0).then_some(()));
            raise_all();
        }
    });
    if spawned.is_err() {
        STARTED.store(false, Ordering::Release);
    }
}

/// Raises the signals of every description that has news: `SIGURG`, and the chosen one of those that are
/// armed and ready. Which of them told is not kept: a receiver must look anyway, as `SIGIO` does not queue.
fn raise_all() {
    let Some(process) = crate::process::get() else {
        return;
    };
    let concerned: Vec<(Arc<OpenFile>, Arc<Settings>)> = ENTRIES
        .lock()
        .values()
        .filter(|entry| {
            entry.settings.armed.load(Ordering::Relaxed)
                || entry.settings.urgent.load(Ordering::Relaxed)
        })
        .filter_map(|entry| Some((entry.file.upgrade()?, entry.settings.clone())))
        .collect();
    for (file, settings) in concerned {
        if settings.urgent.swap(false, Ordering::AcqRel) {
            let _ = raise(process, &settings, SIGURG);
        }
        if !settings.armed.load(Ordering::Relaxed) || file.file().poll().is_empty() {
            continue;
        }
        let signal = match settings.signal.load(Ordering::Relaxed) {
            0 => SIGIO,
            chosen => chosen,
        };
        // A full queue of real-time signals loses it; Linux falls back to SIGIO, and so do we.
        if raise(process, &settings, signal).is_err() {
            let _ = send::to_process(process, SigInfo::kernel(SIGIO));
        }
    }
}

/// Sends a signal to whoever owns the description.
fn raise(process: &'static Process, settings: &Settings, signal: i32) -> Result<()> {
    let info = SigInfo::kernel(signal);
    match *settings.receiver.lock() {
        Receiver::Nobody => Ok(()),
        Receiver::Process(_) | Receiver::Group(_) => send::to_process(process, info),
        Receiver::Thread(tid) => match process.thread(tid) {
            Some(thread) => send::to_thread(process, &thread, info),
            None => Ok(()),
        },
    }
}
