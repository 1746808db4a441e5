//! The README's first command: the Python example, from a bare machine to an answer.

use crate::build;
use anyhow::{Context, Result};
use std::process::Command;
use xshell::Shell;

/// The web server of the README, byte for byte.
pub const SERVER: &str = include_str!("server.py");

/// Builds all, writes the server and runs it in the foreground until Ctrl-C.
pub fn run(sh: &Shell, port: u16) -> Result<()> {
    let built = build::all(sh)?;
    let folder = build::target_dir().join("demo");
    sh.create_dir(&folder)?;
    sh.write_file(folder.join("server.py"), SERVER)?;
    let forward = if port == 8000 {
        "8000".to_owned()
    } else {
        format!("{port}-8000")
    };
    eprintln!("$ ops pkg load python -p {forward} -a server.py");
    eprintln!("(in another terminal: curl 127.0.0.1:{port}; Ctrl-C ends it)");
    let status = Command::new(&built.ops)
        .args(["pkg", "load", "python", "-p", &forward, "-a", "server.py"])
        .current_dir(&folder)
        .status()
        .with_context(|| format!("starting {}", built.ops.display()))?;
    std::process::exit(status.code().unwrap_or(1));
}
