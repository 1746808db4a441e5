//! A profile in pprof's form: protocol-buffer messages of `profile.proto` (github.com/google/pprof), not compressed.
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// A protocol-buffer message that is being written.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Field `n` with a number; zero, the default, is left out.
    fn number(&mut self, n: u32, value: u64) -> &mut Self {
        if value != 0 {
            self.varint(u64::from(n) << 3);
            self.varint(value);
        }
        self
    }

    /// Field `n` with bytes: a string, another message, packed numbers.
    fn bytes(&mut self, n: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(n) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn message(&mut self, n: u32, value: &Message) -> &mut Self {
        self.bytes(n, &value.0)
    }

    fn packed(&mut self, n: u32, values: &[u64]) -> &mut Self {
        let mut inner = Message::default();
        values.iter().for_each(|value| inner.varint(*value));
        self.message(n, &inner)
    }
}

/// One place in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub address: u64,
    /// Index of the mapping.
    pub mapping: Option<usize>,
    pub function: String,
    pub file: String,
}

/// A mapped file, or the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
    pub file: String,
}

/// A stack, as indices of locations, innermost first.
pub(super) struct Sample {
    pub locations: Vec<usize>,
    pub count: u64,
    pub thread: String,
    pub tid: i64,
}

/// When, how long, how often.
pub(super) struct Times {
    pub start_unix_ns: u64,
    pub duration_ns: u64,
    pub period_ns: u64,
}

#[derive(Default)]
struct Strings {
    list: Vec<String>,
    index: BTreeMap<String, u64>,
}

impl Strings {
    fn of(&mut self, text: &str) -> u64 {
        if self.list.is_empty() {
            // Index 0 is the empty string.
            self.list.push(String::new());
            self.index.insert(String::new(), 0);
        }
        if let Some(n) = self.index.get(text) {
            return *n;
        }
        let n = self.list.len() as u64;
        self.list.push(text.into());
        self.index.insert(text.into(), n);
        n
    }
}

fn value_type(strings: &mut Strings, kind: &str, unit: &str) -> Message {
    let mut out = Message::default();
    out.number(1, strings.of(kind)).number(2, strings.of(unit));
    out
}

/// The whole profile.
pub(super) fn profile(
    samples: &[Sample],
    locations: &[Location],
    mappings: &[Mapping],
    times: &Times,
) -> Vec<u8> {
    let mut strings = Strings::default();
    let mut out = Message::default();
    for (kind, unit) in [("samples", "count"), ("cpu", "nanoseconds")] {
        out.message(1, &value_type(&mut strings, kind, unit));
    }
    for sample in samples {
        let ids: Vec<u64> = sample.locations.iter().map(|n| *n as u64 + 1).collect();
        let mut one = Message::default();
        one.packed(1, &ids)
            .packed(2, &[sample.count, sample.count * times.period_ns]);
        let mut label = Message::default();
        label
            .number(1, strings.of("thread"))
            .number(2, strings.of(&sample.thread));
        one.message(3, &label);
        let mut label = Message::default();
        label
            .number(1, strings.of("tid"))
            .number(3, sample.tid as u64);
        one.message(3, &label);
        out.message(2, &one);
    }
    for (n, mapping) in mappings.iter().enumerate() {
        let mut one = Message::default();
        one.number(1, n as u64 + 1)
            .number(2, mapping.start)
            .number(3, mapping.end)
            .number(4, mapping.offset)
            .number(5, strings.of(&mapping.file))
            .number(7, 1);
        out.message(3, &one);
    }
    let mut functions: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (n, location) in locations.iter().enumerate() {
        let next = functions.len() as u64 + 1;
        let key = (location.function.as_str(), location.file.as_str());
        let function = *functions.entry(key).or_insert(next);
        let mut line = Message::default();
        line.number(1, function);
        let mut one = Message::default();
        one.number(1, n as u64 + 1)
            .number(2, location.mapping.map_or(0, |n| n as u64 + 1))
            .number(3, location.address)
            .message(4, &line);
        out.message(4, &one);
    }
    for ((name, file), id) in functions {
        let name = strings.of(name);
        let mut one = Message::default();
        one.number(1, id)
            .number(2, name)
            .number(3, name)
            .number(4, strings.of(file));
        out.message(5, &one);
    }
    let period = value_type(&mut strings, "cpu", "nanoseconds");
    for text in &strings.list {
        out.bytes(6, text.as_bytes());
    }
    out.number(9, times.start_unix_ns)
        .number(10, times.duration_ns)
        .message(11, &period)
        .number(12, times.period_ns);
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_varints() {
        let mut out = Message::default();
        out.number(1, 300).number(2, 0).bytes(6, b"ab");
        assert_eq!(out.0, [0x08, 0xac, 0x02, 0x32, 2, b'a', b'b']);
        let mut out = Message::default();
        out.packed(1, &[1, 300]);
        assert_eq!(out.0, [0x0a, 3, 1, 0xac, 0x02]);
    }

    /// Go's own reader is the judge; without Go, the shape is looked at by the test above only.
    #[test]
    fn go_reads_it() {
        let locations = [
            ("write", 0x1010u64, 0),
            ("main", 0x1020, 0),
            ("sys_write", 0x9000, 1),
        ]
        .map(|(function, address, mapping)| Location {
            address,
            mapping: Some(mapping),
            function: function.into(),
            file: String::new(),
        });
        let mappings =
            [("/bin/prog", 0x1000u64), ("[kernel]", 0x9000)].map(|(file, start)| Mapping {
                start,
                end: start + 0x1000,
                offset: 0,
                file: file.into(),
            });
        let sample = Sample {
            locations: vec![2, 0, 1],
            count: 7,
            thread: "worker".into(),
            tid: 5,
        };
        let times = Times {
            start_unix_ns: 1_700_000_000_000_000_000,
            duration_ns: 1_000_000_000,
            period_ns: 10_000_000,
        };
        let bytes = profile(&[sample], &locations, &mappings, &times);
        let path = std::env::temp_dir().join(format!("nanos-pprof-{}.pb", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let output = std::process::Command::new("go")
            .args(["tool", "pprof", "-raw"])
            .arg(&path)
            .output();
        let _ = std::fs::remove_file(&path);
        let Ok(output) = output else {
            eprintln!("go is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        for part in [
            "7   70000000: 1 2 3",
            "1: 0x9000 M=2 sys_write",
            "thread:[worker]",
            "1: 0x1000/0x2000/0x0 /bin/prog",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
