//! One direction of a transfer: what is sent, and whether what comes is that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use errno::Errno;
use iobuf::{SliceSource, VecSink};
use net::{MsgFlags, SendMeta, Shutdown, Socket};

use crate::common::Rng;

/// A byte of a stream; urgent ones alone have their top bit set.
pub fn byte(seed: u64, at: u64) -> u8 {
    ((at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ seed as u8 ^ (at >> 8) as u8) & 0x7f
}

pub const URGENT: u8 = 0x80;

/// Over all seeds: SYNs whose data was taken, urgent bytes that were read apart. Both have to be tried.
pub static FAST: AtomicU64 = AtomicU64::new(0);
pub static APART: AtomicU64 = AtomicU64::new(0);

/// One direction of a transfer.
pub struct Flow {
    pub seed: u64,
    pub total: u64,
    pub sent: u64,
    pub received: u64,
    pub shut: bool,
    pub ended: bool,
    pub no_shutdown: bool,
    /// The connection is not there yet.
    pub early: bool,
    /// How often, in a million writes, one urgent byte is written.
    pub urge: u64,
    /// They stay in the stream.
    pub inline: bool,
    /// Where urgent bytes were written.
    pub urgent: BTreeSet<u64>,
    /// Urgent bytes that the reader asked for and got.
    pub apart: u64,
}

impl Flow {
    pub fn new(seed: u64, total: u64) -> Flow {
        Flow {
            seed,
            total,
            sent: 0,
            received: 0,
            shut: false,
            ended: false,
            no_shutdown: false,
            early: false,
            urge: 0,
            inline: true,
            urgent: BTreeSet::new(),
            apart: 0,
        }
    }

    pub fn begin_again(&mut self) {
        (self.sent, self.shut) = (0, false);
        self.urgent.clear();
    }

    pub fn send(&mut self, socket: &Arc<dyn Socket>, rng: &mut Rng) {
        while self.sent < self.total {
            // Never the last byte, behind which nothing would tell the reader that it was left out.
            if self.sent + 1 < self.total && rng.chance(self.urge) {
                let meta = SendMeta {
                    flags: MsgFlags::OOB,
                    ..SendMeta::default()
                };
                let source = [byte(self.seed, self.sent) | URGENT];
                match socket.send(&mut SliceSource::new(&source), &meta) {
                    Ok(_) => {
                        self.urgent.insert(self.sent);
                        self.sent += 1;
                    }
                    Err(Errno::EAGAIN) => return,
                    Err(error) => panic!("urgent: {error:?} after {}", self.sent),
                }
                continue;
            }
            let n = (self.total - self.sent).min(1 + rng.below(40_000));
            let bytes: Vec<u8> = (self.sent..self.sent + n)
                .map(|i| byte(self.seed, i))
                .collect();
            match socket.send(&mut SliceSource::new(&bytes), &SendMeta::default()) {
                Ok(done) => self.sent += done as u64,
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("send: {error:?} after {} of {}", self.sent, self.total),
            }
        }
        // Behind data that waits with its SYN for an answer, it has to wait as well.
        if !self.shut && !self.no_shutdown && !self.early {
            self.shut = true;
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }

    /// Looks for an urgent byte apart from the stream.
    pub fn receive_urgent(&mut self, socket: &Arc<dyn Socket>) {
        let mut sink = VecSink::new(1);
        match socket.recv(&mut sink, MsgFlags::OOB) {
            Ok(meta) if meta.len == 1 => {
                assert!(sink.into_bytes()[0] & URGENT != 0);
                self.apart += 1;
                APART.fetch_add(1, Relaxed);
            }
            Ok(_) | Err(Errno::EAGAIN | Errno::EINVAL) => {}
            Err(error) => panic!("recv urgent: {error:?}"),
        }
    }

    /// The next byte of the stream. An urgent one may have been left out of it, but no other, and none comes twice.
    pub fn take(&mut self, b: u8) {
        loop {
            let urgent = self.urgent.contains(&self.received);
            let expected = byte(self.seed, self.received) | if urgent { URGENT } else { 0 };
            self.received += 1;
            if b == expected {
                return;
            }
            let at = self.received - 1;
            assert!(urgent && !self.inline, "{b:#x} at {at}, not {expected:#x}");
        }
    }

    pub fn receive(&mut self, socket: &Arc<dyn Socket>, rng: &mut Rng) {
        while !self.ended {
            if self.urge > 0 && rng.chance(200_000) {
                self.receive_urgent(socket);
            }
            let mut sink = VecSink::new(1 + rng.below(60_000) as usize);
            match socket.recv(&mut sink, MsgFlags::empty()) {
                Ok(meta) if meta.len == 0 => self.ended = true,
                Ok(_) => {
                    for b in sink.into_bytes() {
                        self.take(b);
                    }
                }
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("recv: {error:?} after {} of {}", self.received, self.total),
            }
        }
        assert_eq!(self.received, self.total);
        assert!(self.apart <= self.urgent.len() as u64);
    }
}
