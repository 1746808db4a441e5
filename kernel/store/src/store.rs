//! The tree itself: finding, showing and changing.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::change::{Change, Changes, Observer, Wish};
use crate::json::Writer;
use crate::path::MAX_DEPTH;
use crate::{Branch, By, Error, ErrorCode, Leaf, Node, Path, Value};

/// The most bytes of a value in the log.
const MAX_LOGGED: usize = 256;

/// Runs what it is given while nobody else does.
pub type Exclusive = Box<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

/// The tree of all that can be looked at.
pub struct Store {
    root: Node,
    observers: Vec<Observer>,
    exclusive: Exclusive,
    pause: fn(),
}

impl Store {
    /// A store of that tree. `exclusive` keeps two requests from changing at once, under a lock of the caller's that may
    /// be held while a writer sleeps.
    pub fn new(root: Branch, exclusive: Exclusive) -> Store {
        Store {
            root: root.into(),
            observers: Vec::new(),
            exclusive,
            pause: || {},
        }
    }

    /// A store for one thread, which needs no lock.
    pub fn unshared(root: Branch) -> Store {
        Store::new(root, Box::new(|change| change()))
    }

    /// Has `pause` called between any two nodes that are read: reading many takes long, and others may be more important.
    pub fn pause_with(&mut self, pause: fn()) {
        self.pause = pause;
    }

    pub(crate) fn pause(&self) {
        (self.pause)();
    }

    /// Adds an observer of all changes.
    pub fn observe(&mut self, observer: impl Fn(&Change, &By) + Send + Sync + 'static) {
        self.observers.push(Box::new(observer));
    }

