//! Nodes: leaves with a reader and perhaps a writer, branches with fixed children and with ones that are listed on demand.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::path::is_name;
use crate::{Changes, Histogram, Kind, Value};

/// A node of the tree. Cheap to clone.
#[derive(Clone)]
pub enum Node {
    /// A value.
    Leaf(Arc<Leaf>),
    /// What holds other nodes.
    Branch(Arc<Branch>),
}

impl From<Leaf> for Node {
    fn from(leaf: Leaf) -> Node {
        Node::Leaf(Arc::new(leaf))
    }
}

impl From<Branch> for Node {
    fn from(branch: Branch) -> Node {
        Node::Branch(Arc::new(branch))
    }
}

type Read = Box<dyn Fn() -> Value + Send + Sync>;
type ReadHistogram = Arc<dyn Fn() -> Histogram + Send + Sync>;

/// Changes a value. The store first asks [`Writer::check`] of every change of a request, then has them applied.
pub trait Writer: Send + Sync {
    /// Says in one sentence why `value` cannot be, if so. The value has the leaf's type and lies within its choices and
    /// its range. `all` is the whole request, for values that must fit each other.
    ///
    /// # Errors
    /// Then nothing of the request is applied.
    fn check(&self, value: &Value, all: &Changes) -> Result<(), String>;

    /// Makes `value` hold.
    ///
    /// # Errors
    /// Then what was applied before of the same request is taken back.
    fn apply(&self, value: &Value, all: &Changes) -> Result<(), String>;
}

/// A writer of two closures that do not look at the rest of the request.
struct Closures<C, A> {
    check: C,
    apply: A,
}

impl<C, A> Writer for Closures<C, A>
where
    C: Fn(&Value) -> Result<(), String> + Send + Sync,
    A: Fn(&Value) -> Result<(), String> + Send + Sync,
{
    fn check(&self, value: &Value, _all: &Changes) -> Result<(), String> {
        (self.check)(value)
    }

    fn apply(&self, value: &Value, _all: &Changes) -> Result<(), String> {
        (self.apply)(value)
    }
}

/// A value: its type, how to read it, how to change it, and what people should know of it.
pub struct Leaf {
    pub(crate) kind: Kind,
    pub(crate) unit: Option<&'static str>,
    pub(crate) help: &'static str,
    pub(crate) counter: bool,
    pub(crate) metric: Metric,
    pub(crate) label: Option<&'static str>,
    pub(crate) logged: bool,
    pub(crate) choices: Vec<Cow<'static, str>>,
    pub(crate) range: Option<(i64, i64)>,
    pub(crate) writer: Option<Box<dyn Writer>>,
    pub(crate) histogram: Option<ReadHistogram>,
    read: Read,
}

/// What stands in the name of a metric for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// The node's name.
    Named,
    /// Another name; the empty one leaves the node out of the name.
    As(&'static str),
    /// The node and what is below it are no metrics.
    Hidden,
}

impl Leaf {
    /// A leaf of type `kind`, which is what `read` must return.
    pub fn new(kind: Kind, read: impl Fn() -> Value + Send + Sync + 'static) -> Leaf {
        Leaf {
            kind,
            unit: match kind {
                Kind::Size => Some("bytes"),
                Kind::Duration => Some("nanoseconds"),
                _ => None,
            },
            help: "",
            counter: false,
            metric: Metric::Named,
            label: None,
            logged: true,
            choices: Vec::new(),
            range: None,
            writer: None,
            histogram: None,
            read: Box::new(read),
        }
    }

    /// A value that was taken when the branch was listed: for children that show one moment of what may be gone the next.
    pub fn fixed(value: Value) -> Leaf {
        Leaf::new(value.kind(), move || value.clone())
    }

    /// True or false.
    pub fn bool(read: impl Fn() -> bool + Send + Sync + 'static) -> Leaf {
        Leaf::new(Kind::Bool, move || Value::Bool(read()))
    }

    /// A whole number that goes up and down.
    pub fn gauge<N: TryInto<i64>>(read: impl Fn() -> N + Send + Sync + 'static) -> Leaf {
        Leaf::new(Kind::Integer, move || Value::integer(read()))
    }

    /// A whole number that only grows.
    pub fn count<N: TryInto<i64>>(read: impl Fn() -> N + Send + Sync + 'static) -> Leaf {
        Leaf::gauge(read).counter()
    }

    /// Bytes.
    pub fn size<N: TryInto<u64>>(read: impl Fn() -> N + Send + Sync + 'static) -> Leaf {
        Leaf::new(Kind::Size, move || {
            Value::Size(read().try_into().unwrap_or(u64::MAX))
        })
    }

