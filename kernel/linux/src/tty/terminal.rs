//! What every terminal has: a line discipline, readers that wait for it, a window size, and
//! somewhere for its output to go.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use errno::{Errno, Result};
use iobuf::{Sink, Source};
use machine::sync::SpinLock;
use sched::Mutex;
use sched::poll::{Events, Pollee};

use super::discipline::{Discipline, Effects, Signal};
use super::termios::{Input, Termios, WinSize, cc};
use crate::files::blocking::{deadline_after, wait};
use crate::files::readiness::with_norms;
use crate::signal::{SIGINT, SIGQUIT, SIGTSTP, SIGWINCH};

/// Where a terminal's output goes.
pub trait Output: Send + Sync {
    /// Takes bytes for the screen, all or a part of them; `Ok(0)` says to wait for
    /// [`Terminal::pollee`].
    ///
    /// # Errors
    /// `EIO` when nobody is there any more.
    fn put(&self, bytes: &[u8]) -> Result<usize>;

    /// Whether [`Output::put`] would take something.
    fn has_room(&self) -> bool;

    /// Throws away what was not shown yet.
    fn discard(&self) {}

    /// Bytes not shown yet (`TIOCOUTQ`).
    fn pending(&self) -> usize {
        0
    }
}

/// How much of a write is processed at a time.
const CHUNK: usize = 4096;
/// Tenths of a second, the unit of `VTIME`.
const DECISECOND_NS: u64 = 100_000_000;

/// A terminal as the program sees it.
pub struct Terminal {
    discipline: SpinLock<Discipline>,
    window: SpinLock<WinSize>,
    /// One writer at a time, so that lines of different threads are not mixed within a chunk.
    writing: Mutex<Vec<u8>>,
    pollee: Pollee,
    hung_up: AtomicBool,
    exclusive: AtomicBool,
}

impl Terminal {
    /// A terminal in the usual modes.
    pub fn new(window: WinSize) -> Self {
        Terminal {
            discipline: SpinLock::new(Discipline::new(Termios::default())),
            window: SpinLock::new(window),
            writing: Mutex::new(Vec::new()),
            pollee: Pollee::new(),
            hung_up: AtomicBool::new(false),
            exclusive: AtomicBool::new(false),
        }
    }

    /// What readers and writers wait on.
    pub fn pollee(&self) -> &Pollee {
        &self.pollee
    }

    /// The modes.
    pub fn termios(&self) -> Termios {
        *self.discipline.lock().termios()
    }

    /// Changes the modes.
    pub fn set_termios(&self, termios: Termios) {
        self.discipline.lock().set_termios(termios);
        self.pollee.notify(Events::IN | Events::OUT);
    }

    /// The window's size.
    pub fn window(&self) -> WinSize {
        *self.window.lock()
    }

    /// Changes the window's size; the program gets `SIGWINCH` if it is another.
    pub fn set_window(&self, size: WinSize) {
        let old = core::mem::replace(&mut *self.window.lock(), size);
        if old != size {
            crate::files::raise::on_process(SIGWINCH);
        }
    }

    /// Bytes a read could take.
    pub fn readable(&self) -> usize {
        self.discipline.lock().readable()
    }

    /// Throws away typed bytes.
    pub fn flush_input(&self) {
        self.discipline.lock().flush_input();
    }

    /// Stops or restarts output.
    pub fn stop_output(&self, stopped: bool) {
        self.discipline.lock().stop_output(stopped);
        self.pollee.notify(Events::OUT);
    }

    /// Sets or clears exclusive mode (`TIOCEXCL`).
    pub fn set_exclusive(&self, exclusive: bool) {
        self.exclusive.store(exclusive, Ordering::Relaxed);
    }

