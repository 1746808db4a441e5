//! Connections: taking them, bounding them, and one conversation of requests and answers on each.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machine::sync::SpinLock;
use sched::SpawnOptions;

use crate::error::Error;
use crate::handle::Console;
use crate::http::{
    Answer, Body, Content, Framing, Head, HeadReader, Method, http_date, write_chunk, write_head,
};
use crate::services::{Piece, Stream};
use crate::transport::{Gone, Incoming, Listener, Received, Remote, Transport};
use crate::{turn, watch};

/// The program goes first where both want the CPU (`nice(2)`); how much all together use, [`turn`] bounds.
const NICE: i32 = 10;
const SECOND: u64 = 1_000_000_000;
/// Bytes that are given to a connection at once; each such piece has its own deadline.
const PIECE: usize = 64 << 10;
/// Bytes of an answer that are sent with its head.
const FIRST: usize = 4 << 10;

/// How much clients may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time. One that has not shown the token makes room for a new one.
    pub clients: usize,
    /// Nanoseconds for a head, from its first byte.
    pub head_ns: u64,
    /// Nanoseconds for a body.
    pub body_ns: u64,
    /// Nanoseconds between two requests of a client that has shown the token; one that has not gets `head_ns`.
    pub idle_ns: u64,
    /// Nanoseconds for 64 KiB to be taken.
    pub send_ns: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            clients: 32,
            head_ns: 10 * SECOND,
            body_ns: 15 * SECOND,
            idle_ns: 75 * SECOND,
            send_ns: 15 * SECOND,
        }
    }
}

/// A client as others see it.
struct Client {
    id: u64,
    since_ns: u64,
    known: AtomicBool,
    remote: Arc<dyn Remote>,
}

struct Clients {
    list: SpinLock<Vec<Arc<Client>>>,
    limits: Limits,
    next: AtomicU64,
}

/// Serves what comes in at `listener` until there is nothing more. Each client gets a thread.
pub fn serve(console: &Arc<Console>, mut listener: impl Listener, limits: Limits) {
    let clients = Arc::new(Clients {
        list: SpinLock::new(Vec::new()),
        limits,
        next: AtomicU64::new(0),
    });
    let _charged = turn::charge();
    while let Some(incoming) = listener.accept() {
        take(console, &clients, incoming);
        turn::pause();
        // Kernel code is not preempted: a flood of connections leaves the CPU to the program between any two.
        sched::yield_now();
    }
}

/// The options of the console's threads.
pub fn thread(name: &str) -> SpawnOptions {
    SpawnOptions {
        nice: NICE,
        ..SpawnOptions::named(name)
    }
}

fn take(console: &Arc<Console>, clients: &Arc<Clients>, incoming: Incoming) {
    let Incoming {
        mut transport,
        peer,
    } = incoming;
    // Those that were cut have a thread until they notice.
    let crowded = Arc::strong_count(clients) > 2 * clients.limits.clients;
    let admitted = match crowded {
        true => None,
        false => clients.admit(transport.remote()),
    };
    let Some(client) = admitted else {
        // Without a thread and without waiting: what does not fit into the empty socket is lost.
        let now = machine::time::now_ns();
        let _ = transport.send(BUSY, now);
        transport.finish();
        return;
    };
    let (console, registry) = (console.clone(), clients.clone());
    let known = client.clone();
    let spawned = sched::spawn(thread("console/client"), move || {
        let _charged = turn::charge();
        Conversation {
            console: &console,
            limits: &registry.limits,
            client: &known,
            peer,
            input: Vec::new(),
            transport: &mut *transport,
        }
        .run();
        drop(transport);
        registry.remove(known.id);
    });
    if spawned.is_err() {
        clients.remove(client.id);
    }
}

