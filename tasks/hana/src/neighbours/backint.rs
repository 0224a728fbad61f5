//! Backint, asked by its calling side: whether it has what HANA's catalog says.
//!
//! The grammar: an entry a line, a keyword first, then words that may be quoted; within quotation marks a `"` is `\"`, and
//! any other backslash is one.

use std::time::Duration;

use super::catalog::Database;
use super::recovery;
use crate::call::{As, Call, Input, Piece};
use crate::error::{Reading, quoted, unclear};
use crate::system::System;

/// `-f inquire` for backups by their ids.
pub fn inquire(
    system: &System,
    database: &Database,
    parameters: Option<&str>,
    wanted: &[(String, String)],
) -> Call {
    let lines: String =
        wanted.iter().map(|(id, name)| format!("#EBID {} {}\n", word(id), word(name))).collect();
    call(system, database, parameters, "ask Backint whether it has the parts", &lines)
}

/// `-f inquire` for the newest catalog of a database, by its name.
pub fn inquire_catalog(system: &System, database: &Database, parameters: Option<&str>) -> Call {
    let line = format!("#NULL {}\n", word(&catalog_name(system, database)));
    call(system, database, parameters, "ask Backint whether it has a catalog", &line)
}

/// The name of a database's catalog in Backint, below the root that the host has.
pub fn catalog_name(system: &System, database: &Database) -> String {
    let base = format!("/usr/sap/{}/SYS/global/hdb/backint", system.sid);
    system.at(recovery::folder(&base, database)).join("log_backup_0_0_0_0").display().to_string()
}

fn call(
    system: &System,
    database: &Database,
    parameters: Option<&str>,
    purpose: &'static str,
    entries: &str,
) -> Call {
    let user = if database.is_system() {
        system.sid.to_string()
    } else {
        format!("{}@{}", database.as_str(), system.sid)
    };
    let mut arguments = vec!["-f".to_owned(), "inquire".to_owned()];
    if let Some(file) = parameters {
        arguments.extend(["-p".to_owned(), file.to_owned()]);
    }
    // -u: whose backups; without -i and -o it reads standard input and writes standard output
    arguments.extend(["-u".to_owned(), user]);
    let text = format!("#SOFTWAREID \"backint 1.04\" \"hostler-hana\"\n{entries}");
    Call {
        purpose,
        source: "Backint for SAP HANA, interface 1.04; OVH backint guide",
        user: As::Adm,
        program: format!("/usr/sap/{}/SYS/global/hdb/opt/hdbbackint", system.sid).into(),
        arguments,
        input: Input::Pieces(vec![Piece::Text(text)]),
        timeout: Duration::from_secs(1800),
    }
}

/// A word between quotation marks.
fn word(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}

/// Reads the answer: the names of which Backint has no backup with that id.
pub fn missing(exit: i32, text: &str, wanted: &[(String, String)]) -> Reading<Vec<String>> {
    let mut lines = entries(exit, text)?.into_iter();
    let mut missing = Vec::new();
    for (id, name) in wanted {
        let line = lines.next().unwrap_or_default();
        match line.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["#BACKUP", found, of, ..] if found == id && of == name => {}
            ["#NOTFOUND", found, of] if found == id && of == name => missing.push(name.clone()),
            ["#NOTFOUND", of] if of == name => missing.push(name.clone()),
            other => return unclear(format!("Backint answers {} for {name}", quoted(&other.join(" ")))),
        }
    }
    match lines.next() {
        None => Ok(missing),
        Some(_) => unclear("Backint answers more than was asked"),
    }
}

/// Reads the answer of [`inquire_catalog`]: whether there is one.
pub fn has(exit: i32, text: &str, name: &str) -> Reading<bool> {
    let lines = entries(exit, text)?;
    let is = |line: &Vec<String>, keyword: &str, at: usize| {
        line.first().is_some_and(|first| first == keyword) && line.get(at).is_some_and(|of| of == name)
    };
    match lines.as_slice() {
        [one] if is(one, "#NOTFOUND", 1) => Ok(false),
        [first, ..] if lines.iter().all(|line| is(line, "#BACKUP", 2)) && !first.is_empty() => Ok(true),
        _ => unclear(format!("Backint answers {} for {name}", quoted(text.trim()))),
    }
}

/// The lines of an answer after its head, as words.
fn entries(exit: i32, text: &str) -> Reading<Vec<Vec<String>>> {
    if exit != 0 {
        return unclear(format!(
            "hdbbackint -f inquire ended with {exit} and printed {}",
            quoted(text.trim())
        ));
    }
    let lines: Vec<_> =
        text.lines().filter(|line| line.starts_with('#')).map(words).collect::<Reading<_>>()?;
    match lines.split_first() {
        Some((head, rest)) if head.first().is_some_and(|keyword| keyword == "#SOFTWAREID") => {
            Ok(rest.to_vec())
        }
        _ => unclear("an answer of Backint begins with #SOFTWAREID"),
    }
}

fn words(line: &str) -> Reading<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let Some(mut inside) = rest.strip_prefix('"') else {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            words.push(word.to_owned());
            rest = after.trim_start();
            continue;
        };
        let mut value = String::new();
        loop {
            let Some((part, after)) = inside.split_once('"') else {
                return unclear(format!("a quoted word of Backint does not end in {}", quoted(line)));
            };
            inside = after;
            match part.strip_suffix('\\') {
                Some(part) => {
                    value.push_str(part);
                    value.push('"');
                }
                None => {
                    value.push_str(part);
                    break;
                }
            }
        }
        words.push(value);
        rest = inside.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_backint_has() {
        let wanted =
            [("e1", "/b/one"), ("e2", "/b/t\"wo")].map(|(id, name)| (id.to_owned(), name.to_owned()));
        let head = "#SOFTWAREID \"backint 1.04\" \"agent 1\"\n";
        let both = format!(
            "{head}#BACKUP \"e1\" \"/b/one\"\nsome text\n#BACKUP e2 \"/b/t\\\"wo\" \"2026-11-21T01:00:00.000Z\"\n"
        );
        assert_eq!(missing(0, &both, &wanted), Ok(Vec::new()));
        let one = format!("{head}#NOTFOUND \"e1\" \"/b/one\"\n#BACKUP \"e2\" \"/b/t\\\"wo\"\n");
        assert_eq!(missing(0, &one, &wanted), Ok(vec!["/b/one".to_owned()]));
        for odd in [
            String::new(),
            head.to_owned(),
            both.replace(head, ""),
            both.replace("e1", "e3"),
            both.replace("#BACKUP e2", "#ERROR e2"),
            format!("{both}#BACKUP \"e3\" \"/b/three\"\n"),
            format!("{head}#BACKUP \"e1\" \"/b/one\n"),
        ] {
            assert!(missing(0, &odd, &wanted).is_err(), "{odd}");
        }
        assert!(missing(1, &both, &wanted).is_err());
        let has = |line: &str| has(0, &format!("{head}{line}"), "/b/c");
        assert_eq!(has("#BACKUP \"e2\" \"/b/c\"\n#BACKUP \"e1\" \"/b/c\"\n"), Ok(true));
        assert_eq!(has("#NOTFOUND \"/b/c\"\n"), Ok(false));
        for odd in ["", "#ERROR \"/b/c\"\n", "#BACKUP \"e\" \"/b/c/d\"\n", "#NOTFOUND \"/b\"\n"] {
            assert!(has(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_backslash_is_one_but_before_a_quotation_mark() {
        assert_eq!(words(r#"#EBID "a\b\"c" x"#).unwrap(), ["#EBID", "a\\b\"c", "x"]);
    }
}
