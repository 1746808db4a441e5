//! `ops get`, `set` and `watch`: values of a machine's information store.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use super::InstanceFlags;
use crate::cli::flags::GlobalFlags;
use crate::console::client::Node;
use crate::console::strace::printable;
use crate::console::watch::Watch;
use crate::output;

/// Prints a value of a running machine, or all values below a path.
#[derive(Debug, Args)]
pub struct GetCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// How deep to go below the path
    #[arg(short, long, value_name = "N", default_value_t = 16)]
    pub depth: u32,
    /// The path: /net/hostname, /memory
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: String,
}

impl GetCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<()> {
        let client = self.instance.client()?;
        if global.json {
            let path = format!(
                "{}?depth={}",
                crate::console::client::store(&self.path),
                self.depth
            );
            return output::json(&client.get(&path)?);
        }
        let node = client.node(&self.path, self.depth)?;
        if node.kind != "branch" {
            return output::line(shown(&node.value, node.unit.as_deref()));
        }
        print(&format!("/{}", self.path.trim_matches('/')), &node)
    }
}

/// A branch as lines `path = value`; one whose children were not asked for as `path/`.
fn print(path: &str, node: &Node) -> Result<()> {
    let path = path.trim_end_matches('/');
    match &node.children {
        Some(children) => {
            for (name, child) in children {
                let child: Node = serde_json::from_value(child.clone())
                    .with_context(|| format!("{path}/{name}: not a node of the store"))?;
                print(
                    &format!(
                        "{path}/{}",
                        crate::console::client::encoded(&name.replace('%', "%25"))
                    ),
                    &child,
                )?;
            }
            Ok(())
        }
        None if node.kind == "branch" => output::line(format!("{path}/")),
        None => output::line(format!(
            "{path} = {}",
            shown(&node.value, node.unit.as_deref())
        )),
    }
}

/// A value as people read it. Text comes from the machine: it may not command the terminal.
fn shown(value: &Value, unit: Option<&str>) -> String {
    match (value, unit) {
        (Value::String(text), _) => printable(text),
        (Value::Number(number), Some(unit)) => format!("{number} {unit}"),
        (other, _) => other.to_string(),
    }
}

/// Changes a value of a running machine.
#[derive(Debug, Args)]
pub struct SetCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// The path: /log/level
    #[arg(value_name = "PATH")]
    pub path: String,
    /// The new value; lists and maps as JSON
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub value: String,
}

impl SetCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<()> {
        let client = self.instance.client()?;
        let node = client.node(&self.path, 0)?;
        if node.kind == "branch" {
            bail!("{} is a branch: only values can be changed", self.path);
        }
        if !node.writable {
            bail!("{} can not be changed", self.path);
        }
        let value = parsed(&node, &self.value).with_context(|| {
            format!("{}: `{}` is not {}", self.path, self.value, expected(&node))
        })?;
        let now = client.set(&self.path, &value)?;
        if global.json {
            return output::json(&now.value);
        }
        output::line(shown(&now.value, now.unit.as_deref()))
    }
}

/// What was typed, as the node's type.
fn parsed(node: &Node, typed: &str) -> Result<Value> {
    Ok(match node.kind.as_str() {
        "bool" => match typed {
            "true" | "on" | "yes" | "1" => true.into(),
            "false" | "off" | "no" | "0" => false.into(),
            _ => bail!("write true or false"),
        },
        "size" => manifest::parse_size(typed)
            .context("write 512k or 2g")?
            .into(),
        "integer" | "duration" | "float" => {
            let value: Value = serde_json::from_str(typed).context("write a number")?;
            if !value.is_number() {
                bail!("write a number");
            }
            value
        }
        "list" | "map" => serde_json::from_str(typed).context("write JSON")?,
        _ => typed.into(),
    })
}

fn expected(node: &Node) -> String {
    match &node.choices {
        Some(choices) => {
            let words: Vec<String> = choices.iter().map(|c| shown(c, None)).collect();
            format!("one of {}", words.join(", "))
        }
        None => format!("a value of type {}", node.kind),
    }
}

/// Prints values of a running machine as they change.
#[derive(Debug, Args)]
pub struct WatchCommand {
    #[command(flatten)]
    pub instance: InstanceFlags,
    /// Look every so many milliseconds [default: 1000]
    #[arg(short, long, value_name = "MS")]
    pub period: Option<u64>,
    /// How deep to go below the path
    #[arg(short, long, value_name = "N", default_value_t = 16)]
    pub depth: u32,
    /// End after so many updates
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// The path
    #[arg(value_name = "PATH")]
    pub path: String,
}

impl WatchCommand {
    pub fn execute(self, global: &GlobalFlags) -> Result<()> {
        let client = self.instance.client()?;
        let period = Duration::from_millis(self.period.unwrap_or(1000).max(50));
        let path = format!("/{}", self.path.trim_matches('/'));
        let mut watch = Watch::start(&client, &path, self.depth, period)?;
        let mut seen = 0;
        while let Some(update) = watch.next()? {
            let stamp = format!("{}.{:03}", update.time_ms / 1000, update.time_ms % 1000);
            for (path, value) in &update.values {
                if global.json {
                    output::json(
                        &serde_json::json!({"time_ms": update.time_ms, "path": path, "value": value}),
                    )?;
                } else {
                    output::line(format!("{stamp} {path} = {}", shown(value, None)))?;
                }
            }
            for path in &update.gone {
                if global.json {
                    output::json(
                        &serde_json::json!({"time_ms": update.time_ms, "path": path, "gone": true}),
                    )?;
                } else {
                    output::line(format!("{stamp} {path} is gone"))?;
                }
            }
            seen += 1;
            if self.count.is_some_and(|count| seen >= count) {
                return Ok(());
            }
        }
        bail!("`{}` ended the connection", client.name())
    }
}
