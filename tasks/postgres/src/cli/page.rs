//! The health of a cluster as a page: one file that loads nothing, for a mail or a wiki.

use crate::health::Finding;

/// How the page looks.
const STYLE: &str = "body{font:15px/1.45 sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse;width:100%}\
    th,td{text-align:left;vertical-align:top;padding:.4em .8em .4em 0;border-bottom:1px solid #ddd}\
    .bad,.unknown{color:#a40000;font-weight:bold}.warn{color:#8a5a00}pre{white-space:pre-wrap;font-size:12px;color:#555}";

/// The page of what was found in a cluster at an instant.
pub(super) fn page(title: &str, at: &str, findings: &[Finding]) -> String {
    let rows: String = findings.iter().map(row).collect();
    let body = if findings.is_empty() {
        "<p>Nothing hurts.</p>\n".to_owned()
    } else {
        format!("<table>\n<tr><th>Level<th>Probe<th>Database<th>Subject<th>Finding\n{rows}</table>\n")
    };
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n<style>{STYLE}</style>\n\
         <h1>{title}</h1>\n<p>{}</p>\n{body}</html>",
        escaped(at)
    )
}

fn row(finding: &Finding) -> String {
    let level = finding.level.name();
    let cells = [finding.probe, finding.database.as_deref().unwrap_or("-"), &finding.subject, &finding.text];
    let cells: String = cells.iter().map(|cell| format!("<td>{}", escaped(cell))).collect();
    format!(
        "<tr><td class=\"{level}\">{level}{cells}<details><summary>statement</summary><pre>{}</pre></details>\n",
        escaped(finding.statement.trim())
    )
}

/// A text in which nothing is taken for a tag: names of tables may hold anything.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::health::{Finding, Level};

    #[test]
    fn a_page_holds_what_was_found_and_no_tag_of_somebody_else() {
        let finding = Finding {
            level: Level::Bad,
            probe: "sequences",
            database: None,
            subject: "public.<script>alert('x')</script>".to_owned(),
            text: "a & b".to_owned(),
            statement: "select 1 < 2",
        };
        let text = page("15/main", "2026-11-28T17:04:05Z", &[finding]);
        for part in [
            "class=\"bad\">bad",
            "public.&lt;script&gt;alert(&#39;x&#39;)",
            "a &amp; b",
            "select 1 &lt; 2",
            "<td>-",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("<script") && !text.contains("http"), "{text}");
        assert!(page("15/main", "", &[]).contains("Nothing hurts."));
    }
}
