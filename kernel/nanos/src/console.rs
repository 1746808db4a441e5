//! The console: the serial port as the program's terminal, and what `/proc` shows of the program.

use alloc::sync::Arc;

use drivers::uart::Uart;
use errno::Result;
use fs::pseudo::Tree;
use linux::process::Process;
use linux::tty::console::ConsoleBackend;
use machine::sync::Once;

/// The tree at /proc.
pub static PROC: Once<Arc<Tree>> = Once::new();

static UART: Once<Option<Arc<Uart>>> = Once::new();

/// Takes the serial port for the program's terminal.
pub fn start(uart: Option<Arc<Uart>>) {
    UART.call_once(|| uart);
}

/// The serial port as the terminal's screen; without one, the kernel's own output.
struct Screen(Option<Arc<Uart>>);

impl ConsoleBackend for Screen {
    fn write(&self, bytes: &[u8]) {
        match &self.0 {
            Some(uart) => uart.write(bytes),
            None => machine::console::write(bytes),
        }
    }
}

/// Opens the program's standard descriptors on the terminal and fills /proc.
pub fn prepare(process: &'static Process) -> Result<()> {
    let uart = UART.get().cloned().flatten();
    let proc = PROC.call_once(fs::procfs::new);
    let screen = Arc::new(Screen(uart.clone()));
    let console = linux::standard::prepare(process, screen, proc.dir())?;
    if let Some(uart) = uart {
        let receive = Arc::new(move |bytes: &[u8]| console.receive(bytes));
        if !uart.start_receiving(receive) {
            ::log::info!("the serial port has no interrupt: nothing can be typed");
        }
    }
    Ok(())
}
