//! Talking to a running machine's console: its HTTP interface (`client`), what is watched (`watch`), and how what comes from
//! there is shown: traced calls (`strace`), flame graphs (`flame`). Which commands do that is in `cli`.

pub mod client;
pub mod flame;
pub mod strace;
pub mod watch;
