//! The packages on this machine: made from recipes (`packages/`) or added by the user (`local_packages/`). Finding one, making
//! it when it is not there, listing, adding, deleting.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::apt::{Apt, Deb, hex};
use super::name::{Name, compare_versions, nearest};
use super::recipe::{self, ALWAYS_DROPPED, NAMESPACE, Recipe};
use super::unpack::{Target, set_mtime};
use super::{bytecode, deb};
use crate::config::{self, Config};
use crate::home::{Home, make_dir, sweep};
use crate::image::tree::Attributes;
use crate::output::note;
use crate::progress;

/// A line of the listing, with the field names that scripts know.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Listed {
    pub version: String,
    pub language: String,
    pub description: String,
    pub sha256: String,
    pub name: String,
    pub namespace: String,
    pub arch: String,
}

/// What a package was made of: kept beside it, so that a changed recipe or tool makes it again.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Sources {
    recipe: String,
    packages: Vec<Source>,
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Source {
    name: String,
    version: String,
    sha256: String,
}

const SOURCES: &str = "sources.json";
/// Counts with the recipe's text: raised when the way packages are made changes.
const BUILD_RULES: u32 = 1;

/// The store.
pub struct Store<'a> {
    home: &'a Home,
}

impl<'a> Store<'a> {
    /// The store of a home folder.
    pub fn new(home: &'a Home) -> Self {
        Store { home }
    }

    /// The folder of a package made from a recipe; it is made when it is not there, or again with `force`.
    pub fn get(&self, name: &Name, force: bool) -> Result<PathBuf> {
        if !force && let Some(found) = self.cached(name)? {
            return Ok(found);
        }
        let recipe = recipe::find(name)?;
        // One maker at a time; what another one has made meanwhile will do.
        let _lock = self.lock()?;
        if !force && let Some(found) = self.cached(name)? {
            return Ok(found);
        }
        self.make(&recipe, name)
    }

    fn lock(&self) -> Result<File> {
        let folder = self.home.packages();
        make_dir(&folder)?;
        let path = folder.join(".lock");
        let file = File::create(&path)
            .and_then(|f| f.lock().map(|()| f))
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// The newest package here that a name allows, whatever recipe it was made from.
    pub fn made(&self, name: &Name) -> Result<Option<PathBuf>> {
        let namespace = name.namespace.as_deref().unwrap_or(NAMESPACE);
        let folder = self.home.packages().join(namespace);
        let mut found = versions(&folder, &name.name)?;
        found.retain(|(version, _)| name.allows(version));
        found.sort_by(|a, b| compare_versions(&a.0, &b.0));
        Ok(found.pop().map(|(_, path)| path))
    }

    /// The newest package here that a name allows, if its recipe is still the same.
    fn cached(&self, name: &Name) -> Result<Option<PathBuf>> {
        let namespace = name.namespace.as_deref().unwrap_or(NAMESPACE);
        let folder = self.home.packages().join(namespace);
        let mut found: Vec<(String, PathBuf)> = versions(&folder, &name.name)?
            .into_iter()
            .filter(|(version, path)| {
                name.allows(version)
                    && path.join("package.manifest").is_file()
                    && sources(path).is_some_and(|s| s.recipe == recipe_digest(&name.name))
            })
            .collect();
        found.sort_by(|a, b| compare_versions(&a.0, &b.0));
        Ok(found.pop().map(|(_, path)| path))
    }

    /// The folder of a package added by the user.
    pub fn local(&self, text: &str) -> Result<PathBuf> {
        let folder = self.home.local_packages();
        let written = text
            .rsplit_once('/')
            .map_or(text, |(_, name)| name)
            .replace(':', "_");
        let all = local_names(&folder)?;
        if all.contains(&written) {
            return Ok(folder.join(written));
        }
        let name = Name::parse(text)?;
        let mut found: Vec<(String, PathBuf)> = versions(&folder, &name.name)?
            .into_iter()
            .filter(|(version, _)| name.allows(version))
            .collect();
        found.sort_by(|a, b| compare_versions(&a.0, &b.0));
        if let Some((_, path)) = found.pop() {
            return Ok(path);
        }
        match nearest(&written, all.iter().map(String::as_str)) {
            Some(near) => bail!("there is no local package `{text}`; did you mean `{near}`?"),
            None => bail!("there is no local package `{text}` in {}", folder.display()),
        }
    }

    fn make(&self, recipe: &Recipe, wanted: &Name) -> Result<PathBuf> {
        let mut apt = Apt::open(self.home)?;
        let spinner = progress::spinner("finding out what is needed");
        let closure = apt.closure(&recipe.packages, &recipe.without);
        spinner.finish_and_clear();
        let mut debs = match closure {
            Err(e) if apt.uses_host_lists() => {
                note(format!("{e:#}; trying with fresh indices"));
                apt.update()?;
                apt.closure(&recipe.packages, &recipe.without)?
            }
            other => other?,
        };
        let version = version_of(recipe, &apt, &debs)?;
        if !wanted.allows(&version) {
            bail!(
                "there is no package `{wanted}`: the distribution has version {version} of {}",
                recipe.name
            );
        }
        let files = match apt.fetch(&debs) {
            Err(e) if apt.uses_host_lists() => {
                // The host's indices may be older than what the archive still has.
                note(format!("{e:#}; trying with fresh indices"));
                apt.update()?;
                debs = apt.closure(&recipe.packages, &recipe.without)?;
                apt.fetch(&debs)?
            }
            other => other?,
        };
        let version = version_of(recipe, &apt, &debs)?;
        let folder = self.home.packages().join(NAMESPACE);
        make_dir(&folder)?;
        sweep(&folder, ".making-", Duration::ZERO);
        let building = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&folder)
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        fill(building.path(), recipe, &version, &debs, &files)?;
        let place = folder.join(format!("{}_{version}", recipe.name));
        replace(building, &place)?;
        Ok(place)
    }

