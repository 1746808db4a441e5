//! The byte streams that clients come by, and where they come from: the least that the server needs of them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

/// How a wait for bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// That many bytes came.
    Bytes(usize),
    /// Nothing more will come.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// [`Remote::wake`] was called.
    Woken,
}

/// The peer is gone, or takes nothing for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A client's connection, in the hands of the client's thread. Deadlines are on the clock of [`machine::time::now_ns`].
pub trait Transport: Send {
    /// Waits for bytes.
    fn receive(&mut self, into: &mut [u8], deadline_ns: u64) -> Received;

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// [`Gone`], also when the deadline passes before all are on their way.
    fn send(&mut self, bytes: &[u8], deadline_ns: u64) -> Result<(), Gone>;

    /// The peer has shown the token: it is no stranger from now on.
    fn recognize(&mut self) {}

    /// Whether the peer has closed its end: nobody reads a stream any more.
    fn is_closed(&mut self) -> bool;

    /// Says that nothing more will be sent.
    fn finish(&mut self);

    /// The connection for other threads.
    fn remote(&self) -> Arc<dyn Remote>;
}

/// What other threads may do with a connection.
pub trait Remote: Send + Sync {
    /// Ends a wait in [`Transport::receive`], the present one or the next.
    fn wake(&self);

    /// Breaks the connection.
    fn cut(&self);
}

/// A connection that came in.
pub struct Incoming {
    /// The connection.
    pub transport: Box<dyn Transport>,
    /// Who it is, for the log.
    pub peer: String,
}

/// Where connections come in.
pub trait Listener: Send {
    /// Waits for the next one; `None` when there will be none any more.
    fn accept(&mut self) -> Option<Incoming>;
}
