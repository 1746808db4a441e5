//! The libraries that a dynamic program needs, found as the loader of glibc would find them (`ld.so(8)`), by reading files only.
//!
//! Order for each needed name: DT_RPATH of the file and of those that loaded it (only where the file has no DT_RUNPATH),
//! `$LD_LIBRARY_PATH`, DT_RUNPATH of the file itself, the loader's cache, the default folders.

use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cache::Cache;
use super::{Elf, is_usable, read};

/// Where the loader looks last on Debian and on others.
const DEFAULT_DIRS: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// Where musl's loader looks unless `/etc/ld-musl-x86_64.path` says otherwise, and where Debian puts its libraries.
const MUSL_DIRS: &[&str] = &[
    "/lib",
    "/usr/local/lib",
    "/usr/lib",
    "/lib/x86_64-linux-musl",
    "/usr/lib/x86_64-linux-musl",
];

/// The view of the host's files through `--target-root`: each path is looked up under that folder first.
#[derive(Debug, Clone, Default)]
pub struct Host {
    target_root: Option<PathBuf>,
}

impl Host {
    /// The host as it is, or seen through a folder.
    pub fn new(target_root: Option<PathBuf>) -> Self {
        Host { target_root }
    }

    /// The file on this machine for an absolute path of the guest.
    pub fn find(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix("/").unwrap_or(path);
        if let Some(root) = &self.target_root {
            let candidate = self.follow(root, &root.join(below), 0);
            if let Some(found) = candidate.filter(|c| c.symlink_metadata().is_ok()) {
                return Some(found);
            }
        }
        path.symlink_metadata().is_ok().then(|| path.to_path_buf())
    }

    /// Follows the symbolic links of every part of `path`, taking absolute targets to mean below `root`.
    fn follow(&self, root: &Path, path: &Path, depth: u32) -> Option<PathBuf> {
        if depth > 40 {
            return None;
        }
        let mut done = root.to_path_buf();
        let rest: Vec<_> = path.strip_prefix(root).ok()?.components().collect();
        for (index, part) in rest.iter().enumerate() {
            done.push(part);
            if let Ok(target) = std::fs::read_link(&done) {
                let mut next = match target.strip_prefix("/") {
                    Ok(below) => root.join(below),
                    Err(_) => done.parent()?.join(&target),
                };
                next.extend(&rest[index + 1..]);
                return self.follow(root, &next, depth + 1);
            }
        }
        Some(done)
    }

    /// The folder of `--target-root`.
    pub fn target_root(&self) -> Option<&Path> {
        self.target_root.as_deref()
    }
}

/// A file that goes into the image: where it is on this machine, and under which path the guest's loader looks for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The path in the guest.
    pub guest: PathBuf,
    /// The file here.
    pub host: PathBuf,
}

/// What a program needs to be loaded.
#[derive(Debug, Default)]
pub struct Needs {
    /// PT_INTERP's file.
    pub interpreter: Option<Found>,
    /// The libraries, each under the name by which it is looked for.
    pub libraries: Vec<(String, Found)>,
}

/// A folder as the guest names it and as it is named here. They differ only beside the program.
#[derive(Debug, Clone)]
struct Dir {
    guest: PathBuf,
    host: PathBuf,
}

impl Dir {
    fn same(path: impl Into<PathBuf>) -> Self {
        let guest = path.into();
        Dir {
            host: guest.clone(),
            guest,
        }
    }

    fn of(file: &Found) -> Self {
        let parent = |p: &Path| p.parent().unwrap_or(Path::new("/")).to_path_buf();
        Dir {
            guest: parent(&file.guest),
            host: parent(&file.host),
        }
    }
}

/// One loaded object while walking: its facts, and the RPATHs of those that loaded it.
struct Object {
    elf: Elf,
    origin: Dir,
    inherited: Vec<Dir>,
    name: String,
}

