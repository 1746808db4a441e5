//! Looking into a machine that runs, through its console: `ops console`, `top`, `trace`, `profile`, `core`, `capture`, `get`,
//! `set`, `watch`. How a machine gets a console is in `launch`.

pub mod profile;
pub mod save;
pub mod top;
pub mod trace;
pub mod values;

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::flags::GlobalFlags;
use crate::console::client::Client;
use crate::home::Home;
use crate::hypervisor::run::in_path;
use crate::instance::{self, Record};
use crate::output;

/// Which machine.
#[derive(Debug, Clone, Default, Args)]
pub struct InstanceFlags {
    /// Name of the machine, or the id of its process [default: the newest]
    #[arg(short, long, value_name = "NAME")]
    pub instance: Option<String>,
}

impl InstanceFlags {
    fn record(&self) -> Result<Record> {
        instance::find(&Home::find()?, self.instance.as_deref())
    }

    fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.record()?))
    }
}

/// Prints the link that opens the console of a running machine.
#[derive(Debug, Args)]
pub struct ConsoleCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// Open it in the browser
    #[arg(short, long)]
    pub open: bool,
}

impl ConsoleCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<()> {
        let record = self.instance.record()?;
        let link = record.console.link();
        if self.open {
            let browser = in_path("xdg-open").context(
                "there is no xdg-open to open a browser with; the link is printed without --open",
            )?;
            let status = Command::new(browser).arg(&link).status()?;
            if !status.success() {
                bail!("xdg-open could not open the browser ({status})");
            }
            return Ok(());
        }
        if global.json {
            return output::json(&serde_json::json!({
                "instance": record.instance,
                "pid": record.pid,
                "url": format!("http://127.0.0.1:{}", record.console.port),
                "token": record.console.token,
                "link": link,
            }));
        }
        output::line(link)
    }
}
