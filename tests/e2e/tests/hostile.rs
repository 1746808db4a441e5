//! The booted kernel's console against those who mean it ill: requests made of its own description, and a thousand clients that
//! are idle, slow, rude or mad. The program and the console's owner go on, and nothing may stay behind. What the program
//! notices of it is in `rate`.
#![forbid(unsafe_code)]

#[path = "../../../kernel/console/tests/common/client.rs"]
#[allow(dead_code, reason = "the console's own tests use more of it")]
mod client;
#[path = "../../../kernel/console/tests/common/fuzz.rs"]
mod fuzz;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::Client;
use e2e::attack::{HOLDERS, Horde, STRANGERS};
use e2e::{Ops, RUN_LIMIT, Running, free_port, programs};
use fuzz::Fuzz;
use serde_json::Value;

struct Machine {
    running: Running,
    program: u16,
    console: SocketAddr,
    token: String,
}

fn start(ops: &Ops) -> Result<Machine> {
    let program = programs::c("web", &["-static"])?;
    let program = program.to_str().context("a path in UTF-8")?;
    let (port, console) = (free_port()?, free_port()?);
    let (forward, flag) = (format!("{port}-8000"), format!("--console={console}"));
    let mut running = ops.start(&["run", "-p", &forward, &flag, program])?;
    running.wait_for("serving", RUN_LIMIT)?;
    let link = ops.run(&["console"])?.stdout;
    let token = link.trim().split("token=").nth(1).context("a token")?;
    let machine = Machine {
        running,
        program: port,
        console: SocketAddr::from((Ipv4Addr::LOCALHOST, console)),
        token: token.to_owned(),
    };
    machine.requests(Duration::from_millis(100))?;
    Ok(machine)
}

impl Machine {
    fn client(&self) -> Client {
        Client::new(self.console, &self.token)
    }

    /// Asks the program for that long over one connection: how often it answered, and how long it took at worst.
    fn requests(&self, time: Duration) -> Result<(f64, Duration)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.program))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (begun, mut count, mut worst) = (Instant::now(), 0, Duration::ZERO);
        while begun.elapsed() < time {
            let asked = Instant::now();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: nanos\r\n\r\n")?;
            let mut answer = [0; 256];
            let mut got = 0;
            while !answer[..got].ends_with(b"Hello\n") {
                let more = stream
                    .read(&mut answer[got..])
                    .context("the program's answer")?;
                ensure!(more > 0, "the program hung up");
                got += more;
            }
            count += 1;
            worst = worst.max(asked.elapsed());
        }
        Ok((f64::from(count) / begun.elapsed().as_secs_f64(), worst))
    }
}

/// The kernel's own memory in bytes: all but the program's and its files'.
fn kernel_memory(owner: &mut Client) -> i64 {
    let memory = owner.get("/api/store/memory").json();
    let parts = ["kernel_heap", "kernel_stacks", "device_buffers"];
    let value = |part| memory["children"][part]["value"].as_i64();
    parts.into_iter().filter_map(value).sum()
}

#[test]
fn connections_that_are_over_leave_nothing_in_the_heap() -> Result<()> {
    const CONNECTIONS: usize = 3000;
    /// What empty slots of timers (98 KiB) and tables of flows keep for the next ones, however many there were.
    const MOST_KEPT: i64 = 192 << 10;
    /// How long TCP remembers a connection that is over.
    const TIME_WAIT: Duration = Duration::from_secs(62);
    let ops = Ops::new()?;
    let machine = start(&ops)?;
    let objects = || -> Result<i64> {
        let memory = machine.client().get("/api/store/memory").json();
        let objects = &memory["children"]["kernel_objects"]["value"];
        objects.as_i64().context("a size")
    };
    // What is made once is made.
    let flood = |count: usize| {
        for _ in 0..count {
            assert_eq!(machine.client().get("/healthz").status, 200);
        }
    };
    flood(20);
    let before = objects()?;
    flood(CONNECTIONS);
    std::thread::sleep(TIME_WAIT);
    let more = objects()? - before;
    eprintln!(
        "{before} bytes of objects in the heap, and {more} more after {CONNECTIONS} connections"
    );
    ensure!(more < MOST_KEPT, "{more}");
    Ok(())
}

