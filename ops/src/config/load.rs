//! Finding and reading the configuration files, and putting their layers together.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::Config;
use super::strict::Strict;

/// Reads a configuration from JSON text. An error says `file:line:column` and the key.
pub fn parse(text: &[u8], name: &Path) -> Result<Config> {
    let place = |position: Option<(usize, usize)>| match position {
        Some((line, column)) => format!("{}:{line}:{column}", name.display()),
        None => name.display().to_string(),
    };
    let value =
        manifest::json::parse(text).map_err(|e| anyhow!("{}: {}", place(e.position), e.message))?;
    Config::deserialize(Strict(&value)).map_err(|e| {
        let path = e.path();
        let at = place(manifest::json::locate(text, &path, false));
        if path.is_empty() {
            anyhow!("{at}: {}", e.message)
        } else {
            anyhow!("{at}: key `{path}`: {}", e.message)
        }
    })
}

/// Reads a configuration file.
pub fn read(path: &Path) -> Result<Config> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = if env::var("ops_render_config").is_ok_and(|v| v == "true") {
        interpolate(&text, |name| env::var(name).unwrap_or_default())
    } else {
        text
    };
    parse(text.as_bytes(), path)
}

/// The layers below the flags: `$OPS_DEFAULT_CONFIG` or `~/.opsrc`, then the file given with `-c`.
pub fn layers(given: Option<&Path>) -> Result<Config> {
    let mut config = match default_file() {
        Some(path) => read(&path)?,
        None => Config::default(),
    };
    if let Some(path) = given {
        let own = read(path)?;
        config = config.overlaid_with(&own);
        if own.local_files_parent_directory.is_none() {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            config.local_files_parent_directory = Some(folder.to_string_lossy().into_owned());
        }
    }
    Ok(config)
}

fn default_file() -> Option<PathBuf> {
    if let Some(path) = env::var_os("OPS_DEFAULT_CONFIG").filter(|v| !v.is_empty()) {
        return Some(path.into());
    }
    let path = PathBuf::from(env::var_os("HOME")?).join(".opsrc");
    path.exists().then_some(path)
}

/// Replaces `$NAME` and `${NAME}`; a `$` before anything else stays.
fn interpolate(text: &str, value: impl Fn(&str) -> String) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some((name, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            out.push_str(&value(name));
            rest = after;
        } else {
            let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&value(name));
            }
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::interpolate;

    #[test]
    fn variables_in_the_text() {
        let f = |s| interpolate(s, |n| format!("<{n}>"));
        assert_eq!(f("a $X_1 b${Y}c $ $$Z 5$"), "a <X_1> b<Y>c $ $<Z> 5$");
        assert_eq!(f("${unclosed"), "${unclosed");
    }
}
