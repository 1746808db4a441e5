//! The harness of the end-to-end tests: the tool as a user runs it, with a home of its own.
//!
//! The tool is `$OPS`, or `target/release/ops` of this checkout. Every wait has a bound, and what a test
//! starts ends with it.
#![forbid(unsafe_code)]

pub mod attack;
pub mod browser;
pub mod console;
pub mod programs;

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest that one run of a machine may take under emulation on a busy host.
pub const RUN_LIMIT: Duration = Duration::from_secs(120);

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// Where cargo puts what it builds, and these tests what they compile.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The tool itself.
pub fn tool() -> PathBuf {
    std::env::var_os("OPS").map_or_else(|| target_dir().join("release/ops"), PathBuf::from)
}

/// The tool with a home and a working folder of its own.
#[derive(Debug)]
pub struct Ops {
    home: Arc<TempDir>,
    folder: Arc<TempDir>,
    /// Where programs are looked for, if not as usual.
    path: Option<std::ffi::OsString>,
}

/// How a finished run ended.
#[derive(Debug)]
pub struct Output {
    /// How the tool itself ended.
    pub status: ExitStatus,
    /// Standard output: the program's console.
    pub stdout: String,
    /// Standard error: the tool's notes.
    pub stderr: String,
}

impl Output {
    /// The exit code, or -1 when a signal ended the tool.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

impl Ops {
    /// A fresh home without packages or images.
    pub fn new() -> Result<Ops> {
        Ok(Ops {
            home: Arc::new(tempfile::tempdir()?),
            folder: Arc::new(tempfile::tempdir()?),
            path: None,
        })
    }

    /// One whose machines run on QEMU's counted time: an instruction takes a nanosecond times two to the power of `shift`. What they do is
    /// measured in their own time then, however busy the host is. Run with `--accel=false`.
    pub fn counted(shift: u32) -> Result<Ops> {
        let mut ops = Ops::new()?;
        let path = std::env::var_os("PATH").context("a PATH")?;
        let qemu = "qemu-system-x86_64";
        // In front of QEMU's own folder. It counts on one thread only.
        let script = format!(
            "#!/bin/bash\nPATH=${{PATH#*:}}\nexec {qemu} \"${{@/thread=multi/thread=single}}\" -icount shift={shift}\n"
        );
        let wrapper = ops.home.path().join(qemu);
        std::fs::write(&wrapper, script)?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
        let own = std::iter::once(ops.home.path().to_owned());
        ops.path = Some(std::env::join_paths(
            own.chain(std::env::split_paths(&path)),
        )?);
        Ok(ops)
    }

    /// A fresh home that shares the packages already built by earlier tests of this checkout.
    pub fn with_shared_packages() -> Result<Ops> {
        let ops = Ops::new()?;
        let shared = target_dir().join("e2e/packages");
        std::fs::create_dir_all(&shared)?;
        let tree = ops.home.path().join(".ops");
        std::fs::create_dir_all(&tree)?;
        std::os::unix::fs::symlink(&shared, tree.join("packages"))?;
        Ok(ops)
    }

    /// The `~/.ops` tree.
    pub fn tree(&self) -> PathBuf {
        self.home.path().join(".ops")
    }

    /// The folder in which the tool runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the working folder.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.folder().join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    /// What `OPS_HOME` is to be.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tool());
        command
            .args(arguments)
            .current_dir(self.folder())
            .env("OPS_HOME", self.home.path())
            .env("HOME", self.home.path())
            .env_remove("OPS_DEFAULT_CONFIG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command
    }

    /// Runs the tool to its end with `input` as its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let mut running = self.start(arguments)?;
        running.input(input)?;
        running.close_input();
        running.wait(RUN_LIMIT)
    }

    /// Runs the tool to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_with_input(arguments, b"")
    }

    /// Starts the tool and goes on.
    pub fn start(&self, arguments: &[&str]) -> Result<Running> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .context("the tool does not start: `cargo xtask build` makes it")?;
        let stdout = collect(child.stdout.take().context("standard output is piped")?);
        let stderr = collect(child.stderr.take().context("standard error is piped")?);
        Ok(Running {
            child,
            stdout,
            stderr,
            seen: String::new(),
            ended: false,
            _folders: [self.home.clone(), self.folder.clone()],
        })
    }
}

/// Reads lines in a thread, so that waiting for one can be bounded.
fn collect(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
            if send
                .send(String::from_utf8_lossy(&bytes).into_owned())
                .is_err()
            {
                return;
            }
            bytes.clear();
        }
    });
    receive
}

/// A machine that runs; ends with this value.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    seen: String,
    ended: bool,
    /// They stay for as long as it runs.
    _folders: [Arc<TempDir>; 2],
}

impl Running {
    /// Types `bytes` on the machine's console.
    pub fn input(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self
            .child
            .stdin
            .as_mut()
            .context("standard input is open")?;
        // A tool that has ended by now has said why; its output tells more than a broken pipe.
        let _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
        Ok(())
    }

    /// Ends the machine's standard input.
    pub fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// Waits for a line of output that contains `text`.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(line) => {
                    self.seen += &line;
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(_) => {
                    let notes: String = self.stderr.try_iter().collect();
                    bail!("no {text:?} in time; seen: {}\nnotes: {notes}", self.seen);
                }
            }
        }
    }

    /// Sends the tool a signal by name, as `kill -INT` does.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()?;
        if !status.success() {
            bail!("kill -{name} failed");
        }
        Ok(())
    }

    /// Waits for the end, and kills the tool when it takes longer than `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<Output> {
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                self.stop();
                let seen: String = self.stdout.try_iter().collect();
                let notes: String = self.stderr.try_iter().collect();
                bail!(
                    "still running after {limit:?}; seen: {}{seen}\nnotes: {notes}",
                    self.seen
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.ended = true;
        let mut stdout = std::mem::take(&mut self.seen);
        stdout.extend(self.stdout.iter());
        Ok(Output {
            status,
            stdout,
            stderr: self.stderr.iter().collect(),
        })
    }

    /// Ends the tool the polite way first, since it ends its machine, then by force.
    fn stop(&mut self) {
        self.ended = true;
        let _ = self.signal("TERM");
        let _ = self.signal("TERM");
        for _ in 0..200 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.stop();
        }
    }
}

/// A port of 127.0.0.1 that nothing listens on now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Asks `GET /` of 127.0.0.1 until an answer comes, and returns status line and body.
pub fn http_get(port: u16, limit: Duration) -> Result<(String, String)> {
    let end = Instant::now() + limit;
    loop {
        // A connection that arrives before the guest listens is only tried again seconds later by QEMU's network.
        match http_fetch(port, "/", Duration::from_secs(2)) {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > end => return Err(error.context("no answer in time")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Asks 127.0.0.1 for `path`, once, and returns status line and body. `limit` bounds each wait for more of it.
pub fn http_fetch(port: u16, path: &str, limit: Duration) -> Result<(String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: nanos\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer has a head")?;
    Ok((
        head.lines().next().unwrap_or_default().to_owned(),
        body.to_owned(),
    ))
}
