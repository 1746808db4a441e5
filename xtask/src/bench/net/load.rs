//! The load and its figures: wrk for requests, iperf3 for bulk, and what the measured server counts itself.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The measured server's port.
const PORT: u16 = 8000;

/// How long all connections may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a load came to.
#[derive(Debug)]
pub struct Loaded {
    /// Requests per second while all connections were open.
    pub rate: f64,
    /// What wrk saw fail: connects, reads, writes, timeouts, answers other than 200.
    pub errors: u64,
}

/// Requests served so far and connections open now, this one among them, as the server at `address` says.
pub fn count(address: &str) -> Result<(u64, u64)> {
    let address: SocketAddr = SocketAddr::new(address.parse()?, PORT);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /count HTTP/1.1\r\n\r\n")?;
    let mut answer = Vec::new();
    let body = loop {
        let mut bytes = [0; 256];
        match stream.read(&mut bytes)? {
            0 => bail!("the server hung up"),
            size => answer.extend_from_slice(&bytes[..size]),
        }
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && body.ends_with('\n')
        {
            break body.to_owned();
        }
    };
    let mut numbers = body.split_whitespace();
    let mut next = || -> Result<u64> { Ok(numbers.next().context("a number")?.parse()?) };
    Ok((next()?, next()?))
}

/// Requests over `connections` connections that stay open, for `seconds` from when all are.
pub fn requests(address: &str, connections: u32, seconds: u32) -> Result<Loaded> {
    let wrk = Wrk::start(address, "", connections)?;
    wrk.wait_for(address, connections)?;
    let (before, since) = (count(address)?.0, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds.into()));
    let (after, took) = (count(address)?.0, since.elapsed());
    let report = wrk.finish()?;
    Ok(Loaded {
        rate: (after - before) as f64 / took.as_secs_f64(),
        errors: errors(&report),
    })
}

/// Connections, each closed by the server after one request.
pub fn setups(address: &str, seconds: u32) -> Result<Loaded> {
    let wrk = Wrk::start(address, "close", 64)?;
    std::thread::sleep(Duration::from_millis(300));
    let (before, since) = (count(address)?.0, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds.into()));
    let (after, took) = (count(address)?.0, since.elapsed());
    let report = wrk.finish()?;
    Ok(Loaded {
        rate: (after - before) as f64 / took.as_secs_f64(),
        errors: errors(&report),
    })
}

/// Instructions for each request over `connections` connections; `counter` is where the machine counts.
pub fn cost(address: &str, connections: u32, seconds: u32, counter: &Path) -> Result<f64> {
    let wrk = Wrk::start(address, "", connections)?;
    wrk.wait_for(address, connections)?;
    let read = || -> Result<(u64, u64)> {
        let (served, _) = count(address)?;
        let bytes = std::fs::read(counter)?;
        let executed = u64::from_ne_bytes(bytes[..].try_into().context("a count of eight bytes")?);
        Ok((served, executed))
    };
    let before = read()?;
    std::thread::sleep(Duration::from_secs(seconds.into()));
    let after = read()?;
    wrk.finish()?;
    if after.0 == before.0 {
        bail!("nothing was served");
    }
    Ok((after.1 - before.1) as f64 / (after.0 - before.0) as f64)
}

/// Gbit/s of one stream of iperf3; `reverse`: the guest sends.
pub fn bulk(address: &str, reverse: bool, seconds: u32) -> Result<f64> {
    let mut command = Command::new("timeout");
    let (limit, seconds) = ((seconds + 15).to_string(), seconds.to_string());
    command.args([&limit, "iperf3"]);
    // What is left out at the start is the connection's slow start.
    command.args(["-c", address, "-t", &seconds, "-O", "1", "-f", "m"]);
    if reverse {
        command.arg("-R");
    }
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = text
        .lines()
        .find(|line| line.ends_with("receiver"))
        .and_then(|line| line.split(" Mbits/sec").next()?.split_whitespace().last())
        .and_then(|word| word.parse::<f64>().ok());
    let rate = rate.with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("iperf3 printed no rate: {text}{errors}")
    })?;
    Ok(rate / 1000.0)
}

/// A running wrk.
struct Wrk {
    child: Child,
}

impl Wrk {
    fn start(address: &str, path: &str, connections: u32) -> Result<Wrk> {
        let child = Command::new("wrk")
            .args(["-t1", "-d120s", "--timeout", "10s"])
            .arg(format!("-c{connections}"))
            .arg(format!("http://{address}:{PORT}/{path}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting wrk")?;
        Ok(Wrk { child })
    }

    /// Waits until the server has all connections.
    fn wait_for(&self, address: &str, connections: u32) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut open = 0;
        while Instant::now() < until {
            if let Ok((_, now)) = count(address) {
                open = now.saturating_sub(1);
                if open >= u64::from(connections) {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("only {open} of {connections} connections came about")
    }

    /// Ends the load; an interrupted wrk reports as at its end.
    fn finish(mut self) -> Result<String> {
        Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status()?;
        let mut text = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut text)?;
        }
        if !self.child.wait()?.success() || !text.contains("Requests/sec:") {
            bail!("wrk printed no rate: {text}");
        }
        Ok(text)
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The errors in wrk's report.
fn errors(report: &str) -> u64 {
    let of_line = |line: &str| -> u64 {
        line.split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse::<u64>().ok())
            .sum()
    };
    report
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("Socket errors:") {
                Some(of_line(rest))
            } else {
                line.strip_prefix("Non-2xx or 3xx responses:").map(of_line)
            }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::errors;

    #[test]
    fn errors_of_wrk_are_summed() {
        let report = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n\
                      \x20 Non-2xx or 3xx responses: 50000\nRequests/sec: 7";
        assert_eq!(errors(report), 54_321);
        assert_eq!(errors("Requests/sec: 7"), 0);
    }
}
