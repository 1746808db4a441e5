//! The console of a running machine: what it tells is true, what it changes holds, and who has no token gets nothing.
#![forbid(unsafe_code)]

#[path = "../../../kernel/console/tests/common/client.rs"]
#[allow(dead_code, reason = "the console's own tests use more of it")]
mod client;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::Client;
use e2e::console::Link;
use e2e::{Ops, RUN_LIMIT, Running, free_port, http_get};
use serde_json::{Value, json};

/// A server whose answers are the files that are asked for: what the program itself sees in /proc.
const SERVER: &str = r#"
import errno, http.server, os, socket, time

taken = []

class Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"here"
        if self.path == "/spin":
            end = time.process_time() + 0.5
            while time.process_time() < end:
                sum(range(100000))
        elif self.path == "/clock":
            body = str(time.process_time_ns()).encode()
        elif self.path == "/take":
            taken.append(b"x" * (64 << 20))
        elif self.path == "/give":
            taken.clear()
        elif self.path == "/descriptors":
            body = "\n".join(sorted(os.listdir("/proc/self/fd"))).encode()
        elif self.path != "/":
            body = open(self.path, "rb").read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass

# The console's port is taken, as any other program's would be.
try:
    socket.create_server(("", int(os.environ["TAKEN"])))
    print("the console's port is free?", flush=True)
except OSError as error:
    print("the console's port:", errno.errorcode[error.errno], flush=True)
http.server.HTTPServer(("", 8000), Files).serve_forever()
"#;

struct Machine {
    running: Running,
    program: u16,
    console: SocketAddr,
    token: String,
}

fn start(ops: &Ops, more: &[&str]) -> Result<Machine> {
    ops.write("server.py", SERVER)?;
    let (program, console) = (free_port()?, free_port()?);
    let (forward, flag) = (format!("{program}-8000"), format!("--console={console}"));
    // Whatever the port here, in the machine it is this one.
    ops.write("config.json", r#"{"Env": {"TAKEN": "9090"}}"#)?;
    let mut arguments = vec![
        "pkg",
        "load",
        "python",
        "-c",
        "config.json",
        "-p",
        &forward,
        &flag,
    ];
    arguments.extend(["-a", "server.py"]);
    arguments.extend(more);
    let mut running = ops.start(&arguments)?;
    running.wait_for("the console's port: EADDRINUSE", RUN_LIMIT)?;
    http_get(program, RUN_LIMIT)?;
    let Link { port, token } = ops.link()?;
    ensure!(port == console, "the record says {port}");
    let console = SocketAddr::from((Ipv4Addr::LOCALHOST, console));
    Ok(Machine {
        running,
        program,
        console,
        token,
    })
}

impl Machine {
    fn client(&self) -> Client {
        Client::new(self.console, &self.token)
    }

    fn value(&self, path: &str) -> Value {
        let reply = self.client().get(&format!("/api/store{path}"));
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()["value"].clone()
    }

    /// What the program reads from a file.
    fn file(&self, path: &str) -> String {
        let mut client = Client::new((Ipv4Addr::LOCALHOST, self.program).into(), "");
        client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
        let answer = String::from_utf8_lossy(&client.read_all()).into_owned();
        answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.into())
            .unwrap_or_default()
    }
}

