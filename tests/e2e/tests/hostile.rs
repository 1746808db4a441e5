//! The booted kernel's console against those who mean it ill: requests made of its own description, and a thousand clients that
//! are idle, slow, rude or mad. The program and the console's owner are to notice little, and nothing may stay behind.
#![forbid(unsafe_code)]

#[path = "../../../kernel/console/tests/common/client.rs"]
#[allow(dead_code, reason = "the console's own tests use more of it")]
mod client;
#[path = "../../../kernel/console/tests/common/fuzz.rs"]
mod fuzz;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::Client;
use e2e::{Ops, RUN_LIMIT, Running, free_port, programs};
use fuzz::{Fuzz, Seed};
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

/// A connection that does not wait for anything. QEMU takes one at a time: in a flood some find no place.
fn rude(address: SocketAddr, opening: &[u8]) -> Option<TcpStream> {
    std::thread::sleep(Duration::from_millis(2));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok()?;
    stream.set_nonblocking(true).ok()?;
    // What does not go out at once is not worth waiting for.
    let _ = stream.write(opening);
    Some(stream)
}

/// What the `n`th attacker begins with.
fn opening(n: usize, token: &str, seed: &mut Seed) -> Vec<u8> {
    let upgrade = format!(
        "GET /api/watch HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let frame = |first: u8, payload: &str| {
        let mut bytes = vec![first, 0x80 | payload.len().min(125) as u8, 0, 0, 0, 0];
        bytes.extend(payload.as_bytes());
        bytes
    };
    let mut bytes = match n % 10 {
        // Says nothing.
        0 | 1 => Vec::new(),
        // Begins a request and goes on byte by byte.
        2 => b"GET / HTTP/1.1\r\nX: ".to_vec(),
        // Wants much and reads nothing.
        3 => format!("GET /api/schema HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n")
            .repeat(20)
            .into_bytes(),
        // A head, and a body, without an end.
        4 => b"GET / HTTP/1.1\r\n".iter().chain(&[b'a'; 9000]).copied().collect(),
        5 => format!(
            "PUT /api/store/log/level HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .into_bytes(),
        6 => (0..2000).map(|_| seed.below(256) as u8).collect(),
        // WebSockets that watch everything and never read, that send half of messages, and too long and bare ones.
        _ => upgrade.into_bytes(),
    };
    match n % 10 {
        7 => {
            for id in 0..20 {
                let all = format!(
                    r#"{{"op":"subscribe","id":{id},"path":"/","depth":9,"period_ms":50}}"#
                );
                bytes.extend(frame(0x81, &all));
                bytes.extend(frame(0x81, &all.replace(":50", ":100")));
            }
        }
        8 => (0..500).for_each(|_| bytes.extend(frame(0x01, "half of it"))),
        9 => bytes.extend([0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]),
        _ => {}
    }
    bytes
}

/// How long the CPUs have run, in nanoseconds: in all, and in the program's code.
fn cpu_times(owner: &mut Client) -> Result<(f64, f64)> {
    let cpus = owner.get("/api/store/cpu?depth=2").json();
    let cpus = cpus["children"].as_object().context("CPUs")?;
    let sum = |name: &str| -> f64 {
        let times = cpus.values().map(|cpu| &cpu["children"][name]["value"]);
        times.filter_map(Value::as_f64).sum()
    };
    let user = sum("user_ns");
    Ok((user + sum("system_ns") + sum("idle_ns"), user))
}

/// What the program did not get of the CPU from one moment to another, in percent.
fn missing(before: (f64, f64), after: (f64, f64)) -> f64 {
    100.0 * (1.0 - (after.1 - before.1) / (after.0 - before.0))
}

#[test]
fn attackers_that_hold_the_token_get_little_of_a_cpu_that_the_program_wants() -> Result<()> {
    /// A twenty-fifth is theirs; the rest is for their packets, which the card's thread takes.
    const MOST_PERCENT: f64 = 8.0;
    let ops = Ops::new()?;
    let machine = start(&ops)?;
    let mut program = TcpStream::connect((Ipv4Addr::LOCALHOST, machine.program))?;
    program.write_all(b"GET /spin HTTP/1.1\r\nHost: nanos\r\n\r\n")?;
    ensure!(program.read(&mut [0; 256])? > 0, "the program hung up");
    let mut owner = machine.client();
    let before = cpu_times(&mut owner)?;
    std::thread::sleep(Duration::from_secs(3));
    let quiet = missing(before, cpu_times(&mut owner)?);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let attack = || {
        let mut seed = Seed(0x5eed_0002);
        let mut clients: Vec<Option<TcpStream>> = (0..200).map(|_| None).collect();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            for (n, client) in clients.iter_mut().enumerate() {
                // They read a little, want more, and come again when they were thrown out.
                let gone = client.as_mut().is_none_or(|stream| {
                    let more = if n % 10 == 3 {
                        &opening(3, &machine.token, &mut seed)[..]
                    } else {
                        b""
                    };
                    let _ = stream.write(more);
                    match stream.read(&mut [0; 4096]) {
                        Ok(count) => count == 0,
                        Err(error) => error.kind() != ErrorKind::WouldBlock,
                    }
                });
                if gone {
                    *client = rude(machine.console, &opening(n, &machine.token, &mut seed));
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let (attacked, worst) = std::thread::scope(|scope| -> Result<_> {
        scope.spawn(attack);
        let measured = (|| {
            std::thread::sleep(Duration::from_secs(3));
            let before = cpu_times(&mut owner)?;
            let (begun, mut worst) = (Instant::now(), Duration::ZERO);
            while begun.elapsed() < Duration::from_secs(6) {
                let asked = Instant::now();
                ensure!(owner.get("/api/store/log/level").status == 200, "no answer");
                worst = worst.max(asked.elapsed());
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok((missing(before, cpu_times(&mut owner)?), worst))
        })();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        measured
    })?;
    eprintln!(
        "not the program's: {quiet:.1} % of the CPU, attacked {attacked:.1} %; the owner waited {worst:?} at most"
    );
    ensure!(attacked - quiet < MOST_PERCENT, "{quiet} {attacked}");
    ensure!(worst < Duration::from_secs(10), "{worst:?}");
    Ok(())
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

    let mut seed = Seed(0x5eed_0001);
    let mut clients: Vec<TcpStream> = Vec::new();
    for n in 0..CLIENTS {
        clients.extend(rude(
            machine.console,
            &opening(n, &machine.token, &mut seed),
        ));
    }
    eprintln!("{} connections", clients.len());
    ensure!(clients.len() > CLIENTS / 2, "{} connections", clients.len());
    // They go on while the program is asked; those that were thrown out come again.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (attacked, worst, during) = std::thread::scope(|scope| -> Result<_> {
        let attack = scope.spawn(|| {
            let mut again = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for (n, stream) in clients.iter_mut().enumerate() {
                    let more: &[u8] = match n % 10 {
                        2 => b"y",
                        4 => &[b'a'; 512],
                        5 => b"5\r\nabcde\r\n",
                        _ => continue,
                    };
                    let gone = stream
                        .write(more)
                        .is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
                    if let (true, Some(next)) = (gone, rude(machine.console, more)) {
                        again += 1;
                        *stream = next;
                    }
                }
                std::thread::sleep(Duration::from_millis(250));
            }
            again
        });
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

    drop(clients);
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