#[test]
fn a_thousand_hostile_clients_cost_the_program_little_and_leave_nothing_behind() -> Result<()> {
    const CLIENTS: usize = 1000;
    /// The console's clients are bounded (32), and so is what each may hold.
    const MOST_MEMORY: i64 = 24 << 20;
    const WINDOW: Duration = Duration::from_secs(4);
    let ops = Ops::new()?;
    let machine = start(&ops)?;
    // Who was there before stays: the owner is no stranger.
    let mut owner = machine.client();
    let before = kernel_memory(&mut owner);
    let (quiet, quiet_worst) = machine.requests(WINDOW)?;

    let kinds = [STRANGERS, HOLDERS].concat();
    let mut horde = Horde::new(machine.console, &machine.token, &kinds, CLIENTS);
    horde.round();
    let connected = horde.connected();
    eprintln!("{connected} connections");
    ensure!(connected > CLIENTS / 2, "{connected} connections");
    // They go on while the program is asked; those that were thrown out come again.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (attacked, worst, during) = std::thread::scope(|scope| -> Result<_> {
        let attack = scope.spawn(|| horde.rounds(&stop, Duration::from_millis(250)));
        let rate = machine.requests(WINDOW);
        let during = kernel_memory(&mut owner);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let again = attack
            .join()
            .map_err(|_| anyhow::anyhow!("the attack failed"))?;
        eprintln!("{again} connections were made again");
        let (rate, worst) = rate?;
        Ok((rate, worst, during))
    })?;
    eprintln!(
        "requests a second: {quiet:.0}, at worst {quiet_worst:?}; attacked: {attacked:.0}, at worst {worst:?}; \
         the kernel's memory: {} KiB, then {} KiB more",
        before >> 10,
        (during - before) >> 10
    );
    ensure!(during - before < MOST_MEMORY, "{before} {during}");
    // On a host that is busy itself the figures mean little; that it goes on means something.
    ensure!(attacked > quiet / 10.0, "{quiet} {attacked}");

    drop(horde);
    let end = Instant::now() + Duration::from_secs(20);
    let left = loop {
        let threads = owner.get("/api/store/threads?depth=2").json();
        let threads = threads["children"].as_object().context("threads")?;
        let clients = threads
            .values()
            .filter(|thread| thread["children"]["name"]["value"] == "console/client")
            .count();
        if clients <= 2 || Instant::now() > end {
            break clients;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let more = kernel_memory(&mut owner) - before;
    eprintln!("left behind: {left} clients, {} KiB", more >> 10);
    ensure!(left <= 2, "{left} clients are left");
    // Connections in TIME-WAIT are there for a minute, and the heap keeps pages of which a part is in use.
    ensure!(more < MOST_MEMORY / 3, "{before}, {more} left");
    ensure!(machine.client().get("/healthz").status == 200, "it lives");
    Ok(())
}

#[test]
fn every_request_of_the_description_is_answered_as_it_says() -> Result<()> {
    let ops = Ops::new()?;
    let machine = start(&ops)?;
    let mut fuzz = Fuzz::new(machine.console, &machine.token, 0xfeed_0001);
    // All that there is below, too: whatever can be read is, and what can be written is written wrongly or rightly.
    fuzz.power = false;
    let schema = machine.client().get("/api/schema").json();
    leaves(&schema, "", &mut fuzz.paths);
    ensure!(fuzz.paths.len() > 200, "{}", fuzz.paths.len());
    let seen = fuzz.run(15);
    for status in [200, 204, 400, 401, 404, 405, 426] {
        ensure!(
            seen.contains(&status),
            "{status} never came of it: {seen:?}"
        );
    }
    ensure!(machine.client().get("/healthz").status == 200, "it lives");
    machine.running.signal("TERM")?;
    let output = machine.running.wait(RUN_LIMIT)?;
    ensure!(!output.stdout.contains("panic"), "{}", output.stdout);
    Ok(())
}

/// The paths of all leaves, but those with which the program or its host could be harmed by a right value.
fn leaves(node: &Value, path: &str, into: &mut Vec<String>) {
    match node["children"].as_object() {
        Some(children) => {
            for (name, child) in children {
                if path.is_empty() && matches!(name.as_str(), "limits") {
                    continue;
                }
                let below = format!("{path}/{}", name.replace('%', "%25").replace('/', "%2F"));
                leaves(child, below.trim_start_matches('/'), into);
            }
        }
        None if node["type"] != "branch" => into.push(path.to_owned()),
        None => {}
    }
}
