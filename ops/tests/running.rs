//! Running, as far as the tool goes: the stand-in for QEMU shows what it is told and how its end is passed on.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use common::{Place, one_line, said, until};

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn the_programs_exit_code_is_the_tools() {
    let place = Place::new();
    place.program("prog");
    for (mode, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("signal 11", 139),
        ("panic", 125),
    ] {
        let s = said(place.fake(mode, &["run", "prog"]).output().unwrap());
        assert_eq!(s.code, code, "{mode}: {}", s.err);
        // Nothing but the guest's own output.
        assert_eq!(s.out, "guest output\n", "{mode}");
    }
    let s = said(place.fake("fail", &["run", "prog"]).output().unwrap());
    assert_eq!(s.code, 1);
    assert!(
        s.err.contains("QEMU failed: something is wrong"),
        "{}",
        s.err
    );
    let s = said(place.fake("silent", &["run", "prog"]).output().unwrap());
    assert_eq!(s.code, 1);
    assert!(
        s.err.contains("without saying how the program ended"),
        "{}",
        s.err
    );
}

#[test]
fn what_qemu_is_told() {
    let place = Place::new();
    place.program("my dir/prog,x");
    let words = [
        "run",
        "my dir/prog,x",
        "-p",
        "28080-80",
        "-p",
        "0.0.0.0:28081:81,28082",
        "--udp",
        "28083",
        "-m",
        "512M",
        "--smp",
        "4",
    ];
    let s = said(place.fake("exit 0", &words).output().unwrap());
    assert_eq!(s.code, 0, "{}", s.err);
    let record = place.record();
    for line in [
        "-machine\nmicrovm,",
        "-m\n512M\n",
        "-smp\n4\n",
        "/.ops/images/prog,,x\n",
        "hostfwd=tcp:127.0.0.1:28080-:80,hostfwd=tcp:0.0.0.0:28081-:81,hostfwd=tcp:127.0.0.1:28082-:28082,hostfwd=udp:127.0.0.1:28083-:28083\n",
    ] {
        assert!(record.contains(line), "{line:?} in {record}");
    }
    assert!(!record.contains("PATCH"), "a fresh image needs no patch");
    assert!(
        place
            .ok(&["image", "env", "prog,x"])
            .contains("OPS_PORT: 28080-80,0.0.0.0:28081:81,28082\n")
    );

    let s = said(
        place
            .fake(
                "exit 0",
                &[
                    "run",
                    "my dir/prog,x",
                    "--machine",
                    "q35",
                    "--accel=false",
                    "-v",
                ],
            )
            .output()
            .unwrap(),
    );
    assert_eq!(s.code, 0, "{}", s.err);
    assert!(place.record().contains("-machine\nq35\n"));
    assert!(place.record().contains("-accel\ntcg"));
    assert!(
        s.err.contains("qemu-system-x86_64 -nodefaults") && s.err.contains("'"),
        "{}",
        s.err
    );
}

