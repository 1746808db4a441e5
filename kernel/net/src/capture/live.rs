//! A capture of one interface or all, as a pcapng file that is read while it grows.
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::filter::Filter;
use super::pcapng::{self, Direction};
use crate::stack::Stack;
use crate::tap::{FrameKind, Seen, Tap, TapConfig, TappedFrame};

/// The most captures at once.
pub const MAX_CAPTURES: usize = 8;
/// Bytes of frames that wait to be read at most.
const QUEUE_BYTES: usize = 4 << 20;
/// What the filter looks at, where less is to be kept.
const HEADERS: usize = 256;

static CAPTURES: AtomicUsize = AtomicUsize::new(0);

/// What is to be captured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The interface's name; all where there is none, or `any`.
    pub interface: Option<&'a str>,
    /// An expression of [`Filter`].
    pub filter: Option<&'a str>,
    /// Bytes of each frame to keep; 0 for 262144, as tcpdump.
    pub snaplen: u32,
    /// A TCP port whose traffic is left out unless the filter names it: that of the one who reads.
    pub own_port: Option<u16>,
    /// What to add to the engine's clock for the time since 1970.
    pub wall_offset_ns: u64,
}

/// Why there is no capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// There is no such interface.
    NoInterface(String),
    /// What is wrong with the filter.
    Filter(String),
    /// There are [`MAX_CAPTURES`] already.
    TooMany,
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaptureError::NoInterface(name) => write!(f, "there is no interface {name:?}"),
            CaptureError::Filter(why) => f.write_str(why),
            CaptureError::TooMany => write!(f, "{MAX_CAPTURES} captures run already"),
        }
    }
}

/// One of the [`MAX_CAPTURES`].
struct Place;

impl Drop for Place {
    fn drop(&mut self) {
        CAPTURES.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A capture that runs until it is dropped.
pub struct Capture {
    stack: Arc<Stack>,
    tap: Tap,
    filter: Option<String>,
    snaplen: u32,
    wall_offset_ns: u64,
    /// Numbers in the file by interface index, and whether it is the loopback.
    known: BTreeMap<u32, (u32, bool)>,
    begun: bool,
    frames: u64,
    reported_drops: u64,
    last_ns: u64,
    _place: Place,
}

impl Capture {
    /// Starts a capture.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn start(stack: &Arc<Stack>, options: &Options<'_>) -> Result<Capture, CaptureError> {
        let name = options
            .interface
            .filter(|name| !matches!(*name, "" | "any"));
        let links = stack.links();
        let link = match name {
            None => None,
            Some(name) => match links.iter().find(|link| link.name == name) {
                Some(link) => Some(link),
                None => return Err(CaptureError::NoInterface(name.into())),
            },
        };
        let index = link.map_or(0, |link| link.index);
        let text = options.filter.filter(|text| !text.trim().is_empty());
        let filter = Filter::parse(text.unwrap_or("")).map_err(CaptureError::Filter)?;
        let own_port = options.own_port.filter(|port| !filter.names_port(*port));
        let snaplen = match options.snaplen {
            0 => 262_144,
            bytes => bytes,
        };
        let more = |n: usize| (n < MAX_CAPTURES).then_some(n + 1);
        CAPTURES
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .map_err(|_| CaptureError::TooMany)?;
        let place = Place;
        let keep = snaplen as usize;
        let choose = move |seen: &Seen<'_>| {
            let own = own_port.is_some_and(|port| Filter::is_tcp_port(seen.bytes, port));
            if !own && filter.matches(seen.bytes, seen.len) {
                keep
            } else {
                0
            }
        };
        let tap = stack
            .tap(TapConfig {
                index,
                snaplen: keep.max(HEADERS),
                outgoing: !link.is_some_and(|link| link.loopback),
                capacity: QUEUE_BYTES,
                filter: Some(Arc::new(choose)),
                ..TapConfig::default()
            })
            .map_err(|_| CaptureError::NoInterface(name.unwrap_or("").into()))?;
        Ok(Capture {
            stack: stack.clone(),
            tap,
            filter: text.map(String::from),
            snaplen,
            wall_offset_ns: options.wall_offset_ns,
            known: BTreeMap::new(),
            begun: false,
            frames: 0,
            reported_drops: 0,
            last_ns: 0,
            _place: place,
        })
    }

    /// The next piece of the file: what there is now, about `limit` bytes at most and up to `frames` frames. Empty when
    /// nothing has come.
    pub fn read(&mut self, limit: usize, frames: u64) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.begun {
            self.begun = true;
            out = pcapng::section("nanos", "nanos console");
            // A file without a frame is to have its interface all the same.
            let index = self.tap.config().index;
            if index != 0 {
                self.interface(&mut out, index);
            }
        }
        let end = self.frames.saturating_add(frames);
        while out.len() < limit && self.frames < end {
            let Some(frame) = self.tap.next() else {
                break;
            };
            self.frame(&mut out, &frame);
        }
        if self.tap.dropped() != self.reported_drops {
            self.statistics(&mut out);
        }
        out
    }

    /// The file's last piece: what was seen and what was lost.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = self.read(0, 0);
        self.statistics(&mut out);
        out
    }

    /// Frames written so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Waits until a frame has come or the monotonic clock reaches `deadline_ns`; answers whether one has.
    pub fn wait(&self, deadline_ns: u64) -> bool {
        let come = || self.tap.next_len();
        self.tap.pollee().wait(Some(deadline_ns), come).is_ok()
    }

    /// The number of interface `index` in the file, described first if it is new.
    fn interface(&mut self, out: &mut Vec<u8>, index: u32) -> (u32, bool) {
        if let Some(known) = self.known.get(&index) {
            return *known;
        }
        let links = self.stack.links();
        let link = links.iter().find(|link| link.index == index);
        let name = link.map_or("?", |link| link.name.as_str());
        let id = self.known.len() as u32;
        out.extend(pcapng::interface(
            name,
            self.snaplen,
            self.filter.as_deref(),
        ));
        let known = (id, link.is_some_and(|link| link.loopback));
        self.known.insert(index, known);
        known
    }

    fn frame(&mut self, out: &mut Vec<u8>, frame: &TappedFrame) {
        let (id, loopback) = self.interface(out, frame.index);
        let direction = match frame.kind {
            // Over the loopback each frame passes twice: once is enough, as with tcpdump.
            FrameKind::Outgoing if loopback => return,
            FrameKind::Outgoing => Direction::Outbound,
            _ => Direction::Inbound,
        };
        self.last_ns = frame.at_ns.wrapping_add(self.wall_offset_ns);
        out.extend(pcapng::packet(
            id,
            self.last_ns,
            &frame.bytes,
            frame.len,
            direction,
        ));
        self.frames += 1;
    }

    /// The counts are of all interfaces together: they stand at the first.
    fn statistics(&mut self, out: &mut Vec<u8>) {
        self.reported_drops = self.tap.dropped();
        if !self.known.is_empty() {
            out.extend(pcapng::statistics(
                0,
                self.last_ns,
                self.tap.seen(),
                self.reported_drops,
            ));
        }
    }
}