/// For those beyond the bound.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 70\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n\
    {\"error\":{\"code\":\"too_many\",\"message\":\"too many clients; try later.\"}}";

impl Clients {
    fn admit(&self, remote: Arc<dyn Remote>) -> Option<Arc<Client>> {
        let now = machine::time::now_ns();
        let mut list = self.list.lock();
        let mut cut = None;
        if list.len() >= self.limits.clients {
            // Whoever has shown nothing for a second makes room: strangers cannot keep the owner out.
            let strangers = list.iter().filter(|client| {
                !client.known.load(Ordering::Relaxed) && client.since_ns + SECOND <= now
            });
            let oldest = strangers.min_by_key(|client| client.since_ns)?.id;
            let place = list.iter().position(|client| client.id == oldest)?;
            cut = Some(list.remove(place));
        }
        let client = Arc::new(Client {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            since_ns: now,
            known: AtomicBool::new(false),
            remote,
        });
        list.push(client.clone());
        drop(list);
        if let Some(cut) = cut {
            cut.remote.cut();
        }
        Some(client)
    }

    fn remove(&self, id: u64) {
        let mut list = self.list.lock();
        let gone = list
            .iter()
            .position(|client| client.id == id)
            .map(|place| list.swap_remove(place));
        drop(list);
        drop(gone);
    }
}

/// One connection's requests and answers.
struct Conversation<'a> {
    console: &'a Console,
    limits: &'a Limits,
    client: &'a Client,
    peer: String,
    input: Vec<u8>,
    transport: &'a mut dyn Transport,
}

/// Why a conversation ends.
enum End {
    /// The peer is gone, or is not to be waited for.
    Gone,
    /// All is said; what the peer still sends is read for a moment, so that it gets the answer (RFC 9112 §9.6).
    Said,
}

impl From<Gone> for End {
    fn from(_: Gone) -> End {
        End::Gone
    }
}

