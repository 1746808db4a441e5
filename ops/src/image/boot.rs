//! The boot manifest of an image, and the merge patch for one run of an image that exists.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use manifest::Manifest;
use serde_json::{Map, Value, json};

use super::system::HOSTNAME;
use crate::config::Config;
use crate::output::note;
use crate::{NANOS_VERSION, OPS_VERSION};

/// The netmask that goes with a static address without one.
const NETMASK: &str = "255.255.255.0";

/// The manifest for `program`, an absolute path in the guest.
pub fn manifest(config: &Config, program: &Path, image: &str) -> Result<Value> {
    let program = program.to_string_lossy();
    let mut args = config.args().to_vec();
    if args.is_empty() {
        args.push(program.to_string());
    }
    let mut environment: BTreeMap<String, String> = [
        ("USER", "root"),
        ("PWD", "/"),
        ("OPS_VERSION", OPS_VERSION),
        ("NANOS_VERSION", NANOS_VERSION),
        ("NANOS_ARCH", "amd64"),
        ("IMAGE_NAME", image),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v.to_string()))
    .collect();
    if let Some(ports) = joined_ports(config) {
        environment.insert("OPS_PORT".into(), ports);
    }
    environment.extend(config.env.clone().unwrap_or_default());

    let mut map = Map::new();
    map.insert("program".into(), json!(program));
    map.insert("arguments".into(), json!(args));
    map.insert("environment".into(), json!(environment));
    map.insert("hostname".into(), json!(HOSTNAME));
    settings(config, &mut map);
    finish(config, map)
}

/// The patch that brings the settings given for this run to an image as it is. `None` when nothing was given.
pub fn patch(config: &Config) -> Result<Option<Value>> {
    let mut map = Map::new();
    if let Some(args) = config.args.as_ref().filter(|a| !a.is_empty()) {
        map.insert("arguments".into(), json!(args));
    }
    let mut environment = config.env.clone().unwrap_or_default();
    if let Some(ports) = joined_ports(config) {
        environment.entry("OPS_PORT".into()).or_insert(ports);
    }
    if !environment.is_empty() {
        map.insert("environment".into(), json!(environment));
    }
    settings(config, &mut map);
    if map.is_empty() && config.manifest_passthrough.is_none() {
        return Ok(None);
    }
    // A patch is checked with a program in it, which it does not have to have.
    map.insert("program".into(), json!("/"));
    let mut value = finish(config, map)?;
    if let Value::Object(map) = &mut value {
        map.remove("program");
    }
    Ok(Some(value))
}

/// What the configuration says besides program, arguments and environment.
fn settings(config: &Config, map: &mut Map<String, Value>) {
    for flag in config.debugflags.iter().flatten() {
        map.insert(flag.clone(), json!(true));
    }
    if let Some(names) = config.no_trace.as_ref().filter(|n| !n.is_empty()) {
        map.insert("notrace".into(), json!(names));
    }
    if config.reboot_on_exit == Some(true) {
        map.insert("reboot_on_exit".into(), json!(true));
    }
    if let Some(servers) = config.name_servers.as_ref().filter(|n| !n.is_empty()) {
        map.insert("nameservers".into(), json!(servers));
    }
    let run = config.run();
    let first = interface(
        run.ip_address.as_deref(),
        run.net_mask.as_deref(),
        run.gateway.as_deref(),
        run.ipv6_address.as_deref(),
    );
    if !first.is_empty() {
        map.insert("en1".into(), Value::Object(first));
    }
    for (index, nic) in run.nics.iter().flatten().enumerate() {
        let settings = interface(
            nic.ip_address.as_deref(),
            nic.net_mask.as_deref(),
            nic.gateway.as_deref(),
            nic.ipv6_address.as_deref(),
        );
        map.insert(format!("en{}", index + 1), Value::Object(settings));
    }
}

