//! `ioctl_tty(2)` for both kinds of terminal.

use errno::{Errno, Result};

use super::terminal::{Output, Terminal};
use super::termios::{Termios, Termios2, WinSize};
use crate::files::put_int;
use crate::process::PID;
use crate::uaccess::UserPtr;

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TCGETA: u32 = 0x5405;
const TCSETA: u32 = 0x5406;
const TCSETAW: u32 = 0x5407;
const TCSETAF: u32 = 0x5408;
const TCSBRK: u32 = 0x5409;
const TCXONC: u32 = 0x540a;
const TCFLSH: u32 = 0x540b;
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCOUTQ: u32 = 0x5411;
const TIOCSTI: u32 = 0x5412;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const FIONREAD: u32 = 0x541b;
const TIOCNOTTY: u32 = 0x5422;
const TIOCSETD: u32 = 0x5423;
const TIOCGETD: u32 = 0x5424;
const TCSBRKP: u32 = 0x5425;
const TIOCSBRK: u32 = 0x5427;
const TIOCCBRK: u32 = 0x5428;
const TIOCGSID: u32 = 0x5429;
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSW2: u32 = 0x402c_542c;
const TCSETSF2: u32 = 0x402c_542d;
const TIOCGEXCL: u32 = 0x8004_5440;
const TIOCGDEV: u32 = 0x8004_5432;

/// `struct termio` of System V: the low halves of the flags and eight control characters.
const TERMIO_CC: usize = 8;

/// Does what all terminals do.
///
/// # Errors
/// `ENOTTY` for a request that is not theirs, `EFAULT`, `EINVAL`, `EPERM`.
pub fn terminal(tty: &Terminal, output: &dyn Output, request: u32, arg: usize) -> Result<usize> {
    match request {
        TCGETS => UserPtr::<Termios>::new(arg).write(&tty.termios())?,
        TCSETS | TCSETSW | TCSETSF => {
            let new = UserPtr::<Termios>::new(arg).read()?;
            set(tty, new, request == TCSETSF);
        }
        TCGETS2 => UserPtr::<Termios2>::new(arg).write(&tty.termios().with_speeds())?,
        TCSETS2 | TCSETSW2 | TCSETSF2 => {
            let new = UserPtr::<Termios2>::new(arg).read()?;
            set(tty, new.base, request == TCSETSF2);
        }
        TCGETA => get_termio(tty, arg)?,
        TCSETA | TCSETAW | TCSETAF => set_termio(tty, arg, request == TCSETAF)?,
        // Output is never held back by a line: a break and a drain are over at once.
        TCSBRK | TCSBRKP | TIOCSBRK | TIOCCBRK => {}
        TCXONC => match arg {
            0 => tty.stop_output(true),
            1 => tty.stop_output(false),
            // TCIOFF and TCION: nobody types into a unikernel faster than it reads.
            2 | 3 => {}
            _ => return Err(Errno::EINVAL),
        },
        TCFLSH => match arg {
            0 => tty.flush_input(),
            1 => output.discard(),
            2 => {
                tty.flush_input();
                output.discard();
            }
            _ => return Err(Errno::EINVAL),
        },
        TIOCEXCL => tty.set_exclusive(true),
        TIOCNXCL => tty.set_exclusive(false),
        TIOCGEXCL => put_int(arg, i32::from(tty.is_exclusive())).map(drop)?,
        // One session, one process group, one terminal of its own.
        TIOCSCTTY | TIOCNOTTY => {}
        TIOCGPGRP | TIOCGSID => put_int(arg, PID).map(drop)?,
        TIOCSPGRP => match UserPtr::<i32>::new(arg).read()? {
            PID => {}
            group if group < 0 => return Err(Errno::EINVAL),
            _ => return Err(Errno::ESRCH),
        },
        TIOCOUTQ => put_int(arg, output.pending() as i32).map(drop)?,
        FIONREAD => put_int(arg, tty.readable() as i32).map(drop)?,
        TIOCSTI => return Err(Errno::EIO),
        TIOCGWINSZ => UserPtr::<WinSize>::new(arg).write(&tty.window())?,
        TIOCSWINSZ => tty.set_window(UserPtr::<WinSize>::new(arg).read()?),
        TIOCGETD => put_int(arg, 0).map(drop)?,
        TIOCSETD => match UserPtr::<i32>::new(arg).read()? {
            0 => {}
            _ => return Err(Errno::EINVAL),
        },
        TIOCGDEV => put_int(arg, 0x501).map(drop)?,
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

fn set(tty: &Terminal, new: Termios, flush: bool) {
    if flush {
        tty.flush_input();
    }
    tty.set_termios(new);
}

fn get_termio(tty: &Terminal, arg: usize) -> Result<()> {
    let termios = tty.termios();
    let mut bytes = [0u8; 18];
    let flags = [
        termios.c_iflag,
        termios.c_oflag,
        termios.c_cflag,
        termios.c_lflag,
    ];
    for (to, flag) in bytes.chunks_exact_mut(2).zip(flags) {
        to.copy_from_slice(&(flag as u16).to_ne_bytes());
    }
    bytes[9..17].copy_from_slice(&termios.c_cc[..TERMIO_CC]);
    UserPtr::<u8>::new(arg).write_bytes(&bytes)
}

fn set_termio(tty: &Terminal, arg: usize, flush: bool) -> Result<()> {
    let mut bytes = [0u8; 18];
    UserPtr::<u8>::new(arg).read_bytes(&mut bytes)?;
    let mut new = tty.termios();
    let low = |at: usize| u32::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
    for (flag, at) in [
        (&mut new.c_iflag, 0),
        (&mut new.c_oflag, 2),
        (&mut new.c_cflag, 4),
        (&mut new.c_lflag, 6),
    ] {
        *flag = *flag & 0xffff_0000 | low(at);
    }
    new.c_cc[..TERMIO_CC].copy_from_slice(&bytes[9..17]);
    set(tty, new, flush);
    Ok(())
}
