//! From JSON to [`Manifest`]: which keys there are and how each is read.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::error::Error;
use crate::exit::{ExitMatch, ExitSet};
use crate::json;
use crate::model::{
    Console, Interface, LogLevel, Manifest, Mount, MountSource, NetConsole, Tracing, Uname,
};
use crate::reader::{Item, join};

/// The keys of an interface; at the top level they are those of `en1`.
const INTERFACE_KEYS: &[&str] = &[
    "ipaddr",
    "netmask",
    "gateway",
    "ip6addr",
    "mtu",
    "default",
    "exec_wait_for_ip4_secs",
    "exec_wait_for_ip6_secs",
    "io-queues",
];

/// Every other key of the top level, `enN` aside.
const KEYS: &[&str] = &[
    "program",
    "arguments",
    "environment",
    "cwd",
    "mounts",
    "hostname",
    "nameservers",
    "expected_exit_code",
    "reboot_on_exit",
    "idle_on_exit",
    "debug_exit",
    "noaslr",
    "exec_protection",
    "program_overwrite",
    "readonly_rootfs",
    "static_map_program",
    "transparent_hugepage",
    "mmap_min_addr",
    "coredumplimit",
    "so_rcvbuf",
    "uname",
    "log_level",
    "trace",
    "debugsyscalls",
    "futex_trace",
    "fault",
    "notrace",
    "tracelist",
    "syscall_summary",
    "missing_files",
    "console",
    "consoles",
    "netconsole_ip",
    "netconsole_port",
];

impl Manifest {
    /// Reads a manifest from JSON text.
    ///
    /// # Errors
    /// The text is not JSON, `program` is absent, or a known key has a value of the wrong type. Unknown keys are no
    /// error: they are kept in [`Manifest::unknown`].
    pub fn from_json(text: &[u8]) -> Result<Self, Error> {
        let value = json::parse(text)?;
        Self::from_value(value).map_err(|e| e.locate(text))
    }

    /// The same from parsed JSON; the error has no line.
    ///
    /// # Errors
    /// As [`Manifest::from_json`].
    pub fn from_value(value: Value) -> Result<Self, Error> {
        let program = match Item::root(&value).get("program") {
            Some(item) => item.absolute_path()?,
            None => {
                value_must_be_object(&value)?;
                return Err(Error::at("program", "the key is missing"));
            }
        };
        let mut manifest = read(&value, program)?;
        manifest.tree = value;
        Ok(manifest)
    }

    /// Whether `key` is one that the kernel acts on, at the top level of a manifest.
    #[must_use]
    pub fn knows_key(key: &str) -> bool {
        KEYS.contains(&key) || INTERFACE_KEYS.contains(&key) || interface_number(key).is_some()
    }
}

/// Checks the types of the keys that one layer has; a layer need not be complete.
pub(crate) fn check(value: &Value) -> Result<(), Error> {
    if let Some(item) = Item::root(value).get("program") {
        item.absolute_path()?;
    }
    read(value, String::new()).map(drop)
}

fn value_must_be_object(value: &Value) -> Result<(), Error> {
    Item::root(value).object().map(drop)
}

