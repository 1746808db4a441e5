//! `struct termios`, `struct termios2` and `struct winsize` as `ioctl_tty(2)` moves them, with the
//! flags the line discipline acts on. What the flags do is in `discipline`.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags! {
    /// Input modes (`c_iflag`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Input: u32 {
        /// A break condition is ignored.
        const IGNBRK = 0o1;
        /// A break condition raises `SIGINT`.
        const BRKINT = 0o2;
        /// Bytes with parity errors are dropped.
        const IGNPAR = 0o4;
        /// Bytes with parity errors are marked.
        const PARMRK = 0o10;
        /// Parity is checked.
        const INPCK = 0o20;
        /// The eighth bit is cleared.
        const ISTRIP = 0o40;
        /// NL becomes CR.
        const INLCR = 0o100;
        /// CR is dropped.
        const IGNCR = 0o200;
        /// CR becomes NL.
        const ICRNL = 0o400;
        /// Upper case becomes lower case.
        const IUCLC = 0o1000;
        /// Output stops and starts on ^S and ^Q.
        const IXON = 0o2000;
        /// Any byte restarts stopped output.
        const IXANY = 0o4000;
        /// The sender is throttled with ^S and ^Q.
        const IXOFF = 0o10000;
        /// A full input line rings the bell.
        const IMAXBEL = 0o20000;
        /// Input is UTF-8: erasing takes whole characters.
        const IUTF8 = 0o40000;
        /// Keep what we do not know, as Linux does.
        const _ = !0;
    }
}

bitflags! {
    /// Output modes (`c_oflag`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Output: u32 {
        /// Output is processed at all.
        const OPOST = 0o1;
        /// Lower case becomes upper case.
        const OLCUC = 0o2;
        /// NL becomes CR NL.
        const ONLCR = 0o4;
        /// CR becomes NL.
        const OCRNL = 0o10;
        /// No CR is sent in column 0.
        const ONOCR = 0o20;
        /// NL does the work of CR.
        const ONLRET = 0o40;
        /// Tabs become spaces (`TAB3`).
        const XTABS = 0o14000;
        /// Keep what we do not know, as Linux does.
        const _ = !0;
    }
}

bitflags! {
    /// Local modes (`c_lflag`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Local: u32 {
        /// INTR, QUIT and SUSP raise signals.
        const ISIG = 0o1;
        /// Input is edited and delivered in lines.
        const ICANON = 0o2;
        /// Input is echoed.
        const ECHO = 0o10;
        /// ERASE wipes the character from the screen.
        const ECHOE = 0o20;
        /// KILL puts a newline.
        const ECHOK = 0o40;
        /// NL is echoed even without `ECHO`.
        const ECHONL = 0o100;
        /// Signals do not discard what was typed.
        const NOFLSH = 0o200;
        /// Background output raises `SIGTTOU`.
        const TOSTOP = 0o400;
        /// Control characters are echoed as ^X.
        const ECHOCTL = 0o1000;
        /// Erased characters are printed (for hardcopy).
        const ECHOPRT = 0o2000;
        /// KILL wipes the line from the screen.
        const ECHOKE = 0o4000;
        /// Extended functions: WERASE, LNEXT, REPRINT.
        const IEXTEN = 0o100000;
        /// Keep what we do not know, as Linux does.
        const _ = !0;
    }
}

/// Indices into `c_cc`.
pub mod cc {
    /// Raises `SIGINT`.
    pub const VINTR: usize = 0;
    /// Raises `SIGQUIT`.
    pub const VQUIT: usize = 1;
    /// Erases a character.
    pub const VERASE: usize = 2;
    /// Erases the line.
    pub const VKILL: usize = 3;
    /// Ends the input.
    pub const VEOF: usize = 4;
    /// Tenths of a second a raw read waits.
    pub const VTIME: usize = 5;
    /// How many bytes a raw read waits for.
    pub const VMIN: usize = 6;
    /// Restarts output.
    pub const VSTART: usize = 8;
    /// Stops output.
    pub const VSTOP: usize = 9;
    /// Raises `SIGTSTP`.
    pub const VSUSP: usize = 10;
    /// A further end of line.
    pub const VEOL: usize = 11;
    /// Prints the line again.
    pub const VREPRINT: usize = 12;
    /// Erases a word.
    pub const VWERASE: usize = 14;
    /// Takes the next byte literally.
    pub const VLNEXT: usize = 15;
    /// Another end of line.
    pub const VEOL2: usize = 16;
}

