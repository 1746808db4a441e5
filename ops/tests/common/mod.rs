//! What the tests of the tool share: a home folder of their own, the tool with it, a stand-in for QEMU.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder with an empty `~/.ops`, removed at the end. Its name has a space, as people's have.
pub struct Place {
    folder: tempfile::TempDir,
}

/// What a command printed.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Place {
            folder: tempfile::Builder::new()
                .prefix("ops test ")
                .tempdir()
                .unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, making its folder.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The tool, at work in this folder.
    pub fn ops(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("ops"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("OPS_HOME", self.folder.path())
            .env("HOME", self.folder.path())
            .env_remove("OPS_DEFAULT_CONFIG")
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        said(self.ops(arguments).output().unwrap())
    }

    /// Runs the tool, which must succeed; returns its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let s = self.run(arguments);
        assert_eq!(s.code, 0, "{arguments:?}: {}{}", s.out, s.err);
        s.out
    }

    /// Runs the tool, which must fail with code 1 and one line; returns that line.
    pub fn fails(&self, arguments: &[&str]) -> String {
        one_line(self.run(arguments), arguments)
    }

    /// The tool with the stand-in for QEMU, doing as `mode` says, and with a kernel that is none.
    pub fn fake(&self, mode: &str, arguments: &[&str]) -> Command {
        let bin = self.path("bin");
        if !bin.exists() {
            fs::create_dir(&bin).unwrap();
            let own = std::env::current_exe().unwrap();
            let target = own.ancestors().nth(2).unwrap();
            let fake = target.join("examples/fake_qemu");
            assert!(fake.exists(), "build the example fake_qemu: {fake:?}");
            symlink(fake, bin.join("qemu-system-x86_64")).unwrap();
            self.write("kernel", b"\x7fELF");
        }
        let mut command = self.ops(arguments);
        command
            .args(["--kernel", self.path("kernel").to_str().unwrap()])
            .env("FAKE_QEMU", mode)
            .env("FAKE_QEMU_RECORD", self.path("record"))
            .env("PATH", with_path(&bin));
        command
    }

    /// The arguments that the stand-in was given.
    pub fn record(&self) -> String {
        fs::read_to_string(self.path("record")).unwrap()
    }

    /// A small program with one library of its own beside it.
    pub fn program(&self, name: &str) -> PathBuf {
        let source = self.write("c/main.c", "int main(void) { return 0; }");
        let output = self.path(name);
        fs::create_dir_all(output.parent().unwrap()).unwrap();
        let status = Command::new("cc")
            .arg(source)
            .arg("-o")
            .arg(&output)
            .status()
            .unwrap();
        assert!(status.success());
        output
    }

    /// An executable file with these bytes.
    pub fn executable(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

pub fn with_path(first: &Path) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_path_buf()).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).unwrap()
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn one_line(s: Said, arguments: &[&str]) -> String {
    assert_eq!(s.code, 1, "{arguments:?}: {}{}", s.out, s.err);
    assert_eq!(s.out, "", "{arguments:?}");
    assert_eq!(
        s.err.trim_end().lines().count(),
        1,
        "{arguments:?}: {}",
        s.err
    );
    assert!(s.err.starts_with("ops: "), "{arguments:?}: {}", s.err);
    s.err.trim_end().to_string()
}

/// Waits until something holds, at most ten seconds.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "waited in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
