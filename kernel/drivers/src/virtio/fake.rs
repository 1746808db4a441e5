//! The device's side of virtio for tests: a transport without hardware, and virtqueues as a device works them, on
//! exactly the memory that the driver has handed out.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use machine::{dma::device_side, mem::PAGE_SIZE};

use super::{
    SetupError, feature,
    queue::Placement,
    transport::{Handlers, Notifier, Transport},
};

/// A descriptor as the device reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) writable: bool,
}

/// A chain that the driver made available.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) indirect: bool,
}

impl Chain {
    /// All bytes that the driver gives.
    pub(crate) fn readable(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for buffer in self.buffers.iter().filter(|buffer| !buffer.writable) {
            bytes.extend(read(buffer.address, buffer.len as usize));
        }
        bytes
    }

    /// Bytes of room for the device.
    pub(crate) fn room(&self) -> usize {
        let writable = self.buffers.iter().filter(|buffer| buffer.writable);
        writable.map(|buffer| buffer.len as usize).sum()
    }

    /// Fills the room from the front; returns how much.
    pub(crate) fn fill(&self, mut bytes: &[u8]) -> u32 {
        let mut done = 0;
        for buffer in self.buffers.iter().filter(|buffer| buffer.writable) {
            let now = bytes.len().min(buffer.len as usize);
            write(buffer.address, &bytes[..now]);
            bytes = &bytes[now..];
            done += now as u32;
        }
        assert!(bytes.is_empty(), "more bytes than room");
        done
    }
}

/// The parts of a range that lie in one page each: neighbouring pages are handed out one by one.
fn by_page(address: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = address + done as u64;
        let now = (len - done).min(PAGE_SIZE - at as usize % PAGE_SIZE);
        let from = done;
        done += now;
        (now > 0).then_some((at, from, now))
    })
}

pub(crate) fn read(address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if !device_side::read(address, &mut bytes) {
        for (at, from, now) in by_page(address, len) {
            assert!(
                device_side::read(at, &mut bytes[from..from + now]),
                "the device was pointed at memory that is not its own: {at:#x}+{now}"
            );
        }
    }
    bytes
}

pub(crate) fn write(address: u64, bytes: &[u8]) {
    if !device_side::write(address, bytes) {
        for (at, from, now) in by_page(address, bytes.len()) {
            assert!(
                device_side::write(at, &bytes[from..from + now]),
                "the device was pointed at memory that is not its own: {at:#x}+{now}"
            );
        }
    }
}

fn read16(address: u64) -> u16 {
    u16::from_le_bytes(read(address, 2).try_into().unwrap())
}

/// A virtqueue from the device's side.
#[derive(Clone, Debug)]
pub(crate) struct DeviceQueue {
    pub(crate) place: Placement,
    event_idx: bool,
    /// Chains taken.
    seen: u16,
    /// Chains given back.
    pub(crate) used: u16,
    /// It gives back only what it has, so that the driver can be held to the rules as well.
    pub(crate) honest: bool,
}

impl DeviceQueue {
    pub(crate) fn new(place: Placement, event_idx: bool) -> DeviceQueue {
        DeviceQueue {
            place,
            event_idx,
            seen: 0,
            used: 0,
            honest: true,
        }
    }

    /// The next chain, if the driver has made one available. Asks for a notification at the one after.
    pub(crate) fn next(&mut self) -> Option<Chain> {
        if self.event_idx {
            let event = self.place.used + 4 + 8 * u64::from(self.place.size);
            write(event, &self.seen.to_le_bytes());
        }
        let available = read16(self.place.available + 2);
        if available == self.seen {
            return None;
        }
        assert!(!self.honest || available.wrapping_sub(self.seen) <= self.place.size);
        let slot = u64::from(self.seen & (self.place.size - 1));
        let head = read16(self.place.available + 4 + 2 * slot);
        assert!(head < self.place.size);
        self.seen = self.seen.wrapping_add(1);
        if self.event_idx {
            let event = self.place.used + 4 + 8 * u64::from(self.place.size);
            write(event, &self.seen.to_le_bytes());
        }
        let mut chain = Chain {
            head,
            buffers: Vec::new(),
            indirect: false,
        };
        self.follow(self.place.descriptors, self.place.size, head, &mut chain);
        Some(chain)
    }

