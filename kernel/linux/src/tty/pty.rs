//! Pseudo-terminals (`pty(7)`): `/dev/ptmx` makes a master, `/dev/pts/N` is the terminal it drives.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use errno::{Errno, Result};
use fs::{DeviceId, File, Metadata, OpenFlags};
use iobuf::{Sink, SliceSource, Source};
use machine::sync::SpinLock;
use sched::Mutex;
use sched::poll::{Events, Pollee};

use super::console::terminal_metadata;
use super::terminal::{Output, Terminal};
use super::termios::WinSize;
use crate::files::blocking::{any, retry};
use crate::files::readiness::with_norms;
use crate::files::ring::Ring;
use crate::files::{paths, put_int};
use crate::uaccess::UserPtr;

const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCGPTLCK: u32 = 0x8004_5439;
const TIOCPKT: u32 = 0x5420;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCGPTPEER: u32 = 0x5441;
const FIONREAD: u32 = 0x541b;

/// How much output waits for the master at most.
const OUTPUT_LIMIT: usize = 65536;
/// `kernel.pty.max`.
const MAX_PTYS: u32 = 4096;

/// The major number of `/dev/pts/*` (`UNIX98_PTY_SLAVE_MAJOR`).
pub const SLAVE_MAJOR: u32 = 136;

static PTYS: SpinLock<BTreeMap<u32, Weak<Pty>>> = SpinLock::new(BTreeMap::new());

/// A pair of ends.
pub struct Pty {
    number: u32,
    terminal: Terminal,
    screen: Screen,
    locked: AtomicBool,
    slaves: AtomicUsize,
    /// Whether a slave was ever open: before that a master's read waits, after it fails.
    had_slave: AtomicBool,
    packet_mode: AtomicBool,
    /// What the master waits on.
    master: Pollee,
}

struct Screen {
    shown: SpinLock<Ring>,
    pty: Weak<Pty>,
}

impl Output for Screen {
    fn put(&self, bytes: &[u8]) -> Result<usize> {
        let done = self
            .shown
            .lock()
            .write(&mut SliceSource::new(bytes), OUTPUT_LIMIT)?;
        if let Some(pty) = self.pty.upgrade() {
            pty.master.notify(Events::IN);
        }
        Ok(done)
    }

    fn has_room(&self) -> bool {
        self.shown.lock().len() < OUTPUT_LIMIT
    }

    fn discard(&self) {
        let mut shown = self.shown.lock();
        let len = shown.len();
        shown.discard(len);
    }

    fn pending(&self) -> usize {
        self.shown.lock().len()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        node::remove(self.number);
        let gone = PTYS.lock().remove(&self.number);
        drop(gone);
    }
}

/// The device nodes of slaves, which come and go with their terminals as in Linux's devpts.
mod node {
    use alloc::format;
    use alloc::string::String;

    use fs::{Credentials, DeviceId, FileType, Start};

    use super::SLAVE_MAJOR;

    pub fn path(number: u32) -> String {
        format!("/dev/pts/{number}")
    }

    fn at_root(work: impl FnOnce(&fs::Namespace, &Start<'_>) -> errno::Result<()>) {
        let Some(process) = crate::process::get() else {
            return;
        };
        let namespace = process.fs.namespace();
        let root = namespace.root();
        let start = Start {
            root,
            dir: root,
            creds: &Credentials::ROOT,
        };
        // An image without /dev/pts has terminals without names.
        let _ = work(namespace, &start);
    }

    pub fn add(number: u32) {
        at_root(|namespace, start| {
            let (path, id) = (path(number), DeviceId::new(SLAVE_MAJOR, number));
            namespace
                .mknod(start, path.as_bytes(), FileType::CharDevice, 0o620, id)
                .map(drop)
        });
    }

    pub fn remove(number: u32) {
        at_root(|namespace, start| namespace.unlink(start, path(number).as_bytes()));
    }
}

impl Pty {
    fn make() -> Result<Arc<Pty>> {
        let mut ptys = PTYS.lock();
        let number = (0..MAX_PTYS)
            .find(|n| !ptys.contains_key(n))
            .ok_or(Errno::ENOSPC)?;
        let pty = Arc::new_cyclic(|me| Pty {
            number,
            terminal: Terminal::new(WinSize::default()),
            screen: Screen {
                shown: SpinLock::new(Ring::new()),
                pty: me.clone(),
            },
            locked: AtomicBool::new(true),
            slaves: AtomicUsize::new(0),
            had_slave: AtomicBool::new(false),
            packet_mode: AtomicBool::new(false),
            master: Pollee::new(),
        });
        ptys.insert(number, Arc::downgrade(&pty));
        drop(ptys);
        node::add(number);
        Ok(pty)
    }

