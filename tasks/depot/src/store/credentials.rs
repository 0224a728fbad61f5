//! Keys from a folder with a file for each: the secrets of a task, or any folder that something else keeps fresh.
//!
//! They are read again each minute, so that a program that runs for hours takes up renewed ones.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};

use crate::error::Error;
use crate::secret::Secret;

/// The key's id.
pub const KEY_ID: &str = "s3_access_key_id";
const KEY: &str = "s3_secret_access_key";
const TOKEN: &str = "s3_session_token";

/// After this the files are read again. The SDK takes up new ones ten seconds before the end of the old.
const FRESH: Duration = Duration::from_secs(20);

/// Keys that are younger than this may not be known to all of a store's servers yet.
const YOUNG: Duration = Duration::from_secs(120);

/// Whether the folder's keys were written a moment ago.
pub fn young(folder: &Path) -> bool {
    let written = std::fs::metadata(folder.join(KEY_ID)).and_then(|found| found.modified());
    written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < YOUNG))
}

/// The folder.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Looks whether the files are there.
    pub fn new(path: &Path) -> Result<Self, Error> {
        for name in [KEY_ID, KEY] {
            let file = path.join(name);
            if !file.is_file() {
                return Err(Error::Config(format!(
                    "{}: there is no such file with credentials",
                    file.display()
                )));
            }
        }
        Ok(Self(path.to_owned()))
    }

    fn read(&self) -> Result<Credentials, CredentialsError> {
        let read = |name: &str| {
            Secret::read(&self.0.join(name))
                .map_err(|error| CredentialsError::provider_error(error.to_string()))
        };
        let token = self.0.join(TOKEN).exists().then(|| read(TOKEN)).transpose()?;
        Ok(Credentials::new(
            read(KEY_ID)?.expose(),
            read(KEY)?.expose(),
            token.map(|token| token.expose().to_owned()),
            Some(SystemTime::now() + FRESH),
            "folder",
        ))
    }
}

impl ProvideCredentials for Folder {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.read())
    }
}