    fn follow(&self, table: u64, size: u16, from: u16, chain: &mut Chain) {
        let mut index = from;
        let mut wrote = false;
        loop {
            assert!(index < size, "descriptor beyond its table");
            let bytes = read(table + 16 * u64::from(index), 16);
            let address = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            let flags = u16::from_le_bytes([bytes[12], bytes[13]]);
            if flags & 4 != 0 {
                assert!(!chain.indirect && flags == 4 && len % 16 == 0);
                chain.indirect = true;
                self.follow(address, (len / 16) as u16, 0, chain);
                return;
            }
            let writable = flags & 2 != 0;
            assert!(writable || !wrote, "a readable buffer after a writable one");
            wrote = writable;
            chain.buffers.push(Buffer {
                address,
                len,
                writable,
            });
            assert!(chain.buffers.len() <= usize::from(size), "a circle");
            if flags & 1 == 0 {
                return;
            }
            index = u16::from_le_bytes([bytes[14], bytes[15]]);
        }
    }

    /// Gives a chain back; returns whether the driver wants an interrupt.
    pub(crate) fn give_back(&mut self, head: u16, len: u32) -> bool {
        let slot = u64::from(self.used & (self.place.size - 1));
        let mut element = [0; 8];
        element[..4].copy_from_slice(&u32::from(head).to_le_bytes());
        element[4..].copy_from_slice(&len.to_le_bytes());
        write(self.place.used + 4 + 8 * slot, &element);
        let old = self.used;
        self.used = old.wrapping_add(1);
        write(self.place.used + 2, &self.used.to_le_bytes());
        if self.event_idx {
            let event = read16(self.place.available + 4 + 2 * u64::from(self.place.size));
            event == old
        } else {
            read16(self.place.available) & 1 == 0
        }
    }

    /// Writes nonsense into the used ring.
    pub(crate) fn lie(&mut self, id: u32, index: u16) {
        let slot = u64::from(self.used & (self.place.size - 1));
        write(self.place.used + 4 + 8 * slot, &id.to_le_bytes());
        write(self.place.used + 2, &index.to_le_bytes());
    }
}

/// What a device does when it is notified of a queue.
pub(crate) type OnNotify = Arc<dyn Fn(&Fake, u16) + Send + Sync>;

/// A device without hardware.
pub(crate) struct Fake {
    device_type: u32,
    features: u64,
    queue_sizes: Vec<u16>,
    pub(crate) config: Mutex<Vec<u8>>,
    generation: AtomicU64,
    status: Mutex<u8>,
    accepted: AtomicU64,
    pub(crate) queues: Mutex<BTreeMap<u16, DeviceQueue>>,
    handlers: Mutex<Option<Arc<Handlers>>>,
    on_notify: Mutex<Option<OnNotify>>,
    /// Itself, for the notifiers.
    own: std::sync::Weak<Fake>,
    pub(crate) interrupts: AtomicU64,
    pub(crate) notifications: AtomicU64,
}

impl Fake {
    pub(crate) fn new(
        device_type: u32,
        features: u64,
        queue_sizes: &[u16],
        config: &[u8],
    ) -> Arc<Fake> {
        Arc::new_cyclic(|own| Fake {
            device_type,
            features: features | feature::VERSION_1,
            queue_sizes: queue_sizes.to_vec(),
            config: Mutex::new(config.to_vec()),
            generation: AtomicU64::new(0),
            status: Mutex::new(0),
            accepted: AtomicU64::new(0),
            queues: Mutex::new(BTreeMap::new()),
            handlers: Mutex::new(None),
            on_notify: Mutex::new(None),
            own: own.clone(),
            interrupts: AtomicU64::new(0),
            notifications: AtomicU64::new(0),
        })
    }