/// `struct termios` of the kernel's ABI (`TCGETS`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Termios {
    /// Input modes.
    pub c_iflag: u32,
    /// Output modes.
    pub c_oflag: u32,
    /// Control modes.
    pub c_cflag: u32,
    /// Local modes.
    pub c_lflag: u32,
    /// Line discipline; only `N_TTY` (0) exists here.
    pub c_line: u8,
    /// Control characters, by the indices in [`cc`].
    pub c_cc: [u8; 19],
}

/// `struct termios2` (`TCGETS2`): with the speeds as numbers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Termios2 {
    /// The first part.
    pub base: Termios,
    /// Input speed, bits a second.
    pub c_ispeed: u32,
    /// Output speed, bits a second.
    pub c_ospeed: u32,
}

/// `struct winsize` (`TIOCGWINSZ`).
#[repr(C)]
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct WinSize {
    /// Rows of characters.
    pub ws_row: u16,
    /// Columns of characters.
    pub ws_col: u16,
    /// Width in pixels.
    pub ws_xpixel: u16,
    /// Height in pixels.
    pub ws_ypixel: u16,
}

/// `B38400 | CS8 | CREAD | HUPCL`: Linux's `tty_std_termios`.
const STANDARD_CFLAG: u32 = 0o17 | 0o60 | 0o200 | 0o2000;

impl Default for Termios {
    /// Linux's `tty_std_termios`.
    fn default() -> Self {
        let mut c_cc = [0; 19];
        for (index, value) in [
            (cc::VINTR, 0x03),
            (cc::VQUIT, 0x1c),
            (cc::VERASE, 0x7f),
            (cc::VKILL, 0x15),
            (cc::VEOF, 0x04),
            (cc::VMIN, 1),
            (cc::VSTART, 0x11),
            (cc::VSTOP, 0x13),
            (cc::VSUSP, 0x1a),
            (cc::VREPRINT, 0x12),
            (13, 0x0f),
            (cc::VWERASE, 0x17),
            (cc::VLNEXT, 0x16),
        ] {
            c_cc[index] = value;
        }
        Termios {
            c_iflag: (Input::ICRNL | Input::IXON).bits(),
            c_oflag: (Output::OPOST | Output::ONLCR).bits(),
            c_cflag: STANDARD_CFLAG,
            c_lflag: (Local::ISIG
                | Local::ICANON
                | Local::ECHO
                | Local::ECHOE
                | Local::ECHOK
                | Local::ECHOCTL
                | Local::ECHOKE
                | Local::IEXTEN)
                .bits(),
            c_line: 0,
            c_cc,
        }
    }
}

impl Termios {
    /// The input modes.
    pub fn input(&self) -> Input {
        Input::from_bits_retain(self.c_iflag)
    }

    /// The output modes.
    pub fn output(&self) -> Output {
        Output::from_bits_retain(self.c_oflag)
    }

    /// The local modes.
    pub fn local(&self) -> Local {
        Local::from_bits_retain(self.c_lflag)
    }

    /// Whether `byte` is the control character at `index`; 0 disables one (`_POSIX_VDISABLE`).
    pub fn is_cc(&self, index: usize, byte: u8) -> bool {
        byte != 0 && self.c_cc.get(index) == Some(&byte)
    }

    /// With the speeds as `TCGETS2` shows them. `BOTHER` (custom speeds) reads as 38400.
    pub fn with_speeds(self) -> Termios2 {
        Termios2 {
            base: self,
            c_ispeed: 38400,
            c_ospeed: 38400,
        }
    }
}