    /// All that can be loaded: recipes, as made or as the distribution would have them.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut out = Vec::new();
        let mut apt = None;
        for recipe in recipe::all()? {
            let name = Name::parse(&recipe.name)?;
            let (version, sha256) = match self.cached(&name)? {
                Some(path) => (version_in(&path, &recipe.name), digest_of(&path)),
                None => {
                    // The indices are only looked at, never fetched, for a listing.
                    if apt.is_none() && Path::new("/var/lib/apt/lists").is_dir() {
                        apt = Apt::open(self.home).ok();
                    }
                    let deb = apt
                        .as_ref()
                        .and_then(|a| a.candidate(&recipe.version_from).ok().flatten());
                    let version = deb.map(|d| d.upstream_version().to_string());
                    (version.unwrap_or_default(), String::new())
                }
            };
            out.push(Listed {
                version,
                language: recipe.language,
                description: recipe.description,
                sha256,
                name: recipe.name,
                namespace: NAMESPACE.into(),
                arch: "x86_64".into(),
            });
        }
        Ok(out)
    }

    /// The packages added by the user.
    pub fn list_local(&self) -> Result<Vec<Listed>> {
        let folder = self.home.local_packages();
        let mut out = Vec::new();
        for full in local_names(&folder)? {
            let manifest = read_manifest(&folder.join(&full)).unwrap_or_default();
            let name = Name::parse(&full)?;
            out.push(Listed {
                version: manifest.version.or(name.version).unwrap_or_default(),
                language: manifest.language.unwrap_or_default(),
                description: manifest.description.unwrap_or_default(),
                sha256: String::new(),
                name: name.name,
                namespace: String::new(),
                arch: "x86_64".into(),
            });
        }
        Ok(out)
    }

    /// Takes a folder or a `.tar.gz` into the local store under `name`.
    pub fn add(&self, source: &Path, name: &str) -> Result<PathBuf> {
        Name::parse(name)?;
        if name.contains('/') {
            bail!("`{name}`: a local package has no namespace");
        }
        let folder = self.home.local_packages();
        make_dir(&folder)?;
        let place = folder.join(name.replace(':', "_"));
        if place.exists() {
            bail!("there is a local package `{name}` already");
        }
        let building = tempfile::Builder::new()
            .prefix(".adding-")
            .tempdir_in(&folder)?;
        let context = || format!("cannot add {}", source.display());
        if source.is_dir() {
            copy_folder(source, building.path()).with_context(context)?;
        } else {
            let file = File::open(source).with_context(context)?;
            let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(BufReader::new(file)));
            let inside = building.path().join("inside");
            let mut target = Target::new(&inside, false, &[])?;
            target.add(&mut archive).with_context(context)?;
            target.finish(Attributes::made(0).mtime.0)?;
            // The archive has one folder at the top, which is the package.
            let tops: Vec<_> = fs::read_dir(&inside)?.collect::<Result<_, _>>()?;
            let [top] = &tops[..] else {
                bail!(
                    "{}: the archive must have one folder at the top",
                    source.display()
                );
            };
            for entry in fs::read_dir(top.path()).with_context(context)? {
                let entry = entry?;
                fs::rename(entry.path(), building.path().join(entry.file_name()))?;
            }
            fs::remove_dir_all(&inside)?;
        }
        if !building.path().join("package.manifest").is_file() {
            bail!(
                "{} is not a package: it has no package.manifest",
                source.display()
            );
        }
        read_manifest(building.path())?;
        replace(building, &place)?;
        Ok(place)
    }
}

