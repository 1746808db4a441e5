//! The console of one run: its token, its port, how both reach the kernel, and the record by which `ops console` and its kin
//! find the machine.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::flags::RunFlags;
use super::launch;
use crate::config::Config;
use crate::home::Home;
use crate::hypervisor::ports::{Forward, Protocol};
use crate::instance::{self, Registered};
use crate::output::note;
use crate::package::apt::hex;

/// The port inside the machine, unless the program is reached there.
const GUEST_PORT: u16 = 9090;

/// What one run's console is.
#[derive(Debug)]
pub struct Console {
    host: u16,
    guest: u16,
    token: String,
    read_only: bool,
}

impl Console {
    /// The console that the flags ask for: with a token made now, and a port of this host that is free.
    pub fn prepare(flags: &RunFlags, config: &Config) -> Result<Option<Console>> {
        let Some(wanted) = flags.console else {
            return Ok(None);
        };
        if config.run().tap_name.is_some_and(|t| !t.is_empty()) {
            bail!(
                "--console needs a port that is forwarded, which --tapname has not: put `console` into ManifestPassthrough, \
                 and see docs/console.md about who may reach it"
            );
        }
        let forwards = launch::forwards(config)?;
        if forwards
            .iter()
            .any(|f| f.host == wanted && f.protocol == Protocol::Tcp)
        {
            bail!("port {wanted} can not both be forwarded to the program and serve the console");
        }
        let guest = (GUEST_PORT..=u16::MAX)
            .find(|port| !forwards.iter().any(|f| f.guest == *port))
            .context("the program takes every port")?;
        Ok(Some(Console {
            host: free(wanted)?,
            guest,
            token: token()?,
            read_only: flags.console_read_only,
        }))
    }

    /// Lays the console over what the manifest gets for this run: it is not in the image.
    pub fn hand_over(&self, patch: &mut Option<Value>) {
        let patch = patch.get_or_insert_with(|| Value::Object(Map::new()));
        patch["console"] = json!({
            "port": self.guest,
            "token": self.token,
            "read_only": self.read_only,
        });
    }

    /// The host's port that leads to it.
    pub fn forward(&self) -> Forward {
        Forward {
            protocol: Protocol::Tcp,
            address: Ipv4Addr::LOCALHOST,
            host: self.host,
            guest: self.guest,
        }
    }

    /// Leaves the machine's record and says where the console is.
    pub fn register(self, home: &Home, image: &Path, config: &Config) -> Result<Registered> {
        let name = image
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let run = config.run();
        let ports = run
            .ports
            .into_iter()
            .chain(run.udp_ports)
            .flatten()
            .collect();
        let console = instance::Console {
            port: self.host,
            token: self.token,
        };
        let link = console.link();
        let registered = instance::register(home, &name, ports, console)?;
        note(format!("console of `{}`: {link}", registered.name));
        Ok(registered)
    }
}

/// The port wanted, or where that is 0 one that is free now.
fn free(wanted: u16) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .with_context(|| format!("port {wanted} is taken: give --console another"))?;
    Ok(listener.local_addr()?.port())
}

/// 256 random bits.
fn token() -> Result<String> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
                .context("no random numbers for a token")?;
    }
    Ok(hex(&bytes))
}
