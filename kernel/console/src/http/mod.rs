//! HTTP/1.1 (RFC 9110, RFC 9112) without input or output: heads, bodies and answers as bytes in memory.

mod body;
mod date;
mod head;
mod response;

pub use body::{Body, Framing};
pub use date::http_date;
pub use head::{Head, HeadReader, Method};
pub use response::{Answer, Content, write_chunk, write_head};
