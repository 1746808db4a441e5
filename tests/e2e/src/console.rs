//! Where the console of a running machine is, from the private record that the tool keeps of it.

use crate::Ops;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How to reach a console.
#[derive(Debug, Clone)]
pub struct Link {
    /// The port of 127.0.0.1.
    pub port: u16,
    /// The token that every request shows.
    pub token: String,
}

impl Ops {
    /// The console of the one machine that runs.
    pub fn link(&self) -> Result<Link> {
        let folder = self.tree().join("instances");
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let mut entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let record = entries
                .next()
                .and_then(|entry| std::fs::read(entry.path()).ok())
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            if let Some(record) = record {
                let console = &record["console"];
                let port = console["port"].as_u64().context("no port in the record")?;
                let token = console["token"].as_str();
                return Ok(Link {
                    port: u16::try_from(port)?,
                    token: token.context("no token in the record")?.to_owned(),
                });
            }
            ensure!(Instant::now() < end, "no record of the machine's console");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
