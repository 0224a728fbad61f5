//! What is taken of a step's report, and what is said of the rest.

use std::io::Write;

use super::*;

struct Report {
    dir: tempfile::TempDir,
    feedback: StepReportReader,
}

impl Report {
    fn new(secrets: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let redactor = Redactor::new(secrets.iter().copied()).unwrap();
        let feedback =
            StepReportReader::create(&dir.path().join("report"), Some(Arc::new(redactor))).unwrap();
        Self { dir, feedback }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("report")
    }

    fn append(&self, text: impl AsRef<[u8]>) {
        OpenOptions::new().append(true).open(self.path()).unwrap().write_all(text.as_ref()).unwrap();
    }

    /// As `>` of a shell: the same file, from its beginning.
    fn rewrite(&self, text: &str) {
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.path())
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    fn look(&mut self) -> bool {
        // The test is faster than the clock of the file system.
        self.feedback.stamp = None;
        self.feedback.read()
    }

    fn output(&self, name: &str) -> Option<&str> {
        self.feedback.outputs.get(name).map(String::as_str)
    }
}

fn said(text: impl AsRef<[u8]>) -> StepReportReader {
    let mut report = Report::new(&[]);
    report.append(text);
    report.feedback.finish();
    report.feedback
}

#[test]
fn good_lines_are_taken_and_bad_ones_are_counted_with_the_first_of_them() {
    let feedback = said(
        b"{\"progress\": 40, \"message\": \"copying\\u001b[0m\"}\nnonsense\n{\"progress\": 101}\n{\"x\":1}\n\
          {\"output\": {\"backup_id\": \"b1\", \"size\": 7}}\n{\"output\": {\"Bad\": \"x\"}}\n{\"progress\": 50",
    );
    assert_eq!(feedback.progress, Some(40), "the last line was cut");
    assert_eq!(feedback.message.as_deref(), Some("copying[0m"));
    assert_eq!(feedback.outputs.len(), 2);
    assert_eq!(feedback.outputs["size"], "7");
    let [warning] = feedback.warnings().try_into().unwrap();
    assert!(
        warning.starts_with(
            "5 lines of HOSTLER_REPORT were not understood, the first: \"nonsense\": it is not JSON"
        ),
        "{warning}"
    );
    let [one] = said("{\"progress\": 7}\n\n  \r\n{\"progres\": 8}\n").warnings().try_into().unwrap();
    assert_eq!(
        one,
        "1 line of HOSTLER_REPORT was not understood: \"{\\\"progres\\\": 8}\": \"progres\" is none of progress, \
         message, output and downtime"
    );
    assert_eq!(said("").warnings(), [""; 0]);
}

#[test]
fn a_line_is_taken_whole_or_not_at_all() {
    let bad = [
        "{\"progress\": 40, \"message\": 7}",
        "{\"message\": \"m\", \"progress\": \"40\"}",
        "{\"output\": {\"a\": \"1\", \"B\": \"2\"}, \"progress\": 40}",
        "{\"output\": {\"a\": \"1\", \"b\": null}, \"message\": \"m\"}",
        "{\"message\": \"m\", \"z\": 1}",
        "{\"output\": {\"a\": [1]}}",
        "{\"output\": \"a\", \"progress\": 1}",
        "[]",
        "{}",
        "7",
    ];
    for line in bad {
        let feedback = said(format!("{line}\n"));
        assert_eq!((feedback.progress, feedback.message.as_deref()), (None, None), "{line}");
        assert!(feedback.outputs.is_empty(), "{line}");
        assert_eq!(feedback.bad, 1, "{line}");
    }
}

#[test]
fn the_last_line_needs_no_newline_and_a_byte_order_mark_is_no_part_of_a_line() {
    let feedback = said("{\"progress\": 3}\n{\"output\": {\"id\": \"B1\"}}");
    assert_eq!((feedback.outputs["id"].as_str(), feedback.bad), ("B1", 0));
    let feedback = said("\u{feff}{\"output\": {\"id\": \"B2\"}}\r\n\u{feff}{\"progress\": 9}\r\n");
    assert_eq!((feedback.outputs["id"].as_str(), feedback.progress, feedback.bad), ("B2", Some(9), 0));
    let utf16: Vec<u8> = "{\"progress\": 9}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(said(utf16).bad > 0);
}

