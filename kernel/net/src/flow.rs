//! The table of flows: every TCP connection, half-open connection and TIME-WAIT record by its 4-tuple.
//! Keyed hash, many locks; a look-up costs the same with ten flows and with a hundred thousand.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};
use core::net::IpAddr;
use core::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;

use crate::hash::{self, Key};
use crate::sync::SpinLock;
use crate::tcp::listen::HalfOpen;
use crate::tcp::socket::TcpSocket;
use crate::tcp::timewait::TimeWait;

/// A connection's identity, seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlowKey {
    pub local: IpAddr,
    pub remote: IpAddr,
    pub lport: u16,
    pub rport: u16,
}

impl FlowKey {
    /// The words that are hashed.
    fn words(&self) -> ([u64; 5], usize) {
        let ports = u64::from(self.lport) << 16 | u64::from(self.rport);
        match (self.local, self.remote) {
            (IpAddr::V4(l), IpAddr::V4(r)) => (
                [
                    u64::from(l.to_bits()) << 32 | u64::from(r.to_bits()),
                    ports,
                    0,
                    0,
                    0,
                ],
                2,
            ),
            (l, r) => {
                let ((a, b), (c, d)) = (hash::halves(l), hash::halves(r));
                ([a, b, c, d, ports], 5)
            }
        }
    }

    /// For tables.
    #[inline]
    pub fn hash(&self, key: Key) -> u64 {
        let (words, n) = self.words();
        hash::sip13(key, &words[..n])
    }

    /// For what a peer gets to see.
    pub fn secret(&self, key: Key, salt: u64) -> u64 {
        let ([a, b, c, d, e], _) = self.words();
        hash::sip24(key, &[a, b, c, d, e, salt])
    }
}

/// What the table holds for a flow.
pub(crate) enum Flow {
    Conn(Arc<TcpSocket>),
    Half(Arc<HalfOpen>),
    Wait(Box<TimeWait>),
}

/// What a look-up gives out.
pub(crate) enum Found {
    Conn(Arc<TcpSocket>),
    Half(Arc<HalfOpen>),
    Wait,
}

#[derive(Default)]
struct Shard {
    flows: HashTable<(FlowKey, Flow)>,
    /// TIME-WAIT records in the order they were made: all last equally long.
    waiting: VecDeque<(u64, FlowKey)>,
}

impl Shard {
    /// Forgets the places of records that were taken over, once they are the greater part: a peer that
    /// opens and closes one connection again and again makes no heap of them.
    fn tidy(&mut self, key: Key) {
        if self.waiting.len() > 2 * self.flows.len() + 64 {
            let flows = &self.flows;
            self.waiting.retain(|(due, flow)| {
                flows
                    .find(flow.hash(key), |(k, _)| k == flow)
                    .is_some_and(|(_, flow)| is_queued(flow, *due))
            });
        }
    }

    /// Gives back what a flood that is over has left.
    fn shrink(&mut self, key: Key) {
        if is_mostly_unused(self.waiting.len(), self.waiting.capacity()) {
            self.waiting.shrink_to(2 * self.waiting.len());
        }
        if is_mostly_unused(self.flows.len(), self.flows.capacity()) {
            let room = 2 * self.flows.len();
            self.flows.shrink_to(room, |(flow, _)| flow.hash(key));
        }
    }
}

/// Whether a table's memory is worth giving back: what it had to hold once, it may never hold again.
fn is_mostly_unused(len: usize, capacity: usize) -> bool {
    capacity > 7 && len < capacity / 4
}

/// Whether the place `due` in the queue is this record's.
fn is_queued(flow: &Flow, due: u64) -> bool {
    matches!(flow, Flow::Wait(wait) if wait.queued_ns == due)
}

const SHARDS: usize = 256;
/// Records whose time is over are looked for this often: not for each of them.
const EXPIRE_NS: u64 = 50_000_000;

pub(crate) struct FlowTable {
    key: Key,
    shards: Box<[SpinLock<Shard>]>,
    count: AtomicUsize,
    waits: AtomicUsize,
}

impl FlowTable {
    pub fn new(key: Key) -> FlowTable {
        FlowTable {
            key,
            shards: (0..SHARDS)
                .map(|_| SpinLock::new(Shard::default()))
                .collect(),
            count: AtomicUsize::new(0),
            waits: AtomicUsize::new(0),
        }
    }

