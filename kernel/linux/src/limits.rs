//! Resource limits (`getrlimit(2)`): the values, and which of them are enforced where.
use errno::{Errno, Result};
use machine::sync::SpinLock;

/// "No limit".
pub const RLIM_INFINITY: u64 = u64::MAX;

/// The limits of `getrlimit(2)`, by Linux's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Resource {
    /// Processor seconds.
    Cpu = 0,
    /// Largest file a write may make.
    Fsize = 1,
    /// Data segment, heap included.
    Data = 2,
    /// Main thread's stack.
    Stack = 3,
    /// Core file.
    Core = 4,
    /// Resident set; without effect, as in Linux.
    Rss = 5,
    /// Threads.
    Nproc = 6,
    /// One above the highest descriptor.
    Nofile = 7,
    /// Locked memory.
    Memlock = 8,
    /// Address space.
    As = 9,
    /// File locks.
    Locks = 10,
    /// Queued signals.
    Sigpending = 11,
    /// Bytes in message queues.
    Msgqueue = 12,
    /// Ceiling of the nice value.
    Nice = 13,
    /// Ceiling of the real-time priority.
    Rtprio = 14,
    /// Microseconds of real-time running without blocking.
    Rttime = 15,
}

/// How many there are.
pub const RLIM_NLIMITS: usize = 16;

impl Resource {
    /// The resource with Linux's number `n`.
    pub const fn from_number(n: u32) -> Option<Resource> {
        use Resource::*;
        Some(match n {
            0 => Cpu,
            1 => Fsize,
            2 => Data,
            3 => Stack,
            4 => Core,
            5 => Rss,
            6 => Nproc,
            7 => Nofile,
            8 => Memlock,
            9 => As,
            10 => Locks,
            11 => Sigpending,
            12 => Msgqueue,
            13 => Nice,
            14 => Rtprio,
            15 => Rttime,
            _ => return None,
        })
    }
}

/// A soft and a hard limit (`struct rlimit64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `rlim_cur`.
    pub soft: u64,
    /// `rlim_max`.
    pub hard: u64,
}

/// All limits of the process.
pub struct Limits(SpinLock<[Limit; RLIM_NLIMITS]>);

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

impl Limits {
    /// The limits a program finds at its start on Linux, with room for a million descriptors.
    pub fn new() -> Self {
        const NONE: Limit = Limit {
            soft: RLIM_INFINITY,
            hard: RLIM_INFINITY,
        };
        let mut limits = [NONE; RLIM_NLIMITS];
        let mut set =
            |resource: Resource, soft, hard| limits[resource as usize] = Limit { soft, hard };
        set(Resource::Stack, 8 << 20, RLIM_INFINITY);
        set(Resource::Core, 0, RLIM_INFINITY);
        set(
            Resource::Nproc,
            crate::process::MAX_THREADS as u64,
            crate::process::MAX_THREADS as u64,
        );
        set(Resource::Nofile, 65536, 1 << 20);
        set(Resource::Memlock, 8 << 20, 8 << 20);
        set(
            Resource::Sigpending,
            crate::signal::queue::MAX_QUEUED as u64,
            crate::signal::queue::MAX_QUEUED as u64,
        );
        set(Resource::Msgqueue, 819_200, 819_200);
        set(Resource::Nice, 0, 0);
        set(Resource::Rtprio, 0, 0);
        Limits(SpinLock::new(limits))
    }

    /// Both limits of `resource`.
    pub fn get(&self, resource: Resource) -> Limit {
        self.0.lock()[resource as usize]
    }

    /// The soft limit of `resource`.
    pub fn soft(&self, resource: Resource) -> u64 {
        self.get(resource).soft
    }

    /// Whether both limits can be set.
    ///
    /// # Errors
    /// As [`Limits::set`].
    pub fn check(resource: Resource, limit: Limit) -> Result<()> {
        if limit.soft > limit.hard {
            return Err(Errno::EINVAL);
        }
        if resource == Resource::Nofile && limit.hard > 1 << 20 {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Sets both limits.
    ///
    /// # Errors
    /// `EINVAL` when soft is above hard, `EPERM` for more descriptors than the kernel can hold.
    pub fn set(&self, resource: Resource, limit: Limit) -> Result<()> {
        Limits::check(resource, limit)?;
        self.0.lock()[resource as usize] = limit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_stays_below_hard() {
        let limits = Limits::new();
        assert_eq!(limits.soft(Resource::Stack), 8 << 20);
        assert_eq!(
            limits.set(Resource::Nofile, Limit { soft: 2, hard: 1 }),
            Err(Errno::EINVAL)
        );
        limits
            .set(Resource::Nofile, Limit { soft: 10, hard: 20 })
            .unwrap();
        assert_eq!(limits.get(Resource::Nofile), Limit { soft: 10, hard: 20 });
        assert_eq!(Resource::from_number(16), None);
    }
}
