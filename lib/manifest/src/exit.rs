//! Sets of exit codes, as `expected_exit_code`, `reboot_on_exit` and `idle_on_exit` name them.

use alloc::vec::Vec;

/// One entry of an exit-code set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitMatch {
    /// `*`: every code.
    Any,
    /// A number: that code.
    Code(i32),
    /// `!n`: every code but that.
    Not(i32),
}

impl ExitMatch {
    /// Reads `*`, `n` or `!n`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('!') {
            Some(number) => number.trim().parse().ok().map(ExitMatch::Not),
            None if text == "*" => Some(ExitMatch::Any),
            None => text.trim().parse().ok().map(ExitMatch::Code),
        }
    }
}

/// A set of exit codes; a code is in it when any entry matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExitSet(pub Vec<ExitMatch>);

impl ExitSet {
    /// Whether `code` is in the set.
    #[must_use]
    pub fn contains(&self, code: i32) -> bool {
        self.0.iter().any(|entry| match *entry {
            ExitMatch::Any => true,
            ExitMatch::Code(n) => n == code,
            ExitMatch::Not(n) => n != code,
        })
    }
}
