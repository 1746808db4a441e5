//! Captures of what passes an interface: the filter language, and the file format that Wireshark reads.
pub mod filter;
pub mod live;
pub mod pcapng;

pub use filter::Filter;
pub use live::{Capture, CaptureError};
