//! `/environment` of the information store: the environment that the program gets at the next start of the machine, in
//! the manifest on the boot disk.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use drivers::block::{BlockDevice, Partition};
use manifest::{FW_CFG_NAME, parse_layers, with_environment};
use store::{Leaf, Value};

use crate::disk;

/// Where the manifest lies, and what lies over it: the same at each start.
#[derive(Clone)]
struct Layers {
    disk: Partition,
    /// The environment as it stands on the disk, once it was looked at: nobody else changes it.
    known: Arc<sched::Mutex<Option<Variables>>>,
}

type Variables = BTreeMap<String, String>;

/// The environment of the next start.
pub fn leaf(disk: &Partition) -> Leaf {
    let layers = Layers {
        disk: disk.clone(),
        known: Arc::new(sched::Mutex::new(None)),
    };
    let (checks, applies) = (layers.clone(), layers.clone());
    let leaf = Leaf::map(move || {
        let variables = layers.read().unwrap_or_else(|error| {
            log::warn!("the environment of the next start: {error}");
            Variables::new()
        });
        variables
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect()
    });
    leaf.not_logged()
        .help("The program's environment at the next start of the machine, as it is on the boot disk. It is set as a whole.")
        .writable(
            move |value| checks.text_with(&variables(value)?).map(|_| ()),
            move |value| {
                let variables = variables(value)?;
                let text = applies.text_with(&variables)?;
                disk::replace_manifest(&applies.disk, &text)
                    .map_err(|error| format!("the boot disk: {error}"))?;
                *applies.known.lock() = Some(variables);
                Ok(())
            },
        )
}

fn variables(value: &Value) -> Result<Variables, String> {
    let Value::Map(entries) = value else {
        return Err("it is to be an object of strings by name".into());
    };
    let variable = |(name, value): &(String, Value)| {
        let value = value
            .as_str()
            .ok_or_else(|| format!("{name} is to be a string"))?;
        Ok((name.clone(), value.to_string()))
    };
    entries.iter().map(variable).collect()
}

fn over() -> (Option<Vec<u8>>, &'static str) {
    let Some(boot) = machine::boot::info() else {
        return (None, "");
    };
    let over = boot
        .fw_cfg
        .as_ref()
        .and_then(|fw_cfg| fw_cfg.file(FW_CFG_NAME));
    (over, &boot.command_line)
}

impl Layers {
    fn text(&self) -> Result<Vec<u8>, String> {
        disk::manifest_text(&self.disk).map_err(|error| format!("{error}"))
    }

    fn read(&self) -> Result<Variables, String> {
        let mut known = self.known.lock();
        if let Some(variables) = &*known {
            return Ok(variables.clone());
        }
        let (over, words) = over();
        let manifest = parse_layers(&self.text()?, over.as_deref(), words)
            .map_err(|error| format!("{error}"))?;
        *known = Some(manifest.environment.clone());
        Ok(manifest.environment)
    }

    /// The text with that environment.
    fn text_with(&self, variables: &Variables) -> Result<Vec<u8>, String> {
        if self.disk.read_only() {
            return Err("the boot disk cannot be written".into());
        }
        let (over, words) = over();
        let text = with_environment(&self.text()?, over.as_deref(), words, variables)?;
        disk::check_room(&self.disk, text.len()).map_err(|error| format!("{error}"))?;
        Ok(text)
    }
}
