//! What a virtio socket card is to the rooms above: packets of [`HEADER_LEN`] bytes and data, in and out. What they
//! mean, connections and credit, is `net`'s.

use alloc::{boxed::Box, sync::Arc};

use crate::{nic::Handler, virtio::SetupError};

/// Bytes of a packet's header (virtio 1.2, 5.10.6).
pub const HEADER_LEN: usize = 44;

/// The most data of one packet that is sent.
pub const MAX_DATA: usize = 64 * 1024;

/// A card that nobody has needed yet. Taking it into service costs memory and registers, so the first socket does it.
pub trait VsockCard: Send + Sync {
    /// Takes it into service; `wake` is called in an interrupt when there is something to receive or room to send.
    ///
    /// # Errors
    /// What the device lacks.
    fn start(&self, wake: Handler) -> Result<Arc<dyn VsockLink>, SetupError>;
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A packet: header and data, in so many of these bytes, at least a header's. Its contents are not checked.
    Packet(Box<[u8]>, usize),
    /// The other side was replaced (a migrated machine): all connections are gone, the address may be another.
    Reset,
}

/// A card in service.
pub trait VsockLink: Send + Sync {
    /// The machine's address.
    fn guest_cid(&self) -> u64;

    /// Whether the device takes `SOCK_SEQPACKET`.
    fn has_seqpacket(&self) -> bool;

    /// Sends a packet: header and data in one.
    ///
    /// # Errors
    /// The packet, when there is no room; `wake` tells of it.
    fn send(&self, packet: Box<[u8]>) -> Result<(), Box<[u8]>>;

    /// The next that arrived. At `None`, interrupts are on again.
    fn receive(&self) -> Option<Arrival>;
}
