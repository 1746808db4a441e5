//! The numbers of the tree as metrics, in OpenMetrics text 1.0 or in the older text format 0.0.4 of Prometheus.
//!
//! A metric's name is `nanos`, the names of the path and the unit: `/memory/free` is `nanos_memory_free_bytes`. The name of a
//! listed child becomes the value of a label: `/cpu/0/user_ns` is `nanos_cpu_user_seconds_total{cpu="0"}`. Durations
//! become seconds, moments `_timestamp_seconds`, bools 0 and 1. The numbers of a map with [`Leaf::label`] are a metric
//! each. Strings, lists and other maps are none. [`Leaf::metric`] and [`Branch::metric`] give other names where the rule makes a
//! bad one. `promtool check metrics` reads the older format only.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::json::check_length;
use crate::node::Metric;
use crate::{Branch, Error, Histogram, Leaf, Node, Store, Value};

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Prometheus,
}

impl Format {
    /// What a client wants whose `Accept` header is this. One that names neither gets the older format, as from
    /// Prometheus's own libraries.
    pub fn accepted(accept: Option<&str>) -> Format {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Format::OpenMetrics,
            _ => Format::Prometheus,
        }
    }

    /// The answer's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// All samples of one name.
struct Family {
    kind: Type,
    unit: Option<&'static str>,
    help: &'static str,
    /// By labels: two paths that would be one metric are told.
    samples: BTreeMap<String, Sample>,
}

enum Sample {
    Number(String),
    Histogram(Histogram),
}

/// The store's numbers.
///
/// # Errors
/// `TooLarge` for more than [`crate::json::MAX_BYTES`]: half of them would look like all.
pub fn render(store: &Store, format: Format) -> Result<String, Error> {
    let mut families = Families {
        store,
        by_name: BTreeMap::new(),
    };
    walk(&mut families, store.root(), "nanos", &mut Vec::new());
    let mut out = String::new();
    for (name, family) in &families.by_name {
        family.write(&mut out, name, format, store)?;
    }
    out.push_str("# EOF\n");
    Ok(out)
}

struct Families<'a> {
    store: &'a Store,
    by_name: BTreeMap<String, Family>,
}

