//! The loader's cache `/etc/ld.so.cache`, new format: which file serves a library name. Reading the host's, and writing
//! one for an image.
//!
//! Layout (glibc's `dl-cache.h`): a 48-byte header `glibc-ld.so.cache1.1`, entries of 24 bytes (flags, offset of the
//! name, offset of the path, OS version, hardware capabilities), then strings. Older caches have a first part in the old
//! format before it.

use std::cmp::Ordering;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0\0";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// The flags of a 64-bit x86 library for the ELF version of libc 6.
const X86_64_LIBC6: u32 = 0x0303;
/// The header's byte-order mark.
const LITTLE_ENDIAN: u8 = 2;
/// Set in the capabilities word of an entry from a `glibc-hwcaps` folder.
const HWCAP_EXTENSION: u64 = 1 << 62;

/// The entries for this architecture, in the cache's order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cache {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    path: String,
    hwcap: u64,
}

impl Cache {
    /// Reads a cache file's bytes. What is not such a cache, or is damaged, gives the entries that could be read.
    pub fn parse(bytes: &[u8]) -> Cache {
        let entries = Self::start(bytes)
            .and_then(|base| Self::entries(&bytes[base..]))
            .unwrap_or_default();
        Cache { entries }
    }

    /// Where the new format begins: offsets of its strings count from there.
    fn start(bytes: &[u8]) -> Option<usize> {
        if bytes.starts_with(MAGIC) {
            return Some(0);
        }
        let rest = bytes.strip_prefix(OLD_MAGIC)?;
        let count = u32_at(rest, 0)? as usize;
        let start = (16 + count.checked_mul(12)?).next_multiple_of(8);
        bytes.get(start..)?.starts_with(MAGIC).then_some(start)
    }

    fn entries(bytes: &[u8]) -> Option<Vec<Entry>> {
        let count = u32_at(bytes, 20)? as usize;
        let table = bytes.get(HEADER..)?;
        let mut out = Vec::new();
        for entry in table.chunks_exact(ENTRY).take(count) {
            if u32_at(entry, 0)? != X86_64_LIBC6 {
                continue;
            }
            let hwcap = u64::from_le_bytes(entry[16..24].try_into().ok()?);
            if let (Some(name), Some(path)) = (
                string_at(bytes, u32_at(entry, 4)?),
                string_at(bytes, u32_at(entry, 8)?),
            ) {
                out.push(Entry { name, path, hwcap });
            }
        }
        Some(out)
    }

    /// The path for a library name. The plain variant: what the guest's processor has is not known here.
    pub fn find(&self, name: &str) -> Option<&str> {
        let plain = |e: &&Entry| e.name == name && e.hwcap & HWCAP_EXTENSION == 0;
        self.entries.iter().find(plain).map(|e| e.path.as_str())
    }
}

/// Writes a cache of these names and paths, each name once.
pub fn encode(libraries: &[(String, String)]) -> Vec<u8> {
    let mut libraries = libraries.to_vec();
    // The loader searches by halving and expects descending order.
    libraries.sort_by(|a, b| compare(b.0.as_bytes(), a.0.as_bytes()));
    libraries.dedup_by(|a, b| a.0 == b.0);
    let base = HEADER + libraries.len() * ENTRY;
    let mut strings: Vec<u8> = Vec::new();
    let mut entries: Vec<u8> = Vec::new();
    for (name, path) in &libraries {
        entries.extend(X86_64_LIBC6.to_le_bytes());
        for text in [name, path] {
            entries.extend(((base + strings.len()) as u32).to_le_bytes());
            strings.extend(text.as_bytes());
            strings.push(0);
        }
        entries.extend([0; 12]);
    }
    let mut out = MAGIC.to_vec();
    out.extend((libraries.len() as u32).to_le_bytes());
    out.extend((strings.len() as u32).to_le_bytes());
    out.push(LITTLE_ENDIAN);
    out.resize(HEADER, 0);
    out.extend(entries);
    out.extend(strings);
    out
}

