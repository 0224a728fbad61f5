//! The calling side of Backint: how HANA starts `hdbbackint`, hands it named pipes, and reads its answer strictly.
//!
//! Each entry of the input gets one line of the output, in order; the first line is `#SOFTWAREID`. Exit codes other than
//! 0, a line that is missing, out of order or unknown, and a wrong size fail the call.

use crate::catalog::Piece;
use crate::clock;
use crate::files;
use crate::root::Root;
use crate::system::System;
use nix::sys::stat::Mode;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Seconds that a Backint program may take, unless `backint_response_timeout` says otherwise.
const PATIENCE: u64 = 1800;

/// A call of Backint for one database.
pub(crate) struct Backint<'a> {
    pub(crate) root: &'a Root,
    pub(crate) system: &'a System,
    pub(crate) database: &'a str,
    /// The system whose backups they are: another one in a copy.
    pub(crate) of: &'a str,
    /// Prefix of the parameter with the parameter file: `data`, `log`, `catalog`.
    pub(crate) purpose: &'a str,
}

/// Where the pipes of a database lie.
pub(crate) fn folder(root: &Root, system: &System, database: &str) -> PathBuf {
    root.at(format!("/usr/sap/{}/SYS/global/hdb/backint", system.sid)).join(folder_name(database))
}

/// `SYSTEMDB` or `DB_TENANT`.
pub(crate) fn folder_name(database: &str) -> String {
    if database == "SYSTEMDB" { database.into() } else { format!("DB_{database}") }
}

