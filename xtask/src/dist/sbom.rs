//! The bill of materials: each crate that is compiled into the binary or the kernel half, by
//! CycloneDX 1.5 in JSON. From cargo's own resolution and the lock file's checksums.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::source_date;
use crate::{cmd, tree::Tree};

/// The binary, and what is loaded into the kernel.
const ROOTS: [&str; 2] = ["paddock", "paddock-ebpf"];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// `None`: what runs; else `dev` or `build`.
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

pub(super) fn write(tree: &Tree, to: &Path) -> Result<()> {
    let text = cmd::output(
        Command::new("cargo")
            .current_dir(&tree.root)
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(["--filter-platform", &tree.triple]),
    )?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata's output")?;
    let lock = fs::read_to_string(tree.root.join("Cargo.lock")).context("read Cargo.lock")?;
    let lock: Lock = toml::from_str(&lock).context("Cargo.lock")?;
    let bill = bill(&metadata, &lock, &source_date(tree)?);
    let mut text = serde_json::to_string_pretty(&bill).context("the bill of materials")?;
    text.push('\n');
    fs::write(to, text).with_context(|| format!("write {}", to.display()))
}

fn bill(metadata: &Metadata, lock: &Lock, date: &str) -> Value {
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let used = used(metadata, &nodes);
    let sums: BTreeMap<(&str, &str), &str> = lock
        .package
        .iter()
        .filter_map(|one| {
            Some((
                (one.name.as_str(), one.version.as_str()),
                one.checksum.as_deref()?,
            ))
        })
        .collect();
    let packages = metadata
        .packages
        .iter()
        .filter(|package| used.contains(package.id.as_str()));
    let mut packages: Vec<&Package> = packages.collect();
    packages.sort_by_key(|package| (&package.name, &package.version));
    let names: BTreeMap<&str, String> = packages
        .iter()
        .map(|package| (package.id.as_str(), purl(package)))
        .collect();
    let components: Vec<Value> = packages
        .iter()
        .filter(|package| package.name != ROOTS[0])
        .map(|package| component(package, &sums))
        .collect();
    let dependencies: Vec<Value> = packages
        .iter()
        .map(|package| {
            let on = nodes
                .get(package.id.as_str())
                .map_or(&[][..], |node| &node.deps[..]);
            let mut on: Vec<&String> = on
                .iter()
                .filter(|edge| runs(edge))
                .filter_map(|edge| names.get(edge.pkg.as_str()))
                .collect();
            on.sort_unstable();
            json!({ "ref": purl(package), "dependsOn": on })
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "properties": [{ "name": "source_date_epoch", "value": date }],
            "component": {
                "type": "application",
                "bom-ref": format!("pkg:cargo/paddock@{}", env!("CARGO_PKG_VERSION")),
                "name": ROOTS[0],
                "version": env!("CARGO_PKG_VERSION"),
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

/// Ids of all that the roots reach by what runs.
fn used<'a>(metadata: &'a Metadata, nodes: &BTreeMap<&'a str, &'a Node>) -> BTreeSet<&'a str> {
    let roots = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_none() && ROOTS.contains(&package.name.as_str()));
    let mut waiting: Vec<&str> = roots.map(|package| package.id.as_str()).collect();
    let mut used = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !used.insert(id) {
            continue;
        }
        let deps = nodes.get(id).map_or(&[][..], |node| &node.deps[..]);
        waiting.extend(
            deps.iter()
                .filter(|edge| runs(edge))
                .map(|edge| edge.pkg.as_str()),
        );
    }
    used
}

fn runs(edge: &Edge) -> bool {
    edge.dep_kinds.iter().any(|kind| kind.kind.is_none())
}

fn component(package: &Package, sums: &BTreeMap<(&str, &str), &str>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
    });
    if let Some(license) = &package.license {
        // Cargo's older way of saying OR.
        let license = license.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": license }]);
    }
    if let Some(sum) = sums.get(&(package.name.as_str(), package.version.as_str())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// <https://github.com/package-url/purl-spec>
fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_in_it_and_nothing_else() {
        let metadata = r#"{
            "packages": [
                { "id": "p", "name": "paddock", "version": "1.0.0", "license": "MIT", "source": null },
                { "id": "a", "name": "a", "version": "1.0.0", "license": "MIT/Apache-2.0", "source": "r" },
                { "id": "b", "name": "b", "version": "2.0.0", "license": null, "source": "r" },
                { "id": "t", "name": "t", "version": "1.0.0", "license": null, "source": "r" }
            ],
            "resolve": { "nodes": [
                { "id": "p", "deps": [
                    { "pkg": "a", "dep_kinds": [{ "kind": "build" }, { "kind": null }] },
                    { "pkg": "t", "dep_kinds": [{ "kind": "dev" }] }
                ] },
                { "id": "a", "deps": [{ "pkg": "b", "dep_kinds": [{ "kind": null }] }] },
                { "id": "b", "deps": [] },
                { "id": "t", "deps": [] }
            ] }
        }"#;
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n";
        let metadata = serde_json::from_str(metadata).unwrap();
        let bill = bill(&metadata, &toml::from_str(lock).unwrap(), "7");
        let names: Vec<&str> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let first = &bill["components"][0];
        assert_eq!(first["hashes"][0]["content"], "00ff");
        assert_eq!(first["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let root = bill["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["ref"] == "pkg:cargo/paddock@1.0.0");
        assert_eq!(root.unwrap()["dependsOn"], json!(["pkg:cargo/a@1.0.0"]));
    }
}
