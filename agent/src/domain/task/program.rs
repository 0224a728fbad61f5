//! Arguments that a program reads as code: no template may fill them, or a parameter becomes a command of root.
//!
//! Known are the usual interpreters, and the programs that start another one. A program that is not known here may
//! still read its arguments as code; only its author knows.

use crate::domain::template::Template;

/// How a program takes code from its arguments.
enum Code {
    /// As the shells do: the first operand is code where `c` is among the options, and a script without it.
    Shell,
    /// The argument of these options; without one of them the first operand is a script.
    Script(&'static [&'static str]),
    /// The argument of these options and nothing else, as clients of databases do.
    Client(&'static [&'static str]),
    /// The argument of these options; without one of them the first operand, as awk does.
    Operand(&'static [&'static str]),
    /// All that follows one of these options, whose names may be cut short: PowerShell.
    Rest(&'static [&'static str]),
    /// The operands from this one on, joined and read by a shell.
    Joined(usize),
    /// The argument of these options, and what an interpreter among the other arguments reads.
    Starts(&'static [&'static str]),
}

const SHELLS: [&str; 14] = [
    "sh", "bash", "dash", "ash", "ksh", "mksh", "pdksh", "lksh", "yash", "rbash", "zsh", "csh", "tcsh",
    "posh",
];

/// Programs that start the program among their arguments.
const STARTERS: [&str; 52] = [
    "sudo",
    "doas",
    "nice",
    "ionice",
    "chrt",
    "taskset",
    "numactl",
    "stdbuf",
    "timeout",
    "time",
    "chroot",
    "unshare",
    "nsenter",
    "setpriv",
    "capsh",
    "systemd-run",
    "systemd-nspawn",
    "systemd-inhibit",
    "machinectl",
    "xargs",
    "parallel",
    "find",
    "strace",
    "ltrace",
    "docker",
    "podman",
    "nerdctl",
    "kubectl",
    "oc",
    "crictl",
    "lxc",
    "ip",
    "start-stop-daemon",
    "firejail",
    "bwrap",
    "proot",
    "fakeroot",
    "pkexec",
    "gosu",
    "su-exec",
    "command",
    "prlimit",
    "choom",
    "unbuffer",
    "dbus-run-session",
    "screen",
    "tmux",
    "daemonize",
    "cgexec",
    "chpst",
    "runcon",
    "logsave",
];

/// Programs whose first operand is the program that they start.
const RUNNERS: [&str; 7] = ["env", "nohup", "setsid", "busybox", "toybox", "exec", "catchsegv"];

const TABLE: [(&[&str], Code); 22] = [
    (&SHELLS, Code::Shell),
    (&["fish"], Code::Script(&["-c", "--command", "-C", "--init-command"])),
    (&["python", "pypy"], Code::Script(&["-c"])),
    (&["perl"], Code::Script(&["-e", "-E", "-M", "-m"])),
    (&["ruby", "jruby"], Code::Script(&["-e"])),
    (&["node", "nodejs", "bun"], Code::Script(&["-e", "-p", "--eval", "--print"])),
    (
        &["php"],
        Code::Script(&[
            "-r",
            "-B",
            "-R",
            "-E",
            "--run",
            "--process-begin",
            "--process-code",
            "--process-end",
        ]),
    ),
    (&["lua", "luajit", "Rscript", "julia", "groovy", "elixir"], Code::Script(&["-e", "-E", "--eval"])),
    (&["expect", "tclsh", "guile"], Code::Script(&["-c"])),
    (&["awk", "gawk", "mawk", "nawk", "original-awk"], Code::Operand(&["-e", "--source"])),
    (&["sed", "gsed"], Code::Operand(&["-e", "--expression"])),
    (&["jq", "yq"], Code::Operand(&[])),
    (&["pwsh", "powershell"], Code::Rest(&["-command", "-encodedcommand", "-ec"])),
    (&["psql"], Code::Client(&["-c", "--command"])),
    (&["mysql", "mariadb"], Code::Client(&["-e", "--execute", "--init-command"])),
    (&["mongo", "mongosh"], Code::Client(&["--eval"])),
    (&["ansible", "ansible-playbook"], Code::Client(&["-a", "--args", "-e", "--extra-vars"])),
    (&["rsync"], Code::Client(&["-e", "--rsh", "--rsync-path"])),
    (&["ssh", "slogin"], Code::Joined(1)),
    (&["watch"], Code::Joined(0)),
    (&["su", "runuser", "sg", "script", "flock"], Code::Starts(&["-c", "--command", "--session-command"])),
    (&RUNNERS, Code::Starts(&["-S", "--split-string"])),
];

