//! `ops trace`: system calls of a running machine as they happen.

use std::fmt::Display;
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};
use clap::Args;

use super::InstanceFlags;
use crate::cli::flags::GlobalFlags;
use crate::console::client::query;
use crate::console::strace::Line;
use crate::output;

/// Shows system calls live, in strace's format; with -j as JSON, a line each.
#[derive(Debug, Args)]
pub struct TraceCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// Only these calls, by name or %class: openat,%network
    #[arg(short, long, value_name = "NAME,...")]
    pub expression: Option<String>,
    /// Only this thread
    #[arg(short = 'p', long, value_name = "ID")]
    pub thread: Option<u64>,
    /// Only calls with a path that contains this
    #[arg(short = 'P', long, value_name = "TEXT")]
    pub path: Option<String>,
    /// Only calls that fail with this error: ENOENT
    #[arg(long, value_name = "NAME")]
    pub errno: Option<String>,
    /// Only calls that take at least so many microseconds
    #[arg(long, value_name = "N")]
    pub min_us: Option<u64>,
    /// End after so many calls
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(short, long, value_name = "N")]
    pub seconds: Option<u64>,
}

impl TraceCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<()> {
        fn some<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
            value.as_ref().map(|v| v as &dyn Display)
        }
        let client = self.instance.client()?;
        let stream = client.stream(&format!(
            "/api/trace{}",
            query(&[
                ("name", some(&self.expression)),
                ("thread", some(&self.thread)),
                ("path", some(&self.path)),
                ("errno", some(&self.errno)),
                ("min_us", some(&self.min_us)),
                ("count", some(&self.count)),
                ("seconds", some(&self.seconds)),
            ])
        ))?;
        for line in BufReader::new(stream).lines() {
            let line = line.with_context(|| format!("`{}` broke off the trace", client.name()))?;
            if line.is_empty() {
                continue;
            }
            if global.json {
                output::line(&line)?;
                continue;
            }
            match serde_json::from_str(&line)
                .context("the machine sent something else than a traced call")?
            {
                Line::Call(call) => output::line(call.text())?,
                Line::Dropped { dropped } => {
                    output::line(format!(
                        "... {dropped} calls are missing: too many for this connection"
                    ))?;
                }
            }
        }
        Ok(())
    }
}