impl Conversation<'_> {
    fn run(&mut self) {
        let mut reader = HeadReader::default();
        let end = loop {
            match self.exchange(&mut reader) {
                Ok(()) => sched::yield_now(),
                Err(end) => break end,
            }
        };
        if let End::Said = end {
            self.transport.finish();
            self.linger();
        }
    }

    /// One request and its answer.
    fn exchange(&mut self, reader: &mut HeadReader) -> Result<(), End> {
        let head = self.head(reader)?;
        let now = machine::time::now_ns();
        let request = match self.console.admit(&head, now) {
            Ok(request) => request,
            Err(refused) => {
                if !refused.stranger {
                    self.recognize();
                }
                let bodiless = head.framing == Framing::Length(0);
                return self.write(&head, refused.answer, head.keep_alive && bodiless);
            }
        };
        if request.has_token() {
            self.recognize();
        }
        let body = match self.body(&head, request.body_limit)? {
            Ok(body) => body,
            Err(error) => return self.write(&head, error.into(), false),
        };
        let answer = {
            let _turn = turn::take();
            self.console.answer(&head, &request, &body, &self.peer)
        };
        drop(body);
        if answer.status != 401 {
            self.recognize();
        }
        self.write(&head, answer, head.keep_alive)
    }

    /// Whoever it is has shown the token.
    fn recognize(&mut self) {
        if !self.client.known.swap(true, Ordering::Relaxed) {
            turn::recognize();
            self.transport.recognize();
        }
    }

    fn head(&mut self, reader: &mut HeadReader) -> Result<Head, End> {
        let begun = machine::time::now_ns();
        let idle = match self.client.known.load(Ordering::Relaxed) {
            true => self.limits.idle_ns,
            false => self.limits.head_ns,
        };
        let mut deadline = begun + idle;
        let mut empty = true;
        loop {
            if empty && !self.input.is_empty() {
                empty = false;
                deadline = machine::time::now_ns() + self.limits.head_ns;
            }
            match reader.take(&mut self.input) {
                Ok(Some(head)) => return Ok(head),
                Ok(None) => {}
                Err(error) => return Err(self.refuse(error)),
            }
            match self.fill(deadline) {
                Received::Bytes(_) | Received::Woken => {}
                Received::Closed => return Err(End::Gone),
                Received::TimedOut if empty => return Err(End::Gone),
                Received::TimedOut => {
                    let error = Error::new(408, "too_slow", "the request took too long");
                    return Err(self.refuse(error));
                }
            }
        }
    }

    fn body(&mut self, head: &Head, limit: usize) -> Result<Result<Vec<u8>, Error>, End> {
        let mut body = match Body::new(head.framing, limit) {
            Ok(body) => body,
            Err(error) => return Ok(Err(error)),
        };
        let deadline = machine::time::now_ns() + self.limits.body_ns;
        let mut asked = !head.has_token("expect", "100-continue");
        loop {
            match body.take(&mut self.input) {
                Ok(true) => return Ok(Ok(body.into_bytes())),
                Ok(false) => {}
                Err(error) => return Ok(Err(error)),
            }
            if !core::mem::replace(&mut asked, true) {
                self.transport
                    .send(b"HTTP/1.1 100 Continue\r\n\r\n", deadline)?;
            }
            match self.fill(deadline) {
                Received::Bytes(_) | Received::Woken => {}
                Received::Closed => return Err(End::Gone),
                Received::TimedOut => {
                    let error = Error::new(408, "too_slow", "the request took too long");
                    return Ok(Err(error));
                }
            }
        }
    }

    fn fill(&mut self, deadline: u64) -> Received {
        let mut buffer = [0; 2048];
        // The clock and not the bytes decides: a byte now and then does not put it off.
        if machine::time::now_ns() >= deadline {
            return Received::TimedOut;
        }
        let received = self.transport.receive(&mut buffer, deadline);
        if let Received::Bytes(count) = received {
            self.input.extend_from_slice(&buffer[..count]);
        }
        received
    }

    /// Answers what could not be read as a request; the connection ends with it.
    fn refuse(&mut self, error: Error) -> End {
        let answer: Answer = error.into();
        let mut out = write_head(&answer, date().as_deref(), true, true).into_bytes();
        if let Content::Whole(bytes) = &answer.content {
            out.extend_from_slice(bytes);
        }
        match self.send(&out) {
            Ok(()) => End::Said,
            Err(_) => End::Gone,
        }
    }

    fn write(&mut self, head: &Head, answer: Answer, keep: bool) -> Result<(), End> {
        let streams = matches!(answer.content, Content::Stream(_));
        let keep = keep && (!streams || head.modern);
        let mut out = write_head(&answer, date().as_deref(), head.modern, !keep).into_bytes();
        let bodiless = head.method == Method::Head;
        match answer.content {
            Content::Whole(bytes) => {
                // A small answer goes in one piece with its head; a large one is kept no more than once, and waits for the client.
                let body = if bodiless { &[] } else { &bytes[..] };
                let (first, rest) = body.split_at(body.len().min(FIRST));
                out.extend_from_slice(first);
                self.send(&out)?;
                drop(out);
                self.send(rest)?;
            }
            Content::Stream(_) if bodiless => self.send(&out)?,
            Content::Stream(stream) => {
                self.send(&out)?;
                self.stream(stream, head)?;
            }
            Content::WebSocket => {
                self.send(&out)?;
                let input = core::mem::take(&mut self.input);
                let pass = self.console.pass(head);
                watch::run(self.console, pass.as_deref(), self.transport, input);
                return Err(End::Said);
            }
        }
        if keep { Ok(()) } else { Err(End::Said) }
    }

    fn stream(&mut self, mut stream: Box<dyn Stream>, head: &Head) -> Result<(), End> {
        let mut out = Vec::new();
        let chunked = head.modern;
        let pass = self.console.pass(head);
        loop {
            // The answer breaks off, so that nobody takes it for whole.
            if !self.console.holds(pass.as_deref()) {
                return Err(End::Gone);
            }
            match stream.next(machine::time::now_ns() + SECOND) {
                Piece::Bytes(bytes) if bytes.is_empty() => {}
                Piece::Bytes(bytes) if chunked => {
                    out.clear();
                    write_chunk(&mut out, &bytes);
                    self.send(&out)?;
                }
                Piece::Bytes(bytes) => self.send(&bytes)?,
                Piece::Nothing => {
                    if self.transport.is_closed() {
                        return Err(End::Gone);
                    }
                }
                Piece::End => break,
            }
            sched::yield_now();
        }
        if chunked {
            out.clear();
            write_chunk(&mut out, &[]);
            self.send(&out)?;
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        for piece in bytes.chunks(PIECE) {
            let deadline = machine::time::now_ns() + self.limits.send_ns;
            self.transport.send(piece, deadline)?;
        }
        Ok(())
    }

    fn linger(&mut self) {
        let deadline = machine::time::now_ns() + SECOND;
        let mut buffer = [0; 2048];
        let mut left = 256 << 10;
        while let Received::Bytes(count) = self.transport.receive(&mut buffer, deadline) {
            left -= count.min(left);
            if left == 0 || machine::time::now_ns() >= deadline {
                break;
            }
        }
    }
}

/// The time, if it is known: without a clock there is to be no date (RFC 9110 §6.6.1).
fn date() -> Option<String> {
    (machine::time::wall_offset_ns() != 0).then(|| http_date(machine::time::wall_ns() / SECOND))
}

#[cfg(test)]
mod tests {
    use super::BUSY;

    #[test]
    fn the_short_answer_says_its_length() {
        let text = core::str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&alloc::format!("Content-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }
}