type Labels = Vec<(&'static str, String)>;

fn walk(families: &mut Families<'_>, node: &Node, prefix: &str, labels: &mut Labels) {
    families.store.pause();
    match node {
        Node::Leaf(leaf) => add_leaf(families, leaf, prefix, labels),
        Node::Branch(branch) => walk_branch(families, branch, prefix, labels),
    }
}

fn walk_branch(families: &mut Families<'_>, branch: &Branch, prefix: &str, labels: &mut Labels) {
    let outer = labels.len();
    labels.extend(branch.labels.iter().cloned());
    walk_children(families, branch, prefix, labels);
    labels.truncate(outer);
}

fn walk_children(families: &mut Families<'_>, branch: &Branch, prefix: &str, labels: &mut Labels) {
    for (name, node) in branch.fixed() {
        let metric = match node {
            Node::Leaf(leaf) => leaf.metric,
            Node::Branch(branch) => branch.metric,
        };
        match metric {
            Metric::Hidden => {}
            Metric::Named => walk(families, node, &join(prefix, name), labels),
            Metric::As("") => walk(families, node, prefix, labels),
            Metric::As(name) => walk(families, node, &join(prefix, name), labels),
        }
    }
    let Some(listed) = &branch.listed else {
        return;
    };
    branch.visit_listed(|name, node| {
        labels.push((listed.label, name.into()));
        walk(families, &node, prefix, labels);
        labels.pop();
        true
    });
}

/// The name of a child: what cannot be in a metric's name becomes an underline.
fn join(prefix: &str, name: &str) -> String {
    let mut joined = String::from(prefix);
    joined.push('_');
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    joined.extend(name.chars().map(allowed));
    joined
}

fn add_leaf(families: &mut Families<'_>, leaf: &Leaf, prefix: &str, labels: &mut Labels) {
    let unit = match leaf.unit {
        Some("nanoseconds") => Some("seconds"),
        Some("bytes") => Some("bytes"),
        _ => None,
    };
    let mut name = match unit {
        Some("seconds") => prefix.strip_suffix("_ns").unwrap_or(prefix).into(),
        _ => String::from(prefix),
    };
    if let Some(unit) = unit
        && !name.ends_with(&format!("_{unit}"))
    {
        name = join(&name, unit);
    }
    if leaf.kind == crate::Kind::Time {
        name.push_str("_timestamp_seconds");
    }
    if leaf.counter
        && let Some(short) = name.strip_suffix("_total")
    {
        name = short.into();
    }
    let kind = match (&leaf.histogram, leaf.counter) {
        (Some(_), _) => Type::Histogram,
        (None, true) => Type::Counter,
        (None, false) => Type::Gauge,
    };
    let mut add = |labels: &Labels, sample| {
        let family = families
            .by_name
            .entry(name.clone())
            .or_insert_with(|| Family {
                kind,
                unit,
                help: leaf.help,
                samples: BTreeMap::new(),
            });
        let labels = write_labels(labels);
        // Two paths that would be one metric: the first one stays.
        if family.kind == kind {
            family.samples.entry(labels).or_insert(sample);
        }
    };
    if let Some(histogram) = &leaf.histogram {
        add(labels, Sample::Histogram(histogram()));
        return;
    }
    match (leaf.read(), leaf.label) {
        (Value::Map(entries), Some(label)) => {
            for (name, value) in entries {
                if let Some(number) = number(&value, unit) {
                    labels.push((label, name));
                    add(labels, Sample::Number(number));
                    labels.pop();
                }
            }
        }
        (value, _) => {
            if let Some(number) = number(&value, unit) {
                add(labels, Sample::Number(number));
            }
        }
    }
}

/// A value as a number.
fn number(value: &Value, unit: Option<&str>) -> Option<String> {
    Some(match *value {
        Value::Bool(value) => format!("{}", u8::from(value)),
        Value::Integer(number) if unit == Some("seconds") => seconds(u64::try_from(number).ok()?),
        Value::Integer(number) => format!("{number}"),
        Value::Float(number) if number.is_finite() => format!("{number}"),
        Value::Time(ns) | Value::Duration(ns) => seconds(ns),
        Value::Size(size) => format!("{size}"),
        _ => return None,
    })
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> String {
    let mut text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text
}

/// `a="1",b="2"`, with what must be escaped escaped.
fn write_labels(labels: &Labels) -> String {
    let mut out = String::new();
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"");
        escape(&mut out, value, true);
        out.push('"');
    }
    out
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

impl Family {
    fn write(
        &self,
        out: &mut String,
        name: &str,
        format: Format,
        store: &Store,
    ) -> Result<(), Error> {
        let (kind, suffix) = match self.kind {
            Type::Counter => ("counter", "_total"),
            Type::Gauge => ("gauge", ""),
            Type::Histogram => ("histogram", ""),
        };
        // The older format knows no families: a counter's head has the name of its samples.
        let family = match format {
            Format::OpenMetrics => name.into(),
            Format::Prometheus => format!("{name}{suffix}"),
        };
        let _ = writeln!(out, "# TYPE {family} {kind}");
        if let (Some(unit), Format::OpenMetrics) = (self.unit, format) {
            let _ = writeln!(out, "# UNIT {family} {unit}");
        }
        let _ = write!(out, "# HELP {family} ");
        escape(out, self.help, format == Format::OpenMetrics);
        out.push('\n');
        for (labels, sample) in &self.samples {
            store.pause();
            check_length(out)?;
            match sample {
                Sample::Number(number) => sample_line(out, name, suffix, labels, number),
                Sample::Histogram(histogram) => write_histogram(out, name, labels, histogram),
            }
        }
        Ok(())
    }
}

fn sample_line(out: &mut String, name: &str, suffix: &str, labels: &str, number: &str) {
    let _ = match labels {
        "" => writeln!(out, "{name}{suffix} {number}"),
        labels => writeln!(out, "{name}{suffix}{{{labels}}} {number}"),
    };
}

/// Buckets count all that is at most their bound.
fn write_histogram(out: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut below = 0;
    for (bound, count) in &histogram.buckets {
        below += count;
        let le = seconds(*bound);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {below}");
    }
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {below}");
    sample_line(out, name, "_count", labels, &format!("{below}"));
    sample_line(out, name, "_sum", labels, &seconds(histogram.sum));
}
