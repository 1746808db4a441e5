//! `ops profile`: where a running machine spends its time. Without anything to say about a machine, the report about this
//! host that the command has always printed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::InstanceFlags;
use crate::cli::flags::GlobalFlags;
use crate::cli::version;
use crate::console::client::query;
use crate::console::flame::Tree;
use crate::console::strace::printable;
use crate::output::{self, note};
use crate::progress;

/// How many functions the table has.
const FUNCTIONS: usize = 25;

/// What a profile is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table of functions
    Table,
    /// A flame graph that a browser shows
    Svg,
    /// A line for each stack with its count
    Folded,
    /// For `go tool pprof`
    Pprof,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Pprof => "pprof",
            Format::Table | Format::Svg | Format::Folded => "folded",
        }
    }

    /// The format that a file's name asks for.
    fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()? {
            "svg" => Some(Format::Svg),
            "folded" | "txt" => Some(Format::Folded),
            "pb" | "pprof" | "gz" => Some(Format::Pprof),
            _ => None,
        }
    }
}

/// Samples a running machine's CPUs: a table of functions, or with -o a flame graph or a pprof file. Without any flag,
/// prints what matters about this host for a report.
#[derive(Debug, Args)]
pub struct ProfileCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// The file: flame.svg, stacks.folded, profile.pb
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How long to sample [default: 5]
    #[arg(short, long, value_name = "N")]
    pub seconds: Option<u32>,
    /// Samples each second on each CPU [default: 99]
    #[arg(long, value_name = "N")]
    pub hz: Option<u32>,
    /// What to write, where the file's name does not tell
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

impl ProfileCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<()> {
        let asked = self.instance.instance.is_some()
            || self.output.is_some()
            || self.seconds.is_some()
            || self.hz.is_some()
            || self.format.is_some();
        if !asked {
            return version::profile();
        }
        let format = match (self.format, &self.output) {
            (Some(format), _) => format,
            (None, None) => Format::Table,
            (None, Some(path)) => Format::of(path).with_context(|| {
                format!(
                    "{}: which format? Name it .svg, .folded or .pb, or give --format",
                    path.display()
                )
            })?,
        };
        let seconds = self.seconds.unwrap_or(5);
        let hz = self.hz.unwrap_or(99);
        let client = self.instance.client()?;
        let path = format!(
            "/api/profile{}",
            query(&[
                ("seconds", Some(&seconds)),
                ("hz", Some(&hz)),
                ("format", Some(&format.name())),
            ])
        );
        let progress = progress::spinner(&format!("sampling `{}` for {seconds} s", client.name()));
        let mut bytes = Vec::new();
        client
            .stream(&path)?
            .read_to_end(&mut bytes)
            .with_context(|| format!("`{}` broke off the profile", client.name()))?;
        progress.finish_and_clear();
        let tree = Tree::parse(&String::from_utf8_lossy(&bytes));
        let bytes = match format {
            Format::Table => return table(&tree, global),
            Format::Svg => {
                if tree.samples() == 0 {
                    bail!("no sample: every CPU of `{}` was idle", client.name());
                }
                let title = format!(
                    "{}: {} samples in {seconds} s",
                    client.name(),
                    tree.samples()
                );
                tree.svg(&title).into_bytes()
            }
            Format::Folded | Format::Pprof => bytes,
        };
        match &self.output {
            Some(path) => {
                fs::write(path, bytes)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                note(format!("{} is written", path.display()));
                Ok(())
            }
            None if format == Format::Pprof => {
                bail!("a pprof file is not for a terminal: name a file with -o")
            }
            None => output::line(String::from_utf8_lossy(&bytes).trim_end()),
        }
    }
}

fn table(tree: &Tree, global: &GlobalFlags) -> Result<()> {
    let all = tree.samples();
    let functions = tree.functions();
    if global.json {
        let rows: Vec<_> = functions
            .iter()
            .map(|f| serde_json::json!({"function": f.name, "own": f.own, "total": f.total}))
            .collect();
        return output::json(&serde_json::json!({"samples": all, "functions": rows}));
    }
    if all == 0 {
        return output::line("no sample: every CPU was idle");
    }
    let share = |n: u64| format!("{:.1} %", n as f64 * 100.0 / all as f64);
    let rows = functions
        .into_iter()
        .take(FUNCTIONS)
        .map(|f| vec![share(f.own), share(f.total), printable(&f.name)])
        .collect();
    output::table(&["Own", "With callees", "Function"], rows)
}
