//! Sockets between the machine and its host (`vsock(7)`, virtio 1.2, 5.10): addresses, connections, and where packets
//! go. The card is `drivers`'; packets to the machine itself never reach it.
//!
//! `socket` has the calls, `transfer` those that move data, `conn` the state of a connection, `header` the format. Packets are put into queues while a
//! connection's lock is held, and sent by `Vsock::flush` afterwards, so that their order is the connection's. Locks: the
//! table before a socket, a socket before the queues.

mod conn;
#[cfg(test)]
mod fuzz;
mod header;
mod socket;
#[cfg(test)]
mod tests;
mod transfer;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use drivers::vsock::{Arrival, HEADER_LEN, VsockCard, VsockLink};
use errno::{Errno, Result};
use machine::sync::Once;
use sched::{SpawnOptions, Timer};

use self::header::{Header, SEQPACKET, STREAM, op};
use crate::poll::Events;
use crate::run::Doorbell;
use crate::sync::SpinLock;

pub use header::VsockAddr;
pub use socket::{VsockOption, VsockSocket};

/// `VMADDR_CID_ANY`.
pub const CID_ANY: u32 = u32::MAX;
/// `VMADDR_CID_LOCAL`: the machine itself.
pub const CID_LOCAL: u32 = 1;
/// `VMADDR_CID_HOST`.
pub const CID_HOST: u32 = 2;
/// `VMADDR_PORT_ANY`.
pub const PORT_ANY: u32 = u32::MAX;

/// Packets that wait for room in the card before senders have to.
const QUEUED: usize = 64;
/// Refusals beyond this many waiting packets are dropped: a flood gets no answers.
const QUEUED_MOST: usize = 1024;
/// The first port given out.
const FIRST_PORT: u32 = 1024;

/// A connection as a packet names it: our port, and who sent the packet.
type Key = (u32, VsockAddr);

#[derive(Default)]
struct Table {
    bound: BTreeMap<u32, Vec<Arc<VsockSocket>>>,
    connections: BTreeMap<Key, Arc<VsockSocket>>,
}

#[derive(Default)]
struct Out {
    local: VecDeque<Box<[u8]>>,
    link: VecDeque<Box<[u8]>>,
    /// The card has no room for the first of them.
    stuck: bool,
    /// Senders that wait for room.
    starved: Vec<Weak<VsockSocket>>,
}

/// All vsock sockets of the machine.
pub struct Vsock {
    link: Option<Arc<dyn VsockLink>>,
    table: SpinLock<Table>,
    out: SpinLock<Out>,
    flushing: AtomicBool,
    next_port: AtomicU32,
    timer: Once<Timer>,
}

impl Vsock {
    /// Sockets over a card in service, or without any.
    pub fn new(link: Option<Arc<dyn VsockLink>>, seed: u32) -> Arc<Vsock> {
        Arc::new(Vsock {
            link,
            table: SpinLock::new(Table::default()),
            out: SpinLock::new(Out::default()),
            flushing: AtomicBool::new(false),
            next_port: AtomicU32::new(seed),
            timer: Once::new(),
        })
    }

    /// Takes the card into service, if there is one, and starts the thread that serves it.
    ///
    /// # Errors
    /// `ENOMEM` when the thread could not be started.
    pub fn start(card: Option<&Arc<dyn VsockCard>>, seed: u32) -> Result<Arc<Vsock>> {
        let doorbell = Arc::new(Doorbell::default());
        let ring = doorbell.clone();
        let link = card.and_then(|card| match card.start(Arc::new(move || ring.ring())) {
            Ok(link) => Some(link),
            Err(error) => {
                log::warn!("virtio-vsock: {error}");
                None
            }
        });
        let vsock = Vsock::new(link, seed);
        let ring = doorbell.clone();
        let _ = vsock.timer.set(Timer::new(Box::new(move || ring.ring())));
        let served = vsock.clone();
        sched::spawn(SpawnOptions::named("vsock"), move || {
            loop {
                served.serve();
                if let (Some(at), Some(timer)) =
                    (served.expire(machine::time::now_ns()), served.timer.get())
                {
                    timer.arm(at);
                }
                doorbell.wait();
            }
        })
        .map_err(|_| Errno::ENOMEM)?;
        Ok(vsock)
    }

    /// The machine's address among its host's; `CID_ANY` without a card.
    pub fn local_cid(&self) -> u32 {
        self.link.as_ref().map_or(CID_ANY, |link| {
            u32::try_from(link.guest_cid()).unwrap_or(CID_ANY)
        })
    }