impl Backint<'_> {
    /// Sends streams in one call: names and bytes. Gives the id of each.
    pub(crate) fn backup(
        &self,
        backup_id: i64,
        level: &str,
        option: &str,
        streams: Vec<(String, Vec<u8>)>,
    ) -> Result<Vec<String>, String> {
        let names: Vec<String> = streams.iter().map(|(name, _)| name.clone()).collect();
        let sizes: Vec<usize> = streams.iter().map(|(_, bytes)| bytes.len()).collect();
        let mut input = String::new();
        if !option.is_empty() {
            input += &format!("#TOOLOPTION {}\n", quoted(option));
        }
        for name in &names {
            input += &format!("#PIPE {}\n", quoted(name));
        }
        let _held = self.lock()?;
        let pipes = make_pipes(&names)?;
        let writers = streams.into_iter().map(|(name, bytes)| {
            std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
                OpenOptions::new().write(true).open(name)?.write_all(&bytes)?;
                Ok(Vec::new())
            })
        });
        let writers = writers.collect();
        let more = [
            "-s".to_string(),
            backup_id.to_string(),
            "-c".into(),
            names.len().to_string(),
            "-l".into(),
            level.into(),
        ];
        let output = self.call("backup", &input, &more, Streams { pipes, ends: writers })?.0;
        let mut ids = Vec::new();
        for ((words, name), size) in self.answers(&output, &names)?.into_iter().zip(&names).zip(sizes) {
            match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["#SAVED", ebid, saved, rest @ ..] if saved == name => {
                    if rest.first().is_some_and(|reported| *reported != size.to_string()) {
                        return Err(format!("Backint reports {rest:?} bytes of {name}, {size} were sent"));
                    }
                    ids.push((*ebid).to_string());
                }
                _ => return Err(format!("Backint could not save {name}: {}", words.join(" "))),
            }
        }
        Ok(ids)
    }

    /// Fetches streams: ids and names.
    pub(crate) fn restore(&self, wanted: &[(String, String)]) -> Result<Vec<Vec<u8>>, String> {
        let names: Vec<String> = wanted.iter().map(|(_, name)| name.clone()).collect();
        let input = self.ids(wanted);
        let _held = self.lock()?;
        let pipes = make_pipes(&names)?;
        let readers = names.iter().cloned().map(|name| {
            std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
                let mut bytes = Vec::new();
                File::open(name)?.read_to_end(&mut bytes)?;
                Ok(bytes)
            })
        });
        let readers = readers.collect();
        let (output, bytes) = self.call("restore", &input, &[], Streams { pipes, ends: readers })?;
        for (words, (ebid, name)) in self.answers(&output, &names)?.iter().zip(wanted) {
            let fits = matches!(words.as_slice(), [word, id, restored, ..] if word == "#RESTORED" && id == ebid && restored == name);
            if !fits {
                return Err(format!("Backint could not restore {name}: {}", words.join(" ")));
            }
        }
        Ok(bytes)
    }

    /// The newest id of a name; `None` where there is none.
    pub(crate) fn newest(&self, name: &str) -> Result<Option<String>, String> {
        let output = self.call("inquire", &format!("#NULL {}\n", quoted(name)), &[], Streams::default())?.0;
        let first = lines(&output)?.into_iter().next().unwrap_or_default();
        match first.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["#BACKUP", ebid, found, ..] if *found == name => Ok(Some((*ebid).to_string())),
            ["#NOTFOUND", ..] => Ok(None),
            _ => Err(format!("Backint could not inquire {name}: {}", first.join(" "))),
        }
    }

    /// Is each piece there? Names those that are not.
    pub(crate) fn missing(&self, wanted: &[(String, String)]) -> Result<Vec<String>, String> {
        let output = self.call("inquire", &self.ids(wanted), &[], Streams::default())?.0;
        let names: Vec<String> = wanted.iter().map(|(_, name)| name.clone()).collect();
        let answers = self.answers(&output, &names)?.into_iter().zip(names);
        Ok(answers
            .filter(|(words, _)| words.first().is_none_or(|word| word != "#BACKUP"))
            .map(|(_, name)| name)
            .collect())
    }

    /// Deletes pieces.
    pub(crate) fn delete(&self, pieces: &[&Piece]) -> Result<(), String> {
        let wanted: Vec<(String, String)> =
            pieces.iter().map(|piece| (piece.ebid.clone().unwrap_or_default(), piece.path.clone())).collect();
        let output = self.call("delete", &self.ids(&wanted), &[], Streams::default())?.0;
        let names: Vec<String> = wanted.into_iter().map(|(_, name)| name).collect();
        let wrong = self.answers(&output, &names)?.into_iter().find(|words| {
            !words.first().is_some_and(|word| ["#DELETED", "#NOTFOUND"].contains(&word.as_str()))
        });
        wrong.map_or(Ok(()), |words| Err(format!("Backint could not delete: {}", words.join(" "))))
    }

    /// Backup and restore of one name would meet in its pipe: one at a time.
    fn lock(&self) -> Result<File, String> {
        let name = format!("backint-{}-{}.lock", self.database, self.purpose);
        files::lock(&self.system.state(self.root, &name)).map_err(|error| error.to_string())
    }

    fn ids(&self, wanted: &[(String, String)]) -> String {
        wanted.iter().map(|(ebid, name)| format!("#EBID {} {}\n", quoted(ebid), quoted(name))).collect()
    }

    /// One line an entry; with the fault `backint-error` another answer for a name that it names.
    fn answers(&self, output: &str, names: &[String]) -> Result<Vec<Vec<String>>, String> {
        let mut lines = lines(output)?;
        if lines.len() != names.len() {
            return Err(format!("Backint answered {} lines to {} entries", lines.len(), names.len()));
        }
        for (line, name) in lines.iter_mut().zip(names) {
            if self.root.faults().find("backint-error", |part| name.contains(part)).is_some() {
                *line = vec!["#ERROR".into(), name.clone()];
            }
        }
        Ok(lines)
    }

    /// Starts the program, waits for it and the streams, gives its output and what the readers read.
    fn call(
        &self,
        function: &str,
        input: &str,
        more: &[String],
        streams: Streams,
    ) -> Result<(String, Vec<Vec<u8>>), String> {
        let Streams { pipes, ends: streams } = streams;
        let (root, system) = (self.root, self.system);
        let io = |error: std::io::Error| format!("Backint: {error}");
        let stamp = format!("{}.{}", std::process::id(), clock::now());
        let place = |kind: &str| root.at(format!("/var/tmp/hdbbackint_{}.{kind}{stamp}", system.sid));
        let (asked, answered) = (place("i"), place("o"));
        let version = format!("HANA HDB server {}.{}", system.version, system.build);
        let text = format!("#SOFTWAREID \"backint 1.04\" \"{version}\"\n{input}");
        fs::write(&asked, text).map_err(io)?;
        fs::write(&answered, "").map_err(io)?;
        let user = match self.database {
            "SYSTEMDB" => self.of.to_string(),
            tenant => format!("{tenant}@{}", self.of),
        };
        let mut command =
            Command::new(root.at(format!("/usr/sap/{}/SYS/global/hdb/opt/hdbbackint", system.sid)));
        command.args(["-f", function]);
        let parameter = format!("{}_backup_parameter_file", self.purpose);
        if let Some(file) = system.parameter(self.database, "backup", &parameter) {
            command.arg("-p").arg(root.at(file));
        }
        command.arg("-i").arg(&asked).arg("-o").arg(&answered).args(["-u", &user]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let patience = system.parameter(self.database, "backup", "backint_response_timeout");
        let patience = patience.and_then(|seconds| seconds.parse().ok()).unwrap_or(PATIENCE);
        let ended = command.spawn().map_err(io).and_then(|child| wait(child, patience));
        let streams = release(&pipes, streams);
        let output = fs::read_to_string(&answered);
        drop(pipes);
        for file in [&asked, &answered] {
            let _ = fs::remove_file(file);
        }
        let code = ended?;
        if code != 0 {
            return Err(format!("[110507] Backint exited with exit code {code} instead of 0"));
        }
        let bytes = streams.into_iter().collect::<Result<Vec<_>, _>>().map_err(io)?;
        Ok((output.map_err(io)?, bytes))
    }
}