fn interface(
    address: Option<&str>,
    netmask: Option<&str>,
    gateway: Option<&str>,
    ipv6: Option<&str>,
) -> Map<String, Value> {
    let mask = netmask.or(address.map(|_| NETMASK));
    [
        ("ipaddr", address),
        ("netmask", mask),
        ("gateway", gateway),
        ("ip6addr", ipv6),
    ]
    .into_iter()
    .filter_map(|(key, value)| {
        let value = value.filter(|v| !v.is_empty())?;
        Some((key.to_string(), json!(value)))
    })
    .collect()
}

/// Lays ManifestPassthrough over the rest and checks the outcome as the kernel will.
fn finish(config: &Config, map: Map<String, Value>) -> Result<Value> {
    let mut value = Value::Object(map);
    if let Some(through) = &config.manifest_passthrough {
        manifest::json::merge_patch(&mut value, Value::Object(through.clone()));
    }
    let checked = Manifest::from_value(value.clone())
        .map_err(|e| anyhow!("the boot manifest would be wrong: {e}"))?;
    for key in checked.unknown.keys() {
        note(format!(
            "the kernel does not know the manifest key `{key}` and will pass over it"
        ));
    }
    Ok(value)
}

fn joined_ports(config: &Config) -> Option<String> {
    let ports = config.run().ports.unwrap_or_default();
    (!ports.is_empty()).then(|| ports.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(text: &str) -> Config {
        parse(text.as_bytes(), Path::new("c")).unwrap()
    }

    #[test]
    fn everything_the_configuration_says() {
        let c = config(
            r#"{"Args":["p","x y"],"Env":{"A":"b=c","USER":"me"},"Debugflags":["trace"],"NoTrace":["read"],"RebootOnExit":true,
            "RunConfig":{"IPAddress":"10.0.0.2","Gateway":"10.0.0.1","Ports":["80","8080-81"]},
            "ManifestPassthrough":{"exec_wait_for_ip4_secs":3,"en1":{"mtu":1400}}}"#,
        );
        let m = manifest(&c, Path::new("/p"), "img").unwrap();
        assert_eq!(m["arguments"], json!(["p", "x y"]));
        assert_eq!(m["environment"]["A"], "b=c");
        assert_eq!(m["environment"]["USER"], "me");
        assert_eq!(m["environment"]["OPS_PORT"], "80,8080-81");
        assert_eq!(m["environment"]["IMAGE_NAME"], "img");
        assert_eq!(
            m["en1"],
            json!({"ipaddr":"10.0.0.2","netmask":"255.255.255.0","gateway":"10.0.0.1","mtu":1400})
        );
        assert_eq!(m["trace"], true);
        assert_eq!(m["reboot_on_exit"], true);
        assert_eq!(m["exec_wait_for_ip4_secs"], 3);
    }

    #[test]
    fn defaults_and_errors() {
        let m = manifest(&Config::default(), Path::new("/p q"), "i").unwrap();
        assert_eq!(m["arguments"], json!(["/p q"]));
        let bad = config(r#"{"RunConfig":{"IPAddress":"10.0.0"}}"#);
        let error = manifest(&bad, Path::new("/p"), "i")
            .unwrap_err()
            .to_string();
        assert!(error.contains("en1.ipaddr"), "{error}");
    }

    #[test]
    fn patches_have_only_what_was_given() {
        assert_eq!(patch(&Config::default()).unwrap(), None);
        let c =
            config(r#"{"Args":["p","1"],"Env":{"K":"v"},"RunConfig":{"IPAddress":"10.0.0.2"}}"#);
        assert_eq!(
            patch(&c).unwrap().unwrap(),
            json!({"arguments":["p","1"],"environment":{"K":"v"},"en1":{"ipaddr":"10.0.0.2","netmask":"255.255.255.0"}})
        );
        assert!(patch(&config(r#"{"RunConfig":{"Gateway":"x"}}"#)).is_err());
    }
}