fn read(value: &Value, program: String) -> Result<Manifest, Error> {
    let root = Item::root(value);
    let map = root.object()?;
    let flag = |key: &str| root.get(key).map_or(Ok(false), |i| i.flag());
    let string = |key: &str| root.get(key).map(|i| i.string()).transpose();
    let strings = |key: &str| root.get(key).map_or(Ok(Vec::new()), |i| i.strings());

    // One layer alone has no program here.
    let complete = !program.is_empty();
    let arguments = match root.get("arguments") {
        Some(item) => item
            .elements()?
            .iter()
            .map(Item::string)
            .collect::<Result<_, _>>()?,
        None => vec![program.clone()],
    };
    let defaults = NetConsole::default();
    Ok(Manifest {
        program,
        arguments,
        environment: members(&root, "environment")?
            .into_iter()
            .map(|(name, item)| Ok((name, item.string()?)))
            .collect::<Result<_, Error>>()?,
        cwd: root
            .get("cwd")
            .map_or(Ok("/".into()), |i| i.absolute_path())?,
        mounts: members(&root, "mounts")?
            .into_iter()
            .map(|(name, item)| mount(&name, &item))
            .collect::<Result<_, _>>()?,
        interfaces: interfaces(&root)?,
        hostname: string("hostname")?,
        nameservers: nameservers(&root)?,
        expected_exit_code: exit_set(&root, "expected_exit_code", ExitMatch::Any)?,
        reboot_on_exit: exit_set(&root, "reboot_on_exit", ExitMatch::Not(0))?,
        idle_on_exit: exit_set(&root, "idle_on_exit", ExitMatch::Code(0))?,
        debug_exit: flag("debug_exit")?,
        noaslr: flag("noaslr")?,
        exec_protection: flag("exec_protection")?,
        program_overwrite: flag("program_overwrite")?,
        readonly_rootfs: flag("readonly_rootfs")?,
        static_map_program: flag("static_map_program")?,
        transparent_hugepage: match root.get("transparent_hugepage") {
            Some(item) if item.value.as_str() == Some("never") => false,
            Some(item) if matches!(item.value.as_str(), Some("always" | "madvise")) => true,
            Some(item) => item.flag()?,
            None => true,
        },
        mmap_min_addr: root
            .get("mmap_min_addr")
            .map(|i| i.number(0, 1 << 47))
            .transpose()?,
        coredumplimit: root.get("coredumplimit").map_or(Ok(0), |i| i.size())?,
        so_rcvbuf: root.get("so_rcvbuf").map(|i| i.size()).transpose()?,
        uname: uname(&root)?,
        log_level: root.get("log_level").map(|i| log_level(&i)).transpose()?,
        tracing: Tracing {
            tags: trace_tags(&root)?,
            debugsyscalls: flag("debugsyscalls")?,
            futex_trace: flag("futex_trace")?,
            fault: flag("fault")?,
            notrace: strings("notrace")?,
            tracelist: strings("tracelist")?,
            syscall_summary: flag("syscall_summary")?,
            missing_files: flag("missing_files")?,
        },
        console: crate::console::read(&root, complete)?,
        consoles: strings("consoles")?.iter().map(|s| console(s)).collect(),
        netconsole: NetConsole {
            ip: root
                .get("netconsole_ip")
                .map_or(Ok(defaults.ip), |i| i.parse("an IPv4 address"))?,
            port: root
                .get("netconsole_port")
                .map_or(Ok(defaults.port), |i| i.number(1, 65535).map(|n| n as u16))?,
        },
        unknown: map
            .iter()
            .filter(|(key, _)| !Manifest::knows_key(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        tree: Value::Null,
    })
}

/// The members of the object at `key` that are not null, in the order of their names.
fn members<'a>(root: &Item<'a>, key: &str) -> Result<BTreeMap<String, Item<'a>>, Error> {
    let Some(item) = root.get(key) else {
        return Ok(BTreeMap::new());
    };
    Ok(item
        .object()?
        .keys()
        .filter_map(|name| {
            let value = item.value.get(name).filter(|v| !v.is_null())?;
            let path = join(&item.path, name);
            Some((name.clone(), Item { value, path }))
        })
        .collect())
}

fn mount(name: &str, item: &Item<'_>) -> Result<Mount, Error> {
    let text = item.string()?;
    let (target, read_only) = match text.strip_suffix(":ro") {
        Some(path) => (path, true),
        None => (text.strip_suffix(":rw").unwrap_or(&text), false),
    };
    if !target.starts_with('/') {
        return Err(item.wrong("an absolute path"));
    }
    let source =
        if let Some(number) = name.strip_prefix('%') {
            MountSource::Attachment(number.parse().map_err(|_| {
                Error::at(item.path.clone(), "expected a number after `%` in the key")
            })?)
        } else if let Some(uuid) = uuid(name) {
            MountSource::Uuid(uuid)
        } else {
            MountSource::Label(name.into())
        };
    Ok(Mount {
        source,
        target: target.into(),
        read_only,
    })
}

/// Reads a UUID in its printed form, hyphens at their places.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&i| bytes[i] != b'-') {
        return None;
    }
    let digits: Vec<u8> = bytes
        .iter()
        .filter(|&&b| b != b'-')
        .map(|&b| char::from(b).to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let mut out = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(out)
}

