//! The environment of the next start: changing it in the disk's layer so that what holds after merging is what was
//! wanted.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value};

use crate::{json, parse_layers};

/// The text of the disk's layer with another environment, such that the merged manifest's is `wanted`.
///
/// # Errors
/// One sentence: a name that cannot be one, a variable that a layer above the disk's sets otherwise, a layer that is
/// damaged.
pub fn with_environment(
    disk: &[u8],
    fw_cfg: Option<&[u8]>,
    cmdline: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    for (name, value) in wanted {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("{name:?} is no variable"));
        }
    }
    let mut tree = json::parse(disk).map_err(|error| format!("{error}"))?;
    let object = tree
        .as_object_mut()
        .ok_or("the disk's manifest is no object")?;
    let environment = wanted
        .iter()
        .map(|(name, value)| (name.clone(), Value::String(value.clone())));
    object.insert(
        "environment".into(),
        Value::Object(environment.collect::<Map<_, _>>()),
    );
    let text = serde_json::to_vec(&tree).map_err(|error| format!("{error}"))?;
    let holds = parse_layers(&text, fw_cfg, cmdline)
        .map_err(|error| format!("{error}"))?
        .environment;
    let other = wanted
        .keys()
        .chain(holds.keys())
        .find(|name| holds.get(*name) != wanted.get(*name));
    match other {
        Some(name) => Err(format!(
            "{name} is set for this run by what started the machine"
        )),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &[u8] = br#"{"program":"/bin/p","environment":{"A":"1","B":"2"},"hostname":"h"}"#;

    fn set(
        over: Option<&str>,
        wanted: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>, String> {
        let wanted = wanted
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        let over = over.map(str::as_bytes);
        let text = with_environment(DISK, over, "", &wanted)?;
        let manifest = parse_layers(&text, over, "").unwrap();
        assert_eq!(
            (&*manifest.program, manifest.hostname.as_deref()),
            ("/bin/p", Some("h"))
        );
        Ok(manifest.environment)
    }

    #[test]
    fn what_is_wanted_holds_after_the_layers_above() {
        let changed = set(None, &[("A", "3"), ("C", "é\"\n")]).unwrap();
        assert_eq!(changed["A"], "3");
        assert_eq!(changed["C"], "é\"\n");
        assert!(!changed.contains_key("B"));
        assert!(set(None, &[]).unwrap().is_empty());
        let over = Some(r#"{"environment":{"A":"9"}}"#);
        assert_eq!(set(over, &[("A", "9"), ("C", "1")]).unwrap().len(), 2);
        assert!(
            set(over, &[("A", "3")])
                .unwrap_err()
                .starts_with("A is set")
        );
        assert!(
            set(over, &[("C", "3")])
                .unwrap_err()
                .starts_with("A is set")
        );
        let over = Some(r#"{"environment":{"A":null}}"#);
        assert!(
            set(over, &[("A", "3")])
                .unwrap_err()
                .starts_with("A is set")
        );
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for bad in [("", "1"), ("A=B", "1"), ("A", "1\0"), ("A\0", "1")] {
            assert!(set(None, &[bad]).is_err(), "{bad:?}");
        }
        assert!(with_environment(b"[]", None, "", &BTreeMap::new()).is_err());
        assert!(with_environment(b"\xff", None, "", &BTreeMap::new()).is_err());
    }
}