/// The number behind `key` in a file of /proc.
fn number(text: &str, key: &str) -> i64 {
    let line = text.lines().find(|line| line.trim_start().starts_with(key));
    let word = line.and_then(|line| line.trim_start()[key.len()..].split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{key} in {text}"))
}

#[test]
fn the_console_tells_the_truth_to_who_has_the_token() -> Result<()> {
    let ops = Ops::with_shared_packages()?;
    let machine = start(&ops, &[])?;
    let stranger = Client::new(machine.console, "0123456789abcdef0123456789abcdef").get("/healthz");
    assert_eq!(stranger.status, 401);
    for path in ["/", "/metrics", "/api/store", "/page/app.js"] {
        let mut nobody = Client::new(machine.console, "");
        nobody.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(nobody.reply().context("an answer")?.status, 401, "{path}");
    }
    assert_eq!(
        machine.client().get("/healthz").json(),
        json!({"status":"ok"})
    );
    assert_eq!(
        machine.client().get("/").header("content-encoding"),
        Some("gzip")
    );

    // What it says is what the program sees.
    let memory = machine.file("/proc/meminfo");
    assert_eq!(
        machine.value("/memory/total"),
        number(&memory, "MemTotal:") * 1024
    );
    let free = machine.value("/memory/free").as_i64().context("a number")?;
    ensure!(
        (free - number(&memory, "MemFree:") * 1024).abs() < 16 << 20,
        "{free}: {memory}"
    );
    let before = machine.value("/net/interfaces/en1/rx_bytes").as_i64();
    let devices = machine.file("/proc/net/dev");
    let after = machine.value("/net/interfaces/en1/rx_bytes").as_i64();
    let seen = Some(number(&devices, "en1:"));
    ensure!(
        before <= seen && seen <= after && before < after,
        "{before:?} {seen:?} {after:?}"
    );
    let uptime = machine.value("/time/uptime").as_f64().context("a number")? / 1e9;
    let seen: f64 = machine
        .file("/proc/uptime")
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()?;
    ensure!((seen - uptime).abs() < 10.0, "{uptime} {seen}");
    let host = machine.file("/proc/sys/kernel/hostname");
    assert_eq!(machine.value("/net/hostname"), host.trim());
    assert_eq!(machine.value("/manifest/console/token"), "<hidden>");

    // A change holds, and a wrong one does not.
    let level = "/api/store/log/level";
    let set = machine
        .client()
        .ask("PUT", level, "", "{\"value\":\"debug\"}");
    assert_eq!((set.status, &set.json()["value"]), (200, &json!("debug")));
    assert_eq!(
        machine
            .client()
            .ask("PUT", level, "", "{\"value\":\"loud\"}")
            .status,
        400
    );
    assert_eq!(machine.value("/log/level"), "debug");
    let log = machine.client().get("/api/log");
    ensure!(
        log.text().contains("/log/level"),
        "who changed what is in the log: {}",
        log.text()
    );

    // It watches.
    let mut watching = Client::watch(machine.console, &machine.token);
    watching.say("{\"op\":\"subscribe\",\"id\":1,\"path\":\"/syscalls/total\",\"depth\":0,\"period_ms\":200}");
    let first = watching.hear_json();
    assert_eq!(first["full"], true);
    http_get(machine.program, RUN_LIMIT)?;
    let second = watching.hear_json();
    let total = |message: &Value| message["values"]["/syscalls/total"].as_i64();
    ensure!(
        total(&first).is_some() && total(&first) < total(&second),
        "{first} {second}"
    );

    // It shows calls as they end.
    let mut tracing = machine.client();
    tracing.send(format!(
        "GET /api/trace?count=1&name=openat&path=/proc/version HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n",
        machine.token
    ));
    assert_eq!(tracing.head().context("an answer")?.status, 200);
    ensure!(!machine.file("/proc/version").is_empty());
    let size = tracing.take(1).context("a chunk")?;
    ensure!(!size.is_empty());

    check_metrics(&machine)?;
    for path in ["/api/maps", "/api/threads"] {
        let list = machine.client().get(path).json();
        ensure!(
            list.as_array().is_some_and(|list| !list.is_empty()),
            "{path}: {list}"
        );
    }
    for path in ["/api/schema", "/api/openapi.json"] {
        ensure!(machine.client().get(path).json().is_object(), "{path}");
    }
    Ok(())
}

#[test]
fn the_numbers_move_as_the_program_does() -> Result<()> {
    let ops = Ops::with_shared_packages()?;
    let machine = start(&ops, &[])?;
    let whole = |path: &str| {
        let value = machine.value(path);
        value.as_i64().with_context(|| format!("{path}: {value}"))
    };
    // Calls: one for each request that a client made.
    let before = whole("/syscalls/accept4/count")?;
    for _ in 0..25 {
        ensure!(machine.file("/") == "here");
    }
    assert_eq!(whole("/syscalls/accept4/count")?, before + 25);
    let histogram = machine.value("/syscalls/accept4/histogram");
    let counts = histogram.as_object().context("a map")?.values();
    let counted: i64 = counts.filter_map(Value::as_i64).sum();
    assert_eq!(counted, before + 25, "each is in it: {histogram}");

    // CPU time: what the program's own clock says is between what the store says before and after.
    let of_thread = || whole("/threads/2/cpu_ns");
    let (idle, user) = ("/cpu/0/idle_ns", "/cpu/0/user_ns");
    let (early, idle_before, user_before) = (of_thread()?, whole(idle)?, whole(user)?);
    machine.file("/spin");
    let seen: i64 = machine.file("/clock").parse()?;
    let (late, idle_after, user_after) = (of_thread()?, whole(idle)?, whole(user)?);
    ensure!(early < seen && seen <= late, "{early} {seen} {late}");
    ensure!(late - early >= 500_000_000, "{early} {late}");
    ensure!(
        user_after - user_before > 250_000_000,
        "{user_before} {user_after}"
    );
    let uptime = whole("/time/uptime")?;
    let known: i64 = ["idle_ns", "user_ns", "system_ns"]
        .iter()
        .map(|part| whole(&format!("/cpu/0/{part}")))
        .sum::<Result<i64>>()?;
    ensure!(
        (known - uptime).abs() < uptime / 10 + 200_000_000,
        "a CPU's time is all there: {known} of {uptime}, idle {idle_before} {idle_after}"
    );
    let stat = machine.file("/proc/stat");
    let ticks: Vec<i64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let user_now = whole(user)?;
    ensure!(
        user_after <= ticks[0] * 10_000_000 + 20_000_000 && ticks[0] * 10_000_000 <= user_now,
        "{user_after} {ticks:?} {user_now}"
    );

    // Memory: 64 MiB more, and back.
    let before = whole("/memory/program")?;
    machine.file("/take");
    let taken = whole("/memory/program")? - before;
    ensure!((64 << 20..72 << 20).contains(&taken), "{taken}");
    machine.file("/give");
    let left = whole("/memory/program")? - before;
    ensure!(left < 8 << 20, "{left}");

    // Descriptors: what the program lists, but for the one it lists them with.
    let list = machine.file("/descriptors");
    let listed: Vec<&str> = list.lines().collect();
    let told = machine
        .client()
        .get("/api/store/files/descriptors?depth=1")
        .json();
    let told = told["children"].as_object().context("a map")?;
    ensure!(listed.len() >= told.len(), "{listed:?} {told:?}");
    for number in told.keys() {
        ensure!(listed.contains(&number.as_str()), "{number}: {listed:?}");
    }
    Ok(())
}

/// Prometheus's own tool reads the metrics.
fn check_metrics(machine: &Machine) -> Result<()> {
    let metrics = machine.client().get("/metrics");
    ensure!(
        metrics
            .text()
            .contains("nanos_net_rx_bytes_total{interface=\"en1\"}"),
        "{}",
        metrics.text()
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool: `cargo xtask setup` installs it")?;
    promtool
        .stdin
        .take()
        .context("it is piped")?
        .write_all(&metrics.body)?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!said.contains("error while linting"), "{said}");
    // 3 is advice about names.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    Ok(())
}

#[test]
fn the_console_restarts_the_machine_and_ends_it() -> Result<()> {
    let ops = Ops::with_shared_packages()?;
    let machine = start(&ops, &[])?;
    let boot = machine.value("/time/boot");
    assert_eq!(machine.value("/time/boot"), boot, "it is of this start");
    let power = |action: &str| {
        let body = json!({ "action": action }).to_string();
        machine.client().ask("POST", "/api/power", "", &body).status
    };
    assert_eq!(power("nonsense"), 400);
    assert_eq!(power("reboot"), 202);
    let end = Instant::now() + RUN_LIMIT;
    loop {
        std::thread::sleep(Duration::from_millis(300));
        // QEMU takes connections all the time; a machine that is about to go or to come says nothing on them.
        let mut client = machine.client();
        client
            .stream
            .set_read_timeout(Some(Duration::from_secs(2)))?;
        let booted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            client.get("/api/store/time/boot")
        }));
        match booted {
            Ok(reply) if reply.status == 200 && reply.json()["value"] != boot => break,
            _ => ensure!(Instant::now() < end, "it does not come back"),
        }
    }
    http_get(machine.program, RUN_LIMIT)?;
    assert_eq!(power("shutdown"), 202);
    // Python does not handle SIGTERM, so the signal ends it.
    assert_eq!(machine.running.wait(RUN_LIMIT)?.code(), 128 + 15);
    Ok(())
}

#[test]
fn a_read_only_console_changes_nothing() -> Result<()> {
    let ops = Ops::with_shared_packages()?;
    let machine = start(&ops, &["--console-read-only"])?;
    let level = machine.value("/log/level");
    for (method, path, body) in [
        ("PUT", "/api/store/log/level", "{\"value\":\"debug\"}"),
        ("POST", "/api/power", "{\"action\":\"shutdown\"}"),
    ] {
        assert_eq!(
            machine.client().ask(method, path, "", body).status,
            403,
            "{path}"
        );
    }
    assert_eq!(machine.value("/log/level"), level);
    Ok(())
}
