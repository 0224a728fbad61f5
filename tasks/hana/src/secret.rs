//! Values that must not be seen: no `Debug`, no `Display`, no `Serialize`, and overwritten when dropped.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroizing;

use crate::error::Error;

/// Most that a file with a secret may hold.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret text.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Secret {
    /// A password that nobody knows: 128 random bits, with a capital letter, a small one and a digit before them.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0_u8; 16]);
        let source = "/dev/urandom";
        let mut file = fs::File::open(source).map_err(Error::local(source))?;
        file.read_exact(bytes.as_mut_slice()).map_err(Error::local(source))?;
        let mut text = Zeroizing::new(String::with_capacity(40));
        text.push_str("Aa1");
        for byte in bytes.iter() {
            for half in [byte >> 4, byte & 15] {
                text.push(char::from_digit(half.into(), 16).unwrap_or_default());
            }
        }
        Ok(Self(text))
    }

    /// Whether it can stand between the quotation marks of SQL, and be given to hdblcm.
    pub fn is_quotable(&self) -> bool {
        !self.0.contains(['\\', '\'', '"', '`', '$'])
    }
}

/// The folder with a file for each secret of a run: `HOSTLER_SECRETS`.
#[derive(Clone, Debug)]
pub struct Secrets(Option<PathBuf>);

impl Secrets {
    /// `None`: this run has no secrets.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// Reads the secret of that name, without the line's end.
    pub fn read(&self, name: &str) -> Result<Secret, Error> {
        let folder = self.0.as_deref().ok_or_else(|| {
            Error::Config(format!(
                "the secret `{name}` is needed: name the folder with its file in HOSTLER_SECRETS, or run the task"
            ))
        })?;
        read(&folder.join(name))
    }
}

impl Secrets {
    /// Reads the secret of that name, which is Base64 of any bytes.
    pub fn bytes(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let text = self.read(name)?;
        let bytes = BASE64_STANDARD.decode(text.expose());
        bytes.map(Zeroizing::new).map_err(|_| Error::Config(format!("the secret `{name}` is no Base64")))
    }
}

fn read(path: &Path) -> Result<Secret, Error> {
    let place = path.display();
    let size = fs::metadata(path).map_err(Error::local(place.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(Error::Config(format!("{place}: {size} bytes are too many for a secret")));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(Error::local(place.to_string()))?);
    let value = text.trim_end_matches(['\r', '\n']);
    if value.is_empty() || value.contains(char::is_control) {
        return Err(Error::Config(format!("{place}: a secret is one line that is not empty")));
    }
    Ok(Secret(Zeroizing::new(value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(Some(folder.path().to_owned()));
        for (text, good) in
            [("Abc12345\n", true), ("a]]>b", true), ("", false), ("\n", false), ("a\nb", false)]
        {
            fs::write(folder.path().join("one"), text).unwrap();
            assert_eq!(secrets.read("one").is_ok(), good, "{text:?}");
        }
        assert_eq!(secrets.read("none").map(|_| ()).unwrap_err().code(), 9);
        assert_eq!(Secrets::new(None).read("one").map(|_| ()).unwrap_err().code(), 3);
        for (text, good) in
            [("Abc12345", true), ("a\"b", false), ("a$b", false), ("a\\b", false), ("a'b", false)]
        {
            fs::write(folder.path().join("one"), text).unwrap();
            assert_eq!(secrets.read("one").map(|secret| secret.is_quotable()).unwrap_or_default(), good);
        }
        let random = Secret::random().map(|one| (one.expose().len(), one.is_quotable())).unwrap_or_default();
        assert_eq!(random, (35, true));
        fs::write(folder.path().join("one"), "x".repeat(70_000)).unwrap();
        assert_eq!(secrets.read("one").map(|_| ()).unwrap_err().code(), 3);
    }
}
