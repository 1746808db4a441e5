//! The tree as its users see it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::sync::Mutex;

use crate::metrics::{Format, render};
use crate::watch::Snapshot;
use crate::*;

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

/// A number that can be changed, except to 13, and that fails to become 99.
fn number(cell: &Arc<AtomicI64>) -> Leaf {
    let (read, write) = (cell.clone(), cell.clone());
    Leaf::gauge(move || read.load(SeqCst))
        .help("A number.")
        .range(0, 100)
        .writable(
            |value| match value {
                Value::Integer(13) => Err("13 is no good".into()),
                _ => Ok(()),
            },
            move |value| match value.as_integer() {
                Some(99) | None => Err("the disk is full".into()),
                Some(number) => {
                    write.store(number, SeqCst);
                    Ok(())
                }
            },
        )
}

struct Fixture {
    store: Store,
    a: Arc<AtomicI64>,
    b: Arc<AtomicI64>,
    interfaces: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<String>>>,
}

fn fixture() -> Fixture {
    let (a, b) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicI64::new(2)));
    let interfaces = Arc::new(AtomicUsize::new(2));
    let count = interfaces.clone();
    let names = move || (1..=count.load(SeqCst)).map(|n| format!("en{n}")).collect();
    let rx = |name: &str| {
        let number: u64 = name.strip_prefix("en")?.parse().ok()?;
        let bytes = Leaf::count(move || number * 100)
            .unit("bytes")
            .help("Bytes received.");
        Some(Branch::new("An interface.").with("rx_bytes", bytes))
    };
    let histogram = || Histogram {
        buckets: vec![(1024, 2), (2048, 0), (4096, 1)],
        sum: 5000,
    };
    let root = Branch::new("All there is.")
        .with("a", number(&a))
        .with("other", number(&b))
        .with(
            "net",
            Branch::new("The network.")
                .with("up", Leaf::bool(|| true).help("Whether it runs."))
                .with(
                    "drops",
                    Leaf::map(|| vec![("no \"port\"".into(), 7.into_value())])
                        .label("reason")
                        .counter()
                        .help("Drops."),
                )
                .with(
                    "interfaces",
                    Branch::new("Cards.")
                        .metric("")
                        .listed("interface", names, rx),
                ),
        )
        .with(
            "level",
            Leaf::text(|| "info")
                .choices(["info", "warn"])
                .writable(|_| Ok(()), |_| Ok(()))
                .help("A level."),
        )
        .with("free", Leaf::size(|| 4096u64).help("Free memory."))
        .with(
            "user_ns",
            Leaf::duration(|| 1_500_000_000).counter().help("Time."),
        )
        .with("boot", Leaf::time(|| 1_000_000_001).help("Start."))
        .with("took", Leaf::histogram(histogram).help("Latency."))
        .with("bad/name", Leaf::bool(|| true));
    let mut store = Store::unshared(root);
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = told.clone();
    store.observe(move |change, by| {
        teller
            .lock()
            .unwrap()
            .push(format!("{by}: {} {}", change.path, change.value));
    });
    Fixture {
        store,
        a,
        b,
        interfaces,
        told,
    }
}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for i64 {
    fn into_value(self) -> Value {
        Value::Integer(self)
    }
}

