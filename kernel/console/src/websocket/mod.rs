//! WebSocket (RFC 6455), the server's side, without input or output: the handshake's answer, frames, messages.

mod frame;
mod handshake;
mod message;

pub use frame::{Opcode, write_frame};
pub use handshake::accept;
pub use message::{Event, Reader};

/// Why a connection is closed (RFC 6455 §7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The peer broke the protocol.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// Data of a kind that is not taken.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// Text that is no UTF-8.
    pub const NOT_TEXT: CloseCode = CloseCode(1007);
    /// The client may no longer ask.
    pub const NOT_ALLOWED: CloseCode = CloseCode(1008);
    /// A message that is too long.
    pub const TOO_LARGE: CloseCode = CloseCode(1009);

    /// Whether a peer may send it.
    fn is_valid(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}
