//! `/limits`: the resource limits of `getrlimit(2)`, which can be changed.
use alloc::format;
use alloc::string::String;

use store::{Branch, Changes, Leaf, Path, Value, Writer};

use crate::limits::{Limit, Limits, RLIM_INFINITY, Resource};
use crate::process;

/// The limits that are enforced, and what they limit.
const LIMITS: &[(&str, Resource, &str)] = &[
    (
        "fsize",
        Resource::Fsize,
        "The largest file a write may make, in bytes; -1 is no limit.",
    ),
    (
        "data",
        Resource::Data,
        "The data segment, heap included, in bytes; -1 is no limit.",
    ),
    (
        "stack",
        Resource::Stack,
        "The main thread's stack in bytes; -1 is no limit.",
    ),
    (
        "core",
        Resource::Core,
        "A core file in bytes; -1 is no limit.",
    ),
    ("nproc", Resource::Nproc, "Threads; -1 is no limit."),
    (
        "nofile",
        Resource::Nofile,
        "One above the highest descriptor.",
    ),
    (
        "memlock",
        Resource::Memlock,
        "Locked memory in bytes; -1 is no limit.",
    ),
    (
        "as",
        Resource::As,
        "The address space in bytes; -1 is no limit.",
    ),
    (
        "sigpending",
        Resource::Sigpending,
        "Queued signals; -1 is no limit.",
    ),
];

/// Resource limits.
pub fn branch() -> Branch {
    let branch =
        Branch::new("Resource limits of the program, as prlimit(2) has them.").no_metrics();
    LIMITS
        .iter()
        .fold(branch, |branch, (name, resource, help)| {
            let leaf = |part: Part| {
                let resource = *resource;
                Leaf::gauge(move || read(resource, part))
                    .help(help)
                    .range(-1, i64::MAX)
                    .writer(LimitWriter {
                        name,
                        resource,
                        part,
                    })
            };
            let both = Branch::new(help)
                .with("soft", leaf(Part::Soft))
                .with("hard", leaf(Part::Hard));
            branch.with(*name, both)
        })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Soft,
    Hard,
}

fn shown(limit: u64) -> i64 {
    match limit {
        RLIM_INFINITY => -1,
        limit => i64::try_from(limit).unwrap_or(i64::MAX),
    }
}

fn meant(value: &Value) -> Option<u64> {
    match value.as_integer()? {
        -1 => Some(RLIM_INFINITY),
        number => u64::try_from(number).ok(),
    }
}

fn read(resource: Resource, part: Part) -> i64 {
    process::get().map_or(-1, |process| {
        let limit = process.limits.get(resource);
        shown(if part == Part::Soft {
            limit.soft
        } else {
            limit.hard
        })
    })
}

/// Both parts of a limit may be changed by one request: each writer looks at both, so that their order does not matter.
struct LimitWriter {
    name: &'static str,
    resource: Resource,
    part: Part,
}

impl LimitWriter {
    fn wanted(&self, limits: &Limits, value: &Value, all: &Changes) -> Result<Limit, String> {
        let mut limit = limits.get(self.resource);
        let mut set = |part: Part, value: &Value| {
            let value = meant(value).ok_or("it is no limit")?;
            match part {
                Part::Soft => limit.soft = value,
                Part::Hard => limit.hard = value,
            }
            Ok::<(), String>(())
        };
        for (part, word) in [(Part::Soft, "soft"), (Part::Hard, "hard")] {
            let path = Path::parse(&format!("/limits/{}/{word}", self.name))
                .map_err(|error| error.message)?;
            if let Some(value) = all.get(&path) {
                set(part, value)?;
            }
        }
        set(self.part, value)?;
        Limits::check(self.resource, limit).map_err(|_| match limit.soft > limit.hard {
            true => String::from("the soft limit would be above the hard one"),
            false => String::from("it is more than the kernel can hold"),
        })?;
        Ok(limit)
    }
}

impl Writer for LimitWriter {
    fn check(&self, value: &Value, all: &Changes) -> Result<(), String> {
        let process = process::get().ok_or("there is no program yet")?;
        self.wanted(&process.limits, value, all).map(|_| ())
    }

    fn apply(&self, value: &Value, all: &Changes) -> Result<(), String> {
        let process = process::get().ok_or("there is no program yet")?;
        let limit = self.wanted(&process.limits, value, all)?;
        process
            .limits
            .set(self.resource, limit)
            .map_err(|errno| format!("{errno}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_must_fit_its_other_half() {
        let limits = Limits::new();
        let writer = |part| LimitWriter {
            name: "nofile",
            resource: Resource::Nofile,
            part,
        };
        let wanted =
            |part, value| writer(part).wanted(&limits, &Value::Integer(value), &Changes::default());
        assert_eq!(
            wanted(Part::Soft, 10).unwrap(),
            Limit {
                soft: 10,
                hard: 1 << 20
            }
        );
        assert!(wanted(Part::Hard, 10).unwrap_err().contains("above"));
        assert!(wanted(Part::Soft, -1).is_err());
        assert!(wanted(Part::Hard, -1).unwrap_err().contains("kernel"));
        assert!(wanted(Part::Hard, -2).is_err());
        assert_eq!(shown(RLIM_INFINITY), -1);
        assert_eq!(meant(&Value::Integer(-1)), Some(RLIM_INFINITY));
    }
}
