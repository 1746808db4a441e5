//! virtio-blk (virtio 1.2, 5.2): the device as a [`BlockDevice`]. How its configuration is read and which queue a
//! request takes is here; what happens in a queue is in `queue`.

mod config;
mod queue;
mod request;
#[cfg(test)]
mod tests;
mod traffic;

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use machine::{cpu, mem::Frame};

pub use config::{Config, feature};
use queue::BlkQueue;
use traffic::Done;

use super::{
    SetupError, feature as ring,
    setup::{Found, Running},
    transport::{Handlers, InterruptHandler, Transport},
};
use crate::{
    IoError,
    block::{BlockDevice, Limits, Operation, Outcome, Request, Segment, Traffic, check_request},
};

/// The most queues that are used: more than this many CPUs waiting for one disk gain nothing.
const MAX_QUEUES: u16 = 4;

/// The most descriptors of a queue.
const QUEUE_SIZE: u16 = 128;

/// A virtio block device in service.
pub struct VirtioBlk {
    // First, so that it is reset before the queues' memory goes.
    running: Running,
    queues: Vec<Arc<BlkQueue>>,
    config: Config,
    limits: Limits,
    done: Done,
}

impl VirtioBlk {
    /// Takes the device into service.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(transport: Arc<dyn Transport>) -> Result<VirtioBlk, SetupError> {
        let wanted = feature::SEG_MAX
            | feature::SIZE_MAX
            | feature::RO
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::MQ
            | feature::DISCARD
            | feature::WRITE_ZEROES
            | ring::INDIRECT_DESC
            | ring::EVENT_IDX;
        let mut device = Found::new(transport).negotiate(0, wanted)?;
        let config = Config::read(&device)?;
        let count = config
            .queues
            .min(MAX_QUEUES)
            .min(cpu::count().max(1) as u16);
        let indirect = device.has(ring::INDIRECT_DESC);
        let mut queues = Vec::new();
        for index in 0..count {
            let (ring, notifier) = device.queue(index, QUEUE_SIZE)?;
            queues.push(Arc::new(BlkQueue::new(ring, notifier, indirect, &config)));
        }
        let handlers = queues
            .iter()
            .enumerate()
            .map(|(index, queue)| {
                let queue = queue.clone();
                let handler: InterruptHandler = Box::new(move || queue.interrupt());
                (index as u16, handler)
            })
            .collect();
        let limits = Limits {
            max_segments: queues[0].max_segments(),
            max_sectors: (queues[0].max_segments() as u64) * crate::block::SECTORS_PER_PAGE,
            max_discard_sectors: config.max_discard_sectors.into(),
            max_zeroes_sectors: config.max_zeroes_sectors.into(),
            block_size: config.block_size,
            queue_depth: queues.iter().map(|queue| queue.depth()).sum(),
        };
        let running = device.start(Handlers {
            queues: handlers,
            config: None,
        })?;
        Ok(VirtioBlk {
            running,
            queues,
            config,
            limits,
            done: Done::default(),
        })
    }

    /// Where the device is, for messages.
    pub fn location(&self) -> String {
        self.running.transport().location()
    }

    /// Requests given to the device, notifications and interrupts so far: what requests cost.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters {
            interrupts: self.running.transport().interrupts(),
            ..Counters::default()
        };
        for queue in &self.queues {
            let (requests, kicks) = queue.counters();
            sum.requests += requests;
            sum.kicks += kicks;
        }
        sum
    }

    fn queue(&self) -> &Arc<BlkQueue> {
        &self.queues[cpu::id() % self.queues.len()]
    }

    fn check(&self, op: Operation, sector: u64, segments: &[Segment]) -> Outcome {
        check_request(
            op,
            sector,
            segments,
            self.config.sectors,
            self.config.read_only,
            &self.limits,
        )
    }
}

/// What requests have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests given to the device.
    pub requests: u64,
    /// Notifications of the device.
    pub kicks: u64,
    /// Interrupts from it.
    pub interrupts: u64,
}

impl BlockDevice for VirtioBlk {
    fn sector_count(&self) -> u64 {
        self.config.sectors
    }

    fn read_only(&self) -> bool {
        self.config.read_only
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, request: Request) {
        self.submit_all(&mut core::iter::once(request));
    }

    fn submit_all(&self, requests: &mut dyn Iterator<Item = Request>) {
        let queue = self.queue();
        for request in requests {
            let checked = self.check(request.op, request.sector, &request.segments);
            match checked {
                Err(error) => request.finish(Err(error)),
                Ok(()) if request.op == Operation::Flush && !self.config.flush => {
                    request.finish(Ok(()));
                }
                Ok(()) => {
                    self.done.count(request.op, &request.segments);
                    queue.submit(request);
                }
            }
        }
        queue.kick();
    }

    fn execute(&self, op: Operation, sector: u64, segments: &[Segment]) -> Outcome {
        self.check(op, sector, segments)?;
        if op == Operation::Flush && !self.config.flush {
            // No flush feature: the device has no volatile cache (virtio 1.2, 5.2.6.2).
            return Ok(());
        }
        self.done.count(op, segments);
        self.queue().execute(op, sector, segments)
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.done.sum())
    }

    fn serial(&self) -> Option<String> {
        const ID_LEN: usize = 20;
        let segment = Segment {
            frame: Frame::alloc_zeroed().ok()?,
            offset: 0,
            len: ID_LEN as u32,
        };
        let frame = segment.frame.clone();
        self.queue().get_id(&[segment]).ok()?;
        let mut id = [0; ID_LEN];
        frame.read(0, &mut id);
        let len = id.iter().position(|&b| b == 0).unwrap_or(ID_LEN);
        let text = String::from_utf8_lossy(&id[..len]);
        (!text.is_empty()).then(|| text.into_owned())
    }
}

/// Why requests of a device end once it broke the protocol.
const GONE: Outcome = Err(IoError::Gone);
