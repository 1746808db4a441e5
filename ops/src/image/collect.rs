//! Fills the tree of an image: from a program of the host with its libraries, or from a package, and from the files that
//! the configuration names.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::system;
use super::tree::{Attributes, Kind, Tree};
use crate::config::Config;
use crate::elf::closure::{Found, Host, needs, normalise};
use crate::output::note;

/// Libraries that programs load by name at run time, so that no ELF file tells of them.
const NAME_SERVICE: [&str; 2] = [
    "/lib/x86_64-linux-gnu/libnss_dns.so.2",
    "/lib/x86_64-linux-gnu/libnss_files.so.2",
];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The tree of an image for a program of this machine.
pub fn from_program(config: &Config, program: &Path) -> Result<Tree> {
    let host = Host::new(config.target_root.as_ref().map(PathBuf::from));
    let mut tree = Tree::default();
    let guest = guest_path(program);
    let file = program_file(&host, program)?;
    let needs = needs(&host, &file, &guest)?;
    if program.is_absolute() {
        // It keeps its place in the system, links on the way included.
        let found = Found {
            guest: guest.clone(),
            host: file,
        };
        put_found(&mut tree, &host, &found)?;
    } else {
        tree.put_host(&guest, &file.canonicalize()?)?;
    }
    tree.make_executable(&guest);

    let mut libraries: Vec<(String, String)> = Vec::new();
    if let Some(interpreter) = needs.interpreter {
        put_found(&mut tree, &host, &interpreter)?;
        for name in NAME_SERVICE {
            let guest = PathBuf::from(name);
            if let Some(host_file) = host.find(&guest) {
                let found = Found {
                    guest,
                    host: host_file,
                };
                put_found(&mut tree, &host, &found)?;
            }
        }
    }
    for (name, found) in &needs.libraries {
        put_found(&mut tree, &host, found)?;
        libraries.push((name.clone(), found.guest.to_string_lossy().into_owned()));
    }
    let certificates = PathBuf::from(CERTIFICATES);
    if let Some(file) = host.find(&certificates) {
        let found = Found {
            guest: certificates,
            host: file,
        };
        put_found(&mut tree, &host, &found)?;
    }
    configured(&mut tree, &host, config)?;
    system::add_loader_cache(&mut tree, &libraries)?;
    system::add(&mut tree, config)?;
    Ok(tree)
}

/// The tree of an image for a package: its `sysroot/` at the root, its program where it has one beside that.
pub fn from_package(config: &Config, folder: &Path) -> Result<Tree> {
    let host = Host::new(config.target_root.as_ref().map(PathBuf::from));
    let mut tree = Tree::default();
    let sysroot = folder.join("sysroot");
    if sysroot.is_dir() {
        tree.put_host(Path::new("/"), &sysroot)?;
    }
    let program = config.program.as_deref().unwrap_or_default();
    if let Some((beside, guest)) = program_beside(folder, program) {
        tree.put_host(&guest, &beside)?;
    }
    configured(&mut tree, &host, config)?;
    system::add(&mut tree, config)?;
    let libraries = system::libraries_in(&tree);
    system::add_loader_cache(&mut tree, &libraries)?;
    let guest = package_program(folder, program)?;
    if tree.find(&guest, true).is_none() {
        bail!(
            "the package {} says its program is {program}, and has no such file",
            folder.display()
        );
    }
    Ok(tree)
}

/// The program's path in the guest, for a package. `<name>_<version>/<binary>` is the file beside the sysroot.
pub fn package_program(folder: &Path, program: &str) -> Result<PathBuf> {
    if program.is_empty() {
        bail!("the package {} does not say its Program", folder.display());
    }
    Ok(match program_beside(folder, program) {
        Some((_, guest)) => guest,
        None => guest_path(Path::new(program)),
    })
}

fn program_beside(folder: &Path, program: &str) -> Option<(PathBuf, PathBuf)> {
    let below = match program.split_once('/') {
        Some((first, rest)) if folder.file_name().is_some_and(|n| n == first) => rest,
        _ if !program.contains('/') && !program.is_empty() => program,
        _ => return None,
    };
    let file = folder.join(below);
    file.is_file().then(|| (file, guest_path(Path::new(below))))
}

/// The path in the guest of a path as typed here: absolute, without `.` and `..`.
pub fn guest_path(path: &Path) -> PathBuf {
    normalise(&Path::new("/").join(path))
}

fn program_file(host: &Host, program: &Path) -> Result<PathBuf> {
    if let Some(root) = host.target_root()
        && let Some(found) = host
            .find(&guest_path(program))
            .filter(|p| p.starts_with(root))
    {
        return Ok(found);
    }
    if program.exists() {
        return Ok(program.to_path_buf());
    }
    bail!("there is no file {}", program.display())
}