    fn master_events(&self) -> Events {
        let mut events = Events::OUT;
        if self.screen.pending() > 0 {
            events |= Events::IN;
        }
        if self.hung_up() {
            events |= Events::HUP;
        }
        events
    }

    fn hung_up(&self) -> bool {
        self.had_slave.load(Ordering::Acquire) && self.slaves.load(Ordering::Acquire) == 0
    }
}

/// The numbers of the slaves that exist, for the listing of `/dev/pts`.
pub fn numbers() -> Vec<u32> {
    PTYS.lock().keys().copied().collect()
}

/// Opens `/dev/pts/number`.
///
/// # Errors
/// `ENOENT` when there is none, `EIO` while it is locked.
pub fn open_slave(number: u32) -> Result<Arc<SlaveFile>> {
    let pty = PTYS
        .lock()
        .get(&number)
        .and_then(Weak::upgrade)
        .ok_or(Errno::ENOENT)?;
    if pty.locked.load(Ordering::Acquire) {
        return Err(Errno::EIO);
    }
    Ok(SlaveFile::new(pty))
}

/// The descriptor's file of a master.
pub struct MasterFile {
    pty: Arc<Pty>,
    /// One reader at a time copies out of the ring.
    reading: Mutex<()>,
}

impl MasterFile {
    /// Makes a pair and returns its master (`/dev/ptmx`).
    ///
    /// # Errors
    /// `ENOSPC` when there are too many.
    pub fn open() -> Result<Arc<Self>> {
        Ok(Arc::new(MasterFile {
            pty: Pty::make()?,
            reading: Mutex::new(()),
        }))
    }

    /// Opens the slave (`TIOCGPTPEER`).
    ///
    /// # Errors
    /// `EIO` while it is locked.
    pub fn open_peer(&self) -> Result<Arc<SlaveFile>> {
        Ok(SlaveFile::new(self.pty.clone()))
    }

    fn take(&self, sink: &mut dyn Sink) -> Result<usize> {
        let _one = self.reading.lock();
        // Through a buffer: the ring's lock must not be held while the program's memory is written.
        let mut chunk = [0u8; 2048];
        let prefix = usize::from(self.pty.packet_mode.load(Ordering::Relaxed));
        let len = {
            let shown = self.pty.screen.shown.lock();
            let room = sink.remaining().saturating_sub(prefix).min(chunk.len());
            let mut buffer = iobuf::SliceSink::new(&mut chunk[..room]);
            shown.copy_out(&mut buffer, 0, room)?
        };
        if len == 0 {
            return if self.pty.hung_up() {
                Err(Errno::EIO)
            } else {
                Err(Errno::EAGAIN)
            };
        }
        if prefix == 1 {
            // TIOCPKT_DATA
            sink.put(&[0])?;
        }
        let done = sink.put(&chunk[..len])?;
        self.pty.screen.shown.lock().discard(done);
        self.pty.terminal.pollee().notify(Events::OUT);
        Ok(done + prefix)
    }
}

impl Drop for MasterFile {
    fn drop(&mut self) {
        self.pty.terminal.hang_up();
    }
}

impl File for MasterFile {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        retry(
            &self.pty.master,
            flags.contains(OpenFlags::NONBLOCK),
            None,
            || any(self.pty.master_events(), Events::IN),
            || self.take(sink),
        )
    }

