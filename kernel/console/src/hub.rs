//! Tells watchers of changes to the store, with bounded queues.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

use machine::sync::SpinLock;
use store::json::write_string;
use store::{By, Change, Path};

use crate::transport::Remote;

/// The most announcements that wait for one client. What it misses beyond, it sees in its next delta.
const MAX_WAITING: usize = 64;

/// Where changes are announced. Give [`Hub::announce`] to [`store::Store::observe`] before the store is shared.
#[derive(Default)]
pub struct Hub {
    watchers: SpinLock<Vec<Weak<Watcher>>>,
}

impl Hub {
    /// A hub that nobody watches.
    pub fn new() -> Arc<Hub> {
        Arc::new(Hub::default())
    }

    /// Tells all who watch the changed leaf. Never blocks.
    pub fn announce(&self, change: &Change, by: &By) {
        let watchers: Vec<Arc<Watcher>> = {
            let watchers = self.watchers.lock();
            watchers.iter().filter_map(Weak::upgrade).collect()
        };
        let mut text = None;
        for watcher in watchers {
            if watcher.is_interested(&change.path) {
                watcher.tell(text.get_or_insert_with(|| event(change, by).into()));
            }
        }
    }

    /// Has every watcher look whether it may still watch.
    pub(crate) fn wake_all(&self) {
        let watchers: Vec<Arc<Watcher>> = {
            let watchers = self.watchers.lock();
            watchers.iter().filter_map(Weak::upgrade).collect()
        };
        watchers.iter().for_each(|watcher| watcher.remote.wake());
    }

    /// Adds a watcher until it is dropped.
    pub(crate) fn join(&self, remote: Arc<dyn Remote>) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher {
            waiting: SpinLock::new(VecDeque::new()),
            interests: SpinLock::new(Vec::new()),
            changed: AtomicBool::new(false),
            remote,
        });
        let mut watchers = self.watchers.lock();
        watchers.retain(|other| other.strong_count() > 0);
        watchers.push(Arc::downgrade(&watcher));
        drop(watchers);
        watcher
    }
}

fn event(change: &Change, by: &By) -> String {
    let mut out = String::from("{\"event\":\"changed\",\"path\":");
    let _ = write!(out, "\"{}\",\"value\":", change.path);
    change.value.write_json(&mut out);
    out.push_str(",\"by\":");
    write_string(&mut out, &by.0);
    out.push('}');
    out
}

/// A client that watches.
pub(crate) struct Watcher {
    waiting: SpinLock<VecDeque<Arc<str>>>,
    interests: SpinLock<Vec<Path>>,
    changed: AtomicBool,
    remote: Arc<dyn Remote>,
}

impl Watcher {
    fn is_interested(&self, path: &Path) -> bool {
        let interests = self.interests.lock();
        interests.iter().any(|interest| interest.contains(path))
    }

    fn tell(&self, text: &Arc<str>) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push_back(text.clone());
        }
        drop(waiting);
        self.changed.store(true, Ordering::SeqCst);
        self.remote.wake();
    }

    /// Says what it watches now.
    pub(crate) fn set_interests(&self, paths: Vec<Path>) {
        *self.interests.lock() = paths;
    }

    /// The announcements that wait, and whether anything was announced at all.
    pub(crate) fn take(&self) -> (bool, VecDeque<Arc<str>>) {
        let changed = self.changed.swap(false, Ordering::SeqCst);
        (changed, core::mem::take(&mut *self.waiting.lock()))
    }
}
