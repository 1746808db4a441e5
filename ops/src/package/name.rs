//! Package names as people write them: `python`, `python_3.11.2`, `ns/name:version`, `name:latest`.

use std::fmt;

use anyhow::{Result, bail};

/// A package name, as far as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Before the slash.
    pub namespace: Option<String>,
    /// The name proper.
    pub name: String,
    /// After the colon, or after an underscore and beginning like a number. `latest` counts as none.
    pub version: Option<String>,
}

impl Name {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self> {
        let (namespace, rest) = match text.split_once('/') {
            Some((namespace, rest)) => (Some(namespace.to_string()), rest),
            None => (None, text),
        };
        let (name, version) = match rest.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => match rest.rsplit_once('_') {
                Some((name, version)) if looks_like_version(version) => (name, Some(version)),
                _ => (rest, None),
            },
        };
        let plain =
            |s: &str| !s.is_empty() && !s.starts_with('.') && !s.contains(['/', ':', '\0', '\n']);
        let namespace_ok = namespace.as_deref().is_none_or(plain);
        if !plain(name) || !namespace_ok || !version.is_none_or(plain) {
            bail!(
                "`{text}` is not a package name: it should look like name, name_version or namespace/name:version"
            );
        }
        Ok(Name {
            namespace,
            name: name.to_string(),
            version: version.filter(|v| *v != "latest").map(str::to_string),
        })
    }

    /// Whether a version satisfies this name; one that does not match is tried with a `v` in front.
    pub fn allows(&self, version: &str) -> bool {
        self.version
            .as_deref()
            .is_none_or(|wanted| wanted == version || version.strip_prefix('v') == Some(wanted))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, ":{version}")?;
        }
        Ok(())
    }
}

fn looks_like_version(text: &str) -> bool {
    let digits = text.strip_prefix('v').unwrap_or(text);
    text == "latest" || digits.starts_with(|c: char| c.is_ascii_digit())
}

/// The nearest of some names, when one is near enough to be meant.
pub fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Option<String> {
    let lower = name.to_lowercase();
    among
        .map(|other| {
            (
                strsim::damerau_levenshtein(&lower, &other.to_lowercase()),
                other,
            )
        })
        .min()
        .filter(|(distance, other)| {
            *distance <= 1 + lower.len() / 4
                || other.starts_with(&lower)
                || lower.starts_with(other)
        })
        .map(|(_, other)| other.to_string())
}

/// The order of version texts: numbers by value, other parts by text.
pub fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        text.trim_start_matches('v')
            .split(['.', '-', '+', '~'])
            .map(|part| {
                let digits =
                    part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                (
                    part[..digits].parse().unwrap_or(0),
                    part[digits..].to_string(),
                )
            })
            .collect()
    };
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    fn read(text: &str) -> (Option<String>, String, Option<String>) {
        let n = Name::parse(text).unwrap();
        (n.namespace, n.name, n.version)
    }

    #[test]
    fn every_way_to_write_a_name() {
        let s = |t: &str| Some(t.to_string());
        assert_eq!(read("python"), (None, "python".into(), None));
        assert_eq!(read("python_3.11.2"), (None, "python".into(), s("3.11.2")));
        assert_eq!(
            read("eyberg/node:v16"),
            (s("eyberg"), "node".into(), s("v16"))
        );
        assert_eq!(read("python:latest"), (None, "python".into(), None));
        assert_eq!(read("python_latest"), (None, "python".into(), None));
        assert_eq!(read("my_tool"), (None, "my_tool".into(), None));
        assert_eq!(read("my_tool_v2"), (None, "my_tool".into(), s("v2")));
        for bad in [
            "", "/", "a/", "/a", "a:", "..", "a/../b", "a/b/c", ".x", "a:b:c",
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions() {
        let n = Name::parse("node:16.5").unwrap();
        assert!(n.allows("16.5") && n.allows("v16.5") && !n.allows("16.5.1"));
        assert!(Name::parse("node").unwrap().allows("anything"));
        assert_eq!(compare_versions("3.9.1", "3.11.2"), Ordering::Less);
        assert_eq!(compare_versions("v2", "1.9"), Ordering::Greater);
        assert_eq!(compare_versions("1.0", "1.0"), Ordering::Equal);
        assert_eq!(compare_versions("1.0rc1", "1.0"), Ordering::Greater);
    }

    #[test]
    fn suggestions() {
        let names = ["python", "busybox"];
        assert_eq!(
            nearest("pyton", names.into_iter()).as_deref(),
            Some("python")
        );
        assert_eq!(
            nearest("python3", names.into_iter()).as_deref(),
            Some("python")
        );
        assert_eq!(
            nearest("busibox", names.into_iter()).as_deref(),
            Some("busybox")
        );
        assert_eq!(nearest("ruby", names.into_iter()), None);
    }
}
