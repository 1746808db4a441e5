//! The descriptor table: small numbers to open file descriptions, lowest free number first
//! (`open(2)`, `dup(2)`, `close_range(2)`).
//!
//! Generic over what it holds, so that its rules are tested without files. What closing a
//! description does is its own `Drop`, which runs after the table's lock is released.

use alloc::vec::Vec;

use errno::{Errno, Result};
use machine::sync::RwSpinLock;

/// Bits of one word of the maps.
const WORD: usize = u64::BITS as usize;

/// A table of descriptors.
pub struct FdTable<T> {
    slots: RwSpinLock<Slots<T>>,
}

struct Slots<T> {
    entries: Vec<Option<T>>,
    /// A set bit: the descriptor is in use (or reserved).
    used: Vec<u64>,
    /// A set bit: closed at `execve(2)`.
    close_on_exec: Vec<u64>,
    /// No descriptor below is free.
    first_free: usize,
    open: usize,
}

/// The descriptor as an index.
///
/// # Errors
/// `EBADF` for a negative one.
fn index(fd: i32) -> Result<usize> {
    usize::try_from(fd).map_err(|_| Errno::EBADF)
}

fn bit(map: &[u64], at: usize) -> bool {
    map.get(at / WORD)
        .is_some_and(|word| word >> (at % WORD) & 1 != 0)
}

fn set_bit(map: &mut [u64], at: usize, value: bool) {
    if let Some(word) = map.get_mut(at / WORD) {
        *word = *word & !(1 << (at % WORD)) | u64::from(value) << (at % WORD);
    }
}

impl<T> Slots<T> {
    fn reserve(&mut self, at: usize) -> Result<()> {
        if at < self.entries.len() {
            return Ok(());
        }
        let len = (at + 1).next_multiple_of(WORD);
        self.entries
            .try_reserve(len - self.entries.len())
            .map_err(|_| Errno::ENOMEM)?;
        self.entries.resize_with(len, || None);
        self.used.resize(len / WORD, 0);
        self.close_on_exec.resize(len / WORD, 0);
        Ok(())
    }

    fn lowest_free(&self, from: usize) -> usize {
        let from = from.max(self.first_free);
        let mut word = from / WORD;
        // What lies below `from` counts as used.
        let mut mask = (1u64 << (from % WORD)) - 1;
        while let Some(bits) = self.used.get(word) {
            let free = !(bits | mask);
            if free != 0 {
                return word * WORD + free.trailing_zeros() as usize;
            }
            mask = 0;
            word += 1;
        }
        from.max(word * WORD)
    }

    fn put(&mut self, at: usize, entry: T, close_on_exec: bool) -> Option<T> {
        set_bit(&mut self.used, at, true);
        set_bit(&mut self.close_on_exec, at, close_on_exec);
        let old = self.entries[at].replace(entry);
        if old.is_none() {
            self.open += 1;
        }
        old
    }

    fn take(&mut self, at: usize) -> Option<T> {
        let entry = self.entries.get_mut(at)?.take()?;
        set_bit(&mut self.used, at, false);
        set_bit(&mut self.close_on_exec, at, false);
        self.first_free = self.first_free.min(at);
        self.open -= 1;
        Some(entry)
    }
}

impl<T: Clone> FdTable<T> {
    /// A table with nothing open.
    pub const fn new() -> Self {
        FdTable {
            slots: RwSpinLock::new(Slots {
                entries: Vec::new(),
                used: Vec::new(),
                close_on_exec: Vec::new(),
                first_free: 0,
                open: 0,
            }),
        }
    }