    /// Nanoseconds.
    pub fn duration(read: impl Fn() -> u64 + Send + Sync + 'static) -> Leaf {
        Leaf::new(Kind::Duration, move || Value::Duration(read()))
    }

    /// A moment, in nanoseconds since 1970.
    pub fn time(read: impl Fn() -> u64 + Send + Sync + 'static) -> Leaf {
        Leaf::new(Kind::Time, move || Value::Time(read()))
    }

    /// Text.
    pub fn text<T: Into<String>>(read: impl Fn() -> T + Send + Sync + 'static) -> Leaf {
        Leaf::new(Kind::String, move || Value::String(read().into()))
    }

    /// Values in a row.
    pub fn list(read: impl Fn() -> Vec<Value> + Send + Sync + 'static) -> Leaf {
        Leaf::new(Kind::List, move || Value::List(read()))
    }

    /// Values by name.
    pub fn map(read: impl Fn() -> Vec<(String, Value)> + Send + Sync + 'static) -> Leaf {
        Leaf::new(Kind::Map, move || Value::Map(read()))
    }

    /// A histogram of durations: a map of upper bounds in nanoseconds to counts, and a real histogram as a metric.
    pub fn histogram(read: impl Fn() -> Histogram + Send + Sync + 'static) -> Leaf {
        let read: ReadHistogram = Arc::new(read);
        let shown = read.clone();
        let mut leaf = Leaf::map(move || shown().to_map());
        leaf.histogram = Some(read);
        leaf.unit = Some("nanoseconds");
        leaf.counter()
    }

    /// One line for a person.
    pub fn help(mut self, help: &'static str) -> Leaf {
        self.help = help;
        self
    }

    /// The unit, in full and in the plural: `packets`.
    pub fn unit(mut self, unit: &'static str) -> Leaf {
        self.unit = Some(unit);
        self
    }

    /// Says that it only grows.
    pub fn counter(mut self) -> Leaf {
        self.counter = true;
        self
    }

    /// Its name in metrics, where the last name of the path does not suit (empty: none at all).
    pub fn metric(mut self, name: &'static str) -> Leaf {
        self.metric = Metric::As(name);
        self
    }

    /// Keeps it out of the metrics.
    pub fn no_metric(mut self) -> Leaf {
        self.metric = Metric::Hidden;
        self
    }

    /// Makes each number of a map a metric, with its name in this label.
    pub fn label(mut self, label: &'static str) -> Leaf {
        self.label = Some(label);
        self
    }

    /// Keeps its values out of the log, which then tells of a change only: for what may hold secrets.
    pub fn not_logged(mut self) -> Leaf {
        self.logged = false;
        self
    }

    /// The strings it can be set to.
    pub fn choices<T: Into<Cow<'static, str>>>(mut self, of: impl IntoIterator<Item = T>) -> Leaf {
        self.choices = of.into_iter().map(Into::into).collect();
        self
    }

    /// The least and the greatest number it can be set to.
    pub fn range(mut self, least: i64, greatest: i64) -> Leaf {
        self.range = Some((least, greatest));
        self
    }

    /// Lets it be changed: `check` says why a value cannot be, `apply` makes it hold. See [`Writer`].
    pub fn writable(
        mut self,
        check: impl Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
        apply: impl Fn(&Value) -> Result<(), String> + Send + Sync + 'static,
    ) -> Leaf {
        self.writer = Some(Box::new(Closures { check, apply }));
        self
    }

    /// Lets it be changed by a writer that looks at the whole request.
    pub fn writer(mut self, writer: impl Writer + 'static) -> Leaf {
        self.writer = Some(Box::new(writer));
        self
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it can be changed.
    pub fn is_writable(&self) -> bool {
        self.writer.is_some()
    }

    /// Its value now.
    pub fn read(&self) -> Value {
        (self.read)()
    }

    /// Whether a value of the right type lies within the choices and the range.
    pub(crate) fn admits(&self, value: &Value) -> Result<(), String> {
        if value.kind() != self.kind {
            return Err(format!("it is of type {}", self.kind.name()));
        }
        if let (false, Some(text)) = (self.choices.is_empty(), value.as_str())
            && !self.choices.iter().any(|choice| choice == text)
        {
            return Err(format!("it is to be one of {}", self.choices.join(", ")));
        }
        if let (Some((least, greatest)), Some(number)) = (self.range, value.as_integer())
            && !(least..=greatest).contains(&number)
        {
            return Err(format!("it is to be from {least} to {greatest}"));
        }
        Ok(())
    }
}

type Names = Box<dyn Fn() -> Vec<String> + Send + Sync>;
type Get = Box<dyn Fn(&str) -> Option<Node> + Send + Sync>;
type All = Box<dyn Fn() -> Vec<(String, Node)> + Send + Sync>;