    /// The address that a connection to `cid` is made from.
    ///
    /// # Errors
    /// `ENODEV` where there is no way; `ESOCKTNOSUPPORT` when the card has no sequenced packets.
    fn source_for(&self, cid: u32, stream: bool) -> Result<u32> {
        if self.is_local(cid) {
            return Ok(cid);
        }
        let link = self.link.as_ref().ok_or(Errno::ENODEV)?;
        if !stream && !link.has_seqpacket() {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        Ok(self.local_cid())
    }

    fn is_local(&self, cid: u32) -> bool {
        cid == CID_LOCAL || cid != CID_ANY && cid == self.local_cid()
    }

    /// Whether a socket may be bound to it.
    fn is_own(&self, cid: u32) -> bool {
        cid == CID_ANY || self.is_local(cid)
    }

    /// Binds a socket; `PORT_ANY` to a port that is free.
    fn bind(&self, socket: &Arc<VsockSocket>, cid: u32, port: u32) -> Result<VsockAddr> {
        if !self.is_own(cid) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let mut table = self.table.lock();
        let is_free = |table: &Table, port: u32| {
            table.bound.get(&port).is_none_or(|sockets| {
                sockets.iter().all(|other| match other.bound() {
                    Some(addr) => cid != CID_ANY && addr.cid != CID_ANY && addr.cid != cid,
                    None => true,
                })
            })
        };
        let port = if port == PORT_ANY {
            // Far fewer sockets than ports: one of the next is free.
            (0..=0xffffu32)
                .map(|_| self.next_port.fetch_add(1, Ordering::Relaxed))
                .find(|port| *port >= FIRST_PORT && *port != PORT_ANY && is_free(&table, *port))
                .ok_or(Errno::EADDRNOTAVAIL)?
        } else if is_free(&table, port) {
            port
        } else {
            return Err(Errno::EADDRINUSE);
        };
        let addr = VsockAddr { cid, port };
        socket.set_bound(addr);
        table.bound.entry(port).or_default().push(socket.clone());
        Ok(addr)
    }

    /// Puts a connection into the table.
    fn insert(&self, key: Key, socket: &Arc<VsockSocket>) -> Result<()> {
        let mut table = self.table.lock();
        if table.connections.contains_key(&key) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        table.connections.insert(key, socket.clone());
        Ok(())
    }

    fn remove_connection(&self, key: Key, socket: &VsockSocket) {
        let mut table = self.table.lock();
        let is_it = table
            .connections
            .get(&key)
            .is_some_and(|other| core::ptr::eq(&**other, socket));
        let gone = is_it.then(|| table.connections.remove(&key));
        drop(table);
        drop(gone);
    }

    fn remove_bound(&self, port: u32, socket: &VsockSocket) {
        let mut table = self.table.lock();
        let mut gone = None;
        if let Some(sockets) = table.bound.get_mut(&port) {
            let at = sockets.iter().position(|s| core::ptr::eq(&**s, socket));
            gone = at.map(|at| sockets.swap_remove(at));
            if sockets.is_empty() {
                table.bound.remove(&port);
            }
        }
        drop(table);
        drop(gone);
    }

    /// Queues a packet, to the machine itself or out.
    fn push(&self, packet: Box<[u8]>) {
        let Some(header) = Header::parse(&packet) else {
            return;
        };
        let mut out = self.out.lock();
        if self.is_local(header.dst.cid) {
            out.local.push_back(packet);
        } else if header.op != op::RST || out.link.len() < QUEUED_MOST {
            out.link.push_back(packet);
        }
    }

    /// Whether a sender to `cid` has to wait for the card; it is told on its pollee.
    fn is_crowded(&self, cid: u32, socket: &Arc<VsockSocket>) -> bool {
        if self.is_local(cid) {
            return false;
        }
        let mut out = self.out.lock();
        let crowded = out.link.len() >= QUEUED;
        if crowded
            && !out
                .starved
                .iter()
                .any(|s| core::ptr::eq(s.as_ptr(), &**socket))
        {
            out.starved.push(Arc::downgrade(socket));
        }
        crowded
    }

    /// Sends what is queued. No lock of a connection may be held.
    fn flush(&self) {
        loop {
            // Who sends already sees what was queued meanwhile: it looks again below.
            if self.flushing.swap(true, Ordering::AcqRel) {
                return;
            }
            self.flush_local();
            let relieved = self.flush_link();
            self.flushing.store(false, Ordering::Release);
            for socket in relieved.iter().filter_map(Weak::upgrade) {
                socket.pollee().notify(Events::OUT);
            }
            let out = self.out.lock();
            if out.local.is_empty() && (out.link.is_empty() || out.stuck) {
                return;
            }
        }
    }

    fn flush_local(&self) {
        loop {
            let packet = self.out.lock().local.pop_front();
            let Some(packet) = packet else { return };
            let len = packet.len();
            self.input(packet, len, true);
        }
    }

    fn flush_link(&self) -> Vec<Weak<VsockSocket>> {
        loop {
            let mut out = self.out.lock();
            let Some(link) = &self.link else {
                out.link.clear();
                return Vec::new();
            };
            let Some(packet) = out.link.pop_front() else {
                out.stuck = false;
                return core::mem::take(&mut out.starved);
            };
            drop(out);
            if let Err(packet) = link.send(packet) {
                let mut out = self.out.lock();
                out.link.push_front(packet);
                out.stuck = true;
                return Vec::new();
            }
        }
    }

    /// Takes what arrived, and sends what is stuck.
    pub fn serve(&self) {
        while let Some(arrival) = self.link.as_ref().and_then(|link| link.receive()) {
            match arrival {
                Arrival::Packet(bytes, len) => self.input(bytes, len, false),
                Arrival::Reset => self.reset_all(),
            }
        }
        self.out.lock().stuck = false;
        self.flush();
    }

    /// A packet arrives: `len` bytes of it, from the machine itself or from the card.
    fn input(&self, bytes: Box<[u8]>, len: usize, local: bool) {
        let Some(header) = Header::parse(bytes.get(..len).unwrap_or_default()) else {
            return;
        };
        let end = HEADER_LEN + header.len as usize;
        // From outside nobody speaks for the machine itself, or to somebody else.
        let astray =
            !local && (self.is_local(header.src.cid) || header.dst.cid != self.local_cid());
        if end > len || astray || !matches!(header.kind, STREAM | SEQPACKET) {
            return self.refuse(&header);
        }
        let key = (header.dst.port, header.src);
        let connection = self.table.lock().connections.get(&key).cloned();
        match connection {
            Some(socket) if socket.input(self, &header, bytes, end) => {
                self.remove_connection(key, &socket);
            }
            Some(_) => {}
            None if header.op == op::REQUEST => self.request(&header),
            None => self.refuse(&header),
        }
    }

    fn refuse(&self, header: &Header) {
        if header.op != op::RST {
            self.push(header.refusal());
        }
    }

    /// Somebody wants to connect.
    fn request(&self, header: &Header) {
        let listener = {
            let table = self.table.lock();
            let sockets = table.bound.get(&header.dst.port);
            sockets
                .into_iter()
                .flatten()
                .find(|socket| socket.listens_at(header.dst.cid))
                .cloned()
        };
        let accepted = listener.is_some_and(|listener| listener.take_request(self, header));
        if !accepted {
            self.refuse(header);
        }
    }

    /// All connections through the card are gone.
    fn reset_all(&self) {
        let gone: Vec<(Key, Arc<VsockSocket>)> = {
            let table = self.table.lock();
            let all = table.connections.iter();
            all.filter(|((_, peer), _)| !self.is_local(peer.cid))
                .map(|(key, socket)| (*key, socket.clone()))
                .collect()
        };
        for (key, socket) in gone {
            socket.end(Some(Errno::ECONNRESET));
            self.remove_connection(key, &socket);
        }
    }

    /// Gives up what has waited too long, and says when to look again.
    pub fn expire(&self, now: u64) -> Option<u64> {
        let mut next: Option<u64> = None;
        let mut late = Vec::new();
        for (key, socket) in &self.table.lock().connections {
            match socket.deadline() {
                Some(at) if at <= now => late.push((*key, socket.clone())),
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        for (key, socket) in late {
            if let Some(packet) = socket.give_up() {
                self.push(packet);
            }
            self.remove_connection(key, &socket);
        }
        self.flush();
        // Many deadlines lie close together: one look serves them.
        next.map(|at| at.max(now + 100_000_000))
    }

    /// A deadline was set.
    fn arm(&self, at: u64) {
        if let Some(timer) = self.timer.get()
            && timer.deadline_ns().is_none_or(|armed| armed > at)
        {
            timer.arm(at);
        }
    }
}
