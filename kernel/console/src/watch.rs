//! `/api/watch`: a client's subscriptions, and what it is sent.
//!
//! Each subscription keeps the last snapshot that was sent. The client's thread takes the next one only when the last
//! delta is on its way: a slow client gets fewer and larger deltas and never a queue.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

use serde_json::Value as Json;
use store::watch::Snapshot;
use store::{MAX_DEPTH, Path};

use crate::error::Error;
use crate::handle::Console;
use crate::hub::Watcher;
use crate::transport::{Received, Transport};
use crate::turn;
use crate::websocket::{CloseCode, Event, Opcode, Reader, write_frame};

/// The most subscriptions of one client.
const MAX_SUBSCRIPTIONS: usize = 64;
/// The most values that one client watches, with the entries of maps and lists: see [`Snapshot::weight`].
const MAX_VALUES: usize = 20_000;
/// The most that all clients watch together.
const MAX_ALL_VALUES: usize = 30_000;
/// The shortest period in milliseconds.
const MIN_PERIOD_MS: u64 = 100;
/// The longest.
const MAX_PERIOD_MS: u64 = 3_600_000;
/// How often a subscription "on change" looks for changes that nobody announces.
const CHANGE_NS: u64 = 1_000_000_000;
/// A silent client is pinged after this time, and given up after three of it.
const PING_NS: u64 = 20_000_000_000;
/// How long a message may take to be taken by the connection.
const SEND_NS: u64 = 15_000_000_000;

struct Subscription {
    id: u64,
    path: Path,
    depth: usize,
    /// `None` is "on change".
    period_ns: Option<u64>,
    due_ns: u64,
    /// What was sent last.
    last: Option<Snapshot>,
}

struct Session<'a> {
    console: &'a Console,
    pass: Option<&'a str>,
    transport: &'a mut dyn Transport,
    watcher: Arc<Watcher>,
    subscriptions: Vec<Subscription>,
    heard_ns: u64,
    pinged_ns: u64,
}

/// Serves a WebSocket until it ends, or what it was admitted by (see [`Console::pass`]). `input` is what came behind the
/// handshake.
pub fn run(console: &Console, pass: Option<&str>, transport: &mut dyn Transport, input: Vec<u8>) {
    let watcher = console.hub.join(transport.remote());
    let now = machine::time::now_ns();
    let mut session = Session {
        console,
        pass,
        transport,
        watcher,
        subscriptions: Vec::new(),
        heard_ns: now,
        pinged_ns: now,
    };
    if let Err(Some(code)) = session.serve(input) {
        let mut out = Vec::new();
        Event::close_frame(&mut out, code);
        let _ = session.write(&out);
    }
}

/// `Some` asks for a close frame, `None` means that nobody would read it.
type End = Option<CloseCode>;