    #[inline]
    fn shard(&self, hash: u64) -> &SpinLock<Shard> {
        &self.shards[(hash >> 48) as usize % SHARDS]
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// TIME-WAIT records in the table.
    pub fn waits(&self) -> usize {
        self.waits.load(Ordering::Relaxed)
    }

    /// Looks a flow up.
    #[inline]
    pub fn find(&self, key: &FlowKey) -> Option<Found> {
        let hash = key.hash(self.key);
        let shard = self.shard(hash).lock();
        shard
            .flows
            .find(hash, |(k, _)| k == key)
            .map(|(_, flow)| match flow {
                Flow::Conn(c) => Found::Conn(c.clone()),
                Flow::Half(h) => Found::Half(h.clone()),
                Flow::Wait(_) => Found::Wait,
            })
    }

    /// Adds a flow unless there is one; gives it back then.
    pub fn insert(&self, key: FlowKey, flow: Flow) -> Result<(), Flow> {
        let hash = key.hash(self.key);
        let mut shard = self.shard(hash).lock();
        if shard.flows.find(hash, |(k, _)| *k == key).is_some() {
            return Err(flow);
        }
        self.put(&mut shard, hash, key, flow);
        Ok(())
    }

    fn put(&self, shard: &mut Shard, hash: u64, key: FlowKey, flow: Flow) {
        if let Flow::Wait(wait) = &flow {
            shard.waiting.push_back((wait.expires_ns, key));
            self.waits.fetch_add(1, Ordering::Relaxed);
        }
        shard
            .flows
            .insert_unique(hash, (key, flow), |(k, _)| k.hash(self.key));
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts `flow` in the place of what `is_old` recognises; false when that is not there.
    pub fn replace(&self, key: &FlowKey, flow: Flow, is_old: impl FnOnce(&Flow) -> bool) -> bool {
        let hash = key.hash(self.key);
        let mut guard = self.shard(hash).lock();
        let shard = &mut *guard;
        let Some((_, old)) = shard.flows.find_mut(hash, |(k, _)| k == key) else {
            return false;
        };
        if !is_old(old) {
            return false;
        }
        if matches!(old, Flow::Wait(_)) {
            self.waits.fetch_sub(1, Ordering::Relaxed);
        }
        let waits = match &flow {
            Flow::Wait(wait) => Some(wait.expires_ns),
            _ => None,
        };
        let old = core::mem::replace(old, flow);
        if let Some(due) = waits {
            shard.waiting.push_back((due, *key));
            self.waits.fetch_add(1, Ordering::Relaxed);
            shard.tidy(self.key);
        }
        drop(guard);
        // The old flow may be a connection's last owner: not dropped under the lock.
        drop(old);
        true
    }

    /// Removes what `is_old` recognises.
    pub fn remove(&self, key: &FlowKey, is_old: impl FnOnce(&Flow) -> bool) -> bool {
        let hash = key.hash(self.key);
        let mut shard = self.shard(hash).lock();
        let Ok(entry) = shard.flows.find_entry(hash, |(k, _)| k == key) else {
            return false;
        };
        if !is_old(&entry.get().1) {
            return false;
        }
        let ((_, flow), _) = entry.remove();
        self.count.fetch_sub(1, Ordering::Relaxed);
        if matches!(flow, Flow::Wait(_)) {
            self.waits.fetch_sub(1, Ordering::Relaxed);
        }
        shard.shrink(self.key);
        drop(shard);
        drop(flow);
        true
    }

    /// Runs `f` on a TIME-WAIT record; when it says so, the record goes.
    pub fn with_wait<R>(
        &self,
        key: &FlowKey,
        f: impl FnOnce(&mut TimeWait) -> (R, bool),
    ) -> Option<R> {
        let hash = key.hash(self.key);
        let mut shard = self.shard(hash).lock();
        let Ok(mut entry) = shard.flows.find_entry(hash, |(k, _)| k == key) else {
            return None;
        };
        let Flow::Wait(wait) = &mut entry.get_mut().1 else {
            return None;
        };
        let (result, gone) = f(wait);
        if gone {
            entry.remove();
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.waits.fetch_sub(1, Ordering::Relaxed);
        }
        Some(result)
    }

    /// Ends the TIME-WAIT of what is due, `each` hears of every record that goes. Returns when the next is due.
    pub fn expire(&self, now: u64, mut each: impl FnMut(&FlowKey, &TimeWait)) -> Option<u64> {
        if self.waits() == 0 {
            return None;
        }
        let mut next: Option<u64> = None;
        for shard in &self.shards {
            let mut shard = shard.lock();
            while let Some(&(due, key)) = shard.waiting.front() {
                if due > now {
                    next = Some(next.map_or(due, |n| n.min(due)));
                    break;
                }
                shard.waiting.pop_front();
                let hash = key.hash(self.key);
                let Ok(mut entry) = shard.flows.find_entry(hash, |(k, _)| *k == key) else {
                    continue;
                };
                if !is_queued(&entry.get().1, due) {
                    continue;
                }
                let Flow::Wait(wait) = &mut entry.get_mut().1 else {
                    continue;
                };
                if wait.expires_ns > now {
                    // A late segment restarted it.
                    let later = wait.expires_ns;
                    wait.queued_ns = later;
                    shard.waiting.push_back((later, key));
                    next = Some(next.map_or(later, |n| n.min(later)));
                    continue;
                }
                let ((_, flow), _) = entry.remove();
                self.count.fetch_sub(1, Ordering::Relaxed);
                self.waits.fetch_sub(1, Ordering::Relaxed);
                if let Flow::Wait(wait) = flow {
                    each(&key, &wait);
                }
            }
            shard.shrink(self.key);
        }
        next.map(|due| due.max(now + EXPIRE_NS))
    }

    /// All flows, for listings: keys and what they are.
    pub fn list(&self) -> Vec<(FlowKey, Found)> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            let shard = shard.lock();
            all.extend(shard.flows.iter().map(|(key, flow)| {
                let found = match flow {
                    Flow::Conn(c) => Found::Conn(c.clone()),
                    Flow::Half(h) => Found::Half(h.clone()),
                    Flow::Wait(_) => Found::Wait,
                };
                (*key, found)
            }));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> FlowKey {
        FlowKey {
            local: [10, 0, 0, 1].into(),
            remote: (0x0a00_0002 + n).to_be_bytes().into(),
            lport: 80,
            rport: 1024,
        }
    }

    #[test]
    fn what_a_flood_took_is_given_back() {
        let table = FlowTable::new(Key(1, 2));
        let held = |table: &FlowTable| -> usize {
            let shards = table.shards.iter().map(|shard| shard.lock());
            shards
                .map(|shard| shard.waiting.capacity() + shard.flows.capacity())
                .sum()
        };
        for n in 0..50_000_u32 {
            let wait = Box::new(TimeWait::until(u64::from(n)));
            assert!(table.insert(key(n), Flow::Wait(wait)).is_ok());
        }
        let most = held(&table);
        assert!(most >= 100_000, "{most}");
        // All but the last hundred are over.
        table.expire(49_899, |_, _| {});
        assert_eq!((table.len(), table.waits()), (100, 100));
        let left = held(&table);
        assert!(left <= SHARDS * 14, "{left} of {most}");
        for n in 49_900..50_000_u32 {
            assert!(table.find(&key(n)).is_some(), "{n} is lost");
        }
    }
}

/// A keyed hasher for the maps of this room, so that no peer can make their keys collide.
#[derive(Clone, Copy)]
pub(crate) struct KeyedState(pub Key);

/// See [`KeyedState`].
pub(crate) struct KeyedHasher {
    key: Key,
    words: [u64; 8],
    len: usize,
    acc: u64,
}

impl KeyedHasher {
    #[inline]
    fn word(&mut self, word: u64) {
        if self.len == self.words.len() {
            self.acc = hash::sip13(self.key, &self.words) ^ self.acc.rotate_left(1);
            self.len = 0;
        }
        self.words[self.len] = word;
        self.len += 1;
    }
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, i: u8) {
        self.word(u64::from(i));
    }

    fn write_u16(&mut self, i: u16) {
        self.word(u64::from(i));
    }

    fn write_u32(&mut self, i: u32) {
        self.word(u64::from(i));
    }

    fn write_u64(&mut self, i: u64) {
        self.word(i);
    }

    fn write_usize(&mut self, i: usize) {
        self.word(i as u64);
    }

    fn finish(&self) -> u64 {
        hash::sip13(self.key, &self.words[..self.len]) ^ self.acc
    }
}

impl BuildHasher for KeyedState {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher {
            key: self.0,
            words: [0; 8],
            len: 0,
            acc: 0,
        }
    }
}
