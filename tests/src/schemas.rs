//! The JSON Schemas of docs/schemas, one a command: what `--format json` prints holds to them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, anyhow, ensure};
use jsonschema::{Registry, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schemas");
/// They name each other by file.
const BASE: &str = "paddock:///docs/schemas/";

/// By the file's name without its end: `policy-check`.
#[derive(Debug)]
pub struct Schemas(BTreeMap<String, Validator>);

impl Schemas {
    pub fn read() -> Result<Self> {
        let texts = texts()?;
        let files = texts
            .iter()
            .map(|(name, schema)| (format!("{BASE}{name}.json"), schema));
        let registry = Registry::new().extend(files)?.prepare()?;
        let validators = texts.iter().map(|(name, schema)| {
            jsonschema::draft202012::meta::validate(schema)
                .map_err(|error| anyhow!("{name}: {error}"))?;
            let validator = jsonschema::options()
                .with_base_uri(format!("{BASE}{name}.json"))
                .with_registry(&registry)
                .build(schema)
                .map_err(|error| anyhow!("{name}: {error}"))?;
            Ok((name.clone(), validator))
        });
        Ok(Self(validators.collect::<Result<_>>()?))
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// An error says each place that does not fit.
    pub fn check(&self, name: &str, document: &Value) -> Result<()> {
        let validator = self.0.get(name).with_context(|| {
            format!("docs/schemas/{name}.json is missing: each command that prints JSON has one")
        })?;
        let errors = validator.iter_errors(document);
        let problems: Vec<String> = errors.flat_map(|error| innermost(&error)).collect();
        ensure!(
            problems.is_empty(),
            "not by docs/schemas/{name}.json: {}",
            problems.join("; ")
        );
        Ok(())
    }
}

fn texts() -> Result<BTreeMap<String, Value>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(DIRECTORY).context(DIRECTORY)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            texts.insert(name_of(&path)?, read(&path)?);
        }
    }
    Ok(texts)
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_stem().and_then(|name| name.to_str());
    Ok(name.context("a name in UTF-8")?.to_owned())
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path)?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Of what may have several forms, what keeps it from the one that it is nearest to.
fn innermost(error: &ValidationError<'_>) -> Vec<String> {
    let nearest = match error.kind() {
        ValidationErrorKind::AnyOf { context } => context.iter().min_by_key(|one| one.len()),
        _ => None,
    };
    match nearest {
        Some(errors) if !errors.is_empty() => errors.iter().flat_map(innermost).collect(),
        _ => vec![format!("{}: {error}", error.instance_path())],
    }
}

#[cfg(test)]
#[path = "schemas_tests.rs"]
mod tests;
