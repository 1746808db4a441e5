//! How a run ended: the one line that the kernel leaves on the debug console, and the exit code it becomes.

/// The exit code of the tool when the kernel itself failed.
pub const KERNEL_FAILED: u8 = 125;

/// What the kernel said at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The program ended with this code.
    Exit(u8),
    /// The program was ended by this signal.
    Signal(u8),
    /// The kernel found a fault of its own.
    Panic,
    /// The program asked for a restart, and the machine was not to restart.
    Reboot,
    /// Nothing was said: the machine was turned off, or QEMU was.
    Unknown,
}

impl Ending {
    /// Reads the debug console's bytes: `exit N`, `signal N`, `panic` or `reboot` in the last line that is one of these.
    pub fn read(bytes: &[u8]) -> Self {
        String::from_utf8_lossy(bytes)
            .lines()
            .rev()
            .find_map(|line| {
                let mut words = line.split_whitespace();
                let kind = words.next()?;
                let number = words.next().and_then(|n| n.parse::<i64>().ok());
                match (kind, number) {
                    ("exit", Some(code)) => Some(Ending::Exit(code as u8)),
                    ("signal", Some(n)) => u8::try_from(n).ok().map(Ending::Signal),
                    ("panic", _) => Some(Ending::Panic),
                    ("reboot", _) => Some(Ending::Reboot),
                    _ => None,
                }
            })
            .unwrap_or(Ending::Unknown)
    }

    /// The tool's exit code, where the kernel said something.
    pub fn code(&self) -> Option<u8> {
        match self {
            Ending::Exit(code) => Some(*code),
            Ending::Signal(n) => Some(n.saturating_add(128)),
            Ending::Panic => Some(KERNEL_FAILED),
            Ending::Reboot => Some(0),
            Ending::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        assert_eq!(Ending::read(b"exit 42\n").code(), Some(42));
        assert_eq!(Ending::read(b"noise\nsignal 11").code(), Some(139));
        assert_eq!(Ending::read(b"panic\n").code(), Some(KERNEL_FAILED));
        assert_eq!(Ending::read(b"reboot\n").code(), Some(0));
        assert_eq!(Ending::read(b"exit 1\nexit 2\n\xff\n").code(), Some(2));
        assert_eq!(Ending::read(b"exit 256\n").code(), Some(0));
        for nothing in [&b""[..], b"exit", b"exit x", b"signal 999", b"exiting 3"] {
            assert_eq!(Ending::read(nothing).code(), None, "{nothing:?}");
        }
    }
}
