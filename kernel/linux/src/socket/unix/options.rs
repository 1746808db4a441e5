//! Options of UNIX sockets (`unix(7)`, `socket(7)`) beyond those that all families share.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use errno::{Errno, Result};

use super::{BUFFER, State, UnixSocket};
use crate::socket::ops::Credentials;
use crate::socket::option::{self as so, SOL_SOCKET, int, parse_int};

impl UnixSocket {
    pub(super) fn set(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        match name {
            so::SO_PASSCRED => {
                let on = parse_int(value)? != 0;
                self.pass_credentials.store(on, Ordering::Relaxed);
            }
            so::SO_SNDBUF | so::SO_SNDBUFFORCE => {
                let asked = parse_int(value)?.clamp(0, 4 << 20) as usize;
                // Doubled, with a floor, as `sock_setsockopt` has it.
                let size = (asked * 2).max(4608);
                self.send_buffer.store(size, Ordering::Relaxed);
            }
            so::SO_TIMESTAMP => {
                let on = parse_int(value)? != 0;
                self.time_stamps.store(on, Ordering::Relaxed);
            }
            // Room is accounted to the sender; a receiver's size means nothing here, nor on Linux.
            so::SO_RCVBUF | so::SO_RCVBUFFORCE => {
                parse_int(value)?;
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    pub(super) fn get(&self, level: i32, name: i32, _len: usize) -> Result<Vec<u8>> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        match name {
            so::SO_PASSCRED => Ok(int(i32::from(
                self.pass_credentials.load(Ordering::Relaxed),
            ))),
            so::SO_SNDBUF => Ok(int(self.send_buffer.load(Ordering::Relaxed) as i32)),
            so::SO_RCVBUF => Ok(int(BUFFER as i32)),
            so::SO_PEERCRED => {
                let known = match &*self.state.lock() {
                    State::Idle => None,
                    _ => *self.peer_credentials.lock(),
                };
                Ok(known
                    .unwrap_or(Credentials {
                        pid: 0,
                        uid: u32::MAX,
                        gid: u32::MAX,
                    })
                    .to_bytes()
                    .to_vec())
            }
            so::SO_PEERGROUPS => match *self.peer_credentials.lock() {
                Some(_) => Ok(Vec::new()),
                None => Err(Errno::ENODATA),
            },
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
