//! The kernel's own output: the early serial port, until a driver sets a better sink.

use core::fmt::{self, Write};

use crate::arch;
use crate::sync::{IrqLock, Once};

/// Takes bytes for the console.
pub type Sink = fn(&[u8]);

static SINK: Once<Sink> = Once::new();
static LOCK: IrqLock<()> = IrqLock::new(());

/// Sends all further kernel output to `sink`. The first caller wins.
pub fn set_sink(sink: Sink) {
    let _ = SINK.set(sink);
}

/// Writes `bytes` to the console, as they are.
pub fn write(bytes: &[u8]) {
    match SINK.get() {
        Some(sink) => sink(bytes),
        None => {
            let _one_at_a_time = LOCK.lock();
            arch::early_console_write(bytes);
        }
    }
}

/// Writes to the early serial port, past any sink and any lock: for the panic handler.
pub fn write_raw(bytes: &[u8]) {
    arch::early_console_write(bytes);
}

/// A `core::fmt` writer to the console. Each newline gets a carriage return.
#[derive(Debug, Default, Clone, Copy)]
pub struct Writer;

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (i, line) in text.split('\n').enumerate() {
            if i > 0 {
                write(b"\r\n");
            }
            if !line.is_empty() {
                write(line.as_bytes());
            }
        }
        Ok(())
    }
}

/// Prints one formatted line on the console.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {{
        use ::core::fmt::Write as _;
        let _ = ::core::writeln!($crate::console::Writer, $($arg)*);
    }};
}
