//! `ops core` and `ops capture`: what is saved into a file while it comes.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::InstanceFlags;
use crate::console::client::{Client, query};
use crate::output::{note, size};
use crate::progress;

/// Saves an ELF core file of the running program, which goes on. Read it with: gdb PROGRAM FILE.
#[derive(Debug, Args)]
pub struct CoreCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// The file; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "core")]
    pub output: PathBuf,
}

impl CoreCommand {
    pub fn execute(self) -> Result<()> {
        save(&self.instance.client()?, "/api/core", &self.output, "core")
    }
}

/// Captures a machine's packets into a pcapng file, which Wireshark and tcpdump read.
#[derive(Debug, Args)]
pub struct CaptureCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// The file; - is standard output, to be piped to: tcpdump -r -, wireshark -k -i -
    #[arg(short, long, value_name = "FILE", default_value = "capture.pcapng")]
    pub output: PathBuf,
    /// The interface: en1, lo
    #[arg(long, value_name = "NAME", default_value = "en1")]
    pub interface: String,
    /// End after so many seconds
    #[arg(short, long, value_name = "N")]
    pub seconds: Option<u64>,
    /// End after so many packets
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// Keep at most so many bytes of each packet
    #[arg(long, value_name = "BYTES")]
    pub snaplen: Option<u32>,
    /// Which packets: tcp and port 80, host 10.0.2.2, not arp
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
}

impl CaptureCommand {
    pub fn execute(self) -> Result<()> {
        fn some<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
            value.as_ref().map(|v| v as &dyn Display)
        }
        let filter = Some(self.filter.join(" ")).filter(|f| !f.is_empty());
        let path = format!(
            "/api/capture{}",
            query(&[
                ("interface", Some(&self.interface)),
                ("seconds", some(&self.seconds)),
                ("count", some(&self.count)),
                ("snaplen", some(&self.snaplen)),
                ("filter", some(&filter)),
            ])
        );
        let client = self.instance.client()?;
        if self.seconds.is_none() && self.count.is_none() && io::stderr().is_terminal() {
            note("capturing until Ctrl-C");
        }
        save(&client, &path, &self.output, "capture")
    }
}

/// Writes a stream into a file as it comes, so that what has come is there however it ends.
fn save(client: &Client, path: &str, to: &Path, what: &str) -> Result<()> {
    let standard = to == Path::new("-");
    if standard && io::stdout().is_terminal() {
        bail!("the {what} is not for a terminal: name a file with -o, or pipe it");
    }
    let mut stream = client.stream(path)?;
    let mut out: Box<dyn Write> = if standard {
        Box::new(io::stdout().lock())
    } else {
        Box::new(File::create(to).with_context(|| format!("cannot write {}", to.display()))?)
    };
    let progress = progress::spinner(what);
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let length = stream.read(&mut buffer).with_context(|| {
            format!(
                "`{}` broke off the {what} after {}",
                client.name(),
                size(total)
            )
        })?;
        if length == 0 {
            break;
        }
        out.write_all(&buffer[..length])
            .and_then(|()| out.flush())
            .with_context(|| format!("cannot write {}", to.display()))?;
        total += length as u64;
        progress.set_message(format!("{what}: {}", size(total)));
    }
    progress.finish_and_clear();
    if !standard {
        note(format!("{}: {}", to.display(), size(total)));
    }
    Ok(())
}