    /// Whether exclusive mode is on.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive.load(Ordering::Relaxed)
    }

    /// The other side is gone: reads end, writes fail.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Ordering::Release);
        self.pollee.notify(Events::IN | Events::OUT | Events::HUP);
    }

    /// Takes typed bytes: echoes, raises signals, wakes readers. Not for interrupt handlers.
    pub fn receive(&self, bytes: &[u8], output: &dyn Output) {
        let mut effects = Effects::default();
        self.discipline.lock().type_bytes(bytes, &mut effects);
        if effects.flush_output {
            output.discard();
        }
        let mut echo = &effects.echo[..];
        while !echo.is_empty() {
            match output.put(echo) {
                // An echo that finds no room is dropped, as on Linux.
                Ok(0) | Err(_) => break,
                Ok(n) => echo = &echo[n..],
            }
        }
        for signal in effects.signals {
            crate::files::raise::on_process(match signal {
                Signal::Interrupt => SIGINT,
                Signal::Quit => SIGQUIT,
                Signal::Suspend => SIGTSTP,
            });
        }
        self.pollee.notify(Events::IN | Events::OUT);
    }

    /// How many bytes make a raw read return, and after how long it does without them.
    fn min_and_time(&self) -> (usize, usize, bool) {
        let discipline = self.discipline.lock();
        let termios = discipline.termios();
        (
            usize::from(termios.c_cc[cc::VMIN]),
            usize::from(termios.c_cc[cc::VTIME]),
            discipline.is_canonical(),
        )
    }

    /// Reads (`read(2)` of a terminal): a line, or raw bytes by `VMIN` and `VTIME`.
    ///
    /// # Errors
    /// `EAGAIN`, `ERESTARTSYS`, `EFAULT`.
    pub fn read(&self, sink: &mut dyn Sink, nonblock: bool) -> Result<usize> {
        let room = sink.remaining();
        if room == 0 {
            return Ok(0);
        }
        let mut total = 0;
        let mut deadline = None;
        loop {
            let (min, time, canonical) = self.min_and_time();
            let mut bytes = Vec::new();
            let taken = self
                .discipline
                .lock()
                .read((room - total).min(CHUNK), &mut bytes);
            if let Some(len) = taken {
                let ended_line = canonical && self.ends_line(&bytes);
                let done = match sink.put(&bytes) {
                    Ok(done) => done,
                    Err(error) => {
                        self.discipline.lock().unread(&bytes, !ended_line);
                        return if total > 0 { Ok(total) } else { Err(error) };
                    }
                };
                if done < len {
                    self.discipline.lock().unread(&bytes[done..], !ended_line);
                    return Ok(total + done);
                }
                total += done;
                if canonical || total >= room || total >= min || nonblock {
                    return Ok(total);
                }
                // Between bytes VTIME counts anew.
                deadline = (time > 0).then(|| deadline_after(time as u64 * DECISECOND_NS));
                continue;
            }
            if self.hung_up.load(Ordering::Acquire) || (!canonical && min == 0 && time == 0) {
                return Ok(total);
            }
            if nonblock {
                return if total > 0 {
                    Ok(total)
                } else {
                    Err(Errno::EAGAIN)
                };
            }
            if !canonical && min == 0 && deadline.is_none() {
                deadline = Some(deadline_after(time as u64 * DECISECOND_NS));
            }
            let waited = wait(&self.pollee, deadline, || {
                self.hung_up.load(Ordering::Acquire) || self.discipline.lock().can_read(1)
            });
            match waited {
                Ok(()) => {}
                // VTIME ran out: what is there is the answer.
                Err(Errno::EAGAIN) => return Ok(total),
                Err(_) if total > 0 => return Ok(total),
                Err(error) => return Err(error),
            }
        }
    }

    fn ends_line(&self, bytes: &[u8]) -> bool {
        let termios = self.termios();
        bytes.last().is_none_or(|last| {
            *last == b'\n' || termios.is_cc(cc::VEOL, *last) || termios.is_cc(cc::VEOL2, *last)
        })
    }

    /// Writes (`write(2)` of a terminal) through output processing.
    ///
    /// # Errors
    /// `EIO` when the other side is gone, `EAGAIN`, `ERESTARTSYS`, `EFAULT`.
    pub fn write(
        &self,
        source: &mut dyn Source,
        nonblock: bool,
        output: &dyn Output,
    ) -> Result<usize> {
        let mut total = 0;
        let mut chunk = [0u8; CHUNK];
        let mut writing = self.writing.lock();
        while source.remaining() > 0 {
            if self.hung_up.load(Ordering::Acquire) {
                return if total > 0 {
                    Ok(total)
                } else {
                    Err(Errno::EIO)
                };
            }
            if self.held(output) {
                if nonblock {
                    return if total > 0 {
                        Ok(total)
                    } else {
                        Err(Errno::EAGAIN)
                    };
                }
                drop(writing);
                let waited = wait(&self.pollee, None, || {
                    self.hung_up.load(Ordering::Acquire) || !self.held(output)
                });
                match waited {
                    Ok(()) => {}
                    Err(_) if total > 0 => return Ok(total),
                    Err(error) => return Err(error),
                }
                writing = self.writing.lock();
                continue;
            }
            let len = match source.take(&mut chunk) {
                Ok(len) => len,
                Err(_) if total > 0 => return Ok(total),
                Err(error) => return Err(error),
            };
            writing.clear();
            self.discipline.lock().write(&chunk[..len], &mut writing);
            self.show(&writing, output)?;
            total += len;
        }
        Ok(total)
    }

    /// Whether output is stopped or has no room.
    fn held(&self, output: &dyn Output) -> bool {
        self.discipline.lock().is_output_stopped() || !output.has_room()
    }

    /// Hands processed bytes on, waiting for room: they have been taken from the program.
    fn show(&self, mut bytes: &[u8], output: &dyn Output) -> Result<()> {
        while !bytes.is_empty() {
            match output.put(bytes)? {
                0 => {
                    let gone = || self.hung_up.load(Ordering::Acquire);
                    // Not interruptible: a part of a line must not get lost or be written twice.
                    self.pollee
                        .waiters()
                        .wait(|| (gone() || output.has_room()).then_some(()));
                    if gone() {
                        return Err(Errno::EIO);
                    }
                }
                n => bytes = &bytes[n..],
            }
        }
        Ok(())
    }

    /// What it is ready for.
    pub fn poll(&self, output: &dyn Output) -> Events {
        let mut events = Events::empty();
        let discipline = self.discipline.lock();
        let min = if discipline.termios().c_cc[cc::VTIME] == 0 {
            usize::from(discipline.termios().c_cc[cc::VMIN])
        } else {
            1
        };
        if discipline.can_read(min) {
            events |= Events::IN;
        }
        let stopped = discipline.is_output_stopped();
        drop(discipline);
        if self.hung_up.load(Ordering::Acquire) {
            events |= Events::IN | Events::OUT | Events::HUP | Events::ERR;
        } else if !stopped && output.has_room() {
            events |= Events::OUT;
        }
        with_norms(events)
    }

    /// Whether input is UTF-8, for those who draw.
    pub fn is_utf8(&self) -> bool {
        self.discipline
            .lock()
            .termios()
            .input()
            .contains(Input::IUTF8)
    }
}
