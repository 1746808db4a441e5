//! What the console shows beyond the store and does not know itself: log, trace, profile, capture, core, maps, stacks, power.
//!
//! The kernel's main fits it with the engines of the rooms that the console does not name. A stream is pulled: the
//! client's own thread asks for the next piece and then writes it, so a slow client holds back its own stream and
//! nothing else. An engine whose ring overflows meanwhile says so in the stream (`{"dropped":N}`).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use store::By;

use crate::error::Error;
use crate::query::Query;

/// What a stream gives next.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes to send. Whole lines of NDJSON, or any part of a file; some tens of KiB at most.
    Bytes(Vec<u8>),
    /// Nothing came up to the deadline. The console looks whether the client is still there, and asks again.
    Nothing,
    /// There will be no more.
    End,
}

/// An answer that comes piece by piece. It is dropped when the client goes away or the answer is whole: what it turned
/// on (a trace, a sampling timer) ends then.
pub trait Stream: Send {
    /// The next piece, waiting for it until the monotonic clock ([`machine::time::now_ns`]) reaches `deadline_ns`, which is
    /// at most a second away. It must not wait longer. `seconds=S` and `count=N` of the query are the stream's own
    /// affair: it answers [`Piece::End`] when they are used up.
    fn next(&mut self, deadline_ns: u64) -> Piece;
}

/// What `POST /api/power` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerAction {
    /// As the power button: SIGTERM first.
    Shutdown,
    /// The same, and the machine starts again.
    Reboot,
}

/// The engines behind the console. Every call is made in a client's thread, may sleep, and answers an [`Error`] for a
/// query that cannot be ([`Error::invalid`], told to the client as 400) or when too many use it ([`Error::too_many`]).
///
/// A query has only parameters that the routing table names for the request, decoded, in the order of the request.
pub trait Services: Send + Sync {
    /// `GET /api/log?follow=1&level=info&since=SEQ`: NDJSON of the kernel's log. Without `follow` it ends.
    ///
    /// # Errors
    /// A level that is none.
    fn log(&self, query: &Query) -> Result<Box<dyn Stream>, Error>;

    /// `GET /api/trace?name=&thread=&path=&errno=&min_us=&seconds=&count=`: NDJSON of system calls as they end.
    ///
    /// # Errors
    /// A filter that is none; too many traces at once.
    fn trace(&self, query: &Query) -> Result<Box<dyn Stream>, Error>;

    /// `GET /api/profile?seconds=5&hz=99&format=folded|pprof|json`: samples of all CPUs. `format`, `seconds` and `hz` are in
    /// range where they are given. Gives [`Piece::Nothing`] while it samples, then the whole.
    ///
    /// # Errors
    /// A profile that runs already.
    fn profile(&self, query: &Query) -> Result<Box<dyn Stream>, Error>;

    /// `GET /api/capture?interface=en1&filter=&snaplen=&count=&seconds=`: pcapng, live. The console's own connection
    /// should not be in it where the filter does not ask for its port: `own_port` is the console's.
    ///
    /// # Errors
    /// An interface that there is not; a filter that is none; too many captures.
    fn capture(&self, query: &Query, own_port: u16) -> Result<Box<dyn Stream>, Error>;

    /// `GET /api/core`: an ELF core file of the program.
    ///
    /// # Errors
    /// No program runs; too many at once.
    fn core(&self) -> Result<Box<dyn Stream>, Error>;

    /// `GET /api/maps`: the address space, as a JSON array.
    ///
    /// # Errors
    /// No program runs.
    fn maps(&self) -> Result<String, Error>;

    /// `GET /api/threads`: the threads, as a JSON array.
    ///
    /// # Errors
    /// No program runs.
    fn threads(&self) -> Result<String, Error>;

    /// `GET /api/threads/<tid>/stack`: the kernel's and the program's stack of a thread, as a JSON object.
    ///
    /// # Errors
    /// [`Error::not_found`] where there is no such thread.
    fn stack(&self, thread: u64) -> Result<String, Error>;

    /// `POST /api/power`. Returns once it is under way, so that the client gets its answer.
    ///
    /// # Errors
    /// What was asked for cannot be done on this machine.
    fn power(&self, action: PowerAction, by: &By) -> Result<(), Error>;
}
