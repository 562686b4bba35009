//! The parts of deny.toml that need no network: licences, wildcard versions, sources.
//!
//! cargo-deny itself is some 400 crates to compile, more than all of paddock, and its check
//! of advisories needs a download; the rest is a page over `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{cmd, lint::licence, tree::Tree};

#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bans {
    multiple_versions: String,
    wildcards: String,
    #[serde(default)]
    allow_wildcard_paths: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    req: String,
    path: Option<String>,
}

pub(super) fn check(tree: &Tree) -> Result<()> {
    let path = tree.root.join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let rules: Rules = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let text = cmd::output(Command::new("cargo").current_dir(&tree.root).args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata's output")?;
    let mut problems = licences(&rules.licenses, &metadata);
    problems.extend(wildcards(&rules.bans, &metadata));
    problems.extend(sources(&rules.sources, &metadata));
    let doubles = doubles(&metadata);
    match rules.bans.multiple_versions.as_str() {
        "deny" => problems.extend(doubles),
        "warn" => doubles.iter().for_each(|line| eprintln!("warning: {line}")),
        _ => {}
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("deny.toml forbids:\n{}", problems.join("\n"))
}

fn licences(rules: &Licenses, metadata: &Metadata) -> Vec<String> {
    let others = metadata.packages.iter().filter(|one| one.source.is_some());
    others
        .filter_map(|package| {
            let Some(expression) = &package.license else {
                return Some(format!("{} states no licence", package.name));
            };
            let allowed = |name: &str| {
                rules.allow.contains(name)
                    || rules
                        .exceptions
                        .iter()
                        .any(|one| one.name == package.name && one.allow.contains(name))
            };
            (!licence::satisfied(expression, &allowed))
                .then(|| format!("{} {}: licence {expression}", package.name, package.version))
        })
        .collect()
}

fn wildcards(rules: &Bans, metadata: &Metadata) -> Vec<String> {
    if rules.wildcards != "deny" {
        return Vec::new();
    }
    let own = metadata
        .packages
        .iter()
        .filter(|one| metadata.workspace_members.contains(&one.id));
    own.flat_map(|package| {
        package.dependencies.iter().filter_map(|dependency| {
            let excused = rules.allow_wildcard_paths && dependency.path.is_some();
            (dependency.req == "*" && !excused)
                .then(|| format!("{}: any version of {}", package.name, dependency.name))
        })
    })
    .collect()
}

/// Known is the one registry that the workspace's packages come from; a second one is not.
fn sources(rules: &Sources, metadata: &Metadata) -> Vec<String> {
    let from = |package: &Package| package.source.clone().unwrap_or_default();
    let known = metadata
        .packages
        .iter()
        .map(from)
        .find(|source| source.starts_with("registry+"));
    metadata
        .packages
        .iter()
        .filter_map(|package| {
            let source = package.source.as_deref()?;
            let rule = if source.starts_with("git+") {
                &rules.unknown_git
            } else {
                &rules.unknown_registry
            };
            (Some(source) != known.as_deref() && rule == "deny")
                .then(|| format!("{} comes from {source}", package.name))
        })
        .collect()
}

fn doubles(metadata: &Metadata) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in &metadata.packages {
        versions
            .entry(&package.name)
            .or_default()
            .push(&package.version);
    }
    versions
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| {
            format!(
                "{name} is there {} times: {}",
                versions.len(),
                versions.join(", ")
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "odd", allow = ["LGPL-2.1-or-later"] }]
        [bans]
        multiple-versions = "warn"
        wildcards = "deny"
        allow-wildcard-paths = true
        [sources]
        unknown-registry = "deny"
        unknown-git = "deny"
    "#;

    fn package(name: &str, license: &str, source: &str, dependencies: &str) -> String {
        format!(
            r#"{{"id":"{name}","name":"{name}","version":"1.0.0","license":{license},"source":{source},"dependencies":[{dependencies}]}}"#
        )
    }

    #[test]
    fn each_rule_finds_its_breach_and_nothing_else() {
        let good = "\"registry+https://one.example\"";
        let packages = [
            package(
                "own",
                "null",
                "null",
                r#"{"name":"a","req":"*","path":null},{"name":"b","req":"*","path":"/b"}"#,
            ),
            package("fine", "\"MIT\"", good, ""),
            package("odd", "\"LGPL-2.1-or-later\"", good, ""),
            package("gpl", "\"GPL-3.0-only\"", good, ""),
            package("silent", "null", good, ""),
            package("fork", "\"MIT\"", "\"git+https://x.example/y\"", ""),
            package("far", "\"MIT\"", "\"registry+https://two.example\"", ""),
        ]
        .join(",");
        let text = format!(r#"{{"packages":[{packages}],"workspace_members":["own"]}}"#);
        let metadata: Metadata = serde_json::from_str(&text).unwrap();
        let rules: Rules = toml::from_str(RULES).unwrap();
        assert_eq!(
            licences(&rules.licenses, &metadata),
            [
                "gpl 1.0.0: licence GPL-3.0-only",
                "silent states no licence"
            ]
        );
        assert_eq!(wildcards(&rules.bans, &metadata), ["own: any version of a"]);
        assert_eq!(
            sources(&rules.sources, &metadata),
            [
                "fork comes from git+https://x.example/y",
                "far comes from registry+https://two.example"
            ]
        );
    }
}