    /// The root branch.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The node at `path`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn node(&self, path: &Path) -> Result<Node, Error> {
        let mut node = self.root.clone();
        for name in path.names() {
            let child = match &node {
                Node::Branch(branch) => branch.child(name),
                Node::Leaf(_) => None,
            };
            node = child
                .ok_or_else(|| Error::new(ErrorCode::NotFound, "there is no such node").at(path))?;
        }
        Ok(node)
    }

    /// The value of the leaf at `path`.
    ///
    /// # Errors
    /// `NotFound`, also for a branch.
    pub fn read(&self, path: &Path) -> Result<Value, Error> {
        match self.node(path)? {
            Node::Leaf(leaf) => Ok(leaf.read()),
            Node::Branch(_) => Err(Error::new(ErrorCode::NotFound, "it is a branch").at(path)),
        }
    }

    /// The node at `path` as JSON, with `depth` levels below it ([`MAX_DEPTH`] at most).
    ///
    /// # Errors
    /// `NotFound`; `TooLarge` for more than [`crate::json::MAX_NODES`] nodes or [`crate::json::MAX_BYTES`].
    pub fn get(&self, path: &Path, depth: usize) -> Result<String, Error> {
        self.show(path, depth, true)
    }

    /// The whole tree as JSON, without values.
    ///
    /// # Errors
    /// `TooLarge` for more than [`crate::json::MAX_NODES`] nodes or [`crate::json::MAX_BYTES`].
    pub fn schema(&self) -> Result<String, Error> {
        self.show(&Path::root(), MAX_DEPTH, false)
    }

    fn show(&self, path: &Path, depth: usize, values: bool) -> Result<String, Error> {
        let mut writer = Writer::new(values, self.pause);
        let node = self.node(path)?;
        writer
            .top(path, &node, depth.min(MAX_DEPTH))
            .map_err(|error| error.at(path))?;
        Ok(writer.out)
    }

    /// Changes one leaf: see [`Store::change`].
    ///
    /// # Errors
    /// As there.
    pub fn set(&self, path: &Path, value: Value, by: &By) -> Result<(), Error> {
        let change = Change {
            path: path.clone(),
            value,
        };
        self.change(Vec::from([change]), by)
    }

    /// Grants wishes as they come in a request, all or none of them. Returns how many.
    ///
    /// # Errors
    /// As [`Store::change`], and `Invalid` for values of the wrong type.
    pub fn grant(&self, wishes: Vec<Wish>, by: &By) -> Result<usize, Error> {
        let typed = |wish: Wish| {
            let leaf = self.writable(&wish.path)?;
            let value = Value::from_json(leaf.kind(), &wish.value)
                .map_err(|message| Error::new(ErrorCode::Invalid, message).at(&wish.path))?;
            Ok(Change {
                path: wish.path,
                value,
            })
        };
        let changes: Vec<Change> = wishes.into_iter().map(typed).collect::<Result<_, _>>()?;
        let count = changes.len();
        self.change(changes, by).map(|()| count)
    }

    /// Makes all `changes` or none: first each is checked, then each is applied. If one fails then, those before it are
    /// taken back. What was changed is logged and told to the observers.
    ///
    /// # Errors
    /// `NotFound`, `NotWritable`, `Invalid` if a value cannot be, `Internal` if it could not be applied.
    pub fn change(&self, changes: Vec<Change>, by: &By) -> Result<(), Error> {
        let mut result = Ok(());
        (self.exclusive)(&mut || result = self.change_alone(&changes, by));
        result
    }

    fn change_alone(&self, changes: &[Change], by: &By) -> Result<(), Error> {
        let leaves: Vec<Arc<Leaf>> = changes
            .iter()
            .map(|change| self.writable(&change.path))
            .collect::<Result<_, _>>()?;
        let all = Changes(changes.to_vec());
        for (index, (leaf, change)) in leaves.iter().zip(changes).enumerate() {
            let invalid =
                |message: String| Error::new(ErrorCode::Invalid, message).at(&change.path);
            if changes[..index]
                .iter()
                .any(|other| other.path == change.path)
            {
                return Err(invalid("it is changed twice".into()));
            }
            leaf.admits(&change.value).map_err(invalid)?;
            if let Some(writer) = &leaf.writer {
                writer.check(&change.value, &all).map_err(invalid)?;
            }
        }
        let before: Vec<Change> = leaves
            .iter()
            .zip(changes)
            .map(|(leaf, change)| Change {
                path: change.path.clone(),
                value: leaf.read(),
            })
            .collect();
        for (index, (leaf, change)) in leaves.iter().zip(changes).enumerate() {
            let Some(writer) = &leaf.writer else {
                continue;
            };
            if let Err(message) = writer.apply(&change.value, &all) {
                let restored = take_back(&leaves[..index], &before[..index]);
                let message = match restored {
                    Ok(()) => message,
                    Err(path) => format!("{message}; and {path} could not be set back"),
                };
                return Err(Error::new(ErrorCode::Internal, message).at(&change.path));
            }
        }
        for (leaf, change) in leaves.iter().zip(changes) {
            self.tell(change, by, leaf.logged);
        }
        Ok(())
    }

    fn writable(&self, path: &Path) -> Result<Arc<Leaf>, Error> {
        match self.node(path)? {
            Node::Leaf(leaf) if leaf.is_writable() => Ok(leaf),
            _ => Err(Error::new(ErrorCode::NotWritable, "it cannot be changed").at(path)),
        }
    }

    /// Logs a change that holds and tells the observers: [`Store::change`] does so, and who changes a value by another way
    /// may.
    pub fn announce(&self, change: &Change, by: &By) {
        let logged = match self.node(&change.path) {
            Ok(Node::Leaf(leaf)) => leaf.logged,
            _ => true,
        };
        self.tell(change, by, logged);
    }

    /// The log's default level takes warnings, and who changed a running machine is to be found there.
    fn tell(&self, change: &Change, by: &By, logged: bool) {
        let path = &change.path;
        let value = if logged {
            format!(" to {}", change.value)
        } else {
            String::new()
        };
        let shown = &value[..value.floor_char_boundary(MAX_LOGGED)];
        log::warn!(target: "store", "{by} set {path}{shown}");
        for observer in &self.observers {
            observer(change, by);
        }
    }
}

/// Sets leaves back, the last one first. Fails with the path of one that could not be.
fn take_back(leaves: &[Arc<Leaf>], before: &[Change]) -> Result<(), Path> {
    let all = Changes(before.to_vec());
    let mut result = Ok(());
    for (leaf, change) in leaves.iter().zip(before).rev() {
        if let Some(writer) = &leaf.writer
            && writer.apply(&change.value, &all).is_err()
        {
            result = Err(change.path.clone());
        }
    }
    result
}
