//! Looking into a running program through the console, with the tools that people look with: strace's format, gdb, pprof,
//! tshark. The program must not notice.

use anyhow::{Context, Result, ensure};
use e2e::console::Link;
use e2e::{Ops, RUN_LIMIT, Running, programs};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A machine with a console.
struct Machine {
    ops: Ops,
    running: Running,
    program: PathBuf,
    port: u16,
    token: String,
}

impl Machine {
    fn start() -> Result<Machine> {
        let program = programs::c("inspect", &["-g", "-O1", "-fno-omit-frame-pointer"])?;
        let ops = Ops::new()?;
        let path = program.to_str().context("a path of text")?;
        let mut running = ops.start(&["run", path, "--console", "--smp", "2"])?;
        running.wait_for("round 0", RUN_LIMIT)?;
        let Link { port, token } = ops.link()?;
        Ok(Machine {
            ops,
            running,
            program,
            port,
            token,
        })
    }

    /// The body of a request that is answered with 200.
    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(RUN_LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            self.port, self.token
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .context("an answer has a head")?;
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let body = &answer[end + 4..];
        ensure!(
            head.starts_with("http/1.1 200"),
            "{path}: {head}\n{}",
            String::from_utf8_lossy(body)
        );
        match head.contains("transfer-encoding: chunked") {
            true => unchunk(body).with_context(|| format!("{path}: the answer breaks off")),
            false => Ok(body.to_vec()),
        }
    }

    fn text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8(self.get(path)?)?)
    }

    fn json(&self, path: &str) -> Result<Value> {
        let text = self.text(path)?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// Puts an answer into a file.
    fn save(&self, path: &str, name: &str) -> Result<PathBuf> {
        let file = self.ops.folder().join(name);
        std::fs::write(&file, self.get(path)?)?;
        Ok(file)
    }

    /// The id of the thread of that name.
    fn thread(&self, name: &str) -> Result<u64> {
        let threads = self.json("/api/threads")?;
        let found = threads
            .as_array()
            .and_then(|list| list.iter().find(|thread| thread["name"] == name));
        found
            .and_then(|thread| thread["tid"].as_u64())
            .with_context(|| format!("no thread {name} in {threads}"))
    }
}

/// The content of a chunked body (RFC 9112 section 7.1), which must be whole.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = body.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&body[..line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        body = &body[line + 2..];
        if size == 0 {
            return Some(content);
        }
        content.extend_from_slice(body.get(..size)?);
        body = body.get(size + 2..)?;
    }
}

/// What a tool prints, both ways, if it ends well.
fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{command:?}: `cargo xtask test` installs it"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {text}{errors}");
    Ok(text + &errors)
}

#[test]
fn a_running_program_can_be_looked_into() -> Result<()> {
    let mut machine = Machine::start()?;
    trace(&machine)?;
    stacks(&machine)?;
    core(&machine)?;
    profile(&machine)?;
    capture(&machine)?;
    // It has gone on all the time.
    machine
        .running
        .wait_for("round ", Duration::from_secs(20))?;
    machine
        .running
        .wait_for("round ", Duration::from_secs(20))?;
    Ok(())
}

fn trace(machine: &Machine) -> Result<()> {
    let lines =
        machine.text("/api/trace?name=%25file&path=/etc/looked&errno=ENOENT&count=3&seconds=20")?;
    let calls: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(calls.len() == 3, "{lines}");
    for call in &calls {
        ensure!(
            call["name"] == "openat"
                && call["tid"] == 2
                && call["errno"] == "ENOENT"
                && call["args"][0]["value"] == "AT_FDCWD"
                && call["args"][1]["value"] == "/etc/looked-for-in-vain"
                && call["args"][2]["value"] == "O_RDONLY|O_CLOEXEC"
                && call["duration_ns"].as_u64().is_some_and(|ns| ns > 0),
            "{call}"
        );
    }
    // By duration: the sleep takes 20 ms, the rest less.
    let slow = machine.text("/api/trace?min_us=15000&thread=2&count=2&seconds=20")?;
    ensure!(
        slow.lines().count() == 2 && slow.lines().all(|line| line.contains("nanosleep")),
        "{slow}"
    );
    // Data, an address, and a call that no one makes.
    let sent = machine.text("/api/trace?name=sendto&count=1&seconds=20")?;
    ensure!(
        sent.contains("\"round ") && sent.contains("\"127.0.0.1:7777\""),
        "{sent}"
    );
    let vectors = machine.text("/api/trace?name=writev&count=1&seconds=20")?;
    let vectors: Value = serde_json::from_str(&vectors)?;
    let parts = r#"[{iov_base="in \"two\"", iov_len=8}, {iov_base=" parts", iov_len=6}]"#;
    ensure!(vectors["args"][1]["value"] == parts, "{vectors}");
    // A call that a thread has been blocked in all the time.
    let waiter = machine.thread("waiter")?;
    let blocked = machine.text(&format!("/api/trace?thread={waiter}&seconds=1"))?;
    let blocked: Value = serde_json::from_str(&blocked)?;
    ensure!(
        blocked["name"] == "read" && blocked["unfinished"] == true && blocked["result"].is_null(),
        "{blocked}"
    );
    let none = machine.text("/api/trace?name=%25memory&thread=4&seconds=1")?;
    ensure!(none.is_empty(), "{none}");
    Ok(())
}

