//! `signalfd(2)`: pending signals that are read.

use core::any::Any;

use errno::{Errno, Result};
use fs::{File, Metadata, OpenFlags};
use iobuf::Sink;
use machine::sync::SpinLock;
use sched::poll::{Events, Pollee};

use super::anon::{AnonInode, Home};
use super::blocking::retry;
use crate::process::Process;
use crate::signal::{SigFields, SigInfo, SigSet};

/// `sizeof(struct signalfd_siginfo)`.
const RECORD: usize = 128;

/// A descriptor of `signalfd(2)`. It shows the signals pending for whoever reads it.
pub struct SignalFile {
    process: &'static Process,
    mask: SpinLock<SigSet>,
    inode: AnonInode,
}

impl SignalFile {
    /// A file that tells of the signals in `mask`.
    pub fn new(process: &'static Process, mask: SigSet) -> Self {
        SignalFile {
            process,
            mask: SpinLock::new(mask.difference(SigSet::UNBLOCKABLE)),
            inode: AnonInode::new(Home::Anonymous),
        }
    }

    /// Changes the set.
    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask.difference(SigSet::UNBLOCKABLE);
        self.process.signals.pollee.notify(Events::IN);
    }

    /// The set.
    pub fn mask(&self) -> SigSet {
        *self.mask.lock()
    }

    fn take(&self) -> Result<SigInfo> {
        let thread = super::raise::current_thread().ok_or(Errno::EAGAIN)?;
        thread
            .signals
            .take(&self.process.signals, self.mask())
            .ok_or(Errno::EAGAIN)
    }
}

/// The `struct signalfd_siginfo` of a signal.
fn record(info: &SigInfo) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &info.signo.to_ne_bytes());
    put(4, &info.errno.to_ne_bytes());
    put(8, &info.code.to_ne_bytes());
    match info.fields {
        SigFields::None => {}
        SigFields::Sender { pid, uid, value } => {
            put(12, &pid.to_ne_bytes());
            put(16, &uid.to_ne_bytes());
            put(44, &(value as i32).to_ne_bytes());
            put(48, &value.to_ne_bytes());
        }
        SigFields::Timer { id, overrun, value } => {
            put(24, &id.to_ne_bytes());
            put(32, &overrun.to_ne_bytes());
            put(44, &(value as i32).to_ne_bytes());
            put(48, &value.to_ne_bytes());
        }
        SigFields::Fault { addr } => put(72, &(addr as u64).to_ne_bytes()),
        SigFields::Raw(rest) => {
            // `_rt`: pid, uid, value.
            put(12, &rest[0..4]);
            put(16, &rest[4..8]);
            put(44, &rest[8..12]);
            put(48, &rest[8..16]);
        }
    }
    bytes
}

impl File for SignalFile {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        if sink.remaining() < RECORD {
            return Err(Errno::EINVAL);
        }
        let first = retry(
            &self.process.signals.pollee,
            flags.contains(OpenFlags::NONBLOCK),
            None,
            || self.poll().contains(Events::IN),
            || self.take(),
        )?;
        let mut done = sink.put(&record(&first))?;
        while sink.remaining() >= RECORD {
            let Ok(info) = self.take() else { break };
            match sink.put(&record(&info)) {
                Ok(n) if n == RECORD => done += n,
                _ => break,
            }
        }
        Ok(done)
    }

    fn poll(&self) -> Events {
        let own =
            super::raise::current_thread().map_or(SigSet::EMPTY, |thread| thread.signals.pending());
        let pending = own.union(self.process.signals.pending());
        if pending.intersection(self.mask()).is_empty() {
            Events::empty()
        } else {
            Events::IN
        }
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(&self.process.signals.pollee)
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(self.inode.metadata())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
