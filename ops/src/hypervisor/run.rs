//! A running machine in the foreground: QEMU as a child, its console joined to our standard input and output, signals turned
//! into a clean power-down, its end turned into an exit code.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::exit::Ending;
use super::qemu::{self, Settings};
use super::qmp::Qmp;
use super::terminal::Raw;
use crate::output::note;

/// The hidden command under which the tool starts QEMU (see [`exec_bound`]).
pub const EXEC_BOUND: &str = "__exec-bound";

/// How long a guest may take to power down before it is ended.
const GRACE: Duration = Duration::from_secs(30);
/// End of transmission: what Ctrl-D sends.
const EOT: u8 = 4;

/// What the threads of a run report.
enum Event {
    /// QEMU closed its standard output: it has ended.
    Closed,
    /// Our standard output can not be written to any more.
    OutputGone,
    /// A signal came.
    Signal(i32),
}

/// The folder for sockets and small files of one run, and the files in it.
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// Makes the folder, private to the user, in a place short enough for a socket's name.
    pub fn new() -> Result<Self> {
        let candidates = [
            env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            Some(env::temp_dir()),
            Some("/tmp".into()),
        ];
        for place in candidates.into_iter().flatten() {
            if place.as_os_str().len() < 80
                && let Ok(folder) = tempfile::Builder::new().prefix("ops-").tempdir_in(&place)
            {
                return Ok(Scratch { folder });
            }
        }
        bail!(
            "there is no place for temporary files: neither in $XDG_RUNTIME_DIR, $TMPDIR nor /tmp"
        )
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The path of a program in `$PATH`.
pub fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|p| p.is_file())
}

/// QEMU's path; where it is missing, says how to get it.
pub fn find_qemu() -> Result<PathBuf> {
    in_path(qemu::PROGRAM).with_context(|| {
        format!(
            "{} is not installed; on Debian and Ubuntu: sudo apt-get install qemu-system-x86",
            qemu::PROGRAM
        )
    })
}

/// Runs the machine to its end; returns the tool's exit code.
pub fn run(settings: &Settings) -> Result<u8> {
    let program = find_qemu()?;
    // Signals that arrive from here on wait until they are read.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    let mut child = start(&program, &qemu::arguments(settings))?;
    let (sender, events) = mpsc::channel();

    let stderr = child.stderr.take().map(|stderr| {
        thread::spawn(move || {
            let mut last = None;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = line.replacen("qemu-system-x86_64: ", "", 1);
                note(format!("qemu: {line}"));
                last = Some(line);
            }
            last
        })
    });
    let output = child.stdout.take().map(|stdout| {
        let sender = sender.clone();
        thread::spawn(move || forward_output(stdout, &sender))
    });
    let raw = Raw::enter();
    if let Some(stdin) = child.stdin.take() {
        // This one is left behind at the end: it waits in a read that nobody can interrupt.
        thread::spawn(move || forward_input(stdin));
    }
    let handle = signals.handle();
    let watcher = thread::spawn(move || {
        let mut signals = signals;
        for signal in signals.forever() {
            if sender.send(Event::Signal(signal)).is_err() {
                break;
            }
        }
    });

    let ended = wait(&mut child, &settings.qmp, &events);
    handle.close();
    let (status, stopped_by) = ended?;
    for thread in output.into_iter().chain([watcher]) {
        // A thread of ours that panicked has said so itself.
        let _ = thread.join();
    }
    let complaint = stderr.and_then(|t| t.join().ok().flatten());
    drop(raw);

    let said = Ending::read(&fs::read(&settings.exit).unwrap_or_default());
    match (said.code(), stopped_by) {
        (Some(code), _) => Ok(code),
        (None, Some(signal)) => Ok(128u8.saturating_add(signal as u8)),
        (None, None) => match complaint {
            Some(line) if !status.success() => bail!("QEMU failed: {line}"),
            _ if status.signal().is_some() => bail!("QEMU was ended by {status}"),
            _ => bail!("the machine stopped without saying how the program ended ({status})"),
        },
    }
}