#[test]
fn an_image_that_exists_runs_with_new_settings() {
    let place = Place::new();
    place.program("prog");
    let s = said(
        place
            .fake("exit 0", &["run", "-s", "prog"])
            .output()
            .unwrap(),
    );
    assert_eq!(s.code, 1);
    assert!(s.err.contains("there is no image `prog`"), "{}", s.err);
    place.ok(&["build", "prog", "-a", "old", "-e", "A=1"]);
    let before = std::fs::metadata(place.path(".ops/images/prog"))
        .unwrap()
        .modified()
        .unwrap();

    place
        .fake("exit 0", &["run", "-s", "prog"])
        .output()
        .unwrap();
    assert!(!place.record().contains("PATCH"));
    let words = [
        "run",
        "-s",
        "prog",
        "-a",
        "new",
        "-a",
        "--flag=x",
        "-e",
        "B=c=d e",
        "--ip-address",
        "10.0.2.44",
    ];
    place.fake("exit 0", &words).output().unwrap();
    let record = place.record();
    let patch = record
        .split("PATCH ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let patch: serde_json::Value = serde_json::from_str(patch).unwrap();
    assert_eq!(
        patch,
        serde_json::json!({
            "arguments": ["prog", "new", "--flag=x"],
            "environment": {"B": "c=d e"},
            "en1": {"ipaddr": "10.0.2.44", "netmask": "255.255.255.0"},
        })
    );
    let after = std::fs::metadata(place.path(".ops/images/prog"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
}

#[test]
fn standard_input_reaches_the_guest() {
    let place = Place::new();
    place.program("prog");
    let mut child = place
        .fake("echo", &["run", "prog"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"some\ninput")
        .unwrap();
    let s = said(child.wait_with_output().unwrap());
    assert_eq!((s.code, s.out.as_str()), (0, "some\ninput"));
}

/// Starts the tool and waits until the stand-in is ready.
fn started(place: &Place, mode: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = place
        .fake(mode, &["run", "prog"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

#[test]
fn signals_power_the_guest_down() {
    let place = Place::new();
    place.program("prog");
    for name in ["INT", "TERM", "HUP"] {
        let (mut child, _out) = started(&place, "powerdown");
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(7), "{name}");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let place = Place::new();
    place.program("prog");
    let (mut child, _out) = started(&place, "stubborn");
    signal(&child, "INT");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn no_machine_is_left_when_the_tool_is_killed() {
    let place = Place::new();
    place.program("prog");
    let (mut child, _out) = started(&place, "hang");
    let record = place.record();
    let pid = record
        .lines()
        .find_map(|l| l.strip_prefix("PID "))
        .unwrap()
        .to_string();
    let status = format!("/proc/{pid}/stat");
    let alive = || std::fs::read_to_string(&status).is_ok_and(|s| !s.contains(") Z "));
    assert!(alive());
    child.kill().unwrap();
    child.wait().unwrap();
    until("the stand-in ends", || !alive());
}

#[test]
fn on_a_terminal_the_guest_does_the_echo_and_all_is_restored() {
    let place = Place::new();
    place.program("prog");
    // `script` gives the tool a terminal; what is typed goes through it.
    let tool = place.fake("talk", &["run", "prog"]);
    let words: Vec<String> = std::iter::once(tool.get_program())
        .chain(tool.get_args())
        .map(|w| format!("'{}'", w.to_str().unwrap()))
        .collect();
    let mut script = Command::new("script");
    for (key, value) in tool.get_envs() {
        match value {
            Some(value) => script.env(key, value),
            None => script.env_remove(key),
        };
    }
    let mut child = script
        .args([
            "-qec",
            &format!("{}; stty -a", words.join(" ")),
            "/dev/null",
        ])
        .current_dir(place.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "no machine");
    }
    // The terminal is changed right after the machine is started.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"typed words\n\x04").unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    drop(input);
    child.wait().unwrap();
    assert_eq!(rest.matches("typed words").count(), 1, "{rest}");
    assert!(
        rest.contains(" icanon") && rest.contains(" echo "),
        "{rest}"
    );
    assert!(!rest.contains("-icanon"), "{rest}");
}

#[test]
fn an_exit_hook_runs() {
    let place = Place::new();
    place.program("prog");
    place.write("c.json", r#"{"RunConfig": {"AtExit": "echo done > hook"}}"#);
    place
        .fake("exit 3", &["run", "prog", "-c", "c.json"])
        .output()
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(place.path("hook")).unwrap(),
        "done\n"
    );
}

#[test]
fn without_a_kernel_it_says_so() {
    // Only meaningful for a tool that was built without one.
    if option_env!("NANOS_KERNEL").is_some() {
        return;
    }
    let place = Place::new();
    place.program("prog");
    place.fake("exit 0", &["version"]).output().unwrap();
    let output = place
        .ops(&["run", "prog"])
        .env("PATH", common::with_path(&place.path("bin")))
        .output();
    let s = said(output.unwrap());
    let last = s.err.lines().last().unwrap_or_default().to_string();
    assert!(last.contains("built without a kernel"), "{last}");
    let _ = one_line;
}
