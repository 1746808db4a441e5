//! A program with very many threads and areas of memory, looked at by itself and through the console: what is too much for an
//! answer is refused, and nothing breaks.
#![forbid(unsafe_code)]

#[path = "../../../kernel/console/tests/common/client.rs"]
#[allow(dead_code, reason = "the console's own tests use more of it")]
mod client;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use client::Client;
use e2e::{Ops, RUN_LIMIT, programs};

/// In `many.c`.
const THREADS: usize = 12_000;
const AREAS: usize = 40_000;

#[test]
fn what_is_too_much_for_an_answer_is_refused() -> Result<()> {
    let program = programs::c("many", &["-static"])?;
    let ops = Ops::new()?;
    let path = program.to_str().context("a path of text")?;
    let mut running = ops.start(&["run", path, "--console"])?;
    let said = running.wait_for("many: ", RUN_LIMIT)?;
    // A line for each in `maps`, and more than ten in `smaps`, with those of the threads' stacks.
    let lines: usize = said.split(' ').nth(1).context("a number")?.parse()?;
    ensure!(lines > 11 * (AREAS + THREADS), "{said}");
    let link = ops.link()?;
    let console = SocketAddr::from((Ipv4Addr::LOCALHOST, link.port));
    let status = |path: &str| Client::new(console, &link.token).get(path).status;
    for (path, expected) in [
        ("/api/maps", 413),
        ("/api/threads", 413),
        ("/api/store/threads?depth=2", 413),
        ("/api/store/threads?depth=1", 200),
        ("/api/store/threads/count", 200),
        ("/healthz", 200),
    ] {
        let status = status(path);
        ensure!(status == expected, "{path}: {status}");
    }
    let threads = Client::new(console, &link.token).get("/api/store/threads/count");
    let count = threads.json()["value"].as_u64().context("a number")?;
    ensure!(count >= THREADS as u64, "{count}");
    running.signal("TERM")?;
    let output = running.wait(RUN_LIMIT)?;
    ensure!(!output.stdout.contains("panic"), "{}", output.stdout);
    Ok(())
}
