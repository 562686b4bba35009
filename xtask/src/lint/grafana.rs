//! Dashboards against Grafana's own schema of them, where that comes from: `grafana/README.md`.
//!
//! It is closed: a key that Grafana does not know is refused. In two places its own types for
//! what stands in a dashboard's file are wider, and so is this.

use anyhow::{Context as _, Result, anyhow};
use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("grafana/dashboard.schema.json");

#[derive(Debug)]
pub(super) struct Schema(Validator);

impl Schema {
    pub(super) fn new() -> Result<Self> {
        let mut schema: Value = serde_json::from_str(SCHEMA).context("Grafana's schema")?;
        let definitions = &mut schema["definitions"];
        // "This JSON object is stored in the dashboard json model", and has "[key: string]: any": a
        // data source's own keys, Prometheus' `expr` among them.
        // @grafana/data 13.2.3, dist/types/types/annotations.d.ts
        definitions["AnnotationQuery"]["additionalProperties"] = json!(true);
        // `QueryVariableModel` has it, and Grafana writes it beside each query.
        // @grafana/data 13.2.3, dist/types/types/templateVars.d.ts
        definitions["VariableModel"]["properties"]["definition"] = json!({"type": "string"});
        jsonschema::validator_for(&schema)
            .map(Self)
            .map_err(|error| anyhow!("Grafana's schema: {error}"))
    }

    /// Each with its place in the board.
    pub(super) fn problems(&self, board: &Value) -> Vec<String> {
        let errors = self.0.iter_errors(board);
        errors.flat_map(|error| innermost(&error)).collect()
    }
}

/// Of what fits none of several forms, what keeps it from the one that it is nearest to: all else
/// would be told of a panel that was meant to be no row.
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
mod tests {
    use super::*;

    const BOARD: &str = include_str!("../../../dashboards/grafana/fleet.json");

    #[test]
    fn a_broken_board_is_refused_where_it_is_broken() {
        let schema = Schema::new().unwrap();
        let board: Value = serde_json::from_str(BOARD).unwrap();
        assert_eq!(schema.problems(&board), Vec::<String>::new());
        let panel = board["panels"].as_array().unwrap();
        let panel = panel.iter().position(|one| one["type"] != "row").unwrap();
        let grid = format!("/panels/{panel}/gridPos");
        for (place, value, says) in [
            (grid.as_str(), json!("0,0,24,8"), "/gridPos: "),
            (
                &format!("{grid}/h"),
                json!("8"),
                "/gridPos/h: \"8\" is not of type",
            ),
            (&format!("{grid}/z"), json!(1), "('z' was unexpected)"),
            (&format!("/panels/{panel}/type"), json!(7), "/type: 7"),
            ("/schemaVersion", json!("39"), "/schemaVersion: "),
            ("/refersh", json!("10s"), "('refersh' was unexpected)"),
            ("/graphTooltip", json!(3), "/graphTooltip: 3"),
            ("/templating/list/0/hide", json!(9), "/hide: 9"),
            ("/templating/list/0/name", Value::Null, "/name: null"),
        ] {
            let mut broken = board.clone();
            let (parent, key) = place.rsplit_once('/').unwrap();
            broken.pointer_mut(parent).unwrap()[key] = value;
            let said = schema.problems(&broken);
            assert!(
                said.len() == 1 && said[0].contains(says),
                "{place}: {said:?}"
            );
        }
        let mut lacking = board;
        lacking.as_object_mut().unwrap().remove("schemaVersion");
        assert_eq!(
            schema.problems(&lacking),
            [": \"schemaVersion\" is a required property"]
        );
    }
}