    /// What `fd` refers to.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn get(&self, fd: i32) -> Result<T> {
        let at = index(fd)?;
        let slots = self.slots.read();
        match slots.entries.get(at) {
            Some(Some(entry)) => Ok(entry.clone()),
            _ => Err(Errno::EBADF),
        }
    }

    /// Opens the lowest free descriptor that is at least `from` and below `limit`.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn insert_from(
        &self,
        entry: T,
        from: usize,
        limit: usize,
        close_on_exec: bool,
    ) -> Result<i32> {
        let mut slots = self.slots.write();
        let at = slots.lowest_free(from);
        if at >= limit {
            return Err(Errno::EMFILE);
        }
        let fd = i32::try_from(at).map_err(|_| Errno::EMFILE)?;
        slots.reserve(at)?;
        if from <= slots.first_free {
            slots.first_free = at + 1;
        }
        slots.put(at, entry, close_on_exec);
        Ok(fd)
    }

    /// Opens the lowest free descriptor below `limit`.
    ///
    /// # Errors
    /// As [`FdTable::insert_from`].
    pub fn insert(&self, entry: T, limit: usize, close_on_exec: bool) -> Result<i32> {
        self.insert_from(entry, 0, limit, close_on_exec)
    }

    /// Makes `fd` refer to `entry` (`dup2(2)`), and returns what it referred to before, for the
    /// caller to drop.
    ///
    /// # Errors
    /// `EBADF` from `limit` on, `ENOMEM`.
    pub fn replace(
        &self,
        fd: i32,
        entry: T,
        limit: usize,
        close_on_exec: bool,
    ) -> Result<Option<T>> {
        let at = index(fd)?;
        if at >= limit {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.write();
        slots.reserve(at)?;
        Ok(slots.put(at, entry, close_on_exec))
    }

    /// Closes `fd` and returns what it referred to, for the caller to drop.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn remove(&self, fd: i32) -> Result<T> {
        let at = index(fd)?;
        self.slots.write().take(at).ok_or(Errno::EBADF)
    }

    /// Whether `fd` is closed at `execve(2)`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close_on_exec(&self, fd: i32) -> Result<bool> {
        let at = index(fd)?;
        let slots = self.slots.read();
        match slots.entries.get(at) {
            Some(Some(_)) => Ok(bit(&slots.close_on_exec, at)),
            _ => Err(Errno::EBADF),
        }
    }

    /// Sets whether `fd` is closed at `execve(2)`.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_close_on_exec(&self, fd: i32, value: bool) -> Result<()> {
        let at = index(fd)?;
        let mut slots = self.slots.write();
        match slots.entries.get(at) {
            Some(Some(_)) => set_bit(&mut slots.close_on_exec, at, value),
            _ => return Err(Errno::EBADF),
        }
        Ok(())
    }

    /// Closes all of `first..=last` and returns what they referred to.
    pub fn remove_range(&self, first: usize, last: usize) -> Vec<T> {
        let mut slots = self.slots.write();
        let end = slots.entries.len().min(last.saturating_add(1));
        (first..end).filter_map(|at| slots.take(at)).collect()
    }

    /// Marks all of `first..=last` as closed at `execve(2)`.
    pub fn set_close_on_exec_range(&self, first: usize, last: usize) {
        let mut slots = self.slots.write();
        let end = slots.entries.len().min(last.saturating_add(1));
        for at in first..end {
            if slots.entries[at].is_some() {
                set_bit(&mut slots.close_on_exec, at, true);
            }
        }
    }

    /// All open descriptors in order, with what they refer to.
    pub fn all(&self) -> Vec<(i32, T)> {
        let slots = self.slots.read();
        slots
            .entries
            .iter()
            .enumerate()
            .filter_map(|(at, entry)| Some((at as i32, entry.clone()?)))
            .collect()
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.slots.read().open
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many descriptors the table has room for (`FDSize` of `/proc/self/status`).
    pub fn capacity(&self) -> usize {
        self.slots.read().entries.len().max(WORD)
    }
}

impl<T: Clone> Default for FdTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[test]
    fn the_lowest_free_number_is_taken() {
        let table = FdTable::new();
        for n in 0..130 {
            assert_eq!(table.insert(n, 1024, false), Ok(n));
        }
        assert_eq!(table.remove(77), Ok(77));
        assert_eq!(table.remove(3), Ok(3));
        assert_eq!(table.insert(1, 1024, false), Ok(3));
        assert_eq!(table.insert_from(2, 100, 1024, true), Ok(130));
        assert_eq!(table.insert(3, 1024, false), Ok(77));
        assert_eq!(table.close_on_exec(130), Ok(true));
        assert_eq!(table.close_on_exec(3), Ok(false));
        assert_eq!(table.insert(9, 131, false), Err(Errno::EMFILE));
        assert_eq!(table.get(-1), Err(Errno::EBADF));
        assert_eq!(table.get(131), Err(Errno::EBADF));
    }

    #[test]
    fn replacing_returns_the_old_one() {
        let table = FdTable::new();
        assert_eq!(table.replace(200, 'a', 1024, true), Ok(None));
        assert_eq!(table.replace(200, 'b', 1024, false), Ok(Some('a')));
        assert_eq!(table.close_on_exec(200), Ok(false));
        assert_eq!(table.replace(1024, 'c', 1024, false), Err(Errno::EBADF));
        assert_eq!(table.len(), 1);
        assert_eq!(table.remove_range(0, usize::MAX), ['b']);
        assert!(table.is_empty());
    }

    #[test]
    fn it_agrees_with_a_simple_model() {
        let table = FdTable::new();
        let mut model: BTreeMap<i32, u32> = BTreeMap::new();
        let mut seed = 7u32;
        let mut random = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        for step in 0..20_000 {
            let fd = (random() % 200) as i32;
            match random() % 4 {
                0 => assert_eq!(table.remove(fd).ok(), model.remove(&fd)),
                1 => {
                    let lowest = (fd..).find(|n| !model.contains_key(n)).unwrap();
                    let got = table.insert_from(step, fd as usize, 256, false);
                    if lowest < 256 {
                        assert_eq!(got, Ok(lowest));
                        model.insert(lowest, step);
                    } else {
                        assert_eq!(got, Err(Errno::EMFILE));
                    }
                }
                2 => {
                    let lowest = (0..).find(|n| !model.contains_key(n)).unwrap();
                    if lowest < 256 {
                        assert_eq!(table.insert(step, 256, false), Ok(lowest));
                        model.insert(lowest, step);
                    }
                }
                _ => assert_eq!(
                    table.replace(fd, step, 256, false),
                    Ok(model.insert(fd, step))
                ),
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.all(), model.into_iter().collect::<Vec<_>>());
    }
}
