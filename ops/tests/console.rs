//! Looking into a running machine: how a run gets a console, and each command that talks to one, against a stand-in for it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::thread;

use common::{Place, one_line, until};
use serde_json::{Value, json};

const TOKEN: &str = "secret";

/// What the stand-in answers: status and body.
type Answer = (u16, Vec<u8>);

/// A machine's record and a stand-in for its console that answers by `method path body`.
fn machine(place: &Place, answer: fn(&str, &str, &str) -> Answer) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || serve(stream, answer));
        }
    });
    record(place, "web", port, std::process::id());
}

fn record(place: &Place, name: &str, port: u16, pid: u32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 = stat[stat.rfind(')').unwrap() + 1..]
        .split_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();
    let record = json!({"instance": name, "image": name, "ports": ["8080"], "pid": pid, "ticks": ticks, "started": 1, "arch": "amd64",
        "console": {"port": port, "token": TOKEN}});
    place.write(&format!(".ops/instances/{pid}"), record.to_string());
}

fn serve(mut stream: TcpStream, answer: fn(&str, &str, &str) -> Answer) {
    // What comes first is looked at before it is read: a WebSocket reads its own handshake.
    let mut start = [0; 64];
    let length = stream.peek(&mut start).unwrap_or(0);
    if start[..length].starts_with(b"GET /api/watch") {
        return watched(stream);
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut words = line.split(' ');
    let (method, path) = (
        words.next().unwrap().to_string(),
        words.next().unwrap().to_string(),
    );
    let (mut length, mut allowed) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let header = header.trim().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        allowed |= header == format!("authorization: bearer {TOKEN}");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let (status, body) = if allowed {
        answer(&method, &path, &String::from_utf8(body).unwrap())
    } else {
        (
            401,
            br#"{"error":{"code":"unauthorized","message":"the token is wrong"}}"#.to_vec(),
        )
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
}

fn watched(stream: TcpStream) {
    let mut socket = tungstenite::accept(stream).unwrap();
    let ask: Value = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(
        (&ask["op"], &ask["path"], &ask["period_ms"]),
        (&json!("subscribe"), &json!("/log"), &json!(100))
    );
    for update in [
        json!({"id": 1, "full": true, "time_ms": 1500, "values": {"/log/level": "info", "/log/lines": 3}}),
        json!({"id": 1, "full": false, "time_ms": 1600, "values": {"/log/lines": 4}, "gone": ["/log/old"]}),
    ] {
        socket
            .send(tungstenite::Message::text(update.to_string()))
            .unwrap();
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

fn store(method: &str, path: &str, body: &str) -> Answer {
    let leaf = |value: Value| json!({"path": path, "type": "string", "help": "h", "writable": true, "choices": ["info", "debug"], "value": value});
    let no = |status, message: &str| {
        (
            status,
            json!({"error": {"code": "x", "message": message}})
                .to_string()
                .into_bytes(),
        )
    };
    let yes = |value: Value| (200, value.to_string().into_bytes());
    match (method, path.split('?').next().unwrap()) {
        ("GET", "/api/store/log/level") => yes(leaf(json!("info"))),
        ("PUT", "/api/store/log/level") => match body {
            r#"{"value":"debug"}"# => yes(leaf(json!("debug"))),
            _ => no(400, "level: one of info, debug"),
        },
        ("GET", "/api/store/memory/limit") => {
            yes(json!({"type": "size", "unit": "bytes", "writable": true, "value": 5}))
        }
        ("PUT", "/api/store/memory/limit") => {
            assert_eq!(body, format!(r#"{{"value":{}}}"#, 512 << 10));
            yes(json!({"type": "size", "unit": "bytes", "writable": true, "value": 512 << 10}))
        }
        ("GET", "/api/store/build") => {
            yes(json!({"type": "string", "value": "x", "writable": false}))
        }
        ("GET", "/api/store/log") => yes(json!({"type": "branch", "children": {
            "level": leaf(json!("info")), "lines": {"type": "integer", "unit": "lines", "value": 3}, "by target": {"type": "branch"}}})),
        _ => no(404, &format!("there is no {path}")),
    }
}

#[test]
fn values_are_read_and_changed() {
    let place = Place::new();
    machine(&place, store);
    assert_eq!(place.ok(&["get", "/log/level"]), "info\n");
    assert_eq!(
        place.ok(&["get", "log", "-i", "web"]),
        "/log/by%20target/\n/log/level = info\n/log/lines = 3 lines\n"
    );
    let whole: Value = serde_json::from_str(&place.ok(&["get", "log", "-j"])).unwrap();
    assert_eq!(whole["children"]["lines"]["value"], 3);
    assert_eq!(place.ok(&["set", "/log/level", "debug"]), "debug\n");
    assert_eq!(place.ok(&["set", "memory/limit", "512k"]), "524288 bytes\n");
    assert!(
        place
            .fails(&["set", "/log/level", "loud"])
            .contains("one of info, debug")
    );
    assert!(
        place
            .fails(&["set", "memory/limit", "much"])
            .contains("memory/limit: `much` is not a value of type size")
    );
    assert!(
        place
            .fails(&["set", "build", "y"])
            .contains("build can not be changed")
    );
    assert!(
        place
            .fails(&["set", "log", "y"])
            .contains("log is a branch")
    );
    assert!(
        place
            .fails(&["get", "/nothing"])
            .contains("there is no /api/store/nothing")
    );
    assert_eq!(
        place.run(&["watch", "log", "-p", "100", "-n", "2"]).out,
        "1.500 /log/level = info\n1.500 /log/lines = 3\n1.600 /log/lines = 4\n1.600 /log/old is gone\n"
    );
    assert!(
        place
            .run(&["watch", "log", "-p", "100"])
            .err
            .contains("`web` ended the connection")
    );
}

fn streams(_method: &str, path: &str, _body: &str) -> Answer {
    let body: &[u8] = match path {
        "/api/trace?name=openat%2C%25network&errno=ENOENT&count=2" => {
            b"{\"dropped\":3}\n{\"time_ns\":1500000000,\"tid\":2,\"thread\":\"m\",\"name\":\"openat\",\"number\":257,\"args\":[{\"name\":\"p\",\"kind\":\"path\",\"value\":\"/x\"}],\"result\":-2,\"errno\":\"ENOENT\",\"duration_ns\":7000}\n"
        }
        "/api/profile?seconds=1&hz=99&format=folded" => b"main;work 3\nmain;net::send_[k] 1\n",
        "/api/profile?seconds=5&hz=99&format=pprof" => b"\x0a\x02\x08\x01",
        "/api/core" => b"\x7fELF core",
        "/api/capture?interface=lo&seconds=2&filter=tcp%20and%20port%2080" => b"\x0a\x0d\x0d\x0a pcapng",
        _ => return (404, format!("{{\"error\":{{\"code\":\"x\",\"message\":\"no {path}\"}}}}").into_bytes()),
    };
    (200, body.to_vec())
}

#[test]
fn streams_are_shown_and_saved() {
    let place = Place::new();
    machine(&place, streams);
    assert_eq!(
        place.ok(&[
            "trace",
            "-e",
            "openat,%network",
            "--errno",
            "ENOENT",
            "-n",
            "2"
        ]),
        "... 3 calls are missing: too many for this connection\n[pid   2] 1.500000 openat(\"/x\") = -1 ENOENT (No such file or directory) <0.000007>\n"
    );
    let table = place.ok(&["profile", "-s", "1"]);
    assert!(
        table.contains("75.0 %") && table.contains("net::send_[k]"),
        "{table}"
    );
    place.ok(&["profile", "-s", "1", "-o", "flame.svg"]);
    let svg = fs::read_to_string(place.path("flame.svg")).unwrap();
    assert!(svg.contains("work: 3 samples, 75.0 %"), "{svg}");
    place.ok(&["profile", "-o", "p.pb"]);
    assert_eq!(fs::read(place.path("p.pb")).unwrap(), b"\x0a\x02\x08\x01");
    assert!(
        place
            .fails(&["profile", "-o", "p.xyz"])
            .contains("which format?")
    );
    // Without a flag it is what it always was.
    assert!(place.ok(&["profile"]).to_lowercase().contains("qemu"));

    place.ok(&["core", "-o", "c"]);
    assert_eq!(fs::read(place.path("c")).unwrap(), b"\x7fELF core");
    place.ok(&[
        "capture",
        "--interface",
        "lo",
        "-s",
        "2",
        "-o",
        "c.pcapng",
        "tcp",
        "and",
        "port",
        "80",
    ]);
    assert_eq!(
        fs::read(place.path("c.pcapng")).unwrap(),
        b"\x0a\x0d\x0d\x0a pcapng"
    );
    let piped = place.ops(&["core", "-o", "-"]).output().unwrap();
    assert_eq!(piped.stdout, b"\x7fELF core");
    let s = place.run(&["capture", "--interface", "no", "-s", "1"]);
    assert!(one_line(s, &[]).contains("no /api/capture?interface=no&seconds=1"));
}

fn busy(_method: &str, path: &str, _body: &str) -> Answer {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    let size = |n: u64| json!({"type": "size", "value": n});
    let branch = |children: Value| json!({"type": "branch", "children": children});
    let node = match path.split('?').next().unwrap() {
        "/api/store/cpu" => {
            branch(json!({"count": size(1), "0": branch(json!({"idle_ns": size(0)}))}))
        }
        "/api/store/memory" => {
            branch(json!({"free": size(100_000_000), "total": size(200_000_000)}))
        }
        "/api/store/net/interfaces" => branch(
            json!({"en1": branch(json!({"rx_bytes": size(0), "tx_bytes": size(0)})), "lo": branch(json!({}))}),
        ),
        "/api/store/syscalls" => branch(json!({"total": size(7)})),
        "/api/store/threads" => {
            let spent = LOOKS.fetch_add(1, Ordering::Relaxed) * 1_000_000_000;
            let thread = |name: &str, cpu: u64| {
                branch(
                    json!({"name": {"value": name}, "state": {"value": "running"}, "cpu_ns": size(cpu), "cpu": size(0)}),
                )
            };
            branch(json!({"count": size(2), "2": thread("quiet", 5), "3": thread("busy", spent)}))
        }
        "/api/store/time/uptime" => json!({"type": "duration", "value": 3_661_000_000_000u64}),
        _ => return (404, Vec::new()),
    };
    (200, node.to_string().into_bytes())
}

#[test]
fn top_puts_the_busy_first() {
    let place = Place::new();
    machine(&place, busy);
    let out = place.ok(&["top", "-d", "0.2"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "web  up 1:01:01");
    assert!(
        out.contains("cpu0 100.0 %")
            && out.contains("100 MB of 200 MB free")
            && !out.contains("lo in"),
        "{out}"
    );
    let at = |name: &str| lines.iter().position(|l| l.contains(name)).unwrap();
    assert!(at("busy") < at("quiet"), "{out}");
}

#[test]
fn a_machine_that_is_not_there() {
    let place = Place::new();
    assert!(
        place
            .fails(&["get", "/"])
            .contains("no machine with a console runs")
    );
    // The record of a process that is no more goes away.
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    record(&place, "dead", 1, child.id());
    assert!(
        place
            .ok(&["console"])
            .contains("http://127.0.0.1:1/login?token=secret")
    );
    assert!(
        place
            .fails(&["console", "-i", "other"])
            .contains("there are: dead")
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        place
            .fails(&["console"])
            .contains("no machine with a console runs")
    );
    assert!(
        !place
            .path(&format!(".ops/instances/{}", child.id()))
            .exists()
    );
}

#[test]
fn a_run_with_a_console_can_be_found_while_it_lives() {
    let place = Place::new();
    place.program("prog");
    let mut child = place
        .fake(
            "powerdown",
            &["run", "prog", "--console", "-p", "29090-9090"],
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    assert_eq!(ready, "ready\n");
    let path = place.path(&format!(".ops/instances/{}", child.id()));
    until("there is a record", || path.exists());
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let said: Value = serde_json::from_str(&place.ok(&["console", "-j", "-i", "prog"])).unwrap();
    let token = said["token"].as_str().unwrap();
    assert_eq!(token.len(), 64);
    let port = said["url"].as_str().unwrap().rsplit(':').next().unwrap();
    // The program has port 9090 inside, so the console takes the next.
    let told = place.record();
    assert!(
        told.contains(&format!(
            "hostfwd=tcp:127.0.0.1:29090-:9090,hostfwd=tcp:127.0.0.1:{port}-:9091\n"
        )),
        "{told}"
    );
    let patch: Value =
        serde_json::from_str(told.split("PATCH ").nth(1).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(
        patch,
        json!({"console": {"port": 9091, "token": token, "read_only": false}})
    );
    let status = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(!path.exists());
    let mut notes = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut notes)
        .unwrap();
    assert!(
        notes.contains(&format!(
            "ops: console of `prog`: http://127.0.0.1:{port}/login?token={token}"
        )),
        "{notes}"
    );

    let fails = |words: &[&str]| {
        one_line(
            common::said(place.fake("exit 0", words).output().unwrap()),
            words,
        )
    };
    assert!(
        fails(&["run", "prog", "--console", "--tapname", "t0"]).contains("--console needs a port")
    );
    assert!(fails(&["run", "prog", "--console=28101", "-p", "28101"]).contains("can not both"));
    assert!(fails(&["run", "prog", "--console-read-only"]).contains("needs --console"));
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    assert!(fails(&["run", "prog", &format!("--console={port}")]).contains("is taken"));
}