/// Starts QEMU in a process group of its own, so that Ctrl-C reaches only us, and bound to our life.
fn start(program: &Path, arguments: &[OsString]) -> Result<Child> {
    let own = env::current_exe().context("cannot find the tool's own program")?;
    Command::new(own)
        .arg(EXEC_BOUND)
        .arg(std::process::id().to_string())
        .arg(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start QEMU")
}

/// Becomes another program that gets SIGTERM when the process `parent` ends: so no QEMU is left behind when the tool is
/// killed. `arguments` are the parent's id, the program and its arguments.
pub fn exec_bound(arguments: &[OsString]) -> Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let (parent, program, rest) = match arguments {
        [parent, program, rest @ ..] => (parent, program, rest),
        _ => bail!("{EXEC_BOUND} is for the tool itself"),
    };
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let alive = getppid().map(|p| p.as_raw_nonzero().to_string());
    if alive.as_deref() != parent.to_str() {
        bail!("the tool has ended already");
    }
    Err(Command::new(program).args(rest).exec()).context("cannot start QEMU")
}

/// Waits for QEMU's end, powering the guest down when a signal asks for it. Returns QEMU's status, and the signal where the
/// guest had to be stopped.
fn wait(
    child: &mut Child,
    qmp: &Path,
    events: &mpsc::Receiver<Event>,
) -> Result<(ExitStatus, Option<i32>)> {
    let mut asked: Option<(Instant, i32)> = None;
    let mut overdue = false;
    loop {
        let event = match asked {
            None => events.recv_timeout(Duration::from_secs(1)),
            Some(_) if overdue => events.recv_timeout(Duration::from_secs(1)),
            Some((since, _)) => {
                let left = GRACE.saturating_sub(since.elapsed());
                events.recv_timeout(left.min(Duration::from_secs(1)))
            }
        };
        match event {
            Ok(Event::Closed) => return Ok((child.wait()?, asked.map(|a| a.1))),
            Ok(Event::OutputGone) => stop(child, qmp),
            Ok(Event::Signal(signal)) => match asked {
                None => {
                    asked = Some((Instant::now(), signal));
                    let request = Qmp::connect(qmp).and_then(|mut q| q.execute("system_powerdown"));
                    match request {
                        Ok(_) if io::stderr().is_terminal() => {
                            note("powering down; Ctrl-C again stops the machine at once");
                        }
                        Ok(_) => {}
                        // Too early or too late for a request: there is nothing to lose.
                        Err(_) => stop(child, qmp),
                    }
                }
                Some(_) => stop(child, qmp),
            },
            Err(RecvTimeoutError::Timeout) => {
                if overdue {
                    // It was asked to quit and has not: it gets no second chance.
                    let _ = child.kill();
                } else if let Some((since, _)) = asked
                    && since.elapsed() >= GRACE
                {
                    overdue = true;
                    note("the program did not end in time; stopping the machine");
                    stop(child, qmp);
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Ok((child.wait()?, asked.map(|a| a.1)));
            }
        }
    }
}

/// Ends QEMU: by its protocol, so that it flushes the disk, else by force.
fn stop(child: &mut Child, qmp: &Path) {
    let asked = Qmp::connect(qmp).and_then(|mut q| q.execute("quit"));
    if asked.is_err() {
        // It may have ended by itself just now.
        let _ = child.kill();
    }
}

fn forward_output(mut from: impl Read, events: &Sender<Event>) {
    let mut buffer = [0; 16 << 10];
    let mut to = io::stdout();
    let mut gone = false;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !gone
            && to
                .write_all(&buffer[..length])
                .and_then(|()| to.flush())
                .is_err()
        {
            gone = true;
            // The main loop has ended when nobody listens.
            let _ = events.send(Event::OutputGone);
        }
    }
    let _ = events.send(Event::Closed);
}

/// Passes our input to the guest's console. The end of a file or pipe is what Ctrl-D is on a terminal.
fn forward_input(mut to: ChildStdin) {
    let mut buffer = [0; 4096];
    let mut last = b'\n';
    let mut from = io::stdin();
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                last = buffer[length - 1];
                if to.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let end: &[u8] = if last == b'\n' { &[EOT] } else { &[EOT, EOT] };
    // QEMU has ended when this fails. The pipe stays open: its closing would close the console.
    if to.write_all(end).is_ok() {
        std::mem::forget(to);
    }
}