#[test]
fn nodes_are_shown_to_a_depth() {
    let Fixture { store, .. } = fixture();
    assert_eq!(
        store.get(&path("/net/interfaces/en2/rx_bytes"), 1).unwrap(),
        r#"{"path":"/net/interfaces/en2/rx_bytes","type":"integer","unit":"bytes","help":"Bytes received.","writable":false,"counter":true,"value":200}"#
    );
    assert_eq!(
        store.get(&path("/net"), 0).unwrap(),
        r#"{"path":"/net","type":"branch","help":"The network."}"#
    );
    assert_eq!(
        store.get(&path("/net/interfaces"), 1).unwrap(),
        r#"{"path":"/net/interfaces","type":"branch","help":"Cards.","children":{"en1":{"type":"branch","help":"An interface."},"en2":{"type":"branch","help":"An interface."}}}"#
    );
    assert!(
        store
            .get(&path("/level"), 1)
            .unwrap()
            .contains(r#""choices":["info","warn"],"value":"info""#)
    );
    assert!(
        store
            .get(&path("/a"), 1)
            .unwrap()
            .contains(r#""range":[0,100],"value":1"#)
    );
    let schema = store.schema().unwrap();
    assert!(schema.contains("\"rx_bytes\"") && !schema.contains("\"value\""));
    for text in [store.get(&Path::root(), 99).unwrap(), schema] {
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(parsed["children"]["net"]["children"]["up"].is_object());
        assert!(parsed["children"].get("bad/name").is_none());
    }
}

#[test]
fn children_known_at_once_are_children_as_well() {
    let all = || {
        ["b", "a", "no/name", "fixed"]
            .map(|name| (name.into(), Leaf::text(move || name)))
            .into()
    };
    let branch = Branch::new("")
        .with("fixed", Leaf::bool(|| true))
        .listed_at_once("thing", all);
    let store = Store::unshared(Branch::new("").with("things", branch));
    let snapshot = Snapshot::take(&store, &path("/things"), 1).unwrap();
    let names: Vec<&str> = snapshot.values().iter().map(|(path, _)| &**path).collect();
    assert_eq!(names, ["/things/a", "/things/b", "/things/fixed"]);
    assert_eq!(store.read(&path("/things/b")).unwrap(), "b".into());
    assert_eq!(store.read(&path("/things/fixed")).unwrap(), true.into());
    assert!(store.read(&path("/things/c")).is_err());
}

#[test]
fn what_is_not_there_is_not_found() {
    let Fixture { store, .. } = fixture();
    for text in [
        "/x",
        "/a/b",
        "/net/interfaces/eth0",
        "/net/interfaces/en1/rx_bytes/x",
    ] {
        let error = store.get(&path(text), 1).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
        assert_eq!(
            error.body(),
            format!(
                r#"{{"error":{{"code":"not_found","message":"there is no such node","path":"{text}"}}}}"#
            )
        );
    }
}

#[test]
fn a_change_is_made_and_told() {
    let Fixture { store, a, told, .. } = fixture();
    store
        .set(
            &path("/a"),
            Value::Integer(5),
            &By("console 1.2.3.4:5".into()),
        )
        .unwrap();
    assert_eq!(a.load(SeqCst), 5);
    assert_eq!(*told.lock().unwrap(), ["console 1.2.3.4:5: /a 5"]);
}

#[test]
fn many_changes_are_made_whole_or_not_at_all() {
    let by = By("a test".into());
    let cases = [
        (
            r#"[{"path":"/a","value":5},{"path":"/other","value":6}]"#,
            Ok(2),
        ),
        (r#"[]"#, Ok(0)),
        (
            r#"[{"path":"/a","value":7},{"path":"/other","value":13}]"#,
            Err(ErrorCode::Invalid),
        ),
        (
            r#"[{"path":"/a","value":7},{"path":"/other","value":101}]"#,
            Err(ErrorCode::Invalid),
        ),
        (
            r#"[{"path":"/a","value":7},{"path":"/other","value":"7"}]"#,
            Err(ErrorCode::Invalid),
        ),
        (
            r#"[{"path":"/a","value":7},{"path":"/a","value":8}]"#,
            Err(ErrorCode::Invalid),
        ),
        (
            r#"[{"path":"/a","value":7},{"path":"/level","value":"loud"}]"#,
            Err(ErrorCode::Invalid),
        ),
        (
            r#"[{"path":"/a","value":7},{"path":"/free","value":1}]"#,
            Err(ErrorCode::NotWritable),
        ),
        (
            r#"[{"path":"/a","value":7},{"path":"/net","value":1}]"#,
            Err(ErrorCode::NotWritable),
        ),
        (
            r#"[{"path":"/a","value":7},{"path":"/c","value":1}]"#,
            Err(ErrorCode::NotFound),
        ),
        (
            r#"[{"path":"/a","value":7},{"path":"/../a","value":1}]"#,
            Err(ErrorCode::Invalid),
        ),
        // Applying the second one fails: the first one is taken back.
        (
            r#"[{"path":"/a","value":7},{"path":"/other","value":99}]"#,
            Err(ErrorCode::Internal),
        ),
    ];
    let Fixture {
        store, a, b, told, ..
    } = fixture();
    for (changes, result) in cases {
        let body = format!("{{\"changes\":{changes}}}");
        let granted = Wish::parse_many(body.as_bytes()).and_then(|wishes| store.grant(wishes, &by));
        assert_eq!(granted.map_err(|error| error.code), result, "{changes}");
        assert_eq!((a.load(SeqCst), b.load(SeqCst)), (5, 6), "{changes}");
    }
    assert_eq!(told.lock().unwrap().len(), 2);
}

/// Two numbers of which the first must not be greater than the second.
struct Ordered {
    cell: Arc<AtomicI64>,
}

impl Writer for Ordered {
    fn check(&self, value: &Value, all: &Changes) -> Result<(), String> {
        match all.get(&path("/most")) {
            Some(most) if most.as_integer() < value.as_integer() => {
                Err("it is above the most".into())
            }
            _ => Ok(()),
        }
    }

    fn apply(&self, value: &Value, _all: &Changes) -> Result<(), String> {
        self.cell
            .store(value.as_integer().ok_or("no number")?, SeqCst);
        Ok(())
    }
}

#[test]
fn a_writer_sees_the_whole_request() {
    let cell = Arc::new(AtomicI64::new(0));
    let read = cell.clone();
    let least = Leaf::gauge(move || read.load(SeqCst)).writer(Ordered { cell: cell.clone() });
    let most = Leaf::gauge(|| 0).writable(|_| Ok(()), |_| Ok(()));
    let store = Store::unshared(Branch::new("").with("least", least).with("most", most));
    let set = |least, most| {
        let change = |name, value| Change {
            path: path(name),
            value: Value::Integer(value),
        };
        store.change(
            vec![change("/least", least), change("/most", most)],
            &By("me".into()),
        )
    };
    assert!(set(2, 1).is_err());
    assert!(set(2, 3).is_ok());
    assert_eq!(cell.load(SeqCst), 2);
}

#[test]
fn changes_run_one_after_the_other() {
    let entered = Arc::new(AtomicUsize::new(0));
    let count = entered.clone();
    let exclusive = Box::new(move |change: &mut dyn FnMut()| {
        count.fetch_add(1, SeqCst);
        change();
    });
    let leaf = Leaf::gauge(|| 0).writable(|_| Ok(()), |_| Ok(()));
    let store = Store::new(Branch::new("").with("a", leaf), exclusive);
    store
        .set(&path("/a"), Value::Integer(1), &By("me".into()))
        .unwrap();
    assert_eq!(entered.load(SeqCst), 1);
}

#[test]
fn requests_from_outside_are_bounded() {
    let code = |body: &[u8]| Wish::parse_many(body).unwrap_err().code;
    let bodies = [
        "",
        "{",
        "[]",
        "{}",
        "null",
        "{\"changes\":1}",
        "{\"changes\":[1]}",
        "{\"changes\":[{}]}",
        "{\"changes\":[{\"path\":1,\"value\":1}]}",
        "{\"changes\":[{\"path\":\"/a\"}]}",
        "{\"changes\":[]} x",
        "\u{0}",
    ];
    for body in bodies {
        assert_eq!(code(body.as_bytes()), ErrorCode::Invalid, "{body}");
    }
    assert_eq!(code(b"\xff\xfe"), ErrorCode::Invalid);
    assert_eq!(code("[".repeat(100_000).as_bytes()), ErrorCode::Invalid);
    assert_eq!(code(&vec![b' '; MAX_BODY + 1]), ErrorCode::TooLarge);
    let change = "{\"path\":\"/a\",\"value\":1}";
    let many = vec![change; MAX_CHANGES + 1].join(",");
    assert_eq!(
        code(format!("{{\"changes\":[{many}]}}").as_bytes()),
        ErrorCode::TooLarge
    );
    assert!(Wish::parse_one(path("/a"), b"{\"value\":null}").is_ok());
    assert!(Wish::parse_one(path("/a"), b"1").is_err());
}

#[test]
fn seeded_garbage_does_no_harm() {
    let Fixture { store, a, .. } = fixture();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good =
        br#"{"changes":[{"path":"/net/interfaces/en1/rx_bytes","value":{"a":[1,2.5,"\u00e9"]}}]}"#;
    for _ in 0..20_000 {
        let mut body = good.to_vec();
        for _ in 0..1 + random() % 4 {
            let at = random() as usize % body.len();
            body[at] = random() as u8;
        }
        if let Ok(wishes) = Wish::parse_many(&body) {
            assert!(store.grant(wishes, &By("nobody".into())).is_err());
        }
        if let Ok(path) = Path::parse_encoded(&String::from_utf8_lossy(&body)) {
            let _ = store.get(&path, random() as usize);
        }
    }
    assert_eq!(a.load(SeqCst), 1);
}

#[test]
fn endless_trees_are_cut() {
    fn deep() -> Branch {
        Branch::new("Endless.").listed("level", || vec!["1".into(), "2".into()], |_| Some(deep()))
    }
    let store = Store::unshared(deep());
    assert_eq!(
        store.get(&Path::root(), usize::MAX).unwrap_err().code,
        ErrorCode::TooLarge
    );
    assert_eq!(
        Snapshot::take(&store, &Path::root(), 99).unwrap_err().code,
        ErrorCode::TooLarge
    );
    assert!(store.get(&Path::root(), 10).is_ok());
}

#[test]
fn what_is_too_long_for_one_answer_is_refused() {
    // Each is short, and all together are more than the kernel's heap has at once.
    let names = || (0..2500).map(|n| format!("{n}")).collect();
    let long = || "x".repeat(2000);
    let tree = move |_: &str| {
        let leaf = Leaf::map(move || vec![(long(), Value::Integer(1))]).label("of");
        Some(Branch::new("One.").with("long", leaf.help("Long.")))
    };
    let store = Store::unshared(Branch::new("Many.").listed("item", names, tree));
    let code = |result: Result<String, Error>| result.map_err(|error| error.code);
    assert_eq!(code(store.get(&Path::root(), 2)), Err(ErrorCode::TooLarge));
    assert_eq!(
        code(render(&store, Format::Prometheus)),
        Err(ErrorCode::TooLarge)
    );
    let snapshot = Snapshot::take(&store, &Path::root(), 2).unwrap();
    let mut out = String::new();
    let written = snapshot.full().write_json(&mut out);
    assert_eq!(written.unwrap_err().code, ErrorCode::TooLarge);
    assert!(out.capacity() <= 4 << 20, "{}", out.capacity());
    assert!(store.get(&Path::root(), 1).is_ok());
}

fn delta(new: &Snapshot, old: &Snapshot) -> String {
    let mut out = String::new();
    new.since(old).write_json(&mut out).unwrap();
    out
}

#[test]
fn watchers_learn_what_changed() {
    let Fixture {
        store,
        a,
        interfaces,
        ..
    } = fixture();
    let take = |at: &str, depth| Snapshot::take(&store, &path(at), depth).unwrap();
    let first = take("/net/interfaces", 2);
    let mut full = String::new();
    first.full().write_json(&mut full).unwrap();
    assert_eq!(
        full,
        r#""values":{"/net/interfaces/en1/rx_bytes":100,"/net/interfaces/en2/rx_bytes":200}"#
    );
    assert!(take("/net/interfaces", 2).since(&first).is_empty());
    interfaces.store(1, SeqCst);
    let second = take("/net/interfaces", 2);
    assert_eq!(
        delta(&second, &first),
        r#""values":{},"gone":["/net/interfaces/en2/rx_bytes"]"#
    );
    assert_eq!(
        delta(&first, &second),
        r#""values":{"/net/interfaces/en2/rx_bytes":200}"#
    );
    let (leaf, root) = (take("/a", 1), take("/", 1));
    a.store(50, SeqCst);
    assert_eq!(delta(&take("/a", 1), &leaf), r#""values":{"/a":50}"#);
    assert_eq!(delta(&take("/", 1), &root), r#""values":{"/a":50}"#);
    assert_eq!(
        delta(&Snapshot::default(), &leaf),
        r#""values":{},"gone":["/a"]"#
    );
}

#[test]
fn metrics_in_openmetrics() {
    let Fixture { store, .. } = fixture();
    let expected = r#"# TYPE nanos_a gauge
# HELP nanos_a A number.
nanos_a 1
# TYPE nanos_boot_timestamp_seconds gauge
# HELP nanos_boot_timestamp_seconds Start.
nanos_boot_timestamp_seconds 1.000000001
# TYPE nanos_free_bytes gauge
# UNIT nanos_free_bytes bytes
# HELP nanos_free_bytes Free memory.
nanos_free_bytes 4096
# TYPE nanos_net_drops counter
# HELP nanos_net_drops Drops.
nanos_net_drops_total{reason="no \"port\""} 7
# TYPE nanos_net_rx_bytes counter
# UNIT nanos_net_rx_bytes bytes
# HELP nanos_net_rx_bytes Bytes received.
nanos_net_rx_bytes_total{interface="en1"} 100
nanos_net_rx_bytes_total{interface="en2"} 200
# TYPE nanos_net_up gauge
# HELP nanos_net_up Whether it runs.
nanos_net_up 1
# TYPE nanos_other gauge
# HELP nanos_other A number.
nanos_other 2
# TYPE nanos_took_seconds histogram
# UNIT nanos_took_seconds seconds
# HELP nanos_took_seconds Latency.
nanos_took_seconds_bucket{le="0.000001024"} 2
nanos_took_seconds_bucket{le="0.000002048"} 2
nanos_took_seconds_bucket{le="0.000004096"} 3
nanos_took_seconds_bucket{le="+Inf"} 3
nanos_took_seconds_count 3
nanos_took_seconds_sum 0.000005
# TYPE nanos_user_seconds counter
# UNIT nanos_user_seconds seconds
# HELP nanos_user_seconds Time.
nanos_user_seconds_total 1.5
# EOF
"#;
    assert_eq!(render(&store, Format::OpenMetrics).unwrap(), expected);
}

#[test]
fn metrics_in_the_older_format() {
    let Fixture { store, .. } = fixture();
    let text = render(&store, Format::Prometheus).unwrap();
    assert!(text.contains("# TYPE nanos_net_rx_bytes_total counter\n# HELP nanos_net_rx_bytes_total Bytes received.\nnanos_net_rx_bytes_total{interface=\"en1\"} 100\n"));
    assert!(!text.contains("# UNIT"));
    let accepted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::accepted(Some(accepted)), Format::OpenMetrics);
    let branch = || {
        Branch::new("")
            .label("target", "/\"x\"")
            .with("free", Leaf::size(|| 1u8).help("Free."))
    };
    let mounts = Branch::new("").listed("mount", || vec!["1".into()], move |_| Some(branch()));
    let text = render(&Store::unshared(mounts), Format::Prometheus).unwrap();
    assert!(
        text.contains(r#"nanos_free_bytes{mount="1",target="/\"x\""} 1"#),
        "{text}"
    );
    for accept in [None, Some("*/*"), Some("text/plain")] {
        assert_eq!(Format::accepted(accept), Format::Prometheus);
    }
}

/// The older format, as `promtool check metrics` wants it.
#[test]
fn promtool_accepts_the_metrics() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let Fixture { store, .. } = fixture();
    let text = render(&store, Format::Prometheus).unwrap();
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.expect("promtool is installed: `cargo xtask test` does so");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}
