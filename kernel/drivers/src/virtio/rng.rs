//! virtio-rng (virtio 1.2, 5.4): a device that fills buffers with random bytes. It is set up at the first request:
//! most machines have entropy enough without it at boot.

use alloc::{boxed::Box, sync::Arc};

use machine::{dma::DmaIn, sync::IrqLock};
use sched::{Mutex, WaitQueue};

use super::{
    SetupError, feature as ring,
    queue::{Piece, Queue},
    setup::{Found, Running},
    transport::{Handlers, InterruptHandler, Notifier, Transport},
};
use crate::{IoError, entropy::Entropy};

/// The most bytes asked for at once.
const PIECE: usize = 256;

/// A virtio entropy device.
pub struct VirtioRng {
    transport: Arc<dyn Transport>,
    /// Held while a request is under way: one at a time.
    device: Mutex<Option<Device>>,
}

struct Device {
    // First, so that it is reset before the queue's memory goes.
    _running: Running,
    shared: Arc<Shared>,
    notifier: Notifier,
}

struct Shared {
    state: IrqLock<State>,
    done: WaitQueue,
}

struct State {
    ring: Queue,
    under_way: Option<DmaIn>,
    /// How the last request ended, for the thread that waits.
    ended: Option<Result<u32, IoError>>,
}

impl VirtioRng {
    /// Remembers the device for later.
    pub fn new(transport: Arc<dyn Transport>) -> VirtioRng {
        VirtioRng {
            transport,
            device: Mutex::new(None),
        }
    }

    fn start(&self) -> Result<Device, SetupError> {
        let mut device = Found::new(self.transport.clone()).negotiate(0, ring::EVENT_IDX)?;
        let (mut queue, notifier) = device.queue(0, 4)?;
        queue.enable_interrupts(1);
        let shared = Arc::new(Shared {
            state: IrqLock::new(State {
                ring: queue,
                under_way: None,
                ended: None,
            }),
            done: WaitQueue::new(),
        });
        let interrupted = shared.clone();
        let handler: InterruptHandler = Box::new(move || interrupted.interrupt());
        let running = device.start(Handlers {
            queues: alloc::vec![(0, handler)],
            config: None,
        })?;
        Ok(Device {
            _running: running,
            shared,
            notifier,
        })
    }
}

impl Device {
    /// Gets up to [`PIECE`] bytes; returns how many.
    fn request(&self, bytes: &mut [u8]) -> Result<usize, IoError> {
        let room = DmaIn::with_len(bytes.len().min(PIECE));
        let piece = Piece {
            address: room.phys(),
            len: room.len() as u32,
            device_writes: true,
        };
        let kick = {
            let mut state = self.shared.state.lock();
            if state.ring.add(&[piece]).is_none() {
                drop(state);
                room.complete();
                return Err(IoError::Gone);
            }
            state.under_way = Some(room);
            state.ring.publish()
        };
        if kick {
            self.notifier.notify();
        }
        let len = self
            .shared
            .done
            .wait(|| self.shared.state.lock().ended.take())?;
        let room = self.shared.state.lock().under_way.take();
        let data = room.and_then(DmaIn::into_box).ok_or(IoError::Gone)?;
        let len = (len as usize).min(data.len()).min(bytes.len());
        bytes[..len].copy_from_slice(&data[..len]);
        Ok(len)
    }
}

impl Shared {
    fn interrupt(&self) -> bool {
        {
            let mut state = self.state.lock();
            match state.ring.take() {
                Ok(Some((_, len))) => state.ended = Some(Ok(len)),
                Ok(None) => return false,
                Err(_) => state.ended = Some(Err(IoError::Gone)),
            }
            state.ring.enable_interrupts(1);
        }
        self.done.wake_all();
        true
    }
}

impl Entropy for VirtioRng {
    fn read(&self, bytes: &mut [u8]) -> Result<(), IoError> {
        let mut device = self.device.lock();
        let device = match &mut *device {
            Some(device) => device,
            none => {
                let started = self.start().map_err(|error| {
                    log::warn!("{}: {error}", self.transport.location());
                    IoError::Gone
                })?;
                none.insert(started)
            }
        };
        let mut filled = 0;
        while filled < bytes.len() {
            match device.request(&mut bytes[filled..])? {
                // A device that delivers nothing would never end this.
                0 => return Err(IoError::Device),
                got => filled += got,
            }
        }
        Ok(())
    }
}
