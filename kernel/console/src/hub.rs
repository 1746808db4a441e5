//! Tells watchers of changes to the store, with bounded queues.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    /// How many values all of them keep.
    values: Arc<AtomicUsize>,
}

impl Hub {
    /// A hub that nobody watches.
    pub fn new() -> Arc<Hub> {
        Arc::new(Hub::default())
    }

    /// Tells all who watch the changed leaf. Never blocks.
    pub fn announce(&self, change: &Change, by: &By) {
        let mut text = None;
        for watcher in self.living() {
            if watcher.is_interested(&change.path) {
                watcher.tell(text.get_or_insert_with(|| event(change, by).into()));
            }
        }
    }

    /// Has every watcher look whether it may still watch.
    pub(crate) fn wake_all(&self) {
        for watcher in self.living() {
            watcher.remote.wake();
        }
    }

    /// Those who watch. The lock is not held while they are told.
    fn living(&self) -> Vec<Arc<Watcher>> {
        let watchers = self.watchers.lock();
        watchers.iter().filter_map(Weak::upgrade).collect()
    }

    /// Adds a watcher until it is dropped.
    pub(crate) fn join(&self, remote: Arc<dyn Remote>) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher {
            waiting: SpinLock::new(VecDeque::new()),
            interests: SpinLock::new(Vec::new()),
            changed: AtomicBool::new(false),
            values: AtomicUsize::new(0),
            all_values: self.values.clone(),
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
    /// How many values it keeps, and all of them together.
    values: AtomicUsize,
    all_values: Arc<AtomicUsize>,
    remote: Arc<dyn Remote>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.all_values
            .fetch_sub(*self.values.get_mut(), Ordering::Relaxed);
    }
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

    /// Says how many values it keeps from now on; false, and as before, if all together would be more than `most`.
    pub(crate) fn watch_values(&self, count: usize, most: usize) -> bool {
        // Only the watcher's own thread changes its count.
        let before = self.values.load(Ordering::Relaxed);
        let changed = self
            .all_values
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
                let all = all - before + count;
                (count <= before || all <= most).then_some(all)
            });
        if changed.is_ok() {
            self.values.store(count, Ordering::Relaxed);
        }
        changed.is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Remote for Nobody {
        fn wake(&self) {}

        fn cut(&self) {}
    }

    #[test]
    fn all_together_keep_so_many_values_only() {
        let hub = Hub::new();
        let (one, other) = (hub.join(Arc::new(Nobody)), hub.join(Arc::new(Nobody)));
        assert!(one.watch_values(60, 100) && !other.watch_values(41, 100));
        assert!(other.watch_values(40, 100) && !one.watch_values(61, 100));
        // Fewer are always well, and make room.
        assert!(one.watch_values(10, 20) && other.watch_values(50, 100));
        drop(one);
        assert!(other.watch_values(100, 100));
        drop(other);
        assert_eq!(hub.values.load(Ordering::Relaxed), 0);
    }
}