    fn write(&self, source: &mut dyn Source, _flags: OpenFlags) -> Result<usize> {
        let mut total = 0;
        let mut chunk = [0u8; 512];
        while source.remaining() > 0 {
            let len = match source.take(&mut chunk) {
                Ok(len) => len,
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            };
            self.pty.terminal.receive(&chunk[..len], &self.pty.screen);
            total += len;
        }
        Ok(total)
    }

    fn poll(&self) -> Events {
        with_norms(self.pty.master_events())
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(&self.pty.master)
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        match request {
            TIOCGPTN => put_int(arg, self.pty.number as i32),
            TIOCSPTLCK => {
                let locked = UserPtr::<i32>::new(arg).read()? != 0;
                self.pty.locked.store(locked, Ordering::Release);
                Ok(0)
            }
            TIOCGPTLCK => put_int(arg, i32::from(self.pty.locked.load(Ordering::Acquire))),
            TIOCPKT => {
                let on = UserPtr::<i32>::new(arg).read()? != 0;
                self.pty.packet_mode.store(on, Ordering::Relaxed);
                Ok(0)
            }
            TIOCGPKT => put_int(arg, i32::from(self.pty.packet_mode.load(Ordering::Relaxed))),
            TIOCGPTPEER => {
                let process = crate::process::get().ok_or(Errno::EIO)?;
                let flags = OpenFlags::from_bits_truncate(arg as u32);
                // By its name where it has one, so that `ttyname(3)` finds it.
                let name = node::path(self.pty.number);
                let file = match paths::open(process, name.as_bytes(), flags) {
                    Ok(file) => file,
                    Err(_) => fs::OpenFile::new(self.open_peer()?, flags, None),
                };
                let limit = crate::files::descriptor_limit(process);
                let close_on_exec = flags.contains(OpenFlags::CLOEXEC);
                process
                    .files
                    .insert(file, limit, close_on_exec)
                    .map(|fd| fd as usize)
            }
            FIONREAD => put_int(arg, self.pty.screen.pending() as i32),
            _ => super::ioctl::terminal(&self.pty.terminal, &self.pty.screen, request, arg),
        }
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(terminal_metadata(DeviceId::new(5, 2), 2))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The descriptor's file of a slave.
pub struct SlaveFile {
    pty: Arc<Pty>,
}

impl SlaveFile {
    fn new(pty: Arc<Pty>) -> Arc<Self> {
        pty.slaves.fetch_add(1, Ordering::AcqRel);
        pty.had_slave.store(true, Ordering::Release);
        Arc::new(SlaveFile { pty })
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.pty.number
    }
}

impl Drop for SlaveFile {
    fn drop(&mut self) {
        if self.pty.slaves.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pty.master.notify(Events::IN | Events::HUP);
        }
    }
}

impl File for SlaveFile {
    fn read(&self, sink: &mut dyn Sink, flags: OpenFlags) -> Result<usize> {
        self.pty
            .terminal
            .read(sink, flags.contains(OpenFlags::NONBLOCK))
    }

    fn write(&self, source: &mut dyn Source, flags: OpenFlags) -> Result<usize> {
        let nonblock = flags.contains(OpenFlags::NONBLOCK);
        self.pty.terminal.write(source, nonblock, &self.pty.screen)
    }

    fn poll(&self) -> Events {
        self.pty.terminal.poll(&self.pty.screen)
    }

    fn pollee(&self) -> Option<&Pollee> {
        Some(self.pty.terminal.pollee())
    }

    fn ioctl(&self, request: u32, arg: usize) -> Result<usize> {
        super::ioctl::terminal(&self.pty.terminal, &self.pty.screen, request, arg)
    }

    fn metadata(&self) -> Result<Metadata> {
        Ok(terminal_metadata(
            DeviceId::new(SLAVE_MAJOR, self.pty.number),
            u64::from(self.pty.number) + 3,
        ))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
