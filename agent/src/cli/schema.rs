//! `hostler schema`: the JSON Schemas of what people write and of what `--json` prints.
//!
//! They are the one description of these documents: editors read them, the man pages of section 5 are made from them,
//! and tests hold them against what the program reads and prints.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::exit::Exit;
use super::{Failure, show};

/// Each document, with its schema.
const SCHEMAS: [(Document, &str); 4] = [
    (Document::Order, include_str!("../../schemas/order.json")),
    (Document::Task, include_str!("../../schemas/task.json")),
    (Document::Configuration, include_str!("../../schemas/configuration.json")),
    (Document::Output, include_str!("../../schemas/output.json")),
];

/// A document that has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// An order in the store
    Order,
    /// The task.yml of a task
    Task,
    /// The file hostler.yml
    Configuration,
    /// What commands print with --json, and the reports in the store
    Output,
}

#[derive(Args)]
pub(super) struct Arguments {
    /// Of what
    #[arg(value_name = "DOCUMENT")]
    document: Document,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    show::page(schema(arguments.document))?;
    Ok(Exit::Success.into())
}

/// The schema of a document, as JSON.
pub fn schema(document: Document) -> &'static str {
    SCHEMAS.iter().find(|(known, _)| *known == document).map_or("", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn compiled(document: Document) -> jsonschema::Validator {
        let schema: Value = serde_json::from_str(schema(document)).unwrap();
        jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{document:?}: {error}"))
    }

    #[track_caller]
    fn holds(document: Document, text: &str, whose: &str) {
        let value: Value = serde_yaml::from_str(text).unwrap();
        let faults: Vec<String> =
            compiled(document).iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{whose}: {faults:?}");
    }

    #[test]
    fn each_document_has_a_schema_that_is_one() {
        for document in Document::value_variants() {
            compiled(*document);
        }
    }

    #[test]
    fn what_is_shipped_fits_its_schema() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut tasks = 0;
        for entry in std::fs::read_dir(root.join("tasks")).unwrap() {
            let path = entry.unwrap().path().join("task.yml");
            if let Ok(text) = std::fs::read_to_string(&path) {
                holds(Document::Task, &text, &path.display().to_string());
                tasks += 1;
            }
        }
        assert!(tasks >= 5, "{tasks} tasks were found");
        let shipped = std::fs::read_to_string(root.join("packaging/hostler.yml")).unwrap();
        let setting = |line: &str| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with(' ') || rest.starts_with("  "))
                .map(str::to_owned)
        };
        let set: Vec<String> = shipped.lines().filter_map(setting).collect();
        holds(Document::Configuration, &set.join("\n"), "packaging/hostler.yml");
    }

    #[test]
    fn the_examples_of_the_guides_fit() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let mut seen = 0;
        for page in ["orders.md", "operations.md", "writing-tasks.md", "backups.md"] {
            let text = std::fs::read_to_string(root.join(page)).unwrap();
            for block in text.split("```yaml\n").skip(1) {
                let block = block.split("```").next().unwrap();
                // A piece of a document is no document: only whole ones are held against their schema.
                let first =
                    block.lines().find(|line| !line.trim_start().starts_with('#')).unwrap_or_default();
                let document = match first.split(':').next() {
                    Some("task") => Document::Order,
                    Some("name") => Document::Task,
                    _ => continue,
                };
                holds(document, block, page);
                seen += 1;
            }
        }
        assert!(seen >= 4, "{seen} documents were found");
    }

    #[test]
    fn an_unknown_field_does_not_fit() {
        for (document, text) in [
            (Document::Order, "task: a\nwhen: now"),
            (Document::Order, "reason: only"),
            (Document::Task, "name: a\nversion: 1\nsteps: [{name: b, run: [c], when: now}]"),
            (Document::Configuration, "hosts: db1"),
        ] {
            let value: Value = serde_yaml::from_str(text).unwrap();
            assert!(!compiled(document).is_valid(&value), "{text}");
        }
    }
}
