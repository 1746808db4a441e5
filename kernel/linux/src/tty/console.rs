//! The console: the terminal behind the machine's serial line, which standard input, output and
//! error are.
//!
//! What the device is does not matter here: the kernel's main gives a [`ConsoleBackend`] and calls
//! [`Console::receive`] with what is typed.

use alloc::sync::Arc;
use core::any::Any;

use errno::Result;
use fs::{DeviceId, File, FileType, Metadata, OpenFlags, Timestamp};
use iobuf::{Sink, Source};
use machine::sync::IrqLock;
use sched::WaitQueue;
use sched::poll::{Events, Pollee};

use super::terminal::{Output, Terminal};
use super::termios::WinSize;

/// The device that shows the console's output. Its input comes through [`Console::receive`].
pub trait ConsoleBackend: Send + Sync {
    /// Shows bytes, all of them.
    fn write(&self, bytes: &[u8]);
}

/// Typed bytes that the discipline has not seen yet.
const TYPED_LIMIT: usize = 4096;

struct Typed {
    bytes: [u8; TYPED_LIMIT],
    head: usize,
    len: usize,
}

/// The console.
pub struct Console {
    terminal: Terminal,
    screen: Screen,
    typed: IrqLock<Typed>,
    arrived: WaitQueue,
}

struct Screen(Arc<dyn ConsoleBackend>);

impl Output for Screen {
    fn put(&self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn has_room(&self) -> bool {
        true
    }
}

impl Console {
    /// A console on `backend`, with the thread that runs its line discipline.
    ///
    /// # Errors
    /// `EAGAIN` when no thread can be made.
    pub fn start(backend: Arc<dyn ConsoleBackend>) -> Result<Arc<Console>> {
        let console = Arc::new(Console {
            // A serial line knows no size; Linux says 0 by 0, and programs then take 80 by 24.
            terminal: Terminal::new(WinSize::default()),
            screen: Screen(backend),
            typed: IrqLock::new(Typed {
                bytes: [0; TYPED_LIMIT],
                head: 0,
                len: 0,
            }),
            arrived: WaitQueue::new(),
        });
        let runner = console.clone();
        sched::spawn(sched::SpawnOptions::named("console"), move || runner.run())
            .map_err(|_| errno::Errno::EAGAIN)?;
        Ok(console)
    }

    /// Takes typed bytes. Legal in interrupt handlers; what finds no room is lost.
    pub fn receive(&self, bytes: &[u8]) {
        {
            let mut typed = self.typed.lock();
            for &byte in bytes {
                if typed.len == TYPED_LIMIT {
                    break;
                }
                let at = (typed.head + typed.len) % TYPED_LIMIT;
                typed.bytes[at] = byte;
                typed.len += 1;
            }
        }
        self.arrived.wake_all();
    }

    /// The terminal, for those who change its size.
    pub fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    fn take_typed(&self, into: &mut [u8]) -> usize {
        let mut typed = self.typed.lock();
        let len = typed.len.min(into.len());
        for slot in &mut into[..len] {
            *slot = typed.bytes[typed.head];
            typed.head = (typed.head + 1) % TYPED_LIMIT;
        }
        typed.len -= len;
        len
    }

    fn run(&self) {
        let mut chunk = [0; 256];
        loop {
            let len = self.arrived.wait(|| match self.take_typed(&mut chunk) {
                0 => None,
                len => Some(len),
            });
            self.terminal.receive(&chunk[..len], &self.screen);
        }
    }
}

/// A descriptor's file of the console.
pub struct ConsoleFile {
    console: Arc<Console>,
    device: DeviceId,
}

impl ConsoleFile {
    /// The console under a device number: 5:0 for `/dev/tty`, 5:1 for `/dev/console`.
    pub fn new(console: Arc<Console>, device: DeviceId) -> Arc<Self> {
        Arc::new(ConsoleFile { console, device })
    }

    /// The console.
    pub fn console(&self) -> &Arc<Console> {
        &self.console
    }
}

/// Metadata of a terminal that no node in a file system stands for.
pub(super) fn terminal_metadata(device: DeviceId, ino: u64) -> Metadata {
    let now = Timestamp::from_ns(machine::time::wall_ns());
    Metadata {
        dev: DeviceId::new(0, 5),
        ino,
        file_type: FileType::CharDevice,
        permissions: 0o620,
        nlink: 1,
        uid: 0,
        gid: 5,
        rdev: device,
        size: 0,
        block_size: 1024,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: None,
    }
}

impl File for ConsoleFile {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        self.console
            .terminal
            .read(sink, flags.contains(OpenFlags::NONBLOCK))
    }

    fn write(&self, source: &mut dyn Source, flags: OpenFlags) -> Result<usize> {
        let nonblock = flags.contains(OpenFlags::NONBLOCK);
        self.console
            .terminal
            .write(source, nonblock, &self.console.screen)
    }

    fn poll(&self) -> Events {
        self.console.terminal.poll(&self.console.screen)
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(self.console.terminal.pollee())
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        super::ioctl::terminal(&self.console.terminal, &self.console.screen, request, arg)
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(terminal_metadata(self.device, 3))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
