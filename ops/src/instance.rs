//! The machines that run on this host: a private record of each in `~/.ops/instances`, for as long as it lives.
//!
//! The file is named by the process that runs the machine, as the existing tool has it, and has that tool's field names with
//! `console` and `started` added. It holds the console's token, so only its owner may read it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::home::{Home, make_dir};

/// How to reach a machine's console.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Console {
    /// The port of 127.0.0.1.
    pub port: u16,
    /// What opens it.
    pub token: String,
}

impl Console {
    /// The link that logs a browser in.
    pub fn link(&self) -> String {
        format!("http://127.0.0.1:{}/login?token={}", self.port, self.token)
    }
}

/// What is known of a running machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its name: the image's, with a number behind it where that is taken.
    pub instance: String,
    /// The name of the image.
    pub image: String,
    /// The forwarded ports, as they were given.
    pub ports: Vec<String>,
    /// The process of the tool that runs it.
    pub pid: u32,
    /// When that process began, in clock ticks since the host's boot: a process id alone may be another's by now.
    pub ticks: u64,
    /// When it was started, in seconds since 1970.
    pub started: u64,
    /// The architecture.
    pub arch: String,
    /// The console.
    pub console: Console,
}

/// A record that vanishes with this value.
#[derive(Debug)]
pub struct Registered {
    path: PathBuf,
    /// The name the machine got.
    pub name: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // A record that stays is recognised as dead by its process.
        let _ = fs::remove_file(&self.path);
    }
}

/// Leaves a record of the machine that this process runs.
pub fn register(
    home: &Home,
    image: &str,
    ports: Vec<String>,
    console: Console,
) -> Result<Registered> {
    let folder = home.instances();
    make_dir(&folder)?;
    let taken: Vec<String> = living(home)?.into_iter().map(|r| r.instance).collect();
    let name = (1..)
        .map(|n| match n {
            1 => image.to_string(),
            n => format!("{image}-{n}"),
        })
        .find(|name| !taken.contains(name))
        .unwrap_or_default();
    let pid = std::process::id();
    let record = Record {
        instance: name.clone(),
        image: image.to_string(),
        ports,
        pid,
        ticks: began(pid).context("cannot read /proc/self/stat")?,
        started: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        arch: crate::home::ARCH.to_string(),
        console,
    };
    let path = folder.join(pid.to_string());
    let context = || format!("cannot write {}", path.display());
    // A dead process of the same id may have left one.
    let _ = fs::remove_file(&path);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(&serde_json::to_vec(&record)?))
        .with_context(context)?;
    Ok(Registered { path, name })
}

/// The machines that run, newest first. Records of dead ones are removed.
pub fn living(home: &Home) -> Result<Vec<Record>> {
    let folder = home.instances();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut out: Vec<Record> = entries
        .flatten()
        .filter_map(|entry| read_living(&entry.path()))
        .collect();
    out.sort_by_key(|r| std::cmp::Reverse((r.started, r.ticks)));
    Ok(out)
}

fn read_living(path: &Path) -> Option<Record> {
    let pid: u32 = path.file_name()?.to_str()?.parse().ok()?;
    let text = fs::read(path).ok()?;
    match (serde_json::from_slice::<Record>(&text), began(pid)) {
        (Ok(record), Some(ticks)) if record.ticks == ticks => Some(record),
        // Half written just now: it is another's to finish.
        (Err(_), Some(_)) => None,
        _ => {
            let _ = fs::remove_file(path);
            None
        }
    }
}

/// When a process began, in clock ticks since boot (`proc_pid_stat(5)`, field 22); `None` when there is none.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have spaces.
    let rest = &stat[stat.rfind(')')? + 1..];
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The running machine of that name, or the newest.
pub fn find(home: &Home, name: Option<&str>) -> Result<Record> {
    let all = living(home)?;
    match name {
        None => match all.into_iter().next() {
            Some(record) => Ok(record),
            None => bail!(
                "no machine with a console runs: start one with `ops run --console` or `ops pkg load --console`"
            ),
        },
        Some(name) => {
            let names: Vec<String> = all.iter().map(|r| r.instance.clone()).collect();
            all.into_iter()
                .find(|r| r.instance == name || r.pid.to_string() == name)
                .with_context(|| match names.is_empty() {
                    true => format!("no machine `{name}` with a console runs, nor any other"),
                    false => format!(
                        "no machine `{name}` with a console runs; there are: {}",
                        names.join(", ")
                    ),
                })
        }
    }
}
