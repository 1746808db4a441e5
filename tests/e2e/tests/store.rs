//! The information store of a running machine: what is changed in it takes effect, and what is to last lasts.

use anyhow::{Context, Result, ensure};
use e2e::{Ops, RUN_LIMIT, Running, programs};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A value, as `ops get` prints it.
fn get(ops: &Ops, path: &str) -> Result<String> {
    let output = ops.run(&["get", path])?;
    ensure!(output.code() == 0, "get {path}: {}", output.stderr);
    Ok(output.stdout.trim_end().to_owned())
}

fn set(ops: &Ops, path: &str, value: &str) -> Result<i32> {
    Ok(ops.run(&["set", path, value])?.code())
}

/// Asks the console over HTTP with the token of the link that `ops console` prints; answers head and body.
fn http(ops: &Ops, request: &str, body: &str) -> Result<(String, String)> {
    let link = ops.run(&["console"])?.stdout;
    let link = link.split("http://").nth(1).context("a link")?.trim();
    let (host, token) = link.split_once("/login?token=").context("a token")?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let length = body.len();
    let head = format!("{request} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n");
    let rest = format!(
        "Connection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all((head + &rest).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("a head")?;
    Ok((head.to_owned(), body.to_owned()))
}

fn start(ops: &Ops) -> Result<Running> {
    let program = programs::c("told", &["-static"])?;
    let program = program.to_str().context("a path in UTF-8")?;
    let mut running = ops.start(&["run", "--console", program])?;
    running.wait_for("greeting=none", RUN_LIMIT)?;
    Ok(running)
}

#[test]
fn what_is_changed_takes_effect_and_the_environment_survives_a_reboot() -> Result<()> {
    let ops = Ops::new()?;
    let mut running = start(&ops)?;
    let limit = Duration::from_secs(20);
    for (path, value, seen) in [
        ("/net/hostname", "web-7", "host=web-7 "),
        ("/limits/nofile/soft", "77", "nofile=77 "),
        ("/net/name_servers", r#"["9.9.9.9"]"#, "server=9.9.9.9 "),
    ] {
        ensure!(set(&ops, path, value)? == 0, "{path}");
        running.wait_for(seen, limit).with_context(|| path)?;
    }
    for (path, value) in [
        ("/limits/nofile/hard", "76"),
        ("/net/hostname", "a b"),
        ("/cpu/count", "9"),
        ("/net/name_servers", r#"["x"]"#),
    ] {
        ensure!(set(&ops, path, value)? != 0, "{path} took {value}");
    }
    ensure!(
        get(&ops, "/limits/nofile/hard")? == "1048576",
        "a refused change changes nothing"
    );

    let old = get(&ops, "/environment")?;
    let new = old.replacen('{', r#"{"GREETING":"hello","#, 1);
    ensure!(set(&ops, "/environment", &new)? == 0, "{new}");
    let (head, body) = http(&ops, "POST /api/power", r#"{"action":"reboot"}"#)?;
    ensure!(head.contains(" 202 "), "{head}\n{body}");
    // The host's name and the limit were the old run's; the file and the environment are on the disk.
    let line = running.wait_for("greeting=hello", RUN_LIMIT)?;
    ensure!(
        line.contains("server=9.9.9.9") && !line.contains("web-7") && !line.contains("nofile=77"),
        "{line}"
    );
    Ok(())
}
