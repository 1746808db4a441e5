//! `ops top`: what a running machine does now, and which threads do it.

use std::collections::HashMap;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use console::{Key, Term};
use serde_json::Value;

use super::InstanceFlags;
use crate::cli::flags::GlobalFlags;
use crate::console::client::Client;
use crate::console::strace::printable;
use crate::output;

/// Shows CPUs, memory, network, system calls and threads live. Keys: q ends, c and t sort by CPU now or CPU time.
#[derive(Debug, Args)]
pub struct TopCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 2.0)]
    pub delay: f64,
    /// End after so many looks
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// Print one look after the other, as a log
    #[arg(short, long)]
    pub batch: bool,
}

/// All that is shown, at one time.
struct Look {
    at: Instant,
    cpu: Value,
    memory: Value,
    interfaces: Value,
    calls: Value,
    threads: Value,
    uptime: Value,
}

impl Look {
    fn take(client: &Client) -> Result<Look> {
        let node = |path: &str| client.get(&format!("/api/store{path}"));
        Ok(Look {
            at: Instant::now(),
            cpu: node("/cpu?depth=2")?,
            memory: node("/memory?depth=1")?,
            interfaces: node("/net/interfaces?depth=2")?,
            calls: node("/syscalls?depth=1")?,
            threads: node("/threads?depth=2")?,
            uptime: node("/time/uptime")?,
        })
    }
}

/// The number at a path below a branch.
fn number(branch: &Value, path: &[&str]) -> Option<f64> {
    let mut place = branch;
    for name in path {
        place = place.get("children")?.get(name)?;
    }
    place.get("value")?.as_f64()
}