impl Session<'_> {
    fn serve(&mut self, mut input: Vec<u8>) -> Result<(), End> {
        let mut reader = Reader::default();
        let mut buffer = alloc::vec![0; 4096];
        loop {
            while let Some(event) = reader.take(&mut input) {
                self.event(event)?;
            }
            if !self.console.holds(self.pass) {
                return Err(Some(CloseCode::NOT_ALLOWED));
            }
            self.announce()?;
            self.send_due()?;
            let now = machine::time::now_ns();
            if now - self.heard_ns.min(now) >= 3 * PING_NS {
                return Err(None);
            }
            let silent_since = self.heard_ns.max(self.pinged_ns);
            if now.saturating_sub(silent_since) >= PING_NS {
                self.pinged_ns = now;
                self.frame(Opcode::Ping, b"")?;
            }
            let next = self.subscriptions.iter().map(|one| one.due_ns).min();
            let next = next.unwrap_or(u64::MAX);
            let deadline = next.min(self.heard_ns.max(self.pinged_ns) + PING_NS);
            match self.transport.receive(&mut buffer, deadline) {
                Received::Bytes(count) => {
                    self.heard_ns = machine::time::now_ns();
                    input.extend_from_slice(&buffer[..count]);
                }
                Received::Closed => return Err(None),
                Received::TimedOut | Received::Woken => {}
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Text(text) => {
                if let Err((id, error)) = self.request(&text) {
                    self.refuse(id, &error)?;
                }
                Ok(())
            }
            Event::Ping(payload) => self.frame(Opcode::Pong, &payload),
            Event::Pong => Ok(()),
            Event::Close(code) => Err(Some(code)),
        }
    }

    /// A client's message.
    fn request(&mut self, text: &str) -> Result<(), (Option<u64>, Error)> {
        let message: Json = serde_json::from_str(text)
            .map_err(|error| (None, Error::invalid(format!("this is not JSON: {error}"))))?;
        let id = message.get("id").and_then(Json::as_u64);
        let wrong = |text: &str| (id, Error::invalid(text));
        let id = id.ok_or_else(|| wrong("id is to be a whole number"))?;
        match message.get("op").and_then(Json::as_str) {
            Some("subscribe") => self
                .subscribe(id, &message)
                .map_err(|error| (Some(id), error)),
            Some("unsubscribe") => {
                self.subscriptions.retain(|one| one.id != id);
                self.tell_interests();
                Ok(())
            }
            _ => Err(wrong("op is to be subscribe or unsubscribe")),
        }
    }

    fn subscribe(&mut self, id: u64, message: &Json) -> Result<(), Error> {
        let number = |key: &str, default: u64, least: u64, most: u64| match message.get(key) {
            None | Some(Json::Null) => Ok(default),
            Some(value) => {
                let number = value.as_u64().filter(|n| (least..=most).contains(n));
                number.ok_or_else(|| {
                    Error::invalid(format!(
                        "{key} is to be a whole number from {least} to {most}"
                    ))
                })
            }
        };
        let path = message.get("path").and_then(Json::as_str);
        let path = path.ok_or_else(|| Error::invalid("path is to be a string"))?;
        let path = Path::parse(path)?;
        let depth = number("depth", 1, 0, MAX_DEPTH as u64)?;
        let period_ms = number("period_ms", 1000, MIN_PERIOD_MS, MAX_PERIOD_MS)?;
        let period_ns = match message.get("on") {
            None | Some(Json::Null) => Some(period_ms * 1_000_000),
            Some(on) if on.as_str() == Some("change") => None,
            Some(_) => return Err(Error::invalid("on is to be \"change\"")),
        };
        // A subscription of the same number is replaced.
        self.subscriptions.retain(|one| one.id != id);
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            let message = format!("there are {MAX_SUBSCRIPTIONS} subscriptions already");
            return Err(Error::too_many(message));
        }
        self.subscriptions.push(Subscription {
            id,
            path,
            depth: depth as usize,
            period_ns,
            due_ns: 0,
            last: None,
        });
        self.tell_interests();
        Ok(())
    }

    fn tell_interests(&self) {
        let paths = self.subscriptions.iter().map(|one| one.path.clone());
        self.watcher.set_interests(paths.collect());
        // Fewer than before, or as many.
        self.watcher
            .watch_values(self.kept(usize::MAX), MAX_ALL_VALUES);
    }

    /// How many values are kept for subscriptions, but for the one at `place`.
    fn kept(&self, place: usize) -> usize {
        let others = self.subscriptions.iter().enumerate();
        others
            .filter(|(other, _)| *other != place)
            .filter_map(|(_, other)| other.last.as_ref())
            .map(Snapshot::weight)
            .sum()
    }

    /// Passes announcements on, and lets those who watch for changes look at once.
    fn announce(&mut self) -> Result<(), End> {
        let (changed, waiting) = self.watcher.take();
        for text in waiting {
            self.frame(Opcode::Text, text.as_bytes())?;
        }
        if changed {
            let changes = self.subscriptions.iter_mut();
            for one in changes.filter(|one| one.period_ns.is_none()) {
                one.due_ns = 0;
            }
        }
        Ok(())
    }

    fn send_due(&mut self) -> Result<(), End> {
        let mut place = 0;
        while place < self.subscriptions.len() {
            let now = machine::time::now_ns();
            let one = &self.subscriptions[place];
            if one.due_ns > now {
                place += 1;
                continue;
            }
            let looked = {
                let _turn = turn::take();
                self.look(place, machine::time::now_ns())
            };
            match looked {
                Ok(text) => {
                    if let Some(text) = text {
                        self.frame(Opcode::Text, text.as_bytes())?;
                    }
                    place += 1;
                }
                Err(error) => {
                    let one = self.subscriptions.remove(place);
                    self.tell_interests();
                    self.refuse(Some(one.id), &error)?;
                }
            }
            // Kernel code is not preempted: the program goes first between two looks.
            sched::yield_now();
        }
        Ok(())
    }

    /// Looks at what a subscription watches; gives the message, if there is one to send.
    fn look(&mut self, place: usize, now: u64) -> Result<Option<String>, Error> {
        let others = self.kept(place);
        let one = &mut self.subscriptions[place];
        let snapshot = Snapshot::take(&self.console.store, &one.path, one.depth)?;
        let watched = others + snapshot.weight();
        if watched > MAX_VALUES {
            let message = format!("more than {MAX_VALUES} values would be watched");
            return Err(Error::too_large(message));
        }
        if !self.watcher.watch_values(watched, MAX_ALL_VALUES) {
            let message = "all clients together watch too many values";
            return Err(Error::too_many(message));
        }
        one.due_ns = now + one.period_ns.unwrap_or(CHANGE_NS);
        let delta = match &one.last {
            Some(last) => snapshot.since(last),
            None => snapshot.full(),
        };
        // Who watches with a period sees the time go on; who watches for changes sees changes.
        if one.period_ns.is_none() && one.last.is_some() && delta.is_empty() {
            return Ok(None);
        }
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "{{\"id\":{},\"full\":{},\"time_ms\":{},",
            one.id,
            one.last.is_none(),
            now / 1_000_000
        );
        delta.write_json(&mut out)?;
        out.push('}');
        one.last = Some(snapshot);
        Ok(Some(out))
    }

    fn refuse(&mut self, id: Option<u64>, error: &Error) -> Result<(), End> {
        let mut out = String::from("{");
        if let Some(id) = id {
            let _ = write!(out, "\"id\":{id},");
        }
        out.push_str("\"error\":");
        error.write_json(&mut out);
        out.push('}');
        self.frame(Opcode::Text, out.as_bytes())
    }

    fn frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), End> {
        let mut out = Vec::with_capacity(payload.len() + 10);
        write_frame(&mut out, opcode, payload);
        self.write(&out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        // As for streams: each piece has its time, so that a large one over a slow line is no fault.
        for piece in bytes.chunks(64 << 10) {
            let deadline = machine::time::now_ns() + SEND_NS;
            self.transport.send(piece, deadline).map_err(|_| None)?;
        }
        Ok(())
    }
}