fn stacks(machine: &Machine) -> Result<()> {
    let waiter = machine.thread("waiter")?;
    let stack = machine.json(&format!("/api/threads/{waiter}/stack"))?;
    let has = |part: &str, name: &str| {
        let frames = stack[part].as_array().into_iter().flatten();
        frames
            .filter_map(|frame| frame["symbol"].as_str())
            .any(|symbol| symbol.contains(name))
    };
    ensure!(
        has("program", "wait_here") && has("program", "waiter") && has("kernel", "sys_read"),
        "{stack}"
    );
    // A thread of the kernel, by its id in the store: the console's own.
    let threads = machine.json("/api/store/threads?depth=2")?;
    let threads = threads["children"].as_object().context("threads")?;
    let console = threads
        .iter()
        .find(|(_, thread)| thread["children"]["name"]["value"] == "console");
    let (id, _) = console.context("no thread of the console")?;
    let kernel = machine.json(&format!("/api/threads/{id}/stack"))?;
    ensure!(
        kernel["tid"].as_u64() == id.parse().ok()
            && kernel["kernel"]
                .to_string()
                // Above that, which functions are left is the optimiser's choice.
                .contains("task::first_steps")
            && kernel["program"] == serde_json::json!([]),
        "{kernel}"
    );
    let spinner = machine.thread("spinner")?;
    let stack = machine.text(&format!("/api/threads/{spinner}/stack"))?;
    ensure!(stack.contains("\"spin_here\""), "{stack}");
    let maps = machine.json("/api/maps")?;
    let of_program = maps.as_array().into_iter().flatten().find(|area| {
        let path = area["path"].as_str().unwrap_or_default();
        path.contains("inspect") && area["permissions"] == "r-xp"
    });
    ensure!(
        of_program.is_some_and(|area| area["resident"].as_u64() > Some(0)),
        "{maps}"
    );
    Ok(())
}

fn core(machine: &Machine) -> Result<()> {
    let core = machine.save("/api/core", "core")?;
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-batch", "-ex", "thread apply all bt"])
        .args(["-ex", "print spins > 0"])
        .arg(&machine.program)
        .arg(&core);
    let shown = output_of(&mut gdb)?;
    for part in [
        "spin_here ()",
        "in spinner (",
        "wait_here (fd=",
        "in waiter (",
        "main ()",
        "$1 = 1",
    ] {
        ensure!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    Ok(())
}

fn profile(machine: &Machine) -> Result<()> {
    let folded = machine.text("/api/profile?seconds=2&hz=199&format=folded")?;
    let of_spinner: u64 = folded
        .lines()
        .filter(|line| line.starts_with("spinner;") && line.contains(";spinner;spin_here "))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    ensure!(of_spinner > 50, "{folded}");
    // Through the C library's sort, which is built without frame pointers, to the thread's start.
    let of_sorter = |line: &&str| {
        let at = |name: &str| line.find(name).unwrap_or(usize::MAX);
        line.starts_with("sorter;")
            && at(";sorter;") < at(";qsort")
            && at(";qsort") < at(";compare_here ")
            && line.contains(";compare_here ")
    };
    let of_sorter = folded.lines().filter(of_sorter);
    let of_sorter: u64 = of_sorter
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    ensure!(of_sorter > 50, "{folded}");
    let pprof = machine.save("/api/profile?seconds=1&format=pprof", "profile.pb")?;
    let raw = output_of(
        Command::new("go")
            .args(["tool", "pprof", "-raw"])
            .arg(pprof),
    )?;
    ensure!(
        raw.contains("spin_here") && raw.contains("thread:[spinner]") && raw.contains("/inspect"),
        "{raw}"
    );
    let json = machine.json("/api/profile?seconds=1&format=json")?;
    ensure!(json["samples"].as_u64() > Some(10), "{json}");
    Ok(())
}

fn capture(machine: &Machine) -> Result<()> {
    let file = machine.save(
        "/api/capture?interface=lo&filter=udp+port+7777&count=3&seconds=20",
        "lo.pcapng",
    )?;
    let mut tshark = Command::new("tshark");
    tshark
        .args([
            "-n",
            "-T",
            "fields",
            "-e",
            "frame.interface_name",
            "-e",
            "udp.dstport",
        ])
        .args(["-e", "frame.time_epoch", "-r"])
        .arg(&file);
    let shown = output_of(&mut tshark)?;
    let lines: Vec<&str> = shown
        .lines()
        .filter(|l| l.starts_with("lo\t7777\t"))
        .collect();
    ensure!(lines.len() == 3, "{shown}");
    // The machine's clock is the host's, as far as its real-time clock goes.
    let time: f64 = lines[0].rsplit('\t').next().unwrap_or_default().parse()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    ensure!((now.as_secs_f64() - time).abs() < 60.0, "{shown}");
    output_of(Command::new("capinfos").arg(&file))?;
    Ok(())
}
