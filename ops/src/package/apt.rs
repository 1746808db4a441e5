//! The host's APT, used as an ordinary user: it resolves dependencies against an empty system, and it fetches packages, whose
//! signatures and checksums it verifies. Its state and caches are folders of ours; its sources are those configured on the host.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use crate::home::{Home, make_dir};
use crate::output::note;
use crate::progress;

/// Where the host keeps its indices.
const HOST_LISTS: &str = "/var/lib/apt/lists";

/// One version of a package of the distribution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deb {
    /// Its name.
    pub name: String,
    /// Its full version.
    pub version: String,
    /// `Pre-Depends` and `Depends`: for each, the alternatives.
    pub depends: Vec<Vec<String>>,
    /// Names it provides besides its own.
    pub provides: Vec<String>,
    /// SHA-256 of the archive, in hexadecimal digits.
    pub sha256: String,
}

impl Deb {
    /// The version without epoch and revision.
    pub fn upstream_version(&self) -> &str {
        let version = self
            .version
            .split_once(':')
            .map_or(self.version.as_str(), |v| v.1);
        version.rsplit_once('-').map_or(version, |v| v.0)
    }

    /// The name that `apt-get download` gives the file.
    fn is_file(&self, file: &str) -> bool {
        let prefix = format!("{}_{}_", self.name, self.version.replace(':', "%3a"));
        file.starts_with(&prefix) && file.ends_with(".deb")
    }
}

/// APT with its folders.
pub struct Apt {
    folder: PathBuf,
    lists: PathBuf,
}

impl Apt {
    /// Prepares the folders; uses the host's indices where there are any, otherwise fetches some of our own.
    pub fn open(home: &Home) -> Result<Self> {
        let folder = home.apt();
        for name in [
            "state",
            "cache/archives/partial",
            "lists/partial",
            "archives",
        ] {
            make_dir(&folder.join(name))?;
        }
        fs::write(folder.join("status"), "")?;
        let own = folder.join("lists");
        let mut apt = Apt {
            lists: own.clone(),
            folder,
        };
        if !has_indices(&own) {
            if has_indices(Path::new(HOST_LISTS)) {
                apt.lists = HOST_LISTS.into();
            } else {
                apt.update()?;
            }
        }
        Ok(apt)
    }

    /// Fetches indices of our own from the sources configured on the host.
    pub fn update(&mut self) -> Result<()> {
        self.lists = self.folder.join("lists");
        let spinner = progress::spinner("fetching the distribution's package indices");
        let result = self.run("apt-get", &["-q", "update"]);
        spinner.finish_and_clear();
        match result {
            // One source that does not answer must not stand in the way of the others.
            Err(e) if has_indices(&self.lists) => note(format!("{e:#}; going on with the others")),
            other => drop(other?),
        }
        Ok(())
    }