#[test]
fn a_file_that_is_written_again_is_read_from_its_beginning() {
    let long = format!("{{\"output\": {{\"id\": \"{}\"}}}}\n", "x".repeat(40));
    // Shorter, as long, and longer than what was there.
    for second in ["{\"output\": {\"id\": \"B1\"}}\n", "{\"output\": {\"id\": \"second\"}}", &long] {
        let mut report = Report::new(&[]);
        report.rewrite("{\"output\": {\"id\": \"first!\"}}\n");
        assert!(report.look());
        assert_eq!(report.output("id"), Some("first!"));
        report.rewrite(second);
        report.look();
        report.feedback.finish();
        assert_ne!(report.output("id"), Some("first!"), "{second}");
        assert_eq!(report.feedback.bad, 0, "{:?}", report.feedback.warnings());
    }
    // A line without an end counts before the file begins again.
    let mut report = Report::new(&[]);
    report.rewrite("{\"output\": {\"one\": \"1\"}}");
    assert!(!report.look());
    report.rewrite("{\"output\": {\"two\": \"2\"}}");
    assert!(report.look());
    report.feedback.finish();
    assert_eq!((report.output("one"), report.output("two")), (Some("1"), Some("2")));
}

#[test]
fn a_file_that_takes_its_place_is_read_and_what_is_no_file_is_not() {
    let mut report = Report::new(&[]);
    report.append("{\"progress\": 10}\n{\"output\": {\"unread\": \"yet\"}}");
    for n in 0..3 {
        let other = report.dir.path().join("other");
        fs::write(&other, format!("{{\"output\": {{\"id{n}\": \"B{n}\"}}}}\n")).unwrap();
        fs::rename(&other, report.path()).unwrap();
        report.look();
    }
    report.append("{\"output\": {\"last\": \"x\"}}");
    report.feedback.finish();
    for (name, value) in [("unread", "yet"), ("id0", "B0"), ("id2", "B2"), ("last", "x")] {
        assert_eq!(report.output(name), Some(value));
    }
    assert_eq!(report.feedback.warnings(), [""; 0]);
    // Not even its owner's link is followed.
    let secret = report.dir.path().join("secret");
    fs::write(&secret, "{\"output\": {\"stolen\": \"1\"}}\n").unwrap();
    fs::remove_file(report.path()).unwrap();
    std::os::unix::fs::symlink(&secret, report.path()).unwrap();
    report.feedback.finish();
    assert_eq!(report.output("stolen"), None);
    let [warning] = report.feedback.warnings().try_into().unwrap();
    assert!(warning.contains("was replaced and cannot be read: it is no regular file"), "{warning}");
    fs::remove_file(report.path()).unwrap();
    nix::unistd::mkfifo(&report.path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    report.feedback.finish();
    assert_eq!(report.feedback.warnings().len(), 1);
}

#[test]
fn everything_has_a_bound_and_what_is_above_it_is_said() {
    let many: String = (0..100).map(|n| format!("{{\"output\": {{\"o{n}\": \"x\"}}}}\n")).collect();
    let feedback = said(many);
    assert_eq!((feedback.outputs.len(), feedback.bad), (MAX_OUTPUTS, 68));
    assert!(feedback.warnings()[0].contains("a step has room for 32 outputs of 2048 bytes in all"));
    // One output that is too large is not cut to another value.
    let feedback = said(format!("{{\"output\": {{\"id\": \"{}\"}}}}\n", "x".repeat(2047)));
    assert_eq!((feedback.outputs.len(), feedback.bad), (0, 1));
    assert_eq!(said(format!("{{\"output\": {{\"id\": \"{}\"}}}}\n", "x".repeat(2046))).bad, 0);
    let feedback = said(format!("{{\"message\": \"{}\"}}\n", "x".repeat(5000)));
    assert_eq!(
        feedback.warnings(),
        ["1 line of HOSTLER_REPORT was not understood: it has more than 4096 bytes"]
    );
    let message = said(format!("{{\"message\": \"begin {}\"}}\n", "ä".repeat(600))).message.unwrap();
    assert!(message.starts_with("begin ä") && message.ends_with("ä…") && message.len() <= MESSAGE);
    let mut endless = vec![b'x'; 2 << 20];
    endless.extend(b"\n{\"progress\": 1}\n");
    let feedback = said(&endless);
    assert_eq!(feedback.progress, None);
    let warnings = feedback.warnings();
    assert!(warnings[1].starts_with("HOSTLER_REPORT has more than 1048576 bytes"), "{warnings:?}");
}

#[test]
fn what_was_not_understood_shows_no_secret() {
    let secret = "correct horse battery";
    let lines = [
        format!("the password is {secret}"),
        format!("{{\"{secret}\": 1}}"),
        format!("{{\"output\": {{\"{secret}\": 1}}}}"),
        format!("{{\"message\": \"{secret}\", \"x\": 1}}"),
        format!("{}{secret}", "x".repeat(MAX_LINE - 9)),
        "cor\u{1}rect horse battery".to_owned(),
    ];
    for line in lines {
        let mut report = Report::new(&[secret]);
        report.append(&line);
        report.feedback.finish();
        let [warning] = report.feedback.warnings().try_into().unwrap();
        assert!(!warning.contains("horse") && !warning.contains("battery"), "{warning}");
    }
}

#[test]
fn downtimes_add_up_for_each_service_and_bad_ones_count_as_other_bad_lines_do() {
    let feedback = said(
        "{\"downtime\": {\"service\": \"postgres:main\", \"seconds\": 0.42, \"failed\": 3}, \"progress\": 9}\n\
         {\"downtime\": {\"service\": \"web\", \"seconds\": 1}}\n\
         {\"downtime\": {\"service\": \"postgres:main\", \"seconds\": 0.08, \"failed\": 1}}\n\
         {\"downtime\": {\"service\": \"Web\", \"seconds\": 1}, \"progress\": 10}\n\
         {\"downtime\": 7}\n\
         {\"downtime\": {\"service\": \"web\", \"seconds\": -1}}\n",
    );
    let sums: Vec<_> = feedback
        .downtime()
        .into_iter()
        .map(|one| (one.service.to_string(), one.seconds.0, one.failed))
        .collect();
    assert_eq!(sums, [("postgres:main".to_owned(), 500, 4), ("web".to_owned(), 1000, 0)]);
    assert_eq!(feedback.progress, Some(9), "a bad line is left out as a whole");
    let [warning] = feedback.warnings().try_into().unwrap();
    assert!(warning.starts_with("3 lines of HOSTLER_REPORT were not understood, the first: "), "{warning}");
    let many: String =
        (0..20).map(|n| format!("{{\"downtime\": {{\"service\": \"s{n}\", \"seconds\": 1}}}}\n")).collect();
    let feedback = said(many);
    assert_eq!((feedback.downtime().len(), feedback.bad), (MAX_SERVICES_AT_ONCE, 4));
}

#[test]
fn a_service_that_is_named_as_a_secret_is_none() {
    let mut report = Report::new(&["hunter2hunter2"]);
    report.append("{\"downtime\": {\"service\": \"db:hunter2hunter2\", \"seconds\": 1}}\n");
    report.feedback.finish();
    assert!(report.feedback.downtime().is_empty());
    let warnings = report.feedback.warnings().join(" ");
    assert!(warnings.contains("holds a secret") && !warnings.contains("hunter2"), "{warnings}");
}

#[test]
fn what_the_command_of_a_lost_executor_wrote_is_read_from_its_file() {
    let report = Report::new(&[]);
    report.append("{\"downtime\": {\"service\": \"web\", \"seconds\": 2}}");
    let mut left = StepReportReader::left_behind(&report.path(), None).unwrap();
    left.finish();
    assert_eq!(left.downtime().len(), 1, "its last line needs no newline");
    let link = report.dir.path().join("link");
    std::os::unix::fs::symlink(report.path(), &link).unwrap();
    assert!(StepReportReader::left_behind(&link, None).is_err(), "no link is followed");
    assert!(StepReportReader::left_behind(report.dir.path(), None).is_err(), "nor a folder read");
}
