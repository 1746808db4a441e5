//! The README's example: a Python web server out of the distribution's own packages.
#![forbid(unsafe_code)]

use anyhow::Result;
use e2e::{Ops, RUN_LIMIT, free_port, http_get};

const SERVER: &str = include_str!("../../../xtask/src/server.py");

#[test]
fn the_readme_example_answers_as_the_readme_says() -> Result<()> {
    let ops = Ops::with_shared_packages()?;
    ops.write("server.py", SERVER)?;
    let port = free_port()?;
    let forward = format!("{port}-8000");
    let running = ops.start(&["pkg", "load", "python", "-p", &forward, "-a", "server.py"])?;
    let (status, body) = http_get(port, RUN_LIMIT)?;
    assert!(status.ends_with("200 OK"), "{status}");
    let mut lines = body.lines();
    assert_eq!(lines.next(), Some("Hello world from nanos!"));
    assert_eq!(lines.next(), Some("Current directoty: /"));
    let listing = lines.next().unwrap_or_default();
    for name in [
        "'dev'",
        "'etc'",
        "'lib'",
        "'lib64'",
        "'proc'",
        "'server.py'",
        "'sys'",
        "'usr'",
    ] {
        assert!(listing.contains(name), "{listing}");
    }
    for _ in 0..50 {
        assert_eq!(http_get(port, RUN_LIMIT)?.1, body);
    }
    running.signal("INT")?;
    // Python does not handle SIGTERM, so the signal ends it.
    assert_eq!(running.wait(RUN_LIMIT)?.code(), 128 + 15);
    Ok(())
}
