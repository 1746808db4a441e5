//! Programs in several languages, as a user runs them.
#![forbid(unsafe_code)]

use anyhow::Result;
use e2e::{Ops, RUN_LIMIT, free_port, http_get, programs};
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

#[test]
fn a_static_c_program_says_hello_on_either_machine() -> Result<()> {
    let hello = programs::c("hello", &["-static"])?;
    let ops = Ops::new()?;
    for machine in ["microvm", "q35"] {
        let output = ops.run(&["run", text(&hello), "--machine", machine])?;
        assert_eq!(
            (output.code(), output.stdout.as_str()),
            (0, "hello\r\n"),
            "{machine}: {output:?}"
        );
    }
    Ok(())
}

#[test]
fn a_dynamic_c_program_finds_its_libraries() -> Result<()> {
    let report = programs::c("report", &[])?;
    let output = Ops::new()?.run(&["run", text(&report), "-a", "one", "-a", "two words"])?;
    assert_eq!(output.code(), 0, "{output:?}");
    assert!(
        output.stdout.contains("argument 2: two words"),
        "{output:?}"
    );
    assert!(output.stdout.contains("terminal: 1"), "{output:?}");
    Ok(())
}

#[test]
fn arguments_environment_and_exit_code_pass_through_without_a_rebuild() -> Result<()> {
    let report = programs::c("report", &[])?;
    let ops = Ops::new()?;
    let output = ops.run(&[
        "run",
        text(&report),
        "-e",
        "K=a=b=c",
        "-e",
        "CODE=200",
        "-i",
        "report",
    ])?;
    assert_eq!(output.code(), 200, "{output:?}");
    assert!(
        output.stdout.contains("environment: K=a=b=c\r\n"),
        "{output:?}"
    );
    let output = ops.run(&[
        "run",
        text(&report),
        "-s",
        "-i",
        "report",
        "-e",
        "CODE=3",
        "-a",
        "again",
    ])?;
    assert_eq!(output.code(), 3, "{output:?}");
    assert!(output.stdout.contains("argument 1: again"), "{output:?}");
    Ok(())
}

#[test]
fn a_rust_program_uses_every_cpu() -> Result<()> {
    let threads = programs::rust("threads")?;
    let ops = Ops::new()?;
    for cpus in ["1", "2", "4"] {
        let output = ops.run(&["run", text(&threads), "--smp", cpus])?;
        assert_eq!(output.code(), 5, "{output:?}");
        for line in [
            &format!("cpus {cpus}"),
            "received 42",
            "echoed 300000",
            "file content",
            "missing NotFound",
            "caught true",
        ] {
            assert!(
                output.stdout.contains(&format!("{line}\r\n")),
                "{line}: {output:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_go_program_serves() -> Result<()> {
    let server = programs::go("server")?;
    let ops = Ops::new()?;
    let port = free_port()?;
    let mut running = ops.start(&[
        "run",
        text(&server),
        "-p",
        &format!("{port}-8080"),
        "--smp",
        "2",
    ])?;
    running.wait_for("sum 4950", RUN_LIMIT)?;
    running.wait_for("file written", RUN_LIMIT)?;
    running.wait_for("loopback: hello from Go, /loop", RUN_LIMIT)?;
    let (status, body) = http_get(port, RUN_LIMIT)?;
    assert!(status.contains("200"), "{status}");
    assert_eq!(body, "hello from Go, /");
    Ok(())
}

#[test]
fn a_crash_ends_the_machine_and_names_the_function() -> Result<()> {
    let crash = programs::c("crash", &["-static", "-fno-omit-frame-pointer"])?;
    let output = Ops::new()?.run(&["run", text(&crash)])?;
    assert_eq!(output.code(), 128 + 11, "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(
        said.contains("SIGSEGV") && said.contains("the_guilty_function"),
        "{said}"
    );
    Ok(())
}

#[test]
fn ctrl_c_reaches_the_program_as_sigterm() -> Result<()> {
    let term = programs::c("term", &["-static"])?;
    let ops = Ops::new()?;
    for machine in ["microvm", "q35"] {
        let mut running = ops.start(&["run", text(&term), "--machine", machine])?;
        running.wait_for("waiting", RUN_LIMIT)?;
        running.signal("INT")?;
        let output = running.wait(RUN_LIMIT)?;
        assert_eq!(output.code(), 7, "{machine}: {output:?}");
        assert!(
            output.stdout.contains("asked to end"),
            "{machine}: {output:?}"
        );
    }
    Ok(())
}

#[test]
fn the_console_is_a_terminal_that_can_be_typed_on() -> Result<()> {
    let echo = programs::c("echo", &["-static"])?;
    let mut running = Ops::new()?.start(&["run", text(&echo)])?;
    running.wait_for("ready", RUN_LIMIT)?;
    running.input(b"one two\n")?;
    running.wait_for("heard: one two", RUN_LIMIT)?;
    running.input(b"q\n")?;
    assert_eq!(running.wait(RUN_LIMIT)?.code(), 0);
    Ok(())
}

/// Linux rarely has the loopback of these sockets, so that what is expected is written down here.
#[test]
fn vsock_talks_to_the_machine_itself() -> Result<()> {
    let vsock = programs::c("vsock", &["-static", "-pthread"])?;
    let output = Ops::new()?.run(&["run", text(&vsock)])?;
    let expected = [
        "nobody listens: Connection reset by peer",
        "peer 1, the same port: 1",
        "1048576 bytes came back, as they were",
        "then 0",
        "quiet: 0",
        "firs of 4, flags a0",
        "seco of 4, flags 20",
        "poll 1, 11; recv 0",
        "send: Broken pipe",
        "no host: No such device",
    ];
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        (output.code(), &lines[..]),
        (0, &expected[..]),
        "{output:?}"
    );
    Ok(())
}
