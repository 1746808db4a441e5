//! Advisory locks: record locks of `fcntl(2)` (POSIX and open-file-description) and `flock(2)`.
//!
//! All POSIX locks belong to the one process, so they never conflict with each other, only with
//! locks of open file descriptions. Pure: waiting is the system call's.

use alloc::vec::Vec;

/// Who holds a record lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The process (`F_SETLK`).
    Process,
    /// An open file description (`F_OFD_SETLK`, `flock`), by an identity unique among those alive.
    Description(usize),
}

/// Shared or exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `F_RDLCK`, `LOCK_SH`.
    Shared,
    /// `F_WRLCK`, `LOCK_EX`.
    Exclusive,
}

/// A locked range: from `start` up to, not including, `end` (`u64::MAX` = to the end of the file).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// First byte behind.
    pub end: u64,
}

/// A lock on a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Holder.
    pub owner: Owner,
    /// Shared or exclusive.
    pub kind: Kind,
    /// Where.
    pub range: Range,
}

/// The record locks of one file, sorted by start within an owner.
#[derive(Debug, Default)]
pub struct RecordLocks {
    locks: Vec<Lock>,
}

impl RecordLocks {
    /// The first lock that stands in the way of `wanted`.
    pub fn conflict(&self, wanted: &Lock) -> Option<Lock> {
        self.locks
            .iter()
            .filter(|held| {
                held.owner != wanted.owner
                    && held.range.start < wanted.range.end
                    && wanted.range.start < held.range.end
                    && (held.kind == Kind::Exclusive || wanted.kind == Kind::Exclusive)
            })
            .min_by_key(|held| held.range.start)
            .copied()
    }

    /// Sets `lock`, replacing what its owner held in that range, if nothing is in the way.
    pub fn set(&mut self, lock: Lock) -> Result<(), Lock> {
        if let Some(conflict) = self.conflict(&lock) {
            return Err(conflict);
        }
        self.clear(lock.owner, lock.range);
        self.locks.push(lock);
        self.merge(lock.owner);
        Ok(())
    }

    /// Unlocks a range, splitting locks that reach beyond it.
    pub fn clear(&mut self, owner: Owner, range: Range) {
        let mut rest = Vec::new();
        self.locks.retain(|held| {
            if held.owner != owner || held.range.end <= range.start || range.end <= held.range.start
            {
                return true;
            }
            if held.range.start < range.start {
                rest.push(Lock {
                    range: Range {
                        start: held.range.start,
                        end: range.start,
                    },
                    ..*held
                });
            }
            if range.end < held.range.end {
                rest.push(Lock {
                    range: Range {
                        start: range.end,
                        end: held.range.end,
                    },
                    ..*held
                });
            }
            false
        });
        self.locks.extend(rest);
    }

    /// Unlocks all of an owner's; answers whether there was anything.
    pub fn clear_owner(&mut self, owner: Owner) -> bool {
        let before = self.locks.len();
        self.locks.retain(|held| held.owner != owner);
        self.locks.len() != before
    }

    /// Joins an owner's locks of one kind that touch.
    fn merge(&mut self, owner: Owner) {
        self.locks.sort_by_key(|lock| lock.range.start);
        let mut merged: Vec<Lock> = Vec::with_capacity(self.locks.len());
        for lock in self.locks.drain(..) {
            let joined = lock.owner == owner
                && merged
                    .iter_mut()
                    .rev()
                    .find(|last| last.owner == owner)
                    .is_some_and(|last| {
                        let touches = last.kind == lock.kind && last.range.end >= lock.range.start;
                        if touches {
                            last.range.end = last.range.end.max(lock.range.end);
                        }
                        touches
                    });
            if !joined {
                merged.push(lock);
            }
        }
        self.locks = merged;
    }

    /// Whether no lock is held.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// All locks, for `/proc/locks`.
    pub fn all(&self) -> &[Lock] {
        &self.locks
    }
}

/// The `flock(2)` locks of one file: by open file description.
#[derive(Debug, Default)]
pub struct FileLocks {
    holders: Vec<(usize, Kind)>,
}

impl FileLocks {
    /// Takes or converts the lock of `owner`; `false` when another's is in the way. As on Linux, a
    /// conversion that must wait has given up the old lock.
    pub fn set(&mut self, owner: usize, kind: Kind) -> bool {
        if self.holders.contains(&(owner, kind)) {
            return true;
        }
        self.holders.retain(|(holder, _)| *holder != owner);
        if self
            .holders
            .iter()
            .any(|(_, held)| *held == Kind::Exclusive || kind == Kind::Exclusive)
        {
            return false;
        }
        self.holders.push((owner, kind));
        true
    }

    /// Gives up the lock of `owner`; answers whether it held one.
    pub fn clear(&mut self, owner: usize) -> bool {
        let before = self.holders.len();
        self.holders.retain(|(holder, _)| *holder != owner);
        self.holders.len() != before
    }

    /// Whether no lock is held.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(owner: Owner, kind: Kind, start: u64, end: u64) -> Lock {
        Lock {
            owner,
            kind,
            range: Range { start, end },
        }
    }

    #[test]
    fn the_process_does_not_conflict_with_itself() {
        let mut locks = RecordLocks::default();
        locks
            .set(lock(Owner::Process, Kind::Exclusive, 0, 100))
            .unwrap();
        locks
            .set(lock(Owner::Process, Kind::Shared, 20, 30))
            .unwrap();
        assert_eq!(locks.all().len(), 3);
        let wanted = lock(Owner::Description(1), Kind::Shared, 25, 26);
        assert_eq!(locks.conflict(&wanted), None);
        let wanted = lock(Owner::Description(1), Kind::Shared, 25, 31);
        assert_eq!(locks.conflict(&wanted).unwrap().range.start, 30);
    }

    #[test]
    fn descriptions_conflict() {
        let mut locks = RecordLocks::default();
        let (a, b) = (Owner::Description(1), Owner::Description(2));
        locks.set(lock(a, Kind::Exclusive, 0, u64::MAX)).unwrap();
        assert!(locks.set(lock(b, Kind::Shared, 5, 6)).is_err());
        locks.clear(a, Range { start: 5, end: 6 });
        locks.set(lock(b, Kind::Shared, 5, 6)).unwrap();
        assert!(locks.set(lock(a, Kind::Exclusive, 5, 6)).is_err());
        assert!(locks.clear_owner(b));
        locks.set(lock(a, Kind::Exclusive, 5, 6)).unwrap();
        assert_eq!(
            locks.all(),
            [lock(a, Kind::Exclusive, 0, u64::MAX)],
            "touching locks of one kind are one"
        );
    }

    #[test]
    fn flock_converts() {
        let mut locks = FileLocks::default();
        assert!(locks.set(1, Kind::Shared));
        assert!(locks.set(2, Kind::Shared));
        assert!(!locks.set(1, Kind::Exclusive));
        assert!(locks.clear(2));
        assert!(locks.set(1, Kind::Exclusive));
        assert!(!locks.set(2, Kind::Shared));
        assert!(locks.clear(1) && locks.is_empty());
    }
}
