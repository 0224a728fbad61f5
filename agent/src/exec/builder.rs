//! A builder of packages (dpkg-deb, rpmbuild): started for a person, who waits for it and can stop it with Ctrl-C.

use std::io;
use std::process::{Command, Stdio};

use crate::domain::text;

/// Of what a builder says, so much at its end is shown, in bytes.
const SAID: usize = 400;

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The program is not installed.
    #[error("{program} is not installed")]
    Missing {
        /// The program.
        program: String,
    },
    /// It failed.
    #[error("{program} failed: {said}")]
    Failed {
        /// The program.
        program: String,
        /// The end of what it said, in one line.
        said: String,
    },
}

/// Runs a builder to its end, with these variables beside those that are there.
pub fn build(program: &str, arguments: &[String], variables: &[(&str, String)]) -> Result<(), BuildError> {
    let failed = |said: String| BuildError::Failed { program: program.to_owned(), said };
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BuildError::Missing { program: program.to_owned() });
        }
        output => output.map_err(|error| failed(error.to_string()))?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(failed(format!("{} ({})", text::tail(&said, SAID), output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_that_fails_or_is_missing_is_named() {
        build("true", &[], &[]).unwrap();
        let error = build("sh", &["-c".into(), "echo 'no such\n spec' >&2; exit 3".into()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "sh failed: no such spec (exit status: 3)");
        let error = build("no-such-builder", &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "no-such-builder is not installed");
    }
}
