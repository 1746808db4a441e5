//! The terminal's line discipline (`termios(3)`, Linux's `N_TTY`): what typed bytes become before
//! the program reads them, and what written bytes become on their way out.
//!
//! Pure: no device, no waiting. `console` and `pty` put it between a device and the program.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::termios::{Input, Local, Output, Termios, cc};

/// What a typed control character asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `SIGINT`.
    Interrupt,
    /// `SIGQUIT`.
    Quit,
    /// `SIGTSTP`.
    Suspend,
}

/// How much input is kept unread, as Linux's `N_TTY_BUF_SIZE`.
pub const BUFFER_LIMIT: usize = 4096;

const BELL: u8 = 7;
const TAB_WIDTH: usize = 8;

/// Input queues and modes of one terminal.
#[derive(Debug)]
pub struct Discipline {
    termios: Termios,
    /// Bytes the program may read now.
    ready: VecDeque<u8>,
    /// Lengths of the finished lines in `ready`; a length of 0 is an end of file. Empty in raw mode.
    lines: VecDeque<usize>,
    /// The line that is being typed.
    editing: Vec<u8>,
    /// Column of the cursor when editing began, and now: what erasing a tab needs.
    edit_column: usize,
    column: usize,
    literal_next: bool,
    output_stopped: bool,
}

/// What feeding bytes to the discipline caused.
#[derive(Debug, Default)]
pub struct Effects {
    /// Bytes for the screen.
    pub echo: Vec<u8>,
    /// Signals for the program.
    pub signals: Vec<Signal>,
    /// The program's unwritten output is to be thrown away.
    pub flush_output: bool,
    /// Output that was stopped goes on.
    pub output_restarted: bool,
}

impl Default for Discipline {
    fn default() -> Self {
        Self::new(Termios::default())
    }
}

impl Discipline {
    /// A terminal in the given modes with nothing typed.
    pub fn new(termios: Termios) -> Self {
        Discipline {
            termios,
            ready: VecDeque::new(),
            lines: VecDeque::new(),
            editing: Vec::new(),
            edit_column: 0,
            column: 0,
            literal_next: false,
            output_stopped: false,
        }
    }

    /// The modes.
    pub fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Changes the modes. Going raw makes what was typed of a line readable; going canonical makes
    /// what is unread one line (as `n_tty_set_termios`).
    pub fn set_termios(&mut self, new: Termios) {
        let was_canonical = self.is_canonical();
        self.termios = new;
        if was_canonical && !self.is_canonical() {
            self.lines.clear();
            self.ready.extend(self.editing.drain(..));
        } else if !was_canonical && self.is_canonical() && !self.ready.is_empty() {
            self.lines.push_back(self.ready.len());
        }
        if !self.termios.input().contains(Input::IXON) {
            self.output_stopped = false;
        }
    }

    /// Whether input comes in lines.
    pub fn is_canonical(&self) -> bool {
        self.termios.local().contains(Local::ICANON)
    }

    /// Whether ^S holds the output back.
    pub fn is_output_stopped(&self) -> bool {
        self.output_stopped
    }

    /// Stops or restarts output (`TCXONC`).
    pub fn stop_output(&mut self, stopped: bool) {
        self.output_stopped = stopped;
    }

    /// Throws away what was typed (`TCIFLUSH`).
    pub fn flush_input(&mut self) {
        self.ready.clear();
        self.lines.clear();
        self.editing.clear();
    }

    /// How many bytes a read could take now (`FIONREAD`): in canonical mode, finished lines only.
    pub fn readable(&self) -> usize {
        self.ready.len()
    }

    /// Whether a read would return at once: a line or an end of file, or `min` bytes when raw.
    pub fn can_read(&self, min: usize) -> bool {
        if self.is_canonical() {
            !self.lines.is_empty()
        } else {
            self.ready.len() >= min.max(1)
        }
    }

    /// Moves up to `room` bytes to `to`: in canonical mode, of one line at most. `None` when nothing
    /// is there; an end of file moves nothing and returns `Some(0)`.
    pub fn read(&mut self, room: usize, to: &mut Vec<u8>) -> Option<usize> {
        let len = if self.is_canonical() {
            let line = self.lines.front_mut()?;
            let len = room.min(*line);
            *line -= len;
            if *line == 0 {
                self.lines.pop_front();
            }
            len
        } else if self.ready.is_empty() {
            return None;
        } else {
            room.min(self.ready.len())
        };
        to.extend(self.ready.drain(..len));
        Some(len)
    }

    /// Puts bytes back in front that could not be delivered, as the rest of the same line.
    pub fn unread(&mut self, bytes: &[u8], continues_line: bool) {
        for &byte in bytes.iter().rev() {
            self.ready.push_front(byte);
        }
        if self.is_canonical() {
            match self.lines.front_mut() {
                Some(line) if continues_line => *line += bytes.len(),
                _ => self.lines.push_front(bytes.len()),
            }
        }
    }