/// The interpreter and the libraries of `program`, whose path in the guest is `guest`.
///
/// # Errors
/// A library that is found nowhere: the error has its name, who needs it, and where was looked.
pub fn needs(host: &Host, program: &Path, guest: &Path) -> Result<Needs> {
    let elf = read(program)?;
    let mut out = Needs::default();
    if let Some(interpreter) = &elf.interpreter {
        let guest = PathBuf::from(interpreter);
        match host.find(&guest) {
            Some(host) => out.interpreter = Some(Found { guest, host }),
            None => bail!(
                "{}: its interpreter {interpreter} is missing on this machine",
                program.display()
            ),
        }
    }
    let cache_file = host.find(Path::new("/etc/ld.so.cache"));
    let cache = cache_file
        .and_then(|p| std::fs::read(p).ok())
        .map_or_else(Cache::default, |bytes| Cache::parse(&bytes));
    let environment = env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let musl = elf
        .interpreter
        .as_deref()
        .is_some_and(|i| i.contains("/ld-musl-"));
    let search = Search {
        host,
        cache: if musl { Cache::default() } else { cache },
        defaults: if musl { MUSL_DIRS } else { DEFAULT_DIRS },
        environment: environment
            .split(':')
            .filter(|p| !p.is_empty())
            .map(PathBuf::from)
            .collect(),
    };
    let mut known = BTreeSet::new();
    let mut queue = VecDeque::from([Object {
        elf,
        origin: Dir::of(&Found {
            guest: guest.to_path_buf(),
            host: std::path::absolute(program)?,
        }),
        inherited: Vec::new(),
        name: program.display().to_string(),
    }]);
    while let Some(object) = queue.pop_front() {
        let mut rpath = expand(&object.elf.rpath, &object.origin);
        rpath.extend(object.inherited.iter().cloned());
        for name in &object.elf.needed {
            // musl's loader is its C library.
            let own = musl && (name == "libc.so" || name.starts_with("libc.musl-"));
            if own || !known.insert(name.clone()) {
                continue;
            }
            let found = search.find(name, &object, &rpath)?;
            queue.push_back(Object {
                elf: read(&found.host)?,
                origin: Dir::of(&found),
                inherited: rpath.clone(),
                name: name.clone(),
            });
            out.libraries.push((name.clone(), found));
        }
    }
    Ok(out)
}

fn is_system(path: &Path) -> bool {
    DEFAULT_DIRS.iter().any(|d| path.starts_with(d))
}

struct Search<'a> {
    host: &'a Host,
    cache: Cache,
    /// The loader's default folders.
    defaults: &'static [&'static str],
    environment: Vec<PathBuf>,
}

impl Search<'_> {
    /// Where the loader finds a needed library.
    fn find(&self, name: &str, by: &Object, rpath: &[Dir]) -> Result<Found> {
        if name.contains('/') {
            let file = expand(&[name.to_string()], &by.origin).remove(0);
            return self.usable(&file.host, file.guest).with_context(|| {
                format!("{} needs the library {name}, which is missing", by.name)
            });
        }
        let mut looked: Vec<PathBuf> = Vec::new();
        let mut among = |dirs: &[Dir]| {
            looked.extend(dirs.iter().map(|d| d.host.clone()));
            self.in_dirs(name, dirs)
        };
        if by.elf.runpath.is_empty()
            && let Some(found) = among(rpath)
        {
            return Ok(found);
        }
        // The guest's loader has no LD_LIBRARY_PATH: what came from it is put where it looks by itself.
        let environment: Vec<Dir> = self
            .environment
            .iter()
            .map(|host| Dir {
                guest: self.defaults[1].into(),
                host: host.clone(),
            })
            .collect();
        if let Some(found) = among(&environment) {
            return Ok(found);
        }
        if let Some(found) = among(&expand(&by.elf.runpath, &by.origin)) {
            return Ok(found);
        }
        if let Some(path) = self.cache.find(name).map(PathBuf::from) {
            let barred = by.elf.no_default_dirs && is_system(&path);
            if let Some(found) = self.usable(&path, path.clone()).filter(|_| !barred) {
                return Ok(found);
            }
        }
        if !by.elf.no_default_dirs {
            let defaults: Vec<Dir> = self.defaults.iter().map(|d| Dir::same(*d)).collect();
            if let Some(found) = among(&defaults) {
                return Ok(found);
            }
        }
        let places: Vec<String> = looked.iter().map(|p| p.display().to_string()).collect();
        bail!(
            "{} needs the library {name}, which is neither in the loader's cache nor in {}",
            by.name,
            places.join(", ")
        )
    }

    fn in_dirs(&self, name: &str, dirs: &[Dir]) -> Option<Found> {
        dirs.iter()
            .find_map(|d| self.usable(&d.host.join(name), d.guest.join(name)))
    }

    fn usable(&self, path: &Path, guest: PathBuf) -> Option<Found> {
        let host = self.host.find(path).filter(|p| is_usable(p))?;
        Some(Found { guest, host })
    }
}

fn expand(paths: &[String], origin: &Dir) -> Vec<Dir> {
    let one = |path: &str, origin: &Path| normalise(Path::new(&substitute(path, origin)));
    paths
        .iter()
        .map(|p| Dir {
            guest: one(p, &origin.guest),
            host: one(p, &origin.host),
        })
        .collect()
}