/// The order of glibc's `_dl_cache_libcmp`: runs of digits compare as numbers and go before other bytes.
fn compare(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let number = |text: &mut &[u8]| {
        let digits = text.iter().take_while(|c| c.is_ascii_digit()).count();
        let value = text[..digits].iter().fold(0u32, |n, c| {
            n.wrapping_mul(10).wrapping_add(u32::from(c - b'0'))
        });
        *text = &text[digits..];
        value
    };
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(x), y) => {
                let digits = (x.is_ascii_digit(), y.is_some_and(u8::is_ascii_digit));
                let order = match digits {
                    (true, true) => number(&mut a).cmp(&number(&mut b)),
                    (true, false) => return Ordering::Greater,
                    (false, true) => return Ordering::Less,
                    (false, false) => {
                        let order = Some(x).cmp(&y);
                        a = &a[1..];
                        b = b.get(1..).unwrap_or_default();
                        order
                    }
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    word.try_into().ok().map(u32::from_le_bytes)
}

fn string_at(bytes: &[u8], at: u32) -> Option<String> {
    let rest = bytes.get(at as usize..)?;
    let end = rest.iter().take(4096).position(|&b| b == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let strings = b"liba.so.1\0/lib/liba.so.1\0/lib/glibc-hwcaps/x86-64-v3/liba.so.1\0libb.so\0/x/libb.so\0";
        let entries: [(u32, u32, u32, u64); 4] = [
            (0x0303, 0, 25, HWCAP_EXTENSION),
            (0x0303, 0, 10, 0),
            (0x0803, 63, 71, 0),
            (0x0303, 63, 71, 0),
        ];
        let mut out = MAGIC.to_vec();
        out.extend((entries.len() as u32).to_le_bytes());
        out.extend((strings.len() as u32).to_le_bytes());
        out.resize(HEADER, 0);
        let base = (HEADER + entries.len() * ENTRY) as u32;
        for (flags, name, path, hwcap) in entries {
            out.extend(flags.to_le_bytes());
            out.extend((base + name).to_le_bytes());
            out.extend((base + path).to_le_bytes());
            out.extend(0u32.to_le_bytes());
            out.extend(hwcap.to_le_bytes());
        }
        out.extend(strings);
        out
    }

    #[test]
    fn finds_plain_entries_and_variants() {
        let cache = Cache::parse(&sample());
        assert_eq!(cache.find("liba.so.1"), Some("/lib/liba.so.1"));
        assert_eq!(cache.find("libb.so"), Some("/x/libb.so"));
        assert_eq!(cache.find("libc.so"), None);
        assert_eq!(cache.entries.len(), 3);
    }

    #[test]
    fn old_format_in_front_and_damage() {
        let mut old = OLD_MAGIC.to_vec();
        old.extend(1u32.to_le_bytes());
        old.resize((16usize + 12).next_multiple_of(8), 0);
        old.extend(sample());
        assert_eq!(Cache::parse(&old), Cache::parse(&sample()));
        for cut in 0..sample().len() {
            Cache::parse(&sample()[..cut]);
        }
        assert_eq!(Cache::parse(b"nonsense"), Cache::default());
    }

    #[test]
    fn what_is_written_is_in_glibcs_order() {
        let name = |n: &str| (n.to_string(), format!("/l/{n}"));
        let list = ["libb.so.9", "libb.so.10", "liba.so", "libz.so", "libb.so.9"].map(name);
        let bytes = encode(&list);
        let cache = Cache::parse(&bytes);
        let names: Vec<&str> = cache.entries.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["libz.so", "libb.so.10", "libb.so.9", "liba.so"]);
        assert_eq!(cache.find("libb.so.9"), Some("/l/libb.so.9"));
    }

    #[test]
    fn orders_the_hosts_cache_as_ldconfig_did() {
        let Ok(bytes) = std::fs::read("/etc/ld.so.cache") else {
            return;
        };
        let cache = Cache::parse(&bytes);
        for pair in cache.entries.windows(2) {
            let order = compare(pair[0].name.as_bytes(), pair[1].name.as_bytes());
            assert_ne!(order, Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn reads_the_hosts_cache() {
        if let Ok(bytes) = std::fs::read("/etc/ld.so.cache") {
            assert!(Cache::parse(&bytes).find("libc.so.6").is_some());
        }
    }
}