/// Children that are listed on demand.
pub(crate) struct Listed {
    pub(crate) label: &'static str,
    source: Source,
}

enum Source {
    OneByOne { names: Names, get: Get },
    AllAtOnce(All),
}

/// What holds other nodes.
pub struct Branch {
    pub(crate) help: &'static str,
    pub(crate) metric: Metric,
    pub(crate) listed: Option<Listed>,
    pub(crate) labels: Vec<(&'static str, String)>,
    children: Vec<(Cow<'static, str>, Node)>,
}

impl Branch {
    /// A branch without children.
    pub fn new(help: &'static str) -> Branch {
        Branch {
            help,
            metric: Metric::Named,
            listed: None,
            labels: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Adds a child. One whose name cannot be in a path ([`is_name`]) is left out; one of the same name is replaced.
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, node: impl Into<Node>) -> Branch {
        let name = name.into();
        if is_name(&name) {
            self.children.retain(|(known, _)| *known != name);
            self.children.push((name, node.into()));
        }
        self
    }

    /// Adds children that come and go: `names` lists them, `get` makes the one of that name. In metrics their name becomes
    /// the value of `label`. A fixed child of the same name goes before.
    pub fn listed<N: Into<Node>>(
        mut self,
        label: &'static str,
        names: impl Fn() -> Vec<String> + Send + Sync + 'static,
        get: impl Fn(&str) -> Option<N> + Send + Sync + 'static,
    ) -> Branch {
        self.listed = Some(Listed {
            label,
            source: Source::OneByOne {
                names: Box::new(names),
                get: Box::new(move |name| get(name).map(Into::into)),
            },
        });
        self
    }

    /// As [`Branch::listed`], for children that are only known all at once; a look at one of them makes all.
    pub fn listed_at_once<N: Into<Node>>(
        mut self,
        label: &'static str,
        all: impl Fn() -> Vec<(String, N)> + Send + Sync + 'static,
    ) -> Branch {
        let nodes = move || {
            all()
                .into_iter()
                .map(|(name, node)| (name, node.into()))
                .collect()
        };
        self.listed = Some(Listed {
            label,
            source: Source::AllAtOnce(Box::new(nodes)),
        });
        self
    }

    /// Its name in metrics (empty: none at all).
    pub fn metric(mut self, name: &'static str) -> Branch {
        self.metric = Metric::As(name);
        self
    }

    /// Gives all metrics below it another label: for what tells people more than the name of a listed child.
    pub fn label(mut self, label: &'static str, value: impl Into<String>) -> Branch {
        self.labels.push((label, value.into()));
        self
    }

    /// Keeps all that is below it out of the metrics: what is for people, and what there may be very many of.
    pub fn no_metrics(mut self) -> Branch {
        self.metric = Metric::Hidden;
        self
    }

    /// The child of that name.
    pub fn child(&self, name: &str) -> Option<Node> {
        let fixed = self.children.iter().find(|(known, _)| known == name);
        match (fixed, &self.listed) {
            (Some((_, node)), _) => Some(node.clone()),
            (None, Some(listed)) if is_name(name) => match &listed.source {
                Source::OneByOne { get, .. } => get(name),
                Source::AllAtOnce(all) => {
                    let found = all().into_iter().find(|(known, _)| known == name);
                    found.map(|(_, node)| node)
                }
            },
            _ => None,
        }
    }

    /// The children that are always there.
    pub(crate) fn fixed(&self) -> &[(Cow<'static, str>, Node)] {
        &self.children
    }

    /// Visits the listed children until `visit` says false. One that vanished meanwhile is left out.
    pub(crate) fn visit_listed(&self, mut visit: impl FnMut(&str, Node) -> bool) {
        let Some(listed) = &self.listed else {
            return;
        };
        let is_wanted =
            |name: &str| is_name(name) && self.children.iter().all(|(known, _)| known != name);
        match &listed.source {
            Source::OneByOne { names, get } => {
                for name in names().iter().filter(|name| is_wanted(name)) {
                    if let Some(node) = get(name)
                        && !visit(name, node)
                    {
                        return;
                    }
                }
            }
            Source::AllAtOnce(all) => {
                for (name, node) in all() {
                    if is_wanted(&name) && !visit(&name, node) {
                        return;
                    }
                }
            }
        }
    }

    /// Visits all children until `visit` says false.
    pub fn visit(&self, mut visit: impl FnMut(&str, &Node) -> bool) {
        for (name, node) in &self.children {
            if !visit(name, node) {
                return;
            }
        }
        self.visit_listed(|name, node| visit(name, &node));
    }

    /// The names of all children.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.visit(|name, _| {
            names.push(name.to_owned());
            true
        });
        names
    }
}