/// Puts a file of the host where the guest looks for it. Links on the way to it, and of it, are kept as links.
fn put_found(tree: &mut Tree, host: &Host, found: &Found) -> Result<()> {
    put_path(tree, host, &found.guest, &found.host, 0)
}

fn put_path(tree: &mut Tree, host: &Host, guest: &Path, file: &Path, links: u32) -> Result<()> {
    if links > 40 {
        bail!("{}: too many symbolic links", file.display());
    }
    // The folders on the way may be links in the host (`/lib` to `usr/lib`): then they are in the guest.
    let mut at = PathBuf::from("/");
    for part in guest.parent().unwrap_or(Path::new("/")).components() {
        let Component::Normal(name) = part else {
            continue;
        };
        let next = at.join(name);
        if let Some(target) = link_of(host, &next)
            && tree.find(&next, false).is_none()
        {
            tree.put(&next, Kind::Symlink(target), Attributes::made(0o777))?;
        }
        at = next;
    }
    match fs::read_link(file) {
        Ok(target) => {
            let attributes = Attributes::of(&file.symlink_metadata()?);
            if tree.find(guest, false).is_none() {
                tree.put(guest, Kind::Symlink(target.clone()), attributes)?;
            }
            let beside =
                |path: &Path| normalise(&path.parent().unwrap_or(Path::new("/")).join(&target));
            let next = beside(guest);
            let file = match host.find(&next) {
                Some(found) => found,
                None => beside(file),
            };
            put_path(tree, host, &next, &file, links + 1)
        }
        Err(_) => {
            if tree.find(guest, true).is_none() {
                tree.put_host(guest, file)?;
            }
            Ok(())
        }
    }
}

/// The target of a link on the host, for a path that must mean the same in the guest.
fn link_of(host: &Host, path: &Path) -> Option<PathBuf> {
    let plain = match host.target_root() {
        Some(root) => root.join(path.strip_prefix("/").ok()?),
        None => path.to_path_buf(),
    };
    let target = fs::read_link(plain).ok()?;
    let relative = target.is_relative() || target.starts_with("/usr");
    relative.then_some(target)
}

/// Adds what `Files`, `Dirs`, `MapDirs` and the first argument name.
fn configured(tree: &mut Tree, host: &Host, config: &Config) -> Result<()> {
    for (key, list) in [("Files", &config.files), ("Dirs", &config.dirs)] {
        for name in list.iter().flatten() {
            let path = Path::new(name);
            let file = locate(host, config, path).with_context(|| format!("{key}: {name}"))?;
            if key == "Dirs" && !file.is_dir() {
                bail!("Dirs: {name} is not a folder");
            }
            if key == "Files" && file.is_dir() {
                bail!("Files: {name} is a folder; name it in Dirs");
            }
            let guest = guest_path(path);
            if file.is_symlink() {
                put_path(tree, host, &guest, &file, 0)?;
            } else {
                put_over(tree, &guest, &file)?;
            }
        }
    }
    for (pattern, guest) in config.map_dirs.iter().flatten() {
        map_dir(tree, host, config, pattern, &guest_path(Path::new(guest)))
            .with_context(|| format!("MapDirs: {pattern}"))?;
    }
    if config.disable_args_copy != Some(true)
        && let Some(argument) = config.args().get(1)
    {
        let path = Path::new(argument);
        let plain = !argument.is_empty() && !argument.starts_with('-') && path.is_relative();
        if plain && path.exists() && !path.components().any(|c| c == Component::ParentDir) {
            put_over(tree, &guest_path(path), path)?;
        }
    }
    Ok(())
}

/// Puts a file or folder, following a link given by name; a file over a folder is passed over with a warning.
fn put_over(tree: &mut Tree, guest: &Path, file: &Path) -> Result<()> {
    let file = std::path::absolute(file)?;
    let is_dir_there = tree
        .find(guest, true)
        .is_some_and(|id| matches!(tree.node(id).kind, Kind::Dir(_)));
    if is_dir_there && !file.is_dir() {
        note(format!(
            "{} is left out: the image has a folder of that name",
            guest.display()
        ));
        return Ok(());
    }
    let real = if file.is_symlink() {
        file.canonicalize()?
    } else {
        file
    };
    tree.put_host(guest, &real)
}

/// Finds a file that the configuration names: below the target root, as it is, or beside the configuration file.
fn locate(host: &Host, config: &Config, path: &Path) -> Result<PathBuf> {
    if host.target_root().is_some()
        && let Some(found) = host.find(&guest_path(path))
    {
        return Ok(found);
    }
    if path.symlink_metadata().is_ok() {
        return Ok(path.to_path_buf());
    }
    let base = config
        .local_files_parent_directory
        .as_deref()
        .unwrap_or(".");
    let beside = Path::new(base).join(path);
    if beside.symlink_metadata().is_ok() {
        return Ok(beside);
    }
    bail!("there is no such file")
}