fn interface_number(key: &str) -> Option<u32> {
    let digits = key.strip_prefix("en")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

fn interfaces(root: &Item<'_>) -> Result<BTreeMap<u32, Interface>, Error> {
    let mut all = BTreeMap::new();
    for (name, value) in root.object()? {
        if let Some(number) = interface_number(name).filter(|_| !value.is_null()) {
            let path = name.clone();
            all.insert(number, interface(&Item { value, path })?);
        }
    }
    // The top level speaks of the first interface too; what `en1` says itself goes first.
    if INTERFACE_KEYS.iter().any(|key| root.get(key).is_some()) {
        let top = interface(root)?;
        let en1 = all.entry(1).or_default();
        en1.ipaddr = en1.ipaddr.or(top.ipaddr);
        en1.netmask = en1.netmask.or(top.netmask);
        en1.gateway = en1.gateway.or(top.gateway);
        en1.ip6addr = en1.ip6addr.or(top.ip6addr);
        en1.mtu = en1.mtu.or(top.mtu);
        en1.default |= top.default;
        en1.exec_wait_for_ip4_secs = en1.exec_wait_for_ip4_secs.or(top.exec_wait_for_ip4_secs);
        en1.exec_wait_for_ip6_secs = en1.exec_wait_for_ip6_secs.or(top.exec_wait_for_ip6_secs);
        en1.io_queues = en1.io_queues.or(top.io_queues);
    }
    Ok(all)
}

fn interface(item: &Item<'_>) -> Result<Interface, Error> {
    item.object()?;
    let v4 = |key: &str| -> Result<Option<Ipv4Addr>, Error> {
        item.get(key)
            .map(|i| i.parse("an IPv4 address"))
            .transpose()
    };
    let netmask = v4("netmask")?;
    if let (Some(mask), Some(place)) = (netmask, item.get("netmask")) {
        let bits = mask.to_bits();
        if bits.count_zeros() != bits.trailing_zeros() {
            return Err(place.wrong("a netmask"));
        }
    }
    let seconds = |key: &str| -> Result<Option<u32>, Error> {
        // 0 and what is beyond three minutes mean the default of 5 s, as in the existing kernel.
        let clamp = |n: u64| if (1..=180).contains(&n) { n as u32 } else { 5 };
        item.get(key)
            .map(|i| i.number(0, u64::MAX).map(clamp))
            .transpose()
    };
    Ok(Interface {
        ipaddr: v4("ipaddr")?,
        netmask,
        gateway: v4("gateway")?,
        ip6addr: item.get("ip6addr").map(|i| ip6(&i)).transpose()?,
        mtu: item
            .get("mtu")
            .map(|i| i.number(68, 65535).map(|n| n as u16))
            .transpose()?,
        default: item.get("default").map_or(Ok(false), |i| i.flag())?,
        exec_wait_for_ip4_secs: seconds("exec_wait_for_ip4_secs")?,
        exec_wait_for_ip6_secs: seconds("exec_wait_for_ip6_secs")?,
        io_queues: item
            .get("io-queues")
            .map(|i| i.number(1, 0x8000).map(|n| n as u16))
            .transpose()?,
    })
}

fn ip6(item: &Item<'_>) -> Result<(Ipv6Addr, u8), Error> {
    let text = item.string()?;
    let (address, prefix) = text.split_once('/').unwrap_or((&text, "64"));
    match (address.parse(), prefix.parse()) {
        (Ok(address), Ok(prefix @ 0..=128)) => Ok((address, prefix)),
        _ => Err(item.wrong("an IPv6 address")),
    }
}

fn nameservers(root: &Item<'_>) -> Result<Vec<IpAddr>, Error> {
    let Some(item) = root.get("nameservers") else {
        return Ok(Vec::new());
    };
    item.strings()?
        .iter()
        .map(|s| {
            s.parse()
                .map_err(|_| Error::at(item.path.clone(), format!("`{s}` is not an IP address")))
        })
        .collect()
}

/// An exit-code set: a code, `*`, `!n`, a list of these, or a bare flag that stands for `bare`.
fn exit_set(root: &Item<'_>, key: &str, bare: ExitMatch) -> Result<Option<ExitSet>, Error> {
    let Some(item) = root.get(key) else {
        return Ok(None);
    };
    let one = |item: &Item<'_>| {
        ExitMatch::parse(&item.string()?)
            .ok_or_else(|| item.wrong("an exit code, `*`, `!` and a code, or a list of these"))
    };
    let set = match item.value {
        Value::Bool(false) => return Ok(None),
        Value::Bool(true) => vec![bare],
        Value::String(s) if s == "t" || s == "true" => vec![bare],
        Value::Array(_) | Value::Object(_) => {
            item.elements()?.iter().map(one).collect::<Result<_, _>>()?
        }
        _ => vec![one(&item)?],
    };
    Ok(Some(ExitSet(set)))
}

fn uname(root: &Item<'_>) -> Result<Uname, Error> {
    let Some(item) = root.get("uname") else {
        return Ok(Uname::default());
    };
    item.object()?;
    let field = |key: &str| -> Result<Option<String>, Error> {
        let Some(field) = item.get(key) else {
            return Ok(None);
        };
        let text = field.string()?;
        if text.len() > 64 || text.contains('\0') {
            return Err(field.wrong("at most 64 bytes"));
        }
        Ok(Some(text))
    };
    Ok(Uname {
        sysname: field("sysname")?,
        release: field("release")?,
        version: field("version")?,
        machine: field("machine")?,
    })
}

fn log_level(item: &Item<'_>) -> Result<LogLevel, Error> {
    match item.string()?.as_str() {
        "err" | "error" => Ok(LogLevel::Error),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err(item.wrong("err, warn, info, debug or trace")),
    }
}

fn trace_tags(root: &Item<'_>) -> Result<Vec<String>, Error> {
    let Some(item) = root.get("trace") else {
        return Ok(Vec::new());
    };
    match item.flag() {
        Ok(true) => Ok(vec!["all".to_string()]),
        Ok(false) => Ok(Vec::new()),
        Err(_) => item.strings(),
    }
}

fn console(text: &str) -> Console {
    match text.strip_prefix('-') {
        Some(name) => Console {
            name: name.into(),
            on: false,
        },
        None => Console {
            name: text.strip_prefix('+').unwrap_or(text).into(),
            on: true,
        },
    }
}
