//! Servers that people run: packaged by the tool out of the distribution's own packages, used by a client.
#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use e2e::{Ops, RUN_LIMIT, Running, free_port, http_fetch, http_get};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// Asks Redis in its inline form, until it answers.
fn redis(port: u16, command: &str) -> Result<String> {
    let end = Instant::now() + RUN_LIMIT;
    loop {
        let answer = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        match answer {
            Ok(answer) if !answer.is_empty() => return Ok(answer.replace("+OK\r\n", "")),
            _ => ensure!(Instant::now() < end, "no answer to {command}: {answer:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn load(ops: &Ops, more: &[&str]) -> Result<(Running, u16)> {
    let port = free_port()?;
    let forward = format!("{port}-{}", if more[0] == "redis" { 6379 } else { 80 });
    let running = ops.start(&[&["pkg", "load"], more, &["-p", &forward]].concat())?;
    Ok((running, port))
}

#[test]
fn redis_keeps_its_data_over_a_restart() -> Result<()> {
    let ops = Ops::with_shared_packages()?;
    let (running, port) = load(&ops, &["redis"])?;
    let answer = redis(port, "INCRBY counter 41")?;
    ensure!(answer == ":41\r\n", "{answer}");
    running.signal("INT")?;
    let output = running.wait(RUN_LIMIT)?;
    ensure!(output.code() == 0, "it ends by itself: {output:?}");
    ensure!(output.stdout.contains("bye bye"), "{output:?}");
    let (running, port) = load(&ops, &["redis", "-s"])?;
    let answer = redis(port, "INCR counter")?;
    ensure!(answer == ":42\r\n", "{answer}");
    running.signal("INT")?;
    running.wait(RUN_LIMIT)?;
    Ok(())
}

#[test]
fn nginx_serves_mapped_pages() -> Result<()> {
    let ops = Ops::with_shared_packages()?;
    let page: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    std::fs::create_dir(ops.folder().join("pages"))?;
    ops.write("pages/numbers.txt", &page)?;
    ops.write(
        "config.json",
        r#"{"MapDirs": {"pages/*": "/var/www/html"}}"#,
    )?;
    let (running, port) = load(&ops, &["nginx", "-c", "config.json"])?;
    let (status, body) = http_get(port, RUN_LIMIT)?;
    ensure!(
        status.ends_with("200 OK") && body.contains("nginx on nanos"),
        "{status} {body}"
    );
    let (_, body) = http_fetch(port, "/numbers.txt", RUN_LIMIT)?;
    ensure!(body == page, "{} bytes of {}", body.len(), page.len());
    running.signal("INT")?;
    running.wait(RUN_LIMIT)?;
    Ok(())
}
