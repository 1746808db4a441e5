//! The information store: one tree of named values that can be looked at and, in places, changed while a program runs.
//!
//! Each room of the kernel offers its branch, and the kernel's main puts them together. Nothing else knows who looks: the
//! console, the metrics, the tool. A value is made when it is read and never before, so what nobody reads costs nothing.
//!
//! # Adding a branch
//!
//! A branch is a function that returns a [`Branch`]; `kernel/nanos/src/store.rs` adds it to the root with
//! [`Branch::with`]. All else follows from it: JSON, schema, watching, metrics.
//!
//! ```
//! use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
//! use store::{Branch, By, Leaf, Path, Store, Value};
//!
//! static BLOCKED: AtomicU64 = AtomicU64::new(3);
//! static LIMIT: AtomicI64 = AtomicI64::new(100);
//!
//! fn firewall() -> Branch {
//!     Branch::new("The firewall.")
//!         .with("blocked", Leaf::count(|| BLOCKED.load(Relaxed)).unit("packets").help("Packets that a rule stopped."))
//!         .with(
//!             "limit",
//!             Leaf::gauge(|| LIMIT.load(Relaxed))
//!                 .help("The most connections from one address.")
//!                 .range(1, 10_000)
//!                 .writable(
//!                     |_| Ok(()),
//!                     |value| value.as_integer().map(|limit| LIMIT.store(limit, Relaxed)).ok_or("no number".into()),
//!                 ),
//!         )
//!         // Children that come and go are listed when somebody looks.
//!         .listed("rule", || vec!["1".into()], |name| {
//!             (name == "1").then(|| Branch::new("A rule.").with("match", Leaf::text(|| "tcp port 22").help("What it stops.")))
//!         })
//! }
//!
//! let store = Store::unshared(Branch::new("All there is.").with("firewall", firewall()));
//! let limit = Path::parse("/firewall/limit")?;
//! store.set(&limit, Value::Integer(5), &By("the example".into()))?;
//! assert!(store.get(&limit, 1)?.ends_with(r#""range":[1,10000],"value":5}"#));
//! assert!(store::metrics::render(&store, store::metrics::Format::OpenMetrics)?.contains("nanos_firewall_blocked_total 3"));
//! # Ok::<(), store::Error>(())
//! ```
//!
//! Each change is logged with who asked; [`Leaf::not_logged`] is for values that may hold secrets.
//! A writer must never pretend: it makes the value hold, or says why not. A value that is for nobody's eyes is shown as
//! [`HIDDEN`].
//!
//! # Using it
//!
//! [`Store::get`] and [`Store::schema`] are JSON; [`Wish`] reads requests and [`Store::grant`] fulfils them;
//! [`watch::Snapshot`] and its deltas feed watchers; [`Store::observe`] tells of changes; [`metrics::render`] is what
//! Prometheus reads. This room depends on no other.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod base64;
mod change;
mod error;
mod histogram;
pub mod json;
pub mod metrics;
mod node;
mod path;
pub mod rfc3339;
mod store;
mod value;
pub mod watch;

pub use change::{By, Change, Changes, MAX_BODY, MAX_CHANGES, Observer, Wish};
pub use error::{Error, ErrorCode};
pub use histogram::Histogram;
pub use node::{Branch, Leaf, Node, Writer};
pub use path::{MAX_DEPTH, MAX_NAME, Path, is_name};
pub use store::{Exclusive, Store};
pub use value::{Kind, Value};

/// What stands for a secret.
pub const HIDDEN: &str = "<hidden>";

#[cfg(test)]
mod tests;
