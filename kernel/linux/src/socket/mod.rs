//! Sockets as descriptors: one [`file::SocketFile`] over the operations of a family.
//!
//! [`unix`] is here in full; [`inet`] hands on to the `net` room; [`netlink`] answers what programs
//! ask about interfaces, [`vsock`] talks to the machine's host. [`addr`] and [`cmsg`] read and write the program's structures.

pub mod addr;
pub mod cmsg;
pub mod common;
pub mod completion;
pub mod file;
pub mod filter;
pub mod inet;
pub mod inventory;
pub mod netlink;
pub mod ops;
pub mod option;
pub mod packet;
pub mod ring;
pub mod unix;
pub mod vsock;

use alloc::sync::Arc;

use errno::Result;
use machine::sync::Once;
use net::Stack;

static STACK: Once<Arc<Stack>> = Once::new();

/// Says which network engine the program's sockets use. The first one stays.
pub fn set_stack(stack: Arc<Stack>) {
    let _ = STACK.set(stack);
}

/// The network engine.
///
/// # Errors
/// `EAFNOSUPPORT` in a kernel without one.
pub fn stack() -> Result<&'static Arc<Stack>> {
    STACK.get().ok_or(errno::Errno::EAFNOSUPPORT)
}