/// Replaces `$ORIGIN`, `$LIB` and `$PLATFORM`, with or without braces.
fn substitute(path: &str, origin: &Path) -> String {
    let origin = origin.to_string_lossy();
    let mut out = path.to_string();
    for (name, value) in [
        ("ORIGIN", origin.as_ref()),
        ("LIB", "lib/x86_64-linux-gnu"),
        ("PLATFORM", "x86_64"),
    ] {
        out = out.replace(&format!("${{{name}}}"), value);
        out = out.replace(&format!("${name}"), value);
    }
    out
}

/// Removes `.` and `..` from a path by its text alone.
pub fn normalise(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
                if out.as_os_str().is_empty() && path.is_absolute() {
                    out.push("/");
                }
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    /// Builds a library or program with the host's C compiler.
    fn cc(folder: &Path, output: &str, code: &str, extra: &[&str]) {
        let source = folder.join(format!("{}.c", output.replace('/', "_")));
        fs::write(&source, code).unwrap();
        fs::create_dir_all(folder.join(output).parent().unwrap()).unwrap();
        let status = Command::new("cc")
            .current_dir(folder)
            .arg(&source)
            .args(["-o", output])
            .args(extra)
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn the_libraries_of_a_system_program() {
        let needs = needs(&Host::default(), Path::new("/bin/ls"), Path::new("/bin/ls")).unwrap();
        assert!(needs.interpreter.unwrap().host.exists());
        assert!(needs.libraries.iter().any(|(name, _)| name == "libc.so.6"));
        for (name, found) in &needs.libraries {
            assert!(
                found.host.exists() && found.guest.ends_with(name),
                "{found:?}"
            );
        }
    }

    #[test]
    fn rpath_is_inherited_and_runpath_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        cc(
            at,
            "deep/libdeep.so",
            "int deep(void){return 1;}",
            &["-shared", "-fPIC"],
        );
        cc(
            at,
            "near/libnear.so",
            "int deep(void); int near(void){return deep();}",
            &["-shared", "-fPIC", "-Ldeep", "-ldeep"],
        );
        let main = "int near(void); int main(void){return near();}";
        let link = ["-Lnear", "-lnear", "-Wl,-rpath-link,deep"];
        let old = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../near:${ORIGIN}/../deep";
        let new = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../near:${ORIGIN}/../deep";
        cc(at, "bin/old", main, &[&link[..], &[old]].concat());
        cc(at, "bin/new", main, &[&link[..], &[new]].concat());

        // $ORIGIN is beside the program in the guest, wherever the program lies here.
        let guest = Path::new("/bin/old");
        let found = needs(&Host::default(), &at.join("bin/old"), guest)
            .unwrap()
            .libraries;
        let deep = found.iter().find(|(name, _)| name == "libdeep.so").unwrap();
        assert_eq!(deep.1.guest, Path::new("/deep/libdeep.so"));
        assert_eq!(deep.1.host, at.join("deep/libdeep.so"));

        let error = needs(&Host::default(), &at.join("bin/new"), guest).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("libnear.so needs the library libdeep.so"),
            "{text}"
        );
        assert!(text.contains("/usr/lib"), "{text}");
    }

    #[test]
    fn musls_loader_is_its_c_library() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let library = ["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libc.so"];
        cc(at, "lib/libstub.so", "int f(void){return 1;}", &library);
        let loader = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1";
        let main = "int f(void); void _start(void){f();}";
        cc(at, "prog", main, &["-nostdlib", "-Llib", "-lstub", loader]);
        fs::copy(
            at.join("lib/libstub.so"),
            at.join("lib/ld-musl-x86_64.so.1"),
        )
        .unwrap();
        let host = Host::new(Some(at.to_path_buf()));
        let needs = needs(&host, &at.join("prog"), Path::new("/prog")).unwrap();
        assert!(needs.libraries.is_empty());
        let interpreter = needs.interpreter.unwrap();
        assert_eq!(interpreter.host, at.join("lib/ld-musl-x86_64.so.1"));
    }

    #[test]
    fn target_root_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::create_dir_all(at.join("usr/lib")).unwrap();
        std::os::unix::fs::symlink("/usr/lib", at.join("lib")).unwrap();
        fs::write(at.join("usr/lib/x"), "x").unwrap();
        let host = Host::new(Some(at.to_path_buf()));
        assert_eq!(host.find(Path::new("/lib/x")), Some(at.join("usr/lib/x")));
        assert_eq!(
            host.find(Path::new("/etc/passwd")),
            Some("/etc/passwd".into())
        );
        assert_eq!(host.find(Path::new("/none/x")), None);
    }

    #[test]
    fn paths_are_normalised() {
        for (path, wanted) in [
            ("/a/./b/../c", "/a/c"),
            ("/../a", "/a"),
            ("/..", "/"),
            ("a/..", ""),
        ] {
            assert_eq!(normalise(Path::new(path)), Path::new(wanted));
        }
    }
}