    /// Takes typed bytes.
    pub fn type_bytes(&mut self, bytes: &[u8], effects: &mut Effects) {
        for &byte in bytes {
            self.type_byte(byte, effects);
        }
    }

    fn type_byte(&mut self, mut byte: u8, effects: &mut Effects) {
        let input = self.termios.input();
        let local = self.termios.local();
        if input.contains(Input::ISTRIP) {
            byte &= 0x7f;
        }
        if input.contains(Input::IUCLC) && local.contains(Local::IEXTEN) {
            byte = byte.to_ascii_lowercase();
        }
        if self.literal_next {
            self.literal_next = false;
            self.accept(byte, effects);
            return;
        }
        if input.contains(Input::IXON) {
            if self.termios.is_cc(cc::VSTART, byte) {
                self.output_stopped = false;
                effects.output_restarted = true;
                return;
            }
            if self.termios.is_cc(cc::VSTOP, byte) {
                self.output_stopped = true;
                return;
            }
            if self.output_stopped && input.contains(Input::IXANY) {
                self.output_stopped = false;
                effects.output_restarted = true;
            }
        }
        if local.contains(Local::ISIG)
            && let Some(signal) = self.signal_of(byte)
        {
            if !local.contains(Local::NOFLSH) {
                self.flush_input();
                effects.flush_output = true;
            }
            if local.contains(Local::ECHO) {
                self.echo(byte, &mut effects.echo);
            }
            effects.signals.push(signal);
            return;
        }
        match byte {
            b'\r' if input.contains(Input::IGNCR) => return,
            b'\r' if input.contains(Input::ICRNL) => byte = b'\n',
            b'\n' if input.contains(Input::INLCR) => byte = b'\r',
            _ => {}
        }
        if self.is_canonical() {
            self.edit(byte, effects);
        } else {
            self.accept(byte, effects);
        }
    }

    fn signal_of(&self, byte: u8) -> Option<Signal> {
        if self.termios.is_cc(cc::VINTR, byte) {
            Some(Signal::Interrupt)
        } else if self.termios.is_cc(cc::VQUIT, byte) {
            Some(Signal::Quit)
        } else if self.termios.is_cc(cc::VSUSP, byte) {
            Some(Signal::Suspend)
        } else {
            None
        }
    }

    /// A byte in canonical mode: edits the line, ends it, or becomes part of it.
    fn edit(&mut self, byte: u8, effects: &mut Effects) {
        let local = self.termios.local();
        let extended = local.contains(Local::IEXTEN);
        if self.termios.is_cc(cc::VERASE, byte) {
            self.erase_char(&mut effects.echo);
        } else if self.termios.is_cc(cc::VKILL, byte) {
            self.kill_line(byte, &mut effects.echo);
        } else if extended && self.termios.is_cc(cc::VWERASE, byte) {
            while self.editing.last().is_some_and(|b| !is_word(*b)) {
                self.erase_char(&mut effects.echo);
            }
            while self.editing.last().is_some_and(|b| is_word(*b)) {
                self.erase_char(&mut effects.echo);
            }
        } else if extended && self.termios.is_cc(cc::VLNEXT, byte) {
            self.literal_next = true;
            if local.contains(Local::ECHO) && local.contains(Local::ECHOCTL) {
                effects.echo.extend_from_slice(b"^\x08");
            }
        } else if extended && local.contains(Local::ECHO) && self.termios.is_cc(cc::VREPRINT, byte)
        {
            self.echo(byte, &mut effects.echo);
            self.echo_raw(b'\n', &mut effects.echo);
            let line = core::mem::take(&mut self.editing);
            for &b in &line {
                self.echo(b, &mut effects.echo);
            }
            self.editing = line;
        } else if self.termios.is_cc(cc::VEOF, byte) {
            self.end_line();
        } else if byte == b'\n' {
            if local.intersects(Local::ECHO | Local::ECHONL) {
                self.echo_raw(b'\n', &mut effects.echo);
            }
            self.editing.push(byte);
            self.end_line();
        } else if self.termios.is_cc(cc::VEOL, byte)
            || (extended && self.termios.is_cc(cc::VEOL2, byte))
        {
            if local.contains(Local::ECHO) {
                self.echo(byte, &mut effects.echo);
            }
            self.editing.push(byte);
            self.end_line();
        } else {
            self.accept(byte, effects);
        }
    }

    /// A byte that becomes input as it is.
    fn accept(&mut self, byte: u8, effects: &mut Effects) {
        // One byte is kept free for the newline, so that a line too long can still be ended.
        if self.ready.len() + self.editing.len() >= BUFFER_LIMIT - 1 {
            if self.termios.input().contains(Input::IMAXBEL) {
                effects.echo.push(BELL);
            }
            return;
        }
        if self.termios.local().contains(Local::ECHO) {
            if self.editing.is_empty() {
                self.edit_column = self.column;
            }
            self.echo(byte, &mut effects.echo);
        }
        if self.is_canonical() {
            self.editing.push(byte);
        } else {
            self.ready.push_back(byte);
        }
    }