    /// What happens at a notification; before, nothing.
    pub(crate) fn on_notify(&self, act: impl Fn(&Fake, u16) + Send + Sync + 'static) {
        *self.on_notify.lock().unwrap() = Some(Arc::new(act));
    }

    /// The features that the driver accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Works on a queue.
    pub(crate) fn with_queue<T>(&self, queue: u16, work: impl FnOnce(&mut DeviceQueue) -> T) -> T {
        work(
            self.queues
                .lock()
                .unwrap()
                .get_mut(&queue)
                .expect("a queue in use"),
        )
    }

    /// The next chain of a queue.
    pub(crate) fn next(&self, queue: u16) -> Option<Chain> {
        self.with_queue(queue, DeviceQueue::next)
    }

    /// Gives a chain back, with an interrupt if the driver wants one.
    pub(crate) fn give_back(&self, queue: u16, head: u16, len: u32) {
        if self.with_queue(queue, |q| q.give_back(head, len)) {
            self.interrupt(queue);
        }
    }

    /// Interrupts for a queue, wanted or not.
    pub(crate) fn interrupt(&self, queue: u16) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        let handlers = self.handlers.lock().unwrap().clone().expect("connected");
        for (of, handler) in &handlers.queues {
            if *of == queue {
                handler();
            }
        }
    }

    /// Changes the configuration and interrupts.
    pub(crate) fn change_config(&self, at: usize, bytes: &[u8]) {
        self.config.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        self.generation.fetch_add(1, Ordering::Relaxed);
        let handlers = self.handlers.lock().unwrap().clone().expect("connected");
        handlers.config.as_ref().expect("a handler")();
    }
}

impl Transport for Fake {
    fn device_type(&self) -> u32 {
        self.device_type
    }

    fn device_features(&self) -> u64 {
        self.features
    }

    fn set_driver_features(&self, features: u64) {
        self.accepted.store(features, Ordering::Relaxed);
    }

    fn status(&self) -> u8 {
        *self.status.lock().unwrap()
    }

    fn set_status(&self, status: u8) {
        let wrong = self.accepted() & !self.features != 0;
        *self.status.lock().unwrap() = if wrong { status & !8 } else { status };
        if status == 0 {
            self.queues.lock().unwrap().clear();
        }
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let config = self.config.lock().unwrap();
        match config.get(offset..offset + bytes.len()) {
            Some(source) => {
                bytes.copy_from_slice(source);
                true
            }
            None => false,
        }
    }

    fn config_generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed) as u32
    }

    fn max_queue_size(&self, queue: u16) -> u16 {
        self.queue_sizes
            .get(usize::from(queue))
            .copied()
            .unwrap_or(0)
    }

    fn notifier(&self, queue: u16) -> Result<Notifier, SetupError> {
        let own = self.own.clone();
        Ok(Notifier::Call(Arc::new(move || {
            let Some(own) = own.upgrade() else { return };
            own.notifications.fetch_add(1, Ordering::Relaxed);
            let act = own.on_notify.lock().unwrap().clone();
            if let Some(act) = act {
                act(&own, queue);
            }
        })))
    }

    fn connect(&self, queues: &[(u16, Placement)], handlers: Handlers) -> Result<(), SetupError> {
        let event_idx = self.accepted() & feature::EVENT_IDX != 0;
        for (index, place) in queues {
            assert_eq!(place.descriptors % 16, 0);
            assert_eq!(place.available % 2, 0);
            assert_eq!(place.used % 4, 0);
            self.queues
                .lock()
                .unwrap()
                .insert(*index, DeviceQueue::new(*place, event_idx));
        }
        *self.handlers.lock().unwrap() = Some(Arc::new(handlers));
        Ok(())
    }

    fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    fn location(&self) -> String {
        "fake".into()
    }
}
