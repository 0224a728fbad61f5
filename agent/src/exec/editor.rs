//! The reader's editor: a program of his choice that changes a file.
//!
//! It is started as it is named, word by word, and never through a shell; it has the terminal until it ends.

use std::io;
use std::path::Path;
use std::process::Command;

/// Has the file edited, and waits; false: there is no such program, or it ended with a failure.
pub fn edit(command: &str, file: &Path) -> io::Result<bool> {
    let mut words = command.split_whitespace();
    let Some(program) = words.next() else { return Ok(false) };
    match Command::new(program).args(words).arg(file).status() {
        Ok(status) => Ok(status.success()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_that_fails_or_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("order");
        assert!(edit("touch", &file).unwrap() && file.exists());
        assert!(!edit("false", &file).unwrap());
        assert!(!edit("/nonexistent/editor -w", &file).unwrap());
        assert!(!edit(" ", &file).unwrap());
    }
}
