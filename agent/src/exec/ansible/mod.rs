//! A step that is an Ansible playbook: what to write, what to start, in which environment.
//!
//! Nothing is started here; the executor starts it as any other step, and writes the files for the step's user.
//!
//! **A parameter is data.** Ansible evaluates a variable's text again wherever it is used: as a template, so that
//! `{{ lookup('pipe', …) }}` would be a command, and in `when`, `assert` or `debug: var` as an expression, which needs
//! no braces. So every text and every key is unsafe to Ansible, without an exception, and so is each secret. The mark
//! `!unsafe` is put on each map and each list, never on a text itself: Ansible 2.19 resolves a marked text again and
//! makes null of an empty one and false of `no`, whereas what a marked map or list holds keeps its type. Ansible 2.14
//! marks only what is already built, so that one mark on the outermost map would not do.
//!
//! All parameters are below the one variable `params`, so that none becomes a variable that Ansible itself obeys, such
//! as `ansible_python_interpreter`.
//!
//! **Nothing from around.** The host's `ansible.cfg`, inventory and home do not count: the same task does the
//! same on each host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use zeroize::Zeroizing;

/// What plays them.
pub const PROGRAM: &str = "ansible-playbook";

/// The plugin that turns Ansible's tasks into the step's progress.
const CALLBACK: &str = include_str!("hostler_report.py");

/// Its name.
const CALLBACK_NAME: &str = "hostler_report";

/// One file that must be there before the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// What is in it.
    pub contents: String,
}

/// How a playbook is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Play {
    /// Folders to make, mode 0700, owned by the step's user, in this order.
    pub folders: Vec<PathBuf>,
    /// Files to write, mode 0400, owned by the step's user.
    pub files: Vec<File>,
    /// The program and its arguments; the working folder is the task's copy.
    pub argv: Vec<OsString>,
    /// What the step's environment has besides that of every step.
    pub env: Vec<(&'static str, OsString)>,
}

/// Prepares a playbook, named by its path in the task's copy, in `folder`, a full path that is the step's own.
///
/// `secrets` is a variables file with the run's secrets, on memory that is never swapped.
pub fn play(playbook: &str, params: &Value, folder: &Path, secrets: Option<&Path>) -> Play {
    let plugins = folder.join("callback");
    let config = folder.join("ansible.cfg");
    let vars = folder.join("params.yml");
    let mut at_vars = OsString::from("@");
    at_vars.push(&vars);
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut argv = words(&[PROGRAM, "-i", "localhost,", "-c", "local", "-e"]);
    argv.push(at_vars);
    if let Some(path) = secrets {
        let mut at = OsString::from("@");
        at.push(path);
        argv.extend(["-e".into(), at]);
    }
    // With ./ in front no name is an option.
    argv.push(format!("./{playbook}").into());
    let temp = folder.join("tmp");
    let env = vec![
        ("ANSIBLE_CONFIG", config.clone().into()),
        ("ANSIBLE_HOME", folder.into()),
        ("ANSIBLE_LOCAL_TEMP", temp.clone().into()),
        ("ANSIBLE_REMOTE_TEMP", temp.clone().into()),
        ("ANSIBLE_CALLBACK_PLUGINS", plugins.clone().into()),
        ("ANSIBLE_CALLBACKS_ENABLED", CALLBACK_NAME.into()),
        ("ANSIBLE_NOCOLOR", "1".into()),
        ("ANSIBLE_RETRY_FILES_ENABLED", "0".into()),
        ("ANSIBLE_LOCALHOST_WARNING", "0".into()),
        ("ANSIBLE_PYTHON_INTERPRETER", "auto_silent".into()),
        // Ansible does not start without a UTF-8 locale.
        ("LC_ALL", "C.UTF-8".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
    ];
    let file = |path: PathBuf, contents: String| File { path, contents };
    let files = vec![
        file(config, "[defaults]\n".to_owned()),
        file(plugins.join(format!("{CALLBACK_NAME}.py")), CALLBACK.to_owned()),
        file(vars, extra_vars(params)),
    ];
    Play { folders: vec![folder.into(), plugins, temp], files, argv, env }
}

/// The variables file with the secrets: one variable, `secrets`.
pub fn secret_vars<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Zeroizing<String> {
    // Enough room from the start: a text that grows leaves copies behind. Not ten times the value, which may be long.
    let secrets: Vec<_> = secrets.into_iter().collect();
    let written = |text: &str| text.chars().map(|c| written(c).0).sum::<usize>();
    let room = secrets.iter().map(|(name, value)| written(name) + written(value) + 32).sum::<usize>() + 32;
    let mut out = Zeroizing::new(String::with_capacity(room));
    out.push_str("secrets: !unsafe {");
    for (name, value) in secrets {
        write_text(&mut out, name);
        out.push_str(": ");
        write_text(&mut out, value);
        out.push_str(", ");
    }
    out.push_str("}\n");
    out
}

/// The variables file: one variable, `params`, a map with each text and key in it marked unsafe.
///
/// A single value in place of a map, which no schema of a task admits, is handed over in a list of its own.
pub fn extra_vars(params: &Value) -> String {
    let mut out = String::from("params: ");
    match params {
        Value::Object(_) | Value::Array(_) => write(&mut out, params),
        single => write(&mut out, &Value::Array(vec![single.clone()])),
    }
    out.push('\n');
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        // Without the tag, Ansible's YAML reads 1e-7 as text.
        Value::Number(number) if number.is_f64() => out.push_str(&format!("!!float \"{number}\"")),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_text(out, text),
        Value::Array(list) => {
            out.push_str("!unsafe [");
            for item in list {
                write(out, item);
                out.push_str(", ");
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("!unsafe {");
            for (key, item) in map {
                // With `?` in front a key may be longer than 1024 characters.
                out.push_str("? ");
                write_text(out, key);
                out.push_str(" : ");
                write(out, item);
                out.push_str(", ");
            }
            out.push('}');
        }
    }
}

/// A text in double quotes, all but plain ASCII escaped: YAML folds and refuses more than it says.
fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match written(c) {
            (1, _) => out.push(c),
            (2, _) => out.extend(['\\', c]),
            (_, code) => out.push_str(&format!("\\U{code:08x}")),
        }
    }
    out.push('"');
}

/// How many bytes a character takes there: as it is, behind a backslash, or as its number, which is the second.
fn written(c: char) -> (usize, u32) {
    let length = match c {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        _ => 10,
    };
    (length, u32::from(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_map_and_each_list_is_marked_unsafe() {
        let params =
            json!({"a": "{x\"\\\n", "l": [1, 1e-7, true, null, "é", "no", [""]], "m": {"{{ k }}": "v"}});
        assert_eq!(
            extra_vars(&params),
            "params: !unsafe {? \"a\" : \"{x\\\"\\\\\\U0000000a\", \
             ? \"l\" : !unsafe [1, !!float \"1e-7\", true, null, \"\\U000000e9\", \"no\", !unsafe [\"\", ], ], \
             ? \"m\" : !unsafe {? \"{{ k }}\" : \"v\", }, }\n"
        );
        assert_eq!(extra_vars(&json!("{{ x }}")), "params: !unsafe [\"{{ x }}\", ]\n");
        assert_eq!(*secret_vars([("a", "{{ x }}")]), "secrets: !unsafe {\"a\": \"{{ x }}\", }\n");
    }

    #[test]
    fn a_playbook_is_never_an_option() {
        let play = play("--version", &json!({}), Path::new("/run/x"), None);
        assert_eq!(play.argv.last().unwrap(), "./--version");
        assert!(play.argv.contains(&"@/run/x/params.yml".into()));
    }
}
