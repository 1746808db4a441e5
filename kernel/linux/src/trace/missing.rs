//! The files that the program looked for and did not find (manifest key `missing_files`), listed at its end.
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use machine::sync::SpinLock;

/// The most names kept.
const MAX_NAMES: usize = 4096;

static NAMES: SpinLock<BTreeSet<Vec<u8>>> = SpinLock::new(BTreeSet::new());

/// Remembers a path that was not there.
pub(super) fn record(path: Vec<u8>) {
    let mut names = NAMES.lock();
    if names.len() < MAX_NAMES {
        names.insert(path);
    }
}

/// The paths so far, in order.
pub fn list() -> Vec<String> {
    let names: Vec<Vec<u8>> = NAMES.lock().iter().cloned().collect();
    names
        .iter()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// The list as it is printed at the program's end.
pub fn report() -> String {
    let mut out = String::from("missing_files_begin\n");
    for name in list() {
        out.push_str(&name);
        out.push('\n');
    }
    out.push_str("missing_files_end\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_listed_once() {
        for name in ["/b", "/a", "/b"] {
            record(name.as_bytes().to_vec());
        }
        assert_eq!(report(), "missing_files_begin\n/a\n/b\nmissing_files_end\n");
    }
}