/// Reads the manifest of a package.
pub fn read_manifest(folder: &Path) -> Result<Config> {
    let path = folder.join("package.manifest");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    config::parse(&text, &path)
}

/// Every file of a package: folder in the package, name.
pub fn contents(folder: &Path) -> Result<Vec<(String, String)>> {
    fn walk(base: &Path, folder: &Path, out: &mut Vec<(String, String)>) -> Result<()> {
        let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_type()?.is_dir() {
                walk(base, &entry.path(), out)?;
            } else {
                let below = folder.strip_prefix(base)?.to_string_lossy();
                let name = entry.file_name().to_string_lossy().into_owned();
                out.push((format!("/{below}"), name));
            }
        }
        Ok(())
    }
    let mut out = Vec::new();
    walk(folder, folder, &mut out)?;
    Ok(out)
}

fn version_of(recipe: &Recipe, apt: &Apt, debs: &[Deb]) -> Result<String> {
    let among = debs.iter().find(|d| d.name == recipe.version_from).cloned();
    let deb = match among {
        Some(deb) => Some(deb),
        None => apt.candidate(&recipe.version_from)?,
    };
    let deb = deb.with_context(|| format!("APT knows no package {}", recipe.version_from))?;
    Ok(deb.upstream_version().to_string())
}