/// Programs, the letters of short options, and long options with how many arguments.
type Takes = (&'static [&'static str], &'static str, &'static [(&'static str, usize)]);

/// Options with an argument that is no operand: the letters of the short ones, and the long ones with how many.
const TAKES: [Takes; 5] = [
    (&["awk", "gawk", "mawk", "nawk", "original-awk"], "Fvf", &[("--assign", 1), ("--field-separator", 1)]),
    (&["sed", "gsed"], "fl", &[("--file", 1)]),
    (
        &["jq", "yq"],
        "fL",
        &[
            ("--arg", 2),
            ("--argjson", 2),
            ("--slurpfile", 2),
            ("--rawfile", 2),
            ("--indent", 1),
            ("--from-file", 1),
        ],
    ),
    (&["ssh", "slogin"], "BbcDEeFIiJLlmOoPpQRSWw", &[]),
    (&["watch"], "n", &[("--interval", 1)]),
];

/// An argument that is code, and the program that reads it.
#[derive(Debug, PartialEq)]
pub(super) struct Text {
    /// Which argument.
    pub(super) index: usize,
    /// The program's name.
    pub(super) program: String,
}

/// The arguments that hold a template and would be read as code.
pub(super) fn templated_code(run: &[Template]) -> Vec<Text> {
    let words: Vec<&str> = run.iter().map(Template::source).collect();
    let mut found = Vec::new();
    look(&words, 0, &mut found);
    found.retain(|text| run.get(text.index).is_some_and(|argument| !argument.is_plain()));
    found.sort_by_key(|text| text.index);
    found.dedup_by_key(|text| text.index);
    found
}

/// The interpreter that reads its program from standard input, where a command is one.
pub(super) fn reads_code(run: &[Template]) -> Option<String> {
    let words: Vec<&str> = run.iter().map(Template::source).collect();
    interpreter_of_stdin(&words)
}

fn interpreter_of_stdin(words: &[&str]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    let is_option = |word: &&&str| word.starts_with('-');
    let reads = match lookup(first)? {
        Code::Shell => {
            let options = || rest.iter().take_while(is_option);
            let coded = options().any(|word| has_letter(word, 'c'));
            let asked = options().any(|word| has_letter(word, 's') || *word == "-");
            !coded && (asked || rest.iter().all(|word| is_option(&word)))
        }
        Code::Script(options) => {
            let coded = |word: &&str| options.iter().any(|option| word.starts_with(option));
            rest.iter().all(|word| is_option(&word) && !coded(word))
        }
        Code::Joined(1) => match operands(words, 0).as_slice() {
            [_host] => true,
            [_host, command, ..] => return interpreter_of_stdin(words.get(*command..)?),
            [] => false,
        },
        Code::Starts(_) => {
            let next = rest.iter().position(|word| lookup(word).is_some())?;
            return interpreter_of_stdin(rest.get(next..)?);
        }
        Code::Client(_) | Code::Operand(_) | Code::Rest(_) | Code::Joined(_) => false,
    };
    reads.then(|| name(first))
}

/// Collects the arguments that the program at `at` reads as code, and those that it starts.
fn look(words: &[&str], at: usize, found: &mut Vec<Text>) {
    let Some(own) = words.get(at) else { return };
    let Some(code) = lookup(own) else { return };
    let program = name(own);
    let mut add = |index: usize| found.push(Text { index, program: program.clone() });
    let after = || words.iter().enumerate().skip(at + 1);
    match code {
        Code::Shell => {
            let (mut coded, mut from_stdin, mut value) = (false, false, false);
            for (index, word) in after() {
                if std::mem::take(&mut value) || matches!(*word, "-" | "--") {
                    continue;
                }
                if word.starts_with(['-', '+']) {
                    coded |= has_letter(word, 'c');
                    from_stdin |= has_letter(word, 's');
                    value = has_letter(word, 'o')
                        || has_letter(word, 'O')
                        || ["--rcfile", "--init-file"].contains(word);
                    add(index);
                } else {
                    // With `c` this is the text; without it the script, which a parameter must not choose either.
                    if coded || !from_stdin {
                        add(index);
                    }
                    break;
                }
            }
        }
        Code::Script(options) => {
            // What follows the script is the script's own.
            let valued = |index: usize| {
                let before = words.get(index - 1).copied().unwrap_or_default();
                ["-I", "-W", "-X", "-r", "-C", "-d"].contains(&before)
            };
            let is_script = |index: usize, word: &str| {
                (index == at + 1 && !word.starts_with('-')) || (word.starts_with("./") && !valued(index))
            };
            let script =
                after().find(|(index, word)| is_script(*index, word)).map_or(words.len(), |(index, _)| index);
            let coded = arguments_of(words.get(..script).unwrap_or(words), at, options, true);
            if coded.is_empty() {
                add(at + 1);
            }
            coded.into_iter().for_each(add);
        }
        Code::Client(options) => arguments_of(words, at, options, false).into_iter().for_each(add),
        Code::Operand(options) => {
            let coded = arguments_of(words, at, options, true);
            let file = after().any(|(_, word)| word.starts_with("-f") || word.starts_with("--f"));
            if coded.is_empty() && !file {
                operands(words, at).into_iter().take(1).for_each(&mut add);
            }
            coded.into_iter().for_each(add);
        }
        Code::Rest(options) => {
            let is = |word: &str, options: &[&str]| {
                let word = word.to_ascii_lowercase();
                word.len() > 1 && options.iter().any(|option| option.starts_with(&word))
            };
            // Behind `-File` all arguments are those of the script.
            let first = after().find(|(_, word)| is(word, options) || is(word, &["-file"]));
            if let Some((index, _)) = first.filter(|(_, word)| !is(word, &["-file"])) {
                (index + 1..words.len()).for_each(add);
            }
        }
        Code::Joined(skipped) => {
            let operands = operands(words, at);
            if let Some(first) = operands.get(*skipped) {
                (*first..words.len()).for_each(&mut add);
            }
            let end = operands.first().copied().unwrap_or(words.len());
            for index in arguments_of(words.get(..end).unwrap_or(words), at, &["-o"], false) {
                // `-o ConnectTimeout={{ … }}` is a value, `-o ProxyCommand={{ … }}` is not.
                let value = words.get(index).map_or("", |word| word.trim_start_matches("-o"));
                let key = value.split(['=', ' ']).next().unwrap_or_default().to_ascii_lowercase();
                if key.contains('{') || key.ends_with("command") || key.contains("exec") {
                    add(index);
                }
            }
        }
        Code::Starts(options) => {
            arguments_of(words, at, options, true).into_iter().for_each(&mut add);
            if RUNNERS.contains(&program.as_str()) {
                let set = |word: &str| word.split("{{").next().unwrap_or_default().contains('=');
                let valued =
                    |index: usize| words.get(index - 1).is_some_and(|word| ["-u", "-C"].contains(word));
                let first =
                    after().find(|(index, word)| !word.starts_with('-') && !set(word) && !valued(*index));
                first.into_iter().for_each(|(index, _)| add(index));
            }
            if let Some((next, _)) = after().find(|(_, word)| lookup(word).is_some()) {
                look(words, next, found);
            }
        }
    }
}

/// The arguments of these options: each the next word, or the rest of the option's own.
///
/// `groups`: short options may stand together, as in `-ne`.
fn arguments_of(words: &[&str], at: usize, options: &[&str], groups: bool) -> Vec<usize> {
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate().skip(at + 1).take_while(|(_, word)| **word != "--") {
        for option in options {
            let long = option.starts_with("--");
            let letter = option.chars().nth(1).filter(|_| groups && !long);
            let before_template = word.split("{{").next().unwrap_or_default();
            if word == option
                || letter.is_some_and(|letter| has_letter(word, letter) && word.ends_with(letter))
            {
                found.push(index + 1);
            } else if word.strip_prefix(option).is_some_and(|rest| !long || rest.starts_with('='))
                || letter.is_some_and(|letter| has_letter(before_template, letter))
            {
                found.push(index);
            }
        }
    }
    found
}

/// The arguments that are neither options nor the values of options.
fn operands(words: &[&str], at: usize) -> Vec<usize> {
    let own = words.get(at).map(|word| name(word)).unwrap_or_default();
    let takes = TAKES.iter().find(|(names, ..)| names.contains(&own.as_str()));
    let (letters, long) = takes.map_or(("", &[][..]), |(_, letters, long)| (*letters, *long));
    let (mut found, mut skip, mut only_operands) = (Vec::new(), 0, false);
    for (index, word) in words.iter().enumerate().skip(at + 1) {
        if skip > 0 {
            skip -= 1;
        } else if only_operands || *word == "-" || !word.starts_with('-') {
            found.push(index);
        } else if *word == "--" {
            only_operands = true;
        } else if word.starts_with("--") {
            skip = long.iter().find(|(option, _)| option == word).map_or(0, |(_, count)| *count);
        } else {
            // Of a group of short options the last one takes the next word.
            skip = usize::from(
                word.len() == 2 && word.chars().last().is_some_and(|last| letters.contains(last)),
            );
        }
    }
    found
}

/// Whether a word is a group of short options with this letter among them.
fn has_letter(word: &str, letter: char) -> bool {
    let group = word.strip_prefix(['-', '+']).filter(|group| !group.starts_with('-'));
    group.is_some_and(|group| group.chars().take_while(char::is_ascii_alphanumeric).any(|c| c == letter))
}

fn lookup(word: &str) -> Option<&'static Code> {
    static STARTS: Code = Code::Starts(&[]);
    let name = name(word);
    let found = TABLE.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, code)| code);
    found.or_else(|| STARTERS.contains(&name.as_str()).then_some(&STARTS))
}

