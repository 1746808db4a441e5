//! The table of a directory in memory: by name for look-ups, by age for listings that go on where
//! they stopped while names come and go.

use alloc::{collections::BTreeMap, sync::Arc};

use super::TmpInode;

#[derive(Default)]
pub struct Table {
    by_name: BTreeMap<Arc<[u8]>, u64>,
    by_age: BTreeMap<u64, (Arc<[u8]>, Arc<TmpInode>)>,
    next: u64,
}

impl Table {
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    pub fn get(&self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let age = self.by_name.get(name)?;
        Some(self.by_age.get(age)?.1.clone())
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        self.by_name.contains_key(name)
    }

    /// Puts `inode` under `name`, and returns what was there.
    pub fn insert(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Option<Arc<TmpInode>> {
        let old = self.remove(name);
        let name: Arc<[u8]> = name.into();
        self.next += 1;
        self.by_name.insert(name.clone(), self.next);
        self.by_age.insert(self.next, (name, inode));
        old
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let age = self.by_name.remove(name)?;
        Some(self.by_age.remove(&age)?.1)
    }

    /// The first entry younger than `age`.
    pub fn after(&self, age: u64) -> Option<(u64, Arc<[u8]>, Arc<TmpInode>)> {
        let (&age, (name, inode)) = self.by_age.range(age + 1..).next()?;
        Some((age, name.clone(), inode.clone()))
    }

    /// Takes everything out.
    pub fn take_all(&mut self) -> impl Iterator<Item = Arc<TmpInode>> + use<> {
        self.by_name.clear();
        core::mem::take(&mut self.by_age)
            .into_values()
            .map(|(_, inode)| inode)
    }
}