/// Makes the package's folder.
fn fill(
    folder: &Path,
    recipe: &Recipe,
    version: &str,
    debs: &[Deb],
    files: &[PathBuf],
) -> Result<()> {
    let epoch = Attributes::made(0).mtime.0;
    let sysroot = folder.join("sysroot");
    let mut drop: Vec<&str> = ALWAYS_DROPPED.to_vec();
    drop.extend(recipe.drop.iter().map(String::as_str));
    let mut target = Target::new(&sysroot, true, &drop)?;
    let bar = progress::bar(files.len() as u64, "unpacking packages");
    for file in files {
        deb::with_files(file, |archive| target.add(archive))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    // Links like /lib64 are made first: the package's own loader is found through them.
    target.links(epoch)?;
    for (path, text) in &recipe.files {
        target
            .write(path, text, epoch)
            .with_context(|| format!("cannot write {path}"))?;
    }
    let folders = matching(&sysroot, &recipe.python_bytecode)?;
    if !folders.is_empty() {
        let spinner = progress::spinner("compiling Python's library");
        let result = bytecode::compile(&sysroot, &recipe.program, &folders);
        spinner.finish_and_clear();
        if !result? {
            note("Python's library is not compiled beforehand: that needs an x86-64 Linux host");
        }
    }
    target.finish(epoch)?;

    let manifest = Config {
        program: Some(recipe.program.clone()),
        args: Some(recipe.args.clone()),
        version: Some(version.to_string()),
        language: Some(recipe.language.clone()),
        description: Some(recipe.description.clone()),
        env: (!recipe.env.is_empty()).then(|| recipe.env.clone()),
        ..Config::default()
    };
    let text = serde_json::to_string_pretty(&config::given(&manifest))?;
    fs::write(folder.join("package.manifest"), text + "\n")?;
    let sources = Sources {
        recipe: recipe_digest(&recipe.name),
        packages: debs
            .iter()
            .map(|d| Source {
                name: d.name.clone(),
                version: d.version.clone(),
                sha256: d.sha256.clone(),
            })
            .collect(),
    };
    fs::write(
        folder.join(SOURCES),
        serde_json::to_string_pretty(&sources)? + "\n",
    )?;
    fs::write(folder.join("README.md"), readme(recipe, version, debs))?;
    for name in ["package.manifest", SOURCES, "README.md", ""] {
        set_mtime(&folder.join(name), epoch)?;
    }
    Ok(())
}

fn readme(recipe: &Recipe, version: &str, debs: &[Deb]) -> String {
    let mut text = format!(
        "# {} {version}\n\n{}.\n\nProgram: `{}`, started as `{}`.\n\nMade from these packages of the distribution:\n\n",
        recipe.name,
        recipe.description,
        recipe.program,
        recipe.args.join(" ")
    );
    for deb in debs {
        text.push_str(&format!("- {} {}\n", deb.name, deb.version));
    }
    text
}

/// The folders of a sysroot that match patterns.
fn matching(sysroot: &Path, patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for pattern in patterns {
        let root = glob::Pattern::escape(&sysroot.to_string_lossy());
        for path in glob::glob(&format!("{root}/{pattern}"))? {
            out.push(path?);
        }
    }
    out.sort();
    Ok(out)
}

fn replace(building: tempfile::TempDir, place: &Path) -> Result<()> {
    fs::set_permissions(
        building.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    if place.exists() {
        remove(place)?;
    }
    fs::rename(building.path(), place)
        .with_context(|| format!("cannot write {}", place.display()))?;
    // It has moved away: there is nothing left to clean up.
    let _ = building.keep();
    Ok(())
}

/// Removes a package's folder.
pub fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot delete {}", folder.display()))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_folder(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
            let modified = entry.metadata()?.modified()?;
            File::options()
                .write(true)
                .open(&target)?
                .set_modified(modified)
                .ok();
        }
    }
    Ok(())
}

/// The folders `name_version` in a folder: version and path.
fn versions(folder: &Path, name: &str) -> Result<Vec<(String, PathBuf)>> {
    Ok(local_names(folder)?
        .into_iter()
        .filter_map(|full| {
            let version = match full.strip_prefix(name)? {
                "" => String::new(),
                rest => rest.strip_prefix('_')?.to_string(),
            };
            Some((version, folder.join(full)))
        })
        .collect())
}

fn local_names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| !n.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

fn version_in(path: &Path, name: &str) -> String {
    let full = path.file_name().map(|n| n.to_string_lossy().into_owned());
    full.and_then(|f| {
        f.strip_prefix(name)
            .and_then(|r| r.strip_prefix('_'))
            .map(str::to_string)
    })
    .unwrap_or_default()
}

fn sources(path: &Path) -> Option<Sources> {
    serde_json::from_slice(&fs::read(path.join(SOURCES)).ok()?).ok()
}

fn recipe_digest(name: &str) -> String {
    let text = recipe::text(name).unwrap_or_default();
    hex(&Sha256::digest(format!("{BUILD_RULES}\n{text}")))
}

/// The digest in the listing: of what the package was made of.
fn digest_of(path: &Path) -> String {
    let mut text = Vec::new();
    match File::open(path.join(SOURCES)).and_then(|mut f| f.read_to_end(&mut text)) {
        Ok(_) => hex(&Sha256::digest(text)),
        Err(_) => String::new(),
    }
}