    fn end_line(&mut self) {
        self.lines.push_back(self.editing.len());
        self.ready.extend(self.editing.drain(..));
    }

    fn kill_line(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let local = self.termios.local();
        if !local.contains(Local::ECHO) {
            self.editing.clear();
        } else if local.contains(Local::ECHOK | Local::ECHOKE | Local::ECHOE) {
            while !self.editing.is_empty() {
                self.erase_char(echo);
            }
        } else {
            self.editing.clear();
            self.echo(byte, echo);
            if local.contains(Local::ECHOK) {
                self.echo_raw(b'\n', echo);
            }
        }
    }

    /// Takes the last character off the line, and off the screen when `ECHOE` says so.
    fn erase_char(&mut self, echo: &mut Vec<u8>) {
        let Some(mut byte) = self.editing.pop() else {
            return;
        };
        if self.termios.input().contains(Input::IUTF8) {
            while byte & 0xc0 == 0x80 {
                match self.editing.pop() {
                    Some(previous) => byte = previous,
                    None => break,
                }
            }
        }
        let local = self.termios.local();
        if !local.contains(Local::ECHO) {
            return;
        }
        if !local.contains(Local::ECHOE) {
            let erase = self.termios.c_cc[cc::VERASE];
            self.echo(erase, echo);
            return;
        }
        if byte == b'\t' {
            let start = self.column_of_edit();
            while self.column > start {
                echo.push(b'\x08');
                self.column -= 1;
            }
        } else {
            let width = if is_control(byte) {
                if local.contains(Local::ECHOCTL) { 2 } else { 0 }
            } else {
                1
            };
            for _ in 0..width {
                echo.extend_from_slice(b"\x08 \x08");
                self.column = self.column.saturating_sub(1);
            }
        }
    }

    /// The column behind the line as it stands, computed from where it began.
    fn column_of_edit(&self) -> usize {
        let mut column = self.edit_column;
        for &byte in &self.editing {
            match byte {
                b'\t' => column = next_tab(column),
                b if is_control(b) => {
                    if self.termios.local().contains(Local::ECHOCTL) {
                        column += 2;
                    }
                }
                b if b & 0xc0 == 0x80 && self.termios.input().contains(Input::IUTF8) => {}
                _ => column += 1,
            }
        }
        column
    }

    fn echo(&mut self, byte: u8, to: &mut Vec<u8>) {
        if self.termios.local().contains(Local::ECHOCTL)
            && is_control(byte)
            && byte != b'\t'
            && byte != b'\n'
        {
            to.push(b'^');
            to.push(byte ^ 0x40);
            self.column += 2;
        } else {
            self.echo_raw(byte, to);
        }
    }

    fn echo_raw(&mut self, byte: u8, to: &mut Vec<u8>) {
        self.write(&[byte], to);
    }

    /// Processes what the program writes (`OPOST`) into `to`.
    pub fn write(&mut self, bytes: &[u8], to: &mut Vec<u8>) {
        let modes = self.termios.output();
        if !modes.contains(Output::OPOST) {
            to.extend_from_slice(bytes);
            return;
        }
        let plain = |b: &u8| !is_control(*b) && !modes.contains(Output::OLCUC);
        let mut rest = bytes;
        while !rest.is_empty() {
            let run = rest.iter().position(|b| !plain(b)).unwrap_or(rest.len());
            to.extend_from_slice(&rest[..run]);
            self.column += run;
            rest = &rest[run..];
            if let [byte, tail @ ..] = rest {
                self.write_special(*byte, modes, to);
                rest = tail;
            }
        }
    }

    fn write_special(&mut self, byte: u8, modes: Output, to: &mut Vec<u8>) {
        match byte {
            b'\n' => {
                if modes.contains(Output::ONLCR) {
                    to.push(b'\r');
                    self.column = 0;
                } else if modes.contains(Output::ONLRET) {
                    self.column = 0;
                }
                to.push(b'\n');
            }
            b'\r' if modes.contains(Output::ONOCR) && self.column == 0 => {}
            b'\r' => {
                to.push(if modes.contains(Output::OCRNL) {
                    b'\n'
                } else {
                    b'\r'
                });
                self.column = 0;
            }
            b'\t' => {
                let next = next_tab(self.column);
                if modes.contains(Output::XTABS) {
                    to.resize(to.len() + next - self.column, b' ');
                } else {
                    to.push(b'\t');
                }
                self.column = next;
            }
            b'\x08' => {
                self.column = self.column.saturating_sub(1);
                to.push(byte);
            }
            _ => {
                to.push(if modes.contains(Output::OLCUC) {
                    byte.to_ascii_uppercase()
                } else {
                    byte
                });
                if !is_control(byte) {
                    self.column += 1;
                }
            }
        }
    }
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn next_tab(column: usize) -> usize {
    (column / TAB_WIDTH + 1) * TAB_WIDTH
}

#[cfg(test)]
#[path = "discipline_tests.rs"]
mod tests;