fn words(branch: &Value, name: &str) -> String {
    let value = branch
        .get("children")
        .and_then(|c| c.get(name)?.get("value"));
    match value {
        Some(Value::String(text)) => printable(text),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn branches(branch: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let children = branch.get("children").and_then(Value::as_object);
    children
        .into_iter()
        .flatten()
        .filter(|(_, node)| node.get("children").is_some())
}

/// A thread's line.
struct Thread {
    id: u64,
    name: String,
    state: String,
    busy: f64,
    cpu_ns: f64,
    on: String,
    doing: String,
}

fn threads(now: &Look, before: Option<&Look>) -> Vec<Thread> {
    let earlier: HashMap<&String, f64> = before
        .into_iter()
        .flat_map(|look| branches(&look.threads))
        .filter_map(|(id, thread)| Some((id, number(thread, &["cpu_ns"])?)))
        .collect();
    let passed = before.map_or(f64::INFINITY, |b| {
        now.at.duration_since(b.at).as_nanos() as f64
    });
    branches(&now.threads)
        .filter_map(|(id, thread)| {
            let cpu_ns = number(thread, &["cpu_ns"]).unwrap_or(0.0);
            let earlier = earlier.get(id).copied().unwrap_or(cpu_ns);
            let (call, wait) = (words(thread, "syscall"), words(thread, "wait"));
            Some(Thread {
                id: id.parse().ok()?,
                name: words(thread, "name"),
                state: words(thread, "state"),
                busy: (cpu_ns - earlier).max(0.0) / passed,
                cpu_ns,
                on: words(thread, "cpu"),
                doing: if call.is_empty() { wait } else { call },
            })
        })
        .collect()
}

/// The lines of one look.
fn lines(
    client: &Client,
    now: &Look,
    before: Option<&Look>,
    by_time: bool,
    rows: usize,
) -> Vec<String> {
    let passed = before.map_or(f64::INFINITY, |b| now.at.duration_since(b.at).as_secs_f64());
    let rate = |value: Option<f64>, earlier: Option<f64>| match (value, earlier) {
        (Some(value), Some(earlier)) => (value - earlier).max(0.0) / passed,
        _ => 0.0,
    };
    let uptime = now
        .uptime
        .get("value")
        .and_then(Value::as_f64)
        .unwrap_or(0.0)
        / 1e9;
    let mut out = vec![format!("{}  up {}", client.name(), clock(uptime))];
    let mut cpus: Vec<(u64, String)> = branches(&now.cpu)
        .filter_map(|(name, cpu)| {
            let idle = number(cpu, &["idle_ns"])?;
            let earlier = before.and_then(|b| number(&b.cpu, &[name, "idle_ns"]));
            let busy = earlier.map(|e| (1.0 - (idle - e) / 1e9 / passed).clamp(0.0, 1.0));
            let text = busy.map_or("-".to_string(), |b| format!("{:.1} %", b * 100.0));
            Some((name.parse().ok()?, format!("cpu{name} {text}")))
        })
        .collect();
    cpus.sort();
    out.push(
        cpus.into_iter()
            .map(|c| c.1)
            .collect::<Vec<_>>()
            .join("   "),
    );
    let bytes = |name: &str| output::size(number(&now.memory, &[name]).unwrap_or(0.0) as u64);
    out.push(format!(
        "memory {} of {} free, program {}, page cache {}, kernel heap {}",
        bytes("free"),
        bytes("total"),
        bytes("program"),
        bytes("page_cache"),
        bytes("kernel_heap")
    ));
    for (name, interface) in branches(&now.interfaces).filter(|(name, _)| *name != "lo") {
        let per_second = |key: &str| {
            let earlier = before.and_then(|b| number(&b.interfaces, &[name, key]));
            output::size(rate(number(interface, &[key]), earlier) as u64)
        };
        out.push(format!(
            "{name} in {}/s, out {}/s",
            per_second("rx_bytes"),
            per_second("tx_bytes")
        ));
    }
    let calls = |look: &Look| number(&look.calls, &["total"]);
    out.push(format!(
        "{:.0} system calls/s",
        rate(calls(now), before.and_then(calls))
    ));
    out.push(String::new());
    out.push(format!(
        "{:>6} {:<16} {:<10} {:>7} {:>10} {:>3} {}",
        "THREAD", "NAME", "STATE", "CPU", "TIME", "ON", "DOES"
    ));
    let mut list = threads(now, before);
    list.sort_by(|a, b| {
        let (x, y) = if by_time {
            (a.cpu_ns, b.cpu_ns)
        } else {
            (a.busy, b.busy)
        };
        y.total_cmp(&x)
            .then(b.cpu_ns.total_cmp(&a.cpu_ns))
            .then(a.id.cmp(&b.id))
    });
    let left = rows.saturating_sub(out.len());
    out.extend(list.into_iter().take(left).map(|t| {
        format!(
            "{:>6} {:<16} {:<10} {:>5.1} % {:>8.2} s {:>3} {}",
            t.id,
            t.name,
            t.state,
            t.busy * 100.0,
            t.cpu_ns / 1e9,
            t.on,
            t.doing
        )
    }));
    out
}

fn clock(seconds: f64) -> String {
    let s = seconds as u64;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

impl TopCommand {
    pub fn execute(self, _global: &GlobalFlags) -> Result<()> {
        let client = self.instance.client()?;
        let delay = Duration::from_secs_f64(self.delay.clamp(0.1, 3600.0));
        let live = !self.batch && stdout().is_terminal() && stdin().is_terminal();
        let mut before = Look::take(&client)?;
        if !live {
            let mut seen = 0;
            loop {
                thread::sleep(delay);
                let now = Look::take(&client)?;
                for line in lines(&client, &now, Some(&before), false, usize::MAX) {
                    output::line(line)?;
                }
                before = now;
                seen += 1;
                // Not on a terminal it is for a script: one look unless more are asked for.
                if seen >= self.count.unwrap_or(if self.batch { u64::MAX } else { 1 }) {
                    return Ok(());
                }
                output::line("")?;
            }
        }
        let screen = Screen::open()?;
        let mut by_time = false;
        let mut first = true;
        let mut seen = 0;
        loop {
            // The first look has no earlier one to be compared with: it is soon replaced.
            let wait = if first {
                delay.min(Duration::from_millis(500))
            } else {
                delay
            };
            let (height, width) = screen.term.size();
            let shown = |now: &Look, earlier: Option<&Look>, by_time| {
                screen.show(
                    lines(&client, now, earlier, by_time, usize::from(height)),
                    usize::from(width),
                )
            };
            if first {
                shown(&before, None, by_time)?;
            }
            let end = Instant::now() + wait;
            loop {
                match screen
                    .keys
                    .recv_timeout(end.saturating_duration_since(Instant::now()))
                {
                    Ok(Key::Char('q') | Key::Escape | Key::CtrlC) => return Ok(()),
                    Ok(Key::Char('t')) => by_time = true,
                    Ok(Key::Char('c')) => by_time = false,
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
            let now = Look::take(&client)?;
            shown(&now, Some(&before), by_time)?;
            before = now;
            first = false;
            seen += 1;
            if self.count.is_some_and(|count| seen >= count) {
                return Ok(());
            }
        }
    }
}

/// The terminal's other screen, left again at the end.
struct Screen {
    term: Term,
    keys: Receiver<Key>,
}

impl Screen {
    fn open() -> Result<Screen> {
        let term = Term::stdout();
        let (send, keys) = channel();
        let reader = term.clone();
        // Left behind at the end: it waits for a key.
        thread::spawn(move || {
            while let Ok(key) = reader.read_key_raw() {
                if send.send(key).is_err() {
                    return;
                }
            }
        });
        // Alternate screen (xterm's 1049).
        write!(&term, "\x1b[?1049h")?;
        term.hide_cursor()?;
        Ok(Screen { term, keys })
    }

    fn show(&self, lines: Vec<String>, width: usize) -> Result<()> {
        let mut text = String::from("\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            let cut = console::truncate_str(line, width, "");
            let cut = if n == 0 || line.starts_with("THREAD") {
                format!("\x1b[1m{cut}\x1b[0m")
            } else {
                cut.into_owned()
            };
            text.push_str(&cut);
            text.push_str("\x1b[K");
            if n + 1 < lines.len() {
                text.push_str("\r\n");
            }
        }
        text.push_str("\x1b[J");
        (&self.term).write_all(text.as_bytes())?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone: nobody is left to see it.
        let _ = write!(&self.term, "\x1b[?1049l");
        let _ = self.term.show_cursor();
    }
}
