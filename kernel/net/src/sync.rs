//! The locks of this room, named once so that the engine runs on the host and in the kernel alike.
//! None of them is taken from an interrupt handler.
#[allow(unused_imports, reason = "the engine lands in pieces")]
pub(crate) use spin::Mutex as SpinLock;
#[allow(unused_imports, reason = "the engine lands in pieces")]
pub(crate) use spin::Mutex as SleepLock;
#[allow(unused_imports, reason = "the engine lands in pieces")]
pub(crate) use spin::RwLock as RwSpinLock;
