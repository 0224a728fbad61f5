//! SAP HANA's side of Backint, played strictly and without a line of the implementation: makes real named pipes, calls
//! the program with HANA's options, and reads the answer by its own grammar.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;

use super::depot::{Depot, Ended, ended};

/// One line of an answer: keyword and parameters.
pub(crate) type Told = (String, Vec<String>);

/// Answers of one call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) version: String,
    pub(crate) lines: Vec<Told>,
    /// As it was written, with its comments.
    pub(crate) text: String,
    pub(crate) ended: Ended,
}

/// Plays HANA.
pub(crate) struct Caller<'a> {
    pub(crate) depot: &'a Depot,
    pub(crate) folder: PathBuf,
    /// What it says that it speaks.
    pub(crate) speaks: &'static str,
}

/// A call under way.
pub(crate) struct Call {
    pub(crate) child: Child,
    output: PathBuf,
    expected: usize,
    speaks: &'static str,
}

/// HANA's way to write a parameter.
pub(crate) fn write(word: &str) -> String {
    let mut text = String::from("\"");
    for letter in word.chars() {
        if letter == '"' {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
    text
}

/// HANA's way to read a line: a state for each character.
fn parse(line: &str) -> Told {
    let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
    let letters: Vec<char> = rest.chars().collect();
    let (mut words, mut at) = (Vec::new(), 0);
    while at < letters.len() {
        let mut word = String::new();
        if letters[at] == '"' {
            at += 1;
            while letters[at] != '"' {
                if letters[at] == '\\' && letters[at + 1] == '"' {
                    at += 1;
                }
                word.push(letters[at]);
                at += 1;
            }
            at += 1;
        } else {
            while at < letters.len() && letters[at] != ' ' {
                word.push(letters[at]);
                at += 1;
            }
        }
        words.push(word);
        if at < letters.len() {
            assert_eq!(letters[at], ' ', "one space between parameters: {line}");
            at += 1;
        }
    }
    (keyword.to_owned(), words)
}

impl<'a> Caller<'a> {
    pub(crate) fn new(depot: &'a Depot) -> Self {
        let folder = depot.path("p q");
        std::fs::create_dir_all(&folder).unwrap();
        Self { depot, folder, speaks: "1.04" }
    }

    /// Makes a named pipe. Names are short: s3s-fs has no keys of more than some 150 bytes.
    pub(crate) fn pipe(&self, name: &str) -> String {
        let path = self.folder.join(name);
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Starts a call; `expected` answers are due.
    pub(crate) fn start(&self, function: &str, entries: &[String], expected: usize) -> Call {
        let id = std::fs::read_dir(self.depot.folder.path()).unwrap().count();
        let input = self.depot.path(&format!("in.{id}"));
        let output = self.depot.path(&format!("out.{id}"));
        let mut text =
            format!("#SOFTWAREID \"backint {}\" \"HANA HDB server 2.00.071.00.1687900751\"\n", self.speaks);
        text.push_str("#TOOLOPTION \"nothing\"\n");
        for entry in entries {
            text.push_str(entry);
            text.push('\n');
        }
        std::fs::write(&input, text).unwrap();
        // As HANA does: through a link at its fixed path.
        let link = self.depot.path("hdbbackint");
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hostler-depot"), &link).unwrap();
        }
        let config = self.depot.path("depot.yml");
        let [config, input, out] = [&config, &input, &output].map(|path| path.to_str().unwrap());
        let arguments = [
            "-f",
            function,
            "-p",
            config,
            "-i",
            input,
            "-o",
            out,
            "-u",
            "HDB",
            "-s",
            "1707397841205",
            "-c",
            "2",
            "-l",
            "COMPLETE",
        ];
        let mut command = self.depot.program(&link, &arguments);
        command.env_remove("HOSTLER_DEPOT_CONFIG");
        Call { child: command.spawn().unwrap(), output, expected, speaks: self.speaks }
    }

    /// A call that needs nobody at a pipe.
    pub(crate) fn call(&self, function: &str, entries: &[String], expected: usize) -> Answer {
        self.start(function, entries, expected).end()
    }

    /// Stores each of these through a pipe of its own, all at once; gives the answer.
    pub(crate) fn backup(&self, streams: &[(String, Vec<u8>)]) -> Answer {
        let entries: Vec<String> = streams.iter().map(|(name, _)| format!("#PIPE {}", write(name))).collect();
        let call = self.start("backup", &entries, streams.len());
        std::thread::scope(|scope| {
            for (name, bytes) in streams {
                scope.spawn(move || {
                    let _ = open_to_write(name).write_all(bytes);
                });
            }
            call.end()
        })
    }

    /// Gets these back through pipes, all at once: id, name and destination of each.
    pub(crate) fn restore(&self, wanted: &[(String, String, String)]) -> (Answer, Vec<Vec<u8>>) {
        let line = |(id, name, to): &(String, String, String)| match id.as_str() {
            "" => format!("#NULL {} {}", write(name), write(to)),
            id => format!("#EBID {} {} {}", write(id), write(name), write(to)),
        };
        let entries: Vec<String> = wanted.iter().map(line).collect();
        let call = self.start("restore", &entries, wanted.len());
        std::thread::scope(|scope| {
            let readers: Vec<_> = wanted
                .iter()
                .map(|(_, _, to)| {
                    scope.spawn(move || {
                        let mut bytes = Vec::new();
                        File::open(to).unwrap().read_to_end(&mut bytes).unwrap();
                        bytes
                    })
                })
                .collect();
            let answer = call.end();
            (answer, readers.into_iter().map(|reader| reader.join().unwrap()).collect())
        })
    }
}

pub(crate) fn open_to_write(path: impl AsRef<Path>) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

impl Call {
    /// Waits for the end and reads the answer, strictly.
    pub(crate) fn end(self) -> Answer {
        let ended = ended(self.child);
        let text = std::fs::read_to_string(&self.output).unwrap();
        assert!(text.ends_with('\n'), "each line ends: {text:?}");
        let mut told: Vec<Told> = text.lines().filter(|line| line.starts_with('#')).map(parse).collect();
        let (keyword, words) = told.remove(0);
        assert_eq!(keyword, "#SOFTWAREID", "the first line: {text}");
        let version = words[0].strip_prefix("backint ").unwrap().to_owned();
        let number = |text: &str| text.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>();
        assert!(number(&version) <= number(self.speaks), "never newer than the caller");
        let known = ["#SAVED", "#ERROR", "#RESTORED", "#NOTFOUND", "#BACKUP", "#DELETED", "#NOTDELETED"];
        assert!(told.iter().all(|(keyword, _)| known.contains(&keyword.as_str())), "{text}");
        assert_eq!(told.len(), self.expected, "one line for each entry: {text}{}", ended.err);
        Answer { version, lines: told, text, ended }
    }
}
