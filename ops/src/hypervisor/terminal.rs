//! The terminal while a program runs: the guest's console does echo and line editing, so ours must not. Ctrl-C stays a signal.

use std::io::{IsTerminal, stdin};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// The value that switches a special character off.
const DISABLED: u8 = 0;

/// The terminal of standard input with echo and line editing off, until this is dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Changes the terminal; does nothing when standard input is none.
    pub fn enter() -> Option<Self> {
        if !stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Ctrl-Z would stop the tool and leave the machine running: the guest gets it instead.
        raw.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // When the terminal has gone there is nothing to restore.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
