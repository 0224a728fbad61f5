//! The reader's pager: a program of his choice that gets a long text on its standard input.
//!
//! It is started as it is named, word by word, and never through a shell.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Shows the text, and waits until the reader has seen enough; false: there is no such program, and nothing was shown.
/// `env`: what is added to the pager's environment.
pub fn show(command: &str, text: &str, env: &[(&str, &str)]) -> io::Result<bool> {
    let mut words = command.split_whitespace();
    let Some(program) = words.next() else { return Ok(false) };
    let mut pager = Command::new(program);
    pager.args(words).stdin(Stdio::piped()).envs(env.iter().copied());
    let Ok(mut child) = pager.spawn() else { return Ok(false) };
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(text.as_bytes()) {
            // The reader has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pager_gets_the_text_and_one_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        let command = format!("dd status=none of={}", copy.display());
        assert!(show(&command, "a\nb\n", &[]).unwrap());
        assert_eq!(std::fs::read_to_string(copy).unwrap(), "a\nb\n");
        assert!(!show("/nonexistent/pager -x", "a", &[]).unwrap());
        assert!(!show("  ", "a", &[]).unwrap());
        let long = "x\n".repeat(1 << 20);
        assert!(show("true", &long, &[]).unwrap(), "one that does not read to the end is no error");
    }
}
