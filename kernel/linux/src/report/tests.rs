//! The branches as a whole: they can be read before there is a program, and pass for metrics.
use store::metrics::{Format, render};
use store::{Branch, By, Path, Store, Value};

fn store() -> Store {
    Store::unshared(
        Branch::new("All there is.")
            .with("threads", super::threads())
            .with("syscalls", super::syscalls())
            .with("files", super::files())
            .with("memory", super::memory(Branch::new("Memory.")))
            .with("limits", super::limits())
            .with("trace", super::trace())
            .with("log", super::log())
            .with(
                "net",
                Branch::new("The network.")
                    .with("hostname", super::host_name())
                    .with("name_servers", super::name_servers()),
            ),
    )
}

#[test]
fn everything_can_be_read_before_there_is_a_program() {
    let store = store();
    let text = store.get(&Path::root(), 16).unwrap();
    for name in ["nofile", "page_cache", "histogram", "vma_count", "hostname"] {
        assert_eq!(
            text.contains(&alloc::format!("\"{name}\"")),
            name != "histogram",
            "{name}"
        );
    }
    assert!(store.schema().is_ok());
}

#[test]
fn changes_take_effect_or_are_refused() {
    let store = store();
    let by = By("a test".into());
    let set = |path: &str, value: Value| {
        let path = Path::parse(path).unwrap();
        store
            .set(&path, value.clone(), &by)
            .map(|()| assert_eq!(store.read(&path).unwrap(), value))
    };
    let map = |entries: &[(&str, &str)]| {
        Value::Map(
            entries
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        )
    };
    set("/log/level", "info".into()).unwrap();
    set("/log/targets", map(&[("net::tcp", "trace")])).unwrap();
    assert_eq!(::log::max_level(), ::log::LevelFilter::Trace);
    assert!(set("/log/targets", map(&[("net", "loud")])).is_err());
    assert!(set("/log/targets", map(&[("net tcp", "warn")])).is_err());
    set("/log/targets", map(&[])).unwrap();
    assert_eq!(::log::max_level(), ::log::LevelFilter::Info);
    assert!(set("/log/level", "loud".into()).is_err());
    set("/trace/filter", "read,%network".into()).unwrap();
    assert!(set("/trace/filter", "raed".into()).is_err());
    set("/net/hostname", "web-1.example".into()).unwrap();
    assert_eq!(crate::uts::get().nodename, "web-1.example");
    for name in ["", "a b", "a\nb"] {
        assert!(set("/net/hostname", name.into()).is_err(), "{name:?}");
    }
    // Without a program there is nothing to limit, and nobody claims otherwise.
    assert!(set("/limits/nofile/soft", Value::Integer(5)).is_err());
}

#[test]
fn promtool_accepts_the_metrics() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    crate::trace::stats::count(0, true, 1500);
    crate::trace::stats::count(1, false, 3_000_000);
    let text = render(&store(), Format::Prometheus).unwrap();
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("promtool is installed: `cargo xtask test` does so");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    for line in [
        "# TYPE nanos_syscalls_duration_seconds histogram\n",
        "nanos_syscalls_duration_seconds_bucket{syscall=\"read\",le=\"0.000002048\"} 1\n",
        "nanos_syscalls_duration_seconds_bucket{syscall=\"write\",le=\"0.000002048\"} 0\n",
        "nanos_syscalls_duration_seconds_bucket{syscall=\"write\",le=\"+Inf\"} 1\n",
        "nanos_syscalls_duration_seconds_count{syscall=\"write\"} 1\n",
        "nanos_syscalls_failed_total{syscall=\"read\"} 1\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}
