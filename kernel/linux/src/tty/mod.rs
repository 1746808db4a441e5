//! Terminals: the console that the program's standard streams are, and pseudo-terminals.
//!
//! [`discipline`] is the pure part, [`terminal`] the part both kinds share, [`console`] binds one to
//! a device behind a [`ConsoleBackend`](console::ConsoleBackend), [`pty`] to a master descriptor.

pub mod console;
pub mod discipline;
pub mod ioctl;
pub mod pty;
pub mod terminal;
pub mod termios;