    /// Whether the indices in use are the host's.
    pub fn uses_host_lists(&self) -> bool {
        self.lists == Path::new(HOST_LISTS)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut set = |key: &str, path: &Path| {
            let mut option = OsString::from(format!("{key}="));
            option.push(path);
            command.arg("-o").arg(option);
        };
        set("Dir::State", &self.folder.join("state"));
        set("Dir::State::lists", &self.lists);
        set("Dir::State::status", &self.folder.join("status"));
        set("Dir::Cache", &self.folder.join("cache"));
        set("Dir::Log", &self.folder.join("state"));
        for option in [
            "APT::Architecture=amd64",
            "APT::Architectures::=amd64",
            "APT::Install-Recommends=false",
            "APT::Get::List-Cleanup=false",
            "Debug::NoLocking=true",
            "Dpkg::Use-Pty=false",
            "Acquire::Languages=none",
            "Acquire::http::Timeout=30",
            "Acquire::Retries=2",
        ] {
            command.args(["-o", option]);
        }
        if rustix::process::getuid().is_root() {
            // As root APT would fetch as the user `_apt`, who may not write into this user's folder.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .map_err(|e| not_started(program, &e))?;
        if !output.status.success() {
            return Err(complaint(program, &String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The version APT would install of a package, when it knows one.
    pub fn candidate(&self, package: &str) -> Result<Option<Deb>> {
        let text = self.run("apt-cache", &["policy", package])?;
        let version = text
            .lines()
            .find_map(|l| l.trim().strip_prefix("Candidate: "))
            .filter(|v| *v != "(none)");
        Ok(version.map(|v| Deb {
            name: package.to_string(),
            version: v.to_string(),
            ..Deb::default()
        }))
    }

    /// The packages wanted and all that they need, without `without` and what only that needs; by name.
    pub fn closure(&self, wanted: &[String], without: &[String]) -> Result<Vec<Deb>> {
        let mut arguments = vec!["-q", "--simulate", "install"];
        arguments.extend(wanted.iter().map(String::as_str));
        let plan = self.run("apt-get", &arguments)?;
        let chosen: Vec<String> = plan.lines().filter_map(installed).collect();
        if chosen.is_empty() {
            bail!("APT proposes no packages for {}", wanted.join(", "));
        }
        let mut arguments = vec!["show"];
        arguments.extend(chosen.iter().map(String::as_str));
        let text = self.run("apt-cache", &arguments)?;
        let mut debs = records(&text);
        debs.sort_by(|a, b| a.name.cmp(&b.name));
        debs.dedup_by(|a, b| a.name == b.name);
        if debs.len() != chosen.len() {
            bail!("APT does not describe all of {}", chosen.join(", "));
        }
        reachable(debs, wanted, without)
    }

    /// Fetches the archives that are not here yet; returns the file of each package.
    pub fn fetch(&self, debs: &[Deb]) -> Result<Vec<PathBuf>> {
        let missing: Vec<&Deb> = debs.iter().filter(|d| self.archive(d).is_none()).collect();
        if !missing.is_empty() {
            let bar = progress::bar(missing.len() as u64, "fetching packages");
            let result = self.download(&missing, &bar);
            bar.finish_and_clear();
            result?;
        }
        debs.iter()
            .map(|d| {
                self.archive(d)
                    .with_context(|| format!("APT did not fetch {} {}", d.name, d.version))
            })
            .collect()
    }

    fn download(&self, debs: &[&Deb], bar: &ProgressBar) -> Result<()> {
        let mut child = self
            .command("apt-get")
            .args(["-q", "download"])
            .args(debs.iter().map(|d| format!("{}={}", d.name, d.version)))
            .current_dir(self.folder.join("archives"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| not_started("apt-get", &e))?;
        let stderr = child.stderr.take();
        let errors = std::thread::spawn(move || {
            stderr
                .and_then(|e| std::io::read_to_string(e).ok())
                .unwrap_or_default()
        });
        for line in child
            .stdout
            .take()
            .into_iter()
            .flat_map(|o| BufReader::new(o).lines())
        {
            if line?.starts_with("Get:") {
                bar.inc(1);
            }
        }
        let status = child.wait()?;
        let errors = errors.join().unwrap_or_default();
        if !status.success() {
            return Err(complaint("apt-get download", &errors));
        }
        Ok(())
    }

    /// The archive of a package when it is here and whole.
    fn archive(&self, deb: &Deb) -> Option<PathBuf> {
        let entries = fs::read_dir(self.folder.join("archives")).ok()?;
        entries
            .flatten()
            .filter(|e| deb.is_file(&e.file_name().to_string_lossy()))
            .map(|e| e.path())
            .find(|path| {
                let digest = fs::read(path).map(|bytes| hex(&Sha256::digest(bytes)));
                digest.is_ok_and(|d| d == deb.sha256)
            })
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn has_indices(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().contains("_Packages")))
    })
}

fn not_started(program: &str, error: &std::io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::NotFound {
        anyhow!(
            "{program} is not on this machine: packages are made from the distribution's, which needs Debian's APT"
        )
    } else {
        anyhow!("cannot start {program}: {error}")
    }
}

/// APT's own error lines, without its warnings.
fn complaint(program: &str, stderr: &str) -> anyhow::Error {
    let lines: Vec<&str> = stderr
        .lines()
        .filter_map(|l| l.strip_prefix("E: "))
        .collect();
    let text = if lines.is_empty() {
        stderr.trim().to_string()
    } else {
        lines.join("; ")
    };
    anyhow!("{program} failed: {text}")
}

/// `name=version` of a line `Inst name (version ...)` of a simulated installation.
fn installed(line: &str) -> Option<String> {
    let mut words = line.strip_prefix("Inst ")?.split_whitespace();
    let name = words.next()?;
    let version = words.find_map(|w| w.strip_prefix('('))?;
    Some(format!("{name}={version}"))
}

/// The records that `apt-cache show` prints.
fn records(text: &str) -> Vec<Deb> {
    text.split("\n\n")
        .filter_map(|stanza| {
            let mut fields: BTreeMap<&str, String> = BTreeMap::new();
            let mut last = "";
            for line in stanza.lines() {
                if line.starts_with([' ', '\t']) {
                    if let Some(value) = fields.get_mut(last) {
                        value.push(' ');
                        value.push_str(line.trim());
                    }
                } else if let Some((key, value)) = line.split_once(':') {
                    last = key;
                    fields.insert(key, value.trim().to_string());
                }
            }
            let take = |key: &str| fields.get(key).cloned().unwrap_or_default();
            let mut depends = relations(&take("Pre-Depends"));
            depends.extend(relations(&take("Depends")));
            let deb = Deb {
                name: take("Package"),
                version: take("Version"),
                depends,
                provides: relations(&take("Provides")).into_iter().flatten().collect(),
                sha256: take("SHA256"),
            };
            (!deb.name.is_empty()).then_some(deb)
        })
        .collect()
}

/// The names of a relation field: `a (>= 1) | b, c:any` is `[[a, b], [c]]`.
fn relations(field: &str) -> Vec<Vec<String>> {
    field
        .split(',')
        .map(|item| {
            item.split('|')
                .filter_map(|one| one.split(['(', '[', ':']).next())
                .map(|name| name.trim().to_string())
                .filter(|name| !name.is_empty())
                .collect::<Vec<_>>()
        })
        .filter(|alternatives| !alternatives.is_empty())
        .collect()
}

/// What can be reached from the wanted packages without passing through those left out.
fn reachable(debs: Vec<Deb>, wanted: &[String], without: &[String]) -> Result<Vec<Deb>> {
    let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, deb) in debs.iter().enumerate() {
        by_name
            .entry(deb.name.clone())
            .or_default()
            .insert(0, index);
        for name in &deb.provides {
            by_name.entry(name.clone()).or_default().push(index);
        }
    }
    let mut kept = BTreeSet::new();
    let mut queue = VecDeque::new();
    for name in wanted {
        let index = by_name.get(name).and_then(|v| v.first());
        queue.push_back(*index.with_context(|| format!("APT does not propose {name}"))?);
    }
    while let Some(index) = queue.pop_front() {
        if without.contains(&debs[index].name) || !kept.insert(index) {
            continue;
        }
        for alternatives in &debs[index].depends {
            let providers = alternatives.iter().find_map(|name| by_name.get(name));
            queue.extend(providers.into_iter().flatten());
        }
    }
    Ok(debs
        .into_iter()
        .enumerate()
        .filter(|(index, _)| kept.contains(index))
        .map(|(_, deb)| deb)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_texts_are_understood() {
        assert_eq!(
            installed("Inst libc6 (2.36-9 Debian:12.11/stable [amd64]) []").as_deref(),
            Some("libc6=2.36-9")
        );
        assert_eq!(installed("Conf libc6 (2.36-9)"), None);
        let debs = records(
            "Package: a\nVersion: 1:2.3-4\nDepends: b (>= 1) | c,\n d:any\nPre-Depends: e\nProvides: x (= 1), y\nSHA256: ff\n\nPackage: z\nVersion: 1\n",
        );
        assert_eq!(debs.len(), 2);
        assert_eq!(debs[0].depends, [vec!["e"], vec!["b", "c"], vec!["d"]]);
        assert_eq!(debs[0].provides, ["x", "y"]);
        assert_eq!(debs[0].upstream_version(), "2.3");
        assert!(
            debs[0].is_file("a_1%3a2.3-4_amd64.deb") && !debs[0].is_file("a_1%3a2.3-45_amd64.deb")
        );
        assert_eq!(debs[1].upstream_version(), "1");
    }

    #[test]
    fn what_is_left_out_takes_its_own_with_it() {
        let deb = |name: &str, depends: &[&str], provides: &[&str]| Deb {
            name: name.into(),
            depends: depends.iter().map(|d| vec![d.to_string()]).collect(),
            provides: provides.iter().map(|p| p.to_string()).collect(),
            ..Deb::default()
        };
        let debs = vec![
            deb("lib", &[], &["virtual"]),
            deb("perl", &["lib"], &[]),
            deb("program", &["virtual", "tool"], &[]),
            deb("tool", &["perl"], &[]),
        ];
        let names = |without: &[&str]| -> Vec<String> {
            let without: Vec<String> = without.iter().map(|s| s.to_string()).collect();
            let debs = reachable(debs.clone(), &["program".to_string()], &without).unwrap();
            debs.into_iter().map(|d| d.name).collect()
        };
        assert_eq!(names(&[]), ["lib", "perl", "program", "tool"]);
        assert_eq!(names(&["tool"]), ["lib", "program"]);
        assert!(reachable(debs.clone(), &["none".to_string()], &[]).is_err());
    }

    #[test]
    fn complaints_are_one_line() {
        let error = complaint("apt-get", "W: x\nE: Unable to locate package foo\nE: bar\n");
        assert_eq!(
            error.to_string(),
            "apt-get failed: Unable to locate package foo; bar"
        );
    }
}
