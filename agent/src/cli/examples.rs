//! Two examples of each command, for its `--help` and its man page.

use clap::Command;

/// The examples by the command's words; a command that only holds others has none.
const EXAMPLES: &[(&str, [&str; 2])] = &[
    ("agent", ["hostler agent", "hostler agent --config /etc/hostler/hostler.yml"]),
    ("dev", ["hostler dev", "hostler dev --dir demo --once"]),
    ("check", ["hostler check", "hostler check --ready --wait 2m"]),
    (
        "enroll",
        ["hostler enroll db1 --group hana", "hostler enroll db1 db2 db3 --group hana --token-dir tokens"],
    ),
    ("host rename", ["hostler host rename db1 db7", "hostler host rename db1 db7 --json"]),
    ("host retire", ["hostler host retire db1", "hostler host retire db1 --force --yes"]),
    (
        "order put",
        [
            "hostler order put backup --group hana backup.yml --check",
            "hostler order put backup --host db1 --task backup --schedule \"30 2 * * *\" --timezone Europe/Berlin",
        ],
    ),
    ("order get", ["hostler order get backup --group hana", "hostler order get backup --host db1 --json"]),
    ("order list", ["hostler order list", "hostler order list --group hana --watch"]),
    (
        "order edit",
        ["hostler order edit backup --host db1", "hostler order edit backup --group hana --check"],
    ),
    (
        "order revert",
        [
            "hostler order revert backup --group hana --list",
            "hostler order revert backup --group hana --to 2",
        ],
    ),
    (
        "order next",
        ["hostler order next backup --group hana", "hostler order next backup --host db1 -n 10 --json"],
    ),
    (
        "order delete",
        [
            "hostler order delete backup --host db1",
            "hostler order delete backup --group hana --reason CHG42 --confirm-hosts 7",
        ],
    ),
    (
        "run",
        [
            "hostler run hello --host db1 --param name=world",
            "hostler run hello --group hana --spread 10m --reason CHG42",
        ],
    ),
    (
        "cancel",
        ["hostler cancel backup --host db1 --reason CHG42", "hostler cancel backup --group hana --waiting"],
    ),
    (
        "release",
        ["hostler release backup --host db1", "hostler release backup --group hana --held --except db3"],
    ),
    (
        "retry",
        [
            "hostler retry backup --host db1,db2 --watch",
            "hostler retry backup --group hana --confirm-hosts 2",
        ],
    ),
    (
        "acknowledge",
        [
            "hostler acknowledge backup --host db1 --as done --reason \"finished by hand\"",
            "hostler acknowledge backup --host db1 --as step-done --watch",
        ],
    ),
    ("undo", ["hostler undo backup --host db1 --watch", "hostler undo backup --group hana --failed"]),
    ("accept", ["hostler accept backup --host db1", "hostler accept --all-orders --host db9"]),
    (
        "freeze",
        [
            "hostler freeze hana --until 22:00 --reason \"network maintenance\" --wait=10m",
            "hostler freeze --list",
        ],
    ),
    ("thaw", ["hostler thaw hana", "hostler thaw --host db1 --of-others"]),
    ("adopt", ["hostler adopt", "hostler adopt --audit"]),
    ("audit", ["hostler audit --verify", "hostler audit --group hana --since 7d --by alice"]),
    ("status", ["hostler status backup --group hana --watch", "hostler status --waiting"]),
    ("facts", ["hostler facts --host db1", "hostler facts --group hana --where \"hana.role == 'primary'\""]),
    ("runs", ["hostler runs --group hana --failed --since 7d", "hostler runs show 8Q2F7K"]),
    ("runs show", ["hostler runs show 8Q2F7K", "hostler runs show 8Q2F7K --host db1 --json"]),
    ("downtime", ["hostler downtime --window 7d", "hostler downtime --group hana --service web"]),
    ("logs", ["hostler logs 8Q2F7K", "hostler logs backup --group hana --failed"]),
    ("task list", ["hostler task list", "hostler task list --group hana"]),
    ("task show", ["hostler task show hello", "hostler task show ./mytask --json"]),
    ("task lint", ["hostler task lint", "hostler task lint ./mytask"]),
    ("task try", ["hostler task try ./mytask --param n=1", "hostler task try ./mytask --dry-run"]),
    ("task new", ["hostler task new mytask", "hostler task new backup-app"]),
    (
        "task package",
        [
            "hostler task package ./mytask --version 1.0",
            "hostler task package ./one ./two --version 1.4 --name acme-tasks --format deb --out dist",
        ],
    ),
    ("schema", ["hostler schema order", "hostler schema output"]),
];

/// The commands, each with its examples behind its help.
pub(super) fn with_examples(command: Command) -> Command {
    within(command, "")
}

fn within(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = match EXAMPLES.iter().find(|(of, _)| *of == path) {
        Some((_, [first, second])) => command.after_help(format!("Examples:\n  {first}\n  {second}")),
        None => command,
    };
    names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |sub| within(sub, path.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a line as a shell would make them.
    fn words(line: &str) -> Vec<String> {
        let quoted = line.split('"').enumerate();
        let spared =
            quoted.map(|(i, part)| if i % 2 == 1 { part.replace(' ', "\0") } else { part.to_owned() });
        let spared: String = spared.collect();
        spared.split(' ').map(|word| word.replace('\0', " ")).collect()
    }

    #[test]
    fn each_command_has_two_examples_that_are_understood() {
        fn look(command: &Command, path: &str, missing: &mut Vec<String>) {
            let subs: Vec<&Command> = command
                .get_subcommands()
                .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
                .collect();
            let alone = subs.is_empty() || !command.is_subcommand_required_set();
            if alone && !path.is_empty() && !EXAMPLES.iter().any(|(of, _)| *of == path) {
                missing.push(path.to_owned());
            }
            for sub in subs {
                look(sub, format!("{path} {}", sub.get_name()).trim(), missing);
            }
        }
        let command = crate::cli::command();
        let mut missing = Vec::new();
        look(&command, "", &mut missing);
        assert!(missing.is_empty(), "{missing:?}");
        for (of, lines) in EXAMPLES {
            for line in lines {
                assert!(line.starts_with(&format!("hostler {of}")) || *of == "runs", "{of}: {line}");
                let parsed = command.clone().try_get_matches_from(words(line));
                if let Err(error) = parsed {
                    assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line}: {error}");
                }
            }
        }
    }
}
