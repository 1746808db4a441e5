//! Bringing a device up (virtio 1.2, 3.1): each step is a type, and only the next step can be taken.

use alloc::{sync::Arc, vec::Vec};

use super::{
    SetupError, feature,
    queue::{Placement, Queue},
    status,
    transport::{Handlers, Notifier, Transport},
};

/// A device that was reset and whose features can be negotiated.
pub struct Found {
    transport: Arc<dyn Transport>,
}

impl Found {
    /// Resets the device.
    pub fn new(transport: Arc<dyn Transport>) -> Found {
        transport.set_status(0);
        Found { transport }
    }

    /// Chooses all of `wanted` that the device offers; it must offer all of `required`, and the modern interface.
    ///
    /// # Errors
    /// [`SetupError::Legacy`], [`SetupError::MissingFeature`], [`SetupError::Rejected`].
    pub fn negotiate(self, required: u64, wanted: u64) -> Result<Negotiated, SetupError> {
        self.negotiate_with(|offered| {
            let missing = required & !offered;
            if missing != 0 {
                return Err(SetupError::MissingFeature(missing));
            }
            Ok(offered & (required | wanted))
        })
    }

    /// Lets `choose` pick among the offered features.
    ///
    /// # Errors
    /// As [`Found::negotiate`], and those of `choose`.
    pub fn negotiate_with(
        self,
        choose: impl FnOnce(u64) -> Result<u64, SetupError>,
    ) -> Result<Negotiated, SetupError> {
        let transport = self.transport;
        transport.set_status(status::ACKNOWLEDGE | status::DRIVER);
        let fail = |error| {
            transport.set_status(status::FAILED);
            Err(error)
        };
        let offered = transport.device_features();
        if offered & feature::VERSION_1 == 0 {
            return fail(SetupError::Legacy);
        }
        let chosen = match choose(offered) {
            Ok(features) => {
                features & offered | feature::VERSION_1 | offered & feature::ACCESS_PLATFORM
            }
            Err(error) => return fail(error),
        };
        transport.set_driver_features(chosen);
        let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        transport.set_status(agreed);
        if transport.status() & status::FEATURES_OK == 0 {
            return fail(SetupError::Rejected);
        }
        Ok(Negotiated {
            transport,
            features: chosen,
            queues: Vec::new(),
        })
    }
}

/// A device whose features are agreed and whose queues are being made.
pub struct Negotiated {
    transport: Arc<dyn Transport>,
    features: u64,
    queues: Vec<(u16, Placement)>,
}

impl Negotiated {
    /// Whether all of these feature bits were agreed.
    pub fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    /// All agreed features.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Makes queue `index` with at most `most` descriptors.
    ///
    /// # Errors
    /// [`SetupError::NoQueue`], [`SetupError::NoMemory`].
    pub fn queue(&mut self, index: u16, most: u16) -> Result<(Queue, Notifier), SetupError> {
        let max = self.transport.max_queue_size(index);
        if max == 0 {
            return Err(SetupError::NoQueue(index));
        }
        let size = previous_power_of_two(max.min(most));
        let queue = Queue::new(size, self.has(feature::EVENT_IDX))?;
        let notifier = self.transport.notifier(index)?;
        self.queues.push((index, queue.placement()));
        Ok((queue, notifier))
    }

    /// Reads configuration that may change under the reader: again until it held still.
    ///
    /// # Errors
    /// [`SetupError::BadConfig`] when the configuration is shorter, or never holds still.
    pub fn config<const N: usize>(&self, offset: usize) -> Result<[u8; N], SetupError> {
        read_config(&*self.transport, offset)
    }

    /// Connects the interrupts and lets the device run.
    ///
    /// # Errors
    /// [`SetupError::NoInterrupt`].
    pub fn start(self, handlers: Handlers) -> Result<Running, SetupError> {
        if let Err(error) = self.transport.connect(&self.queues, handlers) {
            self.transport.set_status(0);
            return Err(error);
        }
        self.transport.set_status(
            status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
        );
        Ok(Running {
            transport: self.transport,
        })
    }
}

/// A device in service. It is reset when this is dropped, so that it touches the queues' memory no more.
pub struct Running {
    transport: Arc<dyn Transport>,
}

impl Running {
    /// Reads configuration, as [`Negotiated::config`].
    ///
    /// # Errors
    /// [`SetupError::BadConfig`].
    pub fn config<const N: usize>(&self, offset: usize) -> Result<[u8; N], SetupError> {
        read_config(&*self.transport, offset)
    }

    /// Its registers.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.transport.set_status(0);
    }
}

/// Reads `N` bytes of configuration at one generation.
///
/// # Errors
/// [`SetupError::BadConfig`] when it is shorter, or changes all the time.
pub fn read_config<const N: usize>(
    transport: &dyn Transport,
    offset: usize,
) -> Result<[u8; N], SetupError> {
    let mut bytes = [0; N];
    // Up to four bytes are read in one access: no generation needed.
    let tries = if N <= 4 { 1 } else { 16 };
    for _ in 0..tries {
        let before = if N <= 4 {
            0
        } else {
            transport.config_generation()
        };
        if !transport.read_config(offset, &mut bytes) {
            return Err(SetupError::BadConfig);
        }
        if N <= 4 || transport.config_generation() == before {
            return Ok(bytes);
        }
    }
    Err(SetupError::BadConfig)
}

fn previous_power_of_two(value: u16) -> u16 {
    1 << value.max(1).ilog2()
}
