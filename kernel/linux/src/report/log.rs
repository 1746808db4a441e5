//! `/log`: how much is logged, and from which level on.
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use log::LevelFilter;
use store::{Branch, Leaf, Value};

use crate::klog;

const LEVELS: [(LevelFilter, &str); 6] = [
    (LevelFilter::Off, "off"),
    (LevelFilter::Error, "error"),
    (LevelFilter::Warn, "warn"),
    (LevelFilter::Info, "info"),
    (LevelFilter::Debug, "debug"),
    (LevelFilter::Trace, "trace"),
];

fn name(level: LevelFilter) -> &'static str {
    LEVELS
        .iter()
        .find(|(known, _)| *known == level)
        .map_or("off", |(_, name)| name)
}

fn level(value: &Value) -> Result<LevelFilter, String> {
    let text = value.as_str().unwrap_or_default();
    let found = LEVELS.iter().find(|(_, name)| *name == text);
    found.map(|(level, _)| *level).ok_or_else(|| {
        format!(
            "a level is to be one of {}",
            LEVELS.map(|(_, name)| name).join(", ")
        )
    })
}

/// The kernel's log.
pub fn branch() -> Branch {
    Branch::new("The kernel's log.")
        .with(
            "level",
            Leaf::text(|| name(klog::level()))
                .help("From which level on messages are written.")
                .choices(LEVELS.map(|(_, name)| name))
                .writable(
                    |value| level(value).map(|_| ()),
                    |value| {
                        klog::set_level(level(value)?);
                        Ok(())
                    },
                ),
        )
        .with(
            "targets",
            Leaf::map(|| {
                klog::targets()
                    .into_iter()
                    .map(|(target, level)| (target, name(level).into()))
                    .collect()
            })
            .help("Targets (net, linux::mm, ...) with a level of their own.")
            .writable(
                |value| targets(value).map(|_| ()),
                |value| {
                    klog::set_targets(targets(value)?);
                    Ok(())
                },
            ),
        )
        .with(
            "lines",
            Leaf::count(|| klog::counts().0)
                .unit("messages")
                .help("Messages written since boot."),
        )
        .with(
            "dropped",
            Leaf::count(|| klog::counts().1)
                .unit("messages")
                .help("Messages that are not kept any more."),
        )
}

fn targets(value: &Value) -> Result<Vec<(String, LevelFilter)>, String> {
    let Value::Map(entries) = value else {
        return Err("it is to be an object of levels by target".into());
    };
    if entries.len() > klog::MAX_TARGETS {
        return Err(format!("there are more than {} targets", klog::MAX_TARGETS));
    }
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    entries
        .iter()
        .map(|(target, value)| {
            if target.is_empty() || target.len() > 64 || !target.chars().all(known) {
                return Err(format!("{target:?} is no target"));
            }
            Ok((target.clone(), level(value)?))
        })
        .collect()
}
