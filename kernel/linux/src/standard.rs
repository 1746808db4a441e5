//! What a program finds open when it starts: standard input, output and error on the console; and
//! the devices and openers that the `fs` room takes from this one.

use alloc::boxed::Box;
use alloc::sync::Arc;

use errno::{Errno, Result};
use fs::pseudo::Dir;
use fs::{DeviceId, File, OpenFile, OpenFlags, special};

use crate::files::{self, fifo, paths};
use crate::process::Process;
use crate::tty::console::{Console, ConsoleBackend, ConsoleFile};
use crate::tty::pty::{self, MasterFile};

/// `/dev/tty`, `/dev/console`, `/dev/ptmx`, the first `/dev/ttyS0`.
const TTY: DeviceId = DeviceId::new(5, 0);
const CONSOLE: DeviceId = DeviceId::new(5, 1);
const PTMX: DeviceId = DeviceId::new(5, 2);
const SERIAL: DeviceId = DeviceId::new(4, 64);

/// How many `/dev/pts/N` can be opened by a device number.
const SLAVES: u32 = 256;

/// Starts the console on `backend`, registers terminals and named pipes, fills `proc` with what it
/// tells of the program, and opens descriptors 0, 1 and 2.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`.
pub fn prepare(
    process: &'static Process,
    backend: Arc<dyn ConsoleBackend>,
    proc: &Arc<Dir>,
) -> Result<Arc<Console>> {
    let console = Console::start(backend)?;
    register(&console);
    crate::proc::add(process, proc);
    let standard = open_console(process, &console);
    for fd in 0..3 {
        let opened =
            process
                .files
                .insert(standard.clone(), files::descriptor_limit(process), false)?;
        debug_assert_eq!(opened, fd, "a new process has no descriptors");
    }
    Ok(console)
}

/// The console by its name, so that `ttyname(3)` finds it, or without one where `/dev` lacks it.
fn open_console(process: &Process, console: &Arc<Console>) -> Arc<OpenFile> {
    let flags = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    match paths::open(process, b"/dev/console", flags) {
        Ok(open) if open.file().as_any().is::<ConsoleFile>() => open,
        _ => OpenFile::new(ConsoleFile::new(console.clone(), CONSOLE), flags, None),
    }
}

fn register(console: &Arc<Console>) {
    fs::set_fifo_opener(fifo::open);
    for id in [TTY, CONSOLE, SERIAL] {
        let file: Arc<dyn File> = ConsoleFile::new(console.clone(), id);
        special::register_char_device(id, Box::new(move |_| Ok(file.clone())));
    }
    special::register_char_device(
        PTMX,
        Box::new(|_| MasterFile::open().map(|master| master as Arc<dyn File>)),
    );
    for number in 0..SLAVES {
        let id = DeviceId::new(pty::SLAVE_MAJOR, number);
        special::register_char_device(
            id,
            Box::new(move |_| match pty::open_slave(number) {
                // The node is there and the terminal is not.
                Err(Errno::ENOENT) => Err(Errno::EIO),
                opened => opened.map(|slave| slave as Arc<dyn File>),
            }),
        );
    }
}
