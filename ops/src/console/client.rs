//! Requests to a machine's console, and its answers.

use std::fmt::Display;
use std::io::Read;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use crate::instance::Record;

/// The largest answer that is read whole, in bytes.
const WHOLE: u64 = 64 << 20;
/// How often a connection is tried: the machine may only be starting.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(300);

/// A machine's console.
#[derive(Debug)]
pub struct Client {
    name: String,
    port: u16,
    token: String,
    agent: Agent,
}

/// One node of the store.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// `branch`, or the type of the value.
    #[serde(rename = "type")]
    pub kind: String,
    /// The unit of a number.
    pub unit: Option<String>,
    /// Whether it can be changed.
    #[serde(default)]
    pub writable: bool,
    /// The values it may have, where these are few.
    pub choices: Option<Vec<Value>>,
    /// Its value.
    #[serde(default)]
    pub value: Value,
    /// What is below a branch.
    pub children: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct Refusal {
    error: Reason,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

impl Client {
    /// The console of a machine that runs.
    pub fn new(record: &Record) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(90)))
            .proxy(None)
            .build();
        Client {
            name: record.instance.clone(),
            port: record.console.port,
            token: record.console.token.clone(),
            agent: config.into(),
        }
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port of 127.0.0.1, and the token.
    pub fn address(&self) -> (u16, &str) {
        (self.port, &self.token)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response<Body>> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let bytes = body.map(serde_json::to_vec).transpose()?;
        let mut tried = 0;
        loop {
            let request = Request::builder()
                .method(method.clone())
                .uri(&url)
                .header("Authorization", format!("Bearer {}", self.token));
            let answer = match &bytes {
                Some(bytes) => self.agent.run(
                    request
                        .header("Content-Type", "application/json")
                        .body(&bytes[..])?,
                ),
                None => self.agent.run(request.body(())?),
            };
            match answer {
                Ok(answer) => return refused(answer),
                // QEMU takes a connection before the machine listens, and drops it then. A change is not asked for twice.
                Err(error) if method == Method::GET && tried < TRIES => {
                    let _ = error;
                    tried += 1;
                    thread::sleep(BETWEEN_TRIES);
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("`{}` does not answer on 127.0.0.1:{}", self.name, self.port)
                    });
                }
            }
        }
    }

    /// What `GET` of a path says, as JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let mut answer = self.ask(Method::GET, path, None)?;
        let mut bytes = Vec::new();
        answer
            .body_mut()
            .with_config()
            .limit(WHOLE)
            .reader()
            .read_to_end(&mut bytes)
            .with_context(|| format!("`{}` broke off its answer", self.name))?;
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "`{}` answered {path} with something else than JSON",
                self.name
            )
        })
    }

    /// What `GET` of a path streams, as it comes.
    pub fn stream(&self, path: &str) -> Result<impl Read + use<>> {
        let answer = self.ask(Method::GET, path, None)?;
        Ok(answer
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader())
    }

    /// A node of the store with what is below it to a depth.
    pub fn node(&self, path: &str, depth: u32) -> Result<Node> {
        let value = self.get(&format!("{}?depth={depth}", store(path)))?;
        serde_json::from_value(value).with_context(|| format!("{path}: not a node of the store"))
    }

    /// Changes a value; returns it as it is then.
    pub fn set(&self, path: &str, value: &Value) -> Result<Node> {
        let body = serde_json::json!({ "value": value });
        let mut answer = self.ask(Method::PUT, &store(path), Some(&body))?;
        let mut bytes = Vec::new();
        answer
            .body_mut()
            .with_config()
            .limit(WHOLE)
            .reader()
            .read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// `/api/store` for a path as it is typed: with or without the first slash, its parts already encoded where they need it.
pub fn store(path: &str) -> String {
    let parts: Vec<String> = path
        .split('/')
        .filter(|p| !p.is_empty())
        .map(encoded)
        .collect();
    let mut out = "/api/store".to_string();
    for part in parts {
        out.push('/');
        out.push_str(&part);
    }
    out
}

/// A part of a path or query with what does not belong there in percent form (RFC 3986, section 2.1). A `%` stays: paths that
/// the machine prints are encoded.
pub fn encoded(part: &str) -> String {
    let mut out = String::new();
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b':' => {
                out.push(byte.into());
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `?a=b&c=d` of what is given.
pub fn query(pairs: &[(&str, Option<&dyn Display>)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            let value = value.to_string().replace('%', "%25");
            out.push(if out.is_empty() { '?' } else { '&' });
            out.push_str(&format!("{name}={}", encoded(&value)));
        }
    }
    out
}

/// Turns a refusal into an error that says what the machine said.
fn refused(mut answer: Response<Body>) -> Result<Response<Body>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let mut text = Vec::new();
    // What can not be read adds nothing to the status.
    let _ = answer
        .body_mut()
        .with_config()
        .limit(64 << 10)
        .reader()
        .read_to_end(&mut text);
    match serde_json::from_slice::<Refusal>(&text) {
        Ok(refusal) => Err(anyhow!("{}", refusal.error.message)),
        Err(_) => bail!("the machine answered {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries() {
        assert_eq!(store("/"), "/api/store");
        assert_eq!(store("net/en1/"), "/api/store/net/en1");
        assert_eq!(store("/a b/c%2Fd"), "/api/store/a%20b/c%2Fd");
        let none: Option<&dyn Display> = None;
        assert_eq!(query(&[("x", none)]), "");
        assert_eq!(
            query(&[
                ("name", Some(&"read,write")),
                ("x", none),
                ("n", Some(&5)),
                ("f", Some(&"a&b=50% c"))
            ]),
            "?name=read%2Cwrite&n=5&f=a%26b%3D50%25%20c"
        );
    }
}
