//! Names and connections of UNIX sockets: `bind`, `listen`, `connect`, `accept`.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use errno::{Errno, Result};
use sched::poll::Events;

use super::{State, UnixSocket, names, own_credentials};
use crate::files::paths;
use crate::socket::addr::{Address, UnixAddr};
use crate::socket::ops::Kind;

/// The most connections that wait to be accepted (`net.core.somaxconn`).
const SOMAXCONN: usize = 4096;

impl UnixSocket {
    pub(super) fn bind_name(&self, addr: &Address) -> Result<()> {
        let Address::Unix(name) = addr else {
            return Err(Errno::EINVAL);
        };
        // A path name is made first, on Linux too: one that exists is told before a second binding.
        if self.binding.lock().is_some() && !matches!(name, UnixAddr::Path(_)) {
            return Err(Errno::EINVAL);
        }
        let binding = match name {
            UnixAddr::Unnamed => names::autobind(self.kind, &self.me)?,
            UnixAddr::Abstract(name) => names::bind_abstract(name.clone(), self.kind, &self.me)?,
            UnixAddr::Path(name) => {
                let (path, key) = paths::create_socket(name)?;
                names::bind_inode(key, name.clone(), path, &self.me)?
            }
        };
        let mut slot = self.binding.lock();
        if slot.is_some() {
            drop(slot);
            if let UnixAddr::Path(name) = name {
                paths::remove_socket(name);
            }
            return Err(Errno::EINVAL);
        }
        *slot = Some(Arc::new(binding));
        Ok(())
    }

    pub(super) fn autobind_if_unnamed(&self) -> Result<()> {
        if self.binding.lock().is_none() {
            let binding = Arc::new(names::autobind(self.kind, &self.me)?);
            let mut slot = self.binding.lock();
            if slot.is_none() {
                *slot = Some(binding);
            }
        }
        Ok(())
    }

    pub(super) fn start_listening(&self, backlog: i32) -> Result<()> {
        if self.kind == Kind::Dgram {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.binding.lock().is_none() {
            return Err(Errno::EINVAL);
        }
        // As `somaxconn` bounds it; a negative number is a very large one on Linux.
        let limit = usize::try_from(backlog).unwrap_or(SOMAXCONN).min(SOMAXCONN);
        let mut state = self.state.lock();
        match &mut *state {
            State::Connected { .. } => return Err(Errno::EINVAL),
            State::Listening { backlog, .. } => *backlog = limit,
            State::Idle => {
                *state = State::Listening {
                    backlog: limit,
                    waiting: VecDeque::new(),
                }
            }
        }
        drop(state);
        *self.peer_credentials.lock() = Some(own_credentials());
        self.room.notify(Events::OUT);
        Ok(())
    }

    pub(super) fn take_connection(&self) -> Result<Arc<UnixSocket>> {
        if self.kind == Kind::Dgram {
            return Err(Errno::EOPNOTSUPP);
        }
        let taken = match &mut *self.state.lock() {
            State::Listening { waiting, .. } => waiting.pop_front(),
            _ => return Err(Errno::EINVAL),
        };
        if taken.is_some() {
            self.room.notify(Events::OUT);
        }
        taken.ok_or(Errno::EAGAIN)
    }

    /// The socket that has this name, as one of this kind finds it.
    fn find(&self, name: &UnixAddr) -> Result<Arc<UnixSocket>> {
        match name {
            UnixAddr::Unnamed => Err(Errno::EINVAL),
            UnixAddr::Abstract(name) => {
                names::find_abstract(name, self.kind).ok_or(Errno::ECONNREFUSED)
            }
            UnixAddr::Path(path) => {
                let key = paths::find_socket(path)?;
                names::find_inode(key).ok_or(Errno::ECONNREFUSED)
            }
        }
    }

    pub(super) fn find_datagram_target(&self, name: &UnixAddr) -> Result<Arc<UnixSocket>> {
        let target = self.find(name)?;
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        // A connected socket takes datagrams from its peer only.
        let accepts = match &*target.state.lock() {
            State::Connected { peer, .. } => core::ptr::eq(peer.as_ptr(), self),
            _ => true,
        };
        if accepts {
            Ok(target)
        } else {
            Err(Errno::EPERM)
        }
    }

    pub(super) fn connect_name(&self, addr: &Address) -> Result<()> {
        let name = match addr {
            Address::Unix(name) => name,
            Address::Unspecified if self.kind == Kind::Dgram => {
                let old = core::mem::replace(&mut *self.state.lock(), State::Idle);
                drop(old);
                return Ok(());
            }
            _ => return Err(Errno::EINVAL),
        };
        if self
            .pass_credentials
            .load(core::sync::atomic::Ordering::Relaxed)
        {
            self.autobind_if_unnamed()?;
        }
        if self.kind == Kind::Dgram {
            let target = self.find_datagram_target(name)?;
            self.set_peer(&target);
            return Ok(());
        }
        let listener = self.find(name)?;
        if listener.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        // The listener's state is told before the socket's own.
        match &*listener.state.lock() {
            State::Listening { backlog, waiting } if waiting.len() > *backlog => {
                return Err(Errno::EAGAIN);
            }
            State::Listening { .. } => {}
            _ => return Err(Errno::ECONNREFUSED),
        }
        match &*self.state.lock() {
            State::Idle => {}
            State::Connected { .. } => return Err(Errno::EISCONN),
            State::Listening { .. } => return Err(Errno::EINVAL),
        }
        let client = self.me.upgrade().ok_or(Errno::EINVAL)?;
        let server = UnixSocket::new(self.kind);
        server.set_peer(&client);
        *server.inherited.lock() = listener.binding.lock().clone();
        server.pass_credentials.store(
            listener
                .pass_credentials
                .load(core::sync::atomic::Ordering::Relaxed),
            core::sync::atomic::Ordering::Relaxed,
        );
        // The state changes before the server can be accepted: it may answer at once.
        let credentials = *listener.peer_credentials.lock();
        let mut listening = listener.state.lock();
        match &mut *listening {
            State::Listening { backlog, waiting } => {
                if waiting.len() > *backlog {
                    return Err(Errno::EAGAIN);
                }
                waiting.push_back(server.clone());
            }
            _ => return Err(Errno::ECONNREFUSED),
        }
        drop(listening);
        client.set_peer(&server);
        *client.peer_credentials.lock() = credentials;
        listener.pollee.notify(Events::IN);
        client.pollee.notify(Events::OUT);
        Ok(())
    }

    /// Where a connection attempt that met a full queue waits.
    pub(crate) fn wait_to_connect(&self, addr: &Address, deadline_ns: Option<u64>) -> Result<()> {
        let Address::Unix(name) = addr else {
            return Err(Errno::EINVAL);
        };
        let listener = self.find(name)?;
        crate::files::blocking::wait(&listener.room, deadline_ns, || {
            match &*listener.state.lock() {
                State::Listening { backlog, waiting } => waiting.len() <= *backlog,
                _ => true,
            }
        })
    }
}
