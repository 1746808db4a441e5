//! Recipes: which packages of the distribution make up a package of ours, what of them is left out, and how the program is
//! started. The recipes themselves are the TOML files in `ops/packages/`; making one is in `store`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::name::{Name, nearest};

/// The namespace of packages made from recipes.
pub const NAMESPACE: &str = "nanos";

/// The recipes that the tool brings: file name and text.
const RECIPES: &[(&str, &str)] = &[
    ("busybox.toml", include_str!("../../packages/busybox.toml")),
    ("java.toml", include_str!("../../packages/java.toml")),
    ("nginx.toml", include_str!("../../packages/nginx.toml")),
    ("node.toml", include_str!("../../packages/node.toml")),
    ("python.toml", include_str!("../../packages/python.toml")),
    ("redis.toml", include_str!("../../packages/redis.toml")),
    ("ruby.toml", include_str!("../../packages/ruby.toml")),
];

/// One recipe.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// The package's name.
    pub name: String,
    /// The language it is for, or what it is.
    pub language: String,
    /// One line.
    pub description: String,
    /// The distribution's package whose upstream version names ours.
    pub version_from: String,
    /// The distribution's packages it is made of; what they depend on comes with them.
    pub packages: Vec<String>,
    /// Dependencies left out, with whatever only they need.
    #[serde(default)]
    pub without: Vec<String>,
    /// Patterns of paths left out.
    #[serde(default)]
    pub drop: Vec<String>,
    /// The program's path.
    pub program: String,
    /// The arguments before the user's, the program's name first.
    pub args: Vec<String>,
    /// The environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files of our own: path and text. They take the place of those of the same name.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Folders whose Python files are compiled beforehand, by the package's own interpreter.
    #[serde(default)]
    pub python_bytecode: Vec<String>,
}

/// Paths that no image needs, left out of every package.
pub const ALWAYS_DROPPED: &[&str] = &[
    "usr/share/doc/**",
    "usr/share/doc-base/**",
    "usr/share/man/**",
    "usr/share/info/**",
    "usr/share/locale/**",
    "usr/share/lintian/**",
    "usr/share/bug/**",
    "usr/share/menu/**",
    "usr/share/pixmaps/**",
    "usr/share/applications/**",
    "usr/share/bash-completion/**",
    "usr/share/gdb/**",
    "usr/lib/systemd/**",
];

/// All recipes, by name.
pub fn all() -> Result<Vec<Recipe>> {
    RECIPES
        .iter()
        .map(|(file, text)| toml::from_str(text).with_context(|| format!("recipe {file}")))
        .collect()
}

/// The text of a recipe: what a package made from it depends on besides its sources.
pub fn text(name: &str) -> Option<&'static str> {
    RECIPES
        .iter()
        .find(|(file, _)| file.strip_suffix(".toml") == Some(name))
        .map(|(_, text)| *text)
}

/// The recipe of a name. An unknown name suggests the nearest.
pub fn find(name: &Name) -> Result<Recipe> {
    let recipes = all()?;
    let namespace_ok = name.namespace.as_deref().is_none_or(|n| n == NAMESPACE);
    if namespace_ok && let Some(recipe) = recipes.iter().find(|r| r.name == name.name) {
        return Ok(recipe.clone());
    }
    let names = || recipes.iter().map(|r| r.name.as_str());
    match nearest(&name.name, names()) {
        Some(near) => bail!("there is no package `{name}`; did you mean `{near}`?"),
        None => bail!(
            "there is no package `{name}`; there are {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_reads_and_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/packages");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let listed: Vec<&str> = RECIPES.iter().map(|(file, _)| *file).collect();
        assert_eq!(files, listed);
        for recipe in all().unwrap() {
            assert!(text(&recipe.name).is_some());
            assert!(recipe.program.starts_with('/'), "{}", recipe.name);
            assert!(recipe.files.keys().all(|path| path.starts_with('/')));
            for pattern in recipe
                .drop
                .iter()
                .map(String::as_str)
                .chain(ALWAYS_DROPPED.iter().copied())
            {
                glob::Pattern::new(pattern).unwrap();
            }
        }
    }

    #[test]
    fn unknown_names_suggest() {
        let error = |n: &str| find(&Name::parse(n).unwrap()).unwrap_err().to_string();
        assert!(error("pyhton").contains("did you mean `python`?"));
        assert!(error("eyberg/python:3").contains("did you mean `python`?"));
        assert!(error("zzzzzz").contains("there are busybox, java, nginx"));
        assert_eq!(
            find(&Name::parse("nanos/python").unwrap()).unwrap().name,
            "python"
        );
    }
}
