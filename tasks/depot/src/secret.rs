//! Values that must not be seen: no `Debug`, no `Display`, no `Serialize`, and overwritten when dropped.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Error;

/// Most that a file with a secret may hold.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret text.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Reads the file, without the line's end.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let place = path.display();
        let size = fs::metadata(path).map_err(Error::local(place.to_string()))?.len();
        if size > MAX_BYTES {
            return Err(Error::Config(format!("{place}: {size} bytes are too many for a secret")));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(Error::local(place.to_string()))?);
        Ok(Self(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())))
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