/// Waits for the program, and kills it when its time is over.
fn wait(mut child: Child, seconds: u64) -> Result<i32, String> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.code().unwrap_or(-1)),
            Ok(None) if begun.elapsed() < Duration::from_secs(seconds) => {}
            _ => {
                // It is over either way: what matters is that nothing of it is left.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("Backint did not answer within {seconds} s"));
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The pipes of a call, and the threads that write into them or read from them.
#[derive(Default)]
struct Streams {
    pipes: Vec<Pipe>,
    ends: Vec<JoinHandle<std::io::Result<Vec<u8>>>>,
}

/// A named pipe that goes when it is dropped.
struct Pipe(PathBuf);

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn make_pipes(names: &[String]) -> Result<Vec<Pipe>, String> {
    let make = |name: &String| {
        let path = PathBuf::from(name);
        let io = |error: std::io::Error| format!("{name}: {error}");
        files::folder(path.parent().unwrap_or(Path::new("/"))).map_err(io)?;
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600))
            .map_err(|error| format!("{name}: {error}"))?;
        Ok(Pipe(path))
    };
    names.iter().map(make).collect()
}

/// Ends the streams that wait for a program that is gone, by opening their other end, and gives what each of them got.
fn release(
    pipes: &[Pipe],
    streams: Vec<JoinHandle<std::io::Result<Vec<u8>>>>,
) -> Vec<std::io::Result<Vec<u8>>> {
    while streams.iter().any(|stream| !stream.is_finished()) {
        for pipe in pipes {
            let flags = nix::libc::O_NONBLOCK;
            drop(OpenOptions::new().read(true).custom_flags(flags).open(&pipe.0));
            drop(OpenOptions::new().write(true).custom_flags(flags).open(&pipe.0));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let gone = || Err(std::io::Error::other("the stream broke"));
    streams.into_iter().map(|stream| stream.join().unwrap_or_else(|_| gone())).collect()
}

/// A parameter in quotes: a backslash escapes only a quote.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}

/// The entries of an output, as words; the first must be `#SOFTWAREID`, which is left out, as are comments.
fn lines(output: &str) -> Result<Vec<Vec<String>>, String> {
    const KNOWN: [&str; 8] =
        ["#SOFTWAREID", "#SAVED", "#RESTORED", "#BACKUP", "#NOTFOUND", "#DELETED", "#NOTDELETED", "#ERROR"];
    let mut entries: Vec<Vec<String>> = output
        .lines()
        .map(words)
        .filter(|words| words.first().is_some_and(|word| KNOWN.contains(&word.as_str())))
        .collect();
    if entries.first().and_then(|words| words.first()).is_none_or(|word| word != "#SOFTWAREID") {
        return Err("Backint's answer does not begin with #SOFTWAREID".into());
    }
    entries.remove(0);
    Ok(entries)
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut letters = line.chars().peekable();
    while let Some(first) = letters.next() {
        let mut word = String::new();
        match first {
            ' ' => continue,
            '"' => {
                while let Some(letter) = letters.next() {
                    match letter {
                        '\\' if letters.peek() == Some(&'"') => word.extend(letters.next()),
                        '"' => break,
                        _ => word.push(letter),
                    }
                }
            }
            _ => {
                word.push(first);
                while let Some(letter) = letters.next_if(|letter| *letter != ' ') {
                    word.push(letter);
                }
            }
        }
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "a backslash is an escape only before a quote: any other backslash is literal".
    #[test]
    fn words_of_the_grammar() {
        assert_eq!(
            words(r#"#EBID "Hb12\"NAB" "/var/tmp/a b\c" 17"#),
            ["#EBID", "Hb12\"NAB", "/var/tmp/a b\\c", "17"]
        );
        assert_eq!(words(&format!("#PIPE {}", quoted("a\"b"))), ["#PIPE", "a\"b"]);
    }

    #[test]
    fn an_answer_begins_with_the_software_and_may_hold_comments() {
        assert!(lines("#SAVED \"1\" \"/x\"\n").is_err());
        let answer = "#SOFTWAREID \"backint 1.04\" \"x\"\nsome words\n#ERROR \"/x\"\n";
        assert_eq!(lines(answer).unwrap(), [["#ERROR", "/x"]]);
    }
}
