//! How many requests a program answers that wants the whole CPU, while its console is watched and attacked. On QEMU's counted
//! time the figures are the machine's own: what the host does besides, the attackers' part of it too, does not change them.
#![forbid(unsafe_code)]

#[path = "../../../kernel/console/tests/common/client.rs"]
#[allow(dead_code, reason = "the console's own tests use more of it")]
mod client;

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use client::Client;
use e2e::attack::{HOLDERS, Horde, Kind, STRANGERS};
use e2e::{Ops, RUN_LIMIT, Running, free_port, programs};
use serde_json::Value;

/// Half a nanosecond would be a fast machine's; the longer an instruction takes, the more of the machine's time an attack hits.
const SHIFT: u32 = 1;
/// Requests that wait at any time.
const CONNECTIONS: usize = 8;
const ATTACKERS: usize = 1000;
/// Of the machine's time, in seconds: for an attack to begin, and to count answers in.
const SETTLING: f64 = 1.0;
const WINDOW: f64 = 4.0;
/// Of the host's time.
const LIMIT: Duration = Duration::from_secs(180);
/// The part of its rate that a program keeps.
const LEAST_KEPT: f64 = 0.95;
/// The part of the CPU that may idle where it is said to be busy.
const MOST_IDLE: f64 = 0.02;
/// How long the owner may wait for what is due each second, in milliseconds of the machine's time.
const LONGEST_WAIT_MS: u64 = 10_000;

/// What was counted in some seconds of the machine's time.
#[derive(Debug)]
struct Window {
    /// Answers a second.
    rate: f64,
    /// The part in which the CPU idled.
    idle: f64,
}

/// Asks the program, which has no token, and does not wait.
fn ask(client: &mut Client, path: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: nanos\r\n\r\n"));
}

/// A machine with one CPU whose program has more requests than it can answer.
struct Machine {
    _running: Running,
    load: Load,
}

/// Who asks it.
struct Load {
    port: u16,
    answers: AtomicU64,
    stop: AtomicBool,
}

impl Machine {
    fn start(ops: &Ops, flags: &[&str]) -> Result<Machine> {
        let program = programs::c("web", &["-static"])?;
        let program = program.to_str().context("a path in UTF-8")?;
        let port = free_port()?;
        let forward = format!("{port}-8000");
        let all = [&["run", "--accel=false", "-p", &forward], flags, &[program]];
        let mut running = ops.start(&all.concat())?;
        running.wait_for("serving", RUN_LIMIT)?;
        Ok(Machine {
            _running: running,
            load: Load {
                port,
                answers: AtomicU64::new(0),
                stop: AtomicBool::new(false),
            },
        })
    }
}

impl Load {
    fn client(&self) -> Client {
        Client::new((Ipv4Addr::LOCALHOST, self.port).into(), "")
    }

    /// Asks without end: each connection has a request that waits while the others' are answered.
    fn run(&self) -> Result<()> {
        let mut askers: Vec<Client> = (0..CONNECTIONS).map(|_| self.client()).collect();
        for asker in &mut askers {
            ask(asker, "/work");
        }
        while !self.stop.load(Ordering::Relaxed) {
            for asker in &mut askers {
                let reply = asker.reply().context("the program hung up")?;
                ensure!(reply.body == b"Hello\n", "{reply:?}");
                self.answers.fetch_add(1, Ordering::Relaxed);
                ask(asker, "/work");
            }
        }
        Ok(())
    }

    /// Runs `measure` while the program is loaded.
    fn during<T>(&self, measure: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
        std::thread::scope(|scope| {
            let load = scope.spawn(|| self.run());
            let measured = caught(|| measure(&mut self.client()));
            self.stop.store(true, Ordering::Relaxed);
            joined(load)?;
            measured
        })
    }

    /// Answers in a second of the machine's time, once it has no time to idle.
    fn rate(&self, clock: &mut Client) -> Result<f64> {
        self.window(clock, SETTLING)?;
        let limit = Instant::now() + LIMIT;
        while self.window(clock, SETTLING)?.idle > MOST_IDLE {
            ensure!(Instant::now() < limit, "the program has too little to do");
        }
        let window = self.window(clock, WINDOW)?;
        ensure!(window.idle <= MOST_IDLE, "{window:?}");
        Ok(window.rate)
    }