/// The name of a program without its folder and its version: `python` for `/usr/bin/python3.11`.
fn name(word: &str) -> String {
    let last = word.rsplit('/').next().unwrap_or(word);
    last.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-')).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Vec<Template> {
        words.iter().map(|word| Template::try_from((*word).to_owned()).unwrap()).collect()
    }

    const X: &str = "{{ params.x }}";

    #[test]
    fn what_a_program_reads_as_code_holds_no_template() {
        let text = "echo {{ params.x }}";
        for words in [
            &["sh", "-c", text][..],
            &["/bin/bash", "-lc", text],
            &["bash", "-euo", "pipefail", "-c", text],
            &["bash", "-c", "-e", text],
            &["dash", "-ec", text, "sh", X],
            &["zsh", "+x", "-c", text],
            &["fish", "--command=echo {{ params.x }}"],
            &["/usr/bin/env", "bash", "-c", text],
            &["env", "-i", "A=b", "python3.11", "-Ic", text],
            &["env", "-S", "sh -c {{ params.x }}"],
            &["busybox", "sh", "-c", text],
            &["busybox", X],
            &["python3", "-cprint({{ params.x }})"],
            &["perl", "-lne", text, "/etc/hosts"],
            &["perl", "-M{{ params.x }}", "-e", "1"],
            &["ruby", "-e", "1", "-e", text],
            &["node", "--eval=f({{ params.x }})"],
            &["php8.2", "-r", text],
            &["awk", "-F", ":", "$1 == \"{{ params.x }}\"", "/etc/passwd"],
            &["gawk", "-v", "a=1", "--source", text],
            &["sed", "-i", "s/a/{{ params.x }}/", "/etc/x"],
            &["sed", "-n", "-e", text, "/etc/x"],
            &["jq", "--arg", "a", "b", ".{{ params.x }}"],
            &["pwsh", "-NoProfile", "-Com", "Get-Item", X],
            &["ssh", "-p", "22", "db1", "systemctl", "restart", X],
            &["ssh", "-o", "ProxyCommand={{ params.x }}", "db1", "uptime"],
            &["su", "-", "postgres", "-c", text],
            &["su", "-lc", text, "postgres"],
            &["runuser", "-u", "postgres", "--", "sh", "-c", text],
            &["sudo", "-u", "postgres", "psql", "-c", "select '{{ params.x }}'"],
            &["sudo", "sh", "-c", text],
            &["timeout", "5", "nice", "-n", "5", "bash", "-c", text],
            &["flock", "/run/x", "-c", text],
            &["find", "/x", "-exec", "sh", "-c", text, ";"],
            &["xargs", "-0", "sh", "-c", text],
            &["docker", "exec", "db", "sh", "-c", text],
            &["nsenter", "-t", "1", "-m", "sh", "-c", text],
            &["mysql", "-e", text],
            &["ansible", "all", "-m", "shell", "-a", text],
            &["sh", X],
            &["python3", X],
            &["sh", "{% if params.x %}a{% endif %}"],
        ] {
            assert_eq!(templated_code(&run(words)).len(), 1, "{words:?}");
        }
        assert_eq!(templated_code(&run(&["sudo", "bash", "-c", text]))[0].program, "bash");
    }

    #[test]
    fn what_it_takes_as_a_value_may_hold_one() {
        for words in [
            &["sh", "-c", "echo \"$1\"", "sh", X][..],
            &["bash", "-c", "exec \"$@\"", "bash", "-c", X],
            &["bash", "./script", "-c", X],
            &["bash", "-s", "--", X],
            &["./go", "-c", X],
            &["/opt/tool/bin/tool", "sh", X],
            &["python3", "-c", "import sys; print(sys.argv[1])", X],
            &["python3", "./x.py", "-c", X],
            &["perl", "-ne", "print", X],
            &["awk", "-v", "u={{ params.x }}", "$1 == u", X],
            &["awk", "-f", "./prog.awk", X],
            &["sed", "-i", "s/a/b/", X],
            &["jq", "--arg", "v", X, ".a = $v", "x.json"],
            &["ssh", "-p", X, X, "uptime"],
            &["ssh", "-o", "ConnectTimeout={{ params.x }}", "db1", "uptime"],
            &["psql", "-d", X, "-v", "v={{ params.x }}", "-f", "./q.sql"],
            &["mysql", "-ujoe", X],
            &["env", "A={{ params.x }}", "./go", X],
            &["env", "-u", "A", "./go", X],
            &["sudo", "-u", X, "./go", X],
            &["timeout", X, "./go"],
            &["pwsh", "-File", "./x.ps1", "-Command", X],
            &["find", X, "-name", X],
            &["tar", "-c", X],
            &["grep", "-e", X],
        ] {
            assert_eq!(templated_code(&run(words)), [], "{words:?}");
        }
    }

    #[test]
    fn an_interpreter_without_a_program_reads_it_from_standard_input() {
        for (words, reads) in [
            (&["sh"][..], true),
            (&["bash", "-s", "a"], true),
            (&["bash", "-x"], true),
            (&["python3", "-"], true),
            (&["sudo", "bash"], true),
            (&["ssh", "db1"], true),
            (&["ssh", "db1", "bash", "-s"], true),
            (&["sh", "-c", "cat"], false),
            (&["sh", "./x"], false),
            (&["python3", "-c", "1"], false),
            (&["ssh", "db1", "cat"], false),
            (&["./x"], false),
            (&["psql"], false),
        ] {
            assert_eq!(reads_code(&run(words)).is_some(), reads, "{words:?}");
        }
    }
}
