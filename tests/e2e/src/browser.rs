//! Headless Chromium, driven over the WebDriver protocol (W3C Recommendation, 2018) through Debian's `chromedriver`.
//!
//! Only what the page's test needs: going to an address, running a script, waiting for one to hold, taking a picture.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

use crate::free_port;

const DRIVER: &str = "/usr/bin/chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";
/// How long the driver and the browser may take to start on a busy host.
const START: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// A browser with one window; ends with this value.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    session: String,
    agent: Agent,
}

impl Browser {
    /// Starts one whose window has this size in pixels.
    pub fn start(width: u32, height: u32) -> Result<Browser> {
        let port = free_port()?;
        let driver = Command::new(DRIVER)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{DRIVER} does not start: `cargo xtask setup` installs it"))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(START))
            .proxy(None)
            .build();
        let mut browser = Browser {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            agent: config.into(),
        };
        let end = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                bail!("{DRIVER} does not listen");
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": CHROMIUM, "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                format!("--window-size={width},{height}"),
            ]},
        }}});
        let made = browser.post("", &wanted)?;
        let id = made["sessionId"]
            .as_str()
            .context("a session has an id")?
            .to_owned();
        browser.session.push('/');
        browser.session.push_str(&id);
        Ok(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut answer = self
            .agent
            .post(format!("{}{path}", self.session))
            .header("Content-Type", "application/json")
            .send(body.to_string())?;
        let text = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()?;
        let mut answer: Value = serde_json::from_str(&text)?;
        if let Some(error) = answer["value"]["error"].as_str() {
            bail!("{path}: {error}: {}", answer["value"]["message"]);
        }
        Ok(answer["value"].take())
    }

    /// Goes to an address and waits until it is loaded.
    pub fn go(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({ "url": url })).map(drop)
    }

    /// Runs a script, `return` gives its value; `arguments` are its arguments.
    pub fn run(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.post(
            "/execute/sync",
            &json!({"script": script, "args": arguments}),
        )
    }

    /// Waits until a script returns something that is neither null nor false, and gives that.
    pub fn until(&self, what: &str, script: &str, limit: Duration) -> Result<Value> {
        let end = Instant::now() + limit;
        loop {
            let value = self.run(script, &[])?;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return Ok(value);
            }
            if Instant::now() > end {
                let seen = self.run("return document.body.innerText.slice(0, 3000)", &[])?;
                bail!("{what}: not in time; the page shows: {seen}");
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Changes the window's size, in pixels.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        self.post("/window/rect", &json!({"width": width, "height": height}))
            .map(drop)
    }

    /// Writes a picture of the window as PNG.
    pub fn picture(&self, path: &Path) -> Result<()> {
        let mut answer = self
            .agent
            .get(format!("{}/screenshot", self.session))
            .call()?;
        let answer: Value = serde_json::from_str(
            &answer
                .body_mut()
                .with_config()
                .limit(64 << 20)
                .read_to_string()?,
        )?;
        let text = answer["value"].as_str().context("a picture is text")?;
        fs::write(path, base64(text)?)?;
        Ok(())
    }

    /// What the page's scripts complained about since the last call.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = self.post("/se/log", &json!({"type": "browser"}))?;
        Ok(log
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry["level"] == "SEVERE")
            .filter_map(|entry| entry["message"].as_str().map(str::to_owned))
            .collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser; when it can not, it is ended itself.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Base64 (RFC 4648, section 4).
fn base64(text: &str) -> Result<Vec<u8>> {
    use base64::Engine;
    Ok(base64::engine::general_purpose::STANDARD.decode(text.trim())?)
}