    /// What happens in as many seconds of the machine's time.
    fn window(&self, clock: &mut Client, seconds: f64) -> Result<Window> {
        let mut now = || -> Result<(f64, f64)> {
            ask(clock, "/proc/uptime");
            let reply = clock.reply().context("the program hung up")?;
            let (up, idle) = reply.text().trim().split_once(' ').context("two numbers")?;
            Ok((up.parse()?, idle.parse()?))
        };
        let limit = Instant::now() + LIMIT;
        let (begin, idle_before) = now()?;
        let before = self.answers.load(Ordering::Relaxed);
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let (end, idle) = now()?;
            let passed = end - begin;
            if passed >= seconds {
                let count = self.answers.load(Ordering::Relaxed) - before;
                return Ok(Window {
                    rate: count as f64 / passed,
                    idle: (idle - idle_before) / passed,
                });
            }
            ensure!(
                Instant::now() < limit,
                "the machine hardly runs: {passed} s"
            );
        }
    }
}

/// What `measure` gives, or that it failed, so that what runs beside it can be ended.
fn caught<T>(measure: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(measure)).unwrap_or_else(|_| Err(anyhow!("an assertion failed")))
}

fn joined<T>(handle: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle
        .join()
        .unwrap_or_else(|_| Err(anyhow!("a thread failed")))
}

/// Runs `measure` during an attack.
fn attacked<T>(
    console: SocketAddr,
    token: &str,
    kinds: &[Kind],
    measure: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let mut horde = Horde::new(console, token, kinds, ATTACKERS);
            let connections = horde.rounds(&stop, Duration::from_millis(20));
            Ok((connections, horde.connected()))
        });
        let measured = caught(measure);
        stop.store(true, Ordering::Relaxed);
        let (connections, connected) = joined(attack)?;
        eprintln!("{kinds:?}: {connections} connections, {connected} at the end");
        ensure!(connected > ATTACKERS / 2, "{connected} of {ATTACKERS}");
        measured
    })
}

/// Watches what the page's overview does until told to stop, and gives how late a message was at most, in milliseconds of the
/// machine's time.
fn watch(console: SocketAddr, token: &str, stop: &AtomicBool) -> Result<u64> {
    let mut owner = Client::watch(console, token);
    owner.stream.set_read_timeout(Some(LIMIT))?;
    let watched = [
        ("/cpu", 2),
        ("/memory", 2),
        ("/net/interfaces", 2),
        ("/devices", 3),
        ("/syscalls", 1),
    ];
    for (id, (path, depth)) in watched.iter().enumerate() {
        let text = format!(
            r#"{{"op":"subscribe","id":{id},"path":"{path}","depth":{depth},"period_ms":1000}}"#
        );
        owner.say(&text);
    }
    let (mut longest, mut last) = (0, [None; 5]);
    while !stop.load(Ordering::Relaxed) {
        let (first, payload) = owner.hear().context("the console hung up")?;
        // A ping is to be answered.
        if first == 0x89 {
            owner.frame(0x8a, &payload);
            continue;
        }
        let message: Value = serde_json::from_slice(&payload)?;
        let number = |key: &str| message[key].as_u64().context("a number");
        let (id, now) = (usize::try_from(number("id")?)?, number("time_ms")?);
        if let Some(before) = last[id].replace(now) {
            longest = longest.max(now - before);
        }
    }
    Ok(longest)
}

#[test]
fn whoever_asks_the_console_costs_the_program_little() -> Result<()> {
    let ops = Ops::counted(SHIFT)?;
    let machine = Machine::start(&ops, &[])?;
    let off = machine.load.during(|clock| machine.load.rate(clock))?;
    drop(machine);

    let port = free_port()?;
    let machine = Machine::start(&ops, &[&format!("--console={port}")])?;
    let token = ops.link()?.token;
    let console = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stop = AtomicBool::new(false);
    let (kept, waited) = machine.load.during(|clock| {
        std::thread::scope(|scope| {
            // Who was there before stays: the owner is no stranger.
            let owner = scope.spawn(|| watch(console, &token, &stop));
            let measured = caught(|| {
                let mut rate = || machine.load.rate(clock);
                let watched = rate()?;
                let strangers = attacked(console, &token, STRANGERS, &mut rate)?;
                let holders = attacked(console, &token, HOLDERS, &mut rate)?;
                Ok([watched, strangers, holders].map(|rate| rate / off))
            });
            stop.store(true, Ordering::Relaxed);
            let waited = joined(owner)?;
            Ok((measured?, waited))
        })
    })?;
    eprintln!(
        "of {off:.1} answers a second the program keeps {:.3} watched, {:.3} attacked by strangers, {:.3} by holders of the \
         token; the owner waited {waited} ms at most",
        kept[0], kept[1], kept[2]
    );
    for part in kept {
        ensure!(part >= LEAST_KEPT, "{part}");
    }
    ensure!(waited < LONGEST_WAIT_MS, "{waited} ms");
    Ok(())
}