/// Copies what a pattern matches. `dir/pattern` takes every file and empty folder below `dir` whose name matches, at its place
/// below `guest`; the name of a folder takes all of its contents.
fn map_dir(
    tree: &mut Tree,
    host: &Host,
    config: &Config,
    pattern: &str,
    guest: &Path,
) -> Result<()> {
    let pattern = pattern.trim_end_matches('/');
    if let Ok(folder) = locate(host, config, Path::new(pattern))
        && folder.is_dir()
    {
        return put_over(tree, guest, &folder);
    }
    let (folder, name) = pattern.rsplit_once('/').unwrap_or((".", pattern));
    let folder = if folder.is_empty() { "/" } else { folder };
    let matcher = glob::Pattern::new(name)?;
    let root = locate(host, config, Path::new(folder))?;
    let mut found = false;
    let mut queue = vec![root.clone()];
    while let Some(folder) = queue.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let is_dir = entry.file_type()?.is_dir();
            // A folder is there when something in it is, or when it matches and is empty.
            let empty = is_dir && fs::read_dir(&path)?.next().is_none();
            if is_dir && !empty {
                queue.push(path);
            } else if matcher.matches(&entry.file_name().to_string_lossy()) {
                let below = path.strip_prefix(&root)?;
                put_over(tree, &guest.join(below), &path)?;
                found = true;
            }
        }
    }
    if !found {
        bail!("no file matches");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    fn has(tree: &Tree, path: &str) -> bool {
        tree.find(Path::new(path), true).is_some()
    }

    #[test]
    fn a_system_program_with_its_links() {
        let tree = from_program(&Config::default(), Path::new("/bin/ls")).unwrap();
        for path in [
            "/bin/ls",
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/etc/resolv.conf",
            "/etc/ld.so.cache",
            "/proc",
        ] {
            assert!(has(&tree, path), "{path}");
        }
        // As on the host, where /lib is a link.
        if Path::new("/lib").is_symlink() {
            let id = tree.find(Path::new("/lib"), false).unwrap();
            assert!(matches!(tree.node(id).kind, Kind::Symlink(_)));
            assert!(has(&tree, "/usr/lib/x86_64-linux-gnu/libc.so.6"));
        }
    }

    #[test]
    fn configured_files_land_where_they_belong() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for path in [
            "conf/a.txt",
            "tree/x/one.html",
            "tree/two.html",
            "tree/no.css",
            "with space/f",
        ] {
            fs::create_dir_all(at.join(path).parent().unwrap()).unwrap();
            fs::write(at.join(path), path).unwrap();
        }
        symlink("a.txt", at.join("conf/link")).unwrap();
        fs::create_dir_all(at.join("tree/x/empty")).unwrap();
        let mut config = Config {
            files: Some(vec!["conf/a.txt".into(), "conf/link".into()]),
            dirs: Some(vec!["with space".into()]),
            map_dirs: Some(BTreeMap::from([
                ("tree/*.html".into(), "/www".into()),
                ("tree".into(), "/all".into()),
                ("tree/*".into(), "/each".into()),
            ])),
            local_files_parent_directory: Some(at.to_string_lossy().into_owned()),
            ..Config::default()
        };
        let mut tree = Tree::default();
        configured(&mut tree, &Host::default(), &config).unwrap();
        for path in [
            "/conf/a.txt",
            "/conf/link",
            "/with space/f",
            "/www/x/one.html",
            "/www/two.html",
            "/all/no.css",
            "/all/x/empty",
            "/each/x/empty",
            "/each/x/one.html",
        ] {
            assert!(has(&tree, path), "{path}");
        }
        assert!(!has(&tree, "/www/no.css") && !has(&tree, "/www/x/empty"));
        for (files, dirs, maps) in [
            (Some("none"), None, None),
            (Some("tree"), None, None),
            (None, Some("conf/a.txt"), None),
            (None, None, Some("tree/*.zip")),
            (None, None, Some("nowhere/*")),
        ] {
            let list = |v: Option<&str>| v.map(|v| vec![v.to_string()]);
            config.files = list(files);
            config.dirs = list(dirs);
            config.map_dirs = maps.map(|m| BTreeMap::from([(m.to_string(), "/x".to_string())]));
            let error = configured(&mut Tree::default(), &Host::default(), &config).unwrap_err();
            let name = files.or(dirs).or(maps).unwrap();
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
    }

    #[test]
    fn absolute_files_are_absolute() {
        let config = Config {
            files: Some(vec!["/etc/passwd".into()]),
            ..Config::default()
        };
        let mut tree = Tree::default();
        configured(&mut tree, &Host::default(), &config).unwrap();
        assert!(has(&tree, "/etc/passwd"));
    }
}
