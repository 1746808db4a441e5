//! QEMU's machine protocol over its unix socket: the little that is needed, one JSON object a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection that has passed the greeting.
pub struct Qmp {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and negotiates.
    pub fn connect(path: &Path) -> Result<Self> {
        let writer = UnixStream::connect(path).context("cannot reach QEMU's control socket")?;
        writer.set_read_timeout(Some(Duration::from_secs(5)))?;
        writer.set_write_timeout(Some(Duration::from_secs(5)))?;
        let reader = BufReader::new(writer.try_clone()?);
        let mut qmp = Qmp { writer, reader };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU's control socket does not speak QMP");
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Runs a command without arguments and waits for its answer.
    pub fn execute(&mut self, command: &str) -> Result<Value> {
        let line = format!("{}\n", json!({ "execute": command }));
        self.writer.write_all(line.as_bytes())?;
        loop {
            let answer = self.line()?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {command}: {error}");
            }
            // Anything else is an event.
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QEMU closed its control socket");
        }
        serde_json::from_str(&line).context("QEMU sent something that is not JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn talks_to_a_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut out = stream;
            out.write_all(b"{\"QMP\": {}}\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("qmp_capabilities"));
            out.write_all(b"{\"return\": {}}\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("system_powerdown"));
            out.write_all(b"{\"event\": \"POWERDOWN\"}\n{\"return\": {}}\n")
                .unwrap();
            assert!(lines.next().unwrap().unwrap().contains("nonsense"));
            out.write_all(b"{\"error\": {\"desc\": \"no\"}}\n").unwrap();
        });
        let mut qmp = Qmp::connect(&path).unwrap();
        qmp.execute("system_powerdown").unwrap();
        assert!(
            qmp.execute("nonsense")
                .unwrap_err()
                .to_string()
                .contains("refused")
        );
        server.join().unwrap();
        assert!(Qmp::connect(&folder.path().join("none")).is_err());
    }
}
